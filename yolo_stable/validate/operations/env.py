"""The environment: notes and warnings."""

from __future__ import annotations

import os

import torch

from ..backend import is_rocm
from ..check import CheckCase
from ..evidence import CheckEvidence
from ..hashed import HashedDraw
from ..machine import Machine


def environment(machine: Machine, case: CheckCase, draw: HashedDraw) -> CheckEvidence:
    """Note which precision switches are on, and warn of a card that this torch has no kernels for."""
    evidence = CheckEvidence()
    evidence.notes += [f"{name} lets float32 be computed in less" for name in machine.reduced()]
    if machine.backend.name == "rocm" and os.environ.get("HSA_OVERRIDE_GFX_VERSION"):
        version = os.environ["HSA_OVERRIDE_GFX_VERSION"]
        evidence.warnings.append(
            f"HSA_OVERRIDE_GFX_VERSION={version}: kernels of another card run here, which is known to give wrong results"
            " (legacy-rocm-build#2048)"
        )
    if machine.device.type == "cuda":
        evidence.warnings += missing_kernels(machine)
    if machine.backend.name == "mps" and os.environ.get("PYTORCH_ENABLE_MPS_FALLBACK") == "1":
        evidence.notes.append("PYTORCH_ENABLE_MPS_FALLBACK=1: what has no kernel runs on the CPU")
    return evidence


def missing_kernels(machine: Machine) -> list[str]:
    """Return a warning when the card is not among those that torch was built for."""
    built = torch.cuda.get_arch_list()
    if is_rocm(torch):
        arch = str(getattr(torch.cuda.get_device_properties(machine.device), "gcnArchName", "")).split(":")[0]
        known = arch in built or not arch
    else:
        major, minor = torch.cuda.get_device_capability(machine.device)
        arch = f"sm_{major}{minor}"
        known = any(name.startswith(("sm_", "compute_")) and name.split("_")[1][:-1] == str(major) for name in built)
    return [] if known or not built else [f"torch was built for {', '.join(built)}; this card is {arch}"]


PROCEDURES = {"environment": environment}
