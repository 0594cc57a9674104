from __future__ import annotations

import pytest

from yolo_stable.guard import Escalation, EscalationLevel, GuardConfig
from yolo_stable.guard.escalation import most_micro_batches, next_level


@pytest.mark.parametrize(
    ("rollbacks", "has_snapshot", "can_lower", "level"),
    [
        (0, True, False, EscalationLevel.ROLL_BACK),
        (0, True, True, EscalationLevel.ROLL_BACK),
        (2, True, True, EscalationLevel.ROLL_BACK),
        (3, True, True, EscalationLevel.LOWER_PRECISION),
        (3, True, False, EscalationLevel.HALT),
        (4, True, False, EscalationLevel.HALT),
        (0, False, True, EscalationLevel.HALT),
        (3, False, True, EscalationLevel.HALT),
    ],
)
def test_each_level_has_its_turn(rollbacks: int, has_snapshot: bool, can_lower: bool, level: EscalationLevel) -> None:
    config = GuardConfig(max_rollbacks=3)
    assert next_level(rollbacks, config, has_snapshot=has_snapshot, can_lower=can_lower) is level


def test_the_most_micro_batches_are_those_of_the_slowest_fault() -> None:
    config = GuardConfig(max_rollbacks=2, max_consecutive=4, snapshot_every=3, patience=2)
    assert most_micro_batches(config, 1) == 20  # two rollbacks, one in doubt and the halt, each after five rejections
    assert most_micro_batches(config, 3) == 40
    assert most_micro_batches(config, 1, accumulate=4) == 80
    assert most_micro_batches(GuardConfig(max_rollbacks=2, max_consecutive=4, snapshot_every=16, patience=2), 1) == 64
    assert most_micro_batches(GuardConfig(max_rollbacks=2, max_consecutive=4, patience=32), 1) == 128


def test_an_escalation_is_plain() -> None:
    escalation = Escalation(level=EscalationLevel.ROLL_BACK, reason="r", step=20, to_step=16, lost=4)
    assert (escalation.lost, escalation.level.value) == (4, "roll_back")
    assert Escalation(level=EscalationLevel.REPAIR, reason="r").lost == 0
