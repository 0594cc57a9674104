"""How much of its objects a detector finds: what the assigner says, by which its loss can be held against another one's."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from assigning import ANCHORS, CORNERS
from torch import Tensor
from ultralytics.cfg import get_cfg
from ultralytics.nn.tasks import DetectionModel
from ultralytics.utils.loss import v8DetectionLoss
from ultralytics.utils.tal import RotatedTaskAlignedAssigner, TaskAlignedAssigner

from yolo_stable.trainer.found import finding

CENTRES = torch.tensor([[[16.0, 16.0, 16.0, 16.0, 0.0], [48.0, 48.0, 16.0, 16.0, 0.0]]])
"""The same as width, height and angle."""
ASSIGNERS = {TaskAlignedAssigner: CORNERS, RotatedTaskAlignedAssigner: CENTRES}


def assign(kind: Any, predicted: Tensor, score: float, objects: Tensor, mask: Tensor) -> None:
    """Let an assigner match objects to what is predicted at 64 anchors, of one class."""
    kind(topk=10, num_classes=1)(
        torch.full((1, 64, 1), score), predicted, ANCHORS, torch.zeros(*mask.shape), objects, mask
    )


@pytest.mark.parametrize("kind", ASSIGNERS)
class TestShare:
    def at_all(self, kind: Any, which: int) -> Tensor:
        """Return boxes that lie on the same object at all anchors."""
        return ASSIGNERS[kind][:, which : which + 1].expand(1, 64, -1).clone()

    def test_who_finds_an_object_has_the_whole_loss(self, kind: Any) -> None:
        with finding() as found:
            assign(kind, self.at_all(kind, 0), 0.9, ASSIGNERS[kind], torch.ones(1, 2, 1))
        assert found.share.item() == 1.0

    def test_who_finds_none_has_nothing_of_it(self, kind: Any) -> None:
        nowhere = torch.zeros_like(self.at_all(kind, 0))
        with finding() as found:
            assign(kind, nowhere, 0.9, ASSIGNERS[kind], torch.ones(1, 2, 1))
        assert found.share.item() == pytest.approx(0.0, abs=1e-3)

    def test_who_finds_a_part_has_that_part_of_it(self, kind: Any) -> None:
        shifted, right = self.at_all(kind, 0), 10.0 if kind is TaskAlignedAssigner else 14.0
        shifted[..., 0] += right
        if kind is TaskAlignedAssigner:
            shifted[..., 2] += right
        shares = []
        for score in (0.9, 0.1):
            with finding() as found:
                assign(kind, shifted, score, ASSIGNERS[kind][:, :1], torch.ones(1, 1, 1))
            shares.append(found.share.item())
        assert shares[0] == pytest.approx(shares[1], rel=0.01), "how sure it is does not matter"
        assert shares[0] == pytest.approx({10.0: 0.4937, 14.0: 0.6945}[right], abs=1e-3)

    @pytest.mark.parametrize("objects", [0, 2], ids=["no boxes", "boxes that are padding"])
    def test_backgrounds_count_whole(self, kind: Any, objects: int) -> None:
        with finding() as found:
            assign(kind, self.at_all(kind, 0), 0.9, ASSIGNERS[kind][:, :objects], torch.zeros(1, objects, 1))
        assert found.share.item() == 1.0

    def test_of_two_assigners_the_one_that_finds_less_counts(self, kind: Any) -> None:
        with finding() as found:
            for predicted in (self.at_all(kind, 0), torch.zeros_like(self.at_all(kind, 0))):
                assign(kind, predicted, 0.9, ASSIGNERS[kind], torch.ones(1, 2, 1))
        assert found.share.item() == pytest.approx(0.0, abs=1e-3)

    def test_what_is_assigned_later_is_not_heard(self, kind: Any) -> None:
        with finding() as found:
            pass
        assign(kind, torch.zeros_like(self.at_all(kind, 0)), 0.9, ASSIGNERS[kind], torch.ones(1, 2, 1))
        assert found.share.item() == 1.0


def test_without_an_assigner_it_is_the_whole() -> None:
    with finding() as found:
        torch.nn.Linear(2, 2)(torch.ones(1, 2))
    assert found.share.item() == 1.0


@pytest.mark.parametrize("network", ["yolov8n.yaml", "yolo26n.yaml"])
def test_the_loss_of_a_network_that_finds_next_to_nothing_is_that_share_of_the_whole(
    network: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.manual_seed(0)
    model: Any = DetectionModel(network, nc=1, verbose=False).train()
    model.args = get_cfg()
    batch = {
        "img": torch.rand(1, 3, 64, 64),
        "cls": torch.zeros(2, 1),
        "bboxes": torch.tensor([[0.25, 0.25, 0.25, 0.25], [0.75, 0.75, 0.25, 0.25]]),
        "batch_idx": torch.zeros(2),
    }
    with finding() as found, torch.no_grad():
        clamped = model(batch)[0].sum()
    share = found.share
    assert 0.0 < share.item() < 1.0, "a fresh network finds little"
    clamp = Tensor.clamp_
    monkeypatch.setattr(Tensor, "clamp_", lambda self, *a, **k: self if k == {"min": 1} else clamp(self, *a, **k))
    with torch.no_grad():
        whole = model(batch)[0].sum()
    assert isinstance(getattr(model.criterion, "one2many", model.criterion), v8DetectionLoss)
    if network == "yolov8n.yaml":
        assert (whole * share).item() == pytest.approx(clamped.item(), rel=1e-4)
    else:
        assert whole.item() > clamped.item(), "each of two losses has a share of its own"
