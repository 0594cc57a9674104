"""Mutants are changes that mean something, and what the tests of a copy make of them is told as it is."""

from __future__ import annotations

import ast
import json
import random
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from benchmarks.mutant_changes import Mutant, again, mutants
from benchmarks.mutant_runs import Place, Verdict
from benchmarks.mutant_tests import ROOT, Chosen, files_for, is_in_function, lines_of
from benchmarks.mutants import EQUIVALENT, ROOMS, drawn_before, equivalents, judged, modules_of, row

PART = "small/part.py"
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
from __future__ import annotations

import pytest

from small.part import rest, unseen


@pytest.fixture(scope="module")
def one() -> int:
    return rest(7, 3)


def test_what_is_left() -> None:
    assert rest(6, 3) == 0


def test_what_is_left_of_seven(one: int) -> None:
    assert one == 1


def test_seven_again(one: int) -> None:
    assert one == 1


def test_more() -> None:
    assert unseen(1) > 0


def test_fails_without_a_mutant() -> None:
    assert not unseen(1)
"""


@pytest.fixture
def project(tmp_path: Path) -> Path:
    files = {"small/__init__.py": "", PART: SOURCE, "tests/test_part.py": TESTS, "pyproject.toml": ""}
    for name, content in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(content)
    return tmp_path


def drawn(project: Path, count: int = 100, seed: int = 0) -> list[Mutant]:
    return list(mutants(project, [PART], count, random.Random(seed)))


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


def test_a_mutant_that_was_drawn_is_made_again(project: Path) -> None:
    for mutant in drawn(project):
        assert again(project, mutant.module, mutant.line, mutant.operator, mutant.occurrence) == mutant


@pytest.fixture
def place(project: Path) -> Iterator[Place]:
    made = Place(project, ("small", "tests", "pyproject.toml"))
    yield made
    made.remove()
    assert not made.folder.exists()


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
    project: Path, place: Place, before: str, after: str, outcome: str
) -> None:
    test = "tests/test_part.py::test_what_is_left"
    place.begin([test], 1.0, PART, SOURCE.replace(before, after), "-x", hang=1.0)
    while (verdict := place.poll()) is None:
        pass
    assert verdict.outcome == outcome
    assert verdict.by == ("" if outcome == "survived" else test if "amount" in before else "tests/test_part.py")
    assert (verdict.tests == 1) is (outcome == "survived" or ("rest" not in before and outcome == "killed"))
    assert place.run([test], 9.0).outcome == "survived", "the copy is whole again"
    assert (project / PART).read_text() == SOURCE


def mutant_of(line: int) -> Mutant:
    return Mutant(module=PART, line=line, operator="any", occurrence=0, source="", before="", after="")


def test_the_tests_of_a_mutant_are_those_that_execute_its_line(project: Path, place: Place, tmp_path: Path) -> None:
    kept = tmp_path / "trace.json"
    chosen = Chosen([PART], 60.0, project)
    chosen.measure(place, 60.0, kept)
    name = "tests/test_part.py::test_"
    assert chosen.failed == [f"{name}fails_without_a_mutant"]
    resting = {f"{name}what_is_left", f"{name}what_is_left_of_seven", f"{name}seven_again"}
    assert set(chosen.tests(mutant_of(5))) == resting, "a fixture's lines are those of all its tests"
    assert chosen.tests(mutant_of(10)) == [f"{name}more"]
    assert set(chosen.tests(mutant_of(9))) == {*resting, f"{name}more"}, "all tests execute what a module does"
    slowest = max(chosen.seconds, key=lambda test: chosen.seconds[test])
    later = Chosen([PART], 0.0, project)
    later.measure(place, 0.0, kept)
    assert later.seconds == chosen.seconds, "it is read, not run"
    assert later.tests(mutant_of(9)) == chosen.tests(mutant_of(9))[:1] != [slowest], "the quickest fits any budget"
    (project / "tests/test_part.py").write_text(TESTS + "\n# changed\n")
    later.measure(place, 0.0, kept)
    assert not later.seconds, "and not believed of another file"


@pytest.mark.parametrize(("line", "whole"), [(1, (1, 2)), (3, (3, 4)), (4, (3, 4)), (6, (5, 6)), (7, (7, 7))])
def test_a_line_is_executed_with_its_statement(line: int, whole: tuple[int, int]) -> None:
    source = "@cache\ndef f():\n    a = (1 +\n      2)\n    if (a and\n        b):\n        return 3\n"
    assert lines_of(source, line) == range(whole[0], whole[1] + 1)
    assert is_in_function(source, line) is (line > 2)


def test_only_what_survived_is_tested_again() -> None:
    module = "yolo_stable/guard/baseline.py"
    found = list(mutants(ROOT, [module], 3, random.Random(0)))
    outcomes = ["killed", "survived", "out of time"]
    before = [judged("guard", one, Verdict(outcome)) for one, outcome in zip(found, outcomes, strict=True)]
    assert json.loads(json.dumps(asdict(before[0]))) == asdict(before[0])
    assert drawn_before(before) == [("guard", found[1]), ("guard", found[2])]
    figures = row("guard", before)
    assert (figures["mutants"], figures["killed"], figures["survivors"]) == (3, 1, [found[1].diff, found[2].diff])
    with pytest.raises(SystemExit, match="has changed since"):
        drawn_before([replace(before[1], before="something else")])


def test_every_room_has_modules_and_every_module_a_test() -> None:
    for room in ROOMS:
        modules = modules_of(room)
        assert modules
        assert all((ROOT / module).is_file() for module in modules)
    assert files_for("yolo_stable/guard/baseline.py", {}) == [
        "yolo_stable/guard/baseline.py",
        "tests/guard/test_baseline.py",
    ]
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
