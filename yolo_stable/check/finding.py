"""DataFinding: one thing that is wrong with a data set, where it is, and by which rule."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import Any


class Severity(str, Enum):
    """How much a finding matters."""

    ERROR = "error"
    """Training fails, loses data, or learns something wrong."""
    WARNING = "warning"
    """Training goes on, probably not as intended."""
    INFO = "info"
    """Worth knowing; often intended."""


ORDER = {severity: place for place, severity in enumerate(Severity)}
"""The worst comes first."""


@dataclass(frozen=True, slots=True)
class Rule:
    """One kind of fault; :data:`yolo_stable.check.rules.RULES` has all."""

    id: str
    severity: Severity
    """Unless a finding says otherwise."""
    why: str
    """What it does to training."""
    fix: str
    """What to do about it."""
    limit: float | None = None
    """Number from which the rule speaks, where the user can set it."""
    unit: str = ""
    """What that number counts."""


@dataclass(frozen=True, slots=True)
class DataFinding:
    """One instance of a rule."""

    rule: Rule
    path: str
    """The file or folder."""
    message: str
    """The value against what is allowed."""
    line: int | None = None
    """Line in a label file, a list of images or the ``data.yaml``, from 1."""
    severity: Severity = Severity.ERROR
    image: str = ""
    """The image that shows it, when there is one."""
    points: tuple[tuple[float, float], ...] = ()
    """Outline of the place in the image, in fractions of its width and height."""
    others: tuple[str, ...] = ()
    """All images of one picture, if the finding is about copies."""

    @property
    def order(self) -> tuple[Any, ...]:
        """Sort key: the worst first, then by rule, path and line."""
        return ORDER[self.severity], self.rule.id, self.path, self.line or 0, self.message

    def to_dict(self) -> dict[str, Any]:
        """Return the finding in schema 1 of the JSON file."""
        return {
            "rule": self.rule.id,
            "severity": self.severity.value,
            "path": self.path,
            "line": self.line,
            "message": self.message,
            "fix": self.rule.fix,
        }


def number(value: float) -> str:
    """Write a coordinate so that a value just beyond a limit does not look like the limit.

    Examples:
        >>> number(1.0100001), number(0.5), number(float("nan"))
        ('1.0100001', '0.5', 'nan')
    """
    return f"{value:.8g}"
