"""Autopsy report: as JSON (schema 1) and as text."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import PurePath
from typing import Any

from .._shared.strict_json import strict
from .._shared.text import listed
from ..errors import InvalidCallError
from .advice import Names, named
from .cause import CAUSES, UNDECIDED

SCHEMA = 1
PHASES = ("data", "forward", "loss", "backward", "step", "state")
_KEYS = ("schema", "reproduced", "bitwise", "cause", "phase", "module", "op", "samples", "evidence", "next")


@dataclass(frozen=True, slots=True)
class Sample:
    """One file that is, or may be, guilty."""

    path: str
    """Empty: not known."""
    index: int
    """In its data set; without provenance, in the batch."""
    tile: tuple[int, int, int, int] | None = None
    """Its place in the training image, (x1, y1, x2, y2) in pixels; None: all of it, or not known."""
    label_row: int | None = None
    """Row of its label list, from 0, if a label is guilty."""

    def to_json(self) -> dict[str, Any]:
        """Return the sample in the form of the schema."""
        tile = None if self.tile is None else list(self.tile)
        return {"path": self.path, "index": self.index, "tile": tile, "label_row": self.label_row}


@dataclass(frozen=True, kw_only=True, slots=True)
class AutopsyReport:
    """What an autopsy found."""

    reproduced: bool = False
    """A replay broke in the same way as the training."""
    bitwise: bool = False
    """The replay gave the same bits as the training."""
    cause: str = UNDECIDED
    phase: str = "forward"
    module: str = ""
    """Dotted path within the model; empty: not known, or the model itself."""
    op: str = ""
    """Such as ``aten.convolution.default``; empty if no operation was found."""
    samples: tuple[Sample, ...] = ()
    evidence: Mapping[str, Any] = field(default_factory=dict)
    """Strict JSON: non-finite numbers are strings."""
    next: str = ""
    """What to do now; commands are on their own lines, see `advice`."""
    location: Any = field(default=None, compare=False, repr=False)
    """The `Location` behind it, with its frames; not in the JSON."""

    def to_json(self) -> dict[str, Any]:
        """Return the answer in the form of the schema."""
        return {
            "schema": SCHEMA,
            "reproduced": self.reproduced,
            "bitwise": self.bitwise,
            "cause": self.cause,
            "phase": self.phase,
            "module": self.module,
            "op": self.op,
            "samples": [sample.to_json() for sample in self.samples],
            "evidence": strict(self.evidence),
            "next": self.next,
        }

    @classmethod
    def from_json(cls, value: Any) -> AutopsyReport:
        """Read an answer back.

        Raises:
            InvalidCallError: It is not that; says what is wrong.
        """
        if isinstance(value, (str, bytes)):
            try:
                value = json.loads(value)
            except ValueError as error:
                raise InvalidCallError(f"The autopsy's answer is not JSON: {error}.") from error
        _require(isinstance(value, dict) and set(value) == set(_KEYS), f"the keys {', '.join(_KEYS)}")
        _require(value["schema"] == SCHEMA and type(value["schema"]) is int, f"schema {SCHEMA}")
        _require(
            all(type(value[key]) is bool for key in ("reproduced", "bitwise")), "booleans for reproduced and bitwise"
        )
        _require(all(type(value[key]) is str for key in ("module", "op", "next")), "text for module, op and next")
        _require(value["cause"] in CAUSES, f"a cause among {', '.join(CAUSES)}")
        _require(value["phase"] in PHASES, f"a phase among {', '.join(PHASES)}")
        _require(isinstance(value["evidence"], dict), "an object for evidence")
        _require(isinstance(value["samples"], list), "a list of samples")
        samples = tuple(_sample(one) for one in value["samples"])
        return cls(**{key: value[key] for key in _KEYS if key not in {"schema", "samples"}}, samples=samples)

    def naming(self, names: Names) -> AutopsyReport:
        """Return the same answer with the names of this run in its next step, without commands that do nothing here."""
        return replace(self, next=named(self.next, self.cause, names))

    def headline(self) -> str:
        """Return the one line that matters most.

        Examples:
            >>> found = {"what": "has NaN pixels", "tiles": ["2 of 4"]}
            >>> AutopsyReport(cause="data", phase="data", samples=(Sample("a/img_017.jpg", 17),), evidence=found).headline()
            'img_017.jpg (tile 2 of 4) has NaN pixels: data'
        """
        what = str(self.evidence.get("what", "")) or "broke the training"
        if len(self.samples) > 1 and what.startswith("has "):
            what = f"have {what[4:]}"
        why = ": not enough memory" if self.cause == UNDECIDED and self.evidence.get("out_of_memory") else ""
        return f"{self._who()} {what}: {self.cause}{why}"

    def text(self) -> str:
        """Return the whole answer as text, beginning with the headline."""
        facts = dict(self.evidence)
        rows = [("cause", f"{self.cause}: {facts.pop('why')}" if facts.get("why") else self.cause)]
        if self.op:
            kind = f" ({facts['module_type']})" if facts.get("module_type") else ""
            where = f" in {self.module}{kind}" if self.module else ""
            rows.append(("operation", f"{self.op}{where}, {facts.get('pass') or self.phase}"))
        if facts.get("source"):
            rows.append(("source", str(facts["source"])))
        if facts.get("first_bad"):
            rows.append(("first bad", str(facts["first_bad"])))
        rows += [("input", str(line)) for line in facts.get("inputs", ())]
        for sample in self.samples:
            at = f", pixels {list(sample.tile)}" if sample.tile else ""
            row = f", label row {sample.label_row}" if sample.label_row is not None else ""
            rows.append(("image", f"{sample.path or f'number {sample.index} of the batch'}{at}{row}"))
        shown = {"what", "why", "module_type", "source", "first_bad", "inputs", "tiles", "pass"}
        rows += [("evidence", f"{key}: {_words(value)}") for key, value in facts.items() if key not in shown]
        first, *others = self.next.split("\n")
        rows += [("replay", self._replay()), ("next", first), *(("", line) for line in others)]
        return "\n".join([self.headline(), *(f"  {name:<10} {value}" for name, value in rows)])

    def _replay(self) -> str:
        if self.reproduced:
            return "bit for bit" if self.bitwise else "the same fault"
        return "none: no single batch did it" if self.phase == "state" else "could not be reproduced"

    def _who(self) -> str:
        tiles = self.evidence.get("tiles") or [""] * len(self.samples)
        names = []
        for sample, tile in zip(self.samples, tiles, strict=False):
            name = PurePath(sample.path).name if sample.path else f"image {sample.index} of the batch"
            row = f", label row {sample.label_row}" if sample.label_row is not None else ""
            names.append(f"{name} (tile {tile}{row})" if tile else f"{name} ({row[2:]})" if row else name)
        if not names:
            nobody = "the run" if self.phase in ("step", "state") else "the batch"
            return f"{self.op} in {self.module}" if self.module and self.op else self.module or self.op or nobody
        return listed(names)


def _sample(value: Any) -> Sample:
    _require(
        isinstance(value, dict) and set(value) == {"path", "index", "tile", "label_row"}, "samples with their four keys"
    )
    path, index, tile, row = (value[key] for key in ("path", "index", "tile", "label_row"))
    _require(type(path) is str and type(index) is int, "a path and an index for each sample")
    _require(row is None or type(row) is int, "a whole number or null for label_row")
    corners = tile is None or (isinstance(tile, list) and len(tile) == 4 and all(type(n) is int for n in tile))
    _require(corners, "four whole numbers or null for a tile")
    return Sample(path, index, None if tile is None else (tile[0], tile[1], tile[2], tile[3]), row)


def _require(right: bool, what: str) -> None:
    if not right:
        raise InvalidCallError(f"This is not the answer of an autopsy: it needs {what}. Write it with `--json FILE`.")


def _words(value: Any) -> str:
    return ", ".join(map(str, value)) if isinstance(value, (list, tuple)) else str(value)
