"""The stages before there is a model: the environment, and the device."""

from __future__ import annotations

import os
import platform
import shutil
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

from ..train.device_gate import devices_of, warn_of_device
from ..validate.backend import BACKENDS, is_rocm
from ..validate.machine import Machine
from .stage import Outcome, Verdict

SUPPORTED = {"torch": ((2, 6), None), "ultralytics": ((8, 4, 190), (8, 5))}
"""From (included) and to (excluded), as in the requirements of this package."""
ROOM = 2**30
"""Free bytes of the disk below which checkpoints may not fit."""
EXACT = 1e-2
"""Relative error of a product that a device with reduced precision (TF32) may have."""


def environment(folder: Path) -> Outcome:
    """Look at the versions, and at the room for checkpoints.

    Args:
        folder: Where the run would write; need not be there.
    """
    versions = {name: metadata.version(name) for name in SUPPORTED}
    there = next(parent for parent in (folder, *folder.parents) if parent.exists())
    free = shutil.disk_usage(there).free
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    shown = ", ".join(f"{name} {version}" for name, version in versions.items())
    figure = f"Python {platform.python_version()}, {shown}, {cores} cores, {torch.get_num_threads()} threads"
    details = {**versions, "python": platform.python_version(), "cores": cores, "free_bytes": free}
    for name, (low, high) in SUPPORTED.items():
        own = _numbers(versions[name])
        if own < low or (high is not None and own >= high):
            limits = f"{_dotted(low)} or later" + (f", below {_dotted(high)}" if high else "")
            return Outcome(
                verdict=Verdict.WARN,
                figure=figure,
                reason=f"{name} {versions[name]} is not what this package was tested with: {limits}",
                fix=f"Install one that was:\npip install '{name}>={_dotted(low)}{f',<{_dotted(high)}' if high else ''}'",
                details=details,
            )
    if free < ROOM:
        return Outcome(
            verdict=Verdict.WARN,
            figure=figure,
            reason=f"only {free / 2**20:.0f} MiB are free on the disk of {there}: checkpoints may not fit",
            fix="Make room, or write elsewhere with project=FOLDER.",
            details=details,
        )
    return Outcome(figure=figure, details=details)


def device(wanted: Any) -> Outcome:
    """Compute something on the device and compare it with float64; say what a validation has found.

    Args:
        wanted: Ultralytics' ``device``, known to be there.
    """
    from ultralytics.utils.torch_utils import parse_device, select_device

    chosen = select_device(parse_device("" if wanted is None else wanted), verbose=False)
    kind = "rocm" if chosen.type == "cuda" and is_rocm(torch) else chosen.type
    name = Machine(BACKENDS[kind], str(chosen)).name if kind in BACKENDS else chosen.type
    generator = torch.Generator().manual_seed(0)
    a, b = (torch.randn(128, 128, generator=generator) for _ in range(2))
    true = a.double() @ b.double()
    error = float(((a.to(chosen) @ b.to(chosen)).cpu().double() - true).norm() / true.norm())
    several = len(devices_of(wanted))
    first = f"; the first of {several}" if several > 1 else ""
    figure = f"{chosen} ({name}), a product is right to {error:.0e}{first}"
    details = {"device": str(chosen), "name": name, "error": error, "devices": several}
    if not error < EXACT:  # also when it is not finite
        return Outcome(
            verdict=Verdict.FAIL,
            figure=figure,
            reason=f"{chosen} multiplies two matrices with a relative error of {error:.1e}",
            fix=f"What else is wrong, and what heals it:\nyolo-stable validate --device {chosen}",
            details=details,
        )
    told: list[str] = []
    warn_of_device(wanted, told.append)
    if told:
        what = [line.partition("\n") for line in told]
        return Outcome(
            verdict=Verdict.WARN,
            figure=figure,
            reason=" ".join(reason for reason, _, _ in what),
            fix="\n".join(fix for _, _, fix in what),
            details=details,
        )
    return Outcome(figure=figure, details=details)


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split("+")[0].split(".") if part.isdigit())


def _dotted(numbers: tuple[int, ...]) -> str:
    return ".".join(map(str, numbers))
