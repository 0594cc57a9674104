"""Many parameters in few words."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from ..autopsy.finding import Break


def grouped(names: Sequence[str], most: int = 4) -> str:
    """Return names counted by the module that they are in.

    Examples:
        >>> grouped(["model.0.conv.weight", "model.0.bn.bias", "model.23.cv2.0.bias", "scale"])
        'model.0 (2), model.23 (1), scale (1)'
    """
    counts = Counter(".".join(name.split(".")[:-1][:2]) or name for name in names)
    shown = [f"{module} ({count})" for module, count in list(counts.items())[:most]]
    more = len(counts) - len(shown)
    return ", ".join(shown) + (f" and {more} more modules" if more > 0 else "")


def broke(first: Break) -> str:
    """Return where a value that is not finite was made."""
    name = first.module or "the model itself"
    kind = f" ({first.module_type})" if first.module_type else ""
    if first.origin:
        return f"{first.origin} is not finite" + (f"; {name}{kind} is the first to read it" if first.op else "")
    widest = max((max(abs(r.low or 0.0), abs(r.high or 0.0)) for r in first.inputs), default=None)
    inputs = "" if widest is None else f" from inputs up to {widest:.3g}"
    why = f"; {first.dtype} cannot hold it" if first.wide == "overflow" else ""
    return f"{name}{kind}: {first.op.removeprefix('aten.')} gave {first.value}{inputs}{why}"
