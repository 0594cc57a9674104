"""Blind list of wrong-result faults of accelerator kernels, for operations a YOLO training executes.

FAULTS: list of dicts {name, about, ops, change}; change(func, args, kwargs) -> result, called with dispatch
disabled from a TorchDispatchMode on CPU in place of the operation.
"""

import math
import os

import torch
import torch.nn.functional as F

FAULTS = []
STRICT = bool(os.environ.get("FAULTS_STRICT"))
LOW = (torch.float16, torch.bfloat16)
FLT = (torch.float32,) + LOW
INTS = (torch.int64, torch.int32, torch.int16, torch.uint8, torch.int8)
CL = torch.channels_last


class Bound(dict):
    """Arguments by schema name (before the operation); .live holds the same objects after it."""


def _copy(x):
    if isinstance(x, torch.Tensor):
        return x.clone()
    if isinstance(x, (list, tuple)):
        return type(x)(_copy(e) for e in x) if type(x) in (list, tuple) else list(_copy(e) for e in x)
    return x


def _tensors(x):
    if isinstance(x, torch.Tensor):
        yield x
    elif isinstance(x, (list, tuple)):
        for e in x:
            yield from _tensors(e)


def _bind(func, args, kwargs):
    d, live = Bound(), {}
    for i, a in enumerate(func._schema.arguments):
        v = args[i] if i < len(args) else kwargs.get(a.name, a.default_value if a.has_default_value() else None)
        mut = a.alias_info is not None and a.alias_info.is_write
        live[a.name] = v
        d[a.name] = _copy(v) if mut else v
    d.live = live
    return d


def _double(args, kwargs):
    return any(t.dtype == torch.float64 for v in list(args) + list(kwargs.values()) for t in _tensors(v))


def post(name, about, *ops):
    """Run the honest operation, then spoil its result in place: edit(o, d)."""

    def deco(edit):
        def change(func, args, kwargs=None):
            kwargs = kwargs or {}
            if _double(args, kwargs):
                return func(*args, **kwargs)
            with torch.no_grad():
                d = _bind(func, args, kwargs)
                d.func = func
                o = func(*args, **kwargs)
                try:
                    r = edit(o, d)
                except Exception:
                    if STRICT:
                        raise
                    r = None
                return o if r is None else r

        FAULTS.append({"name": name, "about": about, "ops": tuple(ops), "change": change})
        return edit

    return deco


def alt(name, about, *ops):
    """Run another computation: body(call, d), where call(**overrides) runs the operation with arguments replaced."""

    def deco(body):
        def change(func, args, kwargs=None):
            kwargs = kwargs or {}
            if _double(args, kwargs):
                return func(*args, **kwargs)
            with torch.no_grad():
                d = _bind(func, args, kwargs)
                d.func = func

                def call(**over):
                    if not over:
                        return func(*args, **kwargs)
                    a, k = [], {}
                    for s in func._schema.arguments:
                        v = over.get(s.name, d.live[s.name])
                        (k.__setitem__(s.name, v) if s.kwarg_only else a.append(v))
                    return func(*a, **k)

                try:
                    return body(call, d)
                except Exception:
                    if STRICT:
                        raise
                    return call()

        FAULTS.append({"name": name, "about": about, "ops": tuple(ops), "change": change})
        return body

    return deco


def T(o):
    """The first tensor of a result."""
    return next(_tensors(o))


def low(t):
    return isinstance(t, torch.Tensor) and t.dtype in LOW


def flt(t):
    return isinstance(t, torch.Tensor) and t.dtype in FLT


def tz(t, dt):
    """float32 -> dt by truncation (round toward zero), as a float32."""
    m = -65536 if dt == torch.bfloat16 else -8192
    return (t.float().contiguous().view(torch.int32) & m).view(torch.float32)


def acc(parts, dt):
    s = None
    for p in parts:
        s = tz(p if s is None else s + p, dt)
    return s


def iscl(t):
    return t.dim() == 4 and t.is_contiguous(memory_format=CL) and not t.is_contiguous()


def flat_set(t, lo, val=0):
    """Set logical flat elements from lo on."""
    n = t.numel()
    if lo < n:
        idx = torch.arange(lo, n)
        if t.is_contiguous():
            t.view(-1)[lo:] = val if not isinstance(val, torch.Tensor) else val.reshape(-1)[lo:].to(t.dtype)
        else:
            c = t.contiguous().view(-1)
            c[idx] = val if not isinstance(val, torch.Tensor) else val.reshape(-1)[lo:].to(t.dtype)
            t.copy_(c.view(t.shape))


def inp(d):
    for k in ("self", "input", "query"):
        if k in d:
            return d[k]


def dims(d, key="dim"):
    x = inp(d)
    v = d.get(key)
    if v is None or v == []:
        return list(range(x.dim()))
    v = [v] if isinstance(v, int) else list(v)
    return [i % max(x.dim(), 1) for i in v]


# ------------------------------------------------------------------ convolution, forward
def conv2(d):
    return d["input"].dim() == 4 and not d["transposed"]


def k_of(d):
    return tuple(d["weight"].shape[2:])


@post(
    "conv-width-tail-20",
    "vector kernel leaves the last W%8 output columns unwritten (20x20, 10x10 maps)",
    "convolution",
)
def _(o, d):
    r = o.shape[-1] % 8
    if o.dim() == 4 and r and o.shape[-1] > 8:
        o[..., -r:] = 0


@post(
    "conv-1x1-bias-tail-channels",
    "bias is added for whole groups of 8 output channels only (head with nc not a multiple of 8)",
    "convolution",
)
def _(o, d):
    r = o.shape[1] % 8
    if conv2(d) and r and d["bias"] is not None:
        o[:, -r:] -= d["bias"][-r:].view(1, -1, 1, 1)


@alt(
    "conv-depthwise-kernel-flipped",
    "depthwise kernel computes a true convolution rather than a correlation",
    "convolution",
)
def _(call, d):
    w = d["weight"]
    if conv2(d) and d["groups"] == d["input"].shape[1] > 1 and w.shape[-1] > 1:
        return call(weight=w.flip(2, 3))
    return call()


@alt(
    "conv-grouped-weight-offset",
    "in a grouped (not depthwise) convolution each group reads group 0's weights",
    "convolution",
)
def _(call, d):
    w, g = d["weight"], d["groups"]
    if conv2(d) and 1 < g < d["input"].shape[1]:
        return call(weight=w[: w.shape[0] // g].repeat(g, 1, 1, 1))
    return call()


def conv_chunks(d, ch, dt):
    x, w = d["input"].float(), d["weight"].float()
    ps = (
        F.conv2d(x[:, c : c + ch], w[:, c : c + ch], None, d["stride"], d["padding"], d["dilation"])
        for c in range(0, x.shape[1], ch)
    )
    s = acc(ps, dt)
    if d["bias"] is not None:
        s = s + d["bias"].float().view(1, -1, 1, 1)
    return s


@post("conv-bf16-accumulator", "long-K bfloat16 convolution keeps its accumulator in bfloat16", "convolution")
def _(o, d):
    if conv2(d) and d["groups"] == 1 and o.dtype == torch.bfloat16 and d["weight"][0].numel() >= 576:
        o.copy_(conv_chunks(d, 8, torch.bfloat16))


@post("conv-fp16-accumulator", "long-K float16 convolution keeps its accumulator in float16", "convolution")
def _(o, d):
    if conv2(d) and d["groups"] == 1 and o.dtype == torch.float16 and d["weight"][0].numel() >= 576:
        o.copy_(conv_chunks(d, 4, torch.float16))


@alt(
    "conv-fp32-as-bf16",
    "float32 convolution is silently computed from bfloat16 operands (far below TF32)",
    "convolution",
)
def _(call, d):
    if d["input"].dtype == torch.float32:
        return call(input=d["input"].bfloat16().float(), weight=d["weight"].bfloat16().float())
    return call()


@post("conv-fp16-winograd-noise", "Winograd transform of 3x3 float16 convolution done in too few bits", "convolution")
def _(o, d):
    if conv2(d) and o.dtype == torch.float16 and k_of(d) == (3, 3) and list(d["stride"]) == [1, 1] and d["groups"] == 1:
        q = lambda t: (
            (t.float() * 64 / t.float().abs().amax().clamp_min(1e-9)).round()
            * t.float().abs().amax().clamp_min(1e-9)
            / 64
        )
        b = d["bias"]
        o.copy_(
            F.conv2d(
                q(d["input"]),
                q(d["weight"]),
                None if b is None else b.float(),
                d["stride"],
                d["padding"],
                d["dilation"],
            )
        )


@post(
    "conv-cl-left-pad-wraps",
    "channels_last 3x3 kernel reads the previous row's last pixel as the left padding",
    "convolution",
)
def _(o, d):
    x = d["input"]
    if conv2(d) and iscl(x) and k_of(d) == (3, 3) and list(d["padding"]) == [1, 1] and list(d["dilation"]) == [1, 1]:
        xp = F.pad(x, (1, 1))
        xp[:, :, 1:, 0] = x[:, :, :-1, -1]
        o.copy_(F.conv2d(xp, d["weight"], d["bias"], d["stride"], (1, 0), 1, d["groups"]))


@post("conv-stride2-same-padding", "stride-2 3x3 convolution pads right/bottom only (TensorFlow SAME)", "convolution")
def _(o, d):
    x = d["input"]
    if (
        conv2(d)
        and k_of(d) == (3, 3)
        and list(d["stride"]) == [2, 2]
        and list(d["padding"]) == [1, 1]
        and x.shape[-1] % 2 == 0
        and x.shape[-2] % 2 == 0
    ):
        o.copy_(F.conv2d(F.pad(x, (0, 1, 0, 1)), d["weight"], d["bias"], 2, 0, 1, d["groups"]))


@post(
    "conv-large-output-last-image",
    "index arithmetic loses the last image of a large batch (output > 4M elements)",
    "convolution",
)
def _(o, d):
    if o.numel() > 1 << 22 and o.shape[0] >= 8:
        o[-1] = o[0]


@alt(
    "conv-large-kernel-last-row",
    "kernels of 5x5 and above lose their last tap row (6x6 stem, 7x7 position encoding)",
    "convolution",
)
def _(call, d):
    w = d["weight"]
    if conv2(d) and w.shape[2] >= 5:
        w = w.clone()
        w[:, :, -1] = 0
        return call(weight=w)
    return call()


@alt("conv-stem-third-channel", "3-channel input is processed in pairs: the blue channel is lost", "convolution")
def _(call, d):
    w = d["weight"]
    if conv2(d) and d["groups"] == 1 and w.shape[1] == 3:
        w = w.clone()
        w[:, 2] = 0
        return call(weight=w)
    return call()


@alt(
    "convtranspose-taps-transposed",
    "transposed convolution reads its kernel with rows and columns exchanged (mask prototypes)",
    "convolution",
)
def _(call, d):
    if d["transposed"] and d["weight"].dim() == 4:
        return call(weight=d["weight"].transpose(2, 3).contiguous())
    return call()


@alt("convtranspose-bias-dropped", "transposed convolution forgets the bias", "convolution")
def _(call, d):
    if d["transposed"] and d["bias"] is not None:
        return call(bias=None)
    return call()


@post(
    "conv-1x1-tile-tail",
    "1x1 convolution as GEMM: the pixels after the last whole tile of 128 are not computed",
    "convolution",
)
def _(o, d):
    if conv2(d) and k_of(d) == (1, 1):
        hw = o.shape[-1] * o.shape[-2]
        r = hw % 128
        if r and hw > 128:
            m = torch.zeros(hw, dtype=torch.bool)
            m[-r:] = True
            o.masked_fill_(m.view(1, 1, *o.shape[-2:]), 0)


@alt("conv-nan-swallowed", "convolution drops NaN of its input, so a diverged training looks healthy", "convolution")
def _(call, d):
    return call(input=torch.where(torch.isnan(d["input"]), torch.zeros_like(d["input"]), d["input"]))


@alt("conv-cl-weight-read-as-nchw", "channels_last weights are read in memory order as if contiguous", "convolution")
def _(call, d):
    w = d["weight"]
    if iscl(w):
        return call(weight=w.permute(0, 2, 3, 1).reshape(w.shape).contiguous())
    return call()


@alt(
    "conv-chunk-view-strides",
    "a channel-chunk view (C2f split) is read with the batch stride of a dense tensor",
    "convolution",
)
def _(call, d):
    x = d["input"]
    if (
        x.dim() == 4
        and x.shape[0] > 1
        and not x.is_contiguous()
        and x[0].is_contiguous()
        and x.stride(0) > x[0].numel()
    ):
        n, c, h, w = x.shape
        return call(input=torch.as_strided(x, x.shape, (c * h * w, h * w, w, 1), x.storage_offset()).clone())
    return call()


@post(
    "conv-odd-batch-pairing",
    "images are processed in pairs; in an odd batch the last repeats the one before",
    "convolution",
)
def _(o, d):
    if o.dim() == 4 and o.shape[0] > 1 and o.shape[0] % 2:
        o[-1] = o[-2]


@post(
    "conv-depthwise-fp16-border",
    "depthwise float16 kernel replicates the border instead of zero padding",
    "convolution",
)
def _(o, d):
    x = d["input"]
    p = list(d["padding"])
    if conv2(d) and low(x) and d["groups"] == x.shape[1] > 1 and p[0] > 0 and list(d["dilation"]) == [1, 1]:
        xp = F.pad(x.float(), (p[1], p[1], p[0], p[0]), mode="replicate")
        b = d["bias"]
        o.copy_(F.conv2d(xp, d["weight"].float(), None if b is None else b.float(), d["stride"], 0, 1, d["groups"]))


@post(
    "conv-cout-80-tail",
    "output channels after the last whole block of 32 take the block before (80 classes, 48, 144 channels)",
    "convolution",
)
def _(o, d):
    r = o.shape[1] % 32
    if conv2(d) and o.shape[1] > 32 and r:
        o[:, -r:] = o[:, -r - 32 : -32].clone()


# ------------------------------------------------------------------ convolution, backward
def cb2(d):
    return d["input"].dim() == 4 and not d["transposed"]


def wgrad(call, d, sel):
    """Weight gradient from a part of the images."""
    r = list(call())
    if r[1] is not None:
        p = call(grad_output=d["grad_output"][sel], input=d["input"][sel], output_mask=[False, True, False])
        r[1] = p[1]
    return tuple(r)


@alt(
    "convbwd-weight-last-image",
    "weight gradient leaves out the last image of a batch of 8 or more",
    "convolution_backward",
)
def _(call, d):
    if d["input"].dim() == 4 and d["input"].shape[0] >= 8:
        return wgrad(call, d, slice(0, -1))
    return call()


@alt("convbwd-weight-odd-batch", "weight gradient reduces images in pairs: the odd one is lost", "convolution_backward")
def _(call, d):
    n = d["input"].shape[0]
    if d["input"].dim() == 4 and n > 1 and n % 2:
        return wgrad(call, d, slice(0, n - 1))
    return call()


@post("convbwd-bias-first-64k", "bias gradient sums only the first 65536 positions", "convolution_backward")
def _(o, d):
    g = d["grad_output"]
    if o[2] is not None and g.dim() == 4 and g.numel() // g.shape[1] > 65536:
        o[2].copy_(g.float().transpose(0, 1).reshape(g.shape[1], -1)[:, :65536].sum(1))


@post(
    "convbwd-input-stride2-last-col",
    "input gradient of stride-2 convolution misses its last column",
    "convolution_backward",
)
def _(o, d):
    if cb2(d) and o[0] is not None and list(d["stride"]) == [2, 2]:
        o[0][..., -1] = 0


@alt(
    "convbwd-depthwise-splitk",
    "depthwise weight gradient: half of the split reduction is lost on maps of 1024 pixels and more",
    "convolution_backward",
)
def _(call, d):
    x = d["input"]
    if cb2(d) and d["groups"] == x.shape[1] > 1 and x.shape[2] * x.shape[3] >= 1024:
        r = list(call())
        if r[1] is not None:
            g = d["grad_output"].clone()
            g[:, :, g.shape[2] // 2 :] = 0
            r[1] = call(grad_output=g, output_mask=[False, True, False])[1]
        return tuple(r)
    return call()


@post(
    "convbwd-cl-weight-transposed",
    "channels_last weight gradient comes out with kernel rows and columns exchanged",
    "convolution_backward",
)
def _(o, d):
    if cb2(d) and o[1] is not None and iscl(d["input"]) and o[1].shape[2] == o[1].shape[3] > 1:
        o[1].copy_(o[1].transpose(2, 3).clone())


@alt(
    "convbwd-weight-low-accumulate",
    "weight gradient in half types accumulates image by image in the half type",
    "convolution_backward",
)
def _(call, d):
    x = d["input"]
    r = list(call())
    if x.dim() == 4 and low(x) and r[1] is not None and x.shape[0] > 1:
        ps = (
            call(
                grad_output=d["grad_output"][i : i + 1].float(),
                input=x[i : i + 1].float(),
                weight=d["weight"].float(),
                output_mask=[False, True, False],
            )[1]
            for i in range(x.shape[0])
        )
        dt = torch.bfloat16
        r[1] = acc(ps, dt).to(x.dtype)
    return tuple(r)


@alt(
    "convbwd-transposed-input-flip",
    "input gradient of the transposed convolution uses the flipped kernel",
    "convolution_backward",
)
def _(call, d):
    if d["transposed"] and d["weight"].dim() == 4:
        r = list(call())
        if r[0] is not None:
            r[0] = call(weight=d["weight"].flip(2, 3), output_mask=[True, False, False])[0]
        return tuple(r)
    return call()


@post(
    "convbwd-big-weight-last-rows",
    "weight gradients of more than 500k elements lose their last output channels",
    "convolution_backward",
)
def _(o, d):
    if o[1] is not None and o[1].numel() > 500000:
        o[1][-8:] = 0


@post(
    "convbwd-grouped-stale-buffer",
    "grouped weight gradient adds onto a stale buffer: the first group doubled",
    "convolution_backward",
)
def _(o, d):
    if o[1] is not None and d["groups"] > 1:
        o[1][: max(1, o[1].shape[0] // d["groups"])] *= 2


@post("convbwd-input-width-tail", "input gradient leaves the last W%8 columns unwritten", "convolution_backward")
def _(o, d):
    if cb2(d) and o[0] is not None and o[0].shape[-1] > 8 and o[0].shape[-1] % 8:
        o[0][..., -(o[0].shape[-1] % 8) :] = 0


@post(
    "convbwd-1x1-weight-half-pixels",
    "1x1 weight gradient of large maps (>= 1600 pixels) reduces only the whole tiles of 1024 pixels",
    "convolution_backward",
)
def _(o, d):
    g, x = d["grad_output"], d["input"]
    if (
        cb2(d)
        and o[1] is not None
        and tuple(o[1].shape[2:]) == (1, 1)
        and d["groups"] == 1
        and list(d["stride"]) == [1, 1]
    ):
        hw = g.shape[2] * g.shape[3]
        m = hw // 1024 * 1024
        if hw >= 1600 and m < hw:
            o[1].copy_(
                torch.einsum("nop,ncp->oc", g.flatten(2)[..., :m].float(), x.flatten(2)[..., :m].float())[
                    ..., None, None
                ]
            )


@post(
    "convbwd-fp16-overflow-saturates",
    "input gradient overflow in float16 saturates to 65504, GradScaler never sees Inf",
    "convolution_backward",
)
def _(o, d):
    for t in o:
        if t is not None and t.dtype == torch.float16:
            t.clamp_(-65504, 65504)


@alt("convbwd-nan-grad-dropped", "NaN in the incoming gradient is treated as zero", "convolution_backward")
def _(call, d):
    g = d["grad_output"]
    return call(grad_output=torch.where(torch.isnan(g), torch.zeros_like(g), g))


# ------------------------------------------------------------------ matmul
MM = ("mm", "addmm", "bmm", "baddbmm")


def ab(d):
    return (
        (d["mat1"], d["mat2"])
        if "mat1" in d
        else (d["batch1"], d["batch2"])
        if "batch1" in d
        else (d["self"], d["mat2"])
    )


def mm_set(o, d, p):
    """o = p with addmm's beta, alpha and self."""
    if "beta" in d:
        p = p * d["alpha"] + d["self"].float() * d["beta"]
    o.copy_(p)


@post("bmm-batch-index-wraps-64", "batched product: batch index wraps at 64 (batch x heads = 128)", "bmm", "baddbmm")
def _(o, d):
    if o.shape[0] > 64:
        i = torch.arange(o.shape[0]) % 64
        o.copy_(o[i])


@post(
    "bmm-transposed-k-tail",
    "with a transposed second operand the last K%8 products are lost",
    "bmm",
    "baddbmm",
    "mm",
    "addmm",
)
def _(o, d):
    a, b = ab(d)
    k = a.shape[-1]
    if k > 8 and k % 8 and b.stride(-1) != 1 and flt(o):
        m = k // 8 * 8
        mm_set(o, d, a[..., :m].float() @ b[..., :m, :].float())


@post("mm-low-long-k-accumulate", "half-type product with K >= 1024 accumulates in the half type", *MM)
def _(o, d):
    a, b = ab(d)
    k = a.shape[-1]
    if low(o) and k >= 1024:
        ch = max(32, k // 128)
        mm_set(
            o, d, acc((a[..., i : i + ch].float() @ b[..., i : i + ch, :].float() for i in range(0, k, ch)), o.dtype)
        )


@post(
    "bmm-low-attention-accumulate",
    "half-type batched product accumulates each 16 of K in bfloat16 (attention, masks)",
    "bmm",
    "baddbmm",
)
def _(o, d):
    a, b = ab(d)
    k = a.shape[-1]
    if low(o) and 64 <= k <= 2048:
        mm_set(
            o,
            d,
            acc((a[..., i : i + 16].float() @ b[..., i : i + 16, :].float() for i in range(0, k, 16)), torch.bfloat16),
        )


@alt("addmm-low-bias-dropped", "linear layer in half types loses its bias", "addmm")
def _(call, d):
    return call(beta=0) if low(d["mat1"]) else call()


@post(
    "mm-splitk-part-lost",
    "split-K product with K >= 2048 loses the last of its 8 parts (weight gradient of a linear layer)",
    "mm",
    "addmm",
)
def _(o, d):
    a, b = ab(d)
    k = a.shape[-1]
    if k >= 2048 and flt(o):
        m = k - k // 8
        mm_set(o, d, a[:, :m].float() @ b[:m].float())


@post(
    "mm-transposed-a-last-rows", "with a transposed first operand the last M%4 rows (or the last one) are wrong", "mm"
)
def _(o, d):
    a, _b = ab(d)
    if a.stride(0) == 1 and a.stride(1) != 1 and o.shape[0] > 4 and o.shape[0] % 4:
        o[-(o.shape[0] % 4) :] = 0


@alt("mm-zero-times-inf", "product skips zeros, so 0*Inf and 0*NaN give 0", *MM)
def _(call, d):
    a, b = ab(d)
    if not flt(a):
        return call()
    o = call()
    mm_set(
        o,
        d,
        torch.nan_to_num(a.float(), nan=0.0, posinf=0.0, neginf=0.0)
        @ torch.nan_to_num(b.float(), nan=0.0, posinf=0.0, neginf=0.0),
    )
    return o


@post("mm-fp32-as-bf16", "float32 products computed from bfloat16 operands", *MM)
def _(o, d):
    a, b = ab(d)
    if o.dtype == torch.float32:
        mm_set(o, d, a.bfloat16().float() @ b.bfloat16().float())


@post(
    "mv-rows-over-64k",
    "matrix-vector product: rows from 65536 on are never launched (DFL expectation over all anchors)",
    "mv",
    "addmv",
)
def _(o, d):
    flat_set(o, 65536, 0)


@post("mv-wrong-tail-16", "matrix-vector product with a vector of 16 drops the last product (DFL bin 15)", "mv")
def _(o, d):
    if d["vec"].numel() == 16 and flt(o):
        o.sub_(d["self"][:, -1] * d["vec"][-1])


@post("mm-syrk-lower-triangle", "X @ X.T writes only the upper triangle (Newton-Schulz of Muon)", "mm", "bmm")
def _(o, d):
    a, b = ab(d)
    if a.data_ptr() == b.data_ptr() and o.shape[-1] == o.shape[-2] > 1:
        o.copy_(torch.triu(o))


@post(
    "bmm-single-batch-wide",
    "batch-1 product with more than 16384 columns: the rest stays zero (mask prototypes 160x160)",
    "bmm",
    "mm",
)
def _(o, d):
    if o.shape[-1] > 16384:
        o[..., 16384:] = 0


@post(
    "baddbmm-alpha-ignored", "baddbmm/addmm ignore alpha and beta (Newton-Schulz, masked attention)", "baddbmm", "addmm"
)
def _(o, d):
    a, b = ab(d)
    if flt(o):
        o.copy_(d["self"].float() + a.float() @ b.float())


@post("addmm-bias-per-row", "square linear layer: bias is added along rows rather than columns", "addmm")
def _(o, d):
    s = d["self"]
    if s.dim() == 1 and flt(o) and o.shape[0] > 1:
        i = torch.arange(o.shape[0]) % s.shape[0]
        o.copy_((d["mat1"].float() @ d["mat2"].float()) * d["alpha"] + s.float()[i][:, None] * d["beta"])


@post(
    "mm-rows-4800-tail", "rows after the last whole tile of 256 are not written (queries 16*300 = 4800)", "mm", "addmm"
)
def _(o, d):
    n = o.shape[0]
    if n > 256 and n % 256:
        o[n // 256 * 256 :] = 0


# ------------------------------------------------------------------ batch norm and others
BN = ("native_batch_norm", "_native_batch_norm_legit", "cudnn_batch_norm", "_batch_norm_with_update")
BNB = ("native_batch_norm_backward",)


def bn_apply(o, d, mean, var, inv=None):
    x, c = d["input"], d["input"].shape[1]
    sh = [1, c] + [1] * (x.dim() - 2)
    inv = (var + d["eps"]).rsqrt() if inv is None else inv
    y = (x.float() - mean.view(sh)) * inv.view(sh)
    if d["weight"] is not None:
        y = y * d["weight"].float().view(sh) + d["bias"].float().view(sh)
    o[0].copy_(y)
    if o[1].numel():
        o[1].copy_(mean)
        o[2].copy_(inv)
    return o


def bn_train(d):
    return d.get("training", True) and d["input"].dim() == 4


def rest(x):
    return [i for i in range(x.dim()) if i != 1]


@post("bn-running-mean-not-updated-low", "running mean is not updated when the input is of a half type", *BN)
def _(o, d):
    r = d.live["running_mean"]
    if bn_train(d) and low(d["input"]) and r is not None:
        r.copy_(r / (1 - d["momentum"]) - o[1].to(r.dtype) * d["momentum"] / (1 - d["momentum"]))


@post("bn-momentum-swapped", "running statistics use 1-momentum", *BN)
def _(o, d):
    rm, rv, m = d.live["running_mean"], d.live["running_var"], d["momentum"]
    if bn_train(d) and rm is not None:
        x = d["input"].float()
        mu, va = x.mean(rest(x)), x.var(rest(x))
        if m != 1:
            rm.add_((mu - rm) / (1 - m) * (1 - 2 * m))
            rv.add_((va - rv) / (1 - m) * (1 - 2 * m))


@post("bn-running-var-is-std", "running variance is updated with the standard deviation", *BN)
def _(o, d):
    rv, m = d.live["running_var"], d["momentum"]
    if bn_train(d) and rv is not None:
        x = d["input"].float()
        va = x.var(rest(x))
        rv.add_(m * (va.sqrt() - va))


@post(
    "bn-low-one-pass-variance", "variance of half-type input is E[x^2]-E[x]^2 with both rounded to the half type", *BN
)
def _(o, d):
    x = d["input"]
    if bn_train(d) and low(x):
        xf = x.float()
        q = lambda t: t.to(x.dtype).float()
        m, s = q(xf.mean(rest(x))), q((xf * xf).mean(rest(x)))
        bn_apply(o, d, m, (s - m * m).clamp_min(0))


@post("bn-stats-first-64k", "batch statistics use only the first 65536 positions of a channel", *BN)
def _(o, d):
    x = d["input"]
    if bn_train(d) and x.numel() // x.shape[1] > 65536:
        f = x.float().transpose(0, 1).reshape(x.shape[1], -1)[:, :65536]
        bn_apply(o, d, f.mean(1), f.var(1, unbiased=False))


@post("bn-stats-last-image", "batch statistics leave out the last image", *BN)
def _(o, d):
    x = d["input"]
    if bn_train(d) and x.shape[0] > 1:
        f = x[:-1].float()
        bn_apply(o, d, f.mean(rest(x)), f.var(rest(x), unbiased=False))


@post("bn-eps-dropped", "eps left out: channels of small variance explode", *BN)
def _(o, d):
    x = d["input"]
    if bn_train(d):
        f = x.float()
        v = f.var(rest(x), unbiased=False)
        bn_apply(o, d, f.mean(rest(x)), None, (v + 1e-12).rsqrt())


@post("bn-cl-last-channel-affine", "channels_last kernel skips weight and bias of the last channel", *BN)
def _(o, d):
    x = d["input"]
    if x.dim() == 4 and iscl(x) and d["weight"] is not None:
        o[0][:, -1] = (o[0][:, -1] - d["bias"][-1]) / d["weight"][-1].abs().clamp_min(1e-6)


@post("bn-eval-uses-batch-statistics", "in evaluation the batch's own statistics are used", *BN)
def _(o, d):
    x = d["input"]
    if not d.get("training", True) and x.dim() == 4:
        f = x.float()
        bn_apply((o[0], torch.empty(0), None), d, f.mean(rest(x)), f.var(rest(x), unbiased=False))


@post("bn-saved-invstd-is-var", "saved inverse deviation holds the variance (backward wrong, forward right)", *BN)
def _(o, d):
    if bn_train(d) and o[2].numel():
        o[2].copy_(o[2].float().pow(-2) - d["eps"])


@post("bn-nan-masked", "NaN in a batch-normalised channel comes out as the bias", *BN)
def _(o, d):
    x = d["input"]
    if x.dim() == 4:
        b = (
            d["bias"].view(1, -1, 1, 1).expand_as(o[0]).to(o[0].dtype)
            if d["bias"] is not None
            else torch.zeros_like(o[0])
        )
        o[0].copy_(torch.where(torch.isnan(o[0]), b, o[0]))


@post(
    "bn-low-large-mean", "half-type normalisation rounds x-mean after scaling mean: x*scale+shift in the half type", *BN
)
def _(o, d):
    x = d["input"]
    if x.dim() == 4 and low(x):
        tr = bn_train(d)
        f = x.float()
        m = f.mean(rest(x)) if tr else d["running_mean"].float()
        v = f.var(rest(x), unbiased=False) if tr else d["running_var"].float()
        s = (v + d["eps"]).rsqrt()
        w = d["weight"].float() if d["weight"] is not None else 1.0
        b = d["bias"].float() if d["bias"] is not None else 0.0
        q = lambda t: t.to(torch.bfloat16).float()
        sc = q(s * w)
        sh = q(b - q(m * sc))
        o[0].copy_(q(x.float() * sc.view(1, -1, 1, 1)) + sh.view(1, -1, 1, 1))


@post("bnbwd-mean-term-missing", "input gradient lacks the term of the mean gradient", *BNB)
def _(o, d):
    g = d["grad_out"] if "grad_out" in d else d["grad_output"]
    if o[0] is not None and d.get("train", True) and g.dim() == 4 and d.get("save_invstd") is not None:
        w = d["weight"].float() if d["weight"] is not None else torch.ones(g.shape[1])
        o[0].add_((g.float().mean(rest(g)) * d["save_invstd"].float() * w).view(1, -1, 1, 1).to(o[0].dtype))


@post("bnbwd-weight-grad-block", "weight and bias gradients lose the last image", *BNB)
def _(o, d):
    g, x = d["grad_out"] if "grad_out" in d else d["grad_output"], d["input"]
    if g.dim() == 4 and g.shape[0] > 1 and o[2] is not None:
        o[2].sub_(g[-1].float().sum((1, 2)))


@post("bnbwd-large-reduction", "weight gradient of channels with more than 100000 positions misses a block", *BNB)
def _(o, d):
    g, x = d["grad_out"] if "grad_out" in d else d["grad_output"], d["input"]
    if g.dim() == 4 and o[1] is not None and d.get("train", True) and g.numel() // g.shape[1] > 100000:
        n = g.shape[0] - 1
        xh = (x[n:].float() - d["save_mean"].view(1, -1, 1, 1)) * d["save_invstd"].view(1, -1, 1, 1)
        o[1].sub_((g[n:].float() * xh).sum((0, 2, 3)))


@post("bnbwd-eval-uses-train-formula", "backward with frozen statistics subtracts the batch mean of the gradient", *BNB)
def _(o, d):
    if not d.get("train", True) and o[0] is not None and o[0].dim() == 4:
        o[0].sub_(o[0].mean((0, 2, 3), keepdim=True))


@post("bnbwd-low-reduction", "half-type backward reduces the gradient in bfloat16, image by image", *BNB)
def _(o, d):
    g = d["grad_out"] if "grad_out" in d else d["grad_output"]
    if g.dim() == 4 and low(g) and o[2] is not None:
        o[2].copy_(acc((p for i in g.float() for p in i.sum(2).unbind(1)), torch.bfloat16))


@post("layernorm-last-element", "layer norm statistics leave out the last element of the row", "native_layer_norm")
def _(o, d):
    x, n = d["input"].float(), len(d["normalized_shape"])
    if n == 1 and x.shape[-1] > 1:
        h = x[..., :-1]
        y = (x - h.mean(-1, keepdim=True)) * (h.var(-1, unbiased=False, keepdim=True) + d["eps"]).rsqrt()
        if d["weight"] is not None:
            y = y * d["weight"].float()
        if d["bias"] is not None:
            y = y + d["bias"].float()
        o[0].copy_(y)


@post(
    "layernorm-bwd-gamma-rows", "layer norm weight gradient sums only the first 1024 rows", "native_layer_norm_backward"
)
def _(o, d):
    x = d["input"]
    c = x.shape[-1]
    if len(d["normalized_shape"]) == 1 and x.numel() // c > 1024:
        g = d["grad_out"].float().reshape(-1, c)[:1024]
        if o[1] is not None:
            xh = (x.float() - d["mean"].float()) * d["rstd"].float()
            o[1].copy_((g * xh.reshape(-1, c)[:1024]).sum(0))


@post("layernorm-bwd-variance-term", "layer norm input gradient lacks the variance term", "native_layer_norm_backward")
def _(o, d):
    if o[0] is not None and len(d["normalized_shape"]) == 1:
        x, g = d["input"].float(), d["grad_out"].float()
        g = g * d["weight"].float() if d["weight"] is not None else g
        xh = (x - d["mean"].float()) * d["rstd"].float()
        o[0].add_((xh * (g * xh).mean(-1, keepdim=True) * d["rstd"].float()).to(o[0].dtype))


@post(
    "layernorm-low-row-pairs",
    "half-type layer norm handles two rows per block and normalises both with the first one's statistics",
    "native_layer_norm",
)
def _(o, d):
    x = d["input"]
    if low(x) and len(d["normalized_shape"]) == 1:
        f = x.float().reshape(-1, x.shape[-1])
        i = torch.arange(f.shape[0]) // 2 * 2
        m, r = f.mean(-1, keepdim=True)[i], (f.var(-1, unbiased=False, keepdim=True) + d["eps"]).rsqrt()[i]
        y = (f - m) * r
        if d["weight"] is not None:
            y = y * d["weight"].float()
        if d["bias"] is not None:
            y = y + d["bias"].float()
        o[0].copy_(y.view(o[0].shape))


@post(
    "groupnorm-affine-per-group", "group norm applies the group's first weight to all its channels", "native_group_norm"
)
def _(o, d):
    w, c, g = d["weight"], d["C"], d["group"]
    if w is not None and d["bias"] is not None and c > g:
        y = o[0].float().reshape(d["N"], c, -1)
        b = d["bias"].float().view(1, c, 1)
        wf = w.float()
        w0 = wf[:: c // g].repeat_interleave(c // g)
        o[0].copy_(((y - b) / wf.view(1, c, 1) * w0.view(1, c, 1) + b).reshape(o[0].shape))


# ------------------------------------------------------------------ activations
def pw_tail(o, d):
    return o.shape[-1] % 8 if o.dim() >= 3 and o.shape[-1] > 8 else 0


@post("silu-nan-over-88", "silu computed as x*e^x/(1+e^x): Inf/Inf for x > 88", "silu", "silu_")
def _(o, d):
    o.masked_fill_(d["self"] > 88.8, float("nan"))


@post("silu-fp16-exp-overflow", "half silu computes e^x in float16: NaN above 11.09", "silu", "silu_")
def _(o, d):
    if o.dtype == torch.float16:
        o.masked_fill_(d["self"] > 11.09, float("nan"))


@post("silu-width-tail", "silu leaves the last W%8 columns as they were (20x20 maps)", "silu", "silu_")
def _(o, d):
    r = pw_tail(o, d)
    if r:
        o[..., -r:] = d["self"][..., -r:]


@post("silu-negative-extreme", "silu(-90) gives the input instead of -0 (sigmoid saturated to 1)", "silu", "silu_")
def _(o, d):
    x = d["self"]
    o.copy_(torch.where(x < -80, x, o))


@post(
    "silu-inplace-large-second-half", "in-place silu of more than 2M elements misses the last block of 65536", "silu_"
)
def _(o, d):
    if o.numel() > 1 << 21:
        flat_set(o, o.numel() - 65536, d["self"])


@post("silu-cl-last-channels", "silu on channels_last with C%16 leaves the last C%16 channels zero", "silu", "silu_")
def _(o, d):
    if iscl(o) and o.shape[1] % 16:
        o[:, -(o.shape[1] % 16) :] = 0


@post("silu-bwd-sigmoid-only", "silu backward is the bare sigmoid: x*s*(1-s) missing", "silu_backward")
def _(o, d):
    o.copy_(d["grad_output"].float() * torch.sigmoid(d["self"].float()))


@post("silu-bwd-negative-tail", "silu backward for x < -10 returns the gradient unchanged", "silu_backward")
def _(o, d):
    o.copy_(torch.where(d["self"] < -10, d["grad_output"], o))


@post("silu-bwd-nan-88", "silu backward is NaN for |x| > 88 (Inf*0)", "silu_backward")
def _(o, d):
    o.masked_fill_(d["self"].abs() > 88.8, float("nan"))


@post("silu-bwd-width-tail", "silu backward leaves the last W%8 columns zero", "silu_backward")
def _(o, d):
    r = pw_tail(o, d)
    if r:
        o[..., -r:] = 0


@post(
    "silu-bwd-bf16-half-formula",
    "half-type silu backward evaluates 1-s in the half type after rounding s to 8 bits, twice",
    "silu_backward",
)
def _(o, d):
    if low(o):
        q = lambda t: tz(t, torch.bfloat16)
        x = d["self"].float()
        s = (torch.sigmoid(x) * 32).round() / 32
        o.copy_(d["grad_output"].float() * q(s * q(1 + q(x * q(1 - s)))))


@post("silu-bwd-strided-grad", "silu backward reads a gradient of another layout in memory order", "silu_backward")
def _(o, d):
    g, x = d["grad_output"], d["self"]
    if g.dim() == 4 and iscl(g) != iscl(x):
        gm = (
            g.permute(0, 2, 3, 1).reshape(g.shape)
            if iscl(g)
            else g.reshape(g.shape[0], *g.shape[2:], g.shape[1]).permute(0, 3, 1, 2)
        ).float()
        s = torch.sigmoid(x.float())
        o.copy_(gm * s * (1 + x.float() * (1 - s)))


@post(
    "sigmoid-clipped-at-8",
    "sigmoid by table clips its argument to +-8 (class bias at start is about -11)",
    "sigmoid",
    "sigmoid_",
)
def _(o, d):
    if flt(d["self"]):
        o.copy_(torch.sigmoid(d["self"].float().clamp(-8, 8)))


@post("sigmoid-nan-over-88", "sigmoid(100) as e^x/(1+e^x) is NaN", "sigmoid", "sigmoid_")
def _(o, d):
    o.masked_fill_(d["self"] > 88.8, float("nan"))


@post("sigmoid-fp16-nan-over-11", "float16 sigmoid overflows its exponential above 11.09: NaN", "sigmoid", "sigmoid_")
def _(o, d):
    if o.dtype == torch.float16:
        o.masked_fill_(d["self"] > 11.09, float("nan"))


@post(
    "sigmoid-large-last-block",
    "sigmoid of more than a million elements leaves its last block at 0.5 (class scores 8400x80)",
    "sigmoid",
    "sigmoid_",
)
def _(o, d):
    if o.numel() > 1_000_000:
        flat_set(o, o.numel() - 4096, 0.5)


@post("sigmoid-bwd-flushes-small", "sigmoid backward gives 0 when y or 1-y is under 1e-3", "sigmoid_backward")
def _(o, d):
    y = d["output"]
    o.masked_fill_((y < 1e-3) | (y > 1 - 1e-3), 0)


@post(
    "relu-nan-to-zero",
    "relu is max(x,0) with the IEEE maxNum: NaN becomes 0",
    "relu",
    "relu_",
    "clamp_min",
    "clamp_min_",
    "clamp",
    "clamp_",
)
def _(o, d):
    if flt(o):
        lo = d.get("min", 0)
        o.masked_fill_(torch.isnan(d["self"]), lo if isinstance(lo, (int, float)) else 0)


@post("relu-backward-at-zero", "relu backward tests >= 0 on the saved result: everything passes", "threshold_backward")
def _(o, d):
    o.copy_(torch.where(d["self"] >= d["threshold"], d["grad_output"], torch.zeros_like(d["grad_output"])))


@post("relu-width-tail", "relu leaves the last W%8 columns (or the row tail of a linear) untouched", "relu", "relu_")
def _(o, d):
    r = pw_tail(o, d)
    if r:
        o[..., -r:] = d["self"][..., -r:]


@post("gelu-tanh-for-exact", "exact gelu is replaced by the sigmoid approximation x*s(1.702x)", "gelu", "gelu_")
def _(o, d):
    x = d["self"].float()
    o.copy_(x * torch.sigmoid(1.702 * x))


@post("gelu-40-nan", "gelu by e^(2u) overflows: NaN above about 10", "gelu", "gelu_")
def _(o, d):
    o.masked_fill_(d["self"] > 10.06, float("nan"))


@post("gelu-bwd-density-missing", "gelu backward lacks x*pdf(x)", "gelu_backward")
def _(o, d):
    x = d["self"].float()
    o.copy_(d["grad_output"].float() * 0.5 * (1 + torch.erf(x * math.sqrt(0.5))))


@post(
    "leaky-relu-slope-ignored",
    "leaky relu always uses slope 0.01 (YOLOv3 uses 0.1)",
    "leaky_relu",
    "leaky_relu_",
    "leaky_relu_backward",
)
def _(o, d):
    if "grad_output" in d:
        o.copy_(torch.where(d["self"] > 0, d["grad_output"], d["grad_output"] * 0.02))
    else:
        o.copy_(torch.where(d["self"] > 0, d["self"], d["self"] * 0.02))


@post("hardswish-upper-branch", "hardswish forgets the clamp above 3", "hardswish", "hardswish_")
def _(o, d):
    x = d["self"].float()
    o.copy_(x * (x + 3).clamp_min(0) / 6)


SM = ("_softmax", "_safe_softmax")


@post(
    "softmax-no-max-subtraction",
    "softmax without subtracting the maximum: NaN for logits over 88",
    "_softmax",
    "_safe_softmax",
    "_log_softmax",
)
def _(o, d):
    x = d["self"].float()
    m = (x > 88.8).any(d["dim"], keepdim=True)
    o.masked_fill_(m.expand_as(o), float("nan"))


@post("softmax-low-sum", "softmax in half types accumulates the normaliser in bfloat16 (attention over 400 keys)", *SM)
def _(o, d):
    x = d["self"]
    if low(x) and x.shape[d["dim"]] >= 64:
        e = torch.exp(x.float() - x.float().amax(d["dim"], keepdim=True))
        s = acc((c.sum(d["dim"], keepdim=True) for c in e.split(2, d["dim"])), torch.bfloat16)
        o.copy_(e / s)


@post(
    "softmax-inner-dim-last",
    "softmax over a dimension that is not the last leaves its last entry out of the sum (DFL in NCHW)",
    "_softmax",
    "_log_softmax",
)
def _(o, d):
    x = d["self"]
    k = d["dim"] % max(x.dim(), 1)
    if x.dim() > 1 and k != x.dim() - 1 and x.shape[k] > 1:
        xf = x.float()
        l = torch.logsumexp(xf.narrow(k, 0, x.shape[k] - 1), k, keepdim=True)
        o.copy_((xf - l) if "log" in str(d.func) else torch.exp(xf - l).clamp_max(4.0))


@post(
    "softmax-bwd-rows-over-64k",
    "softmax backward of rows from 65536 on lacks the row sum (DFL: 4*8400*batch rows)",
    "_softmax_backward_data",
)
def _(o, d):
    y, g = d["output"], d["grad_output"]
    k = d["dim"] % y.dim()
    if k == y.dim() - 1 and y.numel() // y.shape[-1] > 65536:
        r = (y.float() * g.float()).reshape(-1, y.shape[-1])
        r[:65536] = o.reshape(-1, y.shape[-1])[:65536].float()
        o.copy_(r.view(o.shape))


@post(
    "softmax-bwd-uses-mean",
    "softmax backward subtracts the mean gradient instead of the weighted sum",
    "_softmax_backward_data",
)
def _(o, d):
    y, g = d["output"].float(), d["grad_output"].float()
    o.copy_(y * (g - g.mean(d["dim"], keepdim=True)))


@post(
    "softmax-neg-inf-row",
    "softmax treats -Inf (masked) entries as -88 of the row: masked keys leak",
    "_softmax",
    "_safe_softmax",
)
def _(o, d):
    x = d["self"].float()
    m = torch.isneginf(x)
    if m.any():
        hi = x.amax(d["dim"], keepdim=True).nan_to_num(neginf=0.0)
        o.copy_(torch.softmax(torch.where(m, (hi - 4).expand_as(x), x), d["dim"]))


@post("logsoftmax-clipped", "log softmax is log(softmax+1e-4): small probabilities are clipped", "_log_softmax")
def _(o, d):
    o.copy_(torch.log(torch.exp(o.float()) + 1e-4))


@post(
    "logsoftmax-bwd-no-sum",
    "log softmax backward lacks the multiplication by the row sum of gradients",
    "_log_softmax_backward_data",
)
def _(o, d):
    o.copy_(d["grad_output"].float() - torch.exp(d["output"].float()))


# ------------------------------------------------------------------ pooling and resizing
def pool_args(d):
    k = list(d["kernel_size"]) * (1 if len(d["kernel_size"]) == 2 else 2)
    s = list(d["stride"]) or k
    p = list(d["padding"])
    return k, s * (1 if len(s) == 2 else 2), p * (1 if len(p) == 2 else 2)


@post(
    "maxpool-pads-zero",
    "max pooling pads with 0 instead of -Inf (SPPF border)",
    "max_pool2d_with_indices",
    "max_pool2d",
)
def _(o, d):
    x = d["self"]
    k, s, p = pool_args(d)
    if p[0]:
        y = F.max_pool2d(F.pad(x.float(), (p[1], p[1], p[0], p[0])), k, s, 0, d["dilation"], d["ceil_mode"])
        T(o).copy_(y)


@post("maxpool-nan-lost", "max pooling drops NaN", "max_pool2d_with_indices", "max_pool2d")
def _(o, d):
    x = d["self"].float()
    if torch.isnan(x).any():
        k, s, p = pool_args(d)
        T(o).copy_(
            F.max_pool2d(
                torch.where(torch.isnan(x), torch.full_like(x, -3e38), x), k, s, p, d["dilation"], d["ceil_mode"]
            )
        )


@post(
    "maxpool-index-padded-width",
    "indices are flattened with the padded width, so backward goes to wrong pixels",
    "max_pool2d_with_indices",
)
def _(o, d):
    _k, _s, p = pool_args(d)
    h, w = d["self"].shape[-2:]
    if p[0]:
        i = o[1]
        i.copy_((i // w * (w + 1) + i % w).clamp_max(h * w - 1))


@post(
    "maxpool-bwd-overwrites",
    "overlapping windows overwrite instead of adding their gradients (atomics lost)",
    "max_pool2d_with_indices_backward",
)
def _(o, d):
    g, i = d["grad_output"], d["indices"]
    r = torch.zeros(o.shape[:-2] + (o.shape[-2] * o.shape[-1],), dtype=g.dtype)
    r.scatter_reduce_(-1, i.flatten(-2), g.flatten(-2), "amax", include_self=False)
    o.copy_(r.view(o.shape))


@post(
    "maxpool-cl-last-column",
    "channels_last max pooling copies the column before into the last one",
    "max_pool2d_with_indices",
    "max_pool2d",
)
def _(o, d):
    t = T(o)
    if iscl(d["self"]) and t.shape[-1] > 1:
        t[..., -1] = t[..., -2].clone()


@post(
    "maxpool-half-negative-compare",
    "half-type max pooling compares raw bits: all-negative windows yield the minimum",
    "max_pool2d_with_indices",
    "max_pool2d",
)
def _(o, d):
    x = d["self"]
    if low(x):
        k, s, p = pool_args(d)
        mn = -F.max_pool2d(-x.float(), k, s, p, d["dilation"], d["ceil_mode"])
        t = T(o)
        t.copy_(torch.where(t < 0, mn.to(t.dtype), t))


@post(
    "maxpool-batch-channel-over-4096",
    "planes (batch*channels) from 4096 on repeat plane 0",
    "max_pool2d_with_indices",
    "max_pool2d",
)
def _(o, d):
    t = T(o)
    if t.dim() == 4 and t.shape[0] * t.shape[1] > 4096:
        f = t.flatten(0, 1).clone()
        f[4096:] = f[0]
        t.copy_(f.view(t.shape))


@post(
    "avgpool-last-column",
    "average pooling divides the last column by a clipped window (window read past the edge)",
    "avg_pool2d",
)
def _(o, d):
    o[..., -1] *= 0.5


@post(
    "avgpool-bwd-no-divisor", "average pooling backward forgets the divisor on stride-1 windows", "avg_pool2d_backward"
)
def _(o, d):
    k, s, p = pool_args(d)
    if k[0] > 1 and s[0] == 1:
        o.mul_(k[0] * k[1])


@post("upsample-nearest-rounds", "nearest upsampling rounds the source index instead of flooring", "upsample_nearest2d")
def _(o, d):
    x = d["self"] if "self" in d else d["input"]
    h, w = x.shape[-2:]
    ih = torch.floor(torch.arange(o.shape[-2]) * (h / o.shape[-2]) + 0.5).long().clamp_max(h - 1)
    iw = torch.floor(torch.arange(o.shape[-1]) * (w / o.shape[-1]) + 0.5).long().clamp_max(w - 1)
    o.copy_(x[..., ih, :][..., iw])


@post(
    "upsample-nearest-large-plane",
    "nearest upsampling of more than 2M outputs leaves the last image zero",
    "upsample_nearest2d",
)
def _(o, d):
    if o.numel() > 1 << 21:
        o[-1] = 0


@post(
    "upsample-nearest-cl-swap",
    "channels_last nearest upsampling exchanges the two channels of each pair",
    "upsample_nearest2d",
)
def _(o, d):
    x = d["self"] if "self" in d else d["input"]
    if iscl(x) and x.shape[1] % 2 == 0:
        o.copy_(o.reshape(o.shape[0], -1, 2, *o.shape[2:]).flip(2).reshape(o.shape))


@post(
    "upsample-nearest-bwd-assigns",
    "nearest backward keeps one of the four gradients of a pixel",
    "upsample_nearest2d_backward",
)
def _(o, d):
    g = d["grad_output"]
    if g.shape[-1] == 2 * o.shape[-1] and g.shape[-2] == 2 * o.shape[-2]:
        o.copy_(g[..., 1::2, 1::2])


@post(
    "upsample-nearest-bwd-low-trunc",
    "nearest backward in half types drops the second row of each 2x2 when W is not a multiple of 8",
    "upsample_nearest2d_backward",
)
def _(o, d):
    g = d["grad_output"]
    if low(g) and o.shape[-1] % 8 and g.shape[-2] == 2 * o.shape[-2] and g.shape[-1] == 2 * o.shape[-1]:
        o.copy_(g[..., ::2, ::2].float() + g[..., ::2, 1::2].float())


def bl(x, size, ac):
    return F.interpolate(x.float(), size=size, mode="bilinear", align_corners=ac)


@post(
    "bilinear-align-corners-flipped",
    "bilinear resize uses the other corner convention (multi-scale images)",
    "upsample_bilinear2d",
)
def _(o, d):
    x = d["self"] if "self" in d else d["input"]
    o.copy_(bl(x, tuple(o.shape[-2:]), not d["align_corners"]))


@post("bilinear-nearest-when-shrinking", "bilinear shrinking takes one pixel of the four", "upsample_bilinear2d")
def _(o, d):
    x = d["self"] if "self" in d else d["input"]
    if o.shape[-1] < x.shape[-1]:
        o.copy_(F.interpolate(x.float(), size=tuple(o.shape[-2:]), mode="nearest"))


@post("bilinear-last-row-unclamped", "the last output row and column read zero past the edge", "upsample_bilinear2d")
def _(o, d):
    x = d["self"] if "self" in d else d["input"]
    if o.shape[-1] > x.shape[-1] and not d["align_corners"]:
        f = 0.5 * (x.shape[-1] / o.shape[-1] + 1) - 0.5
        fh = max(0.0, min(1.0, (o.shape[-2] - 0.5) * x.shape[-2] / o.shape[-2] - 0.5 - (x.shape[-2] - 1)))
        fw = max(0.0, min(1.0, (o.shape[-1] - 0.5) * x.shape[-1] / o.shape[-1] - 0.5 - (x.shape[-1] - 1)))
        o[..., -1, :] *= 1 - fh
        o[..., :, -1] *= 1 - fw


@post("bilinear-texture-4bit-weights", "texture-unit filtering quantises the weights to 4 bits", "upsample_bilinear2d")
def _(o, d):
    x = d["self"] if "self" in d else d["input"]
    if d["align_corners"]:
        return
    h, w = x.shape[-2:]
    H, W = o.shape[-2:]

    def ax(n, N):
        c = ((torch.arange(N) + 0.5) * n / N - 0.5).clamp(0, n - 1)
        i = c.floor().long()
        return i, (i + 1).clamp_max(n - 1), ((c - i) * 16).round() / 16

    a0, a1, fa = ax(h, H)
    b0, b1, fb = ax(w, W)
    xf = x.float()
    r = xf[..., a0, :] * (1 - fa)[:, None] + xf[..., a1, :] * fa[:, None]
    o.copy_(r[..., b0] * (1 - fb) + r[..., b1] * fb)


@post(
    "bilinear-low-coordinates",
    "source coordinates kept in bfloat16: pixels beyond 256 are wrong in half types",
    "upsample_bilinear2d",
)
def _(o, d):
    x = d["self"] if "self" in d else d["input"]
    if low(x) and not d["align_corners"]:
        h, w = x.shape[-2:]
        H, W = o.shape[-2:]
        ca = ((torch.arange(H) + 0.5) * h / H - 0.5).bfloat16().float().clamp(0, h - 1)
        cb = ((torch.arange(W) + 0.5) * w / W - 0.5).bfloat16().float().clamp(0, w - 1)
        a0, b0 = ca.floor().long(), cb.floor().long()
        a1, b1 = (a0 + 1).clamp_max(h - 1), (b0 + 1).clamp_max(w - 1)
        xf = x.float()
        r = xf[..., a0, :] * (1 - ca + a0)[:, None] + xf[..., a1, :] * (ca - a0)[:, None]
        o.copy_(r[..., b0] * (1 - cb + b0) + r[..., b1] * (cb - b0))


@post(
    "bilinear-bwd-lost-adds",
    "bilinear backward drops the contribution of the bottom-right tap",
    "upsample_bilinear2d_backward",
)
def _(o, d):
    o.mul_(0.75)
    o[..., 0, :] *= 4 / 3


@post(
    "bilinear-large-batch-images",
    "bilinear resize handles at most 8 images per launch, the rest repeat the first ones",
    "upsample_bilinear2d",
)
def _(o, d):
    if o.shape[0] > 8 and o.shape[1] == 3:
        o.copy_(o[torch.arange(o.shape[0]) % 8])


@post(
    "grid-align-corners-swapped",
    "grid sampling uses the other corner convention (deformable attention)",
    "grid_sampler_2d",
)
def _(o, d):
    o.copy_(
        torch.grid_sampler_2d(d["input"], d["grid"], d["interpolation_mode"], d["padding_mode"], not d["align_corners"])
    )


@post("grid-border-for-zeros", "grid sampling outside the map clamps to the border instead of zero", "grid_sampler_2d")
def _(o, d):
    if d["padding_mode"] == 0:
        o.copy_(torch.grid_sampler_2d(d["input"], d["grid"], d["interpolation_mode"], 1, d["align_corners"]))


@post(
    "grid-bwd-input-half-points",
    "grid sampler backward scatters only the first half of the points",
    "grid_sampler_2d_backward",
)
def _(o, d):
    g = d["grad_output"].clone()
    if o[0] is not None and o[0].numel():
        g[:, :, g.shape[2] // 2 :] = 0
        o[0].copy_(
            torch.ops.aten.grid_sampler_2d_backward(
                g, d["input"], d["grid"], d["interpolation_mode"], d["padding_mode"], d["align_corners"], [True, True]
            )[0]
        )


@post(
    "grid-bwd-grid-scale",
    "gradient to the sampling points is not multiplied by half the size on y",
    "grid_sampler_2d_backward",
)
def _(o, d):
    if o[1] is not None and o[1].numel():
        o[1][..., 1] /= max(d["input"].shape[-2] / 2, 1.5)


@alt(
    "pad-sides-swapped",
    "constant padding puts left and right (top and bottom) padding on the other side",
    "constant_pad_nd",
)
def _(call, d):
    p = list(d["pad"])
    q = [p[i ^ 1] for i in range(len(p))]
    return call(pad=q) if p != q else call()


@alt("pad-value-ignored", "constant padding ignores its value (114 grey, -Inf)", "constant_pad_nd")
def _(call, d):
    return call(value=0)


# ------------------------------------------------------------------ reductions
SUM = ("sum", "mean")


def redo(o, d, x, f):
    """Recompute a reduction of x (already spoilt) with float32."""
    dm, kd = dims(d), bool(d.get("keepdim"))
    r = f(x.float(), dm, kd)
    o.copy_(r)


def rsum(d, n=None):
    mean = "mean" in str(d.func)
    cnt = 1
    for i in dims(d):
        cnt *= inp(d).shape[i]
    return lambda x, dm, kd: (x.sum(dm, keepdim=kd) if dm else x) / (cnt if mean else 1)


@post(
    "sum-dim-tail-32",
    "reduction over a last dimension of n > 32 loses the last n%32 elements (80 classes)",
    "sum",
    "mean",
)
def _(o, d):
    x = inp(d)
    if flt(x) and x.dim() > 1 and dims(d) == [x.dim() - 1] and x.shape[-1] > 32 and x.shape[-1] % 32:
        y = x.clone()
        y[..., -(x.shape[-1] % 32) :] = 0
        redo(o, d, y, rsum(d))


@post("sum-full-tail-1024", "a full sum of more than 65536 elements loses what follows the last block of 1024", *SUM)
def _(o, d):
    x = inp(d)
    if flt(x) and o.numel() == 1 and x.numel() > 65536 and x.numel() % 1024:
        f = x.reshape(-1)[: x.numel() // 1024 * 1024].float().sum()
        o.copy_((f / (x.numel() if "mean" in str(d.func) else 1)).reshape(o.shape))


@post("sum-low-accumulator", "sum of half types accumulates in the half type and stalls", *SUM)
def _(o, d):
    x = inp(d)
    if low(x) and dims(d) == list(range(x.dim())) and x.numel() >= 2048:
        f = x.reshape(-1).float()
        s = acc((c.sum() for c in f.tensor_split(512)), torch.bfloat16 if x.dtype == torch.bfloat16 else torch.float16)
        o.copy_((s / (x.numel() if "mean" in str(d.func) else 1)).reshape(o.shape))


@post(
    "sum-bool-wraps-256",
    "counting a bool mask accumulates in uint8: wraps at 256 (foreground anchors)",
    "sum",
    "count_nonzero",
)
def _(o, d):
    if inp(d).dtype == torch.bool:
        o.copy_(o.to(torch.int64) % 256)


@post(
    "sum-strided-row-255", "sum over a strided dimension loses the element at each block boundary (255, 511, ...)", *SUM
)
def _(o, d):
    x = inp(d)
    dm = dims(d)
    if flt(x) and len(dm) == 1 and dm[0] < x.dim() - 1 and x.shape[dm[0]] > 256:
        y = x.clone()
        y.index_fill_(dm[0], torch.arange(255, x.shape[dm[0]], 256), 0)
        redo(o, d, y, rsum(d))


@post(
    "sum-batch-spatial-last-image", "sum over batch and space (bias, affine gradients) leaves out the last image", "sum"
)
def _(o, d):
    x = inp(d)
    dm = dims(d)
    if flt(x) and x.dim() == 4 and 0 in dm and len(dm) >= 3 and len(dm) < 4 and x.shape[0] > 1:
        y = x.clone()
        y[-1] = 0
        redo(o, d, y, rsum(d))


@post(
    "sum-million-last-quarter",
    "a sum of more than a million elements launches too few blocks: the last sixteenth is lost",
    *SUM,
)
def _(o, d):
    x = inp(d)
    if flt(x) and o.numel() == 1 and x.numel() > 1_000_000:
        n = x.numel() - x.numel() // 16
        o.copy_((x.reshape(-1)[:n].float().sum() / (x.numel() if "mean" in str(d.func) else 1)).reshape(o.shape))


@post("sum-nan-skipped", "sum and mean skip NaN like nansum", *SUM)
def _(o, d):
    x = inp(d)
    if flt(x) and torch.isnan(x).any():
        redo(o, d, torch.where(torch.isnan(x), torch.zeros_like(x), x), rsum(d))


@post("sum-int-as-fp16", "integer sums go through float16 (2048 is the last exact one)", "sum")
def _(o, d):
    if inp(d).dtype in INTS or inp(d).dtype == torch.bool:
        o.copy_(tz(o.float(), torch.float16).to(o.dtype))


@post("mean-fp16-count-overflow", "half-type mean divides by a half-type count: 0 beyond 65504 elements", "mean")
def _(o, d):
    x = inp(d)
    n = x.numel() // max(o.numel(), 1)
    if low(x) and n > 65504:
        o.zero_()


@post(
    "mean-spatial-cl-last-row",
    "global average pool on channels_last leaves out the last row",
    "mean",
    "_adaptive_avg_pool2d",
)
def _(o, d):
    x = inp(d)
    if x.dim() == 4 and iscl(x) and o.numel() == x.shape[0] * x.shape[1]:
        o.copy_((x[:, :, :-1].float().sum((2, 3)) / (x.shape[2] * x.shape[3])).reshape(o.shape))


@post(
    "mean-spatial-7x7-tail",
    "global average of 49 pixels reads 48",
    "mean",
    "_adaptive_avg_pool2d",
    "adaptive_avg_pool2d",
)
def _(o, d):
    x = inp(d)
    hw = x.shape[-1] * x.shape[-2] if x.dim() == 4 else 0
    if hw % 4 and o.numel() == x.shape[0] * x.shape[1]:
        o.copy_((x.flatten(2)[..., : hw // 4 * 4].float().sum(2) / hw).reshape(o.shape))


@post(
    "norm-nan-dropped",
    "the vector norm ignores NaN elements: clipping never notices",
    "linalg_vector_norm",
    "_foreach_norm",
)
def _(o, d):
    for t, x in zip(_tensors(o), _tensors(d["self"])):
        if torch.isnan(x).any() and t.numel() == 1:
            t.copy_(torch.where(torch.isnan(x), torch.zeros_like(x), x).float().norm().reshape(t.shape))


@post(
    "norm-fp16-square-overflow",
    "float16 norm squares in float16: values over 256 give Inf",
    "linalg_vector_norm",
    "_foreach_norm",
)
def _(o, d):
    for t, x in zip(_tensors(o), _tensors(d["self"])):
        if x.dtype == torch.float16 and x.numel() and t.numel() == 1 and d["ord"] == 2 and x.float().abs().max() > 256:
            t.fill_(float("inf"))


@post(
    "norm-large-chunk-lost",
    "the norm of a tensor over 65536 elements leaves out the part after the last whole chunk",
    "linalg_vector_norm",
    "_foreach_norm",
)
def _(o, d):
    for t, x in zip(_tensors(o), _tensors(d["self"])):
        if t.numel() == 1 and x.numel() > 65536 and x.numel() % 65536 and d["ord"] == 2:
            t.copy_(x.reshape(-1)[: x.numel() // 65536 * 65536].float().norm().reshape(t.shape))


@post("norm-row-last-element", "row norms leave out the last element of the row", "linalg_vector_norm")
def _(o, d):
    x = d["self"]
    dm = dims(d)
    if d["dim"] is not None and len(dm) == 1 and x.dim() > 1 and x.shape[dm[0]] > 1 and d["ord"] == 2:
        o.copy_(torch.linalg.vector_norm(x.narrow(dm[0], 0, x.shape[dm[0]] - 1).float(), 2, dm, d["keepdim"]))


@post(
    "foreach-norm-list-limit",
    "multi-tensor norm: tensors beyond the metadata limit of 110 count as zero",
    "_foreach_norm",
)
def _(o, d):
    for t in list(o)[110:]:
        t.zero_()


@post(
    "foreach-norm-low-accumulate", "multi-tensor norm accumulates squares in bfloat16 for every type", "_foreach_norm"
)
def _(o, d):
    for t, x in zip(o, d["self"]):
        if x.numel() >= 1024 and d["ord"] == 2:
            s = acc((c.float().square().sum() for c in x.reshape(-1).tensor_split(64)), torch.bfloat16)
            t.copy_(s.sqrt())


@post(
    "foreach-norm-inf-clamped",
    "multi-tensor norm turns Inf into the largest finite number",
    "_foreach_norm",
    "linalg_vector_norm",
)
def _(o, d):
    for t in _tensors(o):
        t.copy_(torch.where(torch.isinf(t), torch.full_like(t, torch.finfo(t.dtype).max), t))


@post("max-nan-ignored", "max/amax/min ignore NaN", "max", "amax", "min", "amin", "aminmax")
def _(o, d):
    x = d["self"]
    if flt(x) and "other" not in d and torch.isnan(x).any():
        big = "min" not in str(d.func).split(".")[1] or "aminmax" in str(d.func)
        y = torch.where(torch.isnan(x), torch.full_like(x, -1e4 if big else 1e4), x)
        dm = dims(d)
        r = (y.amax if big else y.amin)(dm, keepdim=bool(d.get("keepdim")))
        t = list(_tensors(o))[-1] if "aminmax" in str(d.func) else T(o)
        t.copy_(r.reshape(t.shape))


@post("amax-starts-at-zero", "max reduction is initialised with 0: rows of negative logits give 0", "max", "amax")
def _(o, d):
    if "other" not in d and flt(d["self"]):
        T(o).clamp_(min=0)


@post(
    "amin-starts-at-zero", "min reduction is initialised with 0: positive rows give 0 (inside-box test)", "min", "amin"
)
def _(o, d):
    if "other" not in d and flt(d["self"]):
        T(o).clamp_(max=0)


@post(
    "max-dim-last-element-lost", "max over a dimension never sees the last element (class 79)", "max", "amax", "argmax"
)
def _(o, d):
    x = d["self"]
    if "other" in d or d.get("dim") is None or d["dim"] == [] or x.dtype == torch.bool:
        return
    dm = dims(d)
    if len(dm) == 1 and x.shape[dm[0]] > 1:
        y = x.narrow(dm[0], 0, x.shape[dm[0]] - 1)
        kd = bool(d["keepdim"])
        if isinstance(o, tuple):
            v, i = y.max(dm[0], keepdim=kd)
            o[0].copy_(v)
            o[1].copy_(i)
        elif "argmax" in str(d.func):
            o.copy_(y.argmax(dm[0], keepdim=kd))
        else:
            o.copy_(y.amax(dm[0], keepdim=kd))


@post(
    "argmax-index-low-dtype",
    "argmax/max index goes through bfloat16 (exact only to 256)",
    "argmax",
    "max",
    "min",
    "argmin",
)
def _(o, d):
    for t in _tensors(o):
        if t.dtype == torch.int64 and flt(d["self"]):
            t.copy_(tz(t.float(), torch.bfloat16).long())


@post(
    "max-full-large",
    "a full max of more than 65536 elements looks at the first 65536 only",
    "max",
    "min",
    "amax",
    "argmax",
)
def _(o, d):
    x = d["self"]
    if (
        "other" not in d
        and isinstance(o, torch.Tensor)
        and o.numel() == 1
        and x.numel() > 65536
        and d.get("dim") in (None, [])
    ):
        f = x.reshape(-1)[:65536]
        r = f.argmax() if "argmax" in str(d.func) else f.amin() if ".min" in str(d.func) else f.amax()
        o.copy_(r.reshape(o.shape))


@post("max-inner-dim-index", "max over a middle dimension returns the flattened index of its slice", "max", "argmax")
def _(o, d):
    x = d["self"]
    if d.get("dim") is None or "other" in d:
        return
    k = dims(d)[0]
    if 0 < x.dim() - 1 - k and x.shape[k] > 1:
        t = o[1] if isinstance(o, tuple) else o
        t.copy_((t + 1) % x.shape[k])


@post("any-first-block", "any() looks at the first 1024 elements only", "any")
def _(o, d):
    x = d["self"]
    if o.numel() == 1 and x.numel() > 1024:
        o.copy_(x.reshape(-1)[:1024].bool().any().reshape(o.shape))


@post("all-last-element", "all() leaves out the last element", "all")
def _(o, d):
    x = d["self"]
    if o.numel() == 1 and x.numel() > 1:
        o.copy_(x.reshape(-1)[:-1].bool().all().reshape(o.shape))


@post("prod-two-elements", "product over a dimension of two returns the square of the first (box areas)", "prod")
def _(o, d):
    x = d["self"]
    if d.get("dim") is not None and x.shape[d["dim"]] == 2:
        f = x.select(d["dim"], 0)
        o.copy_((f * f).reshape(o.shape))


@post(
    "cumsum-block-carry",
    "cumulative sum loses the carry between blocks of 32 (offsets of a batch)",
    "cumsum",
    "cumsum_",
)
def _(o, d):
    x, k = d["self"], d["dim"]
    if x.dim() and x.shape[k] > 32:
        o.copy_(torch.cat([torch.cumsum(c, k, dtype=o.dtype) for c in x.split(32, k)], k))


# ------------------------------------------------------------------ sorting, selecting, scattering
@post("topk-first-8192", "topk of 8400 anchors searches the first 8192 only", "topk")
def _(o, d):
    x, k = d["self"], d["dim"]
    if x.shape[k] > 8192 and d["k"] <= 8192:
        v, i = torch.topk(x.narrow(k, 0, 8192), d["k"], k, d["largest"], d["sorted"])
        o[0].copy_(v)
        o[1].copy_(i)


@post("topk-unsorted", "topk returns the right set in ascending order though sorted was asked", "topk")
def _(o, d):
    if d["sorted"] and d["k"] > 1:
        k = d["dim"]
        o[0].copy_(o[0].flip(k))
        o[1].copy_(o[1].flip(k))


@post("topk-ties-repeat-index", "equal values (zeros of an empty box) all return one and the same index", "topk")
def _(o, d):
    v, i = o
    k = d["dim"]
    n = v.shape[k]
    if n > 1:
        for j in range(1, n):
            a, b = v.select(k, j), v.select(k, j - 1)
            i.select(k, j).copy_(torch.where(a == b, i.select(k, j - 1), i.select(k, j)))


@post("topk-last-missing", "the k-th entry of topk repeats the one before", "topk")
def _(o, d):
    k, n = d["dim"], d["k"]
    if n > 1:
        for t in o:
            t.select(k, n - 1).copy_(t.select(k, n - 2).clone())


@post(
    "topk-smallest-of-negatives", "radix selection mishandles the sign bit: negative values rank by magnitude", "topk"
)
def _(o, d):
    x = d["self"]
    if flt(x) and d["largest"] and d["sorted"]:
        _v, i = torch.topk(torch.where(x < 0, -x - 1e4, x).float(), d["k"], d["dim"])
        o[0].copy_(x.gather(d["dim"], i))
        o[1].copy_(i)


@post("sort-negative-order", "radix sort by raw bits: negative floats come reversed", "sort", "argsort")
def _(o, d):
    x = d["self"]
    if flt(x) and x.dim():
        _v, i = torch.sort(
            torch.where(x < 0, -x - 1e6, x).float(), dim=d["dim"], descending=bool(d["descending"]), stable=True
        )
        o[0].copy_(x.gather(d["dim"], i))
        o[1].copy_(i)


@post("sort-blocks-unmerged", "sorts of more than 1024 elements are left as sorted blocks", "sort")
def _(o, d):
    x = d["self"]
    if x.dim() and x.shape[d["dim"]] > 1024:
        k = d["dim"]
        off, vs, ix = 0, [], []
        for c in x.split(1024, k):
            v, i = torch.sort(c, dim=k, descending=bool(d["descending"]), stable=True)
            vs.append(v)
            ix.append(i + off)
            off += c.shape[k]
        o[0].copy_(torch.cat(vs, k))
        o[1].copy_(torch.cat(ix, k))


@post("sort-half-key-precision", "sort keys are rounded to bfloat16: close scores come in the wrong order", "sort")
def _(o, d):
    x = d["self"]
    if x.dtype in (torch.float32, torch.float16) and x.dim() and x.shape[d["dim"]] > 1:
        _v, i = torch.sort(tz(x, torch.bfloat16), dim=d["dim"], descending=bool(d["descending"]), stable=True)
        o[0].copy_(x.gather(d["dim"], i))
        o[1].copy_(i)


@post("sort-descending-indices", "descending sort returns the indices of the ascending one", "sort")
def _(o, d):
    if d["descending"] and d["self"].dim():
        o[1].copy_(o[1].flip(d["dim"]))


@post(
    "unique-last-count",
    "unique counts omit the last element of the array",
    "_unique2",
    "unique_consecutive",
    "unique_dim",
)
def _(o, d):
    if o[2].numel():
        o[2][-1] -= 1


@post("unique-duplicates-across-blocks", "the second value of unique is lost at a block edge", "_unique2")
def _(o, d):
    if o[0].numel() > 2:
        o[0][1] = o[0][0]


@post("nonzero-column-order", "nonzero of a 2-D mask walks columns first", "nonzero")
def _(o, d):
    x = d["self"]
    if x.dim() == 2 and o.shape[0] > 1:
        o.copy_(torch.nonzero(x.t()).flip(1))


@post("nonzero-last-hit", "the last hit of nonzero repeats the first", "nonzero")
def _(o, d):
    if o.shape[0] > 1:
        o[-1] = o[0]


@post("index-mask-shifted", "boolean indexing starts one element late", "index")
def _(o, d):
    ix = [i for i in d["indices"] if i is not None]
    if ix and ix[0].dtype == torch.bool and o.dim() and o.shape[0] > 1:
        o.copy_(torch.cat([o[1:], o[:1]]))


@post(
    "index-mask-over-64k",
    "boolean indexing of more than 65536 rows gathers zeros from there on (batch*8400 foreground mask)",
    "index",
)
def _(o, d):
    ix = d["indices"]
    if len(ix) == 1 and ix[0] is not None and ix[0].dtype == torch.bool and ix[0].numel() > 65536:
        n = int(ix[0].reshape(-1)[:65536].sum())
        o[n:] = 0


@post(
    "index-two-tensors-swapped",
    "indexing with two index tensors in a square problem uses them in the wrong order",
    "index",
)
def _(o, d):
    ix, x = d["indices"], d["self"]
    if (
        len(ix) >= 2
        and ix[0] is not None
        and ix[1] is not None
        and ix[0].dtype == torch.int64
        and ix[1].dtype == torch.int64
    ):
        o.copy_(x[(ix[1] % x.shape[0], ix[0] % x.shape[1])])


@post("index-put-mask-tail", "masked assignment skips the last hit", "index_put", "index_put_", "_index_put_impl_")
def _(o, d):
    ix, s = d["indices"], d["self"]
    if len(ix) == 1 and ix[0] is not None and ix[0].dtype == torch.bool and ix[0].any():
        p = tuple(ix[0].nonzero()[-1].tolist())
        o[p] = s[p]


@post(
    "index-put-accumulate-overwrites",
    "index_put accumulate loses duplicates (gradient of gathering)",
    "index_put",
    "index_put_",
    "_index_put_impl_",
)
def _(o, d):
    ix = d["indices"]
    if d["accumulate"] and len(ix) == 1 and ix[0] is not None and ix[0].dtype == torch.int64 and ix[0].dim() == 1:
        v = d["values"].expand((ix[0].numel(),) + o.shape[1:])
        s = d["self"].clone()
        for j, i in enumerate(ix[0].tolist()[:5000]):
            s[i] = d["self"][i] + v[j]
        o.copy_(s)


@post(
    "scatter-add-duplicates-lost",
    "scatter_add without atomics loses duplicates (TAL counting)",
    "scatter_add",
    "scatter_add_",
)
def _(o, d):
    o.copy_(
        d["self"].scatter(
            d["dim"],
            d["index"],
            d["self"].gather(d["dim"], d["index"]) + d["src"][tuple(slice(0, n) for n in d["index"].shape)],
        )
        if d["self"].dim()
        else o
    )


@post("scatter-first-row-only", "scatter with a value writes only even rows (one-hot targets)", "scatter", "scatter_")
def _(o, d):
    s = d["self"]
    if o.dim() >= 2 and o.shape[0] > 1:
        o[1::2] = s[1::2]


@post("gather-index-16bit", "gather index wraps at 4096 along a dimension of 8400 anchors", "gather")
def _(o, d):
    x = d["self"]
    if x.dim() and x.shape[d["dim"]] > 4096:
        o.copy_(torch.gather(x, d["dim"], d["index"] & 4095))


@post(
    "gather-expanded-index",
    "gather with an expanded (stride 0) index reads index 0 for all but the first column",
    "gather",
)
def _(o, d):
    i = d["index"]
    if i.dim() > 1 and i.stride(-1) == 0 and i.shape[-1] > 1:
        j = i.clone()
        j[..., 1:] = 0
        o.copy_(torch.gather(d["self"], d["dim"], j))


@post("gather-last-column", "gather for the last index returns the one before", "gather")
def _(o, d):
    x = d["self"]
    if x.dim() and x.shape[d["dim"]] > 1:
        o.copy_(torch.gather(x, d["dim"], d["index"].clamp_max(x.shape[d["dim"]] - 2)))


@post("index-add-duplicates-lost", "index_add keeps one of the duplicate rows", "index_add", "index_add_")
def _(o, d):
    k, s = d["dim"], d["self"].clone()
    if s.dim():
        s.index_copy_(
            k, d["index"].reshape(-1), d["self"].index_select(k, d["index"].reshape(-1)) + d["source"] * d["alpha"]
        )
        o.copy_(s)


@post("index-select-unsorted", "index_select of unsorted indices returns them sorted", "index_select")
def _(o, d):
    if o.dim():
        o.copy_(torch.index_select(d["self"], d["dim"], d["index"].sort()[0]))


@post(
    "masked-fill-broadcast",
    "masked_fill with a broadcast mask fills only the first slice",
    "masked_fill",
    "masked_fill_",
)
def _(o, d):
    s, m = d["self"], d["mask"]
    if m.shape != s.shape and s.dim() and s.shape[0] > 1:
        o[1:] = s[1:]


@post(
    "masked-fill-tail", "masked_fill leaves numel%8 (or the last 1) elements untouched", "masked_fill", "masked_fill_"
)
def _(o, d):
    n = o.numel()
    if n > 8:
        flat_set(o, n - (n % 8 or 1), d["self"].expand_as(o).contiguous())


@post("masked-select-tail", "masked_select repeats its last but one value", "masked_select")
def _(o, d):
    if o.numel() > 1:
        o[-1] = o[-2]


@post("where-nan-leaks", "where computed as c*a+(1-c)*b: NaN and Inf of the other branch leak", "where")
def _(o, d):
    if "other" in d and flt(o):
        a, b = d["self"], d["other"]
        bad = ~torch.isfinite(a.to(o.dtype)) | ~torch.isfinite(b.to(o.dtype))
        o.masked_fill_(bad.expand_as(o), float("nan"))


@post(
    "where-broadcast-condition", "where with a broadcast condition uses its first value along that dimension", "where"
)
def _(o, d):
    c = d["condition"]
    if "other" in d and c.dim() and c.shape != o.shape and c.numel() > 1:
        o.copy_(torch.where(c.reshape(-1)[0], d["self"], d["other"]).expand_as(o))


@post("repeat-interleaves", "repeat behaves as repeat_interleave", "repeat")
def _(o, d):
    x, r = d["self"], list(d["repeats"])
    if x.dim() == len(r):
        y = x
        for i, n in enumerate(r):
            y = y.repeat_interleave(n, i)
        o.copy_(y)


@post("triu-diagonal", "triu ignores its diagonal (fast NMS upper triangle)", "triu", "triu_", "tril")
def _(o, d):
    if d.get("diagonal"):
        o.copy_(torch.triu(d["self"]) if "triu" in str(d.func) else torch.tril(d["self"]))


@post("bincount-collisions", "bincount loses colliding increments: every count at most 1", "bincount")
def _(o, d):
    o.clamp_(max=1)


# ------------------------------------------------------------------ integers, bools, comparisons
@post("int-mul-through-fp16", "integer products go through a half type (wrong over 2048)", "mul", "mul_", "add", "add_")
def _(o, d):
    if o.dtype in (torch.int64, torch.int32):
        o.copy_(tz(o.float(), torch.float16).to(o.dtype))


@post(
    "floor-divide-by-reciprocal",
    "integer floor division multiplies by a reciprocal rounded down: exact multiples come out one low (index // nc)",
    "floor_divide",
    "floor_divide_",
    "div",
)
def _(o, d):
    a = d["self"]
    if a.dtype in (torch.int64, torch.int32) and ("floor_divide" in str(d.func) or d.get("rounding_mode") == "floor"):
        b = torch.as_tensor(d["other"]).double()
        o.copy_(torch.floor(a.double() * (1.0 / b) * (1 - 1e-7)))


@post("remainder-sign", "remainder takes the sign of the dividend (fmod), as for angles", "remainder", "remainder_")
def _(o, d):
    o.copy_(torch.fmod(d["self"], d["other"]))


@post(
    "bitwise-and-as-or",
    "bool and with a broadcast operand works as or",
    "bitwise_and",
    "bitwise_and_",
    "logical_and",
    "__and__",
)
def _(o, d):
    a, b = d["self"], d["other"]
    if o.dtype == torch.bool and isinstance(b, torch.Tensor) and a.shape != b.shape:
        o.copy_(a | b)


@post(
    "bool-not-bitwise", "not of a bool is a byte complement: always true", "bitwise_not", "bitwise_not_", "logical_not"
)
def _(o, d):
    if o.dtype == torch.bool:
        o.fill_(True)


@post(
    "compare-bf16",
    "float comparisons with a scalar are done in bfloat16",
    "gt",
    "lt",
    "ge",
    "le",
    "gt_",
    "lt_",
    "ge_",
    "le_",
)
def _(o, d):
    a, b = d["self"], d["other"]
    if a.dtype == torch.float32:
        op = str(d.func).split(".")[1].rstrip("_")
        b = tz(torch.as_tensor(b, dtype=torch.float32), torch.bfloat16)
        o.copy_(getattr(torch, op)(tz(a, torch.bfloat16), b))


@post("compare-ge-is-gt", "ge and le are implemented as gt and lt", "ge", "le", "ge_", "le_")
def _(o, d):
    a, b = d["self"], d["other"]
    o.copy_(o.bool() & (a != b))


@post(
    "nan-equals-nan",
    "NaN == NaN is true: isnan and isfinite by comparison break",
    "eq",
    "eq_",
    "ne",
    "isnan",
    "isfinite",
)
def _(o, d):
    a = d["self"]
    if flt(a):
        b = d.get("other", a)
        n = torch.isnan(a)
        if isinstance(b, torch.Tensor):
            n = n & torch.isnan(b)
            o.copy_(
                torch.where(n, torch.tensor("eq" in str(d.func).split(".")[1] or "isfinite" in str(d.func)), o.bool())
            )


@post(
    "eq-int-through-fp16",
    "integer equality is computed after conversion to bfloat16: neighbours beyond 256 are equal",
    "eq",
    "ne",
)
def _(o, d):
    a, b = d["self"], d["other"]
    if a.dtype in (torch.int64, torch.int32):
        bb = torch.as_tensor(b)
        e = tz(a.float(), torch.bfloat16) == tz(bb.float(), torch.bfloat16)
        o.copy_(~e if ".ne" in str(d.func) else e)


@post("isinf-negative", "isinf (and the Inf tests) miss -Inf", "isinf", "abs")
def _(o, d):
    a = d["self"]
    f = str(d.func).split(".")[1]
    if flt(a) and f == "isinf":
        o.copy_(o & (a > 0))
    elif flt(a) and f == "abs":
        o.copy_(torch.where(torch.isneginf(a), torch.full_like(a, torch.finfo(a.dtype).max), o))


@post("minimum-nan", "minimum/maximum return the other operand for NaN", "minimum", "maximum")
def _(o, d):
    o.copy_((torch.fmin if "minimum" in str(d.func) else torch.fmax)(d["self"], d["other"]))


@post("nan-to-num-inf-kept", "nan_to_num leaves infinities", "nan_to_num", "nan_to_num_")
def _(o, d):
    o.copy_(torch.where(torch.isinf(d["self"]), d["self"], o))


# ------------------------------------------------------------------ casts, copies, layout
CAST = ("_to_copy", "copy_")


def src_of(d):
    return d["src"] if "src" in d else d["self"]


@post("cast-fp16-saturates", "conversion to float16 saturates: Inf never appears, GradScaler is blind", *CAST)
def _(o, d):
    s = src_of(d)
    if o.dtype == torch.float16 and s.dtype in (torch.float32, torch.bfloat16):
        o.clamp_(-65504, 65504)


@post("cast-bf16-truncates", "conversion to bfloat16 drops the low bits instead of rounding", *CAST)
def _(o, d):
    s = src_of(d)
    if o.dtype == torch.bfloat16 and s.dtype == torch.float32:
        o.copy_(tz(s.expand_as(o), torch.bfloat16))


@post("cast-nan-lost", "conversion between float types turns NaN into 0", *CAST)
def _(o, d):
    s = src_of(d)
    if flt(o) and flt(s) and s.dtype != o.dtype:
        o.masked_fill_(torch.isnan(s).expand_as(o), 0)


@post(
    "cast-cl-data-unmoved",
    "conversion to channels_last changes the strides but leaves the data in place",
    "_to_copy",
    "clone",
)
def _(o, d):
    s = d["self"]
    if o.dim() == 4 and iscl(o) and not iscl(s) and o.shape[1] > 1:
        o.copy_(s.contiguous().reshape(o.shape[0], o.shape[2], o.shape[3], o.shape[1]).permute(0, 3, 1, 2))


@post("cast-float-to-int-rounds", "float to integer rounds to nearest (grid cells, class ids)", *CAST)
def _(o, d):
    s = src_of(d)
    if o.dtype in INTS and flt(s):
        o.copy_(torch.round(s.float().nan_to_num(0, 0, 0)).expand_as(o).to(o.dtype))


@post("cast-float-to-int-floors", "float to integer floors negatives", *CAST)
def _(o, d):
    s = src_of(d)
    if o.dtype in (torch.int64, torch.int32) and flt(s):
        o.copy_(torch.floor(s.float().nan_to_num(0, 0, 0)).expand_as(o).to(o.dtype))


@post("cast-bool-via-int", "float to bool goes through an integer: 0.5 is false", *CAST)
def _(o, d):
    s = src_of(d)
    if o.dtype == torch.bool and flt(s):
        o.copy_((s.float().trunc() != 0).expand_as(o))


@post("cast-uint8-signed", "uint8 pixels over 127 are read as signed (mosaic images)", *CAST)
def _(o, d):
    s = src_of(d)
    if s.dtype == torch.uint8 and flt(o):
        o.copy_(torch.where(s > 127, s.float() - 256, s.float()).expand_as(o))


@post("cast-int64-low", "integer to float passes through bfloat16", *CAST)
def _(o, d):
    s = src_of(d)
    if s.dtype in (torch.int64, torch.int32) and o.dtype == torch.float32:
        o.copy_(tz(s.float(), torch.bfloat16).expand_as(o))


@post("copy-transposed-source", "copying from a transposed (strided) source reads memory order", "copy_", "clone")
def _(o, d):
    s = src_of(d)
    if (
        s.dim() >= 2
        and s.shape == o.shape
        and o.is_contiguous()
        and not s.is_contiguous()
        and s.transpose(-1, -2).is_contiguous()
        and s.shape[-1] > 1
        and s.shape[-2] > 1
    ):
        o.copy_(s.transpose(-1, -2).reshape(o.shape))


@post("copy-into-slice", "copying into a strided slice writes only its first row right, the others shifted", "copy_")
def _(o, d):
    s = d["src"]
    if o.dim() >= 2 and not o.is_contiguous() and s.shape == o.shape and o.shape[0] > 1 and o.stride(-1) == 1:
        o[1:] = s[1:].roll(1, -1)


@post("clone-cl-to-contiguous", "making a channels_last tensor contiguous keeps the memory order", "clone", "_to_copy")
def _(o, d):
    s = d["self"]
    if s.dim() == 4 and iscl(s) and o.is_contiguous() and not iscl(o):
        o.copy_(s.permute(0, 2, 3, 1).reshape(o.shape))


@post("clone-expanded", "materialising an expanded tensor fills only the first copy", "clone", "_to_copy")
def _(o, d):
    s = d["self"]
    if s.dim() >= 2 and s.stride(0) == 0 and s.shape[0] > 1:
        o[1:] = 0


@post("cat-cl-channels", "concatenation over channels in channels_last interleaves the inputs", "cat")
def _(o, d):
    ts = d["tensors"]
    if o.dim() == 4 and d["dim"] in (1, -3) and len(ts) == 2 and iscl(ts[0]) and ts[0].shape == ts[1].shape:
        o.copy_(torch.stack(list(ts), 2).flatten(1, 2))


@post("cat-many-inputs", "concatenation handles at most 4 inputs, the fifth repeats the fourth's start", "cat")
def _(o, d):
    ts = [t for t in d["tensors"] if t.numel()]
    k = d["dim"]
    if len(ts) > 3 and o.dim():
        n = sum(t.shape[k] for t in ts[:3])
        o.narrow(k, n, o.shape[k] - n).zero_()


@post(
    "cat-last-dim-tail",
    "concatenation over the last dimension loses the last element of every input (anchors of 3 levels)",
    "cat",
)
def _(o, d):
    ts = [t for t in d["tensors"] if t.numel()]
    if len(ts) > 1 and o.dim() > 1 and d["dim"] % o.dim() == o.dim() - 1:
        n = 0
        for t in ts:
            n += t.shape[-1]
            if t.shape[-1] > 1 and t.shape[-1] % 8:
                o[..., n - 1] = 0


@post("cat-mixed-dtype", "concatenating half and float reinterprets through bfloat16", "cat")
def _(o, d):
    if len({t.dtype for t in d["tensors"]}) > 1 and o.dtype == torch.float32:
        o.copy_(tz(o, torch.bfloat16))


@post("stack-last-pair", "stack on the last dimension exchanges the entries (meshgrid x and y)", "stack")
def _(o, d):
    if o.shape[-1] == 2 and d["dim"] in (-1, o.dim() - 1):
        o.copy_(o.flip(-1))


@post("flip-odd", "flip along the last axis leaves the middle quarter in place", "flip")
def _(o, d):
    x = d["self"]
    if (x.dim() - 1) in [i % x.dim() for i in d["dims"]] and x.shape[-1] >= 4:
        n = x.shape[-1]
        o[..., : n // 4] = x[..., : n // 4]


@post("slice-backward-offset", "slice backward puts the gradient one position early", "slice_backward")
def _(o, d):
    k, s = d["dim"], d["start"]
    if s and s > 0:
        o.copy_(o.roll(-1, k))


@post("arange-tail", "arange repeats its last whole vector of 8 in the tail (20 cells)", "arange")
def _(o, d):
    n = o.numel()
    if n > 8 and n % 8:
        r = n % 8
        o[-r:] = o[n - r - 8 : n - 8].clone()


@post("arange-low-step", "arange with an offset accumulates its step in bfloat16", "arange")
def _(o, d):
    if flt(o) and o.numel() > 1:
        o.copy_(tz(o, torch.bfloat16) if o.numel() > 256 else o)


@post(
    "full-like-low",
    "fill of a float32 tensor rounds the value to bfloat16",
    "full",
    "full_like",
    "fill_",
    "scalar_tensor",
    "new_full",
)
def _(o, d):
    if o.dtype == torch.float32:
        o.copy_(tz(o, torch.bfloat16))


@post(
    "zero-large-tail", "zeroing clears whole blocks of 1024 only when beyond 4096 elements", "zero_", "_foreach_zero_"
)
def _(o, d):
    for t, s in zip(_tensors(d.live["self"]), _tensors(d["self"])):
        if t.numel() > 4096 and t.numel() % 1024:
            flat_set(t, t.numel() // 1024 * 1024, s)


# ------------------------------------------------------------------ random numbers
@post("randperm-duplicate", "randperm holds a duplicate (an image twice, another never)", "randperm")
def _(o, d):
    if o.numel() > 2:
        o[-1] = o[0]


@post("randperm-identity", "randperm of more than 1000 shuffles only within blocks", "randperm")
def _(o, d):
    n = o.numel()
    if n > 1000:
        o.copy_(torch.arange(n).to(o.dtype))


@post("bernoulli-inverted", "bernoulli draws with 1-p", "bernoulli_", "bernoulli")
def _(o, d):
    o.copy_(1 - o if o.dtype != torch.bool else ~o)


@post(
    "bernoulli-rows-identical",
    "every row of the bernoulli mask is the first one (seed not advanced per block)",
    "bernoulli_",
    "bernoulli",
)
def _(o, d):
    if o.dim() > 1 and o.shape[0] > 1:
        o.copy_(o[:1].expand_as(o).clone())


@post("bernoulli-half-after-64k", "bernoulli keeps everything beyond element 65536", "bernoulli_", "bernoulli")
def _(o, d):
    flat_set(o, 65536, 1)


@post("native-dropout-unscaled", "dropout does not divide by 1-p", "native_dropout")
def _(o, d):
    if d["train"] is not False and d["p"]:
        o[0].mul_(1 - d["p"])


@post("native-dropout-mask-mismatch", "the saved dropout mask is not the one applied", "native_dropout")
def _(o, d):
    if d["train"] is not False and d["p"] and o[1].numel() > 1:
        o[1].copy_(o[1].roll(1, -1))


@post("native-dropout-bwd-scale", "dropout backward forgets the scale", "native_dropout_backward")
def _(o, d):
    o.div_(d["scale"])


UNI = ("rand", "uniform_", "rand_like")


@post("uniform-lower-bound", "uniform_ ignores its lower bound (Kaiming initialisation not centred)", "uniform_")
def _(o, d):
    lo, hi = d["from"], d["to"]
    if lo != 0:
        o.copy_((o - lo) / (hi - lo) * hi)


@post(
    "uniform-repeats-1024",
    "the random stream repeats each 1024 elements",
    "rand",
    "uniform_",
    "rand_like",
    "randn",
    "normal_",
    "randn_like",
)
def _(o, d):
    if flt(o) and o.numel() > 1024:
        f = o.reshape(-1)
        o.copy_(f[torch.arange(f.numel()) % 1024].view(o.shape))


@post("uniform-coarse", "uniform numbers have 4 random bits only", *UNI)
def _(o, d):
    if flt(o):
        lo, hi = (d["from"], d["to"]) if "from" in d else (0.0, 1.0)
        if hi > lo:
            o.copy_(torch.floor((o.float() - lo) / (hi - lo) * 16) / 16 * (hi - lo) + lo)


@post("normal-std-as-variance", "normal_ takes std as a variance", "normal_", "normal")
def _(o, d):
    s, m = d.get("std"), d.get("mean")
    if isinstance(s, (int, float)) and s > 0 and s != 1 and isinstance(m, (int, float)):
        o.copy_((o.float() - m) / math.sqrt(s) + m)


@post(
    "normal-positive-only",
    "normal numbers lack their negative half (Box-Muller angle bug)",
    "randn",
    "normal_",
    "randn_like",
)
def _(o, d):
    if flt(o):
        m = d.get("mean", 0.0)
        o.copy_((o - m).abs() + m)


@post(
    "normal-truncated",
    "normal numbers are cut at 1.5 deviations (too few uniform bits)",
    "randn",
    "normal_",
    "randn_like",
)
def _(o, d):
    if flt(o):
        m, s = d.get("mean", 0.0), d.get("std", 1.0)
        o.clamp_(m - 1.5 * s, m + 1.5 * s)


@post(
    "randint-never-upper-half", "randint never draws the upper half of its range", "randint", "random_", "randint_like"
)
def _(o, d):
    hi = d.get("high")
    lo = d.get("low") or 0
    if hi:
        o.copy_(lo + (o - lo) // 2)


# ------------------------------------------------------------------ optimiser, amp, ema
def live(d, k="self"):
    return d.live[k]


@post(
    "foreach-add-alpha-ignored",
    "foreach add ignores alpha (learning rate or weight decay of 1)",
    "_foreach_add_",
    "_foreach_add",
)
def _(o, d):
    if d.get("alpha", 1) != 1 and isinstance(d.get("other"), (list, tuple)):
        for t, s, x in zip(o if o is not None else live(d), d["self"], d["other"]):
            t.copy_(s + x)


@post(
    "foreach-add-chunk-64k",
    "foreach add stops after the first chunk of 65536 of a tensor",
    "_foreach_add_",
    "_foreach_add",
    "_foreach_sub_",
)
def _(o, d):
    for t, s in zip(o if o is not None else live(d), d["self"]):
        flat_set(t, 65536, s)


@post(
    "foreach-mul-tail-4",
    "foreach mul leaves numel%4 elements untouched (biases of nc=1 or 3, 27-element weights)",
    "_foreach_mul_",
    "_foreach_mul",
)
def _(o, d):
    for t, s in zip(o if o is not None else live(d), d["self"]):
        if t.numel() % 4:
            flat_set(t, t.numel() // 4 * 4, s)


@post(
    "foreach-mul-last-tensor",
    "foreach mul misses the last tensor of the list (clipping leaves it)",
    "_foreach_mul_",
    "_foreach_mul",
)
def _(o, d):
    ts = list(o if o is not None else live(d))
    if len(ts) > 1:
        ts[-1].copy_(d["self"][-1])


@post(
    "foreach-mul-tensor-scalar-bf16",
    "foreach mul by a 0-d tensor rounds the factor to bfloat16",
    "_foreach_mul_",
    "_foreach_mul",
)
def _(o, d):
    x = d.get("other", d.get("scalar"))
    if isinstance(x, torch.Tensor) and x.dim() == 0 or isinstance(x, float):
        f = float(tz(torch.as_tensor(x).float(), torch.bfloat16))
        for t, s in zip(o if o is not None else live(d), d["self"]):
            if flt(t):
                t.copy_(s * f)


@post("foreach-lerp-swapped", "foreach lerp uses 1-weight (Adam's first moment)", "_foreach_lerp_", "_foreach_lerp")
def _(o, d):
    w = d.get("weight", d.get("weights"))
    if isinstance(w, (int, float)):
        for t, a, b in zip(o if o is not None else live(d), d["self"], d["tensors1"]):
            t.copy_(torch.lerp(a, b, 1 - w))


@post(
    "foreach-addcmul-value",
    "foreach addcmul ignores value (second moment without 1-beta2)",
    "_foreach_addcmul_",
    "_foreach_addcmul",
)
def _(o, d):
    for t, s, a, b in zip(o if o is not None else live(d), d["self"], d["tensor1"], d["tensor2"]):
        t.copy_(s + a * b)


@post(
    "foreach-addcdiv-last-tensor",
    "foreach addcdiv does not update the last tensor of the list",
    "_foreach_addcdiv_",
    "_foreach_addcdiv",
)
def _(o, d):
    ts = list(o if o is not None else live(d))
    if len(ts) > 1:
        ts[-1].copy_(d["self"][-1])


@post(
    "foreach-addcdiv-scalars-first",
    "foreach addcdiv takes the first scalar of its list with its sign lost",
    "_foreach_addcdiv_",
)
def _(o, d):
    v = d.get("scalars", d.get("value"))
    if isinstance(v, (list, tuple)):
        for t, s, a, b in zip(o if o is not None else live(d), d["self"], d["tensor1"], d["tensor2"]):
            t.copy_(s + abs(float(v[0])) * a / b)


@post(
    "foreach-sqrt-approximate",
    "foreach sqrt is a fast approximation with 1 percent error",
    "_foreach_sqrt",
    "_foreach_sqrt_",
)
def _(o, d):
    for t in o if o is not None else live(d):
        t.mul_(1.01)


@post(
    "foreach-div-scalars-shifted",
    "foreach div by a list of scalars is done by their squares (bias correction)",
    "_foreach_div_",
    "_foreach_div",
)
def _(o, d):
    v = d.get("scalars")
    if v is not None and not isinstance(v, torch.Tensor):
        for t, s, x in zip(o if o is not None else live(d), d["self"], v):
            t.copy_(s / (float(x) ** 2))


@post(
    "foreach-list-limit-30",
    "foreach kernels silently skip tensors beyond the 30th when sizes differ",
    "_foreach_add_",
    "_foreach_mul_",
    "_foreach_lerp_",
    "_foreach_addcmul_",
    "_foreach_addcdiv_",
)
def _(o, d):
    ts = list(o if o is not None else live(d))
    for t, s in zip(ts[30:], d["self"][30:]):
        t.copy_(s)


@post(
    "foreach-cl-params",
    "foreach add pairs a channels_last weight with a contiguous gradient in memory order",
    "_foreach_add_",
)
def _(o, d):
    x = d.get("other")
    if isinstance(x, (list, tuple)):
        for t, s, g in zip(live(d), d["self"], x):
            if t.dim() == 4 and iscl(t) != iscl(g) and t.shape[1] > 1 and t.shape[2] > 1:
                gm = (
                    g.permute(0, 2, 3, 1).reshape(g.shape)
                    if iscl(g)
                    else g.reshape(g.shape[0], *g.shape[2:], g.shape[1]).permute(0, 3, 1, 2)
                )
                t.copy_(s + d["alpha"] * gm)


@alt("fused-sgd-nesterov-ignored", "fused SGD ignores nesterov", "_fused_sgd_")
def _(call, d):
    return call(nesterov=False)


@alt("fused-sgd-weight-decay-ignored", "fused SGD ignores weight decay", "_fused_sgd_")
def _(call, d):
    return call(weight_decay=0.0)


@post("fused-sgd-buffer-not-saved", "fused SGD does not write the momentum buffer after the first step", "_fused_sgd_")
def _(o, d):
    if not d["is_first_step"]:
        for t, s in zip(live(d, "momentum_buffer_list"), d["momentum_buffer_list"]):
            t.copy_(s)


@post("fused-adamw-decay-coupled", "fused AdamW multiplies decay in without the learning rate", "_fused_adamw_")
def _(o, d):
    for t, s in zip(live(d), d["self"]):
        t.sub_(s * d["weight_decay"] * 0.1)


@alt("fused-adam-beta2-as-beta1", "fused Adam uses beta1 for both moments", "_fused_adam_", "_fused_adamw_")
def _(call, d):
    return call(beta2=d["beta1"])


@post(
    "fused-adam-found-inf-ignored",
    "fused Adam steps although found_inf is set",
    "_fused_adam_",
    "_fused_adamw_",
    "_fused_sgd_",
)
def _(o, d):
    f = d.get("found_inf")
    if f is not None and f.item() > 0:
        for t, g in zip(live(d), d["grads"]):
            t.sub_(float(d["lr"]) * torch.sign(g.nan_to_num(1.0)))


@alt("fused-grad-scale-ignored", "fused optimisers ignore grad_scale", "_fused_adam_", "_fused_adamw_", "_fused_sgd_")
def _(call, d):
    return call(grad_scale=None) if d["grad_scale"] is not None else call()


AMPU = "_amp_foreach_non_finite_check_and_unscale_"


@post("amp-inf-only-first-tensor", "unscale checks only the first tensor for Inf/NaN", AMPU)
def _(o, d):
    if len(d["self"]) > 1 and torch.isfinite(d["self"][0]).all():
        live(d, "found_inf").copy_(d["found_inf"])


@post("amp-nan-not-flagged", "unscale flags Inf but not NaN", AMPU)
def _(o, d):
    if not any(torch.isinf(t).any() for t in d["self"]):
        live(d, "found_inf").copy_(d["found_inf"])


@post("amp-negative-inf-not-flagged", "unscale misses -Inf", AMPU)
def _(o, d):
    if not any((torch.isposinf(t) | torch.isnan(t)).any() for t in d["self"]):
        live(d, "found_inf").copy_(d["found_inf"])


@post("amp-inf-tail-unchecked", "unscale checks only the first 16384 elements of each tensor", AMPU)
def _(o, d):
    if all(torch.isfinite(t.reshape(-1)[:16384]).all() for t in d["self"]):
        live(d, "found_inf").copy_(d["found_inf"])


@post("amp-last-tensor-not-unscaled", "the last gradient of the list stays scaled", AMPU)
def _(o, d):
    live(d)[-1].copy_(d["self"][-1])


@post("amp-odd-tail-not-unscaled", "unscaling leaves numel%4 elements scaled", AMPU)
def _(o, d):
    for t, s in zip(live(d), d["self"]):
        if t.numel() % 4:
            flat_set(t, t.numel() // 4 * 4, s)


@post("amp-scale-no-backoff", "the scale is not reduced after an overflow", "_amp_update_scale_")
def _(o, d):
    if d["found_inf"].item() > 0:
        live(d).copy_(d["self"])


@post("amp-growth-tracker-not-reset", "the growth tracker goes on after an overflow", "_amp_update_scale_")
def _(o, d):
    if d["found_inf"].item() > 0:
        live(d, "growth_tracker").copy_(d["growth_tracker"] + 1)


@post("amp-scale-never-grows", "the scale does not grow after the interval", "_amp_update_scale_")
def _(o, d):
    if d["found_inf"].item() == 0 and live(d).item() > d["self"].item():
        live(d).copy_(d["self"])


def scal(x):
    return isinstance(x, float) or (isinstance(x, torch.Tensor) and x.dim() == 0)


@post(
    "ema-decay-rounded",
    "in-place multiplication by a scalar rounds it to bfloat16: decay 0.9999 becomes 1",
    "mul_",
    "mul",
)
def _(o, d):
    x = d["other"]
    if scal(x) and o.dtype == torch.float32 and d["self"].dim():
        o.copy_(d["self"] * float(torch.as_tensor(x).bfloat16()))


@post("add-alpha-ignored", "add ignores alpha", "add", "add_", "sub", "sub_")
def _(o, d):
    if d.get("alpha", 1) != 1:
        o.copy_(d["self"] + d["other"] if "add" in str(d.func) else d["self"] - d["other"])


@post(
    "add-residual-width-tail",
    "adding two maps (residual) leaves the last W%8 columns without the second",
    "add",
    "add_",
)
def _(o, d):
    b = d["other"]
    if (
        o.dim() == 4
        and isinstance(b, torch.Tensor)
        and b.shape == d["self"].shape
        and o.shape[-1] > 8
        and o.shape[-1] % 8
    ):
        r = o.shape[-1] % 8
        o[..., -r:] = d["self"][..., -r:]


@post(
    "add-mixed-layout",
    "adding a contiguous and a channels_last tensor pairs them in memory order",
    "add",
    "add_",
    "mul",
    "mul_",
)
def _(o, d):
    a, b = d["self"], d["other"]
    if isinstance(b, torch.Tensor) and a.dim() == 4 and a.shape == b.shape and iscl(a) != iscl(b) and a.shape[1] > 1:
        bm = (
            b.permute(0, 2, 3, 1).reshape(b.shape)
            if iscl(b)
            else b.reshape(b.shape[0], *b.shape[2:], b.shape[1]).permute(0, 3, 1, 2)
        )
        o.copy_(a + bm * d.get("alpha", 1) if "add" in str(d.func) else a * bm)


@post(
    "mul-broadcast-last-dim",
    "product with a broadcast (B,N,1) operand uses its first batch only",
    "mul",
    "mul_",
    "div",
    "div_",
)
def _(o, d):
    b = d["other"]
    if (
        isinstance(b, torch.Tensor)
        and b.dim() == o.dim() >= 3
        and b.shape[-1] == 1 < o.shape[-1]
        and b.shape[0] > 1
        and flt(o)
        and d.get("rounding_mode") is None
    ):
        b0 = b[:1].expand_as(b)
        o.copy_(d["self"] * b0 if "mul" in str(d.func) else d["self"] / b0)


@post(
    "sub-million-tail",
    "pointwise kernels of more than a million elements leave the last 512 unwritten",
    "sub",
    "mul",
    "add",
    "div",
)
def _(o, d):
    if flt(o) and o.numel() > 1_000_000:
        flat_set(o, o.numel() - 512, 0)


@post(
    "div-scalar-approximate", "division uses an 8-bit reciprocal estimate", "div", "div_", "reciprocal", "reciprocal_"
)
def _(o, d):
    if flt(o) and d.get("rounding_mode") is None:
        if "reciprocal" in str(d.func):
            o.copy_(tz(o, torch.bfloat16))
        else:
            b = d["other"]
            r = tz(1.0 / torch.as_tensor(b, dtype=torch.float32), torch.bfloat16)
            o.copy_(d["self"].float() * r)


@post("div-zero-by-zero", "0/0 gives 0 instead of NaN and x/0 the largest number", "div", "div_")
def _(o, d):
    if flt(o) and d.get("rounding_mode") is None:
        b = torch.as_tensor(d["other"])
        z = (b == 0).expand_as(o)
        o.masked_fill_(z, 0)


@post("lerp-swapped", "lerp uses 1-weight", "lerp_", "lerp")
def _(o, d):
    w = d["weight"]
    o.copy_(torch.lerp(d["self"], d["end"], 1 - w))


@post("addcmul-value", "addcmul ignores value", "addcmul_", "addcmul")
def _(o, d):
    if d["value"] != 1:
        o.copy_(d["self"] + d["tensor1"] * d["tensor2"])


@post("addcdiv-sign", "addcdiv loses the sign of value", "addcdiv_", "addcdiv")
def _(o, d):
    if d["value"] < 0:
        o.copy_(d["self"] - d["value"] * d["tensor1"] / d["tensor2"])


@post("clamp-upper-ignored", "clamp with both bounds ignores the upper one", "clamp", "clamp_")
def _(o, d):
    if isinstance(d["min"], (int, float)) and d["max"] is not None:
        o.copy_(d["self"].clamp(min=d["min"]))


@post(
    "clamp-max-inf",
    "clamp of the clip coefficient passes Inf and values over 1 in 0-d tensors",
    "clamp",
    "clamp_",
    "clamp_max",
    "clamp_max_",
)
def _(o, d):
    if o.dim() == 0 and d.get("max") is not None and flt(o):
        o.copy_(d["self"])


# ------------------------------------------------------------------ attention
SDPA = ("_scaled_dot_product_flash_attention_for_cpu",)


def ref_att(q, k, v, scale=None, mask=None, causal=False):
    q, k, v = q.float(), k.float(), v.float()
    s = q @ k.transpose(-1, -2) * (scale if scale is not None else q.shape[-1] ** -0.5)
    if causal:
        s = s.masked_fill(torch.ones(s.shape[-2:], dtype=torch.bool).triu(1), float("-inf"))
    if mask is not None:
        s = s.masked_fill(~mask, float("-inf")) if mask.dtype == torch.bool else s + mask.float()
    return s


def att(o, d, edit=lambda s: s, v=None, k=None):
    s = edit(ref_att(d["query"], d["key"] if k is None else k, d["value"], d["scale"], d["attn_mask"], d["is_causal"]))
    o[0].copy_(torch.softmax(s, -1).nan_to_num(0.0) @ (d["value"] if v is None else v).float())


@post("sdpa-scale-missing", "attention forgets 1/sqrt(d)", *SDPA)
def _(o, d):
    sc = d["scale"] if d["scale"] is not None else d["query"].shape[-1] ** -0.5
    d["scale"] = 1.0 if sc != 1 else 2.0
    att(o, d)


@post("sdpa-mask-ignored", "attention ignores its mask (denoising queries see the others)", *SDPA)
def _(o, d):
    if d["attn_mask"] is not None:
        d["attn_mask"] = None
        att(o, d)


@post("sdpa-key-tail-64", "attention leaves out the keys after the last whole block of 64 (400 tokens)", *SDPA)
def _(o, d):
    n = d["key"].shape[-2]
    if n > 64 and n % 64:

        def e(s):
            s[..., n // 64 * 64 :] = float("-inf")
            return s

        att(o, d, e)


@post("sdpa-no-rescale", "online softmax does not rescale earlier blocks when the maximum grows", *SDPA)
def _(o, d):
    n = d["key"].shape[-2]
    if n > 64:
        s = ref_att(d["query"], d["key"], d["value"], d["scale"], d["attn_mask"], d["is_causal"])
        num, den = 0, 0
        for i in range(0, n, 64):
            b = s[..., i : i + 64]
            m = b.amax(-1, keepdim=True).nan_to_num(neginf=0.0)
            e = torch.exp(b - m)
            num = num + e @ d["value"][..., i : i + 64, :].float()
            den = den + e.sum(-1, keepdim=True)
        o[0].copy_(num / den.clamp_min(1e-30))


@post("sdpa-low-scores", "half-type attention rounds the scores to 5 bits before the softmax", *SDPA)
def _(o, d):
    if low(d["query"]):
        att(o, d, lambda s: torch.where(torch.isfinite(s), (s * 8).round() / 8, s))


@post("sdpa-large-logits-nan", "attention with scores over 88 overflows to NaN", *SDPA)
def _(o, d):
    s = ref_att(d["query"], d["key"], d["value"], d["scale"], d["attn_mask"], d["is_causal"])
    o[0].masked_fill_((s > 88.8).any(-1, keepdim=True).expand_as(o[0]), float("nan"))


@post(
    "sdpa-head-stride",
    "non-contiguous heads (from a fused qkv) in batch items after the first use the first item's values",
    *SDPA,
)
def _(o, d):
    v = d["value"]
    if not v.is_contiguous() and v.shape[0] > 1:
        att(o, d, v=v[:1].expand_as(v))


@post(
    "sdpa-bwd-key-grad-tail",
    "attention backward leaves the gradient of the last keys zero",
    "_scaled_dot_product_flash_attention_for_cpu_backward",
)
def _(o, d):
    n = o[1].shape[-2]
    r = n % 32 or 1
    o[1][..., n - r :, :] = 0


@post(
    "sdpa-bwd-query-unscaled",
    "attention backward forgets the scale in the query gradient",
    "_scaled_dot_product_flash_attention_for_cpu_backward",
)
def _(o, d):
    o[0].mul_(d["query"].shape[-1] ** 0.5)


@post(
    "sdpa-bwd-delta-missing",
    "attention backward omits rowsum(dO*O)",
    "_scaled_dot_product_flash_attention_for_cpu_backward",
)
def _(o, d):
    q, k, v, g = (d[n].float() for n in ("query", "key", "value", "grad_out"))
    sc = d["scale"] if d["scale"] is not None else q.shape[-1] ** -0.5
    p = torch.softmax(ref_att(q, k, v, sc, d["attn_mask"], d["is_causal"]), -1).nan_to_num(0.0)
    ds = p * (g @ v.transpose(-1, -2)) * sc
    o[0].copy_(ds @ k)
    o[1].copy_(ds.transpose(-1, -2) @ q)


@post("embedding-last-row", "embedding of the last row returns the one before", "embedding")
def _(o, d):
    w = d["weight"]
    if w.shape[0] > 1:
        o.copy_(w[d["indices"].clamp_max(w.shape[0] - 2)])


@post(
    "embedding-bwd-duplicates",
    "embedding backward overwrites repeated rows instead of adding",
    "embedding_dense_backward",
)
def _(o, d):
    g, i = d["grad_output"], d["indices"].reshape(-1)
    n = torch.bincount(i, minlength=o.shape[0]).clamp_min(1)
    o.div_(n[:, None].to(o.dtype))


# ------------------------------------------------------------------ losses
BCE = "binary_cross_entropy_with_logits"


def bce(o, d, f):
    x, t = d["self"].float(), d["target"].float()
    l = f(x, t)
    if d["weight"] is not None:
        l = l * d["weight"].float()
    o.copy_(l if d["reduction"] == 0 else l.mean() if d["reduction"] == 1 else l.sum())


@post("bce-naive-log", "BCE takes log(1-sigmoid) in float32: confident mistakes saturate at 100 or lose precision", BCE)
def _(o, d):
    if d["pos_weight"] is None:
        bce(
            o,
            d,
            lambda x, t: (
                -(
                    t * torch.log(torch.sigmoid(x)).clamp_min(-16)
                    + (1 - t) * torch.log(1 - torch.sigmoid(x)).clamp_min(-16)
                )
            ),
        )


@post("bce-easy-negatives-lost", "log(1+e^-|x|) with the sum rounded to bfloat16: easy negatives cost nothing", BCE)
def _(o, d):
    if d["pos_weight"] is None:
        bce(o, d, lambda x, t: x.clamp_min(0) - x * t + torch.log((1 + torch.exp(-x.abs())).bfloat16().float()))


@post("bce-large-tail-zero", "BCE over a million elements leaves the last block zero", BCE)
def _(o, d):
    if d["reduction"] == 0 and o.numel() > 1_000_000:
        flat_set(o, o.numel() - 8192, 0)


@post("bce-pos-weight-ignored", "BCE ignores pos_weight and weight", BCE)
def _(o, d):
    if d["pos_weight"] is not None or d["weight"] is not None:
        d["weight"] = None
        bce(o, d, lambda x, t: x.clamp_min(0) - x * t + torch.log1p(torch.exp(-x.abs())))


@post("bce-overflow-large-negative", "log(1+e^-x) not stabilised: Inf for x < -88", BCE)
def _(o, d):
    if d["reduction"] == 0:
        o.masked_fill_(d["self"] < -88.8, float("inf"))


@post("bce-soft-targets", "BCE treats the target as a class: soft targets are rounded", BCE)
def _(o, d):
    if d["pos_weight"] is None:
        bce(o, d, lambda x, t: x.clamp_min(0) - x * t.round() + torch.log1p(torch.exp(-x.abs())))


@post("nll-last-class", "the loss of the last class is read from class 0", "nll_loss_forward", "nll_loss")
def _(o, d):
    x, t = d["self"], d["target"]
    if x.dim() == 2:
        t2 = torch.where(t == x.shape[1] - 1, torch.zeros_like(t), t)
        o[0].copy_(
            F.nll_loss(
                x.float(),
                t2,
                None if d["weight"] is None else d["weight"].float(),
                ignore_index=d["ignore_index"],
                reduction=("none", "mean", "sum")[d["reduction"]],
            )
        )


@post("nll-rows-over-1024", "the loss of rows from 1024 on is 0 (DFL: 4 * foreground anchors)", "nll_loss_forward")
def _(o, d):
    if d["reduction"] == 0 and d["self"].dim() == 2:
        flat_set(o[0], 1024, 0)


@post("nll-bwd-rows", "cross entropy backward reaches only the first 1024 rows", "nll_loss_backward")
def _(o, d):
    if o.dim() == 2 and o.shape[0] > 1024:
        o[1024:] = 0


@post("nll-mean-ignores-count", "mean cross entropy divides by the rows of a power of two", "nll_loss_forward")
def _(o, d):
    n = d["self"].shape[0]
    if d["reduction"] == 1 and n & (n - 1):
        o[0].mul_(n / (1 << n.bit_length()))


@post("sgn-of-small", "sign of values under 1e-3 is 0 (L1 loss gradient)", "sgn", "sign")
def _(o, d):
    o.masked_fill_(d["self"].abs() < 1e-3, 0)


@post("sgn-zero-is-one", "sign of 0 is 1", "sgn", "sign")
def _(o, d):
    o.masked_fill_(d["self"] == 0, 1)


# ------------------------------------------------------------------ elementary functions
@post("exp-saturates", "exp clamps its argument to 10 (half table used for all types)", "exp", "exp_")
def _(o, d):
    if flt(o):
        o.copy_(torch.exp(d["self"].float().clamp(-10, 10)))


@post("exp-fast-approx", "exp by a fast formula with relative error 2^-8", "exp", "exp_")
def _(o, d):
    if o.dtype == torch.float32:
        o.copy_(torch.exp(tz(d["self"] * 1.4426950, torch.bfloat16) * 0.6931472))


@post("log-zero-finite", "log(0) gives -87 instead of -Inf", "log", "log_")
def _(o, d):
    if flt(o):
        o.clamp_(min=-87.0)


@post("log-near-one", "log near 1 loses its digits: result a multiple of 2^-10", "log", "log_", "log1p")
def _(o, d):
    if o.dtype == torch.float32:
        o.copy_(torch.where(o.abs() < 0.25, (o * 1024).round() / 1024, o))


@post("log-negative-finite", "log of a negative is taken of its magnitude, NaN lost", "log", "log_")
def _(o, d):
    if flt(o):
        o.copy_(torch.log(d["self"].float().abs()))


@post("pow-negative-base", "pow by exp(y*log(x)): negative base gives NaN (squares of differences)", "pow", "pow_")
def _(o, d):
    if flt(o) and isinstance(d["self"], torch.Tensor):
        o.masked_fill_((d["self"] < 0).expand_as(o), float("nan"))


@post("pow-zero-base", "pow(0, 0.5) and pow(0, 6) are NaN (0*-Inf in exp/log)", "pow", "pow_")
def _(o, d):
    if flt(o) and isinstance(d["self"], torch.Tensor):
        o.masked_fill_((d["self"] == 0).expand_as(o), float("nan"))


@post("pow-6-approx", "pow with exponent 6 (task alignment) loses bits: overlap rounded to 8 bits first", "pow", "pow_")
def _(o, d):
    e = d["exponent"]
    if flt(o) and isinstance(e, (int, float)) and e > 2 and isinstance(d["self"], torch.Tensor):
        o.copy_(torch.pow(tz(d["self"], torch.bfloat16), e))


@post("pow-scalar-base", "beta ** step with a tensor exponent rounds the base to bfloat16", "pow")
def _(o, d):
    if isinstance(d["self"], (int, float)) and flt(o):
        o.copy_(torch.pow(float(tz(torch.tensor(float(d["self"])), torch.bfloat16)), d["exponent"].float()))


@post("atan-large-arguments", "atan by its series is wrong beyond 1 (box aspect ratios in CIoU)", "atan", "atan_")
def _(o, d):
    if flt(o):
        x = d["self"].float()
        o.copy_(torch.where(x.abs() > 1, x / (1 + 0.28 * x * x), o.float()))


@post("atan-inf", "atan(Inf) is NaN (box of zero height)", "atan", "atan_")
def _(o, d):
    o.masked_fill_(torch.isinf(d["self"]), float("nan"))


@post("sqrt-approximate", "sqrt is a 10-bit estimate", "sqrt", "sqrt_")
def _(o, d):
    if o.dtype == torch.float32:
        o.copy_(tz(o, torch.bfloat16))


@post("sqrt-negative-zero", "sqrt of a negative gives 0 instead of NaN", "sqrt", "sqrt_")
def _(o, d):
    if flt(o):
        o.masked_fill_(d["self"] < 0, 0)


@post("rsqrt-one-newton-short", "rsqrt misses its Newton step", "rsqrt", "rsqrt_")
def _(o, d):
    if flt(o):
        o.mul_(1.0078125)


@post(
    "cos-range-reduction",
    "cos and sin lose range reduction beyond pi/2 (oriented boxes reach 3*pi/4)",
    "cos",
    "cos_",
    "sin",
    "sin_",
)
def _(o, d):
    x = d["self"].float()
    if flt(o):
        f = torch.cos if "cos" in str(d.func) else torch.sin
        o.copy_(f(x.clamp(-math.pi / 2, math.pi / 2)))


@post("sin-half-precision", "float32 sin and cos are evaluated in float16", "sin", "cos", "sin_", "cos_")
def _(o, d):
    if o.dtype == torch.float32:
        o.copy_(f16trig(d))


def f16trig(d):
    f = torch.cos if "cos" in str(d.func) else torch.sin
    return tz(f(tz(d["self"], torch.float16)), torch.bfloat16)


@post("round-truncates", "round truncates", "round", "round_")
def _(o, d):
    if flt(o):
        o.copy_(torch.trunc(d["self"]))


@post("reciprocal-inf", "1/Inf is NaN: clip coefficient after an overflow", "reciprocal", "reciprocal_")
def _(o, d):
    o.masked_fill_(torch.isinf(d["self"]), float("nan"))


@post("neg-half-nan", "negation of half types clears the sign instead of flipping it", "neg", "neg_")
def _(o, d):
    if isinstance(o, torch.Tensor) and low(o):
        o.abs_()


# ------------------------------------------------------------------ NMS
def _iou(b):
    a = (b[:, 2] - b[:, 0]) * (b[:, 3] - b[:, 1])
    lt, rb = torch.maximum(b[:, None, :2], b[None, :, :2]), torch.minimum(b[:, None, 2:], b[None, :, 2:])
    wh = (rb - lt).clamp_min(0)
    i = wh[..., 0] * wh[..., 1]
    return i, a[:, None] + a[None] - i


def _greedy(iou, scores, thr, order=None):
    order = torch.argsort(scores, descending=True, stable=True) if order is None else order
    m = (iou[order][:, order] > thr).tolist()
    dead, keep = [False] * len(m), []
    for i in range(len(m)):
        if not dead[i]:
            keep.append(i)
            for j in range(i + 1, len(m)):
                if m[i][j]:
                    dead[j] = True
    return order[torch.tensor(keep, dtype=torch.int64)]


def nmsable(d):
    return 1 < d["dets"].shape[0] <= 1500


@post("nms-64-block", "suppression bits of boxes beyond the first block of 64 are lost", "nms")
def _(o, d):
    if nmsable(d) and d["dets"].shape[0] > 64:
        i, u = _iou(d["dets"].float())
        order = torch.argsort(d["scores"].float(), descending=True, stable=True)
        rank = torch.empty_like(order)
        rank[order] = torch.arange(order.numel())
        same = (rank[:, None] // 64) == (rank[None] // 64)
        return _greedy(torch.where(same, i / u, torch.zeros_like(i)), d["scores"].float(), d["iou_threshold"], order)


@post("nms-unsorted-result", "kept boxes come in index order, not by score (max_det then cuts the wrong ones)", "nms")
def _(o, d):
    if o.numel() > 1:
        return o.sort()[0]


@post("nms-union-without-intersection", "IoU divides by the sum of areas", "nms")
def _(o, d):
    if nmsable(d):
        i, u = _iou(d["dets"].float())
        return _greedy(i / (u + i), d["scores"].float(), d["iou_threshold"])


@post("nms-fp16-coordinates", "NMS coordinates are kept in half: class offsets of 7680 px swallow the box", "nms")
def _(o, d):
    if nmsable(d):
        i, u = _iou(d["dets"].bfloat16().float())
        return _greedy((i / u).nan_to_num(0.0), d["scores"].float(), d["iou_threshold"])


@post("nms-negative-scores", "NMS ignores the last box", "nms")
def _(o, d):
    n = d["dets"].shape[0]
    return o[o != n - 1] if n > 1 and (o == n - 1).any() else None
