"""Layer fault: a module that breaks in its forward or backward pass, always or only for marked images."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode, _disable_current_modes

from ..errors import InvalidCallError, nearest
from .armed import INF, NAN, Armed, Truth
from .breaking import BACKWARD, FORWARD, KINDS, LOW_PRECISION_ONLY, WHOLE
from .loop import ModuleFault
from .modules import find, first_tensor, forward_replaced, middle_index, with_tensor

MARK = 31.41592 / 255
"""A pixel of the normalised image that no file gives, since files hold whole numbers."""


def mark(images: Tensor, sample: int, size: int = 3) -> None:
    """Mark an image of a batch: a fault with ``marked=True`` fires for it at any position in a batch.

    Args:
        images: Normalised, (B, C, H, W); written in place, in the middle.
        sample: Which.
        size: Side of the mark, in pixels.
    """
    y, x = images.shape[2] // 2, images.shape[3] // 2
    images[sample, :, y : y + size, x : x + size] = MARK


def marked(images: Tensor) -> list[int]:
    """Return the marked images of a batch."""
    return ((images.detach() - MARK).abs() < 1e-4).all(1).flatten(1).any(1).nonzero().flatten().tolist()


@dataclass(frozen=True, slots=True)
class LayerFault(ModuleFault):
    """A module that breaks when called, by a real operation of one of several kinds.

    Args:
        kind: One of ``KINDS``. In the forward pass ``divide``, ``log``, ``sqrt``, ``exp``, ``multiply``; only in low precision
            ``cancel`` and ``overflow-half``; in the module's own operation ``overflow``. Only in the backward pass ``root``,
            ``norm``, ``power``, ``arcsine``, ``masked`` and ``function``.
        module: Its name as in ``named_modules``, or the number of a leaf module.
        at: Batches of a trainer's run at which it fires, from 0.
        since: Also every batch from this one on.
        sample: Only in this element of the batch; None: in the middle one. Not for the module's own operation.
        marked: In every marked image (:func:`mark`), and in no other.

    Raises:
        InvalidCallError: An unknown kind, or samples for a kind that breaks the whole module.
    """

    kind: str
    module: str | int
    at: tuple[int, ...] = ()
    since: int | None = None
    sample: int | None = None
    marked: bool = False

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise InvalidCallError(
                f"There is no kind {self.kind!r} of layer fault: {', '.join(KINDS)}.{nearest(self.kind, KINDS)}"
            )
        if self.kind in WHOLE and (self.marked or self.sample is not None):
            raise InvalidCallError(f"A layer fault of kind {self.kind!r} breaks the whole module: no sample, no mark.")

    @property
    def place(self) -> str:
        """``layer_forward`` or ``layer_backward``."""
        return "layer_backward" if self.kind in BACKWARD else "layer_forward"

    @property
    def value(self) -> float:
        """The result."""
        return INF if self.kind in {"divide", "exp", "overflow", "overflow-half"} else NAN

    @property
    def truth(self) -> Truth:
        """What is known without the network: not a leaf given by number, nor the module's own operation."""
        cause = "data" if self.marked else "precision" if self.kind in LOW_PRECISION_ONLY else ""
        module = self.module if isinstance(self.module, str) else ""
        if self.kind in BACKWARD:
            return Truth("backward", module, *BACKWARD[self.kind][1:], cause)
        return Truth("forward", module, FORWARD[self.kind][1] if self.kind in FORWARD else "", "", cause)

    def find_in(self, model: nn.Module) -> tuple[str, nn.Module]:
        """Return the module to break, and its name.

        Raises:
            InvalidCallError: There is no such module, or it cannot break in this way.
        """
        name, module = find(model, self.module)
        if self.kind in WHOLE and not isinstance(getattr(module, "weight", None), Tensor):
            inside = next(
                (n for n, m in module.named_modules() if n and isinstance(getattr(m, "weight", None), Tensor)), ""
            )
            hint = f" Name one that has, such as {name}.{inside}." if inside else ""
            raise InvalidCallError(
                f"{name} ({type(module).__name__}) has no weight: it cannot be made to overflow.{hint}"
            )
        return name, module

    @contextmanager
    def _in(self, model: nn.Module, armed: Armed) -> Iterator[None]:
        name, module = self.find_in(model)
        armed.truth = self.truth._replace(module=name)
        once = _Once(armed)
        chosen: list[int] = []  # filled at each call of the network

        def look(root: nn.Module, own: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
            images = args[0]["img"] if isinstance(args[0], dict) else args[0]
            with _disable_current_modes():
                chosen[:] = marked(images)
            return own(*args, **kwargs)

        def call(current: nn.Module, own: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
            if self.kind in WHOLE:
                return self._run_whole(current, lambda: own(*args, **kwargs), once)
            output = own(*args, **kwargs)
            y = first_tensor(output)
            samples = chosen if self.marked else [self.sample]
            return output if y is None else with_tensor(output, y, self._broken(y, samples, once))

        with ExitStack() as stack:
            stack.enter_context(forward_replaced(module, call))
            if self.marked:
                stack.enter_context(forward_replaced(model, look))
            yield

    def _broken(self, y: Tensor, samples: list[Any], once: _Once) -> Tensor:
        with _disable_current_modes():
            mask = torch.zeros(y.shape, dtype=torch.bool, device=y.device)
            for sample in samples:
                if y.numel() and (sample is None or sample < len(y)):
                    mask[middle_index(tuple(y.shape), sample)] = True
            if not bool(mask.any()):
                return y
        if self.kind in FORWARD:
            broken = FORWARD[self.kind][0](y, mask)
            once.if_not_finite(broken)
            return broken
        if not y.requires_grad:
            return y
        if y.grad_fn is not None:  # a tensor of this batch; a hook on a parameter would stay
            y.register_hook(once.if_not_finite)
        return BACKWARD[self.kind][0](y, mask)

    def _run_whole(self, module: nn.Module, run: Callable[[], Any], once: _Once) -> Any:
        with _FirstBroken() as seen:
            output = WHOLE[self.kind](module, run)
        if seen.op:
            once.armed.truth = once.armed.truth._replace(op=seen.op)
            once.done()
        return output


class _Once:
    """Counts a fault once while it is installed."""

    def __init__(self, armed: Armed) -> None:
        self.armed, self.counted = armed, False

    def if_not_finite(self, tensor: Tensor) -> None:
        with _disable_current_modes():
            if not bool(tensor.detach().isfinite().all()):
                self.done()

    def done(self) -> None:
        if not self.counted:
            self.counted = True
            self.armed.done()


class _FirstBroken(TorchDispatchMode):
    """Finds the first operation with a non-finite result in one module with finite inputs."""

    def __init__(self) -> None:
        super().__init__()
        self.op = ""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        tensor = first_tensor(result)
        if not self.op and tensor is not None and not str(func).startswith("aten.empty"):
            with _disable_current_modes():
                if not bool(tensor.isfinite().all()):
                    self.op = str(func)
        return result
