from __future__ import annotations

from typing import Any

import pytest

from yolo_stable.autopsy.cause import CAUSES, Evidence, judge

SICK: dict[str, Any] = {"reproduced": True, "wide": "overflow"}

CASES = [
    pytest.param("data", {"labels": "label class 9 not in 0..3"}, id="labels"),
    pytest.param("data", {**SICK, "pixels": "NaN pixels", "weights": "absurd"}, id="pixels before weights"),
    pytest.param("data", {"pixels": "NaN pixels", "out_of_time": True}, id="pixels without a replay"),
    pytest.param("data", {"pixels": "NaN pixels", "error": "RuntimeError: x"}, id="pixels though the replay crashes"),
    pytest.param("weights", {**SICK, "weights": "not finite: a"}, id="weights"),
    pytest.param("optimisation", {**SICK, "weights": "all of 1e9", "widespread": True}, id="weights that ran away"),
    pytest.param("undecided", {"error": "RuntimeError: x"}, id="crash"),
    pytest.param("hardware transient", {"healthy_replays": 2}, id="healthy twice"),
    pytest.param("undecided", {"healthy_replays": 1, "out_of_time": True}, id="healthy once, then no time"),
    pytest.param("undecided", {"healthy_replays": 0, "sick_otherwise": True}, id="another fault"),
    pytest.param("optimisation", {"diverged": True, "healthy_on_snapshot": True}, id="diverged"),
    pytest.param("undecided", {"diverged": True}, id="diverged, no snapshot"),
    pytest.param("precision", {**SICK, "half": True, "healthy_in_float32": True}, id="half"),
    pytest.param(
        "precision", {**SICK, "half": True, "healthy_in_float32": True, "wide": "finite"}, id="half inside an op"
    ),
    pytest.param("hardware persistent", {**SICK, "wide": "finite", "sick_again": True}, id="wrong twice"),
    pytest.param("hardware transient", {**SICK, "wide": "finite", "sick_again": False}, id="wrong once"),
    pytest.param("hardware persistent", {**SICK, "healthy_on_reference": True}, id="reference"),
    pytest.param("optimisation", {**SICK, "healthy_on_snapshot": True}, id="healthy on the snapshot"),
    pytest.param("optimisation", {**SICK, "healthy_on_snapshot": True, "every": True}, id="all break the state"),
    pytest.param("data", {**SICK, "healthy_on_snapshot": False, "healthy_in_float64": False}, id="breaks the snapshot"),
    pytest.param(
        "precision",
        {**SICK, "wide": "not finite", "healthy_on_snapshot": False, "healthy_in_float64": True},
        id="float64",
    ),
    pytest.param("optimisation", {**SICK, "healthy_on_fresh": True}, id="healthy on fresh weights"),
    pytest.param("data", {**SICK, "healthy_on_fresh": False}, id="breaks fresh weights"),
    pytest.param("undecided", {**SICK, "healthy_on_fresh": False, "every": True}, id="all break all weights"),
    pytest.param("undecided", SICK, id="nothing more known"),
]


@pytest.mark.parametrize(("cause", "evidence"), CASES)
def test_each_kind_of_evidence_leads_to_its_cause(cause: str, evidence: dict[str, Any]) -> None:
    judgement = judge(Evidence(**evidence))
    assert judgement.cause == cause
    assert judgement.why


def test_every_cause_is_reached() -> None:
    assert {case.values[0] for case in CASES} == set(CAUSES)
