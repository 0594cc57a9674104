"""How each end of a run closes the books, what its message says, and what is saved before."""

from __future__ import annotations

import contextlib
import signal
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from calls import Calls
from ultralytics.engine.trainer import BaseTrainer

from yolo_stable.errors import TrainingHaltedError, TrainingInterruptedError, YoloStableError
from yolo_stable.guard import Counts
from yolo_stable.presets.guard_settings import TrainerConfig
from yolo_stable.provenance.substitution import NoImageLeftError
from yolo_stable.trainer import finish, mixin
from yolo_stable.trainer.finish import RunEnding
from yolo_stable.trainer.trainers import StableDetectionTrainer

WHERE = "It was in epoch 3/9, batch 4."
GOOD = "The good checkpoint is last.pt (epoch 2)."
GO_ON = "yolo-stable train DATA model=LAST resume=True"


class Bare:
    """The end of a trainer that is a stub; ``alerts`` has what was sent."""

    def __init__(self, calls: Calls, **trainer: Any) -> None:
        self.calls, self.counts, self.alerts = calls, Counts(), Calls()
        self.snapshot: Any = SimpleNamespace(step=0)
        self.recovery: Any = SimpleNamespace(ring=SimpleNamespace(newest=self.snapshot), trained=7)
        self.trainer: Any = SimpleNamespace(
            guard=SimpleNamespace(counts=self.counts, recovery=self.recovery),
            epoch=2,
            epochs=9,
            batch_number=4,
            save_dir=Path("run"),
            metrics=None,
            args=SimpleNamespace(save=True),
            plan=SimpleNamespace(trainer=TrainerConfig(report=False)),
            run_log=SimpleNamespace(
                finish=calls.to("finish", [("details", "run/summary.json, guard.jsonl")]),
                has_saved=calls.to("has_saved", True),
                good_checkpoint=lambda: GOOD,
                nothing_learned=calls.to("nothing_learned"),
                saved_step=5,
            ),
        )
        vars(self.trainer).update(trainer)
        self.precision: Any = SimpleNamespace(was_lowered=False)
        self.injections: Any = SimpleNamespace(over=())
        next_steps: Any = SimpleNamespace(filled=lambda text: f"{text} [filled]", told=lambda text: f"{text} [told]")
        self.ending = RunEnding(
            self.trainer,
            checkpoints=SimpleNamespace(save_now=calls.to("save_now")),  # type: ignore[arg-type]
            files=SimpleNamespace(nothing_left=lambda: TrainingHaltedError("No image is left.", "Look.", "Next.")),  # type: ignore[arg-type]
            precision=self.precision,
            injections=self.injections,
            next_steps=next_steps,
            alerts=SimpleNamespace(**self.alerts.all_to("halted", "ended")),  # type: ignore[arg-type]
            undo_resume=calls.to("undo_resume"),
        )

    def end(self, error: BaseException | None = None) -> tuple[str, str]:
        """End a training with an error, and return with what status and message the books were closed."""
        with self.ending.of_the_run():
            if error is not None:
                raise error
        return self.closed

    @property
    def closed(self) -> tuple[str, str]:
        (told,) = (call for call in self.calls if call[0] == "finish")
        assert told[3] is self.counts
        return told[1], told[2]


@pytest.fixture
def bare(calls: Calls) -> Bare:
    return Bare(calls)


class TestOfTheRun:
    def test_done(self, bare: Bare, calls: Calls) -> None:
        assert bare.end() == ("done", "")
        assert calls.names == ["finish"]
        assert bare.alerts == [("ended", "done", "")]

    def test_halted(self, bare: Bare, calls: Calls) -> None:
        error = TrainingHaltedError("9 batches in a row were rejected.", "Look at the data.", f"Go on:\n{GO_ON}")
        with pytest.raises(TrainingHaltedError) as halted:
            bare.end(error)
        message = f"9 batches in a row were rejected. Look at the data. {WHERE} {GOOD}\nGo on:\n{GO_ON} [told]"
        assert str(halted.value) == message
        assert halted.value.__cause__ is error
        assert bare.closed == ("halted", message)
        assert calls.names == ["finish"], "a resumed run is not undone: it was trained"
        assert bare.alerts == [("halted", str(error)), ("ended", "halted", message)]

    def test_halted_by_faults_that_were_put_in_it_says_how_to_go_on_without(self, bare: Bare) -> None:
        bare.injections.over = ("pixel nan",)
        with pytest.raises(TrainingHaltedError) as halted:
            bare.end(TrainingHaltedError("9 batches in a row were rejected.", "Look at the data.", "Check it."))
        assert str(halted.value) == (
            f"9 batches in a row were rejected. {WHERE} {GOOD}\nTo go on without them:\n{GO_ON} [told]"
        )

    def test_no_image_left_says_which_were_lost(self, bare: Bare) -> None:
        with pytest.raises(TrainingHaltedError) as halted:
            bare.end(NoImageLeftError("None."))
        assert str(halted.value) == f"No image is left. Look. {WHERE} {GOOD}\nNext. [told]"
        assert bare.closed == ("halted", str(halted.value))

    def test_interrupted_by_a_signal(self, bare: Bare) -> None:
        error = TrainingInterruptedError("SIGTERM: training stopped.", signal.SIGTERM)
        with pytest.raises(TrainingInterruptedError) as left:
            bare.end(error)
        assert left.value is error
        assert bare.closed == ("interrupted", "SIGTERM: training stopped.")

    def test_interrupted_at_once(self, bare: Bare, calls: Calls) -> None:
        with pytest.raises(KeyboardInterrupt):
            bare.end(KeyboardInterrupt())
        assert bare.closed == ("interrupted", f"KeyboardInterrupt. {GOOD}\nGo on with:\n{GO_ON} [filled]")
        assert calls.names == ["finish"]

    @pytest.mark.parametrize("error", [ValueError("a name"), SystemExit("a name")])
    def test_failed_undoes_what_a_resume_has_written(self, bare: Bare, calls: Calls, error: BaseException) -> None:
        with pytest.raises(type(error)) as failed:
            bare.end(error)
        assert failed.value is error
        assert calls.names == ["undo_resume", "finish"]
        assert bare.closed == ("failed", f"{type(error).__name__}: a name")

    def test_out_of_memory_after_the_precision_was_lowered_is_a_halt(self, bare: Bare, calls: Calls) -> None:
        bare.precision.was_lowered = True
        error = RuntimeError("CUDA Out of Memory.")
        with pytest.raises(TrainingHaltedError) as halted:
            bare.end(error)
        assert str(halted.value) == (
            "Out of memory, after the precision had to be lowered: CUDA Out of Memory. Lower batch=."
            f" {WHERE} {GOOD}\nThen go on:\n{GO_ON} [told]"
        )
        assert halted.value.__cause__ is error
        assert calls.names == ["undo_resume", "finish"]

    @pytest.mark.parametrize(("lowered", "words"), [(False, "out of memory"), (True, "shapes do not match")])
    def test_other_errors_are_failures(self, bare: Bare, lowered: bool, words: str) -> None:
        bare.precision.was_lowered = lowered
        with pytest.raises(RuntimeError):
            bare.end(RuntimeError(words))
        assert bare.closed == ("failed", f"RuntimeError: {words}")


class TestWhatWasPutBackIsSaved:
    @pytest.mark.parametrize(
        ("step", "saved_step", "save", "saves"),
        [
            (6, 5, True, True),
            (5, 5, True, False),  # it is in the checkpoint
            (4, 5, True, False),
            (0, -1, True, False),  # nothing was trained
            (6, 5, False, False),
        ],
    )
    def test_when_it_is_newer_than_the_checkpoint(
        self, bare: Bare, calls: Calls, step: int, saved_step: int, save: bool, saves: bool
    ) -> None:
        bare.snapshot.step, bare.trainer.run_log.saved_step, bare.trainer.args.save = step, saved_step, save
        bare.ending.halted(TrainingHaltedError("It halted."))
        assert calls[:-1] == ([("save_now", 1)] if saves else []), "of the epoch before; and before its name is told"

    @pytest.mark.parametrize("without", ["guard", "recovery", "newest"])
    def test_without_a_snapshot_nothing_is_saved(self, bare: Bare, calls: Calls, without: str) -> None:
        guard = bare.trainer.guard
        bare.snapshot.step = 6
        owner = {"guard": bare.trainer, "recovery": guard, "newest": bare.recovery.ring}[without]
        setattr(owner, without, None)
        assert str(bare.ending.halted(TrainingHaltedError("It halted."))).startswith("It halted. It was in epoch 3/9")
        assert "save_now" not in calls.names


class TestSomethingWasLearned:
    def test_a_run_without_a_rejection_has_learned(self, bare: Bare) -> None:
        bare.recovery.trained = 0
        bare.ending.require_that_something_was_learned()

    def test_one_step_that_stayed_is_enough(self, bare: Bare) -> None:
        bare.counts.rejected_windows = 100
        bare.recovery.trained = 1
        bare.ending.require_that_something_was_learned()

    @pytest.mark.parametrize("applied", [0, 1])
    def test_without_recovery_the_steps_that_were_taken_count(self, bare: Bare, applied: int) -> None:
        bare.trainer.guard.recovery = None
        bare.counts.rejected_windows, bare.counts.applied = 1, applied
        if applied:
            bare.ending.require_that_something_was_learned()
        else:
            with pytest.raises(TrainingHaltedError, match="Nothing was learned"):
                bare.ending.require_that_something_was_learned()

    def test_before_there_is_a_guard_nothing_is_required(self, bare: Bare) -> None:
        bare.trainer.guard = None
        bare.ending.require_that_something_was_learned()

    @pytest.mark.parametrize(
        ("counted", "undone"),
        [
            ({"rejected_micro_batches": 8}, "no step was taken"),
            (
                {"rejected_micro_batches": 8, "applied": 3, "rollbacks": 1},
                "3 optimizer steps were taken, and all undone",
            ),
            ({"rollbacks": 1}, "no step was taken"),
        ],
    )
    def test_a_run_whose_steps_are_all_rejected_or_undone_is_not_done(
        self, bare: Bare, calls: Calls, counted: dict[str, int], undone: str
    ) -> None:
        bare.recovery.trained = 0
        for name, count in {"micro_batches": 8, **counted}.items():
            setattr(bare.counts, name, count)
        rejected = counted.get("rejected_micro_batches", 0)
        with pytest.raises(TrainingHaltedError) as halted:
            bare.ending.require_that_something_was_learned()
        assert str(halted.value) == (
            f"Nothing was learned: of 8 micro-batches {rejected} were rejected, and {undone}."
            " Look at the reasons in guard.jsonl."
        )
        assert halted.value.next == "What is wrong with the data set:\nyolo-stable check DATA"
        assert calls == [("nothing_learned",)], "the checkpoints hold the weights that the run began with"


class TestItWasSaved:
    def test_the_last_epoch_is_asked_for(self, bare: Bare, calls: Calls) -> None:
        bare.ending.require_that_it_was_saved()
        assert calls == [("has_saved", 3)]

    def test_a_checkpoint_that_is_not_there_ends_the_run(self, bare: Bare, calls: Calls) -> None:
        bare.trainer.run_log.has_saved = calls.to("has_saved", False)
        with pytest.raises(YoloStableError) as failed:
            bare.ending.require_that_it_was_saved()
        assert str(failed.value) == (
            "Training has ended with epoch 3, but its checkpoint could not be written."
            f" {GOOD} Look at the warnings above."
        )

    def test_neither_without_saving_nor_on_other_ranks(self, bare: Bare, monkeypatch: pytest.MonkeyPatch) -> None:
        bare.trainer.run_log.has_saved = lambda epoch: False
        bare.trainer.args.save = False
        bare.ending.require_that_it_was_saved()
        bare.trainer.args.save = True
        monkeypatch.setattr(finish, "RANK", 1)
        bare.ending.require_that_it_was_saved()


class TestTheBooks:
    def test_the_table_of_a_run_that_is_done_has_its_metrics(self, bare: Bare, said: list[str]) -> None:
        bare.trainer.metrics = {"metrics/mAP50(B)": 0.123456, "val/box_loss": 1.0, "fitness": 0.5}
        bare.ending.close_books("done", "")
        (table,) = said
        assert [" ".join(line.split()) for line in table.splitlines() if line.strip(" ─")] == [
            "guard of yolo-stable: done",
            "mAP50(B) 0.1235",
            "details run/summary.json, guard.jsonl",
        ]

    def test_that_of_another_end_has_none(self, bare: Bare, said: list[str]) -> None:
        bare.trainer.metrics = {"metrics/mAP50(B)": 0.123456}
        bare.ending.close_books("halted", "why")
        assert bare.closed == ("halted", "why")
        assert said[0].startswith("guard of yolo-stable: halted\n")
        assert "mAP50" not in said[0]

    def test_before_there_is_a_guard_there_are_none(self, bare: Bare, calls: Calls, said: list[str]) -> None:
        bare.trainer.guard = None
        bare.ending.close_books("failed", "ValueError: a name")
        assert (calls, said) == ([], [])

    @pytest.mark.parametrize(("rank", "kept"), [(-1, True), (0, True), (1, False)])
    def test_the_first_rank_keeps_them(
        self, bare: Bare, calls: Calls, said: list[str], rank: int, kept: bool, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(finish, "RANK", rank)
        bare.ending.close_books("done", "")
        assert (bool(calls), bool(said)) == (kept, kept)


class TestTheReport:
    @pytest.fixture(autouse=True)
    def _on(self, bare: Bare) -> None:
        bare.trainer.plan.trainer = TrainerConfig()

    def test_it_stands_last_in_the_table(
        self, bare: Bare, calls: Calls, said: list[str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(finish, "write_report", calls.to("write_report", Path("run/report.html")))
        bare.ending.close_books("halted", "why")
        assert calls[1:] == [("write_report", [Path("run")])], "the log is closed before it is read"
        assert said[0].rstrip().splitlines()[-1].split() == ["report", "run/report.html"]

    def test_an_error_in_it_is_a_line_and_the_run_ends_as_it_does(
        self, bare: Bare, calls: Calls, said: list[str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(finish, "write_report", calls.to("write_report", ZeroDivisionError("two\nlines")))
        assert bare.end() == ("done", "")
        warning, table = said
        assert warning == "The report could not be written: ZeroDivisionError: two lines"
        assert "report" not in table

    def test_turned_off_none_is_written(self, bare: Bare, calls: Calls, monkeypatch: pytest.MonkeyPatch) -> None:
        bare.trainer.plan.trainer = TrainerConfig(report=False)
        monkeypatch.setattr(finish, "write_report", calls.to("write_report", Path("run/report.html")))
        bare.ending.close_books("done", "")
        assert calls.names == ["finish"]


def test_what_ends_the_workers_of_several_gpus_is_kept_for_whoever_trains_several_in_a_row(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Ultralytics' loop over data sets logs the error, and goes on."""
    raised = TrainingInterruptedError("The workers have ended.", signal.SIGINT)

    def train(self: Any) -> None:
        raise raised

    monkeypatch.setattr(BaseTrainer, "train", train)
    monkeypatch.setattr(mixin, "arguments_for_workers", lambda args, plan: args)
    trainer: Any = StableDetectionTrainer.__new__(StableDetectionTrainer)
    ending: Any = RunEnding.__new__(RunEnding)
    ending.error = None
    nothing = contextlib.nullcontext
    trainer.ddp, trainer.args, trainer.plan = True, None, None
    trainer.services = SimpleNamespace(
        ending=ending,
        shutdown=SimpleNamespace(pass_on_signals=nothing),
        alerts=SimpleNamespace(for_workers=nothing),
    )
    with pytest.raises(TrainingInterruptedError):
        trainer.train()
    assert ending.error is raised
