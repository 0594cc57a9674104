"""Label filter: finds labels that no loss can use, on the host, before the batch goes to the device.

Ultralytics checks label files when it scans a data set, not what its augmentations, a cache or the memory have made of them
since. A class out of range, also in a mask, then ends the process inside the loss (on CUDA with an assertion that takes the
device with it), and a box that is not finite is passed over in silence. A depth that is not finite makes the loss so, which the
guard reads anyway.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ..autopsy.batch_case import IGNORED, classes_of_mask


def disarm(batch: dict[str, Any], classes: int) -> str:
    """Find unusable labels, and make them harmless so that the forward pass completes.

    Args:
        batch: A batch of Ultralytics' as its loader made it; ``cls`` of any shape, ``bboxes`` (boxes, 4 or 5),
            ``semantic_mask`` (B, H, W). A bad class and a bad box value become 0, a bad class in a mask one that is ignored, in
            tensors that take the place of the loader's.
        classes: Number of classes; valid ones are 0 to ``classes - 1``.

    Returns:
        What was wrong, for the rejection of the batch; empty when nothing was.

    Syncs: none; tensors that are already on a device are left alone, and labels on the host are read once.

    Examples:
        >>> batch = {"cls": torch.tensor([[1.0], [7.0]]), "bboxes": torch.tensor([[0.5, 0.5, float("nan"), 0.1]])}
        >>> disarm(batch, classes=3)
        'label class 7 not in 0..2, label box not finite'
        >>> batch["cls"].flatten().tolist()
        [1.0, 0.0]
        >>> disarm(batch, classes=3)
        ''
    """
    cls, boxes = _on_host(batch.get("cls")), _on_host(batch.get("bboxes"))
    good_cls = None if cls is None else (cls >= 0) & (cls < classes)  # NaN is neither
    good_boxes = None if boxes is None else boxes.isfinite()
    good = [mask.all() for mask in (good_cls, good_boxes) if mask is not None]
    in_mask = _disarm_mask(batch, classes)
    if not good or bool(torch.stack(good).all()):
        return in_mask

    wrong = [in_mask] if in_mask else []
    if cls is not None and good_cls is not None and not bool(good_cls.all()):
        wrong.append(f"label class {cls[~good_cls][0].item():g} not in 0..{classes - 1}")
        batch["cls"] = cls.masked_fill(~good_cls, 0)  # a new tensor: the loader may serve its own again
    if boxes is not None and good_boxes is not None and not bool(good_boxes.all()):
        wrong.append("label box not finite")
        batch["bboxes"] = boxes.masked_fill(~good_boxes, 0)
    return ", ".join(wrong)


def _disarm_mask(batch: dict[str, Any], classes: int) -> str:
    mask = _on_host(batch.get("semantic_mask"))
    if mask is None or not mask.numel():
        return ""
    if (
        mask.dtype == torch.uint8 and classes < IGNORED - 127
    ):  # one pass in which what is ignored is -1: 0.1 ms a megapixel
        lowest, highest = torch.aminmax(mask.view(torch.int8))
        if int(lowest) >= -1 and int(highest) < classes:
            return ""
    bad = ~classes_of_mask(mask, classes)
    if not bool(bad.any()):
        return ""
    batch["semantic_mask"] = mask.masked_fill(bad, IGNORED)
    return f"mask label of class {mask[bad][0].item():g} not in 0..{max(classes, 2) - 1}"


def _on_host(value: Any) -> Tensor | None:
    return value if isinstance(value, Tensor) and value.device.type == "cpu" else None
