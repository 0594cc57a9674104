"""Device fault: one operation of one module gets a wrong result."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from ..errors import InvalidCallError
from .armed import NAN, Armed, Truth
from .loop import ModuleFault
from .modules import find, first_tensor, forward_replaced, middle_index

PHASES = ("forward", "backward")
NOT_COMPUTED = ("aten.empty", "aten.detach", "aten._to_copy", "aten.clone")


@dataclass(frozen=True, slots=True)
class DeviceFault(ModuleFault):
    """One number of an operation's result is wrong, once or always, though the operation and its inputs are healthy.

    Args:
        module: Its first operation that computes something, in its forward pass or in the backward pass of its output.
        persistent: Always, on this device in this precision; False: once, so that a second run of the batch is healthy.
        value: The wrong result.
        phase: ``forward`` or ``backward``.
        dtype: Only in this precision.
        at: Batches of a trainer's run at which it fires, from 0.
        since: Every batch from this one on as well.

    Raises:
        InvalidCallError: An unknown phase.
    """

    module: str | int
    persistent: bool = False
    value: float = NAN
    phase: str = "forward"
    dtype: torch.dtype = torch.float32
    at: tuple[int, ...] = ()
    since: int | None = None

    def __post_init__(self) -> None:
        if self.phase not in PHASES:
            raise InvalidCallError(f"There is no phase {self.phase!r} for a device fault: {', '.join(PHASES)}.")

    @property
    def place(self) -> str:
        """``device_persistent`` or ``device_transient``."""
        return "device_persistent" if self.persistent else "device_transient"

    @property
    def truth(self) -> Truth:
        """Without the operation, which is known once it fired."""
        module = self.module if isinstance(self.module, str) else ""
        return Truth(self.phase, module, "", "", f"hardware {'persistent' if self.persistent else 'transient'}")

    @contextmanager
    def _in(self, model: nn.Module, armed: Armed) -> Iterator[None]:
        name, module = find(model, self.module)
        armed.truth = self.truth._replace(module=name)
        # Entered before any observer of the run: to them the operation itself gives the wrong number.
        device = _WrongDevice(self, armed)

        def call(current: nn.Module, own: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
            device.reached = self.phase == "forward"
            try:
                output = own(*args, **kwargs)
            finally:
                device.reached = False
            y = first_tensor(output)
            if self.phase == "backward" and y is not None and y.grad_fn is not None:
                y.grad_fn.register_prehook(lambda grads: device.reach(True))
                y.grad_fn.register_hook(lambda inputs, outputs: device.reach(False))
            return output

        with ExitStack() as stack:
            stack.enter_context(device)
            stack.enter_context(forward_replaced(module, call))
            yield


class _WrongDevice(TorchDispatchMode):
    """Sees all operations, and writes the wrong number into the result of the right one."""

    def __init__(self, fault: DeviceFault, armed: Armed) -> None:
        super().__init__()
        self.fault, self.armed = fault, armed
        self.reached = False
        self.fired = False

    def reach(self, reached: bool) -> None:
        self.reached = reached

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        if not self.reached or str(func).startswith(NOT_COMPUTED) or func.is_view:
            return result
        tensor = first_tensor(result)
        if tensor is None or tensor.dtype != self.fault.dtype or not tensor.numel():
            return result
        self.reached = False  # for this call of the module
        if self.fault.persistent or not self.fired:
            self._spoil(tensor)
            self.armed.truth = self.armed.truth._replace(op=str(func))
            if not self.fired:
                self.armed.done()
            self.fired = True
        return result

    def _spoil(self, tensor: Tensor) -> None:
        tensor[middle_index(tuple(tensor.shape))] = self.fault.value
