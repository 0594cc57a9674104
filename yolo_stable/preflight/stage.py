"""Stage results: the outcome of each stage of a preflight, and of all of them together."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import Enum
from typing import Any

from .._shared.strict_json import strict

SCHEMA = 1
"""Version of the form of the JSON."""


class StageVerdict(str, Enum):
    """What a stage came to."""

    PASS = "PASS"
    WARN = "WARN"
    """Training can begin, but somebody should look at this."""
    FAIL = "FAIL"
    """Training would fail, or learn nothing; no later stage runs."""
    SKIP = "SKIP"
    """There was nothing to look at, or no time."""


@dataclass(frozen=True, kw_only=True, slots=True)
class StageOutcome:
    """What a stage found."""

    verdict: StageVerdict = StageVerdict.PASS
    figure: str = ""
    """What was measured, in a line."""
    reason: str = ""
    """Why it is not a pass; empty when it is."""
    fix: str = ""
    """What to do about it."""
    details: Mapping[str, Any] = field(default_factory=dict)
    """Numbers for a program."""

    def fail(self, reason: str, fix: str, **details: Any) -> StageOutcome:
        """Return the same measurement as a failure, with further details."""
        return self._judged(StageVerdict.FAIL, reason, fix, details)

    def warn(self, reason: str, fix: str, **details: Any) -> StageOutcome:
        """Return the same measurement as a warning, with further details."""
        return self._judged(StageVerdict.WARN, reason, fix, details)

    def _judged(self, verdict: StageVerdict, reason: str, fix: str, details: Mapping[str, Any]) -> StageOutcome:
        return replace(self, verdict=verdict, reason=reason, fix=fix, details={**self.details, **details})


def skipped(figure: str, **details: Any) -> StageOutcome:
    """Return the outcome of a stage that had nothing to look at."""
    return StageOutcome(verdict=StageVerdict.SKIP, figure=figure, details=details)


@dataclass(frozen=True, kw_only=True, slots=True)
class StageResult(StageOutcome):
    """One stage of a preflight, once it has ended."""

    stage: str
    seconds: float = 0.0

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
    """All stages, in the order in which they ran."""

    stages: tuple[StageResult, ...] = ()
    seconds: float = 0.0

    @property
    def failed(self) -> StageResult | None:
        """The stage that failed, which is the last one; None when none did."""
        return next((stage for stage in self.stages if stage.verdict is StageVerdict.FAIL), None)

    @property
    def warned(self) -> tuple[StageResult, ...]:
        """The stages with a warning."""
        return tuple(stage for stage in self.stages if stage.verdict is StageVerdict.WARN)

    @property
    def verdict(self) -> StageVerdict:
        """The worst of all: FAIL, else WARN, else PASS."""
        return StageVerdict.FAIL if self.failed else StageVerdict.WARN if self.warned else StageVerdict.PASS

    @property
    def exit_code(self) -> int:
        """0 clean or warnings, 1 failed."""
        return int(self.verdict is StageVerdict.FAIL)

    def __getitem__(self, name: str) -> StageResult:
        """Return a stage by name.

        Raises:
            KeyError: It did not run.
        """
        return {stage.stage: stage for stage in self.stages}[name]

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
            >>> Preflight(stages=(StageResult(stage="loss", verdict=StageVerdict.FAIL, reason="box is nan"),)).line()
            'FAIL at loss: box is nan'
        """
        if self.failed is not None:
            return f"FAIL at {self.failed.stage}: {self.failed.reason}"
        judged = sum(stage.verdict is not StageVerdict.SKIP for stage in self.stages)
        look = f", look at {', '.join(stage.stage for stage in self.warned)}" if self.warned else ""
        return f"{self.verdict.value}: {judged} stages in {self.seconds:.0f} s{look}. Training can begin."
