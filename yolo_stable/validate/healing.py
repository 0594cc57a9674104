"""Healing: the search for settings under which failing checks pass, one at a time, each in a process of its own.

Environment variables are read when torch is imported: a process that has it cannot try others. Maintainers of drivers search like
this by hand (pytorch#102968, pytorch#178839).
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from ..errors import InvalidCallError
from .backend import BACKENDS, HealSetting
from .battery import find_case
from .gate import Status
from .pool import Pool
from .result import CheckResult, ValidationResult

SECONDS = 300.0
"""For the whole search: fourteen settings are known for ROCm, and a process needs some seconds to start."""
_CASE_SECONDS = 60.0
"""For one case under one setting: a kernel may have to be searched for or compiled."""
_SAMPLE = 12
"""Checks that each setting is tried on; the others are run under the settings that heal some of these."""


@dataclass(frozen=True, kw_only=True, slots=True)
class HealingTrial:
    """One setting that was tried."""

    setting: HealSetting
    passed: tuple[str, ...] = ()
    """Ids of the failing cases that pass under it."""
    tried: int = 0
    """How many cases were run under it."""
    problem: str = ""
    """Why it could not be tried."""


@dataclass(frozen=True, kw_only=True)
class Healing:
    """The outcome of a search."""

    chosen: tuple[HealSetting, ...] = ()
    """As few settings as heal all that can be healed, the one that heals most first."""
    heals: Mapping[str, HealSetting] = field(default_factory=dict)
    """The setting by id of the failing case, only where it was seen to pass."""
    vanished: tuple[str, ...] = ()
    """Cases that passed when run again with nothing changed: their failure is intermittent."""
    trials: tuple[HealingTrial, ...] = ()
    failing: int = 0
    """How many cases failed."""
    complete: bool = True
    """Whether the time was enough."""

    @property
    def line(self) -> str:
        """Return all that was chosen as one line that can be pasted; empty when nothing heals."""
        return "; ".join(setting.line for setting in self.chosen)

    @property
    def summary(self) -> str:
        """Return the outcome in one sentence; empty when nothing had failed."""
        if not self.failing:
            return ""
        words = []
        if self.chosen:
            words.append(f"{len(self.heals)} of {self.failing} failing checks pass with {self.line}")
        if self.vanished:
            words.append(f"{len(self.vanished)} passed when run again: the failure is intermittent")
        if not words:
            words.append(f"none of {len(self.trials)} settings heals any of {self.failing} failing checks")
        if not self.complete:
            words.append("the time ran out before all was tried")
        return "; ".join(words) + "."


def search(
    result: ValidationResult,
    device: str | None = None,
    *,
    inject: str | None = None,
    seconds: float = SECONDS,
    settings: Iterable[HealSetting] | None = None,
    progress: Callable[[str], None] | None = None,
) -> Healing:
    """Search for settings that heal what has failed; nothing of this process is changed.

    Args:
        result: Of ``validate``; device and fault are those that it was given.
        device: None: the one of the result.
        inject: The fault.
        seconds: For all of it; a trial that has begun is finished, but no case takes longer than a minute.
        settings: What is tried, in this order; None: what is known for the backend.
        progress: Told in words what is tried.
    """
    failing = [r.id for r in result.failed() if _can_run(r.id)]
    if not failing:
        return Healing()
    say = progress or (lambda _: None)
    tester = _Tester(device or _device_of(result), result.seed, inject, time.monotonic() + seconds)
    say(f"running {len(failing)} failing checks again, nothing changed")
    again = tester.run(None, failing)
    vanished = tuple(again.passed)
    failing = [name for name in failing if name not in vanished]
    sample = _one_of_each_check(failing)[:_SAMPLE]
    known = BACKENDS[result.backend].heals if settings is None else tuple(settings)
    possible = [setting for setting in known if not _in_force(setting, result.environment)]
    trials = []
    for setting in possible if sample else []:
        if tester.is_over:
            break
        say(f"trying {setting.name}")
        trials.append(tester.run(setting, sample))
        if len(trials[-1].passed) == len(sample):  # the later ones cost more speed
            break
    chosen, heals = [], {}
    for trial in sorted(trials, key=lambda t: -len(t.passed)):  # stable: of equal ones the first known
        if set(trial.passed) <= heals.keys():
            continue
        say(f"running the other failing checks with {trial.setting.name}")
        rest = [name for name in failing if name not in heals and name not in sample]
        passed = [*trial.passed, *(tester.run(trial.setting, rest).passed if rest and not tester.is_over else ())]
        chosen.append(trial.setting)
        heals |= {name: trial.setting for name in passed if name not in heals}
    return Healing(
        chosen=tuple(chosen), heals=heals, vanished=vanished, trials=tuple(trials),
        failing=len(failing) + len(vanished), complete=len(heals) == len(failing) or not tester.is_over,
    )  # fmt: skip


def healed(result: ValidationResult, healing: Healing) -> ValidationResult:
    """Return the result with the settings that heal its checks; verdicts stay as they are."""

    def add(check: CheckResult) -> CheckResult:
        if check.id in healing.heals:
            return replace(check, heal=healing.heals[check.id].line)
        if check.id in healing.vanished:
            return replace(check, notes=(*check.notes, "passed when run again in a new process"))
        return check

    return replace(result, results=tuple(add(check) for check in result.results))


class _Tester:
    """Runs cases under a setting until the time is over."""

    def __init__(self, device: str, seed: int, inject: str | None, end: float) -> None:
        self._how: dict[str, Any] = {"seed": seed, "inject": inject}
        self._device, self._end = device, end

    @property
    def is_over(self) -> bool:
        return time.monotonic() >= self._end

    def run(self, setting: HealSetting | None, ids: list[str]) -> HealingTrial:
        """Run cases in a new process; a device that cannot be used under a setting is not healed by it."""
        chosen = setting or HealSetting(name="nothing changed")
        passed, tried, problem = [], 0, ""
        how = {**self._how, "settings": {"env": dict(chosen.env), "flags": dict(chosen.flags)}}
        try:
            with Pool(self._device, **how, seconds=_CASE_SECONDS) as pool:
                for name in ids:
                    if self.is_over:
                        break
                    tried += 1
                    if pool.run(find_case(name)).status in (Status.PASS, Status.WARN):
                        passed.append(name)
        except InvalidCallError as error:
            problem = str(error)
        return HealingTrial(setting=chosen, passed=tuple(passed), tried=tried, problem=problem)


def _device_of(result: ValidationResult) -> str:
    return result.device.replace("cuda", result.backend, 1) if result.device.startswith("cuda") else result.device


def _can_run(name: str) -> bool:
    """Return whether a result is of a case that can be run alone; the one of ``--stress`` cannot."""
    try:
        find_case(name)
    except InvalidCallError:
        return False
    return True


def _one_of_each_check(ids: list[str]) -> list[str]:
    """Return the ids with one of each check in front: layouts and precisions of one check often fail together."""
    first = {}
    for name in ids:
        first.setdefault("/".join(name.split("/")[:2]), name)
    return list(first.values())


def _in_force(setting: HealSetting, environment: Mapping[str, Any]) -> bool:
    """Return whether a setting changes nothing, as it is what the failing run had."""
    switches = environment.get("switches", {})
    same_env = all(os.environ.get(name, "") == value for name, value in setting.env.items())
    return same_env and all(switches.get(name, ...) == value for name, value in setting.flags.items())
