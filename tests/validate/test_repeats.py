"""Circumstances that are put back as they were."""

from __future__ import annotations

import threading

import torch

from yolo_stable.validate import BACKENDS
from yolo_stable.validate.machine import Machine
from yolo_stable.validate.repeats import CONTENTION, contended, strictly_deterministic


def test_memory_is_filled_with_nan_within_and_everything_is_put_back() -> None:
    before = torch.are_deterministic_algorithms_enabled()
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined] # as Ultralytics does
    try:
        with strictly_deterministic():
            assert torch.are_deterministic_algorithms_enabled()
            assert bool(torch.empty(64).isnan().all())
        assert torch.are_deterministic_algorithms_enabled() is before
        assert torch.utils.deterministic.fill_uninitialized_memory is False  # type: ignore[attr-defined]
    finally:
        torch.utils.deterministic.fill_uninitialized_memory = True  # type: ignore[attr-defined]


def test_the_device_is_busy_within_and_idle_afterwards() -> None:
    def busy() -> bool:
        return any(thread.name == CONTENTION for thread in threading.enumerate())

    with contended(Machine(BACKENDS["cpu"])):
        assert busy()
    assert not busy()
