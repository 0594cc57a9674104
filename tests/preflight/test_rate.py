"""The sweep of the learning rate: what the loss is measured against."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from assigning import ANCHORS, CORNERS
from torch import Tensor
from ultralytics.utils.tal import TaskAlignedAssigner

from yolo_stable.preflight.rate import LEAST_FOUND, _whole_loss


class Detector:
    """Stands in for a subject: a loss of 0.3, and what an assigner makes of boxes that lie so far beside an object."""

    def __init__(self, beside: float) -> None:
        self.predicted = CORNERS[:, :1].expand(1, 64, -1).clone()
        self.predicted[..., ::2] += beside

    def run(self, part: Any) -> tuple[Tensor, dict[str, Any]]:
        scores, labels, mask = torch.full((1, 64, 1), 0.9), torch.zeros(1, 1, 1), torch.ones(1, 1, 1)
        TaskAlignedAssigner(num_classes=1)(scores, self.predicted, ANCHORS, labels, CORNERS[:, :1], mask)
        return torch.tensor(0.3), {}


@pytest.mark.parametrize(("beside", "loss"), [(0.0, 0.3), (10.0, 0.3 / 0.4937), (60.0, 0.3 / LEAST_FOUND)])
def test_the_start_of_a_detector_that_finds_little_is_as_if_it_found_all(beside: float, loss: float) -> None:
    subject: Any = Detector(beside)
    assert _whole_loss(subject, None) == pytest.approx(loss, rel=1e-3)
