"""A device that computes wrongly: the result of one operation in one module is not what it should be."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from ..errors import InvalidCallError
from .armed import NAN, Armed, Truth, require_batches
from .loop import around_batches
from .modules import find, first_tensor, forward_replaced, middle_index

PHASES = ("forward", "backward")
NOT_COMPUTED = ("aten.empty", "aten.detach", "aten._to_copy", "aten.clone")


@dataclass(frozen=True, slots=True)
class DeviceFault:
    """One number of an operation's result comes out wrong, once or always; the operation and its inputs are healthy.

    Args:
        module: Whose operation: the first that computes something in its forward pass, or in the backward pass of its output.
        persistent: Each time, on this device and in this precision; False: once, so that the batch run again is healthy.
        value: What comes out.
        phase: ``forward`` or ``backward``.
        dtype: Only in this precision: the same operation in another one is healthy.
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
        """Without the operation, which is known when it has happened."""
        module = self.module if isinstance(self.module, str) else ""
        return Truth(self.phase, module, "", "", f"hardware {'persistent' if self.persistent else 'transient'}")

    def on(self, base: type) -> Any:
        """Return a subclass of a trainer's class with this fault in it; ``chaos`` is the :class:`Armed` fault."""
        require_batches(self.at, self.since)
        armed = Armed(self)
        return around_batches(base, armed, lambda model: self._in(model, armed))

    @contextmanager
    def install(self, model: nn.Module) -> Iterator[Armed]:
        """Let the device compute wrongly for a time. Nothing stays on the model.

        Yields:
            The armed fault, counted once; its ``truth`` has the operation once it has fired.

        Raises:
            InvalidCallError: There is no such module.
        """
        armed = Armed(self)
        armed.due = 1
        with self._in(model, armed):
            yield armed

    @contextmanager
    def _in(self, model: nn.Module, armed: Armed) -> Iterator[None]:
        name, module = find(model, self.module)
        armed.truth = self.truth._replace(module=name)
        # Entered before whoever watches the run: to them it is the operation itself that gives the wrong number.
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
    """Sees all operations, and writes the wrong number into the result of the one that it waits for."""

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
