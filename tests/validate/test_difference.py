"""Which differences between two results of one check are named, and which of them are regressions."""

from __future__ import annotations

from typing import Any

import pytest
from validations import check, failing, part, validation

from yolo_stable.validate import CheckResult, Errors, Status
from yolo_stable.validate.difference import differences

STEP = "step/yolo11n/contiguous/strict"


def between(x: CheckResult, y: CheckResult, *, alike: bool = False) -> list[tuple[str, str]]:
    found = differences(validation(x), validation(y), 1, "a", alike=alike)
    return [(d.kind, d.weight.value) for d in found]


def errors(rms: float = 1e-7, q: float | None = 2.0) -> Errors:
    return Errors(rms=rms, q=q, maxrel=1e-6, nf=0)


@pytest.mark.parametrize(
    ("before", "after", "weight"),
    [
        ("pass", "fail", "regression"),
        ("warn", "fail", "regression"),
        ("skip", "fail", "regression"),
        ("pass", "warn", "change"),
        ("pass", "skip", "change"),
        ("fail", "skip", "change"),
        ("fail", "pass", "better"),
        ("warn", "pass", "better"),
    ],
)
def test_a_change_of_status(before: str, after: str, weight: str) -> None:
    x, y = (check(status=Status(status)) for status in (before, after))
    assert between(x, y) == [("status", weight)]


@pytest.mark.parametrize(
    ("name", "before", "after", "weight"),
    [
        ("linear/a/contiguous/strict", "ieee-fp32", "tf32", "regression"),
        ("linear/a/contiguous/strict", "tf32", "ieee-fp32", "better"),
        ("linear/a/contiguous/configured", "ieee-fp32", "tf32", "change"),
        ("linear/a/contiguous/configured", "tf32", "broken", "regression"),
    ],
)
def test_a_lower_precision_is_a_regression_unless_it_was_configured(
    name: str, before: str, after: str, weight: str
) -> None:
    x, y = (check(name, precision_class=precision) for precision in (before, after))
    assert between(x, y) == [("precision", weight)]


@pytest.mark.parametrize(
    ("before", "after", "found"),
    [
        pytest.param(errors(1e-7), errors(3.9e-7), [], id="less than four times"),
        pytest.param(errors(1e-7), errors(5e-7), [("error", "change")], id="far below the limit"),
        pytest.param(errors(1e-7), errors(4e-6), [("error", "regression")], id="near the limit"),
        pytest.param(errors(0.0), errors(4e-6), [("error", "regression")], id="from nothing"),
        pytest.param(errors(4e-6), errors(1e-7), [], id="smaller"),
        pytest.param(errors(q=2.0), errors(q=60.0), [("error", "regression")], id="one element"),
        pytest.param(errors(q=None), errors(q=60.0), [], id="not measured before"),
        pytest.param(errors(), errors(float("nan")), [], id="NaN fails by itself"),
    ],
)
def test_a_grown_error_is_a_regression_near_the_limit_only(
    before: Errors, after: Errors, found: list[tuple[str, str]]
) -> None:
    assert between(check(errors=before), check(errors=after)) == found


@pytest.mark.parametrize(
    ("off", "found"), [(1e-14, []), (1e-9, [("reference", "change")]), (1e-3, [("reference", "regression")])]
)
def test_a_float64_reference_that_differs_puts_one_of_the_cpus_in_doubt(
    off: float, found: list[tuple[str, str]]
) -> None:
    assert between(check(), check(reference=(1.0 + off,) * 16)) == found


def test_results_are_compared_by_their_sketches_where_the_references_do_not_agree() -> None:
    """A CPU that is wrong in float64 and in float32 passes its own validation."""
    wrong = check(reference=(1.01,) * 16, parts=(part(1.01),))
    assert between(check(), wrong) == [("result", "regression"), ("reference", "regression")]
    assert between(check(), check(reference=(1.01,) * 16)) == [("reference", "regression")]


def test_muon_and_repetitions_have_references_that_are_not_float64() -> None:
    def pair(name: str, off: float) -> list[tuple[str, str]]:
        return between(check(name), check(name, reference=(1.0 + off,) * 16))

    assert pair("optimizer/musgd/contiguous/strict", 3e-8) == []
    assert pair("optimizer/musgd/contiguous/strict", 1e-3) == [("reference", "regression")]
    assert pair("determinism/conv/contiguous/exact", 1e-3) == []


def test_repetitions_that_begin_to_differ_are_named() -> None:
    x, y = check(determinism={"same": "bitwise"}), check(determinism={"same": "differs (1.0e-07)"})
    assert between(x, y) == [("determinism", "change")]
    assert between(y, x) == [("determinism", "better")]


def test_other_bits_are_named_where_the_same_are_expected() -> None:
    x, y = check(), check(parts=(part(sha256="b" * 64),))
    assert between(x, y) == []
    assert between(x, y, alike=True) == [("bits", "change")]
    loose: Any = {"determinism": {"same": "differs (1.0e-07)"}}
    assert between(check(**loose), check(parts=y.parts, **loose), alike=True) == []


@pytest.mark.parametrize(
    ("after", "found"),
    [
        (2.0 + 1e-6, []),
        (2.0 + 1e-4, [("training", "regression")]),
        (float("nan"), [("training", "regression")]),
    ],
)
def test_the_loss_of_the_first_step_is_held_to_what_rounding_explains(
    after: float, found: list[tuple[str, str]]
) -> None:
    x, y = (check(STEP, numbers={"loss": loss, "norm_ratio": 1.0}) for loss in (2.0, after))
    assert between(x, y) == found


def test_what_was_skipped_has_nothing_to_compare() -> None:
    skipped = check(status=Status.SKIP, precision_class=None, errors=None)
    assert between(skipped, skipped) == []
    assert between(skipped, failing()) == [("status", "regression")]
