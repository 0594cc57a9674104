"""Every fault of the device validation, put into a simulated device: is it caught, and at the right check?

    OMP_WAIT_POLICY=PASSIVE python -m benchmarks.device_faults [--only NAME ...] [--clean-seeds 20] [--first-seed 0]
        [--threads 1 2] [--how plain flush no-mkldnn] [--tier quick] [--checks elementwise/form ...] [--json F]

A fault is caught when at least one check of each kind that it names (``caught_by``) fails; the table says which was the
first of them. Then the results with the fault are compared with those without: all that fails must be a regression. Faults that
end or hang a process, or come and go, go through the pool, as in `validate`; the others are run in this process, on the checks
that they name.
"""

from __future__ import annotations

import argparse
import time
import warnings
from functools import cache
from itertools import product
from pathlib import Path
from typing import Any

import torch

from yolo_stable.validate.backend import BACKENDS
from yolo_stable.validate.battery import cases, find_case
from yolo_stable.validate.check import CheckCase
from yolo_stable.validate.compare import compare
from yolo_stable.validate.execute import Executor
from yolo_stable.validate.faults import FAULTS, KernelFault
from yolo_stable.validate.gate import Status
from yolo_stable.validate.machine import Machine
from yolo_stable.validate.precision import switched
from yolo_stable.validate.result import CheckResult, ValidationResult
from yolo_stable.validate.run import validate
from yolo_stable.validate.simulated import SimulatedDevice
from yolo_stable.validate.stress import ID as STRESS

from .record import keep

PROCESS = ("hang", "die")
"""Changes that end or hold up the process that meets them."""
STRESS_MINUTES = 2.0
"""For a fault that comes and goes; only ``--stress`` looks for those."""
CIRCUMSTANCES = ("plain", "flush", "no-mkldnn")
"""Of a clean run: as it is, with denormal numbers flushed to zero, without oneDNN."""
Row = dict[str, Any]


def planned(fault: KernelFault) -> list[CheckCase]:
    """Return the checks that have to see a fault, as the smallest tier runs them."""
    found = [case for case in cases("quick", "cpu") if case.check.id.startswith(fault.caught_by)]
    found = found or [case for case in cases("default", "cpu") if case.check.id.startswith(fault.caught_by)]
    return [case for case in found if case.precision != "configured"]


def run(fault: KernelFault) -> Row:
    """Run one fault and say what became of it."""
    start = time.perf_counter()
    if fault.change in PROCESS:
        result = validate("cpu", "quick", inject=fault.name, families=(fault.family,), seconds=20.0)
        results, fired = list(result.results), True
    elif fault.every > 1:
        result = validate("cpu", "quick", inject=fault.name, families=("env",), stress_minutes=STRESS_MINUTES)
        results, fired = list(result.results), True
    else:
        machine = SimulatedDevice(BACKENDS["cpu"], fault)
        executor = Executor(machine)
        results = [executor.run(case) for case in planned(fault)]
        fired = machine.fired > 0
    failed = [r for r in results if r.status is Status.FAIL]
    worse = compare([_result(without(tuple(r.id for r in results))), _result(results)], ("clean", fault.name))
    seen = all(any(r.check.startswith(wanted) for r in failed) for wanted in fault.caught_by)
    return {
        "fault": fault.name,
        "family": fault.family,
        "kind": fault.kind,
        "fired": fired,
        "caught": bool(seen and fired),
        "regression": {r.id for r in failed} <= {d.id for d in worse.regressions} and worse.status == "regression",
        "first": failed[0].id if failed else "",
        "reason": _short(next((r for r in failed if r.check.startswith(fault.caught_by)), None)),
        "failed": len(failed),
        "of": len(results),
        "seconds": round(time.perf_counter() - start, 1),
    }


@cache
def without(ids: tuple[str, ...]) -> list[CheckResult]:
    """Return what the checks give without a fault."""
    executor = Executor(Machine(BACKENDS["cpu"]))
    return [steady(name) if name == STRESS else executor.run(find_case(name)) for name in ids]


def steady(name: str) -> CheckResult:
    """Return what ``--stress`` gives without a fault."""
    result = validate("cpu", "quick", families=("env",), stress_minutes=0.01)
    return next(r for r in result.results if r.id == name)


def _result(results: list[CheckResult]) -> ValidationResult:
    return ValidationResult(
        backend="cpu", device="cpu", device_name="cpu", tier="quick", seed=0, environment={}, results=tuple(results)
    )


def _short(result: CheckResult | None) -> str:
    return "" if result is None else result.reason[:80]


def clean(seeds: range, threads: list[int], circumstances: list[str], tier: str, families: list[str]) -> list[Row]:
    """Run the battery without a fault, with other inputs, numbers of threads and circumstances."""
    rows = []
    for seed, count, how in product(seeds, threads, circumstances):
        torch.set_num_threads(count)
        torch.set_flush_denormal(how == "flush")
        start = time.perf_counter()
        executor = Executor(Machine(BACKENDS["cpu"]), seed)
        mine = [case for case in cases(tier, "cpu") if not families or case.id.startswith(tuple(families))]
        with switched({"mkldnn.enabled": False} if how == "no-mkldnn" else {}):
            results = [executor.run(case) for case in mine if case.precision != "configured"]
        torch.set_flush_denormal(False)
        bad = [f"{r.id}: {r.reason}" for r in results if r.status in (Status.FAIL, Status.WARN)]
        rows.append({"threads": count, "seed": seed, "how": how, "checks": len(results), "bad": bad,
                     "seconds": round(time.perf_counter() - start, 1)})  # fmt: skip
        print(
            f"clean, {count} threads, seed {seed}, {how}: {len(results)} checks, {len(bad)} bad {bad[:3]}", flush=True
        )
    return rows


def main() -> int:
    """Print the tables; return 1 when a fault was missed or a clean run did not pass."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--only", nargs="*")
    parser.add_argument("--clean-seeds", type=int, default=0)
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--threads", type=int, nargs="*", default=[1, 2])
    parser.add_argument("--how", nargs="*", choices=CIRCUMSTANCES, default=["plain"])
    parser.add_argument("--checks", nargs="*", default=[], help="beginnings of the ids of what clean runs run")
    parser.add_argument("--tier", default="quick")
    parser.add_argument("--no-faults", action="store_true")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    rows = []
    for fault in () if options.no_faults else FAULTS:
        if options.only is None or fault.name in options.only:
            rows.append(run(fault))
            row = rows[-1]
            verdict = "caught" if row["caught"] else "MISSED" if row["fired"] else "NOT FIRED"
            verdict += "" if row["regression"] else ", NO REGRESSION"
            where = f"{row['first']} | {row['failed']}/{row['of']}"
            print(
                f"| {row['fault']} | {row['family']} | {row['kind']} | {verdict} | {where} | {row['reason']}",
                flush=True,
            )
    seeds = range(options.first_seed, options.first_seed + options.clean_seeds)
    runs = clean(seeds, options.threads, options.how, options.tier, options.checks)
    passed = sum(not row["bad"] for row in runs)
    kinds = len({(row["family"], row["kind"]) for row in rows})
    caught = sum(row["caught"] for row in rows)
    print(f"{caught} of {len(rows)} faults caught, {kinds} kinds; {passed} of {len(runs)} clean runs passed")
    kept = [{"table": "faults", **row} for row in rows] + [{"table": "clean", **row} for row in runs]
    settings = {key: value for key, value in vars(options).items() if key != "json"}
    if options.json or (options.only is None and not options.no_faults):  # a part does not take the place of the whole
        print(keep("device_faults", kept, settings, options.json))
    return int(not all(row["caught"] and row["regression"] for row in rows) or passed < len(runs))


if __name__ == "__main__":
    raise SystemExit(main())
