"""A small network, and a witness of its operations that owes nothing to the package; for the tests of the faults."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode


class Watch(TorchDispatchMode):
    """Knows the operations whose outputs are not finite although all their inputs are."""

    def __init__(self) -> None:
        super().__init__()
        self.culprits: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        healthy = finite(args)
        result = func(*args, **(kwargs or {}))
        if healthy and not str(func).startswith("aten.empty") and not finite(result):
            self.culprits.append(str(func))
        return result


def finite(value: Any) -> bool:
    if isinstance(value, Tensor):
        return not value.is_floating_point() or bool(value.isfinite().all())
    return not isinstance(value, (list, tuple)) or all(map(finite, value))


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 8, 3),
        nn.BatchNorm2d(8),
        nn.SiLU(),
        nn.Sequential(nn.Conv2d(8, 8, 3), nn.ReLU()),
        nn.Conv2d(8, 2, 1),
    )


def images() -> Tensor:
    return torch.rand(4, 3, 12, 12, generator=torch.Generator().manual_seed(1))


def trace(model: nn.Module) -> list[tuple[str, list[str]]]:
    return [(name, list(vars(module))) for name, module in model.named_modules()]


def bits(model: nn.Module) -> dict[str, bytes]:
    return {name: value.numpy().tobytes() for name, value in model.state_dict().items()}
