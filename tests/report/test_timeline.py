from __future__ import annotations

from yolo_stable.report.timeline import MOST, Timeline, TimelineEntry


def test_what_can_be_read_is_not_brought_together() -> None:
    timeline = Timeline()
    for batch in range(MOST):
        timeline.add(TimelineEntry("rejection", 1, f"batch {batch}: loss nan"))
    assert [entry.amount for entry in timeline.entries] == [1] * MOST


def test_hundreds_of_a_kind_become_one_entry_of_their_epoch() -> None:
    timeline = Timeline()
    timeline.add(TimelineEntry("run", 0, "started"))
    for i in range(1000):
        timeline.add(TimelineEntry("rejection", 1 + i // 500, f"batch {i}: loss nan", about=i + 1))
        timeline.add(TimelineEntry("warning", 1 + i // 500, "norm rising" if i % 2 else "loss scale falling"))
    timeline.add(TimelineEntry("run", 2, "done"))
    assert [(entry.kind, entry.where, entry.amount) for entry in timeline.entries] == [
        ("run", "start", 1),
        ("rejection", "epoch 1", 500), ("warning", "epoch 1", 250), ("warning", "epoch 1", 250),
        ("rejection", "epoch 2", 500), ("warning", "epoch 2", 250), ("warning", "epoch 2", 250),
        ("run", "epoch 2", 1),
    ]  # fmt: skip
    assert timeline.entries[1].words == "500 times, like the first: batch 0: loss nan"
    assert timeline.entries[1].about == 1


def test_epochs_are_brought_together_when_there_are_too_many_of_them() -> None:
    timeline = Timeline()
    for epoch in range(1, 5001):
        timeline.add(TimelineEntry("rejection", epoch, "loss nan"))
        timeline.add(TimelineEntry("warning", epoch, f"kind {'abcdef'[epoch % 6]}"))
    assert len(timeline.entries) <= MOST
    assert sum(entry.amount for entry in timeline.entries) == 10_000
    assert timeline.amounts == {"rejection": 5000, "warning": 5000}
    assert timeline.entries[0].where.startswith("epochs 1 to ")
    assert any(entry.others and "the first: kind" in entry.words for entry in timeline.entries)
