"""Optimizers in all their implementations, GradScaler, clipping, the EMA, and this project's own fused step."""

from __future__ import annotations

from functools import partial

from ..check import check_of
from ..gate import Gate
from .gates import OPTIMIZER, SCALER

_MUON = {
    "strict": Gate(
        maxrel=5e-3,
        reason="Newton-Schulz in bfloat16: compared with the CPU doing the same; measured 0 there",
        source="CPU",
    )
}
_DENSE = ("contiguous", "channels_last")
"""Torch's fused kernels compute wrong numbers for parameters with gaps in memory, on the CPU of torch 2.14 as well (measured: off
by 0.03 to 0.7 after 50 steps). No YOLO has such parameters, and the guard's step does not hand them over."""
_NAMES, _MODES = ("SGD", "Adam", "AdamW"), ("plain", "foreach", "fused")
_check = partial(check_of, "optimizer", gates=OPTIMIZER)
_scaler = partial(check_of, "optimizer", gates=SCALER)

CHECKS = (
    *(
        _check(
            f"{name.lower()}-{mode}", "steps", layouts=_DENSE if mode == "fused" else (*_DENSE, "view"),
            quick=("contiguous/strict", "channels_last/strict"), name=name, mode=mode, steps=50,
            note="pytorch#118115: gaps in memory" if (name, mode) == ("Adam", "plain") else "",
        )
        for name in _NAMES for mode in _MODES
    ),
    *(
        _check(
            f"many-{name.lower()}-{mode}", "steps", layouts=_DENSE, quick=("contiguous/strict",) if mode != "plain" else (),
            name=name, mode=mode, steps=3, many=True, note="more tensors than one launch takes, of all sizes",
        )
        for name in _NAMES for mode in _MODES
    ),
    *(_scaler(f"scaler-fused-{name.lower()}", "scaler", name=name, mode="fused") for name in _NAMES),
    _check("musgd", gates=_MUON, steps=10),
    _check("guard-sgd", "guard", name="SGD", note="the first window overflows: momentum must not be uninitialised memory"),
    _check("guard-adamw", "guard", name="AdamW"),
    _scaler("guard-rehearsal", "rehearsal"),
    _scaler("scaler-sgd", "scaler", name="SGD"),
    _scaler("scaler-adamw", "scaler", name="AdamW"),
    _check("clip-norm", "clip"),
    _check("ema", steps=50),
    _scaler("torch-fused-sgd-overflow", "fused_sgd_overflow", tier="default",
            note="torch takes uninitialised memory for the momentum; this project never lets it"),
)  # fmt: skip
