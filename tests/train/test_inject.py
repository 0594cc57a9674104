"""What people write after ``--inject`` happens at the batch that is printed, is announced, and is accounted for."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from faulty import Loop
from ultralytics.models.yolo.detect import DetectionTrainer

from yolo_stable import StableDetectionTrainer
from yolo_stable.chaos import DeviceFault, Fault, FileFault, LayerFault
from yolo_stable.errors import InvalidCallError
from yolo_stable.train import inject
from yolo_stable.train.inject import KINDS, Injected, Injection, faulty, parse


class Epochs(Loop):
    """Some epochs of four batches."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.train_loader, self.epochs, self.start_epoch = [None] * 4, 3, 0


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("nan-pixel@2.10", Injection("nan-pixel", 2, 10)),
        ("nan-loss@1.1x3", Injection("nan-loss", 1, 1, times=3)),
        ("lr-x100@3.1+", Injection("lr-x100", 3, 1, onwards=True)),
        ("nan-layer:model.4@1.2", Injection("nan-layer", 1, 2, detail="model.4")),
        ("nan-weight:model.4.cv1.conv@1.2", Injection("nan-weight", 1, 2, detail="model.4.cv1.conv")),
        ("nan-file:C:/a@b.jpg@1.1+", Injection("nan-file", 1, 1, onwards=True, detail="C:/a@b.jpg")),
    ],
)
def test_a_text_is_read(text: str, expected: Injection) -> None:
    assert parse(text) == (expected,)
    assert str(expected) == text


def test_several_are_separated_by_commas() -> None:
    assert [one.kind for one in parse("nan-pixel@2.1, inf-loss@1.1x2 ,bad-label@1.1+")] == [
        "nan-pixel",
        "inf-loss",
        "bad-label",
    ]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("nan-pixle@1.1", "Did you mean 'nan-pixel'"),
        ("", "there is no kind ''"),
        ("nan-pixel", "write KIND"),
        ("nan-pixel@2", "write KIND"),
        ("nan-pixel@a.b", "write KIND"),
        ("nan-pixel@1.1x", "write KIND"),
        ("nan-pixel@1.1x2+", "write KIND"),
        ("nan-pixel@0.1", "count from 1"),
        ("nan-pixel@1.0", "count from 1"),
        ("nan-pixel@1.1x0", "count from 1"),
        ("nan-pixel:model.4@1.1", "has no detail"),
        ("nan-layer@1.1", "needs a module, such as model.4"),
        ("nan-file@1.1+", "needs the end of the path"),
        ("nan-file:000001.jpg@1.2", "write nan-file:000001.jpg@1.1+"),
        ("nan-pixel@1.1,", "there is no kind ''"),
    ],
)
def test_what_is_not_understood_is_refused(text: str, said: str) -> None:
    with pytest.raises(InvalidCallError, match="--inject") as caught:
        parse(text)
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_batches_count_from_one_and_over_the_run() -> None:
    assert parse("nan-pixel@2.10")[0].fault(16).at == (25,)
    assert parse("nan-pixel@1.16x3")[0].fault(16).at == (15, 16, 17)
    fault = parse("lr-x100@3.1+")[0].fault(16)
    assert (fault.at, fault.since) == ((), 32)
    assert parse("nan-pixel@4.1")[0].fault(16, epochs=5, first_epoch=3).at == (16,), (
        "a run that goes on counts from there"
    )


@pytest.mark.parametrize(
    ("text", "said"), [("nan-pixel@2.17", "16 batches"), ("nan-pixel@6.1", "1? ?3 to 5"), ("nan-pixel@2.1", "3 to 5")]
)
def test_a_batch_that_the_run_does_not_have_is_refused(text: str, said: str) -> None:
    with pytest.raises(InvalidCallError, match=said):
        parse(text)[0].fault(16, epochs=5, first_epoch=3)


def example(kind: str) -> str:
    if KINDS[kind].whenever_drawn:
        return f"{kind}:im1.jpg@1.1+"
    return f"{kind}:3@1.2" if KINDS[kind].required else f"{kind}@1.2"


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_is_a_fault(kind: str) -> None:
    fault = parse(example(kind))[0].fault(4)
    assert isinstance(fault, (Fault, LayerFault, DeviceFault, FileFault))
    name = kind.split("-")[0]
    if name == "nan" and isinstance(fault, (Fault, FileFault)):
        assert math.isnan(fault.value)
    if name == "huge":
        assert 1e20 <= fault.value < math.inf


@pytest.mark.parametrize("kind", [kind for kind in KINDS if not KINDS[kind].whenever_drawn and kind != "half-layer"])
def test_every_kind_fires_at_its_batch_and_says_so(kind: str) -> None:
    said: list[str] = []
    trainer = faulty(Epochs, f"{example(kind)[:-4]}@2.3", said.append)(adam=True)
    trainer.train(12)
    (armed,) = trainer.injected.armed
    assert (armed.fired, armed.batches) == (1, 12)
    assert len(said) == 2
    assert said[0].endswith(f"on purpose (--inject): {example(kind)[:-4]}@2.3.")
    assert said[1] == f"Injected faults: {example(kind)[:-4]}@2.3 fired 1 time."


def test_a_pixel_of_the_printed_batch() -> None:
    trainer = faulty(Epochs, "nan-pixel@2.3,inf-pixel@3.1x2", lambda line: None)()
    trainer.train(12)
    assert [i for i, seen in enumerate(trainer.seen) if seen["img"].isnan().any()] == [6]
    assert [i for i, seen in enumerate(trainer.seen) if seen["img"].isinf().any()] == [8, 9]


def test_two_faults_of_the_loss_do_not_hide_each_other() -> None:
    trainer = faulty(Epochs, "nan-loss@1.2,inf-loss@1.4", lambda line: None)()
    trainer.train(12)
    clean = [seen["clean"] for seen in trainer.seen]
    assert [math.isfinite(seen["loss"]) for seen in trainer.seen[:2]] == [True, False]
    assert math.isfinite(clean[1])
    assert [armed.fired for armed in trainer.injected.armed] == [1, 1]


def test_what_never_fired_is_said() -> None:
    said: list[str] = []
    trainer = faulty(Epochs, "nan-pixel@1.1,nan-loss@3.1x2", said.append)()
    trainer.train(9)
    assert said[1] == "Injected faults: nan-pixel@1.1 fired 1 time, nan-loss@3.1x2 fired 1 time."
    said.clear()
    faulty(Epochs, "nan-loss@3.1", said.append)().train(4)
    assert said[1] == "Injected faults: nan-loss@3.1 NEVER fired."


def test_the_end_is_said_of_a_run_that_fails_as_well() -> None:
    class Failing(Epochs):
        def optimizer_step(self) -> None:
            raise ArithmeticError

    said: list[str] = []
    with pytest.raises(ArithmeticError):
        faulty(Failing, "nan-pixel@1.1", said.append)().train(2)
    assert "fired 1 time" in said[-1]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("nan-pixel@4.1", "1 to 3"),
        ("nan-layer:model.4@1.1", "no module 'model.4'"),
        ("overflow-layer:6@1.3", "has no weight: it cannot be made to overflow"),
        ("nan-weight:6@2.2", "has no weight: a fault cannot be put there"),
        ("nan-running-var:0@2.2", "has no running_var: a fault cannot be put there"),
    ],
)
def test_what_the_run_does_not_have_is_said_at_its_first_batch(text: str, said: str) -> None:
    trainer = faulty(Epochs, text, lambda line: None)()
    trainer.model.append(torch.nn.ReLU())
    with pytest.raises(InvalidCallError, match=said):
        trainer.train(1)
    assert trainer.seen == []


def test_several_devices_are_refused() -> None:
    trainer = faulty(Epochs, "nan-pixel@1.1", lambda line: None)()
    trainer.ddp = True
    with pytest.raises(InvalidCallError, match="one device only"):
        trainer.train(1)


def test_a_run_that_is_resumed_counts_from_its_first_epoch() -> None:
    trainer = faulty(Epochs, "nan-pixel@3.2", lambda line: None)()
    trainer.start_epoch = 1
    trainer.train(8)
    assert [i for i, seen in enumerate(trainer.seen) if seen["img"].isnan().any()] == [5]


def test_an_epoch_begun_again_with_other_batches_is_counted_anew() -> None:
    class Rebuilding(Epochs):
        def _build_train_pipeline(self) -> None:
            self.train_loader = [None] * 8

    trainer = faulty(Rebuilding, "nan-pixel@2.1", lambda line: None)()
    trainer.train(1)  # ran out of memory
    trainer._build_train_pipeline()
    trainer.train(10)
    assert [i for i, seen in enumerate(trainer.seen) if seen["img"].isnan().any()] == [9]


def test_every_place_of_the_loop_has_a_name() -> None:
    from yolo_stable.chaos import PLACES

    faults = [parse(example(kind))[0].fault(4) for kind in KINDS]
    assert {fault.place for fault in faults if isinstance(fault, Fault)} == set(PLACES)


def test_the_report_needs_one_armed_fault_each() -> None:
    injected = Injected(parse("nan-pixel@1.1"))
    injected.armed = [SimpleNamespace(fired=2)]
    assert injected.report() == "Injected faults: nan-pixel@1.1 fired 2 times."
    assert inject.FORM.startswith("KIND")


@pytest.mark.parametrize("kind", [DetectionTrainer, StableDetectionTrainer])
def test_real_training_takes_several_at_once(kind: type, arguments: Callable[..., dict[str, Any]]) -> None:
    said: list[str] = []
    text = (
        "inf-backward:model.2@1.1,overflow-layer:model.2.cv1.conv@1.2,device-once:model.3.conv@1.3,"
        "device-always:model.5.conv@1.4,huge-running-var:model.3.bn@1.2,nan-pixel@1.4"
    )
    trainer = faulty(kind, text, said.append)(
        overrides=arguments(epochs=1 if kind is DetectionTrainer else 2, workers=0, val=False)
    )
    trainer.train()
    fired = [armed.fired for armed in trainer.injected.armed]
    assert fired[1:] == [1] * 5
    assert fired[0] == 1, "it got to a backward pass"
    assert len(said) == 2
    checkpoint = torch.load(trainer.last, weights_only=False)
    model = checkpoint["ema"] or checkpoint["model"]
    for module in (model, trainer.model):
        assert not any("forward" in vars(part) for part in module.modules())
    assert b"chaos" not in Path(trainer.last).read_bytes()
    if kind is StableDetectionTrainer:
        assert trainer.guard.counts.rejected >= 4
        assert all(bool(v.isfinite().all()) for v in trainer.model.state_dict().values())
