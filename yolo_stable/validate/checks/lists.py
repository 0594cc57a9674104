"""Long lists of tensors, as optimizers, clipping, loss scaler and EMA call on them."""

from __future__ import annotations

from ..check import check_of
from .gates import ELEMENTWISE, EXACT, NORM_LONG

CALLS = (
    "add", "add_", "add_scalar_", "sub_", "add_scalars_", "mul", "mul_", "mul_tensor_", "mul_each_", "mul_scalars_", "div",
    "div_", "div_scalars_", "div_scalars", "lerp", "lerp_", "addcmul", "addcmul_", "addcdiv", "addcdiv_", "addcdiv_scalars_",
    "addcmul_scalars_", "sqrt", "sqrt_", "neg_", "abs", "reciprocal_", "maximum_", "zero_", "copy_", "pow", "norm", "norm_inf",
    "norm_one", "mixed_", "clip",
)  # fmt: skip
_STRICT = {"strict": ELEMENTWISE["strict"]}

CHECKS = (
    *(
        check_of(
            "optimizer", f"list-{name}", "foreach", gates=NORM_LONG if name.startswith("norm") else _STRICT, name=name
        )
        for name in CALLS
    ),
    check_of("optimizer", "list-unscale", "unscale", gates=_STRICT),
    check_of("optimizer", "scale-updates", "update_scale", gates=EXACT),
)
