"""Snapshots: copies of the whole training state in memory, in full precision."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from .flat_copy import FlatCopy
from .memory import Kept
from .state import TrainingState

HOST_SHARE = 0.1
"""Snapshots go to the host if they would take more than this share of the device's memory, or of its free memory."""


class Snapshot:
    """One copy: tensors by name, and plain values; the next one can take the same memory."""

    def __init__(self, live: dict[str, Tensor], on_host: bool) -> None:
        self.step = 0
        """Optimizer steps applied when it was taken."""
        self.trained = 0
        """Of these, steps in it: without those that rollbacks had undone."""
        self.trusted = True
        """Whether nothing was suspicious when it was taken."""
        self.plain: dict[str, Any] = {}
        self.memory: Kept = []
        """What the loss kept."""
        self.generators: dict[str, Tensor] = {}
        self._shapes = _shapes(live)
        self._flat = FlatCopy(list(live.values()), on_host=on_host)
        self._views = dict(zip(live, self._flat.views, strict=True))

    @property
    def nbytes(self) -> int:
        """Bytes of the tensors."""
        return self._flat.nbytes

    @property
    def tensors(self) -> dict[str, Tensor]:
        """All tensors by name, the generators' included.

        Syncs: waits for copies to the host that are under way.
        """
        if self._flat.is_pinned:
            torch.cuda.synchronize()
        return {**self._views, **self.generators}

    def fits(self, live: dict[str, Tensor]) -> bool:
        """Return whether this state can take the same memory."""
        return self._shapes == _shapes(live)

    def fill(self, step: int, live: dict[str, Tensor], state: TrainingState) -> None:
        """Copy the current state.

        Syncs: none; copies to pinned host memory are queued.
        """
        self.copy(step, live)
        self.generators, self.plain = state.aside()
        self.memory = [] if state.memory is None else state.memory.capture()

    @torch.no_grad()
    def copy(self, step: int, live: dict[str, Tensor]) -> None:
        """Copy the tensors alone.

        Syncs: none; copies to pinned host memory are queued.
        """
        self.step = step
        tensors = list(live.values())
        for members, _ in self._flat.groups:  # of one device and dtype: a few launches; mixed, it would be one for each
            views = [self._flat.views[i] for i in members]
            torch._foreach_copy_(views, [tensors[i] for i in members], non_blocking=self._flat.is_pinned)


class SnapshotRing:
    """The newest few snapshots of a training.

    Args:
        state: What the snapshots copy.
        keep: How many, >= 1.
        place: ``"device"``, ``"host"``, or ``"auto"``: the host if the device is short of memory.
    """

    def __init__(self, state: TrainingState, keep: int, place: str) -> None:
        self._state, self.keep, self._place = state, keep, place
        self._ring: list[Snapshot] = []
        self.on_host = place == "host"
        """Whether new snapshots are on the host."""

    def __len__(self) -> int:
        return len(self._ring)

    def __iter__(self) -> Iterator[Snapshot]:
        """Iterate from the oldest."""
        return iter(self._ring)

    @property
    def nbytes(self) -> int:
        """Bytes of all snapshots."""
        return sum(snapshot.nbytes for snapshot in self._ring)

    @property
    def newest(self) -> Snapshot | None:
        """The newest snapshot, or None."""
        return self._ring[-1] if self._ring else None

    def trusted(self, step: int) -> int:
        """Return the step of the newest trusted snapshot no newer than ``step``; -1 without one."""
        return max((snapshot.step for snapshot in self._ring if snapshot.trusted and snapshot.step <= step), default=-1)

    @property
    def older_ones(self) -> list[Snapshot]:
        """All but the newest."""
        return self._ring[:-1]

    @property
    def oldest(self) -> Snapshot | None:
        """The oldest snapshot, or None."""
        return self._ring[0] if self._ring else None

    def at_or_before(self, step: int, *, trusted: bool = False) -> Snapshot | None:
        """Return the newest (trusted) snapshot no newer than ``step``, or else the oldest; None without any."""
        fitting = (kept for kept in reversed(self._ring) if kept.step <= step and (kept.trusted or not trusted))
        return next(fitting, self.oldest)

    def take(self, step: int, live: dict[str, Tensor]) -> Snapshot:
        """Copy the state, found healthy after ``step`` applied optimizer steps; the oldest snapshot makes room."""
        snapshot = self._ring.pop(0) if len(self._ring) >= self.keep else None
        if snapshot is None or not snapshot.fits(live):
            snapshot = None  # frees its memory first
            if self._place == "auto" and not self.on_host:  # again once the optimizer's state is there
                self.on_host = device_is_short_of_memory(live, self.keep)
            snapshot = Snapshot(live, self.on_host)
        snapshot.fill(step, live, self._state)
        self._ring.append(snapshot)
        return snapshot

    def clear(self) -> None:
        """Forget all snapshots."""
        self._ring = []

    def drop_newer_than(self, snapshot: Snapshot) -> None:
        """Forget the snapshots taken after ``snapshot``, which need not be one of them."""
        self._ring = [kept for kept in self._ring if kept is snapshot or kept.step < snapshot.step]

    def move_to_host(self) -> None:
        """Free the device's memory, which has run out; keep the newest snapshot as a copy on the host."""
        newest = self.newest
        if self.on_host or newest is None or all(t.device.type == "cpu" for t in newest._views.values()):
            return
        self.on_host = True
        moved = Snapshot(newest._views, on_host=True)
        with torch.no_grad():
            torch._foreach_copy_(moved._flat.views, list(newest._views.values()))
        moved.step, moved.plain, moved.generators = newest.step, newest.plain, newest.generators
        moved.trained, moved.trusted, moved.memory = newest.trained, newest.trusted, newest.memory
        self._ring = [moved]


def device_is_short_of_memory(live: dict[str, Tensor], keep: int) -> bool:
    """Return whether ``keep`` copies of the tensors belong on the host; never on the CPU."""
    device = next((t.device for t in live.values() if t.device.type != "cpu"), None)
    if device is None:
        return False
    free, total = device_memory(device)
    if not total:  # unified memory, as on MPS: the host gains nothing
        return False
    needed = keep * sum(t.numel() * t.element_size() for t in live.values())
    return needed > HOST_SHARE * min(free, total)


def device_memory(device: torch.device) -> tuple[int, int]:
    """Return free and total bytes of an accelerator; zeros if it cannot say, as on MPS."""
    module: Any = getattr(torch, device.type, None)
    if not hasattr(module, "mem_get_info"):
        return 0, 0
    return module.mem_get_info(device)


def _shapes(live: dict[str, Tensor]) -> list[tuple[str, torch.Size, torch.dtype, torch.device]]:
    return [(name, t.shape, t.dtype, t.device) for name, t in live.items()]
