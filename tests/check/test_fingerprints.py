"""Copies are found in each of the eight ways to turn and mirror them, and strangers are not."""

from __future__ import annotations

import numpy as np
import pytest

from yolo_stable.check.fingerprints import PARTNERS, TURNS, Fingerprints, apart, turned
from yolo_stable.check.likeness import likeness
from yolo_stable.check.pixels import SIDE


def clouds(seed: int, count: int = 1) -> np.ndarray:
    """Return small grey pictures with texture: ``(count, SIDE, SIDE)`` uint8."""
    coarse = np.random.default_rng(seed).integers(0, 256, (count, SIDE // 2, SIDE // 2), dtype=np.uint8)
    return coarse.repeat(2, axis=1).repeat(2, axis=2)


def test_the_eight_ways_to_turn_a_square() -> None:
    square = np.array([[1, 2], [3, 4]])
    assert [turned(square, turn).tolist() for turn in range(TURNS)] == [
        [[1, 2], [3, 4]],
        [[3, 4], [1, 2]],
        [[2, 1], [4, 3]],
        [[4, 3], [2, 1]],
        [[1, 3], [2, 4]],
        [[2, 4], [1, 3]],
        [[3, 1], [4, 2]],
        [[4, 2], [3, 1]],
    ]
    large = np.arange(SIDE * SIDE).reshape(SIDE, SIDE)
    assert all(sorted(turned(large, turn).ravel()) == list(range(SIDE * SIDE)) for turn in range(TURNS))


@pytest.mark.parametrize("turn", range(TURNS))
def test_a_turned_copy_is_the_nearest_partner_and_strangers_are_none(turn: int) -> None:
    small = np.concatenate([clouds(0), clouds(1), turned(clouds(0), turn), clouds(2)])
    ((image, partner, turned_by, share),) = Fingerprints(small).partners(np.arange(4), np.arange(4))
    assert (image, partner, turned_by) == (2, 0, turn)
    assert share == pytest.approx(0.0, abs=1e-6)


def test_of_many_copies_the_nearest_few_are_compared() -> None:
    small = np.repeat(clouds(0), PARTNERS + 4, axis=0)
    small[:4, :3] = clouds(1)[:, :3]  # the first four are a little different
    last = PARTNERS + 3
    found = list(Fingerprints(small).partners(np.array([last]), np.arange(last + 1)))
    assert [one[:3] for one in found] == [(last, partner, 0) for partner in range(4, last)] + [(last, 0, 0)]
    assert [one[3] for one in found[:-1]] == pytest.approx([0.0] * (PARTNERS - 1), abs=1e-6)
    assert 0.0 < found[-1][3] < 0.28


def test_flat_pictures_have_nothing_to_be_compared_by() -> None:
    flat = np.full((1, SIDE, SIDE), 90, np.uint8)
    assert Fingerprints(np.concatenate([flat, clouds(0)])).textured.tolist() == [False, True]
    assert apart(flat.tobytes(), clouds(0).tobytes()) == 0.0
    assert apart(clouds(0).tobytes(), clouds(0).tobytes()) == 0.0
    assert apart(clouds(0).tobytes(), clouds(1).tobytes()) > 0.34


def test_what_is_alike_is_told_from_what_is_not() -> None:
    one, other = (picture.astype(np.float32)[:, None] for picture in (clouds(0), clouds(1)))
    same, brighter, stranger = likeness(np.concatenate([one, one, one]), np.concatenate([one, 0.5 * one + 60, other]))[
        0
    ].tolist()
    assert same > 0.99
    assert brighter > 0.99
    assert stranger < 0.5
