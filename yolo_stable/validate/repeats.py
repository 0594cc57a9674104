"""Circumstances under which a device must repeat its results: deterministic kernels, dirty memory, a busy device."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

from .machine import Machine

_FILLING: Any = torch.utils.deterministic
CONTENTION = "contention"
"""Name of the thread that keeps the device busy."""


@contextmanager
def strictly_deterministic() -> Iterator[None]:
    """Ask torch for deterministic kernels, and have it fill what it allocates with NaN.

    Ultralytics' own deterministic mode turns the filling off, so it is turned on here.
    """
    was = (
        torch.are_deterministic_algorithms_enabled(),
        torch.is_deterministic_algorithms_warn_only_enabled(),
        _FILLING.fill_uninitialized_memory,
    )
    torch.use_deterministic_algorithms(True, warn_only=True)
    _FILLING.fill_uninitialized_memory = True
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(was[0], warn_only=was[1])
        _FILLING.fill_uninitialized_memory = was[2]


@contextmanager
def contended(machine: Machine) -> Iterator[None]:
    """Keep the device busy with products from another thread, on CUDA and ROCm in a stream of its own."""
    stop, busy = threading.Event(), threading.Event()

    def work() -> None:
        a = torch.ones(192, 192, device=machine.device)
        stream = torch.cuda.Stream(machine.device) if machine.device.type == "cuda" else None
        with torch.cuda.stream(stream):  # None: no stream of its own
            while not stop.is_set():
                a = (a @ a).clamp_(-1.0, 1.0)
                machine.synchronize()
                busy.set()

    thread = threading.Thread(target=work, name=CONTENTION, daemon=True)
    thread.start()
    busy.wait(timeout=30.0)
    try:
        yield
    finally:
        stop.set()
        thread.join(timeout=30.0)
