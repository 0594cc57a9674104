"""When a run has collapsed: the suspicion, which the fitness raises, and the evidence, which training batches give."""

from __future__ import annotations

import random

import pytest

from yolo_stable.trainer.fitness_collapse import RISE, FitnessWatch, is_worse, rise

INF, NAN = float("inf"), float("nan")


def suspicions(fitness: list[float], *, acquitted: bool = True) -> list[int]:
    """Return the validations, from 1, that raised a suspicion; a new step comes before each."""
    watch, found = FitnessWatch(), []
    for number, value in enumerate(fitness, start=1):
        if watch.judge(value, 0.1, number) == "suspicious":
            found.append(number)
            if acquitted:
                watch.acquit()
    return found


class TestSuspicion:
    @pytest.mark.parametrize(
        ("fitness", "at"),
        [
            ([0.3, 0.4, 0.01, 0.02], [4]),
            ([0.3, 0.4, 0.01, 0.1, 0.01, 0.1], []),
            ([0.3, 0.0, 0.25, 0.0, 0.2, 0.0, 0.2], []),
            ([0.04, 0.0, 0.0, 0.0], []),
            ([0.0] * 20, []),
            ([-5.0, -4.0, -9.0, -9.0], []),
            ([0.4, 0.041, 0.041], []),
        ],
        ids=[
            "twice",
            "once",
            "every-other",
            "never-learned-much",
            "never-anything",
            "negative-loss",
            "above-the-share",
        ],
    )
    def test_it_takes_two_in_a_row_far_below_a_best_that_counts(self, fitness: list[float], at: list[int]) -> None:
        assert suspicions(fitness) == at

    def test_one_state_counts_once_however_often_it_is_validated(self) -> None:
        watch = FitnessWatch()
        assert watch.judge(0.4, 0.1, 10) == "best"
        assert [watch.judge(0.01, 0.1, 20) for _ in range(50)] == [""] * 50
        assert watch.judge(0.01, 0.1, 21) == "suspicious"

    def test_each_wrong_one_doubles_what_the_next_takes_until_there_is_a_new_best(self) -> None:
        assert suspicions([0.4] + [0.0] * 29) == [3, 7, 15]
        assert suspicions([0.4, 0.0, 0.0, 0.5, 0.0, 0.0]) == [3, 6]
        assert suspicions([0.4] + [0.0] * 6, acquitted=False) == [3, 5, 7]

    def test_batches_are_looked_at_before_the_validation_that_could_raise_it(self) -> None:
        watch = FitnessWatch()
        seen = []
        for number, value in enumerate((0.4, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0), start=1):
            seen.append(watch.looks_closer)
            if watch.judge(value, 0.1, number) == "suspicious":
                watch.acquit()
        assert seen == [False, False, True, False, False, False, True]


def noisy(generator: random.Random, level: float, spread: float, batches: int = 8) -> list[float]:
    return [level * generator.lognormvariate(0.0, spread) for _ in range(batches)]


class TestEvidence:
    @pytest.mark.parametrize("spread", [0.0, 0.3, 1.0], ids=["alike", "mixed", "blocks-of-easy-and-hard"])
    @pytest.mark.parametrize("change", [0.3, 0.8, 1.0, 1.1], ids=["much-better", "better", "as-good", "hardly-worse"])
    def test_a_state_that_has_learned_the_batches_is_acquitted(self, change: float, spread: float) -> None:
        for seed in range(200):
            generator = random.Random(seed)
            best = noisy(generator, 3.0, spread)
            now = [loss * change * generator.lognormvariate(0.0, 0.05) for loss in best]
            assert not is_worse(rise(now, best))

    @pytest.mark.parametrize("change", [2.5, 4.0, 10.0, 1e6, INF, NAN])
    @pytest.mark.parametrize("spread", [0.0, 0.3, 1.0])
    def test_one_that_is_worse_everywhere_is_not(self, change: float, spread: float) -> None:
        for seed in range(200):
            generator = random.Random(seed)
            best = noisy(generator, 3.0, spread)
            now = [loss * change * generator.lognormvariate(0.0, 0.05) for loss in best]
            assert is_worse(rise(now, best))

    def test_a_single_batch_does_not_decide_among_several(self) -> None:
        assert not is_worse(rise([1e9, 1.0, 1.0, 1.0, 1.0], [1.0] * 5))
        assert is_worse(rise([0.0, 4.0, 4.0, 4.0, 4.0], [1.0] * 5))

    def test_backgrounds_do_not_decide_though_a_state_that_finds_nothing_is_best_on_them(self) -> None:
        """Measured in an honest training: two batches of objects, two of backgrounds."""
        now, best = [46.1, 35.8, 25.4, 31.9], [58.5, 20.4, 1.9, 0.8]
        assert rise(now, best) == pytest.approx(1.706, abs=1e-3)
        assert not is_worse(rise(now, best))

    @pytest.mark.parametrize(
        ("now", "best"), [([], []), ([5.0], [0.0]), ([5.0], [INF]), ([5.0], [NAN]), ([5.0], [-1.0])]
    )
    def test_where_nothing_can_be_compared_it_is_undecided(self, now: list[float], best: list[float]) -> None:
        assert rise(now, best) is None
        assert not is_worse(None)

    def test_the_limit_itself_is_worse(self) -> None:
        assert is_worse(RISE)
        assert not is_worse(RISE - 1e-9)


def test_honest_fluctuation_of_small_validation_sets_is_suspected_seldom() -> None:
    """The mAP of a handful of objects: found or not, each on its own."""
    raised = validations = 0
    for seed in range(200):
        generator = random.Random(seed)
        fitness = [generator.choice((0.0, 0.0, 0.1, 0.25, 0.3)) for _ in range(200)]
        raised += len(suspicions(fitness))
        validations += len(fitness)
    assert raised < 0.03 * validations, "each costs a look at eight batches"
