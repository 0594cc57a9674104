"""The stress test: a device that flips a bit now and then is found, and one that is just not deterministic is not accused."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
from validations import check, failing, part

from yolo_stable.validate import BACKENDS, CheckResult, KernelFault, Status, find_fault
from yolo_stable.validate import stress as module
from yolo_stable.validate.battery import find_case, stress_cases
from yolo_stable.validate.check import CheckCase
from yolo_stable.validate.execute import Executor
from yolo_stable.validate.machine import Machine
from yolo_stable.validate.simulated import SimulatedDevice
from yolo_stable.validate.stress import stress

SMALL = tuple(
    f"determinism/stress-{name}/contiguous/exact"
    for name in ("conv3x3-8-16-float32", "matmul-nn-float32", "bmm-bfloat16")
)
STEADY = {"same": "bitwise", "poison": "bitwise"}
VARYING = {"same": "differs (1.0e-07)", "poison": "bitwise"}


def on(machine: Machine, rounds: int, monkeypatch: pytest.MonkeyPatch) -> CheckResult:
    """Stress a machine in this process, for a number of rounds."""
    executor = Executor(machine)
    return stressed(executor.run, rounds, monkeypatch)


def stressed(run: Any, rounds: int, monkeypatch: pytest.MonkeyPatch) -> CheckResult:
    clock = iter(range(10_000))
    monkeypatch.setattr(module, "stress_cases", lambda tier: tuple(map(find_case, SMALL)))
    monkeypatch.setattr(module, "time", SimpleNamespace(monotonic=lambda: float(next(clock))))
    pool: Any = SimpleNamespace(run=run, hello={"backend": "rocm"})
    return stress(pool, "quick", rounds * (len(SMALL) + 1) / 60)


def test_a_device_that_flips_one_bit_in_a_hundred_products_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    rare = replace(find_fault("rare-bit"), every=97)
    machine = SimulatedDevice(BACKENDS["rocm"], rare)
    result = on(machine, 6, monkeypatch)
    assert 1 <= machine.fired <= 4
    assert result.status is Status.FAIL
    assert result.numbers["changed"] >= 1
    assert "repetitions went wrong" in result.reason
    assert result.reason.endswith("Suspect memory, heat or power, and run `rvs`")


def test_a_clean_device_gives_the_same_bits_in_every_round(monkeypatch: pytest.MonkeyPatch) -> None:
    result = on(Machine(BACKENDS["cpu"]), 3, monkeypatch)
    assert (result.status, result.reason) == (Status.PASS, "")
    assert result.numbers["rounds"] >= 2
    assert "3 of 3 cases compared" in result.notes[0]


def scripted(*of_first: CheckResult) -> Any:
    """Return a run in which the first case gives these results, one after another, and the others are steady."""
    script: Iterator[CheckResult] = iter(of_first)
    steady = check(determinism=STEADY)

    def run(case: CheckCase) -> CheckResult:
        return replace(next(script, steady) if case.id == SMALL[0] else steady, id=case.id)

    return run


GOOD = check(determinism=STEADY)
OTHER = check(determinism=STEADY, parts=(part(sha256="b" * 64),))
WAVERS = check(determinism=VARYING)


@pytest.mark.parametrize(
    ("script", "changed", "words"),
    [
        pytest.param((GOOD, GOOD, OTHER), 1, "1 x (other bits than in the first round)", id="a round differs"),
        pytest.param((GOOD, WAVERS, GOOD), 1, "1 x (other bits, same: differs (1.0e-07))", id="within a round"),
        pytest.param((WAVERS, GOOD, GOOD), 1, "1 x (other bits, same: differs (1.0e-07))", id="in the first round"),
        pytest.param((GOOD, failing(reason="it hung")), 1, "1 x (it hung)", id="it fails"),
        pytest.param((WAVERS,) * 9, 0, "", id="never twice the same: torch promises nothing there"),
        pytest.param((check(status=Status.SKIP, parts=()),) * 9, 0, "", id="skipped"),
    ],
)
def test_what_counts_as_changed(
    script: tuple[CheckResult, ...], changed: int, words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    result = stressed(scripted(*script), 5, monkeypatch)
    assert (result.numbers["changed"], result.status is Status.FAIL) == (changed, changed > 0)
    assert words in result.reason


def test_where_nothing_can_be_compared_it_ends_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    skipped = check(status=Status.SKIP, parts=())
    result = stressed(lambda case: replace(skipped, id=case.id), 1000, monkeypatch)
    assert (result.numbers["rounds"], "0 of 3 cases compared" in result.notes[0]) == (1.0, True)


def test_convolutions_products_and_whole_steps_are_stressed_in_all_precisions() -> None:
    names = {case.check.id for case in stress_cases("quick")}
    for what in ("conv3x3-64", "matmul-nt", "yolo11n"):
        assert {f"determinism/stress-{what}-{dtype}" for dtype in ("float32", "float16", "bfloat16")} <= names
    assert isinstance(find_fault("rare-bit"), KernelFault)
