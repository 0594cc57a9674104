"""Preview: draws a training image that broke a batch, with boxes, the guilty tile, and pixels that are no colours."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from .canvas import Canvas

NOT_FINITE, HUGE = (255, 0, 255), (0, 235, 255)
"""Colours (BGR) of pixels that are NaN or infinite, and of pixels far outside 0 to 1."""
MOST_RINGS = 12


def preview(
    batch: Mapping[str, Any],
    sample: int,
    *,
    provenance: Any = None,
    tile: int | Sequence[float] | None = None,
    boxes: Sequence[int] = (),
    names: Mapping[int, str] | Sequence[str] | None = None,
    title: str = "",
) -> bytes:
    """Draw one image of a batch.

    Args:
        batch: As the model gets it: ``img`` (B, C, H, W) with any numbers, in 0 to 1 or uint8; ``bboxes`` (N, 4 or 5),
            ``cls`` and ``batch_idx`` (N) if the task has boxes; ``keypoints`` (N, K, 2 or 3); or ``cls`` (B) alone.
        sample: The position of the image.
        provenance: The image's `Provenance`, to outline and name its files.
        tile: The guilty part: the position of a source in ``provenance``, or x1, y1, x2, y2 in pixels. The rest is dimmed.
        boxes: Guilty boxes, as positions among those of this image.
        names: Of the classes; without them numbers are shown.
        title: First line of the picture; the second explains the colours used.

    Returns:
        A JPEG.

    Syncs: three reads of tensors that are not on the host.
    """
    image = batch["img"][sample].detach().float().cpu()
    if batch["img"].dtype == torch.uint8:
        image = image / 255
    finite, huge = image.isfinite(), image.abs() > 2  # augmentations go slightly outside
    bad = (~finite).any(0).numpy()
    far = (finite & huge).any(0).numpy() & ~bad
    marks = ((bad, NOT_FINITE, "not finite"), (far, HUGE, "far outside of 0 to 1"))

    canvas = Canvas(_colours(image))
    polygon, name = _guilty(provenance, tile)
    if polygon is not None:
        canvas.dim_outside(polygon)
    for mask, colour, _ in marks:
        canvas.paint(mask, colour)
    for i, source in enumerate(getattr(provenance, "sources", ())):
        if source.region is not None and len(provenance.sources) > 1 and (polygon is None or i != tile):
            canvas.outline(source.region, _base_name(source.path))
    notes = [_draw_boxes(canvas, batch, sample, set(boxes), names)]
    if polygon is not None:
        canvas.outline(polygon, name, guilty=True)
    for mask, colour, what in marks:
        if count := int(mask.sum()):
            notes.append(f"{count} pixel{'s' if count > 1 else ''} {what}")
            canvas.rings(mask, colour, MOST_RINGS)
    files = batch.get("im_file")
    file = str(files[sample]) if isinstance(files, (list, tuple)) and sample < len(files) else ""
    size = f"{image.shape[-1]} x {image.shape[-2]} px"
    if len(image) != 3:
        size += ", grey" if len(image) == 1 else f", {len(image)} channels"
    note = "  |  ".join(note for note in [size, *notes] if note)
    return canvas.jpeg(title or _base_name(file) or f"Image {sample} of the batch", note)


def _colours(image: Tensor) -> NDArray[np.uint8]:
    """Return (H, W, 3) BGR bytes of the first three channels of (C, H, W) numbers."""
    channels = image[:3] if len(image) >= 3 else image[:1].expand(3, -1, -1)
    levels = channels.nan_to_num(0, 1, 0).clamp(0, 1).mul(255).round().to(torch.uint8)
    return np.ascontiguousarray(levels.permute(1, 2, 0).numpy()[..., ::-1])


def _guilty(provenance: Any, tile: int | Sequence[float] | None) -> tuple[Sequence[tuple[float, float]] | None, str]:
    """Return the outline and the name of the guilty part, if known."""
    if tile is None:
        return None, ""
    if isinstance(tile, int):
        sources = getattr(provenance, "sources", ())
        if not 0 <= tile < len(sources) or sources[tile].region is None:
            return None, ""
        return sources[tile].region, _base_name(sources[tile].path)
    x1, y1, x2, y2 = (float(v) for v in tile)
    return [(x1, y1), (x2, y1), (x2, y2), (x1, y2)], ""


def _draw_boxes(canvas: Canvas, batch: Mapping[str, Any], sample: int, guilty: set[int], names: Any) -> str:
    """Draw the boxes and points of an image; return their number, or what cannot be drawn, in words."""
    classes, boxes, owner = (batch.get(key) for key in ("cls", "bboxes", "batch_idx"))
    if not isinstance(classes, Tensor):
        return ""
    if not isinstance(boxes, Tensor) or not isinstance(owner, Tensor):
        return f"class {_class(classes.reshape(-1)[sample], names)}" if sample < classes.numel() else ""
    mine = (owner.reshape(-1) == sample).cpu()
    boxes, classes = boxes.detach().float().cpu()[mine], classes.detach().float().cpu().reshape(-1)[mine]
    points = batch.get("keypoints")
    points = points.detach().float().cpu()[mine] if isinstance(points, Tensor) and len(points) == len(mine) else None
    strange = 0
    order = sorted(range(len(boxes)), key=lambda i: i in guilty)  # the guilty ones on top
    for i in order:
        number = classes[i]
        if not bool(boxes[i].isfinite().all()) or boxes.shape[1] < 4:
            strange += 1
            continue
        label = _class(number, names)
        canvas.box(_corners(boxes[i], canvas.width, canvas.height), label, _index(number), guilty=i in guilty)
        if points is not None:
            canvas.points(_visible(points[i], canvas.width, canvas.height), _index(number))
    count = f"{len(boxes)} box{'es' if len(boxes) != 1 else ''}"
    return f"{count}, {strange} of them not finite" if strange else count


def _corners(box: Tensor, width: int, height: int) -> NDArray[np.float64]:
    """Return the (4, 2) corners in pixels of a box: centre and size as shares of the image, and an angle in radians."""
    x, y, w, h = (box[:4].double() * torch.tensor([width, height, width, height])).tolist()
    angle = float(box[4]) if len(box) > 4 else 0.0
    half = np.array([[-w, -h], [w, -h], [w, h], [-w, h]]) / 2
    turn = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
    return half @ turn + [x, y]


def _visible(points: Tensor, width: int, height: int) -> NDArray[np.float64]:
    seen = points[:, :2].isfinite().all(1) & ((points[:, 2] > 0) if points.shape[1] > 2 else (points != 0).any(1))
    return points[seen][:, :2].double().numpy() * [width, height]


def _index(number: Tensor) -> int:
    return int(number) if bool(number.isfinite()) and abs(float(number)) < 1e9 else -1


def _class(number: Tensor, names: Any) -> str:
    """Return the name of a class, or its number if it has none."""
    index = _index(number)
    if index < 0 or float(number) != index:
        return f"{float(number):g}"
    found = names.get(index) if isinstance(names, Mapping) else None
    if isinstance(names, Sequence) and index < len(names):
        found = names[index]
    return str(index if found is None else found)


def _base_name(path: str) -> str:
    return str(path).replace("\\", "/").rsplit("/", 1)[-1]
