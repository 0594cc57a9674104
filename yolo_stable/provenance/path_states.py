"""Path states: which image files are out of a run, in memory that all loader workers share."""

from __future__ import annotations

import hashlib
import os
from typing import Any

import torch

LEFT_OUT = 1
"""Left out by a decision of the run. Higher states say why a file cannot be used, see ``unreadable.Problem``."""
MOST = 2**17
"""Cells at most, 1.1 MiB: of a larger data set a smaller share can be out."""


class PathStates:
    """What became of image files, by path. Any process may set a state, and all see it; none is ever taken back.

    It is a hash table of fixed size without a lock. Its keys are digests of absolute paths, so a path needs no index and may come
    later. Of two processes that take one free cell at once, one loses, and sets its state when it meets the file again.

    Args:
        images: Number of images in the data set.

    Examples:
        >>> states = PathStates(4)
        >>> states.set("/data/a.jpg", LEFT_OUT), states.get("/data/a.jpg"), states.get("/data/../data/b.jpg")
        (True, 1, 0)
    """

    def __init__(self, images: int) -> None:
        cells = min(max(1024, 1 << max(images - 1, 0).bit_length()), MOST)
        # In shared memory: a worker that was forked or spawned before a file was left out sees it as well.
        self.shared = [
            torch.zeros(cells, dtype=torch.int64).share_memory_(),
            torch.zeros(cells, dtype=torch.uint8).share_memory_(),
            torch.zeros(1, dtype=torch.uint8).share_memory_(),
        ]
        self._view()

    def _view(self) -> None:
        self._keys, self._states, self._any = (tensor.numpy() for tensor in self.shared)

    def __bool__(self) -> bool:
        """Say whether any state is set; asking costs nothing."""
        return bool(self._any[0])

    def get(self, path: str) -> int:
        """Return the state of a file; 0: none."""
        return self._state_of(key_of(path)) if self._any[0] else 0

    def set(self, path: str, state: int) -> bool:
        """Set the state of a file that has none; the first one stays. False: the table is full."""
        return self.set_by_key(key_of(path), state)

    def set_by_key(self, key: int, state: int) -> bool:
        """Set a state by a key of :meth:`entries`, of this table or another: every process has the same key for a path."""
        cell = self._cell_of(key)
        if cell is None:
            return False
        if self._keys[cell] != key:
            self._states[cell] = state  # before the key: who finds the key finds the state
            self._keys[cell] = key
            self._any[0] = 1
        return True

    def entries(self) -> dict[int, int]:
        """Return all states by key, without those that another process is just writing."""
        if not self._any[0]:
            return {}
        cells = self._keys.nonzero()[0]
        found = zip(self._keys[cells].tolist(), self._states[cells].tolist(), strict=True)
        return {key: state for key, state in found if state}

    def _state_of(self, key: int) -> int:
        cell = self._cell_of(key)
        return int(self._states[cell]) if cell is not None and self._keys[cell] == key else 0

    def _cell_of(self, key: int) -> int | None:
        """Return the cell of a key, or the free one where it belongs; None when others have all."""
        cells = len(self._keys)
        for step in range(cells):
            cell = (key + step) % cells
            if self._keys[cell] in {0, key}:
                return cell
        return None

    def __getstate__(self) -> dict[str, Any]:
        return {"shared": self.shared}  # a view, pickled itself, would be a copy

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.shared = state["shared"]
        self._view()


def key_of(path: str) -> int:
    """Return the key of a path: 63 bits of the digest of its absolute form, never 0, the same in every process."""
    digest = hashlib.blake2b(os.fsencode(os.path.abspath(path)), digest_size=8).digest()
    return (int.from_bytes(digest, "little") >> 1) or 1
