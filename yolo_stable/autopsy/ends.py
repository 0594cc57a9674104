"""The two ends of a pass: what goes in, by name, and what comes out, with its bits."""

from __future__ import annotations

import hashlib
import inspect
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from .frames import tensors_in


def named_inputs(model: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> list[tuple[str, Tensor]]:
    """Return the tensors among a module's inputs: a single dict's by their keys, others by the name of the argument."""
    if len(args) == 1 and not kwargs and not isinstance(args[0], Tensor):
        return list(tensors_in(args[0]))
    try:
        bound = inspect.signature(model.forward).bind(*args, **kwargs).arguments
    except (TypeError, ValueError):
        bound = {**{str(i): value for i, value in enumerate(args)}, **kwargs}
    return list(tensors_in(dict(bound)))


def loss_and_items(output: Any) -> tuple[Tensor | None, dict[str, Any]]:
    """Take apart what a call returned: the loss, and the items by name."""
    loss, items = (output[0], output[1]) if isinstance(output, (tuple, list)) and len(output) > 1 else (output, {})
    if isinstance(loss, (tuple, list)) and loss:
        loss = loss[0]
    if isinstance(items, Tensor):
        items = {str(i): value for i, value in enumerate(items.detach().reshape(-1))}
    elif isinstance(items, (list, tuple)):
        items = {str(i): value for i, value in enumerate(items)}
    named = items.items() if isinstance(items, Mapping) else ()
    kept = {
        str(name): v for name, v in named if isinstance(v, (int, float)) or (isinstance(v, Tensor) and v.numel() == 1)
    }
    return (loss if isinstance(loss, Tensor) else None), kept


def bracket(names: list[str], bad: set[str]) -> Iterator[str]:
    """Yield the finite neighbours of those that are not."""
    for i, name in enumerate(names):
        if name not in bad and (set(names[max(0, i - 1) : i + 2]) & bad):
            yield name


def digest_of(named: Iterable[tuple[str, Tensor | None]]) -> str:
    """Return the SHA-256 of names, dtypes, shapes and bits."""
    digest = hashlib.sha256()
    for name, tensor in named:
        if tensor is None:
            digest.update(f"{name} none;".encode())
            continue
        flat = tensor.detach().cpu().contiguous().reshape(-1)
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)};".encode())
        digest.update(flat.view(torch.uint8).numpy().data)
    return digest.hexdigest()
