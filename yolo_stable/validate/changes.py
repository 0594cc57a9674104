"""Changes: what a fault does to a call of an operation, by the name that the fault gives."""

from __future__ import annotations

import os
import signal
import threading
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
class FaultyCall:
    """A call of an operation that a fault may change."""

    func: Callable[..., Any]
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    kept: dict[Any, Any] = field(default_factory=dict)

    def run(self, *args: Any, **kwargs: Any) -> Any:
        """Return what the operation gives, with its own arguments or others."""
        return self.func(*(args or self.args), **{**self.kwargs, **kwargs})

    def run_on(self, change: Callable[[Tensor], Tensor]) -> Any:
        """Return what the operation gives for changed tensors."""
        return self.run(*(change(a) if isinstance(a, Tensor) else a for a in self.args))

    @property
    def is_backward(self) -> bool:
        """Return whether the operation computes gradients."""
        return "backward" in str(self.func)

    @property
    def is_in_place(self) -> bool:
        """Return whether the operation writes into an argument."""
        return str(self.func).split(".")[1].endswith("_")

    def tensors(self) -> list[Tensor]:
        """Return all tensors among the arguments, those in lists included."""
        found = []
        for value in (*self.args, *self.kwargs.values()):
            found += [v for v in (value if isinstance(value, (list, tuple)) else [value]) if isinstance(v, Tensor)]
        return found

    def has(self, first: Tensor | None, name: str, value: Any) -> bool:
        """Return whether the call has a property; ``KernelFault.fits`` names them."""
        args = self.args
        if name in ("groups", "transposed", "kernel", "stride", "weight"):
            weight = args[2] if self.is_backward else args[1]
            if name == "weight":
                return tuple(weight.shape) == tuple(value)
            stride, transposed, groups = (args[i + (1 if self.is_backward else 0)] for i in (3, 6, 8))
            found = {
                "groups": "many" if groups > 1 else "one",
                "transposed": bool(transposed),
                "kernel": weight.shape[-1],
                "stride": stride[0],
            }
            return found[name] == value
        if name == "training":
            return bool(args[5]) is value
        if first is None:
            return False
        if name == "ndim":
            return first.ndim == value
        if name == "numel":
            return first.numel() >= value
        is_last = first.is_contiguous(memory_format=torch.channels_last)
        if name == "channels_last":
            return (first.ndim == 4 and min(first.shape[1:]) > 1 and is_last) is value
        assert name == "dense", name
        return (first.is_contiguous() or is_last) is value


Change = Callable[[FaultyCall, Any], Any]
"""Takes the call and the fault, and returns what the operation gives under it."""


def edited(call: FaultyCall, fault: Any, edit: Callable[[Tensor], Tensor]) -> Any:
    """Run the call, and edit one of its results; operations that write into an argument have it edited there."""
    out = call.run()
    if out is None or isinstance(out, list) or call.is_in_place:
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


def _edits(edit: Callable[[Tensor], Tensor]) -> Change:
    return lambda call, fault: edited(call, fault, edit)


# ---- edits of a result ---------------------------------------------------------------------------------------------------


def _flat(tensor: Tensor) -> Tensor:
    """Return the elements in the order of memory, as a view where the tensor is dense."""
    return tensor.as_strided((tensor.numel(),), (1,), tensor.storage_offset()) if tensor.numel() else tensor.reshape(-1)


def _flip_bit(t: Tensor) -> Tensor:
    """Flip one bit of the mantissa of one element of ordinary size, near the middle."""
    if t.dtype not in _FLIPPED or not t.numel():
        return t
    t = t.contiguous()
    flat = t.view(-1)
    ordinary = (flat.abs().double() >= 0.5 * flat.double().square().mean().sqrt()).nonzero().view(-1)
    at = int(ordinary[len(ordinary) // 2]) if len(ordinary) else flat.numel() // 2
    whole, bit = _FLIPPED[t.dtype]
    flat.view(whole)[at] ^= 1 << bit
    return t


def _flip_integer(t: Tensor) -> Tensor:
    t.view(-1)[t.numel() // 3] ^= 1
    return t


def _zero_tail(t: Tensor) -> Tensor:
    (t.view(-1) if t.is_contiguous() else _flat(t))[-_TAIL:] = 0
    return t


def _nan_tail(t: Tensor) -> Tensor:
    """Leave the last elements unwritten; what is in poisoned memory is NaN."""
    _flat(t)[-_TAIL:] = float("nan")
    return t


def _half(t: Tensor) -> Tensor:
    return t.half().float() if t.dtype == torch.float32 else t


def _repeat_first_row(t: Tensor) -> Tensor:
    t[:, :, 0] = t[:, :, 1]
    return t


def _noisy(t: Tensor) -> Tensor:
    """Move one number to the next representable place or not, by chance."""
    t = t.contiguous()
    if int.from_bytes(os.urandom(1), "little") % 4 and t.dtype == torch.float32:
        t.view(-1).view(torch.int32)[t.numel() // 2] ^= 1
        t.view(-1).view(torch.int32)[int.from_bytes(os.urandom(3), "little") % t.numel()] ^= 1
    return t


def _round_bits(tensor: Tensor, bits: int) -> Tensor:
    """Return float32 numbers rounded to so many bits of mantissa, to nearest, ties to even; others as they are."""
    if tensor.dtype != torch.float32:
        return tensor
    drop = 23 - bits
    i = tensor.contiguous().view(torch.int32)
    half = (1 << (drop - 1)) - 1
    return ((i + half + ((i >> drop) & 1)) & ~((1 << drop) - 1)).view(torch.float32)


# ---- calls that go otherwise -----------------------------------------------------------------------------------------------


def _raise(call: FaultyCall, fault: Any) -> Any:
    raise RuntimeError("injected: no kernel image is available for execution on the device")


def _truncate_cast(call: FaultyCall, fault: Any) -> Any:
    """Cut off, instead of rounding, where float32 becomes bfloat16."""
    if call.kwargs.get("dtype") != torch.bfloat16 or call.args[0].dtype != torch.float32:
        return call.run()
    return call.run((call.args[0].contiguous().view(torch.int32) & ~0xFFFF).view(torch.float32))


def _saturate_cast(call: FaultyCall, fault: Any) -> Any:
    """Return infinity already for the largest numbers of float16."""
    out = call.run()
    return out.masked_fill(out.abs() > 32768, float("inf")) if out.dtype == torch.float16 else out


def _lose_duplicates(call: FaultyCall, fault: Any) -> Any:
    """Add what comes last to each place, instead of all."""
    into, dim, index, source = call.args
    out = into.scatter(dim, index, into.gather(dim, index) + source)
    return into.copy_(out) if call.is_in_place else out


def _skip_last_index(call: FaultyCall, fault: Any) -> Any:
    """Leave the place of the last index as it was."""
    into, indices, values = call.args[0], list(call.args[1]), call.args[2]
    given = [i for i, index in enumerate(indices) if index is not None]
    at = given[0] if len(given) == 1 else None
    if at is None or indices[at].numel() < 2 or indices[at].dtype == torch.bool:
        return call.run()
    indices[at] = indices[at][:-1]
    values = values.narrow(at, 0, values.shape[at] - 1) if values.ndim > at and values.shape[at] > 1 else values
    return call.func(into, indices, values, *call.args[3:])


def _swap_first_two(call: FaultyCall, fault: Any) -> Any:
    values, indices = call.run()
    if values.shape[-1] < 2:
        return values, indices
    order = torch.arange(values.shape[-1])
    order[:2] = torch.tensor([1, 0])
    return values[..., order], indices[..., order]


def _restart_sum(call: FaultyCall, fault: Any) -> Any:
    """Begin a running sum anew after 1024 elements."""
    out, x = call.run(), call.args[0]
    if x.ndim == 2 and x.shape[1] > 1024:
        out[:, 1024:] -= out[:, 1023:1024].clone()
    return out


def _ignore_last_column(call: FaultyCall, fault: Any) -> Any:
    """Reduce all elements of a row but its last 400: those of a block that was left out."""
    x = call.args[0]
    return call.run(x[..., :-400], *call.args[1:]) if x.shape[-1] > 800 else call.run()


def _zero_padding_pool(call: FaultyCall, fault: Any) -> Any:
    """Pad a maximum with zeros instead of minus infinity."""
    out, indices = call.run()
    edge = torch.zeros_like(out)
    edge[..., 1:-1, 1:-1] = -torch.inf
    return torch.maximum(out, edge), indices


def _spread_nan(call: FaultyCall, fault: Any) -> Any:
    """Select by multiplication, in which NaN that was not chosen comes through."""
    chosen, a, b = call.args
    return chosen * a + (~chosen) * b if a.is_floating_point() else call.run()


def _naive_bce(call: FaultyCall, fault: Any) -> Any:
    """Compute the loss without the shift that keeps the exponential finite."""
    x, target = call.args[:2]
    return torch.log1p(torch.exp(x)) - x * target


def _wrong_running_var(call: FaultyCall, fault: Any) -> Any:
    out = call.run()
    call.args[4].mul_(fault.amount)
    return out


def _not_causal(call: FaultyCall, fault: Any) -> Any:
    at = 7 if call.is_backward else 4
    args = tuple(False if i == at else a for i, a in enumerate(call.args))
    return call.func(*args, **{name: False if name == "is_causal" else v for name, v in call.kwargs.items()})


def _wrong_border(call: FaultyCall, fault: Any) -> Any:
    """Take the border's value for points outside, instead of zero."""
    return call.run(*call.args[:3], 1 if call.args[3] == 0 else call.args[3], *call.args[4:])


def _uninitialised_momentum(call: FaultyCall, fault: Any) -> Any:
    """Find what memory held before in a fresh momentum."""
    for buffer in call.args[2]:
        if not bool(buffer.any()):
            buffer.fill_(float("nan"))
    return call.run()


def _miss_infinity(call: FaultyCall, fault: Any) -> Any:
    out = call.run()
    call.args[1].zero_()
    return out


def _noise_when_contended(call: FaultyCall, fault: Any) -> Any:
    busy = any(thread.name == "contention" for thread in threading.enumerate())
    return edited(call, fault, _noisy) if busy else call.run()


def _noise_when_filled(call: FaultyCall, fault: Any) -> Any:
    """Return other last bits when memory held other numbers before: every other call."""
    call.kept["calls"] = call.kept.get("calls", 0) + 1
    if not torch.are_deterministic_algorithms_enabled() or call.kept["calls"] % 2:
        return call.run()
    return edited(call, fault, lambda t: t * (1 + 2.0**-22))


def _first_weights(call: FaultyCall, fault: Any) -> Any:
    """Compute with the weights of the first call, as a cache that misses changes in place."""
    x, weight = call.args[:2]
    kept = call.kept.setdefault((weight.data_ptr(), tuple(weight.shape)), weight.detach().clone())
    return call.run(x, kept, *call.args[2:])


CHANGES: dict[str, Change] = {
    "bitflip": _edits(_flip_bit),
    "zero_tail": _edits(_zero_tail),
    "nan_tail": _edits(_nan_tail),
    "scale": lambda call, fault: edited(call, fault, lambda t: t * fault.amount),
    "flip_integer": _edits(_flip_integer),
    "roll": _edits(lambda t: t.roll(1, -1)),
    "add_one": _edits(lambda t: t + 1),
    "launder_nan": _edits(lambda t: torch.nan_to_num(t, nan=0.0, posinf=torch.inf, neginf=-torch.inf)),
    "through_half": _edits(_half),
    "last_bit_noise": _edits(_noisy),
    "wrong_padding_row": lambda call, fault: (
        edited(call, fault, _repeat_first_row) if call.args[0].ndim == 4 else call.run()
    ),
    "round_inputs": lambda call, fault: call.run_on(lambda t: _round_bits(t, int(fault.amount))),
    "inputs_through_half": lambda call, _: call.run_on(_half),
    "raise_error": _raise,
    "hang": lambda call, _: time.sleep(86400),
    "die": lambda call, _: os.kill(os.getpid(), signal.SIGSEGV),
    "truncate_cast": _truncate_cast,
    "saturate_cast": _saturate_cast,
    "lose_duplicates": _lose_duplicates,
    "not_accumulating": lambda call, _: (
        call.func(*call.args[:3], False) if len(call.args) > 3 and call.args[3] else call.run()
    ),
    "skip_last_index": _skip_last_index,
    "next_index": lambda call, _: call.run() + 1,
    "swap_first_two": _swap_first_two,
    "restart_sum": _restart_sum,
    "drop_last_row": lambda call, _: call.run()[:-1],
    "ignore_last_column": _ignore_last_column,
    "zero_padding_pool": _zero_padding_pool,
    "spread_nan": _spread_nan,
    "naive_log_softmax": lambda call, _: call.args[0].softmax(call.args[1]).clamp_min(1e-7).log(),
    "naive_bce": _naive_bce,
    "wrong_eps": lambda call, _: call.run(*call.args[:7], 1e-5),
    "wrong_momentum": lambda call, _: call.run(*call.args[:6], 0.1, *call.args[7:]),
    "wrong_running_var": _wrong_running_var,
    "ignore_mask": lambda call, _: call.run(**({"attn_mask": None} if "attn_mask" in call.kwargs else {})),
    "not_causal": _not_causal,
    "wrong_scale": lambda call, _: call.run(scale=1.0 / call.tensors()[1].shape[-1]),
    "wrong_border": _wrong_border,
    "uninitialised_momentum": _uninitialised_momentum,
    "wrong_optimizer_eps": lambda call, _: call.run(eps=1e-4),
    "miss_infinity": _miss_infinity,
    "noise_when_contended": _noise_when_contended,
    "noise_when_filled": _noise_when_filled,
    "first_weights": _first_weights,
}
