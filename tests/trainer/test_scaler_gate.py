from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor

from yolo_stable.trainer.scaler_gate import GatedLoss, ScalerGate


def gate(scale: float = 8.0) -> tuple[ScalerGate, torch.amp.GradScaler, list[Tensor]]:
    asked: list[Tensor] = []
    scaler = torch.amp.GradScaler("cpu", init_scale=scale)
    return ScalerGate(scaler, asked.append), scaler, asked


def test_the_guard_is_asked_with_the_unscaled_loss_and_nothing_is_back_propagated() -> None:
    made, _, asked = gate()
    weight = torch.ones(1, requires_grad=True)
    loss = weight.sum()
    scaled = made.scale(loss)
    assert isinstance(scaled, GatedLoss)
    assert asked == []  # only backward() asks
    scaled.backward()
    assert asked == [loss]
    assert asked[0] is loss
    assert weight.grad is None


def test_each_loss_goes_through_the_gate() -> None:
    made, _, asked = gate()
    losses = [torch.ones(()), torch.zeros(())]
    for loss in losses:
        made.scale(loss).backward()
    assert [id(loss) for loss in asked] == [id(loss) for loss in losses]


def test_what_the_guard_raises_is_raised_in_the_loop() -> None:
    def refuse(loss: Tensor) -> None:
        raise LookupError(loss.item())

    with pytest.raises(LookupError, match=r"3\.0"):
        ScalerGate(None, refuse).scale(torch.tensor(3.0)).backward()


def test_everything_else_goes_to_the_scaler() -> None:
    made, scaler, _ = gate()
    weight = torch.nn.Parameter(torch.ones(1))
    optimizer = torch.optim.SGD([weight], lr=1.0)
    scaler.scale(weight.sum()).backward()
    made.unscale_(optimizer)
    assert weight.grad is not None
    assert weight.grad.item() == 1.0
    made.step(optimizer)
    made.update(4.0)
    assert weight.item() == 0.0
    assert made.get_scale() == scaler.get_scale() == 4.0
    assert made.is_enabled()
    made.load_state_dict({**made.state_dict(), "scale": 2.0})
    assert scaler.state_dict()["scale"] == made.state_dict()["scale"] == 2.0


def test_what_the_scaler_has_not_the_gate_has_not() -> None:
    made, _, _ = gate()
    assert not hasattr(made, "no_such_thing")
    with pytest.raises(AttributeError, match="no_such_thing"):
        made.no_such_thing()


@pytest.mark.parametrize("copied", [copy.copy, copy.deepcopy], ids=["copy", "deepcopy"])
def test_a_gate_can_be_copied(copied: object) -> None:
    made, _, _ = gate()
    assert callable(copied)
    twin = copied(made)
    assert type(twin) is ScalerGate
    assert twin.get_scale() == 8.0
