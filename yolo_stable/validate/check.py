"""Checks as data: an operation with its shapes, layouts, precisions and limits. What runs is one case of a check."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from .gate import Gate

TIERS = ("quick", "default", "full")
"""Each contains what is in those before it."""
FAMILIES = (
    "env", "transfer", "exact", "elementwise", "linear", "norm", "attention", "assign", "optimizer", "determinism", "shadow",
    "step", "short",
)  # fmt: skip
"""In their order: the earlier ones check what the later ones need."""
PRECISIONS = ("strict", "configured", "float16", "bfloat16", "exact")
"""``strict``: float32 with every reduced precision off. ``configured``: float32 as the device is set up, where that differs.
``float16`` and ``bfloat16``: inputs of that type. ``exact``: integers, layouts and copies."""
LAYOUTS = ("contiguous", "channels_last", "view", "mixed", "chunk", "transposed")
"""How the inputs lie in memory. ``view``: a slice with gaps between its elements; ``mixed``: the first in channels_last, all
others and the gradients contiguous; ``chunk``: half of the channels of a larger one; ``transposed``: two dimensions exchanged."""
FULL_ONLY = ("view/float16", "view/bfloat16")
"""``default`` leaves these to ``full``: torch copies tensors with gaps first, whatever the precision."""
DTYPES = {"strict": "float32", "configured": "float32", "float16": "float16", "bfloat16": "bfloat16", "exact": "exact"}
_QUICK = ("contiguous/strict", "channels_last/strict", "contiguous/bfloat16", "contiguous/exact")
"""What ``quick`` takes of a check that does not say."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Check:
    """One operation of a training step, to be computed on a device and compared."""

    id: str
    """``family/what``, unique in the battery."""
    operation: str
    """Its name in ``operations/``."""
    params: Mapping[str, Any]
    """Shapes and settings of the operation."""
    layouts: tuple[str, ...]
    gates: Mapping[str, Gate]
    """The limits for each precision that is run."""
    tier: str
    """The smallest tier that has it."""
    quick: tuple[str, ...]
    """The layouts and precisions that ``quick`` takes of it; the others come with ``default``."""
    seconds: float
    """Time limit of one case; a first call may search for a kernel or compile one."""
    note: str
    """The known bug that this shape is for."""
    backends: tuple[str, ...] = ()
    """Its backends; empty: all."""

    def __post_init__(self) -> None:
        assert self.family in FAMILIES, self.id
        assert self.tier in TIERS, self.id
        assert set(self.layouts) <= set(LAYOUTS), self.id
        assert set(self.gates) <= set(PRECISIONS), self.id

    @property
    def family(self) -> str:
        """Return one of ``FAMILIES``."""
        return self.id.partition("/")[0]

    def cases(self, tier: str) -> Iterator[CheckCase]:
        """Yield what ``tier`` runs of this check, layouts outermost."""
        if TIERS.index(tier) < TIERS.index(self.tier):
            return
        for precision in self.gates:
            for layout in self.layouts:
                name = f"{layout}/{precision}"
                if tier == "full" or (tier == "default" and name not in FULL_ONLY) or name in self.quick:
                    yield CheckCase(check=self, layout=layout, precision=precision)


@dataclass(frozen=True, kw_only=True, slots=True)
class CheckCase:
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


def check_of(
    family: str,
    name: str,
    operation: str = "",
    /,
    *,
    gates: Mapping[str, Gate],
    layouts: tuple[str, ...] = ("contiguous",),
    tier: str = "quick",
    quick: tuple[str, ...] = _QUICK,
    seconds: float = 120.0,
    note: str = "",
    **params: Any,
) -> Check:
    """Return a check of a family. By default the operation is called like the check; all further words are its params."""
    return Check(
        id=f"{family}/{name}", operation=operation or name.replace("-", "_"), params=params, gates=gates, layouts=layouts,
        tier=tier, quick=quick, seconds=seconds, note=note,
    )  # fmt: skip
