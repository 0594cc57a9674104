"""Autograd graph: frees the memory of a micro-batch that is not back-propagated.

A backward pass frees what the forward pass saved. Without one, the activations live as long as a variable of the loop leads to
them, which is until the next forward pass has finished: two batches' activations at a time, where clean training holds one.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils.checkpoint import CheckpointFunction

from .generators import random_state, restore_random_state


def free_graph(roots: Iterable[Tensor], parameters: Sequence[Tensor] = ()) -> bool:
    """Free all that autograd has saved for these tensors, as their backward pass would, without gradients.

    An undefined gradient goes through the graph: each operation returns at once and drops what it had saved. Gradients
    (``.grad``), hooks of parameters, hooks of ``DistributedDataParallel`` and random number generators stay as they were.
    Gradient checkpointing runs the forward pass again and writes the running statistics of normalisation layers: restore them
    afterwards, not before, since a graph refuses changed buffers.

    Args:
        roots: The loss, or whatever leads to the graph; tensors without a graph are ignored.
        parameters: Those of the model, which a graph behind checkpointing does not show.

    Returns:
        Whether all was freed. If something in the graph raises, such as a hook on an activation that takes no ``None``, the rest
        lives until the loop's variables change, and harms nothing.

    Syncs: none.
    """
    roots = [root for root in roots if root.grad_fn is not None]
    if not roots:
        return True
    leaves, reentrant = _leaves(roots)
    tensors, numbers = random_state(roots[0].device)
    try:
        with torch.enable_grad(), torch.autograd.set_detect_anomaly(False), _set_aside([*leaves, *parameters]):
            end = _NoGradient.apply(*roots)
            if reentrant:  # it refuses torch.autograd.grad()
                end.backward()
            elif leaves:
                torch.autograd.grad(end, leaves, allow_unused=True)
    except Exception:  # noqa: BLE001 - a network's own backward code may raise anything; the batch is rejected anyway
        return False
    finally:
        restore_random_state(tensors, numbers, roots[0].device)
    return True


class _NoGradient(torch.autograd.Function):
    """The end of a graph that sends no gradient into it."""

    @staticmethod
    def forward(ctx: Any, *roots: Tensor) -> Tensor:
        return roots[0].new_zeros(())

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> Any:
        return (None,) * len(ctx.needs_input_grad)


def _leaves(roots: Sequence[Tensor]) -> tuple[list[Tensor], bool]:
    """Return the leaves of a graph, and whether parts of it are behind reentrant checkpoints."""
    waiting: list[Any] = [root.grad_fn for root in roots]
    seen = set(waiting)
    leaves: list[Tensor] = []
    reentrant = False
    while waiting:
        node = waiting.pop()
        leaf = getattr(node, "variable", None)
        if isinstance(leaf, Tensor):
            leaves.append(leaf)
        reentrant |= getattr(node, "_forward_cls", None) is CheckpointFunction
        following = {after for after, _ in node.next_functions if after is not None} - seen
        seen |= following
        waiting += following
    return leaves, reentrant


@contextlib.contextmanager
def _set_aside(tensors: Iterable[Tensor]) -> Iterator[None]:
    """Remove gradients and hooks from tensors within this context."""
    own = list({id(tensor): tensor for tensor in tensors}.values())
    hooks = [held for t in own for held in (t._backward_hooks, t._post_accumulate_grad_hooks) if held]
    before = [(held, list(held.items())) for held in hooks]
    gradients = [(tensor, tensor.grad) for tensor in own]
    try:
        for held, _ in before:
            held.clear()
        for tensor in own:
            tensor.grad = None
        yield
    finally:
        for held, entries in before:
            held.update(entries)
        for tensor, gradient in gradients:
            tensor.grad = gradient
