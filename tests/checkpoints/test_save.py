"""A save that is written beside the training: what it holds, who waits for it, and what is said when it fails."""

from __future__ import annotations

import dataclasses
import errno
import io
import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from yolo_stable import StableDetectionTrainer
from yolo_stable.checkpoints import save as saving
from yolo_stable.checkpoints import writer as checkpoint
from yolo_stable.checkpoints.reader import LAST_GOOD, digest, load
from yolo_stable.checkpoints.resume import ResumeSession
from yolo_stable.checkpoints.save import Save, write
from yolo_stable.checkpoints.state_file import NAME, SavedState, read

Arguments = Callable[..., dict[str, Any]]
FULL = OSError(errno.ENOSPC, "No space left on device")


class Slow:
    """Stands in for the writing: it begins when it is allowed to, and knows how many were written at a time."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.may_write = threading.Event()
        self.running = self.most = 0
        self.written: list[int] = []
        self.first: list[bool] = []
        monkeypatch.setattr(checkpoint, "write", self)

    def __call__(self, save: Save) -> Any:
        self.running += 1
        self.most = max(self.most, self.running)
        assert self.may_write.wait(60), "nobody has allowed it"
        outcome = write(save)
        self.first.append(save.is_first)
        self.running -= 1
        self.written.append(save.epoch)
        return outcome


class Unfinished(StableDetectionTrainer):
    """Leaves its checkpoints resumable."""

    def final_eval(self) -> None:
        """Leave the files as they are."""


def dumped(content: dict[str, Any]) -> bytes:
    buffer = io.BytesIO()
    torch.save(content, buffer)
    return buffer.getvalue()


def dying(call: Callable[..., Any], made: list[Any], most: int) -> Callable[..., Any]:
    """Return a call that ends the process instead, when ``made`` has as many as may be made."""

    def counted(*args: Any) -> Any:
        if len(made) >= most:
            os._exit(9)
        made.append(args)
        return call(*args)

    return counted


def at(epoch: int, batch: int, call: Callable[[Any], None]) -> Callable[[Any], None]:
    """Return a callback for the end of a batch that calls at one place: epoch from 0, batch from 1."""
    return lambda t: call(t) if (t.epoch, t.batch_number) == (epoch, batch) else None


def state_of(trainer: Any) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in trainer.guard.state.live().items()}


class TestBeside:
    def test_the_training_goes_on_and_the_files_hold_what_was_there_at_the_save(
        self, arguments: Arguments, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        slow, then, now = Slow(monkeypatch), {}, {}

        class Watched(Unfinished):
            def save_model(self) -> Any:
                saved = super().save_model()
                if self.epoch == 0:
                    then.update(state_of(self))
                return saved

        def three_steps_later(t: Any) -> None:
            assert slow.written == []
            assert not (t.save_dir / "weights" / "last.pt").exists()
            now.update(state_of(t))
            slow.may_write.set()
            assert load(t.last)["epoch"] == 0, "who asks the trainer where it is, waits for it"
            assert slow.written == [0]
            side = read(t.wdir / NAME)
            assert side.belongs_to(digest(t.last))
            assert all(torch.equal(side.tensors[name], then[name]) for name in then)
            raise KeyboardInterrupt

        trainer = Watched(overrides=arguments(epochs=3, val=False))
        trainer.add_callback("on_train_batch_end", at(1, 3, three_steps_later))
        with pytest.raises(KeyboardInterrupt):
            trainer.train()
        assert not torch.equal(then["model/model.0.conv.weight"], now["model/model.0.conv.weight"])
        assert trainer.last.read_bytes() == trainer.last.with_name(LAST_GOOD).read_bytes()

    def test_two_are_never_under_way_and_all_are_written_when_it_ends(
        self, arguments: Arguments, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        slow = Slow(monkeypatch)
        begun: list[int] = []
        before: list[int] = []
        whole: list[tuple[int, list[int]]] = []
        of_session = ResumeSession.collect

        def collect(session: ResumeSession, epoch: int, **how: Any) -> SavedState:
            assert slow.running == 0, "the one before is written before anything is copied"
            begun.append(epoch)
            return of_session(session, epoch, **how)

        monkeypatch.setattr(ResumeSession, "collect", collect)
        trainer: Any = Unfinished(overrides=arguments(epochs=3, val=False, save_period=1))
        late = threading.Timer(0.3, slow.may_write.set)

        def allow(_: Any) -> None:
            before.extend(slow.written)
            late.start()

        trainer.add_callback("on_train_batch_end", at(1, 4, allow))
        trainer.add_callback("on_train_epoch_end", lambda t: whole.append((t.epoch, list(slow.written))))
        trainer.train()
        assert before == []
        assert whole == [(0, []), (1, [0]), (2, [0, 1])], "no epoch ends before the one before is on the disk"
        assert begun == slow.written == [0, 1, 2]
        assert slow.first == [True, False, False], "one content of a run is loaded, the others are only checked"
        assert slow.most == 1
        assert [load(trainer.wdir / f"epoch{n}.pt")["epoch"] for n in range(3)] == [0, 1, 2]
        assert not trainer.services.checkpoints.is_writing

    @pytest.mark.parametrize("event", ["on_model_save", "on_fit_epoch_end"])
    def test_a_callback_behind_a_save_finds_its_files_without_asking(self, arguments: Arguments, event: str) -> None:
        call = arguments(epochs=2, val=False)
        weights = Path(call["project"]) / call["name"] / "weights"
        seen: list[tuple[int, bool]] = []

        def look(_: Any) -> None:
            content = load(weights / "last.pt")
            seen.append((content["epoch"], read(weights / NAME).belongs_to(digest(weights / "best.pt"))))

        trainer = Unfinished(overrides=call)
        trainer.add_callback(event, look)
        trainer.train()
        assert seen == [(0, True), (1, True)]

    def test_a_training_that_breaks_leaves_it_written(
        self, arguments: Arguments, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        slow = Slow(monkeypatch)
        threading.Timer(1.0, slow.may_write.set).start()
        trainer = Unfinished(overrides=arguments(epochs=3, val=False))

        def breaks(_: Any) -> None:
            assert slow.written == []
            raise RuntimeError("a bug in a callback")

        trainer.add_callback("on_train_epoch_start", lambda t: breaks(t) if t.epoch == 1 else None)
        with pytest.raises(RuntimeError, match="a bug in a callback"):
            trainer.train()
        assert slow.written == [0]
        assert load(trainer.save_dir / "weights" / "last.pt")["epoch"] == 0

    @pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
    def test_workers_that_are_forked_anew_find_nobody_writing(
        self, arguments: Arguments, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        slow = Slow(monkeypatch)
        forks: list[int] = []
        os.register_at_fork(after_in_parent=lambda: forks.append(slow.running))
        trainer = Unfinished(overrides=arguments(epochs=3, val=False))
        trainer.args.workers = 2  # on the CPU Ultralytics sets it to 0 before

        def reset(t: Any) -> None:
            t.train_loader.reset()
            forks.append(-1)
            threading.Timer(0.3, slow.may_write.set).start()

        trainer.add_callback("on_train_epoch_start", reset)
        trainer.train()
        in_each_epoch = [len(part.split()) for part in " ".join(map(str, forks)).split("-1")[1:]]
        assert min(in_each_epoch) >= 2, "two workers"
        assert set(forks) == {0, -1}
        assert slow.written == [0, 1, 2]

    def test_what_could_not_be_written_is_said_while_training_goes_on(
        self, arguments: Arguments, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
    ) -> None:
        replace, fired = os.replace, []

        def full(source: Any, target: Any) -> None:
            if Path(target).name == "last.pt" and trainer.epoch == 1:
                fired.append(trainer.epoch)
                raise FULL
            replace(source, target)

        said: list[int] = []

        def is_said(t: Any) -> None:
            t.services.checkpoints._writing._thread.join()
            assert not said
            t.run_callbacks("on_train_batch_end")
            said.extend(t.epoch for r in caplog.records if "last.pt could not be written: No space" in r.getMessage())

        trainer = Unfinished(overrides=arguments(epochs=3, val=False))
        trainer.add_callback("on_train_epoch_start", lambda t: is_said(t) if t.epoch == 2 else None)
        monkeypatch.setattr(os, "replace", full)
        # The disk is full for the second save only, which has begun when the third epoch starts.
        trainer.train()
        assert fired == [1]
        assert said == [2]
        assert load(trainer.last)["epoch"] == 2

    def test_an_error_that_nobody_expected_is_not_unseen(
        self, arguments: Arguments, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def fail(save: Save) -> Any:
            raise ArithmeticError("a bug in the writing")

        monkeypatch.setattr(checkpoint, "write", fail)
        with pytest.raises(ArithmeticError, match="a bug in the writing"):
            Unfinished(overrides=arguments(epochs=2, val=False)).train()


class TestWrite:
    @pytest.fixture
    def save(self, tmp_path: Path) -> Save:
        network = torch.nn.Linear(2, 2).half()
        network.weight.data.fill_(1.0)
        content = dumped({"ema": network, "optimizer": {"state": {0: {"momentum_buffer": torch.ones(2)}}}})
        state = SavedState({"ema/weight": torch.ones(2, 2), "optimizer/0/momentum_buffer": torch.ones(2)}, {"loop": {}})
        files = {"last": tmp_path / "last.pt", "copies": (tmp_path / LAST_GOOD,), "state_file": tmp_path / NAME}
        return Save(epoch=4, step=40, content=content, before="that of before", state=state, **files)

    def test_the_files_belong_together(self, save: Save) -> None:
        outcome = write(save)
        assert (outcome.written, outcome.failed, outcome.culprits, outcome.damage) == (True, {}, (), "")
        assert save.state_file is not None
        side = read(save.state_file)
        assert side.belongs_to(outcome.digest)
        assert side.follows("that of before")
        assert digest(save.last) == digest(save.copies[0]) == outcome.digest

    @pytest.mark.parametrize("is_first", [True, False])
    @pytest.mark.parametrize(
        "what", ["state", "half", "complex", "double", "optimizer", "network", "cut off", "flipped"]
    )
    def test_what_is_not_whole_and_finite_is_not_written(self, save: Save, what: str, is_first: bool) -> None:
        content, tensors = load(save.content), dict(save.state.tensors)
        save = dataclasses.replace(save, state=SavedState(tensors, save.state.plain))
        if what == "state":  # of which Ultralytics has made a zero
            tensors["ema/weight"][1, 1] = float("nan")
        elif what == "half":
            tensors["model/weight"] = torch.tensor([1.0, float("inf")], dtype=torch.float16)
        elif what == "complex":
            tensors["model/weight"] = torch.tensor([complex(1.0, float("inf"))])
        elif what == "double":
            tensors["model/weight"] = torch.tensor([1e300, float("nan")], dtype=torch.float64)
        elif what == "optimizer":
            content["optimizer"]["state"][0]["momentum_buffer"][1] = float("inf")
        elif what == "network":
            content["ema"].weight.data[0, 1] = float("nan")
        bad = bytearray(dumped(content)[:-200] if what == "cut off" else dumped(content))
        if what == "flipped":
            bad[bad.index(bytes(content["ema"].weight.untyped_storage()))] ^= 0x10
        outcome = write(dataclasses.replace(save, content=bytes(bad), is_first=is_first))
        if (
            what in {"optimizer", "network"} and not is_first
        ):  # what was copied is finite, and the rounding is known to be
            assert outcome.written
            return
        assert not outcome.written
        named = {"state": ("ema/weight",), "optimizer": ("optimizer 0/momentum_buffer",), "network": ("weight",)}
        named |= dict.fromkeys(("half", "complex", "double"), ("model/weight",))
        assert outcome.culprits == named.get(what, ())
        assert bool(outcome.damage) is (what in {"cut off", "flipped"})
        assert list(save.last.parent.iterdir()) == []

    def test_a_finite_number_that_float32_cannot_hold_is_refused_by_name(self, save: Save) -> None:
        state = SavedState({"ema/weight": torch.full((2, 2), 1e300, dtype=torch.float64)}, save.state.plain)
        outcome = write(dataclasses.replace(save, state=state))
        assert (outcome.written, outcome.culprits) == (False, ("weight",))

    def test_a_content_is_loaded_once_in_a_run(self, save: Save, monkeypatch: pytest.MonkeyPatch) -> None:
        loads: list[int] = []

        def counted(content: bytes) -> dict[str, Any]:
            loads.append(len(content))
            return load(content)

        monkeypatch.setattr("yolo_stable.checkpoints.save.load", counted)
        for is_first in (True, False, False):
            assert write(dataclasses.replace(save, is_first=is_first)).written
        assert loads == [len(save.content)]

    def test_what_was_clamped_is_put_back(self, save: Save) -> None:
        save.state.tensors["ema/weight"][0, 1] = 3e6
        save.state.tensors["optimizer/0/momentum_buffer"][1] = -1e9
        content = load(save.content)
        content["ema"].weight.data[0, 1] = 65504.0
        content["optimizer"]["state"][0]["momentum_buffer"][1] = float("-inf")
        outcome = write(dataclasses.replace(save, content=dumped(content)))
        assert outcome.beyond_half == ("weight",)
        written = load(save.last)
        assert written["ema"].weight.tolist() == [[1.0, 3e6], [1.0, 1.0]]
        assert written["ema"].bias.dtype is torch.float16
        assert written["optimizer"]["state"][0]["momentum_buffer"].tolist() == [1.0, -1e9]
        assert save.state_file is not None
        assert read(save.state_file).belongs_to(digest(save.last)), "the file as it is, not as it came"

    @pytest.mark.parametrize("part", ["network", "optimizer"])
    def test_what_was_clamped_in_one_part_alone_is_put_back_there(self, save: Save, part: str) -> None:
        content = load(save.content)
        if part == "network":
            save.state.tensors["ema/weight"][0, 1] = 3e6
            content["ema"].weight.data[0, 1] = 65504.0
        else:
            save.state.tensors["optimizer/0/momentum_buffer"][1] = -1e9
            content["optimizer"]["state"][0]["momentum_buffer"][1] = -65504.0
        outcome = write(dataclasses.replace(save, content=dumped(content)))
        written = load(save.last)
        assert outcome.beyond_half == (("weight",) if part == "network" else ())
        assert written["ema"].weight.tolist() == [[1.0, 3e6 if part == "network" else 1.0], [1.0, 1.0]]
        momentum = written["optimizer"]["state"][0]["momentum_buffer"].tolist()
        assert momentum == [1.0, 1.0 if part == "network" else -1e9]

    def test_what_float16_holds_is_written_as_it_came(self, save: Save) -> None:
        write(save)
        assert save.last.read_bytes() == save.content

    @pytest.mark.parametrize("fails", [NAME, "last.pt", LAST_GOOD])
    def test_a_file_that_fails_is_named_and_the_order_kept(
        self, save: Save, monkeypatch: pytest.MonkeyPatch, fails: str
    ) -> None:
        first = write(save)
        asked: list[str] = []
        whole = saving.write_whole

        def failing(path: Path, content: Any) -> None:
            asked.append(path.name)
            if path.name == fails:
                raise FULL
            whole(path, content)

        monkeypatch.setattr(saving, "write_whole", failing)
        content = load(save.content) | {"epoch": 5}
        outcome = write(dataclasses.replace(save, content=dumped(content), before=first.digest))
        assert [path.name for path in outcome.failed] == [fails]
        assert outcome.written is (fails != "last.pt")
        assert asked == [NAME, "last.pt", LAST_GOOD][: 2 if fails == "last.pt" else 3]
        assert digest(save.last) == (first.digest if fails == "last.pt" else outcome.digest)
        assert save.state_file is not None
        if fails == NAME:
            assert not save.state_file.exists(), "it belongs to another last.pt"
        else:
            side = read(save.state_file)
            assert side.belongs_to(outcome.digest) or side.follows(digest(save.last))

    @pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
    @pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
    def test_a_process_that_dies_at_any_moment_leaves_a_pair_that_is_resumed(
        self, save: Save, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """As with SIGKILL, before each flush and each rename of the second save; the whole state is never lost."""
        first = write(save)
        next_one = dataclasses.replace(
            save, content=dumped(load(save.content) | {"epoch": 5}), before=first.digest, epoch=5
        )
        states = []
        for calls in range(100):
            child = os.fork()
            if child == 0:
                made: list[Any] = []
                for name in ("fsync", "replace"):
                    monkeypatch.setattr(os, name, dying(getattr(os, name), made, calls))
                write(next_one)
                os._exit(0)
            code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
            assert save.state_file is not None
            side, of_last = read(save.state_file), digest(save.last)
            load(save.last)
            load(save.copies[0])
            states.append((of_last == first.digest, side.belongs_to(of_last), side.follows(of_last)))
            write(save)
            if code == 0:
                break
        old, between, new = (True, True, False), (True, False, True), (False, True, False)
        assert list(dict.fromkeys(states)) == [old, between, new]
        assert len(states) == 2 * 3 + 3 + 1, "two for each of three files and its folder, and none"
