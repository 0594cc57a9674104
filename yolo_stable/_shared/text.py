"""Text: what other libraries raised, and long lists, for one of our sentences."""

from __future__ import annotations

import re
from collections.abc import Iterable


def one_line(error: BaseException) -> str:
    """Return an exception's text as one line without decoration."""
    text = re.sub(r"\x1b\[[0-9;]*m|\s*(❌|⚠️)", "", str(error))
    return " ".join(text.split()) or type(error).__name__


def listed(names: Iterable[object], most: int = 3, between: str = ", ") -> str:
    """Return the first few names, and how many more there are.

    Examples:
        >>> listed(["a", "b"]), listed("abcde"), listed([1, 2], 1)
        ('a, b', 'a, b, c and 2 more', '1 and 1 more')
    """
    every = [str(name) for name in names]
    more = f" and {len(every) - most} more" if len(every) > most else ""
    return between.join(every[:most]) + more
