"""Fingerprints: the same for the same data, another one for each change that training would see."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from yolo_stable.compare import fingerprint as module
from yolo_stable.compare.fingerprint import fingerprint

DATA = "content of the data"


@pytest.fixture
def data(tmp_path: Path) -> Path:
    for split in ("train", "val"):
        for number in range(2):
            for kind, suffix, content in (("images", "png", b"\x89PNG"), ("labels", "txt", b"0 .5 .5 .1 .1\n")):
                file = tmp_path / kind / split / f"{number}.{suffix}"
                file.parent.mkdir(parents=True, exist_ok=True)
                file.write_bytes(content)
    (tmp_path / "data.yaml").write_text("path: .\ntrain: images/train\nval: images/val\nnames: [a]\n")
    return tmp_path / "data.yaml"


def retouched(folder: Path) -> None:
    image = folder / "images/train/0.png"
    image.write_bytes(b"\x88PNG")
    os.utime(image, ns=(1, 1))


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(lambda d: (d / "labels/train/0.txt").write_text("0 .6 .5 .1 .1\n"), id="label"),
        pytest.param(lambda d: (d / "labels/val/1.txt").unlink(), id="label removed"),
        pytest.param(lambda d: (d / "images/train/2.png").write_bytes(b"x"), id="image added"),
        pytest.param(lambda d: (d / "images/val/0.png").unlink(), id="image removed"),
        pytest.param(retouched, id="image of the same size"),
        pytest.param(
            lambda d: (d / "data.yaml").write_text((d / "data.yaml").read_text() + "nc: 1\n"), id="description"
        ),
    ],
)
def test_a_change_of_the_data_is_seen(data: Path, change: Callable[[Path], object]) -> None:
    before = fingerprint(str(data), None)
    assert fingerprint(str(data), None) == before
    change(data.parent)
    assert fingerprint(str(data), None)[DATA] != before[DATA]


def test_who_touches_or_copies_files_has_the_same_data(data: Path) -> None:
    before = fingerprint(str(data), None)
    for file in data.parent.rglob("*.png"):
        os.utime(file, ns=(1, 1))
    assert fingerprint(str(data), None) == before


@pytest.mark.parametrize("place", [0, 1 << 14, (1 << 15) + 4095], ids=["first", "in the middle", "last"])
def test_one_byte_of_an_ordinary_image_is_seen(data: Path, place: int) -> None:
    image = data.parent / "images/train/0.png"
    content = bytearray(b"x" * (9 << 12))
    image.write_bytes(content)
    before = fingerprint(str(data), None)
    content[place] = 0
    image.write_bytes(content)
    assert fingerprint(str(data), None)[DATA] != before[DATA]


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no pipes")
def test_a_pipe_is_not_waited_for(data: Path) -> None:
    os.mkfifo(data.parent / "list.txt")
    data.write_text("train: list.txt\nval: {a: images/val}\nnames: [a]\n")
    assert fingerprint(str(data), None)[DATA]
    os.mkfifo(data.parent / "pipe.yaml")
    assert (
        fingerprint(str(data.parent / "pipe.yaml"), None)[DATA]
        == fingerprint(str(data.parent / "list.txt"), None)[DATA]
    )


def test_what_ultralytics_writes_itself_is_no_change(data: Path) -> None:
    before = fingerprint(str(data), None)
    (data.parent / "labels/train.cache").write_bytes(b"scan")
    (data.parent / "images/train/0.npy").write_bytes(b"cached image")
    assert fingerprint(str(data), None) == before


def test_lists_of_images_and_folders_of_classes(data: Path) -> None:
    (data.parent / "train.txt").write_text(f"{data.parent}/images/train/0.png\n./images/train/1.png\n")
    data.write_text("train: train.txt\nval: images/val\nnames: [a]\n")
    before = fingerprint(str(data), None)
    (data.parent / "labels/train/1.txt").write_text("")
    assert fingerprint(str(data), None)[DATA] != before[DATA]
    folder = str(data.parent / "images")
    whole = fingerprint(folder, None)
    retouched(data.parent)
    assert fingerprint(folder, None)[DATA] != whole[DATA]


def test_network_and_versions_count(data: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "net.pt").write_bytes(b"1")
    before = fingerprint(str(data), str(tmp_path / "net.pt"))
    (tmp_path / "net.pt").write_bytes(b"2")
    assert fingerprint(str(data), str(tmp_path / "net.pt"))["content of the model"] != before["content of the model"]
    monkeypatch.setattr(module, "__version__", "99")
    assert "yolo-stable 99" in fingerprint("digits", None)["versions"]
    assert "ultralytics 8" in before["versions"]


def test_data_that_are_not_here_yet_have_none() -> None:
    assert fingerprint("https://example.com/data.yaml", "yolo11n.pt")[DATA] == ""
    assert fingerprint("digits", None)[DATA].startswith("built in")
