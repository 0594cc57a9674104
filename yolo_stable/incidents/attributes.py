"""Attributes: records and restores the plain attributes that training has set on modules."""

from __future__ import annotations

from pathlib import PurePath
from typing import Any

import torch
from torch import Tensor, nn

from ..autopsy.exact_json import pack, unpack
from ..autopsy.tensor_file import KINDS

MOST_CONSTANTS = 100_000
"""Most elements of a tensor recorded as numbers, such as class weights."""
MOST_NUMBER = 1e6
"""Largest whole number: an attribute is a size, a share or a count; a larger one would only ask for memory."""
_LATER = {
    "nc",
    "names",
    "kpt_shape",
    "kpt_oks_sigmas",
    "kpt_names",
    "class_weights",
    "task",
    "end2end",
    "_end2end",
    "stride",
}
"""Attributes that Ultralytics sets on a model after building it."""
_INTERNAL = {"shape", "anchors", "strides", "valid_mask", "criterion", "args", "yaml", *vars(nn.Module())}
"""Attributes that are made on demand, described apart, or torch's."""
_DTYPES = {str(dtype).removeprefix("torch."): dtype for dtype in KINDS}


def differing(module: nn.Module, fresh: nn.Module) -> dict[str, Any]:
    """Return the plain attributes that differ from a fresh module's, and all small tensors that are no state."""
    found: dict[str, Any] = {}
    for key, value in vars(module).items():
        if key in _INTERNAL or not is_plain(value):
            continue
        if isinstance(value, Tensor):
            found[key] = [str(value.dtype).removeprefix("torch."), pack(value.tolist(), {}, key)]
        elif key not in vars(fresh) or type(vars(fresh)[key]) is not type(value) or vars(fresh)[key] != value:
            found[key] = [None, pack(value, {}, key)]
    return found


def set_attributes(model: nn.Module, attributes: Any) -> None:
    """Give a fresh model the attributes that :func:`differing` found, by module name.

    Args:
        model: As built.
        attributes: May come from a stranger: only plain values may replace plain values.

    Raises:
        ValueError: One cannot be set.
    """
    if not isinstance(attributes, dict):
        raise ValueError("its attributes are missing")
    modules = dict(model.named_modules())
    for name, values in attributes.items():
        mine = vars(modules[name])
        for key, (dtype, packed) in values.items():
            if key in _INTERNAL or not key.isidentifier() or (key in mine and not is_plain(mine[key])):
                raise ValueError(f"the attribute {key!r:.80} of {name!r:.100} is not one to set")
            if key in mine or key in _LATER:  # no layer reads others
                value = unpack(packed, {})
                if _largest(value) > MOST_NUMBER:
                    raise ValueError(f"the attribute {key!r:.80} of {name!r:.100} has a number beyond {MOST_NUMBER:g}")
                if dtype is not None:
                    if dtype not in _DTYPES:
                        raise ValueError(
                            f"the attribute {key!r:.80} of {name!r:.100} has the unknown dtype {dtype!r:.40}"
                        )
                    value = torch.tensor(value, dtype=_DTYPES[dtype])
                mine[key] = value


def _largest(value: Any) -> float:
    """Return the largest magnitude of the whole numbers in a plain value."""
    if isinstance(value, (list, tuple, set)):
        return max(map(_largest, value), default=0)
    if isinstance(value, dict):
        return max(map(_largest, [*value, *value.values()]), default=0)
    return abs(value) if isinstance(value, int) else 0


def is_plain(value: Any, depth: int = 0) -> bool:
    """Return whether a value can be described: numbers, text, small tensors, and containers of them."""
    if isinstance(value, Tensor):
        return value.numel() <= MOST_CONSTANTS and not isinstance(value, nn.Parameter) and depth == 0
    if isinstance(value, (list, tuple)):
        return depth < 8 and all(is_plain(part, depth + 1) for part in value)
    if isinstance(value, dict):
        return depth < 8 and all(is_plain(k, depth + 1) and is_plain(v, depth + 1) for k, v in value.items())
    return value is None or isinstance(value, (bool, int, float, str, PurePath))
