"""Runs one case on a machine: finds the operation, hands it its inputs, judges what comes back."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from importlib import import_module
from typing import Any

from .check import Case
from .evidence import Evidence, conclude
from .gate import Status
from .golden import Golden
from .hashed import Draw
from .machine import Machine
from .recipe import LOW, Recipe, run_recipe
from .result import CheckResult

Procedure = Callable[..., Evidence]
"""Takes machine, case and draw; in the families of trainings the references as well."""
_WITH_GOLDEN = ("step", "short")


class Executor:
    """Runs cases one after another, and keeps what the next may need.

    Args:
        machine: Where.
        seed: Another one gives other inputs.
        recompute_reference: Compute the reference of trainings here instead of taking the shipped one.
    """

    def __init__(self, machine: Machine, seed: int = 0, *, recompute_reference: bool = False) -> None:
        self.machine, self.seed = machine, seed
        self._golden: Golden | None = None
        self._recompute = recompute_reference
        self._memory: dict[Any, Any] = {}

    @property
    def golden(self) -> Golden:
        """Return the references of trainings."""
        if self._golden is None:
            self._golden = Golden(self.seed, recompute=self._recompute)
        return self._golden

    def run(self, case: Case) -> CheckResult:
        """Run a case; an operation that raises has failed."""
        start = time.perf_counter()
        try:
            evidence = self._evidence(case)
        except (RuntimeError, ValueError, TypeError, NotImplementedError, AttributeError, LookupError, AssertionError,
                ArithmeticError, MemoryError, ImportError, OSError) as error:  # fmt: skip
            evidence = Evidence(problems=[f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"])
        result = conclude(case, evidence)
        return replace(result, ms=round((time.perf_counter() - start) * 1e3, 3))

    def _evidence(self, case: Case) -> Evidence:
        draw = Draw(f"{self.seed}/{case.check.id}")
        if case.precision == "configured" and not self.machine.reduced():
            return Evidence(skip="nothing reduces float32 here: the same as strict")
        operations = import_module(f".operations.{case.check.family}", __package__)
        procedures: Mapping[str, Procedure] = getattr(operations, "PROCEDURES", {})
        if case.check.operation in procedures:
            procedure = procedures[case.check.operation]
            if case.check.family in _WITH_GOLDEN:
                return procedure(self.machine, case, draw, self.golden)
            return procedure(self.machine, case, draw)
        recipe: Recipe = operations.RECIPES[case.check.operation](case.check.params, draw)
        try:
            return run_recipe(recipe, self.machine, case, draw, self._memory)
        except RuntimeError as error:
            if type(error).__name__ == "KernelMissing":
                return Evidence(skip=str(error))
            raise


def unsupported(result: CheckResult) -> bool:
    """Return whether a case failed only because the device has no such type."""
    lacks = ("not implemented for 'Half'", "not implemented for 'BFloat16'", "BFloat16 is not supported")
    return result.status is Status.FAIL and result.precision in LOW and any(text in result.reason for text in lacks)
