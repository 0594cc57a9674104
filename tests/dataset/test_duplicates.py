"""Near duplicates: what counts as one, among many, without comparing each with each."""

from __future__ import annotations

from array import array

import numpy as np
import pytest
from dataset.planted import picture
from PIL import Image, ImageEnhance

from yolo_stable.dataset.duplicates import NEAR, near_duplicates
from yolo_stable.dataset.pixels import WORDS, difference_hash
from yolo_stable.dataset.scan import Scan


def hashed(hashes: np.ndarray) -> dict[str, Scan]:
    part = Scan([f"{number}.png" for number in range(len(hashes))])
    part.hashes = array("Q", hashes.astype(np.uint64).tobytes())
    return {"train": part}


def distance(a: np.ndarray, b: np.ndarray) -> int:
    return sum(int(word).bit_count() for word in a ^ b)


@pytest.mark.parametrize("bits", [0, 1, NEAR, NEAR + 1])
def test_every_pair_up_to_the_limit_is_found_wherever_its_bits_are(bits: int) -> None:
    random = np.random.default_rng(bits)
    hashes = random.integers(0, 2**63, (2000, WORDS)).astype(np.uint64)
    flips = np.zeros(64 * WORDS, np.uint8)
    flips[random.choice(64 * WORDS, bits, replace=False)] = 1
    hashes[1777] = hashes[33] ^ np.packbits(flips).view(np.uint64)
    found = list(near_duplicates(hashed(hashes), [], str))
    expected = [("1777.png", ("33.png", "1777.png"))] if bits <= NEAR else []
    assert [(finding.path, finding.others) for finding in found] == expected


def test_flat_images_are_not_alike() -> None:
    assert list(near_duplicates(hashed(np.zeros((50, WORDS))), [], str)) == []


def test_a_picture_that_was_scaled_compressed_or_lit_anew_is_near_and_another_is_far() -> None:
    original = Image.fromarray(picture(1, 320, 240))
    changed = [
        original.resize((160, 120)),
        original.resize((641, 479)),
        ImageEnhance.Brightness(original).enhance(0.9),
    ]
    base = difference_hash(original.convert("L"))
    assert all(distance(base, difference_hash(image.convert("L"))) <= NEAR for image in changed)
    others = [difference_hash(Image.fromarray(picture(seed, 320, 240)).convert("L")) for seed in range(2, 200)]
    assert min(distance(base, other) for other in others) > 4 * NEAR
