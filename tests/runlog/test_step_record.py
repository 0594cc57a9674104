from __future__ import annotations

import pytest

from yolo_stable.runlog.events import Event
from yolo_stable.runlog.step_record import LAYERS_KEPT, LINES, StepRecord, clip_factor, interval

RECORD = StepRecord(
    batch=117,
    step=123_450,
    loss={"box_loss": 1.23456789, "cls_loss": 0.000123456789, "dfl_loss": 12345678.9},
    norm=96.7842318,
    clip=0.10332299,
    lr=(0.0028125341, 0.0028125341, 0.0746875341),
    scale=65536.0,
    seconds=0.153124123,
    memory=863662080,
    layers=tuple((f"model.{i}.cv2.0.1.conv", 1 / (i + 1.23456)) for i in range(200)),
)


def test_numbers_are_written_with_the_digits_that_mean_something() -> None:
    details = RECORD.details()
    assert details["loss"] == {"box_loss": 1.23457, "cls_loss": 0.000123457, "dfl_loss": 12345700.0}
    assert (details["norm"], details["clip"], details["seconds"]) == (96.7842, 0.103323, 0.153124)
    assert details["lr"] == [0.00281253, 0.00281253, 0.0746875]
    assert len(details["layers"]) == LAYERS_KEPT
    assert details["layers"][0] == ["model.0.cv2.0.1.conv", 0.81]


def test_layers_that_are_not_known_are_null() -> None:
    unknown = StepRecord(
        batch=1, step=1, loss={}, norm=1.0, clip=1.0, lr=(), scale=None, seconds=0.1, memory=None, layers=()
    )
    assert unknown.details()["layers"] is None


def test_a_line_is_as_long_as_the_documentation_says() -> None:
    assert 500 < len(Event(event="steps", epoch=17, details=RECORD.details()).to_json()) < 750


@pytest.mark.parametrize("every", [1, 7, 10])
def test_the_log_of_a_run_of_any_length_stays_small(every: int) -> None:
    """The 100,000th line is the last at the asked interval; from there on each 100,000 lines reach twice as far."""
    assert interval(0, every) == interval(LINES * every - 1, every) == every
    assert interval(LINES * every, every) == 2 * every
    assert interval(3 * LINES * every, every) == 4 * every
    lines = at = 0
    while at < 5 * LINES * every:
        at += interval(at, every)
        lines += 1
    assert lines == LINES * 5 // 2


def test_the_clip_factor_is_what_torch_multiplies_by() -> None:
    assert clip_factor(0.0, 10.0) == 1.0
    assert clip_factor(9.999, 10.0) == 1.0
    assert clip_factor(20.0, 10.0) == pytest.approx(0.5)
    assert clip_factor(1e12, None) == 1.0
