"""Mistakes: how a fault changes certain operations."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from .changes import CHANGES as GENERIC
from .changes import Call
from .changes import edited as _replaced


def flip_integer(call: Call, fault: Any) -> Any:
    """Flip the lowest bit of one integer."""

    def edit(t: Tensor) -> Tensor:
        t.view(-1)[t.numel() // 3] ^= 1
        return t

    return _replaced(call, fault, edit)


def roll(call: Call, fault: Any) -> Any:
    """Return the elements of the last dimension shifted by one."""
    return _replaced(call, fault, lambda t: t.roll(1, -1))


def add_one(call: Call, fault: Any) -> Any:
    """Return one too many."""
    return _replaced(call, fault, lambda t: t + 1)


def truncate_cast(call: Call, fault: Any) -> Any:
    """Cut off, instead of rounding, where float32 becomes bfloat16."""
    if call.kwargs.get("dtype") != torch.bfloat16 or call.args[0].dtype != torch.float32:
        return call.run()
    cut = (call.args[0].contiguous().view(torch.int32) & ~0xFFFF).view(torch.float32)
    return call.run(cut)


def saturate_cast(call: Call, fault: Any) -> Any:
    """Return infinity already for the largest numbers of float16."""
    out = call.run()
    return out.masked_fill(out.abs() > 32768, float("inf")) if out.dtype == torch.float16 else out


def lose_duplicates(call: Call, fault: Any) -> Any:
    """Add what comes last to each place, instead of all."""
    into, dim, index, source = call.args
    out = into.scatter(dim, index, into.gather(dim, index) + source)
    return into.copy_(out) if str(call.func).split(".")[1].endswith("_") else out


def not_accumulating(call: Call, fault: Any) -> Any:
    """Write what comes last to each place, instead of the sum."""
    return call.func(*call.args[:3], False) if len(call.args) > 3 and call.args[3] else call.run()


def skip_last_index(call: Call, fault: Any) -> Any:
    """Leave the place of the last index as it was."""
    into, indices, values = call.args[0], list(call.args[1]), call.args[2]
    at = next((i for i, index in enumerate(indices) if index is not None), None)
    if (
        at is None
        or indices[at].numel() < 2
        or indices[at].dtype == torch.bool
        or len([i for i in indices if i is not None]) > 1
    ):
        return call.run()
    indices[at] = indices[at][:-1]
    values = values.narrow(at, 0, values.shape[at] - 1) if values.ndim > at and values.shape[at] > 1 else values
    return call.func(into, indices, values, *call.args[3:])


def next_index(call: Call, fault: Any) -> Any:
    """Return the index after the right one."""
    return call.run() + 1


def swap_first_two(call: Call, fault: Any) -> Any:
    """Return the first two of a sorted row in the other order."""
    values, indices = call.run()
    if values.shape[-1] < 2:
        return values, indices
    order = torch.arange(values.shape[-1])
    order[:2] = torch.tensor([1, 0])
    return values[..., order], indices[..., order]


def restart_sum(call: Call, fault: Any) -> Any:
    """Begin a running sum anew after 1024 elements."""
    out, x = call.run(), call.args[0]
    if x.ndim != 2 or x.shape[1] <= 1024:
        return out
    out[:, 1024:] -= out[:, 1023:1024].clone()
    return out


def drop_last_row(call: Call, fault: Any) -> Any:
    """Return all rows but the last."""
    return call.run()[:-1]


def ignore_last_column(call: Call, fault: Any) -> Any:
    """Reduce all elements of a row but its last 400: those of a block that was left out."""
    x = call.args[0]
    return call.run(x[..., :-400], *call.args[1:]) if x.shape[-1] > 800 else call.run()


def zero_padding_pool(call: Call, fault: Any) -> Any:
    """Pad a maximum with zeros instead of minus infinity."""
    out, indices = call.run()
    edge = torch.zeros_like(out)
    edge[..., 1:-1, 1:-1] = -torch.inf
    return torch.maximum(out, edge), indices


def launder_nan(call: Call, fault: Any) -> Any:
    """Return 0 for NaN."""
    return _replaced(call, fault, lambda t: torch.nan_to_num(t, nan=0.0, posinf=torch.inf, neginf=-torch.inf))


def spread_nan(call: Call, fault: Any) -> Any:
    """Select by multiplication, in which NaN that was not chosen comes through."""
    chosen, a, b = call.args
    return chosen * a + (~chosen) * b if a.is_floating_point() else call.run()


def through_half(call: Call, fault: Any) -> Any:
    """Return a float32 result rounded to float16, as from an accumulator of that type."""
    return _replaced(call, fault, lambda t: t.half().float() if t.dtype == torch.float32 else t)


def inputs_through_half(call: Call, fault: Any) -> Any:
    """Compute a float32 operation with inputs in float16."""
    args = (a.half().float() if isinstance(a, Tensor) and a.dtype == torch.float32 else a for a in call.args)
    return call.run(*args)


def naive_log_softmax(call: Call, fault: Any) -> Any:
    """Take the logarithm of a softmax that has underflowed to 1e-7."""
    x, dim, _ = call.args
    return x.softmax(dim).clamp_min(1e-7).log()


def naive_bce(call: Call, fault: Any) -> Any:
    """Compute the loss without the shift that keeps the exponential finite."""
    x, target = call.args[:2]
    return torch.log1p(torch.exp(x)) - x * target


def wrong_padding_row(call: Call, fault: Any) -> Any:
    """Repeat the first row of the result from the second: an index off by one at the border."""

    def edit(t: Tensor) -> Tensor:
        t[:, :, 0] = t[:, :, 1]
        return t

    return _replaced(call, fault, edit) if call.args[0].ndim == 4 else call.run()


def wrong_eps(call: Call, fault: Any) -> Any:
    """Compute BatchNorm with 1e-5 in the place of its epsilon."""
    return call.run(*call.args[:7], 1e-5)


def wrong_momentum(call: Call, fault: Any) -> Any:
    """Move the running statistics by 0.1 in the place of its momentum."""
    return call.run(*call.args[:6], 0.1, *call.args[7:])


def wrong_running_var(call: Call, fault: Any) -> Any:
    """Multiply the running variance by ``amount`` after each batch."""
    out = call.run()
    call.args[4].mul_(fault.amount)
    return out


def ignore_mask(call: Call, fault: Any) -> Any:
    """Attend to what the mask hides."""
    return call.func(*call.args, **{name: None if name == "attn_mask" else v for name, v in call.kwargs.items()})


def not_causal(call: Call, fault: Any) -> Any:
    """Attend to what comes later."""
    at = 7 if "backward" in str(call.func) else 4
    args = tuple(False if i == at else a for i, a in enumerate(call.args))
    return call.func(*args, **{name: False if name == "is_causal" else v for name, v in call.kwargs.items()})


def wrong_scale(call: Call, fault: Any) -> Any:
    """Divide by the size of a head, not by its root."""
    return call.run(scale=1.0 / call.tensors()[1].shape[-1])


def wrong_border(call: Call, fault: Any) -> Any:
    """Take the border's value for points outside, instead of zero."""
    return call.run(*call.args[:3], 1 if call.args[3] == 0 else call.args[3], *call.args[4:])


def uninitialised_momentum(call: Call, fault: Any) -> Any:
    """Find what memory held before in a fresh momentum."""
    for buffer in call.args[2]:
        if not bool(buffer.any()):
            buffer.fill_(float("nan"))
    return call.run()


def wrong_optimizer_eps(call: Call, fault: Any) -> Any:
    """Divide by a root with an epsilon of 1e-4."""
    return call.run(eps=1e-4)


def miss_infinity(call: Call, fault: Any) -> Any:
    """Unscale, and overlook what is not finite."""
    out = call.run()
    call.args[1].zero_()
    return out


def _noisy(t: Tensor) -> Tensor:
    """Return the numbers, one of them in the next representable place or not, by chance."""
    if int.from_bytes(os.urandom(1), "little") % 4 and t.dtype == torch.float32:
        t.view(-1).view(torch.int32)[t.numel() // 2] ^= 1
        t.view(-1).view(torch.int32)[int.from_bytes(os.urandom(3), "little") % t.numel()] ^= 1
    return t


def last_bit_noise(call: Call, fault: Any) -> Any:
    """Return other last bits from call to call, as sums in the order of atomic additions have."""
    return _replaced(call, fault, lambda t: _noisy(t.contiguous()))


def noise_when_contended(call: Call, fault: Any) -> Any:
    """Return other last bits while another thread uses the device."""
    busy = any(thread.name == "contention" for thread in threading.enumerate())
    return last_bit_noise(call, fault) if busy else call.run()


def noise_when_filled(call: Call, fault: Any) -> Any:
    """Return other last bits when memory held other numbers before: every other call."""
    call.kept["calls"] = call.kept.get("calls", 0) + 1
    if not torch.are_deterministic_algorithms_enabled() or call.kept["calls"] % 2:
        return call.run()
    return _replaced(call, fault, lambda t: t * (1 + 2.0**-22))


def first_weights(call: Call, fault: Any) -> Any:
    """Compute with the weights of the first call, as a cache that misses changes in place."""
    x, weight = call.args[:2]
    kept = call.kept.setdefault((weight.data_ptr(), tuple(weight.shape)), weight.detach().clone())
    return call.run(x, kept, *call.args[2:])


CHANGES: dict[str, Callable[[Call, Any], Any]] = GENERIC | {
    change.__name__: change
    for change in (
        flip_integer,
        roll,
        add_one,
        truncate_cast,
        saturate_cast,
        lose_duplicates,
        not_accumulating,
        skip_last_index,
        next_index,
        swap_first_two,
        restart_sum,
        drop_last_row,
        ignore_last_column,
        zero_padding_pool,
        launder_nan,
        spread_nan,
        through_half,
        inputs_through_half,
        naive_log_softmax,
        naive_bce,
        wrong_padding_row,
        wrong_eps,
        wrong_momentum,
        wrong_running_var,
        ignore_mask,
        not_causal,
        wrong_scale,
        wrong_border,
        uninitialised_momentum,
        wrong_optimizer_eps,
        miss_infinity,
        last_bit_noise,
        noise_when_contended,
        noise_when_filled,
        first_weights,
    )
}
"""All, by the name that a fault gives."""
