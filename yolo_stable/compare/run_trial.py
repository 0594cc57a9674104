"""Trial runner: trains one run of a comparison; it adopts, resumes or begins it."""

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
"""Returns the signal that asks all runs to end, once it came."""
POLL = 0.2
"""Seconds between two looks at a child."""
PATIENCE = 20.0
"""Seconds that a child has after a second signal or an error here, before it is killed."""


def run_trial(
    trial: Trial,
    comparison: Path,
    *,
    launch: Launch = command,
    stop: Stop = lambda: None,
    watch: Callable[[], None] = lambda: None,
) -> TrialOutcome:
    """Train one run to its end.

    If a process still trains it because only its parent was killed, this waits for it. A run that ended meanwhile is kept; a
    guarded one with a checkpoint is resumed; all others begin anew. Ultralytics' own trainer would resume from weights rounded to
    float16, which would spoil the baseline: its runs begin anew.

    Args:
        trial: The run.
        comparison: Folder of the comparison.
        launch: Starts it.
        stop: Asked regularly; the run gets the signal once.
        watch: Called regularly, to show the progress.
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
        outcome = _train(trial, comparison, trial.resume_words(comparison), launch, stop, watch)
        if not outcome.refused:  # else the checkpoint is damaged, or of a finished run
            return outcome
    clear(trial, comparison)
    return _train(trial, comparison, trial.start_words(comparison), launch, stop, watch)


def clear(trial: Trial, comparison: Path) -> None:
    """Remove what a run left, so that it begins anew."""
    shutil.rmtree(trial.folder(comparison), ignore_errors=True)
    trial.log(comparison).unlink(missing_ok=True)


def wait(child: Child, stop: Stop, watch: Callable[[], None]) -> int:
    """Wait for a child, pass the first signal on to it, and return its exit code."""
    asked = False
    try:
        while (code := child.poll()) is None:
            wish = stop()
            if wish is not None and not asked:
                asked = True
                child.send_signal(wish)
            watch()
            time.sleep(POLL)
    except BaseException:  # a second Ctrl-C, or Ray cancels: the child must end, too
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
    """End a child: let it save, and kill it after a while; sooner if it was asked before."""
    child.send_signal(signal.SIGTERM)
    until = time.monotonic() + (PATIENCE / 4 if again else PATIENCE)
    while child.poll() is None:
        if time.monotonic() > until:
            child.kill()
            return
        time.sleep(POLL)
