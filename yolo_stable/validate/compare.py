"""Comparison of machines: how the results of the later ones differ from those of the first. Needs no torch."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .._shared.numbers import count
from .._shared.strict_json import strict
from .._shared.text import listed
from ..errors import InvalidCallError
from .deviation import relative
from .difference import DeviceDifference, Weight, common_parts, differences
from .gate import SEVERITY
from .result import SCHEMA, SUITE, CheckResult, ValidationResult, flat_facts
from .result_file import IncomparableError, from_json

_PLATFORM = ("backend", "device_name", "torch", "cuda", "hip", "cudnn", "driver", "gcn_arch", "capability", "cpu_capability",
             "system", "threads", "switches", "variables")  # fmt: skip
"""Facts of an environment; equal ones mean equal bits."""
_WEIGHTS = tuple(Weight)


@dataclass(frozen=True, kw_only=True)
class MachineComparison:
    """The differences of machines from the first one."""

    names: tuple[str, ...]
    """Of the results, such as their files."""
    results: tuple[ValidationResult, ...]
    environment: tuple[tuple[str, tuple[Any, ...]], ...]
    """Facts that differ, with the value of each machine."""
    differences: tuple[DeviceDifference, ...]
    """The most severe first."""
    equal_parts: tuple[tuple[int, int], ...]
    """For each machine after the first: tensors that are equal bit for bit, and tensors in all."""

    @property
    def regressions(self) -> tuple[DeviceDifference, ...]:
        """Return the differences that are worse than the first machine."""
        return tuple(d for d in self.differences if d.weight is Weight.REGRESSION)

    @property
    def status(self) -> str:
        """Return ``same`` or ``regression``."""
        return "regression" if self.regressions else "same"

    @property
    def verdict(self) -> str:
        """Return the verdict in one sentence."""
        checks = list(dict.fromkeys(d.id for d in self.regressions))
        if checks:
            machines = sorted({d.machine for d in self.regressions})
            worse = " and ".join(map(self._called, machines)) + (" is" if len(machines) == 1 else " are")
            return f"REGRESSION: {worse} worse than {self.names[0]} in {count(len(checks), 'check')}: {listed(checks)}."
        ids = {r.id for r in self.results[0].results}
        failing = {r.id for result in self.results for r in result.failed()} & ids
        still = f"; {len(failing)} of them fail{'s' if len(failing) == 1 else ''}" if failing else ""
        changed = len({d.id for d in self.differences})
        notes = f" Differences that are no regression: in {changed} of them." if changed else ""
        no_worse = f"{' and '.join(self.names[1:])} no worse than {self.names[0]}"
        return f"SAME: {count(len(ids), 'check')}, {no_worse}{still}.{notes}"

    def _called(self, machine: int) -> str:
        inject = self.results[machine].inject
        return self.names[machine] + (f" (with the fault {inject})" if inject else "")

    def by_check(self) -> dict[str, list[CheckResult | None]]:
        """Return the results of all machines by check: those with differences first, then those that do not pass."""
        found = [{r.id: r for r in result.results} for result in self.results]
        ids = list(dict.fromkeys(name for results in found for name in results))
        rows = {name: [results.get(name) for results in found] for name in ids}
        weight = {d.id: _WEIGHTS.index(d.weight) for d in reversed(self.differences)}

        def severity(name: str) -> tuple[int, int]:
            worst = min(SEVERITY.index(r.status) for r in rows[name] if r is not None)
            return weight.get(name, len(_WEIGHTS)), worst

        return {name: rows[name] for name in sorted(ids, key=severity)}

    def by_check_and_machine(self) -> list[tuple[DeviceDifference, ...]]:
        """Return the differences, those of one check on one machine together, the most severe first."""
        found: dict[tuple[str, int], list[DeviceDifference]] = {}
        for d in self.differences:
            found.setdefault((d.id, d.machine), []).append(d)
        return [tuple(these) for these in found.values()]

    def to_json(self) -> str:
        """Return the comparison as strict JSON."""
        machines = [
            {"name": name, "backend": r.backend, "device_name": r.device_name, "tier": r.tier, "status": r.status.value,
             "summary": r.summary, "inject": r.inject, "started": r.started}
            for name, r in zip(self.names, self.results, strict=True)
        ]  # fmt: skip
        checks = [
            {"id": name, "machines": [None if r is None else _brief(r, row[0]) for r in row]}
            for name, row in self.by_check().items()
        ]
        content = {
            "kind": "comparison",
            "schema_version": SCHEMA,
            "suite_version": SUITE,
            "status": self.status,
            "verdict": self.verdict,
            "machines": machines,
            "environment": [{"fact": name, "machines": list(values)} for name, values in self.environment],
            "equal_parts": [list(pair) for pair in self.equal_parts],
            "differences": [
                {"id": d.id, "machine": self.names[d.machine], "kind": d.kind, "weight": d.weight.value, "text": d.text}
                for d in self.differences
            ],
            "checks": checks,
        }
        return json.dumps(strict(content), allow_nan=False, indent=1) + "\n"


def read_result(path: Path) -> ValidationResult:
    """Read a result that is to be compared.

    Raises:
        InvalidCallError: There is no such file, or it cannot be read.
        IncomparableError: It is not a whole result, or one of another version.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise InvalidCallError(f"{path} cannot be read: {error.strerror or error}.") from error
    except UnicodeDecodeError as error:
        raise IncomparableError(
            f"{path} is not JSON: {error.reason} at byte {error.start}. Make it again with validate --json."
        ) from error
    try:
        return from_json(text, path)
    except InvalidCallError as error:  # it is there, and nothing can be said about it
        raise IncomparableError(str(error)) from error


def compare(results: Sequence[ValidationResult], names: Sequence[str]) -> MachineComparison:
    """Compare machines with the first, and return all differences, the most severe first.

    Args:
        results: Two or more.
        names: What to call them, in the same order.

    Raises:
        InvalidCallError: There are fewer than two.
        IncomparableError: They were not given the same inputs.
    """
    if len(results) < 2:
        raise InvalidCallError("validate --compare takes two results or more: --compare A.json B.json.")
    first, *others = results
    for other, name in zip(others, names[1:], strict=True):
        _require_same_inputs(first, other, names[0], name)
    found = [
        difference
        for i, other in enumerate(others, start=1)
        for difference in differences(first, other, i, names[0], alike=_alike(first, other))
    ]
    return MachineComparison(
        names=tuple(names),
        results=tuple(results),
        environment=tuple(_environment(results)),
        differences=tuple(sorted(found, key=lambda d: _WEIGHTS.index(d.weight))),
        equal_parts=tuple(_equal_parts(first, other) for other in others),
    )


def _require_same_inputs(a: ValidationResult, b: ValidationResult, a_name: str, b_name: str) -> None:
    if a.seed != b.seed:
        raise IncomparableError(
            f"{a_name} and {b_name} cannot be compared: their inputs were made with --seed {a.seed} and {b.seed}."
            " Validate both with the same seed."
        )
    theirs = {r.id: r for r in b.results}
    common = [(r, theirs[r.id]) for r in a.results if r.id in theirs]
    if not common:
        raise IncomparableError(f"{a_name} and {b_name} cannot be compared: they have no check in common.")
    known = [(x, y) for x, y in common if x.input_sha256 and y.input_sha256]  # one that was killed has none
    other = [x.id for x, y in known if x.input_sha256 != y.input_sha256]
    if other:
        raise IncomparableError(f"{a_name} and {b_name} cannot be compared: other inputs in {listed(other, 1)}.")


def _equal_parts(a: ValidationResult, b: ValidationResult) -> tuple[int, int]:
    theirs = {r.id: r for r in b.results}
    pairs = [pair for x in a.results if x.id in theirs for pair in common_parts(x, theirs[x.id])]
    return sum(p.sha256 == q.sha256 for p, q in pairs), len(pairs)


def _alike(a: ValidationResult, b: ValidationResult) -> bool:
    """Return whether nothing known tells two machines apart: their bits should be equal then."""
    facts = [{"device_name": r.device_name, **r.environment} for r in (a, b)]
    return all(facts[0].get(name) == facts[1].get(name) for name in _PLATFORM)


def _environment(results: Sequence[ValidationResult]) -> Iterator[tuple[str, tuple[Any, ...]]]:
    """Yield the facts in which environments differ, those in groups by ``group.name``."""
    flat = [
        dict(flat_facts({"tier": r.tier, "device_name": r.device_name, "golden": r.golden, **r.environment}))
        for r in results
    ]
    for name in dict.fromkeys(name for facts in flat for name in facts):
        values = tuple(facts.get(name) for facts in flat)
        if any(value != values[0] for value in values):
            yield name, values


def _brief(result: CheckResult, first: CheckResult | None) -> dict[str, Any]:
    """Return a cell of the matrix; ``distance`` is that of the results from the first machine's, over their size."""
    errors, pairs = result.errors, common_parts(first, result) if first is not None else []
    return {
        "status": result.status.value,
        "precision_class": result.precision_class,
        "rms": None if errors is None else errors.rms,
        "q": None if errors is None else errors.q,
        "distance": max((relative(p.sketch, q.sketch) for p, q in pairs), default=None),
        "equal_bits": all(p.sha256 == q.sha256 for p, q in pairs) if pairs else None,
        "heal": result.heal,
    }
