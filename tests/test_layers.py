"""Imports run one way, and what is heavy is imported late: read from the source, and seen once in a fresh process."""

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

LAYERS = (
    ("__main__",),
    ("cli",),
    ("verbs",),
    ("verbs.preflight",),
    ("preflight.command",),
    ("comparing.stock_run", "preflight.standing", "verbs.train"),
    ("train_run", "verbs.check"),
    ("dataset", "preflight", "trainers"),
    ("dataset.command", "mixin", "preflight.inspection"),
    ("dataset.check", "looking_into", "preflight.evaluation", "preflight.gradients"),
    (
        "dataset.repair",
        "dataset.same_labels",
        "lost_files",
        "preflight.network",
        "preflight.precision",
        "preflight.rate",
        "preflight.surroundings",
        "verbs.autopsy",
    ),
    (
        "autopsy_worker",
        "checkpoint",
        "dataset.near",
        "dataset.selection",
        "ending",
        "interrupting",
        "next_steps",
        "preflight.memory",
        "preflight.pace",
        "preflight.step",
        "recovering",
        "telling",
        "train_validation",
        "verbs.compare",
        "verbs.validate",
    ),
    (
        "autopsy_run",
        "comparing.cluster",
        "dataset.box_format",
        "dataset.duplicates",
        "dataset.exposure",
        "dataset.fullness",
        "dataset.sizes",
        "device.operations.determinism",
        "device.worker",
        "incident_picture",
        "preflight.flight",
        "preflight.trained",
        "results",
        "resuming",
        "run_log",
        "startup",
        "validate_run",
        "validation_batch",
    ),
    (
        "autopsy",
        "comparing.comparison",
        "dataset.scan",
        "device.execute",
        "device.operations.short",
        "device.operations.step",
        "incident_record",
        "log_lines",
        "loop_state",
        "plan",
        "preflight.subject",
        "step_telemetry",
        "telemetry",
        "validate_show",
    ),
    (
        "autopsy.examine",
        "comparing.state",
        "comparing.table",
        "dataset.bands",
        "device",
        "device.golden",
        "device.page",
        "guard",
        "verbs.report",
    ),
    (
        "autopsy.examination",
        "comparing.call",
        "comparing.ranking",
        "dataset.array_file",
        "device.network",
        "device.operations.elementwise",
        "device.operations.exact",
        "device.operations.linear",
        "device.operations.norm",
        "device.operations.optimizer",
        "device.validate",
        "device.verdict",
        "guard.guard",
        "report",
        "validated",
    ),
    (
        "autopsy.locate",
        "comparing.axes",
        "comparing.measure",
        "dataset.fingerprints",
        "device.healing",
        "device.operations.assign",
        "device.operations.attention",
        "device.operations.chance",
        "device.operations.cover_chance",
        "device.operations.cover_copies",
        "device.operations.cover_maps",
        "device.operations.cover_places",
        "device.operations.cover_pointwise",
        "device.operations.cover_sums",
        "device.operations.cover_whole",
        "device.operations.forms",
        "device.operations.large",
        "device.operations.lists",
        "device.operations.passing",
        "device.operations.places",
        "device.operations.products",
        "device.operations.ranges",
        "device.operations.special",
        "device.stress",
        "guard.recovery",
        "inject",
        "report.page",
    ),
    (
        "autopsy.tracer",
        "chaos",
        "dataset.page",
        "dataset.pixels",
        "dataset.place",
        "dataset.sample",
        "device.battery",
        "device.compare",
        "device.operations.env",
        "device.operations.transfer",
        "device.pool",
        "device.recipe",
        "guard.evidence",
        "guard.rehearsal",
        "rebuilding",
        "report.figures",
        "train_checks",
    ),
    (
        "autopsy.arguments",
        "autopsy.culprits",
        "autopsy.facts",
        "autopsy.history",
        "autopsy.steadiness",
        "chaos.catalogue",
        "chaos.files",
        "dataset.folders",
        "dataset.keypoints",
        "dataset.label_copy",
        "dataset.objects",
        "dataset.picture",
        "dataset.polygons",
        "device.checks.determinism",
        "device.difference",
        "device.evidence",
        "device.result_file",
        "guard.anchor",
        "guard.choice",
        "guard.fused",
        "guard.inquiry",
        "guard.limits",
        "guard.milestone",
        "guard.repair",
        "network_yaml",
        "preflight.sample",
        "report.charts",
        "report.settings_table",
        "report.verdict",
        "saving",
        "tracing",
        "train_call",
        "verbs.presets",
        "witnesses",
    ),
    (
        "autopsy.batch_case",
        "autopsy.bundle",
        "autopsy.inspection",
        "autopsy.other_weights",
        "autopsy.replay",
        "autopsy.taint",
        "chaos.device",
        "chaos.fault",
        "chaos.layers",
        "checkpoint_file",
        "dataset.balance",
        "dataset.boxes",
        "dataset.description",
        "dataset.files",
        "dataset.header",
        "dataset.limits",
        "dataset.overlaps",
        "device.checks.assign",
        "device.checks.attention",
        "device.checks.cover",
        "device.checks.elementwise",
        "device.checks.env",
        "device.checks.exact",
        "device.checks.forms",
        "device.checks.large",
        "device.checks.linear",
        "device.checks.lists",
        "device.checks.norm",
        "device.checks.optimizer",
        "device.checks.passing",
        "device.checks.places",
        "device.checks.products",
        "device.checks.ranges",
        "device.checks.short",
        "device.checks.special",
        "device.checks.step",
        "device.checks.transfer",
        "device.inject",
        "device.result",
        "guard.musgd",
        "guard.recent",
        "guard.snapshot",
        "guard.step",
        "guard.witness",
        "preflight.naming",
        "presets",
        "replaying",
        "report.run",
        "traced_transforms",
        "watch",
    ),
    (
        "autopsy.case",
        "autopsy.ends",
        "autopsy.finding",
        "autopsy.layout",
        "autopsy.loss_memory",
        "autopsy.modules",
        "autopsy.report",
        "caution",
        "chaos.breaking",
        "chaos.loop",
        "comparing.board",
        "comparing.fingerprint",
        "comparing.run_trial",
        "dataset.label_file",
        "dataset.layout",
        "dataset.opening",
        "device.check",
        "device.checks.gates",
        "device.repeats",
        "device.simulated",
        "failed_loss",
        "guard.audit",
        "guard.buffers",
        "guard.decision",
        "guard.gradients",
        "guard.health",
        "guard.ladder",
        "guard.memory_record",
        "guard.state",
        "guard.untouched",
        "plain_attributes",
        "preflight.hyperparameters",
        "preflight.look",
        "preflight.show",
        "preflight.widths",
        "quarantine",
        "report.history",
        "results_csv",
        "settings",
        "state_file",
        "substitution",
        "traced_labels",
    ),
    (
        "augment",
        "autopsy.advice",
        "autopsy.frames",
        "autopsy.operation",
        "autopsy.tensor_file",
        "autopsy.twin",
        "average",
        "builtin_data",
        "chaos.armed",
        "chaos.modules",
        "commented_yaml",
        "comparing.child",
        "comparing.outcome",
        "dataset.report",
        "dataset.rules",
        "device.faults",
        "device.gate",
        "device.machine",
        "device.metrics",
        "device.mistakes",
        "device.sketch",
        "guard.config",
        "guard.divergence",
        "guard.graph",
        "guard.items",
        "guard.loss_scale",
        "guard.memory",
        "guard.reductions",
        "guard.setbacks",
        "guard.shares",
        "own_layers",
        "pages",
        "preflight.stage",
        "preview",
        "provenance",
        "reading",
        "regular_file",
        "report.incident",
        "report.lines",
        "report.results_rows",
        "run_folder",
        "schedule",
        "schedules",
        "whole_file",
    ),
    (
        "autopsy.cause",
        "autopsy.exact_json",
        "autopsy.flags",
        "autopsy.image_levels",
        "autopsy.kinds",
        "autopsy.ranges",
        "autopsy.suspects",
        "autopsy.symptom",
        "background",
        "cadence",
        "canvas",
        "chaos.backend",
        "collapse",
        "comparing",
        "comparing.trial",
        "data_order",
        "dataset.finding",
        "dataset.likeness",
        "dataset.yaml_text",
        "device.backend",
        "device.changes",
        "device.checks",
        "device.covering",
        "device.deviation",
        "device.driver",
        "device.hashed",
        "device.operations",
        "device.operations.arranging",
        "device.packing",
        "device.precision",
        "errors",
        "events",
        "found",
        "guard.damage",
        "guard.fused_groups",
        "guard.generators",
        "guard.holders",
        "guard.level",
        "guard.ranks",
        "guard.sgd",
        "guard.walk",
        "guard.wrappers",
        "half",
        "held_memory",
        "incidents",
        "injections",
        "labels",
        "machine_memory",
        "output",
        "pages.frame",
        "path_states",
        "pixels",
        "preflight.quiet",
        "regions",
        "report.curve",
        "report.levels",
        "report.numbers",
        "report.pictures",
        "report.timeline",
        "resources",
        "scaler_gate",
        "signals",
        "step_clock",
        "step_record",
        "stopping",
        "terminal",
        "typed",
        "unreadable",
        "verbs.options",
    ),
)
"""The modules from the top to the bottom; each imports from layers below its own only."""
FRONT_DOOR = "__init__"
"""``yolo_stable`` itself: its names come from everywhere, but only when they are asked for."""

MAY_IMPORT_ULTRALYTICS = {
    "comparing.stock_run",
    "preflight.quiet",
    "preflight.standing",
    "preflight.surroundings",
    "dataset.description",
    "dataset.sample",
    "failed_loss",
    "found",
    "looking_into",
    "lost_files",
    "reading",
    "substitution",
    "unreadable",
    "mixin",
    "rebuilding",
    "own_layers",
    "checkpoint",
    "ending",
    "interrupting",
    "next_steps",
    "recovering",
    "results",
    "resuming",
    "stopping",
    "telling",
    "trainers",
    "train_run",
    "train_checks",
    "tracing",
    "traced_transforms",
    "device.golden",
    "device.network",
    "device.operations.assign",
    "device.operations.elementwise",
    "device.operations.optimizer",
}
WITHOUT_TORCH = (
    "errors",
    "events",
    "presets",
    "settings",
    "schedule",
    "commented_yaml",
    "resources",
    "builtin_data",
    "cli",
    "comparing.comparison",
    "comparing.cluster",
    "verbs",
    "train_call",
    "signals",
    "output",
    "inject",
    "device",
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


DEPTH = {name: depth for depth, layer in enumerate(LAYERS) for name in layer}
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
        ("presets", 10, False),
    ]


def test_every_module_has_its_place_in_the_layers() -> None:
    files, placed = set(modules()) - {FRONT_DOOR}, [name for layer in LAYERS for name in layer]
    new, gone = sorted(files - set(placed)), sorted(set(placed) - files)
    assert not new, f"place in LAYERS of {Path(__file__).name}, above all that they import: {', '.join(new)}"
    assert not gone, f"take out of LAYERS of {Path(__file__).name}, as they are no more: {', '.join(gone)}"
    assert len(placed) == len(set(placed)), "a module stands in two layers"


@every_module
def test_imports_run_down_the_layers(name: str, path: Path) -> None:
    if name == FRONT_DOOR:
        return
    upward = [
        f"{path.name}:{found.line} imports {found.target}"
        for found in imports_of(name, path)
        if found.ours and found.target != FRONT_DOOR and DEPTH.get(found.target, -1) <= DEPTH.get(name, -1)
    ]
    assert not upward, f"{'; '.join(upward)}: which is not below {name} in LAYERS"


@every_module
def test_no_module_goes_through_the_front_door(name: str, path: Path) -> None:
    for found in imports_of(name, path):
        through = found.target == FRONT_DOOR and found.full != "yolo_stable.__version__"
        assert not through, f"{path.name}:{found.line}: take {found.full} from where it is defined"
    if name == FRONT_DOOR:
        at_once = [found.target for found in imports_of(name, path) if found.at_once and found.ours]
        assert at_once == [], f"yolo_stable imports {', '.join(at_once)} before it is needed"


@every_module
def test_only_the_trainers_and_the_training_verb_know_ultralytics(name: str, path: Path) -> None:
    known = [found for found in imports_of(name, path) if found.target.split(".")[0] == "ultralytics"]
    assert not known or name in MAY_IMPORT_ULTRALYTICS, f"{path.name}:{known[0].line} imports {known[0].target}"


@every_module
def test_no_module_knows_the_faults(name: str, path: Path) -> None:
    """They are put into trainers from outside: by ``--inject``, which only the command line knows."""
    targets = {found.target.split(".")[0] for found in imports_of(name, path)}
    assert "chaos" not in targets or name.split(".")[0] in {"chaos", "inject"}
    assert "inject" not in targets or name in {"verbs.train", "train_run"}


@pytest.mark.parametrize("name", [name for name, _ in EVERY_MODULE if name.split(".")[0] == "guard"])
def test_the_guard_needs_torch_and_nothing_heavier(name: str) -> None:
    allowed = sys.stdlib_module_names | {
        "torch",
        "numpy",
    }  # NumPy has a random number generator that training draws from
    for found in imports_of(name, modules()[name]):
        here = found.target == "errors" or found.target.split(".")[0] == "guard"
        assert here if found.ours else found.target.split(".")[0] in allowed, f"line {found.line}: {found.target}"


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
    if name == "device.operations.passing":
        return
    for node in ast.walk(parsed(path)):
        names = {getattr(node, "id", None), getattr(node, "attr", None), getattr(node, "name", None)}
        assert "isnan" not in names, f"{path.name}: {name} asks isnan; ask isfinite"
