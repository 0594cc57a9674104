"""Data sets whose description is plain and whose files lie oddly, or are those of another task."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

from check.corpus_descriptions import COUNTS, ROWS, Case


def cases() -> Iterator[Case]:
    """Yield plain descriptions of odd files."""

    def move(old: str, new: str) -> Callable[[Path], None]:
        def arrange(root: Path) -> None:
            (root / new).parent.mkdir(parents=True, exist_ok=True)
            shutil.move(root / old, root / new)

        return arrange

    def moves(*pairs: tuple[str, str]) -> Callable[[Path], None]:
        def arrange(root: Path) -> None:
            for old, new in pairs:
                move(old, new)(root)

        return arrange

    def emptied(folder: str) -> Callable[[Path], None]:
        def arrange(root: Path) -> None:
            shutil.rmtree(root / folder)
            (root / folder).mkdir()

        return arrange

    yield Case("train without images", arrange=emptied("images/train"))
    yield Case("val without images", arrange=emptied("images/val"))
    yield Case("train without labels", arrange=lambda r: shutil.rmtree(r / "labels/train"))
    yield Case(
        "val without labels",
        arrange=lambda r: shutil.rmtree(r / "labels/val"),
        level="warning",
        why="nothing can be measured",
    )
    yield Case("labels named annotations", arrange=move("labels", "annotations"))
    yield Case(
        "images named Images", {"train": "Images/train", "val": "Images/val"}, arrange=move("images", "Images")
    )  # labels are looked for beside the images
    beside = [(f"labels/{s}/{s}{n}.txt", f"pics/{s}/{s}{n}.txt") for s, count in COUNTS for n in range(count)]
    pictures = {"train": "pics/train", "val": "pics/val"}
    yield Case("labels beside", pictures, arrange=moves(("images", "pics"), *beside))
    kinds = [
        (f"{k}/{s}", f"{new}/{k}") for k in ("images", "labels") for s, new in (("train", "train"), ("val", "valid"))
    ]
    halves = {"train": "train/images", "val": "valid/images"}
    yield Case("a folder a split", halves, arrange=moves(*kinds))
    yield Case("split above images", {"train": "train", "val": "valid"}, arrange=moves(*kinds))
    yield Case(
        "images within images", {"train": "images/images/train", "val": "images/images/val"},
        arrange=moves(("images", "old"), ("old", "images/images"), ("labels", "images/labels")),
    )  # fmt: skip
    yield Case(
        "deeper folders",
        arrange=moves(
            ("images/train/train0.png", "images/train/x/y/train0.png"),
            ("labels/train/train0.txt", "labels/train/x/y/train0.txt"),
        ),
    )
    yield Case(
        "labels not as deep",
        arrange=move("images/train/train0.png", "images/train/x/train0.png"),
        level="warning",
        why="its labels are there and are not read",
    )
    yield Case(
        "folder linked",
        arrange=lambda r: (shutil.move(r / "images", r / "store"), (r / "images").symlink_to(r / "store")),
    )
    yield Case("folder linked into itself", arrange=lambda r: (r / "images/train/loop").symlink_to(r / "images/train"))
    yield Case(
        "link to nowhere",
        arrange=lambda r: (shutil.rmtree(r / "images/train"), (r / "images/train").symlink_to("none")),
    )
    yield Case("stale cache", arrange=lambda r: (r / "labels/train.cache").write_bytes(b"nothing"))
    yield Case("hidden folder", arrange=move("images/train/train0.png", "images/train/.x/train0.png"), train=2)
    yield Case("one image", arrange=lambda r: [(r / f"images/train/train{n}.png").unlink() for n in (1, 2)], train=1)
    yield Case(
        "boxes for segments",
        task="segment",
        arrange=lambda r: [p.write_text("0 0.5 0.5 0.4 0.4\n") for p in (r / "labels").rglob("*.txt")],
    )
    yield Case(
        "one box among segments",
        task="segment",
        arrange=lambda r: (r / "labels/train/train0.txt").write_text("0 0.5 0.5 0.4 0.4\n"),
    )
    yield Case(
        "two points among segments",
        task="segment",
        arrange=lambda r: (r / "labels/val/val0.txt").write_text("0 0.1 0.1 0.2 0.2\n"),
    )
    yield Case(
        "boxes for turned boxes",
        task="obb",
        arrange=lambda r: [p.write_text("0 0.5 0.5 0.4 0.4\n") for p in (r / "labels").rglob("*.txt")],
    )
    yield Case(
        "one polygon among boxes",
        arrange=lambda r: (r / "labels/train/train0.txt").write_text("\n".join(ROWS["segment"])),
    )
    yield Case(
        "segments for boxes",
        arrange=lambda r: [p.write_text("\n".join(ROWS["segment"])) for p in (r / "labels").rglob("*.txt")],
    )
    yield Case(
        "pose for boxes",
        {"kpt_shape": [3, 3]},
        arrange=lambda r: [p.write_text("\n".join(ROWS["pose"])) for p in (r / "labels").rglob("*.txt")],
    )
    yield Case(
        "pose for boxes, shape unsaid",
        arrange=lambda r: [p.write_text("\n".join(ROWS["pose"])) for p in (r / "labels").rglob("*.txt")],
    )
    yield Case(
        "all empty",
        arrange=lambda r: [p.write_text("") for p in (r / "labels").rglob("*.txt")],
        level="error",
        why="there is nothing to learn",
    )
    yield Case(
        "all empty in val",
        arrange=lambda r: [p.write_text("") for p in (r / "labels/val").rglob("*.txt")],
        level="warning",
        why="nothing can be measured",
    )
