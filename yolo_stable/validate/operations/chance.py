"""Random numbers of a device: what must hold of them, whatever they are."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812 - its usual name
from torch import Tensor

from ..hashed import HashedDraw
from ..recipe import Builder, Recipe, Tensors


def _near(value: Tensor, expected: float, deviation: float) -> Tensor:
    """Return whether a mean is within six deviations: one in 500 million is not."""
    return (value - expected).abs().view(1) <= 6 * deviation


def chance(params: Mapping[str, Any], draw: HashedDraw) -> Recipe:
    """Return what must hold of numbers that a device draws, whatever they are."""
    count = 100_003

    def compute(x: Tensor) -> Tensors:
        uniform, normal = torch.rand(count, device=x.device), torch.randn(count, device=x.device)
        whole, order = torch.randint(3, 10, (count,), device=x.device), torch.randperm(count, device=x.device)
        ones = torch.ones(count, device=x.device)
        dropped, coin = F.dropout(ones, 0.3, training=True), torch.bernoulli(torch.full_like(ones, 0.25))
        root = count**-0.5
        other = torch.rand(count, device=x.device)
        span, scaled = torch.empty_like(ones).uniform_(-0.25, 0.75), torch.empty_like(ones).normal_(0, 0.04)
        grid, few = torch.rand(9, 501, device=x.device), torch.randperm(50, device=x.device)
        coins = torch.empty(9, 501, device=x.device).bernoulli_(0.5)
        maps = F.dropout2d(torch.ones(5, 7, 4, 4, device=x.device), 0.3, training=True)
        kept, mask = torch.native_dropout(ones, 0.2, True)
        return {
            "uniform_range": ((uniform >= 0) & (uniform < 1)).all().view(1),
            "uniform_mean": _near(uniform.mean(), 0.5, 0.2887 * root),
            "uniform_tail": (uniform[-64:] != uniform[:64]).any().view(1) & (uniform[-64:].std() > 0.1).view(1),
            "other_numbers": (uniform != other).any().view(1),
            "normal_mean": _near(normal.mean(), 0.0, root),
            "normal_square": _near(normal.square().mean(), 1.0, 1.4143 * root),
            "normal_tail": (normal[-64:].std() > 0.3).view(1),
            "whole_range": (whole.min() == 3).view(1) & (whole.max() == 9).view(1),
            "whole_mean": _near(whole.float().mean(), 6.0, 2 * root),
            "order": (order.sort().values == torch.arange(count, device=x.device)).all().view(1),
            "order_moves": (order != torch.arange(count, device=x.device)).float().mean().view(1) > 0.99,
            "dropped_values": ((dropped == 0) | ((dropped - 1 / 0.7).abs() < 1e-5)).all().view(1),
            "dropped_share": _near((dropped == 0).float().mean(), 0.3, 0.4583 * root),
            "dropped_mean": _near(dropped.mean(), 1.0, 0.6547 * root),
            "not_in_evaluation": (F.dropout(ones, 0.3, training=False) == 1).all().view(1),
            "coin": _near(coin.mean(), 0.25, 0.433 * root),
            "coin_halves": _near(coin[-30_000:].mean(), 0.25, 0.433 * 30_000**-0.5),
            "rows_differ": (grid[0] != grid[1]).any().view(1) & (coins[0] != coins[1]).any().view(1),
            "period": (uniform[:1_024] != uniform[1_024:2_048]).any().view(1)
            & (normal[:1_024] != normal[1_024:2_048]).any().view(1),
            "bits": torch.tensor([len(t[:9_000].unique()) > 8_900 for t in (uniform, span)], device=x.device),
            "span_range": ((span >= -0.25) & (span <= 0.75)).all().view(1),
            "span_mean": _near(span.mean(), 0.25, 0.2887 * root),
            "span_low": (span < -0.24).any().view(1),
            "span_high": (span > 0.74).any().view(1),
            "scaled_square": _near(scaled.square().mean() / 0.04**2, 1.0, 1.4143 * root),
            "scaled_mean": _near(scaled.mean() / 0.04, 0.0, root),
            "normal_signs": _near((normal > 0).float().mean(), 0.5, 0.5 * root),
            "normal_far": (normal.abs().max() > 3.5).view(1),
            "normal_fourth": _near(normal.pow(4).mean(), 3.0, 9.8 * root),
            "whole_each": (torch.bincount(whole, minlength=10)[3:] > 13_000).all().view(1),
            "like": _near(torch.rand_like(ones).mean(), 0.5, 0.2887 * root),
            "normal_like": _near(torch.randn_like(ones).mean(), 0.0, root),
            "few_order": (few.sort().values == torch.arange(50, device=x.device)).all().view(1),
            "drawn": _near(
                (torch.multinomial(ones[:4], 9_000, replacement=True) < 2).float().mean(), 0.5, 0.5 * 9_000**-0.5
            ),
            "channels": ((maps == 0).flatten(2).float().mean(2) % 1 == 0).all().view(1),
            "native": ((kept != 0) == mask).all().view(1),
            "native_scale": ((kept == 0) | ((kept - 1.25).abs() < 1e-5)).all().view(1),
            "native_share": _near(mask.float().mean(), 0.8, 0.4 * root),
            "independent": _near((uniform[1:] - 0.5).mul(uniform[:-1] - 0.5).mean(), 0.0, root / 12),
        }

    return Recipe(inputs={"x": draw("x", 4)}, compute=compute, scale="none")


def dropout_backward(params: Mapping[str, Any], draw: HashedDraw) -> Recipe:
    """Return whether dropout drops and scales a gradient exactly as its result."""

    def compute(x: Tensor) -> Tensor:
        same = []
        for drop in (lambda t: F.dropout(t, 0.4, training=True), lambda t: torch.native_dropout(t, 0.4, True)[0]):
            with torch.enable_grad():
                leaf = x.detach().requires_grad_()
                out = drop(leaf)
                (gradient,) = torch.autograd.grad(out.sum(), leaf)
            same += [((out == 0) == (gradient == 0)).all(), (out - leaf * gradient).abs().max() < 1e-5]
        return torch.stack(same)

    return Recipe(inputs={"x": draw("x", 30_011, low=0.5)}, compute=compute, scale="none")


RECIPES: dict[str, Builder] = {
    "chance": chance,
    "dropout_backward": dropout_backward,
}
