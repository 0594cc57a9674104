"""Trace: which lines of some modules each test executes, and what the test takes when it is run alone.

A test that does not execute a line cannot notice a change of it. What a fixture executes that several tests share counts for each
of them. What happens in another process is not seen: such a test is not chosen for these lines, which can only lower the share of
mutants that are killed.
"""

from __future__ import annotations

import random
import sys
import threading
import time
from collections.abc import Generator, Sequence
from pathlib import Path
from typing import Any

import pytest

IMPORTED = ""
"""In the place of a test: what is executed while the modules are imported."""


class Trace:
    """A plugin of pytest that notes lines.

    Args:
        folder: Of the project.
        modules: Paths below it.
    """

    def __init__(self, folder: Path, modules: Sequence[str]) -> None:
        self._modules = {str(folder / module): module for module in modules}
        self._now: set[tuple[str, int]] = set()
        self._lines = {IMPORTED: self._now}
        self._seconds = {IMPORTED: 0.0}
        self._shared: dict[Any, set[tuple[str, int]]] = {}
        self._shared_seconds: dict[Any, float] = {}
        self._spent = 0.0
        self._begun = ""

    def begin(self) -> None:
        """Note from now on."""
        threading.settrace(self._call)
        sys.settrace(self._call)

    def end(self) -> None:
        """Note no more."""
        sys.settrace(None)
        threading.settrace(None)  # type: ignore[arg-type]

    def found(self) -> dict[str, dict[str, Any]]:
        """Return the tests with their seconds and their lines of each module."""
        tests = {}
        for test, lines in self._lines.items():
            of: dict[str, list[int]] = {}
            for path, line in sorted(lines):
                of.setdefault(self._modules[path], []).append(line)
            tests[test] = {"seconds": self._seconds[test], "lines": of}
        return tests

    def _call(self, frame: Any, event: str, argument: Any) -> Any:
        return self._line if frame.f_code.co_filename in self._modules else None

    def _line(self, frame: Any, event: str, argument: Any) -> Any:
        if event == "line":
            self._now.add((frame.f_code.co_filename, frame.f_lineno))
        return self._line

    @pytest.hookimpl(wrapper=True)
    def pytest_collection_modifyitems(self, items: list[Any]) -> Generator[None, Any, Any]:
        """Leave what trains for the end: it shares what the whole suite shares. Within a file the order is one of chance.

        The time may not reach for all tests.
        """
        result = yield
        files = {name: n for n, name in enumerate(dict.fromkeys(_file_of(item) for item in items))}
        random.Random(0).shuffle(items)
        items.sort(key=lambda item: (_trains(item), files[_file_of(item)]))
        return result

    def pytest_runtest_logstart(self, nodeid: str) -> None:
        """Remember that a test is run, and not left out."""
        self._begun = nodeid

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_protocol(self, item: Any, nextitem: Any) -> Generator[None, Any, Any]:
        """Note for this test."""
        before, self._now = self._now, set()
        began, shared = time.monotonic(), self._spent
        self.begin()  # a test before may have ended it
        result = yield
        if self._begun != item.nodeid:
            self._now = before
            return result
        mine = time.monotonic() - began - (self._spent - shared)
        fixtures = {one for one in _fixtures_of(item) if one in self._shared}
        self._lines[item.nodeid] = self._now.union(*(self._shared[one] for one in fixtures))
        self._seconds[item.nodeid] = mine + sum(self._shared_seconds[one] for one in fixtures)
        self._now = before
        return result

    @pytest.hookimpl(wrapper=True)
    def pytest_fixture_setup(self, fixturedef: Any, request: Any) -> Generator[None, Any, Any]:
        """Note for all tests that share a fixture."""
        if fixturedef.scope == "function":
            return (yield)
        before, self._now = self._now, self._shared.setdefault(fixturedef, set())
        began, inner = time.monotonic(), self._spent
        try:
            return (yield)
        finally:
            before |= self._now
            self._now = before
            mine = time.monotonic() - began - (self._spent - inner)
            self._spent += mine
            self._shared_seconds[fixturedef] = max(mine, self._shared_seconds.get(fixturedef, 0.0))


def _file_of(item: Any) -> str:
    return item.nodeid.partition("::")[0]


def _trains(item: Any) -> bool:
    return any(one.scope == "session" and one.baseid for one in _fixtures_of(item))


def _fixtures_of(item: Any) -> list[Any]:
    """Return the fixtures that a test is known to use; those of a plugin have no ``baseid``."""
    named = item._fixtureinfo.name2fixturedefs
    return [one for name in item.fixturenames for one in named.get(name, ())]
