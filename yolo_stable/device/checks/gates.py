"""The limits by class of operation, each with its reason and source. A change needs a reason of its own."""

from __future__ import annotations

from ..gate import Gate

_CPU = "measured on a CPU with two cores; on accelerators not yet"


def _low(rms: float, q: float, what: str) -> Gate:
    return Gate(
        rms=rms, q=q, reason=f"{what} against float64 on the rounded inputs; a sum in float32 is far below", source=_CPU
    )


LINEAR = {
    "strict": Gate(
        rms=5e-6, rms_fail=5e-5, q=64, q_fail=1024,
        reason="float32 gives rms up to 1e-6 and q up to 5; Winograd may use up the warning; TF32 gives rms 3e-4, q 1e4",
        source=f"{_CPU}; MIOpenDriver's limits are rms 1.5e-6 to 2e-5 (MIOpen#600, #3279)",
    ),
    "configured": Gate(
        rms=2e-3, q=65536,
        reason="TF32 rounds inputs to 10 bits, which gives rms 3e-4, and twice that where the device cuts off",
        source=f"{_CPU}; pytorch#107514",
    ),
    "float16": _low(5e-3, 32, "measured rms 2.1e-4 to 1.0e-3 and q up to 4.3"),
    "bfloat16": _low(1.5e-2, 32, "measured rms 1.6e-3 to 1.7e-3 and q 1.0"),
}  # fmt: skip
"""Convolutions in three directions, matrix products."""
LINEAR_RANGE = {
    "strict": LINEAR["strict"],
    "configured": LINEAR["configured"],
}
