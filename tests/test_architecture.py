"""ARCHITECTURE.md says what is true of the tree: paths, tests, rooms, who acts, parts and seams of the trainer, imports."""

from __future__ import annotations

import ast
import functools
import importlib.util
import re
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "yolo_stable"
PAGE = (ROOT / "ARCHITECTURE.md").read_text(encoding="utf-8")
PROJECT = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
BESIDE_THE_ROOMS = {"__init__.py", "__main__.py", "errors.py", "augment.py", "builtin_data.py", "py.typed"}
"""What lies directly below the package: the door, the errors, and what the documentation imports from there."""


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


def mixin() -> ast.ClassDef:
    return class_of(PACKAGE / "trainer" / "mixin.py", "GuardedTrainerMixin")


def methods(of: ast.ClassDef) -> set[str]:
    return {node.name for node in of.body if isinstance(node, ast.FunctionDef)}


def stock_trainer() -> ast.ClassDef:
    package = importlib.util.find_spec("ultralytics")
    assert package is not None
    assert package.origin is not None
    return class_of(Path(package.origin).parent / "engine" / "trainer.py", "BaseTrainer")


def services() -> dict[str, str]:
    """Return the services of a trainer: name to class, from the table that they are built by."""
    fields = class_of(PACKAGE / "trainer" / "services.py", "Services").body
    return {
        ast.unparse(node.target): ast.unparse(node.annotation) for node in fields if isinstance(node, ast.AnnAssign)
    }


def around_the_trainer() -> list[Path]:
    """Return the files of the services, and of what they hand the trainer to."""
    return sorted(path for room in ("trainer", "checkpoints") for path in (PACKAGE / room).glob("*.py"))


def stores(of: ast.AST, *names: str) -> set[str]:
    """Return the attributes that are assigned anywhere in a tree to what has one of these names."""
    return {
        node.attr
        for node in ast.walk(of)
        if isinstance(node, ast.Attribute)
        and isinstance(node.ctx, (ast.Store, ast.Del))
        and ast.unparse(node.value).removeprefix("self.") in names
    }


def test_the_services_are_those_of_the_table() -> None:
    table = {cells[0].strip("`"): (cells[1].strip("`"), cells[2].strip("`")) for cells in rows(section("The trainer"))}
    assert {name: kind for name, (kind, _) in table.items()} == services()
    for kind, path in table.values():
        assert class_of(found(path) or PACKAGE, kind), path


def test_the_mixin_is_short_and_has_no_base_with_state() -> None:
    text = (PACKAGE / "trainer" / "mixin.py").read_text(encoding="utf-8")
    assert len(text.splitlines()) < 250
    assert [ast.unparse(base) for base in mixin().bases] == ["_Base"], "Ultralytics' own, for the type checker"


def test_only_the_mixin_writes_attributes_of_the_trainer() -> None:
    """The services are given a view; what is assigned to a trainer by any of them would have two writers."""
    trainers = "trainer", "_trainer", "view", "_view", "services.view"
    writers = {
        str(path.relative_to(PACKAGE)): found
        for path in around_the_trainer()
        if (found := stores(parsed(path), *trainers) - ({"_trainer"} if path.name == "trainer_view.py" else set()))
    }
    assert writers == {}
    assert {"loss", "loss_items", "tloss", "best_fitness", "amp", "plan", "guard"} <= stores(mixin(), "self")


def test_no_service_writes_what_another_one_owns() -> None:
    """An attribute of a service is assigned by its own class alone, and by nobody through another name."""
    owned: dict[str, set[str]] = {}
    for path in around_the_trainer():
        for node in parsed(path).body:
            if isinstance(node, ast.ClassDef) and node.name in services().values():
                owned[node.name] = stores(node, "self")
    assert set(owned) == set(services().values()) - {"Injections"}, "that one belongs to another room"
    names = [*services(), *(f"_{name}" for name in services())]
    foreign = {str(path): found for path in around_the_trainer() if (found := stores(parsed(path), *names))}
    assert foreign == {}


def test_a_seam_is_overridden_in_one_place() -> None:
    stock = methods(stock_trainer())
    places: dict[str, list[str]] = {}
    for path in around_the_trainer():
        for node in parsed(path).body:
            bases = [ast.unparse(base) for base in node.bases] if isinstance(node, ast.ClassDef) else []
            if isinstance(node, ast.ClassDef) and any("Trainer" in base or base == "_Base" for base in bases):
                for name in methods(node) & stock:
                    places.setdefault(name, []).append(node.name)
    assert {name: where for name, where in places.items() if where != ["GuardedTrainerMixin"]} == {}
    assert len(places) > 15


def test_the_methods_that_are_overridden_are_named() -> None:
    seams = " ".join(section("The trainer").split()).split("Seams:")[1].split("The training loop")[0]
    assert set(re.findall(r"`(\w+)`", seams)) == methods(stock_trainer()) & methods(mixin())


# ---- imports and libraries -------------------------------------------------------------------------------------------------


def test_the_order_of_imports_is_that_of_the_contract() -> None:
    layers = re.findall(r'"([^"]+)"', PROJECT.split("layers = [")[1].split("]")[0])
    assert re.findall(r"^    (\S.*)$", section("Imports"), flags=re.MULTILINE) == layers


def test_every_library_is_a_dependency() -> None:
    libraries = re.findall(r"\*\*([\w-]+)\*\*", section("Libraries"))
    assert len(libraries) >= 10
    assert [name for name in libraries if not re.search(rf'"{name}\b', PROJECT)] == []
