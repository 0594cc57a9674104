"""Operations of the transfer family."""

from __future__ import annotations

import torch
from torch import Tensor

from ..check import CheckCase
from ..evidence import CheckEvidence, Comparison
from ..hashed import HashedDraw, hash_stream, sha256_of
from ..machine import Machine

_DENORMAL = {"float32": 1e-40, "float16": 2.0**-20, "bfloat16": 1e-39}


def round_trip(machine: Machine, case: CheckCase, draw: HashedDraw) -> CheckEvidence:
    """Copy a pattern to the device, within it, and back."""
    count = case.check.params["megabytes"] * (1 << 20) // 8
    pattern = hash_stream(draw.key, count)
    if case.check.params.get("pinned"):
        if machine.device.type != "cuda":
            return CheckEvidence(skip="memory is pinned for CUDA and ROCm only")
        pattern = pattern.pin_memory()
    with machine.computing():
        there = pattern.to(machine.device, non_blocking=True) if pattern.is_pinned() else machine.place(pattern)
        back = machine.fetch(there.clone())
    return _compared(back, pattern, pattern)


def _compared(value: Tensor, reference: Tensor, given: Tensor) -> CheckEvidence:
    comparison = Comparison(name="out", value=value, reference=reference)
    return CheckEvidence(comparisons=[comparison], input_sha256=sha256_of({"x": given}))


def all_patterns(dtype: torch.dtype) -> Tensor:
    """Return every number of a 16-bit floating type, with its infinities and without its NaN."""
    bits = torch.arange(-(1 << 15), 1 << 15, dtype=torch.int32).to(torch.int16)
    values = bits.view(dtype)
    return values[values == values]


def cast(machine: Machine, case: CheckCase, draw: HashedDraw) -> CheckEvidence:
    """Round float32 to 16 bits: numbers of all sizes, and the ties between all neighbours."""
    dtype = getattr(torch, case.check.params["dtype"])
    numbers = all_patterns(dtype).float()
    numbers = numbers[torch.isfinite(numbers)].sort().values
    ties = (numbers[1:].double() + numbers[:-1].double()).div(2).float()
    values = torch.cat([numbers, ties, ties * (1 + 2.0**-20), draw("x", 4096, low=-1e4, high=1e4).float()])
    smallest = torch.finfo(dtype).tiny
    values = values[(values == 0) | (values.abs() >= smallest)]  # what becomes of smaller ones is reported elsewhere
    with machine.computing():
        result = machine.fetch(machine.place(values).to(dtype))
    return _compared(result.float(), _round_to(values, dtype), values)


def _round_to(values: Tensor, dtype: torch.dtype) -> Tensor:
    """Round float32 to nearest, ties to even, in float64 arithmetic: nothing here relies on a conversion being right."""
    mantissa, exponent = torch.frexp(values.double())
    steps = 2.0 ** (11 if dtype == torch.float16 else 8)
    rounded = torch.ldexp(torch.round(mantissa * steps) / steps, exponent)
    largest = float(torch.finfo(dtype).max)
    return torch.where(rounded.abs() > largest, torch.copysign(torch.full_like(rounded, torch.inf), rounded), rounded)


def widen(machine: Machine, case: CheckCase, draw: HashedDraw) -> CheckEvidence:
    """Turn every number of 16 bits into float32: always exact."""
    patterns = all_patterns(getattr(torch, case.check.params["dtype"]))
    tiny = torch.finfo(patterns.dtype).tiny
    patterns = patterns[(patterns == 0) | (patterns.double().abs() >= tiny)]
    with machine.computing():
        result = machine.fetch(machine.place(patterns).float())
    return _compared(result, patterns.double(), patterns)


def denormals(machine: Machine, case: CheckCase, draw: HashedDraw) -> CheckEvidence:
    """Report whether numbers below the smallest normal one survive a multiplication; both are legitimate."""
    evidence = CheckEvidence()
    with machine.computing():
        for name, value in _DENORMAL.items():
            try:
                kept = float(machine.fetch(machine.place(torch.tensor([value], dtype=getattr(torch, name))) * 1.0))
            except (RuntimeError, TypeError) as error:
                evidence.notes.append(f"{name}: {str(error).splitlines()[0][:80]}")
                continue
            evidence.notes.append(f"{name}: denormals are {'kept' if kept != 0 else 'flushed to zero'}")
    return evidence


PROCEDURES = {"round_trip": round_trip, "cast": cast, "widen": widen, "denormals": denormals}
