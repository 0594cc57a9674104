from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from yolo_stable.incidents.forward import AMP, forward_of, precision_of


@pytest.mark.parametrize(("precision", "dtype"), [("float32", torch.float32), *list(AMP.items())[1:]])
def test_a_replay_on_the_cpu_has_the_precision_of_the_training(precision: str, dtype: torch.dtype) -> None:
    seen: list[Any] = []

    class Watch(nn.Module):
        def forward(self, batch: Any) -> Any:
            seen.append(torch.mm(batch, batch).dtype)
            return batch, {}

    begun: list[int] = []
    forward = forward_of(precision, torch.device("cpu"), lambda: begun.append(1))
    forward(Watch(), torch.ones(2, 2), None)
    forward(Watch(), torch.ones(2, 2), "float32")
    assert seen == [dtype, torch.float32]
    assert len(begun) == 2, "the generators are set before each"


@pytest.mark.parametrize(
    ("amp", "asked", "name"),
    [(False, True, "float32"), (True, True, "float16"), (True, "bf16", "bfloat16"), (False, "bf16", "float32")],
)
def test_the_precision_has_a_name(amp: bool, asked: Any, name: str) -> None:
    assert precision_of(amp, asked) == name
