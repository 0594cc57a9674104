"""Board: the progress of a comparison, with a line per run on a terminal and two lines per run elsewhere."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from ..runlog.results_csv import read_results
from .outcome import DONE, INTERRUPTED, TrialOutcome
from .trial import Trial


class Board:
    """Shows the progress of each run while it is entered.

    Args:
        trials: The runs.
        folder: Of the comparison.
        console: None: stderr, so that a pipe gets only the table.
    """

    def __init__(self, trials: Sequence[Trial], folder: Path, console: Console | None = None) -> None:
        self._console = console or Console(stderr=True)
        self._folder = folder
        self._live = self._console.is_terminal
        self._sizes: dict[str, int] = {}
        self._progress = Progress(
            TextColumn("{task.fields[trial]}", markup=False),
            BarColumn(bar_width=20),
            TextColumn("{task.fields[state]}", markup=False),
            TimeElapsedColumn(),
            console=self._console,
            disable=not self._live,
        )
        self._tasks: dict[str, TaskID] = {
            trial.name: self._progress.add_task("", total=trial.epochs, start=False, trial=trial.name, state="waiting")
            for trial in trials
        }

    def __enter__(self) -> Board:
        """Begin to show."""
        self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Leave the lines as they are."""
        self._progress.stop()

    def say(self, text: str) -> None:
        """Print a line above the others."""
        self._progress.console.print(text, markup=False, highlight=False, soft_wrap=True)

    def begin(self, trial: Trial, number: int) -> None:
        """Show that a run begins; ``number`` counts from 1."""
        self._progress.start_task(self._tasks[trial.name])
        self._sizes.pop(trial.name, None)
        if not self._live:
            self.say(f"{number}/{len(self._tasks)} {trial.name}: started; its output is in {trial.log(self._folder)}")

    def watch(self, trial: Trial) -> None:
        """Show the epoch of a run; its results are read only when they have grown."""
        path = trial.folder(self._folder) / "results.csv"
        size = path.stat().st_size if path.is_file() else 0
        if not self._live or self._sizes.get(trial.name) == size:
            return
        self._sizes[trial.name] = size
        done = read_results(path).done if size else 0
        state = f"epoch {min(done + 1, trial.epochs)}/{trial.epochs}"
        self._progress.update(self._tasks[trial.name], completed=done, state=state)

    def end(self, trial: Trial, outcome: TrialOutcome, *, before: bool = False) -> None:
        """Show how a run ended; ``before``: in an earlier call."""
        task, state = self._tasks[trial.name], f"{outcome.status} before" if before else outcome.status
        self._progress.update(task, state=state, completed=trial.epochs if outcome.status == DONE else None)
        self._progress.stop_task(task)
        if not self._live:
            why = f": {outcome.reason}" if outcome.reason and outcome.status not in (DONE, INTERRUPTED) else ""
            self.say(f"{trial.name}: {state}{why}")
