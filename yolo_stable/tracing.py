"""Records, in a data set's own pipeline, what goes into each training image; and leaves quarantined images out of it.

A data set is asked for one more key, nothing else of what it gives changes: not the images, not the labels, not the random
numbers drawn on the way. All that is put into it can be pickled, so loader workers may be forked or spawned.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from torch.utils.data import ConcatDataset
from ultralytics.data.dataset import ClassificationDataset

from .provenance import Provenance, unknown
from .quarantine import Quarantine
from .regions import Recipe
from .traced_labels import TracedLabels
from .traced_transforms import KEY, SERIALS, Drawn, TracedPipeline, follow

MARK = "_traced"
"""The attribute of a data set that is traced."""


def trace(dataset: Any, quarantine: Quarantine | None = None) -> None:
    """Let each sample of a data set carry its provenance; :func:`take` it out of a batch.

    Call it before the loader's workers start. A second call changes nothing, but may bring a quarantine.

    Args:
        dataset: One of Ultralytics', of any task, or one derived from them, or several joined. One of another kind is left as
            it is, and its batches have no provenance.
        quarantine: Images that are left out, for as long as it says so: an index of one draws another image, and draws no
            random number for that. It learns the paths of the images here.
    """
    for part, start in parts_of(dataset):
        if quarantine is not None:
            quarantine.describe(paths_of(part), start)
        if (mark := vars(part).get(MARK)) is not None:
            mark.quarantine = quarantine or mark.quarantine
        elif isinstance(part, ClassificationDataset):
            setattr(part, MARK, Mark(start, quarantine))
            part.__class__ = _traced_class(type(part))
        else:
            setattr(part, MARK, Mark(start, quarantine))
            part.get_image_and_label = TracedDraw(part, vars(part).get("get_image_and_label"))
            part.build_transforms = TracedBuild(part, vars(part).get("build_transforms"))
    retrace(dataset)


def retrace(dataset: Any) -> None:
    """Trace the transforms of a data set again after somebody has put in others.

    Ultralytics' own ``close_mosaic`` needs no call: what it builds is traced.
    """
    for part, _ in parts_of(dataset):
        if MARK in vars(part) and hasattr(part, "transforms"):
            part.transforms = _pipeline(part.transforms)


def take(batch: Any) -> tuple[Provenance, ...]:
    """Take the provenance out of a batch, before anything else looks at the batch.

    Args:
        batch: As the loader made it.

    Returns:
        One for each image; none when the data set is not traced.

    Syncs: none; the batch is on the host.
    """
    noted = batch.pop(KEY, None) if isinstance(batch, dict) else None
    if noted is None:
        return ()
    images = batch.get("img")
    if isinstance(noted, Mapping):  # classification: torch's own collate function, which knows plain types only
        height, width = (int(n) for n in images.shape[-2:])  # pyright: ignore[reportOptionalMemberAccess]
        files = zip(noted["path"], noted["index"].tolist(), strict=True)
        return tuple(
            Provenance.of(("image", 0, index, path, width, height), b"", 0, (height, width)) for path, index in files
        )
    return tuple(made if isinstance(made, Provenance) else unknown(images) for made in noted)


def parts_of(dataset: Any, start: int = 0) -> Iterator[tuple[Any, int]]:
    """Yield the data sets that one is joined of and can be traced, each with the index of its first image."""
    if isinstance(dataset, ConcatDataset):
        for part in dataset.datasets:
            yield from parts_of(part, start)
            start += len(part)  # pyright: ignore[reportArgumentType]
    elif isinstance(dataset, ClassificationDataset) or hasattr(dataset, "get_image_and_label"):
        yield dataset, start


def paths_of(part: Any) -> list[str]:
    """Return the image files of a data set, in the order of its indices."""
    if isinstance(part, ClassificationDataset):
        return [str(sample[0]) for sample in part.samples]
    return [str(path) for path in part.im_files]


class Mark:
    """Says that a data set is traced.

    Args:
        start: Index of its first image among all that are joined with it.
        quarantine: Images to leave out, if any.
    """

    def __init__(self, start: int, quarantine: Quarantine | None) -> None:
        self.start = start
        self.quarantine = quarantine

    def instead(self, index: int, count: int, batches: Any = None) -> int:
        """Return the image to draw for an index of this data set, the index itself when it may be drawn.

        Args:
            index: From 0 in this data set.
            count: Images in this data set.
            batches: For images in rectangular batches: the batch of each image, in ascending order.
        """
        if self.quarantine is None or not self.quarantine.has_out(index + self.start):
            return index
        first, behind = self.start, self.start + count
        if batches is not None:  # the others of its batch have its form
            own = np.searchsorted(batches, batches[index], "left"), np.searchsorted(batches, batches[index], "right")
            found = self.quarantine.instead(index + self.start, first + int(own[0]), first + int(own[1]))
            if found is not None:
                return found - self.start
        found = self.quarantine.instead(index + self.start, first, behind)
        return index if found is None else found - self.start


class TracedDraw:
    """``get_image_and_label`` of a data set, with the file noted.

    Args:
        dataset: The data set.
        inner: What stood in the place of its method, if anything.
    """

    def __init__(self, dataset: Any, inner: Any = None) -> None:
        self.dataset = dataset
        self.inner = inner

    def __call__(self, index: int) -> dict[str, Any]:
        """Read an image and its labels."""
        dataset, inner = self.dataset, self.inner
        mark: Mark = vars(dataset)[MARK]
        files = dataset.im_files
        asked = place = index % len(files)
        if mark.quarantine is not None and mark.quarantine.has_out(asked + mark.start):
            place = mark.instead(asked, len(files), dataset.batch if getattr(dataset, "rect", False) else None)
            index = index if place == asked else place
        labels = type(dataset).get_image_and_label(dataset, index) if inner is None else inner(index)
        if place != asked and labels.get("rect_shape") is not None:
            labels["rect_shape"] = dataset.batch_shapes[dataset.batch[asked]]  # the form of the others in this batch
        height, width = labels["img"].shape[:2]
        serial = next(SERIALS)
        recipe: Recipe = ("image", serial, int(place) + mark.start, str(files[place]), width, height)
        labels[KEY] = recipe
        cls = labels.get("cls")
        if type(cls) is np.ndarray and cls.ndim:
            labels["cls"] = traced = cls.view(TracedLabels)
            traced.note = ("file", serial, len(cls))
        if Drawn.recipes is not None:
            Drawn.recipes.append(recipe)
        return labels


class TracedBuild:
    """``build_transforms`` of a data set; what it builds is traced. Ultralytics calls it when mosaics end.

    Args:
        dataset: The data set.
        inner: What stood in the place of its method, if anything.
    """

    def __init__(self, dataset: Any, inner: Any = None) -> None:
        self.dataset = dataset
        self.inner = inner

    def __call__(self, hyp: Any) -> Any:
        """Build them."""
        inner = self.inner
        return _pipeline(type(self.dataset).build_transforms(self.dataset, hyp) if inner is None else inner(hyp))


class TracedSamples:
    """Put before a class of classification data sets: its samples carry path and index."""

    def __getitem__(self, index: int) -> dict[str, Any]:
        """Return a sample."""
        mark: Mark = getattr(self, MARK)
        index = mark.instead(int(index) % len(self), len(self))  # pyright: ignore[reportArgumentType]
        sample = super().__getitem__(index)  # pyright: ignore[reportAttributeAccessIssue]
        path = str(self.samples[index][0])  # pyright: ignore[reportAttributeAccessIssue]
        return {**sample, KEY: {"path": path, "index": index + mark.start}}

    def __reduce__(self) -> tuple[Any, ...]:
        return _restored, (type(self).__mro__[2],), self.__dict__


def _pipeline(transforms: Any) -> TracedPipeline:
    """Return transforms that note what they do; the same object when it is one of Ultralytics' own."""
    if isinstance(transforms, TracedPipeline):
        for inner in transforms.transforms:
            follow(inner)
        return transforms
    if follow(transforms) and hasattr(transforms, "transforms"):
        transforms.__class__ = TracedPipeline
        return transforms
    return TracedPipeline([transforms])


def _traced_class(kind: type) -> type:
    return type(f"Traced{kind.__name__}", (TracedSamples, kind), {})


def _restored(kind: type) -> Any:
    """Return an empty classification data set for pickle to fill; its class is made anew in each process."""
    traced: Any = _traced_class(kind)
    return traced.__new__(traced)
