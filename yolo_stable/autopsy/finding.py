"""Findings: a break, and all that is known about the pass that it happened in."""

from __future__ import annotations

from dataclasses import dataclass, field

from .frames import Frame
from .ranges import Range


@dataclass(frozen=True, slots=True, kw_only=True)
class Break:
    """The operation that made a value which is not finite."""

    phase: str
    """``forward``, ``loss`` or ``backward``."""
    module: str
    """Dotted path from ``named_modules``; empty: the model itself; ``<Type>``: a module that is not registered in it."""
    op: str
    """Such as ``aten.convolution.default``; empty when something was not finite from the start and nothing read it."""
    module_type: str = ""
    source: str = ""
    """``path/file.py:123 in function``: the first frame outside torch; empty when there is none."""
    output: int = 0
    """Which of the operation's outputs; arguments that it writes into without returning them count after these."""
    index: tuple[int, ...] = ()
    """The first bad element."""
    value: str = "nan"
    """``nan``, ``inf`` or ``-inf``: that element."""
    non_finite: int = 0
    numel: int = 0
    dtype: str = ""
    shape: tuple[int, ...] = ()
    """Of that output."""
    rows: tuple[int, ...] = ()
    """Indices along dimension 0 that hold bad elements, at most 64."""
    inputs: tuple[Range, ...] = ()
    origin: str = ""
    """Empty when the operation made it out of finite inputs; else what was not finite before the first operation:
    ``parameter model.0.conv.weight``, ``buffer ...``, ``input img``, ``a tensor from outside ...``."""
    forward_op: str = ""
    """For the backward pass: the forward operation whose gradient broke."""
    forward_source: str = ""
    wide: str = ""
    """What the same operation gives in float64 on the CPU. ``finite``: it fits into the operation's dtype, so the device
    computed wrongly. ``overflow``: finite, but this dtype cannot hold or reach it. ``not finite``: mathematically so.
    Empty: not known."""
    ordinal: int = 0
    """The number of the operation in the pass, from 1."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Location:
    """One forward and backward pass, and what broke in it."""

    loss: float | None = None
    """None when the forward pass did not come to an end."""
    items: dict[str, float] = field(default_factory=dict)
    healthy: bool = True
    """The pass came to its end, and loss, items, gradients and buffers came out finite."""
    first: Break | None = None
    """The earliest break that what came out wrong depends on."""
    also: tuple[Break, ...] = ()
    """Further breaks that it depends on and that do not come from the first, in order."""
    bad_gradients: tuple[str, ...] = ()
    """Parameters whose gradient is not finite, in the order of the model."""
    good_gradients: tuple[str, ...] = ()
    """Their neighbours in that order whose gradient is finite: together they bracket the break."""
    bad_buffers: tuple[str, ...] = ()
    frames: tuple[Frame, ...] = ()
    """The last modules before the break, when they were asked for."""
    operations: int = 0
    seconds: float = 0.0
    truncated: bool = False
    """Time ran out, or the trace was stopped at an operation."""
    error: str = ""
    """What the forward or backward pass raised, when it raised after a break."""
    digests: dict[str, str] = field(default_factory=dict)
    """SHA-256 over the bits of ``loss`` (and items), ``gradients`` and ``buffers``: equal when a replay is bitwise."""
