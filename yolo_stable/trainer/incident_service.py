"""Incident service: finds out what a bad batch was, and writes it down.

The way of a bad batch:

    loader (traced) -> OpenWindow.draw -> preprocess -> OpenWindow.remember
                                           rejected, undone -> on_reject -> examine() -> bundle -> a line
                                                                            quarantine <- cause "data"

``on_reject`` comes when the batch has been undone and before anything is restored because of it: the live model is in the state
before the batch, and the batch itself is still there. An error in any of it is a line on the terminal, never the end of a run.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import Tensor, nn
from ultralytics.utils import LOGGER, RANK

from .._shared.text import one_line
from ..autopsy.batch_case import BatchCase
from ..autopsy.bundle import BundleError, write_bundle
from ..autopsy.examine import examine
from ..autopsy.report import AutopsyReport
from ..autopsy.symptom import Symptom
from ..checkpoints.trainer_view import TrainerView
from ..errors import InvalidCallError
from ..guard import Decision, Escalation
from ..guard.generators import GeneratorStates
from ..guard.wrappers import unwrap
from ..incidents.budget import BATCH, OPTIMIZER, WEIGHTS, is_of_optimizer, left_out, sizes_of
from ..incidents.folder import IncidentFolder
from ..incidents.forward import forward_of, precision_of
from ..incidents.picture import PICTURE, pictures_of
from ..incidents.rebuild import describe_model
from ..incidents.record import (
    Circumstances,
    DrawnBatch,
    Incident,
    memory,
    plain_args,
    report_of_escalation,
    state_before,
    state_validated,
    symptom_of,
)
from ..incidents.validation_batch import ValidationBatch
from ..runlog.injections import Injections
from .next_steps import NextSteps
from .open_window import OpenWindow
from .quarantine_keeper import QuarantineKeeper
from .reporter import Reporter

USUAL_OVERFLOWS = 4
"""So many windows in a row may be lost to a loss scale that is looking for its place before it is worth a look."""


class IncidentService:
    """Finds out what a bad batch was, and writes it down.

    Args:
        trainer: Read for the state before the batch, and the circumstances.
        window: Holds the batches.
        reporter: Tells of rejections, and has the clock that stands still meanwhile.
        quarantine: Gets the images that were found guilty.
        injections: Tells what was put in on purpose.
        next_steps: Fills the commands of what is told.
    """

    def __init__(
        self,
        trainer: TrainerView,
        *,
        window: OpenWindow,
        reporter: Reporter,
        quarantine: QuarantineKeeper,
        injections: Injections,
        next_steps: NextSteps,
    ) -> None:
        self._trainer, self._window, self._reporter = trainer, window, reporter
        self._quarantine, self._injections, self._next_steps = quarantine, injections, next_steps
        self.folder: IncidentFolder | None = None
        """None: nothing is looked into."""
        self._validation_looked_into = False

    def keep_in(self, folder: IncidentFolder) -> None:
        """Investigate bad batches from here on.

        Args:
            folder: Of the run's incidents.
        """
        self.folder = folder
        self._window.keep_batches()

    # ---- what the guard tells --------------------------------------------------------------------------------------------

    def on_reject(self, decision: Decision) -> None:
        """Report and investigate a rejection before anything else follows from it."""
        self._reporter.tell_rejection(decision)
        with self._reporter.untimed():
            self.look_into(decision)

    def on_escalation(self, escalation: Escalation) -> None:
        """Report and record a rollback, a repair or a lower precision."""
        self._reporter.tell_escalation(escalation)
        if self.folder is None or not self.folder.admit():
            return
        try:
            report = report_of_escalation(escalation)
            found = Incident(
                kind=escalation.level.value, reason=escalation.reason, report=report, where=self._circumstances()
            )
            self.record(found)
            self._injections.escalated()
        except Exception as error:  # noqa: BLE001 - it is a luxury: no error of it may end a training
            LOGGER.warning(f"This could not be written down: {type(error).__name__}: {one_line(error)}")

    # ---- what is done with a bad one -------------------------------------------------------------------------------------

    def look_into(self, decision: Decision) -> None:
        """Make an incident of a rejection: find out what it was, write it down, say it in a line.

        Whatever goes wrong in here is told and harms nothing.
        """
        if self.folder is None or self._is_usual_overflow(decision) or not self.folder.admit():
            return
        try:
            self._open_incident(decision)
        except Exception as error:  # noqa: BLE001 - it is a luxury: no error of it may end a training
            LOGGER.warning(f"This could not be looked into: {type(error).__name__}: {one_line(error)}")

    def look_into_validation(self, metrics: list[str]) -> None:
        """Make an incident of a validation of healthy weights that was not finite: which of its images, and which operation.

        The images of a validation are named, and not left out of it. It costs up to one more validation, and is asked of the
        first one of a run only: a fault of the data or of a layer is there each time.

        Args:
            metrics: Names of those that are not finite.
        """
        if self._validation_looked_into or self.folder is None or RANK not in {-1, 0} or not self.folder.admit():
            return
        self._validation_looked_into = True
        generators = GeneratorStates(self._trainer.device)
        try:
            self._open_validation(metrics)
        except Exception as error:  # noqa: BLE001 - as above
            LOGGER.warning(f"The validation could not be looked into: {type(error).__name__}: {one_line(error)}")
        finally:
            generators.restore()

    def _open_validation(self, metrics: list[str]) -> None:
        trainer = self._trainer
        seconds = trainer.plan.trainer.autopsy_seconds
        model = trainer.ema.ema if trainer.ema else unwrap(trainer.model)
        if seconds is None or not self._may_replay(model):
            return
        bad = ValidationBatch.first_not_finite(trainer.validator, model, classes=trainer.data["nc"], seconds=seconds)
        if bad is None:
            return
        reason = f"validation not finite: {', '.join(metrics)}"
        seen = Symptom(reason=reason, loss=bad.loss, items=bad.items)
        report = examine([bad.case], seen, seconds=seconds, frugal=True)
        where = replace(self._circumstances(), batch=bad.drawn.number, precision=bad.precision, loss_scale=1.0)
        what = {"loss": bad.loss, "items": bad.items, "drawn": bad.drawn, "seen": seen, "validated": bad.case.model}
        self.record(Incident(kind="validation", reason=reason, report=report, where=where, **what))

    def _is_usual_overflow(self, decision: Decision) -> bool:
        guard = self._trainer.guard
        assert guard is not None
        scaled = guard.scaler is not None and guard.scaler.is_enabled()
        return scaled and decision.norm is not None and guard.counts.consecutive < USUAL_OVERFLOWS

    def _open_incident(self, decision: Decision) -> None:
        decision, drawn = self._window.own_fault or (decision, self._window.drawn)
        window = decision.norm is not None
        drawn = drawn if window else drawn[-1:]
        model = unwrap(self._trainer.model)
        seen = symptom_of(decision, drawn[-1].fault if drawn and not window else "", self._scale())
        report = AutopsyReport()
        if drawn and self._may_replay(model):
            report = examine(
                [self._case(model, one) for one in drawn],
                seen,
                provenance=[one for batch in drawn for one in batch.provenance],
                healthy_state=self._newest_snapshot(),
                seconds=self._trainer.plan.trainer.autopsy_seconds,
                frugal=True,
            )
        if RANK != -1 and window and not report.reproduced:
            return  # all ranks have rejected the window, and another one may know why
        guilty = int(report.evidence.get("micro_batch", len(drawn) - 1))
        found = Incident(
            kind=seen.kind,
            reason=decision.reason,
            report=report,
            where=self._circumstances(),
            loss=decision.loss,
            items=dict(decision.items),
            norm=decision.norm,
            culprits=decision.culprits,
            drawn=drawn[guilty] if drawn else None,
            seen=seen,
        )
        self.record(found)
        if not self._is_innocent(seen.kind, report):
            self._quarantine.blame(report)

    def _newest_snapshot(self) -> dict[str, Tensor] | None:
        """Return parameters and buffers of the newest snapshot by name."""
        guard = self._trainer.guard
        snapshot = None if guard is None or guard.recovery is None else guard.recovery.ring.newest
        if snapshot is None:
            return None
        return {n.removeprefix("model/"): t for n, t in snapshot.tensors.items() if n.startswith("model/")}

    def _case(self, model: nn.Module, drawn: DrawnBatch) -> BatchCase:
        trainer = self._trainer
        assert drawn.generators is not None
        forward = forward_of(
            precision_of(bool(trainer.amp), trainer.args.amp), trainer.device, drawn.generators.restore
        )
        return BatchCase(model, drawn.as_drawn(), forward, classes=trainer.data["nc"])

    def _may_replay(self, model: nn.Module) -> bool:
        """Return whether this rank can run a forward pass alone: synchronised BatchNorm waits for the others."""
        synced = any(isinstance(module, nn.SyncBatchNorm) for module in model.modules())
        return self._trainer.plan.trainer.autopsy_seconds is not None and not (synced and RANK != -1)

    def _scale(self) -> float:
        scaler = None if self._trainer.guard is None else self._trainer.guard.scaler
        return scaler.get_scale() if scaler is not None and scaler.is_enabled() else 1.0

    def _circumstances(self) -> Circumstances:
        trainer = self._trainer
        assert trainer.guard is not None
        return Circumstances(
            epoch=trainer.epoch + 1,
            batch=trainer.batch_number,
            step=trainer.guard.counts.applied,
            rank=RANK,
            device=str(trainer.device),
            precision=precision_of(bool(trainer.amp), trainer.args.amp),
            loss_scale=self._scale(),
            learning_rates=tuple(float(group["lr"]) for group in trainer.optimizer.param_groups),
            memory=memory(trainer.device),
            args=plain_args(trainer.args),
            classes=int(trainer.data["nc"]),
        )

    def record(self, found: Incident) -> None:
        """Write an incident to the disk while there is room, and report it in one line."""
        assert self.folder is not None
        folder = self.folder.next_folder()
        unnamed = found.report
        kept = folder is not None and found.drawn is not None and found.drawn.generators is not None
        gone = self._left_out(found) if kept else ()
        may_replay = kept and not {WEIGHTS, BATCH} & set(gone)
        described = _described(unwrap(found.validated or self._trainer.model)) if may_replay else None
        healed = self._trainer.guard is not None and self._trainer.guard.recovery is not None
        now = self._injections.just_now(found.kind)
        found = replace(found, healed=healed, injected=self._injections.over, injected_now=now)
        found = replace(found, report=self._named(found, folder, replayable=described is not None))
        try:
            self._put_on_disk(found, folder, described, gone)
        except (OSError, InvalidCallError, RuntimeError, MemoryError) as error:  # no room on the disk, or in memory
            LOGGER.warning(f"{folder} could not be written: {one_line(error)}")
            folder, gone = None, ()
            found = replace(found, report=self._named(replace(found, report=unnamed), None, replayable=False))
        epoch = found.where.epoch
        line = self._trainer.run_log.incident(
            found.kind, found.report, epoch, folder, found.injected_now, left_out=gone
        )
        picture = None if folder is None else folder / PICTURE
        self._reporter.tell_incident(found.kind, found.reason, line, picture if picture and picture.is_file() else None)

    def _left_out(self, found: Incident) -> tuple[str, ...]:
        """Return what the folder of an incident goes without, to be no larger than it may be."""
        assert self._trainer.guard is not None
        assert found.drawn is not None
        live = self._trainer.guard.state.live() if found.validated is None else found.validated.state_dict()
        state = {name: tensor for name, tensor in live.items() if not name.startswith("ema/")}
        return left_out(sizes_of(state, found.drawn.nbytes), self._trainer.plan.trainer.incident_bytes)

    def _named(self, found: Incident, folder: Path | None, *, replayable: bool) -> AutopsyReport:
        """Fill the next step with the names of this run, so that it works when typed."""
        names = replace(
            self._next_steps.names(),
            folder=None if folder is None else str(folder),
            replayable=replayable,
            healed=found.healed,
            injected=found.injected,
            injected_now=found.injected_now,
        )
        return found.report.naming(names)

    def _put_on_disk(
        self, found: Incident, folder: Path | None, described: dict[str, Any] | None, gone: tuple[str, ...]
    ) -> None:
        if folder is None:
            return
        assert self.folder is not None
        assert self._trainer.guard is not None
        model = unwrap(found.validated or self._trainer.model)
        tensors, plain, batch, pictures = {}, {}, {}, {}
        drawn = found.drawn
        if drawn is not None and drawn.generators is not None:
            if WEIGHTS not in gone and found.validated is None:
                tensors, plain = state_before(self._trainer.guard.state, drawn.generators)
            elif WEIGHTS not in gone:
                tensors, plain = state_validated(model, drawn.generators)
            if OPTIMIZER in gone:
                tensors = {name: tensor for name, tensor in tensors.items() if not is_of_optimizer(name)}
            batch = {} if BATCH in gone else drawn.as_drawn()
            pictures = pictures_of(found, model)
        if tensors:
            plain["model"] = described
        record = {**found.to_json(), **({"not_kept": list(gone)} if gone else {})}
        write_bundle(folder, record, batch=batch, state=tensors, plain=plain, extra_files=pictures)
        self.folder.written()

    def _is_innocent(self, kind: str, report: AutopsyReport) -> bool:
        """Return whether the images are healthy: a fault was put into the batch, and not into one of their files."""
        named = [sample.path for sample in report.samples]
        return bool(self._injections.just_now(kind)) and not any(map(self._injections.has_broken, named))


def _described(model: nn.Module) -> dict[str, Any] | None:
    """Return what it takes to build the model anew; None of one that cannot be, whose incidents are kept all the same."""
    try:
        return describe_model(model)
    except BundleError as error:
        LOGGER.warning(f"{error} Its incidents can be looked into during the run only.")
        return None
