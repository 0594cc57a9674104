"""NaN and infinity in the calls that the guard reads health from: norms, maxima, optimizers' kernels, copies."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from ..evidence import KernelMissingError
from ..hashed import HashedDraw
from ..recipe import Recipe, Tensors

SIZES = (1, 33, 4_097, 70_001)
"""Elements: a scalar, a vector loop with a tail, several blocks, and more than a chunk of the foreach kernels."""
SHOWN = 4_097
"""Elements up to which whole tensors are compared, not their reductions alone."""
_ASKED = "is" + "nan"
"""Only here a device is asked this; everywhere else ``isfinite``."""
WRONG = {"nan": float("nan"), "inf": float("inf"), "-inf": float("-inf")}

Call = Callable[[Tensor], "list[Tensor]"]
"""Takes a 1-d tensor in which one number may be wrong, and returns what is computed from it, scalars or tensors."""


def _wide(x: Tensor) -> dict[str, torch.dtype]:
    return {} if x.dtype in (torch.float32, torch.float64) else {"dtype": torch.float32}


def _foreach_norms(x: Tensor) -> list[Tensor]:
    one = torch.ones_like(x)
    norms = [torch._foreach_norm([one, x, one], order, **_wide(x)) for order in (2.0, float("inf"))]
    return [*norms[0], *norms[1], *(torch.linalg.vector_norm(torch.stack(found)) for found in norms)]


def _norms(x: Tensor) -> list[Tensor]:
    orders = (2.0, 1.0, float("inf"))
    return [*(torch.linalg.vector_norm(x, order, **_wide(x)) for order in orders), x.norm(), x.view(1, -1).norm(dim=1)]


def _clip(x: Tensor) -> list[Tensor]:
    parameters = [torch.nn.Parameter(torch.ones_like(x)) for _ in range(2)]
    parameters[0].grad, parameters[1].grad = torch.ones_like(x), x.clone()
    total = torch.nn.utils.clip_grad_norm_(parameters, 10.0)
    return [total, parameters[1].grad]


def _unscale(x: Tensor) -> list[Tensor]:
    if x.dtype != torch.float32 and x.dtype != torch.float64:
        x = x.float()
    found, inverse = torch.zeros(1, device=x.device), torch.full((1,), 0.5, device=x.device)
    gradients = [torch.ones_like(x), x.clone()]
    torch._amp_foreach_non_finite_check_and_unscale_(gradients, found, inverse)
    return [1.0 / (1.0 - found)]  # infinite where something was found: only what is finite is compared


def _foreach(x: Tensor) -> list[Tensor]:
    one = torch.ones_like(x)
    return [
        *torch._foreach_mul([one, x], 0.5),
        *torch._foreach_add([one, x], [one, one], alpha=2),
        *torch._foreach_lerp([one, x], [x, one], 0.5),
        *torch._foreach_addcmul([one, one], [x, one], [one, x], value=0.1),
        *torch._foreach_addcdiv([one, one], [x, one], [one, one], value=0.1),
        *torch._foreach_div([x], [one]),
        *torch._foreach_sqrt(torch._foreach_abs([x])),
    ]


def _foreach_in_place(x: Tensor) -> list[Tensor]:
    one, kept = torch.ones_like(x), [x.clone() for _ in range(5)]
    torch._foreach_mul_(kept[:1], 0.5)
    torch._foreach_add_(kept[1:2], [one], alpha=-0.1)
    torch._foreach_lerp_(kept[2:3], [one], 0.5)
    torch._foreach_addcdiv_(kept[3:4], [one], [one], -0.1)
    torch._foreach_copy_(kept[4:], [x])
    return kept


def _fused(optimizer: type[torch.optim.Optimizer], **settings: Any) -> Call:
    def call(x: Tensor) -> list[Tensor]:
        parameter = torch.nn.Parameter(torch.ones_like(x))
        parameter.grad = x.clone()
        other = torch.nn.Parameter(torch.ones_like(x))
        other.grad = torch.ones_like(x)
        try:
            optimizer([other, parameter], lr=0.1, fused=True, **settings).step()  # pyright: ignore[reportCallIssue]
        except RuntimeError as error:
            if "fused" in str(error) or isinstance(error, NotImplementedError):
                raise KernelMissingError(str(error)) from error
            raise
        return [other.detach(), parameter.detach()]

    return call


def _predicates(x: Tensor) -> list[Tensor]:
    finite, nan = x.isfinite(), getattr(x, _ASKED)()
    said = [finite.all(), (~finite).any(), nan.any(), x.isinf().any(), (x != x).any(), finite]
    return [1.0 / one.to(torch.float32) for one in said]  # infinite for no, as only what is finite is compared


def _copies(x: Tensor) -> list[Tensor]:
    made = [x.clone(), x.contiguous(), x.to(torch.float32), x.repeat(2)[::2].contiguous()]
    return [*made, torch.cat([x, x]), torch.stack([x, x])]


CALLS: dict[str, Call] = {
    "foreach-norm": _foreach_norms,
    "norm": _norms,
    "clip-norm": _clip,
    "unscale": _unscale,
    "max": lambda x: [x.max(), x.abs().max(), x.amax(), x.view(1, -1).max(1).values, x.view(1, -1).amax(1)],
    "min": lambda x: [x.min(), x.neg().min(), x.amin(), x.view(1, -1).min(1).values, x.view(1, -1).amin(1)],
    "aminmax": lambda x: [*torch.aminmax(x), *torch.aminmax(x.view(1, -1), dim=1)],
    "maximum": lambda x: [torch.maximum(x, x.new_zeros(())), torch.minimum(x, x.new_full((), 2.0)), x.clamp(0, 2)],
    "sum": lambda x: [x.sum(), x.mean(), x.view(1, -1).sum(1), x.square().sum(), x.cumsum(0)],
    "predicates": _predicates,
    "foreach": _foreach,
    "foreach-in-place": _foreach_in_place,
    "fused-sgd": _fused(torch.optim.SGD, momentum=0.9),
    "fused-adamw": _fused(torch.optim.AdamW),
    "copies": _copies,
}
"""By name, as the guard, the loss scaler, the EMA and the optimizers call them."""


def passes_on(params: Mapping[str, Any], draw: HashedDraw) -> Recipe:
    """Return a call on tensors of several sizes, with a wrong number at the first, middle or last place, and without."""
    inputs: Tensors = {}
    for size in SIZES:
        sound = draw(str(size), size, low=0.5)
        inputs[f"{size}"] = sound
        for place in sorted({0, size // 2, size - 1}):
            for name, value in WRONG.items():
                inputs[f"{size}-{place}-{name}"] = sound.clone()
                inputs[f"{size}-{place}-{name}"][place] = value
    call = CALLS[params["name"]]

    def compute(*tensors: Tensor) -> Tensors:
        scalars, shown = [], []
        for x in tensors:
            for result in call(x):
                if result.numel() == 1:
                    scalars.append(result.reshape(1).to(torch.promote_types(result.dtype, torch.float32)))
                elif x.numel() <= SHOWN:
                    shown.append(result.reshape(-1).to(x.dtype))  # fetched as it is: a copy may lose NaN in one type
        return {name: torch.cat(found) for name, found in (("scalars", scalars), ("tensors", shown)) if found}

    return Recipe(inputs=inputs, compute=compute, scale="none")
