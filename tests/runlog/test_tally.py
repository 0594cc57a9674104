from __future__ import annotations

from typing import Any

import pytest

from yolo_stable.runlog.tally import Tally

REJECTED = {"event": "rejection", "epoch": 1, "what": "micro_batch"}
DATA = {"event": "incident", "epoch": 1, "kind": "micro_batch", "cause": "data"}


def tally(*events: dict[str, Any]) -> Tally:
    found = Tally()
    for event in events:
        found.add(event)
    return found


def test_a_rejection_and_what_was_found_out_about_it_are_one_incident() -> None:
    found = tally(REJECTED, DATA, REJECTED)
    assert (found.rejected, found.incidents, found.causes) == (2, 2, {"data": 1})


def test_a_validation_that_was_looked_into_is_an_incident_of_its_own() -> None:
    found = tally(REJECTED, DATA, {"event": "incident", "epoch": 1, "kind": "validation", "cause": "layer"})
    assert (found.rejected, found.incidents, found.causes) == (1, 2, {"data": 1, "layer": 1})


@pytest.mark.parametrize(
    ("rung", "counts"),
    [
        ("repair", (1, 1, 0)),
        ("roll_back", (1, 0, 1)),
        ("lower_precision", (1, 0, 1)),
        ("halt", (1, 0, 0)),
        ("of another version", (1, 0, 1)),
        (None, (1, 0, 1)),
    ],
)
def test_escalations_are_counted_by_their_level(rung: Any, counts: tuple[int, int, int]) -> None:
    found = tally({"event": "climb", "epoch": 1, "rung": rung, "lost": 7})
    assert (found.escalations, found.repairs, found.rollbacks) == counts
    assert (found.undone, found.incidents) == (7, 1)


def test_epochs_that_a_resumed_run_does_again_count_once() -> None:
    second = {**REJECTED, "epoch": 2}
    found = tally(REJECTED, second, {**DATA, "epoch": 2}, {"event": "start", "epoch": 0, "epochs_before": 1}, second)
    assert (found.rejected, found.incidents, found.causes) == (2, 2, {})


def test_an_answer_behind_a_start_does_not_belong_to_what_was_before() -> None:
    found = tally(REJECTED, {"event": "start", "epoch": 0, "epochs_before": 1}, {**DATA, "epoch": 2})
    assert (found.rejected, found.incidents) == (1, 2)


def test_what_a_stranger_writes_is_no_trouble() -> None:
    nonsense = {"epoch": [], "epochs_before": "x", "lost": -1, "kind": {}, "cause": []}
    odd = [{"event": name, **nonsense} for name in ("start", "climb", "incident", "rejection", "?")]
    assert tally(*odd).incidents == 3
    many = tally(*({"event": "incident", "cause": f"cause {n}"} for n in range(99)))
    assert len(many.causes) == 50
