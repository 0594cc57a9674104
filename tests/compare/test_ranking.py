"""The runs in order, and what can be said of the best."""

from __future__ import annotations

import math

import pytest

from yolo_stable.compare.measure import TrialFigures
from yolo_stable.compare.outcome import TrialOutcome
from yolo_stable.compare.ranking import TrialRow, conclusion, groups_of, ranked
from yolo_stable.compare.trial import Trial

MAP = "metrics/mAP50-95(B)"


def row(
    group: str,
    score: float | None,
    *,
    seed: int | None = None,
    loss: float | None = 1.0,
    status: str = "done",
    metric: str = MAP,
) -> TrialRow:
    choice = {"optimizer": group} | ({} if seed is None else {"seed": seed})
    trial = Trial(name=f"{group},seed={seed}", group=group, choice=choice, data="d", words=("d",))
    measured = TrialFigures(score=score, loss=loss, metric=None if score is None else metric)
    return TrialRow(trial=trial, outcome=TrialOutcome(status=status), measured=measured)


def seeds(group: str, *scores: float) -> list[TrialRow]:
    return [row(group, score, seed=seed) for seed, score in enumerate(scores)]


def test_the_best_score_comes_first_then_the_lowest_loss_and_what_is_unknown_last() -> None:
    rows = [
        row("a", None),
        row("b", 0.2, loss=math.nan),
        row("c", 0.2, loss=3.0),
        row("d", 0.2, loss=2.0),
        row("e", 0.5),
    ]
    assert [r.trial.group for r in ranked(rows)] == ["e", "d", "c", "b", "a"]


def test_one_seed_cannot_tell() -> None:
    said = conclusion([row("SGD", 0.40), row("AdamW", 0.42)])
    assert said == (
        "Best: AdamW with mAP50-95 0.42, 0.02 ahead of SGD. One seed cannot tell whether that is more than chance;"
        " --seeds 0,1,2 can."
    )


def test_a_lead_beyond_the_spread_is_called_one() -> None:
    said = conclusion([*seeds("SGD", 0.40, 0.41, 0.42), *seeds("AdamW", 0.30, 0.31, 0.29)])
    assert said == (
        "Best: SGD with mAP50-95 0.41, 0.11 ahead of AdamW. That is more than the spread over 3 seeds (0.02); with the same"
        " seed it was ahead 3 of 3 times."
    )


def test_a_lead_within_the_spread_may_be_chance() -> None:
    said = conclusion([*seeds("SGD", 0.40, 0.50), *seeds("AdamW", 0.43, 0.42)])
    assert "0.025 ahead of AdamW. That is not more than the spread over 2 seeds (0.1), so it may be chance" in said
    assert said.endswith("with the same seed it was ahead 1 of 2 times.")


def test_runs_that_did_not_end_as_done_are_left_out_and_counted() -> None:
    said = conclusion([row("SGD", 0.9, status="halted"), row("AdamW", 0.2), row("Adam", 0.1)])
    assert said.startswith("Best: AdamW with")
    assert said.endswith("1 of 3 runs are not done and do not count here.")


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        pytest.param([row("a", 0.5, status="failed")] * 2, "No run is done, so there is nothing to ", id="none"),
        pytest.param([row("a", 0.5), row("b", 0.1, status="failed")], "Only a is done, so there is ", id="one"),
        pytest.param([row("a", 0.0, loss=3.0), row("b", 0.0, loss=2.0)], "train more epochs.", id="zero"),
        pytest.param([row("a", None, loss=3.0), row("b", None, loss=2.0)], "train more epochs.", id="none known"),
        pytest.param([row("a", None, loss=None), row("b", None, loss=None)], "train more epochs.", id="nothing"),
        pytest.param(
            [row("a", 0.5, loss=3.0), row("b", 0.5)], "b and a have the same mAP50-95, 0.5; the first", id="tie"
        ),
        pytest.param(
            seeds("a", 0.1, 0.3), "a: mean mAP50-95 0.2 over 2 seeds, from 0.1 to 0.3. A smaller difference", id="seeds"
        ),
        pytest.param(
            [row("a", 0.5, metric="metrics/accuracy_top1"), row("b", 0.1, metric="metrics/accuracy_top1")],
            "Best: a with top-1 0.5, 0.4 ahead of b.",
            id="classes",
        ),
    ],
)
def test_what_cannot_be_told_is_not_told(rows: list[TrialRow], said: str) -> None:
    assert said in conclusion(rows)


def test_no_run_is_praised_for_a_loss_when_none_finds_an_object() -> None:
    said = conclusion([row("a", 0.0, loss=3.0), row("b", 0.0, loss=2.0)])
    assert said == "mAP50-95 is 0 or unknown in all runs, so it cannot tell which is best: train more epochs."


def test_a_group_has_the_mean_and_the_width_of_its_seeds() -> None:
    (best, other) = groups_of([*seeds("a", 0.1, 0.3), row("b", 0.9), row("b", 0.7, status="failed")])
    assert (best.name, best.runs, len(best.rows)) == ("b", 2, 1)
    assert other.score is not None
    assert (other.score.mean, other.score.width) == (pytest.approx(0.2), pytest.approx(0.2))
