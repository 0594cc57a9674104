"""A shadowed step judges each operation on its own inputs: honest ones pass, and a broken one is named with what is wrong."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F  # noqa: N812 - its usual name
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from yolo_stable.validate import BACKENDS, Status, find_fault
from yolo_stable.validate.battery import find_case
from yolo_stable.validate.execute import Executor
from yolo_stable.validate.shadow.call import HostCall, on_the_host
from yolo_stable.validate.shadow.equivalents import translated
from yolo_stable.validate.shadow.mode import CALLS, Shadow
from yolo_stable.validate.simulated import SimulatedDevice

Change = Callable[[Any, tuple[Any, ...], dict[str, Any]], Any]


class Broken(TorchDispatchMode):
    """Computes one operation as a change says, and counts how often."""

    def __init__(self, name: str, change: Change) -> None:
        super().__init__()
        self.name, self.change, self.fired = name, change, 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None) -> Any:
        if str(func).split(".")[1] != self.name:
            return func(*args, **(kwargs or {}))
        self.fired += 1
        return self.change(func, args, kwargs or {})


def drawn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def after(edit: Callable[[Any], None]) -> Change:
    """Return a change that edits the result in place."""

    def change(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        out = func(*args, **kwargs)
        edit(out)
        return out

    return change


def shadowed(compute: Callable[[], object], name: str = "", change: Change | None = None) -> tuple[Shadow, int]:
    """Compute something under shadow, on a device of which an operation may be broken; return how often it was as well."""
    shadow, broken = Shadow(), Broken(name, change or (lambda func, args, kwargs: func(*args, **kwargs)))
    with broken, shadow:
        compute()
    return shadow, broken.fired


def trained(dtype: torch.dtype | None = None) -> Callable[[], object]:
    """Return a step of a small network, with everything that the kinds of rules are for."""

    def compute() -> None:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            model = nn.Sequential(
                nn.Conv2d(3, 9, 3), nn.BatchNorm2d(9), nn.SiLU(inplace=True), nn.MaxPool2d(3, 2), nn.Upsample(scale_factor=2),
                nn.Conv2d(9, 9, 3, groups=9), nn.GELU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(9, 5),
            ).to(memory_format=torch.channels_last)  # fmt: skip
        optimizer = torch.optim.AdamW(model.parameters(), foreach=True)
        x = drawn(3, 3, 17, 23).contiguous(memory_format=torch.channels_last)
        with torch.autocast("cpu", dtype=dtype or torch.bfloat16, enabled=dtype is not None):
            loss = F.cross_entropy(model(x), torch.tensor([1, 4, 0]))
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 0.1)
        optimizer.step()

    return compute


@pytest.mark.parametrize("dtype", [None, torch.bfloat16])
def test_an_honest_device_passes(dtype: torch.dtype | None) -> None:
    shadow, _ = shadowed(trained(dtype))
    assert shadow.wrong == []
    assert shadow.judged > 40
    assert {"convolution_backward", "native_batch_norm", "_foreach_norm"} <= {n.split("/")[0] for n in shadow.worst}


def _last(out: Tensor) -> None:
    out.flatten()[-1:].view(-1).add_(out.abs().max() * 1e-3 + 1e-3)


def _less_precise(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    return func(*args, **kwargs).bfloat16().float()


def _and_its_mean(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    out = func(*args, **kwargs)
    args[3].mul_(1.01)
    return out


X = drawn(4, 33)
STORIES: list[tuple[str, str, Callable[[], object], Change]] = [
    ("exact", "cat", lambda: torch.cat([X, X]), lambda f, a, k: f(*a, **k).roll(1, 0)),
    ("exact, of integers", "cumsum", lambda: torch.arange(9).cumsum(0), lambda f, a, k: f(*a, **k) + 1),
    ("exact, a comparison", "gt", lambda: X > 0, lambda f, a, k: a[0] >= -0.1),
    ("exact, a number for the host", "_local_scalar_dense", lambda: X[0, 0].item(), lambda f, a, k: f(*a, **k) * 1.001),
    ("pointwise", "silu", lambda: F.silu(X), _less_precise),
    ("pointwise, broadcast", "mul", lambda: X * X[:, :1], lambda f, a, k: f(a[0], a[1].roll(1, 0))),
    ("pointwise, in place", "addcmul_", lambda: X.clone().addcmul_(X, X), after(_last)),
    (
        "pointwise, one of a list",
        "_foreach_mul",
        lambda: torch._foreach_mul([X, X, X], 3.0),
        after(lambda o: _last(o[-1])),
    ),
    ("linear, one element", "mm", lambda: X @ X.T, after(lambda o: o[3, 3].mul_(1.0001))),
    ("linear, the last term lost", "sum", lambda: X.sum(1), lambda f, a, k: f(a[0][:, :-1], *a[1:], **k)),
    ("linear, backward", "convolution_backward", trained(), after(lambda o: o[1][0, 0, 0, 0].add_(1e-3))),
    ("general", "_log_softmax", lambda: X.log_softmax(1), lambda f, a, k: f(a[0] * 1.0001, *a[1:], **k)),
    ("general, the running mean", "native_batch_norm", trained(), _and_its_mean),
    ("general, a norm", "_foreach_norm", trained(), lambda f, a, k: [t * 1.001 for t in f(*a, **k)]),
    ("places, one of the maxima", "argmax", lambda: X.argmax(1), lambda f, a, k: (f(*a, **k) + 1) % 33),
    ("places, an order", "sort", lambda: X.sort(1), lambda f, a, k: (f(*a, **k)[0], f(*a, **k)[1].roll(1, 1))),
    (
        "places, twice the same",
        "topk",
        lambda: torch.ones(9).topk(2),
        lambda f, a, k: (f(*a, **k)[0], torch.tensor([3, 3])),
    ),
]


@pytest.mark.parametrize(("kind", "name", "compute", "change"), STORIES, ids=[story[0] for story in STORIES])
def test_a_broken_operation_is_named(kind: str, name: str, compute: Callable[[], object], change: Change) -> None:
    shadow, fired = shadowed(compute, name, change)
    assert fired > 0
    assert shadow.wrong
    assert all(line.startswith(f"{name}(") for line in shadow.wrong), shadow.wrong
    assert shadowed(compute)[0].wrong == []


def test_the_message_says_type_order_shape_and_by_how_much() -> None:
    x = drawn(2, 3, 5, 4).contiguous(memory_format=torch.channels_last)
    shadow, _ = shadowed(lambda: F.silu(x), "silu", after(lambda out: out[1, 2, 3, 1].add_(1.0)))
    (line,) = shadow.wrong
    assert line.startswith(
        "silu(float32 (2, 3, 5, 4) channels_last): result 0: 1 of 120 elements are off, the worst [1, 2, 3, 1] is"
    )
    assert line.endswith("times what rounding explains")


def test_inputs_are_taken_before_they_are_overwritten() -> None:
    x, into = drawn(5, 7), drawn(5, 7, seed=1)
    shadow, fired = shadowed(lambda: into.mul_(x).add_(1).clamp_(0, 2), "clamp_", lambda f, a, k: a[0])
    assert fired == 1
    assert [line.split("(")[0] for line in shadow.wrong] == ["clamp_"]


def test_an_order_of_equal_numbers_is_free() -> None:
    ties = torch.tensor([1.0, 2.0, 2.0, 0.0])

    def other(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        values, places = func(*args, **kwargs)
        return values, places[[1, 0, 2, 3]]

    shadow, fired = shadowed(lambda: ties.sort(descending=True), "sort", other)
    assert (fired, shadow.wrong) == (1, [])
    shadow, fired = shadowed(lambda: ties.sort(descending=True, stable=True), "sort", other)
    assert fired == 1
    assert len(shadow.wrong) == 1


def test_numbers_below_the_smallest_normal_may_be_flushed() -> None:
    tiny = torch.tensor([1e-40, 1.0])
    shadow, fired = shadowed(lambda: tiny * 2, "mul", lambda f, a, k: f(*a, **k) * torch.tensor([0.0, 1.0]))
    assert (fired, shadow.wrong) == (1, [])
    shadow, fired = shadowed(lambda: tiny > 0, "gt", lambda f, a, k: torch.tensor([False, True]))
    assert (fired, shadow.wrong) == (1, [])


def test_what_is_drawn_by_chance_or_only_seen_otherwise_is_not_judged() -> None:
    shadow, _ = shadowed(lambda: (torch.rand(3), torch.empty(3), X.view(-1), X.T, X.double() * 2))
    assert shadow.wrong == []
    assert set(shadow.not_judged) == {"mul: float64"}


def test_an_operation_that_the_host_cannot_compute_is_listed_and_does_not_fail() -> None:
    halves = X.half()
    shadow, fired = shadowed(lambda: torch.ops.aten._cslt_compress(halves), "_cslt_compress", lambda f, a, k: a[0])
    assert fired == 1
    assert shadow.wrong == []
    assert next(iter(shadow.not_judged)).startswith("_cslt_compress: ")


def test_equal_calls_are_judged_once_and_like_ones_a_few_times() -> None:
    shadow, _ = shadowed(lambda: [X + 1 for _ in range(5)])
    assert shadow.judged == 1
    shadow, _ = shadowed(lambda: [torch.sigmoid(X[:, : n + 16].contiguous()) for n in range(15)])
    assert shadow.worst.keys() == {"sigmoid/float32", "clone/float32"}
    assert shadow.judged == 2 * CALLS


def test_batchnorm_of_an_accelerator_is_held_against_that_of_the_cpu() -> None:
    x, w, b = drawn(2, 3, 4, 5), drawn(3), drawn(3)
    mean, var = torch.zeros(3), torch.ones(3)
    call = HostCall(func=torch.ops.aten.cudnn_batch_norm.default, args=(x, w, b, mean, var, True, 0.1, 1e-5), kwargs={})
    with on_the_host():
        turned, found = translated(call, ["mean", "var", "out", "saved", "inverse", "reserve"])
        results = turned.run()
    assert found == ["mean", "var", "out", "saved", "inverse"]
    assert torch.allclose(results[0], 0.1 * x.mean((0, 2, 3)), atol=1e-6)
    assert torch.allclose(results[2], F.batch_norm(x, None, None, w, b, training=True), atol=1e-5)


@pytest.mark.parametrize("fault", [None, "silu-backward", "bitflip"])
def test_the_check_names_the_operation_that_a_simulated_device_computes_wrongly(fault: str | None) -> None:
    machine = SimulatedDevice(BACKENDS["cpu"], find_fault(fault) if fault else None)
    result = Executor(machine).run(find_case("shadow/classify/channels_last/strict"))
    assert result.numbers["judged"] > 60
    if fault is None:
        assert (result.status, result.reason) == (Status.PASS, "")
    else:
        assert machine.fired > 0
        assert result.status is Status.FAIL
        assert result.reason.startswith({"silu-backward": "silu_backward(", "bitflip": "convolution("}[fault])
