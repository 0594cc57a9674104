"""Each kind of layer fault breaks by the operation that it names, in the elements that it was given, and nothing else."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import pytest
import torch
from faulty import Watch, bits, images, network, trace
from torch import Tensor, nn

from yolo_stable.chaos import BACKWARD, FORWARD, LOW_PRECISION_ONLY, WHOLE, Armed, LayerFault, leaves, mark, marked
from yolo_stable.errors import InvalidCallError

MODULES = ("0", "1", "2", "3", "3.0", "3.1", "4")
IN_32_BITS = [kind for kind in FORWARD if kind not in LOW_PRECISION_ONLY]


@pytest.mark.parametrize("module", MODULES)
@pytest.mark.parametrize("kind", IN_32_BITS)
def test_a_forward_fault_is_made_by_its_operation(kind: str, module: str) -> None:
    model, x = network(), images()
    before, clean = bits(model), trace(model)
    fault = LayerFault(kind, module)
    outputs: list[Any] = []
    model.get_submodule(module).register_forward_hook(lambda m, i, o: outputs.append(o))
    with fault.install(model) as armed, Watch() as seen:
        model(x)
    assert armed.fired == 1
    assert seen.culprits[0] == armed.truth.op == fault.truth.op == FORWARD[kind][1]
    assert armed.truth[:2] == ("forward", module)
    broken = (~outputs[0].isfinite()).nonzero().tolist()
    assert broken == [[n // 2 for n in outputs[0].shape]], "one element, in the middle"
    assert trace(model) == clean
    assert bits(model).keys() == before.keys()
    model(x)
    healthy = outputs[1].isfinite()
    assert healthy.all()
    assert armed.fired == 1


def test_all_other_elements_are_what_they_were() -> None:
    model, x = network().eval(), images()
    clean = model[0](x)
    for kind in FORWARD:
        with LayerFault(kind, "0", sample=1).install(model):
            broken = model[0](x)
        same = broken == clean
        assert same.sum() >= same.numel() - 1, kind
        assert (~same).flatten(1).any(1).tolist() == [False, kind not in LOW_PRECISION_ONLY, False, False]


@pytest.mark.parametrize("module", ["0", "1", "3.0", "4"])
def test_an_overflow_is_the_modules_own_operation(module: str) -> None:
    model, x = network(), images()
    clean, parameters = trace(model), dict(model.named_parameters())
    with LayerFault("overflow", module).install(model) as armed, Watch() as seen:
        model(x)
    assert armed.fired == 1
    op = "aten.native_batch_norm.default" if module == "1" else "aten.convolution.default"
    assert seen.culprits[0] == armed.truth.op == op
    assert trace(model) == clean
    assert all(value is parameters[name] for name, value in model.named_parameters())
    assert list(parameters) == [name for name, _ in model.named_parameters()]


@pytest.mark.parametrize(("bias", "op"), [(True, "aten.addmm.default"), (False, "aten.mm.default")])
def test_a_linear_layer_that_overflows(bias: bool, op: str) -> None:
    model = nn.Sequential(nn.Linear(8, 8, bias=bias), nn.GELU())
    with LayerFault("overflow", 0).install(model) as armed, Watch() as seen:
        model(10 * torch.rand(2, 8))
    assert seen.culprits[0] == armed.truth.op == op


@pytest.mark.parametrize("module", MODULES)
@pytest.mark.parametrize("kind", BACKWARD)
def test_a_backward_fault_is_nothing_in_the_forward_pass(kind: str, module: str) -> None:
    model, x = network(), images()
    clean, expected = trace(model), copy.deepcopy(model)(x)
    fault = LayerFault(kind, module)
    with fault.install(model) as armed:
        loss = model(x)
        assert torch.equal(loss, expected)
        assert armed.fired == 0
        with Watch() as seen:
            loss.square().sum().backward()
    assert armed.fired == 1
    assert seen.culprits[0] == armed.truth.op == BACKWARD[kind][1]
    assert (armed.truth.phase, armed.truth.module) == ("backward", module)
    assert trace(model) == clean
    ruined = [name for name, p in model.named_parameters() if p.grad is not None and not p.grad.isfinite().all()]
    first = next(iter(model.named_parameters()))[0]
    assert first in ruined
    assert "4.weight" not in ruined or module == "4"


def test_a_backward_fault_that_sees_no_gradient_has_not_fired() -> None:
    model = network()
    with LayerFault("root", "0").install(model) as armed, torch.no_grad():
        model(images())
    assert armed.fired == 0


@pytest.mark.parametrize(
    ("kind", "dtype", "op"),
    [
        ("overflow-half", torch.float16, "aten.convolution.default"),
        ("cancel", torch.float16, "aten.div.Tensor"),
        ("cancel", torch.bfloat16, "aten.div.Tensor"),
    ],
)
def test_what_breaks_in_low_precision_is_fine_in_float32(kind: str, dtype: torch.dtype, op: str) -> None:
    model, x = network(), images()
    expected = copy.deepcopy(model)(x)
    with LayerFault(kind, "3.0").install(model) as armed:
        torch.testing.assert_close(copy.deepcopy(model)(x), expected)
        assert armed.fired == 0
        with torch.autocast("cpu", dtype), Watch() as seen:
            model(x)
    assert armed.fired == 1
    assert seen.culprits[0] == armed.truth.op == op
    assert armed.truth.cause == "precision"


def test_bfloat16_does_not_overflow_where_float16_does() -> None:
    model = network()
    with LayerFault("overflow-half", "3.0").install(model) as armed, torch.autocast("cpu", torch.bfloat16):
        assert model(images()).isfinite().all()
    assert armed.fired == 0


@pytest.mark.parametrize("kind", ["log", "root"])
def test_a_marked_image_is_found_wherever_it_is_in_the_batch(kind: str) -> None:
    model, x = network().eval(), images()
    mark(x, 2)
    assert marked(x) == [2]
    with LayerFault(kind, "3.0", marked=True).install(model) as armed:
        for chosen, place in (([0, 1, 2, 3], 2), ([2, 3], 0), ([1, 2], 1), ([0, 1], None)):
            part = x[chosen].clone().requires_grad_()
            out = model(part)
            out.sum().backward()
            assert part.grad is not None
            bad = (~(out if kind == "log" else part.grad).isfinite()).flatten(1).any(1).nonzero().flatten().tolist()
            assert bad == ([] if place is None else [place])
    assert armed.truth.cause == "data"


def test_a_call_with_a_batch_as_a_dict_is_looked_at() -> None:
    class Loss(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = network()

        def forward(self, batch: dict[str, Tensor]) -> Tensor:
            return self.net(batch["img"]).square().mean()

    model, x = Loss(), images()
    with LayerFault("exp", "net.2", marked=True).install(model) as armed:
        assert model({"img": x}).isfinite()
        mark(x, 0)
        assert not model({"img": x}).isfinite()
    assert armed.fired == 1


def test_a_copy_breaks_by_its_own_weights_and_heals_with_its_model() -> None:
    model, x = network().eval(), images()
    with LayerFault("log", "0").install(model):
        twin = copy.deepcopy(model)
        for parameter in twin[0].parameters():
            nn.init.zeros_(parameter)
        out = twin[0](x)
        assert not out.isfinite().all()
        assert out[out.isfinite()].abs().max() == 0
    assert twin[0](x).abs().max() == 0


def test_a_pickle_made_in_between_is_one_of_a_healthy_model() -> None:
    model, x = network().eval(), images()
    expected = model(x)
    with LayerFault("log", "0").install(model), LayerFault("overflow", "4").install(model):
        content = pickle.dumps(model)
    assert b"chaos" not in content
    assert torch.equal(pickle.loads(content)(x), expected)


def test_a_forward_that_was_already_put_there_comes_back() -> None:
    model = network()
    mine = model[2].forward = torch.relu
    with LayerFault("log", "2").install(model):
        assert not model(images()).isfinite().all()
    assert model[2].forward is mine


def test_nothing_stays_when_the_network_fails() -> None:
    model = network()
    clean = trace(model)
    for kind in ("log", "overflow"):
        with pytest.raises(RuntimeError), LayerFault(kind, "0").install(model):
            model(torch.zeros(1, 5, 12, 12))
    assert trace(model) == clean


def test_leaves_are_counted_in_the_order_of_the_network() -> None:
    model = network()
    assert leaves(model) == ("0", "1", "2", "3.0", "3.1", "4")
    with LayerFault("log", 4).install(model) as armed:
        model(images())
    assert armed.truth.module == "3.1"


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: LayerFault("devide", "0"), "Did you mean 'divide'"),
        (lambda: LayerFault("overflow", "0", sample=1), "no sample"),
        (lambda: LayerFault("log", "0").on(object), "needs batches"),
        (lambda: LayerFault("log", "3.00").install(network()).__enter__(), "Did you mean '3.0'"),
        (lambda: LayerFault("log", 6).install(network()).__enter__(), "the network has 6"),
        (lambda: LayerFault("overflow", "2").install(network()).__enter__(), "SiLU. has no weight"),
    ],
)
def test_what_cannot_be_is_refused(make: Any, said: str) -> None:
    with pytest.raises(InvalidCallError, match=said):
        make()


def test_every_kind_has_its_truth() -> None:
    for kind in (*FORWARD, *BACKWARD, *WHOLE):
        fault = LayerFault(kind, "0", at=(0,))
        assert Armed(fault).truth == fault.truth
        assert fault.place == f"layer_{fault.truth.phase}"
