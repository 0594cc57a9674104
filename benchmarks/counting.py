"""Count what the dispatcher sees: operations, and numbers handed to Python (each waits for the device)."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode


class DispatchCounter(TorchDispatchMode):
    """Counts while it is entered, several times if need be.

    ``reads`` are ``aten::_local_scalar_dense`` (``item``, ``float``, ``bool``), copies from a device to the CPU, and ``tolist``
    and ``numpy`` of CPU tensors, which no operation shows and which would be copies on a device.
    """

    def __init__(self) -> None:
        super().__init__()
        self.ops = self.reads = 0
        self._thread = 0
        self._tolist, self._numpy = Tensor.tolist, Tensor.numpy

    def __enter__(self) -> DispatchCounter:
        self._thread = threading.get_ident()
        Tensor.tolist = self._counted(self._tolist)  # type: ignore[method-assign]
        Tensor.numpy = self._counted(self._numpy)  # type: ignore[method-assign]
        super().__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        super().__exit__(*error)
        Tensor.tolist, Tensor.numpy = self._tolist, self._numpy  # type: ignore[method-assign]

    def _counted(self, method: Callable[..., Any]) -> Callable[..., Any]:
        def counted(tensor: Tensor, *args: Any, **kwargs: Any) -> Any:
            before = self.reads
            result = method(tensor, *args, **kwargs)
            if threading.get_ident() == self._thread:  # a save is written by another one, from copies on the host
                self.reads += self.reads == before
            return result

        return counted

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Count one operation and carry it out."""
        self.ops += 1
        result = func(*args, **(kwargs or {}))
        if func is torch.ops.aten._local_scalar_dense.default:
            self.reads += 1
        elif isinstance(result, Tensor) and result.device.type == "cpu":
            self.reads += any(isinstance(a, Tensor) and a.device.type not in {"cpu", "meta"} for a in args)
        return result
