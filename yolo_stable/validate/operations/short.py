"""Operations of the short family."""

from __future__ import annotations

import math

from ..check import CheckCase
from ..evidence import CheckEvidence
from ..golden import CONVERGENCE, FIRST, Golden
from ..hashed import HashedDraw, sha256_of
from ..machine import Machine
from ..network import batch, network, place, train_steps

_ENVELOPE, _FLOOR = 20.0, 1e-6


def _trained(machine: Machine, case: CheckCase, draw: HashedDraw) -> tuple[list[float], CheckEvidence]:
    """Return the losses of a training on the device, and evidence of its inputs."""
    params = case.check.params
    data, model = batch(params, draw), network(params, draw)
    with machine.computing():
        placed = {name: machine.place(t.float()) for name, t in data.items()}
        place(model, machine)
        found = train_steps(model, placed, params["steps"], lr=params.get("lr", 0.01))
    return found, CheckEvidence(input_sha256=sha256_of(data), reference=())


def first_steps(machine: Machine, case: CheckCase, draw: HashedDraw, golden: Golden) -> CheckEvidence:
    """Compare the losses of the first steps with float64: strictly, then within the effect of rounding noise."""
    reference = golden.get(FIRST)
    found, evidence = _trained(machine, case, draw)
    for i, (loss, right, noisy) in enumerate(zip(found, reference["losses"], reference["noisy"], strict=True), start=1):
        limit = 1e-5 * right if i == 1 else max(_ENVELOPE * abs(noisy - right), 1e-4 * right) + _FLOOR
        evidence.numbers[f"loss_{i}"] = loss
        evidence.numbers[f"error_{i}"] = abs(loss - right) / right
        if not abs(loss - right) <= limit:
            evidence.problems.append(
                f"step {i}: loss {loss:.6g} where float64 has {right:.6g}, off by more than {limit:.1e}"
            )
    return evidence


def convergence(machine: Machine, case: CheckCase, draw: HashedDraw, golden: Golden) -> CheckEvidence:
    """Train on a few images, and compare where the loss ends with runs on a CPU."""
    reference = golden.get(CONVERGENCE)
    found, evidence = _trained(machine, case, draw)
    final = sum(found[-10:]) / 10
    band = max(4 * reference["deviation"], 0.25 * reference["mean"])
    evidence.numbers = {"first": found[0], "final": final, "expected": reference["mean"], "band": band}
    bad = sum(not math.isfinite(v) for v in found)
    if bad:
        evidence.problems.append(f"{bad} losses are not finite")
    if not abs(final - reference["mean"]) <= band:
        evidence.problems.append(f"the loss ends at {final:.4g}, outside {reference['mean']:.4g} ± {band:.2g}")
    return evidence


PROCEDURES = {"first_steps": first_steps, "convergence": convergence}
