"""`validate`: the whole battery on one device. Needs no torch itself: a process of its own touches the device."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from itertools import groupby
from typing import Any

from ..errors import InvalidCallError
from .battery import cases, find_case
from .check import CheckCase
from .faults import find_fault
from .pool import START_SECONDS, Pool
from .result import CheckResult, ValidationResult
from .stress import stress

MANY = 200
"""Cases for which a second process is worth its start, some four seconds."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Progress:
    """Where a validation is; handed to a callback before and after each case, and while it stresses the device."""

    done: int
    """Cases; while it stresses the device, seconds."""
    total: int
    id: str
    """Of the case, or what is being repeated."""
    result: CheckResult | None
    """None before it is run."""


class CaseRunner:
    """Runs cases in one process or two, each taking the next check when it is done with one.

    Args:
        planned: The cases, in their order.
        say: Told of each case before and after it, by one thread at a time.
    """

    def __init__(self, planned: Sequence[CheckCase], say: Callable[[Progress], None]) -> None:
        self._total, self._say, self._lock = len(planned), say, threading.Lock()
        self._results: dict[int, CheckResult] = {}
        self._waiting = iter([list(part) for _, part in groupby(enumerate(planned), lambda pair: pair[1].check.id)])
        self._ended = False
        self._error: BaseException | None = None

    def run(self, pool: Pool, beside: Pool | None = None) -> list[CheckResult]:
        """Return the results in the order of the cases.

        ``beside`` is started here and helps as soon as it answers; if it never does, the other process runs all cases.
        """
        thread = threading.Thread(target=self._help, args=(beside,), name="yolo-stable validate") if beside else None
        if thread is not None:
            thread.start()
        try:
            self._work(pool)
        except BaseException:  # Ctrl-C, or the caller does not want to be told any more
            self._ended = True
            if beside is not None:
                beside.close()
            raise
        finally:
            if thread is not None:
                thread.join()
        if self._error is not None:
            raise self._error
        return [self._results[index] for index in range(self._total)]

    def _help(self, beside: Pool) -> None:
        try:
            with beside:
                self._work(beside)
        except InvalidCallError:  # it did not start; the first one does its part as well
            return
        except BaseException as error:  # noqa: BLE001 - it is raised where the results are asked for
            self._error = error

    def _work(self, pool: Pool) -> None:
        while not self._ended:
            with self._lock:
                check = next(self._waiting, None)
            if check is None:
                return
            for index, case in check:
                if self._ended:
                    return
                with self._lock:
                    self._say(Progress(done=len(self._results), total=self._total, id=case.id, result=None))
                result = pool.run(case)
                with self._lock:
                    self._results[index] = result
                    self._say(Progress(done=len(self._results), total=self._total, id=case.id, result=result))


def validate(
    device: str | None = None,
    tier: str = "default",
    seed: int = 0,
    inject: str | None = None,
    progress: Callable[[Progress], None] | None = None,
    stress_minutes: float = 0.0,
    *,
    recompute_reference: bool = False,
    settings: Mapping[str, Any] | None = None,
    families: tuple[str, ...] = (),
    seconds: float | None = None,
    start_seconds: float = START_SECONDS,
) -> ValidationResult:
    """Compare what a device computes with float64 on the CPU, operation by operation; ``status`` of the result is the verdict.

    Args:
        device: ``cuda``, ``rocm``, ``mps``, ``xpu``, ``cpu``, with an index as in ``cuda:1``; None: the best one here.
        tier: ``quick``, ``default`` or ``full``.
        seed: Another one gives other inputs; only those of seed 0 have a shipped reference.
        inject: A fault to put in, to prove the validator; one of ``faults.NAMES``.
        progress: Called before and after each case.
        stress_minutes: Afterwards repeat convolutions, products and steps for so long, and compare them bit for bit.
        recompute_reference: Compute the reference of trainings here instead of taking the shipped one.
        settings: ``{"env": {...}, "flags": {...}}`` for the process that touches the device, as ``HealSetting`` has them.
        families: Run these families only; empty: all.
        seconds: Time limit of each case; None: its own.
        start_seconds: Time limit for the process to import torch and the device to answer.

    Raises:
        InvalidCallError: The device is not there, or there is no such tier or fault.
    """
    cases(tier, "cpu")  # refuses a wrong tier before a process is started
    if inject:
        find_fault(inject.partition("@")[0])
    begin, started = time.perf_counter(), datetime.now(timezone.utc).isoformat(timespec="seconds")
    say = progress or (lambda _: None)

    def pool_of_one() -> Pool:
        return Pool(
            device, seed=seed, inject=inject, settings=settings, recompute_reference=recompute_reference, seconds=seconds,
            start_seconds=start_seconds,
        )  # fmt: skip

    with pool_of_one() as pool:
        hello = pool.hello
        planned = [
            case
            for case in cases(tier, hello["backend"])
            if (case.precision != "configured" or hello["reduced"]) and (not families or case.check.family in families)
        ]
        # A CPU with several cores has room for a second process. A fault that counts calls counts those of one.
        room = hello["backend"] == "cpu" and (os.cpu_count() or 1) > 1 and len(planned) >= MANY and not inject
        results = CaseRunner(planned, say).run(pool, pool_of_one() if room else None)
        if stress_minutes > 0:
            whole = round(60 * stress_minutes)

            def tell(passed: float, what: str) -> None:
                say(Progress(done=min(int(passed), whole), total=whole, id=what, result=None))

            results.append(stress(pool, tier, stress_minutes, tell))
            say(Progress(done=whole, total=whole, id=results[-1].id, result=results[-1]))
    return ValidationResult(
        tier=tier, seed=seed, results=tuple(results), inject=inject, started=started,
        seconds=round(time.perf_counter() - begin, 3),
        **{name: hello[name] for name in ("backend", "device", "device_name", "environment", "golden")},
    )  # fmt: skip


def run_one(
    check_id: str,
    device: str | None = None,
    settings: Mapping[str, Any] | None = None,
    *,
    seed: int = 0,
    inject: str | None = None,
    seconds: float | None = None,
) -> CheckResult:
    """Run one case, by its ``CheckResult.id``, in a process of its own and under other settings.

    The other arguments are those of :func:`validate`. A process that dies or hangs is a failure of the case.

    Raises:
        InvalidCallError: There is no such check or device.
    """
    case = find_case(check_id)
    with Pool(device, seed=seed, inject=inject, settings=settings, seconds=seconds) as pool:
        return pool.run(case)
