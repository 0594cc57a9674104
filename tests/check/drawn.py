"""Drawn data sets of every task, and what an honest copy of each has to hold, told without the code that makes the copy."""

from __future__ import annotations

import functools
import hashlib
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from check.planted import encoded
from hypothesis import strategies as st

FAULTS = ("empty", "text", "small", "word", "nan", "beyond", "above")
"""What makes Ultralytics leave an image out, or asks for a class that is not there ("beyond")."""
Row = tuple[str, tuple[float, ...]]
"""The name of a class, and what its label says."""


@functools.cache
def content(seed: int, side: int = 12) -> bytes:
    """Return the file of a picture like no other seed's."""
    return encoded(np.random.default_rng(seed).integers(0, 256, (side, side, 3), dtype=np.uint8))


def digest(file: bytes) -> str:
    return hashlib.sha256(file).hexdigest()


@dataclass
class Shot:
    """An image of a split."""

    seed: int
    folder: str
    stem: str
    objects: list[tuple[int, tuple[str, ...]]]
    """Places in the list of names, and the words of the label."""
    fault: str = ""
    times: int = 1
    """How often its split lists it."""

    @property
    def file(self) -> bytes:
        if self.fault in ("empty", "text", "small"):
            return {"empty": b"", "text": b"no image", "small": content(self.seed, 5)}[self.fault]
        return content(self.seed)


@dataclass
class Drawn:
    """A data set before it is written."""

    task: str
    names: list[str]
    ids: list[int]
    """The number of each name."""
    naming: str
    splits: dict[str, list[Shot]]
    """Of classification each shot has one object, whose class is its folder."""
    listing: dict[str, str] = field(default_factory=dict)
    keypoints: tuple[int, int] = (0, 0)
    extra: dict[str, Any] = field(default_factory=dict)
    broken: str = ""
    """What is wrong with the description so that only a person can mend it."""
    rooted: bool = False
    same: bool = False
    """Validation is the very training split."""

    def rows(self, shot: Shot) -> tuple[Row, ...]:
        """Return what a loader has to say of an image: each object once, in any order."""
        said = {(self.names[place], self._numbers(words)) for place, words in shot.objects}
        return tuple(sorted(said))

    def _numbers(self, words: tuple[str, ...]) -> tuple[float, ...]:
        numbers = [float(word) for word in words]
        if self.keypoints[1] == 2:  # Ultralytics adds what is visible
            pairs = zip(numbers[4::2], numbers[5::2], strict=True)
            numbers = [*numbers[:4], *(value for pair in pairs for value in (*pair, 1.0))]
        return tuple(round(number, 4) for number in numbers)

    @property
    def must_refuse(self) -> bool:
        """Whether nobody can tell what a copy should hold, or a split would be empty."""
        beyond = any(shot.fault == "beyond" for shots in self.splits.values() for shot in shots)
        odd = self.ids != list(range(len(self.ids))) or self.naming == "count"
        emptied = any(shots and all(shot.fault for shot in shots) for shots in self.splits.values())
        globs = "glob" in (self.listing.get(split) for split in ("train", "val"))
        return bool(self.broken) or emptied or (odd and beyond) or globs

    def honest(self, split: str) -> list[Shot]:
        return [shot for shot in self.splits.get(split, []) if not shot.fault]

    def write(self, root: Path) -> Path:
        """Write the data set, and return what ``check`` is called with."""
        if self.task == "classify":
            return self._write_classes(root)
        for split, shots in self.splits.items():
            for folder in {"", *(shot.folder for shot in shots)}:
                (root / "images" / split / folder).mkdir(parents=True, exist_ok=True)
                (root / "labels" / split / folder).mkdir(parents=True, exist_ok=True)
            for shot in shots:
                (root / "images" / split / shot.folder / f"{shot.stem}.png").write_bytes(shot.file)
                lines = [" ".join([str(self.ids[place]), *words]) for place, words in shot.objects]
                lines += self._faulty_line(shot)
                if lines:
                    label = root / "labels" / split / shot.folder / f"{shot.stem}.txt"
                    label.write_text("".join(f"{line}\n" for line in lines))
        path = root / "data.yaml"
        description = {split: self._source(root, split) for split in self.splits}
        if self.same:
            description["val"] = description["train"]
        description |= self._named() | self.extra
        if self.rooted:
            description["path"] = str(root)
        text = yaml.safe_dump(description, sort_keys=False)
        path.write_text({"yaml": f"{text}: [", "names": text.replace("names:", "nams:")}.get(self.broken, text))
        return path

    def _faulty_line(self, shot: Shot) -> list[str]:
        words = next((words for _, words in shot.objects), None) or self._example()
        if shot.fault == "beyond":
            return [" ".join([str(max(self.ids) + 5), *words])]
        bad = {"word": "x", "nan": "nan", "above": "7.5"}.get(shot.fault)
        return [" ".join([str(self.ids[0]), bad, *words[1:]])] if bad else []

    def _example(self) -> tuple[str, ...]:
        if self.task in ("segment", "obb"):
            return ("0.1", "0.1", "0.6", "0.1", "0.6", "0.5", "0.1", "0.5")
        flat = ("0.5", "0.5", "1") if self.keypoints[1] == 3 else ("0.5", "0.5")
        return ("0.5", "0.5", "0.2", "0.2", *flat * self.keypoints[0])

    def _named(self) -> dict[str, Any]:
        if self.naming == "list":
            return {"names": self.names}
        if self.naming == "text":
            return {"names": {str(number): name for number, name in zip(self.ids, self.names, strict=True)}}
        named: dict[str, Any] = {"names": dict(zip(self.ids, self.names, strict=True))}
        return named | ({"nc": len(self.names) + 1} if self.naming == "count" and self.broken != "names" else {})

    def _source(self, root: Path, split: str) -> Any:
        how, folder = self.listing.get(split, "folder"), f"images/{split}"
        if how == "absolute":
            return str(root / folder)
        if how == "glob":
            return f"{folder}/*"
        if how == "overlap":
            return [folder, f"{folder}/sub"]
        if how == "missing too":
            return [folder, "images/nowhere"]
        if how not in ("list", "absolute list"):
            return folder
        start = "." if how == "list" else str(root)
        lines = [
            f"{start}/{folder}/{shot.folder}{shot.stem}.png" for shot in self.splits[split] for _ in range(shot.times)
        ]
        (root / f"{split}.txt").write_text("\n".join(lines))
        return f"{split}.txt"

    def _write_classes(self, root: Path) -> Path:
        for split, shots in self.splits.items():
            for name in self.names:
                (root / split / name).mkdir(parents=True, exist_ok=True)
            for shot in shots:
                folder = root / split / self.names[shot.objects[0][0]] / shot.folder
                folder.mkdir(parents=True, exist_ok=True)
                (folder / f"{shot.stem}.png").write_bytes(shot.file)
        return root


def expected(drawn: Drawn, split: str, taken: set[str]) -> Counter[tuple[str, tuple[Row, ...]]]:
    """Return the images that a loader has to find in a split of the copy.

    Args:
        drawn: The original.
        split: Which split.
        taken: Pictures that the copy may lack in training.
    """
    seen: Counter[tuple[str, tuple[Row, ...]]] = Counter()
    for shot in drawn.honest(split):
        if split == "train" and digest(shot.file) in taken:
            continue
        seen[digest(shot.file), drawn.rows(shot)] += shot.times
    return seen


@st.composite
def data_sets(draw: st.DrawFn, task: str) -> Drawn:
    """Draw a data set of a task."""
    count = draw(st.integers(1, 3))
    names = draw(st.permutations(["cat", "dog", "elk", "no", "7"]))[:count]
    naming = "list" if task == "classify" else draw(st.sampled_from(["list", "ids", "text", "one", "gap", "count"]))
    ids = {"one": list(range(1, count + 1)), "gap": [0, 2, 5][:count]}.get(naming, list(range(count)))
    if task == "classify":
        names = sorted(names)
    keypoints = draw(st.sampled_from([(2, 3), (1, 3), (3, 2)])) if task == "pose" else (0, 0)
    drawn = Drawn(task, list(names), ids, naming, {}, keypoints=keypoints)
    sizes = {
        "train": draw(st.integers(1, 5)),
        "val": draw(st.integers(1, 4)),
        "test": draw(st.sampled_from([0, 0, 1, 2])),
    }
    pictures: list[Shot] = []
    for split, size in sizes.items():
        if not size and draw(st.booleans()):
            continue  # not even named
        drawn.splits[split] = [_shot(draw, drawn, pictures, number) for number in range(size)]
        if task != "classify":
            styles = ["folder", "list", "absolute list", "absolute", "overlap", "missing too"] * 2 + ["glob"]
            styles = styles[:-1] if split == "test" else styles  # a test split that is not there is no reason to refuse
            _list(draw(st.sampled_from(styles if size else ["folder", "glob"])), drawn, split, draw)
    if task == "classify":
        return drawn
    drawn.rooted = draw(st.booleans())
    drawn.broken = draw(st.sampled_from([""] * 14 + ["yaml", "names"]))
    if task == "pose":
        drawn.extra["kpt_shape"] = list(keypoints)
        drawn.extra |= draw(st.sampled_from([{}, {"flip_idx": list(reversed(range(keypoints[0])))}]))
        if draw(st.integers(0, 9)) == 0:
            drawn.broken = "flip"
            drawn.extra["flip_idx"] = [0] * (keypoints[0] + 1)
    if draw(st.integers(0, 7)) == 0 and not any(shot.fault == "beyond" for shot in drawn.splits["val"]):
        drawn.splits["val"], drawn.same = drawn.splits["train"], True
        drawn.listing["val"] = drawn.listing["train"]
    return drawn


def _list(how: str, drawn: Drawn, split: str, draw: st.DrawFn) -> None:
    """Say how a split lists its images, and how often each."""
    shots = drawn.splits[split]
    drawn.listing[split] = how
    if how in ("list", "absolute list"):
        for shot in shots:
            shot.times = draw(st.sampled_from([1, 1, 2, 3]))
    if how == "overlap":
        shots[0].folder = "sub/"
        for shot in shots:
            shot.times = 2 if shot.folder == "sub/" else 1


def _shot(draw: st.DrawFn, drawn: Drawn, pictures: list[Shot], number: int) -> Shot:
    folder = draw(st.sampled_from(["", "", "sub/"]))
    stem = draw(st.sampled_from(["a", "b", "a b", "ä", "x.y", "[1]"])) + str(number)
    most = 1 if drawn.task == "classify" else 3
    objects = [_object(draw, drawn) for _ in range(draw(st.integers(most // 2 if most == 3 else 1, most)))]
    fault = draw(st.sampled_from([""] * 40 + list(FAULTS[: 3 if drawn.task == "classify" else None])))
    shot = Shot(len(pictures), folder, stem, objects, fault)
    if pictures and not fault and draw(st.integers(0, 3)) == 0:
        twin = draw(st.sampled_from(pictures))
        shot.seed = twin.seed
        if draw(st.booleans()):
            shot.objects = list(reversed(twin.objects))
    pictures.append(shot)
    return shot


def _object(draw: st.DrawFn, drawn: Drawn) -> tuple[int, tuple[str, ...]]:
    place = draw(st.integers(0, len(drawn.names) - 1))
    if drawn.task == "classify":
        return place, ()
    left, top = (draw(st.integers(5, 50)) / 100 for _ in range(2))
    width, height = (draw(st.integers(10, 45)) / 100 for _ in range(2))
    right, bottom = left + width, top + height
    if drawn.task in ("segment", "obb"):
        points = [left, top, right, top, right, bottom, left, bottom]
        points += [left, (top + bottom) / 2] if drawn.task == "segment" and draw(st.booleans()) else []
        return place, tuple(f"{value:.4f}" for value in points)
    words = [f"{value:.4f}" for value in ((left + right) / 2, (top + bottom) / 2, width, height)]
    for _ in range(drawn.keypoints[0]):
        words += [f"{draw(st.integers(0, 100)) / 100:.4f}" for _ in range(2)]
        words += [draw(st.sampled_from(["0", "1", "2"]))] if drawn.keypoints[1] == 3 else []
    return place, tuple(words)
