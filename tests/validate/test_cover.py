"""Covering arrays: every operation of a training is in a check, and the kinds of faults that they are for are found."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from yolo_stable.validate import Status
from yolo_stable.validate.backend import BACKENDS
from yolo_stable.validate.battery import BATTERY, find_case
from yolo_stable.validate.execute import Executor
from yolo_stable.validate.hashed import HashedDraw
from yolo_stable.validate.machine import Machine
from yolo_stable.validate.operations import attention, elementwise, exact, linear, norm

RECORDED = (Path(__file__).parent / "ultralytics_operations.txt").read_text().split()
"""All operations that trainings and validations of Ultralytics 8.4.190 call on tensors: detect, segment, pose, obb, classify and
RT-DETR, with SGD, AdamW and MuSGD, in float32 and under autocast, NMS and metrics included."""
ELSEWHERE = {"_foreach_add", "_foreach_add_", "_foreach_lerp_", "_foreach_mul", "_foreach_mul_", "_foreach_norm"}
"""Of lists of tensors: checked by the families of optimizers, which are no recipes."""


class Heard(TorchDispatchMode):
    """Notes which operations are called, and may spoil the results of one."""

    def __init__(self, name: str = "", spoil: Callable[[Any, Any], None] | None = None) -> None:
        super().__init__()
        self.names: set[str] = set()
        self.name, self.spoil = name, spoil

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None) -> Any:
        name = str(func).split(".")[1]
        self.names.add(name)
        out = func(*args, **(kwargs or {}))
        if name == self.name and self.spoil is not None:
            self.spoil(out, args)
        return out


@pytest.fixture(scope="module")
def heard() -> set[str]:
    """Return the operations that the recipes call."""
    mode = Heard()
    families = {"exact": exact, "elementwise": elementwise, "linear": linear, "norm": norm, "attention": attention}
    for check in BATTERY:
        recipes: dict[str, Any] = getattr(families.get(check.family), "RECIPES", {})
        if (
            check.operation not in recipes
            or "large" in check.id
            or check.tier != "quick"
            or check.params.get("kernel", "any") != "any"
        ):
            continue
        recipe = recipes[check.operation](check.params, HashedDraw(check.id))
        leaves = {
            name: (t.float().requires_grad_(name in recipe.gradients) if t.is_floating_point() else t)
            for name, t in recipe.inputs.items()
        }
        with mode:
            found = recipe.compute(*leaves.values())
            if recipe.gradients:
                outs = [t for t in (found.values() if isinstance(found, dict) else [found]) if t.requires_grad]
                torch.autograd.grad(
                    outs, [leaves[n] for n in recipe.gradients], [torch.ones_like(t) for t in outs], allow_unused=True
                )
    return mode.names


def test_every_operation_of_a_training_is_in_a_check(heard: set[str]) -> None:
    assert len(RECORDED) > 120
    assert sorted(set(RECORDED) - heard - ELSEWHERE) == []


class Spoiled(Machine):
    """The CPU, with one operation spoiled."""

    def __init__(self, mode: Heard) -> None:
        super().__init__(BACKENDS["cpu"])
        self.mode = mode

    @contextmanager
    def computing(self, *, strict: bool = True) -> Iterator[None]:
        """Everything within is spoiled."""
        with super().computing(strict=strict), self.mode:
            yield


def _flush(limit: float) -> Callable[[Any, Any], None]:
    def spoil(out: Any, args: Any) -> None:
        for t in [out] if torch.is_tensor(out) else out:
            if t is not None:
                t[t.abs() < limit] = 0

    return spoil


def _last_zero(out: Any, args: Any) -> None:
    if out.dim() == 3 and out.shape[-1] > 2_000:
        out[..., -1] = 0


def _last_row(out: Any, args: Any) -> None:
    if args[1].shape != out.shape and out.dim() > 1:
        out[-1] = 0


def _rest_of_tile(out: Any, args: Any) -> None:
    if out.dim() > 1 and out.is_contiguous() and not args[1].is_contiguous() and out.shape[-1] % 32:
        out[..., -1] = 0


def _repeated(out: Any, args: Any) -> None:
    if out.numel() >= 512 and out.is_contiguous():
        out.view(-1)[256:512] = out.view(-1)[:256].clone()


def _pairs(out: Any, args: Any) -> None:
    if out.is_contiguous():
        flat = out.view(-1)
        flat[1::2] = flat[: len(flat) // 2 * 2 : 2].clone()


def _wraps(out: Any, args: Any) -> None:
    if out.dim() == 0:
        out.copy_(torch.where(out >= 256, out.remainder(256), out))


def _split(out: Any, args: Any) -> None:
    if args[0].shape[1] >= 256:
        total = torch.zeros_like(out)
        for a, b in zip(args[0].float().chunk(8, 1), args[1].float().chunk(8, 0), strict=True):
            total += torch.einsum("mk,kn->mn", a, b).to(out.dtype)
        out.copy_(total)


def _ties_reversed(out: Any, args: Any) -> None:
    values, at = out
    if values.dim() == 1 and len(values) > 1:
        at.copy_(torch.where(values == values[0], at.flip(0), at))


def _last_two_boxes(out: Any, args: Any) -> None:
    if out.dim() > 2 and args[0].shape != args[1].shape and out.shape[-2] > 1:
        out[..., -1, :] = out[..., 0, :].clone()


def _last_channel(out: Any, args: Any) -> None:
    if (
        args[0].is_contiguous(memory_format=torch.channels_last)
        and not args[0].is_contiguous()
        and out[0].shape[1] >= 64
    ):
        out[0][:, -1] = out[0][:, -2].clone()


def _rounded_batch(out: Any, args: Any) -> None:
    if args[3] == 1:
        out[0].mul_(args[1].numel() / (-(-args[1].numel() // 4) * 4))


def _epsilon(out: Any, args: Any) -> None:
    if args[1][-1] == 256:
        x = args[0]
        out[0].copy_((x - x.mean(-1, keepdim=True)) / x.std(-1, keepdim=True) * args[2] + args[3])


KINDS: list[tuple[str, str, Callable[[Any, Any], None]]] = [
    ("elementwise/cover-small/contiguous/strict", "silu", _flush(2e-6)),
    ("elementwise/cover-unary/contiguous/strict", "clamp_min_", _flush(0.1)),
    ("elementwise/cover-binary/contiguous/bfloat16", "minimum", _last_two_boxes),
    ("elementwise/cover-maps-small/contiguous/strict", "max_pool2d_with_indices", _last_channel),
    ("elementwise/cover-losses/contiguous/strict", "nll_loss_forward", _rounded_batch),
    ("exact/cover-joins/contiguous/exact", "cat", _last_zero),
    ("exact/cover-copies/contiguous/exact", "copy_", _last_row),
    ("exact/cover-copies/contiguous/exact", "copy_", _rest_of_tile),
    ("exact/cover-counters/contiguous/exact", "add_", _wraps),
    ("exact/cover-orders/contiguous/exact", "sort", _ties_reversed),
    ("exact/cover-chance/contiguous/exact", "bernoulli_", _repeated),
    ("exact/cover-chance/contiguous/exact", "normal_", _pairs),
    ("linear/cover-accumulated/contiguous/bfloat16", "mm", _split),
    ("norm/cover-norms/contiguous/strict", "native_layer_norm", _epsilon),
    ("norm/cover-norms/contiguous/strict", "native_batch_norm_backward", _flush(1e-9)),
]


@pytest.mark.parametrize(
    ("case", "name", "spoil"),
    [pytest.param(*kind, id=f"{kind[0].split('/')[1]}-{kind[1]}-{i}") for i, kind in enumerate(KINDS)],
)
def test_a_kind_of_fault_is_found(case: str, name: str, spoil: Callable[[Any, Any], None]) -> None:
    mode = Heard(name, spoil)
    result = Executor(Spoiled(mode)).run(find_case(case))
    assert name in mode.names
    assert result.status is Status.FAIL
    assert "Error" not in result.reason
