"""Snapshots: a few copies of the whole training state in memory, in full precision."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from .memory import Kept
from .state import TrainingState

HOST_SHARE = 0.1
"""Snapshots go to the host when they would take more than this share of the device's memory, or of what is free of it."""


class Snapshot:
    """One copy: tensors by name, and plain values.

    The tensors are views of one flat tensor for each device and dtype, so that taking the next one into the same memory
    allocates nothing.
    """

    def __init__(self, live: dict[str, Tensor], on_host: bool) -> None:
        self.step = 0
        """Optimizer steps applied when it was taken."""
        self.trained = 0
        """Of these, steps that are in it: without those that rollbacks had undone."""
        self.trusted = True
        """Whether nothing was suspicious when it was taken."""
        self.plain: dict[str, Any] = {}
        self.memory: Kept = []
        """What the loss keeps."""
        self.generators: dict[str, Tensor] = {}
        self._shapes = _shapes(live)
        self._views: dict[str, Tensor] = {}
        self._pinned = False
        self.nbytes = 0
        """Bytes that the tensors take."""
        groups: dict[tuple[torch.device, torch.dtype], list[str]] = {}
        for name, tensor in live.items():
            groups.setdefault((tensor.device, tensor.dtype), []).append(name)
        self._kinds = list(groups.values())
        for (device, dtype), names in groups.items():
            pin = on_host and device.type == "cuda"
            self._pinned |= pin
            sizes = [live[name].numel() for name in names]
            target = torch.device("cpu") if on_host else device
            flat = torch.empty(sum(sizes), dtype=dtype, device=target, pin_memory=pin)
            self.nbytes += flat.numel() * flat.element_size()
            for name, part in zip(names, flat.split(sizes), strict=True):
                self._views[name] = part.view(live[name].shape)

    @property
    def tensors(self) -> dict[str, Tensor]:
        """All tensors by name, those of the generators included.

        Syncs: waits for copies that are still under way to the host.
        """
        if self._pinned:
            torch.cuda.synchronize()
        return {**self._views, **self.generators}

    def fits(self, live: dict[str, Tensor]) -> bool:
        """Return whether the next state can be copied into the same memory."""
        return self._shapes == _shapes(live)

    def fill(self, step: int, live: dict[str, Tensor], state: TrainingState) -> None:
        """Copy the state as it is now.

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
        for names in self._kinds:  # of one device and dtype, which is a few launches; mixed, it would be one for each
            views = [self._views[name] for name in names]
            torch._foreach_copy_(views, [live[name] for name in names], non_blocking=self._pinned)


class SnapshotRing:
    """The newest few snapshots of a training.

    Args:
        state: What is copied.
        keep: How many, >= 1.
        place: ``"device"``, ``"host"``, or ``"auto"``: the host when the device is short of memory.
    """

    def __init__(self, state: TrainingState, keep: int, place: str) -> None:
        self._state, self.keep, self._place = state, keep, place
        self._ring: list[Snapshot] = []
        self.on_host = place == "host"
        """Whether snapshots are kept on the host."""

    def __len__(self) -> int:
        return len(self._ring)

    def __iter__(self) -> Iterator[Snapshot]:
        """Go through them, the oldest first."""
        return iter(self._ring)

    @property
    def nbytes(self) -> int:
        """Bytes that all snapshots take."""
        return sum(snapshot.nbytes for snapshot in self._ring)

    @property
    def newest(self) -> Snapshot | None:
        """The snapshot taken last, or None."""
        return self._ring[-1] if self._ring else None

    def trusted(self, step: int) -> int:
        """Return the step of the newest trusted snapshot that is not younger than ``step``; -1 when there is none."""
        return max((snapshot.step for snapshot in self._ring if snapshot.trusted and snapshot.step <= step), default=-1)

    def reference(self, step: int) -> Snapshot | None:
        """Return the newest trusted snapshot that is not younger than ``step``; the oldest one when none is; None without any."""
        fitting = (kept for kept in reversed(self._ring) if kept.trusted and kept.step <= step)
        return next(fitting, self.oldest)

    @property
    def older_ones(self) -> list[Snapshot]:
        """All but the newest."""
        return self._ring[:-1]

    @property
    def oldest(self) -> Snapshot | None:
        """The snapshot that was taken first of those that are kept, or None."""
        return self._ring[0] if self._ring else None

    def at_or_before(self, step: int) -> Snapshot | None:
        """Return the newest snapshot that is not younger than ``step``; the oldest one when all are; None without any."""
        fitting = [snapshot for snapshot in self._ring if snapshot.step <= step]
        return fitting[-1] if fitting else self._ring[0] if self._ring else None

    def take(self, step: int, live: dict[str, Tensor]) -> Snapshot:
        """Copy the state; the oldest snapshot makes room.

        Args:
            step: Optimizer steps applied so far.
            live: The state's tensors, found healthy.
        """
        snapshot = self._ring.pop(0) if len(self._ring) >= self.keep else None
        if snapshot is None or not snapshot.fits(live):
            snapshot = None  # its memory is free before more is asked for
            if self._place == "auto" and not self.on_host:  # asked again when the optimizer's state has come
                self.on_host = device_is_short_of_memory(live, self.keep)
            snapshot = Snapshot(live, self.on_host)
        snapshot.fill(step, live, self._state)
        self._ring.append(snapshot)
        return snapshot

    def clear(self) -> None:
        """Forget all snapshots."""
        self._ring = []

    def drop_newer_than(self, snapshot: Snapshot) -> None:
        """Forget the snapshots that were taken after ``snapshot``, which need not be one of them."""
        self._ring = [kept for kept in self._ring if kept is snapshot or kept.step < snapshot.step]

    def move_to_host(self) -> None:
        """Free the device's memory: it has run out. The newest snapshot is kept, as a copy on the host."""
        newest = self.newest
        if self.on_host or newest is None or all(t.device.type == "cpu" for t in newest._views.values()):
            return
        self.on_host = True
        moved = Snapshot(newest._views, on_host=True)
        with torch.no_grad():
            torch._foreach_copy_(list(moved._views.values()), list(newest._views.values()))
        moved.step, moved.plain, moved.generators = newest.step, newest.plain, newest.generators
        moved.trained, moved.trusted, moved.memory = newest.trained, newest.trusted, newest.memory
        self._ring = [moved]


def device_is_short_of_memory(live: dict[str, Tensor], keep: int) -> bool:
    """Return whether ``keep`` copies of the tensors are better kept on the host; on the CPU there is nothing to choose."""
    device = next((t.device for t in live.values() if t.device.type != "cpu"), None)
    if device is None:
        return False
    free, total = device_memory(device)
    if not total:  # unified memory, as on MPS: nothing is gained on the other side
        return False
    needed = keep * sum(t.numel() * t.element_size() for t in live.values())
    return needed > HOST_SHARE * min(free, total)


def device_memory(device: torch.device) -> tuple[int, int]:
    """Return free and total bytes of an accelerator; zeros where they cannot be asked for, as on MPS."""
    module: Any = getattr(torch, device.type, None)
    if not hasattr(module, "mem_get_info"):
        return 0, 0
    return module.mem_get_info(device)


def _shapes(live: dict[str, Tensor]) -> list[tuple[str, torch.Size, torch.dtype, torch.device]]:
    return [(name, t.shape, t.dtype, t.device) for name, t in live.items()]
