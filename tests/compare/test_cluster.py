"""Runs on Ray, through a stand-in that trains its tasks in threads as Ray does in processes."""

from __future__ import annotations

import json
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor, wait
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
from comparing_rig import Fates, Starts, compare_call, stub

from yolo_stable.compare.board import Board
from yolo_stable.compare.cluster import ASKED, NOTE, Cluster
from yolo_stable.compare.comparison import run_comparison
from yolo_stable.errors import InvalidCallError, TrainingInterruptedError


class Ray(ModuleType):
    """As much of Ray as is used: at most two tasks at a time."""

    def __init__(self) -> None:
        super().__init__("ray")
        self.exceptions = SimpleNamespace(RayError=CancelledError)
        self.options: list[dict[str, Any]] = []
        self.calls: list[str] = []
        self.most = self.running = 0
        self.gpus = 0
        self.pool = ThreadPoolExecutor(2)
        self.lock = threading.Lock()

    def is_initialized(self) -> bool:
        return "init" in self.calls

    def init(self, **_: Any) -> None:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)  # it does away with handlers
        self.calls.append("init")

    def shutdown(self) -> None:
        self.calls.append("shutdown")

    def cluster_resources(self) -> dict[str, float]:
        return {"CPU": 2.0} | ({"GPU": float(self.gpus)} if self.gpus else {})

    def remote(self, function: Callable[..., Any]) -> Any:
        def work(*words: Any) -> Any:
            with self.lock:
                self.running += 1
                self.most = max(self.most, self.running)
            try:
                return function(*words)
            finally:
                with self.lock:
                    self.running -= 1

        def options(**given: Any) -> Any:
            self.options.append(given)
            return SimpleNamespace(remote=lambda *words: self.pool.submit(work, *words))

        return SimpleNamespace(options=options)

    def wait(
        self, references: list[Future[Any]], num_returns: int = 1, timeout: float = 0.0
    ) -> tuple[list[Any], list[Any]]:
        done, left = wait(
            references, timeout=timeout, return_when="FIRST_COMPLETED" if num_returns == 1 else "ALL_COMPLETED"
        )
        return list(done), list(left)

    def get(self, reference: Future[Any]) -> Any:
        return reference.result()


@pytest.fixture
def ray(monkeypatch: pytest.MonkeyPatch) -> Iterator[Ray]:
    module = Ray()
    monkeypatch.setitem(sys.modules, "ray", module)
    yield module
    module.pool.shutdown()


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    Path("data.yaml").write_text("")
    return tmp_path


CALL = ("model=yolo11n.yaml", "optimizer=SGD")


def test_runs_are_trained_side_by_side_and_it_is_said_that_times_are_not_comparable(
    here: Path, ray: Ray, fates: Fates, starts: Starts, capsys: pytest.CaptureFixture[str]
) -> None:
    call = compare_call(*CALL, lr0="0.01,0.02,0.03,0.04")
    fates(**{trial.name: {"seconds": 0.1} for trial in call.trials})
    cluster = Cluster.prepared(call, None)
    assert run_comparison(call, out=here / "out", backend=cluster, launch=stub, notes=[NOTE]) == 0
    assert sorted(starts()) == [f"{trial.name} 0" for trial in call.trials]
    assert ray.most == 2
    assert ray.calls == ["init", "shutdown"]
    assert ray.options == [{"num_cpus": 1, "num_gpus": 0, "resources": {}}]
    assert "depend on the load of the machines" in " ".join(capsys.readouterr().out.split())
    run_comparison(call, out=here / "out", backend=cluster, launch=stub)
    assert ray.calls == ["init", "shutdown"]  # with nothing left to train it is not even started


@pytest.mark.parametrize(
    ("given", "gpus", "options"),
    [
        (None, 4, {"num_cpus": 0, "num_gpus": 1, "resources": {}}),
        ("CPU=4,GPU=0.5,TPU=2", 4, {"num_cpus": 4, "num_gpus": 0.5, "resources": {"TPU": 2}}),
    ],
    ids=["a GPU each", "as given"],
)
def test_each_run_takes_a_gpu_or_what_is_given(
    here: Path, ray: Ray, fates: Fates, given: str | None, gpus: int, options: dict[str, Any]
) -> None:
    ray.gpus = gpus
    call = compare_call(*CALL, stock=True)
    run_comparison(call, out=here / "out", backend=Cluster.prepared(call, given), launch=stub)
    assert ray.options == [options]


def test_a_signal_lets_all_runs_save_and_the_same_command_goes_on(
    here: Path, ray: Ray, fates: Fates, starts: Starts, monkeypatch: pytest.MonkeyPatch
) -> None:
    call = compare_call(*CALL, lr0="0.01,0.02,0.03,0.04")
    fates(**{trial.name: {"seconds": 0.3} for trial in call.trials[1:]})
    results = call.trials[1].folder(here / "out") / "results.csv"

    def watch(board: Board, trial: Any) -> None:
        if results.is_file() and results.read_text().count("\n") == 2 and not sent:
            sent.append(1)
            signal.raise_signal(signal.SIGTERM)

    sent: list[int] = []
    monkeypatch.setattr(Board, "watch", watch)
    with pytest.raises(TrainingInterruptedError) as caught:
        run_comparison(call, out=here / "out", backend=Cluster.prepared(call, None), launch=stub)
    assert caught.value.exit_code == 143
    content = here / "out" / "comparison.json"
    before = [run["status"] for run in json.loads(content.read_text())["runs"]]
    assert before == ["done", "interrupted", "interrupted", "interrupted"]
    assert len(starts()) == 3  # the last one had not been begun
    (here / "out" / ASKED).touch()  # as one that was killed would have left it
    fates()
    assert run_comparison(call, out=here / "out", backend=Cluster.prepared(call, None), launch=stub) == 0
    assert [run["status"] for run in json.loads(content.read_text())["runs"]] == ["done"] * 4
    assert starts().count(f"{call.trials[0].name} 0") == 1  # it was over
    assert f"{call.trials[1].name} 1" in starts()


def test_a_run_that_ray_has_lost_is_a_row(here: Path, ray: Ray, fates: Fates, monkeypatch: pytest.MonkeyPatch) -> None:
    call = compare_call(*CALL, lr0="0.01,0.02")
    get = ray.get

    def lose(reference: Future[Any]) -> Any:
        outcome = get(reference)
        lost.append(outcome)
        if len(lost) == 1:
            raise CancelledError("the machine\nis gone")
        return outcome

    lost: list[Any] = []
    monkeypatch.setattr(ray, "get", lose)
    assert run_comparison(call, out=here / "out", backend=Cluster.prepared(call, None), launch=stub) == 1
    runs = json.loads((here / "out" / "comparison.json").read_text())["runs"]
    assert sorted((run["status"], run["reason"]) for run in runs) == [
        ("done", ""),
        ("failed", "CancelledError: the machine is gone"),
    ]


def test_a_call_that_is_refused_is_wrong_and_nothing_remains(here: Path, ray: Ray, fates: Fates) -> None:
    call = compare_call(*CALL, lr0="0.01,0.02")
    fates(**{trial.name: {"fate": "refused"} for trial in call.trials})
    with pytest.raises(InvalidCallError, match=r"data set gone.yaml is not there"):
        run_comparison(call, out=here / "out", backend=Cluster.prepared(call, None), launch=stub)
    assert not (here / "out").exists()
    assert ray.calls == ["init", "shutdown"]


@pytest.mark.parametrize(
    ("words", "resources", "asked", "line"),
    [
        pytest.param(CALL, "GPU=1", False, "--resources works only with --ray", id="without --ray"),
        pytest.param(
            CALL, "GPU", True, "--resources: 'GPU' is not understood. Write it as GPU=1,CPU=4", id="no number"
        ),
        pytest.param(CALL, "GPU=-1", True, "--resources: 'GPU=-1' is not understood", id="below 0"),
        pytest.param((), None, True, "needs model= as an existing file, not the default", id="no model"),
        pytest.param(
            ("model=yolo11n.pt",), None, True, "not yolo11n.pt, which all runs would download", id="to be downloaded"
        ),
    ],
)
def test_a_wrong_call_is_refused(
    here: Path, ray: Ray, words: tuple[str, ...], resources: str | None, asked: bool, line: str
) -> None:
    with pytest.raises(InvalidCallError, match=line):
        Cluster.prepared(compare_call(*words, stock=True), resources, asked=asked)


def test_without_ray_one_line_says_how_to_get_it(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(InvalidCallError, match=r"not installed: pip install 'yolo-stable\[ray\]'") as caught:
        Cluster.prepared(compare_call(*CALL, stock=True), None)
    assert "\n" not in str(caught.value)
