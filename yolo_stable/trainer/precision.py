"""Precision policy: the next safer precision when the current one overflows."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from ..checkpoints.trainer_view import TrainerView


@dataclass(frozen=True, slots=True)
class Precision:
    """A precision and its settings in Ultralytics' loop."""

    name: str
    amp: bool
    """``trainer.amp``."""
    argument: str | bool
    """``trainer.args.amp``."""


BFLOAT16 = Precision("bfloat16", amp=True, argument="bf16")
FLOAT32 = Precision("float32", amp=False, argument=False)


class PrecisionPolicy:
    """Chooses the next safer precision.

    Args:
        trainer: Read for the precision of now and the device.
    """

    def __init__(self, trainer: TrainerView) -> None:
        self._trainer = trainer
        self.was_lowered = False
        """Whether the precision was lowered in this run."""

    def available(self) -> int:
        """Return the number of precisions left to try, with the current one."""
        following = self._next()
        return 1 if following is None else 3 if following is BFLOAT16 else 2

    def lower(self) -> Precision | None:
        """Return the precision to compute in from the next batch on; None when it is float32 already."""
        following = self._next()
        self.was_lowered |= following is not None
        return following

    def _next(self) -> Precision | None:
        if not self._trainer.amp:
            return None
        halves = self._trainer.args.amp != "bf16" and supports_bfloat16(self._trainer.device)
        return BFLOAT16 if halves else FLOAT32


def supports_bfloat16(device: torch.device) -> bool:
    """Return whether a device supports autocast to bfloat16.

    Ultralytics has it on CUDA and ROCm only, and only where it is native (from Ampere on).
    """
    return device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)
