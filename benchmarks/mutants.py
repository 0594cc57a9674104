"""Mutants: do the tests notice a small change of meaning? A sample of them over the rooms whose faults cost most.

Each mutant is put into a copy of the project, and the tests that mirror its module are run until one fails. What survives is
printed as a change of a line: it wants a test, or a place in ``mutants_equivalent.yaml`` with the reason why no test can tell it.

    python -m benchmarks.mutants --count 400 --jobs 2
"""

from __future__ import annotations

import argparse
import ast
import random
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from benchmarks.mutant_changes import Mutant, mutants
from benchmarks.mutant_runs import Place, Verdict, warm_up

ROOT = Path(__file__).parents[1]
EQUIVALENT = Path(__file__).with_name("mutants_equivalent.yaml")
ROOMS: dict[str, tuple[float, tuple[str, ...]]] = {
    "guard": (0.25, ("guard/*",)),
    "checkpoints and resume": (
        0.2,
        ("checkpoints/*", "_shared/atomic_file", "_shared/background", "runlog/results_csv"),
    ),
    "check and repair": (0.2, ("check/*",)),
    "provenance and quarantine": (0.15, ("provenance/*",)),
    "cause and taint": (0.1, ("autopsy/cause", "autopsy/taint")),
    "metrics and gates": (0.1, ("validate/metrics", "validate/gate", "validate/checks/gates")),
}
"""The share of the mutants, and the modules that they are drawn from."""


def modules_of(room: str) -> list[str]:
    """Return the paths of a room's modules."""
    patterns = ROOMS[room][1]
    found = {path for pattern in patterns for path in (ROOT / "yolo_stable").glob(f"{pattern}.py")}
    return sorted(path.relative_to(ROOT).as_posix() for path in found if path.name != "__init__.py")


def files_for(module: str, importers: Mapping[str, set[str]]) -> list[str]:
    """Return the files that test a module: its own examples, the one of the same name, and those that import it."""
    inside = module.removeprefix("yolo_stable/")
    mirror = f"tests/{inside}".replace(Path(inside).name, f"test_{Path(inside).name}")
    own = [module] if ">>>" in (ROOT / module).read_text(encoding="utf-8") else []
    mirrors = [mirror] if (ROOT / mirror).exists() else []
    name = module.removesuffix(".py").replace("/", ".")
    return own + mirrors + sorted(importers.get(name, set()) - {mirror})


def importers() -> dict[str, set[str]]:
    """Return the test files that import each module of the project, by its dotted name."""
    found: dict[str, set[str]] = {}
    for path in sorted((ROOT / "tests").rglob("test_*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("yolo_stable"):
                for name in (node.module, *(f"{node.module}.{alias.name}" for alias in node.names)):
                    found.setdefault(name, set()).add(path.relative_to(ROOT).as_posix())
    return found


class Chosen:
    """The test files for each module, the fastest first, as far as the time reaches.

    Args:
        modules: Paths of all that are changed.
        budget: Seconds that the tests of one mutant may take.
    """

    def __init__(self, modules: Sequence[str], budget: float) -> None:
        known = importers()
        self.of = {module: files_for(module, known) for module in modules}
        self.budget = budget
        self.took: dict[str, float] = {}
        self.left_out: list[str] = []

    def measure(self, place: Place) -> None:
        """Run all of them without a mutant: how long each takes, and which fail here and are left out."""
        files = sorted({file for files in self.of.values() for file in files})
        place.run(files, 3600.0)
        seen = place.seen()
        if seen is None:
            raise SystemExit(f"the tests did not run: see {place.folder}/log.txt")
        self.took, self.left_out = seen["took"], seen["failed"]

    def files(self, module: str) -> list[str]:
        """Return the files for a module; its own examples and its mirror however long they take."""
        own, others = self.of[module][:2], self.of[module][2:]
        total = sum(self.took.get(file, 0.0) for file in own)
        for file in sorted(others, key=lambda file: self.took.get(file, 0.0)):
            total += self.took.get(file, 0.0)
            if total > self.budget:
                break
            own.append(file)
        return own

    def options(self) -> list[str]:
        """Return what pytest is told for a mutant."""
        return ["-x", *(f"--deselect={test}" for test in self.left_out)]


def try_out(
    drawn: Sequence[Mutant], chosen: Chosen, places: Sequence[Place], until: float
) -> list[tuple[Mutant, Verdict]]:
    """Test mutants, as many at a time as there are copies.

    Args:
        drawn: The mutants.
        chosen: The tests.
        places: Copies of the project.
        until: The moment after which no other one is begun.

    Returns:
        Those that were tested.
    """
    waiting, under_way, found = list(reversed(drawn)), {}, []
    while waiting or under_way:
        for n, place in enumerate(places):
            if n in under_way and (verdict := place.poll()) is not None:
                mutant = under_way.pop(n)
                found.append((mutant, verdict))
                if verdict.outcome not in {"killed", "timeout"}:
                    print(
                        f"[{len(found)}/{len(drawn)}] {verdict.outcome} {verdict.tests} tests: {mutant.diff}",
                        flush=True,
                    )
            if n not in under_way and waiting and time.monotonic() < until:
                under_way[n] = mutant = waiting.pop()
                files = chosen.files(mutant.module)
                place.begin(files, chosen.budget, mutant.module, mutant.source, *chosen.options())
        if not under_way and time.monotonic() >= until:
            break
        time.sleep(0.05)
    return found


def equivalents() -> dict[tuple[str, str, str], str]:
    """Return why mutants cannot be told from the original, by module and changed lines."""
    listed = yaml.safe_load(EQUIVALENT.read_text(encoding="utf-8")) or []
    return {(one["module"], one["before"], one["after"]): one["reason"] for one in listed}


def row(room: str, tested: Sequence[tuple[Mutant, Verdict]]) -> dict[str, Any]:
    """Return the figures of a room."""
    same = equivalents()
    counted = [(m, v) for m, v in tested if (m.module, m.before, m.after) not in same]
    names = ("killed", "timeout", "survived", "out of time", "no tests")
    of = {name: sum(v.outcome == name for _, v in counted) for name in names}
    return {
        "room": room,
        "mutants": len(tested),
        "equivalent": len(tested) - len(counted),
        **of,
        "share killed": (of["killed"] + of["timeout"]) / max(1, len(counted)),
        "seconds a mutant": sum(v.seconds for _, v in tested) / max(1, len(tested)),
        "survivors": [m.diff for m, v in counted if v.outcome in {"survived", "no tests"}],
        "not settled": [m.diff for m, v in counted if v.outcome == "out of time"],
    }


def main() -> None:
    """Draw, test and tell."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=400)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--rooms", nargs="+", choices=list(ROOMS), default=list(ROOMS))
    parser.add_argument("--modules", nargs="+", help="only of these: parts of their paths")
    parser.add_argument("--jobs", type=int, default=1, help="mutants that are tested at a time")
    parser.add_argument("--budget", type=float, default=40.0, help="seconds for the tests of one mutant")
    parser.add_argument("--minutes", type=float, default=1e6, help="after which no other mutant is begun")
    parser.add_argument(
        "--without-control", action="store_true", help="all tests are known to pass here; none is timed"
    )
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()

    drawn: dict[str, list[Mutant]] = {}
    for room in args.rooms:
        modules = [m for m in modules_of(room) if not args.modules or any(part in m for part in args.modules)]
        count = round(args.count * ROOMS[room][0] / sum(ROOMS[one][0] for one in args.rooms))
        drawn[room] = list(mutants(ROOT, modules, count, random.Random(f"{args.seed} {room}")))
    together = [(room, mutant) for room, found in drawn.items() for mutant in found]
    random.Random(args.seed).shuffle(together)  # when the time is up each room has had its share
    print(f"{len(together)} mutants, {', '.join(f'{room}: {len(found)}' for room, found in drawn.items())}", flush=True)
    room_of = {id(mutant): room for room, mutant in together}

    warm_up()
    places = [Place(ROOT) for _ in range(args.jobs)]
    try:
        chosen = Chosen(sorted({mutant.module for _, mutant in together}), args.budget)
        if not args.without_control:
            chosen.measure(places[0])
            print(
                f"{sum(chosen.took.values()):.0f} s for {len(chosen.took)} files; left out: {chosen.left_out}",
                flush=True,
            )
        until = time.monotonic() + 60 * args.minutes
        tested = try_out([mutant for _, mutant in together], chosen, places, until)
    finally:
        for place in places:
            place.remove()
    rows = [row(room, [(m, v) for m, v in tested if room_of[id(m)] == room]) for room in drawn]

    from benchmarks import record  # not before: it imports the project, which the children must import from their copy

    record.show("mutants", [{key: value for key, value in one.items() if not isinstance(value, list)} for one in rows])
    settings = {"count": args.count, "seed": args.seed, "budget": args.budget, "tested": len(tested)}
    print(record.keep("mutants", rows, settings, args.json))


if __name__ == "__main__":
    sys.exit(main())
