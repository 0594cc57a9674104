"""Optimizers in all their implementations, GradScaler, clipping, the EMA, and this project's own fused step."""

from __future__ import annotations

from ..check import Check
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
"""Torch's fused kernels compute wrong numbers for parameters with gaps in memory,
on the CPU of torch 2.14 as well (measured: off
by 0.03 to 0.7 after 50 steps). No YOLO has such parameters, and the guard's step does not hand them over."""

CHECKS = (
    *(
        Check(
            id=f"optimizer/{name.lower()}-{mode}", family="optimizer", operation="steps", params={"name": name,
            "mode": mode, "steps": 50},
            layouts=_DENSE if mode == "fused" else (*_DENSE, "view"), gates=OPTIMIZER,
            quick=("contiguous/strict", "channels_last/strict"), note=note,
        )
        for name, mode, note in (
            ("SGD", "plain", ""), ("SGD", "foreach", ""), ("SGD", "fused", ""),
            ("Adam", "plain", "pytorch#118115: gaps in memory"), ("Adam", "foreach", ""), ("Adam", "fused", ""),
            ("AdamW", "plain", ""), ("AdamW", "foreach", ""), ("AdamW", "fused", ""),
        )
    ),
    *(
        Check(
            id=f"optimizer/many-{name.lower()}-{mode}", family="optimizer", operation="steps",
            params={"name": name, "mode": mode, "steps": 3, "many": True}, layouts=_DENSE, gates=OPTIMIZER,
            quick=("contiguous/strict",) if mode != "plain" else (), note="more tensors than one launch takes, of all sizes",
        )
        for name in ("SGD", "Adam", "AdamW") for mode in ("plain", "foreach", "fused")
    ),
    *(
        Check(id=f"optimizer/scaler-fused-{name.lower()}", family="optimizer", operation="scaler",
              params={"name": name, "mode": "fused"}, gates=SCALER)
        for name in ("SGD", "Adam", "AdamW")
    ),
    Check(id="optimizer/musgd", family="optimizer", operation="musgd", params={"steps": 10}, gates=_MUON),
    Check(id="optimizer/guard-sgd", family="optimizer", operation="guard", params={"name": "SGD"}, gates=OPTIMIZER,
          note="the first window overflows: momentum must not be uninitialised memory"),
    Check(id="optimizer/guard-adamw", family="optimizer", operation="guard", params={"name": "AdamW"}, gates=OPTIMIZER),
    Check(id="optimizer/guard-rehearsal", family="optimizer", operation="rehearsal", params={}, gates=SCALER),
    Check(id="optimizer/scaler-sgd", family="optimizer", operation="scaler", params={"name": "SGD"}, gates=SCALER),
    Check(id="optimizer/scaler-adamw", family="optimizer", operation="scaler", params={"name": "AdamW"}, gates=SCALER),
    Check(id="optimizer/clip-norm", family="optimizer", operation="clip", params={}, gates=OPTIMIZER),
    Check(id="optimizer/ema", family="optimizer", operation="ema", params={"steps": 50}, gates=OPTIMIZER),
    Check(id="optimizer/torch-fused-sgd-overflow", family="optimizer", operation="fused_sgd_overflow", params={}, gates=SCALER,
          tier="default", note="torch takes uninitialised memory for the momentum; this project never lets it"),
)  # fmt: skip
