"""Two or more machines side by side: what is the same, what is a regression, and what cannot be compared at all."""

from __future__ import annotations

import json
from dataclasses import replace
from functools import cache
from pathlib import Path

import pytest
from validations import CONV, check, failing, measured, validation

from yolo_stable.errors import InvalidCallError
from yolo_stable.validate import FAULTS, IncomparableError, KernelFault, ValidationResult, from_json, to_json
from yolo_stable.validate.battery import cases
from yolo_stable.validate.compare import compare, read_result

AB = ("a.json", "b.json")
SLICE = (
    CONV, "linear/conv-stem/channels_last/strict", "linear/depthwise3x3/contiguous/bfloat16",
    "linear/grouped2/contiguous/float16", "linear/matmul-nt/contiguous/strict", "linear/matmul-tt/view/strict",
)  # fmt: skip
SLOW = ("determinism", "assign", "shadow", "step", "short")
"""Families that take seconds for each case."""
FAST = [
    fault
    for fault in {f.family: f for f in FAULTS if f.family not in SLOW and f.change not in ("hang", "die")}.values()
]
"""One fault of each family; `benchmarks/device_faults.py` compares with all of them."""


@cache
def clean(*ids: str) -> ValidationResult:
    return measured(ids)


def through_json(result: ValidationResult) -> ValidationResult:
    return from_json(to_json(result))


def test_two_clean_runs_are_the_same_bit_for_bit() -> None:
    runs = [through_json(measured(SLICE)) for _ in AB]
    comparison = compare(runs, AB)
    assert (comparison.status, comparison.differences, comparison.environment) == ("same", (), ())
    equal, parts = comparison.equal_parts[0]
    assert equal == parts > len(SLICE)
    assert comparison.verdict == "SAME: 6 checks, b.json no worse than a.json."


@pytest.mark.parametrize("fault", FAST, ids=lambda fault: fault.name)
def test_an_injected_fault_is_a_regression_that_names_the_check(fault: KernelFault) -> None:
    for case in (c for c in cases("quick", "cpu") if c.id.startswith(fault.caught_by) and c.precision != "configured"):
        comparison = compare([through_json(clean(case.id)), through_json(measured([case.id], inject=fault.name))], AB)
        if comparison.regressions:
            break
    else:
        pytest.fail(f"no check sees {fault.name}")
    assert comparison.status == "regression"
    assert comparison.verdict.startswith(
        f"REGRESSION: b.json (with the fault {fault.name}) is worse than a.json in 1 check: {case.id}."
    )


def test_a_mended_machine_is_no_regression() -> None:
    comparison = compare([validation(failing()), validation(check())], AB)
    assert comparison.status == "same"
    found = [(d.kind, d.weight.value) for d in comparison.differences]
    assert found == [("status", "better"), ("precision", "better")]


def test_what_fails_on_both_machines_is_said_but_is_no_regression() -> None:
    comparison = compare([validation(failing()), validation(failing())], AB)
    assert comparison.verdict == "SAME: 1 check, b.json no worse than a.json; 1 of them fails."


def test_the_machine_that_is_worse_is_named_among_several() -> None:
    other = "linear/matmul-nt/contiguous/strict"
    good = validation(check(), check(other))
    bad = validation(check(), failing(other), environment={**good.environment, "driver": "amdgpu 6.2"})
    comparison = compare([good, good, bad], ("a", "b", "c"))
    assert [(d.id, d.machine) for d in comparison.regressions if d.kind == "status"] == [(other, 2)]
    assert comparison.verdict.startswith(f"REGRESSION: c is worse than a in 1 check: {other}.")
    assert comparison.environment == (("driver", ("amdgpu 6.1", "amdgpu 6.1", "amdgpu 6.2")),)
    assert list(comparison.by_check()) == [other, CONV]  # the worst first


def test_the_comparison_is_strict_json_with_a_matrix_of_all_checks() -> None:
    broken = failing(errors=replace(failing().errors, rms=float("nan")))  # type: ignore[type-var]
    content = json.loads(compare([validation(), validation(broken)], AB).to_json())
    assert (content["kind"], content["status"]) == ("comparison", "regression")
    assert [machine["name"] for machine in content["machines"]] == list(AB)
    (row,) = content["checks"]
    assert row["id"] == CONV
    assert [machine["rms"] for machine in row["machines"]] == [1e-7, "nan"]
    assert row["machines"][1]["distance"] == 0.0
    assert {d["kind"] for d in content["differences"]} >= {"status", "precision"}


def test_a_quick_and_a_full_run_are_compared_in_what_both_ran() -> None:
    full = validation(check(), failing("linear/matmul-tall/contiguous/strict"), tier="full")
    assert compare([validation(), full], AB).differences == ()
    assert compare([full, validation()], AB).differences == ()


def test_a_check_that_was_not_run_is_named() -> None:
    both = validation(check(), check("linear/bmm/contiguous/strict"))
    (difference,) = compare([both, validation()], AB).differences
    assert (difference.id, difference.kind) == ("linear/bmm/contiguous/strict", "missing")
    assert difference.weight.value == "change"


@pytest.mark.parametrize(
    ("other", "words"),
    [
        pytest.param({"seed": 1}, "their inputs were made with --seed 0 and 1", id="seed"),
        pytest.param({"results": (check(input_sha256="2" * 64),)}, f"other inputs in {CONV}", id="inputs"),
        pytest.param({"results": (check("linear/bmm/view/strict"),)}, "they have no check in common", id="nothing"),
    ],
)
def test_other_inputs_cannot_be_compared(other: dict[str, object], words: str) -> None:
    with pytest.raises(IncomparableError, match=f"a.json and b.json cannot be compared: {words}") as error:
        compare([validation(), replace(validation(), **other)], AB)  # type: ignore[arg-type]
    assert error.value.exit_code == 3


def test_a_check_that_killed_the_process_has_no_inputs_and_is_compared_all_the_same() -> None:
    killed = failing(
        reason="the process was killed (signal SIGSEGV)", input_sha256="", parts=(), errors=None, reference=()
    )
    assert compare([validation(), validation(killed)], AB).status == "regression"


def test_one_result_is_nothing_to_compare() -> None:
    with pytest.raises(InvalidCallError, match="takes two results or more"):
        compare([validation()], AB[:1])


@pytest.mark.parametrize(
    ("content", "words"),
    [
        pytest.param(to_json(validation())[:400], "not JSON, or was cut short", id="cut short"),
        pytest.param("", "not JSON, or was cut short", id="empty"),
        pytest.param("[]", "was not written by validate --json", id="another JSON"),
        pytest.param(compare([validation()] * 2, AB).to_json(), "is not a whole result", id="a comparison"),
        pytest.param(to_json(replace(validation(), suite_version="0")), "battery 0", id="other battery"),
        pytest.param(to_json(replace(validation(), schema_version=99)), "form 99", id="other form"),
        pytest.param(b"\xff\xfe{", "is not JSON", id="not text"),
    ],
)
def test_a_file_that_is_no_whole_result_is_not_comparable(tmp_path: Path, content: str | bytes, words: str) -> None:
    file = tmp_path / "b.json"
    file.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(IncomparableError, match=words) as error:
        read_result(file)
    assert error.value.exit_code == 3
    assert "\n" not in str(error.value)


def test_a_file_that_is_not_there_is_a_wrong_call(tmp_path: Path) -> None:
    with pytest.raises(InvalidCallError, match=r"b\.json cannot be read: No such file"):
        read_result(tmp_path / "b.json")
