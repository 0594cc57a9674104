"""The side file of a checkpoint: the training state in full precision, without pickle.

A safetensors file. Its tensors are those of :class:`~yolo_stable.guard.state.TrainingState`, the gradients of an open window
(``gradient/NAME``) and the order of the data (``data/...``). Its metadata have three entries: ``yolo-stable`` (the schema, 1),
``plain`` (JSON: everything that is no tensor) and ``sha256`` (over all names, shapes, bytes, and ``plain``).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from .errors import InvalidCallError

NAME = "last.safetensors"
SCHEMA = "1"


@dataclass(frozen=True)
class SavedState:
    """What a side file holds."""

    tensors: Mapping[str, Tensor]
    plain: Mapping[str, Any]

    @property
    def epoch(self) -> int:
        """The last whole epoch, from 0; -1 when there is none."""
        return int(self.plain["loop"]["epoch"])

    def belongs_to(self, digest: str) -> bool:
        """Say whether it was written with the checkpoint that has this SHA-256."""
        return self.plain["checkpoint"]["sha256"] == digest

    def follows(self, digest: str) -> bool:
        """Say whether it was written to go with the one after this checkpoint, which a crash has kept from being written."""
        return self.plain["checkpoint"]["before"] == digest


def encode(tensors: Mapping[str, Tensor], plain: Mapping[str, Any]) -> bytes:
    """Return the bytes of a side file.

    Args:
        tensors: Of any device and layout.
        plain: What JSON can say; tensors of one element become numbers.

    Syncs: one per tensor that is not on the host.
    """
    # Copies: tensors that share memory are refused, and a parameter may be a view of a flat one.
    held = {n: t.detach().to("cpu", copy=True, memory_format=torch.contiguous_format) for n, t in tensors.items()}
    text = json.dumps(plain, default=_number)
    metadata = {"yolo-stable": SCHEMA, "plain": text, "sha256": _sha256(held, text)}
    return save(held, metadata)


def read(path: Path) -> SavedState:
    """Read a side file.

    Raises:
        InvalidCallError: It is damaged, or something else; says what to do.
    """
    try:
        with safe_open(str(path), framework="pt", device="cpu") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - it is no dict
        schema, text = metadata.get("yolo-stable"), metadata.get("plain", "")
        if schema is None:
            raise _refused(path, "it is not a side file of yolo-stable")
        if schema != SCHEMA:
            raise _refused(path, f"its schema is {schema}, and this version of yolo-stable reads {SCHEMA}")
        if metadata.get("sha256") != _sha256(tensors, text):
            raise _refused(path, "it is damaged: its checksum is wrong")
        return SavedState(tensors, json.loads(text))
    except (SafetensorError, OSError, ValueError, RuntimeError) as error:
        if isinstance(error, InvalidCallError):
            raise
        raise _refused(path, f"it is damaged or cut off ({' '.join(str(error).split())[:200]})") from error


def _refused(path: Path, what: str) -> InvalidCallError:
    return InvalidCallError(
        f"The side file {path} cannot be used: {what}. Delete it to resume from the checkpoint alone, whose weights are"
        " rounded to float16; or resume from an older checkpoint."
    )


def _number(value: Any) -> Any:
    try:
        return value.item()
    except (AttributeError, ValueError, RuntimeError) as error:  # torch and NumPy differ about more elements than one
        raise TypeError(f"{type(value).__name__} cannot be kept in a side file: {repr(value)[:200]}") from error


def _sha256(tensors: Mapping[str, Tensor], text: str) -> str:
    total = hashlib.sha256(text.encode())
    for name in sorted(tensors):
        tensor = tensors[name]
        total.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        total.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return total.hexdigest()
