"""Faults of a device as data: the operations of torch that they change, how, and the checks that must find them.

They prove the validator without a faulty device. A fault is put in by ``simulated.py`` below autograd, so that it is there
wherever the operation is used: in the check of that operation, in the whole step and in the short training.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ..errors import InvalidCallError, nearest


@dataclass(frozen=True, kw_only=True, slots=True)
class KernelFault:
    """One kind of fault in one family of operations."""

    name: str
    kind: str
    """What goes wrong, such as ``bitflip``; the same in several families."""
    family: str
    """The family whose checks must fail."""
    operations: tuple[str, ...]
    """Names below ``torch.ops.aten``; ``to_device`` and ``to_host`` for copies."""
    change: str
    """A key of ``CHANGES``."""
    caught_by: tuple[str, ...]
    """Beginnings of ids; at least one check of each must fail."""
    output: int = 0
    """Which of several results is changed."""
    amount: float = 0.0
    """How much, where the change has a size."""
    every: int = 1
    """It shows in one of so many calls; more than one: an intermittent fault."""
    dtypes: tuple[str, ...] = ()
    """Types of the first tensor for which it shows; empty: floating types, and for exact operations all."""
    only: Mapping[str, Any] = field(default_factory=dict)
    """Further conditions on a call; see ``fits``."""
    note: str = ""

    def fits(self, call: Any) -> bool:
        """Return whether the fault shows in a call.

        Conditions: ``ndim`` and ``channels_last`` of the first tensor, ``groups`` (``one`` or ``many``) of a convolution,
        ``transposed`` and ``kernel`` of one, ``numel`` at least of the first tensor, ``dense`` false for tensors with gaps or
        another order, ``training`` of a BatchNorm, ``weight`` (the shape of a convolution's weight).
        """
        tensors = call.tensors()
        first = tensors[0] if tensors else None
        if self.dtypes and (first is None or str(first.dtype).removeprefix("torch.") not in self.dtypes):
            return False
        return all(call.has(first, name, value) for name, value in self.only.items())


def _fault(name: str, family: str, operations: str, change: str, caught_by: str, **more: Any) -> KernelFault:
    return KernelFault(
        name=name, kind=more.pop("kind", change), family=family, operations=tuple(operations.split()), change=change,
        caught_by=tuple(f"{family}/{part}" for part in caught_by.split()), **more,
    )  # fmt: skip


_CONV, _BACK = "convolution", "convolution_backward"
_MM = "mm bmm addmm"
_BN = "native_batch_norm"
_FLASH = "_scaled_dot_product_flash_attention_for_cpu"

FAULTS: tuple[KernelFault, ...] = (
    # copies
    _fault("transfer-bit", "transfer", "to_host", "flip_integer", "round-trip", kind="bitflip", dtypes=("int64",)),
    _fault("transfer-tail", "transfer", "to_device", "zero_tail", "round-trip", kind="zero tail", dtypes=("int64",)),
    _fault("cast-truncates", "transfer", "_to_copy", "truncate_cast", "cast-bfloat16", kind="rounding"),
    _fault("cast-overflows", "transfer", "_to_copy", "saturate_cast", "cast-float16", kind="overflow"),
    # exact
    _fault("scatter-duplicates", "exact", "scatter_add scatter_add_", "lose_duplicates", "scatter-add-int8",
           kind="duplicates lost"),
    _fault("index-put-tail", "exact", "index_put index_put_", "skip_last_index", "index-put", kind="unwritten tail"),
    _fault("argmax-next", "exact", "argmax", "next_index", "argmax", kind="off by one"),
    _fault("gather-next", "exact", "gather", "roll", "gather", kind="off by one"),
    _fault("topk-unsorted", "exact", "topk", "swap_first_two", "topk", kind="order"),
    _fault("sort-unstable", "exact", "sort", "swap_first_two", "sort", kind="order"),
    _fault("cumsum-restarts", "exact", "cumsum", "restart_sum", "cumsum-int", kind="off by one block",
           dtypes=("int64",)),
    _fault("unique-counts", "exact", "_unique2", "add_one", "unique", kind="counts", output=2),
    _fault("nonzero-misses", "exact", "nonzero", "drop_last_row", "nonzero", kind="last one lost"),
    _fault("amax-tail", "exact", "amax", "ignore_last_column", "amax", kind="last one lost"),
    _fault("concat-tail", "exact", "cat", "nan_tail", "concat", kind="unwritten tail"),
    _fault("upsample-shift", "exact", "upsample_nearest2d", "roll", "upsample-nearest", kind="off by one"),
    _fault("maxpool-border", "exact", "max_pool2d_with_indices", "zero_padding_pool", "maxpool", kind="padding"),
    _fault("pad-value", "exact", "constant_pad_nd", "scale", "pad", kind="scale", amount=0.5),
    # NaN
    _fault("clamp-launders", "exact", "clamp clamp_ clamp_min clamp_min_", "launder_nan",
           "nan-clamp nan-clamp_min", kind="NaN laundered"),
    _fault("relu-launders", "exact", "relu", "launder_nan", "nan-relu", kind="NaN laundered"),
    _fault("maxpool-launders", "exact", "max_pool2d_with_indices", "launder_nan", "nan-maxpool", kind="NaN laundered"),
    _fault("where-spreads", "exact", "where", "spread_nan", "nan-where", kind="NaN spread"),
    _fault("foreach-norm-launders", "exact", "_foreach_norm", "launder_nan", "passes-foreach-norm passes-clip-norm",
           kind="NaN lost in a norm"),
    _fault("norm-launders", "exact", "linalg_vector_norm norm", "launder_nan", "passes-norm passes-foreach-norm",
           kind="NaN lost in a norm"),
    _fault("max-launders", "exact", "max amax", "launder_nan", "passes-max", kind="NaN lost in a maximum",
           note="pytorch#130295"),
    _fault("min-launders", "exact", "min amin", "launder_nan", "passes-min", kind="NaN lost in a maximum"),
    _fault("aminmax-launders", "exact", "aminmax", "launder_nan", "passes-aminmax", kind="NaN lost in a maximum"),
    _fault("maximum-launders", "exact", "maximum", "launder_nan", "passes-maximum", kind="NaN lost in a maximum",
           dtypes=("bfloat16",)),
    _fault("foreach-launders", "exact", "_foreach_mul _foreach_add_", "launder_nan",
           "passes-foreach passes-foreach-in-place", kind="NaN laundered by lists"),
    _fault("fused-launders", "exact", "_fused_sgd_", "launder_nan", "passes-fused-sgd", kind="NaN laundered by lists"),
    _fault("clone-launders", "exact", "clone", "launder_nan", "passes-copies", kind="NaN laundered by a copy",
           dtypes=("float16",)),
    _fault("topk-anchors", "exact", "topk", "swap_first_two", "topk-anchors", kind="order", only={"numel": 30_000}),
    _fault("permutation", "exact", "randperm", "add_one", "chance", kind="chance"),
    _fault("dropout-scale", "exact", "bernoulli_", "scale", "chance", kind="chance", amount=0.5),
    # elementwise and losses
    _fault("silu-half", "elementwise", "silu", "through_half", "silu", kind="float16 inside"),
    _fault("silu-backward", "elementwise", "silu_backward", "bitflip", "silu", kind="bitflip"),
    _fault("sigmoid-bit", "elementwise", "sigmoid", "bitflip", "sigmoid", kind="bitflip"),
    _fault("exp-approximate", "elementwise", "exp", "scale", "exp", kind="scale", amount=1.0 + 2e-5),
    _fault("log-flush", "elementwise", "log", "bitflip", "log", kind="bitflip"),
    _fault("atan-tail", "elementwise", "atan", "nan_tail", "atan ciou", kind="unwritten tail"),
    _fault("softmax-half", "elementwise", "_softmax", "through_half", "softmax dfl-integral", kind="float16 inside"),
    _fault("softmax-overflow", "elementwise", "_log_softmax", "naive_log_softmax", "log-softmax", kind="overflow"),
    _fault("bce-overflow", "elementwise", "binary_cross_entropy_with_logits", "naive_bce", "bce-extreme",
           kind="overflow"),
    _fault("sum-half", "elementwise", "sum mean", "through_half", "sum", kind="fp16 accumulation"),
    _fault("index-put-duplicates", "elementwise", "index_put index_put_", "not_accumulating", "index-put-accumulate",
           kind="duplicates lost"),
    _fault("scatter-float-duplicates", "elementwise", "scatter_add scatter_add_", "lose_duplicates", "scatter-add",
           kind="duplicates lost", dtypes=("float32",)),
    _fault("maxpool-backward", "elementwise", "max_pool2d_with_indices_backward", "zero_tail", "maxpool",
           kind="zero tail"),
    _fault("silu-in-place", "elementwise", "silu_", "zero_tail", "in-place-silu", kind="zero tail of an argument"),
    _fault("exp-small", "elementwise", "exp", "through_half", "small-exponents", kind="range of float16"),
    _fault("sum-many", "elementwise", "sum", "scale", "sum-million", kind="scale of long sums", amount=1.0001,
           only={"numel": 900_000}),
    _fault("bilinear-rows", "elementwise", "upsample_bilinear2d", "roll", "bilinear", kind="off by one"),
    _fault("bilinear-backward", "elementwise", "upsample_bilinear2d_backward", "zero_tail", "bilinear", kind="zero tail"),
    _fault("index-add", "elementwise", "index_add index_add_", "zero_tail", "index-add", kind="zero tail"),
    # linear
    _fault("wgrad-many", "linear", _BACK, "scale", "wgrad-16", kind="scale of long sums", output=1, amount=1.001,
           only={"numel": 400_000}),
    _fault("bmm-many", "linear", "bmm", "zero_tail", "bmm-40", kind="zero tail of many products", only={"numel": 20_000}),
    _fault("tf32", "linear", f"{_CONV} {_BACK} {_MM}", "round_inputs", "conv3x3-64 matmul-nn", amount=10),
    _fault("bf16-inside", "linear", f"{_CONV} {_BACK} {_MM}", "round_inputs", "conv3x3-64 matmul-nn", kind="bf16",
           amount=7),
    _fault("fp16-accumulate", "linear", f"{_CONV} {_MM}", "through_half", "conv3x3-64 matmul-nn",
           kind="fp16 accumulation",
           dtypes=("float32",)),
    _fault("bitflip", "linear", _CONV, "bitflip", "conv-stem"),
    _fault("zero-tail", "linear", _CONV, "zero_tail", "conv3x3-64", kind="zero tail"),
    _fault("nan-tail", "linear", _CONV, "nan_tail", "conv3x3-64", kind="unwritten tail"),
    _fault("padding", "linear", _CONV, "wrong_padding_row", "conv3x3-64", only={"kernel": 3}, note="off by one"),
    _fault("wgrad-scale", "linear", _BACK, "scale", "conv1x1-128-64", output=1, amount=1.05,
           note="wrong weight gradient with right loss"),
    _fault("wgrad-bit", "linear", _BACK, "bitflip", "conv3x3-64", kind="bitflip", output=1),
    _fault("wgrad-tail", "linear", _BACK, "nan_tail", "conv3x3-64", kind="unwritten tail", output=1),
    _fault("wgrad-1x1", "linear", _BACK, "zero_tail", "conv1x1-128-64", kind="zero tail", output=1, only={"kernel": 1},
           note="MIOpen#670"),
    _fault("dgrad", "linear", _BACK, "roll", "conv3x3-64", kind="off by one", output=0),
    _fault("dgrad-bit", "linear", _BACK, "bitflip", "conv-stem conv3x3-8-16", kind="bitflip", output=0),
    _fault("depthwise", "linear", _CONV, "scale", "depthwise3x3", kind="scale", only={"groups": "many"}, amount=1.001),
    _fault("stride10", "linear", _CONV, "roll", "conv16x16-s10", kind="off by one", only={"stride": 10},
           note="pytorch#102968"),
    _fault("channels-last-wgrad", "linear", _BACK, "scale", "conv3x3-64", kind="layout", output=1, amount=1.01,
           only={"channels_last": True}),
    _fault("half-winograd", "linear", _CONV, "scale", "conv3x3-64", kind="scale of float16", amount=1.02,
           only={"kernel": 3}, dtypes=("float16",), note="rocm-libraries#12334"),
    _fault("bf16-split-k", "linear", _MM, "nan_tail", "matmul-nt", kind="unwritten tail of bfloat16",
           dtypes=("bfloat16",),
           note="rocm-libraries#9055"),
    _fault("transposed-conv", "linear", _CONV, "zero_tail", "conv-transposed2x2", kind="zero tail of transposed",
           only={"transposed": True}),
    _fault("matmul-bit", "linear", _MM, "bitflip", "matmul-nn", kind="bitflip of products"),
    _fault("matmul-range", "linear", "mm", "inputs_through_half", "matmul-range", kind="range of float16"),
    _fault("raises", "linear", _CONV, "raise_error", "depthwise7x7", kind="raises", only={"kernel": 7}),
    _fault("hangs", "linear", _CONV, "hang", "depthwise7x7", kind="hangs", only={"kernel": 7}),
    _fault("dies", "linear", _CONV, "die", "depthwise7x7", kind="kills the process", only={"kernel": 7}),
    # norm
    _fault("bn-eps", "norm", _BN, "wrong_eps", "bn-small-variance", kind="epsilon"),
    _fault("running-var-3pct", "norm", _BN, "wrong_running_var", "bn-train", kind="running_var", amount=1.03,
           only={"training": True}),
    _fault("bn-momentum", "norm", _BN, "wrong_momentum", "bn-train", kind="momentum", only={"training": True}),
    _fault("bn-tail", "norm", _BN, "zero_tail", "bn-train bn-eval", kind="zero tail"),
    _fault("bn-bit", "norm", _BN, "bitflip", "bn-train", kind="bitflip"),
    _fault("bn-many", "norm", _BN, "scale", "bn-many", kind="scale of long sums", amount=1.001, only={"numel": 150_000}),
    _fault("bn-weight-grad", "norm", "native_batch_norm_backward", "scale", "bn-train", kind="gradient", output=1,
           amount=1.01),
    _fault("bn-input-grad", "norm", "native_batch_norm_backward", "roll", "bn-train", kind="off by one", output=0),
    _fault("bn-channels-last", "norm", _BN, "wrong_running_var", "bn-train", kind="layout", amount=1.03,
           only={"channels_last": True, "training": True}),
    _fault("layer-norm", "norm", "native_layer_norm", "scale", "layer-norm", kind="scale", amount=1.0001),
    # attention
    _fault("mask-ignored", "attention", f"{_FLASH} {_FLASH}_backward", "ignore_mask", "sdpa-mask", kind="mask ignored"),
    _fault("causal-ignored", "attention", f"{_FLASH} {_FLASH}_backward", "not_causal", "sdpa-causal",
           kind="mask ignored"),
    _fault("sdpa-tail", "attention", _FLASH, "nan_tail", "sdpa-32", kind="unwritten tail"),
    _fault("sdpa-bit", "attention", _FLASH, "bitflip", "sdpa-32", kind="bitflip"),
    _fault("sdpa-scale", "attention", f"{_FLASH} {_FLASH}_backward", "wrong_scale", "sdpa-32", kind="scale"),
    _fault("sdpa-grad", "attention", f"{_FLASH}_backward", "nan_tail", "sdpa-32", kind="gradient", output=1),
    _fault("grid-border", "attention", "grid_sampler_2d", "wrong_border", "grid-sample-zeros", kind="padding"),
    _fault("grid-backward", "attention", "grid_sampler_2d_backward", "scale", "grid-sample-zeros", kind="gradient",
           amount=1.01),
    # assignment: what only shows with its shapes
    _fault("assign-amax", "assign", "amax", "roll", "assigner", kind="off by one", only={"ndim": 3}),
    _fault("assign-iou", "assign", "pow", "nan_tail", "assigner loss", kind="unwritten tail", only={"ndim": 1}),
    # optimizers
    _fault("momentum-uninitialised", "optimizer", "_fused_sgd_", "uninitialised_momentum", "guard-sgd",
           kind="momentum"),
    _fault("adam-eps", "optimizer", "_fused_adam_ _fused_adamw_", "wrong_optimizer_eps", "adam-fused adamw-fused",
           kind="epsilon"),
    _fault("foreach-tail", "optimizer", "_foreach_add_", "zero_tail", "sgd-foreach", kind="zero tail"),
    _fault("addcdiv", "optimizer", "addcdiv_", "scale", "adam-plain", kind="scale", amount=1.0001),
    _fault("lerp", "optimizer", "_foreach_lerp_", "bitflip", "ema", kind="bitflip"),
    _fault("unscale-misses", "optimizer", "_amp_foreach_non_finite_check_and_unscale_", "miss_infinity",
           "scaler-sgd", kind="overflow missed"),
    _fault("norm-short", "optimizer", "linalg_vector_norm", "scale", "clip-norm", kind="scale", amount=0.999),
    _fault("musgd-tail", "optimizer", "bmm baddbmm mm addmm", "zero_tail", "musgd", kind="zero tail of bfloat16",
           dtypes=("bfloat16",)),
    # determinism
    _fault("atomics", "determinism", _BACK, "last_bit_noise", "conv3x3-64", kind="varies", output=1),
    _fault("contention", "determinism", _CONV, "noise_when_contended", "conv3x3-64", kind="varies under contention"),
    _fault("poison", "determinism", f"{_MM}", "noise_when_filled", "matmul-nt", kind="reads unwritten memory"),
    _fault("rare-bit", "determinism", f"{_CONV} {_MM}", "bitflip", "stress", kind="one bit now and then", every=2503),
    # what only a step shows of which each operation is judged
    _fault("silu-wide", "shadow", "silu_backward", "scale", "detect", kind="scale in maps of one width", amount=1.001,
           only={"channels_last": True, "numel": 150_000}, note="an order and a size that no other check of it has"),
    # what only a whole step or a training shows
    _fault("wgrad-late", "step", _BACK, "scale", "yolo11n", kind="scale in one layer", output=1, amount=1.5,
           only={"weight": (128, 384, 1, 1)}, note="a shape that no other check has"),
    _fault("stale-weights", "short", _CONV, "first_weights", "first-steps", kind="stale cache", only={"kernel": 3,
           "groups": "one"}),
)  # fmt: skip

NAMES = tuple(fault.name for fault in FAULTS)


def find_fault(name: str) -> KernelFault:
    """Return the fault of a name.

    Raises:
        InvalidCallError: There is none; names the nearest.
    """
    for fault in FAULTS:
        if fault.name == name:
            return fault
    raise InvalidCallError(f"There is no fault {name!r}.{nearest(name, NAMES)} Use one of {', '.join(NAMES)}.")
