"""Location of a break: the operation that broke, and what is known of its pass."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from .frames import Frame
from .ranges import Range

MOST_NAMES = 5
"""Names that a list in words has at most."""


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

    def facts(self) -> dict[str, Any]:
        """Return the break as evidence in JSON; what is empty is left out."""
        place = f" {list(self.index)}" if self.index else ""
        facts: dict[str, Any] = {
            "pass": self.phase,
            "module_type": self.module_type,
            "source": self.source,
            "first_bad": f"output {self.output}{place} = {self.value} ({self.non_finite} of {self.numel} not finite)",
            "inputs": [str(one) for one in self.inputs],
            "origin": self.origin,
            "forward_op": self.forward_op,
            "forward_source": self.forward_source,
            "wide": self.wide,
            "dtype": self.dtype,
        }
        return {key: value for key, value in facts.items() if value}


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

    def facts(self) -> dict[str, Any]:
        """Return what the traced replay showed as evidence in JSON."""
        facts: dict[str, Any] = {"loss": self.loss, "items": self.items}
        if self.first is not None:
            facts.update(self.first.facts())
        if self.also:
            facts["also"] = [f"{one.op} in {one.module}" for one in self.also[:MOST_NAMES]]
        for key in ("bad_gradients", "good_gradients", "bad_buffers"):
            if names := getattr(self, key):
                facts[key] = shortened(names)
        return facts


def shortened(names: Iterable[str]) -> list[str]:
    """Return the first few names, and how many more there are."""
    every = list(names)
    return every if len(every) <= MOST_NAMES else [*every[:MOST_NAMES], f"and {len(every) - MOST_NAMES} more"]
