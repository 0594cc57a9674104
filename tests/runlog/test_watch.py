from __future__ import annotations

from yolo_stable.runlog.step_record import StepRecord
from yolo_stable.runlog.warning_rules import Caution, Span
from yolo_stable.runlog.watch import WarningWatch

EVEN = tuple((f"model.{i}", 0.2) for i in range(5))
ODD = (("model.0", 0.99), *((f"model.{i}", 0.0025) for i in range(1, 5)))


def record(
    step: int, norm: float = 20.0, scale: float | None = None, layers: tuple = EVEN, clip: float = 0.5
) -> StepRecord:
    common = {"batch": 1, "loss": {}, "lr": (), "seconds": 0.1, "memory": None}
    return StepRecord(step=step, norm=norm, scale=scale, layers=layers, clip=clip, **common)


def follow(watch: WarningWatch, *norms: float, start: int = 0, warm_up: bool = False, **kinds: object) -> list[Caution]:
    """Add a record of ten steps for each norm, all ten alike."""
    found = []
    for i, norm in enumerate(norms, start=1):
        span = Span(10, 10 * (norm > 100.0), 10 * norm, norm)
        found += watch.add(record(start + 10 * i, norm, **kinds), span, warm_up=warm_up)  # type: ignore[arg-type]
    return found


def test_a_healthy_run_hears_nothing() -> None:
    assert follow(WarningWatch(100.0, 10.0), *[30.0, 12.0, 55.0, 140.0, 20.0] * 30, scale=65536.0) == []


def test_a_warning_is_given_once_an_epoch() -> None:
    watch = WarningWatch(100.0, 10.0)
    follow(watch, *[20.0] * 10)
    assert [c.what for c in follow(watch, *[300.0] * 9)] == ["norm over limit"]
    watch.begin_epoch()
    assert [c.what for c in follow(watch, *[300.0] * 9)] == ["norm over limit"]


def test_a_fresh_model_comes_down_unwarned_and_is_watched_from_there() -> None:
    watch = WarningWatch(100.0, 10.0)
    assert follow(watch, *[500.0] * 30, *[50.0] * 10) == []
    assert [c.what for c in follow(watch, *[500.0] * 5)] == ["norm over limit"]


def test_the_warm_up_has_no_part_in_size_trend_and_scale() -> None:
    watch = WarningWatch(100.0, 10.0)
    follow(watch, *[20.0] * 8)
    assert follow(watch, *[20.0 * 1.1**i for i in range(60)], warm_up=True, scale=65536.0) == []
    assert follow(watch, *[20.0] * 8, scale=64.0) == []


def test_an_absurd_norm_and_a_dominating_layer_are_told_in_the_warm_up() -> None:
    watch = WarningWatch(100.0, 10.0)
    assert [c.what for c in follow(watch, 20.0, 1e9, warm_up=True)] == ["norm over limit"]
    assert [c.what for c in follow(watch, *[20.0] * 10, warm_up=True, layers=ODD)] == ["one layer dominates"]


def test_a_dominating_layer_shrinks_others_only_where_it_is_clipped_and_clipping_matters() -> None:
    assert follow(WarningWatch(100.0, 10.0), *[5.0] * 10, layers=ODD, clip=1.0) == []
    assert follow(WarningWatch(100.0, 10.0, proportional=False), *[20.0] * 10, layers=ODD) == []


def test_no_limit_is_no_warning_of_the_size() -> None:
    assert follow(WarningWatch(None, 10.0), *[20.0] * 10, *[1e9] * 10) == []


def test_what_was_recorded_before_a_rollback_is_forgotten() -> None:
    watch = WarningWatch(100.0, 10.0)
    follow(watch, *[20.0] * 10, *[300.0] * 2)
    watch.forget()
    assert follow(watch, *[300.0] * 4, scale=65536.0) == []
    watch.forget()
    assert follow(watch, 20.0, scale=64.0) == []
