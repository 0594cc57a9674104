"""The whole of it through its process: a clean device, a faulty one, and what raises, hangs or dies."""

from __future__ import annotations

import pytest
from validations import slice_of_battery

from yolo_stable.errors import InvalidCallError
from yolo_stable.validate import Progress, Status, from_json, run_one, to_json, validate
from yolo_stable.validate.battery import find_case
from yolo_stable.validate.execute import Executor
from yolo_stable.validate.simulated import machine_for

SEVEN = "linear/depthwise7x7/contiguous/strict"


def test_a_clean_cpu_passes_and_its_result_survives_the_file() -> None:
    seen: list[Progress] = []
    result = validate("cpu", "quick", families=("transfer",), progress=seen.append)
    assert (result.status, result.backend, result.golden != "") == (Status.PASS, "cpu", True)
    assert {r.family for r in result.results} == {"transfer"}
    assert (seen[-1].done, seen[-1].result) == (seen[-1].total, result.results[-1])
    assert from_json(to_json(result)) == from_json(to_json(from_json(to_json(result))))


@pytest.mark.usefixtures("warm_programs")
def test_a_kernel_that_kills_the_process_fails_alone_and_the_rest_is_run(monkeypatch: pytest.MonkeyPatch) -> None:
    layouts = [f"linear/depthwise7x7/{layout}/strict" for layout in ("contiguous", "channels_last", "view")]
    slice_of_battery(monkeypatch, "linear/bmm/view/strict", *layouts, "linear/matmul-nn/contiguous/strict")
    result = validate("cpu", "quick", inject="dies", families=("linear",))
    assert result.results[0].status is Status.PASS
    failed = result.failed()
    assert {r.check for r in failed} == {"linear/depthwise7x7"}
    assert "SIGSEGV" in failed[0].reason
    assert "not run: 2 other cases" in failed[-1].reason
    assert result.results[-1].status is Status.PASS


def test_a_kernel_that_raises_fails_with_what_it_said() -> None:
    result = Executor(machine_for("cpu", "raises")).run(find_case(SEVEN))
    assert result.status is Status.FAIL
    assert "no kernel image is available" in result.reason


def test_a_setting_that_heals_is_found_by_running_one_check_under_it() -> None:
    case, fault = "linear/conv1x1-128-64/contiguous/strict", "wgrad-scale@MIOPEN_DEBUG_CONV_WINOGRAD=0"
    assert Executor(machine_for("simulated-rocm", fault)).run(find_case(case)).status is Status.FAIL
    healed = run_one(case, "simulated-rocm", {"env": {"MIOPEN_DEBUG_CONV_WINOGRAD": "0"}}, inject=fault)
    assert healed.status is Status.PASS


@pytest.mark.parametrize(
    ("call", "match"),
    [
        ({"device": "cuda:7"}, "is not there"),
        ({"device": "cpu", "tier": "fast"}, "no tier 'fast'. Must be one of quick, default, full"),
        ({"device": "cpu", "inject": "bitflop"}, "no fault 'bitflop'. Did you mean 'bitflip'"),
    ],
    ids=lambda value: str(value)[:30],
)
def test_a_wrong_call_is_one_clear_line(call: dict[str, str], match: str) -> None:
    with pytest.raises(InvalidCallError, match=match) as caught:
        validate(**call)  # type: ignore[arg-type]
    assert "\n" not in str(caught.value)
