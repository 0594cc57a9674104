"""Mutant runs: the tests of a mutant in a copy of the project, in a process that was forked when all libraries were there.

The copy has the mutated file in the place of the original one, so that processes that a test starts have it too. The working tree
is only read.
"""

from __future__ import annotations

import atexit
import contextlib
import gc
import importlib
import json
import os
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from benchmarks.mutant_trace import Trace

COPIED = (
    "yolo_stable",
    "tests",
    "benchmarks",
    "hyp",
    "datasets",
    "notebooks",
    "docs",
    "mkdocs.yml",
    "pyproject.toml",
    "README.md",
    "ARCHITECTURE.md",
    "CONTRIBUTING.md",
    "SECURITY.md",
    "CHANGELOG.md",
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
        "xdist.plugin",
        "jinja2",
        "rich.console",
        "typer",
        "yaml",
        "psutil",
        "sklearn.datasets",
    ),
)
"""What a child has without the time that it takes to import."""
PLUGINS = ("--disable-plugin-autoload", "-p", "xdist.plugin", "-p", "_hypothesis_pytestplugin")
"""The others take half a second to be imported, and no test needs them."""
QUIET = ("-W", "ignore:Module already imported:pytest.PytestAssertRewriteWarning")
"""What is loaded before pytest would change its assertions: the plugins of other libraries, which have none of ours."""
HANG = 20.0
"""Seconds that a test may take which is known to take none; ten times its own are allowed too, on a busy machine."""


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
    """A plugin of pytest that runs the chosen tests in their order, ends the run when its time is up, and keeps what failed.

    A test that never comes to its end is ended by an alarm that nothing handles, and the process with it.

    Args:
        folder: Of the copy; its ``now.txt`` says which test is being run.
        budget: Seconds after which no other test is begun.
        tests: Files, of which all tests are run, and single tests by their node ids.
        limits: Seconds that a test may take, by its node id; empty: any time.
        hang: Seconds that any other may take.
        share: Seconds of the processor that the tests of one file may take before the others are left out; 0: any.
    """

    def __init__(
        self,
        folder: Path,
        budget: float,
        tests: Sequence[str],
        limits: Mapping[str, float],
        hang: float,
        share: float,
    ) -> None:
        self.folder = folder
        self.end = time.monotonic() + budget
        self.share = share
        self.spent: defaultdict[str, float] = defaultdict(float)
        self._file, self._began = "", time.process_time()
        self.order = {name: n for n, name in enumerate(tests)}
        self.limits, self.hang = limits, hang
        self.now = os.open(folder / "now.txt", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        self.tests = 0
        self.stopped = False
        self.code: int | None = None
        self.failed: list[str] = []

    def place_of(self, item: Any) -> int | None:
        """Return when a test is run; None: it was not chosen."""
        return self.order.get(item.nodeid, self.order.get(item.nodeid.partition("::")[0]))

    def alarm(self, seconds: float) -> None:
        """Let the process end in some time; 0: never."""
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.setitimer(signal.ITIMER_REAL, seconds)

    def pytest_runtest_logreport(self, report: Any) -> None:
        self.tests += report.when == "call"
        if report.failed:
            self.failed.append(report.nodeid)

    def pytest_collectreport(self, report: Any) -> None:
        if report.failed:
            self.failed.append(report.nodeid)

    @pytest.hookimpl(trylast=True)
    def pytest_sessionfinish(self, exitstatus: int) -> None:
        """End the process when nothing is traced: what pytest still has to do takes longer than most tests."""
        self.alarm(0.0)
        self.code = int(exitstatus)
        if self.hang:
            self.write()
            os._exit(self.code)

    def write(self) -> None:
        """Keep what was seen for the parent process."""
        seen = {"failed": self.failed, "tests": self.tests, "stopped": self.stopped, "code": self.code}
        (self.folder / "verdict.json").write_text(json.dumps(seen))

    @pytest.hookimpl(trylast=True)
    def pytest_collection_modifyitems(self, items: list[Any]) -> None:
        """Keep what was chosen in its order, which the project's own hook changes."""
        chosen = [(place, n, item) for n, item in enumerate(items) if (place := self.place_of(item)) is not None]
        items[:] = [item for *_, item in sorted(chosen, key=lambda one: one[:2])]

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_protocol(self, item: Any, nextitem: Any) -> bool | None:
        """Return True for a test that is not run."""
        if time.monotonic() > self.end:
            self.stopped = True
            item.session.shouldstop = "time is up"
            return True
        self.spent[self._file] += time.process_time() - self._began
        self._file, self._began = item.nodeid.partition("::")[0], time.process_time()
        if self.share and self.spent[self._file] > self.share:
            item.session._setupstate.teardown_exact(nextitem)  # as after a test
            return True
        os.ftruncate(self.now, 0)
        os.pwrite(self.now, item.nodeid.encode(), 0)
        if self.hang:
            self.alarm(max(self.hang, 10 * self.limits.get(item.nodeid, 0.0)))
        return None


def warm_up() -> None:
    """Import what all children need; nothing of the project."""
    os.environ["YOLO_CONFIG_DIR"] = settings = tempfile.mkdtemp(prefix="mutants-settings-")
    atexit.register(shutil.rmtree, settings, ignore_errors=True)
    os.environ.update(YOLO_OFFLINE="true", YOLO_AUTOINSTALL="false", MPLBACKEND="Agg", OMP_NUM_THREADS="1")
    for name in LIBRARIES:
        importlib.import_module(name)
    sys.modules["torch"].set_num_threads(1)
    gc.freeze()  # each child would look through all of it when it collects what it has made
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
        self,
        tests: Sequence[str],
        budget: float,
        module: str = "",
        source: str = "",
        *options: str,
        seconds: Mapping[str, float] | None = None,
        hang: float = HANG,
        share: float = 0.0,
        traced: Sequence[str] = (),
    ) -> None:
        """Begin to run tests.

        Args:
            tests: Files below the root of the project, and single tests by their node ids, in the order in which they are run.
            budget: Seconds after which no other test is begun.
            module: The file that is changed; empty: none.
            source: What it holds.
            *options: Of pytest.
            seconds: How long tests are known to take.
            hang: Seconds that a single test may take of which no more is known; 0: any time.
            share: Seconds of the processor that the tests of one file may take before the others are left out; 0: any.
            traced: The modules whose lines are noted: which tests execute them.
        """
        if module:
            path = self.folder / module
            self._original = path, path.read_text(encoding="utf-8")
            path.write_text(source, encoding="utf-8")
            for compiled in path.parent.glob(f"__pycache__/{path.stem}.*.pyc"):
                compiled.unlink()
        (self.folder / "verdict.json").unlink(missing_ok=True)
        self._begun, self._limit = time.monotonic(), budget + (3 * hang or 10 * HANG)
        sys.stdout.flush()
        self._pid = os.fork()
        if self._pid == 0:
            report = _Report(self.folder, budget, tests, seconds or {}, hang, share)
            trace = Trace(self.folder, traced) if traced else None
            _child(self.folder, report, trace, options, written=not module)

    def poll(self) -> Verdict | None:
        """Return what came of it; None while it is under way."""
        done, status = os.waitpid(self._pid, os.WNOHANG)
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
        now = (self.folder / "now.txt").read_text()
        if late or (os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGALRM):
            return Verdict("timeout", by=now, seconds=seconds)
        seen = self.seen()
        if seen is None:  # it ended the process
            return Verdict("killed", by=f"the process ended in {now or 'the collection'}", seconds=seconds)
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

    def run(self, tests: Sequence[str], budget: float, *options: str, **more: Any) -> Verdict:
        """Run tests of the project as it is to their end; see :meth:`begin`."""
        self.begin(tests, budget, "", "", *options, **more)
        while (verdict := self.poll()) is None:
            time.sleep(0.05)
        return verdict

    def remove(self) -> None:
        """Remove the copy."""
        shutil.rmtree(self.folder, ignore_errors=True)


def _child(folder: Path, report: _Report, trace: Trace | None, options: Sequence[str], *, written: bool) -> None:
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
        files = list(dict.fromkeys(test.partition("::")[0] for test in report.order))
        plugins: list[Any] = [report]
        if trace is not None:
            plugins.append(trace)
            trace.begin()
        if report.hang:
            report.alarm(3 * report.hang)  # for the collection
        try:
            code = int(
                pytest.main(["-q", "-p", "no:cacheprovider", *PLUGINS, *QUIET, *options, *files], plugins=plugins)
            )
        except BaseException:  # noqa: BLE001 - what is left open when the time is up may be told after the last test
            traceback.print_exc()
        if trace is not None:
            trace.end()
            (folder / "trace.json").write_text(json.dumps(trace.found()))
        report.code = code = code if report.code is None else report.code
        report.write()
    finally:
        os._exit(code)  # nothing may return into the parent's loop
