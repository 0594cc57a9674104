"""One broken file is broken in every training image that it has a part in, there and nowhere else."""

from __future__ import annotations

import copy
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from torch import Tensor
from ultralytics.cfg import get_cfg
from ultralytics.data.build import build_yolo_dataset
from ultralytics.data.dataset import ClassificationDataset
from ultralytics.data.utils import check_det_dataset
from ultralytics.models.yolo.classify import ClassificationTrainer

from yolo_stable import StableDetectionTrainer
from yolo_stable.chaos import INF, MARK, NAN, FileFault, LayerFault
from yolo_stable.errors import InvalidCallError

pytestmark = pytest.mark.usefixtures("without_epilogue")

AUGMENTATIONS: dict[str, dict[str, Any]] = {
    "none": {"mosaic": 0.0, "scale": 0.0, "translate": 0.0, "fliplr": 0.0, "hsv_h": 0.0, "hsv_s": 0.0, "hsv_v": 0.0},
    "affine": {"mosaic": 0.0, "degrees": 30.0},
    "mosaic": {"mosaic": 1.0},
    "mixup": {"mosaic": 1.0, "mixup": 1.0},
    "cutmix": {"mosaic": 1.0, "cutmix": 1.0},
    "ram": {"mosaic": 1.0, "mixup": 0.5, "cache": "ram"},
}


def same(left: Any, right: Any) -> bool:
    return torch.equal(left, right) if isinstance(left, Tensor) else True


def seed(number: int) -> None:
    random.seed(number)
    np.random.seed(number)
    torch.manual_seed(number)


@pytest.fixture
def dataset(shapes: Callable[..., str]) -> Callable[..., Any]:
    def make(task: str = "detect", **changes: Any) -> Any:
        args: Any = get_cfg(overrides={"imgsz": 64, "task": task, **changes})
        data = check_det_dataset(shapes(task))
        seed(0)
        return build_yolo_dataset(args, data["train"], 4, data, mode="train", stride=32)

    return make


def samples(dataset: Any, rounds: int = 2) -> Iterator[dict[str, Any]]:
    """Draw all samples some times, from the same random numbers each time that this is called."""
    seed(5)
    for _ in range(rounds):
        for index in range(len(dataset)):
            yield dataset[index]


@pytest.mark.parametrize("name", AUGMENTATIONS)
def test_the_pixels_of_one_file_and_no_others(name: str, dataset: Callable[..., Any]) -> None:
    data, twin = dataset(**AUGMENTATIONS[name]), dataset(**AUGMENTATIONS[name])
    file = data.im_files[3]
    hit = 0
    with FileFault(file, value=NAN).install(data) as armed:
        for number, (broken, clean) in enumerate(zip(list(samples(data)), list(samples(twin)), strict=True)):
            assert broken.keys() == clean.keys()
            assert all(same(broken[key], clean[key]) for key in clean if key != "img"), "the same random numbers"
            if broken["img"].dtype == torch.uint8:
                assert torch.equal(broken["img"], clean["img"])
                assert number % 16 != 3 or name not in {"none", "affine"}
                continue
            ruined = ~broken["img"].isfinite()
            assert torch.equal(broken["img"][~ruined], clean["img"].float()[~ruined])
            assert ruined.all() if name == "none" else ruined.any()
            hit += 1
    assert armed.fired == hit >= 2
    if name in {"none", "affine"}:
        assert hit == 2, "the file's own sample, twice"
    else:
        assert hit > 4, "and those that it was mixed into"
    assert type(data) is type(twin)
    assert vars(data).keys() == vars(twin).keys()


def test_what_differs_is_known_by_other_means(dataset: Callable[..., Any]) -> None:
    """All files but one are as grey as the borders, so that what is not grey is that one's."""
    index = 3

    def one_bright_file() -> Any:
        data = dataset(mosaic=1.0, hsv_h=0.0, hsv_s=0.0, hsv_v=0.0)
        data.transforms.transforms = [t for t in data.transforms.transforms if type(t).__name__ != "Albumentations"]
        kind = type(data)

        class Painted(kind):
            def load_image(self, i: int, *args: Any, **kwargs: Any) -> Any:
                image, *rest = super().load_image(i, *args, **kwargs)
                return np.full_like(image, 250 if i == index else 114), *rest

        data.__class__ = Painted
        return data

    data = one_bright_file()
    with FileFault(data.im_files[index]).install(data):
        broken = list(samples(data, 1))
    for ruined, sample in zip(broken, samples(one_bright_file(), 1), strict=True):
        assert torch.equal((~ruined["img"].float().isfinite()).any(0), (sample["img"] != 114).any(0))


@pytest.mark.parametrize("value", [INF, -INF, 1e20])
def test_any_number_comes_to_the_pixels(value: float, dataset: Callable[..., Any]) -> None:
    data = dataset(mosaic=0.0)
    with FileFault("images/train/" + data.im_files[0].rsplit("/", 1)[1], value=value).install(data):
        image = data[0]["img"]
    assert (image == torch.tensor(value)).any()


HSV = {"hsv_h": 0.0, "hsv_s": 0.0, "hsv_v": 0.0}


@pytest.mark.parametrize(
    ("changes", "comes"),
    [
        ({"mosaic": 0.0, **HSV}, True),
        ({"mosaic": 0.0, "mixup": 1.0, **HSV}, False),
        ({"mosaic": 1.0, **HSV}, False),
        ({"mosaic": 1.0}, False),
        ({"mosaic": 0.0}, None),
    ],
    ids=["plain", "mixup", "mosaic, no colours", "mosaic", "colours"],
)
@pytest.mark.filterwarnings("ignore:invalid value encountered in cast:RuntimeWarning")
def test_a_cache_of_an_image_in_floats_comes_to_training_without_mosaic_and_colours_only(
    changes: dict[str, Any], comes: bool | None, dataset: Callable[..., Any]
) -> None:
    """What Ultralytics does with a NaN in a ``.npy`` beside an image: canvases of 8 bits swallow it; OpenCV refuses it."""
    data = dataset(**changes)
    file = Path(data.im_files[0])
    image = np.asarray(cv2.imread(str(file)), dtype=np.float32)
    image[20:44, 20:44] = NAN
    np.save(file.with_suffix(".npy"), image)
    try:
        if comes is None:
            with pytest.raises(cv2.error, match="lut"):
                data[0]
        else:
            seed(1)
            sample = data[0]["img"]
            assert (not sample.float().isfinite().all()) is comes
            assert (sample.dtype == torch.float32) is comes
    finally:
        file.with_suffix(".npy").unlink()


@pytest.mark.parametrize(("kind", "value"), [("box", NAN), ("box", 1e20), ("box", -0.5), ("class", 99.0)])
@pytest.mark.parametrize("name", ["affine", "mosaic", "mixup"])
def test_one_row_of_one_file(name: str, kind: str, value: float, dataset: Callable[..., Any]) -> None:
    data, twin = dataset(**AUGMENTATIONS[name]), dataset(**AUGMENTATIONS[name])
    row = len(data.labels[3]["cls"]) - 1
    before = copy.deepcopy(data.labels[3])
    found = 0
    with FileFault(data.im_files[3], kind, value, row=row).install(data) as armed:
        for broken, clean in zip(list(samples(data)), list(samples(twin)), strict=True):
            changed = [k for k in clean if isinstance(clean[k], Tensor) and not torch.equal(clean[k], broken[k])]
            assert set(changed) <= {"bboxes" if kind == "box" else "cls"}
            assert len(broken["cls"]) == len(clean["cls"])
            if not changed:
                continue
            found += 1
            a, b = broken[changed[0]], clean[changed[0]]
            rows = (a != b).any(1).nonzero().flatten().tolist()
            expected = a[rows, 2:4] if kind == "box" else a[rows]
            assert torch.equal(expected.nan_to_num(7), torch.full_like(expected, value).nan_to_num(7))
            if kind == "box":
                assert torch.equal(a[:, :2], b[:, :2])
    assert armed.fired == found >= 1
    assert all(np.array_equal(np.asarray(before[k]), np.asarray(data.labels[3][k])) for k in ("cls", "bboxes"))


@pytest.mark.parametrize("task", ["segment", "pose", "obb"])
def test_other_tasks(task: str, dataset: Callable[..., Any]) -> None:
    data = dataset(task, mosaic=1.0)
    with FileFault(data.im_files[1]).install(data) as armed:
        broken = [s["img"].is_floating_point() for s in samples(data, 1)]
    assert armed.fired == sum(broken) > 0
    with FileFault(data.im_files[1], "box", NAN).install(data) as armed:
        boxes = [bool((~s["bboxes"].isfinite()).any()) for s in samples(data, 1)]
    assert armed.fired == sum(boxes)


def test_a_data_set_for_classification(shapes: Callable[..., str]) -> None:
    args: Any = get_cfg(overrides={"imgsz": 64})
    data = ClassificationDataset(shapes("classify") + "/train", args, augment=True)
    file = data.samples[2][0]
    with FileFault(file).install(data) as armed:
        broken = [bool((~data[i]["img"].isfinite()).all()) for i in range(len(data))]
    assert broken == [i == 2 for i in range(len(data))]
    assert armed.fired == 1


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        (lambda files: FileFault(files[0], "pixels"), "image, mark, box, class"),
        (lambda files: FileFault(files[0], row=-1), "counted from 0"),
        (lambda files: FileFault("nowhere.jpg"), "0 files"),
        (lambda files: FileFault(files[0][:-5] + "x" + files[0][-4:]), "Did you mean"),
        (lambda files: FileFault(files[0], "box", row=500), "no row 500"),
    ],
)
def test_what_is_not_there_is_refused(fault: Any, said: str, dataset: Callable[..., Any]) -> None:
    data = dataset()
    with pytest.raises(InvalidCallError, match=said):
        fault(data.im_files).install(data).__enter__()
    assert "_chaos" not in vars(data)


@pytest.mark.parametrize("workers", [0, 1])
@pytest.mark.parametrize("kind", ["image", "box", "class", "mark"])
def test_real_training_counts_what_came_to_its_batches(
    kind: str, workers: int, arguments: Callable[..., dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    file = sorted_files(arguments)[0]
    value = {"class": 99.0}.get(kind, NAN)
    trainer = FileFault(file, kind, value).on(StableDetectionTrainer)(
        overrides=arguments(epochs=1, workers=workers, val=False, close_mosaic=0)
    )
    trainer.train()
    assert trainer.chaos.fired >= 1
    assert trainer.chaos.batches == 4
    if kind == "mark":
        assert trainer.guard.counts.rejected == 0
    else:
        assert 1 <= trainer.guard.counts.rejected <= trainer.chaos.fired


def sorted_files(arguments: Callable[..., dict[str, Any]]) -> list[str]:
    return [str(f) for f in sorted((Path(arguments()["data"]).parent / "images" / "train").iterdir())]


def test_a_marked_file_breaks_a_layer(arguments: Callable[..., dict[str, Any]]) -> None:
    """The two together: a file that a layer cannot digest, through mosaic and all."""
    layer = LayerFault("divide", "model.4", since=0, marked=True).on(StableDetectionTrainer)
    trainer = FileFault(sorted_files(arguments)[0], "mark").on(layer)(
        overrides=arguments(epochs=2, workers=0, val=False, close_mosaic=1)
    )
    marked: list[bool] = []
    stock = trainer.preprocess_batch

    def look(batch: dict[str, Any]) -> dict[str, Any]:
        batch = stock(batch)
        marked.append(bool(((batch["img"] - MARK).abs() < 1e-5).any()))
        return batch

    trainer.preprocess_batch = look
    trainer.train()
    assert trainer.guard.counts.rejected == sum(marked) >= 2


def test_stock_classification_takes_it(arguments: Callable[..., dict[str, Any]], shapes: Callable[..., str]) -> None:
    file = str(sorted(Path(shapes("classify")).glob("train/*/*"))[0])
    trainer = FileFault(file).on(ClassificationTrainer)(overrides=arguments("classify", epochs=1, workers=0, val=False))
    trainer.train()
    assert trainer.chaos.fired == 1
