"""The stage of the memory: what a step took of what is there."""

from __future__ import annotations

import sys
from typing import Any

import psutil
import torch

from .._shared.memory import memory_of_machine
from .flight import Flight
from .stage import Outcome, Verdict

TIGHT = 0.9
"""Above this share of the memory, an image with many objects is enough to run out of it."""


def begin(device: torch.device) -> None:
    """Let the device count its peak from here."""
    module: Any = getattr(torch, device.type, None)
    if hasattr(module, "reset_peak_memory_stats"):
        module.reset_peak_memory_stats(device)


def memory(flight: Flight) -> Outcome:
    """Compare the peak of the step with what the device has; on the CPU, that of the process."""
    device = flight.subject.device
    used, total = peak(device)
    what = "of the process" if device.type == "cpu" else f"on {device}"
    details = {"peak": used, "total": total}
    if not total:
        return Outcome(verdict=Verdict.SKIP, figure=f"{device} does not tell", details=details)
    share = used / total
    part = flight.subject.part_of()
    figure = f"peak {what} {used / 2**30:.2f} GiB of {total / 2**30:.1f} ({share:.0%}){f' with {part}' if part else ''}"
    if share > TIGHT:
        return Outcome(
            verdict=Verdict.WARN,
            figure=figure,
            reason=f"one step takes {share:.0%} of the memory: a batch with many objects runs out of it",
            fix="Lower batch= or imgsz=.",
            details=details,
        )
    return Outcome(figure=figure, details=details)


def peak(device: torch.device) -> tuple[int, int]:
    """Return the peak and what there is, in bytes; zeros where it cannot be asked for."""
    if device.type == "cpu":
        return peak_of_process(), memory_of_machine()
    if device.type == "mps":
        return torch.mps.driver_allocated_memory(), torch.mps.recommended_max_memory()
    module: Any = getattr(torch, device.type, None)
    if not hasattr(module, "max_memory_reserved") or not hasattr(module, "mem_get_info"):
        return 0, 0
    return module.max_memory_reserved(device), module.mem_get_info(device)[1]


def peak_of_process() -> int:
    """Return the most memory that this process has held, in bytes."""
    if sys.platform == "win32":
        return psutil.Process().memory_info().peak_wset
    import resource  # Windows has none

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
