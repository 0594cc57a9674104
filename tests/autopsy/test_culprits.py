from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from autopsy_rig import Provenance, Source, boxes, mosaic
from torch import Tensor, nn

from yolo_stable.autopsy.batch_case import BatchCase
from yolo_stable.autopsy.culprits import Culprit, Culprits
from yolo_stable.autopsy.inspection import bad_pixels
from yolo_stable.autopsy.other_weights import other_weights
from yolo_stable.autopsy.replay import Deadline, Player
from yolo_stable.autopsy.report import Sample
from yolo_stable.autopsy.symptom import Symptom

WHOLE = ((0.0, 0.0), (64.0, 0.0), (64.0, 64.0), (0.0, 64.0))
LEFT = ((0.0, 0.0), (32.0, 0.0), (32.0, 64.0), (0.0, 64.0))


def too_bright(model: nn.Module, batch: Any, precision: str | None) -> tuple[Tensor, Mapping[str, Any]]:
    """Breaks when a pixel is above 1."""
    return (batch["img"].amax() * 60).exp() * 0 + model(batch["img"].mean((2, 3))).sum(), {}


def culprits(provenance: list[Provenance], sizes: tuple[int, ...] = (2, 2)) -> Culprits:
    case = BatchCase(nn.Linear(3, 1), boxes(sizes), too_bright)
    return Culprits(case, provenance, Player(Symptom(), Deadline(None)))


def test_both_files_of_a_blend_are_named() -> None:
    sources = (Source("a.jpg", 0, LEFT), Source("b.jpg", 1, WHOLE, "mixup"), Source("c.jpg", 2, None, "mosaic"))
    both = Provenance(sources[:2])
    found = culprits([mosaic(0), both])
    found.case.images[1, 0, 5, 5] = 4.0
    finding, (culprit,) = found.by_replay((1,), labels=False)
    assert finding.guilty == (1,)
    assert culprit == Culprit(1, (0, 1))
    unknown = culprits([mosaic(0), Provenance(sources)])
    unknown.case.images[1, 0, 5, 5] = 4.0
    _, (culprit,) = unknown.by_replay((1,), labels=False)
    assert culprit == Culprit(1), "where one of them lies is not known: they are not told apart"
    assert [s.path for s in unknown.named([culprit], labels=True)[0]] == ["a.jpg", "b.jpg", "c.jpg"]


def test_only_the_file_below_the_pixel_is_named_when_the_other_does_not_reach_it() -> None:
    found = culprits([Provenance((Source("a.jpg", 0, LEFT), Source("b.jpg", 1, WHOLE, "mixup")))], (2,))
    found.case.images[0, 0, 5, 50] = float("nan")
    (culprit,) = found.by_pixels(bad_pixels(found.case))
    assert culprit.sources == (1,)


def test_label_rows_lead_to_their_files() -> None:
    found = culprits([mosaic(0, ((3, 5), (1, 0))), mosaic(1, ((2, 9), None))])
    named, tiles = found.named(found.by_labels([0, 2]), labels=True)
    assert named == (
        Sample("data/img_003.jpg", 3, (32, 32, 64, 64), 5),
        Sample("data/img_012.jpg", 12, (0, 32, 32, 64), 9),
    )
    assert tiles == ["4 of 4", "3 of 4"]
    assert [s.label_row for s in found.named(found.by_labels([0]), labels=False)[0]] == [None]
    assert len(found.named(found.by_labels([3]), labels=True)[0]) == 4, "whose label it is, is not known"


def test_other_weights_are_a_copy() -> None:
    model = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2))
    state = {"0.weight": torch.full((2, 2), 7.0)}
    drawn = torch.get_rng_state()
    assert other_weights(model, state).get_submodule("0").weight[0, 0] == 7.0  # type: ignore[index]
    fresh, again = other_weights(model, None), other_weights(model, None)
    assert all(torch.equal(a, b) for a, b in zip(fresh.parameters(), again.parameters(), strict=True))
    assert not torch.equal(fresh.get_parameter("0.weight"), model.get_parameter("0.weight"))
    assert torch.equal(drawn, torch.get_rng_state())
