"""Images that are there more than once: the same bytes, or the same picture.

The hash is our own: libraries for it (imagehash) decode every image whole and bring SciPy and PyWavelets along, while the part
that takes thought, finding the pairs among 100,000 without comparing each with each, is in none of them.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterable, Iterator, Mapping

import numpy as np

from .finding import Finding, Severity
from .pixels import SIDE, WORDS
from .rules import found
from .scan import Scan

NEAR = 7
"""Bits of 256 in which two hashes may differ: with 8 parts of 32 bits, one part at least is then equal."""
_PARTS = 8
_TEXTURE = 24
"""Bits that are set in the hash of an image with something in it; flat ones are all alike."""
_CROWD = 64
"""Images with an equal part of the hash that are compared each with each; of larger crowds each with the next ones."""


def exact_duplicates(
    scans: Mapping[str, Scan], file_of: Callable[[str], object], labels_of: Callable[[str, str], object]
) -> Iterator[Finding]:
    """Find files with the same bytes.

    Args:
        scans: By split, training first.
        file_of: Tells from a path which file and labels it is: what a split lists again is no copy.
        labels_of: Tells from a path and its split what is said of the image: equal for equal labels.

    Yields:
        A finding for each copy but the first.
    """
    paths, splits = _flat(scans)
    keys = np.concatenate([np.zeros(0, np.uint64), *(np.frombuffer(scan.keys, np.uint64) for scan in scans.values())])
    if not len(keys):
        return
    order = np.argsort(keys, kind="stable")
    ordered = keys[order]
    starts = np.flatnonzero(np.append(True, ordered[1:] != ordered[:-1]))
    for begin, end in zip(starts, [*starts[1:], len(order)], strict=True):
        if end - begin < 2 or ordered[begin] == 0:
            continue
        first: dict[bytes, int] = {}
        listed: set[tuple[str, object]] = set()
        for index in map(int, order[begin:end]):
            path, split = paths(index), splits(index)
            if (split, file := file_of(path)) in listed:
                continue
            listed.add((split, file))
            original = first.setdefault(_digest(path), index)
            if original == index:
                continue
            other, split_of_other = paths(original), splits(original)
            message = f"has the same bytes as {other} ({split_of_other})"
            rule = "duplicate" if split == split_of_other else "duplicate-across-splits"
            severity = Severity.WARNING if rule != "duplicate" and "train" not in (split, split_of_other) else None
            if labels_of(path, split) != labels_of(other, split_of_other):
                rule, message, severity = "duplicate-labels", f"{message}, and other labels", None
            yield found(rule, path, message, image=path, others=(other, path), severity=severity)


def near_duplicates(
    scans: Mapping[str, Scan], known: Iterable[Finding], file_of: Callable[[str], object]
) -> Iterator[Finding]:
    """Find pictures that differ in at most :data:`NEAR` bits of their hash.

    Args:
        scans: By split, training first; all of them hashed.
        known: Exact copies, which are reported already.
        file_of: As for :func:`exact_duplicates`.
    """
    paths, splits = _flat(scans)
    parts = [np.frombuffer(scan.hashes, dtype=np.uint64) for scan in scans.values()]
    hashes = np.concatenate([np.zeros(0, np.uint64), *parts]).reshape(-1, WORDS)
    textured = np.flatnonzero(_bits(hashes) >= _TEXTURE)
    copies = {finding.path for finding in known}
    told: set[int] = set()
    for a, b in sorted(_pairs(hashes, textured)):
        one, other = paths(a), paths(b)
        if b in told or one in copies or other in copies or file_of(one) == file_of(other):
            continue
        told.add(b)
        distance = int(_bits(hashes[a] ^ hashes[b]))
        rule = "near-duplicate" if splits(a) == splits(b) else "near-duplicate-across-splits"
        message = f"looks like {one} ({splits(a)}): {distance} of {SIDE * SIDE} bits differ, alike are up to {NEAR}"
        yield found(rule, other, message, image=other, others=(one, other))


def _pairs(hashes: np.ndarray, textured: np.ndarray) -> set[tuple[int, int]]:
    """Return the places of all pairs that are near: hashes are sorted by each of their parts, and neighbours compared."""
    pairs: set[tuple[int, int]] = set()
    words = hashes[textured].view(np.uint32)
    for part in range(_PARTS):
        order = np.argsort(words[:, part], kind="stable")
        sorted_part = words[order, part]
        for step in range(1, _CROWD):
            equal = np.flatnonzero(sorted_part[step:] == sorted_part[:-step])
            if not len(equal):
                break
            a, b = textured[order[equal]], textured[order[equal + step]]
            near = _bits(hashes[a] ^ hashes[b]) <= NEAR
            pairs.update((int(min(i, j)), int(max(i, j))) for i, j in zip(a[near], b[near], strict=True))
    return pairs


def _bits(words: np.ndarray) -> np.ndarray:
    """Count the set bits: ``(..., WORDS)`` uint64 to ``(...)``."""
    return np.unpackbits(np.ascontiguousarray(words).view(np.uint8), axis=-1).sum(-1, dtype=np.int64)


def _flat(scans: Mapping[str, Scan]) -> tuple[Callable[[int], str], Callable[[int], str]]:
    """Return what gives the path, and what gives the split, of an image by its place among all images."""
    names, parts = list(scans), list(scans.values())
    starts = np.cumsum([0, *(len(part.images) for part in parts)])

    def which(index: int) -> int:
        return int(np.searchsorted(starts, index, side="right")) - 1

    def path(index: int) -> str:
        return parts[which(index)].images[index - int(starts[which(index)])]

    return path, lambda index: names[which(index)]


def _digest(path: str) -> bytes:
    digest = hashlib.blake2b()
    try:
        with open(path, "rb") as file:
            while block := file.read(1 << 20):
                digest.update(block)
    except OSError:
        return os.fsencode(path)  # equal to nothing else
    return digest.digest()
