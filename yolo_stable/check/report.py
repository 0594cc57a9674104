"""Report of a check: all findings, as a table, as JSON, and as an exit code."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.text import Text

from .._shared.terminal import Column, Sheet, print_folded
from .finding import DataFinding, Severity
from .layout import MAPS

SCHEMA = 1
PLACES = 3
"""Places of a rule in the table; the JSON file has all."""
_STYLE = {Severity.ERROR: "bold red", Severity.WARNING: "yellow", Severity.INFO: "dim"}


@dataclass(frozen=True)
class DataReport:
    """The result of :func:`yolo_stable.check.check`."""

    place: Path
    """The ``data.yaml`` or folder."""
    root: Path
    """What paths in the table are relative to."""
    task: str
    images: Mapping[str, Sequence[str]]
    """Paths by split, as often as they are listed."""
    splits: Mapping[str, Sequence[Path]]
    """Folders and lists of images by split."""
    names: Mapping[int, str]
    findings: Sequence[DataFinding] = field(default_factory=tuple)
    """The worst first."""
    keypoints: tuple[int, int] = (0, 0)
    channels: int = 3
    """Of an image, as the description asks for."""
    description: Mapping[str, Any] = field(default_factory=dict)
    """The YAML as it is."""

    @cached_property
    def rules_of(self) -> Mapping[str, frozenset[str]]:
        """Ids of the rules with findings, by file or image."""
        rules: dict[str, set[str]] = {}
        for finding in self.findings:
            for path in {finding.path, finding.image}:
                rules.setdefault(path, set()).add(finding.rule.id)
        return {path: frozenset(ids) for path, ids in rules.items()}

    @property
    def total(self) -> int:
        """Number of images."""
        return sum(len(images) for images in self.images.values())

    @property
    def exit_code(self) -> int:
        """1 when there is an error, else 0."""
        return int(any(finding.severity is Severity.ERROR for finding in self.findings))

    def count(self, severity: Severity) -> int:
        """Return the number of findings of a severity."""
        return sum(finding.severity is severity for finding in self.findings)

    @property
    def verdict(self) -> str:
        """One line that says what came of it."""
        splits = ", ".join(f"{split} {len(images)}" for split, images in self.images.items()) or "none"
        counts = {severity: self.count(severity) for severity in Severity}
        said = [f"{n} {kind.value}{'s' if n != 1 and kind is not Severity.INFO else ''}" for kind, n in counts.items()]
        unread = f", whose {MAPS[self.task]} are not looked at" if self.task in MAPS else ""
        return f"{self.total} images ({splits}), {self.task}{unread}: {', '.join(said)}."

    def relative(self, path: str) -> str:
        """Return a path as the table shows it: relative to the data set where it lies in it."""
        return os.path.relpath(path, self.root) if path.startswith(str(self.root) + os.sep) else path

    def to_dict(self) -> dict[str, Any]:
        """Return schema 1 of the JSON file."""
        return {
            "schema": SCHEMA,
            "images": self.total,
            "findings": [finding.to_dict() for finding in self.findings],
        }

    def by_rule(self) -> dict[tuple[Severity, str], list[DataFinding]]:
        """Return the findings in groups of one severity and rule, the worst first."""
        groups: dict[tuple[Severity, str], list[DataFinding]] = {}
        for finding in self.findings:
            groups.setdefault((finding.severity, finding.rule.id), []).append(finding)
        return groups

    def show(self, console: Console) -> None:
        """Print each rule with its first places: a table, or a list on a narrow terminal."""
        sheet = Sheet(
            Column(title="severity", kind="head"),
            Column(title="rule", kind="head"),
            Column(title="count", kind="head", right=True),
            Column(title="where and what", kind="text"),
            Column(title="why, and what to do", kind="text"),
        )
        for (severity, rule), group in self.by_rule().items():
            places = [self.one_line(finding) for finding in group[:PLACES]]
            if len(group) > PLACES:
                places.append(f"and {len(group) - PLACES} more")
            told = f"{group[0].rule.why} {group[0].rule.fix}"
            style = _STYLE[severity]
            sheet.add(Text(severity.value, style), Text(rule, style), str(len(group)), "\n".join(places), told)
        if self.findings:
            sheet.print(console)
        print_folded(console, self.verdict)

    def one_line(self, finding: DataFinding) -> str:
        """Return ``path:line: message``, safe for a terminal."""
        line = f":{finding.line}" if finding.line else ""
        return printable(f"{self.relative(finding.path)}{line}: {finding.message}")


def printable(text: str) -> str:
    r"""Replace control characters and bytes that are no text; file names can hold both.

    Examples:
        >>> printable("a\x1b[31m.jpg")
        'a\\x1b[31m.jpg'
    """
    return "".join(
        char if char.isprintable() else char.encode("unicode_escape", "surrogatepass").decode() for char in text
    )
