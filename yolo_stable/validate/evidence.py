"""Evidence: the tensors of an operation beside their references, and the judgement."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import torch
from torch import Tensor

from .check import CheckCase
from .deviation import Errors
from .gate import SEVERITY, Status
from .hashed import sha256_of
from .metrics import measure, precision_class
from .packing import Pieces, worst_piece
from .result import CheckResult, Part
from .sketch import brief_sketch, total_sketch

_SAMPLES = 8


class KernelMissingError(RuntimeError):
    """This device lacks a kernel that was asked for by name, for such inputs: not a failure."""


@dataclass(kw_only=True)
class Comparison:
    """One tensor of the device beside its reference."""

    name: str
    value: Tensor
    """On the CPU, as the device computed it."""
    reference: Tensor
    scale: Tensor | None = None
    floor: float = 0.0
    unit: float | None = None
    """Unit roundoff of what it was computed in, where its type is finer."""
    call: int = 1
    """The call of the operation that computed it."""
    pieces: Pieces = ()
    """The combinations that it is packed from; empty: it is one output."""

    def worst_place(self) -> str:
        """Return in which combination the error is largest, in words; empty where there are none."""
        return f" at {worst_piece(self.value, self.reference, self.scale, self.pieces)}" if self.pieces else ""


@dataclass(kw_only=True)
class CheckEvidence:
    """What was seen when one case was run."""

    comparisons: list[Comparison] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    """Failures, whatever the numbers say."""
    warnings: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    numbers: dict[str, float] = field(default_factory=dict)
    determinism: dict[str, str] = field(default_factory=dict)
    input_sha256: str = ""
    reference: tuple[float, ...] | None = None
    """Sketch of the reference where it is not that of the comparisons."""
    is_linear: bool = False
    """Whether the size of the error tells the precision."""
    skip: str = ""
    """Why nothing was run."""


def conclude(case: CheckCase, evidence: CheckEvidence) -> CheckResult:
    """Judge a case by its gate, from what was seen when it was run."""
    status, reasons = Status.PASS, []
    parts: list[Part] = []
    worst: Errors | None = None
    classes = set()
    for comparison in evidence.comparisons:
        errors = measure(comparison.value, comparison.reference, comparison.scale, comparison.floor, comparison.unit)
        verdict, why = case.gate.judge(errors)
        if verdict is not Status.PASS:
            call = "" if comparison.call == 1 else f", call {comparison.call}"
            reasons.append(f"{comparison.name}{call}{comparison.worst_place()}: {why}")
            status = _worse(status, verdict)
        if evidence.is_linear:
            classes.add(precision_class(comparison.value.dtype, errors))
        worst = errors if worst is None else _larger(worst, errors)
        if comparison.call == 1:
            parts.append(_part(comparison, errors))
    if evidence.problems or evidence.warnings:
        reasons = [*evidence.problems, *evidence.warnings, *reasons]
        status = _worse(status, Status.FAIL if evidence.problems else Status.WARN)
    if evidence.skip:
        status, reasons = Status.SKIP, [evidence.skip]
    reference = evidence.reference
    if reference is None:
        reference = total_sketch(c.reference for c in evidence.comparisons if c.call == 1)
    order = ("broken", "fp16", "bf16", "tf32", "ieee-fp32")
    return CheckResult.of(
        case,
        status,
        "; ".join(reasons),
        notes=tuple(evidence.notes),
        precision_class=min(classes, key=order.index) if classes else None,
        errors=worst,
        determinism=evidence.determinism,
        input_sha256=evidence.input_sha256,
        reference=reference,
        parts=tuple(parts),
        numbers=evidence.numbers,
    )


def _worse(a: Status, b: Status) -> Status:
    return min(a, b, key=SEVERITY.index)


def _larger(a: Errors, b: Errors) -> Errors:
    """Return the larger of each error; a NaN counts as the largest."""
    q = [e.q for e in (a, b) if e.q is not None]
    return Errors(
        rms=_top(a.rms, b.rms), q=_top(*q) if q else None, maxrel=_top(a.maxrel, b.maxrel), nf=max(a.nf, b.nf)
    )


def _top(*values: float) -> float:
    return next((v for v in values if not (v <= float("inf"))), max(values))


def _part(comparison: Comparison, errors: Errors) -> Part:
    value = comparison.value
    flat = value.reshape(-1).double()
    finite, wrong, infinite = flat, 0, 0
    if not math.isfinite(float(flat.sum())):
        finite = torch.where(torch.isfinite(flat), flat, torch.zeros_like(flat))
        infinite = int((flat.abs() == torch.inf).sum())
        wrong = int((flat != flat).sum())
    step = max(flat.numel() // _SAMPLES, 1)
    return Part(
        name=comparison.name,
        shape=tuple(value.shape),
        sha256=sha256_of({"": value}),
        nan=wrong,
        inf=infinite,
        l2=float(finite.norm()),
        absmax=float(finite.abs().max()) if flat.numel() else 0.0,
        mean=float(finite.mean()) if flat.numel() else 0.0,
        sketch=brief_sketch(value),
        sample=tuple(float(v).hex() for v in flat[::step][:_SAMPLES]),
        errors=errors,
    )
