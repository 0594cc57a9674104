"""Gate: the limits of an operation's error against float64, as data with reason and source, and their judgement."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from .deviation import Errors


class Status(str, Enum):
    """The verdict on one check; ordered by how much it matters in ``SEVERITY``."""

    PASS = "pass"
    WARN = "warn"
    FAIL = "fail"
    SKIP = "skip"


SEVERITY = (Status.FAIL, Status.WARN, Status.SKIP, Status.PASS)
"""The most severe first."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Gate:
    """The limits of one operation in one precision; what is None is not judged."""

    rms: float | None = None
    """Largest norm of the error relative to the norm of the reference that passes."""
    rms_fail: float | None = None
    """Above this it fails, and between is a warning; None: above ``rms`` fails."""
    q: float | None = None
    """Largest error of one element, in unit roundoffs of its terms, that passes."""
    q_fail: float | None = None
    """As ``rms_fail``, for ``q``."""
    maxrel: float | None = None
    """Largest error of one element relative to the largest element of the reference that passes."""
    exact: bool = False
    """Every element must be equal."""
    reason: str
    """Why these limits."""
    source: str
    """Where they were measured or read."""

    def limits(self) -> dict[str, float | bool | str]:
        """Return what is judged, with reason and source, for the artefact."""
        names = ("rms", "rms_fail", "q", "q_fail", "maxrel")
        values = {name: getattr(self, name) for name in names if getattr(self, name) is not None}
        return {**values, **({"exact": True} if self.exact else {}), "reason": self.reason, "source": self.source}

    def judge(self, errors: Errors) -> tuple[Status, str]:
        """Judge the errors of one tensor.

        Args:
            errors: What was measured.

        Returns:
            The verdict, and in words what broke which limit; empty when it passes.

        Examples:
            >>> gate = Gate(rms=5e-6, rms_fail=5e-5, reason="as an example", source="none")
            >>> gate.judge(Errors(rms=1e-5, q=1.0, maxrel=1e-5, nf=0))
            (<Status.WARN: 'warn'>, 'rms 1.0e-05 is over 5.0e-06')
            >>> gate.judge(Errors(rms=float("nan"), q=1.0, maxrel=1e-5, nf=0))[0]
            <Status.FAIL: 'fail'>
        """
        if errors.nf:
            return Status.FAIL, f"{errors.nf} elements are NaN or infinite where the reference is not, or the reverse"
        worst, words = Status.PASS, []
        for name, value, allowed, most in (
            ("rms", errors.rms, self.rms, self.rms_fail),
            ("q", errors.q, self.q, self.q_fail),
            ("maxrel", errors.maxrel, 0.0 if self.exact else self.maxrel, None),
        ):
            if allowed is None or value is None or value <= allowed:  # a NaN is not below anything
                continue
            verdict = Status.WARN if most is not None and value <= most else Status.FAIL
            words.append(
                f"{name} {value:.1e} is over {(allowed if verdict is Status.WARN or most is None else most):.1e}"
            )
            worst = verdict if SEVERITY.index(verdict) < SEVERITY.index(worst) else worst
        return worst, ", ".join(words)
