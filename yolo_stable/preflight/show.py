"""Display of a preflight: a row for each stage once it ends, and the verdict last. Colours on a terminal only."""

from __future__ import annotations

import sys
from typing import TextIO

from rich.live import Live
from rich.spinner import Spinner
from rich.text import Text

from .._shared.shell_text import is_command
from .._shared.terminal import console, folded
from .stage import Preflight, StageResult, StageVerdict

STYLES = {
    StageVerdict.PASS: "green",
    StageVerdict.WARN: "yellow",
    StageVerdict.FAIL: "bold red",
    StageVerdict.SKIP: "dim",
}

NARROW = 20
"""Columns of a text, at least."""


class Show:
    """Prints rows to stdout as they come; on a terminal, stderr shows the stage that runs."""

    def __init__(self, to: TextIO | None = None, *, traceback: bool = False) -> None:
        self._console, self._busy = console(to), console(sys.stderr)
        self._live: Live | None = None
        self._traceback = traceback

    def begin(self, stage: str) -> None:
        """Show that a stage begins."""
        self.end()
        if self._busy.is_terminal:
            # It must leave sys.stdout alone: what others print there meanwhile is dropped.
            busy = Spinner("dots", Text(f"{stage} ..."))
            self._live = Live(busy, console=self._busy, transient=True, redirect_stdout=False, redirect_stderr=False)
            self._live.start()

    def stage(self, result: StageResult) -> None:
        """Print the row of a stage."""
        self.end()
        style = STYLES[result.verdict]
        with self._console.capture() as drawn:
            word = Text(f"{result.verdict.value:4}", style=style)
            self._row(result.stage, word, f"{result.seconds:.1f} s", Text(result.figure))
            fix = result.fix.splitlines()
            typed = [line for line in fix if is_command(line)]
            for label, text in (("", result.reason), ("fix", " ".join(line for line in fix if line not in typed))):
                if text:
                    self._row("", Text("    "), label, Text(text, style=style if not label else ""))
            for line in result.details.get("traceback", ()) if self._traceback else ():
                self._row("", Text("    "), "", Text(str(line), style="dim"))
        for line in drawn.get().splitlines():
            print(line.rstrip(), file=self._console.file, flush=True)
        for command in typed:  # whole, however narrow the terminal is
            print(f"    {command}", file=self._console.file, flush=True)

    def _row(self, stage: str, verdict: Text, label: str, text: Text) -> None:
        """Print three narrow columns and a text beside them, without breaking words."""
        head = Text.assemble(f"{stage:13}  ", verdict, f"  {label:>7}  ")
        for line in folded(text, max(self._console.width - len(head), NARROW)):
            self._console.print(head + line, soft_wrap=True)
            head = Text(" " * len(head))

    def verdict(self, preflight: Preflight) -> None:
        """Print the verdict in one line."""
        self.end()
        line = preflight.line()
        word = preflight.verdict.value
        self._console.print(Text.assemble((word, STYLES[preflight.verdict]), line.removeprefix(word)), soft_wrap=True)

    def end(self) -> None:
        """Remove the line of the running stage."""
        if self._live is not None:
            self._live.stop()
            self._live = None
