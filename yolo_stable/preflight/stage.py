"""Stage results: what each stage of a preflight came to, and what all of them came to together."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

from .._shared.strict_json import strict

SCHEMA = 1
"""Version of the form of the JSON."""


class Verdict(str, Enum):
    """What is thought of a stage."""

    PASS = "PASS"
    WARN = "WARN"
    """Training can begin, but somebody should look at this."""
    FAIL = "FAIL"
    """Training would fail, or learn nothing; the stages behind are not run."""
    SKIP = "SKIP"
    """There was nothing to look at, or no time."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Outcome:
    """What a stage has found out."""

    verdict: Verdict = Verdict.PASS
    figure: str = ""
    """What was measured, in a line."""
    reason: str = ""
    """Why it is not a pass; empty when it is."""
    fix: str = ""
    """What to do about it."""
    details: Mapping[str, Any] = field(default_factory=dict)
    """Numbers for a program."""


@dataclass(frozen=True, kw_only=True, slots=True)
class StageResult:
    """One stage of a preflight."""

    stage: str
    verdict: Verdict
    figure: str = ""
    seconds: float = 0.0
    reason: str = ""
    fix: str = ""
    details: Mapping[str, Any] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """Return it as strict JSON can say it: numbers that are not finite are strings."""
        return {
            "stage": self.stage,
            "verdict": self.verdict.value,
            "figure": self.figure,
            "seconds": round(self.seconds, 3),
            "reason": self.reason,
            "fix": self.fix,
            "details": strict(dict(self.details)),
        }


@dataclass(frozen=True, kw_only=True, slots=True)
class Preflight:
    """All stages, in the order in which they were run."""

    stages: tuple[StageResult, ...] = ()
    seconds: float = 0.0

    @property
    def failed(self) -> StageResult | None:
        """The stage that failed, which is the last one; None when none did."""
        return next((stage for stage in self.stages if stage.verdict is Verdict.FAIL), None)

    @property
    def warned(self) -> tuple[StageResult, ...]:
        """The stages with a warning."""
        return tuple(stage for stage in self.stages if stage.verdict is Verdict.WARN)

    @property
    def verdict(self) -> Verdict:
        """The worst of all: FAIL, else WARN, else PASS."""
        return Verdict.FAIL if self.failed is not None else Verdict.WARN if self.warned else Verdict.PASS

    @property
    def exit_code(self) -> int:
        """0 clean or warnings, 1 failed."""
        return int(self.verdict is Verdict.FAIL)

    def __getitem__(self, name: str) -> StageResult:
        """Return a stage by name.

        Raises:
            KeyError: It was not run.
        """
        for stage in self.stages:
            if stage.stage == name:
                return stage
        raise KeyError(name)

    def to_dict(self) -> dict[str, Any]:
        """Return what ``--json`` writes."""
        return {
            "schema": SCHEMA,
            "verdict": self.verdict.value,
            "seconds": round(self.seconds, 3),
            "stages": [stage.to_dict() for stage in self.stages],
        }

    def line(self) -> str:
        """Return the verdict as one sentence.

        Examples:
            >>> Preflight(stages=(StageResult(stage="loss", verdict=Verdict.FAIL, reason="box is nan"),)).line()
            'FAIL at loss: box is nan'
        """
        if self.failed is not None:
            return f"FAIL at {self.failed.stage}: {self.failed.reason}"
        judged = sum(stage.verdict is not Verdict.SKIP for stage in self.stages)
        if self.warned:
            names = ", ".join(stage.stage for stage in self.warned)
            return f"WARN: {judged} stages in {self.seconds:.0f} s, look at {names}. Training can begin."
        return f"PASS: {judged} stages in {self.seconds:.0f} s. Training can begin."
