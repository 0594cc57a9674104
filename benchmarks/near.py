"""Near duplicates of each kind that are found, pairs that are none, findings in clean data, and memory.

    python -m benchmarks.near [--photographs FOLDER] [--copies 16] [--json F]

Copies of each kind are made of photographs in a folder of one's own, or of drawn clouds where none is given, put into a split
beside their originals, and looked for. In the folder itself all pairs that are reported are named, so that somebody can look at
them. The built-in data sets hold no copies and no slips; anything that is found there is an error of ours. Memory is the highest
that a fresh process had in use, with and without the augmented sample (Linux: its parent is not counted).
"""

from __future__ import annotations

import argparse
import io
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from PIL import Image, ImageDraw, ImageEnhance, ImageFilter

from yolo_stable.check import check
from yolo_stable.data.builtin import declaration, make

from .record import keep, show

Turn = Image.Transpose


def jpeg(image: Image.Image, quality: int = 85) -> bytes:
    """Return an image's file."""
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=quality)
    return buffer.getvalue()


def cropped(image: Image.Image, share: float) -> Image.Image:
    """Return an image without this share of each side."""
    width, height = image.size
    return image.crop(
        (round(share * width), round(share * height), round((1 - share) * width), round((1 - share) * height))
    )


def captioned(image: Image.Image, below: bool) -> Image.Image:
    """Return an image with a line of text, on it or on a strip below it."""
    width, height = image.size
    strip = height // 16
    canvas = Image.new("RGB", (width, height + strip * below), "white")
    canvas.paste(image)
    place = (width // 20, height + 1 if below else height - 2 * strip)
    ImageDraw.Draw(canvas).text(
        place, "Figure 3: the same, with a caption", fill="black" if below else "yellow", font_size=strip * 0.8
    )
    return canvas


KINDS: dict[str, Callable[[Image.Image], bytes]] = {
    "another focus": lambda image: jpeg(image.filter(ImageFilter.UnsharpMask(4, 150))),
    "a caption on it": lambda image: jpeg(captioned(image, below=False)),
    "a caption below": lambda image: jpeg(captioned(image, below=True)),
    "encoded at quality 25": lambda image: jpeg(image, 25),
    "a third of the size": lambda image: jpeg(image.resize((image.width // 3, image.height // 3))),
    "made square": lambda image: jpeg(image.resize((416, 416))),
    "cropped by 1 % a side": lambda image: jpeg(cropped(image, 0.01)),
    "cropped by 2 % a side": lambda image: jpeg(cropped(image, 0.02)),
    "cropped by 5 % a side": lambda image: jpeg(cropped(image, 0.05)),
    "a quarter turn": lambda image: jpeg(image.transpose(Turn.ROTATE_90)),
    "a half turn": lambda image: jpeg(image.transpose(Turn.ROTATE_180)),
    "a mirror": lambda image: jpeg(image.transpose(Turn.FLIP_LEFT_RIGHT)),
    "upside down": lambda image: jpeg(image.transpose(Turn.FLIP_TOP_BOTTOM)),
    "blurred by 2 px": lambda image: jpeg(image.filter(ImageFilter.GaussianBlur(2))),
    "blurred by 10 px": lambda image: jpeg(image.filter(ImageFilter.GaussianBlur(10))),
    "darker by 30 %": lambda image: jpeg(ImageEnhance.Brightness(image).enhance(0.7)),
    "less contrast": lambda image: jpeg(ImageEnhance.Contrast(image).enhance(0.6)),
    "cropped, turned, blurred": lambda image: jpeg(
        cropped(image, 0.02).transpose(Turn.ROTATE_270).filter(ImageFilter.GaussianBlur(3))
    ),
}


def drawn(seed: int) -> Image.Image:
    """Return clouds with details of several sizes."""
    random = np.random.default_rng(seed)
    whole = np.zeros((480, 640, 3))
    for cells, weight in ((5, 0.5), (12, 0.3), (30, 0.2)):
        coarse = Image.fromarray(random.integers(0, 256, (cells * 3 // 4, cells, 3), dtype=np.uint8))
        whole += weight * np.asarray(coarse.resize((640, 480), Image.Resampling.BICUBIC))
    return Image.fromarray(whole.astype(np.uint8))


def photographs(folder: Path | None, count: int) -> list[Image.Image]:
    """Return originals, spread evenly over a folder."""
    if folder is None:
        return [drawn(seed) for seed in range(count)]
    files = sorted(path for path in folder.rglob("*") if path.suffix.lower() in {".jpg", ".jpeg", ".png"})
    return [Image.open(file).convert("RGB") for file in files[:: max(len(files) // count, 1)][:count]]


def found(originals: list[Image.Image], kind: str) -> dict[str, Any]:
    """Return how many copies of a kind are found, and how many pairs are told that are none."""
    with tempfile.TemporaryDirectory() as folder:
        for split in ("train", "val"):
            Path(folder, "images", split).mkdir(parents=True)
        for number, image in enumerate(originals):
            Path(folder, f"images/train/{number}.jpeg").write_bytes(jpeg(image, 95))
            Path(folder, f"images/val/{number}.jpg").write_bytes(KINDS[kind](image))
        description = Path(folder, "data.yaml")
        description.write_text(yaml.safe_dump({"train": "images/train", "val": "images/val", "names": ["a"]}))
        pairs = [f.others for f in check(description).findings if f.rule.id.startswith("near-duplicate")]
    right = sum(Path(one).stem == Path(other).stem for one, other in pairs)
    return {"what": kind, "of": len(originals), "found": right, "false": len(pairs) - right, "MB": ""}


def pairs_in(folder: Path) -> dict[str, Any]:
    """Return the pairs that are told in a folder with a ``data.yaml``; each is for somebody to look at."""
    report = check(folder)
    pairs = [report.one_line(f) for f in report.findings if f.rule.id.startswith("near-duplicate")]
    print(*pairs, sep="\n")
    return {"what": "pairs in the folder", "of": report.total, "found": len(pairs), "false": "look", "MB": ""}


def clean() -> list[dict[str, Any]]:
    """Return a row for each built-in data set: findings, of which there should be none."""
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as folder:
        for name in ("shapes", "digits"):
            for task in declaration(name)["tasks"]:
                report = check(make(name, task=task, cache=folder), task=task)
                false = len(report.findings)
                rows.append({"what": f"{name}, {task}", "of": report.total, "found": "", "false": false, "MB": ""})
    return rows


def memory(data: Path, sample: int) -> float:
    """Return the megabytes that a check had in use at most, in a process of its own."""
    code = (
        "import sys; from yolo_stable.check import check; check(sys.argv[1], sample=int(sys.argv[2]));"
        "print(*[line.split()[1] for line in open('/proc/self/status') if line.startswith('VmHWM')])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(data), str(sample)], capture_output=True, text=True, check=True
    )
    return float(done.stdout.split()[-1]) / 1e3


def main() -> None:
    """Run all of it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--photographs", type=Path, help="a folder with a data.yaml")
    parser.add_argument("--copies", type=int, default=16)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    if options.photographs is not None and not options.photographs.exists():
        parser.error(
            f"--photographs {options.photographs} does not exist; give a data.yaml or the folder of a data set"
        )
    originals = photographs(options.photographs, options.copies)
    rows = [found(originals, kind) for kind in KINDS]
    if options.photographs:
        rows.append(pairs_in(options.photographs))
    rows += clean()
    with tempfile.TemporaryDirectory() as folder:
        data = make("shapes", cache=folder)
        for sample in (0, 32):
            what = f"memory, a sample of {sample}"
            rows.append({"what": what, "of": "", "found": "", "false": "", "MB": round(memory(data, sample))})
    show("near duplicates, clean data, memory", rows)
    print(keep("near", rows, {k: str(v) for k, v in vars(options).items() if k != "json"}, options.json))


if __name__ == "__main__":
    main()
