"""What an image looks like, by known pictures."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from yolo_stable.check.pixels import look_at


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
    assert look.sharp == pytest.approx(sharp)
    assert look.bright == 200.0
