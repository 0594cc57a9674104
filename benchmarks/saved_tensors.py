"""Counts what autograd holds for backward passes to come, in bytes: each piece of memory once."""

from __future__ import annotations

import weakref
from collections import Counter
from types import TracebackType
from typing import Any

from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks


class SavedTensors:
    """A context in which all that is saved is counted; what is saved within hooks of others is not seen."""

    def __init__(self) -> None:
        self.now = 0
        """Bytes that are held."""
        self.peaks: list[int] = []
        """The most bytes that were held at a time, for each section."""
        self.names: list[str] = []
        """Of the sections."""
        self._users: Counter[tuple[int, int]] = Counter()
        self._hooks = saved_tensors_hooks(self._save, lambda saved: saved.tensor)

    def begin(self, name: str = "") -> None:
        """Begin a section, such as a batch."""
        self.peaks.append(self.now)
        self.names.append(name)

    def peak(self, *names: str) -> int:
        """Return the most bytes that were held in the sections of these names."""
        return max((peak for peak, name in zip(self.peaks, self.names, strict=True) if name in names), default=0)

    def __enter__(self) -> SavedTensors:
        self._hooks.__enter__()
        self.begin()
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._hooks.__exit__(kind, error, trace)

    def _save(self, tensor: Tensor) -> Any:
        storage = tensor.untyped_storage()
        memory = storage.data_ptr(), storage.nbytes()
        self._users[memory] += 1
        if self._users[memory] == 1:
            self.now += memory[1]
            self.peaks[-1] = max(self.peaks[-1], self.now)
        saved = _Saved(tensor.detach())
        weakref.finalize(saved, self._drop, memory)
        return saved

    def _drop(self, memory: tuple[int, int]) -> None:
        self._users[memory] -= 1
        if not self._users[memory]:
            del self._users[memory]
            self.now -= memory[1]


class _Saved:
    def __init__(self, tensor: Tensor) -> None:
        self.tensor = tensor
