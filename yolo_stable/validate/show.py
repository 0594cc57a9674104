"""Console output of a validation: progress, the verdict, the table; colours and a bar on a terminal only."""

from __future__ import annotations

import sys
from collections import Counter
from contextlib import suppress
from typing import Any

from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn
from rich.progress import Progress as Bar
from rich.text import Text

from .._shared.terminal import Column, Sheet, console
from . import Progress, Status, ValidationResult
from .compare import MachineComparison
from .healing import Healing
from .verdict import rows, verdict

STYLES = {
    "fail": "bold red", "regression": "bold red", "warn": "yellow", "change": "yellow", "skip": "dim", "pass": "green",
    "better": "green",
}  # fmt: skip
_MOST = 40
"""Rows of differences that are printed; the files have all of them."""


class Live:
    """Shows how far a validation is: a bar on a terminal; elsewhere a line for each family and for each failure.

    It prints to stderr, so that what is piped is the verdict and the table.
    """

    def __init__(self) -> None:
        self._console = console(sys.stderr)
        self._bar: Bar | None = None
        self._task: Any = None
        self._family = ""
        self._counts: Counter[str] = Counter()

    def __enter__(self) -> Live:
        if self._console.is_terminal:
            self._bar = Bar(
                TextColumn("{task.description}"), BarColumn(bar_width=24), MofNCompleteColumn(), TimeElapsedColumn(),
                console=self._console, transient=True,
            )  # fmt: skip
            self._bar.start()
            self._task = self._bar.add_task("starting", total=None)
        return self

    def __exit__(self, *_: object) -> None:
        self._end_family()
        if self._bar is not None:
            self._bar.stop()

    def check(self, progress: Progress) -> None:
        """Show that a check begins, or has ended."""
        if self._bar is not None:
            self._bar.update(self._task, description=progress.id, completed=progress.done, total=progress.total)
        if progress.result is None:
            return
        result = progress.result
        if result.family != self._family:
            self._end_family()
            self._family = result.family
        self._counts[result.status.value] += 1
        if result.status is Status.FAIL:
            line = Text.assemble(("fail", STYLES["fail"]), f" {result.id}: {result.reason}")
            self._console.print(line, soft_wrap=True)

    def say(self, text: str) -> None:
        """Show work besides checks."""
        if self._bar is not None:
            self._bar.update(self._task, description=text, total=None)
        else:
            self._end_family()
            self._console.print(text, soft_wrap=True)

    def _end_family(self) -> None:
        if self._family and self._bar is None:
            counts = ", ".join(f"{count} {status}" for status, count in sorted(self._counts.items()))
            self._console.print(f"{self._family}: {counts}", soft_wrap=True)
        self._family = ""
        self._counts.clear()


def show_result(result: ValidationResult, healing: Healing | None) -> None:
    """Print the verdict in one sentence, then the table, then the line that heals."""
    to = console()
    to.print(Text(verdict(result, healing), style=STYLES[result.status.value]), soft_wrap=True)
    head = (Column(title="", kind="head"), Column(title="check", kind="head"))
    sheet = Sheet(*head, *_figures("computed in", "rms", "q"), Column(title="why", kind="text"))
    for row in rows(result, _MOST):
        why = Text(row.text)
        if row.heal:
            why.append(f"{'; ' if row.text else ''}passes with: ").append(row.heal, style="bold")
        sheet.add(_status(row.status.value), row.name, row.computed_in, row.rms, row.q, why)
    sheet.print(to)
    if healing is not None and healing.line:
        to.print("Heal it with:\n", soft_wrap=True)
        for setting in healing.chosen:
            where = "  # in Python, before training" if setting.flags else ""
            to.print(Text(f"    {setting.line}{where}", style="bold"), soft_wrap=True)
        to.print("\nor let training do it: add validate=heal to yolo-stable train.", soft_wrap=True)


def show_comparison(comparison: MachineComparison) -> None:
    """Print the verdict in one sentence, the machines, where their environments differ, and the table of differences."""
    to = console()
    style = STYLES["regression" if comparison.regressions else "pass"]
    to.print(Text(comparison.verdict, style=style), soft_wrap=True)
    titles = ("device", "backend", "tier", "status", "fail", "warn", "equal bits")
    machines = Sheet(Column(title="machine", kind="head"), *_figures(*titles))
    for i, (name, result) in enumerate(zip(comparison.names, comparison.results, strict=True)):
        bits = "" if i == 0 else "{} of {} tensors".format(*comparison.equal_parts[i - 1])
        counts = (str(result.summary[status]) for status in ("fail", "warn"))
        status = _status(result.status.value)
        machines.add(name, result.device_name, result.backend, result.tier, status, *counts, bits)
    machines.print(to)
    if comparison.environment:
        facts = Sheet(Column(title="environment", kind="head"), *_figures(*comparison.names))
        for name, values in comparison.environment:
            facts.add(name, *("" if value is None else str(value) for value in values))
        facts.print(to)
    if comparison.differences:
        head = (Column(title=title, kind="head") for title in ("", "check", "machine"))
        sheet = Sheet(*head, Column(title="differences", kind="text"))
        found = comparison.by_check_and_machine()
        for these in found[:_MOST]:
            worst, text = these[0], Text("; ".join(d.text for d in these))
            sheet.add(_status(worst.weight.value), worst.id, comparison.names[worst.machine], text)
        if len(found) > _MOST:
            sheet.add("", "...", "", f"{len(found) - _MOST} more; --json and --html have them all")
        sheet.print(to)


def _figures(*titles: str) -> list[Column]:
    return [Column(title=title) for title in titles]


def _status(text: str) -> Text:
    return Text(text, style=STYLES[text])


def print_line(text: str) -> None:
    """Print one line; the reader may have gone already."""
    with suppress(BrokenPipeError):
        console().print(text, soft_wrap=True)
