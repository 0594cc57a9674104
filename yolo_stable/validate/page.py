"""Pages: a validation or a comparison as one HTML file that needs nothing else, neither network nor scripts."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..pages import render
from .compare import MachineComparison
from .gate import Status
from .healing import Healing
from .result import SCHEMA, SUITE, ValidationResult, flat_facts
from .verdict import number, verdict

_TEMPLATES = Path(__file__).parent / "pages"


def result_page(result: ValidationResult, healing: Healing | None = None) -> str:
    """Return a validation as a page: the verdict, what heals, failures with numbers and limits, all checks, the environment."""
    families: dict[str, list[Any]] = {}
    for check in result.results:
        families.setdefault(check.family, []).append(check)
    read = [r for r in result.by_severity() if r.status in (Status.FAIL, Status.WARN)]
    return _page(
        "result.html.j2",
        subject=result.device_name,
        verdict=verdict(result, healing),
        tone="bad" if result.status is Status.FAIL else "mind" if result.status is Status.WARN else "good",
        result=result,
        healing=healing,
        read=read,
        gates=list({limits(r.gate): r.gate for r in read if "reason" in r.gate}.values()),
        families=families,
        facts=[(name, _text(value)) for name, value in flat_facts(result.environment)],
    )


def comparison_page(comparison: MachineComparison) -> str:
    """Return a comparison as a page: the verdict, the machines, their environments, the differences, all checks."""
    return _page(
        "comparison.html.j2",
        subject=", ".join(comparison.names),
        verdict=comparison.verdict,
        tone="bad" if comparison.regressions else "good",
        comparison=comparison,
        machines=list(enumerate(zip(comparison.names, comparison.results, strict=True))),
        checks=comparison.by_check(),
    )


def _page(template: str, **content: Any) -> str:
    return render(
        _TEMPLATES, template, verb="validate", schema=SCHEMA, suite=SUITE, filters={"number": number, "limits": limits}, **content
    )  # fmt: skip


def limits(gate: Mapping[str, Any]) -> str:
    """Return the limits of a gate in words.

    Examples:
        >>> limits({"rms": 5e-6, "rms_fail": 5e-5, "reason": "as an example"})
        'rms 5.0e-06, fails above 5.0e-05'
    """
    words = []
    for name in ("rms", "q", "maxrel"):
        if name in gate:
            fails = f", fails above {number(gate[f'{name}_fail'])}" if f"{name}_fail" in gate else ""
            words.append(f"{name} {number(gate[name])}{fails}")
    return "; ".join([*words, *(["every element equal"] if gate.get("exact") else [])])


def _text(value: Any) -> str:
    text = ", ".join(map(str, value)) if isinstance(value, (list, tuple)) else value
    return "" if text is None else str(text)
