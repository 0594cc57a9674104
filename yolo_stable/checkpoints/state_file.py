"""The side file of a checkpoint: the training state in full precision, without pickle.

A safetensors file. Its tensors are those of :class:`~yolo_stable.guard.state.TrainingState`, the gradients of an open window
(``gradient/NAME``) and the order of the data (``data/...``). Its metadata have three entries: ``yolo-stable`` (the schema, 1),
``plain`` (JSON: everything that is no tensor) and ``sha256`` (over all names, shapes, bytes, and ``plain``).

It is written before ``last.pt``, and knows the SHA-256 of the checkpoint it goes with and of the one before. A resume takes it
with the former. With the latter a crash came between the two: it is the newer one, complete, and taken. With neither it is left
out with a warning where the checkpoint is of a later epoch, and else refused. Where it cannot be written but ``last.pt`` then
is, the old one goes, as it would have that ``last.pt`` refused.
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
from torch import Tensor

from ..autopsy.tensor_file import KINDS
from ..errors import InvalidCallError

NAME = "last.safetensors"
SCHEMA = "1"
DTYPES = {
    **KINDS,
    torch.uint64: "U64",
    torch.uint32: "U32",
    torch.uint16: "U16",
    torch.float8_e4m3fn: "F8_E4M3",
    torch.float8_e5m2: "F8_E5M2",
    torch.complex64: "C64",
}
"""Names of the dtypes in safetensors."""


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
        """Return whether it was written with the checkpoint of this SHA-256."""
        return self.plain["checkpoint"]["sha256"] == digest

    def follows(self, digest: str) -> bool:
        """Return whether it belongs to the successor of this checkpoint, which a crash kept from being written."""
        return self.plain["checkpoint"]["before"] == digest


def on_host(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return dense host copies that share no memory with anything, in row-major order.

    Args:
        tensors: Of any device and layout; a parameter may be a view of a flat one.

    Syncs: one per tensor that is not on the host.
    """
    return {n: t.detach().to("cpu", copy=True, memory_format=torch.contiguous_format) for n, t in tensors.items()}


def encode(tensors: Mapping[str, Tensor], plain: Mapping[str, Any]) -> list[bytes | memoryview]:
    """Return a side file's content in pieces: its header, then each tensor's memory, not copied.

    Args:
        tensors: As from :func:`on_host`.
        plain: What JSON can say; tensors of one element become numbers.

    Raises:
        TypeError: Something in ``plain`` is not JSON.
        ValueError: A tensor has a dtype that a side file cannot hold.
    """
    text = json.dumps(plain, default=_number)
    header: dict[str, Any] = {"__metadata__": {"yolo-stable": SCHEMA, "plain": text, "sha256": _sha256(tensors, text)}}
    at = 0
    # The widest numbers first, so that each tensor lies at a multiple of their size.
    order = sorted(tensors, key=lambda name: (-tensors[name].element_size(), name))
    for name in order:
        tensor = tensors[name]
        if tensor.dtype not in DTYPES:
            raise ValueError(f"{name}: a side file cannot hold numbers of {tensor.dtype}")
        end = at + tensor.numel() * tensor.element_size()
        header[name] = {"dtype": DTYPES[tensor.dtype], "shape": list(tensor.shape), "data_offsets": [at, end]}
        at = end
    start = json.dumps(header).encode()
    start += b" " * (-len(start) % 8)
    return [len(start).to_bytes(8, "little"), start, *(_memory(tensors[name]) for name in order)]


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
        total.update(_memory(tensor))
    return total.hexdigest()


def _memory(tensor: Tensor) -> memoryview:
    """Return the bytes of a dense tensor on the host."""
    return tensor.reshape(-1).view(torch.uint8).numpy().data
