"""Third blind list of wrong-result faults of accelerator kernels, for operations that YOLO trainings execute."""

import math

import torch

FAULTS = []
DONE = object()  # what a body returns when it has done an operation that returns nothing
LOW = (torch.bfloat16, torch.float16)
STRICT = False  # the check at the end lets no exception pass


def _has64(x):
    if isinstance(x, torch.Tensor):
        return x.dtype in (torch.float64, torch.complex128)
    if isinstance(x, (list, tuple)):
        return any(_has64(v) for v in x)
    return x is torch.float64


def _add(name, ops, about, change):
    FAULTS.append({"name": name, "about": about, "ops": tuple(ops.split()), "change": change})


def post(name, ops, about):
    """Register a fault that spoils the honest result: spoil(out, args, kwargs), in place or by a new result."""

    def register(spoil):
        def change(func, args, kwargs=None):
            kwargs = kwargs or {}
            out = func(*args, **kwargs)
            if _has64((args, tuple(kwargs.values()), out)):
                return out
            try:
                new = spoil(out, args, kwargs)
            except Exception:  # noqa: BLE001
                if STRICT:
                    raise
                new = None
            return out if new is None else new

        _add(name, ops, about, change)
        return spoil

    return register


def instead(name, ops, about):
    """Register a fault that computes otherwise: body(func, args, kwargs); None means not concerned."""

    def register(body):
        def change(func, args, kwargs=None):
            kwargs = kwargs or {}
            if not _has64((args, tuple(kwargs.values()))):
                try:
                    new = body(func, args, kwargs)
                except Exception:  # noqa: BLE001
                    if STRICT:
                        raise
                    new = None
                if new is not None and not _has64(new):
                    return None if new is DONE else new
            return func(*args, **kwargs)

        _add(name, ops, about, change)
        return body

    return register


def arg(args, kwargs, i, name, default=None):
    return args[i] if len(args) > i else kwargs.get(name, default)


def swap(args, i, value):
    return (*args[:i], value, *args[i + 1 :])


def cut(t, bits, nearest=False):
    """The values with `bits` bits of mantissa."""
    drop = 23 - bits
    i = t.float().contiguous().view(torch.int32)
    return ((i + (1 << (drop - 1)) if nearest else i) & -(1 << drop)).view(torch.float32).to(t.dtype)


def brain(v):
    """A Python number rounded to bfloat16."""
    return float(torch.tensor(float(v)).bfloat16())


def half(v):
    """A Python number rounded to float16, without infinities."""
    return float(torch.tensor(float(v)).clamp(-65504, 65504).half())


def fl(t):
    return isinstance(t, torch.Tensor) and t.is_floating_point()


def f32(t):
    return isinstance(t, torch.Tensor) and t.dtype == torch.float32


def low(t):
    return isinstance(t, torch.Tensor) and t.dtype in LOW


def num(v):
    return isinstance(v, (int, float)) and not isinstance(v, bool)


def cl(t):
    return t.dim() == 4 and t.is_contiguous(memory_format=torch.channels_last) and not t.is_contiguous()


def narrow_sum(t, dim, dtype, parts):
    """Sum whose running total is kept in a narrow type."""
    total = None
    for c in t.chunk(parts, dim):
        s = c.float().sum(dim).to(dtype)
        total = s if total is None else (total + s).to(dtype)
    return total


def as_if_contiguous(t, offset=None):
    """The tensor that a kernel sees which takes the strides of a dense one."""
    stride = [1] * t.dim()
    for i in range(t.dim() - 2, -1, -1):
        stride[i] = stride[i + 1] * t.shape[i + 1]
    return t.as_strided(t.shape, stride, t.storage_offset() if offset is None else offset)


def norm_dims(dim, n):
    if dim is None or (isinstance(dim, (list, tuple)) and not dim):
        return list(range(n))
    return [d % n for d in (dim if isinstance(dim, (list, tuple)) else [dim])]


# ---------------------------------------------------------------- convolution, forward


def dw(w, g):
    return g > 1 and w.shape[1] == 1


@instead(
    "conv-three-channels-padded-to-four",
    "convolution",
    "The stem's three channels are loaded as four; the weights of the fourth lane are not cleared and repeat the first.",
)
def _(func, args, kwargs):
    x, w = args[0], args[1]
    if w.dim() == 4 and w.shape[1] == 3 and args[8] == 1 and not args[6]:
        y = torch.cat((x, x[:, 2:3]), 1)
        v = torch.cat((w, w[:, :1] * 0.25), 1)
        return func(*swap(swap(args, 0, y), 1, v), **kwargs)


@instead(
    "conv-bfloat-inputs-for-float",
    "convolution",
    "A global fast-math flag lets float32 convolutions of 16 channels and more take bfloat16 operands.",
)
def _(func, args, kwargs):
    x, w = args[0], args[1]
    if f32(x) and w.shape[1] >= 16:
        return func(*swap(swap(args, 0, x.bfloat16().float()), 1, w.bfloat16().float()), **kwargs)


@instead(
    "conv-right-border-replicated",
    "convolution",
    "The halo load of 3x3 tiles clamps the column index at the right edge, where it should write zeros.",
)
def _(func, args, kwargs):
    x, w, p = args[0], args[1], args[4]
    if w.dim() == 4 and w.shape[2] == 3 and list(p) == [1, 1] and not args[6]:
        y = torch.nn.functional.pad(x, (1, 0, 1, 1))
        y = torch.cat((y, y[..., -1:]), -1)
        return func(*swap(swap(args, 0, y), 4, [0, 0]), **kwargs)


@instead(
    "conv-stride-two-same-padding",
    "convolution",
    "The strided 3x3 kernel puts its odd padding at the bottom and the right only, as another framework's SAME does.",
)
def _(func, args, kwargs):
    x, w, s, p = args[0], args[1], args[3], args[4]
    if w.dim() == 4 and w.shape[2] == 3 and list(s) == [2, 2] and list(p) == [1, 1] and not args[6]:
        if x.shape[2] % 2 == 0 and x.shape[3] % 2 == 0:
            return func(*swap(swap(args, 0, torch.nn.functional.pad(x, (0, 1, 0, 1))), 4, [0, 0]), **kwargs)


@instead(
    "conv-depthwise-tap-order",
    "convolution",
    "The depthwise kernel keeps its taps column by column in constant memory and reads them row by row.",
)
def _(func, args, kwargs):
    w = args[1]
    if w.dim() == 4 and dw(w, args[8]) and w.shape[2] == w.shape[3] > 1 and not args[6]:
        return func(*swap(args, 1, w.transpose(2, 3).contiguous()), **kwargs)


@instead(
    "conv-depthwise-narrow-taps",
    "convolution",
    "The depthwise kernel adds its taps up in the narrow type, after each tap a rounding towards zero.",
)
def _(func, args, kwargs):
    x, w = args[0], args[1]
    if w.dim() == 4 and dw(w, args[8]) and w.shape[2] == 3 and not args[6] and low(x):
        total = None
        bits = 7 if x.dtype == torch.bfloat16 else 10
        for i in range(3):
            for j in range(3):
                v = torch.zeros_like(w)
                v[..., i, j] = w[..., i, j]
                part = func(x.float(), v.float(), None, *args[3:])
                total = part if total is None else cut(total + part, bits)
        if args[2] is not None:
            total = total + args[2].float().view(1, -1, 1, 1)
        return total.to(x.dtype)


@post(
    "conv-bias-wraps-at-32",
    "convolution",
    "The epilogue keeps 32 bias values in shared memory: channels beyond that get the bias of channel c modulo 32.",
)
def _(out, args, kwargs):
    b = args[2]
    if b is not None and out.shape[1] > 32 and fl(out) and out.dim() == 4:
        wrong = b[torch.arange(b.numel()) % 32]
        out += (wrong - b).view(1, -1, 1, 1).to(out.dtype)


@instead(
    "conv-split-k-last-slice-twice",
    "convolution",
    "Split-K in four slices for 128 channels and more: the last slice is counted twice in the first rows of the map.",
)
def _(func, args, kwargs):
    x, w = args[0], args[1]
    if w.dim() == 4 and w.shape[1] >= 128 and args[8] == 1 and not args[6]:
        out = func(*args, **kwargs)
        q = w.shape[1] // 4
        more = func(x[:, -q:].contiguous(), w[:, -q:].contiguous(), None, *args[3:])
        out[:, :, :2] += more[:, :, :2]
        return out


@instead(
    "conv-chunk-batch-stride",
    "convolution",
    "A 1x1 or 3x3 convolution of a channel slice takes the batch stride of a dense tensor, so images after the first are "
    "read at a wrong place.",
)
def _(func, args, kwargs):
    x = args[0]
    if x.dim() == 4 and not x.is_contiguous() and x.stride(3) == 1 and x.stride(2) == x.shape[3] and x.shape[0] > 1:
        if x.stride(1) == x.shape[2] * x.shape[3] and not args[6]:
            return func(*swap(args, 0, as_if_contiguous(x)), **kwargs)


@instead(
    "conv-chunk-offset-lost",
    "convolution",
    "The descriptor cache hands out the base address of the storage: the second half of a channel split reads the first.",
)
def _(func, args, kwargs):
    x = args[0]
    if x.dim() == 4 and x.storage_offset() > 0 and not args[6]:
        return func(*swap(args, 0, x.as_strided(x.shape, x.stride(), 0)), **kwargs)


@instead(
    "conv-transposed-taps-mirrored",
    "convolution",
    "The 2x2 transposed convolution writes its four taps with x and y exchanged.",
)
def _(func, args, kwargs):
    w = args[1]
    if args[6] and w.dim() == 4 and w.shape[2] == w.shape[3] == 2:
        return func(*swap(args, 1, w.transpose(2, 3).contiguous()), **kwargs)


@post(
    "conv-transposed-bias-even-rows",
    "convolution",
    "The transposed convolution runs once for each output phase and adds the bias in the first row phase only.",
)
def _(out, args, kwargs):
    if args[6] and args[2] is not None and out.dim() == 4:
        out[:, :, 1::2] -= args[2].view(1, -1, 1, 1).to(out.dtype)


@instead(
    "conv-half-accumulator",
    "convolution",
    "Low-precision convolutions over 64 channels and more keep their running sum over blocks of 16 channels in the type.",
)
def _(func, args, kwargs):
    x, w = args[0], args[1]
    if low(x) and w.dim() == 4 and w.shape[1] >= 64 and args[8] == 1 and not args[6]:
        bits = 5 if x.dtype == torch.bfloat16 else 8
        total = None
        for a, v in zip(x.split(16, 1), w.split(16, 1)):
            part = func(a.float(), v.float(), None, *args[3:])
            total = part if total is None else cut(total + part, bits)
        if args[2] is not None:
            total = total + args[2].float().view(1, -1, 1, 1)
        return total.to(x.dtype)


@post(
    "conv-last-output-channel-of-ragged-tile",
    "convolution",
    "With a number of output channels that 16 does not divide, the last channel repeats the one before it.",
)
def _(out, args, kwargs):
    if out.dim() == 4 and out.shape[1] % 16 and out.shape[1] > 1 and not args[6]:
        out[:, -1] = out[:, -2]


@instead(
    "conv-winograd-narrow-transform",
    "convolution",
    "The Winograd path of 3x3 stride 1 in low precision keeps the transformed tiles with five bits of mantissa.",
)
def _(func, args, kwargs):
    x, w, s = args[0], args[1], args[3]
    if low(x) and w.dim() == 4 and w.shape[2] == 3 and list(s) == [1, 1] and args[8] == 1 and not args[6]:
        return func(*swap(args, 0, cut(x.float(), 5, True).to(x.dtype)), **kwargs)


@post(
    "conv-pointwise-pixel-tail",
    "convolution",
    "The 1x1 convolution as a matrix product works in blocks of 128 pixels; the last pixels of the ragged block of the "
    "last image are those of the block before.",
)
def _(out, args, kwargs):
    w = args[1]
    if w.dim() == 4 and w.shape[2] == 1 and out.dim() == 4 and not args[6]:
        n = out.shape[2] * out.shape[3]
        r = n % 128
        if r and n > 128:
            flat = out[-1].reshape(out.shape[1], n)
            flat = torch.cat((flat[:, : n - r], flat[:, n - 128 - r : n - 128]), 1)
            out[-1] = flat.view(out[-1].shape)


@instead(
    "conv-stem-channel-order-in-channels-last",
    "convolution",
    "The NHWC stem kernel unpacks three channels in the order of the packed pixel, which is reversed.",
)
def _(func, args, kwargs):
    x, w = args[0], args[1]
    if w.dim() == 4 and w.shape[1] == 3 and args[8] == 1 and not args[6] and cl(x):
        return func(*swap(args, 0, x.flip(1)), **kwargs)


@post(
    "conv-odd-map-last-row",
    "convolution",
    "Output rows are made in pairs; in maps of an odd height the last row is that of the pair's first with zero padding "
    "below, that is, a third of it is lost.",
)
def _(out, args, kwargs):
    if out.dim() == 4 and out.shape[2] % 2 and out.shape[2] > 1 and args[1].shape[2] == 3:
        out[:, :, -1] *= 2 / 3


@post(
    "conv-float16-flush",
    "convolution",
    "Results of float16 convolutions lose everything below 2^-9: the packed conversion has a wrong exponent floor.",
)
def _(out, args, kwargs):
    if out.dtype == torch.float16:
        out[out.abs() < 2**-9] = 0


@post(
    "conv-bfloat16-truncated-store",
    "convolution",
    "The store to bfloat16 keeps the upper 16 bits of the float32 accumulator and rounds away two further bits.",
)
def _(out, args, kwargs):
    if out.dtype == torch.bfloat16:
        out.copy_(cut(out.float(), 5))


@post(
    "conv-batch-pairs",
    "convolution",
    "Two images go through one block; the second of a pair takes the first column of its map from the first.",
)
def _(out, args, kwargs):
    if out.dim() == 4 and out.shape[0] > 1 and args[1].shape[2] == 3:
        n = out.shape[0] // 2 * 2
        out[1:n:2, :, :, 0] = out[0:n:2, :, :, 0]


# ---------------------------------------------------------------- convolution, backward


def grads(name, about):
    return post(name, "convolution_backward", about)


@grads(
    "wgrad-last-image-lost",
    "The weight gradient is reduced over the batch by a loop that ends one image early for 4 images and more.",
)
def _(out, args, kwargs):
    go, x, w = args[:3]
    if go.shape[0] >= 4 and out[1] is not None:
        bs = args[3]
        part = torch.ops.aten.convolution_backward(go[-1:], x[-1:], w, bs, *args[4:10], [False, True, False])[1]
        out[1].sub_(part)


@grads(
    "wgrad-narrow-over-batch",
    "The weight gradient in low precision is added up over the images in the type with a loss of two bits.",
)
def _(out, args, kwargs):
    go, x, w = args[:3]
    if low(go) and go.shape[0] > 1 and out[1] is not None:
        bits = 5 if go.dtype == torch.bfloat16 else 8
        total = None
        for i in range(go.shape[0]):
            g = torch.ops.aten.convolution_backward(
                go[i : i + 1].float(), x[i : i + 1].float(), w.float(), args[3], *args[4:10], [False, True, False]
            )[1]
            total = g if total is None else cut(total + g, bits)
        out[1].copy_(total)


@grads(
    "wgrad-workspace-not-cleared",
    "The workspace of the split weight gradient starts with the contribution of the first image, which is then added again.",
)
def _(out, args, kwargs):
    go, x, w = args[:3]
    if out[1] is not None and go.shape[0] > 1 and w.shape[2:] == (1, 1):
        out[1].add_(
            torch.ops.aten.convolution_backward(go[:1], x[:1], w, args[3], *args[4:10], [False, True, False])[1]
        )


@grads("bias-grad-last-row", "The gradient of the bias leaves out the last row of the map.")
def _(out, args, kwargs):
    if out[2] is not None and args[0].dim() == 4 and args[0].shape[2] > 1:
        out[2].sub_(args[0][:, :, -1].float().sum((0, 2)).to(out[2].dtype))


@grads("bias-grad-stagnates", "The gradient of the bias is added up in bfloat16 over 64 parts of the map.")
def _(out, args, kwargs):
    if out[2] is not None and args[0].dim() == 4:
        out[2].copy_(narrow_sum(args[0].transpose(0, 1).flatten(1), 1, torch.bfloat16, 64))


@grads(
    "dgrad-stride-two-last-column",
    "The data gradient of a 3x3 stride 2 convolution forgets the last column of an even width, which only one tap reaches.",
)
def _(out, args, kwargs):
    if out[0] is not None and list(args[4]) == [2, 2] and args[2].shape[2] == 3 and out[0].shape[3] % 2 == 0:
        out[0][..., -1] = 0


@grads(
    "dgrad-left-border-twice",
    "In the data gradient of 3x3 stride 1 the halo of the left border is folded back on the first column.",
)
def _(out, args, kwargs):
    w = args[2]
    if out[0] is not None and w.dim() == 4 and w.shape[2:] == (3, 3) and list(args[4]) == [1, 1] and not args[7]:
        out[0][..., 0] *= 1.5


@grads(
    "dgrad-cin-tile-tail",
    "The data gradient handles input channels in tiles of 64; in a ragged tile the last 8 channels are those of the tile's start.",
)
def _(out, args, kwargs):
    if out[0] is not None and out[0].dim() == 4:
        c = out[0].shape[1]
        r = c % 64
        if r >= 16 and args[9] == 1:
            out[0][:, -8:] = out[0][:, c - r : c - r + 8].clone()


@grads(
    "depthwise-wgrad-corner",
    "The weight gradient of the depthwise kernel leaves out the image's first row for the upper taps and so the corner tap is short.",
)
def _(out, args, kwargs):
    if out[1] is not None and dw(args[2], args[9]) and out[1].dim() == 4 and out[1].shape[2] == 3:
        out[1][..., 0, 0] *= 0.75


@grads(
    "depthwise-wgrad-transposed",
    "The weight gradient of the depthwise kernel comes with rows and columns of the taps exchanged.",
)
def _(out, args, kwargs):
    if out[1] is not None and dw(args[2], args[9]) and out[1].dim() == 4 and out[1].shape[2] == out[1].shape[3] > 1:
        out[1].copy_(out[1].transpose(2, 3).clone())


@grads("dgrad-float16-subnormals", "The data gradient in float16 is stored with subnormal numbers flushed to zero.")
def _(out, args, kwargs):
    if out[0] is not None and out[0].dtype == torch.float16:
        out[0][out[0].abs() < 2**-14] = 0


@grads(
    "wgrad-float16-saturates",
    "The weight gradient in float16 saturates instead of overflowing, at a sixteenth of the range.",
)
def _(out, args, kwargs):
    if out[1] is not None and out[1].dtype == torch.float16:
        out[1].clamp_(-4096, 4096)


@grads(
    "wgrad-pixel-tail", "The 1x1 weight gradient as a matrix product drops the pixels beyond the last full block of 64."
)
def _(out, args, kwargs):
    go, x, w = args[:3]
    if (
        out[1] is not None
        and w.dim() == 4
        and w.shape[2:] == (1, 1)
        and list(args[4]) == [1, 1]
        and args[9] == 1
        and not args[7]
    ):
        n = go.shape[2] * go.shape[3]
        r = n % 64
        if r and n > 64:
            a = go.flatten(2)[..., n - r :].float()
            b = x.flatten(2)[..., n - r :].float()
            out[1].sub_(torch.einsum("noi,nci->oc", a, b).view_as(out[1]).to(out[1].dtype))


@grads(
    "stem-wgrad-channel-alias",
    "Where no data gradient is asked for, the third channel of the weight gradient is written to the lane of the first.",
)
def _(out, args, kwargs):
    if out[1] is not None and not args[10][0] and out[1].shape[1] == 3:
        out[1][:, 0] = out[1][:, 2]


@grads(
    "transposed-wgrad-taps",
    "The weight gradient of the transposed convolution has the tap order of an ordinary one, turned by 180 degrees.",
)
def _(out, args, kwargs):
    if out[1] is not None and args[7]:
        out[1].copy_(out[1].flip(2, 3))


@grads(
    "wgrad-tensor-core-float",
    "Weight gradients of float32 convolutions run with 8 bits of mantissa on the matrix units.",
)
def _(out, args, kwargs):
    go, x, w = args[:3]
    if f32(go) and out[1] is not None:
        out[1].copy_(
            torch.ops.aten.convolution_backward(cut(go, 7), cut(x, 7), w, args[3], *args[4:10], [False, True, False])[1]
        )


@grads(
    "dgrad-cout-slice-lost",
    "The data gradient loops over output channels in slices of 32 and ends before a ragged last slice.",
)
def _(out, args, kwargs):
    go, x, w = args[:3]
    c = go.shape[1]
    if out[0] is not None and c % 32 and c > 32 and args[9] == 1 and not args[7]:
        k = c - c % 32
        out[0].copy_(
            torch.ops.aten.convolution_backward(
                go[:, :k].contiguous(), x, w[:k].contiguous(), None, *args[4:10], [True, False, False]
            )[0]
        )


@grads(
    "wgrad-rows-flipped-stride-two",
    "For stride 2 the weight gradient of 3x3 filters is written with the first and last row exchanged.",
)
def _(out, args, kwargs):
    if out[1] is not None and list(args[4]) == [2, 2] and out[1].dim() == 4 and out[1].shape[2] == 3:
        out[1].copy_(out[1].flip(2))


@grads(
    "dgrad-bfloat-truncated",
    "The data gradient in bfloat16 is truncated, with two bits of the mantissa lost in a packed store.",
)
def _(out, args, kwargs):
    if out[0] is not None and out[0].dtype == torch.bfloat16:
        out[0].copy_(cut(out[0].float(), 5))


@grads(
    "dgrad-last-image-halves",
    "With batches of two and more, the last image's data gradient of a 1x1 convolution has the halves of its channels exchanged.",
)
def _(out, args, kwargs):
    if out[0] is not None and out[0].shape[0] > 1 and out[0].shape[1] % 2 == 0 and args[2].shape[2:] == (1, 1):
        out[0][-1] = out[0][-1].roll(out[0].shape[1] // 2, 0)


# ---------------------------------------------------------------- batch normalization

BN = "native_batch_norm _native_batch_norm_legit _batch_norm_with_update cudnn_batch_norm miopen_batch_norm"
BN_EVAL = BN + " _native_batch_norm_legit_no_training _batch_norm_no_update"
BNB = "native_batch_norm_backward batch_norm_backward cudnn_batch_norm_backward"


def training(args, out=None):
    if isinstance(args[5], bool):
        return args[5]
    return len(args) == 7 and (out is None or out[1].numel() > 0)  # without a flag: with update or no training


def momentum(args):
    return args[6] if isinstance(args[5], bool) else args[5]


def per_channel(v, x):
    return v.float().view(1, -1, *[1] * (x.dim() - 2))


def bn_redo(out, args, mean, var, eps=None):
    """Writes the result that other statistics give."""
    x, w, b = args[:3]
    eps = args[-1] if eps is None and num(args[-1]) else (1e-3 if eps is None else eps)
    inv = (var + eps).rsqrt()
    y = (x.float() - per_channel(mean, x)) * per_channel(inv, x)
    if w is not None:
        y = y * per_channel(w, x) + per_channel(b, x)
    out[0].copy_(y)
    if len(out) > 2 and out[1].numel() == mean.numel():
        out[1].copy_(mean)
        out[2].copy_(inv)


def moments(x):
    d = [i for i in range(x.dim()) if i != 1]
    return x.float().mean(d), x.float().var(d, unbiased=False)


@instead(
    "bn-running-update-swapped",
    BN,
    "The update of the running mean takes momentum and its complement the wrong way round.",
)
def _(func, args, kwargs):
    if args[3] is not None and training(args):
        old = args[3].clone()
        out = func(*args, **kwargs)
        args[3].copy_(old * momentum(args) + (1 - momentum(args)) * moments(args[0])[0])
        return out


@instead(
    "bn-running-update-twice",
    BN,
    "The running statistics are updated by both halves of a split grid, each with the whole momentum.",
)
def _(func, args, kwargs):
    if args[3] is not None and training(args):
        out = func(*args, **kwargs)
        m, v = moments(args[0])
        args[3].lerp_(m.to(args[3].dtype), momentum(args))
        args[4].lerp_(v.to(args[4].dtype), momentum(args))
        return out


@instead(
    "bn-running-variance-biased-square",
    BN,
    "The running variance receives the mean of squares, without the square of the mean taken off.",
)
def _(func, args, kwargs):
    if args[4] is not None and training(args):
        out = func(*args, **kwargs)
        args[4].add_((moments(args[0])[0] ** 2 * momentum(args)).to(args[4].dtype))
        return out


@post(
    "bn-welford-without-delta",
    BN,
    "Merging the moments of the images forgets the term of the difference of their means.",
)
def _(out, args, kwargs):
    x = args[0]
    if training(args, out) and x.shape[0] > 1 and x.dim() == 4:
        mean = moments(x)[0]
        bn_redo(out, args, mean, x.float().var((2, 3), unbiased=False).mean(0))


@post(
    "bn-statistics-drop-tail",
    BN,
    "The statistics are those of full blocks of 64 pixels; the rest of each map is left out.",
)
def _(out, args, kwargs):
    x = args[0]
    if training(args, out) and x.dim() == 4:
        n = x.shape[2] * x.shape[3]
        if n > 64 and n % 64:
            bn_redo(out, args, *moments(x.flatten(2)[..., : n - n % 64]))


@post("bn-eps-of-default", BN_EVAL, "The kernel was compiled for epsilon 1e-5 and ignores the one it is given.")
def _(out, args, kwargs):
    x = args[0]
    if x.numel() and num(args[-1]) and args[-1] > 2e-5 or (len(args) > 7 and num(args[7]) and args[7] > 2e-5):
        if training(args, out):
            bn_redo(out, args, *moments(x), eps=1e-5)
        elif args[3] is not None:
            bn_redo((out[0],), args, args[3].float(), args[4].float(), eps=1e-5)


@post(
    "bn-one-pass-variance",
    BN,
    "The variance is the mean of squares less the square of the mean, from sums with 12 bits.",
)
def _(out, args, kwargs):
    x = args[0]
    if training(args, out) and x.numel():
        d = [i for i in range(x.dim()) if i != 1]
        m = cut(x.float().mean(d), 12)
        q = cut((x.float() ** 2).mean(d), 12)
        bn_redo(out, args, m, (q - m * m).clamp(min=0))


@post("bn-saved-scale-without-eps", BN, "The inverse deviation that is kept for backward lacks epsilon.")
def _(out, args, kwargs):
    if training(args, out) and len(out) > 2 and out[2].numel() == args[0].shape[1]:
        out[2].copy_((moments(args[0])[1] + 1e-7).rsqrt())


@post(
    "bn-eval-half-statistics",
    BN_EVAL,
    "In evaluation mode the running variance passes through bfloat16 on its way into the kernel's constants.",
)
def _(out, args, kwargs):
    if not training(args, out) and args[4] is not None:
        bn_redo((out[0],), args, args[3].float(), args[4].bfloat16().float())


@post("bn-eval-next-bias", BN_EVAL, "In evaluation mode the last channel takes the shift of the one before it.")
def _(out, args, kwargs):
    if not training(args, out) and args[2] is not None and out[0].shape[1] > 1:
        out[0][:, -1] += (args[2][-2] - args[2][-1]).to(out[0].dtype)


@post(
    "bn-channels-last-tail-channel",
    BN,
    "In the channels-last kernel the last channel of each 8 is normalized with the statistics of its neighbour.",
)
def _(out, args, kwargs):
    x = args[0]
    if training(args, out) and x.dim() == 4 and cl(x) and x.shape[1] % 8 == 0:
        m, v = moments(x)
        m[7::8] = m[6::8]
        v[7::8] = v[6::8]
        bn_redo(out, args, m, v)


@post(
    "bn-low-affine",
    BN_EVAL,
    "With a low-precision input the factor of scale and inverse deviation is kept with six bits.",
)
def _(out, args, kwargs):
    x = args[0]
    if low(x) and training(args, out):
        m, v = moments(x)
        f = cut((v + 1e-3).rsqrt() * args[1].float(), 6)
        out[0].copy_((x.float() - per_channel(m, x)) * per_channel(f, x) + per_channel(args[2], x))


def bnb_parts(args):
    """Gradient, input, weight, saved mean, saved inverse deviation, whether training."""
    go, x, w = args[:3]
    m, v = moments(x)
    return go.float(), x.float(), w, m, (v + 1e-3).rsqrt()


def bnb_train(args):
    return any(a is True for a in args[6:10] if isinstance(a, bool))


@post(
    "bn-backward-without-covariance",
    BNB,
    "The input gradient lacks the term with the mean of gradient times normalized input.",
)
def _(out, args, kwargs):
    if bnb_train(args) and out[0] is not None:
        go, x, w, m, i = bnb_parts(args)
        d = [k for k in range(x.dim()) if k != 1]
        c = (go * (x - per_channel(m, x)) * per_channel(i, x)).mean(d)
        out[0].add_(((x - per_channel(m, x)) * per_channel(i * i * w.float() * c, x)).to(out[0].dtype))


@post(
    "bn-backward-without-mean",
    BNB,
    "The input gradient lacks the term with the mean of the gradient in every second channel.",
)
def _(out, args, kwargs):
    if bnb_train(args) and out[0] is not None:
        go, x, w, m, i = bnb_parts(args)
        d = [k for k in range(x.dim()) if k != 1]
        c = go.mean(d) * i * w.float()
        c[::2] = 0
        out[0].add_(per_channel(c, x).to(out[0].dtype))


@post("bn-backward-narrow-weight-grad", BNB, "The gradient of the scale is added up in bfloat16 over 32 parts.")
def _(out, args, kwargs):
    if bnb_train(args) and out[1] is not None:
        go, x, w, m, i = bnb_parts(args)
        t = (go * (x - per_channel(m, x)) * per_channel(i, x)).transpose(0, 1).flatten(1)
        out[1].copy_(narrow_sum(t, 1, torch.bfloat16, 32))


@post(
    "bn-backward-bias-grad-half-batch",
    BNB,
    "The gradient of the shift is that of the first half of the batch, doubled.",
)
def _(out, args, kwargs):
    go = args[0]
    if out[2] is not None and go.shape[0] > 1:
        h = go.shape[0] // 2
        d = [k for k in range(go.dim()) if k != 1]
        out[2].copy_(go[:h].float().sum(d) * (go.shape[0] / h))


@post(
    "bn-backward-divides-by-padded-count",
    BNB,
    "The means of the backward pass divide by the number of pixels rounded up to a multiple of 256 for each image.",
)
def _(out, args, kwargs):
    if bnb_train(args) and out[0] is not None and args[0].dim() == 4:
        go, x, w, m, i = bnb_parts(args)
        n = x.shape[2] * x.shape[3]
        part = 1 - n / (math.ceil(n / 256) * 256)
        if part:
            c = go.mean((0, 2, 3)) * i * w.float() * part
            out[0].add_(per_channel(c, x).to(out[0].dtype))


# ---------------------------------------------------------------- activations

SILU = "silu silu_"


@post("silu-table-sigmoid", SILU, "The result of SiLU is looked up with five bits of mantissa.")
def _(out, args, kwargs):
    if fl(out):
        out.copy_(cut(out.float(), 5))


@instead("silu-cutoff", SILU, "SiLU returns zero below -4, as a hard variant does.")
def _(func, args, kwargs):
    x = args[0]
    mask = x < -4
    out = func(*args, **kwargs)
    out[mask] = 0
    return out


@instead("silu-fast-exp-low", SILU, "SiLU in low precision takes a reciprocal with six bits.")
def _(func, args, kwargs):
    x = args[0]
    if low(x):
        y = x.float() * cut(torch.sigmoid(x.float()), 5)
        if func.__name__.startswith("silu_"):
            return x.copy_(y)
        return y.to(x.dtype)


@post(
    "silu-backward-no-product-term",
    "silu_backward",
    "The derivative of SiLU lacks x times the derivative of the sigmoid for negative x.",
)
def _(out, args, kwargs):
    go, x = args[:2]
    out.copy_(torch.where(x < 0, go * torch.sigmoid(x), out))


@post(
    "silu-backward-output-for-input",
    "silu_backward",
    "The backward kernel takes the sigmoid of a value that has been rounded to 4 bits of mantissa.",
)
def _(out, args, kwargs):
    go, x = args[0].float(), args[1].float()
    s = torch.sigmoid(cut(x, 4, True))
    out.copy_(go * s * (1 + x * (1 - s)))


@post("silu-backward-saturates", "silu_backward", "The derivative of SiLU is clamped to between 0 and 1.")
def _(out, args, kwargs):
    go, x = args[0].float(), args[1].float()
    s = torch.sigmoid(x)
    out.copy_(go * (s * (1 + x * (1 - s))).clamp(0, 1))


@instead("sigmoid-flush", "sigmoid sigmoid_", "The exponential unit saturates: sigmoid returns zero below -8.")
def _(func, args, kwargs):
    mask = args[0] < -8
    out = func(*args, **kwargs)
    out[mask] = 0
    return out


@post("sigmoid-coarse", "sigmoid sigmoid_", "Sigmoid through a table with eight fractional bits.")
def _(out, args, kwargs):
    if fl(out):
        out.copy_((out.float() * 256).round() / 256)


@instead("sigmoid-strided-first-lane", "sigmoid", "Sigmoid of a tensor that is not dense reads it as if it were dense.")
def _(func, args, kwargs):
    x = args[0]
    if not x.is_contiguous() and not cl(x) and x.dim() > 1 and 0 not in x.stride():
        return func(as_if_contiguous(x), **kwargs)


@post("sigmoid-backward-bfloat", "sigmoid_backward", "The backward of sigmoid forms 1-y after rounding y to bfloat16.")
def _(out, args, kwargs):
    go, y = args[0].float(), args[1].float().bfloat16().float()
    out.copy_(go * y * (1 - y))


@instead("gelu-tanh-form", "gelu", "GELU always takes the tanh form, with coefficients of three digits.")
def _(func, args, kwargs):
    x = args[0].float()
    return (0.5 * x * (1 + torch.tanh(0.798 * (x + 0.045 * x**3)))).to(args[0].dtype)


@post("gelu-backward-without-density", "gelu_backward", "The derivative of GELU lacks the density term beyond |x| = 1.")
def _(out, args, kwargs):
    go, x = args[0], args[1]
    cdf = 0.5 * (1 + torch.erf(x.float() * 0.7071067811865476))
    out.copy_(torch.where(x.abs() > 1, (go.float() * cdf).to(out.dtype), out))


@post(
    "relu-backward-at-zero",
    "threshold_backward",
    "The backward of ReLU works on the output and lets the gradient pass where it is zero or more.",
)
def _(out, args, kwargs):
    out.copy_(args[0])


@post(
    "relu-sixteenth-lane",
    "relu relu_",
    "The last lane of a vector of 16 is averaged with zero, as the mask register is one lane short.",
)
def _(out, args, kwargs):
    f = out.view(-1) if out.is_contiguous() else None
    if f is not None and f.numel() > 16:
        f[15::16] *= 0.5


# ---------------------------------------------------------------- pooling and upsampling

MP = "max_pool2d_with_indices"


@instead("max-pool-zero-border", MP, "The border of max pooling is zero, not minus infinity.")
def _(func, args, kwargs):
    x, k, s, p = args[0], args[1], arg(args, kwargs, 2, "stride", []), arg(args, kwargs, 3, "padding", [0, 0])
    p = list(p) * (2 if len(p) == 1 else 1)
    if p[0] and x.dim() == 4:
        out, idx = func(*args, **kwargs)
        big = torch.nn.functional.pad(x, (p[1], p[1], p[0], p[0]))
        return func(big, k, s or k, [0, 0])[0], idx


@post(
    "max-pool-index-of-padded-map",
    MP,
    "The saved indices have the row length of the padded map, cut to the size of the map.",
)
def _(out, args, kwargs):
    x = args[0]
    if arg(args, kwargs, 3, "padding", [0])[0]:
        h, w = x.shape[-2:]
        i = out[1]
        out[1].copy_((i // w * (w + 1) + i % w).clamp(max=h * w - 1))


@post("max-pool-last-column", MP, "The windows at the right border end one column early.")
def _(out, args, kwargs):
    if out[0].dim() == 4 and out[0].shape[-1] > 2:
        out[0][..., -1] = out[0][..., -2]


@instead(
    "max-pool-bottom-row-clipped",
    MP,
    "The window loop's upper bound is taken from the width: the lowest window row is missing in every window.",
)
def _(func, args, kwargs):
    x, k = args[0], args[1]
    if x.dim() == 4 and k[0] == 5:
        y = torch.nn.functional.pad(x, (0, 0, 1, 0), value=float("-inf"))[:, :, :-1]
        return torch.minimum(func(y, *args[1:], **kwargs)[0], func(*args, **kwargs)[0]), func(*args, **kwargs)[1]


@instead(
    "max-pool-backward-overwrites",
    MP + "_backward",
    "Where windows overlap the backward of max pooling writes, instead of adding.",
)
def _(func, args, kwargs):
    go, x, idx = args[0], args[1], args[7]
    out = torch.zeros_like(x, memory_format=torch.contiguous_format)
    out.flatten(2).scatter_(2, idx.flatten(2), go.contiguous().flatten(2))
    return out


@post(
    "max-pool-backward-first-row",
    MP + "_backward",
    "The backward of max pooling starts its search for windows one row too late: the first row gets half.",
)
def _(out, args, kwargs):
    out[..., 0, :] *= 0.5


@instead(
    "nearest-rounds",
    "upsample_nearest2d",
    "Nearest upsampling rounds the source coordinate to the nearest even number instead of down.",
)
def _(func, args, kwargs):
    x, size = args[0], list(args[1]) if args[1] is not None else None
    if size is not None and size[0] > x.shape[2]:
        h, w = x.shape[2:]
        i = (torch.arange(size[0]) * (h / size[0])).round().long().clamp(max=h - 1)
        j = (torch.arange(size[1]) * (w / size[1])).round().long().clamp(max=w - 1)
        return x[:, :, i][..., j].contiguous()


@post(
    "nearest-last-column",
    "upsample_nearest2d",
    "In nearest upsampling the last two columns come from the source column before the last.",
)
def _(out, args, kwargs):
    if out.shape[-1] > 4 and out.shape[-1] > args[0].shape[-1]:
        out[..., -2:] = out[..., -4:-2].clone()


@instead(
    "nearest-channels-last-rows",
    "upsample_nearest2d",
    "The channels-last kernel doubles rows by reading the row one below in odd rows.",
)
def _(func, args, kwargs):
    x = args[0]
    out = func(*args, **kwargs)
    if cl(x) and out.shape[2] == 2 * x.shape[2]:
        out[:, :, 1:-1:2] = out[:, :, 2::2].clone()
        return out
    return out


@instead(
    "nearest-down-centre",
    "upsample_nearest2d",
    "Nearest reduction takes the source pixel in the centre of the cell instead of its corner.",
)
def _(func, args, kwargs):
    x, size = args[0], args[1]
    if size is not None and size[0] < x.shape[2] and x.shape[2] % size[0] == 0:
        f = x.shape[2] // size[0]
        y = x.roll((-(f // 2), -(f // 2)), (2, 3))
        return func(y, *args[1:], **kwargs)


@post(
    "nearest-backward-averages-corner",
    "upsample_nearest2d_backward",
    "The backward of nearest upsampling adds three of the four pixels.",
)
def _(out, args, kwargs):
    go = args[0]
    if go.shape[2] == 2 * out.shape[2] and go.shape[3] == 2 * out.shape[3]:
        out.sub_(go[:, :, 1::2, 1::2])


@post(
    "nearest-backward-low",
    "upsample_nearest2d_backward",
    "The backward of nearest upsampling loses three bits when it adds packed halves.",
)
def _(out, args, kwargs):
    if low(out):
        out.copy_(cut(out.float(), 4 if out.dtype == torch.bfloat16 else 7))


@post(
    "nearest-backward-channel-half",
    "upsample_nearest2d_backward",
    "The backward of nearest upsampling runs over half of the channels' last block of 32: its upper 16 are those of the lower.",
)
def _(out, args, kwargs):
    if out.shape[1] >= 32:
        out[:, -16:] = out[:, -32:-16].clone()


@instead("bilinear-corners", "upsample_bilinear2d", "Bilinear resizing aligns corners when it should align centres.")
def _(func, args, kwargs):
    if args[1] is not None and not args[2] and min(args[0].shape[2:]) > 1:
        return func(args[0], args[1], True)


@instead(
    "bilinear-fixed-point",
    "upsample_bilinear2d",
    "Bilinear weights have two fractional bits, as those of a texture unit set up for speed.",
)
def _(func, args, kwargs):
    x, size = args[0], args[1]
    if fl(x) and size is not None and not args[2]:
        y = x.float()
        for d, n in ((2, size[0]), (3, size[1])):
            m = y.shape[d]
            p = ((torch.arange(n) + 0.5) * (m / n) - 0.5).clamp(0, m - 1)
            i = p.floor().long()
            f = ((p - i) * 4).floor() / 4
            f = f.view(-1, 1) if d == 2 else f
            y = y.index_select(d, i) * (1 - f) + y.index_select(d, (i + 1).clamp(max=m - 1)) * f
        return y.to(x.dtype)


@instead(
    "bilinear-no-half-pixel", "upsample_bilinear2d", "The half pixel offset is left out of bilinear source coordinates."
)
def _(func, args, kwargs):
    x, size = args[0], args[1]
    if fl(x) and size is not None and not args[2]:
        y = x.float()
        for d, n in ((2, size[0]), (3, size[1])):
            m = y.shape[d]
            p = (torch.arange(n) * (m / n)).clamp(0, m - 1)
            i = p.floor().long()
            f = p - i
            f = f.view(-1, 1) if d == 2 else f
            y = y.index_select(d, i) * (1 - f) + y.index_select(d, (i + 1).clamp(max=m - 1)) * f
        return y.to(x.dtype)


@post("bilinear-last-row", "upsample_bilinear2d", "The last row of a bilinear map is interpolated with a zero row.")
def _(out, args, kwargs):
    if fl(out) and out.shape[2] > 1:
        out[:, :, -1] *= 0.75


@post(
    "bilinear-backward-neighbour-overwritten",
    "upsample_bilinear2d_backward",
    "In the backward of bilinear resizing the atomics of the last column are lost.",
)
def _(out, args, kwargs):
    if out.shape[-1] > 1:
        out[..., -1] *= 0.5


POOL = "mean _adaptive_avg_pool2d adaptive_avg_pool2d"


@post(
    "average-pool-reciprocal-low",
    POOL,
    "Averages over the map multiply by a reciprocal of the number of pixels in bfloat16, rounded down.",
)
def _(out, args, kwargs):
    n = args[0].numel() / max(out.numel(), 1)
    if fl(out) and out.numel() and n > 1 and n != 2 ** round(math.log2(n)):
        out *= float(cut(torch.tensor(1 / n), 6)) * n


@post("average-pool-padded-count", POOL, "Averages divide by the number of elements rounded up to a multiple of 32.")
def _(out, args, kwargs):
    if fl(out) and out.numel():
        n = args[0].numel() / out.numel()
        if n > 1:
            out *= n / (math.ceil(n / 32) * 32)


@instead(
    "average-narrow",
    "mean _adaptive_avg_pool2d",
    "Means of float32 tensors are taken of values rounded to bfloat16 and truncated.",
)
def _(func, args, kwargs):
    if f32(args[0]):
        return func(cut(args[0], 6), *args[1:], **kwargs)


# ---------------------------------------------------------------- sampling at points

GS = "grid_sampler_2d cudnn_grid_sampler"


@instead("grid-sample-aligned-corners", GS, "Grid sampling scales coordinates as if corners were aligned.")
def _(func, args, kwargs):
    if len(args) == 5 and not args[4]:
        return func(*args[:4], True)


@instead("grid-sample-border", GS, "Points beyond the border take the border's value instead of zero.")
def _(func, args, kwargs):
    if len(args) == 5 and args[3] == 0:
        return func(*args[:3], 1, args[4])


@instead("grid-sample-low-coordinates", GS, "Coordinates of grid sampling pass through bfloat16.")
def _(func, args, kwargs):
    return func(args[0], args[1].bfloat16().to(args[1].dtype), *args[2:])


@instead("grid-sample-xy", GS, "In maps of 20 and fewer columns the grid's two lanes are exchanged by the vector load.")
def _(func, args, kwargs):
    if args[0].shape[-1] <= 20:
        return func(args[0], args[1].flip(-1), *args[2:])


@post(
    "grid-sample-head-tail",
    GS,
    "With 300 points and more, points beyond the last full 64 of each map are those of a block before.",
)
def _(out, args, kwargs):
    n = out.shape[2]
    if n > 64 and n % 64:
        r = n % 64
        out[:, :, n - r :] = out[:, :, n - r - 64 : n - 64].clone()


@post(
    "grid-backward-scale",
    "grid_sampler_2d_backward",
    "The gradient of the coordinate y is scaled by half of the map, less one pixel.",
)
def _(out, args, kwargs):
    if out[1] is not None and out[1].numel():
        h = args[1].shape[2]
        out[1][..., 1] *= (h - 1) / h


@instead(
    "grid-backward-border",
    "grid_sampler_2d_backward",
    "The backward of grid sampling adds the gradient of points outside to the border's pixels.",
)
def _(func, args, kwargs):
    return func(*args[:4], 1, *args[5:])


@post(
    "grid-backward-atomics",
    "grid_sampler_2d_backward",
    "The atomic additions of the data gradient are in half-precision pairs, with six bits.",
)
def _(out, args, kwargs):
    if out[0] is not None:
        out[0].copy_(cut(out[0].float(), 6))


# ---------------------------------------------------------------- matrix products

MM = "mm addmm bmm baddbmm"


def operands(func, args):
    """The positions of the two factors."""
    i = 1 if func.__name__.split(".")[0] in ("addmm", "addmm_", "baddbmm", "baddbmm_") else 0
    return i, i + 1


def with_factors(func, args, kwargs, a, b):
    i, j = operands(func, args)
    return func(*swap(swap(args, i, a), j, b), **kwargs)


@instead("mm-k-tail", "mm bmm", "Products drop the part of the inner dimension that does not fill a block of 32.")
def _(func, args, kwargs):
    a, b = args[:2]
    k = a.shape[-1]
    if fl(a) and k > 32 and k % 32:
        n = k - k % 32
        return func(a[..., :n], b[..., :n, :], **kwargs)


@instead("addmm-bias-last-rows", "addmm", "The bias is not added in the rows beyond the last full block of 16.")
def _(func, args, kwargs):
    if args[0].dim() == 1:
        out = func(*args, **kwargs)
        r = out.shape[0] % 16
        if r:
            out[-r:] -= args[0].to(out.dtype)
        return out


@instead(
    "baddbmm-beta-when-aliased",
    "baddbmm",
    "A product that also reads its first factor as the addend takes beta for one.",
)
def _(func, args, kwargs):
    if args[0] is args[1] or args[0].data_ptr() == args[1].data_ptr() or args[0].data_ptr() == args[2].data_ptr():
        return func(*args, **{**kwargs, "beta": 1})


@instead(
    "baddbmm-scalars-rounded",
    "baddbmm baddbmm_ addmm",
    "Alpha and beta are passed in the type of the factors with 5 bits.",
)
def _(func, args, kwargs):
    if kwargs.get("beta", 1) not in (0, 1) or kwargs.get("alpha", 1) != 1:
        c = lambda v: float(cut(torch.tensor(float(v)), 5))
        return func(*args, beta=c(kwargs.get("beta", 1)), alpha=c(kwargs.get("alpha", 1)))


@instead(
    "baddbmm-alpha-on-addend", "baddbmm", "Alpha is applied in the epilogue, after beta times the addend has gone in."
)
def _(func, args, kwargs):
    al = kwargs.get("alpha", 1)
    if al != 1:
        return func(*args, beta=kwargs.get("beta", 1) * al, alpha=al)


@instead(
    "bmm-transposed-factor-as-dense",
    "bmm",
    "A transposed second factor that is square is read as if it were not transposed.",
)
def _(func, args, kwargs):
    b = args[1]
    if b.shape[1] == b.shape[2] > 1 and b.stride(1) == 1:
        return func(args[0], b.transpose(1, 2).contiguous(), **kwargs)


@post(
    "bmm-last-rows-stale",
    "bmm",
    "Rows beyond the last full tile of 64 are not written and hold half of those of the tile before.",
)
def _(out, args, kwargs):
    n = out.shape[1]
    r = n % 64
    if n > 64 and r:
        out[:, n - r :] = out[:, n - r - 64 : n - 64] * 0.5


@post(
    "bmm-odd-matrix",
    "bmm baddbmm",
    "In a batch of an odd number of matrices the last lacks a quarter of the inner dimension's sum.",
)
def _(out, args, kwargs):
    if out.shape[0] > 1 and out.shape[0] % 2:
        out[-1] *= 0.75


@instead(
    "bmm-narrow-accumulation",
    "bmm baddbmm",
    "Batched products in bfloat16 and float16 keep the sum over blocks of 16 with five bits.",
)
def _(func, args, kwargs):
    i, j = operands(func, args)
    a, b = args[i], args[j]
    if low(a) and a.shape[-1] >= 32:
        total = 0
        for u, v in zip(a.float().split(16, -1), b.float().split(16, -2)):
            total = cut(torch.bmm(u, v) + total, 5)
        total = total * kwargs.get("alpha", 1)
        if i:
            total = total + args[0].float() * kwargs.get("beta", 1)
        return total.to(a.dtype)


@instead(
    "mm-bfloat-for-float", "mm addmm", "Products in float32 with 32 rows and columns or more run on bfloat16 units."
)
def _(func, args, kwargs):
    i, j = operands(func, args)
    a, b = args[i], args[j]
    if f32(a) and f32(b) and min(a.shape[0], b.shape[1]) >= 32:
        return with_factors(func, args, kwargs, a.bfloat16().float(), b.bfloat16().float())


@instead(
    "mm-small-k-half",
    "mm addmm",
    "An inner dimension of 32 and less takes a kernel with one rounding to bfloat16 for each product.",
)
def _(func, args, kwargs):
    i, j = operands(func, args)
    a, b = args[i], args[j]
    if f32(a) and a.shape[1] <= 32:
        return with_factors(func, args, kwargs, cut(a, 7), cut(b, 7))


@post(
    "mm-column-index-13-bits",
    "mm addmm",
    "Column numbers of wide products keep 13 bits: columns from 8192 on repeat the first.",
)
def _(out, args, kwargs):
    if out.shape[1] > 8192:
        out[:, 8192:] = (
            out[:, : out.shape[1] - 8192].clone()
            if out.shape[1] <= 16384
            else out[:, torch.arange(8192, out.shape[1]) % 8192]
        )


@post("mm-last-row-of-odd", "mm addmm", "A product of an odd number of rows takes its last row from the one before.")
def _(out, args, kwargs):
    if out.shape[0] > 1 and out.shape[0] % 2:
        out[-1] = out[-2]


@instead(
    "mm-transposed-split",
    "mm",
    "The weight gradient's product, with its first factor transposed, adds the upper half of the inner dimension with 6 bits.",
)
def _(func, args, kwargs):
    a, b = args[:2]
    if fl(a) and a.stride(0) == 1 and a.stride(1) != 1 and a.shape[1] >= 8:
        k = a.shape[1] // 2
        return (torch.mm(a[:, :k].float(), b[:k].float()) + cut(torch.mm(a[:, k:].float(), b[k:].float()), 6)).to(
            a.dtype
        )


@post(
    "addmm-ragged-columns", "addmm", "Output columns beyond the last multiple of 8 lack the last of four partial sums."
)
def _(out, args, kwargs):
    r = out.shape[1] % 8
    if r:
        out[:, -r:] *= 0.75


@post("mm-float16-flush", MM, "Float16 products are stored with values below 2^-10 flushed.")
def _(out, args, kwargs):
    if out.dtype == torch.float16:
        out[out.abs() < 2**-10] = 0


# ---------------------------------------------------------------- softmax


@instead(
    "softmax-online-without-rescale",
    "_softmax",
    "The online softmax of rows beyond 128 does not rescale the sum when a later block has a greater maximum.",
)
def _(func, args, kwargs):
    x, d = args[:2]
    if fl(x) and x.shape[d] > 128:
        y = x.float()
        top = y.amax(d, keepdim=True)
        first = y.narrow(d, 0, 128)
        rest = y.narrow(d, 128, y.shape[d] - 128)
        s = (first - first.amax(d, keepdim=True)).exp().sum(d, keepdim=True) + (rest - top).exp().sum(d, keepdim=True)
        return ((y - top).exp() / s).to(func(x[:1], *args[1:]).dtype)


@post("softmax-coarse-exponent", "_softmax", "The exponential of softmax multiplies by log2(e) with five bits.")
def _(out, args, kwargs):
    x, d = args[0].float(), args[1]
    out.copy_(((x - x.amax(d, keepdim=True)) * 0.984).softmax(d))


@post("softmax-sum-in-type", "_softmax", "The sum of a softmax over 16 and more values is truncated to 5 bits.")
def _(out, args, kwargs):
    x, d = args[0].float(), args[1]
    if x.shape[d] >= 16:
        e = (x - x.amax(d, keepdim=True)).exp()
        out.copy_(e / cut(e.sum(d, keepdim=True), 5))


@post(
    "softmax-third-row",
    "_softmax",
    "Three rows go through one warp; the third is divided by a sum that counts both halves of the warp.",
)
def _(out, args, kwargs):
    d = args[1] % out.dim()
    if out.dim() > 1 and d == out.dim() - 1:
        rows = out.view(-1, out.shape[-1])
        if rows.shape[0] > 2:
            rows[2::3] *= 0.5


@instead(
    "softmax-inner-dimension-neighbour",
    "_softmax",
    "Softmax over a dimension that is not the last takes the maximum and sum of every eighth column from its neighbour.",
)
def _(func, args, kwargs):
    x, d = args[0], args[1] % args[0].dim()
    if fl(x) and d != x.dim() - 1 and x.shape[-1] >= 8:
        y = x.float()
        top = y.amax(d, keepdim=True)
        s = (y - top).exp().sum(d, keepdim=True)
        idx = torch.arange(y.shape[-1])
        idx[7::8] -= 1
        return ((y - top).exp() / s[..., idx]).to(x.dtype)


@post(
    "softmax-backward-first-32",
    "_softmax_backward_data",
    "The inner product of the backward of softmax is over the first 12 values and, beyond a warp, the first 32.",
)
def _(out, args, kwargs):
    go, y, d = args[0].float(), args[1].float(), args[2]
    n = 32 if y.shape[d] > 32 else 12
    if y.shape[d] > 12:
        s = (go * y).narrow(d, 0, n).sum(d, keepdim=True)
        out.copy_(y * (go - s))


@post(
    "softmax-backward-no-projection-tail",
    "_softmax_backward_data",
    "The last value of each row of softmax's gradient lacks the projection.",
)
def _(out, args, kwargs):
    go, y, d = args[0], args[1], args[2]
    last = out.shape[d] - 1
    out.select(d, last).copy_((go * y).select(d, last))


@post("log-softmax-coarse-log", "_log_softmax", "The logarithm of the sum comes from a linear table with 16 steps.")
def _(out, args, kwargs):
    x, d = args[0].float(), args[1]
    x = x - x.amax(d, keepdim=True)
    out.copy_(x - cut(x.exp().sum(d, keepdim=True), 4).log())


@post(
    "log-softmax-backward-unit-sum",
    "_log_softmax_backward_data",
    "The backward of log softmax takes the sum of the gradient for minus its greatest magnitude.",
)
def _(out, args, kwargs):
    go, y, d = args[0].float(), args[1].float(), args[2]
    out.copy_(go + y.exp() * go.abs().amax(d, keepdim=True))


@post(
    "log-softmax-backward-narrow",
    "_log_softmax_backward_data",
    "The exponential in the backward of log softmax has 5 bits.",
)
def _(out, args, kwargs):
    go, y, d = args[0].float(), args[1].float(), args[2]
    out.copy_(go - cut(y.exp(), 5) * go.sum(d, keepdim=True))


# ---------------------------------------------------------------- layer normalization

LN = "native_layer_norm"


def ln_redo(out, args, mean, rstd):
    x, w, b = args[0].float(), args[2], args[3]
    y = (x - mean) * rstd
    if w is not None:
        y = y * w.float()
    if b is not None:
        y = y + b.float()
    out[0].copy_(y)


@post("layer-norm-one-pass", LN, "The variance of layer normalization is a difference of sums with 9 bits.")
def _(out, args, kwargs):
    x = args[0].float()
    m = x.mean(-1, keepdim=True)
    q = cut((x * x).mean(-1, keepdim=True), 9)
    ln_redo(out, args, m, ((q - cut(m * m, 9)).clamp(min=0) + args[4]).rsqrt())


@post("layer-norm-unbiased", LN, "Layer normalization divides by the number of features less one.")
def _(out, args, kwargs):
    x = args[0].float()
    ln_redo(out, args, x.mean(-1, keepdim=True), (x.var(-1, keepdim=True) + args[4]).rsqrt())


@post("layer-norm-rows-shared", LN, "The rows of a block of four share the mean of the first.")
def _(out, args, kwargs):
    x = args[0].float()
    if x.dim() == 3 and x.shape[1] >= 8:
        m = x.mean(-1, keepdim=True)
        n = x.shape[1] // 4 * 4
        m[:, 3:n:4] = m[:, 0:n:4].clone()
        ln_redo(out, args, m, (x.var(-1, unbiased=False, keepdim=True) + args[4]).rsqrt())


def lnb(args):
    go, x, w = args[0].float(), args[1].float(), args[5]
    m = x.mean(-1, keepdim=True)
    r = (x.var(-1, unbiased=False, keepdim=True) + 1e-5).rsqrt()
    return (go if w is None else go * w.float()), (x - m) * r, r


@post(
    "layer-norm-backward-without-mean",
    LN + "_backward",
    "The input gradient of layer normalization lacks the mean of the gradient.",
)
def _(out, args, kwargs):
    if out[0] is not None:
        g, h, r = lnb(args)
        out[0].add_((g.mean(-1, keepdim=True) * r).to(out[0].dtype))


@post(
    "layer-norm-backward-without-projection",
    LN + "_backward",
    "The input gradient of layer normalization lacks half of the projection on the normalized input.",
)
def _(out, args, kwargs):
    if out[0] is not None:
        g, h, r = lnb(args)
        out[0].add_((0.5 * (g * h).mean(-1, keepdim=True) * h * r).to(out[0].dtype))


@post(
    "layer-norm-backward-rows-tail",
    LN + "_backward",
    "The gradient of the scale leaves out the rows beyond the last full 64.",
)
def _(out, args, kwargs):
    if out[1] is not None and args[5] is not None:
        g, h, r = lnb(args)
        t = (args[0].float() * h).reshape(-1, h.shape[-1])
        n = t.shape[0] // 64 * 64
        if n and n < t.shape[0]:
            out[1].sub_(t[n:].sum(0).view_as(out[1]).to(out[1].dtype))


@post(
    "layer-norm-backward-bias-narrow",
    LN + "_backward",
    "The gradient of the shift is added up in bfloat16 over 64 groups of rows.",
)
def _(out, args, kwargs):
    if out[2] is not None:
        out[2].copy_(narrow_sum(args[0].reshape(-1, args[0].shape[-1]), 0, torch.bfloat16, 64))


# ---------------------------------------------------------------- reductions


def full_sum(args, kwargs):
    d = arg(args, kwargs, 1, "dim", None)
    return d is None or d == [] or d == ()


@post("sum-blocks-bfloat", "sum", "The partial sums of a full reduction are kept in bfloat16.")
def _(out, args, kwargs):
    if f32(args[0]) and full_sum(args, kwargs) and args[0].numel() > 64:
        out.copy_(narrow_sum(args[0].reshape(-1), 0, torch.bfloat16, 64))


@post("sum-vector-tail", "sum", "A full reduction loads vectors of 8 and forgets the rest.")
def _(out, args, kwargs):
    x = args[0]
    if fl(x) and full_sum(args, kwargs) and x.numel() % 8 and x.numel() > 1:
        f = x.reshape(-1)
        out.sub_(f[f.numel() // 8 * 8 :].sum().to(out.dtype))


@post(
    "sum-rows-tail",
    "sum",
    "A sum over the first dimension of a matrix halves the number of rows and drops the odd one.",
)
def _(out, args, kwargs):
    x = args[0]
    d = arg(args, kwargs, 1, "dim", None)
    if fl(x) and x.dim() == 2 and d and norm_dims(d, 2) == [0] and x.shape[0] > 2 and x.shape[0] % 4:
        r = x.shape[0] % 4
        out.sub_(x[-r:].sum(0).view_as(out).to(out.dtype))


@post("sum-last-of-odd-row", "sum", "A sum over the last dimension with an odd number of values loses the last one.")
def _(out, args, kwargs):
    x = args[0]
    d = arg(args, kwargs, 1, "dim", None)
    if fl(x) and d and norm_dims(d, x.dim()) == [x.dim() - 1] and x.shape[-1] % 2 and x.shape[-1] > 1:
        out.sub_(x[..., -1].to(out.dtype).view_as(out))


@post("count-saturates", "sum", "The count of true elements is kept in a byte for each block and stops at 15.")
def _(out, args, kwargs):
    if args[0].dtype == torch.bool and out.dtype == torch.int64:
        out.clamp_(max=15)


@post("count-along-dimension-is-any", "sum", "The sum of booleans along a dimension is their disjunction.")
def _(out, args, kwargs):
    d = arg(args, kwargs, 1, "dim", None)
    if args[0].dtype in (torch.bool, torch.int64) and d and out.dtype == torch.int64:
        out.clamp_(max=1)


@post("sum-two-dimensions-inner-lost", "sum", "A sum over two dimensions at once ends the inner loop one early.")
def _(out, args, kwargs):
    x = args[0]
    d = arg(args, kwargs, 1, "dim", None)
    if fl(x) and d and len(norm_dims(d, x.dim())) >= 2 and len(norm_dims(d, x.dim())) < x.dim():
        last = max(norm_dims(d, x.dim()))
        if x.shape[last] > 1:
            dims = norm_dims(d, x.dim())
            s = x.narrow(last, x.shape[last] - 1, 1).sum(dims, keepdim=True)
            out.sub_(s.view_as(out).to(out.dtype))


@post("sum-expanded-source", "sum", "A sum to the shape of a broadcast operand drops the last of the broadcast copies.")
def _(out, args, kwargs):
    x = args[0]
    d = arg(args, kwargs, 1, "dim", None)
    keep = arg(args, kwargs, 2, "keepdim", False)
    if fl(x) and d and keep and len(norm_dims(d, x.dim())) == 1:
        k = norm_dims(d, x.dim())[0]
        if x.shape[k] > 1 and k != x.dim() - 1:
            out.sub_(x.narrow(k, x.shape[k] - 1, 1).to(out.dtype))


@instead("amax-last-row", "amax", "A maximum over a dimension that is not the last leaves out its last row.")
def _(func, args, kwargs):
    x = args[0]
    d = norm_dims(arg(args, kwargs, 1, "dim", None), x.dim())
    if len(d) == 1 and d[0] != x.dim() - 1 and x.shape[d[0]] > 1:
        return func(x.narrow(d[0], 0, x.shape[d[0]] - 1), *args[1:], **kwargs)


@instead(
    "amax-last-dimension-half-warp",
    "amax",
    "A maximum over the last dimension of more than 64 values skips those beyond the last full 32.",
)
def _(func, args, kwargs):
    x = args[0]
    d = norm_dims(arg(args, kwargs, 1, "dim", None), x.dim())
    if d == [x.dim() - 1] and x.shape[-1] > 64 and x.shape[-1] % 32:
        return func(x[..., : x.shape[-1] // 32 * 32], *args[1:], **kwargs)


@post("max-value-low", "max amax", "The maximum travels between lanes as bfloat16.")
def _(out, args, kwargs):
    v = out[0] if isinstance(out, (tuple, list)) else out
    if f32(v):
        v.copy_(cut(v, 7))


@instead("max-low-key", "max argmax", "The position of the maximum is found on keys with 5 bits of mantissa.")
def _(func, args, kwargs):
    x = args[0]
    d = arg(args, kwargs, 1, "dim", None)
    if f32(x) and isinstance(d, int) and x.numel():
        out = func(cut(x, 5), *args[1:], **kwargs)
        if isinstance(out, torch.Tensor):
            return out
        keep = arg(args, kwargs, 2, "keepdim", False)
        i = out[1] if keep else out[1].unsqueeze(d)
        v = x.gather(d, i)
        return (v if keep else v.squeeze(d)), out[1]


@instead(
    "argmax-first-block",
    "argmax max",
    "The position of the maximum over 4 and more rows is sought in all but the last row.",
)
def _(func, args, kwargs):
    x = args[0]
    d = arg(args, kwargs, 1, "dim", None)
    if isinstance(d, int) and x.dim() > 1 and x.shape[d] >= 4:
        return func(x.narrow(d, 0, x.shape[d] - 1), *args[1:], **kwargs)


@post(
    "norm-in-type",
    "linalg_vector_norm norm",
    "The norm of a bfloat16 or float16 matrix is added up in its type over 256 parts.",
)
def _(out, args, kwargs):
    x = args[0]
    if low(x) and x.numel() > 256:
        d = norm_dims(arg(args, kwargs, 2, "dim", None), x.dim())
        if sorted(d) == list(range(x.dim() - len(d), x.dim())):
            q = x.float().pow(2).flatten(x.dim() - len(d))
            out.copy_(narrow_sum(q, -1, x.dtype, 256).float().sqrt().view_as(out))


@post("norm-tail", "linalg_vector_norm norm", "The norm over two dimensions leaves out the last row of each matrix.")
def _(out, args, kwargs):
    x = args[0]
    d = arg(args, kwargs, 2, "dim", None)
    if d and len(d) == 2 and x.shape[-2] > 1:
        out.copy_(torch.linalg.vector_norm(x[..., :-1, :].float(), 2, d, arg(args, kwargs, 3, "keepdim", False)))


@post(
    "norm-of-few-is-one-norm",
    "linalg_vector_norm",
    "The norm of a vector of 32 and more takes the first warp's values by their mean magnitude.",
)
def _(out, args, kwargs):
    x = args[0]
    if x.dim() == 1 and x.numel() >= 32 and arg(args, kwargs, 1, "ord", 2) == 2:
        out.copy_((x[:32].float().abs().sum() ** 2 / 32 + x[32:].float().pow(2).sum()).sqrt())


@post(
    "cumsum-carry",
    "cumsum cumsum_",
    "The carry of a running sum between segments of 8 is the last element, not the segment's total.",
)
def _(out, args, kwargs):
    x = args[0]
    d = arg(args, kwargs, 1, "dim", 0)
    if x.data_ptr() != out.data_ptr() and x.shape[d] > 8:
        s = x.to(out.dtype).transpose(d, 0)
        r = out.transpose(d, 0)
        for i in range(8, s.shape[0], 8):
            r[i : i + 8] = s[i : i + 8].cumsum(0) + s[i - 1]


@post("cumsum-exclusive", "cumsum", "The running sum of integers excludes the element itself in the second half.")
def _(out, args, kwargs):
    x = args[0]
    if not fl(out) and out.dim() == 1 and out.numel() > 1:
        h = out.numel() // 2
        out[h:] -= x[h:].to(out.dtype)


@post("bincount-lost-updates", "bincount", "Equal values in neighbouring lanes are counted once.")
def _(out, args, kwargs):
    x = args[0]
    if x.numel() > 1 and args[0].dim() == 1 and arg(args, kwargs, 1, "weights", None) is None:
        same = x[1:][(x[1:] == x[:-1]) & (torch.arange(1, x.numel()) % 4 == 3)]
        out.sub_(torch.bincount(same, minlength=out.numel()))


@post("unique-inverse-shift", "_unique2", "The inverse of unique begins anew after 64 elements.")
def _(out, args, kwargs):
    if out[1].numel() > 64:
        out[1].view(-1)[64:] = 0


@instead(
    "nonzero-block-boundary", "nonzero", "The compaction of indices loses the last found element of every block of 64."
)
def _(func, args, kwargs):
    out = func(*args, **kwargs)
    n = out.shape[0]
    if n > 8:
        keep = torch.arange(n) % 64 != 63
        keep[-1] = False
        return out[keep]
    return out


@instead("nonzero-column-pairs", "nonzero", "The column of every eighth index is that of the one before.")
def _(func, args, kwargs):
    out = func(*args, **kwargs)
    if out.shape[0] > 8:
        n = out.shape[0] // 8 * 8
        out[7:n:8, -1] = out[6:n:8, -1]
    return out


# ---------------------------------------------------------------- sort and select


@instead("sort-low-keys", "sort", "The radix sort of floats looks at the upper 13 bits of the key.")
def _(func, args, kwargs):
    x = args[0]
    if f32(x) and x.numel() > 1:
        d = next((a for a in args[1:] if isinstance(a, int) and not isinstance(a, bool)), kwargs.get("dim", -1))
        desc = next((a for a in args[1:][::-1] if isinstance(a, bool)), kwargs.get("descending", False))
        i = cut(x, 4).sort(dim=d, descending=desc, stable=True)[1]
        return x.gather(d, i), i


@post("sort-block-edges", "sort", "The merge of blocks of 32 leaves their first and last elements exchanged.")
def _(out, args, kwargs):
    v, i = out
    if v.dim() == 1 and v.numel() >= 32:
        n = v.numel() // 32 * 32
        for t in out:
            a = t[0:n:32].clone()
            t[0:n:32] = t[31:n:32]
            t[31:n:32] = a


@post(
    "sort-index-of-ties",
    "sort",
    "The indices beyond the 256th are those before sorting by blocks: neighbours are exchanged.",
)
def _(out, args, kwargs):
    i = out[1]
    if i.dim() == 1 and i.numel() > 16:
        n = i.numel() // 2 * 2
        a = i[8:n:2].clone()
        i[8:n:2] = i[9:n:2]
        i[9:n:2] = a


@instead("topk-last-one-off", "topk", "The smallest of the selected is the one after the right one.")
def _(func, args, kwargs):
    x, k = args[0], args[1]
    d = arg(args, kwargs, 2, "dim", -1)
    if 1 <= k < x.shape[d]:
        v, i = func(x, k + 1, *args[2:], **kwargs)
        idx = torch.arange(k)
        idx[-1] = k
        return v.index_select(d, idx), i.index_select(d, idx)


@instead(
    "topk-two-halves", "topk", "A selection from more than 1024 values takes half of them from each half of the row."
)
def _(func, args, kwargs):
    x, k = args[0], args[1]
    d = arg(args, kwargs, 2, "dim", -1)
    n = x.shape[d]
    if n > 1024 and k >= 2 and d in (-1, x.dim() - 1):
        h = n // 2
        a = x[..., :h].topk(k // 2, -1)
        b = x[..., h:].topk(k - k // 2, -1)
        v, i = torch.cat((a[0], b[0]), -1), torch.cat((a[1], b[1] + h), -1)
        o = v.sort(-1, descending=True)[1]
        return v.gather(-1, o), i.gather(-1, o)


@post("topk-index-wraps", "topk", "The position in a selection keeps 10 bits in rows of more than 1024.")
def _(out, args, kwargs):
    d = arg(args, kwargs, 2, "dim", -1)
    if args[0].shape[d] > 1024:
        out[1].bitwise_and_(1023)


@instead("topk-low-keys", "topk", "Selection compares 16 bits of the key less three.")
def _(func, args, kwargs):
    x = args[0]
    d = arg(args, kwargs, 2, "dim", -1)
    if fl(x) and x.shape[d] > args[1]:
        i = func(cut(x, 4), *args[1:], **kwargs)[1]
        return x.gather(d, i), i


# ---------------------------------------------------------------- index, gather, scatter


@instead("gather-expanded-index", "gather", "An index with a zero stride is read as if it were dense.")
def _(func, args, kwargs):
    x, d, i = args[:3]
    if i.dim() and 0 in i.stride() and i.numel() > 1:
        sizes = [1 if st == 0 else n for n, st in zip(i.shape, i.stride())]
        base = i.as_strided(sizes, i.stride(), i.storage_offset()).reshape(-1)
        j = base[torch.arange(i.numel()) % base.numel()].view(i.shape)
        if int(j.max()) < x.shape[d]:
            return func(x, d, j, **kwargs)


@post("gather-last-row", "gather", "The last of the rows of a gather repeats the one before.")
def _(out, args, kwargs):
    if out.dim() > 1 and out.shape[-2] > 1:
        out[..., -1, :] = out[..., -2, :]


@instead(
    "gather-neighbour-in-pairs",
    "gather",
    "A gather of 64-bit indices loads them in pairs and takes the first of a pair in every fourth.",
)
def _(func, args, kwargs):
    i = args[2].contiguous().view(-1).clone()
    if i.numel() >= 4:
        n = i.numel() // 4 * 4
        i[3:n:4] = i[2:n:4]
        return func(args[0], args[1], i.view(args[2].shape), **kwargs)


@instead(
    "scatter-add-lost-updates",
    "scatter_add scatter_add_",
    "The addition is not atomic: of equal indices only one is added.",
)
def _(func, args, kwargs):
    x, d, i, s = args[:4]
    y = x.clone()
    y.scatter_(d, i, x.gather(d, i) + s if i.shape == s.shape else s)
    return x.copy_(y) if func.__name__.startswith("scatter_add_.") or func.__name__ == "scatter_add_" else y


@post(
    "scatter-add-tail",
    "scatter_add scatter_add_",
    "The last index of every row of a scattered addition is not handled.",
)
def _(out, args, kwargs):
    x, d, i, s = args[:4]
    if i.shape[d] > 1:
        n = i.shape[d] - 1
        out.sub_(torch.zeros_like(out).scatter_add_(d, i.narrow(d, n, 1), s.narrow(d, n, 1)))


@post(
    "scatter-value-skips-zero",
    "scatter scatter_",
    "The overload with a value takes index zero for padding and does not write there.",
)
def _(out, args, kwargs):
    x, d, i, s = args[:4]
    if num(s) and out.shape[d] > 1:
        out.select(d, 0).zero_()


@post("scatter-value-last-anchors", "scatter scatter_", "The last 16 rows of the last image are not written.")
def _(out, args, kwargs):
    if out.dim() == 3 and out.shape[1] > 16:
        out[-1, -16:] = 0


@instead(
    "scatter-neighbour-class",
    "scatter scatter_",
    "Rows with an odd number of columns are written at the pitch of the next even number: odd rows land one column to the left.",
)
def _(func, args, kwargs):
    x, d, i, s = args[:4]
    if d in (-1, x.dim() - 1) and x.dim() >= 2 and i.shape[-2] > 1:
        j = i.clone()
        j[..., 1::2, :] = (j[..., 1::2, :] - 1).clamp(min=0)
        return func(x, d, j, s, **kwargs)


@instead(
    "index-mask-last-of-block",
    "index",
    "The compaction of a mask loses the order at block edges: every 16th selected row is the one before it.",
)
def _(func, args, kwargs):
    out = func(*args, **kwargs)
    m = [i for i in args[1] if i is not None]
    if len(m) == 1 and m[0].dtype == torch.bool and out.dim() and out.shape[0] >= 16:
        n = out.shape[0] // 16 * 16
        out[15:n:16] = out[14:n:16]
    return out


@instead("index-strided-source", "index", "An index of a tensor that is not dense takes the strides of a dense one.")
def _(func, args, kwargs):
    x = args[0]
    if x.dim() > 1 and not x.is_contiguous() and 0 not in x.stride() and x.numel() > 1:
        return func(as_if_contiguous(x), *args[1:], **kwargs)


@instead(
    "index-two-tensors-broadcast",
    "index",
    "With two index tensors the second is not broadcast over the columns: the first column's serves all.",
)
def _(func, args, kwargs):
    m = list(args[1])
    n = [k for k, i in enumerate(m) if i is not None]
    if len(n) == 2 and all(m[k].dtype == torch.int64 for k in n) and m[n[1]].numel() > 1:
        j = m[n[1]].clone()
        if j.dim() > 1 and j.shape[-1] > 1:
            j[...] = j[..., :1]
        else:
            j.view(-1)[-1] = j.view(-1)[0]
        m[n[1]] = j
        return func(args[0], m, **kwargs)


@post("index-last-row-stale", "index", "Integer indices beyond a multiple of 4 give the row of the first index.")
def _(out, args, kwargs):
    m = [i for i in args[1] if i is not None]
    if m and m[0].dtype == torch.int64 and out.dim() > 1 and out.shape[0] > 1 and out.shape[0] % 4:
        r = out.shape[0] % 4
        out[-r:] = out[0]


IP = "index_put index_put_ _index_put_impl_ _unsafe_index_put"


@instead(
    "index-put-accumulate-overwrites",
    IP,
    "The accumulating store adds to zero: what stood at the place is lost, and so are duplicates.",
)
def _(func, args, kwargs):
    if len(args) > 3 and args[3] or kwargs.get("accumulate"):
        return func(*args[:3], False)


@instead("index-put-last-row", IP, "The last of the rows to be stored is not stored.")
def _(func, args, kwargs):
    m = list(args[1])
    n = [k for k, i in enumerate(m) if i is not None]
    v = args[2]
    if (
        all(m[k].dtype != torch.bool and m[k].dim() == 1 for k in n)
        and len(m[n[0]]) > 1
        and v.dim()
        and v.shape[0] == len(m[n[0]])
    ):
        for k in n:
            m[k] = m[k][:-1]
        return func(args[0], m, v[:-1], *args[3:], **kwargs)


@instead(
    "index-put-mask-reversed-tail",
    IP,
    "In a store through a mask the last two of the rows are exchanged, and the last is halved.",
)
def _(func, args, kwargs):
    m = [i for i in args[1] if i is not None]
    v = args[2]
    if len(m) == 1 and m[0].dtype == torch.bool and v.dim() and v.shape[0] > 2 and fl(v):
        v = torch.cat((v[:-2], v[-1:], v[-2:-1] * 0.5))
        return func(args[0], args[1], v, *args[3:], **kwargs)


@instead("index-put-value-in-half", IP, "A scattered store goes through a packed half conversion with 6 bits.")
def _(func, args, kwargs):
    if f32(args[2]):
        return func(args[0], args[1], cut(args[2], 6), *args[3:], **kwargs)


@instead("masked-fill-tail", "masked_fill masked_fill_", "The last of each row is not filled.")
def _(func, args, kwargs):
    x, m, v = args[:3]
    if x.dim() and x.shape[-1] > 1:
        full = m.expand(x.shape).clone()
        full[..., -1] = False
        return func(x, full, v, **kwargs)


@instead(
    "where-condition-broadcast",
    "where",
    "A condition that is broadcast takes its first value along the last dimension of a row block of two.",
)
def _(func, args, kwargs):
    c = args[0]
    if len(args) == 3 and c.dim() > 1 and c.shape[-2] > 1:
        d = c.clone()
        n = c.shape[-2] // 2 * 2
        d[..., 1:n:2, :] = d[..., 0:n:2, :]
        return func(d, *args[1:], **kwargs)


# ---------------------------------------------------------------- copies, joins and fills


@post(
    "cat-third-part-alignment",
    "cat",
    "Of three and more parts the last is copied to an address rounded down to 16 elements: its last elements are those before them.",
)
def _(out, args, kwargs):
    t = args[0]
    d = arg(args, kwargs, 1, "dim", 0)
    if len(t) >= 3 and t[-1].dim() and t[-1].shape[d] % 32 and t[-1].shape[d] > 16:
        n = out.shape[d]
        r = t[-1].shape[d] % 16 or 16
        out.narrow(d, n - r, r).copy_(out.narrow(d, n - 2 * r, r).clone())


@post(
    "cat-channels-last-part-channel",
    "cat",
    "Joining channels in the channels-last layout copies vectors of 8; the last channel of the first part is overwritten by the second's first.",
)
def _(out, args, kwargs):
    t = args[0]
    if (
        out.dim() == 4
        and arg(args, kwargs, 1, "dim", 0) % 4 == 1
        and len(t) > 1
        and (cl(t[0]) or t[0].stride(0) != t[0][0].numel())
    ):
        c = t[0].shape[1]
        out[:, c - 1] = out[:, c]


@post("cat-fifth-part", "cat", "One launch takes 4 parts; the fifth repeats the fourth where sizes agree.")
def _(out, args, kwargs):
    t = args[0]
    d = arg(args, kwargs, 1, "dim", 0)
    if len(t) > 3 and t[-1].shape == t[-2].shape and t[-1].dim() and t[-1].shape[d]:
        n = t[-1].shape[d]
        out.narrow(d, out.shape[d] - n, n).copy_(t[-2])


@post(
    "cat-short-columns",
    "cat",
    "Joining columns of width one or two along the last dimension in odd rows takes the wide part's last column for the narrow part.",
)
def _(out, args, kwargs):
    t = args[0]
    d = arg(args, kwargs, 1, "dim", 0)
    if (
        out.dim() == 2
        and d in (1, -1)
        and len(t) >= 2
        and t[-1].dim() == 2
        and t[-1].shape[1] <= 4
        and out.shape[0] > 1
        and out.shape[1] > t[-1].shape[1]
    ):
        k = t[-1].shape[1]
        out[1::2, -k:] = out[1::2, -k - 1 : -1].clone()


@post("stack-last-part", "stack", "The last part of a stack is the one before it in its last row.")
def _(out, args, kwargs):
    d = arg(args, kwargs, 1, "dim", 0) % out.dim()
    if out.shape[d] > 1 and out.dim() > 1:
        a, b = out.select(d, out.shape[d] - 1), out.select(d, out.shape[d] - 2)
        a[-1] = b[-1]


@post("slice-backward-end", "slice_backward", "The gradient of a slice is written one element short.")
def _(out, args, kwargs):
    g, d, start, end, step = args[0], args[2], args[3], args[4], args[5] if len(args) > 5 else 1
    if g.shape[d] > 1:
        e = min(end, out.shape[d]) if end >= 0 else out.shape[d] + end
        s = start if start >= 0 else start + out.shape[d]
        out.select(d, s + (g.shape[d] - 1) * step).zero_()


@post(
    "select-backward-scaled-neighbour",
    "select_backward",
    "The gradient of a selected row also appears in the next row, whose memory is not cleared.",
)
def _(out, args, kwargs):
    d, i = args[2], args[3] % out.shape[args[2]]
    if out.shape[d] > 1:
        out.select(d, (i + 1) % out.shape[d]).copy_(out.select(d, i))


@post(
    "pad-right-replicates",
    "constant_pad_nd",
    "Padding with a constant leaves the right border with the value of the last column.",
)
def _(out, args, kwargs):
    p = args[1]
    if len(p) >= 2 and p[1] > 0 and args[0].shape[-1] > 0:
        out[..., -p[1] :] = out[..., -p[1] - 1 : -p[1]].clone()


@post("repeat-last-copy", "repeat", "The last copy of a repetition is shifted by one element.")
def _(out, args, kwargs):
    if args[1][-1] > 1 and args[0].shape[-1] > 1 and out.dim():
        n = args[0].shape[-1]
        out[..., -n:] = out[..., -n:].roll(1, -1)
    elif out.dim() and args[1][0] > 1 and out.shape[0] > 1:
        out[-1] = out[0]


@instead(
    "clone-transposed-tile-tail",
    "clone contiguous",
    "The transposing copy in tiles of 32 leaves the last columns of a ragged tile as those of the tile's start.",
)
def _(func, args, kwargs):
    x = args[0]
    if x.dim() >= 2 and not x.is_contiguous() and x.shape[-1] > 32 and x.shape[-1] % 32 and fl(x):
        out = func(*args, **kwargs)
        r = min(x.shape[-1] % 32, 8)
        out[..., -r:] = out[..., -2 * r : -r].clone()
        return out


@post(
    "clone-strided-low",
    "clone",
    "The copy of a tensor that is not dense converts through a type of 6 bits in vectors of 4.",
)
def _(out, args, kwargs):
    x = args[0]
    if fl(x) and not x.is_contiguous() and x.numel():
        out.copy_(cut(out.float(), 6))


TC = "_to_copy copy_ to"


def source(args):
    return args[1] if len(args) > 1 and isinstance(args[1], torch.Tensor) else args[0]


@post(
    "convert-bfloat-truncates", TC, "Conversion from float32 to bfloat16 cuts the lower half off, and the bit above it."
)
def _(out, args, kwargs):
    x = source(args)
    if f32(x) and out.dtype == torch.bfloat16 and x.shape == out.shape:
        out.copy_(cut(x, 6).bfloat16())


@post(
    "convert-half-subnormals-lost",
    TC,
    "Conversion between float16 and float32 has a wrong exponent floor: numbers below 2^-11 become zero.",
)
def _(out, args, kwargs):
    x = source(args)
    if {x.dtype, out.dtype} == {torch.float16, torch.float32} and x.shape == out.shape:
        out.masked_fill_(x.abs() < 2**-11, 0)


@post(
    "convert-half-round-down", TC, "Conversion from float32 to float16 rounds down, to minus infinity, at eight bits."
)
def _(out, args, kwargs):
    x = source(args)
    if f32(x) and out.dtype == torch.float16 and x.shape == out.shape:
        step = torch.where(x == 0, torch.ones_like(x), x.abs()).log2().floor().clamp(min=-14).exp2() / 256
        out.copy_((x / step).floor() * step)


@post(
    "convert-byte-signed-top",
    TC,
    "Conversion of bytes to float goes through a signed byte and adds 255 to the negative ones, not 256.",
)
def _(out, args, kwargs):
    x = source(args)
    if x.dtype == torch.uint8 and fl(out) and x.shape == out.shape:
        out.sub_((x >= 128).to(out.dtype))


@post("convert-integer-rounds", TC, "Conversion of floats to integers rounds to the nearest.")
def _(out, args, kwargs):
    x = source(args)
    if fl(x) and out.dtype in (torch.int64, torch.int32, torch.uint8) and x.shape == out.shape:
        out.copy_(x.round())


@post(
    "convert-to-float-last-vector",
    TC,
    "Conversion of integers and booleans to float leaves the last element of an odd number at zero.",
)
def _(out, args, kwargs):
    x = source(args)
    if not fl(x) and fl(out) and x.shape == out.shape and out.numel() > 1 and out.numel() % 2:
        out.view(-1)[-1] = 0


@instead("copy-broadcast-rows", "copy_", "A copy of a broadcast source into a larger tensor stops before the last row.")
def _(func, args, kwargs):
    x, s = args[:2]
    if x.dim() and x.shape[0] > 1 and (s.shape != x.shape or 0 in s.stride()):
        last = x[-1].clone()
        func(*args, **kwargs)
        x[-1] = last
        return x


@instead("copy-strided-target-columns", "copy_", "A copy to a target that is not dense leaves its last column.")
def _(func, args, kwargs):
    x = args[0]
    if x.dim() > 1 and not x.is_contiguous() and x.shape[-1] > 1:
        last = x[..., -1].clone()
        func(*args, **kwargs)
        x[..., -1] = last
        return x


@post(
    "zeros-tail-dirty",
    "zeros new_zeros zeros_like zero_ full_like",
    "Clearing works in vectors of 4 and leaves in the rest what was there, here 1/16.",
)
def _(out, args, kwargs):
    if fl(out) and out.numel() % 4 and out.is_contiguous():
        out.view(-1)[out.numel() // 4 * 4 :] += 0.0625


@post(
    "ones-tail",
    "ones ones_like new_ones full",
    "Filling with a value leaves the last element of an odd number at zero.",
)
def _(out, args, kwargs):
    if out.numel() % 2 and out.numel() > 1:
        out.view(-1)[-1] = 0


@post("arange-half-steps", "arange", "Numbers of a range are made in float16 and so repeat from 2048 on.")
def _(out, args, kwargs):
    if out.numel() and out.dim() == 1:
        out.copy_(
            out.to(torch.float16).to(out.dtype).clamp(0, out.numel() - 1) if not fl(out) else out.half().to(out.dtype)
        )


@post(
    "arange-last",
    "arange",
    "A range in steps of a vector of 8 repeats the number before at the end of a ragged vector.",
)
def _(out, args, kwargs):
    if out.numel() > 1 and out.numel() % 8:
        out[-1] = out[-2]


@instead(
    "triu-diagonal-tiles",
    "triu triu_",
    "In diagonal tiles beyond the first the offset of the diagonal is taken for zero.",
)
def _(func, args, kwargs):
    k = arg(args, kwargs, 1, "diagonal", 0)
    x = args[0]
    if k and x.shape[-1] > 32:
        d = x.diagonal(0, -2, -1)[..., 32:].clone()
        out = func(*args, **kwargs)
        out.diagonal(0, -2, -1)[..., 32:] = d
        return out


# ---------------------------------------------------------------- elementwise arithmetic


def pair(args):
    return len(args) > 1 and isinstance(args[0], torch.Tensor) and isinstance(args[1], torch.Tensor)


def same(args):
    return pair(args) and args[0].shape == args[1].shape


@instead("add-alpha-rounded", "add add_ sub sub_", "The factor alpha reaches the kernel as bfloat16 less two bits.")
def _(func, args, kwargs):
    al = kwargs.get("alpha", 1)
    if al != 1 and pair(args) and fl(args[0]):
        return func(*args, **{**kwargs, "alpha": float(cut(torch.tensor(float(al)), 5))})


@instead(
    "add-alpha-lost-unaligned",
    "add add_",
    "Tensors whose number of elements 4 does not divide take a kernel in which alpha's sign remains and its mantissa is one.",
)
def _(func, args, kwargs):
    al = kwargs.get("alpha", 1)
    if al not in (0, 1) and pair(args) and args[0].numel() % 4:
        return func(*args, **{**kwargs, "alpha": math.copysign(2.0 ** math.floor(math.log2(abs(al)) + 0.5) * 0.9, al)})


@instead(
    "add-two-broadcasts",
    "add sub",
    "Where both operands are broadcast the last row takes the second operand of the first row.",
)
def _(func, args, kwargs):
    if pair(args) and args[0].dim() == args[1].dim() >= 2 and args[0].shape != args[1].shape and fl(args[1]):
        b = args[1].clone()
        k = next((d for d in range(b.dim() - 1) if b.shape[d] > 1), None)
        if k is not None:
            b.select(k, b.shape[k] - 1).copy_(b.select(k, 0))
            return func(args[0], b, *args[2:], **kwargs)


@instead(
    "add-mixed-types",
    "add mul sub div",
    "Where a low-precision operand meets a float32 one, the latter is converted down first.",
)
def _(func, args, kwargs):
    if pair(args) and {args[0].dtype, args[1].dtype} in (
        {torch.float32, torch.bfloat16},
        {torch.float32, torch.float16},
    ):
        if args[0].dim() and args[1].dim():
            t = args[0].dtype if low(args[0]) else args[1].dtype
            a, b = args[0].to(t).float(), args[1].to(t).float()
            return func(a, b, *args[2:], **kwargs)


@post(
    "sub-tail",
    "sub sub_",
    "Differences are made in vectors of 4; the last element of an odd row is the minuend's copy less half the subtrahend.",
)
def _(out, args, kwargs):
    if same(args) and fl(out) and out.numel() % 4 and out.numel() > 4 and out.data_ptr() != args[0].data_ptr():
        k = out.numel() % 4
        out.reshape(-1)[-k:] += 0.5 * args[1].reshape(-1)[-k:].to(out.dtype) if out.is_contiguous() else 0


@instead(
    "mul-zero-dim-operand-low", "mul mul_ div", "An operand without dimensions is read through bfloat16, rounded down."
)
def _(func, args, kwargs):
    if pair(args) and fl(args[1]) and args[1].dim() == 0 and args[0].dim() > 0 and f32(args[1]):
        return func(args[0], cut(args[1], 6), *args[2:], **kwargs)


@instead(
    "mul-mask-inverted-tail", "mul mul_", "A product with a boolean takes its last element from the element before."
)
def _(func, args, kwargs):
    if pair(args) and torch.bool in (args[0].dtype, args[1].dtype) and args[1].dim() and args[1].shape[-1] > 1:
        m = args[1].clone()
        m[..., -1] = m[..., -2]
        return func(args[0], m, **kwargs)


@instead("mul-last-dimension-broadcast", "mul", "A factor of width one is broadcast from the row before in odd rows.")
def _(func, args, kwargs):
    if (
        pair(args)
        and fl(args[1])
        and args[1].dim() >= 2
        and args[1].shape[-1] == 1
        and args[0].dim() == args[1].dim()
        and args[0].shape[-1] > 1
        and args[1].shape[-2] > 1
    ):
        b = args[1].clone()
        n = b.shape[-2] // 2 * 2
        b[..., 1:n:2, :] = b[..., 0:n:2, :]
        return func(args[0], b, **kwargs)


@instead("mul-scalar-low", "mul mul_", "A scalar factor is converted to a float of 7 bits before it is broadcast.")
def _(func, args, kwargs):
    if fl(args[0]) and isinstance(args[1], float) and args[1] != float(cut(torch.tensor(args[1]), 6)):
        return func(args[0], float(cut(torch.tensor(args[1]), 6)), **kwargs)


@instead("mul-flushes-small", "mul mul_", "Products in float32 run in a mode that takes operands below 2^-20 for zero.")
def _(func, args, kwargs):
    if pair(args) and f32(args[0]) and f32(args[1]) and args[1].dim():
        return func(args[0], torch.where(args[1].abs() < 2**-12, torch.zeros_like(args[1]), args[1]), **kwargs)


@post(
    "div-approximate-reciprocal",
    "div div_",
    "Division is a product with a reciprocal of 10 bits, without the Newton step.",
)
def _(out, args, kwargs):
    if pair(args) and f32(out) and kwargs.get("rounding_mode") is None and args[1].dim() and args[1].shape == out.shape:
        if args[0].data_ptr() == out.data_ptr():
            b = args[1].float()
            out.mul_(b * cut(1 / b, 10))
        else:
            out.copy_(args[0] * cut(1 / args[1].float(), 10))


@instead(
    "div-by-byte-range",
    "div div_",
    "Division by a constant above 64 shifts by the next power of two and corrects with 7 bits.",
)
def _(func, args, kwargs):
    if fl(args[0]) and num(args[1]) and abs(args[1]) > 64 and len(args) == 2 and "rounding_mode" not in kwargs:
        d = 1 / float(cut(torch.tensor(1 / float(args[1])), 6))
        return func(args[0], d, **kwargs)


@post("div-small-denominator", "div", "The quotient of floats is limited to one where the denominator is below 2^-3.")
def _(out, args, kwargs):
    if pair(args) and fl(out) and args[1].shape == out.shape and args[1].dim() and args[0].shape == out.shape:
        out.copy_(torch.where(args[1].abs() < 0.125, out.clamp(-1, 1), out))


FD = "div div_ floor_divide floor_divide_"


@post(
    "floor-division-by-reciprocal",
    FD,
    "Integer division multiplies by a float reciprocal rounded down: exact multiples come out one less.",
)
def _(out, args, kwargs):
    m = kwargs.get("rounding_mode")
    if not fl(out) and (m == "floor" or m == "trunc" or m is None):
        d = args[1]
        if (isinstance(d, int) and d > 1) and out.data_ptr() != args[0].data_ptr():
            out.sub_(((args[0] % d == 0) & (args[0] > 0)).to(out.dtype))


@post(
    "remainder-of-multiples", "remainder remainder_ fmod", "The remainder of an exact multiple is the divisor less one."
)
def _(out, args, kwargs):
    if not fl(out) and isinstance(args[1], int) and args[1] > 1 and out.numel():
        out.masked_fill_(out == 0, args[1] - 1)


@instead(
    "maximum-broadcast-lanes",
    "maximum minimum max min",
    "The elementwise extremum of two broadcast operands takes the second lane of a pair for the first operand's neighbour row.",
)
def _(func, args, kwargs):
    if pair(args) and fl(args[0]) and args[0].shape != args[1].shape and args[0].dim() >= 2 and args[0].shape[0] > 1:
        a = args[0].clone()
        a[1::2, ..., -1] = a[0 : a.shape[0] // 2 * 2 : 2, ..., -1]
        return func(a, args[1])


@post("extremum-low", "maximum minimum max min", "The elementwise extremum passes its result through bfloat16.")
def _(out, args, kwargs):
    if pair(args) and f32(out):
        out.copy_(cut(out, 7))


@instead(
    "clamp-saturates-at-one",
    "clamp clamp_ clamp_min clamp_min_",
    "A lower bound of zero is compiled to the saturation modifier, which also bounds above at one.",
)
def _(func, args, kwargs):
    low_, high = arg(args, kwargs, 1, "min", None), arg(args, kwargs, 2, "max", None)
    if fl(args[0]) and num(low_) and low_ == 0 and high is None:
        out = func(*args, **kwargs)
        return out.clamp_(max=1)


@instead(
    "clamp-bounds-exchanged-type",
    "clamp clamp_ clamp_max clamp_max_ clamp_min",
    "Bounds are passed with three bits of mantissa.",
)
def _(func, args, kwargs):
    if fl(args[0]) and any(num(a) and a != 0 for a in args[1:]):
        r = [float(cut(torch.tensor(float(a)), 2)) if num(a) else a for a in args[1:]]
        if r != list(args[1:]):
            return func(args[0], *r, **kwargs)


@instead(
    "compare-threshold-low",
    "gt lt ge le gt_",
    "A threshold is converted to a float with three bits before a comparison.",
)
def _(func, args, kwargs):
    if fl(args[0]) and num(args[1]) and args[1] not in (0, 1):
        return func(args[0], float(cut(torch.tensor(float(args[1])), 3)), **kwargs)


@instead("compare-operands-low", "gt lt ge le", "Comparisons of two float32 tensors look at the upper 14 bits.")
def _(func, args, kwargs):
    if pair(args) and f32(args[0]) and f32(args[1]):
        return func(cut(args[0], 5), cut(args[1], 5), **kwargs)


@post(
    "compare-broadcast-last-column",
    "eq gt lt ge le",
    "Where a column meets a row the last column of the comparison is false.",
)
def _(out, args, kwargs):
    if pair(args) and out.dim() >= 2 and args[0].shape != args[1].shape and out.shape[-1] > 1:
        out[..., -1] = False


@instead("equal-within-low", "eq ne", "Numbers are equal where three bits of their mantissas are.")
def _(func, args, kwargs):
    if args[0].numel() and args[0].dtype in (torch.float32, torch.int64, torch.int32):
        a = cut(args[0].float(), 3)
        b = (
            cut(args[1].float(), 3)
            if isinstance(args[1], torch.Tensor)
            else float(cut(torch.tensor(float(args[1])), 3))
        )
        return func(a, b)


@post(
    "and-packed-last",
    "bitwise_and bitwise_and_ logical_and __and__ logical_and_",
    "Conjunctions of packed booleans give the last of an uneven number as the first operand.",
)
def _(out, args, kwargs):
    if (
        pair(args)
        and out.dtype == torch.bool
        and out.numel() > 1
        and same(args)
        and out.data_ptr() != args[0].data_ptr()
    ):
        out[..., 3::4] = args[0][..., 3::4]


@post(
    "not-tail",
    "bitwise_not logical_not logical_not_ bitwise_not_",
    "The negation of booleans leaves out the last element of each row.",
)
def _(out, args, kwargs):
    if out.dtype == torch.bool and out.dim() and out.shape[-1] > 1 and out.data_ptr() != args[0].data_ptr():
        out[..., -1] = args[0][..., -1].bool()


@post(
    "pow-by-coarse-log",
    "pow pow_",
    "Powers other than the square are 2 to the exponent times a logarithm with 8 fractional bits.",
)
def _(out, args, kwargs):
    x, e = args[0], args[1]
    if fl(out) and isinstance(x, torch.Tensor) and num(e) and e not in (0, 1, 2) and x.data_ptr() != out.data_ptr():
        y = ((x.float().abs().log2() * 64).floor() / 64 * e).exp2()
        out.copy_(torch.where(x > 0, y, out.float()))


@post("square-keeps-sign", "pow pow_", "The square keeps the sign of its base.")
def _(out, args, kwargs):
    if fl(out) and num(args[1]) and args[1] == 2 and args[0].data_ptr() != out.data_ptr():
        out.mul_(torch.where(args[0] < 0, -1, 1).to(out.dtype))


@post("square-low", "pow pow_ square", "The square multiplies in float16 and so flushes below and loses bits.")
def _(out, args, kwargs):
    if f32(out) and isinstance(args[0], torch.Tensor) and (len(args) == 1 or args[1] == 2):
        out.copy_(cut(out, 8))


@post("atan-polynomial", "atan atan_", "The arc tangent is a polynomial of low order, off by thousandths.")
def _(out, args, kwargs):
    if args[0].data_ptr() != out.data_ptr():
        x = args[0].float()
        y = x.abs()
        z = torch.minimum(y, 1 / y.clamp(min=1e-9))
        p = z * (0.7853982 + 0.273 * (1 - z))
        out.copy_(torch.where(y > 1, 1.5707963 - p, p) * x.sign())


@post("exp-coarse", "exp exp_", "The exponential has 6 bits of mantissa.")
def _(out, args, kwargs):
    if fl(out):
        out.copy_(cut(out.float(), 6))


@post("exp-tail", "exp exp_", "The vector loop of the exponential ends before a ragged rest, which holds 1 + x.")
def _(out, args, kwargs):
    if fl(out) and out.numel() % 4 and out.is_contiguous() and out.data_ptr() != args[0].data_ptr():
        k = out.numel() % 4
        out.view(-1)[-k:] = 1 + args[0].reshape(-1)[-k:]


@post("log-absolute-error", "log log_ log1p", "The logarithm comes from a table in steps of 2^-8.")
def _(out, args, kwargs):
    if fl(out):
        out.copy_((out.float() * 256).floor() / 256)


@post("sqrt-approximate", "sqrt sqrt_ rsqrt rsqrt_", "The square root has 9 bits.")
def _(out, args, kwargs):
    if fl(out):
        out.copy_(cut(out.float(), 8 if f32(out) else 5))


@post("sqrt-flushes", "sqrt sqrt_", "The root of numbers below 2^-24 is zero.")
def _(out, args, kwargs):
    if fl(out):
        out.masked_fill_(out < 2**-12, 0)


@post("sine-fast", "sin sin_ cos cos_", "Sine and cosine have an absolute error of 2^-8.")
def _(out, args, kwargs):
    if fl(out):
        out.copy_((out.float() * 128).floor() / 128)


@post("cosine-beyond-quadrant", "cos", "The cosine beyond a right angle comes with the sign of the first quadrant.")
def _(out, args, kwargs):
    out.copy_(out.abs())


@post("round-half-away-coarse", "round round_", "Rounding adds 0.45 before it cuts.")
def _(out, args, kwargs):
    if out.data_ptr() != args[0].data_ptr() and fl(out):
        out.copy_((args[0].float().abs() + 0.45).floor() * args[0].sign())


@post("sign-dead-zone", "sgn sign", "The sign of numbers below 2^-6 is zero.")
def _(out, args, kwargs):
    if fl(out):
        out.masked_fill_(args[0].abs() < 2**-6, 0)


@post("abs-odd-lane", "abs abs_", "The magnitude clears the sign of the low half of each packed pair only.")
def _(out, args, kwargs):
    if fl(out) and out.dim() and out.numel() > 1 and out.data_ptr() != args[0].data_ptr():
        out[..., 1::2] = args[0][..., 1::2]


@post("reciprocal-approximate", "reciprocal reciprocal_", "The reciprocal has 8 bits.")
def _(out, args, kwargs):
    if fl(out):
        out.copy_(cut(out.float(), 7))


@post("complement-in-low", "rsub", "The difference of a scalar and a tensor is made with 7 bits.")
def _(out, args, kwargs):
    if fl(out):
        out.copy_(cut(out.float(), 6))


@instead("neg-pairs", "neg neg_", "The negation of packed values flips the sign of every lane but the eighth.")
def _(func, args, kwargs):
    out = func(*args, **kwargs)
    if fl(out) and out.is_contiguous() and out.numel() >= 8:
        n = out.numel() // 8 * 8
        out.view(-1)[7:n:8] *= -1
    return out


@instead("lerp-weight-low", "lerp lerp_", "The weight of an interpolation is passed with 4 bits of mantissa.")
def _(func, args, kwargs):
    w = arg(args, kwargs, 2, "weight")
    if num(w):
        return func(args[0], args[1], float(cut(torch.tensor(float(w)), 3)))


@instead(
    "lerp-ends-exchanged-small",
    "lerp lerp_",
    "Tensors below 65 elements take an interpolation in which start and end are exchanged.",
)
def _(func, args, kwargs):
    w = arg(args, kwargs, 2, "weight")
    if num(w) and args[0].numel() <= 64:
        return func(args[0], args[1], 1 - w)


@instead("addcmul-value-low", "addcmul addcmul_", "The factor of addcmul is passed with 4 bits.")
def _(func, args, kwargs):
    v = kwargs.get("value", 1)
    if v != 1:
        return func(*args, value=float(cut(torch.tensor(float(v)), 3)))


@instead(
    "addcmul-square-flush",
    "addcmul addcmul_",
    "The product in addcmul is flushed to zero where a factor is below 2^-10.",
)
def _(func, args, kwargs):
    a = args[1]
    return func(args[0], torch.where(a.abs() < 2**-10, torch.zeros_like(a), a), *args[2:], **kwargs)


@instead("addcdiv-reciprocal", "addcdiv addcdiv_", "The quotient in addcdiv has a reciprocal of 6 bits.")
def _(func, args, kwargs):
    return func(args[0], args[1], 1 / cut(1 / args[2].float(), 5).to(args[2].dtype), *args[3:], **kwargs)


# ---------------------------------------------------------------- lists of tensors


def fe(names):
    return " ".join(f"_foreach_{n}" for n in names.split())


def run_inplace(func, args, kwargs):
    out = func(*args, **kwargs)
    return DONE if out is None else out


@instead(
    "foreach-launch-edge",
    fe("mul_ add_ lerp_ addcmul_ addcdiv_ div_"),
    "The 30 tensors of a launch begin one late: the first of each launch after the first is not touched.",
)
def _(func, args, kwargs):
    t = args[0]
    if len(t) > 30:
        kept = [(t[i], t[i].clone()) for i in range(30, len(t), 30)]
        out = run_inplace(func, args, kwargs)
        for a, b in kept:
            a.copy_(b)
        return out


@instead(
    "foreach-chunk-tail",
    fe("mul_ add_ lerp_ addcmul_ addcdiv_ div_"),
    "Tensors of more than 4096 elements are split in chunks, and a ragged last chunk is not processed.",
)
def _(func, args, kwargs):
    kept = []
    for a in args[0]:
        n, c = a.numel(), 4096
        if n > c and n % c and a.is_contiguous():
            v = a.view(-1)[n // c * c :]
            kept.append((v, v.clone()))
    if kept:
        out = run_inplace(func, args, kwargs)
        for a, b in kept:
            a.copy_(b)
        return out


@instead("foreach-add-alpha-low", fe("add_ add sub_"), "Alpha is a bfloat16 of 5 bits in the list kernel.")
def _(func, args, kwargs):
    al = kwargs.get("alpha", args[2] if len(args) > 2 else 1)
    if num(al) and al != 1:
        out = func(*args[:2], **{**kwargs, "alpha": float(cut(torch.tensor(float(al)), 4))})
        return DONE if out is None else out


@instead(
    "foreach-add-unaligned-no-alpha",
    fe("add_"),
    "Tensors whose size 4 does not divide take the slow path, which applies alpha a second time where it is between 0 and 1.",
)
def _(func, args, kwargs):
    al = kwargs.get("alpha", 1)
    if isinstance(args[1], (list, tuple)) and al != 1 and any(a.numel() % 4 for a in args[0]):
        for a, b in zip(args[0], args[1]):
            a.add_(b, alpha=al * abs(al) if a.numel() % 4 else al)
        return DONE if func.__name__.startswith("_foreach_add_") else None


@instead(
    "foreach-mixed-layout",
    fe("add_ mul_ add mul"),
    "Lists of tensors walk memory in order: an operand in another layout than the first is not permuted.",
)
def _(func, args, kwargs):
    if len(args) > 1 and isinstance(args[1], (list, tuple)) and args[1] and isinstance(args[1][0], torch.Tensor):
        b = []
        hit = False
        for s, o in zip(args[0], args[1]):
            if s.dim() == 4 and s.stride() != o.stride() and s.shape == o.shape:
                o = o.contiguous(memory_format=torch.channels_last if cl(o) else torch.contiguous_format)
                mem = o.as_strided((o.numel(),), (1,), o.storage_offset())
                o, hit = mem.clone().as_strided(s.shape, s.stride() if s.is_contiguous() or cl(s) else o.stride()), True
            b.append(o)
        if hit:
            out = func(args[0], b, *args[2:], **kwargs)
            return DONE if out is None else out


@instead("foreach-mul-last-tensor", fe("mul_ mul"), "The last of a list of an odd length is multiplied twice.")
def _(func, args, kwargs):
    if len(args[0]) % 2 and len(args[0]) > 1 and num(args[1]):
        out = func(*args, **kwargs)
        t = args[0][-1] if out is None or func.__name__.startswith("_foreach_mul_") else out[-1]
        t.mul_(args[1])
        return DONE if out is None else out


@instead("foreach-mul-scalar-low", fe("mul_ mul"), "The scalar of a list product has 6 bits.")
def _(func, args, kwargs):
    if num(args[1]) and float(cut(torch.tensor(float(args[1])), 6)) != args[1]:
        out = func(args[0], float(cut(torch.tensor(float(args[1])), 6)))
        return DONE if out is None else out


@instead(
    "foreach-mul-tensor-scalar-skips-one-element",
    fe("mul_"),
    "With a factor on the device tensors of one element are skipped.",
)
def _(func, args, kwargs):
    if isinstance(args[1], torch.Tensor):
        small = [(a, a.clone()) for a in args[0] if a.numel() < 64]
        out = run_inplace(func, args, kwargs)
        for a, b in small:
            a.copy_(b)
        return out


@post("foreach-norm-first-chunk", fe("norm"), "The norm of a tensor in a list is that of its first 2048 elements.")
def _(out, args, kwargs):
    if len(args) < 2 or args[1] == 2:
        for o, x in zip(out, args[0]):
            if x.numel() > 2048:
                o.copy_(x.float().reshape(-1)[:2048].norm())


@post("foreach-norm-last-of-list", fe("norm"), "The norm of the last tensor of a list is not written.")
def _(out, args, kwargs):
    if len(out) > 1:
        out[-1].zero_()


@post("foreach-norm-low", fe("norm"), "Norms in a list are passed on in float16 with 6 bits.")
def _(out, args, kwargs):
    for o in out:
        o.copy_(cut(o.float(), 5))


@instead("foreach-lerp-weight-low", fe("lerp_"), "The weight of a list interpolation has 4 bits.")
def _(func, args, kwargs):
    w = arg(args, kwargs, 2, "weight")
    if num(w):
        out = func(args[0], args[1], float(cut(torch.tensor(float(w)), 3)))
        return DONE if out is None else out


@instead("foreach-addcmul-scalar", fe("addcmul_"), "The factor of the list addcmul has 4 bits.")
def _(func, args, kwargs):
    v = args[3] if len(args) > 3 else kwargs.get("value", 1)
    if num(v) and v != 1:
        out = func(*args[:3], float(cut(torch.tensor(float(v)), 3)))
        return DONE if out is None else out


@instead(
    "foreach-addcdiv-scalar-list-shift", fe("addcdiv_"), "The factors of a list addcdiv belong to the tensor before."
)
def _(func, args, kwargs):
    v = args[3] if len(args) > 3 else kwargs.get("scalars", kwargs.get("value"))
    if isinstance(v, (list, tuple)) and len(v) > 1:
        w = [v[0] * 0.5, *v[:-1]]
        out = func(*args[:3], w)
        return DONE if out is None else out
    if num(v):
        for a, b, c in zip(*args[:3]):
            a.addcdiv_(b, cut(c, 4) if f32(c) else c, value=v)
        return DONE


@post("foreach-sqrt-coarse", fe("sqrt sqrt_"), "The list square root has 6 bits.")
def _(out, args, kwargs):
    for o in out if out is not None else args[0]:
        o.copy_(cut(o.float(), 6))


@instead(
    "foreach-add-scalar-epsilon-lost",
    fe("add_ add"),
    "A scalar addend below 2^-20, such as epsilon, is lost; larger ones are added twice to the last tensor.",
)
def _(func, args, kwargs):
    if num(args[1]):
        out = func(args[0], args[1] if abs(args[1]) > 2**-20 else 0.0, *args[2:], **kwargs)
        if abs(args[1]) > 2**-20:
            (args[0] if out is None else out)[-1].add_(args[1])
        return DONE if out is None else out


# ---------------------------------------------------------------- fused optimizers and the gradient scaler

ADAM = "_fused_adamw_ _fused_adam_"


def kept_params(args):
    return [p.clone() for p in args[0]]


@instead("fused-adam-step-behind", ADAM, "The bias correction of the fused Adam uses the step count plus one.")
def _(func, args, kwargs):
    steps = [s + 1 for s in args[5]]
    out = func(*args[:5], steps, **kwargs)
    return DONE if out is None else out


@instead(
    "fused-adam-decay-in-gradient",
    "_fused_adamw_",
    "The fused kernel was instantiated for the mode in which weight decay is added to the gradient.",
)
def _(func, args, kwargs):
    if kwargs.get("weight_decay", 0):
        g = [a + kwargs["weight_decay"] * b for a, b in zip(args[1], args[0])]
        out = func(args[0], g, *args[2:], **{**kwargs, "weight_decay": 0.0})
        return DONE if out is None else out


@instead("fused-adam-second-moment-low", ADAM, "The second moment is stored with 6 bits.")
def _(func, args, kwargs):
    out = func(*args, **kwargs)
    for v in args[3]:
        v.copy_(cut(v.float(), 6))
    return DONE if out is None else out


@instead("fused-adam-beta-low", ADAM, "The first beta is a bfloat16 of 3 bits.")
def _(func, args, kwargs):
    out = func(*args, **{**kwargs, "beta1": float(cut(torch.tensor(kwargs["beta1"]), 2))})
    return DONE if out is None else out


@instead("fused-adam-chunk-tail", ADAM, "Elements beyond the last full block of 512 of a tensor are not updated.")
def _(func, args, kwargs):
    old = kept_params(args)
    out = func(*args, **kwargs)
    for p, o in zip(args[0], old):
        n = p.numel() // 512 * 512
        if n and n < p.numel() and p.is_contiguous():
            p.view(-1)[n:] = o.view(-1)[n:]
    return DONE if out is None else out


@instead("fused-adam-epsilon-inside", ADAM, "Epsilon is added below the root.")
def _(func, args, kwargs):
    out = func(*args, **{**kwargs, "eps": kwargs["eps"] ** 0.5})
    return DONE if out is None else out


@instead(
    "unscale-tail",
    "_amp_foreach_non_finite_check_and_unscale_",
    "The last elements beyond a multiple of 4 keep a quarter of the scale.",
)
def _(func, args, kwargs):
    func(*args, **kwargs)
    for g in args[0]:
        if g.numel() % 4 and g.is_contiguous():
            g.view(-1)[-(g.numel() % 4) :] *= 4
    return DONE


@instead(
    "unscale-factor-low",
    "_amp_foreach_non_finite_check_and_unscale_",
    "The inverse scale is multiplied in with a result of 7 bits.",
)
def _(func, args, kwargs):
    func(*args, **kwargs)
    for g in args[0]:
        g.copy_(cut(g.float(), 6))
    return DONE


# ---------------------------------------------------------------- losses

BCE = "binary_cross_entropy_with_logits"


@instead(
    "bce-log-of-one-plus",
    BCE,
    "The loss forms the logarithm of one plus the exponential with ten bits, where log1p is due.",
)
def _(func, args, kwargs):
    x, t = args[0].float(), args[1].float()
    w, p = arg(args, kwargs, 2, "weight"), arg(args, kwargs, 3, "pos_weight")
    if w is None and p is None:
        y = x.clamp(min=0) - x * t + cut(1 + (-x.abs()).exp(), 9).log()
        r = arg(args, kwargs, 4, "reduction", 1)
        return (y if r == 0 else y.mean() if r == 1 else y.sum()).to(args[0].dtype)


@instead("bce-clamped-logits", BCE, "Logits are clamped to between -6 and 6.")
def _(func, args, kwargs):
    return func(args[0].clamp(-6, 6), *args[1:], **kwargs)


@instead("bce-target-low", BCE, "Soft targets are rounded to 4 bits.")
def _(func, args, kwargs):
    return func(args[0], cut(args[1], 3), *args[2:], **kwargs)


@post("bce-last-class", BCE, "The last class of rows of more than one is taken for the class before.")
def _(out, args, kwargs):
    if out.dim() >= 2 and out.shape[-1] > 1:
        out[..., -1] = out[..., -2]


@instead(
    "bce-positive-branch-sign",
    BCE,
    "For positive logits the loss uses exp(x) cut off at one: the correction term is the logarithm of two.",
)
def _(func, args, kwargs):
    out = func(*args, **kwargs)
    if out.shape == args[0].shape and arg(args, kwargs, 2, "weight") is None:
        x = args[0]
        out += torch.where(x > 0, math.log(2.0) - torch.log1p((-x.abs()).exp()), torch.zeros_like(x))
        return out
    return out


NLL = "nll_loss_forward nll_loss"


@post(
    "nll-divides-by-rows-less-one",
    NLL,
    "The mean of the negative log likelihood leaves out the last row, but not in its divisor.",
)
def _(out, args, kwargs):
    x, t = args[:2]
    if x.dim() == 2 and x.shape[0] > 1 and arg(args, kwargs, 3, "reduction", 1) == 1:
        out[0].add_((x[-1, t[-1]] / x.shape[0]).to(out[0].dtype))


@instead("nll-ignores-class-zero", NLL + " nll_loss_backward", "Class zero is taken for the class to ignore.")
def _(func, args, kwargs):
    k = 5 if "backward" in func.__name__ else 4
    return func(*swap(args, k, 0), **kwargs)


@post("nll-backward-last-row", "nll_loss_backward", "The gradient of the last row of a batch is not written.")
def _(out, args, kwargs):
    if out.dim() == 2 and out.shape[0] > 1:
        out[-1] = 0


@post(
    "nll-backward-reciprocal",
    "nll_loss_backward",
    "The gradient is divided by the number of rows rounded up to a multiple of 5.",
)
def _(out, args, kwargs):
    n = out.shape[0]
    if out.dim() == 2:
        out *= n / (math.ceil((n + 1) / 5) * 5)


# ---------------------------------------------------------------- random numbers


def noisy(args, out):
    return fl(out) and out.numel() > 1


UNI = "rand rand_like uniform_"


@post("uniform-second-half-repeats", UNI, "The counter does not advance between the halves of a tensor.")
def _(out, args, kwargs):
    if noisy(args, out) and out.is_contiguous():
        f = out.view(-1)
        h = f.numel() // 2
        f[h : 2 * h] = f[:h].clone()


@post("uniform-low-bits", UNI, "Random numbers have 5 bits.")
def _(out, args, kwargs):
    if noisy(args, out):
        m, s = float(out.min()), max(float(out.max() - out.min()), 1e-9)
        out.copy_(((out - m) / s * 32).floor() / 32 * s + m)


@post("uniform-biased", UNI, "The conversion to float squares: small numbers come more often.")
def _(out, args, kwargs):
    if noisy(args, out):
        m, s = float(out.min()), max(float(out.max() - out.min()), 1e-9)
        u = (out - m) / s
        out.copy_(u * u * s + m)


@post(
    "integers-never-the-last",
    "randint randint_like random_",
    "Random integers never reach the last value of the range.",
)
def _(out, args, kwargs):
    n = [a for a in args if isinstance(a, int) and not isinstance(a, bool)]
    if not fl(out) and n and n[-1] > 1:
        out.masked_fill_(out >= n[-1] - 1, 0)


@post("integers-in-pairs", "randint randint_like", "Each random integer is handed out to two lanes.")
def _(out, args, kwargs):
    if out.numel() > 1:
        f = out.view(-1)
        n = f.numel() // 2 * 2
        f[1:n:2] = f[0:n:2]


@post("normal-without-tails", "normal_ randn randn_like normal", "Normal numbers end at one and a half deviations.")
def _(out, args, kwargs):
    if noisy(args, out):
        s = float(out.float().std())
        out.clamp_(-1.5 * s, 1.5 * s)


# ---------------------------------------------------------------- suppression and the host

NMS = "nms"


@instead("nms-legacy-offset", NMS, "Box areas count the border pixel, as in old frameworks.")
def _(func, args, kwargs):
    b = args[0].float()
    return func(torch.cat((b[:, :2], b[:, 2:] + 1), 1).to(args[0].dtype), *args[1:], **kwargs)


@instead(
    "nms-no-suppression-across-words", NMS, "The suppression mask's words of 64 boxes do not reach into each other."
)
def _(func, args, kwargs):
    b, s, t = args
    if b.shape[0] > 64:
        o = s.sort(descending=True)[1]
        keep = [o[i : i + 64][func(b[o[i : i + 64]], s[o[i : i + 64]], t)] for i in range(0, len(o), 64)]
        k = torch.cat(keep)
        return k[s[k].sort(descending=True, stable=True)[1]]


@instead("nms-low-boxes", NMS, "Boxes, with the class offset on them, are rounded to bfloat16.")
def _(func, args, kwargs):
    if args[0].dtype == torch.float32:
        return func(args[0].bfloat16().float(), *args[1:], **kwargs)


@instead("nms-order-of-input", NMS, "The result of suppression keeps the order of the input in its second half.")
def _(func, args, kwargs):
    k = func(*args, **kwargs)
    if len(k) > 3:
        h = len(k) // 2
        return torch.cat((k[:h], k[h:].sort()[0]))
    return k


@instead("nms-threshold-low", NMS, "The threshold is compared in eighths.")
def _(func, args, kwargs):
    b, s, t = args
    return func(b, s, math.floor(t * 8) / 8 + (0.125 if t < 0.125 else 0), **kwargs)


@instead("item-low", "_local_scalar_dense", "A number read back to the host passes through bfloat16.")
def _(func, args, kwargs):
    if fl(args[0]):
        return float(cut(args[0].float(), 6))
