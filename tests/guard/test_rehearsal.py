"""Which step is taken: fused where a rehearsal shows that it can be trusted, else the reference, with the reason."""

from __future__ import annotations

import copy
import functools
import re
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.optim.optimizer import register_optimizer_step_post_hook, register_optimizer_step_pre_hook
from ultralytics.optim import MuSGD

from yolo_stable.errors import InvalidCallError
from yolo_stable.guard import StepGuard, rehearsal
from yolo_stable.guard.fused import FusedStep
from yolo_stable.guard.rehearsal import choose_step, obstacle, rehearse
from yolo_stable.guard.step import ReferenceStep


def network(dtype: torch.dtype = torch.float32) -> nn.Sequential:
    torch.manual_seed(1)
    return nn.Sequential(nn.Conv2d(2, 3, 3), nn.Flatten(), nn.Linear(12, 2)).to(dtype)


def musgd(model: nn.Module, **settings: Any) -> MuSGD:
    matrices = [p for p in model.parameters() if p.ndim > 1]
    vectors = [p for p in model.parameters() if p.ndim == 1]
    groups = [{"params": matrices, "use_muon": True, "weight_decay": 5e-4}, {"params": vectors, "param_group": "bias"}]
    return MuSGD(groups, **{"lr": 0.01, "momentum": 0.9, "nesterov": True, "muon": 0.2, "sgd": 1.0, **settings})


class Custom(torch.optim.AdamW):
    """What a user derives from an optimizer may do anything in its step."""


Maker = Callable[[nn.Module], torch.optim.Optimizer]
FUSED: dict[str, Maker] = {
    "SGD": lambda m: torch.optim.SGD(m.parameters(), lr=0.01, momentum=0.937, nesterov=True, weight_decay=5e-4),
    "SGD-plain": lambda m: torch.optim.SGD(m.parameters(), lr=0.01),
    "SGD-maximize": lambda m: torch.optim.SGD(m.parameters(), lr=0.01, momentum=0.9, maximize=True),
    "SGD-foreach": lambda m: torch.optim.SGD(m.parameters(), lr=0.01, momentum=0.9, foreach=True),
    "SGD-fused": lambda m: torch.optim.SGD(m.parameters(), lr=0.01, momentum=0.9, fused=True),
    "Adam": lambda m: torch.optim.Adam(m.parameters(), lr=0.001),
    "Adam-lr-tensor": lambda m: torch.optim.Adam(m.parameters(), lr=torch.tensor(0.001)),
    "Adam-amsgrad": lambda m: torch.optim.Adam(m.parameters(), amsgrad=True, weight_decay=0.1),
    "AdamW": lambda m: torch.optim.AdamW(m.parameters(), lr=0.001),
    "AdamW-fused": lambda m: torch.optim.AdamW(m.parameters(), fused=True),
    "MuSGD": musgd,
    "MuSGD-plain": lambda m: musgd(m, nesterov=False),
    "MuSGD-heavy-decay": lambda m: musgd(m, weight_decay=0.5),
}
NO_KERNEL = "{} has no fused kernel that clips and skips"
REFERENCE: dict[str, tuple[Maker, str]] = {
    **{
        name: (lambda m, name=name: getattr(torch.optim, name)(m.parameters(), lr=0.01), NO_KERNEL.format(name))
        for name in ("RMSprop", "NAdam", "Adamax", "RAdam", "Adagrad", "Adadelta", "ASGD", "Rprop")
    },
    "unknown": (lambda m: Custom(m.parameters()), NO_KERNEL.format("Custom")),
    "Adam-differentiable": (
        lambda m: torch.optim.Adam(m.parameters(), differentiable=True),
        "Adam(differentiable=True) has no fused kernel",
    ),
    "SGD-dampening": (
        lambda m: torch.optim.SGD(m.parameters(), lr=0.01, momentum=0.9, dampening=0.1),
        "SGD with dampening has a first step of its own",
    ),
    "complex": (
        lambda m: torch.optim.SGD([nn.Parameter(torch.ones(2, dtype=torch.complex64))], lr=0.01),
        "a parameter is torch.complex64",
    ),
    "gaps": (
        lambda m: torch.optim.SGD([nn.Parameter(torch.ones(4, 4)[:, ::2])], lr=0.01),
        "a parameter is not dense in memory",
    ),
    "Adam-capturable": (  # on the CPU it raises an AssertionError, in stock as well
        lambda m: torch.optim.Adam(m.parameters(), capturable=True),
        "the fused kernel does not run here: If capturable=True, params and state_steps must be on supported devices",
    ),
}
for_device = functools.partial(FusedStep, on_device=True)


@pytest.mark.parametrize("kind", FUSED)
@pytest.mark.parametrize("setting", ["auto", "fused"])
@pytest.mark.parametrize("on_device", [False, True], ids=["host", "device"])
def test_the_fused_step_is_taken_where_it_can_be_trusted(
    on_device: bool, setting: str, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if on_device:
        monkeypatch.setattr(rehearsal, "FusedStep", for_device)
    model = network()
    guard = StepGuard(model, FUSED[kind](model), step=setting)
    assert guard.step_name == f"fused {kind.split('-')[0]}"
    assert type(guard._step) is FusedStep
    guard.backward(model(torch.ones(1, 2, 4, 4)).sum())
    assert guard.step()


@pytest.mark.parametrize("kind", REFERENCE)
def test_anything_else_goes_through_the_reference_step_and_says_why(kind: str) -> None:
    maker, reason = REFERENCE[kind]
    model = network()
    optimizer = maker(model)
    guard = StepGuard(model, optimizer)
    assert guard.step_name.startswith(f"reference ({reason}")
    assert type(guard._step) is ReferenceStep
    with pytest.raises(InvalidCallError, match=r"^guard\.step=fused is not possible: " + re.escape(reason)) as caught:
        StepGuard(model, optimizer, step="fused")
    assert str(caught.value).endswith("Set guard.step=auto or reference.")
    assert StepGuard(model, optimizer, step="reference").step_name == "reference"


@pytest.mark.parametrize("kind", ["SGD", "AdamW", "MuSGD"])
def test_the_reference_step_stays_selectable_and_is_not_rehearsed(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rehearsal, "rehearse", lambda optimizer: pytest.fail("rehearsed"))
    model = network()
    guard = StepGuard(model, FUSED[kind](model), step="reference")
    assert (guard.step_name, type(guard._step)) == ("reference", ReferenceStep)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("kind", ["SGD", "Adam", "AdamW", "MuSGD"])
def test_half_precision_is_fused(kind: str, dtype: torch.dtype) -> None:
    model = network(dtype)
    assert StepGuard(model, FUSED[kind](model)).step_name == f"fused {kind}"


@pytest.mark.parametrize("kind", ["SGD", "AdamW"])
def test_float64_is_left_to_the_reference_because_the_kernel_divides_by_a_float32(kind: str) -> None:
    model = network(torch.float64)
    name = StepGuard(model, FUSED[kind](model)).step_name
    assert re.fullmatch(
        r"reference \(the fused step differs from the reference by \d\.\de-\d\d, more than 1\.0e-12\)", name
    )


# ---- a broken kernel ----------------------------------------------------------------------------------------------------


def ignores_the_flag(kernel: Any, *args: Any, **kwargs: Any) -> None:
    kernel(*args, **{**kwargs, "found_inf": None})


def is_a_thousandth_off(kernel: Any, *args: Any, **kwargs: Any) -> None:
    kernel(*args, **kwargs)
    for p in args[0]:
        p.mul_(1.001)


def does_not_divide(kernel: Any, *args: Any, **kwargs: Any) -> None:
    kernel(*args, **{**kwargs, "grad_scale": None})


def writes_nan_when_skipping(kernel: Any, *args: Any, **kwargs: Any) -> None:
    kernel(*args, **kwargs)
    if kwargs["found_inf"] is not None and kwargs["found_inf"].item() == 1.0:
        for p in args[0]:
            p.fill_(float("nan"))


def is_missing(kernel: Any, *args: Any, **kwargs: Any) -> None:
    raise NotImplementedError("Could not run 'aten::_fused_sgd_' with arguments\n from the 'XYZ' backend.")


def knows_no_such_argument(kernel: Any, *args: Any, **kwargs: Any) -> None:
    kernel(*args, **kwargs, no_such_argument=1)


def leads_nowhere(kernel: Any, *args: Any, **kwargs: Any) -> None:
    raise AttributeError("module 'torch' has no attribute '_fused_sgd_'")


OFF = r"the fused step differs from the reference by \S+, more than 1\.0e-06"
BROKEN: dict[str, tuple[Callable[..., None], bool, str]] = {
    "ignores-found_inf": (ignores_the_flag, True, "the fused step leaves a trace of a window that it rejects"),
    "writes-nan-when-skipping": (
        writes_nan_when_skipping,
        True,
        "the fused step leaves a trace of a window that it rejects",
    ),
    "off-by-a-thousandth-host": (is_a_thousandth_off, False, OFF),
    "off-by-a-thousandth-device": (
        is_a_thousandth_off,
        True,
        rf"({OFF}|the fused step leaves a trace of a window that it rejects)",
    ),
    "ignores-grad_scale-host": (does_not_divide, False, OFF),
    "ignores-grad_scale-device": (does_not_divide, True, OFF),
    "missing": (
        is_missing,
        False,
        "the fused kernel does not run here: Could not run 'aten::_fused_sgd_' with arguments",
    ),
    "other-signature": (knows_no_such_argument, False, "the fused kernel does not run here: .*no_such_argument"),
    "no-such-name": (leads_nowhere, False, "the fused kernel does not run here: module 'torch' has no attribute"),
}


@pytest.mark.parametrize("broken", BROKEN)
def test_a_broken_kernel_is_not_taken(broken: str, monkeypatch: pytest.MonkeyPatch) -> None:
    breakage, on_device, reason = BROKEN[broken]
    if on_device:
        monkeypatch.setattr(rehearsal, "FusedStep", for_device)
    monkeypatch.setattr(torch, "_fused_sgd_", functools.partial(breakage, torch._fused_sgd_))
    model = network()
    optimizer = FUSED["SGD"](model)
    before = copy.deepcopy((model.state_dict(), optimizer.state_dict()))
    guard = StepGuard(model, optimizer)
    assert re.match(rf"reference \({reason}", guard.step_name), guard.step_name
    assert "\n" not in guard.step_name, "it is one cell of a table"
    with pytest.raises(InvalidCallError, match=rf"^guard\.step=fused is not possible: {reason}"):
        StepGuard(model, optimizer, step="fused")
    assert repr(before) == repr((model.state_dict(), optimizer.state_dict()))
    guard.backward(model(torch.ones(1, 2, 4, 4)).sum())
    assert guard.step(), "the reference step does not need the kernel"


@pytest.mark.parametrize("kind", ["Adam", "AdamW"])
def test_a_broken_adam_is_not_taken_either(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    name = f"_fused_{kind.lower()}_"
    monkeypatch.setattr(torch, name, functools.partial(is_a_thousandth_off, getattr(torch, name)))
    model = network()
    assert re.match(rf"reference \({OFF}", StepGuard(model, FUSED[kind](model)).step_name)


def test_a_broken_muon_is_not_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "_fused_sgd_", functools.partial(is_a_thousandth_off, torch._fused_sgd_))
    model = network()
    assert StepGuard(model, musgd(model)).step_name.startswith("reference (the fused step differs")


# ---- a rehearsal is not a performance -----------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", FUSED)
def test_the_rehearsal_touches_nothing(kind: str) -> None:
    model = network()
    optimizer = FUSED[kind](model)
    for p in model.parameters():
        p.grad = torch.ones_like(p)
    optimizer.step()
    before = copy.deepcopy((model.state_dict(), optimizer.state_dict(), [p.grad for p in model.parameters()]))
    attributes = set(vars(optimizer))
    state = torch.get_rng_state()
    assert choose_step(model, optimizer, None, StepGuard(model, optimizer).config)[1].startswith("fused")
    after = (model.state_dict(), optimizer.state_dict(), [p.grad for p in model.parameters()])
    assert repr(before) == repr(after)
    assert torch.equal(state, torch.get_rng_state())
    assert set(vars(optimizer)) == attributes


def test_hooks_for_all_optimizers_do_not_see_the_rehearsal_and_are_there_afterwards() -> None:
    seen: list[str] = []
    handles = [
        register_optimizer_step_pre_hook(lambda *_: seen.append("before")),
        register_optimizer_step_post_hook(lambda *_: seen.append("after")),
    ]
    try:
        model = network()
        optimizer = FUSED["SGD"](model)
        guard = StepGuard(model, optimizer)
        assert guard.step_name == "fused SGD"
        assert seen == []
        guard.backward(model(torch.ones(1, 2, 4, 4)).sum())
        assert guard.step()
        assert seen == ["before", "after"]
    finally:
        for handle in handles:
            handle.remove()
    guard.backward(model(torch.ones(1, 2, 4, 4)).sum())
    assert guard.step()
    assert seen == ["before", "after"]


def test_the_rehearsed_parameters_do_not_share_memory() -> None:
    model = network()
    stage = rehearsal._Stage(FUSED["SGD"](model), ReferenceStep)
    places = [p.data_ptr() for p in stage.parameters]
    assert len(set(places)) == len(places) == 2


@pytest.mark.parametrize("warn_only", [True, False], ids=["warn-only", "strict"])
@pytest.mark.parametrize("kind", ["SGD", "Adam", "AdamW", "MuSGD"])
def test_it_runs_where_only_deterministic_algorithms_are_allowed(kind: str, warn_only: bool) -> None:
    model = network()
    optimizer = FUSED[kind](model)
    torch.use_deterministic_algorithms(True, warn_only=warn_only)
    try:
        guard = StepGuard(model, optimizer)
        assert guard.step_name == f"fused {kind}"
        for _ in range(2):
            guard.backward(model(torch.ones(1, 2, 4, 4)).sum())
            assert guard.step()
    finally:
        torch.use_deterministic_algorithms(False)


@pytest.mark.parametrize("mode", [torch.no_grad, torch.enable_grad, torch.inference_mode], ids=lambda m: m.__name__)
@pytest.mark.parametrize("kind", ["SGD", "AdamW", "MuSGD"])
def test_it_does_not_mind_the_mode_it_is_called_in(kind: str, mode: Any) -> None:
    model = network()
    optimizer = FUSED[kind](model)
    with mode():
        assert obstacle(optimizer) == ""
        assert rehearse(optimizer) == ""


def test_a_default_dtype_of_float64_is_no_obstacle() -> None:
    model = network()
    optimizer = FUSED["SGD"](model)
    torch.set_default_dtype(torch.float64)
    try:
        assert StepGuard(model, optimizer).step_name == "fused SGD"
    finally:
        torch.set_default_dtype(torch.float32)


def test_what_is_in_the_groups_does_not_matter() -> None:
    """Schedulers and trainers write into them."""
    model = network()
    optimizer = FUSED["SGD"](model)
    optimizer.param_groups[0].update(initial_lr=0.1, param_group="weight", anything=object())
    frozen = nn.Parameter(torch.ones(2), requires_grad=False)
    optimizer.add_param_group({"params": [frozen], "lr": Tensor([0.1])})
    assert StepGuard(model, optimizer).step_name == "fused SGD"


@pytest.mark.parametrize("dtype", [torch.float8_e4m3fn, torch.int32, torch.complex64], ids=str)
def test_parameters_of_a_type_that_no_fused_kernel_was_tried_with_are_an_obstacle(dtype: torch.dtype) -> None:
    parameter = nn.Parameter(torch.zeros(2).to(dtype), requires_grad=False)
    assert obstacle(torch.optim.SGD([parameter], lr=0.1)) == f"a parameter is {dtype}"
