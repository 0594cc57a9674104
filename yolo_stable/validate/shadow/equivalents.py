"""The operations of the CPU that compute the same as those that only an accelerator has."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from .call import HostCall, written

aten = torch.ops.aten
Arguments = tuple[Any, ...]


def _batch_norm(
    x: Any, weight: Any, bias: Any, mean: Any, var: Any, training: bool, momentum: float, eps: float
) -> Arguments:
    return x, weight, bias, mean, var, training, momentum, eps


def _batch_norm_backward(
    x: Any, grad: Any, weight: Any, mean: Any, var: Any, saved_mean: Any, saved_inverse: Any, eps: float, *_: Any
) -> Arguments:
    return grad, x, weight, mean, var, saved_mean, saved_inverse, True, eps, [True, True, True]


EQUIVALENTS: dict[str, tuple[Any, Callable[..., Arguments]]] = {
    "cudnn_batch_norm": (aten.native_batch_norm.default, _batch_norm),
    "miopen_batch_norm": (aten.native_batch_norm.default, _batch_norm),
    "cudnn_batch_norm_backward": (aten.native_batch_norm_backward.default, _batch_norm_backward),
    "miopen_batch_norm_backward": (aten.native_batch_norm_backward.default, _batch_norm_backward),
}


def translated(call: HostCall, found: list[Any]) -> tuple[HostCall, list[Any]]:
    """Return a call as the CPU can compute it, and the device's results that this has as well."""
    if call.name not in EQUIVALENTS:
        return call, found
    func, arguments = EQUIVALENTS[call.name]
    count = len(written(func)) + len(func._schema.returns)
    return HostCall(func=func, args=arguments(*call.args, **call.kwargs), kwargs={}), found[:count]
