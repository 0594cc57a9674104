"""What the guarded loop asks of its services at each place of Ultralytics' loop, and in which order."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from calls import Calls

from yolo_stable.errors import TrainingHaltedError
from yolo_stable.guard import Decision, GuardVerdict
from yolo_stable.incidents.record import DrawnBatch, ImageNames
from yolo_stable.trainer import loop as looping
from yolo_stable.trainer.loop import GuardedLoop

GOOD = Decision(verdict=GuardVerdict.BACKWARD)
BAD = Decision(verdict=GuardVerdict.REJECT_MICRO_BATCH, reason="loss nan")
APPLIED = Decision(verdict=GuardVerdict.APPLY, norm=1.0)
UNDONE = Decision(verdict=GuardVerdict.REJECT_WINDOW, norm=float("nan"))
HALTED = TrainingHaltedError("It halted.")


class Bare:
    """A loop whose trainer and services are stubs."""

    def __init__(self, calls: Calls, **trainer: Any) -> None:
        self.calls = calls
        self.optimizer, self.ema = object(), SimpleNamespace(update=calls.to("ema.update"))
        self.guard: Any = SimpleNamespace(
            **calls.all_to("before_forward", "settle", "abandon_window", "resync"),
            last=None,
            optimizer=self.optimizer,
            step_name="reference",
            state=SimpleNamespace(ema=None),
            counts=SimpleNamespace(applied=6),
            recovery=SimpleNamespace(out_of_memory=calls.to("out_of_memory")),
        )
        self.trainer: Any = SimpleNamespace(
            guard=self.guard,
            data={"nc": 4},
            optimizer=self.optimizer,
            ema=self.ema,
            model="network",
            epoch=2,
            args=SimpleNamespace(save=True),
            plan=SimpleNamespace(trainer=SimpleNamespace(save_every_steps=None)),
            telemetry=SimpleNamespace(begin=calls.to("telemetry.begin")),
            run_log=SimpleNamespace(**calls.all_to("batch_files", "window_closed", "begin_epoch", "epoch")),
        )
        self.window: Any = SimpleNamespace(
            **calls.all_to("open", "close", "remember", "forget", "blame_newest"),
            draw=calls.to("draw", DrawnBatch(number=1, labels={})),
            fault="class 9",
            is_of_one_scale=object(),
        )
        self.reporter: Any = SimpleNamespace(
            **calls.all_to("require_that_the_guard_was_asked", "follow_epoch"),
            note=calls.to("note", False),
            measured_step=calls.to("measured_step", APPLIED),
            untimed=self.untimed,
        )
        vars(self.trainer).update(trainer)
        self.files: Any = SimpleNamespace(**calls.all_to("look", "share", "release"))
        self.loop = GuardedLoop(
            self.trainer,
            window=self.window,
            reporter=self.reporter,
            files=self.files,
            validation=SimpleNamespace(witness=calls.to("witness")),  # type: ignore[arg-type]
            injections=SimpleNamespace(**calls.all_to("begin_batch", "end_window")),  # type: ignore[arg-type]
            resume=SimpleNamespace(**calls.all_to("stepped", "began", "begin_epoch")),  # type: ignore[arg-type]
            checkpoints=SimpleNamespace(**calls.all_to("save_soon", "finish", "notice")),  # type: ignore[arg-type]
            shutdown=SimpleNamespace(**calls.all_to("keep_workers", "leave_if_asked")),  # type: ignore[arg-type]
        )

    @contextlib.contextmanager
    def untimed(self) -> Iterator[None]:
        self.calls.append(("the clock stands",))
        yield
        self.calls.append(("the clock runs",))

    def judge(self, decision: Any, loss: float, box: float) -> Any:
        """Run a micro-batch with a loss and one item, and return what the trainer keeps of it."""
        self.guard.backward = self.calls.to("backward", decision)
        self.trainer.loss, self.trainer.loss_items = torch.tensor(loss), {"box_loss": torch.tensor(box)}
        return self.loop.backward(torch.tensor(loss))


@pytest.fixture
def bare(calls: Calls) -> Bare:
    return Bare(calls)


class TestABatchOfTheLoader:
    def test_lost_files_are_told_before_it_is_drawn(self, bare: Bare, calls: Calls) -> None:
        batch = {"img": torch.zeros(1, 3, 8, 8), "cls": torch.tensor([[1.0]]), "bboxes": torch.full((1, 4), 0.5)}
        assert bare.loop.draw(batch).fault == ""
        assert calls == [("look",), ("draw", batch)]

    def test_a_class_that_the_data_set_does_not_have_is_its_fault(self, bare: Bare) -> None:
        box = torch.full((1, 4), 0.5)
        batch = {"cls": torch.tensor([[7.0]]), "bboxes": box, "batch_idx": torch.zeros(1), "im_file": ("a.jpg",)}
        assert "class 7" in bare.loop.draw(batch).fault
        assert float(batch["cls"].max()) < 4.0, "the loss never sees it"

    def test_of_too_many_lost_files_nothing_is_drawn(self, bare: Bare, calls: Calls) -> None:
        bare.files.look = calls.to("look", HALTED)
        with pytest.raises(TrainingHaltedError):
            bare.loop.draw({})
        assert calls.names == ["look"]

    def test_the_guard_looks_at_the_model_before_anything_is_put_on_it(self, bare: Bare, calls: Calls) -> None:
        drawn, batch = DrawnBatch(number=1, labels={}, names=ImageNames(said=("a.jpg",))), {"img": 1}
        bare.loop.remember(drawn, batch)
        assert calls == [
            ("batch_files", drawn.names),
            ("before_forward",),
            ("remember", drawn, batch),
            ("witness", batch),
        ]

    def test_before_there_is_a_guard_it_is_remembered_all_the_same(self, calls: Calls) -> None:
        Bare(calls, guard=None).loop.remember(DrawnBatch(number=1, labels={}), {})
        assert calls.names == ["batch_files", "remember", "witness"]


class TestAMicroBatch:
    def test_the_guard_is_told_the_loss_its_items_and_what_is_known_of_the_batch(
        self, bare: Bare, calls: Calls
    ) -> None:
        bare.guard.backward = calls.to("backward", GOOD)
        loss, whole = torch.tensor(2.0), (torch.tensor(4.0), {"box_loss": torch.tensor(1.0)})
        bare.trainer.loss, bare.trainer.loss_items = whole
        assert bare.loop.backward(loss) is None, "the trainer keeps what it has"
        known = {"fault": "class 9", "of_one_scale": bare.window.is_of_one_scale}
        assert calls == [("open",), ("backward", loss, whole[1], known), ("note", GOOD)]

    def test_of_a_rejected_one_the_trainer_keeps_the_last_healthy_loss(self, bare: Bare) -> None:
        loss, items = bare.judge(BAD, float("nan"), float("inf"))
        assert (float(loss), float(items["box_loss"])) == (0.0, 0.0), "there is none yet"
        bare.judge(GOOD, 2.0, 1.5)
        bare.judge(GOOD, 3.0, 2.5)
        for _ in range(2):
            loss, items = bare.judge(BAD, float("nan"), float("inf"))
            assert (float(loss), float(items["box_loss"])) == (3.0, 2.5)

    def test_the_loss_that_is_kept_holds_no_graph(self, bare: Bare) -> None:
        bare.guard.backward = lambda *args, **kwargs: GOOD
        loss = torch.ones((), requires_grad=True) * 2
        bare.trainer.loss, bare.trainer.loss_items = loss, {}
        bare.loop.backward(loss)
        kept, _ = bare.judge(BAD, float("nan"), 0.0)
        assert kept.grad_fn is None
        assert float(kept) == 2.0

    @pytest.mark.parametrize(("news", "blamed"), [(True, [("blame_newest", BAD)]), (False, [])])
    def test_a_rejection_of_one_of_several_ranks_is_remembered(
        self, bare: Bare, calls: Calls, news: bool, blamed: list[Any]
    ) -> None:
        bare.reporter.note = calls.to("note", news)
        bare.judge(BAD, 1.0, 1.0)
        assert calls[2:] == [("note", BAD), *blamed]

    @pytest.mark.parametrize(("last", "noted"), [(BAD, [("note", BAD)]), (None, [])])
    def test_what_the_guard_gave_up_on_is_told_before_it_halts(
        self, bare: Bare, calls: Calls, last: Any, noted: list[Any]
    ) -> None:
        bare.guard.last = last
        with pytest.raises(TrainingHaltedError) as halted:
            bare.judge(HALTED, 1.0, 1.0)
        assert halted.value is HALTED
        assert calls[2:] == noted


class TestAStep:
    def test_the_order_of_an_applied_one(self, bare: Bare, calls: Calls) -> None:
        bare.loop.step()
        assert calls == [
            ("close",),
            ("stepped",),
            ("measured_step",),
            ("ema.update", "network"),
            ("forget",),
            ("settle",),
            ("end_window",),
        ]
        assert bare.guard.state.ema is bare.ema

    def test_after_a_rejected_one_the_average_stays(self, bare: Bare, calls: Calls) -> None:
        bare.reporter.measured_step = calls.to("measured_step", UNDONE)
        bare.loop.step()
        assert calls.names == ["close", "stepped", "measured_step", "forget", "settle", "end_window"]

    def test_without_an_average(self, bare: Bare, calls: Calls) -> None:
        bare.trainer.ema, bare.guard.state.ema = None, bare.ema
        bare.loop.step()
        assert "ema.update" not in calls.names
        assert bare.guard.state.ema is None

    @pytest.mark.parametrize(("step", "fused"), [("fused SGD", True), ("fused", True), ("reference", False)])
    def test_the_average_is_fused_where_the_step_is(
        self, calls: Calls, monkeypatch: pytest.MonkeyPatch, step: str, fused: bool
    ) -> None:
        monkeypatch.setattr(looping, "AverageUpdate", lambda: calls.to("fused average"))
        bare = Bare(calls)
        bare.guard.step_name = step
        bare.loop.step()
        assert calls[3] == (("fused average", bare.ema, "network") if fused else ("ema.update", "network"))

    def test_an_optimizer_that_a_callback_has_put_in_is_the_guards_too(self, bare: Bare) -> None:
        bare.trainer.optimizer = other = object()
        bare.loop.step()
        assert bare.guard.optimizer is other
        bare.trainer.optimizer = None
        bare.loop.step()
        assert bare.guard.optimizer is other

    def test_the_same_optimizer_is_not_given_anew(self, calls: Calls) -> None:
        class Guard(SimpleNamespace):
            def __setattr__(self, name: str, value: Any) -> None:
                calls.append(("guard is given", name))
                super().__setattr__(name, value)

        bare = Bare(calls)
        bare.trainer.guard = Guard(**vars(bare.guard))
        bare.loop.step()
        assert ("guard is given", "optimizer") not in calls

    def test_what_the_guard_gave_up_on_is_told_before_it_halts(self, bare: Bare, calls: Calls) -> None:
        bare.guard.last = UNDONE
        bare.reporter.measured_step = calls.to("measured_step", HALTED)
        with pytest.raises(TrainingHaltedError):
            bare.loop.step()
        assert calls[2:] == [("measured_step",), ("note", UNDONE)], "the window is there for the autopsy"


class TestASaveWithinAnEpoch:
    @pytest.mark.parametrize(
        ("every", "applied", "decision", "save", "saves"),
        [
            (3, 6, APPLIED, True, True),
            (3, 7, APPLIED, True, False),
            (7, 7, APPLIED, True, True),
            (3, 6, UNDONE, True, False),  # the step before has saved this state
            (3, 6, APPLIED, False, False),
            (None, 6, APPLIED, True, False),
        ],
    )
    def test_when(
        self, bare: Bare, calls: Calls, every: int | None, applied: int, decision: Decision, save: bool, saves: bool
    ) -> None:
        bare.trainer.plan.trainer.save_every_steps, bare.trainer.args.save = every, save
        bare.guard.counts.applied = applied
        bare.reporter.measured_step = lambda: decision
        bare.loop.step()
        assert (("save_soon", 1) in calls) is saves, "with the epoch before, as this one is not whole"

    def test_its_time_is_not_that_of_a_step(self, bare: Bare, calls: Calls) -> None:
        bare.trainer.plan.trainer.save_every_steps = 1
        bare.loop.step()
        assert calls[-3:] == [("the clock stands",), ("save_soon", 1), ("the clock runs",)]


class TestOutOfMemory:
    def test_the_window_is_undone_and_the_loop_begins_anew(self, bare: Bare, calls: Calls) -> None:
        bare.loop.abandon()
        assert calls.names == ["abandon_window", "forget", "out_of_memory", "window_closed", "release", "began"]

    def test_without_a_state_to_go_back_to(self, bare: Bare, calls: Calls) -> None:
        bare.guard.recovery = None
        bare.loop.abandon()
        assert calls.names == ["abandon_window", "forget", "window_closed", "release", "began"]

    def test_before_there_is_a_guard(self, calls: Calls) -> None:
        """Ultralytics builds its first pipeline by the same seam."""
        Bare(calls, guard=None).loop.abandon()
        assert calls.names == ["release", "began"]


class TestEvents:
    @pytest.mark.parametrize(
        ("event", "before"),
        [
            ("on_train_epoch_start", ["telemetry.begin", "begin_epoch"]),
            ("on_train_batch_start", ["begin_batch"]),
            ("on_train_batch_end", ["notice"]),
            ("on_train_epoch_end", ["finish", "require_that_the_guard_was_asked", "share", "epoch"]),
            ("on_fit_epoch_end", []),
            ("on_train_start", []),
        ],
    )
    def test_before_the_callbacks(self, bare: Bare, calls: Calls, event: str, before: list[str]) -> None:
        bare.loop.before_callbacks(event)
        assert calls.names == [*before, "follow_epoch"]
        assert calls[-1] == ("follow_epoch", event)

    def test_the_log_gets_the_epoch_from_1(self, bare: Bare, calls: Calls) -> None:
        bare.loop.before_callbacks("on_train_epoch_end")
        assert ("epoch", 3, bare.trainer.telemetry) in calls

    @pytest.mark.parametrize(
        ("event", "after"),
        [
            ("on_train_epoch_start", ["begin_epoch"]),
            ("on_train_start", ["resync"]),
            ("on_train_batch_end", []),
            ("on_fit_epoch_end", []),
        ],
    )
    def test_after_the_callbacks_which_may_have_changed_anything(
        self, bare: Bare, calls: Calls, event: str, after: list[str]
    ) -> None:
        bare.loop.after_callbacks(event)
        assert calls.names == [*after, "keep_workers", "leave_if_asked"]
        assert calls[-2:] == [("keep_workers", event), ("leave_if_asked", event)]

    def test_a_trainer_that_only_starts_workers_has_no_guard_to_look_again(self, calls: Calls) -> None:
        Bare(calls, guard=None).loop.after_callbacks("on_train_start")
        assert calls.names == ["keep_workers", "leave_if_asked"]
