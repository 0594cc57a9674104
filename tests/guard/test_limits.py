from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import nn

from yolo_stable.errors import TrainingHaltedError
from yolo_stable.guard import Counts, Decision, GuardConfig, GuardVerdict, StepGuard
from yolo_stable.guard.damage import StateDamage
from yolo_stable.guard.limits import Advice, halted, limit_passed
from yolo_stable.guard.recent import STRETCH, RecentWindows

GOOD, BAD, CLIPPED, FREE = "good", "bad micro-batch", "clipped", "bad window"
LOSSES = {GOOD: 1.0, BAD: math.nan, CLIPPED: 20.0, FREE: 1e13}  # f = p * x has the gradient x


class Story:
    """One parameter p, f = p * x, SGD with lr 1, a window of one micro-batch."""

    def __init__(self, **limits: Any) -> None:
        self.model = nn.Linear(1, 1, bias=False)
        self.guard = StepGuard(self.model, torch.optim.SGD(self.model.parameters(), lr=1.0), **limits)

    def draw(self, what: str) -> None:
        x = torch.full((1, 1), LOSSES[what])
        self.guard.backward(self.model(x).sum())
        self.guard.step()

    def counts(self) -> tuple[int, ...]:
        counts = self.guard.counts
        return (
            counts.micro_batches,
            counts.applied,
            counts.clipped,
            counts.rejected_micro_batches,
            counts.rejected_windows,
            counts.consecutive,
        )


STORY = [  # what is drawn; micro-batches, applied, clipped, rejected micro-batches, rejected windows, in a row
    (GOOD, (1, 1, 0, 0, 0, 0)),
    (BAD, (2, 1, 0, 1, 0, 1)),
    (BAD, (3, 1, 0, 2, 0, 2)),
    (GOOD, (4, 2, 0, 2, 0, 0)),
    (FREE, (5, 2, 0, 2, 1, 1)),
    (BAD, (6, 2, 0, 3, 1, 2)),
    (CLIPPED, (7, 3, 1, 3, 1, 0)),
    (BAD, (8, 3, 1, 4, 1, 1)),
    (GOOD, (9, 4, 1, 4, 1, 0)),
]


def test_every_step_of_a_known_story_is_counted() -> None:
    story = Story()
    for number, (what, expected) in enumerate(STORY, start=1):
        story.draw(what)
        assert story.counts() == expected, f"after number {number}, {what}"
    assert story.guard.counts.rejected == 5


def test_rejections_up_to_the_limit_in_a_row_are_borne() -> None:
    story = Story(max_consecutive=3)
    for what in [BAD, FREE, BAD, GOOD, BAD, BAD, BAD]:
        story.draw(what)
    assert story.guard.counts.consecutive == 3
    with pytest.raises(TrainingHaltedError) as caught:
        story.draw(BAD)
    assert str(caught.value) == (
        "Training halted after 8 micro-batches and 1 optimizer steps: 4 rejections in a row, more than"
        " guard.max_consecutive=3. Last seen: loss nan. So many in a row mean that the data, the weights, the learning rate or"
        " the device are at fault, not one batch: look at the images that guard.jsonl names."
    )
    assert caught.value.next.endswith("go on:\nyolo-stable train DATA model=LAST resume=True")
    assert caught.value.exit_code == 1
    assert not isinstance(caught.value, RuntimeError)  # Ultralytics' loop would swallow it


def test_rejections_up_to_the_limit_in_all_are_borne() -> None:
    story = Story(max_total=3)
    for what in [BAD, GOOD, FREE, GOOD, GOOD, BAD, GOOD]:
        story.draw(what)
    assert story.guard.counts.rejected == 3
    with pytest.raises(TrainingHaltedError) as caught:
        story.draw(FREE)
    assert str(caught.value) == (
        "Training halted after 8 micro-batches and 4 optimizer steps: 4 rejections in all, more than guard.max_total=3."
        " Last seen: gradient norm 1e+13 above reject_norm 1e+12. Remove the images that guard.jsonl names most often, or"
        " raise guard.max_total."
    )
    assert caught.value.next.endswith("model=LAST resume=True guard.max_total=6"), "3 would be passed by the next one"


def test_a_window_without_any_healthy_micro_batch_is_counted_once() -> None:
    story = Story(max_consecutive=2)
    for _ in range(2):
        story.draw(BAD)  # its step finds no gradient
    assert story.counts() == (2, 0, 0, 2, 0, 2)
    assert story.guard.last is not None
    assert story.guard.last.verdict is GuardVerdict.EMPTY


@pytest.mark.parametrize("what", [BAD, FREE])
def test_the_batch_that_halts_training_is_undone_as_any_other(what: str) -> None:
    story = Story(max_consecutive=1)
    before = story.model.weight.detach().clone()
    story.draw(BAD)
    with pytest.raises(TrainingHaltedError):
        story.draw(what)
    assert torch.equal(story.model.weight, before)
    assert story.model.weight.grad is None
    assert story.guard.last is not None
    assert story.guard.last.rejected
    assert story.guard.counts.consecutive == 2


def test_the_message_names_the_place() -> None:
    last = Decision(verdict=GuardVerdict.REJECT_WINDOW, reason="gradient norm nan", culprits=("0.weight", "1.bias"))
    damage = StateDamage(name="model/a", index=(2, 0), value=math.nan, before=0.5, bad=1, elements=6)
    error = halted(Counts(consecutive=51), "why", Advice("Do this"), last, rollbacks=8, damage=damage)
    assert isinstance(error, TrainingHaltedError)
    assert str(error) == (
        "Training halted after 0 micro-batches and 0 optimizer steps: why; 8 rollbacks did not help. Last seen: gradient norm"
        " nan in 0.weight, 1.bias. Ruined: model/a[2, 0] is nan, 0.5 in the snapshot; 1 of 6 elements are bad. Do this."
    )


@pytest.mark.parametrize(
    ("counts", "passed"),
    [
        (Counts(consecutive=50, rejected_windows=50), False),
        (Counts(consecutive=51, rejected_windows=51), True),
        (Counts(rejected_windows=10**6, rejected_micro_batches=10**6), False),
    ],
    ids=["row-at", "row-above", "total"],
)
def test_the_default_limits(counts: Counts, passed: bool) -> None:
    assert bool(limit_passed(counts, RecentWindows(), GuardConfig())) is passed


def test_a_share_of_the_newest_windows_is_a_limit() -> None:
    recent, config = RecentWindows(), GuardConfig(max_share=0.25)
    counts = Counts(rejected_windows=125, consecutive=1)
    for i in range(STRETCH):
        assert limit_passed(counts, recent, config) is None
        recent.add(Decision(verdict=GuardVerdict.REJECT_WINDOW if i % 4 == 0 else GuardVerdict.APPLY))
    assert (recent.windows, recent.lost) == (500, 125)
    assert limit_passed(counts, recent, config) is None, "a quarter is allowed"
    recent.add(Decision(verdict=GuardVerdict.REJECT_WINDOW))
    passed = limit_passed(counts, recent, config)
    assert passed is not None
    assert passed.reason == "126 of the last 501 windows were rejected, more than guard.max_share=0.25 of them"
    assert passed.for_good
    assert "raise guard.max_share" in passed.advice.text
    assert limit_passed(counts, recent, GuardConfig(max_share=None)) is None


@pytest.mark.parametrize("verdict", GuardVerdict, ids=lambda verdict: verdict.value)
def test_what_each_verdict_counts(verdict: GuardVerdict) -> None:
    counts = Counts(consecutive=7)
    counts.add(Decision(verdict=verdict))
    expected = {
        GuardVerdict.BACKWARD: Counts(micro_batches=1, consecutive=7),
        GuardVerdict.REJECT_MICRO_BATCH: Counts(micro_batches=1, rejected_micro_batches=1, consecutive=8),
        GuardVerdict.APPLY: Counts(applied=1, consecutive=0),
        GuardVerdict.CLIP: Counts(applied=1, clipped=1, consecutive=0),
        GuardVerdict.REJECT_WINDOW: Counts(rejected_windows=1, consecutive=8),
        GuardVerdict.ROLL_BACK: Counts(consecutive=7),
        GuardVerdict.EMPTY: Counts(consecutive=7),
    }
    assert counts == expected[verdict]
    assert all(type(value) is int for value in counts.to_dict().values())


def test_the_commands_of_a_halt_are_those_that_trainers_fill_in() -> None:
    from yolo_stable._shared.shell_text import CHECK, GO_ON, is_command
    from yolo_stable.guard.limits import ASTRAY_ADVICE, ROW_ADVICE, RUINED_ADVICE

    typed = {
        line
        for advice in (ROW_ADVICE, ASTRAY_ADVICE, RUINED_ADVICE)
        for line in advice.next.splitlines()
        if is_command(line)
    }
    assert {CHECK, GO_ON} <= typed
    assert len(typed) == 4, "and two of their own"
