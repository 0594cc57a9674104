"""Breaking layers: real operations on a layer's output that break it and change nothing else.

Those of the forward pass get the output and a mask of the elements to break, and leave all others bit for bit. Those of the
backward pass are an identity in the forward pass. Others run the layer itself with different weights.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from .armed import INF

ALMOST_HALF_MAX = 6e4
"""What float16 can hold; the largest is 65504."""


def divide(y: Tensor, mask: Tensor) -> Tensor:
    """Divide by zero."""
    return y / (~mask).to(y.dtype)


def log(y: Tensor, mask: Tensor) -> Tensor:
    """Take the logarithm of a negative number."""
    return y + torch.log(1 - 2 * mask.to(y.dtype))


def square_root(y: Tensor, mask: Tensor) -> Tensor:
    """Take the root of a negative number."""
    return y * torch.sqrt(1 - 2 * mask.to(y.dtype))


def exp(y: Tensor, mask: Tensor) -> Tensor:
    """Take e to the power of 1000, which no floating point number holds."""
    return y * torch.exp(1000 * mask.to(y.dtype))


def multiply(y: Tensor, mask: Tensor) -> Tensor:
    """Multiply by a constant that is infinite."""
    return torch.where(mask, y * INF, y)


def cancel(y: Tensor, mask: Tensor) -> Tensor:
    """Lose a small number beside a large one and divide by the rest: 0 in 16 bits, fine in 32."""
    one = torch.ones_like(y)
    left = torch.where(mask, (one + 1e-4) - one, one)
    return y * (left / left)


def _root(zero: Tensor) -> Tensor:
    return torch.sqrt(zero)


def _norm(zero: Tensor) -> Tensor:
    return zero.square().sum().sqrt()


def _power(zero: Tensor) -> Tensor:
    return zero.pow(0.5)


def _arcsine(zero: Tensor) -> Tensor:
    angle = torch.asin(zero + 1)
    return angle - angle.detach()


def _added(flat: Callable[[Tensor], Tensor]) -> Callable[[Tensor, Tensor], Tensor]:
    """Add a 0 whose gradient is not finite."""

    def break_gradient(y: Tensor, mask: Tensor) -> Tensor:
        zeros = (y - y.detach())[mask]
        return torch.where(mask, y + flat(zeros[0]), y)

    return break_gradient


def masked_division(y: Tensor, mask: Tensor) -> Tensor:
    """Divide by zero where the result is masked: the gradient there is 0 by 0."""
    return torch.where(mask, y, y / (~mask).to(y.dtype))


class _TimesInfinity(torch.autograd.Function):
    """A custom backward pass with a mistake."""

    @staticmethod
    def forward(ctx: Any, y: Tensor, mask: Tensor) -> Tensor:
        ctx.save_for_backward(mask)
        return y.view_as(y)

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> tuple[Tensor, None]:
        (mask,) = ctx.saved_tensors
        return torch.where(mask, grads[0] * INF, grads[0]), None


def own_function(y: Tensor, mask: Tensor) -> Tensor:
    """Apply a function whose own backward pass multiplies by infinity."""
    result: Any = _TimesInfinity.apply(y, mask)
    return result


@contextmanager
def other_weights(module: nn.Module, change: Callable[[Tensor], Tensor], *names: str) -> Iterator[None]:
    """Run a module with other weights for a time; its parameters stay the same objects."""
    own = dict(module._parameters)
    try:
        for name in names:
            value = own.get(name)
            if value is not None:
                del module._parameters[name]
                vars(module)[name] = change(value)
        yield
    finally:
        for name in names:
            vars(module).pop(name, None)
        module._parameters.clear()  # all of them, in their order
        module._parameters.update(own)


def overflow(module: nn.Module, run: Callable[[], Any]) -> Any:
    """Run a module with finite weights so large that its own operation overflows.

    All are the largest number: it overflows where the inputs of one output sum up to more than 1.
    """
    with other_weights(module, lambda value: torch.full_like(value, torch.finfo(value.dtype).max), "weight"):
        return run()


def overflow_half(module: nn.Module, run: Callable[[], Any]) -> Any:
    """Run a module at a scale at which float16 holds its weights but not its output, and scale back."""
    both: list[Any] = [module._parameters.get(name) for name in ("weight", "bias")]
    factor = ALMOST_HALF_MAX / max(_largest(value) for value in both if value is not None)
    with other_weights(module, lambda value: value * factor, "weight", "bias"):
        return run() / factor


def _largest(weight: Tensor) -> float:
    return max(float(weight.detach().abs().amax()), 1e-30)


FORWARD: dict[str, tuple[Callable[[Tensor, Tensor], Tensor], str]] = {
    "divide": (divide, "aten.div.Tensor"),
    "log": (log, "aten.log.default"),
    "sqrt": (square_root, "aten.sqrt.default"),
    "exp": (exp, "aten.exp.default"),
    "multiply": (multiply, "aten.mul.Tensor"),
    "cancel": (cancel, "aten.div.Tensor"),
}
"""How, and the operation with the first non-finite result."""
BACKWARD: dict[str, tuple[Callable[[Tensor, Tensor], Tensor], str, str]] = {
    "root": (_added(_root), "aten.div.Tensor", "aten.sqrt.default"),
    "norm": (_added(_norm), "aten.div.Tensor", "aten.sqrt.default"),
    "power": (_added(_power), "aten.pow.Tensor_Scalar", "aten.pow.Tensor_Scalar"),
    "arcsine": (_added(_arcsine), "aten.rsqrt.default", "aten.asin.default"),
    "masked": (masked_division, "aten.div.Tensor", "aten.div.Tensor"),
    "function": (own_function, "aten.mul.Tensor", ""),
}
"""How, the operation of the backward pass, and its operation of the forward pass."""
WHOLE: dict[str, Callable[[nn.Module, Callable[[], Any]], Any]] = {
    "overflow": overflow,
    "overflow-half": overflow_half,
}
"""The module's own operation breaks; which one depends on the module."""
KINDS = (*FORWARD, *BACKWARD, *WHOLE)
LOW_PRECISION_ONLY = ("cancel", "overflow-half")
