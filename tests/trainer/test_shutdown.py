"""A signal ends a run after its step, with all saved, and the message says how to go on: the controller alone; real runs."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil
import pytest
import torch
from calls import Calls
from torch.utils.data import DataLoader

from yolo_stable import StableDetectionTrainer
from yolo_stable._shared.signals import LeftToParent
from yolo_stable.errors import TrainingInterruptedError
from yolo_stable.runlog.reader import read_events
from yolo_stable.trainer import shutdown as interrupting
from yolo_stable.trainer.shutdown import ShutdownController

pytestmark = pytest.mark.usefixtures("interruptible")
Arguments = Callable[..., dict[str, Any]]
PROGRAM = Path(__file__).parents[1] / "loading.py"


def raising(base: type, batch: int, event: str, wish: signal.Signals = signal.SIGTERM) -> type:
    """Return a trainer that gets a signal at a batch of the run (from 1), when an event is announced."""

    class Signalled(base):  # type: ignore[misc, valid-type]
        seen = 0
        fired = 0

        def run_callbacks(self, name: str) -> None:
            self.seen += name == "on_train_batch_start"
            if name == event and self.seen == batch and not self.fired:
                self.fired += 1
                signal.raise_signal(wish)
            super().run_callbacks(name)

    return Signalled


class TestOneProcess:
    @pytest.mark.parametrize(
        ("batch", "event", "epoch", "steps", "wish"),
        [
            (2, "on_train_batch_start", -1, 2, signal.SIGTERM),
            (6, "on_train_batch_start", 0, 6, signal.SIGINT),
            (4, "on_train_epoch_end", 0, 4, signal.SIGTERM),
        ],
        ids=["first epoch", "second epoch", "before the validation"],
    )
    def test_the_step_is_finished_and_saved(
        self, arguments: Arguments, batch: int, event: str, epoch: int, steps: int, wish: signal.Signals
    ) -> None:
        trainer = raising(StableDetectionTrainer, batch, event, wish)(overrides=arguments(epochs=3))
        with pytest.raises(TrainingInterruptedError) as left:
            trainer.train()
        assert trainer.fired == 1
        assert left.value.exit_code == 128 + wish
        assert trainer.guard.counts.applied == steps
        content = torch.load(trainer.last, weights_only=False)
        assert (content["epoch"], content["updates"]) == (epoch, steps)
        assert f"after {steps} optimizer steps" in str(left.value)
        assert f"model={trainer.last} resume=True" in str(left.value)
        end = list(read_events(trainer.save_dir / "guard.jsonl"))[-1]
        assert (end["event"], end["status"]) == ("end", "interrupted")
        assert signal.getsignal(wish) is not trainer.services.shutdown.asked._handle

    @pytest.mark.usefixtures("without_epilogue")
    def test_a_run_at_its_end_is_finished(self, arguments: Arguments) -> None:
        trainer = raising(StableDetectionTrainer, 4, "on_fit_epoch_end")(overrides=arguments(epochs=1))
        trainer.train()
        assert trainer.fired == 1


class TestWorkers:
    """The process that starts the workers of a multi-GPU run; a sleeping program stands in for them."""

    PROGRAM = (
        "import signal, sys, time; signal.signal(signal.SIGTERM, lambda *_: sys.exit(3));"
        " print(1, flush=True); time.sleep(30)"
    )

    def test_sigterm_is_passed_on_and_named(self, arguments: Arguments) -> None:
        trainer = StableDetectionTrainer(overrides=arguments())
        trainer.args.device = "0,1"

        def launch() -> None:
            with subprocess.Popen([sys.executable, "-c", self.PROGRAM], stdout=subprocess.PIPE) as worker:
                assert worker.stdout is not None
                worker.stdout.readline()
                signal.raise_signal(signal.SIGTERM)
                assert worker.wait(timeout=20) == 3, "it has had the signal"
            raise subprocess.CalledProcessError(3, "workers")

        with (
            pytest.raises(TrainingInterruptedError, match="SIGTERM: the workers") as left,
            trainer.services.shutdown.pass_on_signals(),
        ):
            launch()
        assert left.value.exit_code == 143


@pytest.mark.skipif(os.name != "posix", reason="process groups of POSIX")
@pytest.mark.parametrize("start_method", ["fork", "spawn", "forkserver"])
def test_ctrl_c_is_left_to_the_parent_however_workers_are_started(start_method: str) -> None:
    done = subprocess.run(
        [sys.executable, PROGRAM, start_method],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        start_new_session=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    assert (done.stdout, done.stderr, done.returncode) == ("True True\n", "", 0)


SPAWNED = """
import json, sys
import torch

if __name__ == "__main__":
    torch.multiprocessing.set_start_method("spawn")
    from yolo_stable import StableDetectionTrainer

    class WithWorkers(StableDetectionTrainer):
        def get_dataloader(self, *args, **options):
            self.args.workers = 1  # Ultralytics takes none on the CPU
            return super().get_dataloader(*args, **options)

    WithWorkers(overrides=json.loads(sys.argv[1])).train()
"""


@pytest.mark.skipif(os.name != "posix", reason="process groups of POSIX")
def test_ctrl_c_with_spawned_workers_saves_and_leaves(tmp_path: Path, arguments: Arguments) -> None:
    """The terminal sends it to all processes of the group; spawned ones inherit no handler."""
    settings = arguments(epochs=400, workers=1)
    (tmp_path / "script.py").write_text(SPAWNED)
    log = Path(settings["project"]) / "run" / "guard.jsonl"
    command = [sys.executable, str(tmp_path / "script.py"), json.dumps(settings)]
    with open(tmp_path / "out.txt", "w") as out:
        process = subprocess.Popen(command, stdout=out, stderr=out, cwd=tmp_path, start_new_session=True)
        try:
            until_an_epoch(log)
            workers = psutil.Process(process.pid).children(recursive=True)
            assert any("spawn_main" in " ".join(worker.cmdline()) for worker in workers)
            os.killpg(process.pid, signal.SIGINT)
            assert process.wait(timeout=60) == 1, "nobody catches the error of this script"
        finally:
            process.kill()
            process.wait()
    said = (tmp_path / "out.txt").read_text()
    assert "TrainingInterruptedError: SIGINT: training stopped in epoch" in said
    assert "Everything is saved" in said
    assert "DataLoader" not in said, "no worker has died"
    assert (list(read_events(log))[-1]["event"], list(read_events(log))[-1]["status"]) == ("end", "interrupted")


def until_an_epoch(log: Path) -> None:
    """Wait until a run has an epoch behind it."""
    deadline = time.monotonic() + 90
    while time.monotonic() < deadline and not (log.exists() and '"event": "epoch"' in log.read_text()):
        time.sleep(0.1)


@pytest.mark.skipif(os.name != "posix", reason="the signals of POSIX")
def test_a_run_that_was_started_to_ignore_ctrl_c_ignores_it(arguments: Arguments) -> None:
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        trainer = raising(StableDetectionTrainer, 2, "on_train_batch_start", signal.SIGINT)(overrides=arguments())
        trainer.train()
        assert trainer.fired == 1
        assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("warm_programs")
@pytest.mark.parametrize("wish", [signal.SIGTERM, signal.SIGINT])
def test_the_command_leaves_with_the_code_of_the_signal_and_goes_on_as_it_says(
    tmp_path: Path, arguments: Arguments, wish: signal.Signals
) -> None:
    settings = arguments(epochs=400)
    data = settings.pop("data")
    words = [f"{key}={value}" for key, value in settings.items()]
    command = [sys.executable, "-m", "yolo_stable", "train", data, *words]
    log = Path(settings["project"]) / "run" / "guard.jsonl"
    with open(tmp_path / "out.txt", "w") as out:
        process = subprocess.Popen(
            command, stdout=out, stderr=out, cwd=tmp_path, env={**os.environ, "OMP_NUM_THREADS": "1"}
        )
        try:
            until_an_epoch(log)
            process.send_signal(wish)
            assert process.wait(timeout=60) == 128 + wish
        finally:
            process.kill()
            process.wait()
    said = " ".join((tmp_path / "out.txt").read_text().split())
    assert "finishing the step and saving; once more stops at once" in said
    assert "Traceback" not in said
    go_on = said[said.rindex("yolo-stable train ") :].split()[2:5]
    assert [word.split("=")[0] for word in go_on[1:]] == ["model", "resume"]
    if wish is signal.SIGTERM:
        return  # the words are the same
    trained = [e["epoch"] for e in read_events(log) if e["event"] == "epoch"]
    again = [sys.executable, "-m", "yolo_stable", "train", *go_on, f"epochs={max(trained) + 2}", "device=cpu"]
    done = subprocess.run(again, cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    starts = [e["epochs_before"] for e in read_events(log) if e["event"] == "start"]
    assert starts[0] == 0
    assert starts[1] in {max(trained), max(trained) - 1}


GO_ON = "yolo-stable train DATA model=LAST resume=True"
LEFT = "SIGTERM: training stopped in epoch 3/9 after 12 optimizer steps."


class Bare:
    """The controller of a trainer that is a stub."""

    def __init__(self, calls: Calls, wish: signal.Signals | None = signal.SIGTERM) -> None:
        self.calls = calls
        self.trainer: Any = SimpleNamespace(
            guard=SimpleNamespace(counts=SimpleNamespace(applied=12)),
            stop=False,
            args=SimpleNamespace(save=True, device="0,1"),
            epoch=2,
            epochs=9,
            wdir=Path("run/weights"),
            run_log=SimpleNamespace(has_saved=calls.to("has_saved", True)),
            train_loader=None,
        )
        self.window: Any = SimpleNamespace(is_open=False)
        self.checkpoints: Any = SimpleNamespace(save_now=calls.to("save_now", True), finish=calls.to("finish", True))
        self.shutdown = ShutdownController(
            self.trainer,
            window=self.window,
            checkpoints=self.checkpoints,
            next_steps=SimpleNamespace(filled=lambda text: f"{text} [filled]"),  # type: ignore[arg-type]
        )
        if wish is not None:
            self.shutdown.asked = SimpleNamespace(requested=wish)  # type: ignore[assignment]

    def leave(self, event: str) -> TrainingInterruptedError:
        with pytest.raises(TrainingInterruptedError) as left:
            self.shutdown.leave_if_asked(event)
        return left.value


@pytest.fixture
def bare(calls: Calls) -> Bare:
    return Bare(calls)


class TestLeaving:
    def test_after_a_step_it_saves_and_the_epoch_begins_anew(self, bare: Bare, calls: Calls) -> None:
        left = bare.leave("on_train_batch_end")
        assert calls == [("save_now", 1)], "with the epoch before"
        assert str(left) == f"{LEFT} Everything is saved, and this epoch begins anew.\nGo on with:\n{GO_ON} [filled]"
        assert (left.signal, left.exit_code) == (signal.SIGTERM, 143)

    def test_after_an_epoch_the_loop_has_saved(self, bare: Bare, calls: Calls) -> None:
        left = bare.leave("on_fit_epoch_end")
        assert calls == [("finish",), ("has_saved", 3)]
        assert str(left) == f"{LEFT} Everything is saved.\nGo on with:\n{GO_ON} [filled]"

    @pytest.mark.parametrize("event", ["on_train_batch_end", "on_fit_epoch_end"])
    def test_where_it_could_not_be_saved_no_way_to_go_on_is_told(self, bare: Bare, calls: Calls, event: str) -> None:
        bare.checkpoints.save_now = bare.trainer.run_log.has_saved = calls.to("save", False)
        assert str(bare.leave(event)) == f"{LEFT} Nothing could be saved."

    def test_without_saving_it_says_why(self, bare: Bare, calls: Calls) -> None:
        bare.trainer.args.save = False
        assert str(bare.leave("on_train_batch_end")) == f"{LEFT} Nothing could be saved (save=False)."
        assert calls == []

    def test_an_open_window_is_finished_first(self, bare: Bare, calls: Calls) -> None:
        bare.window.is_open = True
        bare.shutdown.leave_if_asked("on_train_batch_end")
        assert calls == []
        bare.leave("on_fit_epoch_end")

    @pytest.mark.parametrize("event", ["on_train_start", "on_train_batch_start", "on_train_epoch_end", "on_val_start"])
    def test_in_between_it_goes_on(self, bare: Bare, calls: Calls, event: str) -> None:
        bare.shutdown.leave_if_asked(event)
        assert calls == []

    @pytest.mark.parametrize("event", ["on_train_batch_end", "on_fit_epoch_end"])
    @pytest.mark.parametrize("why", ["nobody asked", "nobody listens", "no guard yet", "at its end"])
    def test_and_without_a_reason_to_leave(self, calls: Calls, why: str, event: str) -> None:
        bare = Bare(calls, None if why == "nobody listens" else signal.SIGTERM)
        if why == "nobody asked":
            bare.shutdown.asked.requested = None  # type: ignore[union-attr]
        elif why == "no guard yet":
            bare.trainer.guard = None
        elif why == "at its end":
            bare.trainer.stop = True
        bare.shutdown.leave_if_asked(event)
        assert calls == []


class TestListening:
    def test_the_first_signal_is_remembered_and_said(self, calls: Calls, said: list[str]) -> None:
        shutdown = Bare(calls, None).shutdown
        with shutdown.listen() as asked:
            assert shutdown.asked is asked
            signal.raise_signal(signal.SIGTERM)
            assert asked.requested is signal.SIGTERM
        assert said == ["", "SIGTERM: finishing the step and saving; once more stops at once."]

    @pytest.mark.parametrize(("rank", "heard"), [(0, True), (1, False)])
    def test_other_ranks_compute_along_until_the_first_one_has_saved(
        self, calls: Calls, said: list[str], rank: int, heard: bool, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(interrupting, "RANK", rank)
        with Bare(calls, None).shutdown.listen() as asked:
            signal.raise_signal(signal.SIGTERM)
            assert (asked.requested is not None, bool(said)) == (heard, heard)


class TestTheProcessThatStartsWorkers:
    FAILED = subprocess.CalledProcessError(3, "workers")

    @pytest.fixture
    def sent(self, monkeypatch: pytest.MonkeyPatch) -> list[signal.Signals]:
        """Return what a child process of this one is sent; another one has ended meanwhile."""
        sent: list[signal.Signals] = []
        gone = SimpleNamespace(send_signal=Calls().to("send", psutil.NoSuchProcess(1)))
        children = [gone, SimpleNamespace(send_signal=sent.append)]
        monkeypatch.setattr(interrupting.psutil, "Process", lambda: SimpleNamespace(children=lambda: children))
        return sent

    @pytest.mark.parametrize(("wish", "passed"), [(signal.SIGTERM, [signal.SIGTERM]), (signal.SIGINT, [])])
    def test_it_names_the_signal_and_where_they_have_saved(
        self, bare: Bare, wish: signal.Signals, passed: list[signal.Signals], sent: list[signal.Signals]
    ) -> None:
        def launch() -> None:
            signal.raise_signal(wish)
            raise self.FAILED

        with pytest.raises(TrainingInterruptedError) as left, bare.shutdown.pass_on_signals():
            launch()
        assert sent == passed, "the terminal sends Ctrl-C to all of them itself"
        assert str(left.value) == (
            f"{wish.name}: the workers of the multi-GPU run have ended. What they have saved is in run/weights.\n"
            f"Go on with:\n{GO_ON} device=0,1 [filled]"
        )
        assert left.value.signal is wish
        assert left.value.__cause__ is self.FAILED

    def test_without_a_signal_a_failure_is_one(self, bare: Bare) -> None:
        with pytest.raises(subprocess.CalledProcessError) as failed, bare.shutdown.pass_on_signals():
            raise self.FAILED
        assert failed.value is self.FAILED


class TestWorkersOfTheLoaders:
    @staticmethod
    def loader(workers: int = 1) -> Any:
        return DataLoader(range(4), num_workers=workers)  # type: ignore[arg-type]

    def test_ctrl_c_is_left_to_this_process_before_they_start(self, bare: Bare) -> None:
        bare.trainer.train_loader, bare.trainer.test_loader = self.loader(), self.loader()
        bare.shutdown.keep_workers("on_train_start")
        assert bare.trainer.train_loader.worker_init_fn is None
        for _ in range(2):
            bare.shutdown.keep_workers("on_train_epoch_start")
        for loader in (bare.trainer.train_loader, bare.trainer.test_loader):
            assert isinstance(loader.worker_init_fn, LeftToParent)
            assert "_get_iterator" in vars(loader)

    def test_what_the_loader_did_in_a_worker_it_does_still(
        self, bare: Bare, calls: Calls, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        bare.trainer.train_loader = loader = self.loader()
        seen: list[int] = []
        loader.worker_init_fn = seen.append
        bare.shutdown.keep_workers("on_train_epoch_start")
        first = loader.worker_init_fn
        bare.shutdown.keep_workers("on_train_epoch_start")
        assert loader.worker_init_fn is first, "each is wrapped once"
        monkeypatch.setattr(signal, "signal", calls.to("signal"))
        loader.worker_init_fn(3)
        assert calls == [("signal", signal.SIGINT, signal.SIG_IGN)]
        assert seen == [3]

    def test_a_loader_without_workers_or_of_another_kind_is_left_alone(self, bare: Bare) -> None:
        bare.trainer.train_loader, bare.trainer.test_loader = self.loader(0), [1, 2]
        bare.shutdown.keep_workers("on_train_epoch_start")
        assert bare.trainer.train_loader.worker_init_fn is None
