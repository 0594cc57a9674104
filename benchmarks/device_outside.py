"""Faults of operations that were written without a look at the battery: how many of them does the validation find?

    OMP_WAIT_POLICY=PASSIVE python -m benchmarks.device_outside [--list second] [--tier quick default] [--only NAME ...]

The lists change the results of some of torch's operations, forward and backward, as broken kernels would. A fault is found when a
check fails; it is *not fired* when no check runs it, and counts as not found. Only the checks that call one of its operations are
run, the others cannot see it; the fastest first, those of trainings last. Digests and sketches, which no verdict needs, are left
out, and inputs and references are kept: a run takes minutes instead of hours.

Each list is a blind test once, of the battery that its author had not seen: of the first, of 338 faults, ``quick`` found 252
and ``default`` without its trainings 259; of the second, of 256, 217 and 220; of the third, of 297, 291 and 293. After the
first and the second one checks were added for the kinds that were missed, with the list at hand: what is found of these now is
no blind figure. Blind rows are kept in the result under ``"when": "blind"``; ``--blind F`` takes them over from an earlier
result.
"""

from __future__ import annotations

import argparse
import json
import time
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode

from yolo_stable.validate import evidence, hashed, recipe, sketch
from yolo_stable.validate.backend import BACKENDS
from yolo_stable.validate.battery import cases
from yolo_stable.validate.check import CheckCase
from yolo_stable.validate.execute import Executor
from yolo_stable.validate.gate import Status
from yolo_stable.validate.machine import Machine
from yolo_stable.validate.result import CheckResult

from . import device_outside_faults, device_outside_faults_second, device_outside_faults_third
from .record import keep, show

Row = dict[str, Any]
LISTS = {
    "first": device_outside_faults.FAULTS,
    "second": device_outside_faults_second.FAULTS,
    "third": device_outside_faults_third.FAULTS,
}
TRAININGS = ("step", "short", "determinism")
"""Families whose cases take longest."""


def name_of(func: Any) -> str:
    """Return an operation's name without namespace and overload."""
    return str(func).split(".")[1]


class Heard(TorchDispatchMode):
    """Notes which operations are called."""

    def __init__(self) -> None:
        super().__init__()
        self.names: set[str] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None) -> Any:
        self.names.add(name_of(func))
        return func(*args, **(kwargs or {}))


class Wrong(TorchDispatchMode):
    """Computes some operations as a fault says."""

    def __init__(self, fault: Mapping[str, Any]) -> None:
        super().__init__()
        self.fault, self.fired = fault, 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None) -> Any:
        if name_of(func) not in self.fault["ops"]:
            return func(*args, **(kwargs or {}))
        self.fired += 1
        return self.fault["change"](func, args, kwargs or {})


class Modified(Machine):
    """The CPU under a mode."""

    def __init__(self, mode: TorchDispatchMode | None = None) -> None:
        super().__init__(BACKENDS["cpu"])
        self.mode = mode

    @contextmanager
    def computing(self, *, strict: bool = True) -> Iterator[None]:
        """As without, under the mode."""
        with super().computing(strict=strict), self.mode or nullcontext():
            yield


def hurry() -> None:
    """Leave out what files and comparisons need and verdicts do not, and draw each input once."""
    evidence.brief_sketch = lambda tensor: (0.0,) * sketch.SIZE
    evidence.total_sketch = recipe.total_sketch = lambda tensors: ()
    evidence.sha256_of = recipe.sha256_of = lambda tensors: ""
    hashed.hash_stream = lru_cache(maxsize=4096)(hashed.hash_stream)


class Bench:
    """Runs the cases of a tier under one fault after another; references are computed once.

    Args:
        tier: Which cases.
        without: A smaller tier, whose cases are left out.
    """

    def __init__(self, tier: str, without: str = "") -> None:
        self.machine = Modified()
        self._executors: dict[Any, Executor] = {}
        self.plan: list[tuple[float, CheckCase, set[str]]] = []
        known = {case.id for case in cases(without, "cpu")} if without else set()
        for case in (case for case in cases(tier, "cpu") if case.id not in known):
            heard = Heard()
            result = self.run(case, heard)
            if result.status is Status.FAIL:
                raise SystemExit(f"{case.id} fails without a fault: {result.reason}")
            late = 1e6 * (case.check.family in TRAININGS)
            self.plan.append((late + result.ms, case, heard.names))
        self.plan.sort(key=lambda entry: entry[0])

    def run(self, case: CheckCase, mode: TorchDispatchMode) -> CheckResult:
        """Run a case under a mode."""
        training = case.check.family in TRAININGS
        key = "training" if training else (case.check.id, case.dtype)
        executor = self._executors.setdefault(key, Executor(self.machine))
        self.machine.mode = mode
        return executor.run(case)


def run(fault: Mapping[str, Any], bench: Bench) -> Row:
    """Return which check is the first to find a fault."""
    start = time.perf_counter()
    mode = Wrong(fault)
    mine = [case for _, case, names in bench.plan if names & set(fault["ops"])]
    first = ""
    for case in mine:
        result = bench.run(case, mode)
        if result.status is Status.FAIL:
            first = f"{case.id}: {result.reason}"[:160]
            break
    seconds = round(time.perf_counter() - start, 1)
    return {
        "fault": fault["name"],
        "found": bool(first),
        "fired": mode.fired,
        "first": first,
        "checks": len(mine),
        "seconds": seconds,
    }


def main() -> None:
    """Run the faults, and print what was not found."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--list", choices=tuple(LISTS), default="first")
    parser.add_argument("--tier", nargs="+", choices=("quick", "default"), default=["quick", "default"])
    parser.add_argument("--only", nargs="+", metavar="NAME")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--blind", type=Path, metavar="F", help="a result whose blind rows are kept in the new one")
    options = parser.parse_args()
    if options.blind is not None and not options.blind.is_file():
        parser.error(f"--blind: there is no file {options.blind}")
    torch.set_num_threads(1)
    hurry()
    warnings.simplefilter("ignore")
    rows: list[Row] = []
    left = [fault for fault in LISTS[options.list] if not options.only or fault["name"] in options.only]
    total = len(left)
    for tier in options.tier:
        bench = Bench(tier, "quick" if tier == "default" and "quick" in options.tier else "")
        for fault in list(left):
            row = {"when": "now", "tier": tier, **run(fault, bench)}
            rows.append(row)
            if not row["found"]:
                print(f"{tier} | {fault['name']}: not found, fired {row['fired']} times. {fault['about']}", flush=True)
            elif tier == "quick":
                left.remove(fault)  # `default` has all that `quick` has
        done = sum(row["found"] for row in rows)
        show(f"faults found by {tier}", [{"found": done, "of": total, "share": round(done / total, 3)}])
    if options.blind is not None:
        rows += [row for row in json.loads(options.blind.read_text())["rows"] if row["when"] == "blind"]
    name = "device_outside" if options.list == "first" else f"device_outside_{options.list}"
    print(keep(name, rows, {"tiers": options.tier}, options.json))


if __name__ == "__main__":
    main()
