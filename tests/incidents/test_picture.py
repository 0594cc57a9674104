"""The picture of an incident outlines the guilty file's part and names it."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from yolo_stable.autopsy.report import AutopsyReport, Sample
from yolo_stable.incidents import picture as incident_picture
from yolo_stable.incidents.picture import pictures_of
from yolo_stable.incidents.record import Circumstances, DrawnBatch, ImageNames, Incident
from yolo_stable.provenance.recipe import Provenance, Source


def square(x: float, y: float, side: float = 32.0) -> tuple[tuple[float, float], ...]:
    return (x, y), (x + side, y), (x + side, y + side), (x, y + side)


def test_a_guilty_tile_is_drawn_as_the_file_that_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two files lie in the same place, as mixup leaves them: the second one did it."""
    names = ("a.png", "b.png", "c.png")
    places = (square(0, 0), square(31.7, 0.2), square(31.7, 0.2))
    sources = [Source(name, n, place, "mosaic") for n, (name, place) in enumerate(zip(names, places, strict=True))]
    asked: list[Any] = []
    own = incident_picture.preview

    def watched(*args: Any, **options: Any) -> bytes:
        asked.append(options["tile"])
        return own(*args, **options)

    monkeypatch.setattr(incident_picture, "preview", watched)
    drawn = DrawnBatch(1, {}, ImageNames((Provenance(sources, (), (64, 64)),)), batch={"img": torch.rand(1, 3, 64, 64)})
    report = AutopsyReport(cause="data", samples=(Sample("c.png", 2, (32, 0, 64, 32)),), evidence={"positions": [0]})
    where = Circumstances(
        epoch=1,
        batch=1,
        step=0,
        rank=-1,
        device="cpu",
        precision="float32",
        loss_scale=1.0,
        learning_rates=(),
        memory={},
        args={},
        classes=1,
    )
    found = Incident(kind="micro_batch", reason="", report=report, where=where, drawn=drawn)
    assert pictures_of(found, None)["preview.jpg"][:3] == b"\xff\xd8\xff"
    assert asked == [2]
