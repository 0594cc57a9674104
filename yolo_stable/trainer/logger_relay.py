"""Logger relay: hands norms, incidents and the verdict to the loggers that Ultralytics has open; on the first rank alone."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from ultralytics.utils import LOGGER, RANK

from .._shared.text import one_line
from ..checkpoints.trainer_view import TrainerView
from ..errors import TrainingHaltedError, TrainingInterruptedError
from ..guard import Counts, StepGuard
from ..loggers.found import in_use
from ..loggers.logger import Logger
from ..provenance.substitution import NoImageLeftError
from ..runlog.step_record import StepRecord

GROUP = "guard_steps"
"""In front of our numbers, whose x-axis is optimizer steps; ``guard/`` are those of epochs, which Ultralytics logs itself."""


class LoggerRelay:
    """Hands on what the log gets anyway: nothing is read of a device for it.

    A logger that raises is told in one line and left alone; the training goes on.

    Args:
        trainer: Read for its callbacks, and the guard's counts.
    """

    def __init__(self, trainer: TrainerView) -> None:
        self._trainer = trainer
        self._open: list[Logger] = []

    def __getstate__(self) -> dict[str, object]:
        """A copy of the trainer logs nothing of ours, since the handle of a logger cannot be copied."""
        return {**vars(self), "_open": []}

    def begin(self) -> list[tuple[str, str]]:
        """Find the open loggers, and return the row of the start-up table; nothing without one."""
        if RANK not in {-1, 0}:
            return []
        for make, module in in_use(self._trainer.callbacks):
            with _Harmless(module.__name__.rpartition(".")[2]):
                logger = make(module)
                if logger is not None:
                    self._open.append(logger)
        return [("loggers", ", ".join(logger.name for logger in self._open))] if self._open else []

    def step(self, record: StepRecord) -> None:
        """Hand on the numbers of a step that has a line in the log."""
        guard = self._trainer.guard
        if self._open and guard is not None:
            values = dict(numbers(record, guard.counts))
            self._each(lambda logger: logger.scalars(record.step, values))

    def tell(self, title: str, text: str, picture: Path | None = None) -> None:
        """Hand on what the terminal says of an incident or an escalation, with the picture if there is one."""
        guard = self._trainer.guard
        if not self._open or guard is None:
            return
        step = guard.counts.applied
        title = title.replace("_", " ")
        self._each(lambda logger: logger.text(step, title, text))
        if picture is not None:
            self._each(lambda logger: logger.image(step, title, picture))

    def follow(self, event: str) -> None:
        """Hand on the verdict before the callbacks of the end, which close the loggers.

        Args:
            event: A callback event of the loop. After ``on_train_end``, or an error, comes ``teardown``.
        """
        if event == "on_train_end":
            guard = self._trainer.guard
            nothing = guard is not None and nothing_learned(guard)
            self._end("halted: nothing was learned" if nothing else "done")
        elif event == "teardown":
            error = sys.exc_info()[1]
            why = f": {type(error).__name__}: {one_line(error)}" if error is not None else ""
            self._end(f"{_status(error)}{why}")

    def _end(self, verdict: str) -> None:
        guard = self._trainer.guard
        if self._open and guard is not None:
            rows = self._trainer.run_log.outcome(guard.counts)
            self.tell("verdict", "\n".join([verdict, *(f"{name}: {value}" if name else value for name, value in rows)]))
        self._open = []

    def _each(self, do: Callable[[Logger], None]) -> None:
        for logger in self._open[:]:
            with _Harmless(logger.name) as harmless:
                do(logger)
            if harmless.failed:
                self._open.remove(logger)


class _Harmless:
    """A block in which a logger's library may raise what it likes; it is told, and goes no further.

    Each library has errors of its own, of no common base, beside those of the network, of files and of values: all that is an
    ``Exception``. What asks the process to end is none, and goes on.
    """

    def __init__(self, name: str) -> None:
        self._name, self.failed = name, False

    def __enter__(self) -> _Harmless:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: object) -> bool:
        if not isinstance(error, Exception):
            return False
        self.failed = True
        LOGGER.info("")  # ends the line of the progress bar
        LOGGER.warning(
            f"{self._name} did not take what the guard logs: {type(error).__name__}: {one_line(error)}. It gets no more of it;"
            " training goes on."
        )
        return True


def numbers(record: StepRecord, counts: Counts) -> Iterator[tuple[str, float]]:
    """Yield what is logged of a step, by name; what is not finite or not known is left out."""
    values: Iterable[tuple[str, float | None]] = (
        ("grad_norm", record.norm),
        ("clip", record.clip),
        *((f"lr_pg{n}", rate) for n, rate in enumerate(record.lr)),
        ("loss_scale", record.scale),
        ("seconds", record.seconds),
        ("rejected", counts.rejected),
        ("clipped", counts.clipped),
        ("rollbacks", counts.rollbacks),
    )
    for name, value in values:
        if value is not None and math.isfinite(value):
            yield f"{GROUP}/{name}", float(value)


def nothing_learned(guard: StepGuard) -> bool:
    """Return whether every step of a run was rejected or undone."""
    counts, recovery = guard.counts, guard.recovery
    learned = counts.applied if recovery is None else recovery.trained
    return not learned and bool(counts.rejected or counts.rollbacks)


def _status(error: BaseException | None) -> str:
    """Return how a run ends with an error, in the words of the log."""
    if isinstance(error, (TrainingHaltedError, NoImageLeftError)):
        return "halted"
    if isinstance(error, (TrainingInterruptedError, KeyboardInterrupt)):
        return "interrupted"
    return "failed" if error is not None else "ended"
