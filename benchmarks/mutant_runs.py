"""Mutant runs: the tests of a mutant in a copy of the project, in a process that was forked when all libraries were there.

The copy has the mutated file in the place of the original one, so that processes that a test starts have it too. The working tree
is only read.
"""

from __future__ import annotations

import atexit
import contextlib
import importlib
import json
import os
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

COPIED = (
    "yolo_stable",
    "tests",
    "benchmarks",
    "hyp",
    "datasets",
    "notebooks",
    "pyproject.toml",
    "README.md",
    "Makefile",
)
LIBRARIES = (
    *(
        "torch",
        "torch._dynamo",
        "torch.distributed",
        "torchvision",
        "cv2",
        "albumentations",
        "safetensors.torch",
        "scipy",
    ),
    *("ultralytics", "ultralytics.engine.trainer", "ultralytics.models.yolo.detect", "ultralytics.models.rtdetr.train"),
    *(
        "hypothesis",
        "_hypothesis_pytestplugin",
        "jinja2",
        "rich.console",
        "typer",
        "yaml",
        "psutil",
        "sklearn.datasets",
    ),
)
"""What a child has without the time that it takes to import."""
QUIET = ("-W", "ignore:Module already imported:pytest.PytestAssertRewriteWarning")
"""What is loaded before pytest would change its assertions: the plugins of other libraries, which have none of ours."""
HANG = 45.0
"""Seconds that no single test takes, on a busy machine too."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """What the tests made of a mutant."""

    outcome: str
    """``killed``, ``timeout`` (a test never came to its end), ``survived``; ``out of time``: not all tests were run, and none of
    those that were failed; ``no tests``: there are none."""
    by: str = ""
    """The first test that failed."""
    tests: int = 0
    seconds: float = 0.0


class _Report:
    """A plugin of pytest that ends the run when its time is up, and keeps what failed and how long each file took."""

    def __init__(self, budget: float, tests: Sequence[str]) -> None:
        self.end = time.monotonic() + budget
        self.order = {name: n for n, name in enumerate(tests)}
        self.tests = 0
        self.stopped = False
        self.code: int | None = None
        self.failed: list[str] = []
        self.took: dict[str, float] = {}

    def pytest_runtest_logreport(self, report: Any) -> None:
        file = report.nodeid.partition("::")[0]
        self.took[file] = self.took.get(file, 0.0) + report.duration
        self.tests += report.when == "call"
        if report.failed:
            self.failed.append(report.nodeid)

    def pytest_collectreport(self, report: Any) -> None:
        if report.failed:
            self.failed.append(report.nodeid)

    def pytest_sessionfinish(self, exitstatus: int) -> None:
        self.code = int(exitstatus)

    @pytest.hookimpl(trylast=True)
    def pytest_collection_modifyitems(self, items: list[Any]) -> None:
        """Keep the order of the files, which the project's own hook changes."""
        items.sort(key=lambda item: self.order.get(item.nodeid.partition("::")[0], 0))

    def pytest_runtest_protocol(self, item: Any, nextitem: Any) -> None:
        if time.monotonic() > self.end:
            self.stopped = True
            item.session.shouldstop = "time is up"


def warm_up() -> None:
    """Import what all children need; nothing of the project."""
    os.environ["YOLO_CONFIG_DIR"] = settings = tempfile.mkdtemp(prefix="mutants-settings-")
    atexit.register(shutil.rmtree, settings, ignore_errors=True)
    os.environ.update(YOLO_OFFLINE="true", YOLO_AUTOINSTALL="false", MPLBACKEND="Agg", OMP_NUM_THREADS="1")
    for name in LIBRARIES:
        importlib.import_module(name)
    sys.modules["torch"].set_num_threads(1)
    if any(name.partition(".")[0] == "yolo_stable" for name in sys.modules):
        raise RuntimeError("the project was imported before it was copied: no mutant would be seen")


@dataclass
class Place:
    """A copy of the project, in which one mutant is tested at a time.

    Args:
        root: Of the project.
        copied: Files and folders of it.
    """

    root: Path
    copied: Sequence[str] = COPIED
    folder: Path = field(init=False)
    _pid: int = 0
    _begun: float = 0.0
    _limit: float = 0.0
    _original: tuple[Path, str] | None = None

    def __post_init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="mutants-"))
        for name in self.copied:
            source, target = self.root / name, self.folder / name
            if source.is_dir():
                shutil.copytree(source, target, ignore=shutil.ignore_patterns("results"))
            else:
                shutil.copyfile(source, target)
        (self.folder / "temporary").mkdir()

    def begin(
        self, tests: Sequence[str], budget: float, module: str = "", source: str = "", *options: str, hang: float = HANG
    ) -> None:
        """Begin to run tests.

        Args:
            tests: Files below the root of the project.
            budget: Seconds after which no other test is begun.
            module: The file that is changed; empty: none.
            source: What it holds.
            *options: Of pytest.
            hang: Seconds that a single test may take.
        """
        if module:
            path = self.folder / module
            self._original = path, path.read_text(encoding="utf-8")
            path.write_text(source, encoding="utf-8")
            for compiled in path.parent.glob(f"__pycache__/{path.stem}.*.pyc"):
                compiled.unlink()
        (self.folder / "verdict.json").unlink(missing_ok=True)
        self._begun, self._limit = time.monotonic(), budget + hang
        sys.stdout.flush()
        self._pid = os.fork()
        if self._pid == 0:
            _child(self.folder, tests, budget, options, written=not module)

    def poll(self) -> Verdict | None:
        """Return what came of it; None while it is under way."""
        done, _ = os.waitpid(self._pid, os.WNOHANG)
        seconds = time.monotonic() - self._begun
        late = not done and seconds > self._limit
        if not done and not late:
            return None
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._pid, signal.SIGKILL)  # also what its tests have started
        if late:
            os.waitpid(self._pid, 0)
        if self._original is not None:
            path, text = self._original
            path.write_text(text, encoding="utf-8")
            for compiled in path.parent.glob(f"__pycache__/{path.stem}.*.pyc"):
                compiled.unlink()
            self._original = None
        shutil.rmtree(self.folder / "temporary", ignore_errors=True)
        (self.folder / "temporary").mkdir()
        if late:
            return Verdict("timeout", seconds=seconds)
        seen = self.seen()
        if seen is None:  # it ended the process, or could not even be imported by the tests
            return Verdict("killed", by="the process ended", seconds=seconds)
        failed, tests = seen["failed"], seen["tests"]
        broken = seen["code"] in {
            pytest.ExitCode.INTERNAL_ERROR,
            pytest.ExitCode.USAGE_ERROR,
        }  # no conftest.py without it
        spared = "out of time" if seen["stopped"] else "survived" if tests else "no tests"
        outcome = "killed" if failed or broken else spared
        return Verdict(outcome, by=failed[0] if failed else "", tests=tests, seconds=seconds)

    def seen(self) -> dict[str, Any] | None:
        """Return all that the last run has seen; None when it came to no end."""
        try:
            return json.loads((self.folder / "verdict.json").read_text())
        except (FileNotFoundError, ValueError):
            return None

    def run(self, tests: Sequence[str], budget: float, module: str = "", source: str = "", *options: str) -> Verdict:
        """Run tests to their end; see :meth:`begin`."""
        self.begin(tests, budget, module, source, *options)
        while (verdict := self.poll()) is None:
            time.sleep(0.05)
        return verdict

    def remove(self) -> None:
        """Remove the copy."""
        shutil.rmtree(self.folder, ignore_errors=True)


def _child(folder: Path, tests: Sequence[str], budget: float, options: Sequence[str], *, written: bool) -> None:
    """Run pytest and end the process. Compiled files are only written where nothing is changed, for the others to read."""
    code = int(pytest.ExitCode.INTERNAL_ERROR)
    try:
        os.setpgid(0, 0)
        os.chdir(folder)
        log = os.open(folder / "log.txt", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(log, 1)
        os.dup2(log, 2)
        os.environ.update(PYTHONPATH=str(folder), TMPDIR=str(folder / "temporary"))
        tempfile.tempdir = None
        sys.path = [str(folder), *(path for path in sys.path if path not in {"", str(Path(__file__).parents[1])})]
        for name in [name for name in sys.modules if name.partition(".")[0] == "benchmarks"]:
            del sys.modules[name]
        if not written:
            sys.dont_write_bytecode = True
            os.environ["PYTHONDONTWRITEBYTECODE"] = "1"
        report = _Report(budget, tests)
        try:
            code = int(pytest.main(["-q", "-p", "no:cacheprovider", *QUIET, *options, *tests], plugins=[report]))
        except BaseException:  # noqa: BLE001 - what is left open when the time is up may be told after the last test
            traceback.print_exc()
        code = code if report.code is None else report.code
        seen = {
            "failed": report.failed,
            "tests": report.tests,
            "took": report.took,
            "stopped": report.stopped,
            "code": code,
        }
        (folder / "verdict.json").write_text(json.dumps(seen))
    finally:
        os._exit(code)  # nothing may return into the parent's loop
