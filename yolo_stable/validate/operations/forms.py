"""Functions of tensors in the forms in which training calls them: broadcast, scaled, by scalars, weighted, in rows and pieces."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812 - its usual name
from torch import Tensor

from ..hashed import HashedDraw
from ..recipe import Builder, Recipe, Tensors

Form = tuple[Callable[..., "Tensor | Mapping[str, Tensor]"], tuple[tuple[int, ...], ...]]
_MAP = (3, 43, 9, 13)
"""No side is a multiple of 4, and there are more channels than a block has."""
_EVEN = (2, 36, 12, 20)
"""As in a training of 640 pixels, where pairs of channels and columns are whole, and groups of 8 are not."""
_ANCHORS = (3, 41, 5)


def _bce(x: Tensor, t: Tensor, w: Tensor) -> Tensors:
    loss = F.binary_cross_entropy_with_logits
    return {
        "plain": loss(x * 9, t, reduction="none"),
        "weight": loss(x, t, w.abs() + 0.3, reduction="none"),
        "positive": loss(x, t, pos_weight=w.abs() + 0.3, reduction="none"),
        "mean": loss(x * 9, t).view(1),
        "sum": loss(x, t, reduction="sum").view(1),
        "probability": F.binary_cross_entropy(t * 0.9 + 0.05, t.detach(), reduction="none"),
    }


def _small(x: Tensor, y: Tensor) -> Tensors:
    """Differences far below 1, as of a loss near its end: every sign and step still counts."""
    few, right = x * 1e-4, y * 1e-4
    return {
        "l1": F.l1_loss(few, right, reduction="none"),
        "smooth": F.smooth_l1_loss(few, right, reduction="none"),
        "mse": F.mse_loss(few, right, reduction="none"),
        "sigmoid": torch.sigmoid(x * 14),
        "log-near-one": torch.log(1 + x * 0.05),
        "far": (x - 99).softmax(-1),
        "log1p": torch.log1p(x * 1e-3),
        "expm1": torch.expm1(x * 1e-3),
        "log_sigmoid": F.logsigmoid(x * 20),
    }


def _both(functions: Mapping[str, Callable[[Tensor], Tensor]]) -> Callable[[Tensor, Tensor], Tensors]:
    def compute(x: Tensor, y: Tensor) -> Tensors:
        return {f"{name}{i}": call(t) for name, call in functions.items() for i, t in enumerate((x, y))}

    return compute


_pools = _both(
    {
        "max5": lambda x: F.max_pool2d(x, 5, 1, 2),
        "max2": lambda x: F.max_pool2d(x, 2),
        "max3": lambda x: F.max_pool2d(x, 3, 2, 1),
        "ceil": lambda x: F.max_pool2d(x, 2, 2, 0, 1, True),
        "avg2": lambda x: F.avg_pool2d(x, 2, 1),
        "avg3": lambda x: F.avg_pool2d(x, 3, 2, 1),
        "plain": lambda x: F.avg_pool2d(x, 2, 2),
        "mean": lambda x: F.adaptive_avg_pool2d(x, 1),
        "adaptive": lambda x: F.adaptive_avg_pool2d(x, 3),
    }
)
_resize = _both(
    {
        "nearest": lambda x: F.interpolate(x, scale_factor=2.0),
        "odd": lambda x: F.interpolate(x, size=(17, 21)),
        "less": lambda x: F.interpolate(x, size=(7, 9)),
        "bilinear": lambda x: F.interpolate(x, size=(17, 29), mode="bilinear"),
        "double": lambda x: F.interpolate(x, scale_factor=2.0, mode="bilinear"),
        "smaller": lambda x: F.interpolate(x, size=(5, 7), mode="bilinear"),
        "corners": lambda x: F.interpolate(x, size=(17, 29), mode="bilinear", align_corners=True),
        "thirds": lambda x: F.interpolate(x, scale_factor=1 / 3, mode="bilinear"),
    }
)
_activations = _both(
    {
        "silu": lambda x: F.silu(x * 30),
        "sigmoid": lambda x: torch.sigmoid(x * 30),
        "relu": lambda x: F.relu(x),
        "gelu": lambda x: F.gelu(x * 12),
        "leaky": lambda x: F.leaky_relu(x, 0.1),
        "hardswish": lambda x: F.hardswish(x * 8),
        "tanh": lambda x: torch.tanh(x * 9),
        "softplus": lambda x: F.softplus(x * 25),
        "exp": lambda x: torch.exp(x * 4),
        "inplace": lambda x: F.silu(x * 30, inplace=True),
        "relu-in-place": lambda x: F.relu(x * 2, inplace=True),
        "leaky-in-place": lambda x: F.leaky_relu(x * 2, 0.1, inplace=True),
    }
)


def _grid(x: Tensor, grid: Tensor) -> Tensors:
    """Points inside and outside; whole numbers of 128ths stay away from the places where an index jumps."""
    points = torch.floor(grid.detach() * 160) / 128 + 1 / 300
    return {
        f"{padding}-{corners}": F.grid_sample(x, points, padding_mode=padding, align_corners=corners)
        for padding in ("zeros", "border")
        for corners in (False, True)
    }


def _joined(x: Tensor, y: Tensor) -> Tensors:
    """Concatenations of equal shapes in every dimension, and of two types: the finer one loses nothing."""
    coarse = {"half": x.half(), "bfloat16": x.bfloat16()}
    return {
        **{f"cat{i}": torch.cat([x, y], i) for i in range(x.ndim)},
        **{f"three{i}": torch.cat([y, x, y], i) for i in (1, 3)},
        **{f"stack{i}": torch.stack([x, y], i) for i in (0, 1, 4)},
        **{f"cat-{name}": torch.cat([t, y], 1) for name, t in coarse.items()},
        **{f"mul-{name}": t * y for name, t in coarse.items()},
        **{f"add-{name}": y + t for name, t in coarse.items()},
        **{f"where-{name}": torch.where(y > 0, y, t) for name, t in coarse.items()},
    }


FORMS: dict[str, Form] = {
    "residual": (lambda x, y: x + y, (_MAP, _MAP)),
    "scaled-add": (lambda x, y: torch.add(x, y, alpha=0.3), (_MAP, _MAP)),
    "scaled-sub": (lambda x, y: torch.sub(x, y, alpha=0.3), (_MAP, _MAP)),
    "product": (lambda x, y: x * y, (_MAP, _MAP)),
    "last-one": (lambda x, y: x * y + x / (y + 3), (_ANCHORS, (3, 41, 1))),
    "first-one": (lambda x, y: x * y - y, (_ANCHORS, (1, 41, 5))),
    "middle-one": (lambda x, y: x / (y + 3) + y, (_ANCHORS, (3, 1, 5))),
    "fewer": (lambda x, y: x * y + y, (_ANCHORS, (5,))),
    "pairs": (lambda x, y: torch.maximum(x[:, None], y[None]), ((37, 4), (29, 4))),
    "scalars": (
        lambda x: {
            "mul": x * 0.9999,
            "add": x + 1e-3,
            "div": x / 3.0,
            "minus": 0.1 - x,
            "over": 0.1 / (x + 2),
            "base": 0.999 ** (x * 50),
            "tensor": x * x.new_tensor(0.9999),
        },
        (_MAP,),
    ),
    "lerp": (
        lambda x, y: {
            "number": torch.lerp(x, y, 0.1),
            "large": torch.lerp(x, y, 0.9),
            "tensor": torch.lerp(x, y, x.abs()),
        },
        (_MAP, _MAP),
    ),
    "addcmul": (
        lambda x, y, z: {
            "cmul": torch.addcmul(x, y, z, value=0.1),
            "cdiv": torch.addcdiv(x, y, z + 3, value=-0.1),
            "one": torch.addcmul(x, y, z),
        },
        (_MAP, _MAP, _MAP),
    ),
    "powers": (
        lambda x: {
            "square": x**2,
            "cube": x**3,
            "half": (x.abs() + 0.1) ** 0.5,
            "sixth": (x.abs() + 0.1) ** 6.0,
            "minus": (x.abs() + 0.3) ** -1.0,
            "odd": (x.abs() + 0.1) ** 1.3,
            "tensor": (x.abs() + 0.1) ** (x + 2),
        },
        (_MAP,),
    ),
    "angles": (
        lambda x: {
            "sin": torch.sin(x * 7),
            "cos": torch.cos(x * 7),
            "atan": torch.atan(x * 9),
            "atan2": torch.atan2(x, x.flip(0) + 3),
            "tan": torch.tan(x),
        },
        (_MAP,),
    ),
    "bounds": (
        lambda x, y: {
            "both": x.clamp(-0.3, 0.4),
            "low": x.clamp(min=0.1),
            "high": x.clamp(max=0.1),
            "tensors": torch.clamp(x, -y.abs(), y.abs()),
            "relu6": F.relu6(x * 9),
        },
        (_MAP, _MAP),
    ),
    "rows": (
        lambda x: {
            "sum": x.sum(-1),
            "mean": x.mean(-1),
            "var": x.var(-1),
            "std": x.std(-1),
            "norm": x.norm(dim=-1),
            "amax": x.amax(-1),
            "amin": x.amin(-1),
            "prod": (x[:, :2] + 2).prod(-1),
            "lse": x.logsumexp(-1),
            "cumsum": x.cumsum(-1),
            "max": x.max(-1).values,
            "softmax": (9 * x).softmax(-1),
        },
        ((301, 83),),
    ),
    "columns": (
        lambda x: {
            "sum": x.sum(0),
            "mean": x.mean(0),
            "var": x.var(0),
            "norm": x.norm(dim=0),
            "amax": x.amax(0),
            "cumsum": x.cumsum(0),
            "softmax": x.softmax(0),
            "log_softmax": x.log_softmax(0),
            "inner": x.view(7, 43, 83).softmax(1),
            "min": x.min(0).values,
        },
        ((301, 83),),
    ),
    "channels": (
        lambda x: {
            "sum": x.sum((0, 2, 3)),
            "mean": x.mean((2, 3), keepdim=True),
            "pool": F.adaptive_avg_pool2d(x, 1),
            "norm": x.norm(dim=1),
            "var": x.var((0, 2, 3)),
            "softmax": (x * 9).softmax(1),
            "batch": x.sum(0),
            "seven": F.adaptive_avg_pool2d(x[..., :7, :7], 1),
            "max": x.amax((2, 3)),
            "pixels": x.sum(1),
        },
        (_MAP,),
    ),
    "negative": (
        lambda x: {
            "max": (x - 3).max(-1).values,
            "amax": (x - 3).amax(-1),
            "all": (x - 3).max().view(1),
            "min": (x + 3).min(-1).values,
            "amin": (x + 3).amin(-1),
            "least": (x + 3).min().view(1),
            "pool": F.max_pool2d(x - 3, 3, 1, 1),
            "top": (x - 3).topk(3).values,
            "sorted": (x - 3).sort(-1).values,
        },
        (_MAP,),
    ),
    "joined": (_joined, (_EVEN, _EVEN)),
    "pools": (_pools, (_MAP, _EVEN)),
    "resize": (_resize, (_MAP, _EVEN)),
    "activations": (_activations, (_MAP, _EVEN)),
    "grid": (_grid, (_MAP, (3, 7, 5, 2))),
    "bce": (_bce, ((41, 13), (41, 13), (13,))),
    "small": (_small, (_MAP, _MAP)),
    "pieces": (
        lambda x: {
            "chunk": F.silu(x.chunk(2, 1)[1]),
            "split": x.split((2, 41), 1)[1] * 2,
            "slice": x[:, 1:, 2:, 1::2] + 1,
            "unbind": x.unbind(1)[3],
            "narrow": x.narrow(3, 5, 7) * 3,
            "five": torch.cat([x, x[:, 1:], x[:, 2:], x, x[:, :1]], 1),
            "last": torch.cat([x.flatten(2), x[..., :3].flatten(2), x[..., 0]], 2),
            "stack": torch.stack([x, x * 2], -1),
            "expand": x[:1].expand(4, -1, -1, -1) * x[:1, :1],
            "turned": x.transpose(2, 3).contiguous() * 2,
            "flip": x.flip(-1),
            "repeat": x.repeat(2, 1, 1, 2),
            "each": x.repeat_interleave(2, 0),
            "pad": F.pad(x, (1, 2, 0, 1), value=0.3),
        },
        (_MAP,),
    ),
    "chosen": (
        lambda x: {
            "taken": x[[4, 1, 1, 0, 2, 4]],
            "pairs": x[[0, 3, 2], [4, 1, 1]],
            "rows": x.index_select(1, x.new_tensor([6, 0, 2, 2, 5]).long()),
            "gather": x.gather(0, torch.tensor([[4], [1], [1]], device=x.device).expand(-1, 9)),
            "mask": x[:, [True, False, True] * 3],
            "where": torch.where(torch.tensor([[True], [False], [True], [False], [False]], device=x.device), x, x * 2),
            "fill": x.masked_fill(torch.tensor([True, False, True] * 3, device=x.device), 0.3),
            "add": x.new_zeros(5, 9).index_add(0, torch.tensor([3, 1, 1, 3, 0], device=x.device), x, alpha=2),
            "scatter": x.new_zeros(5, 9).scatter_add(1, torch.zeros(5, 9, dtype=torch.int64, device=x.device) + 2, x),
            "put": x.new_zeros(4, 9).index_put((torch.tensor([3, 1, 1, 3, 0], device=x.device),), x, accumulate=True),
            "along": x.take_along_dim(torch.tensor([[8, 0, 4]], device=x.device).expand(5, -1), 1),
        },
        ((5, 9),),
    ),
}
"""By name: the function, and the shapes of what it takes; the gradients by all of it are compared as well."""


def form(params: Mapping[str, Any], draw: HashedDraw) -> Recipe:
    """Return a function of tensors, with all gradients."""
    compute, shapes = FORMS[params["name"]]
    inputs = {f"x{i}": draw(f"x{i}", *shape) for i, shape in enumerate(shapes)}
    if params["name"] == "bce":
        inputs["x1"] = inputs["x1"].abs()
    gradients = ("x0",) if params["name"] in ("bce", "grid") else tuple(inputs)
    return Recipe(inputs=inputs, compute=compute, gradients=gradients)


def low_sums(params: Mapping[str, Any], draw: HashedDraw) -> Recipe:
    """Return long sums of positive numbers: in 16 bits they stall unless they are kept in more."""

    def compute(x: Tensor) -> Tensors:
        part = x[:40_000]
        return {
            "sum": x.sum().view(1),
            "mean": x.mean().view(1),
            "norm": x.norm().view(1),
            "part": part.sum().view(1) / 8,
            "rows": x[:64_000].view(20, 3_200).sum(1),
            "row-mean": x[:64_000].view(20, 3_200).mean(1),
            "columns": x[:64_000].view(3_200, 20).sum(0),
            "channels": x[:66_000].view(4, 5, 30, 110).sum((0, 2, 3)),
            "var": x[:64_000].view(20, 3_200).var(1),
            "foreach": torch.stack(torch._foreach_norm([x, part])),
            "row-norm": x[:64_000].view(20, 3_200).norm(dim=1),
            "softmax": (x[:4_000].view(10, 400)).softmax(1) * 100,
        }

    return Recipe(inputs={"x": draw("x", 70_003, low=0.05, high=0.6)}, compute=compute)


RECIPES: dict[str, Builder] = {"form": form, "low_sums": low_sums}
