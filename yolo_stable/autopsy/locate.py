"""Locator: names the operation that broke a forward and backward pass of any PyTorch module."""

from __future__ import annotations

import hashlib
import inspect
import math
import time
import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from ..guard.untouched import untouched
from ..guard.wrappers import plainly_named
from .finding import Break, Location
from .frames import before, tensors_in
from .modules import ModuleTracker
from .ranges import is_finite
from .replay import is_out_of_memory
from .taint import Birth, Origin, earliest
from .tracer import OperationTracer, Stopped, plainly

OnBreak = Callable[[Break, dict[str, Any]], None]


def locate(
    model: nn.Module,
    inputs: Any,
    loss_fn: Callable[[Any], Any] | None = None,
    *,
    backward: bool = True,
    seconds: float | None = None,
    frames: int = 0,
    on_break: OnBreak | None = None,
) -> Location:
    """Run a model forward and backward once and name the first operation with finite inputs and a non-finite output.

    *First* is causal: an infinity that is masked before it does harm is not blamed. Model, gradients and random number
    generators stay as they are.

    Args:
        model: Any module; compiled ones run uncompiled meanwhile.
        inputs: A tuple of arguments, a dict of keyword arguments, or one argument. Pass a dict that is itself the argument, such
            as Ultralytics' batches, as ``(batch,)``.
        loss_fn: Returns the loss, or loss and items, from the model's output. None: the output is that already.
        backward: Also run the backward pass; a loss of several numbers is summed.
        seconds: Time limit; beyond it ``truncated`` is set.
        frames: Number of module calls before the break to keep, with their magnitudes.
        on_break: Called at the break, in a second run that stops there, with the local variables of the code there and the
            operation's ``op_args``, ``op_kwargs`` and ``op_result``.

    Raises:
        Exception: Whatever the model or the loss raises before anything broke.

    Syncs: one read per operation. The hooks and the mode follow autograd into its device threads through torch's own state; this
    has not run on a GPU.

    Examples:
        >>> model = nn.Sequential(nn.Linear(2, 2), nn.ReLU())
        >>> _ = nn.init.constant_(model[0].weight, 3e38)
        >>> found = locate(model, torch.full((1, 2), 4.0), lambda output: output.sum())
        >>> found.first.module, found.first.op, found.first.value, found.first.wide
        ('0', 'aten.addmm.default', 'inf', 'overflow')
    """
    args = inputs if isinstance(inputs, tuple) else () if isinstance(inputs, dict) else (inputs,)
    kwargs: dict[str, Any] = inputs if isinstance(inputs, dict) else {}
    run = _Run(model, named_inputs(model, args, kwargs), backward, seconds, frames)
    return run.all(lambda: model(*args, **kwargs), loss_fn, on_break)


def locate_call(
    model: nn.Module,
    call: Callable[[], Any],
    *,
    inputs: Any = None,
    backward: bool = True,
    seconds: float | None = None,
    frames: int = 0,
    on_break: OnBreak | None = None,
    stop_at: int | None = None,
) -> Location:
    """Do what :func:`locate` does for a forward pass that runs itself, with autocast and all.

    Args:
        model: The module that ``call`` runs.
        call: Returns the loss, or loss and items (a tensor, numbers by name, or a list of them).
        inputs: What ``call`` reads, in nested dicts, lists and tuples, to name what is not finite from the start.
        backward: See :func:`locate`.
        seconds: See :func:`locate`.
        frames: See :func:`locate`.
        on_break: See :func:`locate`.
        stop_at: Stop at the operation of this ``Break.ordinal``, and call ``on_break`` there.
    """
    run = _Run(model, list(tensors_in(inputs)), backward, seconds, frames)
    return run.all(call, None, on_break, stop_at)


class _Run:
    """One model, one way to run it, once or twice."""

    def __init__(
        self,
        model: nn.Module,
        inputs: Iterable[tuple[str, Tensor]],
        backward: bool,
        seconds: float | None,
        frames: int,
    ) -> None:
        self.model = model
        self.inputs = list(inputs)
        self.backward = backward
        self.began = time.monotonic()
        self.until = None if seconds is None else self.began + seconds
        self.frames = frames

    def all(
        self,
        call: Callable[[], Any],
        loss_fn: Callable[[Any], Any] | None,
        on_break: OnBreak | None,
        stop_at: int | None = None,
    ) -> Location:
        """Locate the break; then run again up to it for ``on_break``."""
        if stop_at is not None:
            return self.once(call, loss_fn, stop_at, on_break)
        found = self.once(call, loss_fn)
        if on_break is not None and found.first is not None and found.first.ordinal:
            self.once(call, loss_fn, found.first.ordinal, on_break, found.first)
        return found

    def once(
        self,
        call: Callable[[], Any],
        loss_fn: Callable[[Any], Any] | None,
        stop_at: int | None = None,
        on_break: OnBreak | None = None,
        known: Break | None = None,
    ) -> Location:
        with untouched(self.model):
            return _Pass(self, stop_at, on_break, known).run(call, loss_fn)


class _Pass:
    """One traced forward and backward pass."""

    def __init__(self, run: _Run, stop_at: int | None, on_break: OnBreak | None, known: Break | None) -> None:
        self.run_of = run
        self.model = run.model
        self.parameters = list(plainly_named(run.model.named_parameters()))
        self.on_break = on_break
        self.known = known
        own = weakref.proxy(self)  # a cycle would keep batch and graph alive until the garbage collector runs
        self.tracer = OperationTracer(
            lambda clock: ModuleTracker(run.model, clock, frames=run.frames > 0),
            _Pass.trace.__code__,
            until=run.until,
            stop_at=stop_at,
            on_stop=lambda birth, names: own.stopped(birth, names),
        )
        self.loss: Tensor | None = None
        self.items: dict[str, Any] = {}
        self.loss_from: int | None = None
        self.truncated = False
        self.error = ""

    def run(self, call: Callable[[], Any], loss_fn: Callable[[Any], Any] | None) -> Location:
        """Run the pass and judge its results."""
        with torch.no_grad():
            owned = [("parameter " + n, p) for n, p in self.parameters]
            owned += [("buffer " + n, b) for n, b in plainly_named(self.model.named_buffers())]
            for name, tensor in [*owned, *(("input " + n, t) for n, t in self.run_of.inputs)]:
                self.tracer.outside(name, tensor)
        with torch.inference_mode(False), torch.enable_grad(), plainly():
            try:
                with self.tracer.places, self.tracer:
                    self.trace(call, loss_fn)
            except Stopped:
                self.truncated = True
            except Exception as error:
                if not self.tracer.births or is_out_of_memory(error):
                    raise
                self.error = f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"
        with torch.no_grad():
            return self._location()

    def trace(self, call: Callable[[], Any], loss_fn: Callable[[Any], Any] | None) -> None:
        """Run forward and backward; the search for a source line ends at this function's code."""
        output = call()
        if loss_fn is not None:
            self.loss_from = self.tracer.ordinal
            output = loss_fn(output)
        self.loss, self.items = loss_and_items(output)
        total = self.loss if self.loss is None or self.loss.ndim == 0 else self.loss.sum()
        self.tracer.places.forward = False
        if self.run_of.backward and total is not None and total.requires_grad:
            self.tracer.backward_from = self.tracer.ordinal
            total.backward()

    def _location(self) -> Location:
        names = [(name, p.grad) for name, p in self.parameters]
        bad = [name for name, grad in names if grad is not None and not is_finite(grad)]
        held = list(plainly_named(self.model.named_buffers()))
        buffers = [(name, b) for name, b in held if self._is_bad(b)]
        wrong = [t for t in [self.loss, *self.items.values()] if isinstance(t, Tensor) and not is_finite(t)]
        wrong += [grad for name, grad in names if name in set(bad) and grad is not None] + [b for _, b in buffers]
        items = {n: float(v.detach() if isinstance(v, Tensor) else v) for n, v in self.items.items()}
        loss = None if self.loss is None else float(self.loss.detach().sum())
        numbers = [*items.values(), *([] if loss is None else [loss])]
        finite = all(map(math.isfinite, numbers)) and not bad and not buffers
        blamed = self._blamed(wrong) if not finite or self.error or self.truncated else []
        breaks = [self._break(birth) for birth in blamed] or (self._unread(wrong) if not finite else [])
        frames = self.tracer.places.frames or []
        return Location(
            loss=loss,
            items=items,
            healthy=finite and not self.error and not self.truncated,
            first=breaks[0] if breaks else None,
            also=tuple(_independent(breaks)),
            bad_gradients=tuple(bad),
            good_gradients=tuple(bracket([n for n, grad in names if grad is not None], set(bad))),
            bad_buffers=tuple(name for name, _ in buffers),
            frames=before(frames, blamed[0].place.call if blamed else 0, self.run_of.frames),
            operations=self.tracer.ordinal,
            seconds=time.monotonic() - self.run_of.began,
            truncated=self.truncated,
            error=self.error,
            digests=self._digests(names, held),
        )

    def _is_bad(self, buffer: Tensor) -> bool:
        """Say whether a buffer is not finite; a mask of 0 and -Inf from before the pass is fine."""
        if is_finite(buffer):
            return False
        return not all(isinstance(tag, Origin) and tag.soft for tag in self.tracer.taint.of(buffer)) or not (
            self.tracer.taint.of(buffer)
        )

    def _blamed(self, wrong: list[Tensor]) -> list[Birth]:
        """Return the breaks that the wrong results depend on: those that are no masks first, then by time."""
        tags: set[Birth | Origin] = set()
        for tensor in wrong:
            tags |= self.tracer.taint.of(tensor)
        births = {tag if isinstance(tag, Birth) else tag.birth for tag in tags} - {None}
        if not births and not (wrong and tags):
            # With items that are plain numbers, or an unfinished pass, there is no result to ask: take the earliest.
            births = {tag for tag in self.tracer.read if isinstance(tag, Birth)} or set(self.tracer.births)
        ordered = sorted((b for b in births if b is not None), key=lambda b: (b.soft, b.ordinal))
        return ordered if not ordered or ordered[0].soft else [b for b in ordered if not b.soft]

    def _unread(self, wrong: list[Tensor]) -> list[Break]:
        """Return what was not finite from the start and no operation read, such as a buffer."""
        origins = earliest(tag for tensor in wrong for tag in self.tracer.taint.of(tensor))
        return [
            Break(phase="forward", module=origin.name.split(" ")[-1].rpartition(".")[0], op="", origin=origin.name)
            for origin in origins
            if isinstance(origin, Origin)
        ]

    def _break(self, birth: Birth) -> Break:
        place = birth.place
        phase = self.tracer.places.phase(birth.ordinal, place, self.loss_from, self.tracer.backward_from)
        module_type = place.module_type or type(self.model).__name__
        facts: dict[str, Any] = birth.facts
        return Break(phase=phase, module=place.module, module_type=module_type, ordinal=birth.ordinal, **facts)

    def stopped(self, birth: Birth | None, names: dict[str, Any]) -> None:
        known = self.known or (self._break(birth) if birth is not None else None)
        if self.on_break is not None and known is not None:
            self.on_break(known, names)

    def _digests(
        self, gradients: list[tuple[str, Tensor | None]], buffers: Iterable[tuple[str, Tensor]]
    ) -> dict[str, str]:
        items = [(name, value) for name, value in self.items.items() if isinstance(value, Tensor)]
        return {
            "loss": digest_of([("loss", self.loss), *items]),
            "gradients": digest_of(gradients),
            "buffers": digest_of(buffers),
        }


def _independent(breaks: list[Break]) -> Iterator[Break]:
    """Yield the breaks after the first, each place once."""
    seen = {(b.module, b.op, b.source, b.origin) for b in breaks[:1]}
    for one in breaks[1:]:
        place = (one.module, one.op, one.source, one.origin)
        if place not in seen:
            seen.add(place)
            yield replace(one)


def named_inputs(model: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> list[tuple[str, Tensor]]:
    """Return the tensors among a module's inputs, by the keys of a single dict or by the names of the arguments."""
    if len(args) == 1 and not kwargs and not isinstance(args[0], Tensor):
        return list(tensors_in(args[0]))
    try:
        bound = inspect.signature(model.forward).bind(*args, **kwargs).arguments
    except (TypeError, ValueError):
        bound = {**{str(i): value for i, value in enumerate(args)}, **kwargs}
    return list(tensors_in(dict(bound)))


def loss_and_items(output: Any) -> tuple[Tensor | None, dict[str, Any]]:
    """Split what a call returned into the loss and the items by name."""
    loss, items = (output[0], output[1]) if isinstance(output, (tuple, list)) and len(output) > 1 else (output, {})
    if isinstance(loss, (tuple, list)) and loss:
        loss = loss[0]
    if isinstance(items, Tensor):
        items = {str(i): value for i, value in enumerate(items.detach().reshape(-1))}
    elif isinstance(items, (list, tuple)):
        items = {str(i): value for i, value in enumerate(items)}
    named = items.items() if isinstance(items, Mapping) else ()
    kept = {
        str(name): v for name, v in named if isinstance(v, (int, float)) or (isinstance(v, Tensor) and v.numel() == 1)
    }
    return (loss if isinstance(loss, Tensor) else None), kept


def bracket(names: list[str], bad: set[str]) -> Iterator[str]:
    """Yield the finite neighbours of the bad names."""
    for i, name in enumerate(names):
        if name not in bad and (set(names[max(0, i - 1) : i + 2]) & bad):
            yield name


def digest_of(named: Iterable[tuple[str, Tensor | None]]) -> str:
    """Return the SHA-256 of names, dtypes, shapes and bits."""
    digest = hashlib.sha256()
    for name, tensor in named:
        if tensor is None:
            digest.update(f"{name} none;".encode())
            continue
        flat = tensor.detach().cpu().contiguous().reshape(-1)
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)};".encode())
        digest.update(flat.view(torch.uint8).numpy().data)
    return digest.hexdigest()
