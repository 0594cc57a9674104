"""Checks of a call that need Ultralytics, which is imported only here: values, device and data."""

from __future__ import annotations

import glob
import os
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from .._shared.text import one_line
from ..errors import InvalidCallError, nearest
from .call import WHERE

OPTIMIZERS = ("SGD", "MuSGD", "Adam", "AdamW", "Adamax", "NAdam", "RAdam", "RMSprop", "auto")
"""What Ultralytics builds, in any case of letters; it objects only after loading model and data."""
CHOICES = {
    "mode": ("train",),
    "copy_paste_mode": ("flip", "mixup"),
    "auto_augment": ("randaugment", "augmix", "autoaugment", "none"),
    "cache": ("True", "False", "ram", "disk"),
}
"""Settings with few values, which Ultralytics refuses late or misunderstands."""
SMALLEST = 32
"""The smallest image size: the stride of most networks, to which Ultralytics silently raises smaller ones."""


def check_arguments(settings: Mapping[str, Any]) -> None:
    """Let Ultralytics check ranges and the device; its objection becomes one line.

    Raises:
        InvalidCallError: A value is out of its range, or the device is not there.
    """
    from ultralytics.cfg import get_cfg

    try:
        checked = vars(get_cfg(overrides=dict(settings)))
    except (TypeError, ValueError, SyntaxError) as error:
        raise InvalidCallError(f"{WHERE}: {one_line(error)}") from error
    _check_choices(checked)
    _check_numbers(checked)
    _check_device(settings.get("device"))


def planned_folder(settings: Mapping[str, Any]) -> Path:
    """Return the folder that a new run with these arguments would get now.

    Raises:
        InvalidCallError: There cannot be such a folder.
    """
    from ultralytics.cfg import get_cfg, get_save_dir

    try:
        return get_save_dir(get_cfg(overrides=dict(settings)))
    except (OSError, ValueError) as error:
        raise InvalidCallError(f"{WHERE}: the folder of the run cannot be made: {one_line(error)}") from error


def _check_choices(settings: Mapping[str, Any]) -> None:
    for key, allowed in CHOICES.items():
        value = settings[key]
        given = str(value).lower() if key == "cache" else str(value or "none")
        if given not in {name.lower() for name in allowed}:
            raise InvalidCallError(
                f"{WHERE}: {key}={value} is not allowed. It must be {' or '.join(allowed)}.{nearest(given, allowed)}"
            )
    optimizer_named(str(settings["optimizer"]), f"{WHERE}: optimizer=")


def optimizer_named(word: str, where: str) -> str:
    """Return Ultralytics' spelling of an optimizer.

    Raises:
        InvalidCallError: There is none; the message starts with ``where`` and the word.
    """
    names = {name.lower(): name for name in OPTIMIZERS}
    if word.lower() not in names:
        raise InvalidCallError(f"{where}{word} is not among {', '.join(OPTIMIZERS)}.{nearest(word, OPTIMIZERS)}")
    return names[word.lower()]


def _check_numbers(settings: Mapping[str, Any]) -> None:
    imgsz, batch, seed = (settings[key] for key in ("imgsz", "batch", "seed"))
    sizes = imgsz if isinstance(imgsz, (list, tuple)) else [imgsz]
    if not sizes or not all(isinstance(size, int) and size >= SMALLEST for size in sizes):
        raise InvalidCallError(
            f"{WHERE}: imgsz={imgsz} is not allowed. It must be a whole number of {SMALLEST} or more."
        )
    if not (batch == -1 or 0 < batch < 1 or (batch >= 1 and batch == int(batch))):
        raise InvalidCallError(
            f"{WHERE}: batch={batch} is not allowed. It must be a whole number of 1 or more, -1 for what fits the GPU,"
            " or a fraction of its memory between 0 and 1."
        )
    if not 0 <= seed < 2**32:
        raise InvalidCallError(f"{WHERE}: seed={seed} is not allowed. It must be between 0 and {2**32 - 1}.")


def _check_device(device: Any) -> None:
    import torch
    from ultralytics.utils.torch_utils import parse_device, select_device

    try:
        wish = parse_device("" if device is None else device)
        found = select_device(wish, verbose=False)
    except Exception as error:
        raise _no_device(device) from error
    # select_device lets pass: an idle GPU (-1) or a Mac's GPU where there is none (it takes the processor for both), and
    # devices that can run a model but not train it.
    no_idle_gpu = not wish and device not in (None, "") and not torch.cuda.is_available()
    no_mps = wish.startswith("mps") and not torch.backends.mps.is_available()
    if no_idle_gpu or no_mps or not isinstance(found, torch.device):
        raise _no_device(device)


def _no_device(device: Any) -> InvalidCallError:
    import torch

    found = [f"{torch.cuda.device_count()} CUDA or ROCm device(s)"]
    if torch.backends.mps.is_available():
        found.append("mps")
    return InvalidCallError(
        f"{WHERE}: device={device} is not there: torch {torch.__version__} sees {' and '.join(found)}."
        " Give another one, or device=cpu."
    )


def check_data(data: str, task: str, split: str = "val") -> None:
    """Let Ultralytics read the data set's description, and require images.

    Raises:
        InvalidCallError: Missing, not YAML, incomplete, without images, or of another task.
    """
    from ultralytics.data.utils import IMG_FORMATS, check_cls_dataset, check_det_dataset

    from .label_form import require_fitting_labels

    if data.startswith("ul://") or data.endswith(".ndjson"):
        return  # a list of addresses: Ultralytics downloads the images when training is set up
    try:
        found = check_cls_dataset(data, split) if task == "classify" else check_det_dataset(data, split=split)
    except Exception as error:
        raise InvalidCallError(f"{WHERE}: data set {data}: {one_line(error)}") from error
    for part in ("train", split):
        places = found.get(part)
        places = [] if places is None else places if isinstance(places, list) else [places]
        if not any(_has_image(Path(place), IMG_FORMATS) for place in places):
            looked = ", ".join(str(place) for place in places) or "no folder is given"
            mend = "" if task == "classify" else f", or correct the '{part}:' line"
            raise InvalidCallError(
                f"{WHERE}: data set {data}: no images for '{part}' (looked at: {looked}). Put images there{mend}."
            )
    require_fitting_labels(data, found, task)
    shape = found.get("kpt_shape")
    if task == "pose" and not (isinstance(shape, (list, tuple)) and len(shape) == 2 and shape[1] in (2, 3)):
        given = "is missing" if shape is None else f"is {shape!r}"
        raise InvalidCallError(
            f"{WHERE}: data set {data}: 'kpt_shape' {given}, and a pose model needs it. Write the number of keypoints and 2"
            " (x, y) or 3 (x, y, visible), such as 'kpt_shape: [17, 3]'; or give a model for another task."
        )


def _has_image(place: Path, formats: Collection[str]) -> bool:
    """Look where Ultralytics looks: below a folder, through links, or at the files that a text file lists."""
    if place.is_dir():
        files = glob.iglob(os.path.join(glob.escape(str(place)), "**", "*.*"), recursive=True)
        return any(file.rpartition(".")[-1].lower() in formats for file in files)
    if not place.is_file():
        return False
    lines = place.read_text(encoding="utf-8-sig", errors="replace").split("\n")
    paths = (place.parent / line if line.startswith("./") else Path(line) for line in map(str.strip, lines))
    return any(path.suffix[1:].lower() in formats and path.is_file() for path in paths)
