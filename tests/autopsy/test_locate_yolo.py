"""Faults in the layers of an Ultralytics detector: what is named must be exact."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, cast

import pytest
import torch
from torch import Tensor, nn
from ultralytics.cfg import get_cfg
from ultralytics.nn.tasks import DetectionModel

from yolo_stable.autopsy import locate, locate_call
from yolo_stable.autopsy.locate import digest_of


@pytest.fixture(scope="module")
def model(narrow: Callable[[str], str]) -> DetectionModel:
    torch.manual_seed(0)
    detector = DetectionModel(narrow("detect"), ch=3, nc=3, verbose=False)
    cast("Any", detector).args = get_cfg()
    return detector.train()


def batch() -> dict[str, Tensor]:
    dice = torch.Generator().manual_seed(1)
    return {
        "img": torch.rand(2, 3, 64, 64, generator=dice),
        "cls": torch.zeros(6, 1),
        "bboxes": torch.rand(6, 4, generator=dice) * 0.5 + 0.25,
        "batch_idx": torch.arange(2).repeat_interleave(3).float(),
    }


def layers(model: nn.Module) -> list[tuple[str, nn.Module]]:
    kinds = (nn.Conv2d, nn.BatchNorm2d)
    found: list[tuple[str, nn.Module]] = [
        (n, m) for n, m in model.named_modules() if isinstance(m, kinds) and ".dfl" not in n
    ]
    assert len(found) >= 24
    return found[:: max(1, len(found) // 24)]


class _Through(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, fired: list[str]) -> Tensor:
        ctx.fired = fired
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        ctx.fired.append("backward")
        return grads[0].masked_fill(grads[0] == grads[0].max(), math.nan), None


@pytest.mark.parametrize("where", ["forward", "backward"])
def test_the_layer_and_the_operation_are_exact(model: DetectionModel, where: str) -> None:
    wrong, tried = [], 0
    for name, layer in layers(model):
        fired: list[str] = []
        own = layer.forward

        def patched(x: Tensor, own: Callable[[Tensor], Tensor] = own, fired: list[str] = fired) -> Tensor:
            if where == "backward":
                return cast("Tensor", _Through.apply(own(x), fired))
            fired.append("forward")
            return own(x).sub(math.inf)

        layer.forward = patched
        try:
            data = batch()
            found = locate_call(model, lambda data=data: model(data), inputs=data)
        finally:
            del layer.forward
        assert fired == [where], name
        one = found.first
        op = "aten.sub.Tensor" if where == "forward" else "aten.masked_fill.Scalar"
        tried += 1
        if one is None or (one.module, one.op, one.phase, one.module_type) != (name, op, where, type(layer).__name__):
            wrong.append((name, one and (one.module, one.op, one.phase)))
    assert tried >= 24
    assert not wrong


def test_a_weight_that_overflows_is_found_at_its_convolution(model: DetectionModel) -> None:
    for name, layer in layers(model):
        if not isinstance(layer, nn.Conv2d):
            continue
        kept = layer.weight.detach().clone()
        with torch.no_grad():
            layer.weight.fill_(3e38)
        data = batch()
        data["img"] += 10
        found = locate_call(model, lambda data=data: model(data), inputs=data)
        with torch.no_grad():
            layer.weight.copy_(kept)
        assert found.first is not None
        assert (found.first.module, found.first.op) == (name, "aten.convolution.default")
        assert found.first.wide == "overflow"
        assert "ultralytics" in found.first.source


def test_a_pixel_and_the_loss(model: DetectionModel) -> None:
    data = batch()
    data["img"][1, 0, 5, 5] = math.nan
    one = locate(model, (data,)).first
    assert one is not None
    assert (one.module, one.op, one.origin, one.rows) == (
        "model.0.conv",
        "aten.convolution.default",
        "input img",
        (1,),
    )
    gain, model.criterion.hyp.box = model.criterion.hyp.box, 1e39
    found = locate(model, (batch(),))
    model.criterion.hyp.box = gain
    assert found.first is not None
    assert (found.first.phase, found.first.module, found.first.op) == ("loss", "", "aten.mul_.Tensor")
    assert "loss.py" in found.first.source
    assert math.isinf(found.items["box_loss"])


@pytest.mark.parametrize("train", [True, False])
def test_a_traced_pass_gives_the_very_bits_of_one_that_is_not(model: DetectionModel, train: bool) -> None:
    model.train(train)
    data = batch()
    found = locate_call(model, lambda: model(data), inputs=data)
    assert found.healthy
    kept = {name: b.clone() for name, b in model.named_buffers()}
    loss, items = model(data)
    loss.sum().backward()
    plain = {
        "loss": digest_of([("loss", loss), *items.items()]),
        "gradients": digest_of([(name, p.grad) for name, p in model.named_parameters()]),
        "buffers": digest_of(model.named_buffers()),
    }
    for name, b in model.named_buffers():
        b.copy_(kept[name])
    model.zero_grad(set_to_none=True)
    model.train()
    assert found.digests == plain
    assert found.items == pytest.approx({name: float(value) for name, value in items.items()})
    assert found.loss == pytest.approx(float(loss.detach().sum()))
