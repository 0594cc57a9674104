"""Reductions: norms and maxima that pass NaN on; each call is tried once on a device, and replaced where it loses NaN.

PyTorch promises that norms and maxima pass NaN and infinity on. Backends have broken the promise, in whole or for some sizes
(``max`` on MPS: pytorch/pytorch#130295; ``maximum`` there: #143976), and a check by such a call sees nothing. So the guard
tries these very calls with NaN and infinities at the first, the middle and the last element of tensors of several sizes. It
doubts a device on which one fails, and asks ``isfinite`` there, at the cost of one more pass. A device that fails in that as
well cannot be guarded.

``python -m benchmarks.faults --lying`` trains on a backend that loses NaN and infinity.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterable

import torch
from torch import Tensor

from ..errors import InvalidCallError

SIZES = (1, 33, 4_097, 262_145)
"""Elements of the tensors tried: a scalar tail, a vector loop with a tail, several blocks, several launches' worth of chunks."""
WRONG = (math.nan, math.inf, -math.inf)
CALLS_THAT_MAY_BE_MISSING = (RuntimeError, NotImplementedError, TypeError)

Kind = tuple[torch.device, torch.dtype]

_doubted: set[Kind] = set()


def try_out(tensors: Iterable[Tensor]) -> tuple[str, ...]:
    """Try the calls on each device and in each floating dtype of some tensors.

    Returns:
        The doubted devices and dtypes, in words; empty on an honest machine.

    Raises:
        InvalidCallError: A device loses NaN in ``isfinite`` as well.

    Syncs: one per device and dtype, the first time in a process.
    """
    kinds = dict.fromkeys((t.device, t.dtype) for t in tensors if t.is_floating_point() and not t.is_meta)
    return tuple(f"{device} {dtype}".replace("torch.", "") for device, dtype in kinds if not trusted(device, dtype))


@functools.cache
def trusted(device: torch.device, dtype: torch.dtype) -> bool:
    """Return whether norms and maxima pass NaN and infinity on, for a floating dtype.

    Raises:
        InvalidCallError: Neither they nor ``isfinite`` do.

    Syncs: one, the first time in a process.
    """
    try:
        if _passes_on(_reduced, device, dtype):
            return True
    except CALLS_THAT_MAY_BE_MISSING:  # no such kernel: some backends have no foreach norms
        pass
    _doubted.add((device, dtype))
    if not _passes_on(_asked, device, dtype):
        kind = str(dtype).removeprefix("torch.")
        raise InvalidCallError(
            f"Device {device} cannot be guarded: in {kind} its norms, its maxima and isfinite lose NaN or infinity."
            " Train on another device.\nWhat else it computes wrongly:\n"
            f"yolo-stable validate --device {device}"
        )
    return False


def forget() -> None:
    """Try every device again, as after another driver or backend was loaded."""
    trusted.cache_clear()
    _doubted.clear()


# ---- the calls ---------------------------------------------------------------------------------------------------------------


def largest(tensors: list[Tensor]) -> Tensor:
    """Return the largest magnitude in each tensor, NaN where there is NaN.

    Args:
        tensors: At least one, none of them empty, real and floating, of one device and dtype.

    Returns:
        1-d, in their order and dtype.

    Syncs: none.
    """
    if not trusted(tensors[0].device, tensors[0].dtype):
        return torch.stack([_largest(tensor) for tensor in tensors])
    # On the CPU a norm takes six times as long as both ends, and in half precision fifteen times.
    if tensors[0].device.type == "cpu":
        return _ends(tensors)
    # The infinity norm cannot overflow, so it is finite exactly when every element is.
    return torch.stack(torch._foreach_norm(tensors, math.inf))


def maximum(tensor: Tensor) -> Tensor:
    """Return the largest element, 0-dim; NaN when there is NaN, infinity when there is infinity.

    Args:
        tensor: Not empty, not negative, real and floating.

    Syncs: none.
    """
    return tensor.max() if trusted(tensor.device, tensor.dtype) else _largest(tensor)


def norms(tensors: list[Tensor]) -> tuple[Tensor, ...]:
    """Return the 2-norm of each tensor in float32 (float64 for float64), whether or not they pass NaN on.

    Args:
        tensors: At least one, strided, real and floating, of one device and dtype.

    Syncs: none.
    """
    dtype = tensors[0].dtype
    wide = torch.float64 if dtype == torch.float64 else torch.float32
    if (tensors[0].device, dtype) in _doubted:
        return tuple(torch.linalg.vector_norm(tensor, dtype=wide) for tensor in tensors)
    return torch._foreach_norm(tensors, 2.0, **({} if wide == dtype else {"dtype": wide}))


def told(total: Tensor, tensors: Iterable[Tensor]) -> Tensor:
    """Return a total of norms, or NaN if one of its tensors is not finite and its device is doubted.

    Args:
        total: 0-dim.
        tensors: Any shapes, dtypes and devices.

    Syncs: none.
    """
    if not _doubted:
        return total
    for tensor in tensors:
        if (tensor.device, tensor.dtype) in _doubted:
            values = tensor.detach().coalesce().values() if tensor.is_sparse else tensor.detach()
            total = torch.where(values.isfinite().all().to(total.device), total, math.nan)
    return total


def _ends(tensors: list[Tensor]) -> Tensor:
    lowest, highest = zip(*(tensor.aminmax() for tensor in tensors), strict=True)
    return torch.maximum(-torch.stack(lowest), torch.stack(highest))


def _largest(tensor: Tensor) -> Tensor:
    values = tensor.abs()
    found = torch.where(values.isinf().any(), math.inf, values.amax())
    return torch.where((values != values).any(), math.nan, found)  # only NaN differs from itself


# ---- trying them -------------------------------------------------------------------------------------------------------------


def _reduced(values: Tensor) -> list[Tensor]:
    """Return the results that a trusted device reports health by."""
    other = torch.ones_like(values)
    wide = torch.float64 if values.dtype == torch.float64 else torch.float32
    kind = {} if wide == values.dtype else {"dtype": wide}
    single = torch._foreach_norm([other, values], 2.0, **kind)
    inner = torch._foreach_norm([other, values], math.inf)
    magnitudes = values.abs()
    return [
        single[1],
        torch.linalg.vector_norm(torch.stack(single)),
        inner[1],
        torch.stack(inner).max(),
        _ends([other, values])[1],
        torch.linalg.vector_norm(values),
        magnitudes.max(),
        (magnitudes / (other + 1)).max(),
    ]


def _asked(values: Tensor) -> list[Tensor]:
    """Return the results that a doubted device reports health by."""
    total = torch.ones((), dtype=values.dtype, device=values.device)
    return [_largest(values), torch.where(values.isfinite().all(), total, math.nan)]


@torch.no_grad()
def _passes_on(calls: Callable[[Tensor], list[Tensor]], device: torch.device, dtype: torch.dtype) -> bool:
    """Return whether all results are finite for finite numbers, and none for a tensor with one number that is not."""
    sound, wrong = [], []
    for size in SIZES:
        values = torch.ones(size, dtype=dtype, device=device)
        sound += calls(values)
        for place in sorted({0, size // 2, size - 1}):
            for value in WRONG:
                values[place] = value
                wrong += calls(values)
            values[place] = 1.0
    # Compared on the host: the device's own comparisons are not in question.
    read = torch.stack([result.to(torch.float32) for result in (*sound, *wrong)]).tolist()
    return all(map(math.isfinite, read[: len(sound)])) and not any(map(math.isfinite, read[len(sound) :]))
