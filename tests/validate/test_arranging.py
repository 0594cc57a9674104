"""Layouts and broadcasts of covering arrays: the numbers are the same, and they really lie otherwise."""

from __future__ import annotations

import pytest
import torch

from yolo_stable.validate.operations.arranging import BROADCASTS, LAYOUTS, SHAPES, arranged, shapes, tiled

X = torch.arange(2 * 3 * 4 * 5.0).view(2, 3, 4, 5)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_layout_changes_where_numbers_lie_and_not_what_they_are(layout: str) -> None:
    t = arranged(X, layout)
    assert torch.equal(t, X[:1].expand(2, 3, 4, 5) if layout == "expanded" else X)
    strides = {"plain": (60, 20, 5, 1), "channels_last": (60, 1, 15, 3), "turned": (60, 20, 1, 4), "gaps": (120, 40, 10, 2),
               "offset": (60, 20, 5, 1), "expanded": (0, 20, 5, 1)}  # fmt: skip
    assert t.stride() == strides[layout]
    assert t.storage_offset() == (3 if layout == "offset" else 0)


@pytest.mark.parametrize("broadcast", BROADCASTS)
@pytest.mark.parametrize("size", SHAPES)
def test_two_operands_give_the_shape_that_was_asked_for(broadcast: str, size: str) -> None:
    a, b = shapes(SHAPES[size], broadcast)
    assert torch.broadcast_shapes(a, b) == SHAPES[size] or broadcast == "crossed"
    assert size in ("one", "line") or (a == b) == (broadcast == "none")


def test_tiling_repeats_numbers_in_their_order() -> None:
    assert tiled(torch.tensor([1, 2, 3]), 2, 4).tolist() == [[1, 2, 3, 1], [2, 3, 1, 2]]
    assert tiled(torch.tensor([5, 6])).item() == 5
