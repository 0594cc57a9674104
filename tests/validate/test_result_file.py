"""A result read back, and the files that are refused."""

from __future__ import annotations

import json

import pytest

from yolo_stable.errors import InvalidCallError
from yolo_stable.validate import (
    CheckResult,
    Errors,
    IncomparableError,
    Part,
    Status,
    ValidationResult,
    from_json,
    to_json,
)

ERRORS = Errors(rms=1e-7, q=float("inf"), maxrel=float("nan"), nf=2)
PART = Part(
    name="out", shape=(2, 3), sha256="a" * 64, nan=1, inf=1, l2=1.5, absmax=1.0, mean=0.25, sketch=(1.0,) * 16, 
    sample=("0x1p+0",),
    errors=ERRORS,
)  # fmt: skip
CHECK = CheckResult(
    id="linear/a/contiguous/strict", check="linear/a", family="linear", operation="conv2d", params={"shape": [1, 2]},
    layout="contiguous",
    precision="strict", dtype="float32", mode="strict", status=Status.FAIL, reason="nf", errors=ERRORS, parts=(PART,),
    numbers={"loss": float("inf")},
)  # fmt: skip
RESULT = ValidationResult(
    backend="cpu", device="cpu", device_name="x", tier="quick", seed=0, environment={"torch": "2"}, results=(CHECK,)
)


def test_numbers_that_json_cannot_say_come_back() -> None:
    text = to_json(RESULT)
    json.loads(text, parse_constant=lambda name: pytest.fail(f"{name} is not strict JSON"))
    back = from_json(text)
    assert back.results[0].numbers == {"loss": float("inf")}
    assert back.results[0].errors is not None
    assert str(back.results[0].errors.maxrel) == "nan"
    assert to_json(back) == text


def test_a_file_that_was_cut_short_is_refused_in_one_line() -> None:
    text = to_json(RESULT)
    for cut in (0, 10, len(text) // 2, len(text) - 3):
        with pytest.raises(InvalidCallError, match=r"^a.json is not JSON, or was cut short") as caught:
            from_json(text[:cut], "a.json")
        assert "\n" not in str(caught.value)


def test_another_version_cannot_be_compared() -> None:
    content = json.loads(to_json(RESULT))
    for change in ({"schema_version": 99}, {"suite_version": "0"}):
        with pytest.raises(IncomparableError, match="Validate that machine again with this version") as caught:
            from_json(json.dumps({**content, **change}), "a.json")
        assert caught.value.exit_code == 3


@pytest.mark.parametrize("text", ["[]", '{"a": 1}', "3"])
def test_other_json_is_no_result(text: str) -> None:
    with pytest.raises(InvalidCallError, match="was not written by validate --json"):
        from_json(text)


def test_a_result_without_a_key_is_not_whole() -> None:
    content = json.loads(to_json(RESULT))
    del content["results"][0]["parts"]
    with pytest.raises(InvalidCallError, match="is not a whole result"):
        from_json(json.dumps(content))
