"""A device that computes wrongly is seen as an operation with healthy inputs and a wrong result."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from faulty import Watch, images, network, trace
from torch import Tensor

from yolo_stable.chaos import INF, NAN, DeviceFault
from yolo_stable.errors import InvalidCallError


class Recompute(Watch):
    """Does each operation that came out wrong again, in float64, as an autopsy does."""

    def __init__(self) -> None:
        super().__init__()
        self.again: list[bool] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        found = len(self.culprits)
        result = super().__torch_dispatch__(func, types, args, kwargs)
        if len(self.culprits) > found and not str(func).endswith("_.default"):
            wide = [a.double() if isinstance(a, Tensor) and a.is_floating_point() else a for a in args]
            again = func(*wide, **(kwargs or {}))
            again = again[0] if isinstance(again, tuple) else again
            self.again.append(bool(again.isfinite().all() and again.abs().max() < torch.finfo(torch.float32).max))
        return result


OPS = {
    ("0", "forward"): "aten.convolution.default",
    ("1", "forward"): "aten.native_batch_norm.default",
    ("2", "forward"): "aten.silu.default",
    ("3.1", "forward"): "aten.relu.default",
    ("3", "forward"): "aten.convolution.default",
    ("0", "backward"): "aten.convolution_backward.default",
    ("1", "backward"): "aten.native_batch_norm_backward.default",
    ("2", "backward"): "aten.silu_backward.default",
    ("4", "backward"): "aten.convolution_backward.default",
}


@pytest.mark.parametrize("persistent", [False, True])
@pytest.mark.parametrize(("module", "phase"), OPS)
def test_the_operation_itself_gives_the_wrong_number(module: str, phase: str, persistent: bool) -> None:
    model, x = network(), images().requires_grad_()  # the first layer has a gradient to compute for its input
    clean = trace(model)
    with DeviceFault(module, persistent=persistent, phase=phase).install(model) as armed:
        for run in range(3):
            with Recompute() as seen:
                model(x).square().sum().backward()
            if run == 0 or persistent:
                assert seen.culprits[0] == OPS[module, phase]
                assert seen.again[0] is True, "the true result is finite"
            else:
                assert seen.culprits == []
    assert armed.fired == 1
    cause = f"hardware {'persistent' if persistent else 'transient'}"
    assert armed.truth == (phase, module, OPS[module, phase], "", cause)
    assert trace(model) == clean
    with Watch() as seen:
        model(x).square().sum().backward()
    assert seen.culprits == []


def test_another_precision_is_healthy() -> None:
    model, x = network().eval(), images()
    with DeviceFault("0", persistent=True).install(model) as armed:
        assert copy.deepcopy(model).double()(x.double()).isfinite().all()
        assert armed.fired == 0
        assert not model(x).isfinite().all()


def test_one_number_in_the_middle_is_wrong() -> None:
    model, x = network().eval(), images()
    expected = model(x)
    with DeviceFault("4", value=1e30).install(model):
        wrong = model(x)
    assert (wrong != expected).nonzero().tolist() == [[2, 1, 4, 4]]
    assert wrong[2, 1, 4, 4] == 1e30
    assert torch.equal(model(x), expected)


def test_a_forward_fault_leaves_the_backward_pass_alone() -> None:
    model, x = network(), images()
    with DeviceFault("4", value=5.0).install(model):
        model(x).sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())


@pytest.mark.parametrize("value", [NAN, INF, -INF])
def test_an_operation_in_place_is_met_as_well(value: float) -> None:
    model = network()
    model[2] = torch.nn.SiLU(inplace=True)
    with DeviceFault("2", value=value).install(model) as armed, Watch() as seen:
        model(images()).sum().backward()
    assert seen.culprits[0] == armed.truth.op == "aten.silu_.default"


def test_an_unknown_phase_is_refused() -> None:
    with pytest.raises(InvalidCallError, match="forward, backward"):
        DeviceFault("0", phase="loss")
    with pytest.raises(InvalidCallError, match="needs batches"):
        DeviceFault("0").on(object)
