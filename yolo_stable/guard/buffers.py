"""Buffer shadow: copies of the running statistics of normalisation layers, to undo a forward pass.

A forward pass in training mode writes BatchNorm's running mean, variance and counter before anybody has seen the loss. Skipping
the optimizer step does not undo that: one NaN stays in the buffers for ever (pytorch/pytorch#88474).

The shadow swaps its copies by reference: a micro-batch costs one concatenation and one check, a healthy window nothing more. The
buffers' version counters show a backward pass that writes the statistics again (gradient checkpointing).

The check is one number, read with the loss: the largest ``|after| / (|before| + 1)`` of all statistics. It is not finite when
any statistic is not, and it jumps when a number that BatchNorm itself hides ruins one. Honest training of eight networks, also
with ten times the usual learning rate, stayed below 1.5; the guarded trainers allow 10, and believe the third jump in a row.
Before the first accepted batch the statistics come from elsewhere, and a jump is believed when all images have one scale
(``of_one_scale`` of ``StepGuard.backward``).
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor, nn

from .flat_copy import FlatCopy
from .reductions import maximum
from .wrappers import plain_name


class BufferShadow:
    """Copies of all running statistics: at the start of the window and after its last healthy micro-batch.

    Each copy is one flat tensor per device and dtype: a handful of kernels take and check one, however many layers there are.
    There are at most three copies, each as large as the buffers (0.1 MB for YOLO11n).

    Args:
        model: The shadow copies all buffers of each module with a buffer ``running_mean``: BatchNorm, SyncBatchNorm and
            InstanceNorm of PyTorch, and layers of other libraries with the same naming.
    """

    def __init__(self, model: nn.Module) -> None:
        self._model = model
        self._slots: list[tuple[str, dict[str, Tensor | None], str]] = []
        self._live: list[Tensor] = []
        self._spare: list[_Copy] = []
        self._window = self._latest = _Copy([])
        self.resync()

    @property
    def numel(self) -> int:
        """How many numbers are protected."""
        return sum(tensor.numel() for tensor in self._live)

    @property
    def nbytes(self) -> int:
        """How many bytes all copies take."""
        copies = {id(c): c for c in (self._window, self._latest, *self._spare)}.values()
        return sum(copy.nbytes for copy in copies)

    @property
    def layers(self) -> int:
        """How many normalisation layers are protected."""
        return sum(key == "running_mean" for _, _, key in self._slots)

    def named(self) -> Iterator[tuple[str, Tensor]]:
        """Yield the live buffers with their names."""
        for name, owner, key in self._slots:
            tensor = owner[key]
            if tensor is not None:
                yield name, tensor

    def resync(self) -> None:
        """Begin a new window with the layers and buffers as they are now.

        Syncs: none.
        """
        self._slots = []
        for prefix, module in self._model.named_modules(remove_duplicate=True):
            if module._buffers.get("running_mean") is not None:
                path = f"{plain_name(prefix)}." if plain_name(prefix) else ""
                path = path.removeprefix("module.")  # DistributedDataParallel's own level means nothing to a user
                self._slots += [(f"{path}{key}", module._buffers, key) for key in module._buffers]
        self._live = [tensor for _, tensor in self.named()]
        self._spare.clear()
        self._window = self._latest = _Copy(self._live)
        self._window.capture(self._live)

    def capture(self) -> tuple[_Copy, list[Tensor]]:
        """Copy the live buffers, as a forward pass has left them.

        Returns:
            The copy, to be given to :meth:`accept` or :meth:`reject`, and 0-dim tensors on the device (one per device and
            floating dtype): the largest ``|after| / (|before| + 1)``. It is finite exactly when all statistics are.

        Syncs: none.
        """
        self._follow()
        copy = self._spare.pop() if self._spare else _Copy(self._live)
        copy.capture(self._live)
        return copy, copy.jump(self._latest)

    def versions(self) -> list[int]:
        """Return a number for each buffer that changes with every write."""
        return [tensor._version for tensor in self._live]

    def recapture(self, copy: _Copy) -> None:
        """Copy the live buffers into ``copy`` once more."""
        copy.capture(self._live)

    def largest_jump(self, copy: _Copy) -> str:
        """Return the name of the buffer that moved furthest; for the rare path.

        Syncs: one per buffer.
        """
        names = [name for name, _ in self.named()]
        pairs = zip(names, copy.views, self._latest.views, strict=True)
        jumps = {n: float((new.abs() / (old.abs() + 1)).max()) for n, new, old in pairs if new.is_floating_point()}
        return max(jumps, key=lambda name: jumps[name])

    def accept(self, copy: _Copy) -> None:
        """Accept ``copy`` as the state after the last healthy micro-batch."""
        if self._latest is not self._window:
            self._spare.append(self._latest)
        self._latest = copy

    def reject(self, copy: _Copy) -> None:
        """Restore the buffers as they were before the micro-batch of ``copy``."""
        self._spare.append(copy)
        self._latest.restore(self._live)

    def commit(self) -> None:
        """Begin the next window with the state after the last healthy micro-batch."""
        if self._window is not self._latest:
            self._spare.append(self._window)
        self._window = self._latest

    def undo_window(self) -> None:
        """Restore the buffers as they were at the start of the window."""
        self._follow()
        if self._latest is not self._window:
            self._spare.append(self._latest)
        self._latest = self._window
        self._window.restore(self._live)

    def _follow(self) -> None:
        """Find the buffers again after Model.to(), half() or load_state_dict(assign=True) replaced them.

        The copies take the new device and dtype and keep their values: nobody has judged what the last forward pass wrote into
        the new tensors.
        """
        live = [tensor for _, tensor in self.named()]
        if len(live) == len(self._live) and all(a is b for a, b in zip(live, self._live, strict=True)):
            return
        before, self._live = self._live, live
        if [t.shape for t in live] != [t.shape for t in before]:
            self.resync()  # other layers: there is nothing to restore
        elif [(t.device, t.dtype) for t in live] != [(t.device, t.dtype) for t in before]:
            self._spare.clear()
            same = self._latest is self._window
            self._window = self._window.like(live)
            self._latest = self._window if same else self._latest.like(live)


class _Copy(FlatCopy):
    """One copy of a list of buffers."""

    @torch.no_grad()
    def capture(self, live: list[Tensor]) -> None:
        for members, flat in self.groups:
            torch.cat([live[i].reshape(-1) for i in members], out=flat)

    def jump(self, before: _Copy) -> list[Tensor]:
        pairs = zip(self.groups, before.groups, strict=True)
        return [maximum(new.abs() / (old.abs() + 1)) for (_, new), (_, old) in pairs if new.is_floating_point()]

    def like(self, live: list[Tensor]) -> _Copy:
        """Return the same values with the devices and dtypes of ``live``."""
        copy = _Copy(live)
        self.restore(copy.views)
        return copy

    @torch.no_grad()
    def restore(self, live: list[Tensor]) -> None:
        if live:
            torch._foreach_copy_(live, self.views)
