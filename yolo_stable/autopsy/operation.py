"""Recomputation of one operation in float64 on the CPU: tells an overflow from a faulty device."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import _disable_current_modes
from torch.utils._pytree import tree_leaves, tree_map

from .kinds import BOUNDED, OperationKind

LARGEST = 2_000_000_000
"""Multiplications and additions for recomputing operations: about a second in float64."""
_HEAVY = ("convolution", "convolution_backward", "mm", "addmm", "bmm", "baddbmm")
_BY_ROW = {"convolution": (0,), "convolution_backward": (0, 1), "mm": (0,), "addmm": (1,), "bmm": (0, 1)}
"""Arguments of which one row suffices to compute that row of the first output."""
_ON_CPU: dict[str, Any] = {
    "cudnn_batch_norm": torch.ops.aten.native_batch_norm.default,
    "miopen_batch_norm": torch.ops.aten.native_batch_norm.default,
}


@dataclass(slots=True)
class Budget:
    """Work that is left; counted, not timed, so that the answer is always the same."""

    left: int = LARGEST

    def take(self, work: int) -> bool:
        """Take work if enough is left; say whether it was."""
        if work > self.left:
            return False
        self.left -= work
        return True


def results(returned: object, kind: OperationKind, args: Sequence[Any], kwargs: dict[str, Any]) -> list[Tensor]:
    """Return the outputs of an operation: what it returned, then what it wrote into without returning it."""
    if type(returned) is Tensor:
        found: list[Any] = [returned]
    else:
        found = list(returned) if isinstance(returned, (list, tuple)) else [returned]
    for write in kind.writes:
        into = kwargs.get(write.position) if isinstance(write.position, str) else _at(args, write.position)
        for tensor in into if isinstance(into, (list, tuple)) else [into]:
            if not any(tensor is one for one in found):
                found.append(tensor)
    return found


def in_float64(
    kind: OperationKind,
    args: Sequence[Any],
    kwargs: dict[str, Any],
    output: int,
    broken: Tensor,
    row: int | None,
    budget: Budget | None = None,
) -> str:
    """Recompute an operation in float64 on the CPU, and judge the result where the first one is not finite.

    Args:
        kind: The operation.
        args: Its arguments; those that it writes into as they were before.
        kwargs: Likewise.
        output: Index of its non-finite result.
        broken: That result.
        row: Its first non-finite row, for operations that can be computed row by row.
        budget: Work that it may take.

    Returns:
        ``finite``, ``overflow``, ``not finite``; empty if it is random, too large or unknown on the CPU.

    Syncs: copies the arguments to the host.
    """
    if kind.name in BOUNDED:
        return "finite"
    if kind.random:
        return ""
    wanted = broken.detach()
    try:
        if row is not None and output == 0 and kind.name in _BY_ROW and broken.ndim > 1:
            args = [a[row : row + 1] if i in _BY_ROW[kind.name] else a for i, a in enumerate(args)]
            wanted = wanted[row : row + 1]
            if kind.name == "convolution_backward":
                args[10] = [True, False, False]
            if kind.name == "addmm" and args[0].ndim == 2 and args[0].shape[0] > 1:
                args[0] = args[0][row : row + 1]
        if not (budget or Budget()).take(_work(kind, args, wanted)):
            return ""
        with _disable_current_modes(), torch.no_grad(), torch.autocast("cpu", enabled=False):
            wide = _again(kind, args, kwargs, torch.float64)[output]
            bad = ~_real(wanted).cpu().isfinite()
            values = _real(wide)[bad]
            if not bool(values.isfinite().all()):
                return "not finite"
            if float(values.abs().max()) > torch.finfo(wanted.dtype).max:
                return "overflow"
            if not _can_overflow_inside(args, wanted.dtype):
                return "finite"
            # The result fits, but intermediate sums and squares may not; then this dtype also fails on the CPU.
            narrow = _real(_again(kind, args, kwargs, None)[output])[bad]
            return "finite" if bool(narrow.isfinite().all()) else "overflow"
    except (RuntimeError, TypeError, ValueError, LookupError, AttributeError, MemoryError):
        return ""  # an operation, shape or dtype that the CPU does not have


def _again(kind: OperationKind, args: Sequence[Any], kwargs: dict[str, Any], dtype: torch.dtype | None) -> list[Tensor]:
    def moved(value: Any) -> Any:
        if isinstance(value, Tensor):
            kept = value.detach()
            if dtype is not None and (kept.is_floating_point() or kept.is_complex()):
                return kept.to("cpu", torch.complex128 if kept.is_complex() else dtype, copy=True)
            return kept.to("cpu", copy=True)
        if dtype is not None and isinstance(value, torch.dtype) and value.is_floating_point:
            return dtype
        return torch.device("cpu") if isinstance(value, torch.device) else value

    func: Callable[..., Any] = _ON_CPU.get(kind.name, kind.func)
    again, named = tree_map(moved, list(args)), tree_map(moved, dict(kwargs))
    named.pop("pin_memory", None)
    return results(func(*again, **named), kind, again, named)


def _work(kind: OperationKind, args: Sequence[Any], wanted: Tensor) -> int:
    """Estimate the multiplications and additions of the operation."""
    tensors = [a for a in tree_leaves(list(args)) if isinstance(a, Tensor)]
    if kind.name == "convolution":
        return wanted.numel() * args[1][0].numel()
    if kind.name == "convolution_backward":
        return args[0].numel() * args[2][0].numel() * sum(args[10][:2])
    if kind.name in _HEAVY:
        return wanted.numel() * tensors[-2].shape[-1]
    if "attention" in kind.name:
        return 4 * args[0].numel() * args[0].shape[-2]
    return 8 * max([wanted.numel(), *(t.numel() for t in tensors)])


def _can_overflow_inside(args: Sequence[Any], dtype: torch.dtype) -> bool:
    """Say whether sums of products of the arguments may exceed a dtype."""
    tensors = [a for a in tree_leaves(list(args)) if isinstance(a, Tensor) and a.is_floating_point() and a.numel()]
    peaks = [max(1.0, float(t.detach().abs().max())) for t in tensors]
    count = max([t.numel() for t in tensors], default=1)
    return not math.log2(max(peaks, default=1.0)) + sum(map(math.log2, peaks)) + math.log2(count) < math.log2(
        torch.finfo(dtype).max
    )


def _real(tensor: Tensor) -> Tensor:
    return torch.view_as_real(tensor.resolve_conj()) if tensor.is_complex() else tensor


def _at(args: Sequence[Any], position: int) -> Any:
    return args[position] if position < len(args) else None
