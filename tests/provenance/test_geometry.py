from __future__ import annotations

from array import array

import cv2
import numpy as np
import pytest

from yolo_stable.provenance.geometry import Piece, holds, pieces

A = ("image", 0, 5, "a.jpg", 40, 20)
B = ("image", 1, 6, "b.jpg", 30, 30)


def only(recipe: tuple) -> Piece:
    (piece,) = pieces(recipe)
    return piece


def corners(piece: Piece) -> set[tuple[float, float]]:
    assert piece.polygons is not None
    return {(round(x, 6), round(y, 6)) for polygon in piece.polygons for x, y in polygon}


def test_a_file_fills_its_image() -> None:
    assert only(A) == Piece(0, 5, "a.jpg", "image", (((0, 0), (40, 0), (40, 20), (0, 20)),))


def test_a_tile_is_moved_and_cut() -> None:
    first, second = pieces(("mosaic", ((A, -10, -5, 0, 0, 30, 15), (B, 30, 0, 30, 0, 60, 15))))
    assert corners(first) == {(0, 0), (30, 0), (30, 15), (0, 15)}
    assert corners(second) == {(30, 0), (60, 0), (60, 15), (30, 15)}
    assert (first.how, second.how) == ("image", "mosaic")


def test_a_mirror_turns_one_axis() -> None:
    tile = ("mosaic", ((A, 0, 0, 0, 0, 10, 20),))
    assert corners(only(("mirror", tile, 0, 40))) == {(40, 0), (30, 0), (40, 20), (30, 20)}
    assert corners(only(("mirror", ("mosaic", ((A, 0, 0, 0, 0, 40, 5),)), 1, 20))) == {
        (0, 20),
        (40, 20),
        (0, 15),
        (40, 15),
    }


def test_a_letterbox_scales_and_pads() -> None:
    assert corners(only(("letterbox", A, 0.5, 0.5, 4, 6, 28, 22))) == {(4, 6), (24, 6), (24, 16), (4, 16)}


def test_a_warp_counts_from_the_centres_of_pixels_as_opencv_does() -> None:
    """Twice as large: the first pixel's centre stays where it is, at 0.5."""
    matrix = [2.0, 0, 0, 0, 2.0, 0, 0, 0, 1.0]
    assert corners(only(("warp", A, matrix, 100, 100))) == {(0, 0), (79.5, 0), (79.5, 39.5), (0, 39.5)}
    white = cv2.warpAffine(np.full((20, 40), 255, np.uint8), np.array(matrix).reshape(3, 3)[:2], dsize=(100, 100))
    assert (white[10] > 128).sum() == 79  # the 80th is half a pixel


def test_what_lies_outside_of_the_picture_is_in_no_polygon() -> None:
    assert only(("warp", A, [1.0, 0, 500, 0, 1.0, 0, 0, 0, 1.0], 50, 50)).polygons == ()


@pytest.mark.parametrize("tilt", [0.004, 0.02, 0.05])
def test_a_strong_perspective_is_what_opencv_draws_also_behind_the_horizon(tilt: float) -> None:
    matrix = np.array([[1, 0.1, -10], [0, 1, -15], [tilt, -tilt / 2, 1 - tilt * 20]])
    piece = only(("warp", ("image", 0, 0, "a", 100, 100), matrix.ravel().tolist(), 64, 48))
    drawn = cv2.warpPerspective(np.full((100, 100), 255, np.uint8), matrix, dsize=(64, 48), flags=cv2.INTER_NEAREST)
    assert piece.polygons
    far = [
        (x, y)
        for x in range(64)
        for y in range(48)
        if all(
            abs(cv2.pointPolygonTest(np.array(p, np.float32), (x + 0.5, y + 0.5), True)) > 1.5 for p in piece.polygons
        )
    ]
    assert len(far) > 1000
    for x, y in far:
        assert any(holds(p, x + 0.5, y + 0.5) for p in piece.polygons) == (drawn[y, x] > 0), (x, y)


def test_mixup_keeps_both_and_says_which_is_the_second() -> None:
    assert [
        (p.path, p.how) for p in pieces(("mixup", ("mosaic", ((A, 0, 0, 0, 0, 9, 9), (B, 0, 0, 0, 0, 9, 9))), B))
    ] == [
        ("a.jpg", "image"),
        ("b.jpg", "mosaic"),
        ("b.jpg", "mixup"),
    ]


def test_cutmix_cuts_the_second_to_the_rectangle() -> None:
    below, above = pieces(("cutmix", A, B, 5, 6, 15, 26))
    assert corners(below) == {(0, 0), (40, 0), (40, 20), (0, 20)}
    assert corners(above) == {(5, 6), (15, 6), (15, 26), (5, 26)}
    assert above.how == "cutmix"


def test_a_pasted_object_is_cut_out_of_what_lies_under_its_outline() -> None:
    donors = ("mosaic", ((A, 0, 0, 0, 0, 20, 20), (B, 20, 0, 20, 0, 40, 20)))
    outline = array("i", [10, 5, 30, 5, 30, 10, 10, 10]).tobytes()
    below, own, beside = pieces(("paste", ("image", 2, 7, "c.jpg", 40, 20), donors, ((9, 0, outline),)))
    assert below.path == "c.jpg"
    assert (own.path, own.serial, own.how) == ("a.jpg", 9, "copy_paste")
    assert corners(own) == {(10.5, 5.5), (20, 5.5), (20, 10.5), (10.5, 10.5)}
    assert (beside.path, beside.serial) == ("b.jpg", None)
    assert corners(beside) == {(20, 5.5), (30.5, 5.5), (30.5, 10.5), (20, 10.5)}


def test_what_went_through_something_unknown_is_nowhere() -> None:
    found = pieces(("warp", ("unknown", A, B), [1.0, 0, 0, 0, 1.0, 0, 0, 0, 1.0], 9, 9))
    assert [(p.path, p.how, p.polygons) for p in found] == [("a.jpg", "image", None), ("b.jpg", "unknown", None)]
    assert pieces(("unknown",)) == []


@pytest.mark.parametrize(
    "matrix",
    [
        [[1, 1, 10], [0, 1, 5], [0, 0, 1]],
        [[1, 0, 10], [1, 1, 5], [0, 0, 1]],
        [[0.8, -0.6, 30], [0.6, 0.8, 10], [0, 0, 1]],
        [[1, 0, 10], [0, 1, 5], [0.01, 0.02, 1]],
    ],
)
def test_a_warp_takes_a_corner_where_its_matrix_takes_the_point_half_a_pixel_before(matrix: list[list[float]]) -> None:
    taken = set()
    for x, y in ((0, 0), (40, 0), (40, 20), (0, 20)):
        right, down, depth = np.array(matrix) @ (x - 0.5, y - 0.5, 1)
        taken.add((round(right / depth + 0.5, 6), round(down / depth + 0.5, 6)))
    assert corners(only(("warp", A, np.ravel(matrix).tolist(), 100, 100))) == taken


@pytest.mark.parametrize(("dx", "dy"), [(20, 0), (-40, 0), (0, 20), (0, -20)])
def test_a_file_that_only_touches_a_tile_is_not_to_be_seen_in_it(dx: int, dy: int) -> None:
    assert only(("mosaic", ((A, dx, dy, 0, 0, 20, 20),))).polygons == ()
