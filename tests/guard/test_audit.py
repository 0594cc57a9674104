from __future__ import annotations

import math

import pytest
import torch
from rig import Rig, batches
from torch import Tensor, nn

from yolo_stable.guard import audit as module
from yolo_stable.guard.audit import Audit
from yolo_stable.guard.health import NAMES_KEPT
from yolo_stable.guard.state import TrainingState

NAN, INF = math.nan, math.inf
PLACES = {
    "weight": ("SGD", "model/0.weight"),
    "bias": ("SGD", "model/4.bias"),
    "momentum": ("SGD", "optimizer/0/momentum_buffer"),
    "first moment": ("AdamW", "optimizer/1/exp_avg"),
    "second moment": ("AdamW", "optimizer/1/exp_avg_sq"),
    "square": ("RMSprop", "optimizer/0/square_avg"),
    "average": ("SGD", "ema/0.weight"),
    "its variance": ("SGD", "ema/1.running_var"),
    "variance": ("SGD", "model/1.running_var"),
    "mean": ("SGD", "model/1.running_mean"),
}


def trained(optimizer: str, max_value: float | None = 1e8) -> tuple[Rig, Audit]:
    rig, audit = Rig(optimizer), Audit(max_value, 10.0)
    audit.calibrate(rig.state.live())
    for x in batches(3):
        rig.bare_step(x)
    return rig, audit


def poison(state: TrainingState, name: str, value: float) -> None:
    with torch.no_grad():
        state.live()[name].view(-1)[-1] = value


@pytest.mark.parametrize("value", [NAN, INF, -INF, 1e30, -1e30], ids=str)
@pytest.mark.parametrize("place", PLACES)
def test_a_single_bad_number_is_found_and_named(place: str, value: float) -> None:
    optimizer, name = PLACES[place]
    rig, audit = trained(optimizer)
    assert not audit.inspect(rig.state.live())
    poison(rig.state, name, value)
    finding = audit.inspect(rig.state.live())
    assert finding
    assert finding.names == (name,)
    assert finding.ema_only is name.startswith("ema/")
    squared = " squared" if name.endswith(("running_var", "exp_avg_sq", "square_avg")) else ""
    beyond = f" beyond guard.max_value=1e+08{squared}" if math.isfinite(value) else ""
    assert finding.reason == f"{name} {abs(value):.3g}{beyond}"


def test_something_wrong_with_the_model_too_is_not_the_averages_alone() -> None:
    rig, audit = trained("SGD")
    poison(rig.state, "ema/0.weight", NAN)
    poison(rig.state, "model/0.weight", NAN)
    finding = audit.inspect(rig.state.live())
    assert finding.names == ("model/0.weight", "ema/0.weight")
    assert not finding.ema_only
    assert finding.reason == "model/0.weight nan and 1 more"


def test_only_the_first_few_are_named_but_all_are_counted() -> None:
    rig, audit = trained("SGD")
    for name in rig.state.live():
        if name.startswith("ema/") and "num_batches" not in name:
            poison(rig.state, name, NAN)
    poison(rig.state, "optimizer/0/momentum_buffer", NAN)
    finding = audit.inspect(rig.state.live())
    assert len(finding.names) == NAMES_KEPT + 1
    assert finding.names[-1] == "and 4 more"
    assert not finding.ema_only  # the one of the optimizer may not be among the first
    assert finding.reason.endswith(" and 8 more")


@pytest.mark.parametrize(
    ("name", "value", "found"),
    [
        ("model/0.weight", 0.99e8, False),
        ("model/0.weight", 1.01e8, True),
        ("model/1.running_mean", 1.01e8, True),
        ("model/1.running_var", 0.99e16, False),
        ("model/1.running_var", 1.01e16, True),
        ("optimizer/0/exp_avg", 1.01e8, True),
        ("optimizer/0/exp_avg_sq", 0.99e16, False),
        ("optimizer/0/exp_avg_sq", 1.01e16, True),
        ("optimizer/0/step", 1e7, False),
    ],
)
def test_squares_are_believed_up_to_the_square_of_the_limit(name: str, value: float, found: bool) -> None:
    rig, audit = trained("AdamW")
    poison(rig.state, name, value)
    assert bool(audit.inspect(rig.state.live())) is found


def test_the_optimizer_may_hold_what_gradients_are_believed_to_be() -> None:
    """Without clipping, a window with a norm of 1e11 is applied; momentum of that size is no fault then."""
    rig, _ = trained("AdamW")
    for name, value in (("exp_avg", 1e11), ("exp_avg_sq", 1e22)):
        poison(rig.state, f"optimizer/0/{name}", value)
    clipped, wide, unlimited = Audit(1e8, 10.0), Audit(1e8, 1e12), Audit(1e8, None)
    assert len(clipped.inspect(rig.state.live()).names) == 2
    assert not wide.inspect(rig.state.live())
    assert not unlimited.inspect(rig.state.live())
    poison(rig.state, "model/0.weight", 1e11)
    poison(rig.state, "optimizer/0/exp_avg", NAN)
    for audit in (wide, unlimited):
        assert audit.inspect(rig.state.live()).names == ("model/0.weight", "optimizer/0/exp_avg")


def test_any_finite_number_is_believed_without_a_limit() -> None:
    rig, audit = trained("SGD", max_value=None)
    poison(rig.state, "model/0.weight", 3e38)
    assert not audit.inspect(rig.state.live())
    poison(rig.state, "model/0.weight", INF)
    assert audit.inspect(rig.state.live()).reason == "model/0.weight inf"


def test_numbers_that_only_float64_has_are_finite() -> None:
    audit = Audit(None)
    live = {"model/a": torch.tensor([1e300], dtype=torch.float64), "model/b": torch.ones(1)}
    assert not audit.inspect(live)
    live["model/a"].fill_(INF)
    assert audit.inspect(live).names == ("model/a",)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_half_precision_is_judged_in_full(dtype: torch.dtype) -> None:
    audit = Audit(1e8)
    live = {"model/a": torch.full((1000,), 60000.0, dtype=dtype)}  # their sum would overflow float16
    assert not audit.inspect(live)
    live["model/a"][7] = INF
    assert audit.inspect(live)


def test_the_parts_of_complex_numbers_are_judged() -> None:
    audit = Audit(1e8)
    live = {"model/a": torch.tensor([1 + 2j])}
    assert not audit.inspect(live)
    live["model/a"].fill_(complex(0.0, NAN))
    assert audit.inspect(live).names == ("model/a",)


# ---- what is there before the first step --------------------------------------------------------------------------------


def with_buffer(value: float | Tensor) -> tuple[nn.Module, TrainingState]:
    model = nn.Linear(1, 1)
    model.register_buffer("own", torch.as_tensor(value))
    return model, TrainingState(model, torch.optim.SGD(model.parameters(), lr=0.1))


def test_what_is_large_before_the_first_step_belongs_to_the_model_but_may_not_grow_a_thousandfold() -> None:
    model, state = with_buffer(1e9)
    audit = Audit(1e8)
    assert audit.calibrate(state.live()) == ("model/own",)
    assert not audit.inspect(state.live())
    model.get_buffer("own").fill_(0.99e12)
    assert not audit.inspect(state.live())
    model.get_buffer("own").fill_(1.01e12)
    assert audit.inspect(state.live()).names == ("model/own",)
    with torch.no_grad():
        next(model.parameters()).fill_(1e9)  # what was small before is judged as ever
    assert audit.inspect(state.live()).names == ("model/weight", "model/own")


def test_a_mask_of_minus_infinity_is_believed() -> None:
    model, state = with_buffer(torch.full((3, 3), -INF).triu(1))
    audit = Audit(1e8)
    assert audit.inspect(state.live())
    assert audit.calibrate(state.live()) == ("model/own",)
    assert not audit.inspect(state.live())
    model.get_buffer("own")[0, 0] = NAN
    assert audit.inspect(state.live())


def test_nan_marks_a_buffer_as_not_set_but_no_weight() -> None:
    model, state = with_buffer(NAN)
    audit = Audit(1e8)
    assert audit.calibrate(state.live()) == ("model/own",)
    assert not audit.inspect(state.live())
    with torch.no_grad():
        next(model.parameters()).fill_(NAN)
    assert audit.calibrate(state.live()) == ("model/own",)
    assert audit.inspect(state.live()).names == ("model/weight",)


def test_calibrating_anew_forgets_what_was_believed() -> None:
    model, state = with_buffer(1e9)
    audit = Audit(1e8)
    audit.calibrate(state.live())
    model.get_buffer("own").fill_(1.0)
    assert audit.calibrate(state.live()) == ()
    model.get_buffer("own").fill_(1e9)
    assert audit.inspect(state.live())


def test_an_honest_state_has_nothing_beyond() -> None:
    for optimizer in ("SGD", "AdamW", "RMSprop", "MuSGD", "Adagrad"):
        rig = Rig(optimizer, scaled=True)
        assert Audit(1e8).calibrate(rig.state.live()) == ()
        for x in batches(20):
            rig.bare_step(x)
        assert not Audit(1e8).inspect(rig.state.live())


# ---- what it follows, and what it costs -----------------------------------------------------------------------------------


def test_integers_and_empty_tensors_are_not_judged() -> None:
    live = {"model/a": torch.tensor([2**62]), "model/b": torch.empty(0), "model/c": torch.tensor([True])}
    assert not Audit(1e8).inspect(live)
    assert not Audit(1e8).inspect({})
    assert Audit(1e8).calibrate(live) == ()


def test_state_that_comes_and_goes_and_changes_its_kind_is_followed() -> None:
    rig, audit = Rig("AdamW"), Audit(1e8)
    audit.calibrate(rig.state.live())  # without any state of the optimizer
    rig.bare_step(batches(1)[0])
    assert not audit.inspect(rig.state.live())
    poison(rig.state, "optimizer/0/exp_avg", NAN)
    assert audit.inspect(rig.state.live())
    rig.optimizer.state.clear()
    assert not audit.inspect(rig.state.live())
    rig.model.double()  # the same names
    assert not audit.inspect(rig.state.live())
    poison(rig.state, "model/0.weight", 1e30)
    assert audit.inspect(rig.state.live()).names == ("model/0.weight",)


def test_the_healthy_case_reads_once_for_each_device_and_dtype(monkeypatch: pytest.MonkeyPatch) -> None:
    rig, audit = trained("AdamW")
    reads: list[str] = []
    read = Tensor.__bool__
    monkeypatch.setattr(Tensor, "__bool__", lambda self: reads.append("bool") or read(self))
    for method in ("item", "tolist", "__float__", "numpy"):
        monkeypatch.setattr(Tensor, method, lambda self, method=method: reads.append(method))
    norms = module._largest_of
    asked: list[int] = []
    monkeypatch.setattr(module, "_largest_of", lambda v, m: asked.append(len(m)) or norms(v, m))
    assert not audit.inspect(rig.state.live())
    assert reads == ["bool"]
    floating = sum(tensor.is_floating_point() for tensor in rig.state.live().values())
    assert asked == [floating]


def test_limits_follow_the_dtype_under_the_same_names() -> None:
    audit = Audit(None)
    assert not audit.inspect({"model/a": torch.ones(1)})
    assert not audit.inspect({"model/a": torch.tensor([1e300], dtype=torch.float64)})
    assert not audit.inspect({"model/a": torch.ones(1, dtype=torch.int64)})
    assert audit.inspect({"model/a": torch.full((1,), NAN)})


def test_a_loss_scale_that_has_grown_is_not_absurd() -> None:
    """Torch doubles it as long as gradients allow, far beyond what is believed of a weight."""
    audit = Audit(1e8)
    live = {"scaler/scale": torch.full((1,), 2.0**40), "model/weight": torch.ones(2)}
    assert not audit.inspect(live)
    assert audit.inspect({**live, "scaler/scale": torch.full((1,), math.inf)}).names == ("scaler/scale",)
    assert audit.inspect({**live, "model/weight": torch.full((2,), 2.0**40)}).names == ("model/weight",)
