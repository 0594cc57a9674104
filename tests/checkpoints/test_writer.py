"""What a guarded trainer writes into ``weights/``: whole, healthy, never clamped, and loaded by plain Ultralytics."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import io
import itertools
import logging
import os
import random
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from ultralytics import YOLO
from ultralytics.models.yolo.detect import DetectionTrainer
from ultralytics.nn.tasks import load_checkpoint
from ultralytics.utils.torch_utils import strip_optimizer

from yolo_stable import InvalidCallError, StableDepthTrainer, StableDetectionTrainer, YoloStableError
from yolo_stable._shared import atomic_file as whole_file
from yolo_stable.checkpoints import state_file
from yolo_stable.checkpoints import writer as checkpoint
from yolo_stable.checkpoints.reader import culprits, digest, load, load_good, network_of, newest_good
from yolo_stable.checkpoints.save import Outcome, Save
from yolo_stable.checkpoints.state_file import NAME
from yolo_stable.checkpoints.writer import CheckpointWriter

Arguments = Callable[..., dict[str, Any]]


class Unfinished(StableDetectionTrainer):
    """Leaves its checkpoints resumable."""

    def final_eval(self) -> None:
        """Leave the files as they are."""


def train(kind: type, overrides: dict[str, Any]) -> Any:
    trainer = kind(overrides=overrides)
    trainer.train()
    return trainer


def names(trainer: Any) -> set[str]:
    return {path.name for path in trainer.wdir.iterdir()}


@pytest.fixture(scope="module")
def finished(
    tmp_path_factory: pytest.TempPathFactory, narrow: Callable[[str], str], shapes: Callable[..., str]
) -> Path:
    """Return the folder of weights of a run of one epoch that was not stripped."""
    folder = tmp_path_factory.mktemp("finished")
    call = {"model": narrow("detect"), "data": shapes("detect"), "epochs": 1, "imgsz": 64, "batch": 8, "device": "cpu"}
    quiet = {
        "plots": False,
        "verbose": False,
        "amp": False,
        "optimizer": "AdamW",
        "project": str(folder),
        "name": "run",
    }
    return train(Unfinished, {**call, **quiet}).wdir


class TestContent:
    def test_it_is_that_of_stock(self, arguments: Arguments) -> None:
        """Same keys, same rounding, same rule for best.pt and epochN.pt, same callback."""
        runs = {}
        for kind in (DetectionTrainer, StableDetectionTrainer):
            call = arguments(name=kind.__name__, save_period=1)
            call |= {"guard": {"step": "reference"}} if kind is StableDetectionTrainer else {}
            trainer = kind(overrides=call)
            saves: list[int] = []
            trainer.add_callback("on_model_save", lambda t, saves=saves: saves.append(t.epoch))
            contents: list[Any] = []
            trainer.add_callback("on_model_save", lambda t, contents=contents: contents.append(load(t.last)))
            trainer.train()
            assert saves == [0, 1]
            runs[kind] = trainer, contents
        (stock, theirs), (guarded, ours) = runs.values()
        ours_only = {"last_good.pt"}
        assert names(guarded) - names(stock) == ours_only
        assert names(stock) == {"last.pt", "best.pt", "epoch0.pt", "epoch1.pt"}
        for a, b in zip(theirs, ours, strict=True):
            assert a.keys() == b.keys()
            for key in ("epoch", "updates", "best_fitness", "scaler", "model", "modelopt"):
                assert a[key] == b[key], key
            assert a["stopper"] == b["stopper"]
            left, right = network_of(a).state_dict(), network_of(b).state_dict()
            assert all(torch.equal(left[name], right[name]) and left[name].dtype == right[name].dtype for name in left)
        for name in ("last.pt", "best.pt"):
            a, b = load(stock.wdir / name), load(guarded.wdir / name)
            assert a.keys() == b.keys()
            assert (b["epoch"], b["optimizer"], b["ema"]) == (-1, None, None)
            left, right = a["model"].state_dict(), b["model"].state_dict()
            assert all(torch.equal(left[name], right[name]) and left[name].dtype == right[name].dtype for name in left)
        assert guarded.last.read_bytes() == (guarded.wdir / "last_good.pt").read_bytes()
        assert guarded.last.stat().st_ino != (guarded.wdir / "last_good.pt").stat().st_ino, "a copy, not a link"

    def test_what_float16_cannot_hold_stays_float32_up_to_the_last_file(self, arguments: Arguments) -> None:
        huge, seen = 3e6, []

        class Large(StableDetectionTrainer):
            def save_model(self) -> Any:
                trainer: Any = self
                with torch.no_grad():
                    for network in (trainer.model, trainer.ema.ema):
                        network.model[1].bn.running_var[3] = huge
                    first = next(iter(trainer.optimizer.state.values()))
                    first["momentum_buffer"].view(-1)[0] = huge
                saved = super().save_model()
                seen.append(load(self.last))
                return saved

        trainer = train(Large, arguments(epochs=1))
        checkpoint = seen[0]
        name = "model.1.bn.running_var"
        state = network_of(checkpoint).state_dict()
        assert state[name].dtype is torch.float32
        assert state[name][3] == huge
        assert {t.dtype for key, t in state.items() if t.is_floating_point() and key != name} == {torch.float16}
        momentum = checkpoint["optimizer"]["state"][0]["momentum_buffer"]
        assert momentum.dtype is torch.float32
        assert momentum.view(-1)[0] == huge
        assert checkpoint["optimizer"]["state"][1]["momentum_buffer"].dtype is torch.float16
        for path in (trainer.last, trainer.best, trainer.wdir / "last_good.pt"):
            assert load_checkpoint(path)[0].state_dict()[name][3] == huge, path
            model: Any = YOLO(path).model
            assert model.model[1].bn.running_var.dtype is torch.float32
            assert not next(model.parameters()).requires_grad

    def test_without_saving_only_the_last_epoch_is_saved(self, arguments: Arguments) -> None:
        seen: list[set[str]] = []
        trainer = Unfinished(overrides=arguments(save=False))
        trainer.add_callback("on_fit_epoch_end", lambda t: seen.append(names(t)))
        trainer.train()
        assert seen == [set(), {"last.pt", "last_good.pt", "best.pt"}]


def test_a_finite_ruin_that_waits_for_the_other_ranks_is_not_saved(
    arguments: Arguments, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    kept: list[bytes] = []

    class Ruined(Unfinished):
        def save_model(self) -> Any:
            if self.epoch == 0:
                return super().save_model()
            kept.append(self.last.read_bytes())
            trainer: Any = self
            with torch.no_grad():
                trainer.model.model[0].conv.weight[0, 0, 0, 0] = 1e30
            with monkeypatch.context() as patch:
                patch.setattr(trainer.guard.ranks, "shared", True)
                assert super().save_model() is False
            assert "model/model.0.conv.weight" in trainer.guard.recovery.wish
            return False

    trainer = Ruined(overrides=arguments(epochs=2, val=False))
    with pytest.raises(YoloStableError, match="its checkpoint could not be written"):
        trainer.train()
    assert kept == [trainer.last.read_bytes()]
    assert (trainer.wdir / "last_good.pt").read_bytes() == kept[0]
    said = "checkpoint of epoch 2 not written, not healthy: model/model.0.conv.weight. The good checkpoint is "
    assert any(said in r.getMessage() for r in caplog.records)


def failing(path_part: str, error: OSError, fired: list[str]) -> Callable[[Any, Any], None]:
    """Return an ``os.replace`` that fails for some files."""
    replace = os.replace

    def call(source: Any, target: Any) -> None:
        if path_part in str(target):
            fired.append(Path(target).name)
            raise error
        replace(source, target)

    return call


class TestDisk:
    def test_a_full_disk_is_said_and_training_goes_on(
        self, arguments: Arguments, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
    ) -> None:
        fired: list[str] = []
        kept: list[bytes] = []

        class Full(Unfinished):
            def save_model(self) -> Any:
                if self.epoch != 1:
                    return super().save_model()
                kept.append(self.last.read_bytes())
                with monkeypatch.context() as patch:
                    patch.setattr(
                        os, "replace", failing("weights", OSError(errno.ENOSPC, "No space left on device"), fired)
                    )
                    saved = super().save_model()
                assert saved is False
                assert not [path for path in self.wdir.iterdir() if path.suffix == ".part"]
                kept.append(self.last.read_bytes())
                return saved

        saves: list[int] = []
        trainer = Full(overrides=arguments(epochs=3, val=False))
        trainer.add_callback("on_model_save", lambda t: saves.append(t.epoch))
        trainer.train()
        assert "last.pt" in fired
        assert kept[0] == kept[1]
        assert saves == [0, 2]
        assert load(trainer.last)["epoch"] == 2
        line = next(r.getMessage() for r in caplog.records if "last.pt could not be written" in r.getMessage())
        assert line.endswith(
            f"{trainer.last} could not be written: No space left on device. Training goes on and tries again with the next"
            " save; the file of the last save is still there."
        )

    def test_a_side_file_that_does_not_fit_on_the_disk_leaves_a_checkpoint_that_is_resumed(
        self, arguments: Arguments, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
    ) -> None:
        """Of the same epoch as the side file of before, which does not belong to it."""
        fired: list[str] = []
        trainer = Unfinished(overrides=arguments(epochs=3, val=False, guard={"save_every_steps": 2}))
        writer = trainer.services.checkpoints
        save_soon = writer.save_soon

        def full(epoch_completed: int) -> bool:
            if (trainer.epoch, trainer.batch_number) != (1, 4):
                return save_soon(epoch_completed)
            assert (trainer.wdir / NAME).is_file()
            with monkeypatch.context() as patch:
                error = OSError(errno.ENOSPC, "No space left on device")
                patch.setattr(os, "replace", failing(NAME, error, fired))
                assert save_soon(epoch_completed) is True
                assert writer.finish() is True
            raise KeyboardInterrupt

        monkeypatch.setattr(writer, "save_soon", full)
        with pytest.raises(KeyboardInterrupt):
            trainer.train()
        assert fired == [NAME]
        assert names(trainer) == {"last.pt", "last_good.pt", "best.pt"}
        said = [
            r.getMessage() for r in caplog.records if f"{NAME} could not be written: No space left" in r.getMessage()
        ]
        assert len(said) == 1
        assert "last.pt is written without it: resumed from that alone, weights are rounded to float16" in said[0]
        resumed = Unfinished(overrides={"model": str(trainer.last), "resume": True})
        resumed.train()
        assert resumed.start_epoch == 1

    @pytest.mark.parametrize("how", ["not JSON", "no number", "a strange dtype"])
    def test_a_state_that_no_side_file_can_hold_ends_no_training(
        self, arguments: Arguments, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, how: str
    ) -> None:
        class Foreign(Unfinished):
            def save_model(self) -> Any:
                assert self.guard is not None
                if self.epoch == 0:
                    return super().save_model()
                assert ((self.wdir / NAME).is_file()) is (self.epoch == 1)
                wrong = {"not JSON": object(), "no number": torch.ones(2)}
                if how in wrong:
                    schedule = SimpleNamespace(state_dict=lambda: Counter(a=wrong[how]), load_state_dict=print)
                    self.guard.state.schedules["own"] = schedule
                else:
                    monkeypatch.delitem(state_file.DTYPES, torch.float32, raising=False)
                return super().save_model()

        trainer = train(Foreign, arguments(epochs=3, val=False))
        assert names(trainer) == {"last.pt", "last_good.pt", "best.pt"}
        assert load(trainer.last)["epoch"] == 2
        said = [r.getMessage() for r in caplog.records if f"{NAME} could not be written: " in r.getMessage()]
        assert len(said) == 1, "it will be so at every save"

    def test_a_side_file_stays_with_the_checkpoint_that_it_belongs_to(
        self, arguments: Arguments, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Neither could be written: those of before still belong together."""
        fired: list[str] = []

        class Full(Unfinished):
            def save_model(self) -> Any:
                if self.epoch == 0:
                    return super().save_model()
                with monkeypatch.context() as patch:
                    error = OSError(errno.ENOSPC, "No space left on device")
                    patch.setattr(os, "replace", failing("weights", error, fired))
                    assert super().save_model() is True, "it has begun"
                    return self.services.checkpoints.finish()

        trainer = Full(overrides=arguments(epochs=2, val=False))
        with pytest.raises(YoloStableError, match="its checkpoint could not be written"):
            trainer.train()
        assert fired == [NAME, "last.pt"]
        assert state_file.read(trainer.wdir / NAME).belongs_to(digest(trainer.last))

    def test_one_file_that_fails_does_not_keep_the_others(
        self, arguments: Arguments, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        fired: list[str] = []
        monkeypatch.setattr(os, "replace", failing("best.pt", OSError(errno.EDQUOT, "Disk quota exceeded"), fired))
        trainer = train(Unfinished, arguments(epochs=1))
        assert fired == ["best.pt"]
        assert {"last.pt", "last_good.pt"} <= names(trainer)
        assert "best.pt" not in names(trainer)

    def test_the_calibration_of_a_depth_model_replaces_files_whole(
        self,
        arguments: Arguments,
        shapes: Callable[..., str],
        monkeypatch: pytest.MonkeyPatch,
        caplog: pytest.LogCaptureFixture,
    ) -> None:
        """Ultralytics writes into ``best.pt`` and ``last.pt`` once more after the strip; here the disk is full for the first."""
        stock, fired = torch.save, []

        def full(content: Any, f: Any, *args: Any, **options: Any) -> None:
            if not str(f).endswith(f"best.pt.calibrated{whole_file.PART}"):
                return stock(content, f, *args, **options)
            Path(f).write_bytes(b"PK half of it")
            fired.append(Path(f).name)
            raise RuntimeError("[enforce fail at inline_container.cc:664] . unexpected pos 64 vs 0")

        monkeypatch.setattr(torch, "save", full)
        with caplog.at_level(logging.INFO, logger="ultralytics"):
            trainer = train(StableDepthTrainer, arguments("depth", epochs=1, data=shapes("depth", train=8, val=4)))
        assert fired == [f"best.pt.calibrated{whole_file.PART}"]
        assert not list(trainer.wdir.glob(f"*{whole_file.PART}"))
        assert "depth_calibration" not in load(trainer.best)
        assert load(trainer.last)["depth_calibration"]["status"] == "selected"
        assert trainer.last.read_bytes() == (trainer.wdir / "last_good.pt").read_bytes()
        assert "best.pt was not calibrated: " in caplog.text
        assert "Auto-calibration written to last.pt: '" in caplog.text

    @pytest.mark.parametrize("how", ["replace", "open", "torch"])
    def test_stripping_that_fails_leaves_whole_checkpoints(
        self, arguments: Arguments, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, how: str
    ) -> None:
        fired: list[str] = []

        class Full(StableDetectionTrainer):
            def final_eval(self) -> None:
                self.services.checkpoints.finish()
                with monkeypatch.context() as patch:
                    error = OSError(errno.ENOSPC, "No space left on device")
                    if how == "replace":
                        patch.setattr(os, "replace", failing("weights", error, fired))
                    elif how == "open":

                        def full(name: Any, mode: str = "r") -> Any:
                            if mode == "wb":
                                fired.append(Path(name).name)
                                raise error
                            return open(name, mode)

                        patch.setattr(whole_file, "open", full, raising=False)
                    else:

                        def half_written(content: Any, f: Any) -> None:
                            Path(f).write_bytes(b"PK half of it")
                            fired.append(Path(f).name)
                            raise RuntimeError("[enforce fail at inline_container.cc:664] . unexpected pos 64 vs 0")

                        patch.setattr(torch, "save", half_written)
                    super().final_eval()

        trainer = train(Full, arguments(epochs=1))
        assert len(fired) >= 2
        assert not [path for path in trainer.wdir.iterdir() if path.suffix == ".part"]
        for path in (trainer.last, trainer.best):
            checkpoint = load(path)
            assert checkpoint["optimizer"] is not None
            assert culprits(checkpoint) == ()
        assert any("was not stripped of its optimizer: " in r.getMessage() for r in caplog.records)


class TestFiles:
    def test_a_whole_one_is_loaded(self, finished: Path) -> None:
        assert load_good(finished / "last.pt")["epoch"] == 0
        assert newest_good(finished / "last.pt") in {finished / "best.pt", finished / "last_good.pt"}

    @pytest.mark.parametrize(
        ("how", "said"),
        [
            ("cut off", "it is empty, cut off, or no checkpoint at all."),
            ("empty", "it is empty, cut off, or no checkpoint at all."),
            ("flipped", "it is damaged: the checksum of its part "),
            ("a picture", "it is empty, cut off, or no checkpoint at all."),
            ("foreign", "it is not a checkpoint of Ultralytics: there is no network in it."),
            ("not finite", "it is not finite: model.1.bn.running_var."),
            ("gone", "it is not there."),
        ],
    )
    def test_one_that_is_not_is_named_with_a_better_one(
        self, finished: Path, tmp_path: Path, how: str, said: str
    ) -> None:
        whole = (finished / "last.pt").read_bytes()
        path = tmp_path / "last.pt"
        damaged = bytearray(whole)
        damaged[len(whole) // 3] ^= 0x10
        contents = {
            "cut off": whole[: len(whole) // 2],
            "empty": b"",
            "flipped": bytes(damaged),
            "a picture": b"\x89PNG",
        }
        if how in contents:
            path.write_bytes(contents[how])
        elif how == "foreign":
            torch.save({"weights": torch.ones(2)}, path)
        elif how == "not finite":
            checkpoint = load(whole)
            checkpoint["ema"].model[1].bn.running_var[0] = float("inf")
            torch.save(checkpoint, path)
        with pytest.raises(InvalidCallError) as caught:
            load_good(path)
        assert str(caught.value).startswith(f"Checkpoint {path} cannot be resumed: {said}")
        assert str(caught.value).endswith("There is no good checkpoint beside it.")
        (tmp_path / "best.pt").write_bytes(whole)
        (tmp_path / "last_good.pt").write_bytes(whole[:1000])  # newer, and damaged as well
        os.utime(tmp_path / "best.pt", (1, 1))
        with pytest.raises(InvalidCallError) as caught:
            load_good(path)
        assert str(caught.value).endswith(f"The newest good checkpoint beside it is {tmp_path / 'best.pt'}.")
        assert "\n" not in str(caught.value)

    def test_ultralytics_own_stripping_understands_ours(self, finished: Path, tmp_path: Path) -> None:
        strip_optimizer(finished / "last.pt", str(tmp_path / "stripped.pt"))
        assert culprits(load(tmp_path / "stripped.pt")) == ()

    @pytest.mark.parametrize("size", [0, 1, (1 << 20) - 1, 1 << 20, (1 << 20) + 1, 2 << 20])
    def test_a_file_has_the_digest_of_its_bytes_whatever_its_size(self, tmp_path: Path, size: int) -> None:
        content = random.Random(size).randbytes(size)
        (tmp_path / "file").write_bytes(content)
        assert digest(tmp_path / "file") == digest(content) == hashlib.sha256(content).hexdigest()


class Log:
    """Stands in for the log of a run."""

    def __init__(self) -> None:
        self.calls: list[tuple[Any, ...]] = []

    def saved(self, *told: Any) -> None:
        self.calls.append(("saved", *told))

    def checkpoint_kept(self, *told: Any) -> None:
        self.calls.append(("kept", *told))

    def good_checkpoint(self) -> str:
        return "last_good.pt is healthy."


class Bare(CheckpointWriter):
    """A writer of a trainer that is a stub."""

    def __init__(self, **trainer: Any) -> None:
        self.log: Any = Log()
        self.trainer: Any = SimpleNamespace(name="Bare", run_log=self.log, callbacks={}, **trainer)
        super().__init__(self.trainer, collect_state=self.collect, make_content=self.make)

    def collect(self, epoch: int, *, at_the_end_of_an_epoch: bool) -> state_file.SavedState:
        raise TypeError("a schedule of your own")

    def make(self, epoch: int) -> None:
        """Write in its own way, not at the writer's places."""


@pytest.fixture
def said(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    lines: list[str] = []
    monkeypatch.setattr(checkpoint, "LOGGER", SimpleNamespace(warning=lines.append, info=lines.append))
    return lines


class TestWhatCameOfASave:
    LAST, SIDE = Path("weights/last.pt"), Path("weights") / NAME

    def outcome(self, **came: Any) -> Outcome:
        state = state_file.SavedState({}, {})
        save = Save(
            epoch=2, step=40, content=b"", state=state, last=self.LAST, copies=(), state_file=self.SIDE, before=None
        )
        return Outcome(save, **came)

    def test_one_that_was_written_is_recorded_with_its_epoch_from_one_and_its_step(self, said: list[str]) -> None:
        writer = Bare()
        writer._take_over(self.outcome(digest="abc"))
        assert writer.log.calls == [("saved", self.LAST, 3, 40)]
        assert (writer._digest_on_disk, writer.finish(), said) == ("abc", True, [])

    def test_one_that_was_not_is_told_with_the_checkpoint_that_is_good(self, said: list[str]) -> None:
        writer = Bare()
        writer._take_over(self.outcome(damage="cut off"))
        assert said == ["", "checkpoint of epoch 3 not written: it is cut off. last_good.pt is healthy."]
        assert (writer.log.calls, writer.finish()) == ([], False)

    def test_what_is_not_finite_is_named(self, said: list[str]) -> None:
        writer = Bare()
        writer._take_over(self.outcome(culprits=("model.0.weight", "model.1.bias")))
        names = "model.0.weight, model.1.bias"
        assert said[1:] == [f"checkpoint of epoch 3 not written, not finite: {names}. last_good.pt is healthy."]
        assert writer.log.calls == [("kept", 3, ("model.0.weight", "model.1.bias"))]

    def test_what_float16_cannot_hold_is_told_once(self, said: list[str]) -> None:
        writer = Bare()
        for _ in range(2):
            writer._take_over(self.outcome(digest="abc", beyond_half=("model.0.weight", "model.1.bias")))
        (line,) = said
        assert line.startswith("model.0.weight and 1 more hold numbers that float16 cannot (above 65504)")

    def test_a_full_disk_is_told_each_time_and_a_state_that_no_file_can_hold_once(self, said: list[str]) -> None:
        writer = Bare()
        for error in (OSError(errno.ENOSPC, "full"), TypeError("no number"), TypeError("no number")):
            writer._take_over(self.outcome(digest="abc", failed={self.SIDE: error}))
        told = [line for line in said if line]
        assert [line.split(". ")[0] for line in told] == [
            f"{self.SIDE} could not be written: full",
            f"{self.SIDE} could not be written: no number",
        ]
        writer._take_over(self.outcome(digest="abc", failed={self.SIDE: OSError(errno.ENOSPC, "full")}))
        assert len([line for line in said if line]) == 3

    def test_another_file_that_failed_is_tried_again(self, said: list[str]) -> None:
        best = Path("weights/best.pt")
        Bare()._take_over(self.outcome(digest="abc", failed={best: OSError(errno.ENOSPC, "full")}))
        assert said == [
            "",
            f"{best} could not be written: full. Training goes on and tries again with the next save;"
            " there is no older one.",
        ]

    def test_a_save_of_now_is_one_that_was_begun_and_written(self, monkeypatch: pytest.MonkeyPatch) -> None:
        for begun, written in itertools.product((False, True), repeat=2):
            monkeypatch.setattr(Bare, "save_soon", lambda self, epoch, begun=begun: begun)
            monkeypatch.setattr(Bare, "finish", lambda self, written=written: written)
            assert Bare().save_now(3) is (begun and written)

    def test_callbacks_that_are_not_ultralytics_own_may_read_the_files(self) -> None:
        writer = Bare()
        assert not writer._has_readers()
        for name in ("on_model_save", "on_fit_epoch_end"):
            writer.trainer.callbacks = {name: [DetectionTrainer.save_model]}
            assert not writer._has_readers()
            writer.trainer.callbacks = {name: [DetectionTrainer.save_model, train]}
            assert writer._has_readers()


def test_only_the_line_that_names_a_temporary_file_is_kept_back() -> None:
    def passes(message: str) -> bool:
        return bool(checkpoint.LOGGER.filter(logging.LogRecord("x", logging.INFO, "", 0, message, None, None)))

    with checkpoint._without_its_line("Optimizer stripped from"):
        assert [passes(text) for text in ("Optimizer stripped from a.part", "another")] == [False, True]
    assert passes("Optimizer stripped from a.pt")


class TestWhatIsSaved:
    @pytest.mark.parametrize(
        ("healthy", "bad", "told"),
        [
            (True, (), ("saved", TestWhatCameOfASave.LAST, 3)),
            (True, ("weight",), ("kept", 3, ("weight",))),
            (False, (), ("kept", 3, ("EMA weight",))),
        ],
    )
    def test_only_a_state_that_is_healthy_is(
        self,
        monkeypatch: pytest.MonkeyPatch,
        said: list[str],
        healthy: bool,
        bad: tuple[str, ...],
        told: tuple[Any, ...],
    ) -> None:
        writer = Bare(guard=SimpleNamespace(inspect=lambda: healthy))
        writer.trainer.last = TestWhatCameOfASave.LAST
        monkeypatch.setattr(Bare, "_live_culprits", lambda self: bad)
        monkeypatch.setattr(checkpoint, "_unhealthy", lambda guard: ("EMA weight",))
        saved = healthy and not bad
        assert writer._begin(2, at_the_end_of_an_epoch=True) is saved
        assert (writer.log.calls, writer.finish()) == ([told], saved)
        assert ["not healthy" in line for line in said] == ([] if saved else [not healthy])

    @pytest.mark.parametrize("ruined", ["", "model", "optimizer", "average"])
    def test_without_snapshots_all_is_looked_at(self, ruined: str) -> None:
        model, average = torch.nn.Linear(2, 2), torch.nn.Linear(2, 2)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
        model(torch.ones(1, 2)).sum().backward()
        optimizer.step()
        no_snapshots = SimpleNamespace(recovery=None)
        writer = Bare(model=model, optimizer=optimizer, ema=SimpleNamespace(ema=average), guard=no_snapshots)
        places = {
            "model": model.weight.data,
            "optimizer": optimizer.state[model.weight]["momentum_buffer"],
            "average": average.weight.data,
        }
        if ruined:
            places[ruined][0, 0] = float("nan")
        found = writer._live_culprits()
        assert len(found) == bool(ruined)
        assert all("weight" in name for name in found)
        assert ruined != "average" or found == ("EMA weight",)

    @pytest.mark.parametrize("save", [True, False])
    def test_a_state_that_cannot_be_copied_is_saved_without_its_plain_values(self, said: list[str], save: bool) -> None:
        guard = SimpleNamespace(state=SimpleNamespace(live=lambda: {"model/a": torch.ones(2)}))
        writer = Bare(args=SimpleNamespace(save=save), guard=guard)
        writer.trainer.wdir = Path("weights")
        found = writer._copied(2, True)
        assert (list(found.tensors), found.plain) == (["model/a"], {})
        assert ["could not be written: a schedule of your own" in line for line in said] == [True] * save


def test_what_ultralytics_writes_is_taken_from_its_hands(tmp_path: Path) -> None:
    class Stock(Bare):
        def make(self, epoch: int) -> None:
            self.place("wdir").mkdir(parents=True, exist_ok=True)
            self.place("last").write_bytes(b"last")
            (self.place("wdir") / f"epoch{epoch}.pt").write_bytes(b"third")

    writer, folder = Stock(), tmp_path / "weights"
    for name, path in (("wdir", folder), ("last", folder / "last.pt"), ("best", folder / "best.pt")):
        writer.put_place(name, path)
    assert writer._contents(3) == {folder / "last.pt": b"last", folder / "epoch3.pt": b"third"}
    assert not folder.exists()
    assert type(writer.place("last")) is type(tmp_path)


def test_a_place_that_ultralytics_has_not_set_yet_is_an_attribute_that_is_not_there() -> None:
    with pytest.raises(AttributeError, match="Bare has no best yet"):
        Bare().place("best")


@pytest.mark.parametrize("content", [{"model": 3}, [1, 2], {}], ids=repr)
def test_a_file_of_torch_without_a_network_is_no_checkpoint(content: object) -> None:
    buffer = io.BytesIO()
    torch.save(content, buffer)
    with pytest.raises(InvalidCallError):
        load(buffer.getvalue())


@pytest.mark.parametrize(("name", "copied"), [("last.pt", True), ("best.pt", False)])
def test_the_good_copy_is_stripped_with_the_last_checkpoint(
    monkeypatch: pytest.MonkeyPatch, said: list[str], tmp_path: Path, name: str, copied: bool
) -> None:
    def strip(path: Path, part: str, updates: Any) -> dict[str, Any]:
        Path(part).write_bytes(b"s" * 2_340_000)
        return {"epoch": -1}

    monkeypatch.setattr(checkpoint, "load", lambda path: {})
    monkeypatch.setattr(checkpoint, "require_whole", lambda content: None)
    monkeypatch.setattr(checkpoint, "network_of", lambda content: torch.nn.Linear(1, 1))
    monkeypatch.setattr(checkpoint, "strip_optimizer", strip)
    monkeypatch.setattr(checkpoint, "_without_its_line", contextlib.nullcontext)
    writer = Bare()
    writer.trainer.last = tmp_path / "last.pt"
    assert writer._strip(tmp_path / name) == {"epoch": -1}
    names = {name, "last_good.pt"} if copied else {name}
    assert {path.name: path.stat().st_size for path in tmp_path.iterdir()} == dict.fromkeys(names, 2_340_000)
    assert said == [f"Optimizer stripped from {tmp_path / name}, 2.3MB"]
