"""Odd folders of classes, as they come from archives, exporters and file managers: each with the classes that are meant."""

from __future__ import annotations

import shutil
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from check.corpus_formats import grey, saved, tiff
from check.planted import encoded, picture
from PIL import Image


@dataclass(frozen=True)
class Folder:
    """A classification set with something odd.

    Attributes:
        name: What is odd.
        arrange: Changes a plain set (``train`` and ``val``, classes ``a`` and ``b``, four and two images of each).
        given: What is given to the training, within the folder.
        classes: The class names that are meant.
        train: How many images are meant for training; None is not compared.
        val: How many are meant for validation.
        level: What `check` has to say where Ultralytics is content and should not be.
        why: The reason of the level.
    """

    name: str
    arrange: Callable[[Path], Any] | None = None
    given: str = "."
    classes: tuple[str, ...] = ("a", "b")
    train: int | None = 8
    val: int | None = 4
    level: str | None = None
    why: str = ""

    def build(self, root: Path) -> Path:
        for split, count in (("train", 4), ("val", 2)):
            for label in "ab":
                for n in range(count):
                    put(root / split / label / f"{label}{n}.png")
        if self.arrange is not None:
            self.arrange(root)
        return root / self.given


def put(path: Path, content: bytes | None = None) -> None:
    """Write an image that is like no other."""
    path.parent.mkdir(parents=True, exist_ok=True)
    seed = zlib.crc32("/".join(path.parts[-3:]).encode(errors="surrogateescape"))
    path.write_bytes(encoded(picture(seed, 48, 40)) if content is None else content)


def _moved(*pairs: tuple[str, str]) -> Callable[[Path], Any]:
    def arrange(root: Path) -> None:
        for old, new in pairs:
            (root / new).parent.mkdir(parents=True, exist_ok=True)
            shutil.move(root / old, root / new)

    return arrange


def _removed(*places: str) -> Callable[[Path], Any]:
    return lambda root: [shutil.rmtree(root / place) for place in places]


def _splits() -> Iterator[Folder]:
    yield Folder("plain")
    yield Folder("valid", _moved(("val", "valid")))
    yield Folder("validation", _moved(("val", "validation")))
    yield Folder("test for val", _moved(("val", "test")))
    yield Folder("val and test", lambda r: shutil.copytree(r / "val", r / "test"))
    yield Folder("no val", _removed("val"))
    yield Folder("dev", _moved(("val", "dev")))
    yield Folder("Val", _moved(("val", "Val")))
    yield Folder("Train", _moved(("train", "Train")))
    yield Folder("training", _moved(("train", "training")))
    yield Folder("val a file", lambda r: (shutil.rmtree(r / "val"), (r / "val").write_text("x")))
    yield Folder("train a file", lambda r: (shutil.rmtree(r / "train"), (r / "train").write_text("x")))
    yield Folder("val empty", lambda r: (shutil.rmtree(r / "val"), (r / "val").mkdir()))
    yield Folder("val without images", lambda r: [p.unlink() for p in (r / "val").rglob("*.png")])
    yield Folder("test empty", lambda r: (r / "test").mkdir())
    yield Folder("train empty", lambda r: (shutil.rmtree(r / "train"), (r / "train").mkdir()))
    yield Folder("train without images", lambda r: [p.unlink() for p in (r / "train").rglob("*.png")])
    yield Folder("nothing", _removed("train", "val"))
    yield Folder(
        "train linked", lambda r: (shutil.move(r / "train", r / "store"), (r / "train").symlink_to(r / "store"))
    )
    yield Folder("one deeper", _moved(("train", "set/train"), ("val", "set/val")))
    yield Folder("one deeper, told", _moved(("train", "set/train"), ("val", "set/val")), given="set")
    yield Folder("flat", lambda r: (_flat(r), _removed("train", "val")(r)))
    yield Folder(
        "flat in train", lambda r: [shutil.move(p, r / "train" / p.name) for p in sorted((r / "train").rglob("*.png"))]
    )
    yield Folder("train alone given", given="train", train=6, val=2)

    def unsplit(count: int, *more: str) -> Callable[[Path], Any]:
        def arrange(root: Path) -> None:
            _removed("train", "val")(root)
            for label in ("a", "b", *more):
                for n in range(count):
                    put(root / label / f"{label}{n}.png")

        return arrange

    yield Folder("no splits", unsplit(10), train=16, val=4)
    yield Folder(
        "no splits, hidden", unsplit(10, ".cache"), train=16, val=4, level="warning", why="the hidden folder is a class"
    )
    yield Folder("no splits, few", unsplit(4), train=6, val=2)
    yield Folder("no splits, one each", unsplit(1), train=2, val=0)
    yield Folder("no splits, one class", unsplit(10, "c"), classes=("a", "b", "c"), train=24, val=6)
    yield Folder("no splits, notes", lambda r: (unsplit(10)(r), (r / "readme.txt").write_text("x")), train=16, val=4)
    yield Folder(
        "no splits, an empty class", lambda r: (unsplit(10)(r), (r / "c").mkdir()), classes=("a", "b"), train=16, val=4
    )
    yield Folder("no splits, images beside", lambda r: (unsplit(10)(r), put(r / "x.png")), train=16, val=4)
    yield Folder(
        "no splits, deeper", lambda r: (unsplit(10)(r), _moved(("a", "all/a"), ("b", "all/b"))(r)), train=16, val=4
    )

    def split_before(root: Path) -> None:
        unsplit(10)(root)
        put(root.parent / f"{root.name}_split" / "train" / "z" / "z.png")

    yield Folder("no splits, split before", split_before, train=16, val=4)


def _flat(root: Path) -> None:
    for n in range(4):
        put(root / f"{n}.png")


def _classes() -> Iterator[Folder]:
    def also(*places: str, content: bytes | None = None) -> Callable[[Path], Any]:
        return lambda root: [put(root / place, content) for place in places]

    def folder(*places: str) -> Callable[[Path], Any]:
        return lambda root: [(root / place).mkdir(parents=True) for place in places]

    yield Folder("hidden folder", also("train/.ipynb_checkpoints/a0.png"))
    yield Folder("hidden folder empty", folder("train/.ipynb_checkpoints"))
    yield Folder("hidden folders in both", folder("train/.git", "val/.git"))
    yield Folder("hidden folder in val", folder("val/.ipynb_checkpoints"))
    yield Folder("hidden folder in val, full", also("val/.ipynb_checkpoints/a0.png"))
    yield Folder("hidden file", lambda r: (r / "train/.DS_Store").write_bytes(b"x"))
    yield Folder("hidden file in a class", lambda r: (r / "train/a/.DS_Store").write_bytes(b"x"))
    yield Folder("mac files", also("train/a/._a0.png", content=b"\0\5\x16\7" * 9))
    yield Folder("mac folder", also("train/__MACOSX/._a0.png", content=b"\0\5\x16\7" * 9))
    yield Folder("hidden image", also("train/a/.x.png"), train=9)
    yield Folder("empty class", folder("train/c"))
    yield Folder("empty class in both", folder("train/c", "val/c"))
    yield Folder("class of notes", lambda r: (folder("train/notes")(r), (r / "train/notes/x.txt").write_text("x")))
    yield Folder("class of gifs", also("train/c/c.gif", content=saved(picture(3), "GIF")), classes=("a", "b", "c"))
    yield Folder(
        "class in train alone",
        also("train/c/c0.png", "train/c/c1.png"),
        classes=("a", "b", "c"),
        train=10,
        level="warning",
        why="what the class learns is not measured",
    )
    yield Folder("class in val alone", also("val/c/c0.png"), classes=("a", "b", "c"), val=5)
    yield Folder("first class in val alone", also("val/0/c0.png"), classes=("0", "a", "b"), val=5)
    yield Folder("class misspelled in val", _moved(("val/a", "val/A")))
    yield Folder(
        "class missing in val", _removed("val/a"), val=2, level="warning", why="what the class learns is not measured"
    )
    yield Folder(
        "classes of two cases",
        also("train/A/a0.png", "train/A/a1.png"),
        classes=("A", "a", "b"),
        train=10,
        level="warning",
        why="A and a are one class",
    )
    yield Folder(
        "one class",
        _removed("train/b", "val/b"),
        classes=("a",),
        train=4,
        val=2,
        level="warning",
        why="one class is always right",
    )
    yield Folder(
        "images beside the classes",
        also("train/x.png"),
        level="warning",
        why="the image belongs to no class and is not read",
    )
    yield Folder("deeper", _moved(("train/a/a0.png", "train/a/x/y/a0.png")))
    yield Folder(
        "class linked", lambda r: (shutil.move(r / "train/a", r / "store"), (r / "train/a").symlink_to(r / "store"))
    )
    yield Folder("class linked to nowhere", lambda r: (r / "train/c").symlink_to("none"))
    yield Folder("class linked to itself", lambda r: (r / "train/a/loop").symlink_to(r / "train/a"))
    numbers = [f"{s}/{n}/{s}{n}{m}.png" for s in ("train", "val") for n in range(11) for m in range(2)]
    yield Folder(
        "numbers",
        lambda r: (_removed("train", "val")(r), also(*numbers)(r)),
        classes=tuple(sorted(str(n) for n in range(11))),
        train=22,
        val=22,
    )
    yield Folder(
        "codes of imagenet",
        _moved(*((f"{s}/{c}", f"{s}/n0144{n}") for s in ("train", "val") for c, n in (("a", "0764"), ("b", "3537")))),
        classes=("n01440764", "n01443537"),
    )
    yield Folder(
        "blanks and scripts",
        _moved(
            *((f"{s}/{c}", f"{s}/{n}") for s in ("train", "val") for c, n in (("a", "größe 日本"), ("b", "two words")))
        ),
        classes=("größe 日本", "two words"),
    )
    yield Folder("dots", _moved(*((f"{s}/a", f"{s}/v1.0") for s in ("train", "val"))), classes=("b", "v1.0"))
    yield Folder(
        "class train",
        also("train/train/t0.png", "train/train/t1.png", "val/train/t2.png"),
        classes=("a", "b", "train"),
        train=10,
        val=5,
    )
    yield Folder(
        "class labels",
        also("train/labels/t0.png", "train/labels/t1.png", "val/labels/t2.png"),
        classes=("a", "b", "labels"),
        train=10,
        val=5,
    )
    same = encoded(picture(77))
    yield Folder(
        "one image in two classes",
        also("train/a/same.png", "train/b/same.png", content=same),
        train=10,
        level="error",
        why="the same image is two classes",
    )
    yield Folder(
        "one image in two classes and splits",
        also("train/a/same.png", "val/b/same.png", content=same),
        train=9,
        val=5,
        level="error",
        why="the same image is two classes",
    )
    yield Folder(
        "one image in two splits",
        also("train/a/same.png", "val/a/same.png", content=same),
        train=9,
        val=5,
        level="error",
        why="what is measured was learned",
    )
    yield Folder(
        "yaml given",
        lambda r: (r / "data.yaml").write_text("train: train\nval: val\nnames: [a, b]\n"),
        given="data.yaml",
    )
    yield Folder("yaml beside", lambda r: (r / "data.yaml").write_text("names: [b, a]\n"))
    yield Folder("names beside", lambda r: (r / "classes.txt").write_text("b\na\n"))
    yield Folder("not there", given="none")
    yield Folder("a cache", lambda r: (r / "train.cache").write_bytes(b"nothing"))


def _images() -> Iterator[Folder]:
    def one(name: str, file: str, content: bytes, train: int = 9) -> Folder:
        return Folder(f"image {name}", lambda root: put(root / "train/a" / file, content), train=train)

    whole = saved(picture(5), "JPEG", quality=95)
    yield one("cut", "x.jpg", whole[: len(whole) // 2])
    yield one("without end", "x.jpg", whole[:-2])
    yield one("cut png", "x.png", encoded(picture(6))[:300])
    yield one("empty", "x.jpg", b"")
    yield one("tiny", "x.png", encoded(picture(8, 9, 9)))
    yield one("grey", "x.png", encoded(grey("class grey")))
    yield one("alpha", "x.png", encoded(np.dstack([picture(9), picture(10)[..., :1]])))
    yield one("grey alpha", "x.png", saved(Image.fromarray(grey("class la")).convert("LA"), "PNG"))
    yield one("16 bit", "x.tif", saved(Image.fromarray(grey("class 16").astype(np.uint16) * 257), "TIFF"))
    yield one("int32", "x.tif", tiff(grey("class int").astype(np.int32)))
    yield one("float", "x.tif", tiff(grey("class float").astype(np.float32)))
    yield one("10 bands", "x.tif", tiff(np.dstack([grey(f"class {n}") for n in range(10)])))
    yield one("pages", "x.tif", tiff(grey("class p"), grey("class q")))
    yield one("cmyk", "x.jpg", saved(Image.fromarray(picture(11)).convert("CMYK"), "JPEG"))
    yield one("avif", "x.avif", saved(picture(12), "AVIF"))
    yield one("gif", "x.gif", saved(picture(13), "GIF"), 8)
    yield one("gif in png", "x.png", saved(picture(14), "GIF"))
    yield one("capitals", "x.JPG", whole)
    yield one("text", "x.jpg", b"hello")
    yield Folder("image folder", lambda root: (root / "train/a/x.png").mkdir())
    yield Folder("image link broken", lambda root: (root / "train/a/x.png").symlink_to("none"), train=9)
    yield Folder(
        "all of a class cut", lambda root: [p.write_bytes(p.read_bytes()[:99]) for p in (root / "train/a").iterdir()]
    )


def folders() -> Iterator[Folder]:
    """Yield the odd folders of classes."""
    yield from _splits()
    yield from _classes()
    yield from _images()
