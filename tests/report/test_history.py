from __future__ import annotations

import json

from report_rig import Log

from yolo_stable.report.history import INCIDENTS, RunHistory
from yolo_stable.report.timeline import MOST


def history_of(log: Log) -> RunHistory:
    history = RunHistory()
    for line in log.lines:
        history.add(json.loads(line))
    return history


def steps_of(history: RunHistory, name: str = "norm") -> list[float]:
    return [x for x, y in history.curves[name].points() if y is not None]


def test_a_curve_has_each_quantity_of_a_step() -> None:
    history = history_of(Log().start().steps(1, 10, norm=3.0, clip=0.5, lr=[0.1, 0.2], loss={"a": 1.0, "b": 2.0}))
    values = {name: curve.last for name, curve in history.curves.items()}
    assert (values["norm"], values["clip"], values["lr/0"], values["lr/1"]) == (3.0, 0.5, 0.1, 0.2)
    assert (values["loss/a"], values["loss/b"], values["loss/sum"]) == (1.0, 2.0, 3.0)
    assert set(values) >= {"scale", "seconds", "memory"}
    assert history.layers["model.0.conv"].lines == 1


def test_what_is_null_or_not_finite_is_no_point() -> None:
    log = (
        Log()
        .start()
        .steps(1, 10, scale=None, norm="inf", lr=["nan", None], loss={"a": "nan"}, layers=None, memory=None)
    )
    history = history_of(log)
    assert "scale" not in history.curves
    assert history.curves["norm"].points() == []
    assert history.norms.most is None


def test_a_rollback_takes_its_steps_out_of_the_line() -> None:
    log = Log().start()
    for step in (10, 20, 30, 40):
        log.steps(1, step)
    log.escalation(1, 45, 25).steps(1, 50)
    history = history_of(log)
    assert steps_of(history) == [10, 20, 50]
    assert [x for x, y in history.curves["norm"].undone if y is not None] == [20, 30, 40]
    assert (history.tally.rollbacks, history.tally.undone) == (1, 20)
    assert (25, None) not in history.curves["norm"].points()


def test_putting_back_the_ema_alone_undoes_no_step() -> None:
    history = history_of(
        Log().start().steps(1, 10).steps(1, 20).escalation(1, 20, 10, rung="repair", lost=0).steps(1, 30)
    )
    assert steps_of(history) == [10, 20, 30]
    assert (history.tally.repairs, history.tally.rollbacks) == (1, 0)


def test_a_resumed_run_does_its_steps_again_without_a_saw_tooth() -> None:
    log = Log().start()
    for step in range(10, 131, 10):
        log.steps(step // 101 + 1, step, norm=1.0)
        if step == 100:
            log.epoch(1, 100)
    log.start(1)
    for step in range(110, 201, 10):
        log.steps(2, step, norm=2.0)
    history = history_of(log.epoch(2, 100).end(2))
    assert steps_of(history) == list(range(10, 201, 10))
    assert [y for x, y in history.curves["norm"].points() if x > 100] == [2.0] * 10
    assert history.ends == {0: 0, 1: 100, 2: 200}
    assert "resumed after epoch 1" in history.timeline.entries[1].text


def test_a_resumed_run_whose_counter_began_anew_is_counted_on() -> None:
    log = Log().start()
    for step in (40, 80, 100):
        log.steps(1, step)
    log.epoch(1, 100).steps(2, 110).start(1)
    for step in (40, 80, 100):
        log.steps(2, step)
    log.rejection(2, 7, 100).escalation(2, 100, 90, lost=10).steps(2, 140)
    history = history_of(log)
    assert steps_of(history) == [40, 80, 100, 140, 180, 240]
    assert [found.step for found in history.incidents] == [200, 200]


def test_a_log_without_steps_knows_where_its_epochs_end() -> None:
    log = Log().start().epoch(1, 50).epoch(2, 48).rejection(3, 5, 101).epoch(3, 50)
    assert history_of(log).ends == {0: 0, 1: 50, 2: 98, 3: 148}


def test_an_answer_belongs_to_the_rejection_before_it() -> None:
    log = Log().start().rejection(1, 3, 2).incident(1).rejection(1, 4, 2).escalation(1, 2, 1)
    log.incident(
        1, kind="roll_back", samples=[], evidence={"what": "weight was nan"}, module="model.1", cause="weights"
    )
    rejected, plain, escalation = history_of(log).incidents
    assert (rejected.cause, rejected.guilty, rejected.headline) == ("data", ["a.jpg"], "a.jpg has NaN pixels: data")
    assert (plain.answer, plain.headline) == (None, "loss nan, box_loss nan")
    assert (escalation.cause, escalation.headline) == ("weights", "model.1 weight was nan: weights")


def test_an_answer_whose_rejection_is_damaged_stands_alone() -> None:
    (found,) = history_of(Log().start().incident(2)).incidents
    assert (found.epoch, found.cause, found.step) == (2, "data", None)


def test_the_last_end_counts_unless_the_run_went_on() -> None:
    log = Log().start().end(1, "halted", "why")
    assert (history_of(log).end or {})["status"] == "halted"
    assert history_of(log.start(1)).end is None


def test_ten_thousand_rejections_are_counted_and_the_escalation_among_them_is_kept() -> None:
    log = Log().start()
    for batch in range(10_000):
        log.rejection(1 + batch // 100, batch % 100, batch)
        if batch == 9_000:
            log.incident(91).escalation(91, batch, batch - 10)
    history = history_of(log)
    assert (history.tally.rejected, history.tally.incidents, len(history.incidents)) == (10_000, 10_001, INCIDENTS)
    assert [found.kind for found in history.incidents][-2:] == ["micro_batch", "roll_back"]
    assert history.incidents[-2].cause == "data"
    assert len({found.number for found in history.incidents}) == INCIDENTS
    entries = history.timeline.entries
    assert len(entries) <= MOST
    assert sum(entry.amount for entry in entries) == 10_003
    assert next(entry for entry in entries if entry.kind == "rejection").amount == 100


def test_events_of_every_shape_are_survived() -> None:
    history = RunHistory()
    wrong = (None, [], {}, "x", -1, 1e300, True, [[]], [None], {"a": {}})
    keys = [
        "batch",
        "step",
        "loss",
        "norm",
        "lr",
        "layers",
        "files",
        "culprits",
        "rung",
        "to_step",
        "lost",
        "time",
        "epoch",
    ]
    keys += ["samples", "evidence", "cause", "folder", "kind", "versions", "guard", "epochs_before", "names", "applied"]
    for value in wrong:
        for event in ("start", "steps", "rejection", "incident", "climb", "left_out", "epoch", "warning", "end", "new",
                      "validation_not_finite", "checkpoint_kept", "__init__"):  # fmt: skip
            history.add({"event": event, **dict.fromkeys(keys, value)})
    for found in history.incidents:
        assert found.headline is not None
        assert found.rows()
