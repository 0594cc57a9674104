"""What is heavy is imported late, and finiteness is asked in one way: read from the source, and seen once in a fresh process.

Which room may import which is import-linter's to hold: see the contracts in ``pyproject.toml``.
"""

from __future__ import annotations

import ast
import functools
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "yolo_stable"
FRONT_DOOR = "__init__"
"""``yolo_stable`` itself: its names come from everywhere, but only when they are asked for."""

WITHOUT_TORCH = (
    "errors",
    "runlog.events",
    "presets.presets",
    "presets.ultralytics_settings",
    "presets.lr_schedule",
    "presets.commented_yaml",
    "_shared.resources",
    "data.builtin",
    "cli.main",
    "compare.comparison",
    "compare.cluster",
    "train.call",
    "_shared.signals",
    "_shared.output",
    "train.inject",
    "validate",
    "report",
)
"""Modules that a command needs before it is known to be right, and those that other tools read results with."""
HEAVY = {"torch", "ultralytics", "numpy", "cv2", "matplotlib", "sklearn", "albumentations"}


@dataclass(frozen=True)
class Import:
    """One imported name: from where, on which line, and when."""

    target: str
    """A module of this package, such as ``guard.step``; or the full name of another, such as ``torch.nn``."""
    full: str
    """What is imported, with all that is in front of it, such as ``yolo_stable.guard.step.ReferenceStep``."""
    line: int
    ours: bool
    at_once: bool
    """Carried out when the module is imported; not one in a function or for the type checker."""


@functools.cache
def modules() -> dict[str, Path]:
    """Return all modules of the package by their name in it."""
    found = {}
    for path in PACKAGE.rglob("*.py"):
        parts = path.relative_to(PACKAGE).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" and len(parts) > 1 else parts)] = path
    return found


@functools.cache
def imports_of(name: str, path: Path) -> tuple[Import, ...]:
    """Return the imports of a module, those inside functions and ``if TYPE_CHECKING`` included."""
    return tuple(_read_imports(name, path))


def _read_imports(name: str, path: Path) -> Iterator[Import]:
    package = name.split(".")[:-1] if path.name != "__init__.py" else [] if name == FRONT_DOOR else name.split(".")
    tree = parsed(path)
    late = {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda))
        or (isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test))
        for statement in (node.body if isinstance(node.body, list) else [node.body])
        for inner in ast.walk(statement)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = ["yolo_stable", *package[: len(package) + 1 - node.level]] if node.level else []
            base += [node.module] if node.module else []
            names = [".".join([*base, alias.name]) for alias in node.names]
        else:
            continue
        for full in names:
            yield _resolve(full, node.lineno, at_once=id(node) not in late)


@functools.cache
def parsed(path: Path) -> ast.Module:
    """Return the tree of a file's source."""
    return ast.parse(path.read_text(encoding="utf-8"))


def _resolve(full: str, line: int, *, at_once: bool) -> Import:
    """Find the module that ``import full`` or ``from ... import`` its last part loads."""
    root, *inside = full.split(".")
    if root != "yolo_stable":
        return Import(full, full, line, ours=False, at_once=at_once)
    while inside and ".".join(inside) not in modules():
        inside.pop()
    return Import(".".join(inside) or FRONT_DOOR, full, line, ours=True, at_once=at_once)


def in_fresh_process(code: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=60)


EVERY_MODULE = sorted(modules().items())
every_module = pytest.mark.parametrize(("name", "path"), EVERY_MODULE, ids=[name for name, _ in EVERY_MODULE])


def test_the_imports_of_a_module_are_read_in_all_their_forms(tmp_path: Path) -> None:
    file = tmp_path / "limits.py"
    file.write_text(
        "import torch.nn as nn, json\n"
        "from . import step\n"
        "from .decision import Decision\n"
        "from .. import __version__, errors\n"
        "from ..errors import nearest\n"
        "from yolo_stable.guard import StepGuard\n"
        "if TYPE_CHECKING:\n"
        "    from yolo_stable import cli\n"
        "def f():\n"
        "    import yolo_stable.presets.presets\n"
    )
    found = [(i.target, i.line, i.at_once) for i in imports_of("guard.limits", file)]
    assert sorted(found, key=lambda entry: entry[1]) == [
        ("torch.nn", 1, True),
        ("json", 1, True),
        ("guard.step", 2, True),
        ("guard.decision", 3, True),
        ("__init__", 4, True),
        ("errors", 4, True),
        ("errors", 5, True),
        ("guard", 6, True),
        ("cli", 8, False),
        ("presets.presets", 10, False),
    ]


@every_module
def test_no_module_goes_through_the_front_door(name: str, path: Path) -> None:
    for found in imports_of(name, path):
        through = found.target == FRONT_DOOR and found.full != "yolo_stable.__version__"
        assert not through, f"{path.name}:{found.line}: take {found.full} from where it is defined"
    if name == FRONT_DOOR:
        at_once = [found.target for found in imports_of(name, path) if found.at_once and found.ours]
        assert at_once == [], f"yolo_stable imports {', '.join(at_once)} before it is needed"


def test_imports_within_the_package_are_relative() -> None:
    for name, path in EVERY_MODULE:
        absolute = [
            node.lineno
            for node in ast.walk(parsed(path))
            if isinstance(node, ast.ImportFrom)
            and not node.level
            and (node.module or "").split(".")[0] == "yolo_stable"
        ]
        assert absolute == [], f"{name}: line {absolute[0]}"


@pytest.mark.parametrize("name", WITHOUT_TORCH)
def test_a_light_module_imports_nothing_heavy_when_it_is_imported(name: str) -> None:
    """Follows the imports through the package, as one light module must not bring a heavy one along."""
    queue, seen = [name], {name}
    while queue:
        for found in imports_of(module := queue.pop(), modules()[module]):
            if found.at_once and found.ours and found.target not in seen:
                seen.add(found.target)
                queue.append(found.target)
            heavy = found.at_once and not found.ours and found.target.split(".")[0] in HEAVY
            assert not heavy, f"{name} brings {found.target} along, by line {found.line} of {module}"


def test_the_light_modules_bring_nothing_heavy_into_a_process() -> None:
    names = ", ".join(f"yolo_stable.{name}" for name in WITHOUT_TORCH)
    done = in_fresh_process(f"import sys, {names}\nprint(sorted({HEAVY!r} & set(sys.modules)))")
    assert (done.stdout, done.stderr, done.returncode) == ("[]\n", "", 0)


def test_the_guard_brings_no_ultralytics_into_a_process() -> None:
    done = in_fresh_process("import sys, yolo_stable.guard\nprint({'ultralytics', 'cv2', 'torch'} & set(sys.modules))")
    assert (done.stdout, done.stderr, done.returncode) == ("{'torch'}\n", "", 0)


@pytest.mark.parametrize("room", ["guard", "autopsy"])
def test_a_room_for_any_loop_works_where_nothing_but_torch_is_installed(room: str) -> None:
    """A missing library is one whose import is refused; ``locate`` and ``StepGuard`` are used, not only imported."""
    missing = ("ultralytics", "plotly", "cv2", "albumentations", "torchvision", "rich", "typer", "jinja2", "yaml")
    use = {
        "guard": "from yolo_stable.guard import StepGuard\n"
        "guard = StepGuard(model, torch.optim.SGD(model.parameters(), lr=0.1))\n"
        "print(bool(guard.backward(model(x).sum())), bool(guard.step()))",
        "autopsy": "from yolo_stable.autopsy import locate\n"
        "found = locate(model, x, lambda y: (y * 0).log().sum())\n"
        "print(found.first.op == 'aten.log.default', not found.healthy)",
    }[room]
    done = in_fresh_process(
        "import sys\n"
        f"sys.modules.update(dict.fromkeys({missing!r}))\n"
        "import torch\n"
        "model, x = torch.nn.Linear(2, 1), torch.ones(3, 2)\n"
        f"{use}\n"
    )
    assert (done.stdout, done.stderr, done.returncode) == ("True True\n", "", 0)


def test_importing_the_package_does_nothing_that_can_be_noticed() -> None:
    done = in_fresh_process(
        "import os, sys, warnings, logging\n"
        "before = dict(os.environ), list(warnings.filters), logging.root.level, list(logging.root.handlers), sys.excepthook\n"
        "import yolo_stable\n"
        "after = dict(os.environ), list(warnings.filters), logging.root.level, list(logging.root.handlers), sys.excepthook\n"
        "assert before == after, (before, after)\n"
        f"heavy = {HEAVY!r} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    assert (done.stdout, done.stderr, done.returncode) == ("", "", 0)


@every_module
def test_finiteness_is_asked_in_one_way(name: str, path: Path) -> None:
    """``isnan`` lets an infinity pass; ``isfinite`` does not. Only a device's validation asks whether ``isnan`` works."""
    if name == "validate.operations.passing":
        return
    for node in ast.walk(parsed(path)):
        names = {getattr(node, "id", None), getattr(node, "attr", None), getattr(node, "name", None)}
        assert "isnan" not in names, f"{path.name}: {name} asks isnan; ask isfinite"
