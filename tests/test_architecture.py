"""ARCHITECTURE.md says what is true of the tree: paths, tests, rooms, who acts, parts and seams of the trainer, imports."""

from __future__ import annotations

import ast
import functools
import importlib.util
import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "yolo_stable"
PAGE = (ROOT / "ARCHITECTURE.md").read_text(encoding="utf-8")
PROJECT = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
BESIDE_THE_ROOMS = {"__init__.py", "__main__.py", "errors.py", "augment.py", "builtin_data.py", "py.typed"}
"""What lies directly below the package: the door, the errors, and what the README imports from there."""


def section(title: str) -> str:
    return PAGE.split(f"\n## {title}\n")[1].split("\n## ")[0]


def rows(text: str) -> list[list[str]]:
    """Return the cells of all tables, without their heads."""
    lines = [[cell.strip() for cell in line.strip("|").split(" | ")] for line in text.splitlines() if line[:1] == "|"]
    return [cells for cells, after in zip(lines, [*lines[1:], [""]], strict=True) if "---" not in cells[0] + after[0]]


def paths() -> list[str]:
    """Return all that the page names as a path: files, and folders with a slash at their end."""
    return re.findall(r"`([\w./-]+(?:/|\.(?:py|toml|yaml|md)))`", PAGE)


def found(path: str) -> Path | None:
    """Return where a path is: from the root, within the package, or a file of the guard or of the trainers by its name."""
    places = (ROOT, PACKAGE, PACKAGE / "guard", PACKAGE / "trainer")
    return next((place / path for place in places if (place / path).exists()), None)


@functools.cache
def parsed(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def defined_in(path: Path) -> set[str]:
    """Return the names of all classes, functions, and names and attributes that are assigned in a file."""
    names = set()
    for node in ast.walk(parsed(path)):
        if isinstance(node, (ast.ClassDef, ast.FunctionDef)):
            names.add(node.name)
        elif isinstance(node, (ast.Name, ast.Attribute)) and isinstance(node.ctx, ast.Store):
            names.add(node.id if isinstance(node, ast.Name) else node.attr)
    return names


# ---- the page --------------------------------------------------------------------------------------------------------------


def test_the_page_is_short() -> None:
    assert len(PAGE.encode()) <= 12_000
    assert max(map(len, PAGE.splitlines())) <= 130


def test_every_path_exists() -> None:
    assert len(paths()) > 60
    assert [path for path in paths() if found(path) is None] == []


def test_every_test_exists_in_the_file_that_is_named_before_it() -> None:
    named = re.findall(r"`(tests/[\w/]+\.py)`|`((?:test_|Test)\w+)`", PAGE)
    file, seen = "", 0
    for path, test in named:
        file = path or file
        if test:
            assert test in defined_in(ROOT / file), f"{file} has no {test}"
            seen += 1
    assert seen >= 10


def test_what_is_to_be_changed_is_where_the_page_says() -> None:
    for path, names in re.findall(r"`([\w./-]+\.py)` \((`\w+`(?:, `\w+`)*)\)", section("Rooms")):
        file = found(path)
        assert file is not None, path
        assert set(re.findall(r"\w+", names)) <= defined_in(file), path


# ---- rooms -----------------------------------------------------------------------------------------------------------------


def rooms() -> set[str]:
    return {path.name for path in PACKAGE.iterdir() if path.is_dir() and path.name != "__pycache__"}


def test_every_room_is_listed_and_nothing_else_lies_below_the_package() -> None:
    listed = [cells[0].strip("`/") for cells in rows(section("Rooms")) if len(cells) == 2]
    assert sorted(listed) == sorted(rooms())
    assert {path.name for path in PACKAGE.iterdir() if path.is_file()} == BESIDE_THE_ROOMS


def test_tests_mirror_the_rooms() -> None:
    folders = {path.name for path in (ROOT / "tests").iterdir() if path.is_dir() and path.name != "__pycache__"}
    assert folders - rooms() == {"benchmarks", "old_runs"}
    assert rooms() - folders == set()


def test_no_file_is_longer_than_450_lines() -> None:
    long = {
        str(path.relative_to(PACKAGE)): lines
        for path in PACKAGE.rglob("*.py")
        if (lines := len(path.read_text(encoding="utf-8").splitlines())) > 450
    }
    assert long == {}


# ---- who decides, and who acts ---------------------------------------------------------------------------------------------


def in_guard(does: Callable[[ast.AST], bool]) -> set[str]:
    """Return the files of the guard in which any part of the code does something."""
    return {path.name for path in (PACKAGE / "guard").glob("*.py") if any(map(does, ast.walk(parsed(path))))}


def calls(receiver: str, method: str) -> Callable[[ast.AST], bool]:
    """Return what tells whether a node calls a method of something whose name ends so."""

    def does(node: ast.AST) -> bool:
        if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)):
            return False
        return node.func.attr.startswith(method) and ast.unparse(node.func.value).endswith(receiver)

    return does


def assigns_a_learning_rate(node: ast.AST) -> bool:
    targets = node.targets if isinstance(node, ast.Assign) else [node.target] if isinstance(node, ast.AugAssign) else []
    return any(isinstance(t, ast.Subscript) and ast.unparse(t.slice) == "'lr'" for t in targets)


def test_the_rules_import_no_torch() -> None:
    for name in ("decision.py", "escalation.py", "baseline.py", "divergence.py", "recent.py"):
        imported = {
            alias.name.partition(".")[0] if isinstance(node, ast.Import) else (node.module or "").partition(".")[0]
            for node in ast.walk(parsed(PACKAGE / "guard" / name))
            if isinstance(node, (ast.Import, ast.ImportFrom))
            for alias in node.names
        }
        assert "torch" not in imported, name


@pytest.mark.parametrize(
    ("does", "files"),
    [
        pytest.param(calls("optimizer", "step"), {"step.py", "fused_kernel.py"}, id="takes the optimizer's step"),
        pytest.param(calls("torch", "_fused_"), {"sgd.py"}, id="calls a fused kernel"),
        pytest.param(calls("scaler", "update"), {"loss_scale.py"}, id="updates a scaler"),
        pytest.param(assigns_a_learning_rate, {"lr_backoff.py"}, id="assigns a learning rate"),
    ],
)
def test_few_act(does: Callable[[ast.AST], bool], files: set[str]) -> None:
    assert in_guard(does) == files
    assert all(f"`{name}`" in section("The way of one batch") for name in files)


# ---- the trainer -----------------------------------------------------------------------------------------------------------


def class_of(path: Path, name: str) -> ast.ClassDef:
    return next(node for node in parsed(path).body if isinstance(node, ast.ClassDef) and node.name == name)


def parts_of_the_trainer() -> Iterator[ast.ClassDef]:
    """Yield the mixin and all that is made for it, also what a part is made of."""
    mixin = class_of(PACKAGE / "trainer" / "mixin.py", "GuardedTrainerMixin")
    yield mixin
    for folder in ("trainer", "checkpoints"):
        for path in sorted((PACKAGE / folder).glob("*.py")):
            for node in parsed(path).body:
                if isinstance(node, ast.ClassDef) and node.name.startswith("Guarded") and node.name != mixin.name:
                    yield node


def test_the_parts_of_the_trainer_are_those_of_the_table_in_their_order() -> None:
    table = [(cells[0].strip("`"), cells[1].strip("`")) for cells in rows(section("The trainer"))]
    bases = [ast.unparse(base) for base in class_of(PACKAGE / "trainer" / "mixin.py", "GuardedTrainerMixin").bases]
    assert [name for name, _ in table] == [base for base in bases if base != "_Base"]
    for name, path in table:
        assert class_of(PACKAGE / path, name)


def test_the_methods_that_are_overridden_are_named() -> None:
    package = importlib.util.find_spec("ultralytics")
    assert package is not None
    assert package.origin is not None
    trainer = class_of(Path(package.origin).parent / "engine" / "trainer.py", "BaseTrainer")
    stock = {node.name for node in trainer.body if isinstance(node, ast.FunctionDef)}
    ours = {node.name for part in parts_of_the_trainer() for node in part.body if isinstance(node, ast.FunctionDef)}
    seams = " ".join(section("The trainer").split()).split("Seams:")[1].split("The training loop")[0]
    assert set(re.findall(r"`(\w+)`", seams)) == stock & ours


# ---- imports and libraries -------------------------------------------------------------------------------------------------


def test_the_order_of_imports_is_that_of_the_contract() -> None:
    layers = re.findall(r'"([^"]+)"', PROJECT.split("layers = [")[1].split("]")[0])
    assert re.findall(r"^    (\S.*)$", section("Imports"), flags=re.MULTILINE) == layers


def test_every_library_is_a_dependency() -> None:
    libraries = re.findall(r"\*\*([\w-]+)\*\*", section("Libraries"))
    assert len(libraries) >= 10
    assert [name for name in libraries if not re.search(rf'"{name}\b', PROJECT)] == []
