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
_PARTIAL = (
    "rounding p partial sums of a long sum gives rms 0.43 sqrt(1 + p / 2) units: measured 0.43 with none, 1.8 with 32, 4.6 with"
    " 256. Up to 16 may be split off, so that what sums in 16 bits shows where a sum has thousands of terms"
)
LINEAR_LONG = {
    "strict": Gate(
        rms=2e-5, rms_fail=5e-5, q=64, q_fail=1024, reason="sums over 100,000 places: measured rms 5.2e-6", source=_CPU
    ),
    "configured": LINEAR["configured"],
    "float16": Gate(rms=1.5 * 2**-11, rms_fail=3 * 2**-11, q=32, reason=_PARTIAL, source=_CPU),
    "bfloat16": Gate(rms=1.5 * 2**-8, rms_fail=3 * 2**-8, q=32, reason=_PARTIAL, source=_CPU),
}
"""Products whose sums have thousands of terms: what they are summed in shows."""
LINEAR_IMAGES = {
    **LINEAR_LONG,
    "bfloat16": Gate(
        rms=3 * 2**-8,
        rms_fail=6 * 2**-8,
        q=32,
        reason="torch on a CPU without oneDNN adds up 64 images one after another in bfloat16: measured rms 8.9e-3",
        source=_CPU,
    ),
}
"""Weight gradients of large batches."""
LINEAR_SINGLE = {
    **LINEAR,
    "float16": Gate(
        rms=5e-3,
        reason="gradients are single products, of which float16 holds the smallest in few bits: measured q 45, rms 3.3e-4",
        source=_CPU,
    ),
}
"""Products of vectors."""
LINEAR_RANGE = {
    "strict": LINEAR["strict"],
    "configured": LINEAR["configured"],
}
NORM = {
    "strict": Gate(rms=1e-5, q=512, reason="measured rms 1e-6 and q 20; a wrong epsilon gives 4e-4", source=_CPU),
    "float16": _low(5e-3, 64, "measured rms 4e-4"),
    "bfloat16": _low(2e-2, 64, "measured rms 3e-3"),
}
"""BatchNorm and LayerNorm with gradients and running statistics."""
NORM_WIDE = {
    "strict": Gate(
        rms=1e-4,
        q=4096,
        reason="gradients are sums over 50,000 to 132,000 places, one after another: measured 2.4e-5",
        source=_CPU,
    ),
}
NORM_OFFSET = {
    "strict": Gate(
        rms=1e-4, reason="a mean of 43 deviations costs three digits: measured 1e-5", source=f"{_CPU}; device notes"
    ),
}
ELEMENTWISE = {
    "strict": Gate(rms=2e-6, q=64, reason="measured rms up to 4e-7, q up to 4", source=_CPU),
    "float16": _low(2e-3, 64, "measured rms 3e-4"),
    "bfloat16": _low(1.6e-2, 64, "measured rms 2e-3, q up to 15"),
}
"""Activations and other functions of one element."""
LOSS = {
    "strict": Gate(rms=5e-6, q=1024, reason="measured rms up to 3e-7, q up to 180 where terms cancel", source=_CPU),
}
"""Softmax, DFL, cross entropy, BCE, CIoU; autocast runs them in float32."""
REDUCTION = {
    "strict": Gate(
        rms=1e-5, q=64, reason="measured rms up to 1e-6; q is relative to the sum of absolute terms", source=_CPU
    ),
}
NORM_LONG = {
    "strict": Gate(
        rms=5e-5,
        q=1024,
        reason="a sum of a million squares, one after another: measured rms 4e-6 and q 65",
        source=_CPU,
    ),
}
INTERPOLATION = {
    "strict": Gate(rms=1e-5, q=1024, reason="places are rounded: measured rms 1.1e-6 and q 77", source=_CPU),
}
ATTENTION = {
    "strict": Gate(rms=5e-6, q=256, reason="measured rms 3.8e-7", source=_CPU),
    "configured": Gate(rms=2e-3, reason="TF32 in both products", source="extrapolated from LINEAR"),
    "float16": _low(5e-3, 64, "measured rms 5e-4"),
    "bfloat16": _low(2e-2, 64, "measured rms 4e-3"),
}
ATTENTION_FAR = {
    "strict": Gate(rms=1e-4, q=32768, reason="scores of 250 lose two digits: measured rms 1.5e-5, q 3700", source=_CPU),
}
GRID_SAMPLE = {"strict": Gate(rms=1e-5, q=2048, reason="measured rms 1.1e-6", source=_CPU)}
_EXACT = Gate(exact=True, reason="nothing is rounded", source="definition of the operation")
EXACT = {"exact": _EXACT}
EXACT_LOW: dict[str, Gate] = dict.fromkeys(("exact", "float16", "bfloat16"), _EXACT)
"""Copies, places and orders in every floating type."""
CLASSES = {
    "exact": Gate(reason="NaN, infinities and finite numbers at the same places", source="IEEE 754; pytorch#120899")
}
LARGE = {
    "strict": Gate(
        rms=5e-5,
        q=8192,
        reason="sums over 70,000 rows and 130,000 places: measured rms 2.2e-5, q 1445 in a resize to 511 x 517",
        source=_CPU,
    ),
}
FORMS = Gate(rms=1e-5, q=1024, reason="measured rms 2.1e-6, q 62 where places of a resize are rounded", source=_CPU)
SPECIAL = {
    "strict": Gate(
        rms=2e-6,
        q=64,
        reason="NaN and infinities at the same places, and the rest right: measured rms 2.5e-7",
        source=_CPU,
    ),
    "float16": _low(2e-3, 64, "measured rms 2.9e-4"),
    "bfloat16": _low(1.6e-2, 64, "measured rms 2.4e-3"),
}
MASKS = {
    "strict": Gate(rms=5e-6, q=256, reason="measured rms 3.0e-7, q 27", source=_CPU),
    "float16": _low(5e-3, 64, "measured rms 5.0e-4"),
    "bfloat16": _low(3e-2, 64, "measured rms 3.8e-3"),
}
LOW_SUMS = {
    "float16": _low(1.5e-3, 32, "measured rms 3.1e-4"),
    "bfloat16": _low(1e-2, 32, "measured rms 2.7e-3"),
}
"""Long sums of positive numbers in 16 bits: a sum that is kept in 16 bits stalls, and is off by a tenth and more."""
ACCUMULATED = {
    "strict": LINEAR["strict"],
    "float16": _low(2**-11, 32, "measured rms 2.5e-4"),
    "bfloat16": _low(2**-8, 32, "measured rms 2.0e-3"),
}
"""Products of positive numbers: rounding of the result is all that may be lost."""
COVER = {
    "strict": Gate(q=512, reason="each element against itself: measured q up to 11", source=_CPU),
    "float16": Gate(q=16, reason="each element against itself: measured q up to 2.2", source=_CPU),
    "bfloat16": Gate(q=16, reason="each element against itself: measured q up to 2.4", source=_CPU),
}
"""Functions in all pairs of forms: their numbers have all magnitudes, and none may be wrong."""
COVER_GRADIENTS = {
    "strict": Gate(
        q=2048, reason="terms of softmax cancel: measured q up to 223; one lost element gives 1e6", source=_CPU
    ),
    "float16": Gate(q=32, reason="measured q up to 9; a lost element gives 200", source=_CPU),
    "bfloat16": Gate(q=32, reason="measured q up to 9; an element that is off by a quarter gives 64", source=_CPU),
}
"""Maps and rows with their gradients in all pairs of layouts."""
COVER_NORMS = {
    "strict": Gate(
        q=65536,
        reason="a mean of 5 deviations costs digits: measured q up to 910; a lost epsilon gives 1e6",
        source=_CPU,
    )
}
POOL = {
    "strict": Gate(rms=1e-6, q=64, reason="forward is a copy; gradients are sums of a few terms", source=_CPU),
}
ASSIGN = {
    "strict": Gate(rms=1e-5, reason="measured 3e-7; the same anchors must be positive", source=_CPU),
}
ASSIGN_TINY = {
    "strict": Gate(
        rms=3e-4, reason="the sixth power of the IoU of boxes of two pixels: measured up to 3.2e-5", source=_CPU
    ),
}
OPTIMIZER = {
    "strict": Gate(
        maxrel=2e-5, reason="50 steps: measured SGD 3.5e-7, Adam 4.3e-7, AdamW 2.6e-6; plain, foreach and fused equal",
        source=_CPU,
    ),
}  # fmt: skip
SCALER = {"exact": _EXACT}
DETERMINISM = {"exact": Gate(reason="three runs in strict mode must be equal bit for bit", source="pytorch#196164")}
_DIRECTION = "loss within 2e-2, cosine of the gradient over 0.1 and of the head's over 0.45, norm within a factor of 3"
STEP = {
    "strict": Gate(rms=1e-3, reason="measured 2.5e-5 for the gradient of the whole step", source=_CPU),
    "configured": Gate(rms=0.25, reason="weights off by 3e-4 move the gradient by 7e-2", source=_CPU),
    **{precision: Gate(reason=_DIRECTION, source=_CPU) for precision in ("float16", "bfloat16")},
}
SHORT = {
    "strict": Gate(
        reason="step 1 within 1e-5, steps 2 and 3 within 20 times the effect of rounding noise in the weights",
        source=f"{_CPU}; later steps are chaotic",
    ),
}  # fmt: skip
_SHADOW = "limits by kind of operation: shadow/limits.py"
SHADOW = {precision: Gate(reason=_SHADOW, source=_CPU) for precision in ("strict", "float16", "bfloat16")}
REPORT = {"exact": Gate(reason="reported, not judged", source="none")}
