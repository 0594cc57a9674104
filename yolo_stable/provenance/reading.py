"""Reading: which image file a data set reads, noticed where Ultralytics reads it.

Our classes come last before Ultralytics' ``BaseDataset`` and ``ClassificationDataset``. Whatever other classes do with indices in
between, here the file is known; one that cannot be read or is left out is refused here.

What comes out of a sample is compared with what was read for it: one read or an untouched array has a name, several reads are
named together, none has no name (``tests/provenance/test_what_was_read.py``). An image that a data set keeps in memory is known
by the array itself.
"""

from __future__ import annotations

import threading
import weakref
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from ultralytics.data.base import BaseDataset
from ultralytics.data.dataset import ClassificationDataset

from . import unreadable
from .path_states import PathStates

WATCH = "_watch"
"""The attribute of a data set that is watched."""
DEPTH = 4
"""Data sets within data sets that are looked into."""


class NotDrawnError(FileNotFoundError):
    """An image is out, lost (``new``: just now, after an attempt) or left out; the data set catches this and draws another."""

    def __init__(self, message: str, *, new: bool = False) -> None:
        super().__init__(message)
        self.new = new


@dataclass(frozen=True, slots=True)
class Read:
    """One image that was read."""

    path: str | None
    """None: it came from memory, and nobody knows which file it was."""
    index: int
    """In its data set, at that moment."""
    image: Any
    """As it was read: (height, width, channels); of classification the sample's tensor."""
    dataset: Any

    @property
    def place(self) -> int:
        """Its index in all data sets that are joined."""
        return int(self.index) + vars(self.dataset)[WATCH].start


class _Sample(threading.local):
    """The sample that this thread is making."""

    def __init__(self) -> None:
        self.depth = 0
        """Above 0 while one is."""
        self.own = False
        """Whether the next draw is that of the sample itself; later ones are partners of a mosaic."""
        self.form: int | None = None
        """The index that was drawn first: its batch gives the form in rectangular batches."""
        self.reads: list[Read] = []
        self.made: list[tuple[Any, Any]] = []
        """Finished images with what is noted of them; more than one when a data set of somebody's own joins some."""


SAMPLE = _Sample()


class ReadWatch:
    """What is known of one watched data set.

    Args:
        dataset: The data set.
        states: Of image files.
        start: Index of its first image among all that are joined with it.
        skip: Leave a lost image out of its batch, as in validation, instead of drawing another.
        own_draw: What somebody has put in the place of its ``get_image_and_label``, if anything.
    """

    def __init__(self, dataset: Any, states: PathStates, start: int, *, skip: bool, own_draw: Any = None) -> None:
        self.states, self.start, self.skip, self.own_draw = states, start, skip, own_draw
        self.tracer: Any = None
        """Notes what is read and made, see ``dataset.DatasetTracer``; None: nobody does."""
        self.channels_seen = False
        """Whether a sample had the data set's number of channels: then another number is a fault."""
        # Images that were read into memory before: by index, as long as they are where they were.
        self._stored = getattr(dataset, "img_cache", None) if hasattr(dataset, "samples") else dataset.ims
        self._stored_paths = paths_of(dataset) if isinstance(self._stored, BaseDataset._ImageCache) else []
        self._kept: dict[int, tuple[Any, str]] = {}

    def path_of_image(self, dataset: Any, index: int) -> str | None:
        """Return the file that ``load_image`` will read, or has read into memory; None when unknown."""
        stored = dataset.ims
        if self._stored_paths and stored is self._stored:
            return self._stored_paths[index]
        kept = stored[index]
        if kept is not None:
            reference, path = self._kept.get(id(kept), (None, None))
            return path if reference is not None and reference() is kept else None
        path = str(dataset.im_files[index])
        array_file = dataset.npy_files[index]
        if unreadable.belongs(array_file, path) or not array_file.exists():
            return path
        return None  # the lists were changed apart: either of two files may be read

    def path_of_sample(self, dataset: Any, index: int) -> str | None:
        """Return the file of a classification sample; None when unknown."""
        path, _, array_file, _ = dataset.samples[index]
        if dataset.cache_ram:
            same = dataset.img_cache is self._stored
            return self._stored_paths[index] if same and self._stored_paths else None
        return str(path) if not dataset.cache_disk or unreadable.belongs(array_file, str(path)) else None

    def keep(self, image: np.ndarray, path: str | None) -> None:
        """Remember the file of an image while it lives: the data set may keep the image and give it again."""
        if path is not None:
            key = id(image)
            self._kept[key] = weakref.ref(image, lambda _: self._kept.pop(key, None)), path

    def is_out(self, path: str | None) -> bool:
        """Say whether a file is out."""
        return path is not None and self.states.get(path) != 0

    def lose(self, path: str, problem: unreadable.Problem) -> NotDrawnError:
        """Count an image as lost, and return the error that has another one drawn."""
        self.states.set(path, problem)
        return NotDrawnError(f"{path} {problem.words}", new=True)

    def __getstate__(self) -> dict[str, Any]:
        kept = [(image, path) for reference, path in self._kept.values() if (image := reference()) is not None]
        return {**vars(self), "_kept": kept}

    def __setstate__(self, state: dict[str, Any]) -> None:
        kept = state.pop("_kept")
        vars(self).update(state, _kept={})
        for image, path in kept:
            self.keep(image, path)


# ---- data sets within data sets ---------------------------------------------------------------------------------------------


def parts_of(dataset: Any) -> Iterator[tuple[Any, int]]:
    """Yield the data sets of Ultralytics' kinds in a data set, each with the index of its first image."""
    start, seen = 0, set()
    for part in walk(dataset):
        if is_part(part) and id(part) not in seen:
            seen.add(id(part))
            yield part, start
            start += len(part)


def paths_of(part: Any) -> list[str]:
    """Return the image files of a data set, by index."""
    if isinstance(part, ClassificationDataset):
        return [str(sample[0]) for sample in part.samples]
    return [str(path) for path in part.im_files]


def is_part(dataset: Any) -> bool:
    """Say whether a data set is one of Ultralytics' kinds."""
    return isinstance(dataset, (BaseDataset, ClassificationDataset))


def walk(dataset: Any, depth: int = DEPTH) -> Iterator[Any]:
    """Yield a data set and those that it holds, outer ones first."""
    yield dataset
    if depth and not is_part(dataset) and hasattr(dataset, "__dict__"):
        for held in vars(dataset).values():
            for inner in held if isinstance(held, (list, tuple)) else (held,):
                if hasattr(inner, "__getitem__") and hasattr(inner, "__dict__"):
                    yield from walk(inner, depth - 1)


# ---- where files are read --------------------------------------------------------------------------------------------------


class ReadingImages(BaseDataset):
    """Comes last before ``BaseDataset``: what is read here is what is read."""

    def load_image(self, i: int, *args: Any, **kwargs: Any) -> Any:
        """Read an image, and note which."""
        watched: ReadWatch | None = vars(self).get(WATCH)
        if watched is None:
            return super().load_image(i, *args, **kwargs)
        path = watched.path_of_image(self, i)
        if watched.states and watched.is_out(path):
            raise NotDrawnError(f"{path} is out")
        try:
            loaded = super().load_image(i, *args, **kwargs)
        except Exception as error:
            file = path or str(self.im_files[i])
            problem = unreadable.of_image(file, self.cv2_flag) or unreadable.of_array_file(self.npy_files[i])
            if problem is not None:
                raise watched.lose(file, problem) from error
            loaded = super().load_image(i, *args, **kwargs)  # it can be read now: a network may be away for a moment
        watched.keep(loaded[0], path)
        if SAMPLE.depth:
            SAMPLE.reads.append(Read(path, i, loaded[0], self))
        return loaded


class ReadingSamples(ClassificationDataset):
    """The same for classification, where reading and making a sample are one."""

    def __getitem__(self, i: int) -> dict[str, Any]:
        """Make a sample, and note of which file."""
        watched: ReadWatch | None = vars(self).get(WATCH)
        if watched is None:
            return super().__getitem__(i)
        if self.samples[i][1:2] == [None]:
            raise watched.lose(str(self.samples[i][0]), unreadable.Problem.LABELS)
        path = watched.path_of_sample(self, i) if len(self.samples[i]) == 4 else str(self.samples[i][0])
        if watched.states and watched.is_out(path):
            raise NotDrawnError(f"{path} is out")
        try:
            sample = super().__getitem__(i)
        except Exception as error:
            problem = unreadable.of_sample(self, i)
            if problem is None:
                raise
            raise watched.lose(path or str(self.samples[i][0]), problem) from error
        if SAMPLE.depth:
            read = Read(path, i, sample["img"], self)
            SAMPLE.reads.append(read)
            if watched.tracer is not None:
                watched.tracer.note_sample(sample, read)
        return sample

    def imread(self, f: str) -> Any:  # pyright: ignore[reportIncompatibleMethodOverride] - called on the instance
        """Read a file, and once more when it cannot be read: a network may be away for a moment."""
        image = super().imread(f)
        return super().imread(f) if image is None else image


def lose_any(reads: Sequence[Read]) -> NotDrawnError | None:
    """Look again at the images of a failed sample, and count those as lost that cannot be used.

    Returns:
        An error that names one of them; None when all can be used and something else is to blame.
    """
    lost = None
    for read in reads:
        if isinstance(read.dataset, ClassificationDataset):
            problem = unreadable.of_sample(read.dataset, read.index)
        else:
            problem = unreadable.of_item(read.dataset, read.index, read.path)
        path = read.path or str(paths_of(read.dataset)[read.index])
        if problem is not None:
            lost = vars(read.dataset)[WATCH].lose(path, problem)
    return lost
