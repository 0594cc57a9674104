"""Frames: the last modules before a break, with the magnitudes of their weights, inputs and outputs, for people."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from .ranges import dtype_name, plain


@dataclass(frozen=True, slots=True, kw_only=True)
class Magnitude:
    """How large the elements of a tensor are."""

    role: str
    """``weight``, ``input`` or ``output``."""
    name: str
    dtype: str
    shape: tuple[int, ...]
    low: float
    """Least absolute value; NaN when an element is."""
    high: float
    """Greatest absolute value, likewise."""
    mean: float
    """Mean of the absolute values, likewise."""
    non_finite: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Frame:
    """One call of a module."""

    module: str
    module_type: str
    tensors: tuple[Magnitude, ...]
    call: int = 0
    """The number of the call in the pass."""


def frame_of(module: nn.Module, name: str, call: int, inputs: object, outputs: object) -> Frame:
    """Return one call of a module: its own weights, inputs and outputs.

    Syncs: one read per tensor.
    """
    own = [("weight", part, weight) for part, weight in module.named_parameters(recurse=False)]
    moved = [("input", n, t) for n, t in tensors_in(inputs)] + [("output", n, t) for n, t in tensors_in(outputs)]
    rows = tuple(_magnitude(role, n, t) for role, n, t in own + moved if t.is_floating_point() and t.numel())
    return Frame(module=name, module_type=type(module).__name__, tensors=rows, call=call)


def tensors_in(value: object, name: str = "") -> Iterator[tuple[str, Tensor]]:
    """Yield the tensors in nested dicts, lists and tuples with their dotted names."""
    if isinstance(value, Tensor):
        yield name or "0", value
    elif isinstance(value, dict):
        for key, inner in value.items():
            yield from tensors_in(inner, f"{name}.{key}" if name else str(key))
    elif isinstance(value, (list, tuple)):
        for i, inner in enumerate(value):
            yield from tensors_in(inner, f"{name}.{i}" if name else str(i))


def frames_table(frames: Sequence[Frame]) -> str:
    """Return the frames as aligned text: absolute min, max and mean of each tensor, the last module at the bottom.

    Examples:
        >>> row = Magnitude(
        ...     role="output", name="0", dtype="float32", shape=(2, 3), low=0, high=2, mean=1, non_finite=0
        ... )
        >>> print(frames_table([Frame(module="fc", module_type="Linear", tensors=(row,))]))
        fc (Linear)
             abs min   abs max  abs mean   not finite  what
            0.00e+00  2.00e+00  1.00e+00            0  output 0 2x3 float32
    """
    lines = []
    for frame in frames:
        lines += [
            f"{frame.module or 'the model'} ({frame.module_type})",
            f"    {'abs min':>8}  {'abs max':>8}  {'abs mean':>8}   not finite  what",
        ]
        for row in frame.tensors:
            shape = "x".join(map(str, row.shape)) or "scalar"
            lines.append(
                f"    {row.low:8.2e}  {row.high:8.2e}  {row.mean:8.2e}   {row.non_finite:10d}  "
                f"{row.role} {row.name} {shape} {row.dtype}"
            )
    return "\n".join(lines)


def before(frames: Iterable[Frame], call: int, count: int) -> tuple[Frame, ...]:
    """Return the last ``count`` frames up to the call of the break; all are in the order of their ends."""
    done = list(frames)
    end = next((i + 1 for i, frame in enumerate(done) if frame.call == call), len(done))
    return tuple(done[max(0, end - count) : end]) if count > 0 else ()


def _magnitude(role: str, name: str, tensor: Tensor) -> Magnitude:
    values = plain(tensor).abs()
    wide = torch.float32 if values.element_size() < 4 else values.dtype
    low, high = torch.aminmax(values)
    numbers = torch.stack([low.to(wide), high.to(wide), values.mean(dtype=wide), (~values.isfinite()).sum().to(wide)])
    least, most, mean, bad = numbers.tolist()
    return Magnitude(
        role=role,
        name=name,
        dtype=dtype_name(tensor.dtype),
        shape=tuple(tensor.shape),
        low=least,
        high=most,
        mean=mean,
        non_finite=int(bad),
    )
