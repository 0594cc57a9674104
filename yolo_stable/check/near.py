"""Near duplicates: images that show the same picture, though it was scaled, cropped, turned, mirrored, blurred or written anew.

Four steps, each dearer than the last and asked of fewer pairs: fingerprints of all pairs, the likeness of small grey copies, the
likeness of larger copies in colour, for which both files are read again, and their detail (``detail.py``), which tells different
pictures of one composition apart: heads on black, one user interface, one rig. What stays undecided is not named.

The libraries for this stop earlier. imagehash makes hashes and leaves finding pairs to the caller; imagededup brings torch along;
cleanvision groups equal hashes only; fastdup is closed. None of them sees a quarter turn, and all decode every image whole.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np

from .._shared.text import listed
from .detail import Kinship, kinships
from .duplicates import flat
from .files import by_numbers
from .finding import DataFinding
from .fingerprints import Fingerprints, turned
from .likeness import likeness
from .picture import small_colours
from .pixels import SIDE
from .rules import found
from .scan import Scan

CROWD = 16
"""Alike images that are told of together: a video, or a fixed camera."""
CLOSER = 0.5
"""Share of the difference between other pictures of a composition that a copy may have."""
FRAMES = 1 / 3
"""Share of the difference between other images of a crowd that neighbours by name have in a video."""
_SAMPLED = 16
"""Pairs of a crowd that are compared for that."""
_COARSE = 0.8
"""Likeness of the small grey copies from which on files are read again."""
_ASKED = 3
"""Partners of an image that are compared in detail, unless the first shows the same picture."""
_BLOCK = 64
"""Pairs that are compared in one go."""
_KEPT = 512
"""Pictures in colour that are kept at a time: 12 kB each."""


@dataclass(frozen=True, slots=True)
class Link:
    """An image that is alike to one before it."""

    image: int
    """Place among all images, as that of the partner."""
    partner: int
    turn: int
    """How the partner is turned to look like the image, see :func:`turned`."""
    alike: float
    """Likeness, from 0 to 1."""
    shift: np.ndarray
    """What brings the turned partner onto the image, see :func:`yolo_stable.check.likeness.moved`."""
    kinship: int = Kinship.COMPOSITION
    apart: float = 0.0
    """See :class:`yolo_stable.check.detail.Kinships`."""


def find_near(
    scans: Mapping[str, Scan], known: Iterable[DataFinding], file_of: Callable[[str], object], limit: float
) -> dict[int, Link]:
    """Find images that show the picture of another one.

    Args:
        scans: By split, training first; every image decoded.
        known: Exact copies, which are reported already.
        file_of: Gives the file of a path: one that is listed again is no copy.
        limit: Likeness, from 0 to 1, from which on two images are compared in detail.

    Returns:
        By image, the link to one before it, in another split first.
    """
    paths, _ = flat(scans)
    parts = [np.frombuffer(scan.small, np.uint8).reshape(-1, SIDE, SIDE) for scan in scans.values()]
    prints = Fingerprints(np.concatenate([np.zeros((0, SIDE, SIDE), np.uint8), *parts]))
    copies = {finding.path for finding in known}
    usable = prints.textured
    listed: set[str] = set()
    for index in np.flatnonzero(usable):
        usable[index] = (path := paths(int(index))) not in copies and path not in listed
        listed.add(path)
    compare = _Comparison(prints, paths, file_of, limit)
    links: list[Link] = []
    ends = np.cumsum([len(scan.images) for scan in scans.values()])
    for begin, end in zip([0, *ends], ends, strict=False):
        here = np.flatnonzero(usable[:end])
        own = here[here >= begin]
        links += compare.links(own, here[: len(here) - len(own)])
        done = {link.image for link in links if link.kinship == Kinship.SAME}
        links += compare.links(np.array([index for index in own if index not in done], dtype=np.int64), own)
    sure = _sure(links)
    _add_frames(sure, links, compare, paths)
    return sure


def near_duplicates(links: Mapping[int, Link], scans: Mapping[str, Scan], limit: float) -> Iterator[DataFinding]:
    """Yield a finding for each link, and one for all links of a crowd within or across splits."""
    paths, splits = flat(scans)
    crowd = crowds(links)
    together: dict[tuple[int, str, bool], list[int]] = {}
    for image, link in sorted(links.items()):
        across = splits(image) != splits(link.partner)
        if image in crowd:
            together.setdefault((crowd[image], splits(image), across), []).append(image)
            continue
        one, other = paths(link.partner), paths(image)
        how = ", turned or mirrored" if link.turn else ""
        message = f"looks like {one} ({splits(link.partner)}){how}: likeness {link.alike:.2f}"
        yield found(_rule(across), other, message, image=other, others=(one, other))
    for (first, split, across), images in together.items():
        named = [paths(image) for image in images]
        where = f"images of other splits, as {paths(links[images[0]].partner)}" if across else "each other"
        message = (
            f"{len(images)} images of {split} look like {where} (likeness from {limit:g} on), as frames of a video do:"
            f" {listed(named)}"
        )
        yield found(_rule(across), named[0], message, image=named[0], others=(paths(first), *named))


def crowds(links: Mapping[int, Link]) -> dict[int, int]:
    """Return, for each linked image of a crowd, the first image of that crowd."""
    firsts = _firsts(links)
    sizes = Counter(firsts.values())
    return {image: firsts[image] for image in links if sizes[firsts[image]] >= CROWD}


def _firsts(links: Mapping[int, Link]) -> dict[int, int]:
    """Return, for each image of a chain of links, its first image."""
    firsts: dict[int, int] = {}
    for image, link in sorted(links.items()):
        firsts[image] = firsts.setdefault(link.partner, link.partner)
    return firsts


class _Comparison:
    """Compares images with those before them."""

    def __init__(
        self, prints: Fingerprints, paths: Callable[[int], str], file_of: Callable[[str], object], limit: float
    ) -> None:
        self._prints, self._paths, self._file_of, self._limit = prints, paths, file_of, limit
        self._colours = lru_cache(_KEPT)(small_colours)

    def links(self, images: np.ndarray, among: np.ndarray) -> list[Link]:
        """Return the links of each image to alike ones, the last one to the same picture if there is one."""
        waiting: dict[int, list[tuple[int, int, int]]] = {}
        for image, partner, turn, _ in self._prints.partners(images, among):
            if self._file_of(self._paths(image)) != self._file_of(self._paths(partner)):
                waiting.setdefault(image, []).append((image, partner, turn))
        compared: list[Link] = []
        asked: Counter[int] = Counter()
        while waiting:
            pairs = [partners.pop(0) for partners in waiting.values()]
            for begin in range(0, len(pairs), _BLOCK):
                if alike := self._alike(pairs[begin : begin + _BLOCK]):
                    compared += self._in_detail(alike)
                    asked.update(link.image for link in alike)
            done = {link.image for link in compared if link.kinship == Kinship.SAME}
            waiting = {
                image: partners
                for image, partners in waiting.items()
                if partners and image not in done and asked[image] < _ASKED
            }
        return compared

    def _alike(self, pairs: list[tuple[int, int, int]]) -> list[Link]:
        """Return the links between images whose likeness reaches the limit."""
        small = self._prints.small
        ones = np.stack([turned(small[partner], turn) for _, partner, turn in pairs])[:, None]
        alike, _ = likeness(ones, np.stack([small[image] for image, *_ in pairs])[:, None])
        close = [pair for pair, value in zip(pairs, alike, strict=True) if value >= _COARSE]
        if not close:
            return []
        alike, shifts = likeness(*(_halved(part) for part in self._pictures(close)))
        return [
            Link(*pair, float(value), shift)
            for pair, value, shift in zip(close, alike, shifts, strict=True)
            if value >= self._limit
        ]

    def _in_detail(self, links: list[Link]) -> list[Link]:
        ones, others = self._pictures([(link.image, link.partner, link.turn) for link in links])
        start = np.stack([link.shift for link in links])
        grey, other = (part.mean(1, keepdims=True, dtype=np.float32) for part in (ones, others))
        kin = kinships(grey, other, start)
        return [
            replace(link, shift=shift, kinship=int(kind), apart=float(apart))
            for link, kind, apart, shift in zip(links, kin.kinds, kin.apart, kin.shift, strict=True)
        ]

    def _pictures(self, pairs: list[tuple[int, int, int]]) -> tuple[np.ndarray, np.ndarray]:
        """Return the turned partners and the images in colour."""
        colours, paths = self._colours, self._paths
        ones = np.stack([turned(colours(paths(partner)), turn) for _, partner, turn in pairs])
        return ones, np.stack([colours(paths(image)) for image, *_ in pairs])

    def apart(self, pairs: list[tuple[int, int]]) -> np.ndarray:
        """Return how far the images of each pair differ, see :class:`yolo_stable.check.detail.Kinships`."""
        asked = [Link(image, partner, 0, 0.0, np.zeros(4, np.float32)) for image, partner in pairs]
        return np.array([link.apart for link in self._in_detail(asked)])


def _halved(pictures: np.ndarray) -> np.ndarray:
    """Return pictures of half the side, float32."""
    rows = pictures[..., ::2, :].astype(np.float32) + pictures[..., 1::2, :]
    return (rows[..., ::2] + rows[..., 1::2]) / 4


def _sure(links: Iterable[Link]) -> dict[int, Link]:
    """Return one link for each image that is sure to show the picture of another one.

    Sure is what differs far less than other pictures of the composition, if the set has some. A difference in a band is sure only
    if no third picture is alike.
    """
    touching: dict[int, list[Link]] = {}
    for link in links:
        for end in (link.image, link.partner):
            touching.setdefault(end, []).append(link)
    sure: dict[int, Link] = {}
    waiting: list[Link] = []
    for image in sorted(touching):
        for link in sorted((link for link in touching[image] if link.image == image), key=lambda link: -link.kinship):
            near = (
                other
                for end in (image, link.partner)
                for other in touching[end]
                if other.kinship == Kinship.COMPOSITION
            )
            others = [other.apart for other in near if (other.image, other.partner) != (image, link.partner)]
            if link.kinship == Kinship.SAME and link.apart <= CLOSER * min(others, default=np.inf):
                sure[image] = link
                break
            if link.kinship == Kinship.BANDED and not others:
                waiting.append(link)
    first = _firsts(sure)
    for link in waiting:
        near = [other for end in (link.image, link.partner) for other in touching[end]]
        ends = {first.get(end, end) for other in near for end in (other.image, other.partner)}
        if len(ends) == 2 and link.image not in sure:
            sure[link.image] = link
    return sure


def _add_frames(
    sure: dict[int, Link], links: Iterable[Link], compare: _Comparison, paths: Callable[[int], str]
) -> None:
    """Add the links of videos: crowds whose neighbours by name differ far less than others."""
    best: dict[int, Link] = {}
    for link in sorted(links, key=lambda link: (link.kinship, link.alike)):
        best[link.image] = link
    crowd: dict[int, list[int]] = {}
    for image, begin in _firsts(best).items():
        crowd.setdefault(begin, []).append(image)
    for images in crowd.values():
        if len(images) < CROWD or all(image in sure for image in images if image in best):
            continue
        images.sort(key=lambda image: by_numbers(os.path.basename(paths(image))))
        places = np.unique(np.linspace(0, len(images) - 2, _SAMPLED).astype(int))
        following = compare.apart([(images[at + 1], images[at]) for at in places])
        others = compare.apart([(images[(at + len(images) // 2) % len(images)], images[at]) for at in places])
        if np.median(following) <= FRAMES * np.median(others):
            sure |= {image: best[image] for image in images if image in best and image not in sure}


def _rule(across: bool) -> str:
    return "near-duplicate-across-splits" if across else "near-duplicate"
