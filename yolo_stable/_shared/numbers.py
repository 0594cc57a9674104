"""Numbers: read from a log, and written for people."""

from __future__ import annotations

import math
import reprlib
from typing import Any

_SHORT = reprlib.Repr()
_SHORT.maxlevel, _SHORT.maxstring, _SHORT.maxlong = 3, 200, 40
_SHORT.maxlist = _SHORT.maxtuple = _SHORT.maxdict = 20


def number(value: Any) -> float | None:
    """Read a number, which is a word in the log if it is not finite; None: no number.

    Examples:
        >>> number(3), number("nan"), number("12 files"), number(True), number(None)
        (3.0, nan, None, None, None)
    """
    if type(value) is float:  # nearly always
        return value
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
        return None
    try:
        return float(value)
    except (ValueError, OverflowError):
        return None


def finite(value: Any) -> float | None:
    """Read a finite number; None: anything else."""
    read = number(value)
    return read if read is not None and math.isfinite(read) else None


def whole(value: Any, most: int = 10**12) -> int | None:
    """Read a whole number from 0 to ``most``; None: anything else.

    Examples:
        >>> whole(7), whole(7.0), whole(-1), whole("7"), whole(7.5)
        (7, 7, None, None, None)
    """
    if type(value) is int:
        return value if 0 <= value <= most else None
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value <= most:
        return None
    return int(value) if value == int(value) else None


def short(value: Any) -> str:
    """Return a number with four digits; empty if there is none.

    Examples:
        >>> short(0.71234), short(1234567), short(1234.5), short(2.5e-7), short(float("inf")), short(None), short(0.5)
        ('0.7123', '1,234,567', '1,234', '2.5e-07', 'inf', '', '0.5')
    """
    read = number(value)
    if read is None:
        return ""
    if not math.isfinite(read):
        return str(read)
    if 1000 <= abs(read) < 1e15:
        return f"{read:,.0f}"
    return f"{read:.4g}"


def count(amount: int, one: str, many: str = "") -> str:
    """Return an amount with its noun.

    Examples:
        >>> count(1, "step"), count(1200, "step"), count(0, "batch", "batches")
        ('1 step', '1,200 steps', '0 batches')
    """
    return f"{amount:,} {one if amount == 1 else many or one + 's'}"


def megabytes(size: int) -> str:
    """Return a number of bytes in words.

    Examples:
        >>> megabytes(0), megabytes(123_400), megabytes(12_340_000), megabytes(1_000_000_000)
        ('0 MB', '0.123 MB', '12.3 MB', '1000 MB')
    """
    return f"{size / 1e6:.0f} MB" if size >= 1e8 else f"{size / 1e6:.3g} MB"


def duration(seconds: float) -> str:
    """Return a time in words.

    Examples:
        >>> duration(0.25), duration(42.4), duration(192), duration(7500)
        ('0.25 s', '42 s', '3 min 12 s', '2 h 5 min')
    """
    if seconds < 10:
        return f"{seconds:.2g} s"
    minutes, rest = divmod(round(seconds), 60)
    if not minutes:
        return f"{rest} s"
    hours, minutes = divmod(minutes, 60)
    return f"{hours:,} h {minutes} min" if hours else f"{minutes} min {rest} s"


def text_of_lines(value: Any, most: int) -> str:
    """Return the first lines of a text, each as :func:`text`: commands keep their own lines."""
    return "\n".join(text(line, most) for line in str(value or "").split("\n")[:20])


def text(value: Any, most: int = 600) -> str:
    r"""Return text of a log for a page: of bounded length, without control or bidirectional characters.

    Examples:
        >>> text("a\x1b[31m\u202eb"), text("x" * 10, 4), text(None)
        ('a [31m b', 'xxx…', '')
    """
    if value is None:
        return ""
    nested = isinstance(value, (list, tuple, dict, set))  # of a file from a stranger, and of any depth
    read = value if isinstance(value, str) else _SHORT.repr(value) if nested else str(value)
    cut = read if len(read) <= most else read[: most - 1] + "…"
    return cut if cut.isprintable() else "".join(c if c.isprintable() else " " for c in cut)
