"""Memory stage: how much of the memory a step took."""

from __future__ import annotations

from typing import Any

import torch

from .._shared.system import memory_of_machine, peak_of_process
from .stage import StageOutcome, skipped
from .stage_runner import StageContext

TIGHT = 0.9
"""Above this share of the memory, an image with many objects is enough to run out of it."""


def begin(device: torch.device) -> None:
    """Let the device count its peak from here."""
    module: Any = getattr(torch, device.type, None)
    if hasattr(module, "reset_peak_memory_stats"):
        module.reset_peak_memory_stats(device)


def memory(context: StageContext) -> StageOutcome:
    """Compare the peak of the step with the device's memory; on the CPU, the peak of the process."""
    device = context.subject.device
    used, total = peak(device)
    if not total:
        return skipped(f"{device} does not report its memory", peak=used, total=total)
    share = used / total
    what = "of the process" if device.type == "cpu" else f"on {device}"
    part = context.subject.part_of()
    figure = f"peak {what} {used / 2**30:.2f} GiB of {total / 2**30:.1f} ({share:.0%}){f' with {part}' if part else ''}"
    found = StageOutcome(figure=figure, details={"peak": used, "total": total})
    if share > TIGHT:
        return found.warn(
            f"one step takes {share:.0%} of the memory: a batch with many objects may exceed it",
            "Lower batch= or imgsz=.",
        )
    return found


def peak(device: torch.device) -> tuple[int, int]:
    """Return the peak and the total, in bytes; zeros where the device does not report them."""
    if device.type == "cpu":
        return peak_of_process(), memory_of_machine()
    if device.type == "mps":
        return torch.mps.driver_allocated_memory(), torch.mps.recommended_max_memory()
    module: Any = getattr(torch, device.type, None)
    if not hasattr(module, "max_memory_reserved") or not hasattr(module, "mem_get_info"):
        return 0, 0
    return module.max_memory_reserved(device), module.mem_get_info(device)[1]
