"""Exposure: images that are nearly black, or out of focus, unlike the others of the data set."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np

from .._shared.text import listed
from .finding import DataFinding
from .layout import Layout
from .rules import found
from .scan import Scan

COMMON = 0.5
"""Share of the images above which it is the nature of the data: darkness (night, X-ray, 16 bits read wrongly) is told once, and
softness not at all."""
OUT_OF_LINE, SOFT = 0.6, 0.42
"""Share of the usual sharpness, and sharpness, below both of which an image among sharper ones is out of focus."""


def check_exposure(layout: Layout, scans: Mapping[str, Scan], limits: Mapping[str, float]) -> Iterator[DataFinding]:
    """Judge light and focus of decoded images, by the limits of ``image-dark`` and ``image-blurred``."""
    paths = [image for scan in scans.values() for image in scan.images]
    bright = np.concatenate(
        [np.zeros(0, np.float32), *(np.frombuffer(scan.bright, np.float32) for scan in scans.values())]
    )
    sharp = np.concatenate(
        [np.zeros(0, np.float32), *(np.frombuffer(scan.sharp, np.float32) for scan in scans.values())]
    )
    seen = np.isfinite(sharp)
    if not seen.any():
        return
    usual = float(np.median(sharp[seen]))
    blurred = max(limits["image-blurred"], min(OUT_OF_LINE * usual, SOFT) if limits["image-blurred"] else 0)
    dark = seen & (bright <= limits["image-dark"])
    soft = seen & ~dark & (sharp <= blurred)
    for rule, those in (("image-dark", dark), ("image-blurred", soft)):
        places = {paths[index]: index for index in np.flatnonzero(those)}
        if len(places) > COMMON * seen.sum():
            if rule == "image-dark":
                yield found(
                    rule, layout.place, f"{len(places)} of {seen.sum()} images are nearly black: {listed(places)}"
                )
            continue
        for path, index in places.items():
            if rule == "image-dark":
                message = (
                    f"99 % of its pixels are {bright[index]:.0f} of 255 or darker; expected: more than {limits[rule]:g}"
                )
            else:
                message = f"sharpness of its edges is {sharp[index]:.2f}; usual is {usual:.2f}, expected more than {blurred:.2f}"
            yield found(rule, path, message, image=path)
