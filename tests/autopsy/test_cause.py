from __future__ import annotations

from typing import Any

import pytest

from yolo_stable.autopsy.cause import CAUSES, AutopsyEvidence, judge

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
    pytest.param(
        "data",
        {**SICK, "healthy_on_snapshot": False, "healthy_in_float64": True},
        id="what overflows is absurd in any precision",
    ),
    pytest.param("optimisation", {**SICK, "healthy_on_fresh": True}, id="healthy on fresh weights"),
    pytest.param("data", {**SICK, "healthy_on_fresh": False}, id="breaks fresh weights"),
    pytest.param("undecided", {**SICK, "healthy_on_fresh": False, "every": True}, id="all break all weights"),
    pytest.param("undecided", SICK, id="nothing more known"),
]


@pytest.mark.parametrize(("cause", "evidence"), CASES)
def test_each_kind_of_evidence_leads_to_its_cause(cause: str, evidence: dict[str, Any]) -> None:
    judgement = judge(AutopsyEvidence(**evidence))
    assert judgement.cause == cause
    assert judgement.why


def test_every_cause_is_reached() -> None:
    assert {case.values[0] for case in CASES} == set(CAUSES)


ON_SNAPSHOT = "finite, ordinary numbers break this state, and all is healthy on the snapshot's weights"
WHYS = [
    ({"labels": "a label", "pixels": "NaN pixels"}, "data", "a label"),
    ({"pixels": "NaN pixels", "weights": "absurd"}, "data", "NaN pixels"),
    ({"weights": "all of 1e9", "widespread": True}, "optimisation", "all of 1e9: the weights have run away together"),
    ({"weights": "not finite: a", "out_of_memory": True}, "weights", "not finite: a before the batch came"),
    ({**SICK, "widespread": True}, "undecided", "batch and weights are finite and ordinary"),
    ({"out_of_memory": True, "error": "an error"}, "undecided", "not enough memory for a replay"),
    ({"error": "an error", "healthy_replays": 2}, "undecided", "the replay ended with an error"),
    (
        {"diverged": True, "healthy_on_snapshot": True},
        "optimisation",
        "all numbers are finite, and the loss is ordinary on the snapshot's weights",
    ),
    ({"diverged": True, "healthy_replays": 2}, "undecided", "all numbers are finite and ordinary"),
    ({"diverged": True, "healthy_on_fresh": True}, "undecided", "all numbers are finite and ordinary"),
    (
        {"sick_otherwise": True, "fickle": "noise", "healthy_replays": 2},
        "undecided",
        "the replay broke in another way than training did",
    ),
    ({"fickle": "noise", "healthy_replays": 2}, "undecided", "not reproducible: noise"),
    ({"healthy_replays": 3}, "hardware transient", "the same batch on the same weights was healthy 3 times"),
    ({"healthy_replays": 1}, "undecided", "it could not be replayed"),
    ({"healthy_replays": 1, "out_of_time": True}, "undecided", "the time was up"),
    ({**SICK, "sick_otherwise": True, "healthy_on_snapshot": True}, "optimisation", ON_SNAPSHOT),
    ({**SICK, "fickle": "noise", "memory": "a mean"}, "undecided", "not reproducible: noise"),
    (
        {**SICK, "memory": "a mean", "half": True, "healthy_in_float32": True},
        "weights",
        "a mean before the batch came, and with another number there all is healthy",
    ),
    ({**SICK, "half": True, "healthy_in_float32": False, "healthy_on_snapshot": True}, "optimisation", ON_SNAPSHOT),
    ({**SICK, "healthy_in_float32": True, "healthy_on_snapshot": True}, "optimisation", ON_SNAPSHOT),
    (
        {**SICK, "wide": "finite", "healthy_on_reference": True},
        "hardware persistent",
        "the same batch is healthy on the reference device in the same precision",
    ),
    (
        {**SICK, "wide": "finite", "sick_again": True, "healthy_on_reference": True},
        "hardware persistent",
        "the operation gives a finite result on the CPU, and the rerun broke again",
    ),
    (
        {**SICK, "wide": "finite", "sick_again": False, "healthy_on_reference": True},
        "hardware transient",
        "the operation gives a finite result on the CPU, and the rerun was healthy",
    ),
    ({**SICK, "sick_again": False, "healthy_on_snapshot": True}, "optimisation", ON_SNAPSHOT),
    ({**SICK, "sick_again": True, "healthy_on_snapshot": True}, "optimisation", ON_SNAPSHOT),
    ({**SICK, "healthy_on_reference": False, "healthy_on_snapshot": True}, "optimisation", ON_SNAPSHOT),
    (
        {**SICK, "healthy_on_fresh": True, "every": True},
        "optimisation",
        "every image breaks this state, and all is healthy on fresh weights (there was no snapshot)",
    ),
    (
        {**SICK, "healthy_on_snapshot": False, "healthy_on_fresh": True},
        "data",
        "it breaks on the snapshot's weights as well",
    ),
    ({"reproduced": True, "healthy_in_float64": True, "every": True}, "precision", "healthy in float64"),
    (
        {**SICK, "every": True, "together": True, "healthy_on_snapshot": False},
        "undecided",
        "every image breaks it, and no healthy weights were found: the network, its loss or the device",
    ),
    (
        {**SICK, "together": True, "healthy_on_snapshot": False},
        "undecided",
        "no image breaks it alone, and no healthy weights were found: the network or its loss",
    ),
    ({**SICK, "healthy_on_fresh": False}, "data", "it breaks on fresh weights as well (there was no snapshot)"),
    ({**SICK, "out_of_time": True}, "undecided", "the time was up"),
    (SICK, "undecided", "batch and weights are finite and ordinary"),
]


@pytest.mark.parametrize(("evidence", "cause", "why"), WHYS)
def test_of_several_signs_the_one_that_can_be_seen_or_tells_most_counts(
    evidence: dict[str, Any], cause: str, why: str
) -> None:
    judgement = judge(AutopsyEvidence(**evidence))
    assert (judgement.cause, judgement.why) == (cause, why)
