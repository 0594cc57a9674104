"""What a guarded trainer writes into ``weights/``: whole, healthy, never clamped, and loaded by plain Ultralytics."""

from __future__ import annotations

import errno
import hashlib
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

from yolo_stable import InvalidCallError, StableDetectionTrainer, YoloStableError
from yolo_stable._shared import atomic_file as whole_file
from yolo_stable.checkpoints import state_file
from yolo_stable.checkpoints.reader import culprits, digest, load, load_good, network_of, newest_good
from yolo_stable.checkpoints.state_file import NAME

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

        class Full(Unfinished):
            def save_soon(self, epoch_completed: int) -> bool:
                if self.epoch != 1 or self.batch_number != 4:
                    return super().save_soon(epoch_completed)
                assert (self.wdir / NAME).is_file()
                with monkeypatch.context() as patch:
                    error = OSError(errno.ENOSPC, "No space left on device")
                    patch.setattr(os, "replace", failing(NAME, error, fired))
                    assert super().save_soon(epoch_completed) is True
                    assert self.finish_save() is True
                raise KeyboardInterrupt

        call = arguments(epochs=3, val=False, guard={"save_every_steps": 2})
        trainer = Full(overrides=call)
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
                    return self.finish_save()

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

    @pytest.mark.parametrize("how", ["replace", "open", "torch"])
    def test_stripping_that_fails_leaves_whole_checkpoints(
        self, arguments: Arguments, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, how: str
    ) -> None:
        fired: list[str] = []

        class Full(StableDetectionTrainer):
            def final_eval(self) -> None:
                self.finish_save()
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
