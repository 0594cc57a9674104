"""Precision switches of ``torch.backends``: read, set and restored."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch

_NEW = ("cuda.matmul.fp32_precision", "cudnn.conv.fp32_precision", "cudnn.rnn.fp32_precision",
        "mkldnn.conv.fp32_precision", "mkldnn.matmul.fp32_precision")  # fmt: skip
"""Since torch 2.9; reading one kind of switch after the other kind was set is an error there."""
_OLD = ("cuda.matmul.allow_tf32", "cudnn.allow_tf32", "mkldnn.allow_tf32")
_SUMS = ("cuda.matmul.allow_fp16_reduced_precision_reduction", "cuda.matmul.allow_bf16_reduced_precision_reduction",
         "cuda.matmul.allow_fp16_accumulation")  # fmt: skip
_OTHER = ("cudnn.enabled", "cudnn.benchmark", "cudnn.deterministic", "mkldnn.enabled")
_SETTERS = {"cuda.enable_flash_sdp": "cuda.flash_sdp_enabled", "cuda.enable_mem_efficient_sdp": "cuda.mem_efficient_sdp_enabled",
            "cuda.enable_cudnn_sdp": "cuda.cudnn_sdp_enabled", "cuda.enable_math_sdp": "cuda.math_sdp_enabled"}  # fmt: skip
"""Switches that are functions, with the function that reads each."""
_HAS_NEW = hasattr(torch.backends.cuda.matmul, "fp32_precision")
STRICT: dict[str, Any] = {**({name: "ieee" for name in _NEW} if _HAS_NEW else {name: False for name in _OLD})}
STRICT |= {name: False for name in _SUMS}
"""Every reduced precision off."""
_HARMLESS = {"ieee", "none", False, None}
"""Values of a switch under which float32 stays float32: ``none`` inherits, and nothing reduced is inherited by default."""


def read(name: str) -> Any:
    """Return the value of a switch below ``torch.backends``; None where this torch has none of that name."""
    place, attribute = _find(_SETTERS.get(name, name))
    try:
        value = getattr(place, attribute, None)
        return value() if name in _SETTERS and callable(value) else value
    except (RuntimeError, AssertionError):  # a switch of the other kind was set before
        return None


def write(name: str, value: Any) -> bool:
    """Set a switch below ``torch.backends``; return whether this torch has it and took it."""
    place, attribute = _find(name)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of a kind of switch that is going to be retired
        try:
            if not hasattr(place, attribute):  # raises where a switch of the other kind was set before
                return False
            if name in _SETTERS:
                getattr(place, attribute)(value)
            elif name == "mkldnn.enabled":
                torch._C._set_mkldnn_enabled(value)  # its module refuses plain assignment
            else:
                setattr(place, attribute, value)
        except (RuntimeError, AttributeError, AssertionError):
            return False
    return True


@contextmanager
def switched(switches: Mapping[str, Any]) -> Iterator[None]:
    """Set switches, and restore them at the end."""
    before = {name: read(name) for name in switches}
    try:
        for name, value in switches.items():
            if before[name] != value:
                write(name, value)
        yield
    finally:
        for name, value in before.items():
            if value is not None and read(name) != value:
                write(name, value)


def snapshot() -> dict[str, Any]:
    """Return all switches that this torch has, for the record."""
    names = (*(_NEW if _HAS_NEW else _OLD), *_SUMS, *_OTHER, *_SETTERS)
    values = {name: read(name) for name in names}
    values["float32_matmul_precision"] = torch.get_float32_matmul_precision()
    values["deterministic_algorithms"] = torch.are_deterministic_algorithms_enabled()
    return {name: value for name, value in values.items() if value is not None}


def reduced_on(switches: Iterable[str]) -> list[str]:
    """Return which of a backend's switches reduce the precision of float32 now.

    Switches of the other kind than this torch has are left out: ``allow_tf32`` would say the same once more.
    """
    return [name for name in switches if name in STRICT and read(name) not in _HARMLESS]


def _find(name: str) -> tuple[Any, str]:
    *path, attribute = name.split(".")
    place: Any = torch.backends
    for part in path:
        place = getattr(place, part, None)
    return place, attribute
