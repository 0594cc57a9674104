from __future__ import annotations

from collections.abc import Iterator

from yolo_stable.runlog.stopwatch import Stopwatch


class Hands:
    """A clock that is set by hand."""

    def __init__(self) -> None:
        self.at = 100.0

    def __call__(self) -> float:
        return self.at


def steps(clock: Stopwatch, hands: Hands, *seconds: float) -> Iterator[float]:
    for second in seconds:
        hands.at += second
        yield clock.take()


def test_what_lies_between_two_epochs_does_not_count() -> None:
    hands = Hands()
    clock = Stopwatch(hands)
    hands.at += 50
    assert clock.take() == 0.0, "it stands until the first epoch"
    clock.go()
    assert [*steps(clock, hands, 1.0, 2.0)] == [1.0, 2.0]
    hands.at += 3
    clock.stop()
    clock.stop()
    hands.at += 1000
    clock.go()
    clock.go()
    hands.at += 4
    assert clock.take() == 7.0


def test_a_pause_is_left_out_and_leaves_it_as_it_was() -> None:
    hands = Hands()
    clock = Stopwatch(hands)
    with clock.pause():
        hands.at += 10
    hands.at += 10
    assert clock.take() == 0.0
    clock.go()
    hands.at += 1
    with clock.pause():
        hands.at += 10
    hands.at += 2
    assert clock.take() == 3.0
