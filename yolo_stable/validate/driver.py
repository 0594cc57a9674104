"""Driver of a device, and the name of the CPU, which only the system knows."""

from __future__ import annotations

import platform
from pathlib import Path

_MODULES = {"cuda": ("nvidia",), "rocm": ("amdgpu",), "xpu": ("xe", "i915")}
_SYSTEM = Path("/sys/module")
_PROCESSORS = Path("/proc/cpuinfo")


def driver_version(backend: str, system: Path = _SYSTEM) -> str:
    """Return the version of the driver of a kind of device.

    Args:
        backend: ``cuda``, ``rocm``, ``mps``, ``xpu`` or ``cpu``.
        system: Where Linux tells of its modules.

    Returns:
        The module's version where it has one; else that of the system which it comes with; empty for the CPU.

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


def processor_name(processors: Path = _PROCESSORS) -> str:
    """Return what the CPU calls itself; empty where the system does not say.

    Args:
        processors: Where Linux tells of its processors. Elsewhere Python knows as much.
    """
    try:
        for line in processors.read_text(encoding="utf-8", errors="replace").splitlines():
            name, _, value = line.partition(":")
            if name.strip() == "model name" and value.strip():
                return " ".join(value.split())
    except OSError:  # not Linux
        return platform.processor()
    return platform.processor()
