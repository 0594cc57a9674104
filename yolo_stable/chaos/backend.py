"""Lying backend: norms, maxima and minima lose what is not finite, as some of MPS do; all else is normal."""

from __future__ import annotations

from typing import Any

from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map_only

NORMS = ("aten._foreach_norm", "aten.linalg_vector_norm", "aten.norm")
EXTREMES = ("aten.max", "aten.min", "aten.amax", "aten.amin", "aten.aminmax", "aten.maximum", "aten.minimum")
EVERYTHING = (*NORMS, *EXTREMES)
"""Calls that lose NaN."""


class LyingBackend(TorchDispatchMode):
    """Sees all operations, and removes NaN from the inputs of some.

    Args:
        calls: Names of operations.
        infinity: Whether infinities are lost, too.
        from_size: Tensors with fewer elements are reduced correctly.
        missing: Operations that this backend lacks.
    """

    def __init__(
        self,
        calls: tuple[str, ...] = EVERYTHING,
        *,
        infinity: bool = False,
        from_size: int = 0,
        missing: tuple[str, ...] = (),
    ) -> None:
        super().__init__()
        self.calls, self.infinity, self.from_size, self.missing = calls, infinity, from_size, missing
        self.lies = 0
        """Number of inputs that lost something."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = str(func).rsplit(".", 1)[0]
        if name in self.missing:
            raise NotImplementedError(f"{name} is not there on this backend")
        if name not in self.calls:
            return func(*args, **(kwargs or {}))
        return func(*tree_map_only(Tensor, self._without, args), **(kwargs or {}))

    def _without(self, tensor: Tensor) -> Tensor:
        if not tensor.is_floating_point() or tensor.numel() < self.from_size:
            return tensor
        lost = ~tensor.isfinite() if self.infinity else tensor != tensor
        if not bool(lost.any()):
            return tensor
        self.lies += 1
        return tensor.masked_fill(lost, 0.0)
