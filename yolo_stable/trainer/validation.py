"""Validation policy: which validations count, and when a collapse rolls the run back to its best state.

The state is looked at before each validation. A fitness that is not finite does not count. The first validation of healthy
weights in a run that is not finite is gone through once more (``incidents/validation_batch.py``), and its first batch that is
not finite becomes an incident like any other.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

from ultralytics.utils import LOGGER, RANK

from .._shared.text import one_line
from ..checkpoints.trainer_view import TrainerView
from ..guard.wrappers import unwrap
from .fitness_collapse import FitnessWatch, is_worse, rise
from .witnesses import Witnesses


class ValidationPolicy:
    """Judges validations, and rolls a collapsed run back to its best state.

    Args:
        trainer: Read for the guard, the plan and the place in the run.
        look_into: Told of a validation of healthy weights that is not finite, with the names of its metrics.
    """

    def __init__(self, trainer: TrainerView, look_into: Callable[[list[str]], None]) -> None:
        self._trainer, self._look_into = trainer, look_into
        self.fitness_watch, self.witnesses = FitnessWatch(), Witnesses()

    def validate(self, stock: Callable[[], Any]) -> tuple[Any, Any, bool]:
        """Validate a state that was found healthy.

        Args:
            stock: Ultralytics' validation; returns metrics and fitness, each None where none was computed.

        Returns:
            Metrics, fitness, and whether the fitness counts: one that does not is 0, and must not become the best.
        """
        guard = self._trainer.guard
        assert guard is not None
        healthy = guard.inspect()  # with several ranks it may have to wait for the next window
        metrics, fitness = stock()
        if metrics is None or fitness is None:
            return metrics, fitness, True
        wrong = [key for key, value in metrics.items() if not math.isfinite(value)]
        counts = healthy and math.isfinite(fitness)
        if not math.isfinite(fitness):
            wrong.append("fitness")
        if wrong:
            self._tell_of_not_finite(wrong, healthy=healthy, counts=counts)
            if healthy:
                self._look_into(wrong)
        if not counts:
            return metrics, 0.0, False
        if self._went_back(float(fitness)):
            return *stock(), True  # the results are to be those of what is saved
        return metrics, fitness, True

    def witness(self, batch: Mapping[str, Any]) -> None:
        """Keep some batches while the next validation might raise a suspicion of collapse."""
        if self.fitness_watch.looks_closer:
            self.witnesses.see(batch, self._trainer.batch_number, len(self._trainer.train_loader))
        elif len(self.witnesses):
            self.witnesses.clear()

    def _tell_of_not_finite(self, wrong: list[str], *, healthy: bool, counts: bool) -> None:
        trainer = self._trainer
        assert trainer.guard is not None
        state = ", although all weights are" if healthy else ", of a state that is not healthy"
        if trainer.guard.recovery is None:  # nobody has looked at it
            state = ""
        meaning = "Its fitness counts." if counts else "It does not count."
        if getattr(getattr(trainer.validator, "args", None), "quantize", None) == 16:
            meaning += " In float16 a validation may overflow where training does not: try amp=False."
        LOGGER.warning(f"validation of epoch {trainer.epoch + 1}: not finite: {', '.join(wrong)}{state}. {meaning}")
        trainer.run_log.validation_not_finite(trainer.epoch + 1, wrong)

    def _went_back(self, fitness: float) -> bool:
        """Keep the state of the best validation, and roll back to it after a collapse."""
        guard = self._trainer.guard
        assert guard is not None
        recovery, share = guard.recovery, self._trainer.plan.trainer.collapse
        if recovery is None or share is None or RANK != -1:  # the other ranks do not know the fitness
            return False
        news = self.fitness_watch.judge(fitness, share, guard.counts.applied)
        if news == "best":
            recovery.keep_best()
        times = self._rise_of_the_loss() if news == "suspicious" else None
        if not is_worse(times):
            if news == "suspicious":
                self.fitness_watch.acquit()
            return False
        fell = f"the fitness collapsed to {fitness:.3g} after a best of {self.fitness_watch.best:.3g}"
        return recovery.roll_back_to_best(
            f"{fell}, and the loss of training batches is {times:.3g} times that of the best state"
        )

    def _rise_of_the_loss(self) -> float | None:
        """Compare the current state with the best one on batches of the newest epoch."""
        guard, ema = self._trainer.guard, self._trainer.ema
        assert guard is not None
        best = None if guard.recovery is None else guard.recovery.milestone.snapshot
        if best is None:
            return None
        model, part = (ema.ema, "ema/") if ema else (unwrap(self._trainer.model), "model/")
        of_best = {key.removeprefix(part): value for key, value in best.tensors.items() if key.startswith(part)}
        try:
            now, then = self.witnesses.losses(model), self.witnesses.losses(model, of_best)
            return rise([one.loss for one in now], [one.whole.loss for one in then])
        except Exception as error:  # noqa: BLE001 - memory for another network may be short: undecided, and training goes on
            LOGGER.warning(
                f"The fitness has fallen far below its best, but whether training has collapsed could not be looked at:"
                f" {type(error).__name__}: {one_line(error)}. Training goes on."
            )
            return None
