from __future__ import annotations

from typing import Any

import torch
from torch import nn

from yolo_stable.autopsy.inspection import sick_weights
from yolo_stable.autopsy.locate import locate
from yolo_stable.guard import StepGuard
from yolo_stable.guard.state import TrainingState
from yolo_stable.guard.wrappers import plain_modules, plainly_named, unwrap


def test_wrappers_are_looked_through() -> None:
    model = nn.Linear(1, 1)
    assert unwrap(model) is model
    assert unwrap(nn.DataParallel(model)) is model
    assert unwrap(torch.compile(model)) is model  # type: ignore[arg-type]
    inner = nn.Module()
    inner.module = model  # an attribute that happens to be called so
    assert unwrap(inner) is inner


def compiled(model: nn.Module) -> nn.Module:
    """Return a network whose second part is compiled, and which is compiled as a whole: nothing is run."""
    model[1] = torch.compile(model[1])  # type: ignore[index]
    return torch.compile(model)  # type: ignore[return-value]


def blocks() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(2, 2), nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2)))


def test_no_name_shows_that_something_was_compiled() -> None:
    plain, wrapped = blocks(), compiled(blocks())
    assert [n for n, _ in plainly_named(wrapped.named_parameters())] == [n for n, _ in plain.named_parameters()]
    assert [n for n, _ in plainly_named(wrapped.named_buffers())] == [n for n, _ in plain.named_buffers()]
    mine = [(name, type(module)) for name, module in plain_modules(wrapped)]
    assert mine == [(name, type(module)) for name, module in plain.named_modules()]


def test_what_the_guard_says_of_a_compiled_network_is_what_it_says_of_a_plain_one() -> None:
    said = []
    for model in (blocks(), compiled(blocks())):
        guard = StepGuard(model, torch.optim.SGD(model.parameters(), lr=0.1), snapshot_every=1)
        part: dict[str, Any] = dict(plain_modules(model))
        part["1.1"].running_mean[1] = float("nan")
        first = guard.backward(sum(p.sum() for p in model.parameters()))  # type: ignore[arg-type]
        for p in model.parameters():
            p.grad = torch.ones_like(p)
        part["0"].weight.grad[0, 0] = float("inf")
        second = guard.step()
        part["0"].weight.grad = torch.ones(2, 2)
        third = guard.step(measure=True)
        said.append((first.culprits, second.culprits, third.layers, sorted(guard.state.live())))
    assert said[0] == said[1]
    assert said[0][0] == ("1.1.running_mean",)
    assert said[0][1] == ("0.weight",)


def test_a_state_goes_from_a_compiled_network_to_a_plain_one_and_back() -> None:
    plain, wrapped = blocks(), compiled(blocks())
    states = [TrainingState(m, torch.optim.SGD(m.parameters(), lr=0.1, momentum=0.9)) for m in (plain, wrapped)]
    for theirs, mine in (states, states[::-1]):
        tensors = {name: torch.rand_like(t) if t.is_floating_point() else t + 1 for name, t in theirs.live().items()}
        generators, values = theirs.aside()
        mine.restore({**tensors, **generators}, values)
        assert all(torch.equal(tensor, tensors[name]) for name, tensor in mine.live().items())
    # As earlier versions have written it.
    old = {f"model/{name}": torch.rand_like(t) for name, t in unwrap(wrapped).named_parameters()}
    old |= {f"model/{name}": t for name, t in unwrap(wrapped).named_buffers()}
    assert any("_orig_mod" in name for name in old)
    states[0].restore(old, states[0].aside()[1], schedules=False)
    assert torch.equal(plain[1][0].weight, old["model/1._orig_mod.0.weight"])  # type: ignore[index]


def test_an_autopsy_of_a_compiled_network_names_what_it_names_of_a_plain_one() -> None:
    found = []
    for model in (blocks(), compiled(blocks())):
        part: dict[str, Any] = dict(plain_modules(model))
        with torch.no_grad():
            part["1.0"].weight.fill_(3e38)
        location = locate(model, torch.ones(3, 2), lambda output: output.sum(), frames=2)
        assert location.first is not None
        found.append((location.first.module, location.first.module_type, location.bad_gradients, location.bad_buffers))
        assert not any("_orig_mod" in frame.module for frame in location.frames)
        assert "_orig_mod" not in str(sick_weights(model))
    assert found[0] == found[1]
    assert found[0][0] in {"1.0", "1.1"}
