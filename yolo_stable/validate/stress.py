"""Stress test: repeats the same work, and compares it bit for bit with the first time. Needs no torch itself."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable

from .._shared.text import listed
from .battery import stress_cases
from .gate import Status
from .pool import Pool
from .result import CheckResult

ID = "determinism/stress"
_TRIES = 3
"""A case that varies so often at first is left out."""
_TOOLS = {"cuda": "`dcgmi diag -r 3`", "rocm": "`rvs`", "cpu": "memtest86+"}
"""Tools that find the broken part."""


def stress(pool: Pool, tier: str, minutes: float, say: Callable[[float, str], None] = lambda *_: None) -> CheckResult:
    """Repeat the work of a tier, each case once at least, until the minutes are over; any bit that changes is a failure.

    A device that is broken now and then (memory, heat, power) passes every comparison with a reference on most days. It does
    not give the same bits thousands of times. ``say`` is told the seconds that have passed, and what is being repeated.
    """
    planned = stress_cases(tier)
    watch = _Watch()
    begin, rounds, runs = time.monotonic(), 0, 0
    while not rounds or (planned and time.monotonic() < begin + 60 * minutes):
        for case in planned:
            passed = time.monotonic() - begin
            if rounds and passed >= 60 * minutes:
                break
            say(passed, f"stress, round {rounds + 1}: {_name(case.id)}")
            watch.see(pool.run(case))
            runs += 1
        planned = [case for case in planned if watch.takes(case.id)]
        rounds += 1
    bad = watch.changed
    seen = [f"{_name(name)} {count} x ({watch.words[name]})" for name, count in bad.most_common()]
    tool = _TOOLS.get(pool.hello["backend"], "the maker's diagnosis")
    reason = (
        f"{bad.total()} of {runs} repetitions went wrong: {listed(seen, between='; ')}. Suspect memory,"
        f" heat or power, and run {tool}"
    )
    compared = f"{len(watch.first)} of {len(stress_cases(tier))} cases compared"
    return CheckResult(
        id=ID, check=ID, family="determinism", operation="stress", params={}, layout="contiguous", precision="exact",
        dtype="exact", mode="strict", status=Status.FAIL if bad else Status.PASS, reason=reason if bad else "",
        notes=(f"{runs} repetitions in {rounds} rounds and {minutes:g} minutes; {compared}",),
        numbers={"runs": float(runs), "rounds": float(rounds), "changed": float(bad.total())},
        ms=round((time.monotonic() - begin) * 1e3, 3),
    )  # fmt: skip


class _Watch:
    """Compares the bits of each result with those of the first time."""

    def __init__(self) -> None:
        self.first: dict[str, tuple[str, ...]] = {}
        self.changed: Counter[str] = Counter()
        self.words: dict[str, str] = {}
        """What was wrong the first time that something was."""
        self._varied: Counter[str] = Counter()

    def takes(self, case_id: str) -> bool:
        """Return whether to repeat a case: not when it never gave the same bits twice."""
        return self._varied[case_id] < _TRIES

    def see(self, result: CheckResult) -> None:
        """Compare with the first time, or keep it as that."""
        name = result.id
        varying = ", ".join(f"{how}: {what}" for how, what in result.determinism.items() if what != "bitwise")
        digest = tuple(part.sha256 for part in result.parts)
        if result.status is Status.FAIL:
            self._note(name, result.reason)
        elif result.status is Status.SKIP:
            self._varied[name] = _TRIES
        elif name not in self.first and varying:
            self._varied[name] += 1  # an operation on torch's list, or a fault that comes and goes: the next time tells
            self.words.setdefault(name, f"other bits, {varying}")
        elif name not in self.first:
            self.first[name] = digest
            if self._varied[name]:
                self._note(name, f"other bits, {varying}")
        elif varying or digest != self.first[name]:
            self._note(name, f"other bits, {varying}" if varying else "other bits than in the first round")

    def _note(self, name: str, words: str) -> None:
        self.changed[name] += 1
        self.words.setdefault(name, words)


def _name(case_id: str) -> str:
    return case_id.partition("/stress-")[2].partition("/")[0]
