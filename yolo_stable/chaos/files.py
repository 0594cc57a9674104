"""File fault: one image file, or one row of its labels, that is broken whenever it is drawn, through all augmentations.

The pixels of a file are found without following the augmentations: the sample is made twice from the same random numbers, once
with the file's pixels changed, and the pixels that differ are the file's. A row of the labels temporarily gets a class that no
other row has. This works for mosaic, mixup, cutmix and copy-paste, and does not depend on any other record of the files.

Ultralytics' images have 8 bits, so an image file cannot give NaN. A ``.npy`` of floats beside an image is read as it is, but the
canvases of mosaic and mixup cast it to 8 bits, and the colour augmentation fails on it; without these it reaches training. This
fault stands for a broken decoder, cache or custom transform.
"""

from __future__ import annotations

import copy
import random
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..errors import InvalidCallError, nearest
from .armed import NAN, Armed, Truth
from .layers import MARK
from .loop import named

KINDS = ("image", "mark", "box", "class")
TAG = 1_000_003.0
"""A class that no data set has, and that float32 holds."""


@dataclass(frozen=True, slots=True)
class FileFault:
    """One file of a data set is broken in every training image that it is part of.

    Args:
        file: Its path, or the end of it.
        kind: ``image`` (all its pixels become ``value``), ``mark`` (they become the mark of layer faults), ``box`` (width and
            height of one label become ``value``), ``class`` (the class of one label becomes ``value``).
        value: NaN, an infinity or any number; of pixels on the scale 0 to 255, of boxes relative to the image.
        row: Of the file's labels as Ultralytics read them, from 0.

    Raises:
        InvalidCallError: An unknown kind, or a negative row.
    """

    file: str
    kind: str = "image"
    value: float = NAN
    row: int = 0

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise InvalidCallError(
                f"There is no kind {self.kind!r} of file fault: {', '.join(KINDS)}.{nearest(self.kind, KINDS)}"
            )
        if self.row < 0:
            raise InvalidCallError(f"Rows of labels are counted from 0: row={self.row}.")

    @property
    def place(self) -> str:
        """``file_image``, ``file_mark``, ``file_box`` or ``file_class``."""
        return f"file_{self.kind}"

    @property
    def at(self) -> tuple[int, ...]:
        """None: it fires when the file is drawn."""
        return ()

    @property
    def since(self) -> int:
        """From the first batch on."""
        return 0

    @property
    def truth(self) -> Truth:
        """The data; the fault knows file and row."""
        return Truth("data", "", "", "", "data")

    def on(self, base: type) -> Any:
        """Return a subclass of a trainer's class with this fault in its training data.

        ``chaos.fired`` counts the broken images or rows that reached a batch, also from loader workers.
        """
        armed, fault = Armed(self), self

        class Faulty(base):  # type: ignore[misc, valid-type]
            chaos = armed

            def build_dataset(self, img_path: str, mode: str = "train", batch: int | None = None) -> Any:
                dataset = super().build_dataset(img_path, mode, batch)
                if mode == "train":
                    fault._put(dataset, Armed(fault))
                return dataset

            def preprocess_batch(self, batch: dict[str, Any]) -> dict[str, Any]:
                armed.begin_batch()
                armed.fired += fault._count(batch)
                return super().preprocess_batch(batch)

        Faulty.__name__ = Faulty.__qualname__ = named(base, self.place)
        return Faulty

    @contextmanager
    def install(self, dataset: Any) -> Iterator[Armed]:
        """Break the file in a data set for a time; labels and files stay unchanged.

        Yields:
            The armed fault; ``fired`` counts its samples in this process.

        Raises:
            InvalidCallError: The data set has no such file or row, or several files match.
        """
        armed = Armed(self)
        kind = type(dataset)
        self._put(dataset, armed)
        try:
            yield armed
        finally:
            dataset.__class__ = kind
            del dataset.__dict__["_chaos"]

    def _put(self, dataset: Any, armed: Armed) -> None:
        index = self._index(dataset)
        if self.kind in {"box", "class"} and self.row >= len(dataset.labels[index]["cls"]):
            raise InvalidCallError(
                f"{self.file} has {len(dataset.labels[index]['cls'])} labels, counted from 0: there is no row {self.row}."
            )
        vars(dataset)["_chaos"] = _Broken(self, index, armed)
        dataset.__class__ = _with_broken_file(type(dataset))

    def _index(self, dataset: Any) -> int:
        files = getattr(dataset, "im_files", None) or [sample[0] for sample in getattr(dataset, "samples", ())]
        wanted = Path(self.file).parts
        found = [i for i, file in enumerate(files) if Path(file).parts[-len(wanted) :] == wanted]
        if len(found) != 1:
            hint = nearest(Path(self.file).name, {Path(file).name for file in files}) if not found else ""
            raise InvalidCallError(f"{len(found)} files of the training data end with {self.file!r}, not one.{hint}")
        return found[0]

    def _count(self, batch: dict[str, Any]) -> int:
        if self.kind in {"image", "mark"}:
            images = batch["img"]
            if not images.is_floating_point():  # a broken sample becomes floating point
                return 0
            value = self._pixel(1.0 if "bboxes" not in batch and "semantic_mask" not in batch else 255.0)
            return int(_equal(images, value).flatten(1).any(1).sum())
        labels = batch["bboxes"][:, 2:4] if self.kind == "box" else batch["cls"].flatten(1)
        return int(_equal(labels, self.value).all(1).sum())

    def _pixel(self, white: float) -> float:
        return MARK * white if self.kind == "mark" else self.value if white == 255.0 else self.value / 255

    def _spoil(self, sample: dict[str, Any], part: Tensor | None) -> None:
        if part is None:  # a file that is a whole sample, as in classification, where white is 1
            sample["img"] = torch.full_like(sample["img"], self._pixel(1.0))
        else:
            sample["img"] = sample["img"].float().masked_fill(part, self._pixel(255.0))


class _Broken:
    """Replaces ``__getitem__`` and ``load_image`` of a data set with a broken file."""

    def __init__(self, fault: FileFault, index: int, armed: Armed) -> None:
        self.fault, self.index, self.armed = fault, index, armed
        self.drawn = self.changed = False

    def image(self, index: int, loaded: tuple[Any, ...]) -> tuple[Any, ...]:
        """Return a loaded image; in the second pass the broken file in other colours."""
        if index != self.index:
            return loaded
        self.drawn = True
        if not self.changed:
            return loaded
        return np.where(loaded[0] < 128, 255, 0).astype(loaded[0].dtype), *loaded[1:]

    def sample(self, dataset: Any, index: int, make: Any) -> dict[str, Any]:
        """Return a sample with the file's part of it broken."""
        if self.fault.kind in {"box", "class"}:
            return self._with_label(dataset, index, make)
        if not hasattr(dataset, "load_image"):
            sample = make(index)
            if index == self.index:
                self.fault._spoil(sample, None)
                self.armed.fired += 1
            return sample
        before, transforms = _state(dataset), copy.deepcopy(dataset.transforms, {id(dataset): dataset})
        self.drawn = False
        sample = make(index)
        if self.drawn:
            after, own = _state(dataset), dataset.transforms
            self.changed, dataset.transforms = True, transforms
            _restore(dataset, before)
            try:
                other = make(index)
            finally:
                self.changed, dataset.transforms = False, own
                _restore(dataset, after)
            part = (sample["img"] != other["img"]).any(0)
            if bool(part.any()):  # else it was drawn, but covered or cut off
                self.fault._spoil(sample, part)
                self.armed.fired += 1
        return sample

    def _with_label(self, dataset: Any, index: int, make: Any) -> dict[str, Any]:
        classes = dataset.labels[self.index]["cls"]
        own = classes[self.fault.row].copy()
        try:
            classes[self.fault.row] = TAG
            sample = make(index)
        finally:
            classes[self.fault.row] = own
        hit = (sample["cls"] == TAG).flatten()
        sample["cls"][hit] = torch.as_tensor(own).to(sample["cls"].dtype)
        if bool(hit.any()):
            if self.fault.kind == "class":
                sample["cls"][hit] = self.fault.value
            else:
                sample["bboxes"][hit, 2:4] = self.fault.value
            self.armed.fired += 1
        return sample


def _with_broken_file(kind: Any) -> type:
    """Return a subclass of a data set's class: Python looks up ``__getitem__`` on the class."""

    class Breaking(kind):
        def __getitem__(self, index: int) -> Any:
            return self._chaos.sample(self, index, super().__getitem__)

        def load_image(self, i: int, *args: Any, **kwargs: Any) -> Any:
            return self._chaos.image(i, super().load_image(i, *args, **kwargs))

    if not hasattr(kind, "load_image"):
        del Breaking.load_image
    Breaking.__name__ = Breaking.__qualname__ = kind.__name__
    return Breaking


def _state(dataset: Any) -> tuple[Any, ...]:
    """Return what a sample depends on: generators, and the images kept for mosaics."""
    kept = {name: list(value) for name in _KEPT if isinstance(value := getattr(dataset, name, None), list)}
    return random.getstate(), np.random.get_state(), torch.get_rng_state(), kept


_KEPT = ("buffer", "ims", "im_hw0", "im_hw")


def _restore(dataset: Any, state: tuple[Any, ...]) -> None:
    random.setstate(state[0])
    np.random.set_state(state[1])
    torch.set_rng_state(state[2])
    for name, values in state[3].items():
        getattr(dataset, name)[:] = values


def _equal(tensor: Tensor, value: float) -> Tensor:
    """Compare with a number; NaN equals NaN."""
    return tensor != tensor if value != value else tensor == torch.tensor(value, dtype=tensor.dtype)
