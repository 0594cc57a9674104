from __future__ import annotations

import copy
import math
import pickle
import weakref
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from yolo_stable.guard import StepGuard
from yolo_stable.guard import buffers as buffers_module
from yolo_stable.guard.buffers import BufferShadow

NAN = math.nan


def captured(shadow: BufferShadow) -> tuple[Any, list[Tensor]]:
    """Return a copy of the live buffers, and whether each of its parts is finite."""
    taken, moved = shadow.capture()
    return taken, [ratio.isfinite() for ratio in moved]


def values(model: nn.Module) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in model.named_buffers()}


def assert_buffers(model: nn.Module, expected: dict[str, Tensor]) -> None:
    now = dict(model.named_buffers())
    assert now.keys() == expected.keys()
    for name, tensor in expected.items():
        assert now[name].dtype == tensor.dtype, name
        assert torch.equal(now[name], tensor), name


def forward(model: nn.Module, x: Tensor) -> None:
    with torch.no_grad():
        model(x)


def pair(mean: float) -> Tensor:
    """Return two values with this mean and a variance of 2, as BatchNorm with one channel takes it."""
    return torch.tensor([[mean - 1.0], [mean + 1.0]])


def test_the_story_of_two_windows_with_known_values() -> None:
    """With momentum 0.5 the running mean is the mean of what it was and of the batch's mean."""
    norm = nn.BatchNorm1d(1, momentum=0.5)
    shadow = BufferShadow(norm)

    def state() -> tuple[float, float, int]:
        assert norm.running_mean is not None
        assert norm.running_var is not None
        assert norm.num_batches_tracked is not None
        return norm.running_mean.item(), norm.running_var.item(), int(norm.num_batches_tracked)

    def run(mean: float) -> bool:
        forward(norm, pair(mean))
        taken, flags = captured(shadow)
        healthy = all(flags)
        if healthy:
            shadow.accept(taken)
        else:
            shadow.reject(taken)
        return healthy

    assert state() == (0.0, 1.0, 0)
    assert run(8.0)
    assert state() == (4.0, 1.5, 1)
    assert not run(NAN)
    assert state() == (4.0, 1.5, 1)  # only the bad micro-batch is undone
    assert run(12.0)
    assert state() == (8.0, 1.75, 2)
    shadow.undo_window()
    assert state() == (0.0, 1.0, 0)  # the whole window is undone

    assert run(8.0)
    shadow.commit()
    assert not run(math.inf)
    assert not run(NAN)
    assert state() == (4.0, 1.5, 1)
    assert run(0.0)
    assert state() == (2.0, 1.75, 2)
    shadow.undo_window()
    assert state() == (4.0, 1.5, 1)  # back to the last commit, and no further
    shadow.undo_window()
    assert state() == (4.0, 1.5, 1)
    assert run(0.0)
    shadow.commit()
    shadow.commit()
    shadow.undo_window()
    assert state() == (2.0, 1.75, 2)


def instance_norm() -> nn.Module:
    return nn.InstanceNorm2d(3, affine=True, track_running_stats=True)


def frozen() -> nn.Module:
    return nn.Sequential(nn.BatchNorm2d(3), nn.BatchNorm2d(3).eval())


def no_momentum() -> nn.Module:
    return nn.BatchNorm2d(3, momentum=None)


def no_counter() -> nn.Module:
    norm = nn.BatchNorm2d(3)
    norm.num_batches_tracked = None
    return norm


class TwiceUsed(nn.Module):
    """One BatchNorm under two names, run twice in each forward pass."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.BatchNorm2d(3)
        self.second = self.first

    def forward(self, x: Tensor) -> Tensor:
        return self.second(self.first(x) * 2.0 + 1.0)


class Reassigning(nn.BatchNorm2d):
    """Counts by putting a new tensor in the place of the old one, as some libraries do."""

    def forward(self, input: Tensor) -> Tensor:
        out = super().forward(input)
        assert self.running_mean is not None
        self.running_mean = self.running_mean + 0.0
        return out


LAYERS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...], int]] = {
    "BatchNorm1d": (lambda: nn.BatchNorm1d(3), (4, 3), 1),
    "BatchNorm1d of sequences": (lambda: nn.BatchNorm1d(3), (4, 3, 5), 1),
    "BatchNorm2d": (lambda: nn.BatchNorm2d(3), (4, 3, 5, 5), 1),
    "BatchNorm3d": (lambda: nn.BatchNorm3d(3), (4, 3, 2, 2, 2), 1),
    "InstanceNorm2d": (instance_norm, (4, 3, 5, 5), 1),
    "SyncBatchNorm": (lambda: nn.SyncBatchNorm(3), (4, 3, 5, 5), 1),  # of one process: it is BatchNorm
    "frozen next to it": (frozen, (4, 3, 5, 5), 2),
    "momentum=None": (no_momentum, (4, 3, 5, 5), 1),
    "no counter": (no_counter, (4, 3, 5, 5), 1),
    "used twice": (TwiceUsed, (4, 3, 5, 5), 1),
    "reassigning": (lambda: Reassigning(3), (4, 3, 5, 5), 1),
}


@pytest.mark.parametrize("name", LAYERS)
@pytest.mark.parametrize("wrong", [NAN, math.inf, -math.inf], ids=str)
def test_what_a_bad_forward_pass_wrote_is_seen_and_undone(name: str, wrong: float) -> None:
    make, shape, layers = LAYERS[name]
    model, twin = make(), make()
    shadow = BufferShadow(model)
    assert shadow.layers == layers
    generator = torch.Generator().manual_seed(1)
    good = [torch.randn(shape, generator=generator) for _ in range(3)]
    bad = good[2].clone()
    bad.view(-1)[-1] = wrong

    forward(model, good[0])
    taken, flags = captured(shadow)
    assert all(flags)
    shadow.accept(taken)
    before = values(model)

    forward(model, bad)
    written = [tensor for tensor in model.buffers() if not bool(tensor.isfinite().all())]
    assert written, "the fault did not reach the buffers"
    taken, flags = captured(shadow)
    assert not all(flags)
    shadow.reject(taken)
    assert_buffers(model, before)

    forward(model, good[1])
    taken, flags = captured(shadow)
    assert all(flags)
    shadow.accept(taken)
    for x in good[:2]:
        forward(twin, x)
    assert_buffers(model, values(twin))  # the average goes on as if the bad batch had never been drawn


def test_the_counter_alone_decides_an_average_without_momentum() -> None:
    norm = nn.BatchNorm1d(1, momentum=None)
    shadow = BufferShadow(norm)
    for mean in (3.0, 5.0):
        forward(norm, pair(mean))
        shadow.accept(shadow.capture()[0])
    forward(norm, pair(NAN))
    shadow.reject(shadow.capture()[0])
    forward(norm, pair(10.0))
    assert norm.running_mean is not None
    assert norm.running_mean.item() == 6.0  # (3 + 5 + 10) / 3


DTYPES = [torch.float16, torch.bfloat16, torch.float32, torch.float64]


def mixed() -> nn.Sequential:
    """Return a BatchNorm of each dtype; the counters are int64 in all of them."""
    return nn.Sequential(*[nn.BatchNorm1d(2).to(dtype) for dtype in DTYPES])


@pytest.mark.parametrize("spoilt", range(len(DTYPES)), ids=[str(dtype) for dtype in DTYPES])
def test_buffers_of_different_dtypes_keep_theirs(spoilt: int) -> None:
    model = mixed()
    shadow = BufferShadow(model)
    assert shadow.numel == 4 * (2 + 2 + 1)
    for i, buffer in enumerate(model.buffers()):
        buffer.fill_(i + 1)
    taken, flags = captured(shadow)
    assert len(flags) == len(DTYPES)  # the whole numbers need no check
    assert all(flags)
    shadow.accept(taken)
    before = values(model)

    for buffer in model.buffers():
        buffer.mul_(3)
    norm = model[spoilt]
    assert isinstance(norm, nn.BatchNorm1d)
    assert norm.running_var is not None
    norm.running_var[-1] = NAN
    taken, flags = captured(shadow)
    assert [bool(flag) for flag in flags].count(False) == 1
    shadow.reject(taken)
    assert_buffers(model, before)


def test_the_layers_with_running_statistics_are_protected_and_no_others() -> None:
    class Other(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("table", torch.full((2,), NAN))

    model = nn.Sequential(
        nn.BatchNorm2d(2),
        nn.BatchNorm2d(2, track_running_stats=False),
        nn.InstanceNorm2d(2),
        nn.LayerNorm(2),
        nn.GroupNorm(1, 2),
        Other(),
    )
    shadow = BufferShadow(model)
    assert [name for name, _ in shadow.named()] == ["0.running_mean", "0.running_var", "0.num_batches_tracked"]
    assert (shadow.layers, shadow.numel) == (1, 5)
    taken, flags = captured(shadow)
    assert all(flags)  # the table is not a running statistic
    shadow.reject(taken)


def test_a_model_without_normalisation_has_nothing_to_protect() -> None:
    shadow = BufferShadow(nn.Linear(2, 2))
    assert (shadow.layers, shadow.numel, list(shadow.named())) == (0, 0, [])
    for _ in range(2):
        taken, flags = captured(shadow)
        assert flags == []
        shadow.accept(taken)
        shadow.reject(shadow.capture()[0])
        shadow.commit()
        shadow.undo_window()
        shadow.resync()


@pytest.mark.parametrize(
    ("model", "first"),
    [
        (nn.BatchNorm1d(2), "running_mean"),
        (nn.Sequential(nn.BatchNorm1d(2)), "0.running_mean"),
        (nn.ModuleDict({"module": nn.BatchNorm1d(2)}), "running_mean"),  # the shape of DistributedDataParallel
        (nn.ModuleDict({"module": nn.Sequential(nn.BatchNorm1d(2))}), "0.running_mean"),
    ],
    ids=["bare", "nested", "parallel-bare", "parallel-nested"],
)
def test_a_buffer_has_the_name_that_its_owner_knows(model: nn.Module, first: str) -> None:
    assert next(BufferShadow(model).named())[0] == first


REPLACEMENTS: dict[str, Callable[[nn.Module], object]] = {
    "half": lambda model: model.half(),
    "bfloat16": lambda model: model.bfloat16(),
    "double": lambda model: model.double(),
    "assign": lambda model: model.load_state_dict(copy.deepcopy(model.state_dict()), assign=True),
}


def replaced(name: str) -> tuple[nn.Module, BufferShadow, dict[str, Tensor], dict[str, Tensor]]:
    """Run two healthy micro-batches, then replace the buffers.

    Returns:
        The model, its shadow, and the state at the start of the window and after the micro-batches, as replaced.
    """
    model = nn.Sequential(nn.BatchNorm1d(1, momentum=0.5), nn.BatchNorm1d(1, momentum=0.25))
    shadow = BufferShadow(model)
    forward(model, pair(4.0))
    shadow.accept(shadow.capture()[0])
    shadow.commit()
    start = copy.deepcopy(model)
    for mean in (8.0, -16.0):
        forward(model, pair(mean))
        shadow.accept(shadow.capture()[0])
    before = [id(tensor) for tensor in model.buffers()]
    REPLACEMENTS[name](model)
    REPLACEMENTS[name](start)
    assert [id(tensor) for tensor in model.buffers()] != before
    return model, shadow, values(start), values(model)


def spoil(model: nn.Module) -> None:
    for buffer in model.buffers():
        buffer.fill_(NAN if buffer.is_floating_point() else 99)


@pytest.mark.parametrize("name", REPLACEMENTS)
def test_a_bad_micro_batch_is_undone_after_the_buffers_were_replaced(name: str) -> None:
    model, shadow, start, latest = replaced(name)
    spoil(model)
    taken, flags = captured(shadow)
    assert not all(flags)
    shadow.reject(taken)
    assert_buffers(model, latest)
    shadow.undo_window()
    assert_buffers(model, start)


@pytest.mark.parametrize("name", REPLACEMENTS)
def test_a_window_is_undone_after_the_buffers_were_replaced(name: str) -> None:
    model, shadow, start, _ = replaced(name)
    spoil(model)
    shadow.undo_window()  # without a forward pass in between
    assert_buffers(model, start)


@pytest.mark.parametrize("name", REPLACEMENTS)
def test_a_window_is_committed_after_the_buffers_were_replaced(name: str) -> None:
    model, shadow, _, latest = replaced(name)
    shadow.commit()
    spoil(model)
    shadow.reject(shadow.capture()[0])
    assert_buffers(model, latest)


def test_a_change_from_outside_is_kept_by_resync() -> None:
    model = nn.BatchNorm1d(2)
    shadow = BufferShadow(model)
    model.load_state_dict({**model.state_dict(), "running_mean": torch.tensor([7.0, 8.0])})
    shadow.resync()
    loaded = values(model)
    spoil(model)
    shadow.undo_window()
    assert_buffers(model, loaded)


def test_other_layers_in_the_same_place_start_anew() -> None:
    model = nn.BatchNorm1d(2)
    shadow = BufferShadow(model)
    model.running_mean = torch.zeros(3)
    model.running_var = torch.ones(3)
    taken, flags = captured(shadow)
    assert all(flags)
    shadow.accept(taken)
    assert shadow.numel == 7
    spoil(model)
    shadow.reject(shadow.capture()[0])
    assert model.running_mean.tolist() == [0.0, 0.0, 0.0]


class Census:
    """Counts the copies that are alive whenever one is made."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.alive: weakref.WeakSet[object] = weakref.WeakSet()
        self.made = self.most = 0
        census = self

        class Counted(buffers_module._Copy):
            def __init__(self, live: list[Tensor]) -> None:
                super().__init__(live)
                census.alive.add(self)
                census.made += 1
                census.most = max(census.most, len(census.alive))

        monkeypatch.setattr(buffers_module, "_Copy", Counted)


def test_at_most_three_copies_are_ever_alive(monkeypatch: pytest.MonkeyPatch) -> None:
    census = Census(monkeypatch)
    model = nn.BatchNorm1d(2)
    shadow = BufferShadow(model)
    generator = torch.Generator().manual_seed(5)
    moves = torch.randint(0, 7, (1000,), generator=generator).tolist()
    for move in moves:
        if move <= 2:
            (shadow.reject if move == 2 else shadow.accept)(shadow.capture()[0])
        elif move == 3:
            shadow.commit()
        elif move == 4:
            shadow.undo_window()
        elif move == 5:
            shadow.resync()
        else:
            model.double() if model.weight.dtype == torch.float32 else model.float()
    assert census.made > 100
    assert census.most == 3


def test_no_copy_is_made_once_training_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    census = Census(monkeypatch)
    shadow = BufferShadow(nn.BatchNorm1d(2))
    made = []
    for number in range(8):
        for _ in range(4):
            shadow.accept(shadow.capture()[0])
            shadow.reject(shadow.capture()[0])
        if number % 2:
            shadow.undo_window()
        else:
            shadow.commit()
        made.append(census.made)
    assert made == made[:1] * 8


def test_the_model_does_not_know_the_shadow() -> None:
    model = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2))
    attributes = {name: set(vars(module)) for name, module in model.named_modules()}
    keys, plain = list(model.state_dict()), pickle.dumps(model)
    guard = StepGuard(model, torch.optim.SGD(model.parameters(), lr=0.0))
    guard.backward(model(torch.randn(4, 2)).mean())
    guard.step()

    assert {name: set(vars(module)) for name, module in model.named_modules()} == attributes
    assert list(model.state_dict()) == keys
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())
    assert b"yolo_stable" not in pickle.dumps(model)
    assert len(pickle.dumps(model)) == len(plain)

    twin = copy.deepcopy(model)
    before = values(twin)
    forward(model, torch.full((4, 2), NAN))
    assert guard.shadow is not None
    guard.shadow.undo_window()
    assert_buffers(twin, before)
    spoil(twin)
    assert bool(guard.shadow.capture()[1][0].isfinite())


def test_what_a_second_forward_pass_has_written_is_taken_as_well() -> None:
    """Gradient checkpointing runs forward once more in the backward pass."""
    norm = nn.BatchNorm1d(1, momentum=0.5)
    shadow = BufferShadow(norm)
    forward(norm, pair(4.0))
    taken, _ = captured(shadow)
    versions = shadow.versions()
    forward(norm, pair(4.0))
    assert shadow.versions() != versions
    shadow.recapture(taken)
    shadow.accept(taken)
    twice = values(norm)
    forward(norm, pair(NAN))
    bad, _ = captured(shadow)
    shadow.reject(bad)
    assert_buffers(norm, twice)
