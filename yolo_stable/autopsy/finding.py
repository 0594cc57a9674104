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
    """Such as ``aten.convolution.default``; empty if something was not finite from the start and no operation read it."""
    module_type: str = ""
    source: str = ""
    """``path/file.py:123 in function``: the first frame outside torch, if any."""
    output: int = 0
    """Index of the output; arguments that it writes into without returning them come after the outputs."""
    index: tuple[int, ...] = ()
    """Of the first bad element."""
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
    """Empty if the inputs were finite; else what was not finite before the first operation:
    ``parameter model.0.conv.weight``, ``buffer ...``, ``input img``, ``a tensor from outside ...``."""
    forward_op: str = ""
    """In the backward pass: the forward operation whose gradient broke."""
    forward_source: str = ""
    wide: str = ""
    """The result of the same operation in float64 on the CPU. ``finite``: it fits the operation's dtype, so the device computed
    wrongly. ``overflow``: finite, but the dtype cannot hold or reach it. ``not finite``: mathematically so. Empty: not known."""
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
    """What broke in one forward and backward pass."""

    loss: float | None = None
    """None: the forward pass did not finish."""
    items: dict[str, float] = field(default_factory=dict)
    healthy: bool = True
    """The pass finished, with finite loss, items, gradients and buffers."""
    first: Break | None = None
    """The earliest break that the wrong results depend on."""
    also: tuple[Break, ...] = ()
    """Further breaks that they depend on, independent of the first, in order."""
    bad_gradients: tuple[str, ...] = ()
    """Parameters whose gradient is not finite, in the order of the model."""
    good_gradients: tuple[str, ...] = ()
    """Their neighbours with a finite gradient; together they bracket the break."""
    bad_buffers: tuple[str, ...] = ()
    frames: tuple[Frame, ...] = ()
    """The last modules before the break, if requested."""
    operations: int = 0
    seconds: float = 0.0
    truncated: bool = False
    """Time ran out, or the trace stopped at an operation."""
    error: str = ""
    """What the pass raised after a break."""
    digests: dict[str, str] = field(default_factory=dict)
    """SHA-256 of the bits of ``loss`` (and items), ``gradients`` and ``buffers``: equal in a bitwise replay."""

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
