"""Traced transforms: Ultralytics' augmentations with a note of what each did to the image.

:func:`follow` gives each object of a pipeline the class that notes. Its attributes stay, and no random number is drawn. The notes
are recipes (``geometry.py``), which go along with the labels of an image under :data:`KEY`.
"""

from __future__ import annotations

from functools import partial
from itertools import count
from typing import Any

import numpy as np
from ultralytics.data import augment

from .geometry import NOTHING, Recipe
from .labels import TracedLabels, codes_of, note_of, rows_of, with_rows
from .reading import SAMPLE, Read
from .recipe import ROW_BITS, Provenance

KEY = "provenance"
"""Where the recipe is while an image is made, and its :class:`Provenance` in the finished sample."""
SERIALS = count()
"""Numbers of uses of files and of pasted objects, never the same in one process."""


class DrawnRecipes:
    """The recipes of files that are read while an unknown transform works; None while none does."""

    recipes: list[Recipe] | None = None


def recipe_of_read(read: Read) -> Recipe:
    """Return the recipe of an image whose file is known."""
    height, width = read.image.shape[:2]
    return "image", next(SERIALS), read.place, read.path, width, height


def recipe_of(labels: dict[str, Any]) -> Recipe:
    """Return how an image was put together so far."""
    return labels.get(KEY, NOTHING)


def _size(labels: dict[str, Any]) -> tuple[int, int]:
    """Return width and height of an image that is no tensor yet."""
    return labels["img"].shape[1::-1]


class TracedMosaic(augment.Mosaic):
    """Notes where each tile lies."""

    def apply_image(self, labels: dict[str, Any], params: Any = None) -> dict[str, Any]:
        """Note the layout."""
        if self.n == 4:
            tiles = tuple(
                (t["labels_patch"].get(KEY, NOTHING), t["padw"], t["padh"], t["x1a"], t["y1a"], t["x2a"], t["y2a"])
                for t in params["layout"]
            )
        else:  # nine tiles are put on a larger canvas, whose border is cut off
            dy, dx = self.border
            tiles = tuple(
                (
                    recipe_of(t["labels_patch"]),
                    t["padw"] + dx,
                    t["padh"] + dy,
                    max(t["x1"] + dx, 0),
                    max(t["y1"] + dy, 0),
                    min(t["x2"] + dx, self.imgsz * 2),
                    min(t["y2"] + dy, self.imgsz * 2),
                )
                for t in params["layout"]
            )
        labels = super().apply_image(labels, params)
        labels[KEY] = ("mosaic", tiles)
        return labels


class TracedMixUp(augment.MixUp):
    """Notes the second image."""

    def apply_image(self, labels: dict[str, Any], params: Any = None) -> dict[str, Any]:
        """Note it."""
        labels = super().apply_image(labels, params)
        labels[KEY] = ("mixup", recipe_of(labels), recipe_of(labels["mix_labels"][0]))
        return labels


class TracedCutMix(augment.CutMix):
    """Notes the second image and the rectangle that it fills."""

    def apply_image(self, labels: dict[str, Any], params: Any = None) -> dict[str, Any]:
        """Note both, if one was found that can be used."""
        labels = super().apply_image(labels, params)
        if not params.get("skip"):
            rectangle = params["area"].astype(np.int32).tolist()
            labels[KEY] = ("cutmix", recipe_of(labels), recipe_of(labels["mix_labels"][0]), *rectangle)
        return labels


class TracedPerspective(augment.RandomPerspective):
    """Notes the matrix."""

    def apply_image(self, labels: dict[str, Any], params: Any = None) -> dict[str, Any]:
        """Note it, and the size that comes out."""
        labels = super().apply_image(labels, params)
        labels[KEY] = ("warp", recipe_of(labels), params["M"].ravel().tolist(), *_size(labels))
        return labels


class TracedFlip(augment.RandomFlip):
    """Notes whether it did."""

    def apply_image(self, labels: dict[str, Any], params: dict[str, Any]) -> dict[str, Any]:
        """Note it."""
        labels = super().apply_image(labels, params)
        if params["flip"]:
            axis = 1 if params["direction"] == "vertical" else 0
            labels[KEY] = ("mirror", recipe_of(labels), axis, _size(labels)[axis])
        return labels


class TracedLetterBox(augment.LetterBox):
    """Notes scale and place."""

    def apply_image(self, labels: dict[str, Any], params: dict[str, Any]) -> dict[str, Any]:
        """Note them."""
        width, height = _size(labels)
        labels = super().apply_image(labels, params)
        if KEY in labels:  # it is also called with an image alone
            new_width, new_height = params["new_unpad"]
            scale = new_width / width, new_height / height
            labels[KEY] = ("letterbox", labels[KEY], *scale, params["left"], params["top"], *_size(labels))
        return labels


class TracedCopyPaste(augment.CopyPaste):
    """Notes the objects that were pasted, and gives their label rows serials of their own."""

    def apply_instances(self, labels: dict[str, Any], params: Any = None) -> dict[str, Any]:
        """Note each object."""
        labels = super().apply_instances(labels, params)
        selected = params["selected"]
        if not len(selected):
            return labels
        below = recipe_of(labels)
        mirrored = "mirror", below, 0, _size(labels)[0]
        above = recipe_of(labels["mix_labels"][0]) if self.mode == "mixup" else mirrored
        rows = rows_of(labels["cls"]).copy()
        first, objects = len(rows) - len(selected), []
        for n, chosen in enumerate(selected, start=first):
            serial, row = next(SERIALS), int(rows[n])
            objects.append((serial, row >> ROW_BITS, _contour(params["instances2"].segments[chosen])))
            if row >= 0:
                rows[n] = serial << ROW_BITS | row & ((1 << ROW_BITS) - 1)
        if isinstance(labels["cls"], TracedLabels):
            labels["cls"].note = ("rows", rows)
        labels[KEY] = ("paste", below, above, tuple(objects))
        return labels


def _contour(segment: np.ndarray) -> bytes:
    """Return the pixels that a polygon was drawn through, each once in a row."""
    points = segment.astype(np.int32)
    new = (points != np.roll(points, 1, axis=0)).any(axis=1)
    return points[new].tobytes()


class TracedAlbumentations(augment.Albumentations):
    """Notes that nobody knows where the pixels are, when it may have moved any."""

    def __call__(self, labels: dict[str, Any]) -> dict[str, Any]:
        """Look at whether it did anything."""
        before = labels["img"]
        labels = super().__call__(labels)
        if getattr(self, "contains_spatial", False) and labels["img"] is not before:
            labels[KEY] = ("unknown", recipe_of(labels))
        return labels


class TracedLoadText(augment.RandomLoadText):
    """Keeps the rows of the labels that it chooses: it makes a new array for them."""

    def get_params(self, labels: dict[str, Any]) -> dict[str, Any]:
        """Remember the rows before it takes the labels away."""
        rows = rows_of(labels["cls"])
        return {**super().get_params(labels), "rows": rows}

    def apply_instances(self, labels: dict[str, Any], params: dict[str, Any]) -> dict[str, Any]:
        """Put the chosen ones back."""
        labels = super().apply_instances(labels, params)
        labels["cls"] = with_rows(labels["cls"], params["rows"][params["valid_idx"]])
        return labels


class _TracedRows:
    """Notes the row behind each box, where labels become tensors."""

    def _format_segments(self, instances: Any, cls: Any, w: int, h: int) -> Any:
        out = super()._format_segments(instances, cls, w, h)  # pyright: ignore[reportAttributeAccessIssue]
        if isinstance(cls, TracedLabels):
            cls.note = note_of(out[2])  # it has put them into another order, in an array that only it sees
        return out

    def apply_instances(self, labels: dict[str, Any], params: Any = None) -> dict[str, Any]:
        labels = super().apply_instances(labels, params)  # pyright: ignore[reportAttributeAccessIssue]
        if "cls" in labels:
            labels[KEY] = ("boxes", recipe_of(labels), partial(codes_of, note_of(params["cls"])))
        return labels


class TracedFormat(_TracedRows, augment.Format):
    """See :class:`_TracedRows`."""


class TracedSemanticFormat(_TracedRows, augment.SemanticFormat):
    """The same; it leaves no boxes."""


class TracedDepthFormat(_TracedRows, augment.DepthFormat):
    """The same; it leaves no boxes."""


class TracedCompose(augment.Compose):
    """Takes care of unknown transforms."""

    def __call__(self, data: Any) -> Any:
        """Apply them one after the other."""
        for transform in self.transforms:
            known = type(transform) in FOLLOWED or follow(transform)
            data = transform(data) if known else _around(transform, data)
        return data


class TracedPipeline(TracedCompose):
    """The whole pipeline of a data set: at its end each sample gets its provenance."""

    def __call__(self, data: Any) -> Any:
        """Make a sample."""
        sample = super().__call__(data)
        if isinstance(sample, dict):
            sample[KEY] = made = _finished(sample)
            if SAMPLE.depth:
                SAMPLE.made.append((sample["img"], made))
        return sample


def _around(transform: Any, data: Any) -> Any:
    """Apply an unknown transform: what went in stays known, but not where it is."""
    before = recipe_of(data) if isinstance(data, dict) else NOTHING
    outer, DrawnRecipes.recipes = DrawnRecipes.recipes, []
    begin = len(SAMPLE.reads)
    try:
        data = transform(data)
    finally:
        drawn, DrawnRecipes.recipes = DrawnRecipes.recipes, outer
    known = {recipe[3] for recipe in drawn if recipe[0] == "image"}
    beside = [read for read in SAMPLE.reads[begin:] if read.path is not None and read.path not in known]
    drawn += map(recipe_of_read, beside)  # it has read images without their labels
    if outer is not None:
        outer += drawn
    if isinstance(data, dict):
        # Known transforms may be inside: what they noted has all files in it, unless others were read beside them.
        followed = KEY in data and data[KEY] is not before and not drawn
        data[KEY] = ("unknown", data[KEY]) if followed else ("unknown", before, *drawn)
    return data


def _finished(sample: dict[str, Any]) -> Provenance:
    recipe, codes = recipe_of(sample), None
    if recipe[0] == "boxes":
        _, recipe, codes = recipe
    boxes = sample["cls"].shape[0] if "cls" in sample else 0
    _, height, width = sample["img"].shape
    return Provenance.of(recipe, codes, boxes, (height, width))


TRACED = {
    augment.Mosaic: TracedMosaic,
    augment.MixUp: TracedMixUp,
    augment.CutMix: TracedCutMix,
    augment.CopyPaste: TracedCopyPaste,
    augment.RandomPerspective: TracedPerspective,
    augment.RandomFlip: TracedFlip,
    augment.LetterBox: TracedLetterBox,
    augment.Albumentations: TracedAlbumentations,
    augment.RandomLoadText: TracedLoadText,
    augment.Format: TracedFormat,
    augment.SemanticFormat: TracedSemanticFormat,
    augment.DepthFormat: TracedDepthFormat,
    augment.Compose: TracedCompose,
}
"""Of exactly these classes; what a class derived from one does to an image cannot be known."""
FOLLOWED = {*TRACED.values(), TracedPipeline, augment.RandomHSV, augment.LoadVisualPrompt}  # these two move no pixel


def follow(transform: Any) -> bool:
    """Give a transform, and all in it, the class that notes what it does; say whether it is known. An unknown one stays."""
    if type(transform) in TRACED:
        transform.__class__ = TRACED[type(transform)]
    if type(transform) not in FOLLOWED:
        return False
    for inner in (*getattr(transform, "transforms", ()), getattr(transform, "pre_transform", None)):
        if inner is not None:
            follow(inner)
    return True
