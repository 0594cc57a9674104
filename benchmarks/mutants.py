"""Mutants: do the tests notice a small change of meaning? A sample of them over the rooms whose faults cost most.

Each mutant is put into a copy of the project, and the tests that execute the changed line are run until one fails. What survives
is printed as a change of a line: it wants a test, or a place in ``mutants_equivalent.yaml`` with the reason why no test tells it.

    python -m benchmarks.mutants --count 400 --jobs 2 --trace trace.json
    python -m benchmarks.mutants --only-survivors-of benchmarks/results/mutants.json --trace trace.json

The second tests what survived against the tests as they are now, and puts the results of both together.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import yaml

from benchmarks.mutant_changes import Mutant, again, mutants
from benchmarks.mutant_runs import Place, Verdict, warm_up
from benchmarks.mutant_tests import ROOT, Chosen

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
LATE = 3.0
"""How many times as long as they were known to take the tests of a mutant are given, on a busy machine."""


def modules_of(room: str) -> list[str]:
    """Return the paths of a room's modules."""
    patterns = ROOMS[room][1]
    found = {path for pattern in patterns for path in (ROOT / "yolo_stable").glob(f"{pattern}.py")}
    return sorted(path.relative_to(ROOT).as_posix() for path in found if path.name != "__init__.py")


@dataclass(frozen=True, slots=True)
class Tested:
    """A mutant with what became of it, as it is kept."""

    room: str
    module: str
    line: int
    operator: str
    occurrence: int
    before: str
    after: str
    outcome: str
    by: str
    tests: int
    seconds: float

    @property
    def diff(self) -> str:
        """The change in two lines or a few."""
        return f"{self.module}:{self.line} {self.operator}\n- {self.before}\n+ {self.after}"

    @property
    def noticed(self) -> bool:
        """Whether a test failed, or never came to its end."""
        return self.outcome in {"killed", "timeout"}


def judged(room: str, mutant: Mutant, verdict: Verdict) -> Tested:
    """Return what became of a mutant."""
    change = {key: value for key, value in asdict(mutant).items() if key != "source"}
    return Tested(room=room, **change, **{**asdict(verdict), "seconds": round(verdict.seconds, 2)})


def try_out(drawn: Sequence[tuple[str, Mutant]], chosen: Chosen, places: Sequence[Place], until: float) -> list[Tested]:
    """Test mutants, as many at a time as there are copies.

    Args:
        drawn: The mutants with their rooms.
        chosen: The tests.
        places: Copies of the project.
        until: The moment after which no other one is begun.

    Returns:
        Those that were tested.
    """
    waiting, found = list(reversed(drawn)), []
    under_way: dict[int, tuple[str, Mutant]] = {}

    def end(room: str, mutant: Mutant, verdict: Verdict) -> None:
        found.append(one := judged(room, mutant, verdict))
        print(f"[{len(found)}/{len(drawn)}] {one.outcome}, {one.tests} tests, {one.seconds:.1f} s: ", end="")
        print(f"{one.module}:{one.line} by {one.by}" if one.noticed else one.diff, flush=True)

    while waiting or under_way:
        for n, place in enumerate(places):
            if n in under_way and (verdict := place.poll()) is not None:
                room, mutant = under_way.pop(n)
                end(room, mutant, verdict)
            if n not in under_way and waiting and time.monotonic() < until:
                room, mutant = waiting.pop()
                if tests := chosen.tests(mutant):
                    under_way[n] = room, mutant
                    late = LATE * chosen.budget
                    place.begin(tests, late, mutant.module, mutant.source, "-x", seconds=chosen.seconds)
                else:
                    end(room, mutant, Verdict("no tests"))
        if not under_way and time.monotonic() >= until:
            break
        time.sleep(0.02)
    return found


def drawn_anew(count: int, seed: int, rooms: Sequence[str], parts: Sequence[str]) -> list[tuple[str, Mutant]]:
    """Draw mutants, and mix the rooms: when the time is up each has had its share.

    Args:
        count: How many of all rooms.
        seed: Of the draw.
        rooms: Which of the rooms; the shares of the others are theirs.
        parts: Only modules with one of these in their paths; empty: all.
    """
    together: list[tuple[str, Mutant]] = []
    for room in rooms:
        modules = [module for module in modules_of(room) if not parts or any(part in module for part in parts)]
        share = round(count * ROOMS[room][0] / sum(ROOMS[one][0] for one in rooms))
        together += [(room, one) for one in mutants(ROOT, modules, share, random.Random(f"{seed} {room}"))]
    random.Random(seed).shuffle(together)
    return together


def drawn_before(earlier: Sequence[Tested]) -> list[tuple[str, Mutant]]:
    """Return the mutants of an earlier run that no test had noticed, but for those that are listed as equivalent.

    Raises:
        SystemExit: One of their modules has changed so that they are no longer there.
    """
    same, found = equivalents(), []
    for one in earlier:
        if one.noticed or (one.module, one.before, one.after) in same:
            continue
        there = (ROOT / one.module).is_file()
        mutant = again(ROOT, one.module, one.line, one.operator, one.occurrence) if there else None
        if mutant is None or (mutant.before, mutant.after) != (one.before, one.after):
            raise SystemExit(f"{one.module} has changed since: {one.diff} is no longer there. Draw all mutants anew")
        found.append((one.room, mutant))
    return found


def equivalents() -> dict[tuple[str, str, str], str]:
    """Return why mutants cannot be told from the original, by module and changed lines."""
    listed = yaml.safe_load(EQUIVALENT.read_text(encoding="utf-8")) or []
    return {(one["module"], one["before"], one["after"]): one["reason"] for one in listed}


def row(room: str, found: Sequence[Tested]) -> dict[str, Any]:
    """Return the figures of a room."""
    same = equivalents()
    counted = [one for one in found if one.noticed or (one.module, one.before, one.after) not in same]
    names = ("killed", "timeout", "survived", "out of time", "no tests")
    of = {name: sum(one.outcome == name for one in counted) for name in names}
    return {
        "room": room,
        "mutants": len(found),
        "equivalent": len(found) - len(counted),
        **of,
        "share killed": (of["killed"] + of["timeout"]) / max(1, len(counted)),
        "seconds a mutant": sum(one.seconds for one in found) / max(1, len(found)),
        "survivors": [one.diff for one in counted if not one.noticed],
        "verdicts": [asdict(one) for one in found],
    }


def main() -> None:
    """Draw, test and tell."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=400)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--rooms", nargs="+", choices=list(ROOMS), default=list(ROOMS))
    parser.add_argument("--modules", nargs="+", default=[], help="only of these: parts of their paths")
    parser.add_argument(
        "--only-survivors-of", type=Path, metavar="JSON", help="a file of results: no other mutant is drawn"
    )
    parser.add_argument("--jobs", type=int, default=1, help="mutants that are tested at a time")
    parser.add_argument("--budget", type=float, default=20.0, help="seconds for the tests of one mutant")
    parser.add_argument("--minutes", type=float, default=1e6, help="after which no other mutant is begun")
    parser.add_argument("--trace", type=Path, help="keep here which lines the tests execute, for the next time")
    parser.add_argument("--trace-minutes", type=float, default=60.0, help="after which no other test is traced")
    parser.add_argument("--trace-share", type=float, default=60.0, help="seconds of the processor for each test file")
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()

    earlier: list[Tested] = []
    settings = {"count": args.count, "seed": args.seed, "budget": args.budget}
    if args.only_survivors_of and not args.only_survivors_of.is_file():
        parser.error(f"--only-survivors-of: there is no file {args.only_survivors_of}")
    if args.only_survivors_of:
        before = json.loads(args.only_survivors_of.read_text(encoding="utf-8"))
        earlier = [Tested(**one) for room in before["rows"] for one in room["verdicts"]]
        drawn = drawn_before(earlier)
        so_far = before["settings"].get("tested again", [])
        now = {"survivors": len(drawn), "budget": args.budget}
        settings = {**before["settings"], "tested again": [*so_far, now]}
    else:
        drawn = drawn_anew(args.count, args.seed, args.rooms, args.modules)
    print(f"{len(drawn)} mutants", flush=True)
    places: list[Place] = []
    again_tested: list[Tested] = []
    if drawn:
        warm_up()
        try:
            places += [Place(ROOT) for _ in range(args.jobs)]
            chosen = Chosen(sorted({mutant.module for _, mutant in drawn}), args.budget)
            chosen.measure(places[0], 60 * args.trace_minutes, args.trace, share=args.trace_share)
            print(
                f"{len(chosen.seconds)} tests of {sum(chosen.seconds.values()):.0f} s; failed: {chosen.failed}",
                flush=True,
            )
            again_tested = try_out(drawn, chosen, places, time.monotonic() + 60 * args.minutes)
        finally:
            for place in places:
                place.remove()
    newer = {(one.module, one.operator, one.occurrence): one for one in again_tested}
    found = [newer.pop((one.module, one.operator, one.occurrence), one) for one in earlier] + list(newer.values())
    rows = [row(room, of) for room in ROOMS if (of := [one for one in found if one.room == room])]

    from benchmarks import record  # not before: it imports the project, which the children must import from their copy

    record.show("mutants", [{key: value for key, value in one.items() if not isinstance(value, list)} for one in rows])
    print(record.keep("mutants", rows, {**settings, "tested": len(found)}, args.json))


if __name__ == "__main__":
    sys.exit(main())
