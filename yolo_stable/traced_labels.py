"""Class labels that remember the rows they come from.

Every transform of Ultralytics chooses and joins the classes of an image together with its boxes. So an array of classes that
carries its rows along through choosing and joining tells in the end which row is behind each box.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from .provenance import ROW_BITS


class TracedLabels(np.ndarray):
    """Class labels with a number for the row behind each; in all else the array that they were.

    Rows are kept by choosing along the first axis, by joining along it, by ``reshape`` that leaves the first axis as it is, and
    by ``copy``. Whatever else is done with the array gives one whose rows are not known: never wrong ones.
    """

    rows: np.ndarray | None
    """int64, one per label: see ``Provenance.of``; negative or None where it is not known."""

    def __array_finalize__(self, obj: Any) -> None:
        self.rows = None

    def __getitem__(self, index: Any) -> Any:
        out = super().__getitem__(index)
        if self.rows is not None and isinstance(out, TracedLabels):
            first = index[0] if isinstance(index, tuple) and index else index
            if isinstance(first, (np.ndarray, list, slice)):
                rows = self.rows[first]
                out.rows = rows if len(rows) == len(out) else None
        return out

    def __array_function__(self, func: Any, types: Any, args: Any, kwargs: Any) -> Any:
        out = super().__array_function__(func, types, args, kwargs)
        if func is np.concatenate and "out" not in kwargs and len(args) < 3:
            parts = args[0] if args else kwargs["arrays"]
            if kwargs.get("axis", args[1] if len(args) > 1 else 0) == 0:
                return with_rows(out, np.concatenate([rows_of(part) for part in parts]))
        return out

    def reshape(self, *shape: Any, **kwargs: Any) -> Any:
        """Keep the rows when there still is one label to each."""
        out: Any = super().reshape(*shape, **kwargs)
        if self.rows is not None and out.ndim and len(out) == len(self.rows) == out.size == self.size:
            out.rows = self.rows
        return out

    def copy(self, *args: Any, **kwargs: Any) -> Any:
        """Keep the rows, copied as well."""
        out: Any = super().copy(*args, **kwargs)
        out.rows = None if self.rows is None else self.rows.copy()
        return out

    def sort(self, *args: Any, **kwargs: Any) -> None:
        """Forget the rows, whose order is no longer that of the labels."""
        super().sort(*args, **kwargs)
        self.rows = None

    def __deepcopy__(self, memo: Any) -> Any:
        return self.copy()

    def __reduce__(self) -> Any:
        return with_rows, (np.array(self), self.rows)


def with_rows(classes: np.ndarray, rows: np.ndarray | None) -> TracedLabels:
    """Return class labels that carry rows.

    Args:
        classes: (labels, ...); its memory is shared.
        rows: int64 (labels,).

    Examples:
        >>> first = with_rows(np.array([[5.0], [6.0]]), numbered(2, serial=0))
        >>> rows_of(np.concatenate((first[[1]], np.zeros((1, 1)), first))).tolist()
        [1, -1, 0, 1]
    """
    traced = classes.view(TracedLabels)
    traced.rows = rows
    return traced


def numbered(count: int, serial: int) -> np.ndarray:
    """Return the numbers of all rows of a file, for one use of it."""
    start = serial << ROW_BITS
    return np.arange(start, start + count, dtype=np.int64)


def rows_of(classes: Any) -> np.ndarray:
    """Return the rows behind class labels, int64 (labels,); -1 where they are not known."""
    rows = getattr(classes, "rows", None)
    return np.full(len(classes), -1, dtype=np.int64) if rows is None else rows
