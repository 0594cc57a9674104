"""File watcher: a training outlives image files that are lost, tells of each once, and ends when too many are.

With several ranks each draws files of its own. At the end of an epoch, where ranks wait for each other anyway, they exchange what
was lost, and the first one tells of it.
"""

from __future__ import annotations

from typing import Any

from .._shared.shell_text import GO_ON
from ..checkpoints.trainer_view import TrainerView
from ..errors import TrainingHaltedError
from ..provenance.dataset import trace
from ..provenance.path_states import MOST, PathStates
from ..provenance.substitution import watch
from ..provenance.unreadable import Problem
from .lost_files import LostFiles
from .quarantine_keeper import QuarantineKeeper
from .reporter import say

_BRING_BACK = "Bring them back, or allow more with guard.max_unreadable."
_GO_ON = f"When they are back, go on:\n{GO_ON}\nOr go on without them:\n{GO_ON} guard.max_unreadable=none"
LINES = 10
"""Files named on the terminal at once; the log has all of them."""


class FileWatcher:
    """Follows which files of the data sets of a run were lost.

    Args:
        trainer: Read for the log, the folder and the ranks.
        quarantine: Told of each training image that was lost.
    """

    def __init__(self, trainer: TrainerView, quarantine: QuarantineKeeper) -> None:
        self._trainer, self._quarantine = trainer, quarantine
        self.by_mode: dict[str, LostFiles] = {}
        """Of the training images (``train``) and those of the validation (``val``)."""

    def attach(self, dataset: Any, mode: str) -> None:
        """Let a data set do without images that cannot be read: draw others in training, leave them out of a validation.

        Training images also learn what they are made of, and which of them are in quarantine.

        Args:
            dataset: As Ultralytics has built it.
            mode: ``train`` or ``val``.
        """
        files = self.by_mode.get(mode) or LostFiles(PathStates(MOST))  # nobody knows how many data sets there will be
        is_watched = watch(dataset, files.states, skip=mode != "train")
        if is_watched:
            files.datasets.append(dataset)
            self.by_mode[mode] = files
        if mode == "train" and mode in self.by_mode:
            self._quarantine.attach(files)
            if self._trainer.plan.trainer.incidents is not None and is_watched:
                trace(
                    dataset
                )  # it has the states of the quarantine, which knows the images of the other data sets as well

    def release(self) -> None:
        """Let go of the data sets that others take the place of; what was lost of them stays lost."""
        for files in self.by_mode.values():
            files.datasets.clear()

    def look(self) -> None:
        """Tell of the files that were lost since the last look.

        Raises:
            TrainingHaltedError: Too many training images are lost.
        """
        for mode, files in self.by_mode.items():
            new = files.news()
            for path, problem in new:
                if mode == "train":
                    self._quarantine.lose(path, problem.words)
                self._trainer.run_log.unreadable(path, problem.words, mode, len(files.lost), files.images)
            if new:
                self._tell_of(new, mode)
            share = self._trainer.plan.trainer.max_unreadable
            if share is not None and new and mode == "train" and files.are_too_many(share):
                allowed = f"guard.max_unreadable={share} allows {files.allowed(share)}"
                raise TrainingHaltedError(f"{files.in_words()}, and {allowed}.", _BRING_BACK, _GO_ON)

    def share(self) -> None:
        """Let all ranks know which files any of them has lost; the first one tells of them.

        Called at the end of each epoch, where they wait for each other anyway.

        Raises:
            TrainingHaltedError: Too many training images are lost; on all ranks alike.

        Syncs: with several ranks two small collectives; with one none.
        """
        guard = self._trainer.guard
        if guard is None or not guard.ranks.shared:
            return
        lost = {mode: files.lost_entries() for mode, files in self.by_mode.items()}
        for theirs in guard.ranks.gather(lost):
            for mode, files in self.by_mode.items():
                files.learn(theirs.get(mode, {}))
        self.look()

    def nothing_left(self) -> TrainingHaltedError:
        """Return what ends a run of which no image could be drawn any more."""
        try:
            self.look()
        except TrainingHaltedError as error:
            return error
        lost = [f"{mode}: {files.in_words()}" for mode, files in self.by_mode.items() if files.lost]
        return TrainingHaltedError(f"No image could be drawn any more. {'. '.join(lost)}.", _BRING_BACK, _GO_ON)

    def _tell_of(self, new: list[tuple[str, Problem]], mode: str) -> None:
        meaning = (
            f"it is left out from here on, and other images are drawn in its place; see {self._quarantine.path}"
            if mode == "train"
            else "it is left out of the validations"
        )
        for path, problem in new[:LINES]:
            say(f"{path} {problem.words}: {meaning}.")
        if len(new) > LINES:
            of_several = meaning.replace("it is", "they are").replace("its place", "their place")
            say(f"So it is with {len(new) - LINES} more: {of_several}.")
        if mode == "train":
            self._quarantine.write()
