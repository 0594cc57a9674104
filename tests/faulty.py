"""For the tests of the faults: a small network, a witness of its operations that owes nothing to the package, and a loop."""

from __future__ import annotations

from copy import deepcopy
from itertools import pairwise
from types import SimpleNamespace
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


class Loop:
    """A training loop with the places that Ultralytics' has: three convolutions, BatchNorm, an average, a step per window."""

    def __init__(self, *, adam: bool = False, accumulate: int = 1, labels: int = 3) -> None:
        torch.manual_seed(0)
        channels = (3, 4, 4, 2)
        blocks = ([nn.Conv2d(a, b, 3), nn.BatchNorm2d(b)] for a, b in pairwise(channels))
        self.model = nn.Sequential(*(layer for block in blocks for layer in block))
        self.ema: Any = SimpleNamespace(ema=deepcopy(self.model))
        kind: Any = torch.optim.AdamW if adam else torch.optim.SGD
        self.optimizer = kind(self.model.parameters(), lr=0.01, **({} if adam else {"momentum": 0.9}))
        self.accumulate, self.labels = accumulate, labels
        self.seen: list[dict[str, Any]] = []
        self.loss: Any = None

    def preprocess_batch(self, batch: dict[str, Any]) -> dict[str, Any]:
        return {**batch, "img": batch["img"].float() / 255}

    def optimizer_step(self) -> None:
        self.seen[-1]["gradients"] = [p.grad.clone() for p in self.model.parameters() if p.grad is not None]
        self.seen[-1]["lr"] = self.optimizer.param_groups[0]["lr"]
        self.optimizer.step()
        self.optimizer.zero_grad()

    def state(self) -> dict[str, list[Tensor]]:
        """Return copies of all state tensors by their place."""
        slots = [self.optimizer.state.get(p, {}) for p in self.model.parameters()]
        found = {
            "weight": list(self.model.parameters()),
            "ema": list(self.ema.ema.state_dict().values()),
            "running_var": [m.running_var for m in self.model if isinstance(m, nn.BatchNorm2d)],
            "momentum": [s[k] for s in slots for k in ("momentum_buffer", "exp_avg") if k in s],
            "exp_avg_sq": [s["exp_avg_sq"] for s in slots if "exp_avg_sq" in s],
        }
        return {place: [t.clone() for t in tensors] for place, tensors in found.items()}

    def train(self, batches: int) -> Loop:
        for number in range(batches):
            generator = torch.Generator().manual_seed(number)
            image = torch.randint(1, 256, (2, 3, 12, 12), generator=generator, dtype=torch.uint8)
            raw = {"img": image, "cls": torch.ones(self.labels, 1)}
            before = self.state()
            batch = self.preprocess_batch(raw)
            self.seen.append({"before": before, "state": self.state(), "raw": raw, **batch})
            out = self.model(batch["img"]).square().mean()
            self.loss_items = {"box": out.detach(), "cls": out.detach()}
            self.loss = out.sum()
            self.loss *= 2  # as with two ranks
            self.seen[-1].update(loss=self.loss.item(), items=dict(self.loss_items), clean=2 * out.item())
            self.loss.backward()
            if (number + 1) % self.accumulate == 0:
                self.optimizer_step()
        return self
