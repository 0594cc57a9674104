"""Rules of the data check, from ``rules.yaml``: severity, why it matters, what to do, limit."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import yaml

from .finding import DataFinding, Rule, Severity


def _read() -> dict[str, Rule]:
    content = yaml.safe_load(Path(__file__).with_name("rules.yaml").read_text(encoding="utf-8"))
    return {
        key: Rule(
            key, Severity(entry["severity"]), entry["why"], entry["fix"], entry.get("limit"), entry.get("unit", "")
        )
        for key, entry in content.items()
    }


RULES: dict[str, Rule] = _read()
"""Every rule by its id."""


def found(
    rule: str,
    path: object,
    message: str,
    *,
    line: int | None = None,
    severity: Severity | None = None,
    image: object = "",
    points: Iterable[tuple[float, float]] = (),
    others: Iterable[str] = (),
) -> DataFinding:
    """Make a finding; its fields are those of :class:`DataFinding`.

    Examples:
        >>> found("image-empty", "a.jpg", "0 bytes").severity.value
        'error'
    """
    entry = RULES[rule]
    return DataFinding(
        entry, str(path), message, line, severity or entry.severity, str(image), tuple(points), tuple(others)
    )
