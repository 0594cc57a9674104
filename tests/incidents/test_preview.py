from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from yolo_stable.incidents.preview import preview

NAN, INF = math.nan, math.inf
MAGENTA, YELLOW, RED = (255, 0, 255), (0, 235, 255), (40, 40, 255)


@dataclass(frozen=True)
class Part:
    """What a picture needs to know about a source."""

    path: str
    region: tuple[tuple[float, float], ...] | None


@dataclass(frozen=True)
class Parts:
    sources: tuple[Part, ...]


def quarter(x: float, y: float) -> tuple[tuple[float, float], ...]:
    return ((x, y), (x + 32, y), (x + 32, y + 32), (x, y + 32))


MOSAIC = Parts(
    (
        Part("/data/a.jpg", quarter(0, 0)),
        Part("C:\\data\\b.jpg", quarter(32, 0)),
        Part("c.jpg", quarter(0, 32)),
        Part("d.jpg", None),
    )
)


def grey(*shape: int) -> dict[str, Any]:
    return {"img": torch.full(shape, 0.5)}


def with_boxes(boxes: list[list[float]], classes: list[float], channels: int = 3) -> dict[str, Any]:
    owner = torch.zeros(len(boxes))
    return {
        **grey(1, channels, 64, 64),
        "bboxes": torch.tensor(boxes),
        "cls": torch.tensor(classes)[:, None],
        "batch_idx": owner,
    }


def picture(batch: dict[str, Any], sample: int = 0, **options: Any) -> NDArray[np.uint8]:
    content = preview(batch, sample, **options)
    assert content[:3] == b"\xff\xd8\xff"
    shown = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_COLOR)
    assert shown is not None
    return shown.astype(np.uint8)


def near(shown: NDArray[np.uint8], colour: tuple[int, int, int], reach: int = 60) -> int:
    """Return how many pixels are nearly of a colour; a JPEG keeps none exactly."""
    return int((np.abs(shown.astype(int) - colour).max(2) < reach).sum())


class TestPixels:
    @pytest.mark.parametrize("number", [NAN, INF, -INF])
    def test_one_that_is_not_finite_is_seen_in_a_large_image(self, number: float) -> None:
        batch = grey(2, 3, 640, 640)
        assert near(picture(batch, 1), MAGENTA) == 0
        batch["img"][1, 2, 300, 200] = number
        assert near(picture(batch, 1), MAGENTA) > 200
        assert near(picture(batch, 0), MAGENTA) == 0

    def test_one_that_is_huge_is_seen_and_no_overflow(self) -> None:
        batch = grey(1, 3, 64, 64)
        batch["img"][0, :, 10, 10] = 1e30
        batch["img"][0, :, 30, 30] = -1e38
        assert near(picture(batch), YELLOW) > 200

    def test_what_an_augmentation_leaves_slightly_outside_is_clipped_silently(self) -> None:
        assert near(picture({"img": torch.full((1, 3, 64, 64), 1.2)}), YELLOW) == 0

    @pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
    def test_any_kind_of_numbers(self, dtype: torch.dtype) -> None:
        batch = {"img": torch.full((1, 3, 64, 64), 0.5).to(dtype)}
        assert abs(int(picture(batch)[-100, 100, 0]) - 128) <= 3

    def test_bytes(self) -> None:
        assert abs(int(picture({"img": torch.full((1, 3, 64, 64), 200, dtype=torch.uint8)})[-100, 100, 0]) - 200) <= 3

    def test_red_is_red(self) -> None:
        batch = {"img": torch.tensor([1.0, 0.0, 0.0]).reshape(1, 3, 1, 1).expand(1, 3, 64, 64)}
        assert near(picture(batch), (0, 0, 255)) > 100_000

    @pytest.mark.parametrize("channels", [1, 2, 3, 4, 7])
    def test_any_number_of_channels(self, channels: int) -> None:
        batch = grey(1, channels, 32, 32)
        batch["img"][0, -1, 5, 5] = NAN  # also in a channel that is not shown
        assert near(picture(batch), MAGENTA) > 200

    def test_all_of_them(self) -> None:
        assert near(picture({"img": torch.full((1, 3, 64, 64), NAN)}), MAGENTA) > 400_000

    @pytest.mark.parametrize("size", [(1, 1), (28, 28), (3000, 40), (40, 3000), (2500, 2500)])
    def test_small_images_are_enlarged_and_large_ones_made_smaller(self, size: tuple[int, int]) -> None:
        batch = grey(1, 3, *size)
        batch["img"][0, 0, -1, -1] = NAN
        shown = picture(batch)
        assert 400 <= max(shown.shape) <= 1800
        assert near(shown, MAGENTA) > 20


class TestBoxes:
    def test_a_box_is_where_it_is_said_to_be(self) -> None:
        shown = picture(with_boxes([[0.5, 0.5, 0.5, 0.25]], [0.0]))
        blue = np.argwhere(np.abs(shown.astype(int) - (255, 144, 30)).max(2) < 60)
        bar = shown.shape[0] - shown.shape[1]
        low, high = (blue - [bar, 0]).min(0) / shown.shape[1], (blue - [bar, 0]).max(0) / shown.shape[1]
        assert high[0] == pytest.approx(0.625, abs=0.02)
        assert (low[1], high[1]) == pytest.approx((0.25, 0.75), abs=0.02)

    def test_the_guilty_box_is_red(self) -> None:
        batch = with_boxes([[0.3, 0.3, 0.2, 0.2], [0.7, 0.7, 0.2, 0.2]], [0.0, 1.0])
        assert near(picture(batch), RED) == 0
        assert near(picture(batch, boxes=[1]), RED) > 500

    def test_boxes_of_other_images_are_not_drawn(self) -> None:
        batch = with_boxes([[0.5, 0.5, 0.5, 0.5]], [0.0])
        batch["batch_idx"] += 1
        assert near(picture(batch), (255, 144, 30)) == 0

    @pytest.mark.parametrize("number", [NAN, INF, -INF, 1e30, -1e9])
    @pytest.mark.parametrize("place", range(5))
    def test_any_number_in_a_label(self, number: float, place: int) -> None:
        row = [0.5, 0.5, 0.3, 0.3, 0.1]
        row[place] = number
        picture(with_boxes([row, [0.5, 0.5, 0.1, 0.1, 0.0]], [number, 3.5]), names={0: "a"}, boxes=[0, 7])

    def test_a_turned_box(self) -> None:
        flat = picture(with_boxes([[0.5, 0.5, 0.8, 0.1, 0.0]], [0.0]))
        turned = picture(with_boxes([[0.5, 0.5, 0.8, 0.1, math.pi / 2]], [0.0]))
        blue = (255, 144, 30)
        across, down = (np.ptp(np.argwhere(np.abs(s.astype(int) - blue).max(2) < 60), axis=0) for s in (flat, turned))
        assert across[1] > 2 * across[0]
        assert down[0] > 2 * down[1]

    def test_keypoints(self) -> None:
        batch = with_boxes([[0.5, 0.5, 0.9, 0.9]], [1.0])
        batch["keypoints"] = torch.tensor([[[0.2, 0.2, 2.0], [NAN, 0.5, 2.0], [0.5, 0.5, 0.0]]])
        assert near(picture(batch), (245, 245, 245)) > near(
            picture(with_boxes([[0.5, 0.5, 0.9, 0.9]], [1.0])), (245, 245, 245)
        )

    @pytest.mark.parametrize("names", [None, {0: "a", 3: "é" * 300}, ["x"], ("a", "b", "c", "d\x1b[2J")])
    def test_classification(self, names: Any) -> None:
        picture({**grey(2, 3, 32, 32), "cls": torch.tensor([1, 3])}, 1, names=names)

    def test_no_labels_at_all(self) -> None:
        picture(with_boxes([], []) | {"bboxes": torch.zeros(0, 4), "cls": torch.zeros(0, 1)})
        picture(grey(1, 3, 32, 32))


class TestTile:
    @pytest.mark.parametrize("tile", [1, (32.0, 0.0, 64.0, 32.0)])
    def test_the_guilty_tile_is_outlined_and_the_rest_dimmed(self, tile: Any) -> None:
        shown = picture(grey(1, 3, 64, 64), provenance=MOSAIC, tile=tile, title="Incident 0001")
        bar, width = shown.shape[0] - shown.shape[1], shown.shape[1]
        at = {
            (x, y): int(shown[bar + round(width * y), round(width * x), 0]) for x in (0.25, 0.75) for y in (0.25, 0.75)
        }
        assert at[0.75, 0.25] == pytest.approx(128, abs=3)
        assert all(at[place] == pytest.approx(58, abs=4) for place in ((0.25, 0.25), (0.25, 0.75), (0.75, 0.75)))
        red = np.argwhere(np.abs(shown.astype(int) - RED).max(2) < 60)
        assert (red[:, 1].min() / width, (red[:, 0].max() - bar) / width) == pytest.approx((0.5, 0.5), abs=0.02)

    def test_a_bad_pixel_outside_of_the_tile_is_not_dimmed(self) -> None:
        batch = grey(1, 3, 64, 64)
        batch["img"][0, 0, 60:, :4] = NAN
        assert near(picture(batch, provenance=MOSAIC, tile=0), MAGENTA) > 1500

    @pytest.mark.parametrize("tile", [None, 3, 4, -1, (NAN, 0, 1e30, INF)])
    def test_a_tile_that_is_not_known_or_no_tile(self, tile: Any) -> None:
        picture(grey(1, 3, 64, 64), provenance=MOSAIC, tile=tile)
        picture(grey(1, 3, 64, 64), tile=tile)


def test_the_batch_stays_as_it_is() -> None:
    batch = with_boxes([[0.5, 0.5, 0.5, 0.5]], [0.0])
    batch["img"][0, 0, 0, 0] = 1e30
    before = {key: value.clone() for key, value in batch.items()}
    picture(batch, provenance=MOSAIC, tile=0, boxes=[0])
    assert all(torch.equal(value, before[key]) for key, value in batch.items())
