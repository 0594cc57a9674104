"""Chosen tests: those that execute the line of a mutant, the quickest first, as far as the time reaches.

Which they are is traced once, without a mutant. What is executed while a module is imported is executed for every test: for such
a line, and for one that no test was seen to execute, the tests are those of the files that mirror or import the module.
"""

from __future__ import annotations

import ast
import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.mutant_changes import Mutant
from benchmarks.mutant_runs import Place
from benchmarks.mutant_trace import IMPORTED

ROOT = Path(__file__).parents[1]
SLOW = ("test_notebooks", "test_trainer_ranks", "test_interrupting", "test_wheel", "test_readme", "test_benchmarks")
"""Files that are left out: other processes do their work, or their figures are times."""
MIRRORS_FIRST = 5.0
"""How many seconds of a test of the mirroring file are worth one second of another: it asks for what the module does."""


def files_for(module: str, importers: Mapping[str, set[str]], root: Path = ROOT) -> list[str]:
    """Return the files that test a module: its own examples, the one of the same name, and those that import it."""
    mirrors = mirrors_of(module, root)
    name = module.removesuffix(".py").replace("/", ".")
    return mirrors + sorted(importers.get(name, set()) - set(mirrors))


def mirrors_of(module: str, root: Path = ROOT) -> list[str]:
    """Return the module, where it has examples of its own, and the test file of the same name."""
    inside = Path(*Path(module).parts[1:])
    mirror = f"tests/{inside.with_name(f'test_{inside.name}').as_posix()}"
    own = [module] if ">>>" in (root / module).read_text(encoding="utf-8") else []
    return own + ([mirror] if (root / mirror).exists() else [])


def importers(root: Path = ROOT) -> dict[str, set[str]]:
    """Return the test files that import each module of the project, by its dotted name."""
    found: dict[str, set[str]] = {}
    for path in sorted((root / "tests").rglob("test_*.py")):
        if path.stem.startswith(SLOW):
            continue
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom) and node.module:
                for name in (node.module, *(f"{node.module}.{alias.name}" for alias in node.names)):
                    found.setdefault(name, set()).add(path.relative_to(root).as_posix())
    return found


def lines_of(source: str, line: int) -> range:
    """Return the lines of the innermost statement at a line; of one that has a body, the lines before it.

    Python notes the first line of an expression, and a mutant may change its last one.
    """
    found = range(line, line + 1)
    for node in ast.walk(ast.parse(source)):  # what stands within comes later
        if isinstance(node, ast.stmt):
            first = min([node.lineno, *(one.lineno for one in getattr(node, "decorator_list", ()))])
            body = getattr(node, "body", None)
            last = max(node.lineno, body[0].lineno - 1) if body else node.end_lineno or node.lineno
            if first <= line <= last:
                found = range(first, last + 1)
    return found


def is_in_function(source: str, line: int) -> bool:
    """Return whether a line lies in the body of a function: others are executed when the module is imported."""
    functions = (
        node for node in ast.walk(ast.parse(source)) if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))
    )
    return any(node.body[0].lineno <= line <= (node.end_lineno or 0) for node in functions)


class Chosen:
    """The tests for each mutant.

    Args:
        modules: Paths of all that may be changed.
        budget: Seconds that the tests of one mutant take, when nothing else is run.
        root: Of the project.
    """

    def __init__(self, modules: Sequence[str], budget: float, root: Path = ROOT) -> None:
        known = importers(root)
        self.root, self.budget = root, budget
        self.files = {module: files_for(module, known, root) for module in modules}
        self.seconds: dict[str, float] = {}
        self.lines: dict[str, dict[str, list[int]]] = {}
        self.failed: list[str] = []

    def measure(self, place: Place, seconds: float, kept: Path | None = None, *, share: float = 0.0) -> None:
        """Run the tests without a mutant: how long each takes, which lines it executes, and which fail here and are left out.

        Args:
            place: A copy of the project.
            seconds: After which no other test is begun. Mirrors come first; what is not run is never chosen.
            kept: A file with what was seen of files that are as they were; it is brought up to date. None: nothing is kept.
            share: Seconds of the processor for each file, after which its other tests are not run; 0: as many as it takes.
        """
        seen: dict[str, Any] = json.loads(kept.read_text()) if kept and kept.exists() else {}
        modules = seen.get("modules", {})
        if any(modules.get(module) != _digest(self.root / module) for module in self.files):
            seen, modules = {}, {module: _digest(self.root / module) for module in self.files}
        old = {file: digest for file, digest in seen.get("files", {}).items() if _digest(self.root / file) == digest}
        tests = {test: one for test, one in seen.get("tests", {}).items() if _file(test) in {IMPORTED, *old}}
        failed = [test for test in seen.get("failed", []) if _file(test) in old]
        first = [file for module in self.files for file in mirrors_of(module, self.root)]
        others = sorted({file for files in self.files.values() for file in files})
        if wanted := [file for file in dict.fromkeys([*first, *others]) if file not in old]:
            place.run(wanted, seconds, hang=0.0, share=share, traced=list(modules))
            now = place.seen()
            if now is None:
                raise SystemExit(f"the tests did not run: see {place.folder}/log.txt")
            found = json.loads((place.folder / "trace.json").read_text())
            imported = tests.get(IMPORTED, {"lines": {}})["lines"]
            tests.update(found)
            for module, lines in imported.items():  # other files may import more
                tests[IMPORTED]["lines"].setdefault(module, []).extend(lines)
            failed += now["failed"]
            traced = {_file(test) for test in found} - {IMPORTED}
            old.update(
                {file: _digest(place.folder / file) for file in traced}
            )  # the project may have changed meanwhile
        if kept:
            kept.write_text(json.dumps({"modules": modules, "files": old, "tests": tests, "failed": failed}))
        self.failed = failed
        self.seconds = {test: one["seconds"] for test, one in tests.items() if test not in {IMPORTED, *failed}}
        self.lines = {test: one["lines"] for test, one in tests.items()}

    def tests(self, mutant: Mutant) -> list[str]:
        """Return the tests for a mutant, in the order in which they are run."""
        module = mutant.module
        source = (self.root / module).read_text(encoding="utf-8")
        lines = set(lines_of(source, mutant.line))
        executing = {test for test, of in self.lines.items() if not lines.isdisjoint(of.get(module, ()))}
        if not is_in_function(source, mutant.line) or IMPORTED in executing or not executing:
            executing |= {test for test in self.seconds if _file(test) in self.files[module]}
        mirrors = mirrors_of(module, self.root)

        def worth(test: str) -> tuple[float, str]:
            return self.seconds[test] / (MIRRORS_FIRST if _file(test) in mirrors else 1.0), test

        return list(self._within_budget(sorted(executing & self.seconds.keys(), key=worth)))

    def _within_budget(self, tests: Sequence[str]) -> Iterator[str]:
        """Yield the first test in any case."""
        total = 0.0
        for test in tests:
            if total and total + self.seconds[test] > self.budget:
                return
            total += self.seconds[test]
            yield test


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else ""


def _file(test: str) -> str:
    return test.partition("::")[0]
