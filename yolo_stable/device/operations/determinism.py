"""What the checks of the determinism family do."""

from __future__ import annotations

from importlib import import_module

import torch

from ..battery import find_check
from ..check import Case
from ..evidence import Comparison, Evidence
from ..hashed import Draw
from ..machine import Machine
from ..recipe import Recipe, Tensors, compute_on, describe_change, same_bits
from ..repeats import contended, strictly_deterministic


def repeat(machine: Machine, case: Case, draw: Draw) -> Evidence:
    """Compute an operation of the battery again and again, and compare bit for bit."""
    of = find_check(case.check.params["of"])
    recipe: Recipe = import_module(f".{of.family}", __package__).RECIPES[of.operation](of.params, draw)
    inputs = {name: t.float() if t.dtype == torch.float64 else t for name, t in recipe.inputs.items()}

    def once(dirt: float | None = None) -> Tensors:
        placed = {name: machine.place(t) for name, t in inputs.items()}
        if dirt is not None:
            machine.empty_cache()
            machine.dirty(dirt)
        return {name: machine.fetch(t) for name, t in compute_on(recipe, placed, draw, torch.float32, machine).items()}

    evidence = Evidence()
    with machine.computing():
        loose = describe_change(once(), once())
        if loose != "bitwise":
            evidence.notes.append(f"not deterministic by default: {loose}")
        with strictly_deterministic():
            first = once()
            evidence.determinism["same"] = _worst(first, [once(), once()])
            evidence.determinism["poison"] = _worst(first, [once(float("nan")), once(1e30), once(0.0)])
            with contended(machine):
                evidence.determinism["contended"] = _worst(first, [once(), once(), once()])
    varying = [f"{how}: {what}" for how, what in evidence.determinism.items() if what != "bitwise"]
    if varying and case.check.params["listed"]:
        evidence.notes.append(f"not deterministic, as torch says: {', '.join(varying)}")
    elif varying:
        evidence.problems.append(f"other bits in strict mode, {', '.join(varying)}")
    evidence.comparisons = [Comparison(name=name, value=t, reference=t.double()) for name, t in first.items()]
    return evidence


def _worst(first: Tensors, others: list[Tensors]) -> str:
    different = [other for other in others if not all(same_bits(first[name], other[name]) for name in first)]
    return describe_change(first, different[0]) if different else "bitwise"


PROCEDURES = {"repeat": repeat}
