"""Duplicates: files with the same bytes."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator, Mapping

import numpy as np

from .finding import DataFinding, Severity
from .rules import found
from .scan import Scan


def exact_duplicates(
    scans: Mapping[str, Scan], file_of: Callable[[str], object], labels_of: Callable[[str, str], object]
) -> Iterator[DataFinding]:
    """Find files with the same bytes.

    Args:
        scans: By split, training first.
        file_of: Gives the file and labels of a path: what a split lists again is no copy.
        labels_of: Gives the labels of an image by its path and split, equal for equal labels.

    Yields:
        A finding for each copy but the first.
    """
    paths, splits = flat(scans)
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
            if file_of(path) == file_of(other):
                message = f"is listed in {split_of_other} and in {split}"
            rule = "duplicate" if split == split_of_other else "duplicate-across-splits"
            severity = Severity.WARNING if rule != "duplicate" and "train" not in (split, split_of_other) else None
            if labels_of(path, split) != labels_of(other, split_of_other):
                rule, message, severity = "duplicate-labels", f"{message}, and other labels", None
            yield found(rule, path, message, image=path, others=(other, path), severity=severity)


def flat(scans: Mapping[str, Scan]) -> tuple[Callable[[int], str], Callable[[int], str]]:
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
