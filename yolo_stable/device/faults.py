"""Faults that a device may have, as data: which operations of torch they touch, how, and which checks must see them.

They prove the validator without a faulty device. A fault is put in by ``simulated.py`` below autograd, so that it is there
wherever the operation is used: in the check of that operation, in the whole step and in the short training.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ..errors import InvalidCallError, nearest


@dataclass(frozen=True, kw_only=True, slots=True)
class Fault:
    """One kind of fault in one family of operations."""

    name: str
    kind: str
    """What goes wrong, such as ``bitflip``; the same in several families."""
    family: str
    """The family whose checks must fail."""
    operations: tuple[str, ...]
    """Names below ``torch.ops.aten``; ``to_device`` and ``to_host`` for copies."""
    change: str
    """A key of ``CHANGES``."""
    caught_by: tuple[str, ...]
    """Beginnings of ids; at least one check of each must fail."""
    output: int = 0
    """Which of several results is changed."""
    amount: float = 0.0
    """How much, where the change has a size."""
    after: int = 0
    """Calls that go well before the first that does not."""
    dtypes: tuple[str, ...] = ()
    """Types of the first tensor for which it shows; empty: floating types, and for exact operations all."""
    only: Mapping[str, Any] = field(default_factory=dict)
    """Further conditions on a call; see ``fits``."""
    note: str = ""

    def fits(self, call: Any) -> bool:
        """Return whether a call is one in which the fault shows.

        Conditions: ``ndim`` and ``channels_last`` of the first tensor, ``groups`` (``one`` or ``many``) of a convolution,
        ``transposed`` and ``kernel`` of one, ``numel`` at least of the first tensor, ``dense`` false for tensors with gaps or
        another order, ``training`` of a BatchNorm.
        """
        tensors = call.tensors()
        first = tensors[0] if tensors else None
        if self.dtypes and (first is None or str(first.dtype).removeprefix("torch.") not in self.dtypes):
            return False
        return all(call.has(first, name, value) for name, value in self.only.items())


def _fault(name: str, family: str, operations: str, change: str, caught_by: str, **more: Any) -> Fault:
    return Fault(
        name=name, kind=more.pop("kind", change), family=family, operations=tuple(operations.split()), change=change,
        caught_by=tuple(f"{family}/{part}" for part in caught_by.split()), **more,
    )  # fmt: skip


_CONV, _BACK = "convolution", "convolution_backward"
_MM = "mm bmm addmm"

FAULTS: tuple[Fault, ...] = (
    _fault("tf32", "linear", f"{_CONV} {_BACK} {_MM}", "round_inputs", "conv3x3-64 matmul-nn", kind="tf32", amount=10),
    _fault("bitflip", "linear", _CONV, "bitflip", "conv3x3-64"),
    _fault("zero-tail", "linear", _CONV, "zero_tail", "conv3x3-64"),
    _fault("nan-tail", "linear", _CONV, "nan_tail", "conv3x3-64", kind="unwritten tail"),
    _fault("wgrad-scale", "linear", _BACK, "scale", "conv1x1-128-64", output=1, amount=1.05,
           note="wrong weight gradient with right loss"),
)  # fmt: skip

NAMES = tuple(fault.name for fault in FAULTS)


def find_fault(name: str) -> Fault:
    """Return the fault of a name.

    Raises:
        InvalidCallError: There is none; names the nearest.
    """
    for fault in FAULTS:
        if fault.name == name:
            return fault
    raise InvalidCallError(f"There is no fault {name!r}.{nearest(name, NAMES)} Known are {', '.join(NAMES)}.")
