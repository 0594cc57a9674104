"""Trainer mixin: the seams at which the guard stands in an Ultralytics trainer.

Ultralytics' training loop runs as it is. Every method here replaces one of its own (``tests/test_seams.py`` fails when one of
them moves) and hands over to a service (``trainer/services.py``). This class alone writes attributes of the trainer.

The loop calls ``self.scaler.scale(self.loss).backward()``, the one place between forward and backward: ``scaler`` is a gate.
``tloss`` is the running loss over accepted batches, by stock's formula in float32, and two numbers more for the progress bar.

Nothing stays attached to the model, which is copied into the EMA and pickled into checkpoints. ``guard`` and ``preset`` never
enter ``trainer.args`` of a process that trains: the validator refuses unknown keys, and checkpoints store the arguments.
``args.yaml`` has them, and a multi-GPU launch passes them on.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from ultralytics.utils import DEFAULT_CFG, RANK

from .._shared.output import surviving
from ..checkpoints.writer import PLACES, place
from ..guard import StepGuard
from ..presets.run_plan import separate
from ..runlog.epoch_metrics import DISPLAY, EpochMetrics
from .early_stopping import follow
from .guard_setup import as_given, guard_of, refuse_a_guard_behind_the_loop, require_guardable
from .progress import labelled, write_row
from .run_files import arguments_for_workers, open_run_files
from .scaler_gate import ScalerGate
from .services import Services

if TYPE_CHECKING:
    from ultralytics.engine.trainer import BaseTrainer as _Base
else:
    _Base = object


class GuardedTrainerMixin(_Base):
    """Put before an Ultralytics trainer in the bases of a class to guard it.

        class MyTrainer(GuardedTrainerMixin, DetectionTrainer):
            ...

    It takes two arguments more than Ultralytics, kept in ``args.yaml``: ``guard``, a dict of its settings, and ``preset``, the
    name or path of a preset whose values lie under the explicit arguments (``"auto"`` chooses one by the model). What they do
    not allow raises ``InvalidCallError``.
    """

    last, best, wdir = map(place, PLACES)

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        refuse_a_guard_behind_the_loop(cls, GuardedTrainerMixin)

    def __init__(self, cfg: Any = DEFAULT_CFG, overrides: Any = None, _callbacks: Any = None, **own: Any) -> None:
        require_guardable(type(self), GuardedTrainerMixin, overrides or {})
        plan, overrides = separate(overrides)
        self.services = Services.of(self, self._make_checkpoint)
        self.plan = plan.with_injected(self.services.injections.names)
        self.guard: StepGuard | None = None
        self.telemetry = EpochMetrics()
        self.batch_number = 0
        self._gate: ScalerGate | None = None
        try:
            super().__init__(**as_given(cfg, overrides=overrides, _callbacks=_callbacks, **own))
        except BaseException:
            self.services.resume.undo()
            raise
        self.run_log = open_run_files(self.services)

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

    def preprocess_batch(self, batch: dict[str, Any]) -> dict[str, Any]:
        """Remember which image files the batch has, and look at its labels while they are on the host."""
        drawn = self.services.loop.draw(batch)
        held = self.services.resume.accumulate()
        if held is not None:
            self.accumulate = held
        batch = super().preprocess_batch(batch)
        self.services.loop.remember(drawn, batch)
        return batch

    def guarded_backward(self, loss: Tensor) -> None:
        """Let the guard judge a micro-batch after its forward pass, then mend what the loop keeps of it."""
        healthy = self.services.loop.backward(loss)
        if healthy is not None:
            self.loss, self.loss_items = healthy
        self.tloss = self.telemetry.progress()

    def optimizer_step(self) -> None:
        """Apply a healthy window, and only then update the EMA."""
        self.services.loop.step()
        if self.telemetry.loss:
            self.tloss = self.telemetry.progress()

    def lower_precision(self) -> str | None:
        """Let the loop compute in the next safer precision from the next batch on, and return its name; None: there is none."""
        precision = self.services.precision.lower()
        if precision is None:
            return None
        # The loop reads all three for each batch; neither of the two precisions has a loss to scale.
        self.amp, self.args.amp = precision.amp, precision.argument
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=False)
        return precision.name

    def run_callbacks(self, event: str) -> None:
        """Follow the loop; not a registered callback, so that nobody can remove or pickle it."""
        if event in {"on_train_epoch_start", "on_train_batch_start"}:
            self.batch_number = 0 if event == "on_train_epoch_start" else self.batch_number + 1
        self.services.loop.before_callbacks(event)
        super().run_callbacks(event)
        self.services.loop.after_callbacks(event)

    # ---- before and after ----------------------------------------------------------------------------------------------

    def build_dataset(self, img_path: str, mode: str = "train", batch: int | None = None) -> Any:
        """Make data sets survive lost files, and trace what each training image is made of."""
        dataset = super().build_dataset(img_path, mode, batch)
        self.services.files.attach(dataset, mode)
        return dataset

    def _build_train_pipeline(self) -> None:
        """Undo the open window: memory ran out, and the loop starts again with a smaller batch."""
        self.services.loop.abandon()
        super()._build_train_pipeline()

    def _setup_train(self) -> None:
        """Check the state before the first step, build the guard and print the banner."""
        super()._setup_train()
        at_zero = self.plan.trainer.stop_at_zero
        self.stopper = follow(self.stopper, stop_at_zero=at_zero, dataset=self.test_loader.dataset)
        assert self._gate is not None
        self.guard = guard_of(self.services, self._gate.scaler, self.lower_precision)
        remembered = self.services.resume.restore()
        if remembered is not None:
            self.best_fitness, self.nan_recovery_attempts = remembered
        if RANK in {-1, 0}:
            self.services.reporter.banner(self._gate.scaler, self.services.precision.available())

    @surviving(whatever=True)
    def train(self) -> Any:
        """Train; raises ``TrainingHaltedError``, which names the good checkpoint, when the guard gives up."""
        services = self.services
        if self.ddp:  # this process only starts the workers
            self.args = arguments_for_workers(self.args, self.plan)
            with services.ending.error_kept(), services.shutdown.pass_on_signals(), services.alerts.for_workers():
                return super().train()
        with services.ending.of_the_run(), services.shutdown.listen():
            try:
                result = super().train()
            finally:
                services.checkpoints.finish()
            services.ending.require_that_something_was_learned()
            services.ending.require_that_it_was_saved()
        return result

    def validate(self) -> Any:
        """Validate a state that was found healthy; a fitness that is not finite does not count."""
        best = getattr(self, "best_fitness", None)
        metrics, fitness, counts = self.services.validation.validate(self._validate_as_stock)
        if not counts:
            self.best_fitness = best  # NaN would be the best for ever: nothing is above it
        self.services.files.look()
        return metrics, fitness

    def _validate_as_stock(self) -> Any:
        """Validate; where float16 was given up, in float32: the validator knows float16 and float32 only."""
        amp = self.amp
        try:
            self.amp = amp and not self.services.precision.was_lowered
            return super().validate()
        finally:
            self.amp = amp

    def _handle_nan_recovery(self, epoch: int) -> bool:
        """Never redo an epoch: the state that is here is healthy, and stock would load weights that were rounded to float16."""
        return False

    # ---- checkpoints and results ---------------------------------------------------------------------------------------

    def save_model(self) -> Any:
        """Save, unless something is not finite; see :meth:`~yolo_stable.checkpoints.writer.CheckpointWriter.save`."""
        return self.services.checkpoints.save()

    def _make_checkpoint(self, epoch: int) -> None:
        """Let Ultralytics make the checkpoint of the last whole epoch, from 0; -1: there is none."""
        now, self.epoch = getattr(self, "epoch", 0), epoch
        try:
            super().save_model()
        finally:
            self.epoch = now

    def final_eval(self) -> None:
        """Let Ultralytics strip and evaluate the checkpoints, each replaced whole."""
        with self.services.checkpoints.stripping():
            super().final_eval()
        self.services.resume.end()
        self.services.files.look()

    def check_resume(self, overrides: Any) -> None:
        """Find and check what is resumed, and take over its arguments; those of the call win."""
        changed = self.services.resume.check(overrides, super().check_resume)
        self.plan = replace(self.plan, changed={**self.plan.changed, **changed})
        self.services.checkpoints.resumed_from(self.services.resume.digest)

    def setup_model(self) -> Any:
        """Build the network as stock does; a resumed one must be that of the checkpoint."""
        return self.services.resume.build_model(super().setup_model)

    def resume_training(self, ckpt: Any) -> None:
        """Resume as stock does; also from a checkpoint that was saved in the middle of the first epoch."""
        self.services.resume.load(ckpt, super().resume_training, self._load_checkpoint_state)

    def _load_checkpoint_state(self, ckpt: Any) -> None:
        """Load as stock does, but let changed arguments win over the numbers that the optimizer had."""
        self.services.resume.load_state(ckpt, super()._load_checkpoint_state)

    def label_loss_items(self, loss_items: Any = None, prefix: str = "train") -> Any:
        """Label loss items as stock does, and add the guard's columns to those of the training loss."""
        return labelled(super().label_loss_items, loss_items, prefix, self.telemetry)

    def save_metrics(self, metrics: dict[str, Any]) -> None:
        """Write a row of ``results.csv`` with the guard's columns last."""
        write_row(super().save_metrics, metrics, self.csv, self.epoch + 1)

    def progress_string(self) -> Any:
        """Return the head of the progress bar, with the guard's columns after those of the loss."""
        names, self.loss_names = self.loss_names, (*self.loss_names, *DISPLAY)
        try:
            return super().progress_string()
        finally:
            self.loss_names = names
