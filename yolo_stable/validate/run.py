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
from .check import Case
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


class Cases:
    """Cases that one process or two run, each taking the next check as it is done with one.

    Args:
        planned: In their order.
        say: Is told of each case before and after it, by one thread at a time.
    """

    def __init__(self, planned: Sequence[Case], say: Callable[[Progress], None]) -> None:
        self._total, self._say, self._lock = len(planned), say, threading.Lock()
        self._results: dict[int, CheckResult] = {}
        self._waiting = iter([list(part) for _, part in groupby(enumerate(planned), lambda pair: pair[1].check.id)])
        self._ended = False
        self._error: BaseException | None = None

    def run(self, pool: Pool, beside: Pool | None = None) -> list[CheckResult]:
        """Return the results in the order of the cases.

        Args:
            pool: A process that runs.
            beside: One that is started here, and does its part as soon as it answers; if it never does, the other does all.
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
    """Compare what a device computes with float64 on the CPU, operation by operation.

    Args:
        device: ``cuda``, ``rocm``, ``mps``, ``xpu``, ``cpu``, with an index as in ``cuda:1``; None: the best that is there.
        tier: ``quick``, ``default`` or ``full``.
        seed: Another one gives other inputs; only those of seed 0 have a shipped reference.
        inject: A fault to put in, to prove the validator; one of ``faults.NAMES``.
        progress: Called before and after each case.
        stress_minutes: So long are convolutions, products and steps repeated afterwards, and compared bit for bit.
        recompute_reference: Compute the reference of trainings here instead of taking the shipped one.
        settings: ``{"env": {...}, "flags": {...}}`` for the process that touches the device, as ``Setting`` has them.
        families: Run these families only; empty: all.
        seconds: Time limit of each case; None: its own.
        start_seconds: Time limit for the process to import torch and the device to answer.

    Returns:
        All results; ``result.status`` is the verdict.

    Raises:
        InvalidCallError: The device is not there, or there is no such tier or fault.
    """
    cases(tier, "cpu")  # a wrong tier is told before a process is started
    if inject:
        from .faults import find_fault

        find_fault(inject.partition("@")[0])
    begin, started = time.perf_counter(), datetime.now(timezone.utc).isoformat(timespec="seconds")
    results: list[CheckResult] = []
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
        results += Cases(planned, say).run(pool, pool_of_one() if room else None)
        if stress_minutes > 0:
            whole = round(60 * stress_minutes)

            def tell(passed: float, what: str) -> None:
                say(Progress(done=min(int(passed), whole), total=whole, id=what, result=None))

            results.append(stress(pool, tier, stress_minutes, tell))
            say(Progress(done=whole, total=whole, id=results[-1].id, result=results[-1]))
    return ValidationResult(
        backend=hello["backend"],
        device=hello["device"],
        device_name=hello["device_name"],
        tier=tier,
        seed=seed,
        environment=hello["environment"],
        results=tuple(results),
        inject=inject,
        golden=hello["golden"],
        started=started,
        seconds=round(time.perf_counter() - begin, 3),
    )


def run_one(
    check_id: str,
    device: str | None = None,
    settings: Mapping[str, Any] | None = None,
    *,
    seed: int = 0,
    inject: str | None = None,
    seconds: float | None = None,
) -> CheckResult:
    """Run one case in a process of its own, under other settings: what the search for a healing one needs.

    Args:
        check_id: ``CheckResult.id``.
        device: As for ``validate``.
        settings: ``{"env": {...}, "flags": {...}}``; variables are set before torch is imported, an empty one is unset.
        seed: As for ``validate``.
        inject: As for ``validate``.
        seconds: Time limit; None: that of the check.

    Returns:
        The verdict; a process that dies or hangs is a failure.

    Raises:
        InvalidCallError: There is no such check or device.
    """
    case = find_case(check_id)
    with Pool(device, seed=seed, inject=inject, settings=settings, seconds=seconds) as pool:
        return pool.run(case)
