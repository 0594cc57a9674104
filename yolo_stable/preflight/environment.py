"""Environment stages: what is looked at before there is a model, namely versions, disk and device."""

from __future__ import annotations

import platform
import shutil
from pathlib import Path
from typing import Any

import torch

from .._shared.system import installed_versions, usable_cores
from ..train.device_gate import devices_of, warn_of_device
from ..validate.backend import BACKENDS, is_rocm
from ..validate.machine import Machine
from .stage import StageOutcome

SUPPORTED = {"torch": ((2, 6), None), "ultralytics": ((8, 4, 190), (8, 5))}
"""From (included) and to (excluded), as in the requirements of this package."""
ROOM = 2**30
"""Free bytes of the disk below which checkpoints may not fit."""
EXACT = 1e-2
"""Relative error of a product that a device with reduced precision (TF32) may have."""


def environment(folder: Path) -> StageOutcome:
    """Look at the versions, and at the room for checkpoints."""
    versions, cores = installed_versions(*SUPPORTED), usable_cores()
    there = next(parent for parent in (folder, *folder.parents) if parent.exists())
    free = shutil.disk_usage(there).free
    shown = ", ".join(f"{name} {version}" for name, version in versions.items())
    python = platform.python_version()
    found = StageOutcome(
        figure=f"Python {python}, {shown}, {cores} cores, {torch.get_num_threads()} threads",
        details={**versions, "python": python, "cores": cores, "free_bytes": free},
    )
    for name, (low, high) in SUPPORTED.items():
        own = _numbers(versions[name])
        if own < low or (high is not None and own >= high):
            limits = f"{_dotted(low)} or later" + (f", below {_dotted(high)}" if high else "")
            return found.warn(
                f"{name} {versions[name]} is untested; yolo-stable supports {limits}",
                f"Install a supported version:\npip install '{name}>={_dotted(low)}{f',<{_dotted(high)}' if high else ''}'",
            )
    if free < ROOM:
        return found.warn(
            f"only {free / 2**20:.0f} MiB are free on the disk of {there}: checkpoints may not fit",
            "Make room, or write elsewhere with project=FOLDER.",
        )
    return found


def device(wanted: Any) -> StageOutcome:
    """Compare a product on the device with float64, and report what a validation found before."""
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
    found = StageOutcome(
        figure=f"{chosen} ({name}), relative error of a product {error:.0e}{first}",
        details={"device": str(chosen), "name": name, "error": error, "devices": several},
    )
    if not error < EXACT:  # also when it is not finite
        return found.fail(
            f"{chosen} multiplies two matrices with a relative error of {error:.1e}",
            f"See what else is wrong, and what heals it:\nyolo-stable validate --device {chosen}",
        )
    told: list[str] = []
    warn_of_device(wanted, told.append)
    if told:
        what = [line.partition("\n") for line in told]
        return found.warn(" ".join(reason for reason, _, _ in what), "\n".join(fix for _, _, fix in what))
    return found


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split("+")[0].split(".") if part.isdigit())


def _dotted(numbers: tuple[int, ...]) -> str:
    return ".".join(map(str, numbers))
