"""Faults beside those of ``yolo_stable.chaos``: planted in a network, or in the step before the batch."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from yolo_stable.chaos import Truth
from yolo_stable.chaos.armed import Armed
from yolo_stable.chaos.modules import find, first_tensor, forward_replaced, with_tensor

from .autopsy_rig import Rig

INF, NAN = math.inf, math.nan


@dataclass(frozen=True, slots=True)
class Shared:
    """A module that several others have in common, as Ultralytics' blocks have their activation, breaks in one of them.

    Args:
        owner: The module in which it breaks.
        child: Its name there.
    """

    owner: str
    child: str = "act"
    place = "layer_forward"
    value = INF
    at: tuple[int, ...] = ()
    since: int | None = 0

    @property
    def truth(self) -> Truth:
        """The place by which a person finds it."""
        return Truth("forward", f"{self.owner}.{self.child}", "aten.div.Tensor")

    @contextmanager
    def install(self, model: nn.Module) -> Iterator[Armed]:
        """Break it for a time."""
        armed = Armed(self)
        inside: list[bool] = []

        def around(current: nn.Module, own: Any, args: Any, kwargs: Any) -> Any:
            inside.append(True)
            try:
                return own(*args, **kwargs)
            finally:
                inside.pop()

        def broken(current: nn.Module, own: Any, args: Any, kwargs: Any) -> Any:
            output = own(*args, **kwargs)
            if not inside:
                return output
            armed.fired += 1
            return output / torch.zeros_like(output)

        _, owner = find(model, self.owner)
        with forward_replaced(owner, around), forward_replaced(getattr(owner, self.child), broken):
            yield armed


@dataclass(frozen=True, slots=True)
class Cancel:
    """A difference that float32 cannot hold and float64 can, and a division by it."""

    module: str
    place = "layer_forward"
    value = NAN
    at: tuple[int, ...] = ()
    since: int | None = 0

    @property
    def truth(self) -> Truth:
        """Where it happens."""
        return Truth("forward", self.module, "aten.div.Tensor", "", "precision")

    @contextmanager
    def install(self, model: nn.Module) -> Iterator[Armed]:
        """Break it for a time."""
        armed = Armed(self)

        def call(current: nn.Module, own: Any, args: Any, kwargs: Any) -> Any:
            output = own(*args, **kwargs)
            y = first_tensor(output)
            assert y is not None
            left = (torch.ones_like(y) + 1e-10) - 1
            armed.fired += y.dtype != torch.float64
            return with_tensor(output, y, y * (left / left))

        with forward_replaced(find(model, self.module)[1], call):
            yield armed


@dataclass(frozen=True, slots=True)
class Grown:
    """Weights of a convolution before a BatchNorm so large that float16 holds them, and not what comes out of it."""

    module: str
    largest: float = 6e4
    place = "weight"
    value = 0.0
    at: tuple[int, ...] = ()
    since: int | None = 0

    @property
    def truth(self) -> Truth:
        """The convolution itself overflows."""
        return Truth("forward", self.module, "aten.convolution.default", "", "precision")

    @contextmanager
    def install(self, model: nn.Module) -> Iterator[Armed]:
        """Scale the weights for a time."""
        armed = Armed(self)
        weight: Tensor = find(model, self.module)[1].weight  # pyright: ignore[reportAssignmentType]
        before = weight.detach().clone()
        weight.data.mul_(self.largest / float(before.abs().max()))
        armed.fired += 1
        try:
            yield armed
        finally:
            weight.data.copy_(before)


@dataclass(frozen=True, slots=True)
class Leap:
    """One step with a learning rate that is far too high, just before the batch."""

    factor: float
    place = "lr"
    value = 0.0
    at: tuple[int, ...] = ()
    since: int | None = 0
    truth = Truth("step", "", "", "", "optimisation")

    def leap(self, rig: Rig) -> None:
        """Take the step."""
        groups = rig.trainer.optimizer.param_groups
        before = [group["lr"] for group in groups]
        for group in groups:
            group["lr"] *= self.factor
        try:
            rig.healthy()
        finally:
            for group, rate in zip(groups, before, strict=True):
                group["lr"] = rate
