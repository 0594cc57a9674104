"""What a validation shows on the terminal: where it is, the verdict, and the table. Colours and a bar on a terminal only."""

from __future__ import annotations

import sys
from collections import Counter
from contextlib import suppress
from types import TracebackType
from typing import Any

from rich import box
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn
from rich.progress import Progress as Bar
from rich.table import Table
from rich.text import Text

from .device import Progress, Status, ValidationResult
from .device.compare import MachineComparison
from .device.healing import Healing
from .device.verdict import rows, verdict

STYLES = {
    "fail": "bold red", "regression": "bold red", "warn": "yellow", "change": "yellow", "skip": "dim", "pass": "green",
    "better": "green",
}  # fmt: skip
_WIDTH = 160
"""A pipe or a file is not 80 columns wide because it has no width."""
_MOST = 40
"""Rows of differences that are printed; the files have all of them."""


def console(*, error: bool = False) -> Console:
    """Return where to print: in colour and as wide as it is on a terminal, plain and wide elsewhere."""
    stream = sys.stderr if error else sys.stdout
    on_terminal = stream.isatty()
    return Console(
        file=stream, width=None if on_terminal else _WIDTH, no_color=None if on_terminal else True,
        force_terminal=None if on_terminal else False, highlight=False, markup=False, emoji=False,
    )  # fmt: skip


class Live:
    """Shows how far a validation is: a bar on a terminal; elsewhere a line for each family and for each failure.

    It prints to stderr, so that what is piped is the verdict and the table.
    """

    def __init__(self) -> None:
        self._console = console(error=True)
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

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
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
            self._console.print(
                Text.assemble(("fail", STYLES["fail"]), f" {result.id}: {result.reason}"), soft_wrap=True
            )

    def say(self, text: str) -> None:
        """Show what is being done besides checks."""
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
    table = _table("", "check", "computed in", "rms", "q", "why")
    for row in rows(result, _MOST):
        why = Text(row.text)
        if row.heal:
            why.append(f"{'; ' if row.text else ''}passes with: ").append(row.heal, style="bold")
        table.add_row(_status(row.status.value), Text(row.name), Text(row.computed_in), row.rms, row.q, why)
    to.print(table)
    if healing is not None and healing.line:
        to.print("Heal it with:\n", soft_wrap=True)
        for setting in healing.chosen:
            where = "  # in Python, before training" if setting.flags else ""
            to.print(Text(f"    {setting.line}{where}", style="bold"), soft_wrap=True)
        to.print("\nor let training do so, with validate=heal among the words of yolo-stable train.", soft_wrap=True)


def show_comparison(comparison: MachineComparison) -> None:
    """Print the verdict in one sentence, the machines, in what their environments differ, and the table of differences."""
    to = console()
    style = STYLES["regression" if comparison.regressions else "pass"]
    to.print(Text(comparison.verdict, style=style), soft_wrap=True)
    machines = _table("machine", "device", "backend", "tier", "status", "fail", "warn", "equal bits")
    for i, (name, result) in enumerate(zip(comparison.names, comparison.results, strict=True)):
        bits = "" if i == 0 else "{} of {} tensors".format(*comparison.equal_parts[i - 1])
        counts = (str(result.summary[status]) for status in ("fail", "warn"))
        device = Text(result.device_name)
        machines.add_row(Text(name), device, result.backend, result.tier, _status(result.status.value), *counts, bits)
    to.print(machines)
    if comparison.environment:
        facts = _table("environment", *comparison.names)
        for name, values in comparison.environment:
            facts.add_row(Text(name), *(Text("" if value is None else str(value)) for value in values))
        to.print(facts)
    if comparison.differences:
        table = _table("", "check", "machine", "differences")
        found = comparison.by_check_and_machine()
        for these in found[:_MOST]:
            worst, text = these[0], Text("; ".join(d.text for d in these))
            table.add_row(_status(worst.weight.value), Text(worst.id), Text(comparison.names[worst.machine]), text)
        if len(found) > _MOST:
            table.add_row("", "...", "", f"{len(found) - _MOST} more; --json and --html have them all")
        to.print(table)


def _table(*columns: str) -> Table:
    table = Table(box=box.SIMPLE_HEAD)
    for column in columns:
        table.add_column(Text(column), overflow="fold")
    return table


def _status(text: str) -> Text:
    return Text(text, style=STYLES[text])


def print_line(text: str) -> None:
    """Print one line, where a reader may have gone already."""
    with suppress(BrokenPipeError):
        console().print(text, soft_wrap=True)
