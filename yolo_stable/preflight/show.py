"""What a preflight shows: a row for each stage when it has ended, and the verdict last. Colours on a terminal only."""

from __future__ import annotations

import sys
from typing import TextIO

from rich.live import Live
from rich.spinner import Spinner
from rich.table import Table
from rich.text import Text

from ..terminal import console
from ..typed import is_command
from .stage import Preflight, StageResult, Verdict

STYLES = {Verdict.PASS: "green", Verdict.WARN: "yellow", Verdict.FAIL: "bold red", Verdict.SKIP: "dim"}


class Show:
    """Prints rows to stdout as they come; on a terminal stderr says what is being done.

    Args:
        to: Where to; None: stdout as it is now, whatever is put in its place later.
        traceback: Also print the frames of an error that a stage has ended with.
    """

    def __init__(self, to: TextIO | None = None, *, traceback: bool = False) -> None:
        self._console, self._busy = console(to), console(sys.stderr)
        self._live: Live | None = None
        self._traceback = traceback

    def begin(self, stage: str) -> None:
        """Say that a stage begins."""
        self.end()
        if self._busy.is_terminal:
            # It must leave sys.stdout alone: what is printed there meanwhile is meant for nobody.
            busy = Spinner("dots", Text(f"{stage} ..."))
            self._live = Live(busy, console=self._busy, transient=True, redirect_stdout=False, redirect_stderr=False)
            self._live.start()

    def stage(self, result: StageResult) -> None:
        """Print the row of a stage."""
        self.end()
        row = Table.grid(padding=(0, 2))
        for width in (13, 4, 7):
            row.add_column(width=width, justify="right" if width == 7 else "left", no_wrap=True)
        row.add_column(overflow="fold")
        style = STYLES[result.verdict]
        row.add_row(
            Text(result.stage),
            Text(result.verdict.value, style=style),
            Text(f"{result.seconds:.1f} s"),
            Text(result.figure),
        )
        fix = result.fix.splitlines()
        typed = [line for line in fix if is_command(line)]
        for label, text in (("", result.reason), ("fix", " ".join(line for line in fix if line not in typed))):
            if text:
                row.add_row("", "", label, Text(text, style=style if not label else ""))
        if self._traceback:
            for line in result.details.get("traceback", ()):
                row.add_row("", "", "", Text(str(line), style="dim"))
        with self._console.capture() as drawn:
            self._console.print(row)
        for line in drawn.get().splitlines():
            print(line.rstrip(), file=self._console.file, flush=True)
        for command in typed:  # whole, however narrow the terminal is
            print(f"    {command}", file=self._console.file, flush=True)

    def verdict(self, preflight: Preflight) -> None:
        """Print the verdict in one line."""
        self.end()
        line = preflight.line()
        word = preflight.verdict.value
        self._console.print(Text.assemble((word, STYLES[preflight.verdict]), line.removeprefix(word)), soft_wrap=True)

    def end(self) -> None:
        """Take away what says that something is being done."""
        if self._live is not None:
            self._live.stop()
            self._live = None
