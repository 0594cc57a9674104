"""What the relay hands to loggers, when, and what becomes of one that raises."""

from __future__ import annotations

import contextlib
import copy
import math
import sys
import threading
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
from calls import Calls

from yolo_stable.errors import TrainingHaltedError
from yolo_stable.guard import Counts
from yolo_stable.loggers import found
from yolo_stable.runlog.step_record import StepRecord
from yolo_stable.trainer import logger_relay
from yolo_stable.trainer.logger_relay import LoggerRelay, numbers

RECORD = StepRecord(
    batch=3, step=12, loss={"box": 1.0}, norm=4.0, clip=0.5, lr=(0.01, 0.02), scale=None, seconds=0.25, memory=5, layers=()
)  # fmt: skip


class Bare:
    """A relay with two loggers that note what they get; the module of the first is ``tensorboard``, of the second ``wb``."""

    def __init__(self, calls: Calls, monkeypatch: pytest.MonkeyPatch) -> None:
        self.loggers = [
            SimpleNamespace(name=name, **{verb: calls.to(f"{name}.{verb}") for verb in ("scalars", "text", "image")})
            for name in ("One", "Two")
        ]
        self.trainer: Any = SimpleNamespace(
            callbacks={"on_train_end": []},
            guard=SimpleNamespace(counts=Counts(applied=12, rejected_windows=2, clipped=3, rollbacks=1), recovery=None),
            run_log=SimpleNamespace(outcome=lambda counts: [("steps applied", "12"), ("", "epoch 1: window")]),
        )
        for name, logger in zip(("tensorboard", "wb"), self.loggers, strict=True):
            module = ModuleType(f"{found.PLACE}{name}")
            monkeypatch.setitem(sys.modules, module.__name__, module)
            monkeypatch.setitem(found.MAKERS, name, lambda _, logger=logger: logger)
            callback = SimpleNamespace(__module__=module.__name__)
            self.trainer.callbacks["on_train_end"].append(callback)
        self.relay = LoggerRelay(self.trainer)


@pytest.fixture
def bare(calls: Calls, monkeypatch: pytest.MonkeyPatch) -> Bare:
    return Bare(calls, monkeypatch)


def test_the_open_ones_are_named_and_each_gets_the_numbers(bare: Bare, calls: Calls) -> None:
    bare.relay.step(RECORD)
    assert calls == [], "before it begins, nothing is looked for"
    assert bare.relay.begin() == [("loggers", "One, Two")]
    bare.relay.step(RECORD)
    values = {
        "guard_steps/grad_norm": 4.0,
        "guard_steps/clip": 0.5,
        "guard_steps/lr_pg0": 0.01,
        "guard_steps/lr_pg1": 0.02,
        "guard_steps/seconds": 0.25,
        "guard_steps/rejected": 2.0,
        "guard_steps/clipped": 3.0,
        "guard_steps/rollbacks": 1.0,
    }
    assert calls == [("One.scalars", 12, values), ("Two.scalars", 12, values)]


def test_a_number_that_is_not_finite_is_left_out_and_a_loss_scale_is_not() -> None:
    scaled = StepRecord(
        **{**{name: getattr(RECORD, name) for name in RECORD.__slots__}, "scale": 8.0, "norm": math.inf}
    )
    logged = dict(numbers(scaled, Counts()))
    assert logged["guard_steps/loss_scale"] == 8.0
    assert "guard_steps/grad_norm" not in logged


def test_an_incident_is_a_text_and_its_picture(bare: Bare, calls: Calls) -> None:
    bare.relay.begin()
    bare.relay.tell("roll_back", "rolled back.")
    bare.relay.tell("window", "what it was", Path("preview.jpg"))
    assert [call for call in calls if call[0].startswith("One")] == [
        ("One.text", 12, "roll back", "rolled back."),
        ("One.text", 12, "window", "what it was"),
        ("One.image", 12, "window", Path("preview.jpg")),
    ]


def test_a_copy_of_the_trainer_has_none(bare: Bare, calls: Calls) -> None:
    bare.relay.begin()
    bare.loggers[0].lock = threading.Lock()
    bare.trainer.callbacks = bare.trainer.run_log = None
    copied = copy.deepcopy(bare.relay)
    copied.step(RECORD)
    assert calls == []
    bare.relay.step(RECORD)
    assert len(calls) == 2


def test_the_other_ranks_have_none(bare: Bare, calls: Calls, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logger_relay, "RANK", 1)
    assert bare.relay.begin() == []
    bare.relay.step(RECORD)
    bare.relay.follow("on_train_end")
    assert calls == []


class TestOneThatRaises:
    @pytest.mark.parametrize("error", [RuntimeError("the network\nis down"), AssertionError(), KeyError("run")])
    def test_it_is_told_once_and_gets_no_more(
        self, bare: Bare, calls: Calls, said: list[str], error: Exception
    ) -> None:
        bare.relay.begin()
        bare.loggers[0].scalars = calls.to("One.scalars", error)
        bare.relay.step(RECORD)
        bare.relay.step(RECORD)
        bare.relay.tell("window", "what it was")
        assert calls.names == ["One.scalars", "Two.scalars", "Two.scalars", "Two.text"]
        _, line = said
        assert line.startswith(f"One did not take what the guard logs: {type(error).__name__}: ")
        assert "\n" not in line

    def test_one_that_cannot_be_asked_is_told_too(
        self, bare: Bare, calls: Calls, said: list[str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setitem(found.MAKERS, "wb", calls.to("wb", OSError("no login")))
        assert bare.relay.begin() == [("loggers", "One")]
        assert said[1:] == [
            "wb did not take what the guard logs: OSError: no login. It gets no more of it; training goes on."
        ]

    def test_the_second_ctrl_c_goes_on(self, bare: Bare, calls: Calls) -> None:
        bare.relay.begin()
        bare.loggers[0].text = calls.to("One.text", KeyboardInterrupt())
        with pytest.raises(KeyboardInterrupt):
            bare.relay.tell("window", "what it was")


class TestTheVerdict:
    def verdict(self, bare: Bare, calls: Calls, *events: str, error: BaseException | None = None) -> list[str]:
        """Return the texts of the first logger after some events of the loop, the last of which comes with an error."""
        bare.relay.begin()
        with contextlib.suppress(*([] if error is None else [type(error)])):
            try:
                if error is not None:
                    raise error
            finally:  # as Ultralytics does
                for event in events:
                    bare.relay.follow(event)
        return [call[3] for call in calls if call[0] == "One.text"]

    def test_it_comes_once_before_the_loggers_are_closed(self, bare: Bare, calls: Calls) -> None:
        assert self.verdict(bare, calls, "on_train_epoch_end", "on_train_end", "teardown") == [
            "done\nsteps applied: 12\nepoch 1: window"
        ]
        bare.relay.step(RECORD)
        bare.relay.tell("window", "too late")
        assert calls.names == ["One.text", "Two.text"], "a writer that is written to is open again"

    def test_a_run_that_learned_nothing_will_be_halted(self, bare: Bare, calls: Calls) -> None:
        bare.trainer.guard.counts = Counts(rejected_micro_batches=8)
        (text,) = self.verdict(bare, calls, "on_train_end")
        assert text.startswith("halted: nothing was learned\n")

    @pytest.mark.parametrize(
        ("error", "first"),
        [
            (TrainingHaltedError("9 in a row.", "Look."), "halted: TrainingHaltedError: 9 in a row. Look."),
            (KeyboardInterrupt(), "interrupted: KeyboardInterrupt: KeyboardInterrupt"),
            (ValueError("a\nb"), "failed: ValueError: a b"),
            (None, "ended"),
        ],
    )
    def test_after_an_error_it_says_which(
        self, bare: Bare, calls: Calls, error: BaseException | None, first: str
    ) -> None:
        (text,) = self.verdict(bare, calls, "teardown", error=error)
        assert text.splitlines()[0] == first

    def test_before_there_is_a_guard_there_is_none(self, bare: Bare, calls: Calls) -> None:
        bare.trainer.guard = None
        assert self.verdict(bare, calls, "teardown") == []
