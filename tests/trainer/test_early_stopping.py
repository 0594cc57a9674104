"""Patience: stock's early stopping in all that is honest, NaN, and an end for runs that learn nothing when asked for."""

from __future__ import annotations

import logging
import random
from collections.abc import Callable, Iterator, Sequence
from types import SimpleNamespace
from typing import Any

import pytest
from ultralytics.utils import LOGGER
from ultralytics.utils.torch_utils import EarlyStopping

from yolo_stable.trainer.early_stopping import Patience, follow

NAN = float("nan")
SHARED = ("best_fitness", "best_epoch", "patience", "possible_stop")
"""What stock's stopper consists of."""


def stopped_at(stopper: EarlyStopping, fitness: Sequence[float | None]) -> int | None:
    """Return the epoch, from 1, at which it says stop."""
    return next((epoch for epoch, value in enumerate(fitness, start=1) if stopper(epoch, value)), None)


def state(stopper: EarlyStopping) -> dict[str, Any]:
    return {key: getattr(stopper, key) for key in SHARED}


@pytest.fixture
def said(caplog: pytest.LogCaptureFixture) -> Iterator[Callable[[], list[str]]]:
    LOGGER.addHandler(caplog.handler)
    with caplog.at_level(logging.INFO, logger=LOGGER.name):
        yield lambda: [record.message for record in caplog.records]
    LOGGER.removeHandler(caplog.handler)


class TestAsStock:
    @pytest.mark.parametrize("patience", [1, 2, 3, 7, 100, 0, None])
    @pytest.mark.parametrize(
        "values",
        [(0.0,), (0.0, 0.0, 0.0, 0.1), (None, 0.0, 0.2), (0.1, 0.2, 0.3), (-5.0, -4.0, -3.0), (0.0, -1.0, 1e-9)],
        ids=["zeros", "mostly-zeros", "validated-now-and-then", "learning", "negative-loss", "around-zero"],
    )
    def test_every_answer_and_attribute(self, patience: int | None, values: tuple[float | None, ...]) -> None:
        generator = random.Random(str((patience, values)))
        for _ in range(30):
            stock, ours = EarlyStopping(patience), Patience(patience)  # type: ignore[arg-type]
            for epoch in range(1, 40):
                value = generator.choice(values)
                assert stock(epoch, value) == ours(epoch, value)
                assert state(stock) == state(ours)

    def test_the_sequences_are_such_that_patience_ends(self) -> None:
        assert stopped_at(Patience(3), [0.0, 0.2, 0.1, 0.1, 0.2]) == 5
        assert stopped_at(Patience(2), [-5.0, -4.0, -3.0, -3.0, -3.0]) == 5

    def test_a_run_that_finds_nothing_goes_on_and_may_still_learn(self) -> None:
        assert stopped_at(Patience(5), [0.0] * 500) is None
        stopper = Patience(5)
        assert stopped_at(stopper, [0.0] * 50 + [0.1] + [0.05] * 5) == 56
        assert (stopper.best_epoch, stopper.best_fitness) == (51, 0.1)

    def test_a_checkpoint_of_either_is_understood_by_the_other(self) -> None:
        ours = Patience(5)
        assert stopped_at(ours, [0.2, 0.4, 0.3]) is None
        kept = {"best_fitness": ours.best_fitness, "best_epoch": ours.best_epoch}  # what save_model() takes
        for stopper in (EarlyStopping(5), Patience(5)):
            vars(stopper).update(kept)
            assert next(epoch for epoch in range(4, 12) if stopper(epoch, 0.4)) == 7

    def test_it_takes_over_what_a_resumed_one_remembers(self) -> None:
        stock = EarlyStopping(5)
        assert stopped_at(stock, [0.2, 0.4, 0.3]) is None
        ours = follow(stock, stop_at_zero=False, dataset=None)
        assert state(ours) == state(stock)


class TestNotANumber:
    def test_it_is_no_improvement(self) -> None:
        stopper = Patience(5)
        assert stopped_at(stopper, [NAN, NAN, 0.2, NAN, float("inf"), 0.3, NAN]) is None
        assert (stopper.best_epoch, stopper.best_fitness) == (6, 0.3)
        assert not stopper(10, NAN)
        assert stopper(11, NAN), "it costs patience once something was found"

    def test_stock_never_gets_over_one_in_the_beginning(self) -> None:
        fitness = [NAN, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6]
        assert stopped_at(EarlyStopping(5), fitness) == 6
        assert stopped_at(Patience(5), fitness) is None

    def test_of_a_task_whose_fitness_is_its_negative_loss(self) -> None:
        stopper = Patience(2)
        assert stopped_at(stopper, [-5.0, NAN, NAN]) == 3
        assert (stopper.best_epoch, stopper.best_fitness) == (1, -5.0)

    def test_a_checkpoint_with_a_ruined_best_is_got_over(self) -> None:
        stopper = Patience(5)
        vars(stopper).update(best_fitness=NAN, best_epoch=3)
        assert not stopper(9, 0.1)
        assert (stopper.best_epoch, stopper.best_fitness) == (9, 0.1)


class TestNothingFound:
    def test_it_ends_when_that_was_asked_for(self, said: Callable[[], list[str]]) -> None:
        assert stopped_at(Patience(5, stop_at_zero=True), [0.0] * 50) == 6, "the first epoch and five more"
        assert stopped_at(Patience(5, stop_at_zero=True), [NAN] * 50) == 6
        assert stopped_at(Patience(5, stop_at_zero=True), [None] * 20 + [0.0] * 50) == 26, "not before it was looked at"
        assert sum("the fitness was 0 in the last 6 epochs" in line for line in said()) == 3

    def test_a_late_start_is_an_improvement(self) -> None:
        stopper = Patience(5, stop_at_zero=True)
        assert stopped_at(stopper, [0.0] * 5 + [0.1, 0.1]) is None
        assert (stopper.best_epoch, stopper.best_fitness) == (6, 0.1)
        assert stopped_at(Patience(0, stop_at_zero=True), [0.0] * 500) is None, "patience=0: never"

    def test_the_last_epoch_of_patience_is_announced_for_validation(self) -> None:
        stopper = Patience(3, stop_at_zero=True)
        assert [(stopper(epoch, 0.0), stopper.possible_stop)[1] for epoch in (1, 2, 3, 4)] == [False, False, True, True]

    def test_the_zeros_before_a_resume_count(self) -> None:
        before = Patience(5, stop_at_zero=True)
        assert stopped_at(before, [0.0] * 4) is None
        resumed = Patience(5, stop_at_zero=True)
        vars(resumed).update({key: vars(before)[key] for key in ("best_fitness", "best_epoch", "zero_since")})
        assert [resumed(epoch, 0.0) for epoch in (5, 6)] == [False, True]

    def test_otherwise_a_warning_says_so_once(self, said: Callable[[], list[str]]) -> None:
        assert stopped_at(Patience(3), [0.0] * 30) is None
        (line,) = said()
        assert ("The fitness was 0 in the last 4 epochs, longer than patience=3. Training goes on") in line

    @pytest.mark.parametrize("fitness", [[0.0] * 3, [0.0, 0.1] + [0.0] * 2, [None] * 30, [0.1] * 3])
    def test_not_before(self, fitness: list[float | None], said: Callable[[], list[str]]) -> None:
        assert stopped_at(Patience(3), fitness) is None
        assert said() == []

    @pytest.mark.parametrize(
        ("labels", "tells"),
        [([[]], False), ([[], []], False), ([[], [0]], True), (None, True)],
        ids=["one-background", "backgrounds", "an-object", "unknown"],
    )
    def test_nothing_is_said_of_a_validation_without_labels(
        self, labels: Any, tells: bool, said: Callable[[], list[str]]
    ) -> None:
        known = {} if labels is None else {"labels": [{"cls": classes} for classes in labels]}
        stopper = follow(EarlyStopping(2), stop_at_zero=False, dataset=SimpleNamespace(**known))
        assert stopped_at(stopper, [0.0] * 10) is None
        assert bool(said()) == tells
