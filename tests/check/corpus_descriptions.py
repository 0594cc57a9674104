"""Odd descriptions of data sets: `data.yaml` as users, editors and exporters write it, each with the set that is meant."""

from __future__ import annotations

import functools
import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from check.corpus_labels import POINTS, POLYGON
from check.planted import encoded, picture

DATA = "data.yaml"
COUNTS = (("train", 3), ("val", 2))
ROWS = {
    "detect": ("0 0.5 0.5 0.4 0.4", "1 0.3 0.3 0.2 0.2"),
    "segment": (POLYGON, "1 0.1 0.1 0.3 0.1 0.3 0.4 0.1 0.4"),
    "obb": (POLYGON, "1 0.1 0.1 0.3 0.1 0.3 0.4 0.1 0.4"),
    "pose": (POINTS, "1 0.3 0.3 0.2 0.2 0.3 0.3 1 0.25 0.3 1 0.35 0.3 2"),
}
POSE = {"kpt_shape": [3, 3], "flip_idx": [0, 2, 1]}


@dataclass(frozen=True)
class Case:
    """A data set with an odd description.

    Attributes:
        name: What is odd.
        keys: Keys of the description over the plain ones; a value of None is written as ``null``.
        drop: Keys that are left out.
        text: The whole description, instead; ``{root}`` is the folder.
        arrange: Changes the files: called with the folder.
        task: Its task.
        given: What is given to the training, within the folder.
        train: How many images are meant for training.
        val: How many are meant for validation.
        names: The class names that are meant.
        level: What `check` has to say where Ultralytics is content and should not be.
        why: The reason of the level.
    """

    name: str
    keys: dict[str, Any] = field(default_factory=dict)
    drop: tuple[str, ...] = ()
    text: str | bytes | None = None
    arrange: Callable[[Path], Any] | None = None
    task: str = "detect"
    given: str = DATA
    train: int = 3
    val: int = 2
    names: tuple[str, ...] = ("a", "b")
    level: str | None = None
    why: str = ""

    def build(self, root: Path) -> Path:
        """Write the data set; return what is given to the training."""
        write_images(root, self.task)
        keys = {"path": str(root), "train": "images/train", "val": "images/val", "names": ["a", "b"]}
        keys |= POSE if self.task == "pose" else {}
        keys = {key: value for key, value in {**keys, **self.keys}.items() if key not in self.drop}
        text = yaml.safe_dump(keys, sort_keys=False, allow_unicode=True) if self.text is None else self.text
        content = (
            text.replace("{root}", str(root)).encode()
            if isinstance(text, str)
            else text.replace(b"{root}", bytes(root))
        )
        (root / DATA).write_bytes(content)
        if self.arrange is not None:
            self.arrange(root)
        return root / self.given


@functools.cache
def _image(seed: int) -> bytes:
    return encoded(picture(seed, 64, 48))


def write_images(root: Path, task: str) -> None:
    """Write three images for training and two for validation, all unlike, with both classes in each."""
    for split, count in COUNTS:
        for kind in ("images", "labels"):
            (root / kind / split).mkdir(parents=True)
        for n in range(count):
            image = _image(1000 + n + 10 * (split == "val"))
            (root / "images" / split / f"{split}{n}.png").write_bytes(image)
            (root / "labels" / split / f"{split}{n}.txt").write_text("\n".join(ROWS[task]) + "\n")


def _plain(head: str, names: str = "names: [a, b]", rest: str = "") -> str:
    return f"{head}path: {{root}}\ntrain: images/train\nval: images/val\n{names}\n{rest}"


def _names() -> Iterator[Case]:
    def of(name: str, value: Any, **options: Any) -> Case:
        return Case(f"names {name}", {"names": value}, **options)

    yield Case("plain")
    yield of("by number", {0: "a", 1: "b"})
    yield of("by text number", {"0": "a", "1": "b"})
    yield of("in another order", {1: "b", 0: "a"})
    yield of("with a gap", {0: "a", 2: "b"})
    yield of("from 1", {1: "a", 2: "b"})
    yield of("from -1", {-1: "a", 0: "b"}, level="error", why="class 1 has no name, class -1 can have no object")
    yield of("by float", {0.0: "a", 1.0: "b"})
    yield of("by bool", {False: "a", True: "b"})
    yield of("turned round", {"a": 0, "b": 1})
    yield of("in a text", "a, b")
    yield of("none", None)
    yield of("empty list", [])
    yield of("empty mapping", {})
    yield of("a number", 2)
    yield of("nested", [["a", "b"]])
    yield of("twice", ["a", "a"], names=("a", "a"), level="warning", why="two classes of one name cannot be told apart")
    yield of("twice but for blanks", ["a", "a "], names=("a", "a "), level="warning", why="two classes of one name")
    yield of("empty name", ["a", ""], names=("a", ""), level="warning", why="a class without a name")
    yield of("numbers", [1, 2], names=("1", "2"))
    yield of("words of YAML", [True, None], names=("True", "None"))
    yield Case("names yes and no", text=_plain("", "names: [yes, no]"), names=("yes", "no"))
    yield Case("names a date", text=_plain("", "names: [2020-01-01, b]"), names=("2020-01-01", "b"))
    yield Case("names 1e3", text=_plain("", "names: [1e3, 010]"), names=("1e3", "010"))
    yield of("of all scripts", ["größe", "日本"], names=("größe", "日本"))
    yield of("with slashes", ["a/b", "c\\d"], names=("a/b", "c\\d"))
    yield of("too few", ["a"], names=("a",))
    yield of("too many", ["a", "b", "c"], names=("a", "b", "c"))
    yield of("of imagenet", ["n01440764", "n01443537"], names=("tench", "goldfish"))
    yield Case("names a key twice", text=_plain("", "names:\n  0: a\n  1: b\n  1: c"))
    yield Case("names indented wrong", text=_plain("", "names:\n0: a\n1: b"))
    yield Case("names a list at the margin", text=_plain("", "names:\n- a\n- b"))
    yield Case("nc right", {"nc": 2})
    yield Case("nc 3", {"nc": 3})
    yield Case("nc text", {"nc": "2"})
    yield Case("nc 2.0", {"nc": 2.0})
    yield Case("nc 1.9", {"nc": 1.9})
    yield Case("nc null", {"nc": None})
    yield Case("nc true", {"nc": True, "names": ["a"]}, names=("a",))
    yield Case("nc alone", {"nc": 2}, drop=("names",), names=("class_0", "class_1"))
    yield Case("nc and names null", {"nc": 2, "names": None}, names=("class_0", "class_1"))
    yield Case("nc 0", {"nc": 0}, drop=("names",))
    yield Case("nc -1", {"nc": -1}, drop=("names",))
    yield Case("nc a list", {"nc": [2]})
    yield Case("no names at all", drop=("names",))


def _places() -> Iterator[Case]:
    def path(name: str, value: Any, **options: Any) -> Case:
        return Case(f"path {name}", {"path": value}, **options)

    yield path("null", None)
    yield path("empty", "")
    yield Case("path left out", drop=("path",))
    yield path("a dot", ".")
    yield path("of the parent", "..")
    yield path("a number", 5)
    yield path("a list", ["a"])
    yield path("that is not there", "/nowhere/at/all")
    yield path("relative that is not there", "no-such-folder")
    yield path("of home", "~/no-such-folder")
    yield path("of a variable", "$HOME/no-such-folder")
    yield path("a file", "{root}/data.yaml")
    yield Case("path with a slash behind", text=_plain("").replace("{root}", "{root}/"))
    yield Case("path with dots", text=_plain("").replace("{root}", "{root}/images/.."))
    yield Case("path false", {"path": False})
    yield Case("path of images", text="path: {root}/images\ntrain: train\nval: val\nnames: [a, b]\n")
    yield Case(
        "path through a link",
        text=_plain("").replace("{root}", "{root}/link"),
        arrange=lambda r: (r / "link").symlink_to(r),
    )


def _splits() -> Iterator[Case]:
    def of(name: str, **options: Any) -> Case:
        keys = {key: options.pop(key) for key in ("train", "val", "test") if key in options}
        return Case(f"split {name}", keys, **options)

    def lists(name: str, lines: str | bytes, train: int = 3, **options: Any) -> Case:
        def arrange(root: Path) -> None:
            raw = (
                lines.replace("{root}", str(root)).encode()
                if isinstance(lines, str)
                else lines.replace(b"{root}", bytes(root))
            )
            (root / "train.txt").write_bytes(raw)

        return Case(f"list {name}", {"train": "train.txt"}, arrange=arrange, train=train, **options)

    three = "".join(f"./images/train/train{n}.png\n" for n in range(3))
    yield of("list of one", train=["images/train"])
    yield of("list of val", val=["images/val"])
    learned = "what is measured was learned"
    yield Case("split list of both", {"train": ["images/train", "images/val"]}, train=5, level="error", why=learned)
    often = "an image counts as often as it is listed, which is a way to show it more often"
    yield Case("split folder twice", {"train": ["images/train", "images/train"]}, train=6, level="info", why=often)
    yield of("list of one that is not there", train=["images/train", "images/none"])
    yield of("train not there", train="images/none")
    yield of("val not there", val="images/none")
    yield of("val list not there", val=["images/val", "images/none"])
    yield of(
        "test not there",
        test="images/none",
        level="warning",
        why="a test of it will fail, the training does not need it",
    )
    yield of("test empty", test="")
    yield of("test null", test=None)
    yield of("test none as text", test="None")
    yield of("test is val", test="images/val")
    yield of("train null", train=None)
    yield of("train empty", train="")
    yield of("train empty list", train=[])
    yield of("train a number", train=3)
    yield of("train a mapping", train={"a": "images/train"})
    yield of("train list of numbers", train=[1])
    yield of("train list of lists", train=[["images/train"]])
    yield Case("no train", drop=("train",))
    yield Case("no val", drop=("val",))
    yield of("val null", val=None)
    yield of("val false", val=False)
    yield of("val empty", val="")
    yield Case("validation", {"validation": "images/val"}, drop=("val",))
    yield Case("validation and val", {"validation": "images/none"})
    yield Case("valid", {"valid": "images/val"}, drop=("val",))
    yield Case("capitals", text="path: {root}\nTrain: images/train\nVal: images/val\nNames: [a, b]\n")
    yield Case("split all in train", {"train": "images"}, train=5, level="error", why=learned)
    yield of("glob", train="images/train/*.png")
    yield of("one image", train="images/train/train0.png")
    yield of("labels for images", train="labels/train")
    yield of("windows", train="images\\train")
    yield of("blank behind", train="images/train ")
    yield of("dots", train="./images/../images/train")
    yield of("roboflow", train="../images/train", val="../images/val")
    yield of("two up", train="../../images/train")
    yield Case("split absolute", text="train: {root}/images/train\nval: {root}/images/val\nnames: [a, b]\n")
    yield Case("split slash before", {"train": "/images/train"})
    yield Case("split the root", {"train": ".", "val": "images/val"}, train=5, level="error", why=learned)
    yield lists("plain", three)
    yield lists("absolute", "".join(f"{{root}}/images/train/train{n}.png\n" for n in range(3)))
    yield lists("without a dot", three.replace("./", ""))
    yield lists("blank lines", "\n\n" + three.replace("\n", "\n\n"))
    yield lists("crlf", three.replace("\n", "\r\n"))
    yield lists("mark", b"\xef\xbb\xbf" + three.encode())
    yield lists("blanks behind", three.replace("\n", " \n"))
    yield lists("blanks before", three.replace("./", "  ./"))
    yield lists("twice", three + three, 6, level="info", why=often)
    yield lists("one missing", three + "./images/train/none.png\n", 4)
    yield lists("all missing", "./none0.png\n./none1.png\n")
    yield lists("comment", "# images\n" + three)
    yield lists("labels behind", three.replace("\n", " 0,0,10,10,1\n"))
    yield lists("endings missing", three.replace(".png", ""))
    yield lists("a folder", "./images/train\n")
    yield lists("empty", "")
    yield lists("latin 1", b"\xff\xfe./images/train/train0.png\n")
    yield lists("windows", three.replace("/", "\\"))
    yield lists("of home", "~/train0.png\n")
    yield lists("quoted", three.replace("./", '"./').replace(".png", '.png"'))
    yield Case(
        "list of lists",
        {"train": ["train.txt", "images/val"]},
        arrange=lambda r: (r / "train.txt").write_text(three),
        train=5,
        level="error",
        why=learned,
    )
    yield Case("list named otherwise", {"train": "train.lst"}, arrange=lambda r: (r / "train.lst").write_text(three))


def _others() -> Iterator[Case]:
    for value in (1, 4, 10, "3", 0, -1, None, 3.0, True, [3], "rgb", 2):
        yield Case(f"channels {value!r}", {"channels": value})
    yield Case(
        "channels of grey images", {"channels": 1}, arrange=lambda r: [_grey(p) for p in (r / "images").rglob("*.png")]
    )
    yield Case("grey images", arrange=lambda r: [_grey(p) for p in (r / "images").rglob("*.png")])

    def pose(name: str, **keys: Any) -> Case:
        level, why, drop = keys.pop("level", None), keys.pop("why", ""), keys.pop("drop", ())
        return Case(f"pose {name}", keys, drop=drop, task="pose", level=level, why=why)

    yield pose("plain")
    yield pose("no kpt_shape", drop=("kpt_shape",))
    yield pose("kpt_shape null", kpt_shape=None)
    yield pose("kpt_shape [3]", kpt_shape=[3])
    yield pose("kpt_shape 3", kpt_shape=3)
    yield pose("kpt_shape [3, 4]", kpt_shape=[3, 4])
    yield pose("kpt_shape [3, 1]", kpt_shape=[3, 1])
    yield pose("kpt_shape [3, 3, 3]", kpt_shape=[3, 3, 3])
    yield pose("kpt_shape text", kpt_shape="3, 3")
    yield pose("kpt_shape of texts", kpt_shape=["3", "3"])
    yield pose("kpt_shape of floats", kpt_shape=[3.0, 3.0])
    yield pose("kpt_shape [0, 3]", kpt_shape=[0, 3])
    yield pose("kpt_shape [-3, 3]", kpt_shape=[-3, 3])
    yield pose("kpt_shape of more", kpt_shape=[4, 3], drop=("flip_idx",))
    yield pose("kpt_shape without visibility", kpt_shape=[3, 2])
    yield pose("kpt_shape turned", kpt_shape=[3, 3][::-1])
    yield pose("no flip_idx", drop=("flip_idx",))
    yield pose("flip_idx []", flip_idx=[])
    yield pose("flip_idx null", flip_idx=None)
    yield pose("flip_idx short", flip_idx=[0, 2])
    yield pose("flip_idx long", flip_idx=[0, 2, 1, 3])
    yield pose("flip_idx from 1", flip_idx=[1, 3, 2])
    yield pose(
        "flip_idx negative", flip_idx=[0, -1, 1], level="error", why="-1 is the last keypoint: two keypoints become one"
    )
    yield pose("flip_idx of one", flip_idx=[0, 0, 0], level="error", why="keypoints are lost in each flip")
    yield pose(
        "flip_idx no exchange", flip_idx=[1, 2, 0], level="error", why="two flips do not give back the keypoints"
    )
    yield pose("flip_idx as it is", flip_idx=[0, 1, 2])
    yield pose("flip_idx floats", flip_idx=[0.0, 2.0, 1.0])
    yield pose("flip_idx texts", flip_idx=["0", "2", "1"])
    yield pose("flip_idx text", flip_idx="0, 2, 1")
    yield pose("kpt_names by class", kpt_names={0: ["x", "y", "z"], 1: ["x", "y", "z"]})
    yield pose("kpt_names list", kpt_names=["x", "y", "z"])
    yield pose("kpt_names null", kpt_names=None)
    for key, value in (
        ("flip_idx", [0]),
        ("roboflow", {"license": "MIT"}),
        ("download", ""),
        ("minival", ""),
        ("license", None),
    ):
        yield Case(f"also {key}", {key: value})
    yield Case("kpt_shape of a box set", {"kpt_shape": [17, 3]})
    yield Case("kpt_shape of a box set wrong", {"kpt_shape": [17]})
    yield Case("download of what is there", {"download": "https://example.invalid/x.zip"})
    yield Case("download a number", {"download": 5})

    yield Case("yaml empty", text="")
    yield Case("yaml comments only", text="# nothing\n")
    yield Case("yaml null", text="null\n")
    yield Case("yaml a list", text="- a\n- b\n")
    yield Case("yaml a text", text="hello\n")
    yield Case("yaml tabs", text=_plain("", "names:\n\t0: a\n\t1: b"))
    yield Case("yaml tab behind", text=_plain("", "names: [a, b]\t"))
    yield Case("yaml not closed", text=_plain("", "names: [a, b"))
    yield Case("yaml colon without blank", text=_plain("").replace("train: ", "train:"))
    yield Case("yaml colon in a name", text=_plain("", "names: [a: b, c]"))
    yield Case("yaml indentation", text=_plain("").replace("val:", "  val:"))
    yield Case("yaml mark", text=b"\xef\xbb\xbf" + _plain("").encode())
    yield Case("yaml crlf", text=_plain("").replace("\n", "\r\n"))
    yield Case("yaml latin 1", text=_plain("", "names: [größe, b]").encode("latin-1"), names=("größe", "b"))
    yield Case("yaml utf 16", text=_plain("").encode("utf-16"))
    yield Case("yaml nul", text=_plain("").encode() + b"\0\0")
    yield Case("yaml bell", text=_plain("# \x07\n"))
    yield Case("yaml emoji", text=_plain("", "names: [😀, b]"), names=("😀", "b"))
    yield Case("yaml anchors", text=_plain("x: &n [a, b]\n", "names: *n"))
    yield Case("yaml anchor unknown", text=_plain("", "names: *n"))
    yield Case("yaml merged", text=_plain("x: &n {0: a}\n", "names:\n  <<: *n\n  1: b"))
    yield Case("yaml a document", text=_plain("---\n") + "...\n")
    yield Case("yaml two documents", text=_plain("---\n") + "---\nx: 1\n")
    yield Case("yaml an object", text=_plain("x: !!python/object:os.system {}\n"))
    yield Case("yaml a tag", text=_plain("x: !mine 5\n"))
    yield Case("yaml train twice", text=_plain("train: images/none\n"))
    yield Case(
        "yaml is json", text='{"path": "{root}", "train": "images/train", "val": "images/val", "names": ["a", "b"]}'
    )
    yield Case("yaml quotes", text=_plain("").replace("images/train", '"images/train"'))
    yield Case("yaml comment behind", text=_plain("").replace("images/train", "images/train  # 3 images"))
    yield Case("yaml comment too near", text=_plain("").replace("images/train", "images/train# 3 images"))
    yield Case("yaml keys of numbers", text=_plain("1: 2\n"))
    yield Case("yaml a set", text=_plain("", "names: !!set {a, b}"))

    def named(new: str) -> Callable[[Path], Any]:
        return lambda root: (root / DATA).rename(root / new)

    yield Case("file .yml", arrange=named("data.yml"), given="data.yml")
    yield Case("file .YAML", arrange=named("data.YAML"), given="data.YAML")
    yield Case("file .txt", arrange=named("data.txt"), given="data.txt")
    yield Case(
        "file .json",
        text='{"path": "{root}", "train": "images/train", "val": "images/val", "names": ["a", "b"]}',
        arrange=named("data.json"),
        given="data.json",
    )
    yield Case("file without ending", arrange=named("data"), given="data")
    yield Case("file with blanks", arrange=named("my data (1).yaml"), given="my data (1).yaml")
    yield Case("folder given", given=".")
    yield Case("folder of two", arrange=lambda r: shutil.copy(r / DATA, r / "second.yaml"), given=".")
    yield Case("folder of none", arrange=lambda r: (r / DATA).unlink(), given=".")
    yield Case("file not there", given="none.yaml")
    yield Case("file a link", arrange=lambda r: (r / "link.yaml").symlink_to(r / DATA), given="link.yaml")
    yield Case(
        "file deeper",
        arrange=lambda r: ((r / "cfg").mkdir(), (r / DATA).rename(r / "cfg/data.yaml")),
        given="cfg/data.yaml",
    )
    yield Case(
        "file deeper without path",
        drop=("path",),
        arrange=lambda r: ((r / "cfg").mkdir(), (r / DATA).rename(r / "cfg/data.yaml")),
        given="cfg/data.yaml",
    )
    yield Case("file a picture", arrange=lambda r: (r / DATA).write_bytes(encoded(picture(1))))
    yield Case("file a folder", arrange=lambda r: ((r / DATA).unlink(), (r / DATA).mkdir()))


def _grey(path: Path) -> None:
    path.write_bytes(encoded(picture(sum(os.fsencode(path.name)) + 5000, 64, 48)[..., 0]))


def cases() -> Iterator[Case]:
    """Yield the odd descriptions."""
    yield from _names()
    yield from _places()
    yield from _splits()
    yield from _others()
