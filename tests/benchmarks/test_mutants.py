"""Mutants are changes that mean something, and what the tests of a copy make of them is told as it is."""

from __future__ import annotations

import ast
import random
from pathlib import Path

import pytest

from benchmarks.mutant_changes import Mutant, mutants
from benchmarks.mutant_runs import Place
from benchmarks.mutants import EQUIVALENT, ROOMS, ROOT, equivalents, files_for, modules_of

SOURCE = '''\
def rest(amount: int | None, step: int) -> int:
    """Take steps off."""
    assert amount is not None
    while amount >= step:
        amount -= step
    return amount


def unseen(amount: int) -> int:
    return amount + 1
'''
TESTS = """\
from small.part import rest


def test_what_is_left() -> None:
    assert (rest(7, 3), rest(6, 3)) == (1, 0)
"""


@pytest.fixture
def project(tmp_path: Path) -> Path:
    files = {"small/__init__.py": "", "small/part.py": SOURCE, "tests/test_part.py": TESTS, "pyproject.toml": ""}
    for name, content in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(content)
    return tmp_path


def drawn(project: Path, count: int = 100, seed: int = 0) -> list[Mutant]:
    return list(mutants(project, ["small/part.py"], count, random.Random(seed)))


def test_each_mutant_is_another_program_that_differs_in_one_place(project: Path) -> None:
    found = [mutant for seed in range(20) for mutant in drawn(project, seed=seed)]
    changes = {(mutant.before, mutant.after) for mutant in found}
    assert {
        ("while amount >= step:", "while amount > step:"),
        ("while amount >= step:", "while amount < step:"),
        ("amount -= step", "pass"),
        ("return amount + 1", "return amount - 1"),
        ("return amount + 1", "return amount + 2"),
        ("assert amount is not None", "assert amount is None"),
    } <= changes
    assert not any("int & None" in after for _, after in changes), "an annotation is a string to Python"
    for mutant in found:
        ast.parse(mutant.source)
        assert SOURCE.replace(mutant.before, mutant.after) == mutant.source
        assert mutant.before in SOURCE.splitlines()[mutant.line - 1]


def test_equal_seeds_draw_equal_mutants(project: Path) -> None:
    assert drawn(project, 4) == drawn(project, 4)
    assert len({tuple(mutant.diff for mutant in drawn(project, 4, seed)) for seed in range(5)}) > 1


@pytest.mark.parametrize(
    ("before", "after", "outcome"),
    [
        ("amount >= step", "amount > step", "killed"),
        ("amount + 1", "amount - 1", "survived"),
        ("amount -= step", "pass", "timeout"),
        ("def rest", "def left", "killed"),
    ],
)
def test_what_becomes_of_a_mutant_is_told_and_the_original_stays(
    project: Path, before: str, after: str, outcome: str
) -> None:
    place = Place(project, ("small", "tests", "pyproject.toml"))
    try:
        place.begin(["tests/test_part.py"], 1.0, "small/part.py", SOURCE.replace(before, after), "-x", hang=2.0)
        while (verdict := place.poll()) is None:
            pass
        assert verdict.outcome == outcome
        assert (verdict.tests == 1) is (outcome == "survived" or ("rest" not in before and outcome == "killed"))
        assert place.run(["tests/test_part.py"], 9.0).outcome == "survived", "the copy is whole again"
        assert (project / "small/part.py").read_text() == SOURCE
    finally:
        place.remove()
    assert not place.folder.exists()


def test_every_room_has_modules_and_every_module_a_test() -> None:
    for room in ROOMS:
        modules = modules_of(room)
        assert modules
        assert all((ROOT / module).is_file() for module in modules)
    assert files_for("yolo_stable/guard/level.py", {}) == ["yolo_stable/guard/level.py", "tests/guard/test_level.py"]
    assert files_for(
        "yolo_stable/checkpoints/save.py",
        {"yolo_stable.checkpoints.save": {"tests/checkpoints/test_save.py", "tests/checkpoints/test_float16.py"}},
    ) == [
        "tests/checkpoints/test_save.py",
        "tests/checkpoints/test_float16.py",
    ]


def test_equivalent_mutants_are_of_lines_that_are_there() -> None:
    assert EQUIVALENT.is_file()
    for (module, before, after), reason in equivalents().items():
        lines = [line.strip() for line in (ROOT / module).read_text(encoding="utf-8").splitlines()]
        assert before in " ".join(lines), f"{module} has no {before} any more"
        assert after not in lines
        assert reason
