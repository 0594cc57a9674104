"""The guard inside an Ultralytics trainer.

Ultralytics' training loop is used as it is; these are the places of it that are replaced (``tests/test_seams.py`` fails
when one of them moves):

- ``scaler``: the loop calls ``self.scaler.scale(self.loss).backward()``, the one place between forward and backward;
- ``optimizer_step``: the guard's step, and the EMA only when it was applied;
- ``tloss``: the running loss, set after each batch, over accepted batches only, by stock's formula in float32, and two
  numbers more for the progress bar;
- ``run_callbacks``, ``preprocess_batch``: to know epoch, batch and image files;
- ``label_loss_items``, ``save_metrics``, ``progress_string``: what is shown, see ``trainer/progress.py``;
- ``validate``, ``_handle_nan_recovery``: before and after a validation, see ``trainer/validation.py``;
- ``save_model``, ``final_eval``: how checkpoints are written, see ``checkpoints/writer.py``;
- ``check_resume``, ``resume_training``, ``_load_checkpoint_state``: how a run is resumed, see ``checkpoints/resume.py``;
- ``_build_train_pipeline``, ``_setup_train``, ``train``: see each;
- ``model.loss``: stood in for during one call, from ``remember`` on; a copy or a pickle made in that time is one without it, see
  ``trainer/loss_errors.py``.

After a rejection ``self.loss`` and ``self.loss_items`` are those of the last healthy batch: Ultralytics' recovery and its
validator look at them. An epoch in which the guard was never asked is an error (``trainer/reporter.py``).

No hook is on the model and nothing stays attached to it: what is on it is copied into the EMA and pickled into the checkpoints.
``guard`` and ``preset`` never enter ``trainer.args`` of a process that trains, since the validator refuses unknown keys and
checkpoints store the arguments. ``args.yaml`` has them, and a multi-GPU launch passes them on.
"""

from __future__ import annotations

from copy import copy
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from ultralytics.utils import DEFAULT_CFG, LOGGER, RANK, YAML
from ultralytics.utils.torch_utils import unwrap_model

from .._shared.output import surviving
from .._shared.shell_text import GO_ON
from ..checkpoints.resume import GuardedResume
from ..checkpoints.schedulers import schedules_of
from ..checkpoints.writer import GuardedCheckpoints
from ..errors import InvalidCallError, TrainingHaltedError, TrainingInterruptedError
from ..guard import StepGuard
from ..incidents.folder import Incidents
from ..incidents.pixels import are_of_one_scale
from ..presets.run_plan import INJECTED, separate
from ..provenance.substitution import NoImageLeftError
from ..runlog.epoch_metrics import EpochTelemetry
from ..runlog.injections import Injections
from ..runlog.writer import RunLog
from .banner import require_finite_start
from .early_stopping import follow
from .ema import AverageUpdate
from .finish import GuardedEnding
from .fitness_collapse import FitnessWatch
from .incidents import GuardedIncidents
from .label_filter import disarm
from .next_steps import GuardedNextSteps
from .progress import GuardedResults
from .reporter import GuardedTelling
from .scaler_gate import ScalerGate
from .shutdown import GuardedInterrupt
from .validation import GuardedRecovery
from .witnesses import Witnesses

if TYPE_CHECKING:
    from ultralytics.engine.trainer import BaseTrainer as _Base
else:
    _Base = object


class GuardedTrainerMixin(
    GuardedTelling,
    GuardedResults,
    GuardedIncidents,
    GuardedRecovery,
    GuardedInterrupt,
    GuardedEnding,
    GuardedResume,
    GuardedCheckpoints,
    GuardedNextSteps,
    _Base,
):
    """Put before an Ultralytics trainer in the bases of a class to guard it.

        class MyTrainer(GuardedTrainerMixin, DetectionTrainer):
            ...

    It takes two arguments more than Ultralytics: ``guard``, a dict of :class:`~yolo_stable.guard.GuardConfig` settings, and
    ``preset``, the name or path of a preset whose values lie under the explicit arguments (``"auto"`` chooses one by the
    model). Both are kept in ``args.yaml``.

    Raises:
        InvalidCallError: An unknown guard setting or preset, or a value that is not allowed.
    """

    def __init__(
        self,
        cfg: Any = DEFAULT_CFG,
        overrides: dict[str, Any] | None = None,
        _callbacks: dict[str, Any] | None = None,
    ) -> None:
        _refuse_a_step_that_would_be_lost(type(self))
        self.plan, overrides = separate(overrides)
        self.injections = Injections(type(self))
        self.plan = self.plan.with_injected(self.injections.names)
        self.guard: StepGuard | None = None
        self.telemetry = EpochTelemetry()
        self.fitness_watch, self.witnesses = FitnessWatch(), Witnesses()
        self._follow = AverageUpdate()
        self._gate: ScalerGate | None = None
        self.batch_number = 0
        self._label_fault = ""
        self.files = {}
        self.forget()
        self.window_open = False
        self._healthy: tuple[Tensor, dict[str, Tensor]] | None = None
        try:
            super().__init__(cfg, overrides, _callbacks)
        except BaseException:
            if hasattr(self, "save_dir"):
                self.leave_arguments_as_they_were()
            raise
        if self.plan.trainer.incidents is not None and not self.ddp:
            self.incidents = Incidents(self.save_dir / "incidents", self.plan.trainer.incidents, RANK)
        self.run_log = RunLog(self.save_dir, resumed=bool(self.resume), write=RANK in {-1, 0} and not self.ddp)
        if RANK in {-1, 0}:
            on_record = {INJECTED: list(self.plan.injected)} if self.plan.injected else {}
            # Ultralytics' own arguments stay free of our keys: its validator and its checkpoints refuse what they do not
            # know, and a checkpoint must load where this package is not installed.
            YAML.save(str(self.save_dir / "args.yaml"), {**vars(self.args), **self.plan.to_dict(), **on_record})

    # ---- the loop ------------------------------------------------------------------------------------------------------

    @property
    def scaler(self) -> Any:
        """The gate around the scaler; whatever a callback puts here is guarded as well."""
        return self._gate

    @scaler.setter
    def scaler(self, scaler: Any) -> None:
        scaler = scaler.scaler if isinstance(scaler, ScalerGate) else scaler
        self._gate = ScalerGate(scaler, self.guarded_backward)
        if self.guard is not None:
            self.guard.scaler = scaler

    def guarded_backward(self, loss: Tensor) -> None:
        """Let the guard judge the micro-batch that the loop has just run forward; then mend what the loop keeps of it."""
        assert self.guard is not None
        self.window_open = True
        try:
            decision = self.guard.backward(
                loss, self.loss_items, fault=self._label_fault, of_one_scale=self._are_of_one_scale
            )
        except TrainingHaltedError:
            self.note(self.guard.last)
            raise
        self.note(decision)
        if decision:
            self._healthy = self.loss.detach(), self.loss_items
        else:
            # The stock recovery and the validator look at the last loss: let them see the last healthy one.
            zeros = torch.zeros_like(loss), {k: torch.zeros_like(v) for k, v in self.loss_items.items()}
            self.loss, self.loss_items = self._healthy or zeros
        self.tloss = self.telemetry.progress()

    def optimizer_step(self) -> None:
        """Apply the window when it is healthy, and only then let the EMA follow."""
        assert self.guard is not None
        self._stepped = True
        self.window_open = False
        self.note_step()
        if self.optimizer is not None and self.guard.optimizer is not self.optimizer:
            self.guard.optimizer = self.optimizer  # a callback has put another one in
        try:
            decision = self.measured_step()
        except TrainingHaltedError:
            self.note(self.guard.last)
            raise
        if decision and self.ema:
            if self.guard.step_name.startswith("fused"):
                self._follow(self.ema, self.model)
            else:  # with the reference step all is stock's, bit for bit
                self.ema.update(self.model)
        self.forget()
        self.guard.state.ema = self.ema
        self.guard.settle()
        self.injections.end_window()
        if self.telemetry.loss:
            self.tloss = self.telemetry.progress()
        every = self.plan.trainer.save_every_steps
        if decision and every and self.guard.counts.applied % every == 0 and self.args.save:
            with self.untimed():
                self.save_soon(self.epoch - 1)

    def preprocess_batch(self, batch: dict[str, Any]) -> dict[str, Any]:
        """Remember which image files the batch has, and look at its labels while they are on the host."""
        self.look_for_lost()
        drawn = self.draw(batch)
        self._label_fault = disarm(batch, self.data["nc"])
        batch = super().preprocess_batch(batch)
        self.run_log.batch_files(drawn.names)
        if self.guard is not None:
            self.guard.before_forward()  # before anything of ours is put on the model for the time of the forward pass
        self.remember(drawn, batch, self._label_fault)
        self.witness(batch)
        return batch

    def _are_of_one_scale(self) -> bool:
        """Return whether the images of the newest micro-batch are."""
        return "img" in self._newest and are_of_one_scale(self._newest["img"])

    def run_callbacks(self, event: str) -> None:
        """Keep track of epoch and batch; not a registered callback, so that nobody can remove or pickle it."""
        if event == "on_train_epoch_start":
            self.batch_number = 0
            self.telemetry.begin()
            self.run_log.begin_epoch()
        elif event == "on_train_batch_start":
            self.batch_number += 1
            self.injections.begin_batch()
        elif event == "on_train_batch_end":
            self.notice_save()
        elif event == "on_train_epoch_end":
            self.finish_save()  # of the epoch before: a crash costs one epoch at most, however short they are
            self.require_that_the_guard_was_asked()
            self.share_lost()
            self.run_log.epoch(self.epoch + 1, self.telemetry)
        self.follow_epoch(event)
        super().run_callbacks(event)
        if event == "on_train_start" and self.guard is not None:
            self.guard.resync()  # callbacks may have changed the model
        self.keep_workers(event)
        self.leave_if_asked(event)

    # ---- before and after ----------------------------------------------------------------------------------------------

    def _setup_train(self) -> None:
        """Check the state before the first step, build the guard and say what is on."""
        super()._setup_train()
        at_zero = self.plan.trainer.stop_at_zero
        self.stopper = follow(self.stopper, stop_at_zero=at_zero, dataset=self.test_loader.dataset)
        model: Any = self.model  # by now a module; stock declares it as a path as well
        assert self.optimizer is not None
        assert self._gate is not None
        require_finite_start(unwrap_model(model), self.optimizer)
        self.guard = StepGuard(
            model,
            self.optimizer,
            scaler=self._gate.scaler,
            ema=self.ema,
            schedules=schedules_of(self),
            lower_precision=self.lower_precision,
            on_reject=self.on_reject,
            on_climb=self.on_climb,
            tell=LOGGER.warning if RANK in {-1, 0} else _say_nothing,
            again=self.loss_again,
            config=self.plan.guard,
        )
        self.restore_training_state()
        if RANK not in {-1, 0}:
            return
        if self.resume and self.last.exists():
            self.run_log.saved(self.last, self.start_epoch)
        self.tell_what_is_on(self._gate.scaler)

    def _build_train_pipeline(self) -> None:
        """Undo a window that ran out of memory before the loop starts again with a smaller batch."""
        if self.guard is not None:
            self.guard.abandon_window()
            self.forget()
            if self.guard.recovery is not None:
                self.guard.recovery.out_of_memory()
            self.run_log.window_closed()
        super()._build_train_pipeline()

    @surviving(whatever=True)
    def train(self) -> Any:
        """Train; a run that the guard halts says which checkpoint is good.

        Raises:
            TrainingHaltedError: The guard gave up.
            UnhealthyStartError: The weights were not finite before the first step.
        """
        if self.ddp:  # this process only starts the workers: hand them the two keys with Ultralytics' own arguments
            self.args = copy(self.args)
            for key, value in self.plan.to_dict().items():
                setattr(self.args, key, value)
            with self.pass_on_signals():
                return super().train()
        try:
            with self.listen():
                try:
                    result = super().train()
                finally:
                    self.finish_save()
                self.require_that_something_was_learned()
                self.require_that_it_was_saved()
        except TrainingHaltedError as error:
            raise self.halted(error) from error
        except NoImageLeftError as error:
            raise self.halted(self.nothing_left()) from error
        except TrainingInterruptedError as error:
            self.close_books("interrupted", str(error))
            raise
        except KeyboardInterrupt:  # the second Ctrl-C
            saved = f"KeyboardInterrupt. {self.run_log.good_checkpoint()}"
            self.close_books("interrupted", self.filled(f"{saved}\nGo on with:\n{GO_ON}"))
            raise
        except BaseException as error:
            self.leave_arguments_as_they_were()
            if self.lowered and "out of memory" in str(error).lower():
                halt = f"Out of memory, after the precision had to be lowered: {error}. Lower batch=."
                raise self.halted(TrainingHaltedError(halt, next=f"Then go on:\n{GO_ON}")) from error
            self.close_books("failed", f"{type(error).__name__}: {error}")
            raise
        self.close_books("done", "")
        return result


def _say_nothing(what: str) -> None:
    """Leave it to the first rank to tell what all ranks have found."""


def _refuse_a_step_that_would_be_lost(kind: type) -> None:
    """Refuse a class that has an ``optimizer_step`` of its own behind the mixin, where nobody would call it."""
    behind = kind.__mro__[kind.__mro__.index(GuardedTrainerMixin) + 1 :]
    for base in behind:
        if "optimizer_step" in vars(base) and base.__module__ != "ultralytics.engine.trainer":
            raise InvalidCallError(
                f"{base.__name__}.optimizer_step would never be called: the guard takes the step. Put what it does into a"
                f" subclass in front of GuardedTrainerMixin that calls super().optimizer_step(), or into an optimizer hook."
            )
