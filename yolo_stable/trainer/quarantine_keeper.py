"""Quarantine keeper: leaves out the images that were found guilty twice, and keeps ``quarantine.txt``."""

from __future__ import annotations

import os
import shlex
from pathlib import Path

from ultralytics.utils import LOGGER, RANK

from .._shared.atomic_file import reason
from .._shared.shell_text import AGAIN, CHECK, beneath
from ..autopsy.report import Report
from ..checkpoints.trainer_view import TrainerView
from ..provenance.quarantine import Quarantine
from ..provenance.reading import paths_of
from ..runlog.injections import Injections
from .lost_files import LostFiles
from .next_steps import NextSteps
from .reporter import say


class QuarantineKeeper:
    """Holds the quarantine of a training set, once one has been built that anything is known of.

    Args:
        trainer: Read for the plan, the log, the folder and the place in the run.
        injections: Images that are broken on purpose are left out of this run only.
        next_steps: Fills the commands of what is told.
    """

    def __init__(self, trainer: TrainerView, injections: Injections, next_steps: NextSteps) -> None:
        self._trainer, self._injections, self._next_steps = trainer, injections, next_steps
        self.quarantine: Quarantine | None = None
        self._files: LostFiles | None = None

    @property
    def path(self) -> Path:
        """Where it is written."""
        return self._trainer.save_dir / "quarantine.txt"

    def attach(self, files: LostFiles) -> None:
        """Begin with the first training set of a run, or go on with a further one.

        Args:
            files: Of the training images.
        """
        is_first = self.quarantine is None
        self._files = files
        self.quarantine = self.quarantine or Quarantine(files.states)
        self._describe(self.quarantine, files)
        self._fill(self.quarantine, is_first=is_first)

    def lose(self, path: str, why: str) -> None:
        """Take down a file that cannot be read any more."""
        if self.quarantine is not None:
            self.quarantine.lose(path, why)

    def blame(self, report: Report) -> None:
        """Count an incident against the images that were found guilty, and leave out those that are for the second time."""
        quarantine, plan = self.quarantine, self._trainer.plan.trainer
        if quarantine is None or self._files is None or not plan.quarantine or report.cause != "data":
            return
        self._describe(quarantine, self._files)
        named = [sample.path for sample in report.samples if sample.path]  # one may be in several tiles
        told = all(sample.label_row is not None for sample in report.samples)
        images = report.evidence.get("positions") or [0]  # of the batch: in each of them one file did it
        for file in quarantine.to_blame(named, len(named) if told else len(images)):
            refused = len(quarantine.refused)
            if quarantine.blame(file):
                self._tell_left_out(file)
            elif len(quarantine.refused) > refused:
                out = f"{len(quarantine.left_out)} of {quarantine.images} images are out, and half must remain"
                line = f"{self._found_guilty(file)}, but stays: {out}.\nWhat is wrong with the data set:\n{CHECK}"
                say(beneath(self._next_steps.told(line)))

    def write(self) -> None:
        """Write down what is left out. A disk that is full ends no run: it is told, and written with the next image."""
        if self.quarantine is None or RANK not in {-1, 0}:
            return
        try:
            self.quarantine.write(self.path, but=self._injections.has_broken)
        except OSError as error:
            say(f"{self.path} could not be written: {reason(error)}.")

    def _tell_left_out(self, file: str) -> None:
        listed = shlex.quote(os.path.abspath(self.path))
        do = f"Repair it, or leave it out of the next run as well:\n{AGAIN} guard.quarantine_from={listed}"
        say(beneath(self._next_steps.filled(f"{self._found_guilty(file)}, and is left out from here on.\n{do}")))
        self._trainer.run_log.left_out(file)
        self.write()

    def _found_guilty(self, file: str) -> str:
        trainer = self._trainer
        return (
            f"epoch {trainer.epoch + 1}/{trainer.epochs}, batch {trainer.batch_number}: {file} was found guilty twice"
        )

    def _describe(self, quarantine: Quarantine, files: LostFiles) -> None:
        """Let the quarantine know which images there are now: somebody may have put other lists into the data set."""
        for number, part in enumerate(files.parts()):
            quarantine.describe(paths_of(part), number)

    def _fill(self, quarantine: Quarantine, *, is_first: bool) -> None:
        """Leave out what an earlier part of the run has left out, and what is asked for.

        Of a further data set, or the same built anew, only what comes of it is told.
        """
        plan = self._trainer.plan.trainer
        if not plan.quarantine:
            return
        told = []
        if self._trainer.resume and self.path.is_file():
            told.append((self.path, quarantine.read(self.path, lost=False)))  # lost files may be back
        if plan.quarantine_from is not None:
            asked_for = Path(plan.quarantine_from)
            told.append((asked_for, quarantine.read(asked_for)))
        for path, left_out in told if RANK in {-1, 0} else ():
            if is_first or left_out.taken:
                LOGGER.info(f"{path}: {left_out}")
