"""Traced labels: class labels that remember the rows they come from.

Every transform of Ultralytics chooses and joins the classes of an image together with its boxes. So classes that carry their rows
through choosing and joining tell which row is behind each box in the end. Hardly anybody asks, so they carry a note of what was
done, as nested tuples (:data:`Note`), and :func:`worked_out` gives the rows.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from .recipe import ROW_BITS

Note = tuple[Any, ...]
"""``("file", serial, count)``: all rows of a file, for one use of it; ``("rows", array)``; ``("chosen", note, index)``;
``("joined", notes)``; ``("unknown", count)``."""


class TracedLabels(np.ndarray):
    """Class labels with a note of the row behind each, otherwise a plain array.

    Choosing along the first axis, joining along it, ``copy``, and a ``reshape`` that leaves it alone keep the rows. Anything else
    makes them unknown, never wrong.
    """

    note: Note | None = None
    """None: not known. An array that NumPy makes of this one begins with that, as attributes are not handed on."""

    def __getitem__(self, index: Any) -> Any:
        out = super().__getitem__(index)
        note = self.note
        if note is not None and type(out) is TracedLabels and out.ndim:
            first = index[0] if type(index) is tuple and index else index
            if isinstance(first, slice):
                out.note = ("chosen", note, first)
            elif isinstance(first, list) or (isinstance(first, np.ndarray) and first.ndim == 1):
                chosen = np.array(first) if len(first) else np.zeros(0, np.int64)  # a copy: it is read later
                if chosen.ndim == 1:
                    out.note = ("chosen", note, chosen)
        return out

    def __array_function__(self, func: Any, types: Any, args: Any, kwargs: Any) -> Any:
        if func is np.concatenate and "out" not in kwargs and len(args) < 3:
            parts = args[0] if args else kwargs["arrays"]
            axis = args[1] if len(args) > 1 else kwargs.get("axis", 0)
            if axis == 0 and type(parts) in {list, tuple} and all(isinstance(part, np.ndarray) for part in parts):
                bare = [part.view(np.ndarray) for part in parts]
                out = np.concatenate(bare, 0, **{k: v for k, v in kwargs.items() if k not in _JOINING}).view(
                    TracedLabels
                )
                out.note = ("joined", tuple([note_of(part) for part in parts]))
                return out
        return super().__array_function__(func, types, args, kwargs)

    def reshape(self, *shape: Any, **kwargs: Any) -> Any:
        """Keep the rows when there still is one label to each."""
        out: Any = super().reshape(*shape, **kwargs)
        if self.note is not None and out.ndim and len(out) == len(self) == out.size == self.size:
            out.note = self.note
        return out

    def copy(self, *args: Any, **kwargs: Any) -> Any:
        """Keep the rows."""
        out: Any = super().copy(*args, **kwargs)
        out.note = self.note
        return out

    def sort(self, *args: Any, **kwargs: Any) -> None:
        """Forget the rows, whose order is no longer that of the labels."""
        super().sort(*args, **kwargs)
        self.note = None

    def __deepcopy__(self, memo: Any) -> Any:
        return self.copy()

    def __reduce__(self) -> Any:
        return with_note, (np.array(self), self.note)


_JOINING = {"arrays", "axis"}


def with_note(classes: np.ndarray, note: Note | None) -> TracedLabels:
    """Return class labels that carry a note; their memory is shared."""
    traced = classes.view(TracedLabels)
    traced.note = note
    return traced


def with_rows(classes: np.ndarray, rows: np.ndarray) -> TracedLabels:
    """Return class labels (labels, ...) that carry rows, int64 (labels,); negative ones are not known. Memory is shared.

    Examples:
        >>> first = with_note(np.array([[5.0], [6.0]]), ("file", 0, 2))
        >>> rows_of(np.concatenate((first[[1]], np.zeros((1, 1)), first))).tolist()
        [1, -1, 0, 1]
    """
    return with_note(classes, ("rows", rows))


def note_of(classes: Any) -> Note:
    """Return the note of class labels."""
    return getattr(classes, "note", None) or ("unknown", len(classes))


def rows_of(classes: Any) -> np.ndarray:
    """Return the rows behind class labels, int64 (labels,); -1 where unknown."""
    rows = worked_out(note_of(classes))
    return rows if len(rows) == len(classes) else np.full(len(classes), -1, dtype=np.int64)


def worked_out(note: Note) -> np.ndarray:
    """Return the rows that a note tells of, int64 (labels,)."""
    kind = note[0]
    if kind == "chosen":
        return worked_out(note[1])[note[2]]
    if kind == "joined":
        return np.concatenate([worked_out(part) for part in note[1]])
    if kind == "file":
        start = note[1] << ROW_BITS
        return np.arange(start, start + note[2], dtype=np.int64)
    return note[1] if kind == "rows" else np.full(note[1], -1, dtype=np.int64)


def codes_of(note: Note) -> bytes:
    """Return the rows that a note tells of, as ``Provenance`` takes them."""
    return worked_out(note).tobytes()
