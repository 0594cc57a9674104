"""Canvas: a picture to draw on in the coordinates of a training image, at any size."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

LEAST, MOST = 720, 1600
"""Pixels of the longer side of the picture."""
GUILTY = (40, 40, 255)
QUIET = (225, 225, 225)
BAR = (38, 32, 30)
INK = (245, 245, 245)
PALETTE = (
    (255, 144, 30),
    (113, 204, 46),
    (15, 196, 241),
    (182, 89, 155),
    (0, 126, 230),
    (156, 188, 26),
    (85, 85, 205),
    (160, 160, 255),
    (120, 220, 180),
    (230, 200, 120),
)
"""Colours of classes, as BGR."""
FONT = cv2.FONT_HERSHEY_SIMPLEX
_FAR = 1e5
"""Pixels beyond which coordinates are clipped, as OpenCV takes 32-bit integers."""


class Canvas:
    """An image, enlarged if it is small and reduced if it is large.

    Args:
        pixels: (H, W, 3) BGR bytes.
    """

    def __init__(self, pixels: NDArray[np.uint8]) -> None:
        self.height, self.width = pixels.shape[:2]
        longer = max(self.height, self.width)
        self.scale: float = math.ceil(LEAST / longer) if longer < LEAST else min(1.0, MOST / longer)
        size = (max(1, round(self.width * self.scale)), max(1, round(self.height * self.scale)))
        kind = cv2.INTER_NEAREST if self.scale >= 1 else cv2.INTER_AREA
        self.shown: Any = cv2.resize(pixels, size, interpolation=kind)
        self.line = max(2, round(max(size) / 420))
        self.text = max(0.45, max(size) / 1500)

    def dim_outside(self, polygon: Sequence[tuple[float, float]]) -> None:
        """Darken everything outside a polygon."""
        mask = np.zeros(self.shown.shape[:2], np.uint8)
        cv2.fillPoly(mask, [self._at(polygon)], 255)
        outside = mask == 0
        self.shown[outside] = (self.shown[outside] * 0.45).astype(np.uint8)

    def paint(self, mask: NDArray[np.bool_], colour: tuple[int, int, int]) -> None:
        """Colour the marked pixels (H, W) of the training image; a reduced picture loses none."""
        if mask.any():
            kind = cv2.INTER_NEAREST if self.scale >= 1 else cv2.INTER_AREA
            self.shown[cv2.resize(mask.astype(np.float32), self.shown.shape[1::-1], interpolation=kind) > 0] = colour

    def outline(self, polygon: Sequence[tuple[float, float]], label: str, *, guilty: bool = False) -> None:
        """Draw a polygon with a label inside its top left corner; the guilty one in red."""
        corners = self._at(polygon)
        colour = GUILTY if guilty else QUIET
        thick = 2 * self.line if guilty else max(1, self.line // 2)
        limit = np.array(self.shown.shape[1::-1]) - 1 - thick // 2
        corners = np.clip(corners, thick // 2, limit)  # wholly inside, not half cut off
        cv2.polylines(self.shown, [corners], isClosed=True, color=colour, thickness=thick, lineType=cv2.LINE_AA)
        if label:
            x, y = corners.min(0)
            width = int(corners[:, 0].max() - x)
            self._label(label, int(x) + thick, int(y) + thick, colour, below=True, most=max(60, width - 2 * thick))

    def box(self, corners: NDArray[np.float64], label: str, colour: int, *, guilty: bool = False) -> None:
        """Draw a box with a label above it."""
        at = self._at(corners)
        shade = GUILTY if guilty else PALETTE[colour % len(PALETTE)]
        thick = 2 * self.line if guilty else self.line
        cv2.polylines(self.shown, [at], isClosed=True, color=shade, thickness=thick, lineType=cv2.LINE_AA)
        x, y = np.clip(at.min(0), 0, np.array(self.shown.shape[1::-1]) - 1)
        self._label(label, int(x), int(y), shade)

    def points(self, points: NDArray[np.float64], colour: int) -> None:
        """Draw keypoints."""
        for x, y in self._at(points).tolist() if len(points) else []:
            cv2.circle(self.shown, (x, y), 2 * self.line, INK, -1, cv2.LINE_AA)
            cv2.circle(self.shown, (x, y), round(1.5 * self.line), PALETTE[colour % len(PALETTE)], -1, cv2.LINE_AA)

    def rings(self, mask: NDArray[np.bool_], colour: tuple[int, int, int], most: int) -> None:
        """Draw a ring around each patch of marked pixels too small to see; at most ``most``, the largest ones."""
        count, _, stats, centres = cv2.connectedComponentsWithStats(mask.astype(np.uint8), connectivity=8)
        found = sorted(range(1, count), key=lambda i: -stats[i, cv2.CC_STAT_AREA])
        for i in found[:most]:
            reach = self.scale * math.hypot(stats[i, cv2.CC_STAT_WIDTH], stats[i, cv2.CC_STAT_HEIGHT]) / 2
            if reach < 12 * self.line:
                centre = self._at([tuple(centres[i] + 0.5)])[0].tolist()
                radius = round(reach + 6 * self.line)
                cv2.circle(self.shown, centre, radius, (0, 0, 0), 2 * self.line, cv2.LINE_AA)
                cv2.circle(self.shown, centre, radius, colour, self.line, cv2.LINE_AA)

    def jpeg(self, title: str, note: str) -> bytes:
        """Return the picture under a bar with two lines of text."""
        margin = round(22 * self.text)
        step = round(42 * self.text)
        width = self.shown.shape[1]
        bar = np.full((2 * step + margin, width, 3), BAR, np.uint8)
        for i, (line, size, thick) in enumerate(((title, self.text * 1.1, 2), (note, self.text * 0.9, 1))):
            fitting = _fitting(line, size, thick, width - 2 * margin)
            place = (margin, round(margin * 0.6) + round((i + 0.6) * step))
            cv2.putText(bar, fitting, place, FONT, size, INK, thick, cv2.LINE_AA)
        _, content = cv2.imencode(".jpg", np.vstack([bar, self.shown]), [cv2.IMWRITE_JPEG_QUALITY, 92])
        return content.tobytes()

    def _at(self, points: Any) -> NDArray[np.int32]:
        """Return the places of points of the training image, as whole numbers for OpenCV."""
        places = np.asarray(points, np.float64).reshape(-1, 2) * self.scale
        return np.clip(np.nan_to_num(places), -_FAR, _FAR).round().astype(np.int32)

    def _label(
        self, text: str, x: int, y: int, colour: tuple[int, int, int], *, below: bool = False, most: int = 10_000
    ) -> None:
        """Write on a coloured plate, above a point if there is room, within the picture."""
        size, pad = self.text * 0.8, max(3, round(7 * self.text))
        text = _fitting(text, size, 1, min(most, self.shown.shape[1]) - 2 * pad)
        (width, height), base = cv2.getTextSize(text, FONT, size, 1)
        tall = height + base + 2 * pad
        top = y if below or y < tall else y - tall
        left = max(0, min(x, self.shown.shape[1] - width - 2 * pad))
        cv2.rectangle(self.shown, (left, top), (left + width + 2 * pad, top + tall), colour, -1)
        bright = sum(colour) > 330 and colour != GUILTY
        ink = (20, 20, 20) if bright else INK
        cv2.putText(self.shown, text, (left + pad, top + pad + height), FONT, size, ink, 1, cv2.LINE_AA)


def _fitting(text: str, size: float, thick: int, most: int) -> str:
    """Return a line that fits: without characters that the font lacks, and without its middle if it is too long."""
    text = "".join(c if " " <= c <= "~" else "?" for c in text[:1000])
    whole = text
    while len(text) > 4 and cv2.getTextSize(text, FONT, size, thick)[0][0] > most:
        keep = len(text) - 4 if text is whole else len(text) - 5
        text = f"{whole[: keep - keep // 2]}...{whole[len(whole) - keep // 2 :]}"
    return text
