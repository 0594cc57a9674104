"""The driver's version and the CPU's name, as the system tells them."""

from __future__ import annotations

import platform
from contextlib import suppress
from pathlib import Path

_MODULES = {"cuda": ("nvidia",), "rocm": ("amdgpu",), "xpu": ("xe", "i915")}
_SYSTEM = Path("/sys/module")
_PROCESSORS = Path("/proc/cpuinfo")


def driver_version(backend: str, system: Path = _SYSTEM) -> str:
    """Return the version of a backend's driver: its module's own, else that of the system; empty for the CPU.

    Examples:
        >>> driver_version("cpu")
        ''
    """
    if backend == "cpu":
        return ""
    for module in _MODULES.get(backend, ()):
        try:
            return f"{module} {(system / module / 'version').read_text(encoding='utf-8').strip()}"
        except (OSError, UnicodeDecodeError):  # not loaded, or it comes with the kernel and has no version of its own
            continue
    return f"{platform.system()} {platform.mac_ver()[0] or platform.release()}"


def processor_name() -> str:
    """Return what the CPU calls itself; empty where neither Linux nor Python says."""
    with suppress(OSError):  # only Linux has this file
        for line in _PROCESSORS.read_text(encoding="utf-8", errors="replace").splitlines():
            name, _, value = line.partition(":")
            if name.strip() == "model name" and value.strip():
                return " ".join(value.split())
    return platform.processor()
