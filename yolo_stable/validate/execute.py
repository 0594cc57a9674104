"""Executor: runs cases on a machine and judges the results."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from importlib import import_module
from typing import Any

from .check import CheckCase
from .evidence import CheckEvidence, KernelMissingError, conclude
from .golden import Golden
from .hashed import HashedDraw
from .machine import Machine
from .recipe import Recipe, run_recipe
from .result import CheckResult

Procedure = Callable[..., CheckEvidence]
"""Takes machine, case and draw; in the families of trainings the references as well."""
_WITH_GOLDEN = ("step", "short")
_TYPES = {
    "float16": re.compile(r"\b(half|float16|fp16|f16)\b", re.IGNORECASE),
    "bfloat16": re.compile(r"\b(bfloat16|bf16)\b", re.IGNORECASE),
}
_REFUSED = re.compile(
    r"not implemented for|not supported|unsupported|does not support|(only|is) supported on|needs the cpu support",
    re.IGNORECASE,
)
"""Torch's words on the CPU, CUDA, MPS and XPU where a type has no kernel."""


class Executor:
    """Runs cases on a machine, one after another, and keeps what the next one may need."""

    def __init__(self, machine: Machine, seed: int = 0, *, recompute_reference: bool = False) -> None:
        self.machine, self.seed = machine, seed
        self._golden: Golden | None = None
        self._recompute = recompute_reference
        self._memory: dict[Any, Any] = {}
        self._recipe: tuple[str, Recipe] | None = None
        self._draw = HashedDraw("")
        """Of the last check, whose layouts and precisions follow each other with the same inputs."""

    @property
    def golden(self) -> Golden:
        """Return the references of trainings."""
        if self._golden is None:
            self._golden = Golden(self.seed, recompute=self._recompute)
        return self._golden

    def run(self, case: CheckCase) -> CheckResult:
        """Run a case; an operation that raises has failed, unless the device lacks the type or the kernel."""
        start = time.perf_counter()
        try:
            evidence = self._evidence(case)
        except (RuntimeError, ValueError, TypeError, AttributeError, LookupError, AssertionError,
                ArithmeticError, MemoryError, ImportError, OSError) as error:  # fmt: skip
            message = " ".join(str(error).split())[:300]
            if isinstance(error, KernelMissingError):
                evidence = CheckEvidence(skip=message)
            elif lacks_type(case.precision, message):
                evidence = CheckEvidence(skip=f"no {case.precision} here: {message}")
            else:
                evidence = CheckEvidence(problems=[f"{type(error).__name__}: {message}"])
        result = conclude(case, evidence)
        return replace(result, ms=round((time.perf_counter() - start) * 1e3, 3))

    def _evidence(self, case: CheckCase) -> CheckEvidence:
        key = f"{self.seed}/{case.check.id}"
        draw = self._draw = self._draw if self._draw.key == key else HashedDraw(key)
        if case.precision == "configured" and not self.machine.reduced():
            return CheckEvidence(skip="nothing reduces float32 here: the same as strict")
        operations = import_module(f".operations.{case.check.family}", __package__)
        procedures: Mapping[str, Procedure] = getattr(operations, "PROCEDURES", {})
        if case.check.operation in procedures:
            procedure = procedures[case.check.operation]
            if case.check.family in _WITH_GOLDEN:
                return procedure(self.machine, case, draw, self.golden)
            return procedure(self.machine, case, draw)
        if self._recipe is None or self._recipe[0] != case.check.id:
            self._recipe = case.check.id, operations.RECIPES[case.check.operation](case.check.params, draw)
        return run_recipe(self._recipe[1], self.machine, case, draw, self._memory)


def lacks_type(precision: str, message: str) -> bool:
    r"""Return whether a message says that the device, or this torch on it, lacks the type of a precision.

    Float32 and integers are never lacking.

    Examples:
        >>> lacks_type("float16", "\"addmm_impl_cpu_\" not implemented for 'Half'")
        True
        >>> lacks_type("float16", "BFloat16 is not supported on MPS"), lacks_type("strict", "float16 is not supported")
        (False, False)
    """
    type_name = _TYPES.get(precision)
    return type_name is not None and bool(type_name.search(message)) and bool(_REFUSED.search(message))
