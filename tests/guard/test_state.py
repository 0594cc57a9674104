from __future__ import annotations

import copy
import json
import math
import random
from typing import Any

import numpy as np
import pytest
import torch
from equality import assert_same
from rig import AVERAGES, OPTIMIZERS, Rig, batches, network
from torch import Tensor, nn

from yolo_stable.errors import InvalidCallError
from yolo_stable.guard.state import TrainingState, _plain, _set

NAN, INF = math.nan, math.inf
ROLLBACKS = 34
"""For each of 30 kinds of training: 1,020 in all."""


def kept(state: TrainingState) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Copy a state as a snapshot does."""
    generators, plain = state.aside()
    return {**{name: t.detach().clone() for name, t in state.live().items()}, **generators}, plain


def ruin(state: TrainingState, dice: random.Random) -> None:
    """Overwrite some tensors of a state, whole."""
    with torch.no_grad():
        for tensor in dice.sample(list(state.live().values()), 5):
            tensor.fill_(dice.choice([NAN, INF, 1e30]) if tensor.is_floating_point() else 77)


@pytest.mark.parametrize("scaled", [False, True], ids=["", "scaler"])
@pytest.mark.parametrize("average", AVERAGES)
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_after_going_back_training_goes_on_bit_for_bit_as_if_nothing_had_been(
    optimizer: str, average: str, scaled: bool
) -> None:
    rig, dice = Rig(optimizer, average, scaled=scaled), random.Random(f"{optimizer} {average} {scaled}")
    data = batches(64, seed=dice.randrange(1000))
    for _ in range(ROLLBACKS):
        tensors, plain = kept(rig.state)
        at = rig.everything()
        next_steps = [dice.choice(data) for _ in range(dice.randint(1, 2))]
        for x in next_steps:
            rig.bare_step(x)
        undisturbed = rig.everything()
        for x in dice.sample(data, dice.randint(0, 2)):
            rig.bare_step(x)
        ruin(rig.state, dice)
        with pytest.raises(AssertionError):
            assert_same(rig.everything(), at)  # there is something to undo
        rig.state.restore(tensors, plain)
        assert_same(rig.everything(), at)
        for x in next_steps:
            rig.bare_step(x)
        assert_same(rig.everything(), undisturbed)
    assert rig.healthy()


def test_what_follows_the_loop_stays_when_it_is_not_asked_for() -> None:
    rig = Rig("AdamW", scaled=True)
    for x in batches(3):
        rig.bare_step(x)
    tensors, plain = kept(rig.state)
    before = rig.weights()
    for x in batches(2):
        rig.bare_step(x)
    later = rig.everything()
    rig.state.restore(tensors, plain, schedules=False)
    now = rig.everything()
    assert_same({key: now[key] for key in before}, before)
    follows = ("groups", "schedule", "python", "numpy", "torch")
    assert_same({key: now[key] for key in follows}, {key: later[key] for key in follows})


def test_generators_can_stay_where_schedules_are_put_back() -> None:
    """As on the ranks that did not save."""
    rig = Rig("AdamW")
    rig.bare_step(batches(1)[0])
    tensors, plain = kept(rig.state)
    before = rig.everything()
    rig.bare_step(batches(1)[0])
    later = rig.everything()
    rig.state.restore(tensors, plain, generators=False)
    now, drawn = rig.everything(), ("python", "numpy", "torch")
    assert_same({key: now[key] for key in now if key not in drawn}, {k: before[k] for k in before if k not in drawn})
    assert_same({key: now[key] for key in drawn}, {key: later[key] for key in drawn})
    rig.state.restore(tensors, plain, schedules=False, generators=True)
    assert_same({key: rig.everything()[key] for key in drawn}, {key: before[key] for key in drawn})


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_before_the_first_step_the_optimizer_had_no_state(optimizer: str) -> None:
    rig = Rig(optimizer, scaled=True)
    at = rig.everything()
    tensors, plain = kept(rig.state)
    had_state = bool(at["optimizer"])
    assert had_state is (optimizer == "Adagrad")
    for x in batches(4):
        rig.bare_step(x)
    assert rig.optimizer.state
    assert rig.scaler is not None
    assert rig.scaler.get_scale() == 2048.0
    rig.state.restore(tensors, plain)
    assert_same(rig.everything(), at)
    assert rig.scaler.get_scale() == 1024.0
    assert bool(rig.optimizer.state) is had_state


def test_a_scaler_that_was_not_used_here_takes_the_scale() -> None:
    used, fresh = Rig(scaled=True), Rig(scaled=True)
    for x in batches(4):
        used.bare_step(x)
    tensors, plain = kept(used.state)
    fresh.state.restore(tensors, plain)
    assert_same(fresh.everything(), used.everything())
    assert used.scaler is not None
    assert fresh.scaler is not None
    assert used.scaler._scale is not fresh.scaler._scale


def test_a_disabled_scaler_has_no_state() -> None:
    model = network()
    scaler = torch.amp.GradScaler("cpu", enabled=False)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    state = TrainingState(model, optimizer, scaler=scaler)
    assert not [name for name in state.live() if name.startswith("scaler/")]
    tensors, plain = kept(state)
    scale = {"scaler/scale": torch.tensor(8.0), "scaler/growth_tracker": torch.tensor(1)}
    state.restore({**tensors, **scale}, plain)
    assert scaler.get_scale() == 1.0


def test_state_keys_that_came_later_are_removed_and_lost_ones_made_again() -> None:
    rig = Rig("AdamW")
    rig.bare_step(batches(1)[0])
    first = next(rig.model.parameters())
    rig.optimizer.state[first]["note"] = {"plain": [1, 2]}
    at = rig.everything()
    tensors, plain = kept(rig.state)
    rig.optimizer.state[first]["note"]["plain"].append(3)
    rig.optimizer.state[first]["extra"] = torch.ones(3)
    del rig.optimizer.state[first]["exp_avg"]
    del rig.optimizer.state[list(rig.model.parameters())[1]]
    rig.state.restore(tensors, plain)
    assert_same(rig.everything(), at)


def test_the_state_of_another_optimizer_is_dropped() -> None:
    rig = Rig("SGD", "none")
    for x in batches(2):
        rig.bare_step(x)
    tensors, plain = kept(rig.state)
    before = copy.deepcopy(rig.model.state_dict())
    rig.optimizer = rig.guard.optimizer = torch.optim.AdamW(rig.model.parameters(), lr=0.5)
    rig.bare_step(batches(1)[0])
    rig.state.restore(tensors, plain)
    assert_same(rig.model.state_dict(), before)
    assert not rig.optimizer.state
    assert rig.optimizer.param_groups[0]["lr"] == 0.5
    rig.bare_step(batches(1)[0])  # with foreign state it would ask for exp_avg
    assert rig.healthy()


@pytest.mark.parametrize("schedules", [True, False])
def test_a_group_that_was_added_since_has_nothing_to_go_back_to(schedules: bool) -> None:
    body, head = nn.Linear(2, 2), nn.Linear(2, 1)
    model = nn.Sequential(body, head)
    optimizer = torch.optim.SGD(body.parameters(), lr=0.1, momentum=0.9)
    state = TrainingState(model, optimizer)

    def step() -> None:
        model(torch.ones(1, 2)).sum().backward()
        optimizer.step()
        model.zero_grad()

    step()
    at = copy.deepcopy(model.state_dict())
    tensors, plain = kept(state)
    optimizer.add_param_group({"params": list(head.parameters()), "lr": 0.3})
    step()
    assert len(optimizer.state) == 4
    state.restore(tensors, plain, schedules=schedules)
    assert_same(model.state_dict(), at)
    assert len(optimizer.state) == 2
    assert [group["lr"] for group in optimizer.param_groups] == [0.1, 0.3]
    step()


def test_parameters_that_only_the_optimizer_holds_go_back_too() -> None:
    model, temperature = nn.Linear(2, 1), nn.Parameter(torch.tensor(2.0))
    optimizer = torch.optim.SGD([*model.parameters(), temperature], lr=0.1)
    state = TrainingState(model, optimizer)
    assert "outside/2" in state.live()
    tensors, plain = kept(state)
    temperature.data.fill_(NAN)
    state.restore(tensors, plain)
    assert temperature.item() == 2.0


def test_buffers_that_to_has_replaced_are_found() -> None:
    rig = Rig("SGD", "none")
    rig.bare_step(batches(1)[0])
    before = copy.deepcopy(rig.model.state_dict())
    tensors, plain = kept(rig.state)
    rig.model.double().float()
    assert rig.state.live()["model/1.running_mean"] is rig.model.get_buffer("1.running_mean")
    rig.model.get_buffer("1.running_mean").fill_(NAN)
    rig.state.restore(tensors, plain)
    assert_same(rig.model.state_dict(), before)


def test_a_model_that_has_become_half_takes_the_values_rounded() -> None:
    rig = Rig("SGD", "none")
    rig.bare_step(batches(1)[0])
    tensors, plain = kept(rig.state)
    rig.model.bfloat16()
    weight = rig.model.get_parameter("0.weight")
    weight.data.fill_(NAN)
    rig.state.restore(tensors, plain)
    assert torch.equal(weight, tensors["model/0.weight"].bfloat16())


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64], ids=str)
def test_other_dtypes_go_back_bit_for_bit(dtype: torch.dtype) -> None:
    model = nn.Linear(3, 3).to(dtype)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    state = TrainingState(model, optimizer)
    model(torch.ones(1, 3, dtype=dtype)).sum().backward()
    optimizer.step()
    at = copy.deepcopy((model.state_dict(), optimizer.state_dict()))
    tensors, plain = kept(state)
    optimizer.step()
    ruin(state, random.Random(0)) if len(state.live()) >= 5 else model.weight.data.fill_(NAN)
    state.restore(tensors, plain)
    assert_same((model.state_dict(), optimizer.state_dict()), at)
    assert model.weight.dtype is dtype


def test_a_layout_stays_as_it_is() -> None:
    model = nn.Conv2d(3, 4, 3)
    model.to(memory_format=torch.channels_last)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    state = TrainingState(model, optimizer)
    model(torch.randn(1, 3, 5, 5)).sum().backward()
    optimizer.step()
    at = copy.deepcopy((model.state_dict(), optimizer.state_dict()))
    tensors, plain = kept(state)
    tensors = {name: tensor.contiguous() for name, tensor in tensors.items()}  # as a snapshot has them
    optimizer.step()
    optimizer.state.clear()
    state.restore(tensors, plain)
    assert_same((model.state_dict(), optimizer.state_dict()), at)
    for tensor in (model.weight, optimizer.state[model.weight]["momentum_buffer"]):
        assert tensor.is_contiguous(memory_format=torch.channels_last)
        assert not tensor.is_contiguous()


def test_buffers_of_every_kind_and_tied_parameters() -> None:
    model = nn.ModuleDict({"a": nn.Linear(2, 2), "b": nn.Linear(2, 2)})
    model["b"].weight = model["a"].weight
    model["a"].register_buffer("count", torch.tensor([1, 2]))
    model["a"].register_buffer("mask", torch.tensor([True, False]))
    model["a"].register_buffer("hidden", torch.tensor([0.5]), persistent=False)
    model["a"].register_buffer("phase", torch.tensor([1 + 2j]))
    model["a"].register_buffer("unset", None)
    state = TrainingState(model, torch.optim.SGD(model.parameters(), lr=0.1))
    names = {"a.weight", "a.bias", "a.count", "a.mask", "a.hidden", "a.phase", "b.bias"}
    assert set(state.live()) == {f"model/{name}" for name in names}
    tensors, plain = kept(state)
    at = {name: tensor.clone() for name, tensor in state.live().items()}
    with torch.no_grad():
        for tensor in state.live().values():
            tensor.fill_(0)
    state.restore(tensors, plain)
    assert_same({name: t.detach() for name, t in state.live().items()}, {name: t.detach() for name, t in at.items()})
    assert model["b"].weight is model["a"].weight


def test_a_buffer_that_is_taken_away_is_no_longer_named() -> None:
    model = nn.Linear(1, 1)
    model.register_buffer("extra", torch.ones(1))
    state = TrainingState(model, torch.optim.SGD(model.parameters(), lr=0.1))
    assert "model/extra" in state.live()
    del model.extra
    assert "model/extra" not in state.live()


def test_a_learning_rate_that_is_a_tensor_stays_that_tensor() -> None:
    model = nn.Linear(1, 1)
    rate = torch.tensor(0.1)
    optimizer = torch.optim.SGD(model.parameters(), lr=rate)
    state = TrainingState(model, optimizer)
    tensors, plain = kept(state)
    assert plain["optimizer"]["groups"][0]["lr"] == rate.item()
    rate.fill_(5.0)
    state.restore(tensors, plain)
    assert optimizer.param_groups[0]["lr"] is rate
    assert torch.equal(rate, torch.tensor(0.1))


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_the_plain_values_survive_json(optimizer: str) -> None:
    rig = Rig(optimizer, scaled=True, snapshot_every=2)
    for x in batches(3):
        rig.bare_step(x)
    tensors, plain = kept(rig.state)
    at = rig.everything()
    rig.bare_step(batches(1)[0])
    rig.state.restore(tensors, json.loads(json.dumps(plain, allow_nan=False)))
    now = rig.everything()
    for state in (now, at):  # LambdaLR has its own list of the functions, which JSON keeps as it is
        state["schedule"] = json.loads(json.dumps(state["schedule"]))
    assert_same(now, at)


def test_the_generators_are_those_of_python_numpy_and_torch() -> None:
    rig = Rig()
    tensors, plain = kept(rig.state)
    random.gauss(0, 1)  # keeps its second number for the next call
    np.random.randn()

    def drawn() -> list[float]:
        return [random.gauss(0, 1), random.random(), np.random.randn(), np.random.rand(), torch.rand(1).item()]

    tensors, plain = kept(rig.state)
    first = drawn()
    assert drawn() != first
    rig.state.restore(tensors, plain)
    assert drawn() == first


def test_the_state_of_another_model_is_refused_and_nothing_is_changed() -> None:
    small, large = nn.Linear(2, 2), nn.Linear(3, 2)
    states = [TrainingState(m, torch.optim.SGD(m.parameters(), lr=0.1)) for m in (small, large)]
    tensors, plain = kept(states[1])
    before = copy.deepcopy(small.state_dict())
    message = r"^This is the state of another model: shape of model/weight: \(2, 3\) there, \(2, 2\) here\.$"
    with pytest.raises(InvalidCallError, match=message):
        states[0].restore(tensors, plain)
    assert_same(small.state_dict(), before)
    with pytest.raises(InvalidCallError, match=r"shape of model/bias: missing there, \(2,\) here"):
        states[0].restore({}, plain)


def test_a_rank_without_an_average_takes_the_state_of_one_that_has_it() -> None:
    first, other = Rig("SGD", "ultralytics"), Rig("SGD", "none")
    first.bare_step(batches(1)[0])
    tensors, plain = kept(first.state)
    other.state.restore(tensors, plain)
    assert_same(other.model.state_dict(), first.model.state_dict())


@pytest.mark.parametrize("average", ["torch", "ultralytics"])
def test_the_average_alone_goes_back_or_begins_anew(average: str) -> None:
    rig = Rig("SGD", average)
    for x in batches(3):
        rig.bare_step(x)
    tensors, plain = kept(rig.state)
    kept_average = rig.weights()["ema"]
    rig.bare_step(batches(1)[0])
    now = rig.everything()
    assert now["ema"][1] == (4 if average == "ultralytics" else None)
    rig.state.restore_ema(tensors, plain)
    assert_same(rig.everything(), {**now, "ema": kept_average})
    rig.state.renew_ema()
    for name, tensor in rig.model.state_dict().items():
        own = rig.averaged.state_dict()[f"module.{name}" if average == "torch" else name]
        assert torch.equal(own, tensor)
    assert_same({**rig.everything(), "ema": None}, {**now, "ema": None})


class Distillation(nn.Module):
    """In two parts, as Ultralytics' is; its average has no teacher."""

    def __init__(self, teacher: nn.Module) -> None:
        super().__init__()
        self.teacher_model: nn.Module | None = teacher.eval().requires_grad_(False)
        self.student_model = network(1)

    def forward(self, x: Tensor) -> Tensor:
        assert self.teacher_model is not None
        return self.student_model(x) - self.teacher_model(x)


def distilled(average: str, teacher: nn.Module) -> TrainingState:
    model = Distillation(teacher)
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.1)  # Ultralytics gives it the teacher's parameters as well
    ema: Any = torch.optim.swa_utils.AveragedModel(model, use_buffers=True)
    if average == "ultralytics":
        ema = copy.deepcopy(model)
        ema.teacher_model = None
    model(batches(1)[0]).square().mean().backward()
    optimizer.step()
    return TrainingState(model, optimizer, ema=ema)


@pytest.mark.parametrize("average", ["torch", "ultralytics"])
def test_the_teacher_of_a_distillation_is_no_part_of_the_state(average: str) -> None:
    state, another = distilled(average, network(2)), distilled(average, nn.Linear(4, 1))
    names = [name for name in state.live() if not name.startswith("optimizer/")]
    module = "module." if average == "torch" else ""
    students = [name for name in network().state_dict()]
    wanted = {f"model/student_model.{n}" for n in students} | {f"ema/{module}student_model.{n}" for n in students}
    assert set(names) == wanted | ({"ema/n_averaged"} if average == "torch" else set())
    tensors, plain = kept(state)
    given: Any = another.model.teacher_model  # anew, and another one
    before = copy.deepcopy(given.state_dict())
    tensors = {name: tensor for name, tensor in tensors.items() if not name.startswith("optimizer/")}
    another.restore(tensors, plain)
    assert_same(dict(given.state_dict()), dict(before))
    students: list[Any] = [another.model.student_model, state.model.student_model]
    assert_same(dict(students[0].state_dict()), dict(students[1].state_dict()))


def test_a_teacher_that_is_trained_is_a_part_like_any_other() -> None:
    model = nn.ModuleDict({"teacher_model": nn.Linear(2, 2), "student_model": nn.Linear(2, 2)})
    state = TrainingState(model, torch.optim.SGD(model.parameters(), lr=0.1))
    assert set(state.live()) == {f"model/{name}" for name in model.state_dict()}


def test_an_optimizer_with_other_parameters_takes_nothing_by_number() -> None:
    """It was exchanged, or its first group has grown: what is counted over all groups is something else by now."""
    model, outside = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2)), nn.Parameter(torch.ones(2, 2))
    both = [*model.parameters(), outside]
    optimizer = torch.optim.SGD(both, lr=0.1, momentum=0.9)
    state = TrainingState(model, optimizer)
    for p in both:
        p.grad = torch.ones_like(p)
    optimizer.step()
    tensors, plain = kept(state)
    other = nn.Parameter(torch.full((2, 2), 5.0))
    state.optimizer = torch.optim.SGD([other, *model[1].parameters()], lr=0.1, momentum=0.9)
    other.grad = torch.ones_like(other)
    state.optimizer.step()
    value = other.detach().clone()
    state.restore(tensors, plain)
    assert torch.equal(other.detach(), value)
    assert not state.optimizer.state


def test_a_group_that_comes_after_the_rest_was_put_back_gets_its_own() -> None:
    """A resumed run whose callback adds the group again, at the last moment."""
    torch.manual_seed(1)
    ends = []
    for resumed in (False, True):
        model, outside = nn.Linear(2, 1), nn.Parameter(torch.zeros(3))
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
        state = TrainingState(model, optimizer)
        if resumed:
            state.restore(*ends[0])
            held = len(list(model.parameters()))
            optimizer.add_param_group({"params": [outside]})
            state.restore_late(ends[0][0], ends[0][1], held)
        else:
            optimizer.add_param_group({"params": [outside]})
            for p in (*model.parameters(), outside):
                p.grad = torch.ones_like(p)
            optimizer.step()
        ends.append(kept(state))
    assert_same(ends[0][0], ends[1][0])
    assert "outside/2" in ends[1][0]
    assert "optimizer/2/momentum_buffer" in ends[1][0]


@pytest.mark.parametrize("late", [False, True], ids=["at once", "late"])
def test_what_only_the_optimizer_holds_in_another_shape_stays_as_it_is(late: bool) -> None:
    states = []
    for size in (3, 5):
        model, outside = nn.Linear(2, 1), nn.Parameter(torch.full((size,), float(size)))
        optimizer = torch.optim.SGD([*model.parameters(), outside], lr=0.1)
        states.append((TrainingState(model, optimizer), outside))
    (saved, same), (other, outside) = states
    tensors, plain = kept(saved)
    for state in (saved, other):
        with torch.no_grad():
            for parameter in state.optimizer.param_groups[0]["params"]:
                parameter.add_(1.0)
        if late:
            state.restore_late(tensors, plain, held=2)
        else:
            state.restore(tensors, plain)
    assert same.tolist() == [3.0] * 3
    assert outside.tolist() == [6.0] * 5
    assert torch.equal(other.live()["model/weight"], tensors["model/weight"]) is not late


def test_state_of_an_optimizer_that_has_grown_since_is_made_anew() -> None:
    model = nn.Linear(2, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    optimizer.state[model.weight]["history"] = torch.tensor([1.0, 2.0])
    state = TrainingState(model, optimizer)
    tensors, plain = kept(state)
    optimizer.state[model.weight]["history"] = torch.tensor([1.0, 2.0, 3.0])
    state.restore(tensors, plain)
    assert optimizer.state[model.weight]["history"].tolist() == [1.0, 2.0]
    optimizer.state[model.weight]["history"] = torch.tensor([7, 8])
    state.restore(tensors, plain)
    assert optimizer.state[model.weight]["history"].dtype is torch.float32


@pytest.mark.parametrize(("value", "plain"), [(0.5, 0.5), ([0.5], 0.5), ([0.5, 0.25], [0.5, 0.25])])
def test_a_learning_rate_that_is_a_tensor_becomes_a_number_and_stays_a_tensor(value: Any, plain: Any) -> None:
    assert _plain({"lr": torch.tensor(value)}) == {"lr": plain}
    mine = torch.zeros_like(torch.tensor(value))
    group: dict[str, Any] = {"lr": mine}
    if not isinstance(plain, list):
        _set(group, "lr", plain)
        assert group["lr"] is mine
        assert torch.equal(mine, torch.tensor(value))
