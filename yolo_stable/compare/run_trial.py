"""Trial runner: trains one run of a comparison from wherever it was: taken up, resumed or begun."""

from __future__ import annotations

import shutil
import signal
import time
from collections.abc import Callable
from pathlib import Path

from .child import Child, Launch, command, find_orphan, start
from .outcome import FINISHED, INTERRUPTED, TrialOutcome, left_behind, outcome_of
from .trial import Trial

Stop = Callable[[], "signal.Signals | None"]
"""Returns the signal that asks all to end, once it has come."""
POLL = 0.2
"""Seconds between two looks at a child."""
PATIENCE = 20.0
"""Seconds that a child is given after a second signal, or an error here, before it is killed."""


def run_trial(
    trial: Trial,
    comparison: Path,
    *,
    launch: Launch = command,
    stop: Stop = lambda: None,
    watch: Callable[[], None] = lambda: None,
) -> TrialOutcome:
    """Train one run to its end.

    A process that still trains it, since only its parent was killed, is waited for. A run that has ended while nobody looked
    is taken as it is; a guarded one that has a checkpoint is resumed; all others begin anew. Ultralytics' own trainer resumes
    from weights rounded to float16, which would spoil the baseline: its runs begin anew.

    Args:
        trial: The run.
        comparison: Folder of the comparison.
        launch: What starts it.
        stop: Asked at each look; the signal is passed on to the run, once.
        watch: Called at each look, to show how far it is.

    Returns:
        What became of it.
    """
    orphan = find_orphan(trial, comparison)
    if orphan is not None:
        wait(orphan, stop, watch)
        if stop() is not None:
            return left_behind(trial.folder(comparison)) or TrialOutcome(status=INTERRUPTED)
    told = left_behind(trial.folder(comparison))
    if told is not None and told.status in FINISHED:
        return told
    if not trial.stock and trial.last(comparison).is_file():
        outcome = _train(trial, comparison, trial.go_on(comparison), launch, stop, watch)
        if not outcome.refused:  # else the checkpoint is damaged, or of a run that was about to be closed
            return outcome
    clear(trial, comparison)
    return _train(trial, comparison, trial.begin(comparison), launch, stop, watch)


def clear(trial: Trial, comparison: Path) -> None:
    """Remove what a run has left, so that it begins anew."""
    shutil.rmtree(trial.folder(comparison), ignore_errors=True)
    trial.log(comparison).unlink(missing_ok=True)


def wait(child: Child, stop: Stop, watch: Callable[[], None]) -> int:
    """Wait for a child, and pass the first signal on to it.

    Returns:
        Its exit code; of an orphan, :data:`~yolo_stable.compare.child.GONE`.
    """
    asked = False
    try:
        while (code := child.poll()) is None:
            wish = stop()
            if wish is not None and not asked:
                asked = True
                child.send_signal(wish)
            watch()
            time.sleep(POLL)
    except BaseException:  # a second Ctrl-C, or Ray that cancels: not without the child
        _end(child, again=asked)
        raise
    return code


def _train(
    trial: Trial, comparison: Path, words: list[str], launch: Launch, stop: Stop, watch: Callable[[], None]
) -> TrialOutcome:
    log = trial.log(comparison)
    comparison.mkdir(parents=True, exist_ok=True)
    size = log.stat().st_size if log.is_file() else 0
    if stop() is not None:
        return TrialOutcome(status=INTERRUPTED)
    code = wait(start(launch(trial, words), log), stop, watch)
    return outcome_of(code, trial.folder(comparison), log, size)


def _end(child: Child, *, again: bool) -> None:
    """End a child: it may save first, unless it was asked before; then it has a while, and is killed."""
    child.send_signal(signal.SIGTERM)
    until = time.monotonic() + (PATIENCE / 4 if again else PATIENCE)
    while child.poll() is None:
        if time.monotonic() > until:
            child.kill()
            return
        time.sleep(POLL)
