from __future__ import annotations

import pytest
import torch
from equality import assert_same
from rig import Rig, batches
from torch import nn

from yolo_stable.guard import snapshot as module
from yolo_stable.guard.snapshot import Snapshot, SnapshotRing, device_is_short_of_memory, device_memory


def ring_of(rig: Rig, keep: int = 2, place: str = "auto") -> SnapshotRing:
    return SnapshotRing(rig.state, keep, place)


def test_the_ring_keeps_the_newest_ones() -> None:
    rig = Rig()
    ring = ring_of(rig, keep=3)
    assert (ring.newest, ring.oldest, len(ring)) == (None, None, 0)
    for step in range(0, 50, 10):
        ring.take(step, rig.state.live())
    assert [snapshot.step for snapshot in ring._ring] == [20, 30, 40]
    assert ring.newest is ring._ring[2]
    assert ring.oldest is ring._ring[0]
    ring.clear()
    assert (ring.newest, len(ring), ring.nbytes) == (None, 0, 0)


@pytest.mark.parametrize(("step", "found"), [(100, 30), (30, 30), (29, 20), (20, 20), (10, 10), (9, 10), (-1, 10)])
def test_a_snapshot_is_found_that_is_not_younger_or_else_the_oldest(step: int, found: int) -> None:
    rig = Rig()
    ring = ring_of(rig, keep=3)
    assert ring.at_or_before(step) is None
    for taken in (10, 20, 30):
        ring.take(taken, rig.state.live())
    snapshot = ring.at_or_before(step)
    assert snapshot is not None
    assert snapshot.step == found


def test_suspicious_snapshots_are_passed_by() -> None:
    rig = Rig()
    ring = ring_of(rig, keep=3)
    assert ring.trusted(100) == -1
    for step, trusted in ((0, True), (1, True), (2, False)):
        ring.take(step, rig.state.live()).trusted = trusted
    assert [ring.trusted(step) for step in (5, 2, 1, 0, -1)] == [1, 1, 1, 0, -1]


def test_what_is_newer_than_a_snapshot_is_forgotten_with_the_rest_kept() -> None:
    rig = Rig()
    ring = ring_of(rig, keep=3)
    for step in (1, 2, 3):
        ring.take(step, rig.state.live())
    ring.drop_newer_than(ring._ring[1])
    assert [snapshot.step for snapshot in ring._ring] == [1, 2]


def test_the_same_memory_is_filled_again() -> None:
    rig = Rig("AdamW", scaled=True)
    rig.bare_step(batches(1)[0])  # all state is there
    ring = ring_of(rig)
    places = []
    for step in range(6):
        rig.bare_step(batches(1)[0])
        snapshot = ring.take(step, rig.state.live())
        places.append({name: view.data_ptr() for name, view in snapshot._views.items()})
        assert_same(
            {name: view.clone() for name, view in snapshot._views.items()},
            {name: tensor.detach().clone() for name, tensor in rig.state.live().items()},
        )
    assert places[0] == places[2] == places[4] != places[1]
    assert places[1] == places[3] == places[5]


def test_a_snapshot_shares_no_memory_with_the_state() -> None:
    rig = Rig("SGD")
    rig.bare_step(batches(1)[0])
    snapshot = ring_of(rig).take(1, rig.state.live())
    before = {name: tensor.clone() for name, tensor in snapshot.tensors.items()}
    plain = repr(snapshot.plain)
    rig.bare_step(batches(1)[0])
    rig.optimizer.param_groups[0]["lr"] = 5.0
    assert_same(snapshot.tensors, before)
    assert repr(snapshot.plain) == plain


def test_new_tensors_in_the_state_get_new_memory() -> None:
    rig = Rig("AdamW")
    ring = ring_of(rig)
    sizes = [ring.take(0, rig.state.live()).nbytes]
    rig.bare_step(batches(1)[0])
    sizes += [ring.take(step, rig.state.live()).nbytes for step in (1, 2)]
    assert sizes[1] == sizes[2]
    assert sizes[1] - sizes[0] == sum(
        tensor.numel() * tensor.element_size() for state in rig.optimizer.state.values() for tensor in state.values()
    )
    assert ring.nbytes == sizes[1] + sizes[2]


def test_the_bytes_are_those_of_the_tensors() -> None:
    rig = Rig("SGD", "none")
    rig.bare_step(batches(1)[0])
    floats = 4 * 6 + 6 + 4 * 6 + 6 + 1  # two layers, and weight, bias, mean and variance of BatchNorm
    parameters = floats - 2 * 6
    snapshot = ring_of(rig).take(1, rig.state.live())
    assert snapshot.nbytes == 4 * (floats + parameters) + 8  # with momentum, and the counter of batches


def test_all_dtypes_and_layouts_are_kept() -> None:
    rig = Rig("SGD", "none")
    model = nn.Sequential(nn.Conv2d(3, 4, 3).to(memory_format=torch.channels_last), nn.Linear(2, 2).bfloat16())
    model.register_buffer("count", torch.tensor(3))
    model.register_buffer("nothing", torch.empty(0))
    live = dict(model.state_dict())
    snapshot = Snapshot(live, on_host=False)
    snapshot.fill(0, live, rig.state)
    assert_same({n: t for n, t in snapshot.tensors.items() if n in live}, live)


# ---- where they are kept; there is no accelerator here: its answers are made up -----------------------------------------


@pytest.mark.parametrize(
    ("free", "total", "short"),
    [(10**9, 10**9, False), (799, 10**9, True), (10**9, 799, True), (800, 800, False), (0, 0, False)],
)
def test_a_device_is_short_when_a_tenth_is_too_little(
    monkeypatch: pytest.MonkeyPatch, free: int, total: int, short: bool
) -> None:
    monkeypatch.setattr(module, "device_memory", lambda _: (free, total))
    live = {"host": torch.empty(1000), "device": torch.empty(10, device="meta")}
    assert device_is_short_of_memory({"device": live["device"]}, keep=2) is short  # 80 bytes
    assert device_is_short_of_memory({"host": live["host"]}, keep=2) is False  # nothing to choose


def test_the_memory_of_a_device_that_cannot_be_asked_is_unknown() -> None:
    assert device_memory(torch.device("meta")) == (0, 0)


def test_the_place_is_asked_for_again_when_the_state_has_grown(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []

    def short(live: dict[str, torch.Tensor], keep: int) -> bool:
        asked.append(len(live) * keep)
        return len(asked) > 1

    monkeypatch.setattr(module, "device_is_short_of_memory", short)
    rig = Rig("AdamW")
    ring = ring_of(rig)
    ring.take(0, rig.state.live())
    assert not ring.on_host
    rig.bare_step(batches(1)[0])
    for step in (1, 2, 3, 4):
        ring.take(step, rig.state.live())
    assert ring.on_host
    assert len(asked) == 2
    assert asked[1] > asked[0]


@pytest.mark.parametrize(("place", "on_host"), [("device", False), ("host", True)])
def test_a_place_that_was_chosen_is_not_asked_for(monkeypatch: pytest.MonkeyPatch, place: str, on_host: bool) -> None:
    monkeypatch.setattr(module, "device_is_short_of_memory", lambda *_: pytest.fail("asked"))
    rig = Rig()
    ring = ring_of(rig, place=place)
    ring.take(0, rig.state.live())
    assert ring.on_host is on_host


def test_on_the_host_there_is_nothing_to_move() -> None:
    rig = Rig()
    ring = ring_of(rig)
    ring.move_to_host()
    ring.take(0, rig.state.live())
    ring.take(1, rig.state.live())
    ring.move_to_host()
    assert (len(ring), ring.on_host) == (2, False)


def test_without_memory_on_the_device_the_newest_moves(monkeypatch: pytest.MonkeyPatch) -> None:
    rig = Rig()
    ring = ring_of(rig)
    for step in (0, 1):
        ring.take(step, rig.state.live())
    newest = ring.newest
    assert newest is not None
    newest.trained, newest.trusted = 7, False
    before = {name: tensor.clone() for name, tensor in newest.tensors.items()}

    class Elsewhere:
        type = "cuda"

    class OnDevice(torch.Tensor):
        device = Elsewhere()  # type: ignore[assignment]

    views = newest._views
    marked = {name: view.as_subclass(OnDevice) for name, view in views.items()}
    monkeypatch.setattr(newest, "_views", marked)
    monkeypatch.setattr(module, "Snapshot", lambda _, on_host: Snapshot(views, on_host))
    ring.move_to_host()
    assert (len(ring), ring.on_host) == (1, True)
    moved = ring.newest
    assert moved is not None
    assert moved is not newest
    assert (moved.step, moved.trained, moved.trusted, moved.plain) == (1, 7, False, newest.plain)
    assert_same({name: tensor.as_subclass(torch.Tensor) for name, tensor in moved.tensors.items()}, before)
