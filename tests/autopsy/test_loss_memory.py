"""A loss whose memory is ruined: named, when the batch is healthy with another number in its place."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from yolo_stable.autopsy import Symptom, examine
from yolo_stable.autopsy.case import TensorCase
from yolo_stable.autopsy.loss_memory import mend

NAN, INF = math.nan, math.inf


class Loss:
    """Weighs by a mean, and remembers its smallest loss, which begins at infinity."""

    def __init__(self, mean: Any) -> None:
        self.mean, self.smallest = mean, INF
        self.by_name: dict[str, Any] = {"iou": [1.0]}

    def __call__(self, raw: Tensor) -> Tensor:
        self.smallest = min(self.smallest, float(raw.detach()))
        return raw / (1.0 + self.mean) * self.by_name["iou"][0]


def case(loss: Loss) -> TensorCase:
    torch.manual_seed(3)
    model: Any = nn.Sequential(nn.Linear(3, 4), nn.SiLU(), nn.Linear(4, 1))
    model.criterion = loss

    def forward(network: Any, batch: Any, precision: str | None) -> tuple[Tensor, dict[str, Any]]:
        value = network.criterion((network(batch[0]) - batch[1]).square().mean())
        return value, {}

    return TensorCase(model, (torch.ones(4, 3), torch.zeros(4, 1)), forward)


def test_a_mean_that_is_nan_is_named_and_stays_as_it_was() -> None:
    loss = Loss(NAN)
    found = examine(case(loss), Symptom(loss=NAN, reason="loss nan"))
    assert found.reproduced
    assert found.cause == "weights"
    assert found.evidence["memory"] == "the loss's `mean` was not finite", (
        "not the smallest loss, which has yet to come"
    )
    assert found.samples == ()
    assert "finite numbers only" in found.next
    assert math.isnan(loss.mean)
    assert loss.smallest == INF


def test_infinity_for_not_yet_is_not_to_blame() -> None:
    """The weights overflow, and with another number for the smallest loss they still do."""
    loss = Loss(1.0)
    sick = case(loss)
    with torch.no_grad():
        sick.model[0].weight.fill_(1e6)  # type: ignore[index, union-attr]
        sick.batch[0].mul_(1e3)
        sick.model[2].weight.fill_(1e30)  # type: ignore[index, union-attr]
    found = examine(sick, Symptom(loss=INF, reason="loss inf"))
    assert found.reproduced
    assert "memory" not in found.evidence


def test_every_number_that_is_not_finite_is_mended() -> None:
    loss = Loss(torch.tensor([1.0, NAN]))
    loss.by_name["iou"] = [1.0, -INF]
    made: Any = loss
    made.array = np.array([2.0, NAN])
    model: Any = nn.Linear(1, 1)
    model.criterion = loss
    assert sorted(mend(model)) == ["array", "by_name['iou'][1]", "mean", "smallest"]
    assert (loss.mean.tolist(), made.array.tolist(), loss.smallest) == ([1.0, 1.0], [2.0, 1.0], 1.0)
    assert loss.by_name == {"iou": [1.0, 1.0]}
    assert mend(model) == ()
