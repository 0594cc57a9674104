"""Each warning on scripted records: given where it should be, and not on what healthy runs were seen to do."""

from __future__ import annotations

import math
import random

import pytest

from yolo_stable.runlog.warning_rules import (
    LAYER,
    NORM,
    SCALE,
    SPAN,
    TREND,
    Caution,
    Span,
    absurd_norm,
    loss_scale_falling,
    norm_over_limit,
    norm_rising,
    one_layer_dominates,
    rank_correlation,
)

FIVE = tuple((f"model.{i}", 0.01) for i in range(1, 5))


def ten(norm: float, over: int) -> Span:
    return Span(10, over, 10 * norm, norm)


def size(*spans: Span, came_below: bool = True, step: int = 200, max_norm: float | None = 10.0) -> Caution | None:
    return norm_over_limit(spans, 100.0, came_below=came_below, step=step, max_norm=max_norm)


def test_a_norm_that_stays_above_the_limit_is_told_with_what_to_do() -> None:
    found = size(*[ten(20.0, 0)] * 5, *[ten(300.0, 9)] * 5)
    assert found is not None
    assert (found.what, found.value, found.limit) == (NORM, 300.0, 100.0)
    assert found.message == (
        "the gradient norm was above guard.warn_norm=100 in 45 of the last 50 steps, 300 on average: clipped to 10, they all"
        " move equally far. Lower lr0 (optimizer=auto ignores it), or take --preset stable; when the validation improves all"
        " the same, set guard.warn_norm higher"
    )


def test_where_nothing_clips_clipping_is_the_first_way() -> None:
    found = size(*[ten(300.0, 9)] * 5, max_norm=None)
    assert found is not None
    assert "nothing clips them. Set guard.max_norm=10, or lower lr0" in found.message


@pytest.mark.parametrize(
    "spans",
    [[], [ten(300.0, 10)] * 4, [ten(900.0, 10), *[ten(20.0, 0)] * 4], [ten(120.0, 5)] * 5],
    ids=["none yet", "too few steps", "over again", "half of them"],
)
def test_single_high_norms_are_no_news(spans: list[Span]) -> None:
    assert size(*spans) is None


def test_a_fresh_model_may_take_a_thousand_steps_to_come_below() -> None:
    """A yolo11n from its YAML had 400 to 900 for a hundred steps, and on digits 150 after 190, and learned well."""
    high = [ten(450.0, 10)] * 5
    assert size(*high, came_below=False, step=999) is None
    assert size(*high, came_below=False, step=1000) is not None
    assert size(*high, came_below=True, step=999) is not None


def test_lines_of_single_steps_are_judged_over_as_many_steps() -> None:
    one = Span(1, 1, 300.0, 300.0)
    assert size(*[one] * (SPAN - 1)) is None
    assert size(*[one] * SPAN) is not None


def test_one_absurd_norm_is_told_at_once() -> None:
    found = absurd_norm(Span(10, 1, 3e9, 3e9), 100.0)
    assert found is not None
    assert (found.what, found.value) == (NORM, 3e9)
    assert "Reject such steps with guard.reject_norm=3e+08" in found.message
    assert found.message.splitlines()[-1] == "yolo-stable check DATA"
    assert absurd_norm(Span(10, 10, 9e4, 4700.0), 100.0) is None, "the largest that was measured in honest training"


@pytest.mark.parametrize(
    ("scales", "told"),
    [
        ([], False),
        ([65536.0], False),
        ([65536.0] * 19 + [32768.0], False),
        ([65536.0] * 19 + [16384.0], True),
        ([65536.0, 16384.0, 16384.0, 32768.0], False),
        ([65536.0] + [1024.0] * 19, True),
        ([65536.0] + [1024.0] * 20, False),
    ],
    ids=["none", "one", "halved", "quartered", "recovers", "stays down", "long ago"],
)
def test_a_loss_scale_that_falls_by_four_times_is_told(scales: list[float], told: bool) -> None:
    found = loss_scale_falling(scales)
    assert (found is not None) is told
    if found is not None:
        assert (found.what, found.value, found.limit) == (SCALE, scales[-1], 16384.0)
        assert "amp=bf16" in found.message


def test_a_norm_that_rises_steadily_is_told() -> None:
    noise = random.Random(1)
    rising = [20.0 * 1.06**i * math.exp(noise.gauss(0.0, 0.3)) for i in range(40)]
    found = norm_rising(rising)
    assert found is not None
    assert found.what == TREND
    assert found.value == pytest.approx(1.06**30, rel=0.3)
    assert found.limit == 3.0
    assert norm_rising(rising[:39]) is None, "too few to tell"
    assert norm_rising([math.nan, math.inf, *rising]) == found, "what is not finite has no part in it"


def test_noise_steps_and_falls_are_no_trend() -> None:
    """None of 2,000 noisy runs, whose norms scatter by a factor of 2.7 either way, nor a single jump, nor a fall."""
    noise = random.Random(2)
    for _ in range(2000):
        assert norm_rising([20.0 * math.exp(noise.gauss(0.0, 1.0)) for _ in range(40)]) is None
    assert norm_rising([20.0 * 0.94**i for i in range(40)]) is None
    assert norm_rising([20.0 + i for i in range(40)]) is None, "rises, but not by three times"
    outliers = [20.0] * 40
    outliers[::5] = [5000.0] * 8
    assert norm_rising(outliers) is None
    assert norm_rising([0.0] * 40) is None


def test_the_rank_correlation_is_kendalls() -> None:
    assert rank_correlation([1.0, 3.0, 2.0, 4.0]) == pytest.approx(4 / 6)
    assert rank_correlation([2.0] * 4) == 0.0


def test_a_module_that_makes_the_whole_gradient_is_told() -> None:
    bad, good = (("model.0", 0.96), *FIVE), (("model.1", 0.6), *FIVE)
    assert one_layer_dominates([bad] * 7 + [good] * 3) is None
    assert one_layer_dominates([good] * 2 + [bad] * 8 + [good] * 3) is None
    found = one_layer_dominates([good] * 5 + [bad] * 8)
    assert found is not None
    assert (found.what, found.value, found.limit) == (LAYER, 0.96, 0.9)
    assert found.message.startswith("model.0 alone makes 96% of the squared gradient norm, in 8 of the last 10 records")


def test_tiny_models_unknown_shares_and_takers_of_turns_do_not_dominate() -> None:
    bad, other = (("model.0", 0.96), *FIVE), (("model.9", 0.96), *FIVE)
    assert one_layer_dominates([]) is None
    assert one_layer_dominates([()] * 10) is None
    assert one_layer_dominates([bad[:4]] * 10) is None
    assert one_layer_dominates([bad, other] * 5) is None
