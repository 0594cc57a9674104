"""Incidents inside an Ultralytics trainer: what is remembered of each batch, and what is done when one is bad.

The way of a bad batch:

    loader (traced) -> take() -> preprocess -> remember() ... rejected, undone -> on_reject -> examine() -> bundle -> a line
                                                                                        quarantine <- cause "data"

``on_reject`` comes when the batch has been undone and before anything is restored because of it: the live model is in the state
before the batch, and the batch itself is still there. Before that only the states of the generators are copied (50 microseconds a
batch); the batches of an open window are kept by reference, up to 256 MiB. An error in any of it is a line on the terminal, never
the end of a run.
"""

from __future__ import annotations

import os
import shlex
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import Tensor, nn
from ultralytics.utils import LOGGER, RANK

from .._shared.error_text import one_line
from .._shared.shell_text import AGAIN, CHECK, beneath
from ..autopsy.advice import Names
from ..autopsy.batch_case import BatchCase
from ..autopsy.bundle import BundleError, write_bundle
from ..autopsy.examine import examine
from ..autopsy.report import Report
from ..autopsy.symptom import Symptom
from ..errors import InvalidCallError
from ..guard import Climb, Decision, StepGuard
from ..guard.generators import Draw
from ..guard.wrappers import unwrap
from ..incidents.folder import Incidents
from ..incidents.forward import forward_of, precision_of
from ..incidents.picture import pictures_of
from ..incidents.rebuild import describe_model
from ..incidents.record import (
    Circumstances,
    Drawn,
    ImageNames,
    Incident,
    memory,
    plain_args,
    report_of_climb,
    state_before,
    state_validated,
    symptom_of,
)
from ..incidents.validation_batch import ValidationBatch
from ..presets.run_plan import RunPlan
from ..provenance.dataset import take, trace
from ..provenance.quarantine import Quarantine
from ..provenance.reading import paths_of
from ..runlog.injections import Injections
from ..runlog.writer import RunLog
from .found import finding
from .loss_errors import GuardedLoss
from .lost_files import GuardedFiles
from .reporter import say

MEMORY = 256 * 2**20
"""Bytes of earlier micro-batches that are kept until their window is closed; the newest one is there anyway."""
USUAL_OVERFLOWS = 4
"""So many windows in a row may be lost to a loss scale that is looking for its place before it is worth a look."""


class GuardedIncidents(GuardedLoss, GuardedFiles):
    """The part of :class:`~yolo_stable.GuardedTrainerMixin` that remembers batches and looks into the bad ones."""

    plan: RunPlan
    guard: StepGuard | None
    run_log: RunLog
    batch_number: int
    injections: Injections
    names: Callable[[], Names]
    filled: Callable[[str], str]
    told: Callable[[str], str]
    incidents: Incidents | None = None
    _validation_looked_into = False
    quarantine: Quarantine | None = None
    """None: of a data set that nothing is known of."""
    validator: Any
    ema: Any
    _drawn: list[Drawn]
    _newest: dict[str, Any]
    """The micro-batch at hand, as it went into the model; empty between windows."""
    own_fault: tuple[Decision, list[Drawn]] | None
    """With several ranks: what this one found in its own micro-batches of the open window."""

    # ---- what went into a batch ------------------------------------------------------------------------------------------

    def build_dataset(self, img_path: str, mode: str = "train", batch: int | None = None) -> Any:
        """Let the training images know what they are made of."""
        dataset = super().build_dataset(img_path, mode, batch)
        if mode == "train" and mode in self.files:
            first = self.quarantine is None
            self.quarantine = self.quarantine or Quarantine(self.files[mode].states)
            if self.plan.trainer.incidents is not None and dataset in self.files[mode].datasets:
                trace(dataset, self.quarantine)
            self._describe()
            self._fill_quarantine(first=first)
        return dataset

    def draw(self, batch: dict[str, Any]) -> Drawn:
        """Take out of a batch of the loader what the model does not need."""
        self._newest = {}  # its memory is free before the next one comes to the device
        labels = {key: batch[key] for key in ("cls", "bboxes") if isinstance(batch.get(key), Tensor)}
        names = ImageNames(take(batch), tuple(batch.get("im_file", ())))
        return Drawn(number=self.batch_number, labels=labels, names=names)

    def remember(self, drawn: Drawn, batch: dict[str, Any], fault: str) -> None:
        """Keep a batch until its window is closed: those before it as far as they take little memory.

        Syncs: none.
        """
        self.watch_loss()
        self._newest = batch
        if self.incidents is None:
            return
        drawn.batch, drawn.fault, drawn.generators = batch, fault, Draw(self.device)
        while sum(earlier.nbytes for earlier in self._drawn) > MEMORY:
            self._drawn.pop(0)
        self._drawn.append(drawn)

    def forget(self) -> None:
        """Drop the batches of a window that is closed."""
        self.leave_loss()
        self._drawn, self._newest = [], {}
        self.own_fault = None

    def _describe(self) -> None:
        """Let the quarantine know which images there are now: somebody may have put other lists into the data set."""
        if self.quarantine is not None:
            for number, part in enumerate(self.files["train"].parts()):
                self.quarantine.describe(paths_of(part), number)

    def loss_again(self) -> tuple[Tensor, Tensor]:
        """Return the loss of the micro-batch at hand once more, with the weights of now, and how much of its objects they find.

        Syncs: none.
        """
        forward = forward_of(precision_of(bool(self.amp), self.args.amp), self.device, generators=lambda: None)
        model: Any = unwrap(self.model)  # pyright: ignore[reportArgumentType]
        with finding() as found:
            loss = forward(model, self._newest, None)[0]
        return loss, found.share

    def _fill_quarantine(self, *, first: bool) -> None:
        """Leave out what was left out by an earlier part of the run, or is asked for.

        Args:
            first: Of the first data set; of another one, or the same built anew, only what comes of it is told.
        """
        if self.quarantine is None or not self.plan.trainer.quarantine:
            return
        told = []
        if self.resume and (self.save_dir / "quarantine.txt").is_file():
            path = self.save_dir / "quarantine.txt"
            told.append((path, self.quarantine.read(path, lost=False)))  # those may be back
        if self.plan.trainer.quarantine_from is not None:
            path = Path(self.plan.trainer.quarantine_from)
            told.append((path, self.quarantine.read(path)))
        for path, left_out in told if RANK in {-1, 0} else ():
            if first or left_out.taken:
                LOGGER.info(f"{path}: {left_out}")

    # ---- what is done with a bad one -------------------------------------------------------------------------------------

    def look_into(self, decision: Decision) -> None:
        """Make an incident of a rejection: find out what it was, write it down, say it in a line.

        Whatever goes wrong in here is told and harms nothing.
        """
        if self.incidents is None or self._is_usual_overflow(decision) or not self.incidents.admit():
            return
        try:
            self._open_incident(decision)
        except Exception as error:  # noqa: BLE001 - it is a luxury: no error of it may end a training
            LOGGER.warning(f"This could not be looked into: {type(error).__name__}: {one_line(error)}")

    def tell_of_climb(self, climb: Climb) -> None:
        """Make an incident of a repair or a rollback."""
        if self.incidents is None or not self.incidents.admit():
            return
        try:
            report = report_of_climb(climb)
            found = Incident(kind=climb.rung.value, reason=climb.reason, report=report, where=self._circumstances())
            self._write_down(found)
            self.injections.climbed()
        except Exception as error:  # noqa: BLE001 - as above
            LOGGER.warning(f"This could not be written down: {type(error).__name__}: {one_line(error)}")

    def look_into_validation(self, metrics: list[str]) -> None:
        """Make an incident of a validation of healthy weights that was not finite: which of its images, and which operation.

        The images of a validation are named, and not left out of it. It costs up to one more validation, and is asked of the
        first one of a run only: a fault of the data or of a layer is there each time.

        Args:
            metrics: Names of those that are not finite.
        """
        if self._validation_looked_into or self.incidents is None or RANK not in {-1, 0} or not self.incidents.admit():
            return
        self._validation_looked_into = True
        generators = Draw(self.device)
        try:
            self._open_validation(metrics)
        except Exception as error:  # noqa: BLE001 - as above
            LOGGER.warning(f"The validation could not be looked into: {type(error).__name__}: {one_line(error)}")
        finally:
            generators.restore()

    def _open_validation(self, metrics: list[str]) -> None:
        seconds = self.plan.trainer.autopsy_seconds
        trained: Any = self.model
        model: Any = self.ema.ema if self.ema else unwrap(trained)
        if seconds is None or not self._may_replay(model):
            return
        bad = ValidationBatch.first_not_finite(self.validator, model, classes=self.data["nc"], seconds=seconds)
        if bad is None:
            return
        reason = f"validation not finite: {', '.join(metrics)}"
        seen = Symptom(reason=reason, loss=bad.loss, items=bad.items)
        report = examine([bad.case], seen, seconds=seconds, frugal=True)
        where = replace(self._circumstances(), batch=bad.drawn.number, precision=bad.precision, loss_scale=1.0)
        what = {"loss": bad.loss, "items": bad.items, "drawn": bad.drawn, "seen": seen, "validated": bad.case.model}
        self._write_down(Incident(kind="validation", reason=reason, report=report, where=where, **what))

    def _is_usual_overflow(self, decision: Decision) -> bool:
        assert self.guard is not None
        scaler = self.guard.scaler
        scaled = scaler is not None and scaler.is_enabled()
        return scaled and decision.norm is not None and self.guard.counts.consecutive < USUAL_OVERFLOWS

    def _open_incident(self, decision: Decision) -> None:
        decision, drawn = self.own_fault or (decision, self._drawn)
        window = decision.norm is not None
        drawn = drawn if window else drawn[-1:]
        model: Any = unwrap(self.model)  # pyright: ignore[reportArgumentType]
        seen = symptom_of(decision, drawn[-1].fault if drawn and not window else "", self._scale())
        report = Report()
        if drawn and self._may_replay(model):
            report = examine(
                [self._case(model, one) for one in drawn],
                seen,
                provenance=[one for batch in drawn for one in batch.provenance],
                healthy_state=self._newest_snapshot(),
                seconds=self.plan.trainer.autopsy_seconds,
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
        self._write_down(found)
        if not self._is_innocent(seen.kind, report):
            self._blame(report)

    def _newest_snapshot(self) -> dict[str, Tensor] | None:
        """Return parameters and buffers of the newest snapshot by name."""
        snapshot = None if self.guard is None or self.guard.recovery is None else self.guard.recovery.ring.newest
        if snapshot is None:
            return None
        return {n.removeprefix("model/"): t for n, t in snapshot.tensors.items() if n.startswith("model/")}

    def _case(self, model: nn.Module, drawn: Drawn) -> BatchCase:
        precision = precision_of(bool(self.amp), self.args.amp)
        assert drawn.generators is not None
        forward = forward_of(precision, self.device, drawn.generators.restore)
        return BatchCase(model, drawn.as_drawn(), forward, classes=self.data["nc"])

    def _may_replay(self, model: nn.Module) -> bool:
        """Tell whether a forward pass of this rank alone ends: one with statistics over all ranks waits for the others."""
        synced = any(isinstance(module, nn.SyncBatchNorm) for module in model.modules())
        return self.plan.trainer.autopsy_seconds is not None and not (synced and RANK != -1)

    def _scale(self) -> float:
        scaler = None if self.guard is None else self.guard.scaler
        return scaler.get_scale() if scaler is not None and scaler.is_enabled() else 1.0

    def _circumstances(self) -> Circumstances:
        assert self.guard is not None
        assert self.optimizer is not None
        return Circumstances(
            epoch=self.epoch + 1,
            batch=self.batch_number,
            step=self.guard.counts.applied,
            rank=RANK,
            device=str(self.device),
            precision=precision_of(bool(self.amp), self.args.amp),
            loss_scale=self._scale(),
            learning_rates=tuple(float(group["lr"]) for group in self.optimizer.param_groups),
            memory=memory(self.device),
            args=plain_args(self.args),
            classes=int(self.data["nc"]),
        )

    def _write_down(self, found: Incident) -> None:
        """Put an incident on the disk, while there is room for it, and say it in a line."""
        assert self.incidents is not None
        folder = self.incidents.next_folder()
        unnamed = found.report
        kept = folder is not None and found.drawn is not None and found.drawn.generators is not None
        trained: Any = self.model
        described = _described(unwrap(found.validated or trained)) if kept else None
        healed = self.guard is not None and self.guard.recovery is not None
        now = self.injections.just_now(found.kind)
        found = replace(found, healed=healed, injected=self.injections.over, injected_now=now)
        found = replace(found, report=self._named(found, folder, replayable=described is not None))
        try:
            self._put_on_disk(found, folder, described)
        except (OSError, InvalidCallError, RuntimeError, MemoryError) as error:  # no room on the disk, or in memory
            LOGGER.warning(f"{folder} could not be written: {one_line(error)}")
            folder = None
            found = replace(found, report=self._named(replace(found, report=unnamed), None, replayable=False))
        epoch = found.where.epoch
        LOGGER.warning(self.run_log.incident(found.kind, found.report, epoch, folder, found.injected_now))

    def _named(self, found: Incident, folder: Path | None, *, replayable: bool) -> Report:
        """Put the names of this run into the next step: what is typed then works."""
        names = replace(
            self.names(),
            folder=None if folder is None else str(folder),
            replayable=replayable,
            healed=found.healed,
            injected=found.injected,
            injected_now=found.injected_now,
        )
        return found.report.naming(names)

    def _put_on_disk(self, found: Incident, folder: Path | None, described: dict[str, Any] | None) -> None:
        assert self.incidents is not None
        assert self.guard is not None
        if folder is not None:
            trained: Any = self.model
            model: Any = unwrap(found.validated or trained)
            tensors, plain, batch, pictures = {}, {}, {}, {}
            drawn = found.drawn
            if drawn is not None and drawn.generators is not None:
                if found.validated is None:
                    tensors, plain = state_before(self.guard.state, drawn.generators)
                else:
                    tensors, plain = state_validated(model, drawn.generators)
                batch = drawn.as_drawn()
                pictures = pictures_of(found, model)
            if tensors:
                plain["model"] = described
            write_bundle(folder, found.to_json(), batch=batch, state=tensors, plain=plain, extra_files=pictures)
            self.incidents.written()

    def _is_innocent(self, kind: str, report: Report) -> bool:
        """Return whether the images are healthy: a fault was put into the batch, and not into one of their files."""
        named = [sample.path for sample in report.samples]
        return bool(self.injections.just_now(kind)) and not any(map(self.injections.has_broken, named))

    def _blame(self, report: Report) -> None:
        """Count against the images that were found guilty, and leave out those that are for the second time."""
        if self.quarantine is None or not self.plan.trainer.quarantine or report.cause != "data":
            return
        self._describe()
        named = [sample.path for sample in report.samples if sample.path]  # one may be in several tiles
        told = all(sample.label_row is not None for sample in report.samples)
        images = report.evidence.get("positions") or [0]  # of the batch: in each of them one file did it
        for file in self.quarantine.to_blame(named, len(named) if told else len(images)):
            refused = len(self.quarantine.refused)
            left_out = self.quarantine.blame(file)
            where = f"epoch {self.epoch + 1}/{self.epochs}, batch {self.batch_number}: {file} was found guilty twice"
            if left_out:
                listed = shlex.quote(os.path.abspath(self.save_dir / "quarantine.txt"))
                do = f"Repair it, or leave it out of the next run as well:\n{AGAIN} guard.quarantine_from={listed}"
                say(beneath(self.filled(f"{where}, and is left out from here on.\n{do}")))
                self.run_log.left_out(file)
                self.write_quarantine()
            elif len(self.quarantine.refused) > refused:
                out = (
                    f"{len(self.quarantine.left_out)} of {self.quarantine.images} images are out, and half must remain"
                )
                say(beneath(self.told(f"{where}, but stays: {out}.\nWhat is wrong with the data set:\n{CHECK}")))


def _described(model: nn.Module) -> dict[str, Any] | None:
    """Return what it takes to build the model anew; None of one that cannot be, whose incidents are kept all the same."""
    try:
        return describe_model(model)
    except BundleError as error:
        LOGGER.warning(f"{error} Its incidents can be looked into during the run only.")
        return None
