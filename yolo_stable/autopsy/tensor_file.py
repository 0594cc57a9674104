"""Tensor file in safetensors' format: written in one pass without a copy, and read even if a stranger wrote it.

The library's own reader checks offsets, shapes and sizes. This one also refuses repeated keys, dtypes that torch lacks, empty
shapes beyond any integer, booleans other than 0 and 1, and names that could pass for paths.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load
from torch import Tensor

from .exact_json import parse

MOST_HEADER = 32 << 20
"""Bytes; a thousand tensors need a tenth of a megabyte."""
MOST_DIMS = 16
MOST_NAME = 1024
_CHUNK = 8 << 20

KINDS = {
    torch.float64: "F64",
    torch.float32: "F32",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.int64: "I64",
    torch.int32: "I32",
    torch.int16: "I16",
    torch.int8: "I8",
    torch.uint8: "U8",
    torch.bool: "BOOL",
}
"""The supported dtypes and their safetensors names."""


def write(path: Path, tensors: Mapping[str, Tensor]) -> dict[str, Any]:
    """Write a new file and flush it to the disk.

    Returns:
        ``bytes``, its length, and ``sha256`` of all of it.

    Raises:
        OSError: It could not be written; a part may remain.
    """
    header: dict[str, Any] = {}
    start = 0
    order = sorted(tensors, key=lambda name: (-tensors[name].element_size(), name))  # keeps each one aligned
    for name in order:
        tensor = tensors[name]
        end = start + tensor.numel() * tensor.element_size()
        header[name] = {"dtype": KINDS[tensor.dtype], "shape": list(tensor.shape), "data_offsets": [start, end]}
        start = end
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    digest = hashlib.sha256()
    with open(path, "xb") as file:
        parts = [memoryview(struct.pack("<Q", len(text)) + text)]
        parts += [_bytes(tensors[name]) for name in order if tensors[name].numel()]
        for part in parts:
            for at in range(0, len(part), _CHUNK):
                piece = part[at : at + _CHUNK]
                digest.update(piece)
                file.write(piece)
        file.flush()
        os.fsync(file.fileno())
        return {"bytes": file.tell(), "sha256": digest.hexdigest()}


def decode(content: bytes) -> dict[str, Tensor]:
    """Read the tensors from the bytes of a file; each has its own memory.

    Raises:
        ValueError: It is damaged or malicious; says how.
    """
    names = _check_header(content)
    try:
        tensors = load(content)
    except (SafetensorError, LookupError, TypeError, RuntimeError, AssertionError) as error:
        what = " ".join(str(error).split()).removeprefix("Error while deserializing: ")
        raise ValueError(f"it is damaged or cut off ({what[:200]})") from error
    if tensors.keys() != names:
        raise ValueError("its header and its tensors do not agree")
    for name, tensor in tensors.items():
        if tensor.dtype == torch.bool and bool((tensor.view(torch.uint8) > 1).any()):
            raise ValueError(f"{name!r} holds truth values that are neither 0 nor 1")
    return tensors


def check_name(name: str) -> None:
    """Refuse the name of a tensor that could pass for a path out of a folder, or that controls a terminal.

    Raises:
        ValueError: Says what is wrong with it.

    Examples:
        >>> check_name("model/0.conv.weight")
        >>> check_name("../weight")
        Traceback (most recent call last):
            ...
        ValueError: the name '../weight' is not that of a tensor
    """
    strange = not name.isprintable() or "\\" in name or name.startswith("/") or ".." in name.split("/")
    if not name or len(name) > MOST_NAME or strange:
        raise ValueError(f"the name {name[:100]!r} is not that of a tensor")


def _check_header(content: bytes) -> set[str]:
    """Return the names of the tensors; the library checks the rest."""
    if len(content) < 8:
        raise ValueError("it is cut off within its first 8 bytes")
    length = struct.unpack("<Q", content[:8])[0]
    if length > min(MOST_HEADER, len(content) - 8):
        raise ValueError(f"its header claims {length} bytes, and the file has {len(content)}")
    header = parse(content[8 : 8 + length])
    if not isinstance(header, dict):
        raise ValueError("its header is no list of tensors")
    header.pop("__metadata__", None)
    for name, entry in header.items():
        check_name(name)
        kind, shape = (entry.get("dtype"), entry.get("shape")) if isinstance(entry, dict) else (None, None)
        if kind not in KINDS.values():
            raise ValueError(f"{name!r} has the unknown dtype {kind!r:.40}")
        sizes = shape if isinstance(shape, list) and all(type(size) is int and size >= 0 for size in shape) else None
        # The product without the zeros: torch multiplies all sizes for the strides.
        if sizes is None or len(sizes) > MOST_DIMS or math.prod(size for size in sizes if size) >= 1 << 48:
            raise ValueError(f"{name!r} has the impossible shape {shape!r:.80}")
    return set(header)


def _bytes(tensor: Tensor) -> memoryview:
    return tensor.reshape(-1).view(torch.uint8).numpy().data
