"""A layer that breaks, in its forward or its backward pass, always or for marked images only."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode, _disable_current_modes

from ..errors import InvalidCallError, nearest
from .armed import INF, NAN, Armed, Truth, require_batches
from .breaking import BACKWARD, FORWARD, KINDS, LOW_PRECISION_ONLY, WHOLE
from .loop import around_batches
from .modules import find, first_tensor, forward_replaced, middle_index, with_tensor

MARK = 31.41592 / 255
"""A pixel that no file has, as its numbers are whole ones: in the normalised image."""


def mark(images: Tensor, sample: int, size: int = 3) -> None:
    """Mark an image of a batch, so that a fault with ``marked=True`` fires for it, wherever in a batch it comes again.

    Args:
        images: Normalised, (B, C, H, W); written in place, in the middle.
        sample: Which.
        size: Side of the mark, in pixels.
    """
    y, x = images.shape[2] // 2, images.shape[3] // 2
    images[sample, :, y : y + size, x : x + size] = MARK


def marked(images: Tensor) -> list[int]:
    """Return which images of a batch have the mark in them."""
    return ((images.detach() - MARK).abs() < 1e-4).all(1).flatten(1).any(1).nonzero().flatten().tolist()


@dataclass(frozen=True, slots=True)
class LayerFault:
    """A module that breaks while it is called, by a real operation of one of several kinds.

    Args:
        kind: One of ``KINDS``. In the forward pass ``divide``, ``log``, ``sqrt``, ``exp``, ``multiply``; ``cancel`` and
            ``overflow-half`` in low precision only; ``overflow`` of the module's own operation. In the backward pass
            ``root``, ``norm``, ``power``, ``arcsine``, ``masked`` and ``function``, which are nothing in the forward pass.
        module: Its name as in ``named_modules``, or the number of a leaf module.
        at: Batches of a trainer's run at which it fires, from 0.
        since: Every batch from this one on as well.
        sample: In this element of the batch only; None: in the one in the middle. The module's own operation has no choice.
        marked: In every image that has the mark (:func:`mark`), and not at all in a batch without one.

    Raises:
        InvalidCallError: An unknown kind, or a choice of samples for a kind that has none.
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
        """What comes of it."""
        return INF if self.kind in {"divide", "exp", "overflow", "overflow-half"} else NAN

    @property
    def truth(self) -> Truth:
        """What is known before the network is: a leaf given by number, and the operation of the module's own, are not."""
        cause = "data" if self.marked else "precision" if self.kind in LOW_PRECISION_ONLY else ""
        module = self.module if isinstance(self.module, str) else ""
        if self.kind in BACKWARD:
            return Truth("backward", module, *BACKWARD[self.kind][1:], cause)
        return Truth("forward", module, FORWARD[self.kind][1] if self.kind in FORWARD else "", "", cause)

    def on(self, base: type) -> Any:
        """Return a subclass of a trainer's class with this fault in it; ``chaos`` is the :class:`Armed` fault."""
        require_batches(self.at, self.since)
        armed = Armed(self)
        return around_batches(base, armed, lambda model: self._in(model, armed))

    @contextmanager
    def install(self, model: nn.Module) -> Iterator[Armed]:
        """Break a module for a time: every call of it, counted once. Nothing stays on the model.

        Yields:
            The armed fault: ``truth`` with all names once it has fired.

        Raises:
            InvalidCallError: There is no such module.
        """
        armed = Armed(self)
        armed.due = 1
        with self._in(model, armed):
            yield armed

    def find_in(self, model: nn.Module) -> tuple[str, nn.Module]:
        """Return the module that will break, and its name.

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
        chosen: list[int] = []  # filled when the network is called

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
        if y.grad_fn is not None:  # of a tensor of the batch's own; a hook on a parameter would stay
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
    """Counts a fault once for the time that it is installed."""

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
    """Knows the first operation with a result that is not finite; in one module, whose inputs are."""

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
