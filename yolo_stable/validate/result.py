"""Result of a validation as plain data. Without torch, any machine can read and compare it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from .check import CheckCase
from .deviation import Errors
from .gate import SEVERITY, Status

SCHEMA = 1
"""Version of the file's form."""
SUITE = "2"
"""Version of the battery: another one has other inputs, shapes or limits, and its results are not comparable."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Part:
    """One tensor of a check's results: enough to compare two machines without shipping it."""

    name: str
    """``out``, or ``grad:x`` for the gradient of the input ``x``."""
    shape: tuple[int, ...]
    sha256: str
    """Of its bytes: equal on two machines means equal bit for bit."""
    nan: int
    inf: int
    l2: float
    absmax: float
    mean: float
    sketch: tuple[float, ...]
    """Sixteen signed sums (``sketch.py``): the distance of two sketches is about the distance of the two tensors."""
    sample: tuple[str, ...]
    """Up to eight of its elements, evenly spaced, as ``float.hex()``."""
    errors: Errors


@dataclass(frozen=True, kw_only=True, slots=True)
class CheckResult:
    """The verdict on one case, with the evidence."""

    id: str
    """``family/what/layout/precision``."""
    check: str
    family: str
    operation: str
    params: Mapping[str, Any]
    layout: str
    precision: str
    dtype: str
    mode: str
    """``strict`` or ``configured``: whether reduced precisions were switched off."""
    status: Status
    reason: str = ""
    """What broke which limit; empty when it passed."""
    notes: tuple[str, ...] = ()
    """Worth knowing, but not a failure."""
    precision_class: str | None = None
    """The precision that was really used: ``ieee-fp32``, ``tf32``, ``fp16``, ``bf16`` or ``broken``; None: does not apply."""
    errors: Errors | None = None
    """The worst of all parts."""
    gate: Mapping[str, Any] = field(default_factory=dict)
    """The limits with their reason and source."""
    determinism: Mapping[str, str] = field(default_factory=dict)
    """``same``, ``poison`` (memory dirtied in between) and ``contended``: ``bitwise``, or ``differs (1.0e-07)``."""
    input_sha256: str = ""
    """Of all inputs: equal on two machines, else they are not comparable."""
    reference: tuple[float, ...] = ()
    """Sketch of the float64 reference: differs beyond 1e-12 only when a CPU is wrong."""
    parts: tuple[Part, ...] = ()
    numbers: Mapping[str, float] = field(default_factory=dict)
    """Single measured numbers, such as a loss."""
    heal: str | None = None
    """The setting under which it passes, as a line for a shell; the search fills it in."""
    ms: float = 0.0
    """How long it took; no verdict depends on it."""

    @classmethod
    def of(cls, case: CheckCase, status: Status, reason: str, **found: Any) -> CheckResult:
        """Return the verdict on a case: what broke which limit, and further fields."""
        return cls(
            id=case.id,
            check=case.check.id,
            family=case.check.family,
            operation=case.check.operation,
            params=dict(case.check.params),
            layout=case.layout,
            precision=case.precision,
            dtype=case.dtype,
            mode="configured" if case.precision == "configured" else "strict",
            status=status,
            reason=reason,
            gate=case.gate.limits(),
            **found,
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class ValidationResult:
    """The result of one run of ``validate``."""

    backend: str
    device: str
    """As torch names it, such as ``cuda:0``."""
    device_name: str
    tier: str
    seed: int
    environment: Mapping[str, Any]
    """Versions, driver, precision switches and environment variables."""
    results: tuple[CheckResult, ...]
    inject: str | None = None
    """The fault that was injected to prove the validator."""
    golden: str = ""
    """Which shipped reference was used; empty: computed here."""
    started: str = ""
    """When, in UTC, ISO 8601."""
    seconds: float = 0.0
    schema_version: int = SCHEMA
    suite_version: str = SUITE

    @property
    def status(self) -> Status:
        """Return ``FAIL`` when any check failed, else ``WARN`` when any warned, else ``PASS``."""
        found = {r.status for r in self.results}
        return next((s for s in (Status.FAIL, Status.WARN) if s in found), Status.PASS)

    @property
    def summary(self) -> dict[str, int]:
        """Return how many checks have each status."""
        counts = Counter(r.status for r in self.results)
        return {status.value: counts[status] for status in Status}

    def by_severity(self) -> tuple[CheckResult, ...]:
        """Return the results, failures first, otherwise in the order of the battery."""
        return tuple(sorted(self.results, key=lambda r: SEVERITY.index(r.status)))

    def failed(self) -> tuple[CheckResult, ...]:
        """Return the results that failed."""
        return tuple(r for r in self.results if r.status is Status.FAIL)


def flat_facts(facts: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield the facts of an environment, those in groups by ``group.name``."""
    for name, value in facts.items():
        if isinstance(value, Mapping):
            yield from flat_facts(value, f"{prefix}{name}.")
        else:
            yield prefix + name, value
