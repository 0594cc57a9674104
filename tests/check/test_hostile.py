"""Data that a stranger made to keep a check busy or to fill the memory: each is told in seconds, and the check goes on."""

from __future__ import annotations

import os
import resource
import signal
import time
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from check.planted import BOX, Planted, clean, found_in

from yolo_stable.check import check, polygons, run_check
from yolo_stable.errors import InvalidCallError

SECONDS = 20
"""Of the processor for each of these; most take none."""
WAIT = 120
"""Seconds after which one is waiting for what never comes."""
MEMORY = 400 << 10
"""Kilobytes by which the process may grow."""


@pytest.fixture(autouse=True)
def bounded() -> Iterator[None]:
    def hangs(number: int, frame: object) -> None:
        raise TimeoutError(f"still busy after {WAIT} seconds")

    before, begin = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.process_time()
    handler = signal.signal(signal.SIGALRM, hangs)
    signal.alarm(WAIT)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, handler)
    assert time.process_time() - begin < SECONDS
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < MEMORY


def described(data: Planted, text: str) -> Path:
    path = data.root / "data.yaml"
    path.write_text(f"{text}\ntrain: images/train\nval: images/val\n")
    return path


def bomb(key: str, levels: int = 30) -> str:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]" for i in range(1, levels)]
    return "\n".join([*lines, f"{key}: *a{levels - 1}"])


DESCRIPTIONS = {
    "an alias bomb in names": bomb("names"),
    "an alias bomb elsewhere": bomb("more"),
    "a bomb of merges": "a0: &a0 {k: v}\n" + "\n".join(
        f"a{i}: &a{i} {{<<: [{', '.join([f'*a{i - 1}'] * 9)}]}}" for i in range(1, 20)
    ),
    "an alias within itself": "names: &a [*a]",
    "a key within itself": "names: &a {0: *a}",
    "deep lists": "names: " + "[" * 20_000,
    "a number of 100,000 digits": "names: [a, b]\nnc: " + "9" * 100_000,
    "a number of 1,000 digits": "names: [a, b]\nnc: " + "9" * 1_000,
    "hours of hours": "names: [a, b]\nnc: 1" + ":59" * 100_000,
    "a date that is none": "names: [a, b]\nmade: 2020-13-45",
}  # fmt: skip


@pytest.mark.parametrize("what", DESCRIPTIONS)
def test_a_hostile_description_is_one_finding(tmp_path: Path, what: str) -> None:
    path = described(clean(tmp_path / "data"), DESCRIPTIONS[what])
    report = check(path)
    assert [(f.rule.id, len(f.message) < 200) for f in report.findings] == [("yaml-unreadable", True)]
    with pytest.raises(InvalidCallError, match="no copy is made"):
        run_check(str(path), fix=tmp_path / "out")


def test_aliases_that_unfold_to_little_are_read(tmp_path: Path) -> None:
    path = described(clean(tmp_path), "a: &a [a, b]\nmore: [*a, *a]\nnames: *a")
    assert (check(path, sample=0).findings, check(path, sample=0).names) == ([], {0: "a", 1: "b"})


def pipe(path: Path) -> None:
    path.unlink(missing_ok=True)
    os.mkfifo(path)


def link_to_pipe(path: Path) -> None:
    pipe(path.with_name("a-pipe"))
    path.unlink(missing_ok=True)
    path.symlink_to("a-pipe")


def link_to_device(path: Path) -> None:
    path.unlink(missing_ok=True)
    path.symlink_to("/dev/zero")


def giant(path: Path) -> None:
    """A file of 20 GB that takes no room."""
    path.write_bytes(b"")
    os.truncate(path, 20 << 30)


ODD = [pipe, link_to_pipe, link_to_device, giant]


@pytest.mark.parametrize("odd", ODD)
def test_a_description_that_is_no_file_is_refused(tmp_path: Path, odd: Callable[[Path], None]) -> None:
    path = clean(tmp_path).root / "data.yaml"
    odd(path)
    with pytest.raises(InvalidCallError, match=r"cannot be read: it (is no regular file|has \d+ bytes)"):
        check(path)


@pytest.mark.parametrize("odd", ODD)
def test_a_label_an_image_and_a_list_that_are_no_files_are_findings(
    tmp_path: Path, odd: Callable[[Path], None]
) -> None:
    data = clean(tmp_path / "data", train=["images/train", "train.txt"])
    odd(data.root / "train.txt")
    label = data.add("labelled")
    odd(Planted.label_of(label))
    odd(data.add("shown.jpg"))
    text = Planted.label_of(label)
    expected = {
        ("path-missing", str((data.root / "train.txt").resolve()), None),
        ("label-parse", str(text), None) if text.is_file() else ("label-missing", str(label), None),
        ("image-unreadable", str(data.root / "images/train/shown.jpg"), None),
    }
    report = check(data.root)
    orphans = {place for place in found_in(report) if place[0] == "label-orphan"}  # a pipe beside is one
    assert found_in(report) - orphans == expected
    assert run_check(str(data.root), fix=tmp_path / "out", html=tmp_path / "page.html", sample=0) == 0


def test_an_array_that_is_no_file_is_a_finding(tmp_path: Path) -> None:
    data = clean(tmp_path)
    image = data.add("image")
    pipe(image.with_suffix(".npy"))
    assert found_in(check(data.root)) == {("npy-unreadable", str(image.with_suffix(".npy")), None)}


LABELS = {
    "many rows": f"{BOX}\n" * 60_000,
    "many bytes": "0 0.5 0.5 0.4 0.4" + " " * (17 << 20),
}


@pytest.mark.parametrize("what", LABELS)
def test_a_giant_label_is_one_finding(tmp_path: Path, what: str) -> None:
    data = clean(tmp_path)
    data.expect("label-parse", Planted.label_of(data.add("giant", labels=LABELS[what].encode())))
    assert found_in(check(data.root)) == data.expected


@pytest.mark.parametrize("further", ["0.1 0.9 0.1 0.9", "0.1 0.9 0.1 0.8"], ids=["one point", "to and fro"])
def test_an_outline_of_half_a_million_points_is_judged_in_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, further: str
) -> None:
    """The edges of the second lie upon each other, so that every pair is looked at; a tenth of those that may be, here."""
    monkeypatch.setattr(polygons, "MOST_PAIRS", polygons.MOST_PAIRS // 10)
    points = " ".join(["0.1 0.1 0.9 0.1 0.9 0.9"] + [further] * 250_000)
    data = clean(tmp_path, lines=["0 0.1 0.1 0.9 0.1 0.9 0.9"], names=["a"])
    data.add("giant", labels=[f"0 {points}"])
    assert found_in(check(data.root, task="segment", sample=0)) == set()


def test_an_image_that_claims_to_be_immense_is_not_decoded(tmp_path: Path) -> None:
    """Ultralytics leaves it out: Pillow refuses to open it."""
    data = clean(tmp_path)
    content = bytearray(data.add("first").read_bytes())
    content[16:24] = (60_000).to_bytes(4, "big") * 2
    content[29:33] = zlib.crc32(content[12:29]).to_bytes(4, "big")
    data.image("image-huge", "immense", bytes(content))
    report = check(data.root)
    assert (found_in(report), report.exit_code) == (data.expected, 1)
