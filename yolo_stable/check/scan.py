"""Scan: all images and label files of a split, looked at in parallel, a few dozen at a time."""

from __future__ import annotations

import math
import os
import warnings
from array import array
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import islice

import numpy as np

from .array_file import check_array, check_picture
from .bands import PLAIN, check_bands
from .boxes import check_boxes
from .files import label_path
from .finding import DataFinding
from .header import SMALLEST_SIDE, read_header
from .keypoints import check_keypoints
from .label_file import Format, Rows, read_labels
from .objects import Objects
from .overlaps import check_overlaps
from .pixels import SIDE, light_and_edges, look_into
from .polygons import check_polygons

CHUNK = 64
"""Images of a chunk: rules on boxes cost the same for one as for dozens."""
MOST_NUMBERS = 1_000_000
"""Most numbers from label files that wait to be judged; a usual chunk has a hundredth."""
MOST_PIXELS = 1 << 22
"""Most pixels of decoded images that wait to be measured; a usual chunk has a tenth."""
AHEAD = 4
"""Waiting chunks for each worker: memory does not grow with the data set."""


@dataclass(frozen=True, slots=True)
class Job:
    """What is to be looked at, and how closely."""

    form: Format | None
    """What labels hold; None: images only."""
    channels: int
    imgsz: int
    pixels: bool
    """Whether every image is decoded and kept small; suspicious ones always are decoded."""
    limits: Mapping[str, float]


@dataclass(slots=True)
class Scan:
    """What is kept of the images of a split: 300 bytes for each, and 28 for each object."""

    images: Sequence[str]
    keys: array[int] = field(default_factory=lambda: array("Q"))
    """Length and end of each file as a number; 0 when it cannot be read."""
    small: bytearray = field(default_factory=bytearray)
    """SIDE * SIDE grey pixels for each image, if all are decoded; zeros for failures."""
    bright: array[float] = field(default_factory=lambda: array("f"))
    """See :func:`light_and_edges`, if all are decoded; NaN for failures."""
    sharp: array[float] = field(default_factory=lambda: array("f"))
    taken: Objects = field(default_factory=Objects)
    """The objects, without those that no loader takes."""
    counts: np.ndarray = field(default_factory=lambda: np.zeros(0, dtype=np.int64))
    """Objects of each class."""
    seen: np.ndarray = field(default_factory=lambda: np.zeros(0, dtype=np.int64))
    """Objects that show each keypoint."""
    objects: int = 0
    """Objects that have keypoints."""
    labelled: int = 0
    """Images with a label."""
    findings: list[DataFinding] = field(default_factory=list)

    def add(self, part: Scan) -> None:
        """Take over what was found in a chunk."""
        self.keys += part.keys
        self.small += part.small
        self.bright += part.bright
        self.sharp += part.sharp
        self.taken.add(part.taken)
        self.counts = part.counts if not len(self.counts) else self.counts + part.counts
        self.seen = part.seen if not len(self.seen) else self.seen + part.seen
        self.objects += part.objects
        self.labelled += part.labelled
        self.findings += part.findings


def workers_here() -> int:
    """Return a thread for each core that this process may use, at most 16."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(cores, 16)


def scan(images: Sequence[str], job: Job, workers: int, advance: Callable[[int], object]) -> Scan:
    """Look at all images of a split.

    Args:
        images: Their paths, sorted.
        job: What to look at.
        workers: Threads, used for decoding; all else is fastest with one.
        advance: Called with the number of images that are done.
    """
    whole = Scan(images)
    chunks = (images[at : at + CHUNK] for at in range(0, len(images), CHUNK))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Pillow's, on odd metadata and large images; the rules say what matters
        for part in _in_turn(chunks, job, workers if job.pixels else 1):
            whole.add(part)
            advance(len(part.images))
    return whole


def _in_turn(chunks: Iterator[Sequence[str]], job: Job, workers: int) -> Iterator[Scan]:
    if workers == 1:
        yield from (examine(chunk, job) for chunk in chunks)
        return
    with ThreadPoolExecutor(workers) as pool:
        waiting: list[Future[Scan]] = [pool.submit(examine, chunk, job) for chunk in islice(chunks, AHEAD * workers)]
        try:
            while waiting:
                yield waiting.pop(0).result()
                waiting += [pool.submit(examine, chunk, job) for chunk in islice(chunks, 1)]
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


def examine(images: Sequence[str], job: Job) -> Scan:
    """Look at a chunk of images and their labels."""
    part = Scan(images)
    rows = Rows()
    pictures: list[np.ndarray | None] = []
    waiting = 0
    for image in images:
        if rows.numbers > MOST_NUMBERS:
            _judge(rows, job, part)
            rows = Rows()
        header = read_header(image, part.findings, whole=job.pixels, channels=job.channels)
        part.keys.append(header.key)
        usable = min(header.width, header.height) >= SMALLEST_SIDE and not header.damaged
        beside = image.rpartition(".")[0] + ".npy"
        read_instead = os.path.exists(beside) and check_array(beside, image, header, job.channels, part.findings)
        banded = usable and not read_instead and (job.channels not in PLAIN or header.format == "TIFF")
        look = check_bands(image, header, job.channels, part.findings) if banded else None
        if usable and not header.damaged and job.channels in PLAIN and (job.pixels or header.suspect):
            look = look_into(image, header, part.findings)
            if read_instead and look is not None:
                check_picture(beside, image, look, part.findings)
        header.picture = None
        if job.pixels:  # else a few were decoded, which say nothing of all
            part.small += look.small if look else bytes(SIDE * SIDE)
            pictures.append(look.grey if look else None)
            waiting += look.grey.size if look else 0
            if waiting > MOST_PIXELS:
                _measure(pictures, part)
                pictures, waiting = [], 0
        if job.form:
            size = (header.width, header.height)
            part.labelled += read_labels(label_path(image), image, size, job.form, rows, part.findings)
    _measure(pictures, part)
    _judge(rows, job, part)
    return part


def _measure(pictures: Sequence[np.ndarray | None], part: Scan) -> None:
    """Measure what was decoded."""
    there = [place for place, picture in enumerate(pictures) if picture is not None]
    measured = np.full((2, len(pictures)), math.nan, np.float32)
    measured[:, there] = light_and_edges([picture for picture in pictures if picture is not None])
    part.bright.frombytes(measured[0].tobytes())
    part.sharp.frombytes(measured[1].tobytes())


def _judge(rows: Rows, job: Job, part: Scan) -> None:
    """Judge what was read of label files."""
    if job.form:
        counts = check_boxes(rows, job.form.classes, job.imgsz, job.limits, part.findings)
        part.counts = part.counts + counts if len(part.counts) else counts
        check_overlaps(rows, job.limits["box-near-duplicate"], part.findings)
        part.taken.take(rows)
        check_polygons(rows, part.findings)
        seen = check_keypoints(rows, job.form.keypoints, part.findings)
        part.seen = part.seen + seen if len(part.seen) else seen
        part.objects += len(rows.keypoints)
