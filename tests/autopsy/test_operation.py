from __future__ import annotations

import math
from typing import Any

import pytest
import torch

from yolo_stable.autopsy.kinds import kind_of
from yolo_stable.autopsy.operation import LARGEST, Budget, in_float64

aten = torch.ops.aten
NAN = torch.tensor([[math.nan, 1.0]])


@pytest.mark.parametrize(
    ("func", "args", "expected"),
    [
        pytest.param(aten.log.default, [torch.tensor([[0.0, 1.0]])], "not finite", id="log(0)"),
        pytest.param(
            aten.mul.Tensor, [torch.tensor([[3e38, 1.0]]), torch.tensor([[10.0, 1.0]])], "overflow", id="overflow"
        ),
        pytest.param(aten.mul.Tensor, [torch.tensor([[3.0, 1.0]]), torch.ones(1, 2)], "finite", id="wrong"),
        pytest.param(aten.bernoulli.p, [torch.ones(1, 2), 0.5], "", id="random"),
        pytest.param(
            aten._to_copy.default, [torch.tensor([[7e4, 1.0]], dtype=torch.float64)], "finite", id="cast to itself"
        ),
    ],
)
def test_what_float64_says(func: Any, args: list[Any], expected: str) -> None:
    assert in_float64(kind_of(func), args, {}, 0, NAN, 0) == expected


def test_a_cast_to_float16_is_done_in_float64_instead() -> None:
    broken = torch.tensor([[math.inf, 1.0]], dtype=torch.float16)
    kwargs = {"dtype": torch.float16}
    assert in_float64(kind_of(aten._to_copy.default), [torch.tensor([[7e4, 1.0]])], kwargs, 0, broken, 0) == "overflow"


def test_a_sum_that_overflows_on_the_way_is_an_overflow_although_it_ends_small() -> None:
    args = [torch.tensor([[3e38, 3e38, -3e38, -3e38]]), torch.ones(4, 1)]
    broken = args[0] @ args[1]
    assert not bool(broken.isfinite().all())
    assert in_float64(kind_of(aten.mm.default), args, {}, 0, broken, 0) == "overflow"


def test_a_convolution_is_done_again_for_one_image_alone() -> None:
    x, weight = torch.ones(64, 16, 40, 40), torch.ones(64, 16, 3, 3)
    x[40] = 3e38
    args = [x, weight, None, [1, 1], [1, 1], [1, 1], False, [0, 0], 1]
    broken = aten.convolution.default(*args)
    assert broken.numel() * weight[0].numel() / 64 < LARGEST
    assert in_float64(kind_of(aten.convolution.default), args, {}, 0, broken, 40) == "overflow"


def test_what_takes_too_long_is_not_known() -> None:
    args = [torch.ones(4000, 1).expand(4000, 4000), torch.ones(4000, 1).expand(4000, 4000)]
    broken = torch.full((1, 1), math.nan).expand(4000, 4000)
    assert in_float64(kind_of(aten.bmm.default), [a[None] for a in args], {}, 0, broken[None], 0) == ""


def test_a_budget_is_spent_once() -> None:
    budget, kind, args = Budget(left=20), kind_of(aten.log.default), [torch.tensor([[0.0, 1.0]])]
    said = [in_float64(kind, args, {}, 0, NAN, 0, budget) for _ in range(2)]
    assert said == ["not finite", ""]


def test_an_operation_that_the_cpu_does_not_have_is_not_known() -> None:
    assert in_float64(kind_of(aten.cudnn_convolution.default), [NAN], {}, 0, NAN, None) == ""


def test_in_place_and_bounded_means_that_the_device_was_wrong() -> None:
    assert in_float64(kind_of(aten.silu_.default), [NAN], {}, 0, NAN, 0) == "finite"


def test_running_statistics_are_results_of_batchnorm() -> None:
    x = torch.tensor([[1e20], [-1e20], [0.0]])
    args = [x, None, None, torch.zeros(1), torch.ones(1), True, 0.1, 1e-5]
    kind = kind_of(aten.native_batch_norm.default)
    assert [write.name for write in kind.writes] == ["running_mean", "running_var"]
    assert in_float64(kind, args, {}, 4, torch.tensor([math.inf]), None) == "overflow"
    assert torch.equal(args[4], torch.ones(1))


@pytest.mark.parametrize(
    ("func", "view", "raw", "writes"),
    [
        (aten.view.default, True, False, []),
        (aten.split.Tensor, True, False, []),
        (aten.lift_fresh.default, True, False, []),
        (aten.empty.memory_format, False, True, []),
        (aten.add.Tensor, False, False, []),
        (aten.add_.Tensor, False, False, [(0, True)]),
        (aten.copy_.default, False, False, [(0, False)]),
        (aten.add.out, False, False, [("out", False)]),
    ],
    ids=lambda value: str(value) if hasattr(value, "_schema") else "",
)
def test_what_an_operation_does_to_memory(func: Any, view: bool, raw: bool, writes: list[Any]) -> None:
    kind = kind_of(func)
    assert (kind.view, kind.raw, [(w.position, w.read) for w in kind.writes]) == (view, raw, writes)
