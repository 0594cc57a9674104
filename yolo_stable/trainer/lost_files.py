"""Lost files inside an Ultralytics trainer: told once, counted, and the end of a run that has lost too many.

With several ranks each draws files of its own. At the end of an epoch, where ranks wait for each other anyway, they exchange what
was lost, and the first one tells of it.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from ultralytics.utils import RANK

from .._shared.atomic_file import reason
from .._shared.shell_text import GO_ON
from ..errors import TrainingHaltedError
from ..guard import StepGuard
from ..presets.run_plan import RunPlan
from ..provenance.path_states import LEFT_OUT, MOST, PathStates, key_of
from ..provenance.quarantine import Quarantine
from ..provenance.reading import parts_of, paths_of
from ..provenance.substitution import watch
from ..provenance.unreadable import Problem
from ..runlog.injections import Injections
from ..runlog.writer import RunLog
from .reporter import say

if TYPE_CHECKING:
    from ultralytics.engine.trainer import BaseTrainer as _Base
else:
    _Base = object

FEW = 3
"""So many lost files never end a run of which at least half remains: of a small data set they are a large share."""
_BRING_BACK = "Bring them back, or allow more with guard.max_unreadable."
_GO_ON = f"When they are back, go on:\n{GO_ON}\nOr go on without them:\n{GO_ON} guard.max_unreadable=none"
LINES = 10
"""Files named on the terminal at once; the log has all of them."""


class LostFiles:
    """Knows which image files were lost of the data sets of a training or of its validation, as soon as a worker has noticed it.

    Args:
        states: Of their files.
        datasets: Several where somebody joins some; their lists of files may be changed while they are in use.
    """

    def __init__(self, states: PathStates, datasets: Iterable[Any] = ()) -> None:
        self.states, self.datasets = states, list(datasets)
        self.lost: dict[str, Problem] = {}
        self._known: set[int] = set()
        self._paths: dict[int, str] = {}
        self._counted = (0, 0)
        """Entries in the lists of files when the files were counted, and the number of files."""

    @property
    def images(self) -> int:
        """How many image files there are, each counted once; counted again when their lists have another length."""
        entries = sum(map(len, self.parts()))
        if entries != self._counted[0]:
            files = {os.path.abspath(path) for part in self.parts() for path in paths_of(part)}
            self._counted = entries, len(files)
        return self._counted[1]

    def news(self) -> list[tuple[str, Problem]]:
        """Return the files that were lost since this was asked last, and why. Costs nothing while none is."""
        new = {key: state for key, state in self.states.entries().items() if key not in self._known}
        self._known |= new.keys()
        found = [(self._path_of(key), Problem(state)) for key, state in new.items() if state != LEFT_OUT]
        self.lost.update(found)
        return found

    def lost_entries(self) -> dict[int, int]:
        """Return the states of all files that were lost, by key; those that were told of, too."""
        return {key: state for key, state in self.states.entries().items() if state != LEFT_OUT}

    def learn(self, entries: Mapping[int, int]) -> None:
        """Do without the files that another rank has lost, too; they are news here.

        Args:
            entries: Its :meth:`lost_entries`.
        """
        for key, state in entries.items():
            self.states.set_by_key(key, state)

    def parts(self) -> Iterator[Any]:
        """Yield the data sets of Ultralytics' kinds that they are made of."""
        for dataset in self.datasets:
            yield from (part for part, _ in parts_of(dataset))

    def are_too_many(self, share: float | None) -> bool:
        """Return whether more are lost than a run may lose.

        Args:
            share: Of the data set; None: any.
        """
        return share is not None and len(self.lost) > self.allowed(share)

    def allowed(self, share: float) -> int:
        """Return how many files a run may lose."""
        return int(min(max(share * self.images, FEW), self.images / 2))

    def in_words(self) -> str:
        """Return how many are lost of how many, and what happened to the first ones."""
        shown = [f"{path} {problem.words}" for path, problem in list(self.lost.items())[:FEW]]
        more = f"; and {len(self.lost) - FEW} more" if len(self.lost) > FEW else ""
        return f"{len(self.lost)} of {self.images} images cannot be read any more ({'; '.join(shown)}{more})"

    def _path_of(self, key: int) -> str:
        if key not in self._paths:  # the lists may be others now
            self._paths |= {key_of(path): path for part in self.parts() for path in paths_of(part)}
        return self._paths.get(key, "an image that is not in the data set any more")


class GuardedFiles(_Base):
    """The part of :class:`~yolo_stable.GuardedTrainerMixin` that outlives image files."""

    plan: RunPlan
    guard: StepGuard | None
    run_log: RunLog
    quarantine: Quarantine | None
    injections: Injections
    files: dict[str, LostFiles]
    """Of the training images (``train``) and those of the validation (``val``)."""

    def build_dataset(self, img_path: str, mode: str = "train", batch: int | None = None) -> Any:
        """Let a data set do without images that cannot be read: draw others in training, leave them out of a validation."""
        dataset = super().build_dataset(img_path, mode, batch)
        files = self.files.get(mode) or LostFiles(PathStates(MOST))  # nobody knows how many data sets there will be
        if watch(dataset, files.states, skip=mode != "train"):
            files.datasets.append(dataset)
            self.files[mode] = files
        return dataset

    def _build_train_pipeline(self) -> None:
        """Let go of the data sets that others take the place of; what was lost of them stays lost."""
        for files in self.files.values():
            files.datasets.clear()
        super()._build_train_pipeline()

    def look_for_lost(self) -> None:
        """Tell of the files that were lost since the last batch.

        Raises:
            TrainingHaltedError: Too many training images are lost.
        """
        for mode, files in self.files.items():
            new = files.news()
            for path, problem in new:
                if mode == "train" and self.quarantine is not None:
                    self.quarantine.lose(path, problem.words)
                self.run_log.unreadable(path, problem.words, mode, len(files.lost), files.images)
            if new:
                self._tell_of(new, mode)
            share = self.plan.trainer.max_unreadable
            if share is not None and new and mode == "train" and files.are_too_many(share):
                allowed = f"guard.max_unreadable={share} allows {files.allowed(share)}"
                raise TrainingHaltedError(f"{files.in_words()}, and {allowed}.", _BRING_BACK, _GO_ON)

    def share_lost(self) -> None:
        """Let all ranks know which files any of them has lost; the first one tells of them.

        Called at the end of each epoch, where they wait for each other anyway.

        Raises:
            TrainingHaltedError: Too many training images are lost; on all ranks alike.

        Syncs: with several ranks two small collectives; with one none.
        """
        if self.guard is None or not self.guard.ranks.shared:
            return
        lost = {mode: files.lost_entries() for mode, files in self.files.items()}
        for theirs in self.guard.ranks.gather(lost):
            for mode, files in self.files.items():
                files.learn(theirs.get(mode, {}))
        self.look_for_lost()

    def write_quarantine(self) -> None:
        """Write down what is left out. A disk that is full ends no run: it is told, and written with the next image."""
        if self.quarantine is None or RANK not in {-1, 0}:
            return
        path = self.save_dir / "quarantine.txt"
        try:
            self.quarantine.write(path, but=self.injections.has_broken)
        except OSError as error:
            say(f"{path} could not be written: {reason(error)}.")

    def nothing_left(self) -> TrainingHaltedError:
        """Return what ends a run of which no image could be drawn any more."""
        try:
            self.look_for_lost()
        except TrainingHaltedError as error:
            return error
        lost = [f"{mode}: {files.in_words()}" for mode, files in self.files.items() if files.lost]
        return TrainingHaltedError(f"No image could be drawn any more. {'. '.join(lost)}.", _BRING_BACK, _GO_ON)

    def validate(self) -> Any:
        """Validate the images that can be read."""
        results = super().validate()
        self.look_for_lost()
        return results

    def final_eval(self) -> None:
        """Evaluate, and tell of files that were lost in the meantime."""
        super().final_eval()
        self.look_for_lost()

    def _tell_of(self, new: list[tuple[str, Problem]], mode: str) -> None:
        listed = self.save_dir / "quarantine.txt"
        meaning = (
            f"it is left out from here on, and other images are drawn in its place; see {listed}"
            if mode == "train"
            else "it is left out of the validations"
        )
        for path, problem in new[:LINES]:
            say(f"{path} {problem.words}: {meaning}.")
        if len(new) > LINES:
            say(f"So it is with {len(new) - LINES} more: {meaning.replace('it is', 'they are')}.")
        if mode == "train":
            self.write_quarantine()
