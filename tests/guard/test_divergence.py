from __future__ import annotations

import json
import math
import os
import random
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

import pytest

from yolo_stable.guard.divergence import Divergence

ROOT = Path(__file__).parents[2]
PATIENCE = 32
RECORDED = (
    "1 1 8 61 22 2 62 6 4 57 61 57 62 5 63 55 2 1 1 2 1 9 30 2 1 1 7 19 46 59 20 34 20 1 61 4 2 2 3 3 2 1 34 58 46 8 57 62"
    " 2 61 60 29 58 40 50 14 31 12 54 54 31 21 40 45 44 43 50 41 50 54 47 47 39 21 42 51 43 46 49 40 48 44 39 31 41 49 45 40"
)
POISON = (None, math.nan, math.inf, -math.inf, 1e30, -1e30, 1e300, 1e-300, 0.0, -3.0)


def watch(*, loss: float | None = 4.0, norm: float | None = 10.0, patience: int = PATIENCE) -> Divergence:
    return Divergence(loss, norm, patience)


def suspicion(divergence: Divergence, loss: float | None, norm: float | None) -> str:
    """Take a step, which is never an alarm here, and return what is suspicious."""
    assert divergence.add(loss, norm) == ""
    return divergence.suspicion


def first_suspicion(divergence: Divergence, losses: Iterable[float], norm: float = 5.0) -> tuple[int, str]:
    """Return the step of the first suspicion, from 1 on, and what it is; 0 and nothing when there is none."""
    for step, loss in enumerate(losses, 1):
        if reason := suspicion(divergence, loss, norm):
            return step, reason
    return 0, ""


class TestLoss:
    def test_a_jump_that_stays_is_an_alarm_after_patience_steps(self) -> None:
        step, reason = first_suspicion(watch(), [6.1] * 100 + [57.3] * 100)
        assert (step, reason) == (132, "loss 57.3 has been above 4 times its baseline of 6.1 for 32 steps")

    def test_an_alarm_lasts_as_long_as_its_streak(self) -> None:
        divergence = watch(patience=2)
        reasons = [suspicion(divergence, loss, None) for loss in (6.0, 6.0, 6.0, 60.0, 60.0, 60.0, 6.0, 60.0)]
        assert [bool(reason) for reason in reasons] == [False] * 4 + [True] * 2 + [False] * 2

    def test_one_step_less_than_patience_is_none_however_often(self) -> None:
        block = [600.0] * (PATIENCE - 1) + [6.0] * (PATIENCE - 1)
        assert first_suspicion(watch(), [6.0] * 100 + block * 100) == (0, "")

    def test_losses_most_of_which_are_high_are_suspicious(self) -> None:
        assert first_suspicion(watch(), [6.0] * 100 + [600.0, 600.0, 6.0] * 100)[0] == 100 + 3 * (PATIENCE - 2) + 2

    def test_single_outliers_are_none(self) -> None:
        assert first_suspicion(watch(patience=2), [6.0] * 3 + [1e6, 6.0] * 1000) == (0, "")

    def test_falling_is_none(self) -> None:
        assert first_suspicion(watch(), [1e6 * 0.9**i for i in range(400)]) == (0, "")
        assert first_suspicion(watch(), [15.0] * 50 + [0.001] * 500) == (0, "")

    @pytest.mark.parametrize(("doubles_in", "at_most"), [(50, 250), (200, 700), (1000, 2300), (5000, 10_500)])
    def test_a_creep_that_the_baseline_follows_is_an_alarm(self, doubles_in: int, at_most: int) -> None:
        step, reason = first_suspicion(watch(), (6.0 * 2 ** (i / doubles_in) for i in range(20_000)))
        assert 0 < step <= at_most
        assert "baseline" in reason
        if doubles_in > 50:
            assert "times its lowest of 6" in reason

    def test_a_run_that_explodes_from_its_fourth_step_on_is_an_alarm(self) -> None:
        step, reason = first_suspicion(watch(), [12.0] * 3 + [500.0] + [2000.0] * 100)
        assert (step, reason) == (35, "loss 2e+03 has been above 4 times its baseline of 12 for 32 steps")
        step, _ = first_suspicion(watch(), [12.0 * 1.3**i for i in range(100)])
        assert 0 < step < 50

    def test_losses_that_scatter_until_objects_are_found_are_none(self) -> None:
        """As recorded from YOLO11n from scratch, batches of 4: the assigner finds nothing in many of the first batches."""
        recorded = [float(loss) for loss in RECORDED.split()]
        for start in range(40):
            assert first_suspicion(watch(), [*recorded[start:], *[45.0] * 500]) == (0, "")

    def test_waves_above_the_line_are_an_alarm_and_waves_through_it_are_not(self) -> None:
        above = [30.0 if i % 2 else 300.0 for i in range(200)]
        through = [6.0 if i % 10 < 5 else 300.0 for i in range(2000)]
        assert first_suspicion(watch(), [6.0] * 50 + above)[0] == 82
        assert first_suspicion(watch(), [6.0] * 50 + through) == (0, "")

    @pytest.mark.parametrize("losses", [[0.0] * 200, [-5.0] * 200, [0.0, -1.0, 1e-20] * 100], ids=str)
    def test_a_loss_that_is_not_above_0_is_not_watched(self, losses: list[float]) -> None:
        divergence = watch()
        assert first_suspicion(divergence, losses) == (0, "")
        assert not divergence.suspicious
        assert divergence.state_dict()["loss_count"] == 0


class TestNorm:
    def test_a_jump_that_stays_is_an_alarm(self) -> None:
        divergence = watch(loss=None)
        reasons = [suspicion(divergence, 2.0, 5.0 if i < 100 else 300.0) for i in range(140)]
        assert reasons.index("gradient norm 300 has been above 10 times its baseline of 5 for 32 steps") == 131

    def test_growing_is_none(self) -> None:
        divergence = watch()
        assert not any(suspicion(divergence, 2.0, 2 ** (i / 100)) for i in range(2000))
        assert not divergence.suspicious

    @pytest.mark.parametrize("steps", [4, 10, 50, 1000])
    def test_warming_up_a_hundredfold_is_none(self, steps: int) -> None:
        divergence = watch()
        assert not any(suspicion(divergence, 2.0, 100 ** min(1.0, i / steps)) for i in range(3000))

    def test_a_jump_after_the_first_three_values_is_none(self) -> None:
        divergence = watch()
        assert not any(suspicion(divergence, 2.0, 0.2 if i < 3 else 65.0) for i in range(300))

    def test_both_reasons_are_said(self) -> None:
        divergence = watch(patience=1)
        for _ in range(40):
            suspicion(divergence, 2.0, 1.0)
        assert suspicion(divergence, 20.0, 100.0) == (
            "loss 20 has been above 4 times its baseline of 2 for 1 steps;"
            " gradient norm 100 has been above 10 times its baseline of 1 for 1 steps"
        )


def stream(rng: random.Random, steps: int) -> list[tuple[float, float]]:
    """Return a run with healthy, high and creeping stretches, and a high one at the end."""
    found, factor = [], 1.0
    while len(found) < steps:
        factor = rng.choice((1.0, 1.0, factor * 2, 8.0, 50.0)) if len(found) < steps - 40 else 1e4
        for _ in range(rng.randint(1, 40)):
            found.append((6.0 * factor * rng.lognormvariate(0, 0.3), 5.0 * factor**2 * rng.lognormvariate(0, 0.8)))
    return found


@pytest.mark.parametrize("seed", range(60))
def test_poison_changes_no_later_verdict(seed: int) -> None:
    rng = random.Random(seed)
    share = rng.choice((0.01, 0.2, 0.8))
    clean, poisoned = watch(patience=5), watch(patience=5)
    alarms = 0
    for loss, norm in stream(rng, 500):
        while rng.random() < share:
            assert poisoned.add(rng.choice(POISON), rng.choice(POISON)) == ""
            assert poisoned.suspicious == clean.suspicious
        reason = clean.add(loss, norm)
        assert poisoned.add(loss, norm) == reason
        assert poisoned.suspicion == clean.suspicion
        alarms += bool(clean.suspicion)
    assert poisoned.state_dict() == clean.state_dict()
    assert alarms, "the stream asks nothing"


@pytest.mark.parametrize("seed", range(20))
def test_poison_in_one_signal_leaves_the_other_alone(seed: int) -> None:
    rng = random.Random(seed)
    both, loss_only, norm_only = (watch(patience=5) for _ in range(3))
    for loss, norm in stream(rng, 500):
        bad_loss, bad_norm = rng.random() < 0.3, rng.random() < 0.3
        both.add(rng.choice(POISON) if bad_loss else loss, rng.choice(POISON) if bad_norm else norm)
        if not bad_loss:
            loss_only.add(loss, None)
        if not bad_norm:
            norm_only.add(None, norm)
    state, of_loss, of_norm = both.state_dict(), loss_only.state_dict(), norm_only.state_dict()
    assert state == {key: (of_loss if key.startswith("loss") else of_norm)[key] for key in state}


def test_a_streak_makes_suspicious_and_a_value_in_line_ends_it() -> None:
    divergence = watch()
    seen = []
    for loss, norm in [(6.0, 1.0)] * 64 + [(60.0, 1.0), (math.nan, 1.0), (6.0, 1.0), (6.0, 100.0), (6.0, 1.0)]:
        divergence.add(loss, norm)
        seen.append(divergence.suspicious)
    assert seen == [False] * 64 + [True, True, False, True, False]


def test_after_a_rollback_the_baseline_is_that_of_the_snapshot() -> None:
    divergence = watch()
    first_suspicion(divergence, [6.0] * 100)
    snapshot = divergence.state_dict()
    assert first_suspicion(divergence, [15.0] * 20 + [600.0] * 100)[0]
    divergence.load_state_dict(snapshot)
    divergence.reset_streaks()
    assert divergence.state_dict() == snapshot
    assert first_suspicion(divergence, [600.0] * 100)[0] == PATIENCE


def test_resetting_the_streaks_keeps_the_baselines() -> None:
    divergence = watch()
    first_suspicion(divergence, [6.0] * 100 + [600.0] * 20)
    before = divergence.state_dict()
    divergence.reset_streaks()
    assert not divergence.suspicious
    assert divergence.state_dict() == {**before, "loss_high": 0}
    assert divergence.suspicion == ""


@pytest.mark.parametrize("seed", range(10))
def test_a_state_goes_through_json_and_is_of_constant_size(seed: int) -> None:
    rng = random.Random(seed)
    steps = stream(rng, 300)
    divergence = watch(patience=5)
    keys = set(divergence.state_dict())
    for loss, norm in steps:
        text = json.dumps(divergence.state_dict(), allow_nan=False)
        other = watch(patience=5)
        other.load_state_dict(json.loads(text))
        assert other.suspicious == divergence.suspicious
        assert other.add(loss, norm) == divergence.add(loss, norm)
        assert other.suspicion == divergence.suspicion
        assert other.state_dict() == divergence.state_dict()
        assert set(divergence.state_dict()) == keys


def test_a_state_of_something_else_is_refused() -> None:
    state, divergence = watch().state_dict(), watch()
    first_suspicion(divergence, [6.0] * 10)
    before = divergence.state_dict()
    for wrong in ({}, {**state, "epoch": 3}, {**state, "loss_log_level": math.inf}, {**state, "norm_high": -1}):
        with pytest.raises(ValueError, match=r"loss|gradient norm|epoch"):
            divergence.load_state_dict(wrong)
        assert divergence.state_dict() == before


ORDERS = {
    "easy and hard blocks in turns": lambda i, n, low: low if i % (n + 60) < n else 4.0,
    "hard blocks first": lambda i, n, low: 4.0 if i % (n + 60) < 60 else low,
    "sorted": lambda i, n, low: low * (4.0 / low) ** (i % n / n),
    "sorted, hardest first": lambda i, n, low: 4.0 * (low / 4.0) ** (i % n / n),
    "twelve shapes, one after the other": lambda i, n, low: low * (4.0 / low) ** (i * 12 // n % 12 * 5 % 12 / 11),
    "a curriculum": lambda i, n, low: min(4.0, low * 2.0 ** (i // n)),
    "backgrounds for three epochs": lambda i, n, low: low if i < 3 * n else 4.0,
    "objects, then backgrounds, then objects": lambda i, n, low: low if n <= i < 4 * n else 4.0,
}


@pytest.mark.parametrize("low", [1e-5, 0.02, 0.3])
@pytest.mark.parametrize("windows", [50, 300])
@pytest.mark.parametrize("order", ORDERS)
def test_no_order_of_the_data_is_an_alarm(order: str, windows: int, low: float) -> None:
    rng, divergence = random.Random(f"{order} {windows} {low}"), watch()
    suspicious = 0
    for i in range(5 * (windows + 60)):
        loss = ORDERS[order](i, windows, low)
        norm = 3.0 * math.sqrt(loss / 4.0)
        assert divergence.add(loss * math.exp(rng.gauss(0, 0.3)), norm * math.exp(rng.gauss(0, 0.5))) == ""
        suspicious += bool(divergence.suspicion)
    if order == "easy and hard blocks in turns" and windows > 50:
        assert suspicious, "the order asks nothing"


def test_what_no_data_can_do_is_an_alarm() -> None:
    divergence = watch()
    assert not any(divergence.add(2.0, 5.0) for _ in range(100))
    reasons = [divergence.add(2.0 * 10.0 ** min(i, 9), 5.0) for i in range(60)]
    assert reasons[59] == "loss 2e+09 has been above 4 times its baseline of 2 for 59 steps"
    assert not any(reasons[:32])


def test_what_is_believed_is_the_baseline_of_the_signals_that_were_suspected() -> None:
    divergence = watch()
    first_suspicion(divergence, [0.02] * 100)
    first_suspicion(divergence, [4.0] * 100)
    divergence.believe()
    assert not divergence.suspicious
    assert divergence.suspicion == ""
    assert first_suspicion(divergence, [4.5] * 300) == (0, "")
    assert first_suspicion(divergence, [45.0] * 300)[0] == PATIENCE, "ten times as much is one again"


@pytest.mark.parametrize("rise", [1.0, 0.0, -2.0, math.nan, math.inf])
def test_a_rise_that_is_no_rise_is_refused(rise: float) -> None:
    with pytest.raises(ValueError, match="the largest rise of the loss"):
        watch(loss=rise)
    with pytest.raises(ValueError, match="the largest rise of the gradient norm"):
        watch(norm=rise)


def test_patience_below_1_is_refused() -> None:
    with pytest.raises(ValueError, match="patience"):
        watch(patience=0)


def test_nothing_is_watched_when_no_rise_is_given() -> None:
    divergence = watch(loss=None, norm=None)
    assert first_suspicion(divergence, [6.0] * 10 + [1e9] * 1000, norm=1e9) == (0, "")
    assert divergence.state_dict() == watch().state_dict()


@pytest.mark.usefixtures("warm_programs")
def test_it_is_quiet_in_healthy_runs_and_sees_those_that_diverge(tmp_path: Path) -> None:
    """The short form of ``python -m benchmarks.alarms``; the bars are below the figures of the long one."""
    file = tmp_path / "alarms.json"
    command = [sys.executable, "-m", "benchmarks.alarms", "--steps", "50000", "--runs", "18", "--json", str(file)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    rows = {row.get("trace", row.get("what")): row for row in json.loads(file.read_text())["rows"]}
    assert sum(row["steps"] for row in rows.values() if "alarms" in row) >= 50_000
    assert sum(row.get("alarms", 0) + row.get("too early", 0) for row in rows.values()) == 0
    for trace in ("loss x100 and stays", "norm x1000 and stays", "loss x2 per 200 steps", "explodes in the 4th step"):
        assert rows[trace]["detected"] == 1.0
    assert rows["loss x100 and stays"]["median delay"] <= PATIENCE
    assert rows["loss x10 and stays"]["detected"] >= 0.8
    assert rows["blocks"]["compared"] > 0.0, "the orders ask nothing"
    assert rows["from scratch"]["compared"] < 0.01
    assert rows["add and hear"]["microseconds"] < 100


def test_going_back_ends_the_streaks_of_both_signals_and_leaves_their_baselines() -> None:
    divergence = watch(patience=4)
    for _ in range(40):
        suspicion(divergence, 2.0, 5.0)
    for _ in range(3):
        assert suspicion(divergence, 20.0, 300.0) == ""
    assert (divergence.loss.high, divergence.norm.high) == (3, 3)
    divergence.reset_streaks()
    assert not divergence.suspicious
    assert [suspicion(divergence, 20.0, 300.0) for _ in range(3)] == [""] * 3, "counted from here on"
    assert suspicion(divergence, 20.0, 300.0) == (
        "loss 20 has been above 4 times its baseline of 2 for 4 steps;"
        " gradient norm 300 has been above 10 times its baseline of 5 for 4 steps"
    )
