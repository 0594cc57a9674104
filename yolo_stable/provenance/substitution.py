"""Substitution: another sample in place of one whose image cannot be used.

A data set gets a class made of its own and two of ours: one asks for another sample, one (``reading.py``) knows which file is
read. While all is well, the data set draws and gives what it would by itself, and no random number is used.
"""

from __future__ import annotations

import copyreg
import functools
import operator
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from torch.utils.data import ConcatDataset, Subset, default_collate
from ultralytics.data.base import BaseDataset
from ultralytics.data.dataset import ClassificationDataset
from ultralytics.utils import LOGGER

from ..errors import YoloStableError
from . import unreadable
from .path_states import PathStates
from .reading import (
    SAMPLE,
    WATCH,
    NotDrawnError,
    Read,
    ReadingImages,
    ReadingSamples,
    ReadWatch,
    is_part,
    lose_any,
    parts_of,
    walk,
)

TRIES = 100
"""So many images in a row that turn out to be unreadable are enough: then it is the disk, and not the images."""


class NoImageLeftError(YoloStableError):
    """No image of a data set could be drawn."""


@dataclass(frozen=True, slots=True)
class Missing:
    """Stands for an unreadable sample of a validation; collating drops it."""

    dataset: Any
    index: Any


def watch(dataset: Any, states: PathStates, *, skip: bool = False) -> bool:
    """Let a data set draw another image in place of each that is unreadable or out.

    Call it before the loader is built. A second call changes the states only.

    Args:
        dataset: One of Ultralytics', of any task; one derived from them, several joined, or a wrapper. Any other kind stays as
            it is.
        states: Of its image files.
        skip: Leave a lost image out of its batch instead; the loader must take ``collate_fn`` from the data set.

    Returns:
        Whether it is watched now. One whose class forbids it stays as it is, with a warning.
    """
    parts = list(parts_of(dataset))
    new = [one for one in (*(part for part, _ in parts), *_wrappers_of(dataset)) if WATCH not in vars(one)]
    classes = [type(one) for one in new]
    try:
        for one in new:
            one.__class__ = _watched_class(type(one))
        collate = getattr(dataset, "collate_fn", None)
        if skip and parts and not isinstance(collate, SkippingCollate):
            dataset.collate_fn = SkippingCollate(collate or default_collate)
    except Exception as error:  # noqa: BLE001 - a class of somebody's own may refuse in any way
        for one, kind in zip(new, classes, strict=True):
            one.__class__ = kind
        name = type(dataset).__name__
        LOGGER.warning(
            f"Images of {name} that cannot be read end the run, as {name} does not let itself be watched:"
            f" {type(error).__name__}: {error}"
        )
        return False
    for part, start in parts:
        if WATCH in vars(part):
            vars(part)[WATCH].states = states
        else:
            own_draw = vars(part).pop("get_image_and_label", None)
            vars(part)[WATCH] = ReadWatch(part, states, start, skip=skip, own_draw=own_draw)
    for wrapper in _wrappers_of(dataset):
        vars(wrapper).setdefault(WATCH, vars(parts[0][0])[WATCH])
    return bool(parts)


def _wrappers_of(dataset: Any) -> list[Any]:
    """Return the data sets around others that choose samples: of those that are joined each chooses its own."""
    found = [one for one in walk(dataset) if not is_part(one) and not isinstance(one, ConcatDataset)]
    return [one for one in found if any(True for _ in parts_of(one))]


@functools.cache
def _watched_class(kind: Any) -> type:
    """Return a class of data sets with ours before and behind it; a class of its own, as its base must be ``kind`` alone.

    An object of it that was made by somebody's own code, or was sent to a worker without what is known of it, is not watched:
    it does what ``kind`` does.
    """
    if isinstance(kind, _Watched):
        return kind
    bases: Any = (kind,)
    for theirs, ours in ((BaseDataset, ReadingImages), (ClassificationDataset, ReadingSamples)):
        if issubclass(kind, theirs):  # of their own class ours is derived, and cannot stand behind it
            bases = (ours,) if kind is theirs else (kind, ours)

    own: Any = type(kind)

    class Meta(_Watched, own):
        """Of this class alone, so that one of somebody's own goes with it."""

    class Watched(*bases, metaclass=Meta):
        def __getitem__(self, index: Any) -> Any:
            make = super().__getitem__
            return _asked(self, make, index) if WATCH in vars(self) else make(index)

        def another(self, index: Any) -> Any:
            return _first_of(self, super().__getitem__, candidates(self, index))

        if issubclass(kind, BaseDataset):

            def get_image_and_label(self, index: int) -> dict[str, Any]:
                watched, draw = vars(self).get(WATCH), super().get_image_and_label
                return draw(index) if watched is None else _draw(self, watched.own_draw or draw, index)

            def build_transforms(self, *args: Any, **kwargs: Any) -> Any:
                watched, build = vars(self).get(WATCH), super().build_transforms
                tracer = None if watched is None else watched.tracer
                return build(*args, **kwargs) if tracer is None else tracer.build(build, *args, **kwargs)

    def reduced(made: type) -> Any:
        return (_watched_class, (kind,)) if made is Watched else made.__qualname__

    copyreg.pickle(Meta, reduced)  # pyright: ignore[reportArgumentType] - a class by how it is made, or by its name
    if kind is Subset:
        Watched.__getitems__ = _one_by_one
    Watched.__name__ = Watched.__qualname__ = f"Watched{kind.__name__}"
    return Watched


class _Watched(type):
    """The kind of all classes that are watched. It is how they are pickled: each is made anew in each process."""


def _one_by_one(self: Any, indices: Sequence[int]) -> list[Any]:
    return [self[index] for index in indices]


# ---- partners ---------------------------------------------------------------------------------------------------------------


def _draw(dataset: Any, draw: Callable[[int], dict[str, Any]], index: int) -> dict[str, Any]:
    """Return image and labels of an index from the data set's own ``draw``, or of another index when its image is out."""
    sample = SAMPLE
    own, sample.own = sample.own, False
    if own and sample.form is None:
        sample.form = index
    begin = len(sample.reads)
    sample.depth += 1
    try:
        tries = 0
        for candidate in (index,) if own else candidates(dataset, index):
            del sample.reads[begin:]
            try:
                return _drawn(dataset, draw, candidate, begin, own=own)
            except NotDrawnError as error:
                if own:
                    raise  # the sample as a whole is another one then
                tries += error.new
                if tries >= TRIES:
                    break
        raise NoImageLeftError("No image could be drawn as a partner: none can be read, or all are left out.")
    finally:
        sample.depth -= 1
        if not sample.depth:
            del sample.reads[begin:]


def _drawn(dataset: Any, draw: Callable[[int], Any], index: int, begin: int, *, own: bool) -> dict[str, Any]:
    sample = SAMPLE
    watched: ReadWatch = vars(dataset)[WATCH]
    try:
        labels = draw(index)
    except (NotDrawnError, NoImageLeftError):
        raise
    except Exception as error:
        reads = sample.reads[begin:] or [Read(str(dataset.im_files[index]), index, None, dataset)]
        lost = lose_any(reads)
        if lost is None:
            raise
        raise lost from error
    problem = unreadable.of_drawn_labels(dataset, labels)
    path = next((read.path for read in sample.reads[begin:]), None)
    if problem is not None and path is not None:
        raise watched.lose(path, problem)
    if own and sample.form != index and labels.get("rect_shape") is not None:
        labels["rect_shape"] = dataset.batch_shapes[dataset.batch[sample.form]]  # that of the others in the batch
    if watched.tracer is not None:
        watched.tracer.note_draw(labels, sample.reads[begin:])
    return labels


# ---- where samples are asked for -------------------------------------------------------------------------------------------


def _asked(dataset: Any, make: Callable[[Any], Any], index: Any) -> Any:
    """Return the sample that the data set's own ``__getitem__`` makes, or that of another image when its image is unusable."""
    if SAMPLE.depth:
        return make(index)
    skip = vars(dataset)[WATCH].skip
    try:
        return _first_of(dataset, make, (index,) if skip else candidates(dataset, index))
    except NoImageLeftError:
        if not skip:
            raise
        return Missing(dataset, index)


def _first_of(dataset: Any, make: Callable[[Any], Any], order: Iterable[Any]) -> Any:
    """Return the first sample of these indices that can be made."""
    watched: ReadWatch = vars(dataset)[WATCH]
    tries, sample = 0, SAMPLE
    sample.depth, sample.form = 1, None
    try:
        for index in order:
            again = True
            while again and tries < TRIES:
                sample.own = True
                sample.reads.clear()
                sample.made.clear()
                try:
                    made = make(index)
                except NotDrawnError as error:
                    tries += error.new
                    break
                except NoImageLeftError:
                    raise
                except Exception:
                    if lose_any(sample.reads) is None:
                        raise
                    tries += 1
                    continue  # one of its images is to blame; without it there is another sample of this index
                again = _has_odd_channels(made)
                tries += again
                if not again and watched.tracer is not None:
                    made = watched.tracer.finish(made, sample.reads, sample.made)
                    if watched.states and any(map(watched.is_out, watched.tracer.files(made))):
                        break  # kept by the data set since before it was left out
                if not again:
                    return made
    finally:
        sample.depth, sample.own = 0, False
        sample.reads.clear()
        sample.made.clear()
    raise NoImageLeftError(
        f"No image of the data set could be drawn: {tries} in a row cannot be read, or are left out."
    )


class SkippingCollate:
    """Collates a batch with ``inner`` without missing samples; one of only those gets another, as it must not be empty."""

    def __init__(self, inner: Any) -> None:
        self.inner = inner

    def __call__(self, batch: list[Any]) -> Any:
        """Collate."""
        there = [sample for sample in batch if not isinstance(sample, Missing)]
        return self.inner(there or [batch[0].dataset.another(batch[0].index)])


def candidates(dataset: Any, index: Any) -> Iterator[Any]:
    """Yield an index, and then all others in the order in which they take its place.

    In rectangular batches those of its batch come first, as they share its form.
    """
    yield index
    try:
        own, count = operator.index(index), len(dataset)
    except TypeError:
        return  # an index of another kind, or a data set without a length
    own %= max(count, 1)
    batches = getattr(dataset, "batch", None) if getattr(dataset, "rect", False) else None
    first, behind = 0, 0
    if batches is not None and len(batches) == count:
        first, behind = (int(np.searchsorted(batches, batches[own], side)) for side in ("left", "right"))
        yield from (*range(own + 1, behind), *range(first, own))
    for step in range(1, count):
        candidate = (own + step) % count
        if not first <= candidate < behind:
            yield candidate


def _has_odd_channels(sample: Any) -> bool:
    """Say whether an image has changed its channels, so that its sample fits no batch; it is lost then."""
    read = SAMPLE.reads[0] if SAMPLE.reads else None
    image = sample.get("img") if isinstance(sample, dict) else None
    if image is None or read is None or not isinstance(read.dataset, BaseDataset) or getattr(image, "ndim", 0) != 3:
        return False
    watched: ReadWatch = vars(read.dataset)[WATCH]
    if image.shape[0] == read.dataset.channels:
        watched.channels_seen = True
        return False
    return watched.channels_seen and lose_any(SAMPLE.reads) is not None
