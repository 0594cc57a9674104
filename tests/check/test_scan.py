"""Many images: the order of findings, the number of threads, and memory that does not grow with the pixels."""

from __future__ import annotations

import tracemalloc
from pathlib import Path

import pytest
from check.planted import Planted, clean, encoded, picture, plant_images, plant_labels

from yolo_stable.check import check
from yolo_stable.check.label_file import Format
from yolo_stable.check.limits import LIMITS
from yolo_stable.check.scan import CHUNK, Job, scan


def test_threads_change_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("yolo_stable.check.scan.CHUNK", 3)
    data = clean(tmp_path)
    plant_images(data)
    plant_labels(data)
    one, many = (check(data.root, workers=workers, sample=0) for workers in (1, 5))
    assert list(one.findings) == list(many.findings)
    assert len(one.findings) > 40


def test_the_bar_reaches_the_number_of_images(tmp_path: Path) -> None:
    data = clean(tmp_path)
    images = sorted(map(str, (data.root / "images/train").iterdir()))
    done: list[int] = []
    scan(images, Job(Format("detect", (0, 1)), 3, 640, True, LIMITS), 2, done.append)
    assert sum(done) == len(images)


def test_memory_does_not_grow_with_the_pixels(tmp_path: Path) -> None:
    """Links to one image of 3 MB stand for many: 10 times the images add a few hundred bytes each."""
    data = Planted(tmp_path)
    first = data.add("first", encoded(picture(1, 1000, 1000)), labels=None)
    for number in range(10 * CHUNK):
        (first.parent / f"{number}.png").symlink_to(first)

    def peak(count: int) -> int:
        images = [str(first.parent / f"{number}.png") for number in range(count)]
        tracemalloc.start()
        scan(images, Job(None, 3, 640, False, LIMITS), 1, lambda done: None)
        top = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return top

    few, many = peak(CHUNK), peak(10 * CHUNK)
    assert many - few < 9 * CHUNK * 200


def test_ctrl_c_in_the_middle_ends_at_once(tmp_path: Path) -> None:
    data = clean(tmp_path)
    images = sorted(map(str, (data.root / "images/train").iterdir()))

    def stop(_: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        scan(images, Job(None, 3, 640, True, LIMITS), 2, stop)


def test_what_cannot_be_read_is_told_once_and_not_decoded(tmp_path: Path) -> None:
    data = Planted(tmp_path)
    images = [str(data.add("text.png", b"no image")), str(data.add("small.png", encoded(picture(1, 64, 9))))]
    found = scan(images, Job(None, 3, 640, True, LIMITS), 1, lambda done: None).findings
    assert [finding.rule.id for finding in found] == ["image-unreadable", "image-small"]


@pytest.mark.parametrize("chunk", [1, 4, 100])
def test_objects_are_counted_over_all_chunks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, chunk: int) -> None:
    monkeypatch.setattr("yolo_stable.check.scan.CHUNK", chunk)
    data = clean(tmp_path)  # six images with an object of each class
    data.add("two more", labels=["1 0.3 0.3 0.2 0.2", "1 0.7 0.7 0.2 0.2"])
    images = sorted(map(str, (data.root / "images/train").iterdir()))
    found = scan(images, Job(Format("detect", (0, 1)), 3, 640, False, LIMITS), 1, lambda done: None)
    assert found.counts.tolist() == [6, 8]
