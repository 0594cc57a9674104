"""Kinds of ATen operations by their use of memory: make a view, return raw memory, write into an argument, or compute."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

BATCH_NORMS = {"native_batch_norm", "cudnn_batch_norm", "miopen_batch_norm"}
"""They write the running statistics in training (argument 5), though their schemas do not say so."""
_RAW = {"empty", "empty_like", "empty_strided", "new_empty", "new_empty_strided", "empty_permuted", "resize_", "set_"}
_CONSTANT = {"lift_fresh", "lift", "scalar_tensor"}
"""They turn numbers in the code into a tensor."""
_SAME = {"_unsafe_view", "_reshape_alias", *_CONSTANT}
"""They pass on memory, though their schemas do not say so."""
_FILL = {
    "copy_",
    "fill_",
    "zero_",
    "normal_",
    "uniform_",
    "bernoulli_",
    "random_",
    "exponential_",
    "cauchy_",
    "geometric_",
}
"""They write without reading."""
SOFTMAXES = {"_softmax", "_log_softmax", "softmax", "log_softmax", "logsumexp"}
"""They mask -Inf, but return NaN for nothing but -Inf."""
MASKS = {
    "masked_fill",
    "masked_fill_",
    "where",
    "full",
    "full_like",
    "new_full",
    "fill",
    "fill_",
    "index_fill",
    "index_fill_",
}
"""They put the code's -Inf where it is intended."""
BOUNDED = {"relu_", "silu_", "sigmoid_", "tanh_", "clamp_", "clamp_min_", "clamp_max_", "hardtanh_", "hardsigmoid_"}
"""In place, and finite for all finite inputs: a non-finite result means a faulty device."""


@dataclass(frozen=True, slots=True)
class Write:
    """An argument that the operation writes into."""

    position: int | str
    """Among the positional arguments, or the keyword."""
    name: str
    read: bool
    """It also reads the old values."""


@dataclass(frozen=True, slots=True)
class OperationKind:
    """What is known of an operation."""

    func: Any
    op: str
    """Such as ``aten.add.Tensor``."""
    name: str
    """Such as ``add``."""
    view: bool
    raw: bool
    constant: bool
    """Numbers in the code become a tensor: no operation of its own."""
    writes: tuple[Write, ...]
    hidden: bool
    """The writes are those of BatchNorm's running statistics."""
    random: bool
    arguments: tuple[str, ...]


def kind_of(func: Any) -> OperationKind:
    """Return what is known of an operation, from its schema and by name."""
    schema = func._schema
    name = schema.name.split("::")[-1]
    arguments = tuple(argument.name for argument in schema.arguments)
    writes = []
    for i, argument in enumerate(schema.arguments):
        if argument.alias_info is not None and argument.alias_info.is_write:
            read = not argument.is_out and name not in _FILL
            writes.append(Write(argument.name if argument.kwarg_only else i, argument.name, read))
    hidden = name in BATCH_NORMS
    if hidden:
        writes = [Write(i, arguments[i], read=True) for i in (3, 4)]
    shares = any(r.alias_info is not None for r in schema.returns)
    return OperationKind(
        func=func,
        op=str(func),
        name=name,
        view=not writes and (shares or name in _SAME),
        raw=name in _RAW,
        constant=name in _CONSTANT,
        writes=tuple(writes),
        hidden=hidden,
        random=torch.Tag.nondeterministic_seeded in func.tags,
        arguments=arguments,
    )
