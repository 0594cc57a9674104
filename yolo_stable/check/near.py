"""Near duplicates: images that show the same picture, though it was scaled, cropped, turned, mirrored, blurred or written anew.

Three steps, each dearer than the one before and asked of fewer pairs: fingerprints of all pairs, the likeness of small grey
copies, and the likeness of larger copies in colour, for which both files are read once more. The last one tells pictures apart
that only have the same layout.

The libraries for this stop earlier. imagehash makes hashes and leaves finding pairs to the caller; imagededup brings torch along;
cleanvision groups equal hashes only; fastdup is closed. None of them sees a quarter turn, and all decode every image whole.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping

import numpy as np

from .duplicates import flat
from .finding import DataFinding, some
from .fingerprints import Fingerprints, turned
from .likeness import likeness
from .picture import small_colours
from .pixels import SIDE
from .rules import found
from .scan import Scan

CROWD = 16
"""Images that are alike, from which on they are told of together: a video, or a camera that stands still."""
_COARSE = 0.8
"""Likeness of the small grey copies from which on files are read again."""
_BLOCK = 64
"""Pairs that are compared in one go."""
_KEPT = 2048
"""Pictures in colour that are kept at a time: 3 kB each."""


class _Colours:
    """Larger copies in colour, by path."""

    def __init__(self) -> None:
        self._kept: dict[str, np.ndarray] = {}

    def __getitem__(self, path: str) -> np.ndarray:
        if path not in self._kept:
            if len(self._kept) >= _KEPT:
                self._kept.clear()
            self._kept[path] = small_colours(path)
        return self._kept[path]


def near_duplicates(
    scans: Mapping[str, Scan], known: Iterable[DataFinding], file_of: Callable[[str], object], limit: float
) -> Iterator[DataFinding]:
    """Find images that look like another one.

    Args:
        scans: By split, training first; all of them looked at.
        known: Exact copies, which are reported already.
        file_of: Tells from a path which file it is: one that is listed again is no copy.
        limit: Likeness of two images, from 0 to 1, from which on they are alike.

    Yields:
        A finding for each image that looks like one before it, in another split first; one for all of a crowd.
    """
    paths, splits = flat(scans)
    parts = [np.frombuffer(scan.small, np.uint8).reshape(-1, SIDE, SIDE) for scan in scans.values()]
    prints = Fingerprints(np.concatenate([np.zeros((0, SIDE, SIDE), np.uint8), *parts]))
    copies = {finding.path for finding in known}
    usable = prints.textured
    listed: set[str] = set()
    for index in np.flatnonzero(usable):
        usable[index] = (path := paths(int(index))) not in copies and path not in listed
        listed.add(path)
    compare = _Comparison(prints, paths, file_of, limit)
    links: dict[int, tuple[int, float, bool]] = {}
    ends = np.cumsum([len(scan.images) for scan in scans.values()])
    for begin, end in zip([0, *ends], ends, strict=False):
        here = np.flatnonzero(usable[:end])
        own = here[here >= begin]
        links |= compare.links(own, here[: len(here) - len(own)])
        rest = np.array([index for index in own if index not in links], dtype=np.int64)
        links |= compare.links(rest, own)
    yield from _told(links, paths, splits, limit)


class _Comparison:
    """Compares images with those before them."""

    def __init__(
        self, prints: Fingerprints, paths: Callable[[int], str], file_of: Callable[[str], object], limit: float
    ) -> None:
        self._prints, self._paths, self._file_of, self._limit = prints, paths, file_of, limit
        self._colours = _Colours()

    def links(self, images: np.ndarray, among: np.ndarray) -> dict[int, tuple[int, float, bool]]:
        """Return, for each image that is alike to another, which one that is, how much, and whether it is turned."""
        linked: dict[int, tuple[int, float, bool]] = {}
        waiting: dict[int, list[tuple[int, int, float]]] = {}
        for image, partner, turn, share in self._prints.partners(images, among):
            waiting.setdefault(image, []).append((partner, turn, share))
        while waiting:
            asked = [(image, *partners.pop(0)) for image, partners in waiting.items()]
            for (image, partner, turn, _), alike in zip(asked, self._alike(asked), strict=True):
                if alike >= self._limit and self._file_of(self._paths(image)) != self._file_of(self._paths(partner)):
                    linked[image] = partner, alike, turn > 0
            waiting = {image: partners for image, partners in waiting.items() if partners and image not in linked}
        return linked

    def _alike(self, asked: list[tuple[int, int, int, float]]) -> Iterator[float]:
        """Return the likeness of image and turned partner of each of these."""
        small = self._prints.small
        for begin in range(0, len(asked), _BLOCK):
            block = asked[begin : begin + _BLOCK]
            ones = np.stack([turned(small[partner], turn) for _, partner, turn, _ in block])[:, None]
            alike = likeness(ones, np.stack([small[image] for image, *_ in block])[:, None])
            closer = [(at, block[at]) for at in np.flatnonzero(alike >= _COARSE)]
            alike[:] = 0
            if closer:
                colours = self._colours
                ones = np.stack([turned(colours[self._paths(partner)], turn) for _, (_, partner, turn, _) in closer])
                others = np.stack([colours[self._paths(image)] for _, (image, *_) in closer])
                alike[[at for at, _ in closer]] = likeness(ones, others)
            yield from map(float, alike)


def _told(
    links: Mapping[int, tuple[int, float, bool]],
    paths: Callable[[int], str],
    splits: Callable[[int], str],
    limit: float,
) -> Iterator[DataFinding]:
    """Yield a finding for each link, and one for all links of a crowd that cross splits in the same way."""
    crowd: dict[int, int] = {}
    for image in sorted(links):
        partner = links[image][0]
        crowd[image] = crowd.setdefault(partner, partner)
    sizes = Counter(crowd.values())
    together: dict[tuple[int, str, bool], list[int]] = {}
    for image, (partner, alike, turn) in sorted(links.items()):
        across = splits(image) != splits(partner)
        if sizes[crowd[image]] >= CROWD:
            together.setdefault((crowd[image], splits(image), across), []).append(image)
            continue
        one, other = paths(partner), paths(image)
        how = ", turned or mirrored" if turn else ""
        message = f"looks like {one} ({splits(partner)}){how}: likeness {alike:.2f}, alike are from {limit:g} on"
        yield found(_rule(across), other, message, image=other, others=(one, other))
    for (first, split, across), images in together.items():
        named = [paths(image) for image in images]
        where = f"images of other splits, as {paths(links[images[0]][0])}" if across else "each other"
        message = (
            f"{len(images)} images of {split} look like {where} (likeness from {limit:g} on), as frames of a video do:"
            f" {some(named)}"
        )
        yield found(_rule(across), named[0], message, image=named[0], others=(paths(first), *named))


def _rule(across: bool) -> str:
    return "near-duplicate-across-splits" if across else "near-duplicate"
