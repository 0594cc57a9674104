"""Comparison command: trains the runs that are left, and prints the results of all."""

from __future__ import annotations

import contextlib
import json as json_format
import shutil
import signal
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from .._shared.atomic_file import reason, write_whole
from .._shared.signals import GracefulStop
from .._shared.strict_json import strict
from ..errors import InvalidCallError, TrainingInterruptedError, YoloStableError
from .board import Board
from .call import CompareCall
from .child import Launch, command
from .measure import measure
from .outcome import DONE, FINISHED, TrialOutcome
from .ranking import TrialRow, conclusion
from .run_trial import Stop, run_trial
from .state import State, default_folder
from .table import print_table, to_json
from .trial import Trial

REPORT = "report.html"
"""The page in the folder of the comparison."""


class TrialBackend(Protocol):
    """Trains the runs that are left, and records in the state how each ended."""

    def __call__(self, trials: Sequence[Trial], state: State, board: Board, *, launch: Launch, stop: Stop) -> None:
        """Train them.

        Raises:
            InvalidCallError: The first run refused the call; nothing was trained.
        """
        ...


def run_comparison(
    call: CompareCall,
    *,
    out: Path | None = None,
    json: Path | None = None,
    backend: TrialBackend | None = None,
    launch: Launch = command,
    notes: Sequence[str] = (),
) -> int:
    """Train the runs of a comparison that are not done yet, print the table, and return the exit code.

    Args:
        call: The parsed call.
        out: Its folder; None: that of the same call below ``runs``, else a new one there.
        json: File for all results, schema 1.
        backend: None: one run after the other on this machine.
        launch: Starts a run.
        notes: Sentences to print with the table.

    Returns:
        0 all runs are done, 1 not all.

    Raises:
        InvalidCallError: The call is wrong; nothing was trained.
        TrainingInterruptedError: A signal asked for it; the same command continues.
        YoloStableError: The state could not be written.
    """
    notes = [*call.notes(), *notes]
    record = call.record()
    state = State(default_folder(record) if out is None else out, record, call.trials)
    backend = backend or one_after_other
    with state:
        left = [trial for trial in call.trials if not state.is_finished(trial)]
        with Board(call.trials, state.folder) as board, GracefulStop(lambda wish: board.say(_asked(wish))) as asked:
            board.say(_plan(call, state, left, notes))
            for trial in call.trials:
                if trial not in left:
                    board.end(trial, state.outcome(trial), before=True)
            try:
                backend(left, state, board, launch=launch, stop=lambda: asked.requested)
            except InvalidCallError:
                _remove_unused(call, state)
                raise
        undone = [trial for trial in call.trials if state.outcome(trial).status not in FINISHED]
        if asked.requested is not None and undone:
            done = len(call.trials) - len(undone)
            raise TrainingInterruptedError(
                f"{asked.requested.name}: {done} of {len(call.trials)} runs are over. The same command continues"
                f" in {state.folder}",
                asked.requested,
            )
        rows = [
            TrialRow(
                trial=trial,
                outcome=state.outcome(trial),
                measured=measure(trial.folder(state.folder)),
            )
            for trial in call.trials
        ]
        return _tell(rows, notes, state, json)


def one_after_other(trials: Sequence[Trial], state: State, board: Board, *, launch: Launch, stop: Stop) -> None:
    """Train runs on this machine, one after the other.

    Raises:
        InvalidCallError: As :class:`TrialBackend`.
    """
    for number, trial in enumerate(trials, start=1):
        if stop() is not None:
            return
        state.begin(trial)
        board.begin(trial, number)
        outcome = run_trial(trial, state.folder, launch=launch, stop=stop, watch=lambda trial=trial: board.watch(trial))
        state.end(trial, outcome)
        board.end(trial, outcome)
        require_not_refused(outcome, state)


def require_not_refused(outcome: TrialOutcome, state: State) -> None:
    """Treat the refusal of the first run as that of the whole call, since all others would say the same.

    Raises:
        InvalidCallError: In the words of the run.
    """
    if outcome.refused and not state.has_trained():
        raise InvalidCallError(outcome.reason)


def _plan(call: CompareCall, state: State, left: Sequence[Trial], notes: Sequence[str]) -> str:
    count = len(call.trials)
    epochs = f"{call.epochs} epoch{'s' if call.epochs > 1 else ''}"
    before = f", {count - len(left)} of them done already" if len(left) < count else ""
    if not left:
        before = ", all done already: the same figures again; --out NEW would train anew"
    return "\n".join([f"{count} runs of {epochs} each{before}, in {state.folder}", *notes])


def _asked(wish: signal.Signals) -> str:
    return f"{wish.name}: the running training saves and ends; a second signal stops it at once."


def _remove_unused(call: CompareCall, state: State) -> None:
    """Remove what a refused call left; a folder that existed before stays."""
    for trial in call.trials:
        with contextlib.suppress(OSError):
            trial.log(state.folder).unlink(missing_ok=True)
        shutil.rmtree(trial.folder(state.folder), ignore_errors=True)
    state.forget()


def _tell(rows: Sequence[TrialRow], notes: Sequence[str], state: State, json: Path | None) -> int:
    """Print the table, write the requested files, and return the exit code."""
    print_table(rows, notes)
    page = _report([row.trial.folder(state.folder) for row in rows], state.folder, " ".join([conclusion(rows), *notes]))
    print(page)
    if json is not None:
        content = to_json(rows, notes, state.folder, call=state.call)
        try:
            write_whole(json, (json_format.dumps(strict(content), indent=2, allow_nan=False) + "\n").encode())
        except OSError as error:
            raise YoloStableError(f"{json} could not be written: {reason(error)}.") from error
    return 0 if all(row.outcome.status == DONE for row in rows) else 1


def _report(folders: Sequence[Path], comparison: Path, told: str) -> str:
    """Write the page of all runs that left anything; return a line that says where it is, or why there is none."""
    from ..report import write_report  # imports drawing code: only now that there is something to draw

    runs = [folder for folder in folders if (folder / "results.csv").is_file() or (folder / "guard.jsonl").is_file()]
    if not runs:
        return "There is no page: no run has left any results."
    try:
        page = write_report(runs, comparison / REPORT, title=comparison.name, conclusion=told, verb="compare")
    except (OSError, YoloStableError) as error:  # the table was printed, and is what counts
        return f"There is no page: {error}"
    return f"Page of all runs: {page}"
