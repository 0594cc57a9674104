"""Validation of a guarded trainer, and going back where rejecting a batch was not enough.

The state is looked at before each validation. A fitness that is not finite does not count. The first validation of healthy
weights in a run that is not finite is gone through once more (``incidents/validation_batch.py``), and its first batch that is
not finite becomes an incident like any other. Ultralytics' recovery, which does an epoch again, is never taken: it would load
weights rounded to float16.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import torch
from ultralytics.utils import LOGGER, RANK

from .._shared.error_text import one_line
from ..guard import Climb, StepGuard
from ..guard.wrappers import unwrap
from ..presets.run_plan import RunPlan
from ..runlog.writer import RunLog
from .fitness_collapse import FitnessWatch, is_worse, rise
from .witnesses import Witnesses

if TYPE_CHECKING:
    from ultralytics.engine.trainer import BaseTrainer as _Base
else:
    _Base = object


class GuardedRecovery(_Base):
    """The part of :class:`~yolo_stable.GuardedTrainerMixin` that goes back, and lowers the precision."""

    plan: RunPlan
    guard: StepGuard | None
    run_log: RunLog
    fitness_watch: FitnessWatch
    witnesses: Witnesses
    batch_number: int
    tell_of_climb: Callable[[Climb], None]
    look_into_validation: Callable[[list[str]], None]
    lowered = False
    """Whether the precision was lowered in this run."""

    def on_climb(self, climb: Climb) -> None:
        """Print and record that the state was put back, or the precision lowered."""
        line = self.run_log.climb(climb, self.epoch + 1)
        if RANK in {-1, 0}:
            LOGGER.info("")  # ends the line of the progress bar
            LOGGER.warning(line)
        self.tell_of_climb(climb)

    def precisions(self) -> int:
        """Return how many precisions there are to try, the one of now included."""
        if not self.amp:
            return 1
        return 3 if self.args.amp != "bf16" and supports_bfloat16(self.device) else 2

    def lower_precision(self) -> str | None:
        """Let the loop compute in the next safer precision from the next batch on.

        Returns:
            Its name; None when it is float32 already.
        """
        if not self.amp:
            return None
        # The loop reads both for each batch; neither of the two others has a loss to scale.
        self.lowered = True
        halves = self.args.amp != "bf16" and supports_bfloat16(self.device)
        self.args.amp = "bf16" if halves else False
        self.amp = halves
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=False)
        return "bfloat16" if halves else "float32"

    def validate(self) -> Any:
        """Validate a state that was found healthy; a fitness that is not finite does not count."""
        assert self.guard is not None
        healthy = self.guard.inspect()  # with several ranks it may have to wait for the next window
        best = self.best_fitness
        metrics, fitness = self._validated()
        if metrics is None or fitness is None:
            return metrics, fitness
        wrong = [key for key, value in metrics.items() if not math.isfinite(value)]
        counts = healthy and math.isfinite(fitness)
        if not counts:
            wrong += ["fitness"] if not math.isfinite(fitness) else []
            self.best_fitness, fitness = best, 0.0  # NaN would be the best for ever: nothing is above it
        if wrong:
            meaning = "Its fitness counts." if counts else "It does not count."
            if getattr(getattr(self.validator, "args", None), "quantize", None) == 16:
                meaning += " In float16 a validation may overflow where training does not: try amp=False."
            LOGGER.warning(
                f"validation of epoch {self.epoch + 1}: not finite: {', '.join(wrong)}, although all weights are. {meaning}"
            )
            self.run_log.validation_not_finite(self.epoch + 1, wrong)
            if healthy:
                self.look_into_validation(wrong)
        if counts and self._went_back(float(fitness)):
            return self._validated()  # the results are to be those of what is saved
        return metrics, fitness

    def _validated(self) -> Any:
        """Validate; where float16 was given up, in float32: the validator knows float16 and float32 only."""
        amp = self.amp
        try:
            self.amp = amp and not self.lowered
            return super().validate()
        finally:
            self.amp = amp

    def _went_back(self, fitness: float) -> bool:
        """Keep the state of the best validation, and go back to it when the run collapses."""
        assert self.guard is not None
        recovery, share = self.guard.recovery, self.plan.trainer.collapse
        if recovery is None or share is None or RANK != -1:  # the other ranks do not know the fitness
            return False
        news = self.fitness_watch.judge(fitness, share, self.guard.counts.applied)
        if news == "best":
            recovery.keep_best()
        times = self._rise_of_the_loss() if news == "suspicious" else None
        if not is_worse(times):
            if news == "suspicious":
                self.fitness_watch.acquit()
            return False
        fell = f"the fitness collapsed to {fitness:.3g} after a best of {self.fitness_watch.best:.3g}"
        return recovery.go_back_to_best(
            f"{fell}, and the loss of training batches is {times:.3g} times that of the best state"
        )

    def witness(self, batch: Mapping[str, Any]) -> None:
        """Keep some of the batches when the next validation might raise the suspicion of a collapse."""
        if self.fitness_watch.looks_closer:
            self.witnesses.see(batch, self.batch_number, len(self.train_loader))
        elif len(self.witnesses):
            self.witnesses.clear()

    def _rise_of_the_loss(self) -> float | None:
        """Hold what was validated against the best state, on batches of the epoch that has just been trained."""
        assert self.guard is not None
        recovery = self.guard.recovery
        best = None if recovery is None else recovery.milestone.snapshot
        if best is None:
            return None
        trained: Any = self.model  # by now a module; stock declares it as a path as well
        model, part = (self.ema.ema, "ema/") if self.ema else (unwrap(trained), "model/")
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

    def _handle_nan_recovery(self, epoch: int) -> bool:
        """Never redo an epoch: the state that is here is healthy, and was put back if it was not.

        Stock would look at the last loss of the epoch, and load weights that were rounded to float16.
        """
        return False


def supports_bfloat16(device: torch.device) -> bool:
    """Return whether autocast to bfloat16 can be had on a device.

    Ultralytics has it on CUDA and ROCm only, and only where it is native (from Ampere on).
    """
    return device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)
