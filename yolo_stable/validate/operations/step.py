"""Operations of the step family."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from ..check import CheckCase
from ..deviation import distance
from ..evidence import CheckEvidence
from ..golden import Golden, compare_gradients, cosine
from ..hashed import HashedDraw, sha256_of
from ..machine import Machine
from ..network import batch, gradients_of, losses_of, network, place
from ..recipe import LOW
from ..sketch import SIZE, sketch

LIMITS = {
    # loss, whole gradient, largest of one parameter, ratio of norms, BatchNorm
    "strict": (1e-5, 1e-3, 1e-2, 0.01, 1e-4),
    "configured": (2e-3, 0.25, 1.0, 0.1, 1e-2),
    "float16": (2e-2, None, None, 2.0, 2e-2),
    "bfloat16": (5e-2, None, None, 2.0, 2e-2),
}
"""Largest errors relative to float64. A lower precision moves the gradient of a fresh network by 0.8 to 1.2 of its norm
(measured), so there only its direction and size are judged. With bfloat16 on a CPU the loss is off by up to 2.3e-2."""
NOT_ON_CPU = "training in float16 is for accelerators"
"""A CPU takes minutes for such a step."""
_COSINE, _HEAD_COSINE = 0.1, 0.2
"""Smallest cosine between the gradient in a lower precision and the reference: of the whole, and of the head's part alone. A
fresh network amplifies rounding from layer to layer, and rounding changes which box is assigned to which object. With bfloat16 on
a CPU the whole gave 0.32 to 0.85 (20 seeds) and the head 0.67 to 0.98; without oneDNN (35 seeds, two layouts) 0.20 to 0.87 and
0.34 to 0.98. A lost one has 0, an opposite one less, and one that has nothing to do with the loss 0, up to 0.36: sketches of few
numbers are alike by chance, so this gate does not see all of those."""


def step(machine: Machine, case: CheckCase, draw: HashedDraw, golden: Golden) -> CheckEvidence:
    """Compute losses, gradients and BatchNorm's statistics of one step."""
    low = LOW.get(case.precision)
    if low == torch.float16 and machine.backend.name == "cpu":
        return CheckEvidence(skip=NOT_ON_CPU)
    reference = golden.step()
    data = batch(case.check.params, draw)
    model = network(case.check.params, draw)
    evidence = CheckEvidence(input_sha256=sha256_of(data), reference=())
    with machine.computing(strict=case.precision != "configured"):
        placed = {name: machine.place(t.float()) for name, t in data.items()}
        place(model, machine)
        if case.layout == "channels_last":
            model.to(memory_format=torch.channels_last)
            placed["img"] = placed["img"].contiguous(memory_format=torch.channels_last)
        machine.dirty(float("nan"))
        counts = _watch(model)
        losses = losses_of(model, placed, low)
        scale = 1024.0 if low == torch.float16 else 1.0
        (losses.sum() * scale).backward()
        found = {name: machine.fetch(g).double() / scale for name, g in gradients_of(model).items()}
        values = machine.fetch(losses).double()
        buffers = {n: machine.fetch(b).double() for n, b in model.named_buffers() if "running" in n}
        lost = [name for name, count in counts.items() if float(machine.fetch(count)) > 0]
    if lost:
        evidence.problems.append(f"{len(lost)} layers gave numbers that are not finite, the first is {lost[0]}")
    _judge(evidence, case.precision, values, found, buffers, reference.losses, golden)
    return evidence


def _judge(
    evidence: CheckEvidence,
    precision: str,
    losses: Tensor,
    gradients: dict[str, Tensor],
    buffers: dict[str, Tensor],
    expected: tuple[float, ...],
    golden: Golden,
) -> None:
    reference = golden.step()
    loss_limit, whole_limit, one_limit, ratio_limit, buffer_limit = LIMITS[precision]
    total, right = float(losses.sum()), sum(expected)
    whole, worst, most = compare_gradients(reference, gradients)
    ratio = math.sqrt(sum(float(g.norm()) ** 2 for g in gradients.values())) / reference.norm
    gap = sum(distance(sketch(buffers[name]), value) ** 2 for name, value in reference.buffers.items())
    off = math.sqrt(gap / sum(distance(value, (0.0,) * SIZE) ** 2 for value in reference.buffers.values()))
    head = max((name.split(".")[1] for name in reference.norms), key=int)
    alike, alike_head = (cosine(reference, gradients, among) for among in ("", f"model.{head}."))
    numbers = {"loss": total, "loss_error": abs(total - right) / right, "gradient_error": whole, "worst_parameter": most,
               "norm_ratio": ratio, "cosine": alike, "head_cosine": alike_head, "batchnorm_error": off}  # fmt: skip
    evidence.numbers = numbers
    evidence.notes.append(f"largest error of one parameter: {worst} {most:.1e}")
    checks = [
        ("the loss is off by {:.1e}", numbers["loss_error"], loss_limit),
        ("the gradient is off by {:.1e}", whole, whole_limit),
        ("the gradient of " + worst + " is off by {:.1e}", most, one_limit),
        ("the gradient's norm is off by {:.1e}", abs(ratio - 1), ratio_limit if ratio > 1 or whole_limit else 0.67),
        ("BatchNorm's statistics are off by {:.1e}", off, buffer_limit),
        ("one minus the gradient's cosine is {:.1e}", 1 - alike, None if whole_limit else 1 - _COSINE),
        (
            "one minus the cosine of the head's gradient is {:.1e}",
            1 - alike_head,
            None if whole_limit else 1 - _HEAD_COSINE,
        ),
    ]
    for text, value, limit in checks:
        if limit is not None and not value <= limit:
            evidence.problems.append(f"{text.format(value)}, over {limit:.1e}")


def _watch(model: nn.Module) -> dict[str, Tensor]:
    """Count, on the device, the numbers of each layer's result that are not finite."""
    counts: dict[str, Tensor] = {}

    def hook(name: str):
        def seen(_: nn.Module, __: object, out: object) -> None:
            if isinstance(out, Tensor):
                counts[name] = (~torch.isfinite(out.detach())).sum()

        return seen

    for name, module in model.named_modules():
        if isinstance(module, (nn.Conv2d, nn.BatchNorm2d, nn.SiLU, nn.MaxPool2d)):
            module.register_forward_hook(hook(name))
    return counts


PROCEDURES = {"step": step}
