from __future__ import annotations

import torch
from torch import nn

from yolo_stable.guard.wrappers import unwrap


def test_wrappers_are_looked_through() -> None:
    model = nn.Linear(1, 1)
    assert unwrap(model) is model
    assert unwrap(nn.DataParallel(model)) is model
    assert unwrap(torch.compile(model)) is model  # type: ignore[arg-type]
    inner = nn.Module()
    inner.module = model  # an attribute that happens to be called so
    assert unwrap(inner) is inner
