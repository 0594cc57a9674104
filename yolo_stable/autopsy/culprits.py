"""Culprits: the image files, tiles and label rows that break a batch."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from .case import AutopsyCase
from .inspection import BadPixels, bad_maps
from .replay import Replayer
from .report import Sample
from .suspects import SearchResult, bisect, healing, search

EDGE = 1.25
"""Pixels beyond its region at which a file may still mix with its neighbours."""
BLUR = 4.0
"""Further pixels after a filter over the whole image, as Ultralytics sometimes applies through Albumentations."""
_AROUND = tuple((dx, dy) for dx in (-1, 0, 1) for dy in (-1, 0, 1) if dx or dy)


@dataclass(frozen=True, slots=True)
class Culprit:
    """One guilty sample of a batch."""

    sample: int
    """Position in the batch."""
    sources: tuple[int, ...] = ()
    """Positions in its provenance; empty: all of them, since they cannot be told apart."""
    rows: tuple[int, ...] = ()
    """Guilty labels, counted within the sample in the order of the batch."""


class Culprits:
    """Finds and names the guilty samples of one case.

    Args:
        case: The batch.
        provenance: One per sample, or nothing; each with ``sources``, ``rows``, ``size``, ``at`` and ``tile``.
        player: Replays parts of the batch.
    """

    def __init__(self, case: AutopsyCase, provenance: Sequence[Any], player: Replayer) -> None:
        self.case, self.player = case, player
        self.provenance = provenance if len(provenance) == case.size else ()
        self._times = min(2, case.size)
        """How often a single sample is repeated in a batch of its own: BatchNorm cannot train on one value per channel. A batch
        of one was trained on, so it needs no repetition."""

    def by_pixels(self, found: Iterable[BadPixels]) -> tuple[Culprit, ...]:
        """Return the samples with bad pixels, each with the files at their places."""
        return tuple(Culprit(bad.sample, self._sources_at(bad)) for bad in found)

    def by_labels(self, rows: Iterable[int]) -> tuple[Culprit, ...]:
        """Return the samples of these label rows of the batch."""
        wanted = set(rows)
        if maps := bad_maps(self.case):
            return self.by_pixels(bad for bad in maps if bad.sample in wanted)
        boxed = [self.case.rows_of(sample) for sample in range(self.case.size)]
        if not any(boxed) and not getattr(self.case, "boxed", False):  # one target for each sample
            return tuple(Culprit(row, (), (0,)) for row in sorted(wanted) if row < self.case.size)
        culprits = []
        for sample, own in enumerate(boxed):
            bad = tuple(k for k, row in enumerate(own) if row in wanted)
            if bad:
                culprits.append(Culprit(sample, self._sources_of(sample, bad), bad))
        return tuple(culprits)

    def by_replay(self, seen: Sequence[int], *, labels: bool) -> tuple[SearchResult, tuple[Culprit, ...]]:
        """Find the samples that break the training by replaying parts of the batch."""
        finding = search(self._sick, range(self.case.size), guess=seen, sure=True, neutral=self._neutral)
        if len(finding.guilty) > 1 and (common := self._common(finding.guilty)):
            return replace(finding, every=False), common
        if finding.every:
            return finding, ()
        told = len(finding.guilty) == 1 and finding.alone
        culprits = tuple(self._looked_at(s, labels) if told else Culprit(s) for s in finding.guilty)
        others = [sample for sample in range(self.case.size) if sample not in finding.guilty]
        believed = finding.alone and finding.rest_is_healthy is None  # only those that were seen were tried
        if believed and others and not any(c.sources or c.rows for c in culprits) and self._sick(others[:1]):
            return replace(finding, every=True), ()
        return finding, culprits

    def smallest(self, finding: SearchResult) -> AutopsyCase:
        """Return the smallest case that still breaks: one guilty sample, or all."""
        return self.case.select([finding.guilty[0]] * self._times) if finding.alone else self.case

    def named(self, culprits: Iterable[Culprit], *, labels: bool) -> tuple[tuple[Sample, ...], list[str]]:
        """Return the culprits as samples of a report, and the tile of each in words."""
        named: dict[Sample, str] = {}
        for culprit in culprits:
            if not self.provenance:
                row = culprit.rows[0] if labels and culprit.rows and self.case.rows_of(culprit.sample) else None
                named.setdefault(Sample(self.case.path(culprit.sample), culprit.sample, None, row), "")
                continue
            origin = self.provenance[culprit.sample]
            rows = [origin.rows[k] for k in culprit.rows if k < len(origin.rows)] if labels else []
            known = [pair for pair in rows if pair is not None]
            if not origin.sources:  # unknown sources: named by its position alone
                named.setdefault(Sample("", culprit.sample, None, None), "")
            for n in [n for n, _ in known] or culprit.sources or range(len(origin.sources)):
                source, several = origin.sources[n], len(origin.sources) > 1
                row = next((r for at, r in known if at == n), None)
                sample = Sample(source.path, source.index, _corners(origin.tile(n)) if several else None, row)
                named.setdefault(sample, f"{n + 1} of {len(origin.sources)}" if several else "")
        return tuple(named), list(named.values())

    # ---- by replaying --------------------------------------------------------------------------------------------------

    def _sick(self, samples: Sequence[int]) -> bool | None:
        if len(samples) == self.case.size:
            return True  # that is where the search began
        return self.player.sick(self.case.select(list(samples) * (self._times if len(samples) == 1 else 1)))

    def _neutral(self) -> bool | None:
        one = self.case.select([0])
        return self.player.sick(one.blank(0, None, one.rows_of(0)).select([0] * self._times))

    def _common(self, guilty: Sequence[int]) -> tuple[Culprit, ...]:
        """Return guilty samples that share one file, if the first is healthy without it; else nothing."""
        if not self.provenance:
            return ()
        origins = [self.provenance[sample] for sample in guilty]
        paths = set.intersection(*({source.path for source in origin.sources} for origin in origins)) - {""}
        one = self.case.select([guilty[0]])
        if len(paths) > 1:
            paths &= {origins[0].sources[n].path for n in self._guilty_tiles(guilty[0], one)}
        parts = [tuple(n for n, source in enumerate(o.sources) if source.path in paths) for o in origins]
        if len(paths) != 1 or self._sick_without_tiles(guilty[0], one, parts[0]) is not False:
            return ()
        return tuple(Culprit(sample, part) for sample, part in zip(guilty, parts, strict=True))

    def _looked_at(self, sample: int, labels: bool) -> Culprit:
        """Find the guilty label row or tile of one sample."""
        one = self.case.select([sample])
        rows = one.rows_of(0) if labels else ()
        if rows and self.player.sick(one.without_labels(rows).select([0] * self._times)) is False:
            finding = bisect(lambda kept: self._sick_with(one, kept), range(len(rows)))
            if finding.exact and len(finding.guilty) == 1:
                return Culprit(sample, self._sources_of(sample, finding.guilty), finding.guilty)
        return Culprit(sample, self._guilty_tiles(sample, one))

    def _sick_with(self, one: AutopsyCase, kept: Sequence[int]) -> bool | None:
        rows = one.rows_of(0)
        if len(kept) == len(rows):
            return True
        return self.player.sick(
            one.without_labels([row for k, row in enumerate(rows) if k not in set(kept)]).select([0] * self._times)
        )

    def _guilty_tiles(self, sample: int, one: AutopsyCase) -> tuple[int, ...]:
        origin = self.provenance[sample] if self.provenance else None
        if origin is None or len(origin.sources) < 2 or any(source.region is None for source in origin.sources):
            return ()

        files = _by_file(origin.sources)
        further = 0.0

        def sick_without(gone: Sequence[int]) -> bool | None:
            return self._sick_without_tiles(sample, one, [n for file in gone for n in files[file]], further)

        found = healing(sick_without, range(len(files)))
        if found is None:  # it may have been blurred as a whole
            further = BLUR
            found = healing(sick_without, range(len(files)))
        if found is None:
            return ()
        blended = [
            file
            for file in range(len(files))
            if file != found and any(_lie_on_each_other(origin, a, b) for a in files[file] for b in files[found])
        ]
        return tuple(
            sorted(n for file in [found, *(b for b in blended if sick_without([b]) is False)] for n in files[file])
        )

    def _sick_without_tiles(
        self, sample: int, one: AutopsyCase, gone: Sequence[int], further: float = 0.0
    ) -> bool | None:
        origin = self.provenance[sample]
        height, width = one.images.shape[-2:]
        up, across = height / max(1, origin.size[0]), width / max(1, origin.size[1])
        reach = further + (EDGE if up == across == 1 else EDGE * (1 + max(up, across)))
        rows, lesser = one.rows_of(0), one
        for n in gone:
            if region := origin.sources[n].region:  # else nothing of it can be seen
                lesser = lesser.blank(0, _grown([(x * across, y * up) for x, y in region], reach), ())
        own = [row for row, pair in zip(rows, origin.rows, strict=False) if pair is not None and pair[0] in gone]
        return self.player.sick(lesser.without_labels(own).select([0] * self._times))

    # ---- by provenance -------------------------------------------------------------------------------------------------

    def _sources_at(self, bad: BadPixels) -> tuple[int, ...]:
        if not self.provenance:
            return ()
        origin = self.provenance[bad.sample]
        height, width = self.case.images.shape[-2:]
        up, across = origin.size[0] / height, origin.size[1] / width  # the batch may have been resized as a whole
        reach = EDGE if up == across == 1 else 2 * EDGE  # it was interpolated twice
        sure: set[int] = set()
        edges: list[tuple[set[int], set[int]]] = []
        for y, x in bad.places:
            here = _holding(origin, x * across, y * up)
            around = [_holding(origin, x * across + dx * reach, y * up + dy * reach) for dx, dy in _AROUND]
            if all(held == here for held in around):
                sure |= here
            else:
                edges.append((here, here.union(*around)))
        # At the edge of a tile, interpolation mixes two files: a pixel there says nothing if one of them is known.
        return tuple(sorted(sure.union(*(here for here, near in edges if not near & sure))))

    def _sources_of(self, sample: int, rows: Iterable[int]) -> tuple[int, ...]:
        if not self.provenance:
            return ()
        known = self.provenance[sample].rows
        pairs = [known[k] for k in rows if k < len(known)]
        return tuple(sorted({pair[0] for pair in pairs if pair is not None}))


def _by_file(sources: Sequence[Any]) -> list[list[int]]:
    """Return positions of sources grouped by file: a mosaic may draw one twice, and removing half heals nothing."""
    files: dict[Any, list[int]] = {}
    for n, source in enumerate(sources):
        files.setdefault(source.path or n, []).append(n)
    return list(files.values())


def _corners(tile: Any) -> tuple[int, int, int, int] | None:
    if tile is None:
        return None
    x1, y1, x2, y2 = (round(corner) for corner in tile)
    return x1, y1, x2, y2


def _holding(origin: Any, x: float, y: float) -> set[int]:
    """Return the positions of the sources that hold a pixel; beyond the image, its nearest pixel."""
    height, width = origin.size
    held = origin.at(min(max(x, 0.0), width - 1.0), min(max(y, 0.0), height - 1.0))
    return {n for n, one in enumerate(origin.sources) if any(one is source for source in held)}


def _grown(region: Sequence[tuple[float, float]], reach: float) -> list[tuple[float, float]]:
    """Return a region grown by the pixels that interpolation mixed it into."""
    middle_x, middle_y = (sum(part) / len(region) for part in zip(*region, strict=True))
    return [(x + math.copysign(reach, x - middle_x), y + math.copysign(reach, y - middle_y)) for x, y in region]


def _lie_on_each_other(origin: Any, a: int, b: int) -> bool:
    """Say whether a pixel can mix both: the tiles of one mosaic never mix, though their bounding boxes may meet."""
    first, second = origin.tile(a), origin.tile(b)
    if first is None or second is None or {origin.sources[a].how, origin.sources[b].how} <= {"mosaic", "image"}:
        return False
    return max(first[0], second[0]) < min(first[2], second[2]) and max(first[1], second[1]) < min(first[3], second[3])
