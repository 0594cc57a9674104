"""A run that was stopped and resumed is, bit for bit, the run that was not stopped; and what may be changed on the way."""

from __future__ import annotations

import csv
import json
import os
import random
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from equality import assert_same
from ultralytics import YOLO
from ultralytics.models.yolo.detect import DetectionTrainer
from ultralytics.utils.patches import torch_load

from yolo_stable import InvalidCallError, StableDetectionTrainer, YoloStableError
from yolo_stable.checkpoints.loader_state import restore_order, save_order
from yolo_stable.checkpoints.reader import LAST_GOOD, culprits, digest, load
from yolo_stable.checkpoints.resume import require_same_network
from yolo_stable.checkpoints.state_file import NAME, encode, read
from yolo_stable.guard.divergence import Divergence
from yolo_stable.train import run as train_run
from yolo_stable.train.call import TrainCall
from yolo_stable.trainer.trainers import TRAINERS

Arguments = Callable[..., dict[str, Any]]


class Stopped(BaseException):
    """As good as a kill: nobody catches it."""


def stop_after(trainer: Any, epoch: int, event: str = "on_fit_epoch_end") -> Any:
    """Train until epoch number ``epoch`` (from 0) is over."""

    def stop(t: Any) -> None:
        if t.epoch == epoch:
            raise Stopped

    trainer.add_callback(event, stop)
    with pytest.raises(Stopped):
        trainer.train()
    return trainer


def unfinished(kind: type) -> type:
    """Return a class that leaves its checkpoints as they were before they are stripped."""

    class Unfinished(kind):  # type: ignore[misc, valid-type]
        def final_eval(self) -> None:
            """Leave the files as they are."""

    return Unfinished


def saved_once(kind: type) -> type:
    """Return a class that saves behind its last epoch alone."""

    class SavedOnce(kind):  # type: ignore[misc, valid-type]
        def save_model(self) -> Any:
            return self.epoch + 1 == self.epochs and super().save_model()

    return SavedOnce


def finish(trainer: Any) -> Any:
    trainer.train()
    return trainer


def resume(last: Path, kind: type = StableDetectionTrainer, **overrides: Any) -> Any:
    return finish(unfinished(kind)(overrides={"model": str(last), "resume": True, **overrides}))


def begin(last: Path, **overrides: Any) -> Any:
    """Resume, but leave before the first batch: what is resumed and told is known then."""
    trainer = unfinished(StableDetectionTrainer)(overrides={"model": str(last), "resume": True, **overrides})
    trainer._setup_train()
    trainer.services.ending.close_books("interrupted", "that was all")
    return trainer


def rows(trainer: Any) -> list[dict[str, str]]:
    table = csv.DictReader((trainer.save_dir / "results.csv").read_text().splitlines())
    return [{key: value for key, value in row.items() if key != "time"} for row in table]


def state(trainer: Any) -> dict[str, Any]:
    optimizer = trainer.optimizer.state_dict()
    for group in optimizer["param_groups"]:
        group.pop("fused", None)
    return {
        "model": dict(trainer.model.state_dict()),
        "ema": dict(trainer.ema.ema.state_dict()),
        "updates": trainer.ema.updates,
        "optimizer": optimizer,
        "best": float(trainer.best_fitness),
        "stopper": (trainer.stopper.best_epoch, float(trainer.stopper.best_fitness)),
        "counts": trainer.guard.counts.to_dict(),
    }


# name, task, overrides, epoch after which the run is stopped
TWINS: list[tuple[str, str, dict[str, Any], int]] = [
    ("mosaic closes later", "detect", {"epochs": 3, "close_mosaic": 1}, 0),
    ("mosaic closes at once", "detect", {"epochs": 3, "close_mosaic": 2}, 0),
    ("mosaic is closed", "detect", {"epochs": 3, "close_mosaic": 3}, 0),
    (
        "AdamW, an open window",
        "detect",
        {"epochs": 3, "optimizer": "AdamW", "lr0": 0.002, "nbs": 12, "warmup_epochs": 0},
        0,
    ),
    ("open window in the warm-up", "detect", {"epochs": 4, "nbs": 24, "warmup_epochs": 3, "close_mosaic": 0}, 1),
    ("window longer than an epoch", "detect", {"epochs": 4, "nbs": 24, "warmup_epochs": 0, "close_mosaic": 0}, 0),
    ("MuSGD, batches that do not fit", "detect", {"epochs": 3, "optimizer": "MuSGD", "batch": 5, "nbs": 15}, 0),
    (
        "two heads, a schedule of the loss",
        "end2end",
        {"epochs": 3, "close_mosaic": 0, "mixup": 0.5, "multi_scale": 0.5},
        0,
    ),
    ("classification", "classify", {"epochs": 3}, 0),
]


@pytest.mark.parametrize(("task", "overrides", "after"), [t[1:] for t in TWINS], ids=[t[0] for t in TWINS])
def test_a_resumed_run_is_the_run_that_was_not_stopped(
    arguments: Arguments, task: str, overrides: dict[str, Any], after: int
) -> None:
    kind = TRAINERS["detect" if task == "end2end" else task]
    twin = finish(saved_once(unfinished(kind))(overrides=arguments(task, **overrides, name="twin")))
    stopped = stop_after(kind(overrides=arguments(task, **overrides, name="run")), after)
    assert len(rows(stopped)) == after + 1
    torch.manual_seed(999)  # whatever happens in between
    resumed = resume(stopped.last, kind)
    assert resumed.start_epoch == after + 1
    assert rows(twin) == rows(resumed)
    assert_same(state(twin), state(resumed))
    assert network(twin.last) == network(resumed.last)


def network(path: Path) -> dict[str, list[Any]]:
    return {name: tensor.tolist() for name, tensor in load(path)["ema"].state_dict().items()}


KILLED = """
import json, os, signal, sys
from yolo_stable import StableDetectionTrainer, YoloStableError

class Killed(StableDetectionTrainer):
    def save_model(self):
        if self.epoch == 1:
            os.kill(os.getpid(), signal.SIGKILL)
        return super().save_model()

Killed(overrides=json.loads(sys.argv[1])).train()
"""


@pytest.fixture(scope="module")
def twin(tmp_path_factory: pytest.TempPathFactory, arguments_in: Arguments) -> Any:
    """Return the trainer of a run of three epochs that was not stopped."""
    folder = tmp_path_factory.mktemp("twin")
    return finish(unfinished(StableDetectionTrainer)(overrides=arguments_in(folder, epochs=3, val=False)))


@pytest.mark.usefixtures("warm_programs")
@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="no SIGKILL here")
def test_a_run_that_was_killed_between_its_row_and_its_checkpoint(arguments: Arguments, twin: Any) -> None:
    call = arguments(epochs=3, val=False)
    done = subprocess.run(
        [sys.executable, "-c", KILLED, json.dumps(call)], check=False, capture_output=True, timeout=120
    )
    assert done.returncode == -signal.SIGKILL, done.stderr
    last = Path(call["project"]) / "run" / "weights" / "last.pt"
    assert (last.parent.parent / "results.csv").read_text().count("\n") == 3, "a row more than epochs that were saved"
    resumed = resume(last)
    assert resumed.start_epoch == 1
    assert rows(twin) == rows(resumed)
    assert_same(state(twin), state(resumed))


# ---- what happens around it ----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, narrow: Callable[[str], str], shapes: Callable[..., str]) -> Path:
    """Return the folder of a run of three epochs that was stopped after the second one."""
    folder = tmp_path_factory.mktemp("stopped")
    call = {"model": narrow("detect"), "data": shapes("detect"), "epochs": 3, "imgsz": 64, "batch": 4, "nbs": 4}
    quiet = {"plots": False, "verbose": False, "amp": False, "device": "cpu", "optimizer": "SGD", "lr0": 0.01}
    place = {"project": str(folder), "name": "run", "warmup_epochs": 0, "momentum": 0.9, "val": False}
    return stop_after(StableDetectionTrainer(overrides={**call, **quiet, **place, "preset": "guarded"}), 1).save_dir


@pytest.fixture
def copied(run: Path, tmp_path: Path) -> Path:
    """Return the ``last.pt`` of a copy of that run; what is resumed from it goes on in the copy."""
    shutil.copytree(run, tmp_path / "run")
    return tmp_path / "run" / "weights" / "last.pt"


def resumed_in(last: Path, kind: type = StableDetectionTrainer, **overrides: Any) -> Any:
    """Resume in the folder of the checkpoint, which was copied there."""
    return resume(last, kind, save_dir=str(last.parent.parent), **overrides)


def begin_in(last: Path, **overrides: Any) -> Any:
    """Begin in the folder of the checkpoint, which was copied there."""
    return begin(last, save_dir=str(last.parent.parent), **overrides)


def poisoned(base: type, batches: set[int]) -> type:
    class Poisoned(base):  # type: ignore[misc, valid-type]
        seen = 0
        fired = 0

        def preprocess_batch(self, batch: dict[str, Any]) -> dict[str, Any]:
            batch = super().preprocess_batch(batch)
            if Poisoned.seen in batches:
                batch["img"][0, 0, 5, 5] = float("nan")
                Poisoned.fired += 1
            Poisoned.seen += 1
            return batch

    return Poisoned


class TestFirstEpoch:
    def test_it_is_as_protected_as_any(self, copied: Path) -> None:
        kind = poisoned(StableDetectionTrainer, {0, 2})
        trainer = resumed_in(copied, kind)
        assert kind.fired == 2  # type: ignore[attr-defined]
        assert trainer.guard.counts.rejected_micro_batches == 2
        assert trainer.guard.counts.applied == 2 * 4 + 2, "the counters go on"
        checkpoint = load(copied)
        assert (checkpoint["epoch"], culprits(checkpoint)) == (2, ())

    def test_a_state_that_is_ruined_in_it_is_not_saved(self, copied: Path) -> None:
        before = copied.read_bytes()

        class Ruined(StableDetectionTrainer):
            fired = 0

            def save_model(self) -> Any:
                Ruined.fired += 1
                ema: Any = self.ema
                ema.ema.model[1].bn.running_mean[0] = float("nan")
                return super().save_model()

        with pytest.raises(YoloStableError, match="its checkpoint could not be written"):
            resumed_in(copied, Ruined, guard={"snapshot_every": None})  # or it would be put right first
        assert Ruined.fired == 1
        assert copied.read_bytes() == before
        assert copied.with_name(LAST_GOOD).read_bytes() == before


class TestFolder:
    def test_a_copied_run_goes_on_in_its_own_folder(self, copied: Path) -> None:
        content = load(copied)
        original = Path(content["train_args"]["save_dir"])
        assert original != copied.parent.parent, "the checkpoint names the folder that it was written in"
        before = {path: path.stat().st_mtime_ns for path in original.rglob("*") if path.is_file()}
        trainer = resume(copied)
        assert Path(trainer.save_dir) == copied.parent.parent
        assert {path: path.stat().st_mtime_ns for path in original.rglob("*") if path.is_file()} == before

    def test_a_resume_that_is_refused_leaves_the_arguments_as_they_were(self, copied: Path) -> None:
        arguments = copied.parent.parent / "args.yaml"
        before = arguments.read_text()
        with pytest.raises(InvalidCallError, match="nothing left to resume"):
            resume(copied, epochs=1, lr0=0.5, guard={"max_norm": 0.001})
        assert arguments.read_text() == before
        assert begin(copied).guard.config.max_norm == 10.0

    def test_without_its_side_file_it_says_that_weights_are_rounded(
        self, copied: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        copied.with_name(NAME).unlink()
        begin(copied)
        assert any("rounded to float16" in record.getMessage() for record in caplog.records)

    def test_changed_settings_of_the_guard_are_named(self, copied: Path) -> None:
        changed = begin(copied, guard={"max_norm": 3.0}).plan.changed
        assert changed["guard.max_norm"] == (10.0, 3.0)


class TestAnotherNetwork:
    """It is refused in one line, and nothing in the run's folder has changed."""

    @pytest.mark.parametrize("task", ["segment", "pose", "classify", "rtdetr"])
    def test_another_task(self, copied: Path, task: str, shapes: Callable[..., str]) -> None:
        before = contents(copied.parent.parent)
        with pytest.raises(InvalidCallError) as caught:
            resumed_in(copied, TRAINERS[task], data=shapes(task))
        assert str(copied) in str(caught.value)
        assert contents(copied.parent.parent) == before

    def test_another_number_of_classes(self, copied: Path, shapes: Callable[..., str], tmp_path: Path) -> None:
        own = yaml.safe_load(Path(shapes("detect")).read_text())
        (tmp_path / "more.yaml").write_text(yaml.safe_dump({**own, "names": {**dict(enumerate("abcdef"))}, "nc": 6}))
        before = contents(copied.parent.parent)
        with pytest.raises(InvalidCallError) as caught:
            resumed_in(copied, data=str(tmp_path / "more.yaml"))
        assert str(caught.value).splitlines() == [
            f"{copied} was trained on 4 classes, but {tmp_path / 'more.yaml'} has 6.",
            "To train it on these data begin a new run from it:",
            f"yolo-stable train {tmp_path / 'more.yaml'} model={copied}",
        ]
        assert contents(copied.parent.parent) == before

    def test_other_parameters_are_named(self) -> None:
        before = torch.nn.Sequential(torch.nn.Linear(2, 2))
        now = torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.Linear(2, 1))
        with pytest.raises(InvalidCallError, match=r"the shape of 1.bias is missing there and \(1,\) here"):
            require_same_network(now, {"ema": before}, "last.pt", "data.yaml", 2)
        compiled = torch.compile(torch.nn.Sequential(torch.nn.Linear(2, 2)))
        require_same_network(compiled, {"ema": before}, "last.pt", "data.yaml", 2)
        require_same_network(now, None, "last.pt", "data.yaml", 2)


def contents(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


class TestChanges:
    def test_hyperparameters_take_effect_over_the_saved_groups(self, copied: Path) -> None:
        seen: dict[str, Any] = {}

        class Looking(StableDetectionTrainer):
            def optimizer_step(self) -> None:
                assert self.optimizer is not None
                groups = self.optimizer.param_groups
                seen.setdefault("lr", [group["lr"] for group in groups])
                seen.setdefault("momentum", groups[0]["momentum"])
                seen.setdefault("decay", max(group["weight_decay"] for group in groups))
                super().optimizer_step()

        trainer = resumed_in(copied, Looking, lr0=0.002, lrf=0.5, momentum=0.7, weight_decay=0.004, epochs=4)
        assert trainer.plan.changed == {
            "lr0": (0.01, 0.002),
            "lrf": (0.01, 0.5),
            "momentum": (0.9, 0.7),
            "weight_decay": (0.0005, 0.004),
            "epochs": (3, 4),
        }
        assert seen["lr"] == pytest.approx([0.002 * (0.5 * 0.5 + 0.5)] * 3)
        assert (seen["momentum"], seen["decay"]) == (0.7, 0.004)
        assert len(rows(trainer)) == 4

    def test_the_table_says_what_changed(self, copied: Path, caplog: pytest.LogCaptureFixture) -> None:
        begin_in(copied, patience=7)
        table = next(r.message for r in caplog.records if r.message.startswith("guard of yolo-stable\n"))
        assert "patience=7 (before: 100)" in table
        assert not [r for r in caplog.records if "Resume ignores" in r.message]

    def test_another_optimizer_starts_afresh(self, copied: Path, caplog: pytest.LogCaptureFixture) -> None:
        before = read(copied.with_name(NAME))
        seen: list[Any] = []
        trainer = unfinished(StableDetectionTrainer)(
            overrides={"resume": str(copied), "optimizer": "AdamW", "lr0": 0.001, "save_dir": str(copied.parent.parent)}
        )
        trainer.add_callback(
            "on_train_start", lambda t: seen.append((len(t.optimizer.state), dict(t.model.state_dict())))
        )
        trainer.train()
        assert type(trainer.optimizer) is torch.optim.AdamW
        assert seen[0][0] == 0
        assert any("the optimizer is AdamW now: it starts without" in r.getMessage() for r in caplog.records)
        assert trainer.guard.counts.applied == 12
        assert int(trainer.optimizer.state_dict()["state"][0]["step"]) == 4
        assert before.plain["optimizer"]["class"] == "SGD"

    def test_another_batch_and_another_preset(self, copied: Path) -> None:
        trainer = resumed_in(copied, preset="finetune", batch=8, guard={"max_norm": 3.0})
        assert trainer.plan.preset == "finetune"
        assert trainer.guard.config.max_norm == 3.0
        assert trainer.batch_size == 8
        assert trainer.args.warmup_epochs == 1  # of the preset
        assert trainer.guard.counts.applied == 8 + 2 // trainer.accumulate
        assert "batch" in trainer.plan.changed

    def test_other_data_are_not_taken_silently(
        self, copied: Path, shapes: Callable[..., str], caplog: pytest.LogCaptureFixture
    ) -> None:
        other = shapes("detect", train=8)
        trainer = begin_in(copied, data=other)
        assert trainer.plan.changed["data"][1] == other
        assert any("the run was begun with other data: " in r.getMessage() for r in caplog.records)

    @pytest.mark.parametrize(
        ("changes", "anew"), [({"lr0": 0.002, "epochs": 4}, False), ({"box": 75.0}, True), ({"mosaic": 0.5}, True)]
    )
    def test_the_divergence_rule_begins_anew_where_the_scale_may_be_another(
        self, copied: Path, changes: dict[str, float], anew: bool, caplog: pytest.LogCaptureFixture
    ) -> None:
        """High values never move a settled level: by the old one every step would be an alarm."""
        saved = read(copied.with_name(NAME))
        levels = dict(saved.plain["guard"]["divergence"])
        backoff = {**saved.plain["guard"]["brake"], "rollbacks": 2}
        guard = {**saved.plain["guard"], "brake": backoff}
        copied.with_name(NAME).write_bytes(b"".join(encode(saved.tensors, {**saved.plain, "guard": guard})))
        seen: list[Any] = []
        trainer = unfinished(StableDetectionTrainer)(
            overrides={"resume": str(copied), "save_dir": str(copied.parent.parent), **changes}
        )
        trainer.add_callback("on_train_start", lambda t: seen.append(t.guard.state_dict()))
        trainer.train()
        fresh = Divergence(4.0, 10.0, 32).state_dict()
        assert seen[0]["divergence"] == (fresh if anew else levels)
        assert seen[0]["brake"]["rollbacks"] == 2
        assert trainer.guard.counts.applied == 8 + 4 * (trainer.epochs - 2)
        said = [r for r in caplog.records if "is learned anew: changed " in r.getMessage()]
        assert bool(said) is anew

    def test_nothing_has_changed_when_nothing_was_changed(self, copied: Path) -> None:
        """Ultralytics hands over much that nobody has given."""
        model = YOLO(str(copied))
        model.train(trainer=unfinished(StableDetectionTrainer), resume=True, save_dir=str(copied.parent.parent))
        trainer: Any = model.trainer
        assert trainer.plan.changed == {}
        assert trainer.start_epoch == 2


class TestFiles:
    def test_the_side_file_says_what_the_checkpoint_lacks(self, run: Path) -> None:
        saved = read(run / "weights" / NAME)
        checkpoint = load(run / "weights" / "last.pt")
        assert saved.belongs_to(digest(run / "weights" / "last.pt"))
        assert (saved.epoch, checkpoint["epoch"]) == (1, 1)
        exact = {name: tensor for name, tensor in saved.tensors.items() if name.startswith("ema/")}
        assert exact.keys() == {f"ema/{name}" for name in checkpoint["ema"].state_dict()}
        rounded = checkpoint["ema"].state_dict()["model.0.conv.weight"]
        assert exact["ema/model.0.conv.weight"].dtype is torch.float32
        assert torch.equal(exact["ema/model.0.conv.weight"].half(), rounded)
        assert set(saved.plain["versions"]) >= {"torch", "ultralytics"}

    def test_a_crash_between_the_two_loses_nothing(
        self, arguments: Arguments, twin: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        replace, fired = os.replace, []

        class Killed(StableDetectionTrainer):
            def save_model(self) -> Any:
                if self.epoch == 1:

                    def dying(source: Any, target: Any) -> None:
                        if Path(target).name == "last.pt":
                            fired.append(target)
                            raise Stopped
                        replace(source, target)

                    monkeypatch.setattr(os, "replace", dying)
                return super().save_model()

        trainer = Killed(overrides=arguments(epochs=3, val=False))
        with pytest.raises(Stopped):
            trainer.train()
        monkeypatch.undo()
        assert len(fired) == 1
        assert load(trainer.last)["epoch"] == 0
        resumed = resume(trainer.last)
        assert resumed.start_epoch == 2, "the side file is newer"
        assert rows(resumed) == rows(twin)
        assert_same(state(twin), state(resumed))

    def test_a_plain_checkpoint_is_resumed_as_in_stock(self, arguments: Arguments) -> None:
        stock = stop_after(DetectionTrainer(overrides=arguments(epochs=3, val=False)), 1)
        folder = stock.save_dir
        shutil.copytree(folder, folder.with_name("copy"))
        guarded = resume(stock.last, guard={"step": "reference"})
        again = folder.with_name("copy")
        theirs = unfinished(DetectionTrainer)(
            overrides={"resume": str(again / "weights" / "last.pt"), "save_dir": str(again)}
        )
        theirs.train()
        assert guarded.guard.counts.applied == 4
        for (name, a), b in zip(theirs.model.state_dict().items(), guarded.model.state_dict().values(), strict=True):
            assert torch.equal(a, b), name

    def test_rows_of_epochs_that_are_done_again_go(self, copied: Path) -> None:
        table = copied.parent.parent / "results.csv"
        kept = table.read_text()
        table.write_text(kept + kept.splitlines()[-1].replace("2,", "3,", 1) + "\n3,0.1,unfin")
        trainer = resumed_in(copied)
        assert [row["epoch"] for row in rows(trainer)] == ["1", "2", "3"]
        assert table.read_text().startswith(kept)

    def test_a_lost_table_is_there_again(self, copied: Path) -> None:
        table = copied.parent.parent / "results.csv"
        kept = table.read_text()
        table.unlink()
        resumed_in(copied)
        assert table.read_text().startswith(kept)

    def test_a_run_that_is_over_leaves_no_side_file_and_is_not_resumed(self, copied: Path) -> None:
        trainer = StableDetectionTrainer(overrides={"resume": str(copied), "save_dir": str(copied.parent.parent)})
        trainer.train()
        assert {path.name for path in copied.parent.iterdir()} == {"last.pt", "last_good.pt", "best.pt"}
        calls: list[dict[str, Any]] = [{}, {"epochs": 50}]
        for more in calls:
            with pytest.raises(
                InvalidCallError, match="has nothing left to resume: it is the result of a whole"
            ) as caught:
                resumed_in(copied, **more)
            begin = f"yolo-stable train {trainer.args.data} model={copied}"
            assert str(caught.value).endswith(f"whole run.\nBegin a new run from it:\n{begin}")

    def test_an_epoch_count_that_is_reached_is_said(self, copied: Path) -> None:
        with pytest.raises(
            InvalidCallError,
            match=r"trained for 2 of 2 epochs\.\nGo on with more epochs:\n.* resume=True epochs=4\nBegin a new",
        ):
            resumed_in(copied, epochs=2)

    def test_the_newest_run_is_never_guessed(self, tmp_path: Path) -> None:
        with pytest.raises(InvalidCallError, match=r"gone\.pt cannot be resumed: it is not there\. There is no good"):
            StableDetectionTrainer(overrides={"resume": str(tmp_path / "gone.pt")})


class TestDamage:
    def test_a_damaged_checkpoint_is_refused_and_the_good_copy_resumed(self, copied: Path) -> None:
        whole = copied.read_bytes()
        copied.write_bytes(whole[:-500])
        with pytest.raises(InvalidCallError) as caught:
            resumed_in(copied)
        good = copied.with_name(LAST_GOOD)
        assert str(caught.value) == (
            f"Checkpoint {copied} cannot be resumed: it is empty, cut off, or no checkpoint at all."
            f" The newest good checkpoint beside it is {good}."
        )
        trainer = resumed_in(good)
        assert trainer.start_epoch == 2
        assert trainer.guard.counts.applied == 12, "with the side file"

    @pytest.mark.parametrize("how", ["flipped", "cut off", "empty", "foreign"])
    def test_a_damaged_side_file_is_refused_with_the_way_out(self, copied: Path, how: str) -> None:
        side = copied.with_name(NAME)
        content = bytearray(side.read_bytes())
        content[-100] ^= 1
        wrong = {"flipped": bytes(content), "cut off": bytes(content[:-50]), "empty": b""}
        side.write_bytes(
            wrong[how]
            if how in wrong
            else b"".join(encode({"a": torch.ones(1)}, {})).replace(b"yolo-stable", b"another-one")
        )
        with pytest.raises(InvalidCallError) as caught:
            resumed_in(copied)
        assert str(caught.value).startswith(f"The side file {side} cannot be used: it is ")
        assert "Delete it to resume from the checkpoint alone, whose weights are rounded to float16" in str(
            caught.value
        )
        side.unlink()
        assert begin_in(copied).start_epoch == 2

    def test_a_side_file_of_another_run_is_refused(self, copied: Path) -> None:
        checkpoint = load(copied)
        checkpoint["date"] = "another day"
        torch.save(checkpoint, copied)
        with pytest.raises(
            InvalidCallError, match="do not belong together: the one is of epoch 2, the other of epoch 2"
        ):
            resumed_in(copied)

    def test_a_side_file_that_is_older_is_left_out(self, copied: Path, caplog: pytest.LogCaptureFixture) -> None:
        """Plain Ultralytics has trained on, or the disk was full for the larger of the two."""
        checkpoint = load(copied)
        checkpoint["epoch"] = 2
        torch.save(checkpoint, copied)
        assert begin_in(copied, epochs=4).start_epoch == 3
        assert any("is older than" in r.getMessage() for r in caplog.records)

    def test_a_state_of_another_network_changes_nothing(self, copied: Path) -> None:
        side = copied.with_name(NAME)
        saved = read(side)
        tensors = {name: tensor for name, tensor in saved.tensors.items() if "model.0.conv" not in name}
        side.write_bytes(b"".join(encode(tensors, saved.plain)))
        with pytest.raises(
            InvalidCallError, match=r"state of another model: shape of model/model\.0\.conv\.weight: missing there"
        ):
            resumed_in(copied)


class TestInTheMiddle:
    @pytest.mark.parametrize("epoch", [0, 1])
    def test_the_epoch_begins_anew_with_the_weights_of_then(self, arguments: Arguments, epoch: int) -> None:
        kept: dict[str, Any] = {}

        class Saved(StableDetectionTrainer):
            def optimizer_step(self) -> None:
                super().optimizer_step()
                if self.epoch == epoch and self.batch_number == 3:
                    of_whole_epochs = self.best.read_bytes() if epoch else b""
                    assert self.services.checkpoints.save_now(self.epoch - 1) is True
                    assert self.epoch == epoch
                    assert self.best.exists() is bool(epoch)
                    assert not epoch or self.best.read_bytes() == of_whole_epochs != self.last.read_bytes()
                    model: Any = self.model
                    kept.update({name: tensor.clone() for name, tensor in model.state_dict().items()})
                    kept["files"] = {path.name for path in self.wdir.iterdir()}
                    raise Stopped

        trainer = Saved(overrides=arguments(epochs=2, nbs=4, val=False, warmup_epochs=0))
        with pytest.raises(Stopped):
            trainer.train()
        assert kept.pop("files") == {"last.pt", LAST_GOOD, NAME} | ({"best.pt"} if epoch else set())
        assert load(trainer.last)["epoch"] == epoch - 1
        seen: list[Any] = []
        resumed = unfinished(StableDetectionTrainer)(
            overrides={"model": str(trainer.last), "resume": str(trainer.last)}
        )
        resumed.add_callback(
            "on_train_start", lambda t: seen.append({name: x.clone() for name, x in t.model.state_dict().items()})
        )
        resumed.train()
        assert_same(seen[0], kept)
        assert resumed.start_epoch == epoch
        assert [row["epoch"] for row in rows(resumed)] == ["1", "2"]
        assert resumed.guard.counts.applied == 3 + 4 * epoch + 4 * (2 - epoch)

    def test_the_command_resumes_also_where_no_epoch_was_completed(self, arguments: Arguments) -> None:
        class Saved(StableDetectionTrainer):
            def optimizer_step(self) -> None:
                super().optimizer_step()
                self.services.checkpoints.save_now(-1)
                raise Stopped

        call = arguments(val=False)
        trainer = Saved(overrides=call)
        with pytest.raises(Stopped):
            trainer.train()
        words = [f"model={trainer.last}", "resume=True", "epochs=1"]
        assert train_run.run(TrainCall.parse(call["data"], words)) == trainer.save_dir
        assert [row["epoch"] for row in rows(trainer)] == ["1"]
        with pytest.raises(
            InvalidCallError, match=r"^train: nothing to resume: .*last\.pt is of a run that is finished"
        ):
            train_run.run(TrainCall.parse(call["data"], words))

    def test_with_a_window_open_its_gradients_are_dropped(self, arguments: Arguments) -> None:
        class Saved(StableDetectionTrainer):
            def guarded_backward(self, loss: Any) -> None:
                super().guarded_backward(loss)
                if self.epoch == 1 and self.batch_number == 1:
                    self.services.checkpoints.save_now(0)
                    raise Stopped

        trainer = Saved(overrides=arguments(epochs=3, nbs=12, warmup_epochs=0, val=False))
        with pytest.raises(Stopped):
            trainer.train()
        assert not [name for name in read(trainer.wdir / NAME).tensors if name.startswith("gradient/")]
        steps: list[int] = []

        class Counting(StableDetectionTrainer):
            def optimizer_step(self) -> None:
                steps.append(self.batch_number)
                super().optimizer_step()

        resume(trainer.last, Counting)
        assert steps[0] == 3, "a whole window: not after the first batch, as in stock"


def test_without_saving_there_is_no_side_file(arguments: Arguments) -> None:
    trainer = stop_after(StableDetectionTrainer(overrides=arguments(save=False, val=False)), 0)
    assert list(trainer.wdir.iterdir()) == []


@pytest.mark.parametrize("rank", [0, 1])
def test_a_worker_restores_the_weights_and_keeps_its_own_random_numbers(
    copied: Path, monkeypatch: pytest.MonkeyPatch, rank: int
) -> None:
    """With several GPUs the side file has the generators of rank 0; all others keep their own."""
    from yolo_stable.checkpoints import resume as resuming

    saved = read(copied.with_name(NAME))
    seen: dict[str, dict[str, bool]] = {}

    def look(trainer: Any, when: str) -> None:
        assert torch.equal(trainer.model.model[0].conv.weight, saved.tensors["model/model.0.conv.weight"])
        seen[when] = {
            "python": list(random.getstate()[1]) == saved.tensors["rng/python"].tolist(),
            "torch": torch.equal(torch.get_rng_state(), saved.tensors["rng/torch"]),
            "loader": torch.equal(trainer.train_loader.generator.get_state(), saved.tensors["data/generator"]),
        }

    class Looking(unfinished(StableDetectionTrainer)):  # type: ignore[misc]
        def _setup_train(self) -> None:
            random.seed(999)
            torch.manual_seed(999)
            super()._setup_train()
            look(self, "set up")

        def run_callbacks(self, event: str) -> None:
            if event == "on_train_epoch_start":
                self.train_loader.generator.manual_seed(999)
            super().run_callbacks(event)
            if event == "on_train_epoch_start":
                look(self, event)

    trainer = Looking(overrides={"resume": str(copied), "save_dir": str(copied.parent.parent)})
    monkeypatch.setattr(resuming, "RANK", rank)
    trainer.train()
    own = rank == 0
    assert seen["set up"] == {"python": own, "torch": own, "loader": False}
    assert seen["on_train_epoch_start"] == {"python": own, "torch": own, "loader": own}


def test_augmentations_of_a_worker_keep_their_own_generators() -> None:
    def loader(seed: int) -> Any:
        pipeline = SimpleNamespace(
            seed=seed,
            py_random=random.Random(seed),
            random_generator=np.random.default_rng(seed),
            set_random_seed=lambda seed: setattr(pipeline, "seed", seed),
        )
        data = type("Data", (list,), {"transforms": pipeline})([0, 1])
        return SimpleNamespace(dataset=data, generator=torch.Generator().manual_seed(seed), iterator=None)

    tensors, plain = save_order(loader(1))
    for own, seed in ((True, 1), (False, 2)):
        other, like = loader(2), loader(seed)
        restore_order(other, tensors, plain, generators=own)
        assert torch.equal(other.generator.get_state(), like.generator.get_state())
        pipeline, alike = other.dataset.transforms, like.dataset.transforms
        assert (pipeline.seed, pipeline.py_random.random()) == (seed, alike.py_random.random())
        assert pipeline.random_generator.random() == alike.random_generator.random()


def test_a_file_of_now_is_read_by_ultralytics_own_loader(run: Path) -> None:
    assert torch_load(run / "weights" / "last.pt", map_location="cpu")["epoch"] == 1
