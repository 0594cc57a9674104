"""What an image looks like, by known pictures."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from yolo_stable.check.finding import DataFinding
from yolo_stable.check.header import Header
from yolo_stable.check.pixels import light_and_edges, look_at, look_into


def stripes(ramp: int) -> np.ndarray:
    """Return stripes of 16 pixels, each of which rises and falls over some pixels: ``(96, 96)`` uint8."""
    places = np.arange(96) % 32
    up = np.clip((places + 1) / ramp, 0, 1)
    down = np.clip((places - 15) / ramp, 0, 1)
    return np.tile((200 * (up - down)).clip(0, 200).astype(np.uint8), (96, 1))


@pytest.mark.parametrize(("ramp", "sharp"), [(1, 1.0), (2, 0.5), (4, 0.25)])
@pytest.mark.parametrize("turned", [False, True])
def test_an_edge_is_as_sharp_as_its_steepest_step(ramp: int, sharp: float, turned: bool) -> None:
    pixels = stripes(ramp)
    look = look_at(Image.fromarray(np.ascontiguousarray(pixels.T) if turned else pixels))
    assert [one.tolist() for one in light_and_edges([look.grey])] == [[200.0], pytest.approx([sharp])]


def test_pictures_of_several_sizes_are_measured_each_by_itself() -> None:
    dice = np.random.default_rng(0)
    pictures = [
        dice.integers(0, 256, (64, 80), np.uint8), np.zeros((4, 3), np.uint8), stripes(2), stripes(1)[:64, :80],
        dice.integers(90, 120, (64, 80), np.uint8),
    ]  # fmt: skip
    together = np.stack(light_and_edges(pictures), axis=1)
    alone = np.concatenate([np.stack(light_and_edges([picture]), axis=1) for picture in pictures])
    assert together.tolist() == alone.tolist()
    for picture, (bright, _) in zip(pictures, together, strict=True):
        assert (picture >= bright).mean() >= 0.01 > (picture > bright).mean()
    assert together[1].tolist() == [0.0, 1.0], "where nothing is steep nothing is blurred"
    assert light_and_edges([])[0].shape == (0,)


def test_a_fine_pattern_is_not_of_one_colour_though_its_small_copy_is() -> None:
    chequered = (np.indices((64, 64)).sum(0) % 2 * 200).astype(np.uint8)
    findings: list[DataFinding] = []
    look = look_into("fine.png", Header(picture=Image.fromarray(chequered)), findings)
    assert look is not None
    assert len(set(look.small)) == 1
    assert findings == []
    assert look_into("flat.png", Header(picture=Image.new("L", (64, 64), 90)), findings) is None
    assert [finding.rule.id for finding in findings] == ["image-constant"]
