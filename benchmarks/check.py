"""The data check against Ultralytics' own first scan of the same folder, side by side and in turns; and its memory.

    python -m benchmarks.check [--images 2000] [--side 640] [--rounds 7] [--json F]

Ultralytics' scan is what a training does first on new data: list the images, read headers and labels, write its cache, which is
removed before each round. Ours is ``check`` with and without near duplicates and the sample of augmented images. Both run in
this process with everything imported, on files that the system has in memory; the ratio is taken round by round. Images are
the built-in data set ``shapes``, as JPEG (what most data sets hold) and as PNG. Memory is the peak of what Python and NumPy
allocate during a check of a part and of all images.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml
from PIL import Image

from yolo_stable.check import check
from yolo_stable.check.finding import Severity
from yolo_stable.data.builtin import make

from .contenders import quiet
from .record import keep, show

VARIANTS: dict[str, dict[str, Any]] = {
    "without near duplicates": {"near": False},
    "and augmented sample": {"near": False, "sample": 32},
    "all rules": {},
}


def as_jpeg(source: Path, target: Path) -> Path:
    """Write a data set again with JPEG files, and return its ``data.yaml``."""
    content = yaml.safe_load((source / "data.yaml").read_text())
    for file in source.rglob("*/*/*"):
        place = target / file.relative_to(source)
        place.parent.mkdir(parents=True, exist_ok=True)
        if file.suffix == ".png":
            Image.open(file).save(place.with_suffix(".jpg"), quality=90)
        elif file.suffix == ".txt":
            place.write_bytes(file.read_bytes())
    path = target / "data.yaml"
    path.write_text(yaml.safe_dump({**content, "path": str(target)}, sort_keys=False))
    return path


def first_scan(data: Path) -> float:
    """Return the seconds that Ultralytics needs to scan all splits of a data set that it has not seen."""
    from ultralytics.data.dataset import YOLODataset

    content = yaml.safe_load(data.read_text())
    for cache in data.parent.rglob("*.cache"):
        cache.unlink()
    begun = time.perf_counter()
    for split in ("train", "val"):
        YOLODataset(img_path=str(Path(content["path"], content[split])), data=content, task="detect", augment=False)
    return time.perf_counter() - begun


def our_check(data: Path, options: dict[str, Any]) -> float:
    """Return the seconds of a check; it must find nothing that is wrong. A shape may fill its image, which is a note."""
    begun = time.perf_counter()
    report = check(data, **options)
    seconds = time.perf_counter() - begun
    assert all(finding.severity is Severity.INFO for finding in report.findings), report.verdict
    return seconds


def compare(data: Path, rounds: int) -> list[dict[str, Any]]:
    """Return a row for each variant: median seconds, and the median of the rounds' ratios."""
    theirs: list[float] = []
    ours: dict[str, list[float]] = {name: [] for name in VARIANTS}
    calls: list[tuple[list[float], Callable[[], float]]] = [(theirs, lambda: first_scan(data))]
    calls += [(ours[name], lambda options=options: our_check(data, options)) for name, options in VARIANTS.items()]
    for number in range(rounds + 1):  # the first round warms up
        for times, call in calls if number % 2 else reversed(calls):
            times.append(call())
    rows: list[dict[str, Any]] = []
    for name, times in ours.items():
        ratios = [a / b for a, b in zip(times[1:], theirs[1:], strict=True)]
        row = {"check": name, "seconds": statistics.median(times[1:]), "first scan": statistics.median(theirs[1:])}
        rows.append({**row, "ratio": statistics.median(ratios), "lowest": min(ratios), "highest": max(ratios)})
    return rows


def peak(data: Path, images: int | None) -> float:
    """Return the peak in MB of a check of the first images, or of all."""
    content = yaml.safe_load(data.read_text())
    listed = sorted(Path(content["path"], content["train"]).iterdir())[:images]
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "train.txt").write_text("\n".join(map(str, listed)))
        part = Path(folder) / "data.yaml"
        part.write_text(yaml.safe_dump({**content, "path": folder, "train": "train.txt", "val": "train.txt"}))
        tracemalloc.start()
        check(part, split="train")
        top = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    return top / 1e6


def main() -> None:
    """Run all rounds."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=2000)
    parser.add_argument("--side", type=int, default=640)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    quiet()
    with tempfile.TemporaryDirectory() as folder:
        png = make("shapes", cache=folder, train=options.images, val=16, imgsz=options.side)
        rows: list[dict[str, Any]] = []
        for kind, data in (("JPEG", as_jpeg(png.parent, Path(folder, "jpeg"))), ("PNG", png)):
            few, many = peak(data, options.images // 10), peak(data, None)
            rows += [
                {"files": kind, **row, f"MB, {options.images // 10}": few, f"MB, {options.images}": many}
                for row in compare(data, options.rounds)
            ]
    show(f"data check and Ultralytics' first scan, {options.images} images of {options.side} px", rows)
    print(keep("check", rows, {k: v for k, v in vars(options).items() if k != "json"}, options.json))


if __name__ == "__main__":
    main()
