"""Sweep: the trainings of a list of data sets, whose halts Ultralytics would only log."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from ..errors import TrainingHaltedError, TrainingInterruptedError, UnhealthyStartError, YoloStableError
from ..trainer.trainers import GuardedTrainerMixin


class Sweep:
    """Makes the trainer of each data set, and remembers how the one before ended.

    Args:
        make: The trainer's class, or what makes one.
    """

    def __init__(self, make: Callable[..., Any]) -> None:
        self._make = make
        self._last: Any = None
        self.ended: dict[str, YoloStableError] = {}
        """By the name of the run."""

    def __call__(self, **arguments: Any) -> Any:
        """Make the next trainer, unless a signal has ended the one before."""
        self.look()
        if any(isinstance(error, TrainingInterruptedError) for error in self.ended.values()):
            with suppress(OSError, KeyError):  # the folder that was just made for it
                Path(arguments["overrides"]["save_dir"]).rmdir()
            raise _InterruptedError
        self._last = self._make(**arguments)
        return self._last

    def look(self) -> None:
        """Remember how the last training has ended."""
        last, self._last = self._last, None
        if isinstance(last, GuardedTrainerMixin) and last.services.ending.error is not None:
            self.ended[last.save_dir.name] = last.services.ending.error

    @property
    def halts(self) -> dict[str, str]:
        """Why the guard gave up, by the name of the run."""
        gave_up = (TrainingHaltedError, UnhealthyStartError)
        return {name: str(error) for name, error in self.ended.items() if isinstance(error, gave_up)}

    @contextmanager
    def until_interrupted(self) -> Iterator[None]:
        """Let a signal end the sweep and not only one of its trainings.

        Raises:
            TrainingInterruptedError: As it came.
        """
        with suppress(_InterruptedError):
            yield
        self.look()
        for error in self.ended.values():
            if isinstance(error, TrainingInterruptedError):
                raise error


class _InterruptedError(BaseException):
    """Ends Ultralytics' loop over data sets, which goes on after every ``Exception``."""


def raise_halts(done: Any, halts: Mapping[str, str]) -> None:
    """Raise the first halt of a sweep.

    Args:
        done: Ultralytics' ``MultiTrainer``, after its training.
        halts: Why the guard gave up, by the name of the run.

    Raises:
        TrainingHaltedError: Names the data set, and says what was done.
    """
    if halts:
        name, why = next(iter(halts.items()))
        trained = [run for run, metrics in done.metrics.items() if metrics]
        raise TrainingHaltedError(
            f"{len(halts)} of {len(done.args['data'])} data sets halted ({', '.join(halts)});"
            f" trained: {', '.join(trained) or 'none'}. {name}: {why}"
        )


def of_processes(done: Any, since: float) -> dict[str, str]:
    """Return why the guard gave up in runs that were processes of their own, by the name of the run, as they have written it.

    Args:
        done: Ultralytics' ``MultiTrainer``, after its training.
        since: When that began, in seconds of :func:`time.time`: what is older is of an earlier run in the same folder.
    """
    halts = {}
    for name, metrics in done.metrics.items():
        file = Path(done.save_dir, name, "summary.json")
        if not metrics and file.is_file() and file.stat().st_mtime >= since - 1.0:
            summary = json.loads(file.read_text(encoding="utf-8"))
            if summary.get("status") == "halted":
                halts[name] = summary["message"]
    return halts
