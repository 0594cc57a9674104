"""Operations of the determinism family."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module

import torch

from ..battery import find_check
from ..check import Check, CheckCase
from ..evidence import CheckEvidence, Comparison
from ..hashed import HashedDraw, sha256_of
from ..machine import Machine
from ..network import batch, gradients_of, losses_of, network, place
from ..recipe import Recipe, Tensors, compute_on, describe_change, same_bits
from ..repeats import contended, strictly_deterministic
from .step import NOT_ON_CPU

Once = Callable[[], Tensors]
"""Computes everything once, and returns it on the CPU."""


def repeat(machine: Machine, case: CheckCase, draw: HashedDraw) -> CheckEvidence:
    """Compute an operation of the battery, or a whole step, again and again, and compare bit for bit."""
    of = find_check(case.check.params["of"])
    dtype = getattr(torch, case.check.params.get("dtype", "float32"))
    if of.family == "step" and dtype == torch.float16 and machine.backend.name == "cpu":
        return CheckEvidence(skip=NOT_ON_CPU)
    inputs, once = (_step if of.family == "step" else _operation)(machine, of, draw, dtype)

    def after(dirt: float) -> Tensors:
        machine.empty_cache()
        machine.dirty(dirt)
        return once()

    evidence = CheckEvidence(input_sha256=sha256_of(inputs))
    with machine.computing():
        loose = "bitwise" if case.check.params.get("stress") else describe_change(once(), once())
        if loose != "bitwise":
            evidence.notes.append(f"not deterministic by default: {loose}")
        with strictly_deterministic():
            first = once()
            evidence.determinism["same"] = _worst(first, [once(), once()])
            evidence.determinism["poison"] = _worst(first, [after(float("nan")), after(1e30), after(0.0)])
            with contended(machine):
                evidence.determinism["contended"] = _worst(first, [once(), once(), once()])
    varying = [f"{how}: {what}" for how, what in evidence.determinism.items() if what != "bitwise"]
    if varying and case.check.params["listed"]:
        evidence.notes.append(f"not deterministic, as torch says: {', '.join(varying)}")
    elif varying:
        evidence.problems.append(f"other bits in strict mode, {', '.join(varying)}")
    evidence.comparisons = [Comparison(name=name, value=t, reference=t.double()) for name, t in first.items()]
    return evidence


def _operation(machine: Machine, of: Check, draw: HashedDraw, dtype: torch.dtype) -> tuple[Tensors, Once]:
    recipe: Recipe = import_module(f".{of.family}", __package__).RECIPES[of.operation](of.params, draw)
    inputs = {name: t.to(dtype) if t.dtype == torch.float64 else t for name, t in recipe.inputs.items()}

    def once() -> Tensors:
        placed = {name: machine.place(t) for name, t in inputs.items()}
        return {name: machine.fetch(t) for name, t in compute_on(recipe, placed, draw, dtype, machine).items()}

    return inputs, once


def _step(machine: Machine, of: Check, draw: HashedDraw, dtype: torch.dtype) -> tuple[Tensors, Once]:
    """Return the losses and all gradients of a step; in a lower precision by autocast."""
    data = {name: t.float() for name, t in batch(of.params, draw).items()}
    model = network(of.params, draw)
    place(model, machine)

    def once() -> Tensors:
        model.zero_grad()
        placed = {name: machine.place(t) for name, t in data.items()}
        losses = losses_of(model, placed, None if dtype == torch.float32 else dtype)
        losses.sum().backward()
        gradients = torch.cat([g.reshape(-1) for g in gradients_of(model).values()])
        return {"losses": machine.fetch(losses), "gradients": machine.fetch(gradients)}

    return data, once


def _worst(first: Tensors, others: list[Tensors]) -> str:
    different = [other for other in others if not all(same_bits(first[name], other[name]) for name in first)]
    return describe_change(first, different[0]) if different else "bitwise"


PROCEDURES = {"repeat": repeat}
