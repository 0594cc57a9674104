"""Incident picture: the guilty training image."""

from __future__ import annotations

from typing import Any

from ..autopsy.report import Sample
from ..provenance.recipe import Provenance
from .preview import preview
from .record import Incident, boxes_of

PICTURE = "preview.jpg"
"""Its file in the folder of an incident."""


def pictures_of(found: Incident, model: Any) -> dict[str, bytes]:
    """Return ``preview.jpg`` of the first guilty image, with the model's class names; empty without a guilty image."""
    report, drawn = found.report, found.drawn
    positions = report.evidence.get("positions")
    if drawn is None or not report.samples or not isinstance(positions, list) or not positions:
        return {}
    position, sample = int(positions[0]), report.samples[0]
    provenance = drawn.provenance[position] if position < len(drawn.provenance) else None
    picture = preview(
        drawn.as_drawn(),
        position,
        provenance=provenance,
        tile=_part_of(sample, provenance),
        boxes=boxes_of(sample, provenance),
        names=getattr(model, "names", None),
        title=report.headline(),
    )
    return {PICTURE: picture}


def _part_of(sample: Sample, provenance: Provenance | None) -> int | tuple[int, int, int, int] | None:
    """Return the part of the training image that comes from a guilty file, for its outline and name."""
    if provenance is None or sample.tile is None:
        return sample.tile
    for n, source in enumerate(provenance.sources):
        corners = provenance.tile(n)
        same = corners is not None and tuple(map(round, corners)) == sample.tile
        if same and (source.path, source.index) == (sample.path, sample.index):
            return n
    return sample.tile
