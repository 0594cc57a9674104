"""Memory layout of tensors, kept beside a file of contiguous ones, so that a replay runs the same kernels."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from .tensor_file import KINDS, check_name


def lay_down(tensors: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Return tensors as a file needs them, and their layout.

    Args:
        tensors: Of any device and layout. A shared one, such as tied weights, is kept once.

    Returns:
        Contiguous tensors on the host, not copied where possible; and plain values: ``tensors``, by name the dtype, the shape and
        any unusual strides; and ``same``, by name the name of the tensor that it shares.

    Raises:
        ValueError: A name or a dtype cannot be kept.

    Syncs: one per tensor that is not on the host.
    """
    held: dict[str, Tensor] = {}
    table: dict[str, list[Any]] = {}
    same: dict[str, str] = {}
    first: dict[tuple[Any, ...], str] = {}
    for name, tensor in tensors.items():
        check(name, tensor)
        place = (tensor.device, tensor.data_ptr(), tensor.dtype, tuple(tensor.shape), tensor.stride())
        if tensor.numel() and first.setdefault(place, name) != name:
            same[name] = first[place]
            continue
        shape, strides = list(tensor.shape), list(tensor.stride())
        table[name] = [str(tensor.dtype).removeprefix("torch."), shape]
        if strides != _usual(shape) and _dense(shape, strides):
            table[name].append(strides)
        held[name] = tensor.detach().to("cpu").contiguous()
    return held, {"tensors": table, "same": same}


def check(name: str, tensor: Tensor) -> None:
    """Refuse a tensor that a file of tensors cannot hold.

    Raises:
        ValueError: Its name or its dtype cannot be kept.
    """
    check_name(name)
    if tensor.dtype not in KINDS or tensor.layout != torch.strided or tensor.is_meta:
        raise ValueError(
            f"{name!r} is a tensor of {tensor.dtype}, {tensor.layout}, {tensor.device}: that cannot be kept"
        )


def take_up(held: Mapping[str, Tensor], plain: Any) -> dict[str, Tensor]:
    """Return the tensors that :func:`lay_down` was given, on the host.

    Raises:
        ValueError: Tensors and plain values do not fit together.
    """
    table, same = (plain.get("tensors"), plain.get("same")) if isinstance(plain, dict) else (None, None)
    if not isinstance(table, dict) or not isinstance(same, dict):
        raise ValueError("incident.json does not say which tensors there are")
    if missing := sorted(table.keys() - held.keys()):
        raise ValueError(f"the tensor {missing[0]!r} is missing")
    if strange := sorted(held.keys() - table.keys()):
        raise ValueError(f"incident.json does not know its tensor {strange[0]!r}")
    laid = {name: _laid(name, held[name], entry) for name, entry in table.items()}
    for name, other in same.items():
        check_name(name)
        if name in table or not isinstance(other, str) or other not in table:
            raise ValueError(f"the tensor {name!r:.100} is said to be the same as {other!r:.100}")
        laid[name] = laid[other]
    return laid


def _laid(name: str, tensor: Tensor, entry: Any) -> Tensor:
    mine = [str(tensor.dtype).removeprefix("torch."), list(tensor.shape)]
    if not isinstance(entry, list) or entry[:2] != mine or len(entry) > 3:
        raise ValueError(f"{name!r} is {mine[0]} of shape {mine[1]}, and incident.json says {entry!r:.100}")
    if len(entry) == 2:
        return tensor
    strides = entry[2]
    if not isinstance(strides, list) or not all(type(s) is int for s in strides) or not _dense(mine[1], strides):
        raise ValueError(f"{name!r} has impossible strides in incident.json: {strides!r:.100}")
    return torch.empty_strided(mine[1], strides, dtype=tensor.dtype).copy_(tensor)


def _usual(shape: Sequence[int]) -> list[int]:
    """Return the strides of a contiguous tensor."""
    return list(torch.empty(tuple(shape), device="meta").stride())


def _dense(shape: Sequence[int], strides: Sequence[int]) -> bool:
    """Say whether strides reach each element once without gaps: a contiguous tensor with permuted dimensions."""
    total = math.prod(shape)
    if not total or len(shape) != len(strides) or any(not 0 <= stride <= total for stride in strides):
        return False
    expected = 1
    for stride, size in sorted(zip(strides, shape, strict=True)):
        if size != 1:
            if stride != expected:
                return False
            expected *= size
    return True
