from __future__ import annotations

import math
import pickle
from collections.abc import Mapping

import pytest

from yolo_stable.guard import Decision, GuardVerdict
from yolo_stable.guard.decision import ACCEPTING, REJECTING, judge_micro_batch, judge_window

NAN, INF = math.nan, math.inf


@pytest.mark.parametrize(
    ("loss", "items", "buffers_finite", "reason"),
    [
        (1.0, {}, True, ""),
        (0.0, {"box_loss": 0.0}, True, ""),
        (-1.0, {"box_loss": -2.0}, True, ""),
        (1e308, {"box_loss": -1e308, "cls_loss": 5e-324}, True, ""),
        (NAN, {}, True, "loss nan"),
        (INF, {}, True, "loss inf"),
        (-INF, {}, True, "loss -inf"),
        (1.0, {"box_loss": NAN}, True, "box_loss nan"),
        (1.0, {"box_loss": 1.0, "cls_loss": INF}, True, "cls_loss inf"),
        (1.0, {"box_loss": -INF, "cls_loss": NAN}, True, "box_loss -inf, cls_loss nan"),
        (INF, {"box_loss": NAN}, True, "loss inf, box_loss nan"),
        (1.0, {"box_loss": 1.0}, False, "running statistics of BatchNorm not finite"),
        (NAN, {"box_loss": NAN}, False, "loss nan, box_loss nan, running statistics of BatchNorm not finite"),
    ],
)
def test_a_micro_batch_is_judged_by_all_that_was_read(
    loss: float, items: Mapping[str, float], buffers_finite: bool, reason: str
) -> None:
    verdict = GuardVerdict.REJECT_MICRO_BATCH if reason else GuardVerdict.BACKWARD
    assert judge_micro_batch(loss, items, buffers_finite) == (verdict, reason)


@pytest.mark.parametrize("wrong", [NAN, INF, -INF], ids=str)
def test_an_item_that_is_called_loss_does_not_hide_the_loss(wrong: float) -> None:
    assert judge_micro_batch(wrong, {"loss": 1.0}, True) == (GuardVerdict.REJECT_MICRO_BATCH, f"loss {wrong}")
    assert judge_micro_batch(1.0, {"loss": wrong}, True) == (GuardVerdict.REJECT_MICRO_BATCH, f"loss {wrong}")


@pytest.mark.parametrize(
    ("norm", "max_norm", "reject_norm", "verdict", "reason"),
    [
        (0.0, 10.0, 1e12, GuardVerdict.APPLY, ""),
        (3.0, 10.0, 1e12, GuardVerdict.APPLY, ""),
        (10.0, 10.0, 1e12, GuardVerdict.APPLY, ""),
        (10.000001, 10.0, 1e12, GuardVerdict.CLIP, "gradient norm 10 clipped to 10"),
        (12.34567, 10.0, 1e12, GuardVerdict.CLIP, "gradient norm 12.35 clipped to 10"),
        (1e12, 10.0, 1e12, GuardVerdict.CLIP, "gradient norm 1e+12 clipped to 10"),
        (1e12, None, 1e12, GuardVerdict.APPLY, ""),
        (1.5e12, 10.0, 1e12, GuardVerdict.REJECT_WINDOW, "gradient norm 1.5e+12 above reject_norm 1e+12"),
        (1.5e12, None, 1e12, GuardVerdict.REJECT_WINDOW, "gradient norm 1.5e+12 above reject_norm 1e+12"),
        (1.5e12, 10.0, None, GuardVerdict.CLIP, "gradient norm 1.5e+12 clipped to 10"),
        (3e38, None, None, GuardVerdict.APPLY, ""),
        (7.0, 10.0, 5.0, GuardVerdict.REJECT_WINDOW, "gradient norm 7 above reject_norm 5"),
    ],
)
def test_a_window_is_judged_by_its_norm(
    norm: float, max_norm: float | None, reject_norm: float | None, verdict: GuardVerdict, reason: str
) -> None:
    assert judge_window(norm, max_norm, reject_norm) == (verdict, reason)


@pytest.mark.parametrize("norm", [NAN, INF, -INF], ids=str)
@pytest.mark.parametrize("max_norm", [10.0, None], ids=["clip", "no-clip"])
@pytest.mark.parametrize("reject_norm", [1e12, None], ids=["reject", "no-reject"])
def test_a_norm_that_is_not_finite_is_never_applied(
    norm: float, max_norm: float | None, reject_norm: float | None
) -> None:
    assert judge_window(norm, max_norm, reject_norm) == (GuardVerdict.REJECT_WINDOW, f"gradient norm {norm}")


def test_a_limit_that_is_nan_accepts_nothing_unseen() -> None:
    """Comparisons with NaN are false: the rules are written so that false means the careful verdict."""
    assert judge_window(1.0, NAN, None)[0] is GuardVerdict.CLIP
    assert judge_window(1.0, 10.0, NAN)[0] is GuardVerdict.REJECT_WINDOW


def test_the_rules_are_pure() -> None:
    items = {"box_loss": 1.0, "cls_loss": NAN}
    first = judge_micro_batch(2.0, items, False)
    assert list(items) == ["box_loss", "cls_loss"]
    assert items["box_loss"] == 1.0
    assert math.isnan(items["cls_loss"])
    assert [judge_micro_batch(2.0, items, False) for _ in range(3)] == [first] * 3
    assert len({judge_window(11.0, 10.0, 1e12) for _ in range(3)}) == 1


@pytest.mark.parametrize(
    ("verdict", "accepted", "rejected"),
    [
        (GuardVerdict.BACKWARD, True, False),
        (GuardVerdict.REJECT_MICRO_BATCH, False, True),
        (GuardVerdict.APPLY, True, False),
        (GuardVerdict.CLIP, True, False),
        (GuardVerdict.REJECT_WINDOW, False, True),
        (GuardVerdict.ROLL_BACK, False, False),
        (GuardVerdict.EMPTY, False, False),
    ],
    ids=lambda value: value.value if isinstance(value, GuardVerdict) else None,
)
def test_a_decision_is_true_when_the_work_was_accepted(verdict: GuardVerdict, accepted: bool, rejected: bool) -> None:
    decision = Decision(verdict=verdict)
    assert bool(decision) is accepted
    assert decision.rejected is rejected


def test_each_verdict_is_accepting_or_rejecting_or_a_rollback_or_empty() -> None:
    assert not ACCEPTING & REJECTING
    assert set(GuardVerdict) - ACCEPTING - REJECTING == {GuardVerdict.EMPTY, GuardVerdict.ROLL_BACK}


def test_a_decision_survives_pickle_and_shares_nothing() -> None:
    decision = Decision(verdict=GuardVerdict.CLIP, norm=12.0, reason="r", culprits=("a",))
    assert pickle.loads(pickle.dumps(decision)) == decision
    assert Decision(verdict=GuardVerdict.EMPTY).items is not Decision(verdict=GuardVerdict.EMPTY).items
