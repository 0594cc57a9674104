"""EMA update: one kernel call on the CPU, where torch loops over hundreds of tensors."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ..guard.wrappers import unwrap


class AverageUpdate:
    """Equals ``ModelEMA.update`` up to rounding, and calls it wherever that is not certain.

    ``_fused_sgd_`` computes ``p - lr (g + decay p)``. With the model's tensors for ``g``, a decay of -1 and a learning rate of
    ``-w``, that is ``p + w (g - p)``: the moving average. ``torch._foreach_lerp_`` has a kernel of its own on accelerators; on
    the CPU it dispatches each tensor, and a small network has more tensors than work for them.
    """

    def __init__(self) -> None:
        self._ema: Any = None
        self._pairs: Any = None
        self._usable = False

    def __call__(self, ema: Any, model: Any) -> None:
        """Update the average.

        Args:
            ema: A ``ModelEMA``, or anything with ``update(model)``.
            model: What it averages.

        Syncs: none.
        """
        if is_stock(ema) and ema._pairs is None:
            # As its first update would. From the first update on it is the kernel, or a resumed run would round otherwise.
            ema._pairs = pairs_of(ema, model)
        pairs: Any = getattr(ema, "_pairs", None)
        if pairs is not self._pairs or self._ema is not ema:
            self._ema, self._pairs, self._usable = ema, pairs, is_stock(ema) and is_usable(*pairs)
        if not self._usable or not ema.enabled:
            ema.update(model)
            return
        ema.updates += 1
        averages, tensors = pairs
        lerp(averages, tensors, 1 - ema.decay(ema.updates))


def is_stock(ema: Any) -> bool:
    """Return whether the average is Ultralytics' own with its own update."""
    update = type(ema).update
    own = (update.__module__, update.__qualname__) == ("ultralytics.utils.torch_utils", "ModelEMA.update")
    return own and "update" not in vars(ema) and hasattr(ema, "_pairs")


def pairs_of(ema: Any, model: Any) -> tuple[list[Tensor], list[Tensor]]:
    """Return the floating tensors of the average, and those of the model."""
    tensors = unwrap(model).state_dict()
    followed = [(value, tensors[name]) for name, value in ema.ema.state_dict().items() if value.is_floating_point()]
    return [value for value, _ in followed], [tensor for _, tensor in followed]


def is_usable(averages: list[Tensor], tensors: list[Tensor]) -> bool:
    """Return whether the tensors meet the kernel's assumptions and the kernel computes rightly."""
    return (
        bool(averages)
        and all(
            t.device.type == "cpu" and t.dtype == torch.float32 and t.is_contiguous() for t in (*averages, *tensors)
        )
        and kernel_is_right()
    )


def kernel_is_right() -> bool:
    """Return whether the kernel computes a few known numbers rightly."""
    mine, model = torch.linspace(-2.0, 3.0, 100), torch.linspace(1.0, -1.0, 100)
    expected = torch.lerp(mine, model, 0.25)
    try:
        lerp([mine], [model], 0.25)
    except (RuntimeError, TypeError, AttributeError):  # what a missing or changed kernel raises
        return False
    return torch.allclose(mine, expected, rtol=1e-6, atol=1e-7) and torch.equal(model, torch.linspace(1.0, -1.0, 100))


@torch.no_grad()
def lerp(averages: list[Tensor], tensors: list[Tensor], weight: float) -> None:
    """Move each average towards its tensor, in place: ``average + weight (tensor - average)``.

    Args:
        averages: float32, dense, of any shapes.
        tensors: As many, of the same shapes and layouts; only read.
        weight: In [0, 1].
    """
    torch._fused_sgd_(
        averages,
        tensors,
        [],
        weight_decay=-1.0,
        momentum=0.0,
        lr=-weight,
        dampening=0.0,
        nesterov=False,
        maximize=False,
        is_first_step=False,
    )
