"""Changes: how a fault changes the result of an operation."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

_FLIPPED = {torch.float64: (torch.int64, 40), torch.float32: (torch.int32, 13), torch.float16: (torch.int16, 8),
            torch.bfloat16: (torch.int16, 5)}  # fmt: skip
"""The integer type to see each float type as, and the mantissa bit that is flipped."""
_TAIL = 8


@dataclass(kw_only=True)
class Call:
    """A call of an operation that a fault may change."""

    func: Callable[..., Any]
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    kept: dict[Any, Any] = field(default_factory=dict)

    def run(self, *args: Any, **kwargs: Any) -> Any:
        """Return what the operation gives, with its own arguments or others."""
        return self.func(*(args or self.args), **{**self.kwargs, **kwargs})

    def tensors(self) -> list[Tensor]:
        """Return all tensors among the arguments, those in lists included."""
        found = []
        for value in (*self.args, *self.kwargs.values()):
            found += [v for v in (value if isinstance(value, (list, tuple)) else [value]) if isinstance(v, Tensor)]
        return found

    def has(self, first: Tensor | None, name: str, value: Any) -> bool:
        """Return whether the call has a property; ``Fault.fits`` names them."""
        args = self.args
        if name in ("groups", "transposed", "kernel", "stride"):
            back = "backward" in str(self.func)
            weight, transposed, groups = (args[2], args[7], args[9]) if back else (args[1], args[6], args[8])
            stride = args[4] if back else args[3]
            found = {
                "groups": "many" if groups > 1 else "one",
                "transposed": bool(transposed),
                "kernel": weight.shape[-1],
                "stride": stride[0],
            }
            return found[name] == value
        if name == "weight":
            weight = args[2] if "backward" in str(self.func) else args[1]
            return tuple(weight.shape) == tuple(value)
        if name == "training":
            return bool(args[5]) is value
        if first is None:
            return False
        if name == "ndim":
            return first.ndim == value
        if name == "numel":
            return first.numel() >= value
        if name == "channels_last":
            big = first.ndim == 4 and min(first.shape[1:]) > 1
            return (big and first.is_contiguous(memory_format=torch.channels_last)) is value
        assert name == "dense", name
        return (first.is_contiguous() or first.is_contiguous(memory_format=torch.channels_last)) is value


def edited(call: Call, fault: Any, edit: Callable[[Tensor], Tensor]) -> Any:
    """Run the call, and edit one of its results; operations that write into an argument have it edited there."""
    out = call.run()
    if out is None or isinstance(out, list) or str(call.func).split(".")[1].endswith("_"):
        lists = [a for a in call.args if isinstance(a, (list, tuple)) and a and isinstance(a[0], Tensor)]
        targets = out if isinstance(out, list) else lists[0] if lists else [call.args[0]]
        for target in targets:
            if target.numel() and target.is_floating_point():
                target.copy_(edit(target.clone()))
        return out
    if isinstance(out, tuple):
        if out[fault.output] is None:
            return out
        return tuple(edit(o.clone()) if i == fault.output else o for i, o in enumerate(out))
    return edit(out.clone()) if isinstance(out, Tensor) else out


def _flat(tensor: Tensor) -> Tensor:
    """Return the elements in the order of memory, as a view where the tensor is dense."""
    return tensor.as_strided((tensor.numel(),), (1,), tensor.storage_offset()) if tensor.numel() else tensor.reshape(-1)


def bitflip(call: Call, fault: Any) -> Any:
    """Flip one bit of the mantissa of one element of ordinary size, near the middle."""

    def edit(t: Tensor) -> Tensor:
        if t.dtype not in _FLIPPED or not t.numel():
            return t
        t = t.contiguous()
        flat = t.view(-1)
        ordinary = (flat.abs().double() >= 0.5 * flat.double().square().mean().sqrt()).nonzero().view(-1)
        at = int(ordinary[len(ordinary) // 2]) if len(ordinary) else flat.numel() // 2
        whole, bit = _FLIPPED[t.dtype]
        flat.view(whole)[at] ^= 1 << bit
        return t

    return edited(call, fault, edit)


def zero_tail(call: Call, fault: Any) -> Any:
    """Leave the last elements zero."""

    def edit(t: Tensor) -> Tensor:
        t.reshape(-1)[-_TAIL:] = 0 if t.is_contiguous() else t.reshape(-1)[-_TAIL:]
        if not t.is_contiguous():
            _flat(t)[-_TAIL:] = 0
        return t

    return edited(call, fault, edit)


def nan_tail(call: Call, fault: Any) -> Any:
    """Leave the last elements unwritten; what is in poisoned memory is NaN."""

    def edit(t: Tensor) -> Tensor:
        _flat(t)[-_TAIL:] = float("nan")
        return t

    return edited(call, fault, edit)


def scale(call: Call, fault: Any) -> Any:
    """Multiply a result by ``amount``."""
    return edited(call, fault, lambda t: t * fault.amount)


def round_bits(tensor: Tensor, bits: int) -> Tensor:
    """Return float32 numbers rounded to so many bits of mantissa, to nearest, ties to even; others as they are."""
    if tensor.dtype != torch.float32:
        return tensor
    drop = 23 - bits
    i = tensor.contiguous().view(torch.int32)
    half = (1 << (drop - 1)) - 1
    return ((i + half + ((i >> drop) & 1)) & ~((1 << drop) - 1)).view(torch.float32)


def round_inputs(call: Call, fault: Any) -> Any:
    """Round float32 inputs to ``amount`` bits of mantissa: 10 for TF32, 7 for bfloat16."""
    return call.run(*(round_bits(a, int(fault.amount)) if isinstance(a, Tensor) else a for a in call.args))


def raise_error(call: Call, fault: Any) -> Any:
    """Raise what a missing or failing kernel raises."""
    raise RuntimeError("injected: no kernel image is available for execution on the device")


def hang(call: Call, fault: Any) -> Any:
    """Never return."""
    time.sleep(86400)


def die(call: Call, fault: Any) -> Any:
    """Kill the process, as an illegal access in a kernel does."""
    os.kill(os.getpid(), signal.SIGSEGV)


CHANGES: dict[str, Callable[[Call, Any], Any]] = {
    change.__name__: change for change in (bitflip, zero_tail, nan_tail, scale, round_inputs, raise_error, hang, die)
}
