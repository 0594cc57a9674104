"""A layer of one's own, as the source of a module: it makes NaN in one of the training batches."""

from __future__ import annotations

_SOURCE = """
import torch


class Gate(torch.nn.Module):
    calls = 0

    def __init__(self, k=1):
        super().__init__()
        self.g = torch.nn.Parameter(torch.ones(1))

    def forward(self, x):
        if self.training:
            Gate.calls += 1
            if Gate.calls == BREAKS:
                x = x / (x * 0.0)
        return x * torch.sigmoid(self.g)
"""


def gate(breaks: int) -> str:
    """Return the source of a module with the layer ``Gate``, which breaks in that batch, counted from 1; 0: in none."""
    return _SOURCE.replace("BREAKS", str(breaks))
