"""A device whose norms and maxima lose NaN is found out before the first step, and no fault gets past it."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from equality import assert_same
from lying_backend import lying
from rig import Rig, batches
from torch import Tensor, nn

from yolo_stable.autopsy.inspection import sick_weights
from yolo_stable.chaos import LyingBackend
from yolo_stable.chaos.backend import EXTREMES, NORMS
from yolo_stable.errors import InvalidCallError
from yolo_stable.guard import StepGuard, reductions
from yolo_stable.guard.audit import Audit
from yolo_stable.guard.gradients import kinds_of, total_norm
from yolo_stable.guard.health import all_finite

CPU = torch.device("cpu")
NAN, INF = math.nan, math.inf
DTYPES = [torch.float16, torch.bfloat16, torch.float32, torch.float64]


@pytest.fixture(autouse=True)
def _tried_anew() -> Iterator[None]:
    reductions.forget()
    yield
    reductions.forget()


def test_its_lies() -> None:
    """It lies where it should, or no test that uses it would say anything."""
    x = torch.tensor([1.0, float("nan"), 3.0])
    with LyingBackend() as backend:
        assert float(x.max()) == 3.0
        assert float(torch.linalg.vector_norm(x, float("inf"))) == 3.0
        assert float(torch._foreach_norm([x], 2.0)[0]) == pytest.approx(10**0.5)
        assert bool(x.isnan().any())
    assert backend.lies == 3


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_an_honest_device_is_trusted_and_asked_once(dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch) -> None:
    assert reductions.try_out([torch.ones(2, dtype=dtype), torch.ones(3, dtype=torch.int64)]) == ()
    monkeypatch.setattr(reductions, "_passes_on", lambda *_: pytest.fail("tried twice"))
    assert reductions.trusted(CPU, dtype)


@pytest.mark.parametrize(
    "calls", [("aten._foreach_norm",), ("aten.linalg_vector_norm",), ("aten.max",), NORMS, EXTREMES]
)
@pytest.mark.parametrize("lost", [{}, {"infinity": True}, {"from_size": 5_000}], ids=["nan", "inf too", "large ones"])
def test_each_lie_alone_is_found_out(calls: tuple[str, ...], lost: dict[str, Any]) -> None:
    with lying(calls, **lost) as backend:
        # A norm of norms is taken of few numbers: one that lies on large tensors only is never asked wrongly.
        assert not reductions.trusted(CPU, torch.float32)
    assert backend.lies


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_health_on_a_lying_device_is_what_it_is_elsewhere(dtype: torch.dtype) -> None:
    def answers() -> list[Any]:
        found: list[Any] = []
        for value in (1.0, NAN, INF, -INF):
            for size in (1, 7, 5_000):
                x = torch.ones(size, dtype=dtype)
                x[size // 2] = value
                other = torch.ones(3, dtype=dtype)
                live = {"model/a": x, "model/b": other}
                found += [
                    all_finite([other, x]),
                    [math.isfinite(v) for v in reductions.largest([other, x]).tolist()],
                    float(reductions.maximum(x.abs())),
                    math.isfinite(float(total_norm([other, x], kinds_of([other, x])))),
                    Audit(1e8).inspect(live).names,
                ]
        return list(map(str, found))

    honest = answers()
    with lying() as backend:
        assert reductions.try_out([torch.ones(1, dtype=dtype)]) == (f"cpu {str(dtype).removeprefix('torch.')}",)
        lies = backend.lies
        assert answers() == honest
    assert lies


def test_a_device_without_foreach_norms_is_asked_otherwise() -> None:
    with lying((), missing=("aten._foreach_norm",)):
        model = nn.Linear(2, 2)
        guard = StepGuard(model, torch.optim.NAdam(model.parameters()), step="reference")
        assert guard.doubted == ("cpu float32",)
        assert all_finite(model.parameters())
        model.weight.data[0, 0] = NAN
        assert not all_finite(model.parameters())
        assert sick_weights(model).not_finite == ("weight",)


class _Blind(LyingBackend):
    """Nothing that it computes is ever not finite."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if str(func).startswith(("aten.isnan", "aten.isinf", "aten.ne.Tensor", "aten.isfinite", "aten.eq")):
            return torch.zeros(args[0].shape, dtype=torch.bool)
        return super().__torch_dispatch__(func, types, args, kwargs)


def test_a_device_that_loses_nan_in_everything_is_refused() -> None:
    model = nn.Linear(2, 2)
    said = r"Device cpu cannot be guarded: in float32 [^\n]*\n[^\n]*:\nyolo-stable validate --device cpu$"
    with _Blind(), pytest.raises(InvalidCallError, match=said):
        StepGuard(model, torch.optim.SGD(model.parameters(), lr=0.1))


Spoil = Callable[[Rig, Tensor, float], None]


def _in_pixel(rig: Rig, batch: Tensor, value: float) -> None:
    batch[1, 2] = value


def _in_gradient(rig: Rig, batch: Tensor, value: float) -> None:
    def once(gradient: Tensor) -> Tensor:
        handle.remove()
        return gradient.index_put((torch.tensor(1), torch.tensor(1)), torch.tensor(value))

    handle = rig.model.get_parameter("0.weight").register_hook(once)


def _in_weight(rig: Rig, batch: Tensor, value: float) -> None:
    rig.model.get_parameter("0.weight").data[1, 1] = value


def _in_momentum(rig: Rig, batch: Tensor, value: float) -> None:
    state = rig.optimizer.state[rig.model.get_parameter("0.weight")]
    next(v for v in state.values() if isinstance(v, Tensor) and v.ndim == 2)[1, 1] = value


def _in_average(rig: Rig, batch: Tensor, value: float) -> None:
    rig.averaged.get_parameter("0.weight").data[1, 1] = value


def _in_variance(rig: Rig, batch: Tensor, value: float) -> None:
    rig.model.get_buffer("1.running_var")[1] = value


PLACES: dict[str, Spoil] = {
    "pixel": _in_pixel,
    "gradient": _in_gradient,
    "weight": _in_weight,
    "momentum": _in_momentum,
    "EMA": _in_average,
    "running_var": _in_variance,
}


def told(spoil: Spoil, value: float, optimizer: str, **settings: Any) -> tuple[dict[str, int], list[str], bool]:
    """Return what the guard counted, where it escalated, and whether all is healthy at the end of a run with one fault."""
    rig = Rig(optimizer, snapshot_every=2, max_norm=10.0, **settings)
    for number, batch in enumerate(batches(12)):
        if number == 5:
            spoil(rig, batch, value)
        rig.step(batch)
    return rig.guard.counts.to_dict(), [escalation.level.value for escalation in rig.escalations], rig.healthy()


@pytest.mark.parametrize("place", PLACES)
def test_no_fault_gets_past_a_lying_device(place: str) -> None:
    # Every step there is, with and without a loss scale: fused by one kernel or several, and stock's own.
    stories = [
        (NAN, "SGD", False),
        (INF, "SGD", True),
        (NAN, "AdamW", True),
        (NAN, "MuSGD", False),
        (INF, "RMSprop", False),
    ]
    honest = [told(PLACES[place], value, name, scaled=scaled) for value, name, scaled in stories]
    with lying(infinity=True) as backend:
        assert reductions.try_out([torch.ones(1)])
        for (value, name, scaled), expected in zip(stories, honest, strict=True):
            before = backend.lies
            assert told(PLACES[place], value, name, scaled=scaled) == expected
            assert backend.lies > before
            counts, escalations, healthy = expected
            assert healthy
            assert escalations or counts["rejected_micro_batches"] + counts["rejected_windows"], (
                "the fault was not seen at all"
            )


def test_the_lies_would_have_been_believed(monkeypatch: pytest.MonkeyPatch) -> None:
    """The control: with the device taken for honest, the same faults do get past."""
    monkeypatch.setattr(reductions, "_passes_on", lambda *_: True)
    with lying(infinity=True):
        for place in ("gradient", "weight", "momentum"):
            assert not told(PLACES[place], NAN, "SGD", step="reference")[-1], place


def test_a_healthy_run_on_a_lying_device_is_the_same_bit_for_bit() -> None:
    def run() -> dict[str, Any]:
        rig = Rig("AdamW", snapshot_every=2, max_norm=1.0)
        for batch in batches(6):
            rig.step(batch)
        return rig.everything()

    honest = run()
    with lying():
        assert_same(run(), honest)


@pytest.mark.parametrize("size", [0, 1, 33, 4_097, 262_145])
def test_a_call_that_loses_what_is_not_finite_at_some_size_is_found_out(size: int) -> None:
    """A scalar tail, a vector loop with a tail, several blocks, several launches."""

    def largest(values: Tensor) -> list[Tensor]:
        return [(values.nan_to_num(1.0, 1.0, 1.0) if values.numel() == size else values.abs()).max()]

    assert reductions._passes_on(largest, CPU, torch.float32) is (size == 0)
