"""An autopsy needs no more memory than the batch did, leaves none behind, and gives up quietly when there is none."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Iterator, Mapping
from typing import Any

import pytest
import torch
from autopsy_rig import classifier, cross_entropy, tensor_case
from torch import Tensor, nn

from benchmarks.saved_tensors import SavedTensors
from yolo_stable.autopsy.case import TensorCase
from yolo_stable.autopsy.examine import examine
from yolo_stable.autopsy.locate import locate_call
from yolo_stable.autopsy.replay import Deadline, Replayer, is_out_of_memory
from yolo_stable.autopsy.report import AutopsyReport
from yolo_stable.autopsy.symptom import Symptom

NAN = float("nan")
LIMIT = 1.05


@pytest.fixture
def no_collector() -> Iterator[None]:
    """What is in a reference cycle stays alive."""
    gc.disable()
    yield
    gc.enable()


def break_forward(model: nn.Module, batch: Any, precision: str | None) -> tuple[Tensor, Mapping[str, Any]]:
    """The loss of the third class is NaN."""
    loss, items = cross_entropy(model, batch, precision)
    return (loss * NAN, {"loss": NAN}) if bool((batch[1] == 3).any()) else (loss, items)


class Slope(torch.autograd.Function):
    """Nothing in the forward pass, and NaN in the backward pass."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return x.clone()

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> Any:
        return gradients[0] * NAN


def break_backward(model: nn.Module, batch: Any, precision: str | None) -> tuple[Tensor, Mapping[str, Any]]:
    loss, items = cross_entropy(model, batch, precision)
    return Slope.apply(loss), items


IN_LOSS, IN_GRADIENT = Symptom(loss=NAN, items={"loss": NAN}), Symptom(kind="window", norm=NAN)


def clean_peak(size: int) -> int:
    case = tensor_case(size=size)
    with SavedTensors() as held:
        loss, _ = case.call()
        loss.backward()
    return held.peaks[0]


@pytest.mark.parametrize("snapshot", [True, False])
@pytest.mark.parametrize("size", [1, 2, 3, 8])
@pytest.mark.parametrize(("forward", "seen"), [(break_forward, IN_LOSS), (break_backward, IN_GRADIENT)])
def test_it_needs_no_more_than_the_batch_did_and_leaves_nothing(
    forward: Any, seen: Symptom, size: int, snapshot: bool, no_collector: None
) -> None:
    model = classifier()
    case = tensor_case(model, size, forward)
    case.batch[1][-1] = 3
    state = dict(model.state_dict()) if snapshot else None
    limit = LIMIT * clean_peak(size)
    with SavedTensors() as held:
        report = examine(case, seen, healthy_state=state, frugal=True)
        assert report.reproduced, report.text()
        assert held.now == 0, "something keeps a graph alive"
    assert 0 < held.peaks[0] <= limit


def test_a_small_batch_is_asked_in_float64_only_where_memory_is_free() -> None:
    """Float64 takes twice the memory, and of two images the suspect takes all."""
    peaks = []
    for frugal in (True, False):
        with SavedTensors() as held:
            assert examine(tensor_case(size=2, forward=break_backward), IN_GRADIENT, frugal=frugal).reproduced
        peaks.append(held.peaks[0])
    assert peaks[1] > 1.5 * peaks[0]


@pytest.mark.parametrize("backward", [True, False])
def test_a_traced_replay_lets_go_of_graph_and_batch(backward: bool, no_collector: None) -> None:
    case = tensor_case(forward=break_forward)
    pixels = weakref.ref(case.images)
    with SavedTensors() as held:
        location = locate_call(case.model, case.call, inputs=case.batch, backward=backward)
        assert location.loss is not None
        assert held.now == 0
    del case
    assert pixels() is None, "a cycle holds the batch"


# ---- not enough memory ---------------------------------------------------------------------------------------------------


class Full:
    """A network's forward pass for whose ``after``-th call there is no memory any more."""

    def __init__(self, after: int, error: BaseException) -> None:
        self.after, self.error, self.calls = after, error, 0
        self.held: list[weakref.ref[Tensor]] = []

    def __call__(self, model: nn.Module, batch: Any, precision: str | None) -> tuple[Tensor, Mapping[str, Any]]:
        self.calls += 1
        loss, items = break_forward(model, batch, precision)
        if self.calls >= self.after:
            activations = torch.zeros(1000)
            self.held.append(weakref.ref(activations))
            raise type(self.error)(*self.error.args)
        return loss, items


ERRORS = (
    torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."),
    RuntimeError("MPS backend out of memory (MPS allocated: 9.07 GB)"),
    RuntimeError(
        "[enforce fail at alloc_cpu.cpp:127] DefaultCPUAllocator: can't allocate memory: you tried to allocate 8"
    ),
    RuntimeError("DefaultCPUAllocator: not enough memory: you tried to allocate 8 bytes."),
    MemoryError(),
)


@pytest.mark.parametrize("after", [1, 2, 3])
@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
def test_without_memory_it_is_undecided_and_nothing_is_tried_again(
    error: BaseException, after: int, no_collector: None
) -> None:
    full = Full(after, error)
    report = examine(tensor_case(forward=full), IN_LOSS)
    assert full.calls == after, "what does not fit is not tried again"
    assert (report.cause, report.evidence["why"]) == ("undecided", "not enough memory for a replay")
    assert report.headline().endswith("undecided: not enough memory")
    assert report.next.startswith("Memory ran out.\nRun the autopsy again after the training:\nyolo-stable autopsy")
    assert AutopsyReport.from_json(report.to_json()) == report
    assert all(held() is None for held in full.held), "the error's frames keep memory alive"


def test_what_was_seen_before_memory_ran_out_still_counts() -> None:
    case = tensor_case(forward=Full(1, ERRORS[0]))
    case.images[2, 0, 3, 3] = NAN
    report = examine(case, IN_LOSS)
    assert (report.cause, report.samples[0].index) == ("data", 2)


def test_a_break_before_memory_ran_out_is_not_taken_for_the_fault() -> None:
    """A pass that ends by an error counts as broken when something in it was; a lack of memory says nothing of it."""

    def forward(model: nn.Module, batch: Any, precision: str | None) -> tuple[Tensor, Mapping[str, Any]]:
        torch.zeros(1).log()  # an infinity that does no harm
        raise torch.OutOfMemoryError("CUDA out of memory.")

    report = examine(tensor_case(forward=forward), IN_LOSS)
    assert (report.cause, report.reproduced) == ("undecided", False)


def test_another_error_is_no_lack_of_memory() -> None:
    assert not is_out_of_memory(RuntimeError("CUDA error: device-side assert triggered"))
    assert not is_out_of_memory(ValueError("out of memory"))
    full = Full(1, RuntimeError("shapes do not fit"))
    assert Replayer(IN_LOSS, Deadline(None)).play(TensorCase(classifier(), tensor_case().batch, full)).error


def test_a_wider_forward_pass_saves_nothing() -> None:
    with SavedTensors() as held:
        outcome = Replayer(IN_LOSS, Deadline(None)).play(tensor_case(), precision="float64")
    assert outcome.sick is False
    assert held.peaks == [0]
