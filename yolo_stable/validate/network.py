"""A real YOLO with hashed weights, and hashed images: the same network and batch on every machine."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import lru_cache
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn

from .hashed import HashedDraw
from .machine import Machine
from .recipe import Tensors

GAINS = SimpleNamespace(box=7.5, cls=0.5, dfl=1.5, pose=12.0, kobj=1.0, angle=1.0, overlap_mask=True)
"""Ultralytics' weights of the losses."""


@contextmanager
def default_dtype(dtype: torch.dtype) -> Iterator[None]:
    """Make new tensors of this type within: Ultralytics' loss makes its own."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


@contextmanager
def building() -> Iterator[None]:
    """Silence Ultralytics within, and put the random generator back."""
    from ultralytics.utils import LOGGER

    level = LOGGER.level
    LOGGER.setLevel("ERROR")
    try:
        with torch.random.fork_rng(devices=[]):
            yield
    finally:
        LOGGER.setLevel(level)


@lru_cache(maxsize=2)
def _built(model: str, classes: int) -> nn.Module:
    from ultralytics.nn.tasks import DetectionModel

    with building():
        network = DetectionModel(model, nc=classes, verbose=False)
    network.args = GAINS  # type: ignore[assignment]
    return network.train()


def network(params: Mapping[str, Any], draw: HashedDraw, dtype: torch.dtype = torch.float32) -> nn.Module:
    """Return the network of a check, on the CPU, in training mode; its weights are those of float32 in any type."""
    model = copy.deepcopy(_built(params["model"], params["classes"]))
    draw_weights(model, draw)
    return model.to(dtype)


def disturb(model: nn.Module, draw: HashedDraw, noise: float) -> None:
    """Change each weight a little, relative to its size, in place."""
    with torch.no_grad():
        for name, p in model.named_parameters():
            p.mul_(1 + noise * draw(f"noise/{name}", *p.shape).to(p.dtype))


def draw_weights(model: nn.Module, draw: HashedDraw) -> None:
    """Give a network hashed weights, in place; biases of layers stay."""
    with torch.no_grad():
        for name, p in model.named_parameters():
            if p.ndim > 1:
                bound = math.sqrt(3.0 / p[0].numel())
                p.copy_(draw(f"weight/{name}", *p.shape, low=-bound, high=bound))
            elif name.endswith("bn.weight"):
                p.copy_(draw(f"weight/{name}", *p.shape, low=0.8, high=1.2))
            elif name.endswith("bn.bias"):
                p.copy_(draw(f"weight/{name}", *p.shape, low=-0.1, high=0.1))
            # other biases are those of the head, set by Ultralytics to constants


def place(model: nn.Module, machine: Machine) -> None:
    """Put every parameter and buffer on the device, through the machine, so that its faults can touch them."""
    for module in model.modules():
        each: Any = (module._parameters, module._buffers)
        for tensors in each:
            for name, tensor in tensors.items():
                if tensor is not None:
                    there = machine.place(tensor.detach())
                    is_parameter = isinstance(tensor, nn.Parameter)
                    tensors[name] = nn.Parameter(there, tensor.requires_grad) if is_parameter else there
    layers = getattr(model, "model", [None])
    if isinstance(getattr(layers[-1], "stride", None), Tensor):  # the head of a detector
        layers[-1].stride = machine.place(layers[-1].stride)


def batch(params: Mapping[str, Any], draw: HashedDraw) -> Tensors:
    """Return images (n, 3, size, size) with rectangles of a colour for each class, and their labels; float64.

    All arithmetic is exact or rounded once, so that the numbers are the same everywhere.
    """
    n, count, size, classes = (params[name] for name in ("batch", "boxes", "size", "classes"))
    images = draw("images", n, 3, size, size, low=0.0, high=0.3)
    corner = draw.integers("corner", n, count, 2, below=size // 2)
    extent = draw.integers("extent", n, count, 2, below=size // 3) + size // 8
    kinds = draw.integers("kinds", n, count, below=classes)
    boxes = torch.zeros(n, count, 4, dtype=torch.float64)
    for i in range(n):
        for j in range(count):
            (x, y), (w, h) = corner[i, j].tolist(), extent[i, j].tolist()
            right, bottom = min(x + w, size), min(y + h, size)
            images[i, int(kinds[i, j]) % 3, y:bottom, x:right] += 0.5
            x, y = x + 0.3, y + 0.3  # no edge on an anchor: rounding would decide
            right, bottom = right - 0.3, bottom - 0.3
            box = torch.tensor([(x + right) / 2, (y + bottom) / 2, right - x, bottom - y], dtype=torch.float64)
            boxes[i, j] = box / size
    return {
        "img": images.clamp(0, 1).float().double(),
        "batch_idx": torch.arange(n).repeat_interleave(count).double(),
        "cls": kinds.reshape(-1, 1).double(),
        "bboxes": boxes.reshape(-1, 4).float().double(),
    }


def losses_of(model: nn.Module, data: Tensors, autocast: torch.dtype | None = None) -> Tensor:
    """Return the three losses, with their graph, times the size of the batch as in Ultralytics."""
    like = data["img"]
    kind = torch.float64 if like.dtype == torch.float64 else torch.float32
    with (
        default_dtype(kind),
        torch.autocast(like.device.type, dtype=autocast or torch.bfloat16, enabled=autocast is not None),
    ):
        total, _ = model(data)
    return total


def train_steps(model: nn.Module, data: Tensors, count: int, *, lr: float = 0.01) -> list[float]:
    """Take steps of SGD with Nesterov momentum and clipping at 10; return the loss before each."""
    optimizer = torch.optim.SGD(model.parameters(), lr=lr, momentum=0.9, nesterov=True)
    losses = []
    for _ in range(count):
        optimizer.zero_grad()
        total = losses_of(model, data).sum()
        total.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 10.0)
        optimizer.step()
        losses.append(float(total))
    return losses


def gradients_of(model: nn.Module) -> dict[str, Tensor]:
    """Return the gradient of each parameter that has one."""
    return {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
