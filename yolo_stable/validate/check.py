"""A check as data: an operation with its shapes, layouts, precisions and limits; and one case of it, which is what runs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from .gate import Gate

TIERS = ("quick", "default", "full")
"""Each contains what is in those before it."""
FAMILIES = (
    "env", "transfer", "exact", "elementwise", "linear", "norm", "attention", "assign", "optimizer", "determinism", "shadow",
    "step", "short",
)  # fmt: skip
"""In the order in which they run: what the later ones need is checked by the earlier ones."""
PRECISIONS = ("strict", "configured", "float16", "bfloat16", "exact")
"""``strict``: float32 with every reduced precision off. ``configured``: float32 as the device is set up, where that differs.
``float16`` and ``bfloat16``: inputs of that type. ``exact``: integers, layouts and copies."""
LAYOUTS = ("contiguous", "channels_last", "view", "mixed", "chunk", "transposed")
"""How the inputs lie in memory. ``view``: a slice with gaps between its elements; ``mixed``: the first in channels_last, all
others and the gradients contiguous; ``chunk``: half of the channels of a larger one; ``transposed``: two dimensions exchanged."""
FULL_ONLY = ("view/float16", "view/bfloat16")
"""What ``default`` leaves to ``full``: tensors with gaps are copied first, and a lower precision knows nothing of it."""
DTYPES = {"strict": "float32", "configured": "float32", "float16": "float16", "bfloat16": "bfloat16", "exact": "exact"}


@dataclass(frozen=True, kw_only=True, slots=True)
class Check:
    """One operation of a training step, to be computed on a device and compared."""

    id: str
    """``family/what``, unique in the battery."""
    family: str
    """One of ``FAMILIES``."""
    operation: str
    """The name under which ``operations/`` knows what to compute."""
    params: Mapping[str, Any] = field(default_factory=dict)
    """Shapes and settings of the operation."""
    layouts: tuple[str, ...] = ("contiguous",)
    gates: Mapping[str, Gate]
    """The limits for each precision that is run."""
    tier: str = "quick"
    """The smallest tier that has it."""
    quick: tuple[str, ...] = ("contiguous/strict", "channels_last/strict", "contiguous/bfloat16", "contiguous/exact")
    """The layouts and precisions that ``quick`` takes of it; the others come with ``default``."""
    seconds: float = 120.0
    """Time limit of one case; a first call may search for a kernel or compile one."""
    backends: tuple[str, ...] = ()
    """The backends that it is for; empty: all."""
    note: str = ""
    """Which known bug this shape is in the battery for."""

    def __post_init__(self) -> None:
        assert self.family in FAMILIES, self.id
        assert self.id.startswith(f"{self.family}/"), self.id
        assert self.tier in TIERS, self.id
        assert set(self.layouts) <= set(LAYOUTS), self.id
        assert set(self.gates) <= set(PRECISIONS), self.id

    def cases(self, tier: str) -> Iterator[Case]:
        """Yield what ``tier`` runs of this check, layouts outermost."""
        if TIERS.index(tier) < TIERS.index(self.tier):
            return
        for precision in self.gates:
            for layout in self.layouts:
                name = f"{layout}/{precision}"
                if tier == "full" or (tier == "default" and name not in FULL_ONLY) or name in self.quick:
                    yield Case(check=self, layout=layout, precision=precision)


@dataclass(frozen=True, kw_only=True, slots=True)
class Case:
    """A check in one layout and one precision."""

    check: Check
    layout: str
    precision: str

    @property
    def id(self) -> str:
        """Return ``family/what/layout/precision``."""
        return f"{self.check.id}/{self.layout}/{self.precision}"

    @property
    def gate(self) -> Gate:
        """Return the limits that apply."""
        return self.check.gates[self.precision]

    @property
    def dtype(self) -> str:
        """Return the name of the type that is computed in."""
        return DTYPES[self.precision]
