"""Process memory: how much a training holds on its device."""

from __future__ import annotations

from typing import Any

import psutil
import torch


class HeldMemory:
    """Tells the bytes that this process holds on a device at the peak; on the CPU its resident set."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self._process = psutil.Process() if device.type == "cpu" else None
        self._peak = 0

    def read(self) -> int | None:
        """Return the bytes; None if the device does not report them.

        CUDA, ROCm, XPU and NPU track the peak. MPS reports the current number: there it is the largest one that was read here.

        Syncs: none; the allocator of torch counts on the host.
        """
        try:
            if self._process is not None:
                return int(self._process.memory_info().rss)
            module: Any = getattr(torch, self.device.type, None)
            if hasattr(module, "max_memory_allocated"):
                return int(module.max_memory_allocated(self.device))
            if hasattr(module, "current_allocated_memory"):
                self._peak = max(self._peak, int(module.current_allocated_memory()))
                return self._peak
        except (RuntimeError, psutil.Error):  # a silent driver must not end a training
            return None
        return None
