"""The calls of optimizers, clipping, loss scaler and EMA on long lists of tensors: of all sizes, and of two layouts."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from ..hashed import HashedDraw
from ..recipe import Builder, Recipe, Tensors

SHAPES: tuple[tuple[int, ...], ...] = (
    (70_001,), (3,), (1,), (5, 7), (6, 4, 3, 3), (2, 3, 5, 5), (16_385,), *[(1 + i % 7,) for i in range(130)], (4_099,), (2,)
)  # fmt: skip
"""More tensors than one launch takes, none but a few a multiple of 4 long, two of four dimensions, a large one among small."""
COUNT = sum(torch.Size(shape).numel() for shape in SHAPES)

Lists = Callable[[list[Tensor], list[Tensor], list[Tensor]], Any]


def tensors_of(flat: Tensor) -> list[Tensor]:
    """Return tensors of ``SHAPES`` with memory of their own; every second one of four dimensions is channels_last."""
    found, at, last = [], 0, False
    for shape in SHAPES:
        count = torch.Size(shape).numel()
        tensor = flat[at : at + count].view(shape).clone()
        if len(shape) == 4:
            last = not last
            tensor = tensor.contiguous(memory_format=torch.channels_last) if last else tensor
        found.append(tensor)
        at += count
    return found


def _scalars(x: list[Tensor]) -> list[float]:
    return [0.3 + 0.01 * i for i in range(len(x))]


CALLS: dict[str, Lists] = {
    "add": lambda x, y, z: torch._foreach_add(x, y, alpha=0.3),
    "add_": lambda x, y, z: torch._foreach_add_(x, y, alpha=-0.3),
    "add_scalar_": lambda x, y, z: torch._foreach_add_(x, 0.3),
    "sub_": lambda x, y, z: torch._foreach_sub_(x, y, alpha=0.3),
    "add_scalars_": lambda x, y, z: torch._foreach_add_(x, _scalars(x)),
    "mul": lambda x, y, z: torch._foreach_mul(x, 0.7),
    "mul_": lambda x, y, z: torch._foreach_mul_(x, 0.7),
    "mul_tensor_": lambda x, y, z: torch._foreach_mul_(x, x[0].new_tensor(0.7)),
    "mul_each_": lambda x, y, z: torch._foreach_mul_(x, y),
    "mul_scalars_": lambda x, y, z: torch._foreach_mul_(x, _scalars(x)),
    "div": lambda x, y, z: torch._foreach_div(x, 0.7),
    "div_": lambda x, y, z: torch._foreach_div_(x, y),
    "div_scalars_": lambda x, y, z: torch._foreach_div_(x, _scalars(x)),
    "div_scalars": lambda x, y, z: torch._foreach_div(x, _scalars(x)),
    "lerp": lambda x, y, z: torch._foreach_lerp(x, y, 0.1),
    "lerp_": lambda x, y, z: torch._foreach_lerp_(x, y, 0.1),
    "addcmul": lambda x, y, z: torch._foreach_addcmul(x, y, z, value=0.2),
    "addcmul_": lambda x, y, z: torch._foreach_addcmul_(x, y, z, value=-0.2),
    "addcdiv": lambda x, y, z: torch._foreach_addcdiv(x, y, z, value=-0.2),
    "addcdiv_": lambda x, y, z: torch._foreach_addcdiv_(x, y, z, -0.2),
    "addcdiv_scalars_": lambda x, y, z: torch._foreach_addcdiv_(x, y, z, [-s for s in _scalars(x)]),
    "addcmul_scalars_": lambda x, y, z: torch._foreach_addcmul_(x, y, z, _scalars(x)),
    "sqrt": lambda x, y, z: torch._foreach_sqrt(y),
    "sqrt_": lambda x, y, z: torch._foreach_sqrt_(y),
    "neg_": lambda x, y, z: torch._foreach_neg_(x),
    "abs": lambda x, y, z: torch._foreach_abs(x),
    "reciprocal_": lambda x, y, z: torch._foreach_reciprocal_(y),
    "maximum_": lambda x, y, z: torch._foreach_maximum_(x, z),
    "zero_": lambda x, y, z: torch._foreach_zero_(x),
    "copy_": lambda x, y, z: torch._foreach_copy_(x, y),
    "pow": lambda x, y, z: torch._foreach_pow(y, 2.0),
    "norm": lambda x, y, z: torch._foreach_norm(y),
    "norm_inf": lambda x, y, z: torch._foreach_norm(x, float("inf")),
    "norm_one": lambda x, y, z: torch._foreach_norm(x, 1.0),
    "mixed_": lambda x, y, z: torch._foreach_add_(x, [_other_layout(t) for t in y], alpha=0.3),
    "clip": lambda x, y, z: _clip(x, y),
}
"""By name: three lists, the second and third positive; what is written in place is compared as well."""


def _other_layout(tensor: Tensor) -> Tensor:
    if tensor.ndim != 4:
        return tensor
    return tensor.contiguous(memory_format=torch.channels_last if tensor.is_contiguous() else torch.contiguous_format)


def _clip(x: list[Tensor], y: list[Tensor]) -> list[Tensor]:
    parameters = [torch.nn.Parameter(t) for t in x]
    for parameter, gradient in zip(parameters, y, strict=True):
        parameter.grad = gradient
    return [torch.nn.utils.clip_grad_norm_(parameters, 10.0)]


def foreach(params: Mapping[str, Any], draw: HashedDraw) -> Recipe:
    """Return a call on three lists: what it gives, and what is in the lists afterwards."""
    call = CALLS[params["name"]]
    inputs = {name: draw(name, COUNT, low=low, high=2) for name, low in (("x", -2), ("y", 0.5), ("z", 0.5))}

    def compute(x: Tensor, y: Tensor, z: Tensor) -> Tensors:
        lists = [tensors_of(t) for t in (x, y, z)]
        given = call(*lists)
        parts = {f"list{i}": torch.cat([t.detach().reshape(-1) for t in held]) for i, held in enumerate(lists[:2])}
        return parts if given is None else {**parts, "given": torch.cat([t.detach().reshape(-1) for t in given])}

    return Recipe(inputs=inputs, compute=compute)


def unscale(params: Mapping[str, Any], draw: HashedDraw) -> Recipe:
    """Return gradients after the loss scaler has unscaled them, and what it says of them: sound, or wrong at one place each."""
    inputs = {"x": draw("x", COUNT)}
    at = [0, 3, 6, 70, len(SHAPES) - 1]

    def compute(x: Tensor) -> Tensors:
        single = torch.promote_types(x.dtype, torch.float32)
        inverse = torch.full((1,), 1 / 1024, device=x.device)
        sound = tensors_of(x.to(single))

        def said(gradients: list[Tensor]) -> Tensor:
            found = torch.zeros(1, device=x.device)
            torch._amp_foreach_non_finite_check_and_unscale_(gradients, found, inverse)
            return found

        answers = []
        for which in at:
            for value in (float("nan"), float("inf"), -float("inf")):
                gradients = [t.clone() for t in (sound[0][:9], sound[which])]
                gradients[1].view(-1)[-1] = value
                answers.append(said(gradients))
        answers.append(said(sound))
        return {"said": torch.cat(answers), "sound": torch.cat([t.reshape(-1) for t in sound])}

    return Recipe(inputs=inputs, compute=compute)


def update_scale(params: Mapping[str, Any], draw: HashedDraw) -> Recipe:
    """Return scale and tracker over steps with overflows and growth between them."""

    def compute(x: Tensor) -> Tensors:
        scale, tracker = torch.full((1,), 1024.0, device=x.device), torch.zeros(1, dtype=torch.int32, device=x.device)
        seen = []
        for wrong in (0, 0, 1, 0, 0, 0, 0, 1, 1, 0, 0, 0, 0):
            found = torch.full((1,), float(wrong), device=x.device)
            torch._amp_update_scale_(scale, tracker, found, 2.0, 0.5, 3)
            seen.append(torch.cat([scale, tracker.float()]))
        return {"seen": torch.stack(seen)}

    return Recipe(inputs={"x": draw("x", 1)}, compute=compute, scale="none")


RECIPES: dict[str, Builder] = {
    "foreach": foreach,
    "unscale": unscale,
    "update_scale": update_scale,
}
