"""The truth of it: what is said of a pixel or a box is held against the colour of the file and the class of the row."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import albumentations
import cv2
import numpy as np
import pytest
import traced_data
from traced_data import GREY, ROWS, colour, dataset, make_images, seed
from ultralytics.data import augment

from yolo_stable.provenance.dataset import trace
from yolo_stable.provenance.labels import rows_of, with_note
from yolo_stable.provenance.recipe import Provenance, Source
from yolo_stable.provenance.transforms import KEY, TracedAlbumentations, TracedMosaic, _TracedRows, follow

COUNT = 24
EDGE = 1.6
"""Pixels nearer to an edge are blended with their neighbours."""
GEOMETRY = {"degrees": 40.0, "shear": 12.0, "scale": 0.4, "translate": 0.2, "flipud": 0.5, "fliplr": 0.5}
PIPELINES: dict[str, dict[str, Any]] = {
    "mosaic": {},
    "mosaic turned and sheared": GEOMETRY,
    "mosaic in perspective": {**GEOMETRY, "perspective": 0.001},
    "no mosaic": {"mosaic": 0.0, **GEOMETRY},
    "half the time": {"mosaic": 0.5, "cutmix": 0.5, **GEOMETRY},
    "cutmix": {"cutmix": 1.0, "fliplr": 0.5},
    "rectangles": {"rect": True, **GEOMETRY},
    "cache in memory": {"cache": "ram", **GEOMETRY},
    "cache on the disk": {"cache": "disk", **GEOMETRY},
    "stretched, as for RT-DETR": {"task": "rtdetr", **GEOMETRY},
}


@pytest.fixture(scope="module")
def boxes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_images(tmp_path_factory.mktemp("boxes") / "set", COUNT)


@pytest.fixture(scope="module")
def triangles(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_images(tmp_path_factory.mktemp("triangles") / "set", COUNT, segments=True)


def traced(images: Path, **changes: Any) -> Any:
    data = dataset(images, **changes)
    trace(data)
    return data


def file_of(source: Source) -> int:
    """Return the number of a file, which its colour and its classes go by."""
    return int(Path(source.path).stem)


def pixels(sample: dict[str, Any], number: int, count: int = 150) -> Iterator[tuple[int, int, tuple[int, ...]]]:
    """Yield pixels that lie clear of all edges, with their colours."""
    origin: Provenance = sample["provenance"]
    image = sample["img"].numpy()
    edges = [np.array(source.region, np.float32) for source in origin.sources if source.region]
    draw = np.random.default_rng(number)
    for x, y in draw.integers((image.shape[2], image.shape[1]), size=(count, 2)).tolist():
        if all(abs(cv2.pointPolygonTest(edge, (x + 0.5, y + 0.5), True)) > EDGE for edge in edges):
            yield x, y, tuple(image[:, y, x].tolist())


def require_true_rows(sample: dict[str, Any]) -> int:
    """Hold the row of each box against its class, and its place against the region of its source. Returns the number of boxes."""
    origin: Provenance = sample["provenance"]
    classes = sample["cls"].flatten().int().tolist()
    assert len(origin.rows) == len(classes) == len(sample["bboxes"])
    height, width = sample["img"].shape[-2:]
    assert origin.size == (height, width)
    for cls, box, row in zip(classes, sample["bboxes"].tolist(), origin.rows, strict=True):
        assert row is not None
        source = origin.sources[row[0]]
        assert (file_of(source), row[1]) == divmod(cls, ROWS)
        assert row[1] in source.rows
        x, y, w, h = box[0] * width, box[1] * height, box[2] * width, box[3] * height
        assert source.region, "a box is seen, and its file is not"
        away = cv2.pointPolygonTest(np.array(source.region, np.float32), (x, y), True)
        assert away >= -np.hypot(w, h) / 2 - 1, f"{-away} pixels outside of its file"
    return len(classes)


@pytest.mark.parametrize("name", PIPELINES)
def test_each_pixel_has_the_colour_of_its_file_and_each_box_the_class_of_its_row(name: str, boxes: Path) -> None:
    data = traced(boxes, **PIPELINES[name])
    looked, files, labels = 0, set(), 0
    for number in range(40):
        seed(number)
        sample = data[number % COUNT]
        origin: Provenance = sample["provenance"]
        assert origin.sources[0].index == number % COUNT
        assert origin.files()[0] == sample["im_file"]
        for x, y, found in pixels(sample, number):
            at = origin.at(x, y)
            expected = colour(file_of(at[-1])) if at else (GREY,) * 3
            padding = found == (GREY,) * 3 and at and any(source.how == "cutmix" for source in origin.sources)
            assert found == expected or padding, f"seed {number}, pixel {x}, {y}"
            looked += 1
            files |= {file_of(source) for source in at}
        labels += require_true_rows(sample)
    assert looked > 3000
    assert len(files) > COUNT * 0.9
    assert labels > 40
    for kept in boxes.glob("*.npy"):  # of the cache on the disk, which other tests would read
        kept.unlink()


def test_nine_tiles_overlap_and_the_last_is_on_top(boxes: Path) -> None:
    data = traced(boxes, **GEOMETRY)
    mosaic: Any = data.transforms.transforms[0].transforms[0]
    mosaic.n = 9
    most = looked = labels = overlaps = 0
    for number in range(40):
        seed(number)
        sample = data[number % COUNT]
        origin: Provenance = sample["provenance"]
        most = max(most, len(origin.sources))
        for x, y, found in pixels(sample, number):
            at = origin.at(x, y)
            overlaps += len(at) > 1
            assert found == (colour(file_of(at[-1])) if at else (GREY,) * 3), f"seed {number}, pixel {x}, {y}"
            looked += 1
        labels += require_true_rows_of_nine(sample)
    assert most > 6
    assert looked > 3000
    assert labels > 40


def require_true_rows_of_nine(sample: dict[str, Any]) -> int:
    """Hold the rows against the classes alone: Ultralytics leaves boxes where another tile covers the image."""
    origin: Provenance = sample["provenance"]
    classes = sample["cls"].flatten().int().tolist()
    found = [(file_of(origin.sources[row[0]]), row[1]) for row in origin.rows if row is not None]
    assert found == [divmod(cls, ROWS) for cls in classes]
    return len(classes)


def test_mixup_blends_what_it_says_it_blends(boxes: Path) -> None:
    data = traced(boxes, mixup=1.0, **GEOMETRY)
    checked = 0
    for number in range(25):
        seed(number)
        sample = data[number % COUNT]
        origin: Provenance = sample["provenance"]
        layers, found = [], []
        for x, y, pixel in pixels(sample, number):
            at = origin.at(x, y)
            below = [colour(file_of(s)) for s in at if s.how in {"image", "mosaic"}]
            above = [colour(file_of(s)) for s in at if s.how == "mixup"]
            grey = (GREY,) * 3
            layers.append((below[-1] if below else grey, above[-1] if above else grey))
            found.append(pixel)
        first, second, seen = (np.array(v, float) for v in (*zip(*layers, strict=True), found))
        apart = first - second
        share = float((apart * (seen + 0.5 - second)).sum() / (apart**2).sum())  # least squares
        assert 0.2 < share < 0.8
        assert np.abs(share * first + (1 - share) * second - seen - 0.5).max() < 1.5, f"seed {number}"
        checked += len(found)
        require_true_rows(sample)
    assert checked > 1500


@pytest.mark.parametrize("mode", ["flip", "mixup"])
@pytest.mark.parametrize("task", ["detect", "segment"])
def test_pasted_objects_are_followed_to_their_file_and_row(mode: str, task: str, triangles: Path) -> None:
    data = traced(triangles, task=task, copy_paste=0.8, copy_paste_mode=mode, **GEOMETRY)
    pasted = looked = on_top = 0
    for number in range(40):
        seed(number)
        sample = data[number % COUNT]
        origin: Provenance = sample["provenance"]
        for x, y, found in pixels(sample, number, 500):
            at = origin.at(x, y)
            assert found == (colour(file_of(at[-1])) if at else (GREY,) * 3), f"seed {number}, pixel {x}, {y}"
            looked += 1
            on_top += bool(at) and at[-1].how == "copy_paste"
        require_true_rows(sample)
        pasted += sum(row is not None and origin.sources[row[0]].how == "copy_paste" for row in origin.rows)
    assert looked > 2000
    assert on_top > 5
    assert pasted > 10


def test_masks_that_are_put_into_another_order_take_their_rows_along(triangles: Path) -> None:
    data = traced(triangles, task="segment", **GEOMETRY)
    turned = 0
    for number in range(20):
        seed(number)
        sample = data[number % COUNT]
        require_true_rows(sample)
        turned += list(sample["provenance"].rows) != sorted(sample["provenance"].rows)
    assert turned > 5


def test_validation_letterboxes(boxes: Path) -> None:
    for rect in (False, True):
        data = dataset(boxes, mode="val", rect=rect)
        trace(data)
        for index in range(COUNT):
            sample = data[index]
            for x, y, found in pixels(sample, index):
                at = sample["provenance"].at(x, y)
                assert found == (colour(file_of(at[-1])) if at else (GREY,) * 3)
            require_true_rows(sample)


def test_labels_that_a_filter_left_are_numbered_as_the_data_set_has_them(boxes: Path) -> None:
    chosen = list(range(0, 400, 2))
    data = traced(boxes, classes=chosen)
    for number in range(20):
        seed(number)
        sample = data[number % COUNT]
        origin: Provenance = sample["provenance"]
        for cls, row in zip(sample["cls"].flatten().tolist(), origin.rows, strict=True):
            assert row is not None
            assert data.labels[origin.sources[row[0]].index]["cls"][row[1], 0] == cls


# ---- what is not known -----------------------------------------------------------------------------------------------------


class Shift:
    """Somebody's own transform: nobody knows what it does."""

    def __call__(self, labels: dict[str, Any]) -> dict[str, Any]:
        labels["img"] = np.roll(labels["img"], 5, axis=0)
        return labels


class Blend:
    """Somebody's own mix of images."""

    def __init__(self, data: Any) -> None:
        self.data = data

    def __call__(self, labels: dict[str, Any]) -> dict[str, Any]:
        other = self.data.get_image_and_label(7)
        labels["img"] = labels["img"] // 2 + cv2.resize(other["img"], labels["img"].shape[1::-1]) // 2
        return labels


class NewLabels:
    """Somebody's own transform that returns another dict, and knows nothing of a key more."""

    def __call__(self, labels: dict[str, Any]) -> dict[str, Any]:
        return {k: np.array(v) if k == "cls" else v for k, v in labels.items() if k != "provenance"}


class OwnFlip(augment.RandomFlip):
    """A class derived from one that is known."""


class OwnFormat(augment.Format):
    """Somebody's own formatting."""


def with_transform(images: Path, place: int, make: Callable[[Any], Any]) -> dict[str, Any]:
    data = dataset(images)
    data.transforms.insert(place, make(data))
    trace(data)
    seed(3)
    return data[2]


@pytest.mark.parametrize("make", [lambda _: Shift(), lambda _: OwnFlip(p=1.0)], ids=["a stranger", "a relative"])
def test_behind_an_unknown_transform_regions_are_unknown_and_files_and_rows_are_not(make: Any, boxes: Path) -> None:
    sample = with_transform(boxes, -1, make)
    origin: Provenance = sample["provenance"]
    assert {source.region for source in origin.sources} == {None}
    assert len(origin.sources) == 4
    classes = sample["cls"].flatten().int().tolist()
    assert [(file_of(origin.sources[r[0]]), r[1]) for r in origin.rows if r] == [divmod(c, ROWS) for c in classes]


def test_a_file_that_an_unknown_transform_reads_is_named(boxes: Path) -> None:
    origin = with_transform(boxes, -1, Blend)["provenance"]
    assert [source.how for source in origin.sources] == ["image", "mosaic", "mosaic", "mosaic", "unknown"]
    assert origin.sources[-1].index == 7


class Aside:
    """Somebody's own transform that hands a copy to another one, and takes over its pixels alone."""

    def __init__(self, inner: Any) -> None:
        self.inner = inner

    def __call__(self, labels: dict[str, Any]) -> dict[str, Any]:
        labels["img"] = self.inner(dict(labels))["img"]
        return labels


def test_a_file_that_is_read_by_a_transform_within_a_transform_is_named(boxes: Path) -> None:
    def nested(data: Any) -> Any:
        inner = augment.Compose([Blend(data)])
        assert follow(inner)
        return Aside(inner)

    origin = with_transform(boxes, -1, nested)["provenance"]
    assert [source.how for source in origin.sources] == ["image", "mosaic", "mosaic", "mosaic", "unknown"]
    assert origin.sources[-1].index == 7


class Another:
    """Somebody's own transform that takes another image with its labels."""

    def __init__(self, data: Any) -> None:
        self.data = data

    def __call__(self, labels: dict[str, Any]) -> dict[str, Any]:
        other = self.data.get_image_and_label(7)
        return {**labels, **{key: other[key] for key in ("img", "cls", "instances")}}


class AsideWithLabels(Aside):
    """As :class:`Aside`, and takes over the labels too."""

    def __call__(self, labels: dict[str, Any]) -> dict[str, Any]:
        other = self.inner(dict(labels))
        return {**labels, **{key: other[key] for key in ("img", "cls", "instances")}}


def test_label_rows_of_a_file_that_is_read_by_a_transform_within_a_transform_are_known(boxes: Path) -> None:
    def nested(data: Any) -> Any:
        inner = augment.Compose([Another(data)])
        assert follow(inner)
        return AsideWithLabels(inner)

    sample = with_transform(boxes, -1, nested)
    origin: Provenance = sample["provenance"]
    classes = sample["cls"].flatten().int().tolist()
    assert len(classes) > 1
    assert [(file_of(origin.sources[r[0]]), r[1]) for r in origin.rows if r] == [divmod(c, ROWS) for c in classes]


class Counted:
    """Somebody's own transform that computes with the classes: the rows behind them are not known any more."""

    def __call__(self, labels: dict[str, Any]) -> dict[str, Any]:
        return {**labels, "cls": labels["cls"] + 0.0}


@pytest.mark.parametrize("loses", [NewLabels, Counted])
def test_pasted_objects_whose_rows_were_lost_before_have_none(triangles: Path, loses: Any) -> None:
    data = dataset(triangles, task="segment", copy_paste=1.0)
    first: Any = data.transforms.transforms[0]
    assert [type(transform) for transform in first.transforms[:2]] == [augment.Mosaic, augment.CopyPaste]
    first.insert(1, loses())
    trace(data)
    pasted = 0
    for number in range(10):
        seed(number)
        origin: Provenance = data[number]["provenance"]
        pasted += sum(source.how == "copy_paste" for source in origin.sources)
        assert set(origin.rows) <= {None}
    assert pasted > 5


def test_labels_that_lost_their_rows_have_none(boxes: Path) -> None:
    sample = with_transform(boxes, -1, lambda _: NewLabels())
    assert sample["provenance"].files()[0] == sample["im_file"]
    assert set(sample["provenance"].rows) == {None}
    assert len(sample["provenance"].rows) == len(sample["cls"])


def test_a_formatting_of_somebodys_own_loses_rows_and_regions_but_no_files(boxes: Path) -> None:
    data = dataset(boxes)
    data.transforms.transforms[-1].__class__ = OwnFormat
    trace(data)
    seed(3)
    sample = [data[index] for index in range(5)][-1]
    assert len(sample["provenance"].files()) > 1
    assert set(sample["provenance"].rows) == {None}
    assert len(sample["provenance"].rows) == len(sample["cls"])


def test_a_transform_that_is_added_later_is_followed_as_well(boxes: Path) -> None:
    data = traced(boxes)
    data.transforms.insert(-1, augment.RandomFlip(p=1.0))
    for number in range(5):
        seed(number)
        require_true_rows(data[number])


@pytest.mark.parametrize("spatial", [True, False])
def test_albumentations_may_move_pixels(spatial: bool, boxes: Path) -> None:
    transform = albumentations.RandomScale((0.5, 0.5), p=1.0) if spatial else albumentations.InvertImg(p=1.0)
    data = traced(boxes, augmentations=[transform])
    known = rows = 0
    for number in range(10):
        seed(number)
        sample = data[number]
        origin: Provenance = sample["provenance"]
        known += all(source.region is not None for source in origin.sources)
        classes = sample["cls"].flatten().int().tolist()
        assert [(file_of(origin.sources[r[0]]), r[1]) for r in origin.rows if r] == [divmod(c, ROWS) for c in classes]
        rows += len(classes)
    assert known == (0 if spatial else 10)
    assert rows > 10


def test_the_rig_tells_its_files_apart() -> None:
    colours = {colour(index) for index in range(COUNT)}
    assert len(colours) == COUNT
    assert (GREY,) * 3 not in colours
    assert traced_data.ROWS * COUNT < 400


def test_pixels_that_no_transform_has_moved_are_where_they_were() -> None:
    image, moving = np.zeros((4, 4, 3), np.uint8), TracedAlbumentations(p=0.0)
    moving.contains_spatial = True  # it may move pixels, and does nothing this time
    assert moving({"img": image, KEY: ("image",)})[KEY] == ("image",)


def test_nine_tiles_lie_on_the_canvas_without_its_border(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each is moved by the border, and cut to twice the size of an image."""
    mosaic = object.__new__(TracedMosaic)
    mosaic.n, mosaic.imgsz, mosaic.border = 9, 16, (-6, -4)  # rows, then columns
    places = [(10, 12, 10, 12, 26, 28), (0, 0, 0, 0, 12, 14), (30, 32, 30, 32, 48, 48)]
    keys = ("padw", "padh", "x1", "y1", "x2", "y2")
    layout = [
        {"labels_patch": {KEY: ("image", n)}, **dict(zip(keys, place, strict=True))} for n, place in enumerate(places)
    ]
    monkeypatch.setattr(augment.Mosaic, "apply_image", lambda self, labels, params=None: labels)
    assert mosaic.apply_image({}, {"layout": layout})[KEY] == (
        "mosaic",
        (
            (("image", 0), 6, 6, 6, 6, 22, 22),
            (("image", 1), -4, -6, 0, 0, 8, 8),
            (("image", 2), 26, 26, 26, 26, 32, 32),
        ),
    )


def test_rows_that_format_puts_into_another_order_are_those_of_the_labels_that_only_it_sees() -> None:
    class Base:
        def _format_segments(self, instances: Any, cls: Any, w: int, h: int) -> Any:
            return None, None, cls[[1, 0]]

    class Formats(_TracedRows, Base):
        """Puts the second one first."""

    labels = with_note(np.array([[5.0], [6.0]]), ("file", 0, 2))
    Formats()._format_segments(None, labels, 4, 4)
    assert rows_of(labels).tolist() == [1, 0]
    plain = np.array([[5.0], [6.0]])
    assert Formats()._format_segments(None, plain, 4, 4)[2].tolist() == [[6.0], [5.0]]
