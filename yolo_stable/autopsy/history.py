"""Autograd history: the forward operation behind each operation of the backward pass."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from types import CodeType
from typing import Any

import torch
from torch import Tensor

from .modules import OUTSIDE, ModuleCall, ModuleTracker, caller, hooked_module, source_of
from .taint import Birth

sequence = torch.autograd._get_sequence_nr
"""The number that the next node of autograd will get."""
_node: Callable[[], Any] = torch._C._current_autograd_node


@dataclass(slots=True)
class ForwardCall:
    """A forward operation that autograd will return to."""

    place: ModuleCall
    op: str
    ordinal: int
    code: CodeType | None
    line: int | None


class AutogradHistory:
    """Maps autograd's nodes to forward operations by sequence number.

    A node is made just before its operation runs, so the next operation is its own.
    """

    def __init__(self, places: ModuleTracker, anchor: CodeType) -> None:
        self.seen = sequence() - 1
        """The last number in use."""
        self.waiting: list[Birth] = []
        """Births in hooks; their node comes next."""
        self._places = places
        self._anchor = anchor
        self._calls: dict[int, ForwardCall] = {}
        self._born_at: dict[int, Birth] = {}

    def born(self, birth: Birth) -> None:
        """Remember the break of an operation, in case its gradient breaks, too."""
        self._born_at.setdefault(birth.ordinal, birth)

    def belongs(self, birth: Birth) -> None:
        """Find the forward operation whose gradient an operation of the backward pass computes."""
        if birth.place is not OUTSIDE:
            return  # a forward pass within the backward pass, as checkpointing does it
        owner, node = hooked_module(sys._getframe(1)), _node()
        if owner is not None:
            birth.place = self._places.place_of(owner)
        elif node is not None:
            self._assign(birth, node)
        else:
            # A hook on a gradient, which runs just before the node that takes that gradient.
            self.waiting.append(birth)

    def _assign(self, birth: Birth, node: Any) -> None:
        variable = getattr(node, "variable", None)
        if isinstance(variable, Tensor):
            birth.place = self._places.owner_of(variable)
            return
        call = self._calls.get(node._sequence_nr())
        if call is not None:
            birth.place = call.place
            birth.facts["forward_op"] = call.op
            birth.facts["forward_source"] = source_of(call.code, call.line)

    def settle(self) -> None:
        """Give hooks' operations the node that came after them."""
        node = _node()
        if node is not None:
            for birth in self.waiting:
                self._assign(birth, node)
            self.waiting.clear()

    def parent(self) -> Birth | None:
        """Return the break of the forward operation whose gradient is being computed, even if it was masked."""
        node = _node()
        call = None if node is None or self._places.now is not OUTSIDE else self._calls.get(node._sequence_nr())
        return None if call is None else self._born_at.get(call.ordinal)

    def note(self, number: int, op: str, ordinal: int) -> None:
        """Remember the operation that a new node stands for."""
        self.seen = number
        frame = caller(sys._getframe(2), self._anchor)
        code, line = (frame.f_code, frame.f_lineno) if frame is not None else (None, None)
        self._calls[number] = ForwardCall(self._places.now, op, ordinal, code, line)


def in_backward() -> bool:
    """Return whether autograd is computing gradients right now."""
    return _node() is not None
