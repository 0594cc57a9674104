"""Fingerprints: bits that pictures which look alike share, also turned or mirrored."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from .pixels import SIDE, STEP

MOST_DIFFERENT = 0.28
"""Bits in which two pictures differ, of the bits that are set in the two, up to which they are compared more closely. Copies that
were cropped by 2 % reach 0.2, with a caption below them 0.27; unrelated photographs begin at 0.34."""
TEXTURE = 24
"""Least set bits of an image that shows something; flat images are all alike."""
PARTNERS = 8
"""Most partners of an image: with a fixed camera, each of a thousand frames is like each."""
TURNS = 8
_UNUSED = SIDE - 1  # bits that are never set: the last pixel of a row has no right neighbour
_ROWS, _COLUMNS = 256, 2048  # compared in one go: what fits into a cache


class Fingerprints:
    """The fingerprints of small grey copies: ``(N, SIDE, SIDE)`` uint8."""

    def __init__(self, small: np.ndarray) -> None:
        self.small = small
        self._turned = np.stack([_bits(turned(small, turn)) for turn in range(TURNS)])
        self._set = np.stack([np.unpackbits(bits, axis=-1).sum(-1, dtype=np.int16) for bits in self._turned])

    @property
    def textured(self) -> np.ndarray:
        """Which pictures have something in them: ``(N,)`` bool."""
        return self._set[0] >= TEXTURE

    def partners(self, images: np.ndarray, among: np.ndarray) -> Iterator[tuple[int, int, int, float]]:
        """Find, for each image, those before it that it may be a copy of, at most :data:`PARTNERS`.

        Args:
            images: Their places, ascending.
            among: Places of the possible partners, ascending.

        Yields:
            ``(image, partner, turn, share of bits that differ)``, the nearest of each image first. Turned that way
            (:func:`turned`), the partner looks like the image.
        """
        for begin in range(0, len(images), _ROWS):
            block = images[begin : begin + _ROWS]
            before = among[: np.searchsorted(among, block[-1])]
            left, pairs = np.ones(len(block), bool), []
            end, width = len(before), _ROWS // 4
            while end > 0:  # neighbours first, then ever more: frames of a video lie side by side
                others = before[max(end - width, 0) : end]
                end, width = end - len(others), min(2 * width, _COLUMNS)
                rows = np.flatnonzero(left)
                for turn in range(TURNS):
                    pairs += [self._near(block[rows], rows, others, turn)]
                found = np.concatenate([rows for rows, *_ in pairs])
                left = np.bincount(found, minlength=len(block)) < PARTNERS
                if not left.any():
                    break
            if not pairs:
                continue
            rows, partners, turns, shares = (np.concatenate(part) for part in zip(*pairs, strict=True))
            order = np.lexsort((partners, shares, rows))
            rank = np.arange(len(order)) - np.searchsorted(rows[order], rows[order])
            for at in order[rank < PARTNERS]:
                yield int(block[rows[at]]), int(partners[at]), int(turns[at]), float(shares[at])

    def _near(self, images: np.ndarray, rows: np.ndarray, others: np.ndarray, turn: int) -> tuple[np.ndarray, ...]:
        """Return rows, partners, turns and shares of the pairs that are near in this turn."""
        least = (1 - MOST_DIFFERENT) / 2
        one, other = self._floats(images, 0), self._floats(others, turn)
        one[:, _UNUSED], other[:, _UNUSED] = 1, -least * self._set[turn][others]
        one[:, _UNUSED + SIDE], other[:, _UNUSED + SIDE] = -least * self._set[0][images], 1
        i, j = np.nonzero(one @ other.T >= -1e-3)  # bits set in both, less what pairs that differ by the limit have
        before = others[j] < images[i]
        i, j = i[before], j[before]
        both = self._set[0][images[i]] + self._set[turn][others[j]]
        shared = (one[i] * other[j]).sum(-1) + least * both
        return rows[i], others[j], np.full(len(i), turn), 1 - 2 * shared / both

    def _floats(self, images: np.ndarray, turn: int) -> np.ndarray:
        """Return bits as numbers: a product of matrices counts the bits set in both, and is fast."""
        return np.unpackbits(self._turned[turn][images], axis=-1).astype(np.float32)


def apart(one: bytes, other: bytes) -> float:
    """Return the share of the set bits of two small copies that differ; 0 where one has too few."""
    bits = [np.unpackbits(_bits(np.frombuffer(small, np.uint8).reshape(1, SIDE, SIDE))) for small in (one, other)]
    if min(part.sum() for part in bits) < TEXTURE:
        return 0.0
    return float((bits[0] != bits[1]).sum() / sum(part.sum() for part in bits))


def turned(pictures: np.ndarray, turn: int) -> np.ndarray:
    """Return square pictures in one of the eight ways to turn and mirror them: ``(..., S, S)``; 0: as they are."""
    if turn & 4:
        pictures = pictures.swapaxes(-1, -2)
    if turn & 2:
        pictures = pictures[..., ::-1]
    return pictures[..., ::-1, :] if turn & 1 else pictures


def _bits(small: np.ndarray) -> np.ndarray:
    """Return which pixels are darker than their right neighbours, packed: ``(N, SIDE * SIDE / 8)`` uint8."""
    values = small.astype(np.int16)
    bits = np.zeros(small.shape, bool)
    bits[..., :-1] = values[..., 1:] - values[..., :-1] > STEP
    return np.packbits(bits.reshape(len(small), SIDE * SIDE), axis=-1)
