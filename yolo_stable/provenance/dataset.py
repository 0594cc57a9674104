"""Traced data set: its own pipeline records what goes into each training image, and leaves quarantined images out.

Each sample gains one key; images, labels and random numbers stay what they are. All that is put into a data set can be pickled,
so loader workers may be forked or spawned. What was read is recorded (``reading.py``), not what was asked for; where nobody
knows, there is no path.

The record is a recipe, a few numbers for each transform (``transforms.py``). Class labels carry the numbers of their rows along
(``labels.py``). Rows are worked out when a worker sends them or somebody asks, polygons when somebody asks.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from ultralytics.data.dataset import ClassificationDataset

from .geometry import NOTHING
from .labels import TracedLabels
from .path_states import PathStates
from .quarantine import Quarantine
from .reading import WATCH, Read, parts_of, paths_of
from .recipe import Provenance, joined, unknown
from .substitution import watch
from .transforms import KEY, DrawnRecipes, TracedPipeline, follow, recipe_of_read


def trace(dataset: Any, quarantine: Quarantine | None = None) -> None:
    """Let each sample of a data set carry its provenance; :func:`take` it out of a batch.

    Call it before the loader's workers start. A second call changes nothing, but may bring a quarantine.

    Args:
        dataset: One of Ultralytics', of any task; one derived from them, several joined, or a wrapper. Any other kind stays as
            it is, and its batches have no provenance.
        quarantine: Learns the paths of the images. In place of each image that it leaves out another one is drawn, without a
            random number.
    """
    parts = list(parts_of(dataset))
    if quarantine is not None:
        for n, (part, _) in enumerate(parts):
            quarantine.describe(paths_of(part), n)
        watch(dataset, quarantine.states)
    elif any(WATCH not in vars(part) for part, _ in parts):
        watch(dataset, PathStates(0))
    for part, _ in parts:
        if WATCH in vars(part) and vars(part)[WATCH].tracer is None:
            own_build = vars(part).pop("build_transforms", None)
            vars(part)[WATCH].tracer = DatasetTracer(
                classifies=isinstance(part, ClassificationDataset), own_build=own_build
            )
    retrace(dataset)


def retrace(dataset: Any) -> None:
    """Trace the transforms of a data set again after somebody has put in others.

    Ultralytics' own ``close_mosaic`` needs no call.
    """
    for part, _ in parts_of(dataset):
        if WATCH in vars(part) and hasattr(part, "transforms"):
            part.transforms = _pipeline(part.transforms)


def take(batch: Any) -> tuple[Provenance, ...]:
    """Take the provenance out of a batch, before anything else looks at the batch.

    Returns:
        One for each image; none when the data set is not traced.

    Syncs: none; the batch is on the host.
    """
    noted = batch.pop(KEY, None) if isinstance(batch, dict) else None
    if noted is None:
        return ()
    images = batch.get("img")
    return tuple(_taken(made, images) for made in noted)


def _taken(made: Any, images: Any) -> Provenance:
    if isinstance(made, Provenance):
        return made
    if not isinstance(made, str):
        return unknown(images)
    # Classification: torch's own collate function, which knows plain types only.
    height, width = (int(n) for n in images.shape[-2:])
    fields = made.split(SEPARATOR)
    reads = [("image", 0, int(n), path, width, height) for n, path in zip(fields[::2], fields[1::2], strict=False)]
    recipe = NOTHING if not reads else reads[0] if len(reads) == 1 else ("unknown", *reads)
    return Provenance.of(recipe, b"", 0, (height, width))


SEPARATOR = "\0"
"""Between index and path in the note of a classification sample, and between the notes of several images."""


class DatasetTracer:
    """Notes what was read for the samples of a data set.

    Args:
        classifies: Torch's own function collates its samples, which knows plain types only.
        own_build: What somebody has put in the place of its ``build_transforms``, if anything.
    """

    def __init__(self, *, classifies: bool, own_build: Any = None) -> None:
        self.classifies, self.own_build = classifies, own_build

    def build(self, build: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """Return what the data set's own ``build`` makes, as transforms that note what they do; asked when mosaics end."""
        return _pipeline((self.own_build or build)(*args, **kwargs))

    def note_draw(self, labels: dict[str, Any], reads: Sequence[Read]) -> None:
        """Note in labels, as ``get_image_and_label`` gives them, which file they and their image are of."""
        image = labels["img"]
        own = next((read for read in reads if read.image is image), None)
        if own is None and len(reads) == 1 and _says(labels, reads[0].path):
            own = reads[0]  # it was changed after it was read
        if own is not None and own.path is not None:
            recipe = recipe_of_read(own)
            labels[KEY] = recipe if own.image.shape[:2] == image.shape[:2] else ("unknown", recipe)
            cls = labels.get("cls")
            if type(cls) is np.ndarray and cls.ndim and _says(labels, own.path):
                labels["cls"] = traced = cls.view(TracedLabels)
                traced.note = ("file", recipe[1], len(cls))
        elif own is None and len(reads) > 1:
            labels[KEY] = "unknown", *(recipe_of_read(read) for read in reads if read.path is not None)
        elif reads:
            labels[KEY] = NOTHING  # the file is not known, or the image is said to be of another one
        if DrawnRecipes.recipes is not None and KEY in labels:
            DrawnRecipes.recipes.append(labels[KEY])

    def note_sample(self, sample: dict[str, Any], read: Read) -> None:
        """Note in a classification sample which file it is of."""
        sample[KEY] = _note([read])

    def finish(self, sample: Any, reads: Sequence[Read], made: Sequence[tuple[Any, Any]]) -> Any:
        """Return a finished sample with its note, also when a class of somebody's own made it of others or by itself.

        Args:
            sample: What the data set gives.
            reads: What was read while it was made.
            made: The samples that were finished on the way, as (image, note).
        """
        if not isinstance(sample, dict) or "img" not in sample:
            return sample
        if self.classifies:
            return _classified(sample, reads)
        noted = sample.get(KEY)
        if len(made) > 1:
            own = [note for image, note in made if image is sample["img"]]
            noted = own[0] if own else joined([note for _, note in made])
        elif not isinstance(noted, (Provenance, str)):
            recipes = [recipe_of_read(read) for read in reads if read.path is not None]
            noted = Provenance.of(("unknown", *recipes), None, _boxes(sample), tuple(sample["img"].shape[-2:]))
        if noted is not sample.get(KEY):
            sample[KEY] = noted
        return sample

    def files(self, sample: Any) -> tuple[str, ...]:
        """Return the image files that a finished sample is known to be made of."""
        noted = sample.get(KEY) if isinstance(sample, dict) else None
        if isinstance(noted, str):
            return tuple(noted.split(SEPARATOR)[1::2])
        return noted.files() if isinstance(noted, Provenance) else ()


def _classified(sample: dict[str, Any], reads: Sequence[Read]) -> dict[str, Any]:
    """Return a classification sample; one that is none of those that were read may be made of all of them."""
    if len(reads) > 1 or KEY not in sample:
        own = [read for read in reads if read.image is sample["img"]]
        sample[KEY] = _note(own[:1] or reads)
    return sample


def _note(reads: Sequence[Read]) -> str:
    known = [read for read in reads if read.path is not None]
    return SEPARATOR.join(f"{read.place}{SEPARATOR}{read.path}" for read in known)


def _says(labels: dict[str, Any], path: str | None) -> bool:
    """Say whether labels are those of a file, as far as they tell."""
    return path is not None and str(labels.get("im_file", path)) == path


def _boxes(sample: dict[str, Any]) -> int:
    cls: Any = sample.get("cls")
    return len(cls) if getattr(cls, "ndim", 0) else 0


def _pipeline(transforms: Any) -> TracedPipeline:
    """Return transforms that note what they do; one of Ultralytics' own stays the same object."""
    if isinstance(transforms, TracedPipeline):
        for inner in transforms.transforms:
            follow(inner)
        return transforms
    if follow(transforms) and hasattr(transforms, "transforms"):
        transforms.__class__ = TracedPipeline
        return transforms
    return TracedPipeline([transforms])
