"""Patience: stock's early stopping, and an end for runs that learn nothing."""

from __future__ import annotations

import logging
import random
from collections.abc import Sequence

import pytest
from ultralytics.utils import LOGGER
from ultralytics.utils.torch_utils import EarlyStopping

from yolo_stable.stopping import Patience

NAN = float("nan")


def stopped_at(stopper: EarlyStopping, fitness: Sequence[float | None]) -> int | None:
    """Return the epoch, from 1, at which it says stop."""
    return next((epoch for epoch, value in enumerate(fitness, start=1) if stopper(epoch, value)), None)


def test_a_run_that_finds_nothing_stops_when_its_patience_ends() -> None:
    zeros = [0.0] * 50
    assert stopped_at(Patience(5), zeros) == 6, "the first epoch and five without improvement"
    assert stopped_at(EarlyStopping(5), zeros) is None, "stock takes each of them for an improvement"


def test_not_a_number_is_no_improvement() -> None:
    nans = [NAN] * 50
    assert stopped_at(Patience(5), nans) == 5
    stopper = Patience(5)
    assert stopped_at(stopper, [NAN, NAN, 0.2, NAN, float("inf"), 0.3, NAN]) is None
    assert (stopper.best_epoch, stopper.best_fitness) == (6, 0.3)


def test_stock_never_gets_over_a_nan_in_the_beginning() -> None:
    fitness = [NAN, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6]
    assert stopped_at(EarlyStopping(5), fitness) == 6
    assert stopped_at(Patience(5), fitness) is None


def test_a_late_start_is_an_improvement() -> None:
    stopper = Patience(5)
    assert stopped_at(stopper, [0.0] * 5 + [0.1, 0.1]) is None
    assert (stopper.best_epoch, stopper.best_fitness) == (6, 0.1)


def test_a_task_whose_fitness_is_its_negative_loss_can_improve() -> None:
    fitness = [-5.0, -4.0, -3.0, -3.0, -3.0]
    for kind in (EarlyStopping, Patience):
        stopper = kind(2)
        assert stopped_at(stopper, fitness) == 5
        assert (stopper.best_epoch, stopper.best_fitness) == (3, -3.0)


@pytest.mark.parametrize("patience", [1, 2, 3, 7, 0, None])
def test_with_fitness_above_zero_it_is_stock(patience: int | None) -> None:
    generator = random.Random(patience or 0)
    stops = 0
    for _ in range(50):
        stock, ours = EarlyStopping(patience), Patience(patience)  # type: ignore[arg-type]
        for epoch in range(1, 40):
            value = generator.choice([None, *(generator.uniform(1e-6, 1.0) for _ in range(5))])
            answers = stock(epoch, value), ours(epoch, value)
            assert answers[0] == answers[1]
            assert vars(stock) == vars(ours)
            stops += answers[0]
    assert bool(stops) == bool(patience), "the sequences were such that patience ended"


def test_a_checkpoint_of_either_is_understood_by_the_other() -> None:
    stock, ours = EarlyStopping(5), Patience(5)
    assert vars(stock) == vars(ours)
    assert stopped_at(ours, [0.2, 0.4, 0.3]) is None
    kept = {"best_fitness": ours.best_fitness, "best_epoch": ours.best_epoch}  # what save_model() takes
    for stopper in (EarlyStopping(5), Patience(5)):
        vars(stopper).update(kept)
        assert next(epoch for epoch in range(4, 12) if stopper(epoch, 0.4)) == 7


def test_a_checkpoint_with_a_ruined_best_is_got_over() -> None:
    stopper = Patience(5)
    vars(stopper).update(best_fitness=NAN, best_epoch=3)
    assert not stopper(9, 0.1)
    assert (stopper.best_epoch, stopper.best_fitness) == (9, 0.1)


def test_without_validation_no_patience_is_lost() -> None:
    stopper = Patience(2)
    assert stopped_at(stopper, [0.1, None, None, None]) is None
    assert not stopper.possible_stop


def test_the_last_epoch_of_patience_is_announced_for_validation() -> None:
    stopper = Patience(3)
    possible = [(stopper(epoch, 0.0), stopper.possible_stop)[1] for epoch in (1, 2, 3, 4)]
    assert possible == [False, False, True, True]


@pytest.mark.parametrize(
    ("fitness", "said"), [([0.0, 0.0], "Nothing was ever found"), ([0.5, 0.4], "Best results observed at epoch 1")]
)
def test_it_says_why(fitness: list[float | None], said: str, caplog: pytest.LogCaptureFixture) -> None:
    LOGGER.addHandler(caplog.handler)
    try:
        with caplog.at_level(logging.INFO, logger=LOGGER.name):
            assert stopped_at(Patience(1), fitness) == 2
    finally:
        LOGGER.removeHandler(caplog.handler)
    assert said in caplog.text
    assert "no improvement observed in last 1 epochs" in caplog.text
