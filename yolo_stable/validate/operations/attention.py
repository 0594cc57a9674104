"""Operations of the attention family."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812 - its usual name
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from ..evidence import KernelMissingError
from ..hashed import HashedDraw
from ..recipe import Recipe

KERNELS = {
    "math": SDPBackend.MATH,
    "flash": SDPBackend.FLASH_ATTENTION,
    "efficient": SDPBackend.EFFICIENT_ATTENTION,
    "cudnn": SDPBackend.CUDNN_ATTENTION,
}


def sdpa(params: Mapping[str, Any], draw: HashedDraw) -> Recipe:
    """Return attention of q, k, v (n, heads, sequence, size) with one of torch's kernels, or the one that torch takes."""
    n, heads, length, size = params["shape"]
    inputs = {
        name: draw(name, n, heads, length, size) * factor
        for name, factor in (("q", params.get("factor", 3)), ("k", 1), ("v", 1))
    }
    if params.get("masked"):
        inputs["mask"] = draw("mask", length, length, low=-3, high=3)
        inputs["mask"][:, length // 2 : length // 2 + 5] = -1e4
    kernel = KERNELS.get(params["kernel"])

    def compute(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None) -> Tensor:
        if q.dtype == torch.float64:  # the reference: written out
            return _written_out(q, k, v, mask, causal=params.get("causal", False))
        with sdpa_kernel([kernel]) if kernel is not None else contextlib.nullcontext():
            try:
                return F.scaled_dot_product_attention(q, k, v, attn_mask=mask, is_causal=params.get("causal", False))
            except RuntimeError as error:
                missing = any(text in str(error) for text in ("No available kernel", "No viable backend"))
                if kernel is not None and missing:
                    raise KernelMissingError(f"no {params['kernel']} kernel for these inputs here") from error
                raise

    return Recipe(inputs=inputs, compute=compute, gradients=("q", "k", "v"))


def _written_out(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, *, causal: bool) -> Tensor:
    scores = q @ k.transpose(-1, -2) / math.sqrt(q.shape[-1])
    if mask is not None:
        scores = scores + mask
    if causal:
        hidden = torch.ones(scores.shape[-2:], dtype=torch.bool).triu(1)
        scores = scores.masked_fill(hidden, -math.inf)
    return scores.softmax(-1) @ v


def psa(params: Mapping[str, Any], draw: HashedDraw) -> Recipe:
    """Return the attention block of YOLO11: 1x1 convolution, attention, depthwise position encoding, 1x1 convolution."""
    n, c, h, w = params["shape"]
    heads, key = params["heads"], params["key"]
    size = c // heads
    inputs = {
        "x": draw("x", n, c, h, w),
        "qkv": draw("qkv", heads * (2 * key + size), c, 1, 1) / math.sqrt(c) * 2,
        "pe": draw("pe", c, 1, 3, 3) / 3,
        "proj": draw("proj", c, c, 1, 1) / math.sqrt(c),
    }

    def compute(x: Tensor, qkv: Tensor, pe: Tensor, proj: Tensor) -> Tensor:
        q, k, v = F.conv2d(x, qkv).view(n, heads, 2 * key + size, h * w).split([key, key, size], dim=2)
        scores = ((q.transpose(-2, -1) @ k) * key**-0.5).softmax(dim=-1)
        y = (v @ scores.transpose(-2, -1)).view(n, c, h, w)
        return F.conv2d(y + F.conv2d(v.reshape(n, c, h, w), pe, None, 1, 1, 1, c), proj)

    return Recipe(inputs=inputs, compute=compute, gradients=("x", "qkv", "pe", "proj"))


def area(params: Mapping[str, Any], draw: HashedDraw) -> Recipe:
    """Return attention within areas of an image: a long sequence cut in pieces."""
    n, c, h, w = params["shape"]
    heads, areas = params["heads"], params["areas"]
    inputs = {"x": draw("x", n, c, h, w), "qkv": draw("qkv", 3 * c, c, 1, 1) / math.sqrt(c) * 2}

    def compute(x: Tensor, qkv: Tensor) -> Tensor:
        y = F.conv2d(x, qkv).flatten(2).transpose(1, 2).reshape(n * areas, h * w // areas, 3 * c)
        q, k, v = y.view(n * areas, -1, heads, 3 * c // heads).permute(0, 2, 3, 1).split([c // heads] * 3, dim=2)
        scores = ((q.transpose(-2, -1) @ k) * (c // heads) ** -0.5).softmax(dim=-1)
        return (v @ scores.transpose(-2, -1)).permute(0, 3, 1, 2).reshape(n, h, w, c)

    return Recipe(inputs=inputs, compute=compute, gradients=("x", "qkv"))


def grid_sample(params: Mapping[str, Any], draw: HashedDraw) -> Recipe:
    """Return samples of an image at points, some of them outside."""
    reach = params["reach"]
    # Multiples of 1/128 stay away from the places where an index jumps: there float32 and float64 may differ by one.
    points = torch.floor(draw("grid", 2, 50, 4, 2, low=-reach, high=reach) * 128) / 128 + 1 / 300
    inputs = {"x": draw("x", 2, 16, 20, 20), "grid": points}
    gradients = ("x",) if params["mode"] == "nearest" else ("x", "grid")

    def compute(x: Tensor, grid: Tensor) -> Tensor:
        return F.grid_sample(x, grid, mode=params["mode"], padding_mode=params["padding"], align_corners=False)

    return Recipe(inputs=inputs, compute=compute, gradients=gradients, plain=("grid",))


RECIPES = {"sdpa": sdpa, "psa": psa, "area": area, "grid_sample": grid_sample}
