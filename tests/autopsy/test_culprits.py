from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from autopsy_rig import Provenance, Source, boxes, mosaic
from torch import Tensor, nn

from yolo_stable.autopsy.batch_case import BatchCase
from yolo_stable.autopsy.culprits import Culprit, Culprits
from yolo_stable.autopsy.inspection import bad_pixels
from yolo_stable.autopsy.replay import Deadline, Replayer
from yolo_stable.autopsy.report import Sample
from yolo_stable.autopsy.symptom import Symptom
from yolo_stable.autopsy.twin import other_weights

WHOLE = ((0.0, 0.0), (64.0, 0.0), (64.0, 64.0), (0.0, 64.0))
LEFT = ((0.0, 0.0), (32.0, 0.0), (32.0, 64.0), (0.0, 64.0))


def too_bright(model: nn.Module, batch: Any, precision: str | None) -> tuple[Tensor, Mapping[str, Any]]:
    """Breaks when a pixel is above 1."""
    return (batch["img"].amax() * 60).exp() * 0 + model(batch["img"].mean((2, 3))).sum(), {}


def culprits(provenance: list[Provenance], sizes: tuple[int, ...] = (2, 2)) -> Culprits:
    case = BatchCase(nn.Linear(3, 1), boxes(sizes), too_bright)
    return Culprits(case, provenance, Replayer(Symptom(), Deadline(None)))


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


def test_pixels_on_the_edge_of_a_tile_name_the_file_behind_it_alone() -> None:
    found = culprits([mosaic(0)], (2,))
    found.case.images[0, :, 10:20, 12:33] = float("nan")  # one column further than the upper left tile reaches
    (culprit,) = found.by_pixels(bad_pixels(found.case))
    assert culprit.sources == (0,)
    found.case.images[0, :, 10:20, 12:33] = 4.0
    _, (culprit,) = found.by_replay((0,), labels=False)
    assert culprit.sources == (0,)


def test_a_file_in_two_guilty_images_is_named_and_no_other() -> None:
    shared = Provenance((*mosaic(1).sources[:3], Source("data/img_002.jpg", 2, mosaic(1).sources[3].region)))
    found = culprits([mosaic(0), shared, mosaic(2)], (2, 2, 2))
    found.case.images[0, :, 40:50, 10:20] = found.case.images[1, :, 40:50, 40:50] = 4.0
    _, guilty = found.by_replay((0, 1), labels=False)
    assert guilty == (Culprit(0, (2,)), Culprit(1, (3,)))
    assert {s.path for s in found.named(guilty, labels=False)[0]} == {"data/img_002.jpg"}


def test_a_file_that_a_mosaic_has_drawn_twice_is_told_from_the_others() -> None:
    tiles = mosaic(0).sources
    found = culprits([Provenance((tiles[0], tiles[1], tiles[2], replace(tiles[3], path=tiles[0].path)))], (2,))
    found.case.images[0, :, 10:20, 10:20] = found.case.images[0, :, 40:50, 40:50] = (
        4.0  # grey in one of them heals nothing
    )
    _, (culprit,) = found.by_replay((0,), labels=False)
    assert culprit.sources == (0, 3)
    assert {sample.path for sample in found.named([culprit], labels=False)[0]} == {tiles[0].path}


def test_an_image_is_not_guilty_when_any_other_breaks_alone_as_well() -> None:
    def always(model: nn.Module, batch: Any, precision: str | None) -> tuple[Tensor, Mapping[str, Any]]:
        return model(batch["img"].mean((2, 3))).sum() / 0, {}

    case = BatchCase(nn.Linear(3, 1), boxes((2, 2)), always)
    found = Culprits(case, [mosaic(0), mosaic(1)], Replayer(Symptom(), Deadline(None)))
    finding, guilty = found.by_replay((1,), labels=False)
    assert finding.every
    assert guilty == ()


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
