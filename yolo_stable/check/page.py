"""Page with thumbnails: one file, no script, nothing from the network, all text escaped."""

from __future__ import annotations

import base64
import io
import os
from pathlib import Path
from typing import Any

from PIL import Image, ImageDraw, ImageOps

from ..pages import render
from .finding import DataFinding, Severity
from .opening import BROKEN, open_path
from .picture import WIDE, eight_bits
from .report import DataReport, printable

SIDE = 240
"""Pixels of a thumbnail's longer side."""
PICTURES = 24
"""Thumbnails for a rule."""
PLACES = 200
"""Findings for a rule; the JSON file has all."""
_HERE = Path(__file__).parent
_TONES = {Severity.ERROR: "bad", Severity.WARNING: "mind", Severity.INFO: "good"}
_COUNTED = {Severity.ERROR: "errors", Severity.WARNING: "warnings", Severity.INFO: "info"}
_RED = (230, 30, 30)


def page_of(report: DataReport) -> str:
    """Return the page of a report; images are read again for their thumbnails."""
    groups: list[dict[str, Any]] = []
    for (severity, rule), findings in report.by_rule().items():
        places = [
            {
                "where": printable(report.relative(finding.path)) + (f":{finding.line}" if finding.line else ""),
                "message": printable(finding.message),
                "picture": thumbnail(finding) if index < PICTURES else "",
            }
            for index, finding in enumerate(findings[:PLACES])
        ]
        groups.append(
            {
                "severity": severity.value,
                "rule": findings[0].rule,
                "anchor": f"{severity.value}-{rule}",
                "count": len(findings),
                "places": places,
                "more": len(findings) - len(places),
            }
        )
    facts = [
        ("task", report.task),
        *((f"images of {split}", f"{len(images):,}") for split, images in report.images.items()),
    ]
    facts += [(name, f"{report.count(severity):,}") for severity, name in _COUNTED.items()]
    worst = next((severity for severity in Severity if report.count(severity)), Severity.INFO)
    return render(
        _HERE,
        "page.html.j2",
        verb="check",
        subject=printable(str(report.place)),
        verdict=report.verdict,
        tone=_TONES[worst],
        facts=facts,
        groups=groups,
    )


def thumbnail(finding: DataFinding) -> str:
    """Return a small picture of a finding as JPEG in base64, the place outlined; empty when there is none."""
    if not finding.image or not os.path.isfile(finding.image):
        return ""
    try:
        with open_path(finding.image) as opened:
            opened.draft("RGB", (SIDE, SIDE))
            image = ImageOps.exif_transpose(opened)
            image = eight_bits(image) if image.mode in WIDE else image
            image = image.convert("RGB")
    except BROKEN:
        return ""
    image.thumbnail((SIDE, SIDE))
    _outline(image, finding.points)
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=80)
    return base64.b64encode(buffer.getvalue()).decode("ascii")


def _outline(image: Image.Image, points: tuple[tuple[float, float], ...]) -> None:
    """Draw a closed line, or a ring where it would be too small; what lies outside goes to the edge."""
    if not points:
        return
    width, height = image.size
    pixels = [(min(max(x, 0), 1) * (width - 1), min(max(y, 0), 1) * (height - 1)) for x, y in points]
    draw = ImageDraw.Draw(image)
    left, top, right, bottom = (pick(axis) for pick in (min, max) for axis in zip(*pixels, strict=True))
    if max(right - left, bottom - top) < 6:
        x, y = (left + right) / 2, (top + bottom) / 2
        draw.ellipse((x - 8, y - 8, x + 8, y + 8), outline=_RED, width=2)
    elif len(pixels) == 2:
        draw.line(pixels, fill=_RED, width=2)
    else:
        draw.line([*pixels, pixels[0]], fill=_RED, width=2)
