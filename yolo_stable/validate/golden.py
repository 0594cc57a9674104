"""Golden references: trainings in float64, shipped as JSON, or computed here when those do not fit."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from .battery import find_check
from .check import Check
from .deviation import distance
from .hashed import HashedDraw
from .network import batch, disturb, gradients_of, losses_of, network, train_steps
from .result import SUITE
from .sketch import sketch

_RUNS = 4

NOISE = 6e-8
"""Relative disturbance of weights that stands for rounding in float32."""
STEP, FIRST, CONVERGENCE = "step/yolo11n", "short/first-steps", "short/convergence"
_FILE = Path(__file__).with_name("golden.json")
_DIGITS = 12


@dataclass(frozen=True, kw_only=True)
class StepReference:
    """One training step in float64."""

    losses: tuple[float, ...]
    norms: dict[str, float]
    """Of the gradient of each parameter."""
    sketches: dict[str, tuple[float, ...]]
    buffers: dict[str, tuple[float, ...]]
    """Sketches of BatchNorm's statistics afterwards."""

    @property
    def norm(self) -> float:
        """Return the norm of the whole gradient."""
        return math.sqrt(sum(v * v for v in self.norms.values()))


def installed() -> str:
    """Return the version of Ultralytics that decides what a network computes."""
    import ultralytics

    return ultralytics.__version__


class Golden:
    """The shipped references, which are those of seed 0; for another seed, or with ``recompute``, they are computed here."""

    def __init__(self, seed: int = 0, *, recompute: bool = False) -> None:
        self.seed = seed
        text = _FILE.read_text(encoding="utf-8") if _FILE.is_file() else "{}"
        content = json.loads(text)
        fits = content.get("suite") == SUITE and seed == 0 and not recompute
        self.content: dict[str, Any] = content if fits else {}
        self.id = hashlib.sha256(text.encode()).hexdigest()[:16] if fits else ""
        """Names the shipped file; empty: references are computed here."""
        self._made: dict[str, Any] = {}

    def get(self, name: str) -> Any:
        """Return a reference: shipped when it fits the installed Ultralytics, else computed, once."""
        if name in self.content and self.content.get("ultralytics") == installed():
            return self.content[name]
        if name not in self._made:
            self._made[name] = MAKERS[name](find_check(name), self.seed)
        return self._made[name]

    def step(self) -> StepReference:
        """Return the reference of one step."""
        found = self.get(STEP)
        sketches, buffers = ({name: tuple(v) for name, v in found[key].items()} for key in ("sketches", "buffers"))
        return StepReference(losses=tuple(found["losses"]), norms=found["norms"], sketches=sketches, buffers=buffers)


def _round(value: float) -> float:
    return float(f"{value:.{_DIGITS}g}")


def _rounded(values: Iterable[float]) -> list[float]:
    return [_round(v) for v in values]


def _draw(check: Check, seed: int) -> HashedDraw:
    return HashedDraw(f"{seed}/{check.id}")


def make_step(check: Check, seed: int) -> dict[str, Any]:
    """Compute one step in float64."""
    draw = _draw(check, seed)
    model, data = network(check.params, draw, torch.float64), batch(check.params, draw)
    losses = losses_of(model, data)
    losses.sum().backward()
    gradients = gradients_of(model)
    return {
        "losses": _rounded(losses.tolist()),
        "norms": {name: _round(float(g.norm())) for name, g in gradients.items()},
        "sketches": {name: _rounded(sketch(g)) for name, g in gradients.items()},
        "buffers": {name: _rounded(sketch(b)) for name, b in model.named_buffers() if "running" in name},
    }


def make_first(check: Check, seed: int) -> dict[str, Any]:
    """Take the first steps in float64, exactly and with rounding noise in the weights."""
    draw = _draw(check, seed)
    data = batch(check.params, draw)
    exact, noisy = (network(check.params, draw, torch.float64) for _ in range(2))
    disturb(noisy, draw, NOISE)
    losses, others = (train_steps(model, data, check.params["steps"]) for model in (exact, noisy))
    return {"losses": _rounded(losses), "noisy": _rounded(others)}


def make_convergence(check: Check, seed: int) -> dict[str, Any]:
    """Train on the same images several times in float32 on the CPU, with rounding noise in the weights."""
    draw = _draw(check, seed)
    data = {name: t.float() for name, t in batch(check.params, draw).items()}
    finals: list[float] = []
    losses: list[float] = []
    for run in range(_RUNS):
        model = network(check.params, draw, torch.float32)
        disturb(model, HashedDraw(f"{draw.key}/run{run}"), 3e-4)
        losses = train_steps(model, data, check.params["steps"], lr=check.params["lr"])
        finals.append(sum(losses[-10:]) / 10)
    mean = sum(finals) / len(finals)
    deviation = math.sqrt(sum((v - mean) ** 2 for v in finals) / (len(finals) - 1))
    return {"first": _round(losses[0]), "mean": _round(mean), "deviation": _round(deviation)}


MAKERS = {STEP: make_step, FIRST: make_first, CONVERGENCE: make_convergence}


def recompute_reference(path: Path = _FILE) -> None:
    """Compute all references of seed 0 on this CPU, and write them; a new battery ships with new ones."""
    content: dict[str, Any] = {"suite": SUITE, "ultralytics": installed()}
    content |= {name: make(find_check(name), 0) for name, make in MAKERS.items()}
    path.write_text(json.dumps(content, allow_nan=False, separators=(",", ":")) + "\n", encoding="utf-8")


def compare_gradients(reference: StepReference, gradients: dict[str, torch.Tensor]) -> tuple[float, str, float]:
    """Compare gradients, on the CPU and by parameter, with the sketches of the reference.

    Returns:
        The error of the whole gradient relative to its norm, the parameter that is off most, and by how much. Parameters
        whose gradient is almost zero are measured against a thousandth of the whole.
    """
    total, worst, most = 0.0, "", 0.0
    for name, expected in reference.sketches.items():
        gap = distance(sketch(gradients[name]), expected) if name in gradients else reference.norms[name]
        total += gap**2
        relative = gap / max(reference.norms[name], 1e-3 * reference.norm)
        if not relative <= most:
            worst, most = name, relative
    return math.sqrt(total) / reference.norm, worst, most


def cosine(reference: StepReference, gradients: dict[str, torch.Tensor], among: str = "") -> float:
    """Estimate the cosine between gradients and those of the reference; sketches tell it to about 0.1.

    Only parameters whose names begin with ``among`` are looked at. It is 1 for the same direction, about 0 for one that has
    nothing to do with it, and 0 where there are no gradients.
    """
    names = [name for name in reference.sketches if name.startswith(among)]
    there = [name for name in names if name in gradients]
    gap = sum(distance(sketch(gradients[name]), reference.sketches[name]) ** 2 for name in there)
    gap += sum(reference.norms[name] ** 2 for name in names if name not in gradients)
    right = sum(reference.norms[name] ** 2 for name in names)
    found = sum(float(gradients[name].norm()) ** 2 for name in there)
    return (right + found - gap) / (2 * math.sqrt(right * found)) if right and found else 0.0
