"""A signal ends a real run after its step, with everything saved; the message says how to go on, and that works."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch

from yolo_stable import StableDetectionTrainer
from yolo_stable.errors import TrainingInterruptedError
from yolo_stable.runlog.reader import read_events
from yolo_stable.trainer import shutdown as interrupting

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
        ("batch", "event", "epoch", "steps"),
        [
            (2, "on_train_batch_start", -1, 2),
            (6, "on_train_batch_start", 0, 6),
            (4, "on_train_epoch_end", 0, 4),
        ],
        ids=["first epoch", "second epoch", "before the validation"],
    )
    @pytest.mark.parametrize("wish", [signal.SIGTERM, signal.SIGINT])
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

    def test_an_open_window_is_finished_first(self, arguments: Arguments) -> None:
        settings = arguments(epochs=3, nbs=8, warmup_epochs=0.0)
        trainer = raising(StableDetectionTrainer, 5, "on_train_batch_start")(overrides=settings)
        with pytest.raises(TrainingInterruptedError):
            trainer.train()
        assert trainer.fired == 1
        assert trainer.seen > 5, "the window had room for more batches"
        assert not trainer.services.window.is_open

    def test_a_run_at_its_end_is_finished(self, arguments: Arguments) -> None:
        trainer = raising(StableDetectionTrainer, 8, "on_fit_epoch_end")(overrides=arguments(epochs=2))
        trainer.train()
        assert trainer.fired == 1

    def test_without_saving_it_says_so(self, arguments: Arguments) -> None:
        trainer = raising(StableDetectionTrainer, 2, "on_train_batch_start")(overrides=arguments(epochs=2, save=False))
        with pytest.raises(TrainingInterruptedError, match=r"Nothing could be saved \(save=False\)"):
            trainer.train()
        assert not trainer.last.exists()

    def test_save_every_steps(self, arguments: Arguments, monkeypatch: pytest.MonkeyPatch) -> None:
        saves = []
        trainer = StableDetectionTrainer(overrides=arguments(epochs=2, guard={"save_every_steps": 3}))
        writer = trainer.services.checkpoints
        save_soon = writer.save_soon

        def watched(epoch_completed: int) -> bool:
            assert trainer.guard is not None
            saves.append((epoch_completed, trainer.guard.counts.applied))
            return save_soon(epoch_completed)

        monkeypatch.setattr(writer, "save_soon", watched)
        trainer.train()
        assert saves == [(-1, 3), (0, 6)]


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

    def test_ctrl_c_is_not_sent_twice(self, monkeypatch: pytest.MonkeyPatch) -> None:
        asked: list[str] = []
        monkeypatch.setattr(interrupting.psutil, "Process", lambda: asked.append("children"))
        interrupting._pass_on(signal.SIGINT)
        assert asked == []

    def test_a_worker_that_fails_by_itself_is_no_interruption(self, arguments: Arguments) -> None:
        trainer = StableDetectionTrainer(overrides=arguments())
        with pytest.raises(subprocess.CalledProcessError), trainer.services.shutdown.pass_on_signals():
            raise subprocess.CalledProcessError(1, "workers")


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
