"""Naming: parameters, loss items and breaks in few words."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

from ..autopsy.finding import Break


def grouped(names: Sequence[str], most: int = 4) -> str:
    """Return the modules of these parameters, each with its count.

    Examples:
        >>> grouped(["model.0.conv.weight", "model.0.bn.bias", "model.23.cv2.0.bias", "scale"])
        'model.0 (2), model.23 (1), scale (1)'
    """
    counts = Counter(".".join(name.split(".")[:-1][:2]) or name for name in names)
    shown = [f"{module} ({count})" for module, count in list(counts.items())[:most]]
    more = len(counts) - len(shown)
    return ", ".join(shown) + (f" and {more} more modules" if more > 0 else "")


def in_parts(items: Mapping[str, float]) -> str:
    """Return the items of a loss in a line.

    Examples:
        >>> in_parts({"box_loss": 1.5, "cls_loss": 2.0})
        'box 1.5, cls 2'
    """
    return ", ".join(f"{name.removesuffix('_loss')} {value:.4g}" for name, value in items.items())


def broke(first: Break) -> str:
    """Return which operation made a value that is not finite, and where.

    Examples:
        >>> broke(Break(phase="loss", module="", op="aten.log.default", value="-inf", source="my/loss.py:12 in forward"))
        'the loss: log.default gave -inf (my/loss.py:12 in forward)'
    """
    kind = f" ({first.module_type})" if first.module and first.module_type else ""
    name = f"{first.module}{kind}" if first.module else "the loss" if first.phase == "loss" else "the model itself"
    if first.origin:
        return f"{first.origin} is not finite" + (f"; {name} is the first to read it" if first.op else "")
    widest = max((max(abs(r.low or 0.0), abs(r.high or 0.0)) for r in first.inputs), default=None)
    inputs = "" if widest is None else f" from inputs up to {widest:.3g}"
    why = f"; {first.dtype} cannot hold it" if first.wide == "overflow" else ""
    back = "going back, " if first.phase == "backward" else ""
    where = shortened(first.forward_source or first.source)
    shown = f" ({where})" if where and not first.module else ""
    return f"{back}{name}: {first.op.removeprefix('aten.')} gave {first.value}{inputs}{why}{shown}"


def shortened(source: str) -> str:
    """Return a source line with the last folders of its path only.

    Examples:
        >>> shortened("/home/me/site-packages/ultralytics/nn/modules/conv.py:87 in forward")
        'nn/modules/conv.py:87 in forward'
    """
    return "/".join(source.split("/")[-3:])
