"""Batch case: one of Ultralytics' batches, of any task, that can be cut down and changed."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ..errors import InvalidCallError
from .case import GREY, Forward, Polygon, widened

BY_LABEL = ("cls", "bboxes", "batch_idx", "keypoints", "segments", "obb")
"""Entries with a row per label; all others with as many rows as images have one per image."""
IGNORED = 255
"""Class of the pixels of a mask that no loss counts."""
MAX_BOX = 1e3
"""A box coordinate beyond this magnitude is absurd: it is a share of the image's size, or radians."""


class BatchCase:
    """One batch as Ultralytics' trainers pass it to their models.

    Args:
        model: The network, in the state before the batch.
        batch: ``img`` (B, C, H, W) float in [0, 1] (classification: normalised) and ``cls``; for boxes ``bboxes`` (N, 4 or 5)
            and ``batch_idx`` (N,); where the task has them ``masks`` ((B, H, W) of indices from 1, or (N, H, W)), ``keypoints``,
            ``sem_masks``, or a value for each pixel: ``semantic_mask`` (B, H, W) of classes, ``depth`` (B, H, W); lists such as
            ``im_file`` with one entry per image. It is never changed.
        forward: See :data:`~.case.Forward`.
        classes: Number of classes; None: no class is too high.
        overlap: Whether ``masks`` holds indices per image; None: as ``model.args.overlap_mask`` says, else by the shape.
        limit: Pixels beyond this magnitude are absurd.

    Raises:
        InvalidCallError: There is no ``img`` with samples in it.
    """

    def __init__(
        self,
        model: nn.Module,
        batch: Mapping[str, Any],
        forward: Forward,
        *,
        classes: int | None = None,
        overlap: bool | None = None,
        limit: float = 1e3,
    ) -> None:
        images = batch.get("img")
        if not (isinstance(images, Tensor) and images.ndim == 4 and len(images)):
            raise InvalidCallError(
                "A batch needs 'img', a tensor (samples, channels, height, width) with samples in it."
            )
        self.model, self.batch, self.forward, self.limit, self.classes = model, dict(batch), forward, limit, classes
        self.maps = {key: batch[key] for key in ("semantic_mask", "depth") if isinstance(batch.get(key), Tensor)}
        """Labels with a value for each pixel, which are all that the loss reads."""
        self.boxed = isinstance(batch.get("batch_idx"), Tensor) and not self.maps
        """Whether labels are rows with the number of an image, rather than one label per image."""
        self.overlap = self._overlap() if overlap is None else overlap

    @property
    def size(self) -> int:
        """How many images there are."""
        return len(self.batch["img"])

    @property
    def images(self) -> Tensor:
        """The pixels."""
        return self.batch["img"]

    def call(self, precision: str | None = None, model: nn.Module | None = None) -> tuple[Tensor, Mapping[str, Any]]:
        """Run the forward pass and the loss on a copy that the trainer's code may change."""
        with widened(model or self.model, dict(self.batch), precision) as (network, batch):
            return self.forward(network, batch, precision)

    def select(self, samples: Sequence[int]) -> BatchCase:
        """Return a case of these images, with renumbered labels."""
        rows: list[int] = []
        owners: list[int] = []
        for position, sample in enumerate(samples):
            own = self.rows_of(sample)
            rows += own
            owners += [position] * len(own)
        batch: dict[str, Any] = {}
        for key, value in self.batch.items():
            if self._is_by_label(key, value):
                batch[key] = _take(value, rows)
            elif self._is_by_image(value):
                batch[key] = _take(value, samples)
            else:
                batch[key] = value
        if self.boxed:
            old = self.batch["batch_idx"]
            batch["batch_idx"] = torch.as_tensor(owners, device=old.device).to(old.dtype).view(-1, *old.shape[1:])
        return self._with(batch)

    def blank(self, sample: int, polygon: Polygon | None, rows: Iterable[int] | None = None) -> BatchCase:
        """Return a case with a part of one image grey, without its labels.

        Args:
            sample: Which image.
            polygon: The part, in pixels of ``img``; None: all of it.
            rows: Label rows to remove; None: those with their box centre in it.
        """
        images = self.batch["img"].clone()
        inside = _raster(polygon, images.shape[-2], images.shape[-1]).to(images.device)
        images[sample, :, inside] = GREY
        case = self._with({**self.batch, "img": images})
        return case.without_labels(self._rows_inside(sample, inside) if rows is None else rows)

    def without_labels(self, rows: Iterable[int]) -> BatchCase:
        """Return a case without these label rows; the class of a whole image cannot be removed."""
        gone = set(rows)
        if not self.boxed or not gone:
            return self
        count = len(self.batch["batch_idx"])
        kept = [row for row in range(count) if row not in gone]
        batch = {k: _take(v, kept) if self._is_by_label(k, v) else v for k, v in self.batch.items()}
        if self.overlap and isinstance(masks := self.batch.get("masks"), Tensor):
            batch["masks"] = self._renumbered(masks, gone)
        return self._with(batch)

    def rows_of(self, sample: int) -> tuple[int, ...]:
        """Return the label rows of an image, in the order of the batch; none for a classification."""
        if not self.boxed:
            return ()
        return tuple((self.batch["batch_idx"].view(-1) == sample).nonzero().flatten().tolist())

    def label_faults(self) -> dict[int, str]:
        """Return what is wrong with the labels themselves, by row; for a classification, and for maps, by image.

        Syncs: a few reads.
        """
        wrong: dict[int, str] = {sample: what for sample, (what, _) in self.map_faults().items()}
        if self.maps:
            return wrong
        cls, boxes, points = (self.batch.get(key) for key in ("cls", "bboxes", "keypoints"))
        if isinstance(cls, Tensor) and cls.numel():
            values = cls.reshape(len(cls), -1)
            good = (values >= 0) & (values < (torch.inf if self.classes is None else self.classes))  # NaN is neither
            for row in _rows_with(~good):
                upto = "" if self.classes is None else f" not in 0..{self.classes - 1}"
                wrong[row] = f"class {values[row, 0].item():g}{upto or ' is no class'}"
        owners = self.batch.get("batch_idx")
        if isinstance(owners, Tensor) and owners.numel():
            numbers = owners.reshape(len(owners), -1)
            for row in _rows_with(~((numbers >= 0) & (numbers < self.size))):  # NaN is neither
                wrong.setdefault(row, f"image number {numbers[row, 0].item():g} not in 0..{self.size - 1}")
        for value, name, most in ((boxes, "box", MAX_BOX), (points, "keypoint", None)):
            if isinstance(value, Tensor) and value.numel() and value.is_floating_point():
                for row in _rows_with(~value.isfinite()):
                    wrong.setdefault(row, f"{name} not finite")
                if most is not None:
                    for row in _rows_with(value.abs() > most):
                        wrong.setdefault(row, f"{name} of {value[row].abs().max().item():.3g}")
        return wrong

    def map_faults(self) -> dict[int, tuple[str, Tensor]]:
        """Return what is wrong with labels that have a value for each pixel, by image, and where: bool (height, width).

        Syncs: one read for each kind if all is well.
        """
        wrong: dict[int, tuple[str, Tensor]] = {}
        for key, values in self.maps.items():
            good = values.isfinite() if key == "depth" else classes_of_mask(values, self.classes)
            for sample in _rows_with(~good):
                bad = ~good[sample]
                what = f"mask label of class {values[sample][bad][0].item():g}"
                if self.classes is not None:
                    what += f" not in 0..{max(self.classes, 2) - 1}"
                wrong[sample] = "depth label not finite" if key == "depth" else what, bad.reshape(bad.shape[-2:])
        return wrong

    def path(self, sample: int) -> str:
        """Return the file that an image came from, or an empty string."""
        files = self.batch.get("im_file", ())
        return str(files[sample]) if sample < len(files) else ""

    def _with(self, batch: Mapping[str, Any]) -> BatchCase:
        return BatchCase(self.model, batch, self.forward, classes=self.classes, overlap=self.overlap, limit=self.limit)

    def _is_by_label(self, key: str, value: Any) -> bool:
        return self.boxed and isinstance(value, Tensor) and (key in BY_LABEL or (key == "masks" and not self.overlap))

    def _is_by_image(self, value: Any) -> bool:
        if isinstance(value, Tensor):
            return value.ndim > 0 and len(value) == self.size
        return isinstance(value, (list, tuple)) and len(value) == self.size

    def _overlap(self) -> bool:
        masks = self.batch.get("masks")
        if not isinstance(masks, Tensor) or not self.boxed:
            return True
        said = getattr(getattr(self.model, "args", None), "overlap_mask", None)
        labels = len(self.batch["batch_idx"])
        if len(masks) == self.size == labels:  # the shapes do not tell; with one label per image there is no difference
            return bool(said) if said is not None else bool((masks > 1).any())
        return len(masks) == self.size

    def _rows_inside(self, sample: int, inside: Tensor) -> list[int]:
        rows, boxes = self.rows_of(sample), self.batch.get("bboxes")
        if not rows or not isinstance(boxes, Tensor):
            return []
        h, w = inside.shape
        centres = boxes[list(rows), :2].detach().double().nan_to_num(0.5).cpu()
        x = (centres[:, 0] * w).long().clamp(0, w - 1)
        y = (centres[:, 1] * h).long().clamp(0, h - 1)
        hit = inside.cpu()[y, x].tolist()
        return [row for row, is_in in zip(rows, hit, strict=True) if is_in]

    def _renumbered(self, masks: Tensor, gone: set[int]) -> Tensor:
        """Return masks of indices with removed labels as background and the others renumbered without gaps."""
        masks = masks.clone()
        for sample in range(self.size):
            rows = self.rows_of(sample)
            if gone.isdisjoint(rows):
                continue
            kept = [row not in gone for row in rows]
            numbers = [0, *(n if keep else 0 for n, keep in zip(np.cumsum(kept).tolist(), kept, strict=True))]
            table = torch.as_tensor(numbers, device=masks.device)
            masks[sample] = table[masks[sample].long().clamp(0, len(rows))].to(masks.dtype)
        return masks


def classes_of_mask(mask: Tensor, classes: int | None) -> Tensor:
    """Return which pixels have a class that a loss can use; of one class, a mask has 0 and 1.

    Args:
        mask: Class ids, (B, H, W).
        classes: How many there are; None: any.
    """
    return ((mask >= 0) & (mask < (torch.inf if classes is None else max(classes, 2)))) | (mask == IGNORED)


def _take(value: Any, rows: Sequence[int]) -> Any:
    if isinstance(value, Tensor):
        return value[torch.as_tensor(list(rows), dtype=torch.long, device=value.device)]
    return type(value)([value[row] for row in rows])


def _rows_with(bad: Tensor) -> list[int]:
    return bad.reshape(len(bad), -1).any(1).nonzero().flatten().tolist()


def _raster(polygon: Polygon | None, height: int, width: int) -> Tensor:
    """Return the pixels with their centre in a polygon, bool (height, width), by counting the edges to the right of each."""
    if polygon is None:
        return torch.ones(height, width, dtype=torch.bool)
    y, x = np.arange(height)[:, None] + 0.5, np.arange(width)[None, :] + 0.5
    inside = np.zeros((height, width), dtype=bool)
    for (x1, y1), (x2, y2) in zip(polygon, [*polygon[1:], polygon[0]], strict=True):
        if y1 != y2:
            inside ^= ((y1 <= y) != (y2 <= y)) & (x < x1 + (y - y1) * (x2 - x1) / (y2 - y1))
    return torch.from_numpy(inside)
