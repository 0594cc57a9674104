"""Listing: the first of many names, for a sentence."""

from __future__ import annotations

from collections.abc import Sequence


def listed(names: Sequence[str], most: int = 3, between: str = ", ") -> str:
    """Return the first names, and how many more there are.

    Examples:
        >>> listed(["a", "b"]), listed(["a", "b", "c", "d"]), listed(["a", "b"], 1)
        ('a, b', 'a, b, c and 1 more', 'a and 1 more')
    """
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return between.join(names[:most]) + more
