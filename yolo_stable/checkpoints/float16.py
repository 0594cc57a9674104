"""Float16 overflow: finds what float16 cannot hold before Ultralytics rounds it, and restores it afterwards.

Tensors of the network and of the optimizer's state with a number beyond 65504 stay in float32, also behind the final strip.
Ultralytics' ``load_checkpoint`` calls ``.float()``, so a mixed network loads everywhere.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from ..guard.reductions import largest

LARGEST = 65504.0
"""The largest finite float16. What is smaller than the smallest one becomes 0, as in stock: it is 0 to the network, too."""

KEPT = ("step", "exp_avg", "exp_avg_sq", "square_avg")
"""State of an optimizer that Ultralytics leaves in float32."""


def beyond_half(named: Iterable[tuple[str, Tensor]]) -> dict[str, Tensor]:
    """Return float32 host copies of the tensors that hold NaN or a magnitude beyond float16.

    Args:
        named: Tensors of any dtype; those that are not real and floating, and those in float16, are left out.

    Syncs: one per device and dtype.

    Examples:
        >>> beyond_half([("a", torch.tensor([1.0])), ("b", torch.tensor([7e4, 1.0]))])
        {'b': tensor([7.0000e+04, 1.0000e+00])}
    """
    groups: dict[tuple[torch.device, torch.dtype], list[tuple[str, Tensor]]] = {}
    for name, tensor in named:
        if tensor.is_floating_point() and tensor.dtype is not torch.float16 and tensor.numel():
            groups.setdefault((tensor.device, tensor.dtype), []).append((name, tensor.detach()))
    found = {}
    for group in groups.values():
        for (name, tensor), size in zip(group, largest([tensor for _, tensor in group]).tolist(), strict=True):
            if not size <= LARGEST:  # NaN compares with nothing
                found[name] = tensor.float().cpu().clone(memory_format=torch.contiguous_format)
    return found


def put_back(module: nn.Module, kept: Mapping[str, Tensor]) -> None:
    """Restore parameters and buffers of a rounded module; skip names that it does not have.

    Args:
        module: Rounded to float16.
        kept: By name in its ``state_dict()``.
    """
    for prefix, part in module.named_modules():
        for key, parameter in part._parameters.items():
            name = f"{prefix}.{key}" if prefix else key
            if parameter is not None and name in kept:
                parameter.data = kept[name].clone()
        for key in part._buffers:
            name = f"{prefix}.{key}" if prefix else key
            if name in kept:
                part._buffers[key] = kept[name].clone()


def rounded(named: Iterable[tuple[str, Tensor]]) -> Iterable[tuple[str, Tensor]]:
    """Yield the optimizer state that Ultralytics rounds to float16: neither step counters nor the moments of Adam.

    Args:
        named: Tensors by ``INDEX/KEY``, as :func:`optimizer_tensors` has them.
    """
    for name, tensor in named:
        if tensor.dtype is torch.float32 and name.partition("/")[2] not in KEPT:
            yield name, tensor


def optimizer_tensors(state: Mapping[Any, Mapping[str, Any]]) -> Iterable[tuple[str, Tensor]]:
    """Yield the tensors of the ``state`` of an optimizer's state dict, named ``INDEX/KEY``."""
    for index, values in state.items():
        for key, value in values.items():
            if isinstance(value, Tensor):
                yield f"{index}/{key}", value
