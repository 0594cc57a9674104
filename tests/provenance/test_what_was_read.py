"""Provenance says what was read, never what was asked for: data sets, transforms and wrappers of somebody's own."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from data_kinds import classes_in
from torch.utils.data import ConcatDataset, DataLoader, Dataset, Subset, WeightedRandomSampler
from traced_data import colour, dataset, make_images, samples, seed
from ultralytics.data.dataset import ClassificationDataset, YOLODataset

from yolo_stable.provenance.dataset import retrace, take, trace
from yolo_stable.provenance.quarantine import Quarantine

COUNT = 12


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_images(tmp_path_factory.mktemp("images") / "set", COUNT)


class OwnIndex(YOLODataset):
    """Throws the index away that it was asked for."""

    def __getitem__(self, index: int) -> Any:
        return super().__getitem__((index * 5 + 3) % len(self.labels))


class WithoutSuper(YOLODataset):
    """The weighted data set that goes around in forums."""

    def __getitem__(self, index: int) -> Any:
        return self.transforms(self.get_image_and_label(int(np.random.randint(len(self.labels)))))


class OtherDraw(YOLODataset):
    """Draws another image and its labels."""

    def get_image_and_label(self, index: int) -> Any:
        return super().get_image_and_label((index * 5 + 3) % len(self.labels))


class UntilLabelled(YOLODataset):
    """Draws until it likes what it sees."""

    def get_image_and_label(self, index: int) -> Any:
        labels = super().get_image_and_label(index)
        return labels if index % 2 else super().get_image_and_label((index + 1) % len(self.labels))


class OtherImage(YOLODataset):
    """Reads another image for an index; the labels stay."""

    def load_image(self, i: int, *args: Any, **kwargs: Any) -> Any:
        return super().load_image((i + 4) % len(self.labels), *args, **kwargs)


class Brighter(YOLODataset):
    """Changes what was read."""

    def get_image_and_label(self, index: int) -> Any:
        labels = super().get_image_and_label(index)
        return {**labels, "img": cv2.add(labels["img"], np.array([1.0]))}


class Stored(YOLODataset):
    """Keeps finished samples."""

    def __getitem__(self, index: int) -> Any:
        kept = vars(self).setdefault("kept", {})
        if index not in kept:
            kept[index] = super().__getitem__(index)
        return dict(kept[index])


NAMED = (OwnIndex, WithoutSuper, OtherDraw, UntilLabelled, OtherImage, Brighter, Stored)


def shown(sample: dict[str, Any]) -> int:
    """Return which image a sample shows, by its colour."""
    height, width = sample["img"].shape[-2:]
    middle = sample["img"][:, height // 2, width // 2].numpy().astype(int)
    return min(range(COUNT), key=lambda n: int(np.abs(middle - np.array(colour(n))).sum()))


@pytest.mark.parametrize("kind", NAMED)
def test_the_file_that_is_seen_is_the_file_that_is_named(kind: Any, images: Path) -> None:
    data = dataset(images, mosaic=0.0, translate=0.0, scale=0.0)
    data.__class__ = kind
    trace(data)
    for _ in range(2):
        found, _ = samples(data, range(COUNT), 0)
        assert len({shown(sample) for sample in found}) > 3
        for sample in found:
            assert sample["provenance"].files() == (data.im_files[shown(sample)],)


def test_rows_are_not_named_where_the_labels_are_those_of_another_file(images: Path) -> None:
    data = dataset(images, mosaic=0.0)
    data.__class__ = OtherImage
    trace(data)
    assert set(samples(data, range(3), 0)[0][2]["provenance"].rows) == {None}


class OwnReader(YOLODataset):
    """Reads files itself: nobody knows which."""

    def load_image(self, i: int, rect_mode: bool = True, resize_short: bool = False) -> Any:
        image: Any = cv2.imread(self.im_files[(i + 1) % len(self.im_files)])
        return image, image.shape[:2], image.shape[:2]


class OwnImage(YOLODataset):
    """Puts another file in the place of the one that was read, and says so."""

    def get_image_and_label(self, index: int) -> Any:
        labels = super().get_image_and_label(index)
        return {**labels, "img": labels["img"].copy(), "im_file": "elsewhere.jpg"}


class FromNothing(YOLODataset):
    """Makes samples of its own."""

    def __getitem__(self, index: int) -> Any:
        sample = super().__getitem__(index)
        sample["img"] = sample["img"].clone()
        del sample["provenance"]
        return {**sample, "made": True} if index else {k: v for k, v in sample.items() if k != "im_file"}


@pytest.mark.parametrize("kind", [OwnReader, OwnImage])
def test_where_it_cannot_be_known_no_name_is_given(kind: Any, images: Path) -> None:
    data = dataset(images, mosaic=0.0)
    data.__class__ = kind
    trace(data)
    batch = data.collate_fn(samples(data, range(4), 0)[0])
    assert [origin.files() for origin in take(batch)] == [()] * 4


class Blend(YOLODataset):
    """Joins two finished samples."""

    def __getitem__(self, index: int) -> Any:
        one, other = super().__getitem__(index), super().__getitem__((index + 1) % len(self.labels))
        one["img"] = (one["img"] // 2) + (other["img"] // 2)
        return one


class OwnPartner:
    """A transform that reads another image of the data set."""

    def __init__(self, data: Any) -> None:
        self.data = data

    def __call__(self, labels: dict[str, Any]) -> dict[str, Any]:
        other = self.data.load_image(7)[0]
        height, width = labels["img"].shape[:2]
        labels["img"] = labels["img"] // 2 + cv2.resize(other, (width, height)) // 2
        return labels


def test_an_image_that_is_made_of_two_names_both(images: Path) -> None:
    blended = dataset(images, mosaic=0.0)
    blended.__class__ = Blend
    trace(blended)
    assert blended[2]["provenance"].files() == (blended.im_files[2], blended.im_files[3])
    mixed = dataset(images, mosaic=0.0)
    trace(mixed)
    mixed.transforms.transforms.insert(0, OwnPartner(mixed))
    retrace(mixed)
    assert mixed[2]["provenance"].files() == (mixed.im_files[2], mixed.im_files[7])


def test_a_sample_that_lost_its_note_is_known_by_what_was_read(images: Path) -> None:
    data = dataset(images, mosaic=0.0)
    data.__class__ = FromNothing
    trace(data)
    assert [data[index]["provenance"].files() for index in (0, 2)] == [(data.im_files[0],), (data.im_files[2],)]


# ---- lists that somebody changes ---------------------------------------------------------------------------------------------

LISTS = ("im_files", "labels", "npy_files", "ims", "im_hw0", "im_hw")


@pytest.mark.parametrize(
    "changed", [LISTS, ("im_files", "labels", "npy_files")], ids=["all", "without the images in memory"]
)
@pytest.mark.parametrize("cache", [False, "ram"])
def test_lists_that_are_changed_between_two_epochs(changed: tuple[str, ...], cache: Any, images: Path) -> None:
    data = dataset(images, mosaic=0.0, translate=0.0, scale=0.0, cache=cache)
    paths = list(data.im_files)
    trace(data)
    samples(data, range(COUNT), 0)
    order = [*range(5, COUNT), 2]
    for name in changed:
        whole = list(getattr(data, name))
        setattr(data, name, [whole[n] for n in order])
    named = 0
    for index in range(len(order)):
        sample = data[index]
        files = sample["provenance"].files()
        assert files in {(), (paths[shown(sample)],)}
        named += bool(files)
    assert named == (0 if cache and changed == LISTS else len(order))


def test_a_list_that_is_changed_apart_from_the_arrays_beside_the_images(images: Path, tmp_path: Path) -> None:
    """With files beside the images either of two may be read."""
    own = make_images(tmp_path / "own", COUNT)
    data = dataset(own, mosaic=0.0, translate=0.0, scale=0.0, cache="disk")
    trace(data)
    data.im_files = data.im_files[::-1]
    assert data[2]["provenance"].files() == ()


@pytest.mark.parametrize("kind", [YOLODataset, OwnIndex, OtherDraw, OtherImage, Stored])
def test_what_is_left_out_is_drawn_by_no_way_and_nothing_else_is_missing(kind: Any, images: Path) -> None:
    data = dataset(images, translate=0.0, scale=0.0, mosaic=0.0)
    data.__class__ = kind
    ward = Quarantine(COUNT)
    trace(data, ward)
    paths = list(data.im_files)
    samples(data, range(COUNT), 1)
    ward.leave_out([paths[3]])
    found, _ = samples(data, range(COUNT), 2)
    assert {shown(sample) for sample in found} == set(range(COUNT)) - {3}
    if kind is YOLODataset:
        order = [3, 9, 0, 4]
        for name in LISTS:
            whole = list(getattr(data, name))
            setattr(data, name, [whole[n] for n in order])
        assert [shown(data[index]) for index in range(4)] == [9, 9, 0, 4]


# ---- loaders, samplers and data sets around others ---------------------------------------------------------------------------


class Wrapper(Dataset):
    """Somebody's own data set around another."""

    def __init__(self, inner: Any) -> None:
        self.inner = inner
        self.kept: dict[int, Any] = {}

    def __len__(self) -> int:
        return len(self.inner)

    def __getitem__(self, index: int) -> Any:
        if index not in self.kept:
            self.kept[index] = self.inner[(index + 2) % len(self.inner)]
        return dict(self.kept[index])


class BlendingWrapper(Wrapper):
    def __getitem__(self, index: int) -> Any:
        one, other = self.inner[index], self.inner[(index + 1) % len(self.inner)]
        return {**one, "img": one["img"] // 2 + other["img"] // 2}


WRAPPERS: dict[str, Callable[[Any], Any]] = {
    "subset": lambda data: Subset(data, [7, 3, 5, 3]),
    "joined": lambda data: ConcatDataset([Subset(data, [1, 2]), data]),
    "wrapper": Wrapper,
}


@pytest.mark.parametrize("how", WRAPPERS)
def test_a_data_set_around_another_hands_the_names_on(how: str, images: Path) -> None:
    inner = dataset(images, mosaic=0.0, translate=0.0, scale=0.0)
    data = WRAPPERS[how](inner)
    trace(data, Quarantine(COUNT))
    for _ in range(2):
        for sample in (data[index] for index in range(len(data))):
            assert sample["provenance"].files() == (inner.im_files[shown(sample)],)


def test_a_wrapper_that_joins_two_samples_names_both(images: Path) -> None:
    inner = dataset(images, mosaic=0.0)
    data = BlendingWrapper(inner)
    trace(data)
    assert data[2]["provenance"].files() == (inner.im_files[2], inner.im_files[3])


def test_a_stored_sample_of_an_image_that_is_left_out_is_not_given_again(images: Path) -> None:
    inner = dataset(images, mosaic=0.0)
    data, ward = Wrapper(inner), Quarantine(COUNT)
    trace(data, ward)
    assert data[1]["provenance"].files() == (inner.im_files[3],)
    ward.leave_out([inner.im_files[3]])
    assert data[1]["provenance"].files() == (inner.im_files[4],)


def test_a_weighted_sampler_is_named_right_and_counted_by_path(images: Path) -> None:
    data, ward = dataset(images, mosaic=0.0, translate=0.0, scale=0.0), Quarantine(COUNT)
    trace(data, ward)
    weights = [1.0] * COUNT
    weights[3] = 50.0
    sampler = WeightedRandomSampler(weights, 32, generator=torch.Generator().manual_seed(1))
    loader = DataLoader(data, 4, sampler=sampler, collate_fn=data.collate_fn)
    drawn = [origin.files()[0] for batch in loader for origin in take(batch)]
    assert drawn.count(data.im_files[3]) > 8
    for path in drawn:
        if path == data.im_files[3]:
            ward.blame(path)
    assert ward.left_out == [data.im_files[3]]
    assert data.im_files[3] not in [origin.files()[0] for batch in loader for origin in take(batch)]


def test_a_collate_function_of_ones_own_costs_the_names_alone(images: Path) -> None:
    data = dataset(images, mosaic=0.0)
    trace(data)
    loader = DataLoader(data, 4, collate_fn=lambda batch: {"img": torch.stack([s["img"] for s in batch])})
    batch = next(iter(loader))
    assert (take(batch), list(batch)) == ((), ["img"])


# ---- classification ----------------------------------------------------------------------------------------------------------


class OwnClassIndex(ClassificationDataset):
    def __getitem__(self, i: int) -> Any:
        return super().__getitem__((i * 5 + 3) % len(self.samples))


class OwnClassSample(ClassificationDataset):
    """Changes what it was given."""

    def __getitem__(self, i: int) -> Any:
        sample = super().__getitem__((i + 1) % len(self.samples))
        return {"img": sample["img"] * 1.0, "cls": sample["cls"]}


class BlendedClasses(ClassificationDataset):
    def __getitem__(self, i: int) -> Any:
        one, other = super().__getitem__(i), super().__getitem__((i + 1) % len(self.samples))
        return {**one, "img": (one["img"] + other["img"]) / 2}


class StoredClasses(ClassificationDataset):
    def __getitem__(self, i: int) -> Any:
        kept = vars(self).setdefault("kept", {})
        if i not in kept:
            kept[i] = super().__getitem__((i + 2) % len(self.samples))
        return kept[i]


class OwnClassReader(ClassificationDataset):
    def __getitem__(self, i: int) -> Any:
        return {"img": torch.zeros(3, 32, 32), "cls": self.samples[i][1]}


OWN_CLASSES: dict[Any, Callable[[int], list[int]]] = {
    OwnClassIndex: lambda i: [(i * 5 + 3) % 24],
    OwnClassSample: lambda i: [(i + 1) % 24],
    BlendedClasses: lambda i: [i, (i + 1) % 24],
    StoredClasses: lambda i: [(i + 2) % 24],
    OwnClassReader: lambda i: [],
}


@pytest.mark.parametrize("kind", OWN_CLASSES)
def test_classification_data_sets_of_ones_own(kind: Any, folders: Path) -> None:
    data: Any = classes_in(folders)
    data.__class__ = kind
    trace(data)
    for _ in range(2):
        seed(0)
        origins = [origin for batch in DataLoader(data, 8) for origin in take(batch)]
        files = [tuple(data.samples[n][0] for n in OWN_CLASSES[kind](index)) for index in range(24)]
        assert [origin.files() for origin in origins] == files


@pytest.mark.parametrize("cache", [False, "ram"])
def test_classification_samples_that_are_changed_between_two_epochs(cache: Any, folders: Path) -> None:
    data: Any = classes_in(folders, cache=cache)
    ward = Quarantine(24)
    trace(data, ward)
    paths = [sample[0] for sample in data.samples]
    data.samples = data.samples[12:]
    drawn = [origin.files() for batch in DataLoader(data, 6) for origin in take(batch)]
    assert drawn == [(path,) for path in (paths[:12] if cache else paths[12:])], "from memory comes what was put there"
    ward.leave_out([drawn[3][0]])
    assert drawn[3] not in [origin.files() for batch in DataLoader(data, 6) for origin in take(batch)]
