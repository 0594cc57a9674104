"""Differences between the results of two machines, check by check, and which of them are regressions."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import Enum

from .deviation import distance, relative
from .gate import SEVERITY, Status
from .result import CheckResult, Part, ValidationResult

_GROWTH = 2.0
"""Bits by which an error may grow unnoticed: a factor of four."""
_NEAR_LIMIT = 0.5
"""A grown error is a regression only above this share of its limit: healthy devices differ by less."""
_SAME_REFERENCE, _WRONG_REFERENCE = 1e-12, 1e-6
"""Two float64 references differ by 2e-15 at most through other instructions and threads (measured with AVX-512, SSE4.1 and none,
on one and two cores). Beyond the first something is odd; beyond the second one of the two CPUs computes wrongly."""
_ROUNDED_REFERENCES = {"optimizer": _WRONG_REFERENCE, "determinism": math.inf}
"""Families whose references are not float64 throughout, with what they may differ by: Muon's iteration and the loss scale round
in between, and a repetition is compared with the device's own first run."""
_TIMES_LIMIT = 4.0
"""Two results within the limit of one reference differ by twice the limit at most, and sixteen numbers tell a distance to
within half of itself."""
_CLASSES = ("ieee-fp32", "tf32", "fp16", "bf16", "broken")
"""Precisions from the best to the worst."""
_TRAINING: Mapping[tuple[str, str], Mapping[str, float]] = {
    ("step", "strict"): {"loss": 2e-5, "norm_ratio": 0.02},
    ("step", "configured"): {"loss": 4e-3, "norm_ratio": 0.2},
    ("step", "float16"): {"loss": 4e-2, "norm_ratio": 1.0},
    ("step", "bfloat16"): {"loss": 4e-2, "norm_ratio": 1.0},
    ("short", "strict"): {"loss_1": 2e-5, "loss_2": 2e-3, "final": 0.2},
}
"""Largest relative difference of a number of a training: twice the limit against float64."""


class Weight(str, Enum):
    """How much a difference matters."""

    REGRESSION = "regression"
    CHANGE = "change"
    BETTER = "better"


@dataclass(frozen=True, kw_only=True, slots=True)
class DeviceDifference:
    """One difference of a machine from the first."""

    id: str
    """Of the check."""
    machine: int
    """Position among those compared; the first is 0."""
    kind: str
    """``status``, ``precision``, ``error``, ``result``, ``training``, ``reference``, ``determinism``, ``bits`` or ``missing``."""
    weight: Weight
    text: str


def differences(
    a: ValidationResult, b: ValidationResult, machine: int, a_name: str, *, alike: bool
) -> Iterator[DeviceDifference]:
    """Yield in what machine ``b`` differs from ``a``, which is held to be right.

    Args:
        a: The first machine.
        b: The other.
        machine: ``DeviceDifference.machine``.
        a_name: What to call the first.
        alike: Whether nothing known tells the two apart: equal bits are expected then.
    """
    theirs = {r.id: r for r in b.results}
    for x in a.results:
        y = theirs.get(x.id)
        if y is None:
            if a.tier == b.tier:
                yield DeviceDifference(
                    id=x.id, machine=machine, kind="missing", weight=Weight.CHANGE, text="was not run"
                )
            continue
        for kind, weight, text in _between(x, y, a_name, alike=alike):
            yield DeviceDifference(id=x.id, machine=machine, kind=kind, weight=weight, text=text)


def _between(x: CheckResult, y: CheckResult, a_name: str, *, alike: bool) -> Iterator[tuple[str, Weight, str]]:
    """Yield what differs between two results of one check: kind, weight, words."""
    if x.status is not y.status:
        worse = SEVERITY.index(y.status) < SEVERITY.index(x.status)
        weight = Weight.CHANGE if worse or y.status is Status.SKIP else Weight.BETTER
        weight = Weight.REGRESSION if y.status is Status.FAIL else weight
        yield "status", weight, f"{x.status.value} → {y.status.value}" + (f": {y.reason}" if y.reason else "")
    ran = x.status is not Status.SKIP and y.status is not Status.SKIP
    if not ran:
        return
    before, after = x.precision_class, y.precision_class
    if before in _CLASSES and after in _CLASSES and before != after:
        lower = _CLASSES.index(after) > _CLASSES.index(before)
        chosen = y.mode == "configured" and after != "broken"
        weight = Weight.BETTER if not lower else Weight.CHANGE if chosen else Weight.REGRESSION
        yield "precision", weight, f"precision {before} → {after}"
    yield from _grown(x, y)
    yield from _trained(x, y)
    off = relative(x.reference, y.reference)
    if off > _ROUNDED_REFERENCES.get(x.family, _SAME_REFERENCE):
        yield from _moved(x, y)
        weight = Weight.REGRESSION if not off <= _WRONG_REFERENCE else Weight.CHANGE
        text = f"the float64 references of the two CPUs differ by {off:.1e}: one of them is in doubt"
        yield "reference", weight, text
    for name in x.determinism.keys() & y.determinism.keys():
        if (x.determinism[name] == "bitwise") != (y.determinism[name] == "bitwise"):
            better = y.determinism[name] == "bitwise"
            text = f"repeated ({name}): {y.determinism[name]}, not {x.determinism[name]}"
            yield "determinism", Weight.BETTER if better else Weight.CHANGE, text
    repeatable = all(value == "bitwise" for r in (x, y) for value in r.determinism.values())
    if alike and repeatable and any(p.sha256 != q.sha256 for p, q in common_parts(x, y)):
        yield "bits", Weight.CHANGE, f"other bits than {a_name}, although device, versions and settings are the same"


def _grown(x: CheckResult, y: CheckResult) -> Iterator[tuple[str, Weight, str]]:
    if x.errors is None or y.errors is None:
        return
    for name in ("rms", "q", "maxrel"):
        before, after, limit = getattr(x.errors, name), getattr(y.errors, name), y.gate.get(name)
        if limit is None or before is None or after is None or not after > before:
            continue
        bits = math.log2(after / before) if before > 0 else math.inf
        if bits > _GROWTH:
            weight = Weight.REGRESSION if after > _NEAR_LIMIT * limit else Weight.CHANGE
            yield "error", weight, f"{name} {before:.1e} → {after:.1e} (limit {limit:.1e})"


def _moved(x: CheckResult, y: CheckResult) -> Iterator[tuple[str, Weight, str]]:
    """Compare results without shipping them, by their sketches; where one reference holds for both, their errors say as much."""
    limits = [g.get("rms_fail", g.get("rms")) for g in (x.gate, y.gate)]
    allowed = [limit for limit in limits if limit is not None]
    if not allowed:
        return
    gradients = math.sqrt(sum(p.l2**2 for p in x.parts if p.name.startswith("grad:")))
    for p, q in common_parts(x, y):
        size = max(p.l2, 1e-6 * gradients if p.name.startswith("grad:") else 0.0)
        off = distance(p.sketch, q.sketch) / size if size > 0 else 0.0
        if off > _TIMES_LIMIT * max(allowed):
            yield "result", Weight.REGRESSION, f"{p.name} differs by {off:.1e} of its size (limit {max(allowed):.1e})"


def _trained(x: CheckResult, y: CheckResult) -> Iterator[tuple[str, Weight, str]]:
    for name, limit in _TRAINING.get((x.family, x.precision), {}).items():
        if name in x.numbers and name in y.numbers:
            before, after = x.numbers[name], y.numbers[name]
            off = abs(after - before) / max(abs(before), 1e-12)
            if not off <= limit:
                yield "training", Weight.REGRESSION, f"{name} {before:.6g} → {after:.6g}, {off:.1e} (limit {limit:.1e})"


def common_parts(x: CheckResult, y: CheckResult) -> list[tuple[Part, Part]]:
    """Return the tensors that two results of one check have in common."""
    theirs = {p.name: p for p in y.parts}
    return [(p, theirs[p.name]) for p in x.parts if p.name in theirs]
