"""Flags: torch's switches that change results; a bundle records them, and its replay sets them."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch


def _deterministic(on: bool) -> None:
    with warnings.catch_warnings():  # some builds warn of what they cannot promise
        warnings.simplefilter("ignore")
        torch.use_deterministic_algorithms(on, warn_only=True)


_CUDNN: Any = torch.backends.cudnn
_SWITCHES: dict[str, tuple[Callable[[], Any], Callable[[Any], None], type]] = {
    "threads": (torch.get_num_threads, lambda n: torch.set_num_threads(min(max(n, 1), 1024)), int),
    "matmul_precision": (torch.get_float32_matmul_precision, torch.set_float32_matmul_precision, str),
    "deterministic": (torch.are_deterministic_algorithms_enabled, _deterministic, bool),
    "mkldnn": (lambda: torch.backends.mkldnn.enabled, lambda on: setattr(torch.backends.mkldnn, "enabled", on), bool),
    "cudnn": (lambda: _CUDNN.enabled, lambda on: setattr(_CUDNN, "enabled", on), bool),
    "cudnn_benchmark": (lambda: _CUDNN.benchmark, lambda on: setattr(_CUDNN, "benchmark", on), bool),
    "cudnn_deterministic": (lambda: _CUDNN.deterministic, lambda on: setattr(_CUDNN, "deterministic", on), bool),
    "cudnn_tf32": (lambda: _CUDNN.allow_tf32, lambda on: setattr(_CUDNN, "allow_tf32", on), bool),
}


def flags() -> dict[str, Any]:
    """Return the switches by name, and the processor's instruction set (``cpu``, read only).

    Examples:
        >>> flags()["threads"] == torch.get_num_threads()
        True
    """
    return {
        **{name: read() for name, (read, _, _) in _SWITCHES.items()},
        "cpu": torch.backends.cpu.get_cpu_capability(),
    }


@contextlib.contextmanager
def as_recorded(recorded: Mapping[str, Any]) -> Iterator[list[str]]:
    """Set the switches to what :func:`flags` returned, here or on another machine, and restore them on leaving.

    Unknown names and values of another type are ignored.

    Yields:
        What could not be set, as sentences: another instruction set, a switch that this build refuses.
    """
    before = flags()
    missing = []
    if recorded.get("cpu", before["cpu"]) != before["cpu"]:
        missing.append(f"recorded with {recorded['cpu']} instructions, this processor has {before['cpu']}")
    try:
        for name, (read, write, kind) in _SWITCHES.items():
            value = recorded.get(name)
            if type(value) is not kind or value == before[name]:
                continue
            with warnings.catch_warnings():  # some refusals are only warnings
                warnings.simplefilter("ignore")
                with contextlib.suppress(RuntimeError, ValueError):
                    write(value)
            if read() != value:
                missing.append(f"{name}={value} cannot be set here: it stays {read()}")
        yield missing
    finally:
        for name, (read, write, _) in _SWITCHES.items():
            if read() != before[name]:
                write(before[name])
