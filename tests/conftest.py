"""What all tests share: a private Ultralytics configuration, generated data sets, and networks small enough to train."""

from __future__ import annotations

import contextlib
import functools
import gc
import multiprocessing
import os
import signal
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

# Before the first import of Ultralytics: its settings file goes to a folder of our own, and nothing asks the network.
os.environ["YOLO_CONFIG_DIR"] = tempfile.mkdtemp(prefix="yolo-stable-tests-")
os.environ.pop("YOLO_STABLE_ALERT", None)  # no alert of a test reaches anybody
os.environ.update(YOLO_OFFLINE="true", YOLO_AUTOINSTALL="false", MPLBACKEND="Agg")
# The tests run in parallel, a process for each core; what they start has one thread as well.
os.environ["OMP_NUM_THREADS"] = "1"

import pytest
import torch
import yaml
from hypothesis import HealthCheck, Phase, settings
from ultralytics.engine.trainer import BaseTrainer
from ultralytics.utils import SETTINGS
from warmed import Warmed

# GNU readline, which something imports sooner or later, tells all programs that are started from then on how wide a terminal is
# that is not there, behind the back of ``os.environ``; and COLUMNS counts in a pipe.
with contextlib.suppress(ImportError):  # Windows has none
    import readline  # noqa: F401
for _name in ("COLUMNS", "LINES"):
    os.environ.pop(_name, None)
    os.unsetenv(_name)

# The suite draws the same few examples each time; `--hypothesis-profile=thorough` draws many, and others each time. What fails is
# shown as it was drawn: to shrink it takes longer than to read it.
settings.register_profile(
    "suite",
    max_examples=10,
    derandomize=True,
    deadline=None,
    database=None,
    phases=[Phase.explicit, Phase.generate],
    suppress_health_check=[HealthCheck.too_slow],
)
settings.register_profile("thorough", settings.get_profile("suite"), max_examples=200, derandomize=False)
settings.load_profile("suite")

torch.set_num_threads(1)

# Ultralytics imports MLflow for every training if it is there, which takes seconds; a test that logs has settings of its own.
SETTINGS.update({"mlflow": False})


TESTS = Path(__file__).parent
LONGEST = (
    "trainer/test_faults",
    "test_notebooks",
    "trainer/test_ranks",
    "test_advice_works",
    "benchmarks/test_benchmarks",
    "trainer/test_shutdown",
    "benchmarks/test_autopsies",
    "checkpoints/test_resume",
    "trainer/test_trainers",
    "trainer/test_validation",
    "cli/test_main",
    "trainer/test_incidents",
    "trainer/test_chaos",
    "trainer/test_lost_files",
)
"""Modules that take half a minute or more."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the longest modules: a module stays on one core, and no other core should wait for it at the end."""
    order = {TESTS / f"{name}.py": n for n, name in enumerate(LONGEST)}
    items.sort(key=lambda item: order.get(item.path, len(order)))


def pytest_collection_finish() -> None:
    """Take what the libraries have made for permanent: each collection, of which a training has some, would look through it."""
    gc.collect()
    gc.freeze()


def pytest_runtest_logfinish() -> None:
    """Take the compiler of torch for permanent, too: the first training imports it, with 150,000 objects."""
    if "torch._inductor" in sys.modules and not settled:
        settled.append(True)
        gc.collect()
        gc.freeze()


settled: list[bool] = []


def pytest_sessionfinish() -> None:
    """Let other plugins see these objects again, who look for what refers to what."""
    gc.unfreeze()


BACKBONE: list[list[Any]] = [
    [-1, 1, "Conv", [8, 3, 2]],
    [-1, 1, "Conv", [16, 3, 2]],
    [-1, 1, "C3k2", [32, False, 0.25]],
    [-1, 1, "Conv", [32, 3, 2]],
    [-1, 1, "C3k2", [32, False, 0.25]],
    [-1, 1, "Conv", [32, 3, 2]],
    [-1, 1, "SPPF", [32, 5]],
]
NECK: list[list[Any]] = [
    [-1, 1, "nn.Upsample", [None, 2, "nearest"]],
    [[-1, 4], 1, "Concat", [1]],
    [-1, 1, "Conv", [32, 3, 1]],
    [-1, 1, "Conv", [32, 3, 2]],
    [[-1, 6], 1, "Concat", [1]],
    [-1, 1, "Conv", [32, 3, 1]],
]
THIRD: list[Any] = [-1, 1, "Conv", [32, 3, 2]]
"""Of three levels: visual prompts need them."""
HEADS: dict[str, list[Any]] = {
    "detect": [[9, 12], 1, "Detect", ["nc"]],
    "segment": [[9, 12], 1, "Segment", ["nc", 8, 16]],
    "pose": [[9, 12], 1, "Pose", ["nc", [4, 3]]],
    "obb": [[9, 12], 1, "OBB", ["nc", 1]],
    "classify": [-1, 1, "Classify", ["nc"]],
    # classes, width, queries, sampling points, heads, layers, width of the feed-forward part
    "rtdetr": [[9, 12], 1, "RTDETRDecoder", ["nc", 32, 20, 2, 2, 1, 64]],
    "end2end": [[9, 12], 1, "Detect", ["nc"]],
    "semantic": [[9, 12], 1, "SemanticSegment", ["nc"]],
    "depth": [[9, 12], 1, "Depth", [16]],
    # classes, width of the texts' features, BatchNorm in the head
    "world": [[9, 12], 1, "WorldDetect", ["nc", 512, True]],
    "yoloe": [[9, 12, 13], 1, "YOLOEDetect", ["nc", 512, True]],
    "yoloe-seg": [[9, 12, 13], 1, "YOLOESegment", ["nc", 8, 16, 512, True]],
}


@pytest.fixture
def interruptible() -> Iterator[None]:
    """Let Ctrl-C interrupt, also where the suite was started to ignore it, as a background job is: its children inherit that."""
    before = signal.getsignal(signal.SIGINT)
    if before is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    if before is signal.SIG_IGN:
        signal.signal(signal.SIGINT, before)


@pytest.fixture(scope="session")
def warm_python() -> Iterator[str]:
    """Return what is as ``sys.executable`` for programs to which it is no matter when torch was imported; see ``warmed.py``."""
    if not hasattr(os, "fork"):
        yield sys.executable
        return
    with Warmed() as warmed:
        yield str(warmed.executable)


@pytest.fixture
def warm_programs(warm_python: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let programs that are started with ``sys.executable`` start in milliseconds."""
    monkeypatch.setattr(sys, "executable", warm_python)


@pytest.fixture(scope="session")
def warm_workers() -> Any:
    """Return what stands for ``multiprocessing`` where a worker is spawned: it is forked from a process with all imports."""
    forking = multiprocessing.get_context("forkserver")
    forking.set_forkserver_preload(["ultralytics.models", "yolo_stable.incidents.replay"])
    return SimpleNamespace(get_context=lambda method: forking)


@pytest.fixture(scope="session")
def narrow(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], str]:
    """Return the path of a network YAML for a task: YOLO11's layers at an eighth of the smallest width, strides 8 and 16.

    In the neck a convolution stands for each block: a training of seconds spends its time on the number of modules.
    ``end2end`` is a detector with YOLO26's pair of heads and its loss schedule.
    """
    folder = tmp_path_factory.mktemp("models")

    def model(task: str) -> str:
        path = folder / f"narrow-{task}.yaml"
        if not path.exists():
            neck = [] if task == "classify" else [*NECK, THIRD] if task.startswith("yoloe") else NECK
            spec = {"nc": 4, "scales": {"n": [1.0, 1.0, 1024]}, "backbone": BACKBONE, "head": [*neck, HEADS[task]]}
            if task == "end2end":
                spec.update(end2end=True, reg_max=1)
            if task == "pose":
                spec["kpt_shape"] = [4, 3]
            path.write_text(yaml.safe_dump(spec))
        return str(path)

    return model


@pytest.fixture(scope="session")
def shapes(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., str]:
    """Return the path of the data set ``shapes`` for a task: 16 training and 8 validation images of 64 px."""
    from yolo_stable.data.builtin import make

    cache = tmp_path_factory.mktemp("data")

    def data(task: str = "detect", **options: int) -> str:
        task = {
            "rtdetr": "detect",
            "end2end": "detect",
            "world": "detect",
            "yoloe": "detect",
            "yoloe-seg": "segment",
        }.get(task, task)
        return str(make("shapes", task=task, cache=cache, **{"train": 16, "val": 8, "imgsz": 64, **options}))

    return data


@pytest.fixture(scope="module")
def boxes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder of images of one colour each, with boxes; see ``traced_data.py``."""
    from data_kinds import COUNT
    from traced_data import make_images

    return make_images(tmp_path_factory.mktemp("boxes") / "set", COUNT)


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return folders of images, one for each class."""
    from data_kinds import folders_in

    return folders_in(tmp_path_factory.mktemp("classes"))


@pytest.fixture
def kinds(boxes: Path, folders: Path, shapes: Callable[..., str], tmp_path: Path) -> dict[str, Callable[[], Any]]:
    """Return makers of data sets of every kind, by name; see ``data_kinds.py``."""
    from data_kinds import kinds_of

    return kinds_of(boxes, folders, shapes, tmp_path)


@pytest.fixture(scope="session")
def arguments_in(narrow: Callable[[str], str], shapes: Callable[..., str]) -> Callable[..., dict[str, Any]]:
    """Return trainer overrides for a run of seconds in a folder: 2 epochs of 4 batches, a step after every batch."""

    def overrides(folder: Path, task: str = "detect", **changes: Any) -> dict[str, Any]:
        small: dict[str, Any] = {
            "model": narrow(task),
            "data": shapes(task),
            "epochs": 2,
            "imgsz": 64,
            "batch": 4,
            "nbs": 4,
            "warmup_epochs": 0.5,
            "optimizer": "SGD",
            "lr0": 0.01,
            "amp": False,
            "device": "cpu",
            "plots": False,
            "verbose": False,
            "project": str(folder / "runs"),
            "name": "run",
            "exist_ok": True,
        }
        return {**small, **changes}

    return overrides


@pytest.fixture
def arguments(tmp_path: Path, arguments_in: Callable[..., dict[str, Any]]) -> Callable[..., dict[str, Any]]:
    """Return trainer overrides for a run of seconds in a folder of the test's own."""
    return functools.partial(arguments_in, tmp_path)


@pytest.fixture
def without_final_evaluation(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave out what stock does behind the last epoch, a third of the time of a small run; for tests of what comes before it."""
    monkeypatch.setattr(BaseTrainer, "final_eval", lambda self: None)


@pytest.fixture
def without_epilogue(without_final_evaluation: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave out the report, too."""
    monkeypatch.setattr("yolo_stable.trainer.finish.write_report", lambda folders: folders[0] / "report.html")
