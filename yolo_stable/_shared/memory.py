"""Machine memory: how much there is in all."""

from __future__ import annotations

from pathlib import Path

import psutil

CGROUPS = (Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"))
"""Where Linux tells a container what it was given."""


def memory_of_machine() -> int:
    """Return the bytes that this process may take: the machine's, or what its container was given."""
    total = psutil.virtual_memory().total
    for path in CGROUPS:
        try:
            limit = path.read_text().strip()
        except OSError:  # no such limit here
            continue
        if limit.isdigit():
            total = min(total, int(limit))
    return total
