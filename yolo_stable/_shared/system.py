"""System facts: memory, processor cores and installed versions."""

from __future__ import annotations

import os
import sys
from importlib import metadata
from pathlib import Path

import psutil

CGROUPS = (Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"))
"""Where Linux tells a container what it was given."""


def memory_of_machine() -> int:
    """Return the bytes that this process may take: the machine's, or its container's."""
    total = psutil.virtual_memory().total
    for path in CGROUPS:
        try:
            limit = path.read_text().strip()
        except OSError:  # no such limit here
            continue
        if limit.isdigit():
            total = min(total, int(limit))
    return total


def peak_of_process() -> int:
    """Return the most memory that this process has held, in bytes."""
    if sys.platform == "win32":
        return psutil.Process().memory_info().peak_wset
    import resource  # Windows has none

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def usable_cores() -> int:
    """Return how many processor cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def installed_versions(*names: str) -> dict[str, str]:
    """Return the versions of distributions by name; those that are not installed are left out.

    Examples:
        >>> installed_versions("no-such-distribution")
        {}
    """
    found = {}
    for name in names:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found
