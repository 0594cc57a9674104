"""What a run tells: the reporter alone; and the numbers of the steps in a real run, right, on time, with warnings where due."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from calls import Calls
from ultralytics.models.yolo.detect import DetectionTrainer

from yolo_stable import StableDetectionTrainer, YoloStableError
from yolo_stable.errors import TrainingHaltedError
from yolo_stable.guard import Counts, Decision, Escalation, EscalationLevel, GuardVerdict
from yolo_stable.presets.guard_settings import TrainerConfig
from yolo_stable.runlog.reader import read_events
from yolo_stable.runlog.stopwatch import Stopwatch
from yolo_stable.runlog.warning_rules import Caution
from yolo_stable.trainer import reporter as reporting
from yolo_stable.trainer.reporter import Reporter, say

pytestmark = pytest.mark.usefixtures("without_epilogue")
Arguments = Callable[..., dict[str, Any]]
KEYS = ["batch", "step", "loss", "norm", "clip", "lr", "scale", "seconds", "memory", "layers"]


def events(trainer: Any, kind: str) -> list[dict[str, Any]]:
    return [event for event in read_events(trainer.save_dir / "guard.jsonl") if event["event"] == kind]


class Measuring(StableDetectionTrainer):
    """Works out by itself what the log has to say of each step."""

    def _setup_train(self) -> None:
        super()._setup_train()
        self.seen: list[dict[str, Any]] = []

    def optimizer_step(self) -> None:
        assert self.optimizer is not None
        norms: dict[str, float] = {}
        for name, parameter in self.model.named_parameters():  # type: ignore[union-attr]
            if parameter.grad is not None:
                module = name.rpartition(".")[0]
                norms[module] = norms.get(module, 0.0) + float(parameter.grad.double().square().sum())
        rates = [group["lr"] for group in self.optimizer.param_groups]
        items = {name: float(value) for name, value in self.loss_items.items()}
        self.seen.append({"norms": norms, "lr": rates, "loss": items, "batch": self.batch_number})
        super().optimizer_step()


@pytest.mark.parametrize(("optimizer", "step"), [("SGD", "auto"), ("MuSGD", "auto"), ("AdamW", "reference")])
def test_every_number_is_right(arguments: Arguments, optimizer: str, step: str) -> None:
    trainer = Measuring(overrides=arguments(optimizer=optimizer, guard={"telemetry_every": 3, "step": step}))
    trainer.train()
    lines = events(trainer, "steps")
    assert [(line["epoch"], line["batch"], line["step"]) for line in lines] == [(1, 3, 3), (2, 2, 6)]
    for line in lines:
        assert [key for key in line if key not in {"schema", "event", "time", "epoch"}] == KEYS
        seen = trainer.seen[line["step"] - 1]
        squared = sum(seen["norms"].values())
        assert line["norm"] == pytest.approx(squared**0.5, rel=1e-4)
        assert line["clip"] == pytest.approx(min(1.0, 10.0 / squared**0.5), rel=1e-4)
        assert line["lr"] == pytest.approx(seen["lr"], rel=1e-5)
        assert line["loss"] == pytest.approx(seen["loss"], rel=1e-5)
        assert line["batch"] == seen["batch"]
        assert line["scale"] is None
        assert line["seconds"] > 0
        assert 2**24 < line["memory"] < 2**36
        largest = sorted(seen["norms"].items(), key=lambda entry: -entry[1])[:10]
        assert [share for _, share in line["layers"]] == pytest.approx([v / squared for _, v in largest], abs=1e-4)
        assert {name for name, _ in line["layers"]} == {name for name, _ in largest}


def test_training_is_that_of_stock_to_the_bit_with_a_line_for_every_step(arguments: Arguments) -> None:
    stock: Any = DetectionTrainer(overrides={**arguments(), "name": "stock"})
    stock.train()
    guard = {"step": "reference", "telemetry_every": 1}
    guarded: Any = StableDetectionTrainer(overrides={**arguments(), "name": "guarded", "guard": guard})
    guarded.train()
    assert len(events(guarded, "steps")) == 8
    for a, b in ((stock.model, guarded.model), (stock.ema.ema, guarded.ema.ema)):
        assert all(torch.equal(x, y) for x, y in zip(a.state_dict().values(), b.state_dict().values(), strict=True))


def test_what_lies_between_two_epochs_is_not_the_time_of_a_step(
    arguments: Arguments, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer = StableDetectionTrainer(overrides=arguments(guard={"telemetry_every": 4, "save_every_steps": 3}))
    at = [0.0]

    def passes(seconds: float) -> Callable[[Any], None]:
        return lambda _: at.__setitem__(0, at[0] + seconds)

    def by_hand(t: Any) -> None:
        t.services.reporter.steps.clock = Stopwatch(lambda: at[0])

    trainer.add_callback("on_train_start", by_hand)
    trainer.add_callback("on_train_batch_start", passes(1.0))
    for event in ("on_train_epoch_end", "on_val_start", "on_fit_epoch_end", "on_model_save"):
        trainer.add_callback(event, passes(1000.0))
    writer = trainer.services.checkpoints
    saved = writer.save_soon
    monkeypatch.setattr(writer, "save_soon", lambda epoch: (passes(1000.0)(None), saved(epoch))[1])
    trainer.train()
    assert at[0] > 6000.0, "epochs, validations and two saves within them"
    assert [line["seconds"] for line in events(trainer, "steps")] == [1.0, 1.0]


def test_a_layer_that_takes_over_and_a_norm_out_of_bounds_are_told(
    arguments: Arguments, caplog: pytest.LogCaptureFixture
) -> None:
    class Loud(StableDetectionTrainer):
        fired = 0

        def optimizer_step(self) -> None:
            model: Any = self.model
            model.model[3].conv.weight.grad.mul_(1e6)
            Loud.fired += 1
            super().optimizer_step()

    trainer = Loud(overrides=arguments(epochs=3, guard={"telemetry_every": 1}))
    trainer.train()
    assert Loud.fired == 12
    warnings = events(trainer, "warning")
    assert [(w["epoch"], w["step"], w["what"]) for w in warnings] == [
        (1, 1, "norm over limit"),
        (2, 5, "norm over limit"),
        (2, 8, "one layer dominates"),
        (3, 9, "one layer dominates"),
        (3, 9, "norm over limit"),
    ]
    assert warnings[0]["value"] > 1e5
    assert warnings[0]["limit"] == 100.0
    assert warnings[2]["message"].startswith("model.3.conv alone makes 100% of the squared gradient norm")
    told = [r.getMessage() for r in caplog.records if r.levelname == "WARNING"]
    assert any(line.endswith(f"epoch 2/3, step 8: one layer dominates: {warnings[2]['message']}.") for line in told)
    counts = {"norm over limit": 3, "one layer dominates": 2}
    assert json.loads((trainer.save_dir / "summary.json").read_text())["warnings"] == counts
    table = next(r.getMessage() for r in caplog.records if r.getMessage().startswith("guard of yolo-stable: done"))
    assert "norm over limit: 3, one layer dominates: 2" in table


def test_a_healthy_run_is_not_warned_and_its_loss_scale_is_told(
    arguments: Arguments, caplog: pytest.LogCaptureFixture
) -> None:
    trainer = StableDetectionTrainer(overrides=arguments(guard={"telemetry_every": 1}))
    trainer.add_callback(
        "on_train_start", lambda t: setattr(t, "scaler", torch.amp.GradScaler("cpu", init_scale=256.0))
    )
    trainer.train()
    assert events(trainer, "warning") == []
    assert [line["scale"] for line in events(trainer, "steps")] == [256.0] * 8
    table = next(r.getMessage() for r in caplog.records if r.getMessage().startswith("guard of yolo-stable\n"))
    assert "every step a line in guard.jsonl; warned of: norm above 100" in table


GOOD = Decision(verdict=GuardVerdict.BACKWARD)
BAD = Decision(verdict=GuardVerdict.REJECT_MICRO_BATCH, reason="loss nan")
APPLIED = Decision(verdict=GuardVerdict.APPLY, norm=1.0)


class Bare:
    """The reporter of a trainer that is a stub; ``handed`` has what loggers and alerts got."""

    def __init__(self, calls: Calls, **settings: Any) -> None:
        self.calls = calls
        self.guard: Any = SimpleNamespace(
            counts=Counts(applied=12), config=SimpleNamespace(max_norm=10.0), step=calls.to("step", APPLIED)
        )
        self.trainer: Any = SimpleNamespace(
            name="MyTrainer",
            guard=self.guard,
            plan=SimpleNamespace(trainer=TrainerConfig(**settings), preset=None, changed={}, injected=()),
            optimizer=torch.optim.SGD.__new__(torch.optim.SGD),
            amp=True,
            args=SimpleNamespace(amp="bf16", lr0=0.01),
            accumulate=2,
            device=torch.device("cpu"),
            train_loader=range(8),
            resume=None,
            last=SimpleNamespace(exists=lambda: True),
            start_epoch=3,
            epoch=1,
            epochs=5,
            batch_number=3,
            telemetry=SimpleNamespace(accepted=1, rejected=0, add=calls.to("telemetry.add")),
            run_log=SimpleNamespace(
                rejection=calls.to("rejection", "batch 3 rejected."),
                escalation=calls.to("escalation", "epoch 2: rolled back."),
                **calls.all_to("saved", "start", "window_closed", "steps", "warning"),
            ),
            is_warming_up=calls.to("is_warming_up", False),
        )
        next_steps: Any = SimpleNamespace(told=lambda text: text.replace("DATA", "d.yaml"))
        self.handed = Calls()
        loggers: Any = SimpleNamespace(**self.handed.all_to("step", "tell", "follow"))
        loggers.begin = lambda: [("loggers", "One")]
        alerts: Any = SimpleNamespace(**self.handed.all_to("decided", "escalated"))
        alerts.begin = lambda: [("alerts", "https://a/***")]
        self.reporter = Reporter(self.trainer, next_steps, loggers=loggers, alerts=alerts)

    def measure(self, due: bool = True, made: Any = None) -> Any:
        """Let the numbers of the steps be kept, by a stub."""
        clock, watch = self.calls.all_to("go", "stop"), self.calls.all_to("begin_epoch")
        steps = SimpleNamespace(
            before_step=lambda guard: due,
            add=self.calls.to("steps.add"),
            record=self.calls.to("record", made),
            clock=SimpleNamespace(**clock, pause=lambda: contextlib.nullcontext("paused")),
            watch=SimpleNamespace(**watch),
        )
        self.reporter.steps = steps  # type: ignore[assignment]
        return steps


@pytest.fixture
def bare(calls: Calls) -> Bare:
    return Bare(calls)


class TestTheBanner:
    @pytest.fixture(autouse=True)
    def _rows(self, calls: Calls, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(reporting, "guard_rows", calls.to("guard_rows", [("step", "fused")]))
        monkeypatch.setattr(reporting, "preset_rows", lambda plan: [("preset", "stable")])
        monkeypatch.setattr(reporting, "telemetry_row", lambda config: ("log", "every 10th step"))
        monkeypatch.setattr(reporting, "incident_row", lambda config: ("incidents", "a few"))
        monkeypatch.setattr(reporting, "schedule_warnings", calls.to("schedule", ["lr0 is far too high."]))
        monkeypatch.setattr(reporting, "default_hyp", lambda: "defaults")

    def test_what_is_on_is_told_and_logged(self, bare: Bare, calls: Calls, said: list[str]) -> None:
        bare.reporter.banner(None, 2)
        table, warning = said
        assert [" ".join(line.split()) for line in table.splitlines() if line] == [
            "guard of yolo-stable",
            "step fused",
            "incidents a few",
            "log every 10th step",
            "loggers One",
            "alerts https://a/***",
            "precision bfloat16 autocast, no loss scale",
            "preset stable",
        ]
        assert warning == "lr0 is far too high."
        assert calls == [
            ("guard_rows", bare.guard, {"accumulate": 2, "precisions": 2, "collapse": 0.1}),
            ("schedule", {"amp": "bf16", "lr0": 0.01}, 8, "defaults"),
            (
                "start",
                bare.trainer.plan,
                {
                    "optimizer": "SGD",
                    "precision": "bfloat16 autocast, no loss scale",
                    "device": "cpu",
                    "epochs_before": 3,
                },
            ),
        ]

    @pytest.mark.parametrize(
        ("resume", "there", "known"), [(True, True, True), (True, False, False), (None, True, False)]
    )
    def test_a_resumed_run_has_the_checkpoint_that_it_began_with(
        self, bare: Bare, calls: Calls, resume: Any, there: bool, known: bool
    ) -> None:
        bare.trainer.resume, bare.trainer.last.exists = resume, lambda: there
        bare.reporter.banner(None, 1)
        assert (("saved", bare.trainer.last, 3) in calls) is known

    def test_the_steps_are_kept_by_the_settings(self, calls: Calls) -> None:
        bare = Bare(calls, telemetry_every=4, warn_norm=50.0)
        bare.reporter.banner(None, 1)
        steps = bare.reporter.steps
        assert steps is not None
        assert (steps.every, steps.max_norm, steps.watch.limit) == (4, 10.0, 50.0)
        assert steps.watch.proportional
        off = Bare(calls, telemetry_every=None)
        off.reporter.banner(None, 1)
        assert off.reporter.steps is None

    def test_the_step_of_adam_is_not_proportional_to_the_norm(self, bare: Bare) -> None:
        bare.trainer.optimizer = torch.optim.AdamW.__new__(torch.optim.AdamW)
        bare.reporter.banner(None, 1)
        assert bare.reporter.steps is not None
        assert not bare.reporter.steps.watch.proportional


class TestDecisions:
    def test_a_healthy_one_is_counted_and_no_news(self, bare: Bare, calls: Calls, said: list[str]) -> None:
        bare.measure()
        assert not bare.reporter.note(GOOD)
        assert calls == [("telemetry.add", GOOD), ("steps.add", GOOD)]
        assert said == []

    def test_a_rejection_that_nobody_has_told_of_is_news(self, bare: Bare, calls: Calls, said: list[str]) -> None:
        assert bare.reporter.note(BAD)
        assert calls == [("telemetry.add", BAD), ("rejection", BAD, (2, 5, 3, 8), 12)]
        assert said == ["", "batch 3 rejected."]

    def test_one_that_was_told_is_none(self, bare: Bare, calls: Calls, said: list[str]) -> None:
        bare.reporter.tell_rejection(BAD)
        assert not bare.reporter.note(BAD)
        assert calls.names == ["rejection", "telemetry.add"]
        again = Decision(verdict=GuardVerdict.REJECT_MICRO_BATCH, reason="loss nan")
        assert bare.reporter.note(again), "another one like it is"
        assert len(said) == 4

    @pytest.mark.parametrize(
        ("decision", "closed"),
        [
            (APPLIED, True),
            (Decision(verdict=GuardVerdict.REJECT_WINDOW, norm=float("nan")), True),
            (Decision(verdict=GuardVerdict.EMPTY), True),
            (GOOD, False),
            (BAD, False),
        ],
    )
    def test_a_window_is_closed_by_its_decision_and_after_it_was_told(
        self, bare: Bare, calls: Calls, decision: Decision, closed: bool
    ) -> None:
        bare.reporter.note(decision)
        assert (calls[-1] == ("window_closed",)) is closed

    def test_what_the_log_has_enough_of_is_not_printed(self, bare: Bare, said: list[str]) -> None:
        bare.trainer.run_log.rejection = lambda *args: ""
        bare.reporter.tell_rejection(BAD)
        assert said == []


class TestAStep:
    def test_one_that_is_not_due_is_not_measured(self, bare: Bare, calls: Calls) -> None:
        bare.measure(due=False)
        assert bare.reporter.measured_step() is APPLIED
        assert calls.names == ["step", "telemetry.add", "steps.add", "window_closed"]
        assert calls[0] == ("step", {"measure": False})

    def test_without_numbers_none_is(self, bare: Bare, calls: Calls) -> None:
        assert bare.reporter.measured_step() is APPLIED
        assert calls[0] == ("step", {"measure": False})
        assert "record" not in calls.names

    def test_one_that_is_due_is_measured_logged_and_warned_of(self, bare: Bare, calls: Calls, said: list[str]) -> None:
        rising = Caution(what="norm rising", message="Lower lr0", value=3.0, limit=3.0)
        absurd = Caution(what="norm over limit", message="A norm of 1e6.\nyolo-stable check DATA", value=1e6, limit=1.0)
        bare.measure(made=("the record", [rising, absurd]))
        bare.trainer.is_warming_up = calls.to("is_warming_up", True)
        bare.reporter.measured_step()
        where = "epoch 2/5, step 12"
        filled = Caution(
            what="norm over limit", message="A norm of 1e6.\nyolo-stable check d.yaml", value=1e6, limit=1.0
        )
        assert calls == [
            ("step", {"measure": True}),
            ("telemetry.add", APPLIED),
            ("steps.add", APPLIED),
            ("window_closed",),
            ("is_warming_up", 1000),
            ("record", APPLIED, {"batch": 3, "step": 12, "warm_up": True}),
            ("steps", "the record", 2),
            ("warning", rising, 2, 12),
            ("warning", filled, 2, 12),
        ]
        assert said == [
            "",
            f"{where}: norm rising: Lower lr0.",
            "",
            f"{where}: norm over limit: A norm of 1e6.\n    yolo-stable check d.yaml",
        ]

    def test_one_that_was_not_applied_is_not_logged(self, bare: Bare, calls: Calls) -> None:
        bare.measure(made=None)
        bare.reporter.measured_step()
        assert calls.names[-1] == "record"

    def test_a_halt_is_passed_on(self, bare: Bare, calls: Calls) -> None:
        bare.measure()
        bare.guard.step = calls.to("step", TrainingHaltedError("It halted."))
        with pytest.raises(TrainingHaltedError):
            bare.reporter.measured_step()
        assert calls.names == ["step"]


class TestWhatIsHandedOn:
    def test_each_decision_goes_to_the_alerts(self, bare: Bare) -> None:
        bare.reporter.note(BAD)
        assert bare.handed == [("decided", BAD)]

    def test_the_numbers_of_a_step_go_to_the_loggers(self, bare: Bare) -> None:
        record: Any = SimpleNamespace()
        bare.measure(made=(record, []))
        bare.reporter.measured_step()
        assert ("step", record) in bare.handed

    def test_an_escalation_goes_to_both(self, bare: Bare, calls: Calls, said: list[str]) -> None:
        escalation = Escalation(level=EscalationLevel.ROLL_BACK, reason="9 in a row", step=12, to_step=4)
        bare.reporter.tell_escalation(escalation)
        assert calls == [("escalation", escalation, 2)]
        assert said == ["", "epoch 2: rolled back."]
        assert bare.handed == [
            ("tell", "roll_back", "epoch 2: rolled back."),
            ("escalated", EscalationLevel.ROLL_BACK, "epoch 2: rolled back."),
        ]

    def test_an_incident_goes_to_the_loggers_with_its_place_and_picture(self, bare: Bare, said: list[str]) -> None:
        bare.reporter.tell_incident("window", "norm inf", "what it was", Path("preview.jpg"))
        assert said == ["what it was"]
        text = "epoch 2/5, batch 3: norm inf\nwhat it was"
        assert bare.handed == [("tell", "window", text, Path("preview.jpg"))]

    def test_every_event_goes_to_the_loggers_though_no_step_is_measured(self, bare: Bare) -> None:
        bare.reporter.follow_epoch("on_train_end")
        assert bare.handed == [("follow", "on_train_end")]


class TestTheClock:
    def test_it_stands_still_between_two_epochs(self, bare: Bare, calls: Calls) -> None:
        bare.measure()
        for event in ("on_train_epoch_start", "on_train_batch_end", "on_train_epoch_end", "on_fit_epoch_end"):
            bare.reporter.follow_epoch(event)
        assert calls.names == ["begin_epoch", "go", "stop"]

    def test_it_is_paused_for_what_is_no_step(self, bare: Bare) -> None:
        with bare.reporter.untimed() as nothing:
            assert nothing is None
        bare.measure()
        with bare.reporter.untimed() as paused:
            assert paused == "paused"

    def test_without_numbers_there_is_none(self, bare: Bare) -> None:
        bare.reporter.follow_epoch("on_train_epoch_start")
        bare.reporter.follow_epoch("on_train_epoch_end")


class TestTheGuardWasAsked:
    @pytest.mark.parametrize(("batches", "accepted", "rejected"), [(8, 8, 0), (8, 0, 8), (0, 0, 0), (8, 2, 0)], ids=str)
    def test_it_was(self, bare: Bare, batches: int, accepted: int, rejected: int) -> None:
        bare.trainer.batch_number = batches
        bare.trainer.telemetry.accepted, bare.trainer.telemetry.rejected = accepted, rejected
        if accepted > 2:  # a window has two micro-batches
            bare.reporter.measured_step()
        bare.reporter.require_that_the_guard_was_asked()

    @pytest.mark.parametrize(
        ("accepted", "what", "call"),
        [
            (0, "forward pass", "self.scaler.scale(self.loss).backward()"),
            (3, "optimizer step", "super().optimizer_step()"),
        ],
    )
    def test_an_epoch_that_passed_it_by_ends_the_run(self, bare: Bare, accepted: int, what: str, call: str) -> None:
        bare.trainer.batch_number, bare.trainer.telemetry.accepted = 8, accepted
        with pytest.raises(YoloStableError) as refused:
            bare.reporter.require_that_the_guard_was_asked()
        assert str(refused.value) == (
            f"8 batches were trained without the guard being asked about a single {what}: MyTrainer or this version of"
            f" Ultralytics does not call {call}. Call it, or install the Ultralytics version that yolo-stable names in its"
            " requirements."
        )

    def test_one_step_is_enough(self, bare: Bare) -> None:
        bare.reporter.measured_step()
        bare.trainer.batch_number, bare.trainer.telemetry.accepted = 8, 8
        bare.reporter.require_that_the_guard_was_asked()


@pytest.mark.parametrize(("rank", "lines"), [(-1, ["", "A line."]), (0, ["", "A line."]), (1, [])])
def test_a_line_is_said_once_and_beneath_the_progress_bar(
    rank: int, lines: list[str], said: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reporting, "RANK", rank)
    say("A line.")
    say("")
    assert said == lines
