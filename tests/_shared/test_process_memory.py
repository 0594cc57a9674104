from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import psutil
import pytest
import torch

from yolo_stable._shared.process_memory import HeldMemory


class Device:
    """A device that is not there; torch keeps its functions under its type."""

    def __init__(self, kind: str) -> None:
        self.type = kind


def on(monkeypatch: pytest.MonkeyPatch, kind: str, **functions: Any) -> HeldMemory:
    monkeypatch.setattr(torch, kind, SimpleNamespace(**functions), raising=False)
    device: Any = Device(kind)
    return HeldMemory(device)


def test_the_cpu_tells_the_resident_set() -> None:
    held = HeldMemory(torch.device("cpu")).read()
    assert held == pytest.approx(psutil.Process().memory_info().rss, rel=0.1)


@pytest.mark.parametrize("kind", ["cuda", "xpu", "npu"])
def test_an_accelerator_tells_its_peak(monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    assert on(monkeypatch, kind, max_memory_allocated=lambda device: 12345).read() == 12345


def test_where_only_the_memory_of_now_is_known_the_largest_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    now = iter([100, 300, 200])
    held = on(monkeypatch, "mps", current_allocated_memory=lambda: next(now))
    assert [held.read() for _ in range(3)] == [100, 300, 300]


def test_a_device_that_does_not_tell_ends_no_training(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(device: Any) -> int:
        raise RuntimeError("driver")

    assert on(monkeypatch, "xpu", max_memory_allocated=broken).read() is None
    assert on(monkeypatch, "mtia").read() is None
