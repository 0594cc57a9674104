"""The battery as data: what a tier runs, and how a check is found by its name."""

from __future__ import annotations

from dataclasses import replace

import pytest

from yolo_stable.errors import InvalidCallError
from yolo_stable.validate import FAMILIES
from yolo_stable.validate.battery import BATTERY, cases, find_case, stress_cases


def test_a_larger_tier_has_all_that_a_smaller_one_has() -> None:
    quick, default, full = ({case.id for case in cases(tier, "cpu")} for tier in ("quick", "default", "full"))
    assert quick < default < full
    assert {case.split("/")[0] for case in quick} == set(FAMILIES) - {"short"}
    assert {case.split("/")[0] for case in default} == set(FAMILIES)


def test_families_run_in_their_order() -> None:
    ran = list(dict.fromkeys(case.check.family for case in cases("default", "rocm")))
    assert ran == list(FAMILIES)


def test_a_check_for_one_backend_is_left_out_on_others(monkeypatch: pytest.MonkeyPatch) -> None:
    from yolo_stable.validate import battery

    mine = replace(BATTERY[0], id="env/mine", backends=("rocm",))
    monkeypatch.setattr(battery, "BATTERY", (mine,))
    assert [case.check.id for case in cases("quick", "rocm")] == ["env/mine"]
    assert cases("quick", "cuda") == ()


def test_every_case_is_found_by_its_id_those_of_the_stress_test_included() -> None:
    for case in (*cases("full", "cpu"), *stress_cases("full")):
        assert find_case(case.id) == case


def test_a_case_that_there_is_not_is_told_with_the_nearest() -> None:
    with pytest.raises(InvalidCallError, match="Did you mean 'linear/bmm/view/strict'"):
        find_case("linear/bmm/view/strickt")


@pytest.mark.parametrize(
    "note", ["MIOpen#670", "pytorch#120899", "pytorch#58123", "rocm-libraries#9055", "aotriton#183"]
)
def test_known_bugs_have_a_shape_of_their_own(note: str) -> None:
    assert any(note in check.note for check in BATTERY)


def test_each_operation_of_a_table_has_a_check() -> None:
    """The checks name them without importing torch."""
    from yolo_stable.validate.operations import forms, large, lists, passing, places, products, ranges, special

    ids = {check.id for check in BATTERY}
    assert ids >= {f"exact/passes-{name}" for name in passing.CALLS}
    assert ids >= {f"exact/one-of-many-{name}" for name in places.REDUCTIONS}
    assert ids >= {f"exact/{name.replace('_', '-')}" for name in places.EXACT}
    assert ids >= {f"elementwise/range-{name}" for name in ranges.FUNCTIONS}
    assert ids >= {f"elementwise/in-place-{name}" for name in ranges.IN_PLACE}
    assert ids >= {f"exact/special-{name}" for name in special.FUNCTIONS}
    assert ids >= {f"exact/broken-gradient-{name}" for name in special.BACKWARD}
    assert ids >= {f"optimizer/list-{name}" for name in lists.CALLS}
    assert ids >= {f"linear/product-{name}" for name in products.PRODUCTS}
    assert ids >= {f"elementwise/form-{name}" for name in forms.FORMS}
    assert all(any(check.endswith(f"/large-{name}") for check in ids) for name in large.TABLES)
