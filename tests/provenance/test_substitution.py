"""An image that cannot be had, in every task and in every way: another one is drawn, and only its own file is out."""

from __future__ import annotations

import copy
import os
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from data_kinds import KINDS, classes_in
from torch.utils.data import ConcatDataset, DataLoader, Dataset, Subset, default_collate
from traced_data import dataset, generators, make_images, samples, seed
from ultralytics.cfg import get_cfg
from ultralytics.data.build import seed_worker
from ultralytics.data.dataset import ClassificationDataset, YOLODataset
from ultralytics.utils import LOGGER

from yolo_stable.provenance.dataset import trace
from yolo_stable.provenance.path_states import LEFT_OUT, PathStates
from yolo_stable.provenance.reading import parts_of, paths_of
from yolo_stable.provenance.substitution import Missing, NoImageLeftError, watch
from yolo_stable.provenance.unreadable import Problem


@pytest.fixture
def images(tmp_path: Path) -> Path:
    """Return images of the test's own, which it may ruin."""
    return make_images(tmp_path / "own", 12)


def watched(data: Any, **how: Any) -> PathStates:
    states = PathStates(64)
    assert watch(data, states, **how)
    return states


def lost(states: PathStates, data: Any) -> dict[str, Problem]:
    """Return what is out, by file name."""
    found = {}
    for part, _ in parts_of(data):
        found |= {Path(p).name: Problem(s) for p in paths_of(part) if (s := states.get(p)) > LEFT_OUT}
    assert len(found) == len(states.entries())
    return found


def directory(path: Path) -> None:
    path.unlink()
    path.mkdir()


RUINS: dict[str, tuple[Callable[[Path], Any], Problem]] = {
    "gone": (Path.unlink, Problem.GONE),
    "cut off": (lambda path: path.write_bytes(path.read_bytes()[:30]), Problem.UNDECODABLE),
    "empty": (lambda path: path.write_bytes(b""), Problem.EMPTY),
    "text": (lambda path: path.write_text("version https://git-lfs.github.com/spec/v1"), Problem.UNDECODABLE),
    "zeros": (lambda path: path.write_bytes(bytes(path.stat().st_size)), Problem.UNDECODABLE),
    "a folder": (directory, Problem.NO_FILE),
    "a link to nothing": (lambda path: (path.unlink(), path.symlink_to("nowhere")), Problem.GONE),
}


@pytest.mark.parametrize("how", RUINS)
def test_a_file_that_is_ruined_in_any_way_is_named_and_another_drawn(how: str, images: Path) -> None:
    ruin, problem = RUINS[how]
    data = dataset(images)
    states = watched(data)
    ruin(Path(data.im_files[3]))
    found, _ = samples(data, range(12), 0)
    assert [Path(sample["im_file"]).stem for sample in found][2:5] == ["002", "004", "004"]
    assert lost(states, data) == {"003.png": problem}


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_file_that_may_not_be_read_any_more(images: Path) -> None:
    data = dataset(images)
    states = watched(data)
    os.chmod(data.im_files[3], 0)
    samples(data, range(12), 0)
    assert lost(states, data) == {"003.png": Problem.FORBIDDEN}


@pytest.mark.parametrize("kind", KINDS)
def test_in_every_task_partners_included(kind: str, kinds: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Three files go at once; each draw of them, also as a partner of a mosaic or a mixup, takes another."""
    data = kinds[kind]()
    if kind == "cache in memory":
        data.cache, data.ims = None, [None] * len(data)  # images in memory need no file
    states = watched(data)
    files = [path for part, _ in parts_of(data) for path in paths_of(part)]
    gone = sorted({files[1], files[2], files[-1]})
    kept = {path: Path(path).read_bytes() for path in gone}
    try:
        for path in gone:
            os.remove(path)
        for number in range(2):
            found, _ = samples(data, range(len(data)), number)
            assert len(found) == len(data)
            assert {str(sample["im_file"]) for sample in found if "im_file" in sample}.isdisjoint(gone)
    finally:
        for path, content in kept.items():
            Path(path).write_bytes(content)
    assert {path for path in files if states.get(path)} == set(gone)
    assert {states.get(path) for path in gone} == {Problem.GONE}


@pytest.mark.parametrize(
    "kind", ["detect", "rectangles", "segment", "pose", "obb", "rtdetr", "classify", "validation", "masks"]
)
def test_while_all_is_well_nothing_is_drawn_that_stock_would_not_draw(kind: str, kinds: Any) -> None:
    plain, guarded = kinds[kind](), kinds[kind]()
    states = watched(guarded)
    expected, after = samples(plain, range(len(plain)), 2)
    found, guarded_after = samples(guarded, range(len(guarded)), 2)
    assert guarded_after == after
    assert not states
    for one, other in zip(found, expected, strict=True):
        assert list(one) == list(other)
        assert torch.equal(one["img"], other["img"])


def test_another_image_draws_no_random_number(images: Path) -> None:
    data = dataset(images, mosaic=0.0)
    watched(data)
    _, after = samples(data, range(6), 4)
    os.remove(data.im_files[2])
    data.ims, data.buffer = [None] * 12, []
    _, after_without = samples(data, range(6), 4)
    assert after_without == after
    seed(9)
    assert generators()


# ---- labels in memory, and what belongs to an image ------------------------------------------------------------------------

LABELS: dict[str, tuple[str, Callable[[dict[str, Any]], Any]]] = {
    "no boxes": ("detect", lambda label: label.update(bboxes=np.zeros((0, 4), np.float32))),
    "no classes": ("detect", lambda label: label.update(cls=np.zeros((0, 1), np.float32))),
    "boxes are None": ("detect", lambda label: label.update(bboxes=None)),
    "boxes of three numbers": ("detect", lambda label: label.update(bboxes=label["bboxes"][:, :3])),
    "words": ("detect", lambda label: label.update(bboxes=label["bboxes"].astype(str))),
    "a key is missing": ("detect", lambda label: label.pop("cls")),
    "everything is missing": ("detect", lambda label: label.clear()),
    "outlines of another number": ("segment", lambda label: label.update(segments=label["segments"] * 3)),
    "no keypoints": ("pose", lambda label: label.update(keypoints=None)),
    "keypoints of another number": ("pose", lambda label: label.update(keypoints=label["keypoints"][:0])),
    "no corners": ("obb", lambda label: label.update(segments=[])),
}


@pytest.mark.parametrize("how", LABELS)
def test_labels_that_are_ruined_in_memory_cost_one_image(how: str, kinds: Any) -> None:
    kind, ruin = LABELS[how]
    data = kinds[kind]()
    states = watched(data)
    index = next(i for i in range(3, len(data)) if len(data.labels[i]["cls"]))
    ruin(data.labels[index])
    for number in range(2):
        found, _ = samples(data, range(len(data)), number)
        batch = data.collate_fn(found)
        assert len(batch["cls"]) == len(batch["bboxes"]) == len(batch["batch_idx"])
    assert lost(states, data) == {Path(data.im_files[index]).name: Problem.LABELS}


def test_an_image_without_labels_is_no_ruined_one(images: Path) -> None:
    data = dataset(images)
    states = watched(data)
    data.labels[4].update(cls=np.zeros((0, 1), np.float32), bboxes=np.zeros((0, 4), np.float32))
    samples(data, range(12), 0)
    assert not states


@pytest.mark.parametrize(
    ("kind", "folder", "problem"), [("masks", "masks", Problem.MASK), ("depth", "depth", Problem.DEPTH)]
)
@pytest.mark.parametrize("ruin", [Path.unlink, lambda path: path.write_bytes(b"")], ids=["gone", "empty"])
def test_a_mask_or_a_depth_map_that_goes(kind: str, folder: str, problem: Problem, ruin: Any, kinds: Any) -> None:
    data = kinds[kind]()
    states = watched(data)
    stem = Path(data.im_files[3]).stem
    (companion,) = (Path(data.im_files[3]).parents[1] / folder).glob(f"{stem}.*")
    ruin(companion)
    samples(data, range(len(data)), 0)
    assert lost(states, data) == {f"{stem}.png": problem}


def test_a_class_that_is_missing_in_classification(folders: Path) -> None:
    data = classes_in(folders)
    states = watched(data)
    samples_of: Any = data.samples
    samples_of[2][1] = None
    assert len(samples(data, range(len(data)), 0)[0]) == len(data)
    assert lost(states, data) == {Path(data.samples[2][0]).name: Problem.LABELS}


# ---- files beside the images, and images in memory -------------------------------------------------------------------------


@pytest.mark.parametrize("cache", ["disk", "ram"])
def test_what_is_kept_in_a_cache_needs_no_file(cache: str, images: Path) -> None:
    data = dataset(images, cache=cache)
    states = watched(data)
    os.remove(data.im_files[3])
    found, _ = samples(data, range(12), 0)
    assert [Path(sample["im_file"]).stem for sample in found][3] == "003"
    assert not states


@pytest.mark.parametrize("array", ["cut off", "of one dimension", "a folder"])
def test_a_ruined_array_beside_an_image_is_no_end_and_with_a_ruined_image_that_is_lost(
    array: str, images: Path
) -> None:
    data = dataset(images, cache="disk")
    states = watched(data)
    for index in (3, 6):
        file = Path(data.npy_files[index])
        if array == "cut off":
            file.write_bytes(file.read_bytes()[:200])
        elif array == "a folder":
            directory(file)
        else:
            np.save(file, np.zeros(7, np.uint8))
    os.remove(data.im_files[6])
    found, _ = samples(data, range(12), 0)
    assert len(found) == 12
    assert "006.png" in lost(states, data)
    assert set(lost(states, data)) <= {"003.png", "006.png"}
    assert array == "a folder" or "003.png" not in lost(states, data), "Ultralytics itself reads the image instead"


def test_an_image_of_other_channels(tmp_path: Path) -> None:
    root = make_images(tmp_path / "four", 8)
    for path in root.glob("*.png"):
        cv2.imwrite(str(path), np.full((48, 64, 4), 99, np.uint8))
    data = dataset(root, data={"channels": 4}, mosaic=0.0)
    states = watched(data)
    cv2.imwrite(data.im_files[5], np.full((48, 64, 3), 99, np.uint8))
    found, _ = samples(data, range(8), 0)
    assert {sample["img"].shape[0] for sample in found} == {4}
    assert lost(states, data) == {"005.png": Problem.CHANNELS}


# ---- errors that are not about a file --------------------------------------------------------------------------------------


class OwnBugError(OSError):
    """An error of somebody's own code; of a type that files have, too."""


class Raises:
    def __init__(self, error: Exception, when: int) -> None:
        self.error, self.when, self.calls = error, when, 0

    def __call__(self, data: Any) -> Any:
        self.calls += 1
        if self.calls == self.when:
            raise self.error
        return data


@pytest.mark.parametrize(
    "error", [OwnBugError("mine"), FileNotFoundError("weights.bin"), ValueError("x"), KeyError("y")]
)
@pytest.mark.parametrize("kind", ["detect", "classify"])
def test_an_error_of_a_transform_of_ones_own_is_raised_as_it_is(kind: str, error: Exception, kinds: Any) -> None:
    data = kinds[kind]()
    states = watched(data)
    mine = Raises(error, when=3)
    if kind == "classify":
        data.torch_transforms = mine
        data.torch_transforms, inner = (lambda image: inner(mine(image))), data.torch_transforms
        inner = classes_transforms()
    else:
        data.transforms.transforms.insert(0, mine)
    for index in range(2):
        data[index]
    with pytest.raises(type(error)) as caught:
        data[2]
    assert caught.value is error
    assert not states
    assert data[3] is not None


def classes_transforms() -> Any:
    from ultralytics.data.augment import classify_transforms

    return classify_transforms(size=32)


def test_an_error_of_ones_own_beside_a_file_that_is_gone_is_not_hidden_by_it(images: Path) -> None:
    data = dataset(images, mosaic=0.0)
    states = watched(data)
    data.transforms.transforms.insert(0, Raises(OwnBugError("mine"), when=4))
    os.remove(data.im_files[1])
    with pytest.raises(OwnBugError):
        samples(data, range(8), 0)
    assert lost(states, data) == {"001.png": Problem.GONE}


def test_a_file_that_can_be_read_a_moment_later_is_not_lost(images: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A network share is away for an instant."""
    import ultralytics.data.base as base

    data = dataset(images, mosaic=0.0)
    states = watched(data)
    read, failed = base.imread, []

    def once(path: Any, *args: Any, **kwargs: Any) -> Any:
        if path == data.im_files[3] and not failed:
            failed.append(path)
            return None
        return read(path, *args, **kwargs)

    monkeypatch.setattr(base, "imread", once)
    assert Path(samples(data, range(3, 4), 0)[0][0]["im_file"]).stem == "003"
    assert failed
    assert not states


def test_odd_labels_of_all_images_are_no_fault_of_one(images: Path) -> None:
    """A data set of somebody's own keeps its labels otherwise: a bug of theirs stays a bug."""
    data = dataset(images, mosaic=0.0)
    states = watched(data)
    for label in data.labels:
        label["bboxes"] = label["bboxes"].tolist()
        label.pop("bbox_format")
    with pytest.raises(KeyError):
        data[0]
    assert not states


# ---- data sets of somebody's own ---------------------------------------------------------------------------------------------


class Balanced(YOLODataset):
    """Draws an index of its own."""

    def __getitem__(self, index: int) -> Any:
        return self.transforms(self.get_image_and_label((index * 5 + 3) % len(self.labels)))


class OwnReader(YOLODataset):
    """Reads files itself."""

    def load_image(self, i: int, rect_mode: bool = True, resize_short: bool = False) -> Any:
        image: Any = cv2.imread(self.im_files[i])
        height, width = image.shape[:2]
        return cv2.resize(image, (64, 64)), (height, width), (64, 64)


@pytest.mark.parametrize("kind", [Balanced, OwnReader])
def test_data_sets_of_ones_own_go_on(kind: Any, images: Path) -> None:
    data = dataset(images, mosaic=0.0)
    data.__class__ = kind
    states = watched(data)
    os.remove(data.im_files[3])
    found, _ = samples(data, range(12), 0)
    assert "003.png" not in {Path(sample["im_file"]).name for sample in found}
    assert lost(states, data) == {"003.png": Problem.GONE}
    assert isinstance(data, kind)


class Wrapper(Dataset):
    """Somebody's own data set around another."""

    def __init__(self, inner: Any) -> None:
        self.inner = inner

    def __len__(self) -> int:
        return len(self.inner)

    def __getitem__(self, index: int) -> Any:
        return self.inner[index]


WRAPPERS: dict[str, Callable[[Any], Any]] = {
    "a subset": lambda data: Subset(data, [0, 3, 5]),
    "a subset of a subset": lambda data: Subset(Subset(data, [0, 2, 3, 5, 7]), [0, 2, 3]),
    "a subset of joined ones": lambda data: Subset(ConcatDataset([data]), [0, 3, 5]),
    "joined subsets": lambda data: ConcatDataset([Subset(data, [0, 3]), Subset(data, [5])]),
    "a wrapper": lambda data: Wrapper(Subset(data, [0, 3, 5])),
    "a subset of a wrapper": lambda data: Subset(Wrapper(data), [0, 3, 5]),
}


@pytest.mark.parametrize("how", WRAPPERS)
@pytest.mark.parametrize("kind", ["detect", "classify"])
def test_what_takes_the_place_comes_from_the_same_choice_of_images(
    how: str, kind: str, images: Path, folders: Path, tmp_path: Path
) -> None:
    """An image outside a subset may be one that the run is validated with."""
    if kind == "classify":
        inner: Any = classes_in(Path(shutil.copytree(folders, tmp_path / "train")))
    else:
        inner = dataset(images, mosaic=0.0)
    data = WRAPPERS[how](inner)
    states = watched(data)
    files = paths_of(inner)
    os.remove(files[3])
    wanted = [0, 5 if how != "joined subsets" else 0, 5]
    seed(0)
    loader = DataLoader(data, 1, collate_fn=lambda batch: batch[0])
    drawn = [Path(s["im_file"]).name if "im_file" in s else s["cls"] for s in loader]
    assert drawn == [Path(files[n]).name if kind == "detect" else inner.samples[n][1] for n in wanted]
    assert lost(states, data) == {Path(files[3]).name: Problem.GONE}


class Stranger(Dataset):
    def __getitem__(self, index: int) -> int:
        return index

    def __len__(self) -> int:
        return 3


def test_a_stranger_is_left_as_it_is() -> None:
    data = Stranger()
    assert not watch(data, PathStates(3))
    assert (type(data), vars(data), data[1]) == (Stranger, {}, 1)


# ---- loaders, validations, and the end -------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["fork", "spawn"])
@pytest.mark.parametrize("kind", ["detect", "classify"])
@pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork:DeprecationWarning")
def test_a_worker_that_runs_already_finds_out_and_all_processes_know(
    method: str, kind: str, images: Path, folders: Path, tmp_path: Path
) -> None:
    if kind == "classify":
        data: Any = classes_in(Path(shutil.copytree(folders, tmp_path / "train")))
    else:
        data = dataset(images)
    states = watched(data)
    loader = DataLoader(
        data, 4, num_workers=1, collate_fn=getattr(data, "collate_fn", default_collate), worker_init_fn=seed_worker,
        multiprocessing_context=method, persistent_workers=True, prefetch_factor=1,
    )  # fmt: skip
    sizes = [len(batch["img"]) for batch in loader]
    assert not states
    os.remove(paths_of(data)[5])
    for _ in range(3):  # what the worker still has in memory is drawn until it is read again
        assert [len(batch["img"]) for batch in loader] == sizes
    loader._iterator._shutdown_workers()  # type: ignore[union-attr]
    assert lost(states, data) == {Path(paths_of(data)[5]).name: Problem.GONE}


def test_what_is_left_out_may_be_a_whole_folder_in_a_row(images: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only images that turn out to be unreadable speak for a disk that is away."""
    monkeypatch.setattr("yolo_stable.provenance.substitution.TRIES", 3)
    data = dataset(images)
    states = watched(data)
    for path in data.im_files[:9]:
        states.set(path, LEFT_OUT)
    assert Path(data[0]["im_file"]).stem == "009"
    assert not lost(PathStates(1), data)
    for path in data.im_files[9:]:
        os.remove(path)
    data.ims, data.buffer = [None] * 12, []
    with pytest.raises(NoImageLeftError):
        data[0]


def test_all_files_of_a_batch_may_be_gone(images: Path) -> None:
    data = dataset(images)
    watched(data)
    for path in data.im_files[2:6]:
        os.remove(path)
    batch = data.collate_fn([data[index] for index in range(2, 6)])
    assert batch["img"].shape[0] == 4
    assert {Path(path).stem for path in batch["im_file"]} == {"006"}


@pytest.mark.parametrize("kind", ["detect", "classify"])
def test_when_none_is_left_it_says_so(kind: str, images: Path, folders: Path, tmp_path: Path) -> None:
    if kind == "classify":
        data: Any = classes_in(Path(shutil.copytree(folders, tmp_path / "train")))
    else:
        data = dataset(images)
    watched(data)
    for path in paths_of(data):
        os.remove(path)
    with pytest.raises(NoImageLeftError, match="No image of the data set could be drawn"):
        data[0]
    with pytest.raises(NoImageLeftError):  # and so in the next sample
        data[1]


@pytest.mark.parametrize("kind", ["detect", "classify"])
def test_a_validation_goes_on_without_the_image(kind: str, images: Path, folders: Path, tmp_path: Path) -> None:
    if kind == "classify":
        data: Any = classes_in(Path(shutil.copytree(folders, tmp_path / "train")))
    else:
        data = dataset(images, mode="val")
    states = watched(data, skip=True)
    os.remove(paths_of(data)[1])
    loader = DataLoader(data, 4, collate_fn=data.collate_fn)
    assert [len(batch["img"]) for batch in loader] == [3, *[4] * (len(data) // 4 - 1)]
    assert lost(states, data) == {Path(paths_of(data)[1]).name: Problem.GONE}
    assert isinstance(data[1], Missing)


def test_a_batch_of_a_validation_is_never_empty(images: Path) -> None:
    data = dataset(images, mode="val")
    watched(data, skip=True)
    for path in data.im_files[:4]:
        os.remove(path)
    batch = data.collate_fn([data[index] for index in range(4)])
    assert [Path(path).stem for path in batch["im_file"]] == ["004"]


@pytest.mark.parametrize("kind", ["detect", "segment", "joined", "classify", "masks"])
def test_a_watched_data_set_can_be_copied_and_pickled(kind: str, kinds: Any) -> None:
    data = kinds[kind]()
    watched(data)
    samples(data, range(4), 1)  # images are kept in memory by now
    expected, _ = samples(copy.deepcopy(data), range(4), 5)
    found, _ = samples(pickle.loads(pickle.dumps(data)), range(4), 5)
    for one, other in zip(found, expected, strict=True):
        assert torch.equal(one["img"], other["img"])


class OwnClasses(ClassificationDataset):
    """Somebody's own."""


def test_the_class_of_a_data_set_of_ones_own_is_still_asked(folders: Path) -> None:
    data: Any = classes_in(folders)
    data.__class__ = OwnClasses
    watched(data)
    copied = pickle.loads(pickle.dumps(data))
    assert isinstance(copied, OwnClasses)
    assert type(copied) is type(data)


# ---- classes of somebody's own that do not expect it ------------------------------------------------------------------------


class Chosen(YOLODataset):
    """Sends to a worker what it needs, and no more."""

    def __getstate__(self) -> Any:
        return {name: value for name, value in vars(self).items() if not name.startswith("_")}


class ChosenClasses(ClassificationDataset):
    def __getstate__(self) -> Any:
        return {name: value for name, value in vars(self).items() if not name.startswith("_")}


@pytest.mark.parametrize("kind", [Chosen, ChosenClasses])
@pytest.mark.parametrize("traced", [False, True])
def test_one_that_comes_without_what_is_known_of_it_does_what_its_class_does(
    kind: Any, traced: bool, images: Path, folders: Path
) -> None:
    data: Any = dataset(images, mosaic=1.0) if kind is Chosen else classes_in(folders)
    data.__class__ = kind
    expected, _ = samples(copy.deepcopy(data), range(8), 3)
    watched(data)
    if traced:
        trace(data)
    sent = pickle.loads(pickle.dumps(data))
    assert "_watch" not in vars(sent)
    found, _ = samples(sent, range(8), 3)
    assert all(torch.equal(one["img"], other["img"]) for one, other in zip(found, expected, strict=True))
    collate = getattr(sent, "collate_fn", default_collate)
    assert len(collate(found)["img"]) == 8


def test_one_that_is_made_by_its_type_is_not_watched(images: Path, folders: Path) -> None:
    data, classes = dataset(images), classes_in(folders)
    watched(data)
    watched(classes)
    cfg: Any = get_cfg(overrides={"imgsz": 96})
    other = type(data)(img_path=str(images), imgsz=96, augment=False, hyp=cfg, data=data.data)
    assert other[0]["im_file"] == data.im_files[0]
    assert type(classes)(str(folders), args=cfg)[0]["cls"] == classes.samples[0][1]
    states = watched(other)
    assert type(other) is type(data)
    os.remove(other.im_files[3])
    assert Path(other[3]["im_file"]).stem == "004"
    assert lost(states, other) == {"003.png": Problem.GONE}


def read_again(kind: Any, state: dict[str, Any]) -> Any:
    made = kind.__new__(kind)
    vars(made).update(state, how="factory")
    return made


class Factory(YOLODataset):
    def __reduce__(self) -> Any:
        return read_again, (type(self), dict(vars(self)))


class NewArguments(YOLODataset):
    def __new__(cls, *args: Any, how: str = "made", **kwargs: Any) -> Any:
        made: Any = super().__new__(cls)
        made.how = how
        return made

    def __getnewargs_ex__(self) -> Any:
        return (), {"how": "new"}

    def __getstate__(self) -> Any:
        return {name: value for name, value in vars(self).items() if name != "how"}


@pytest.mark.parametrize(("kind", "how"), [(Factory, "factory"), (NewArguments, "new")])
def test_a_reconstruction_of_ones_own_is_kept(kind: Any, how: str, images: Path) -> None:
    data = dataset(images)
    data.__class__ = kind
    states = watched(data)
    for made in (pickle.loads(pickle.dumps(data)), copy.deepcopy(data)):
        assert (made.how, isinstance(made, kind)) == (how, True)
        assert made[2]["im_file"] == data.im_files[2]
    os.remove(data.im_files[2])
    assert Path(copy.copy(data)[2]["im_file"]).stem == "003"
    assert lost(states, data) == {"002.png": Problem.GONE}


def test_a_class_of_ones_own_upon_a_watched_one_is_pickled_by_its_name(images: Path) -> None:
    data = dataset(images)
    watched(data)
    made = type("Upon", (type(data),), {"__module__": __name__})
    globals()["Upon"] = made
    try:
        data.__class__ = made
        assert type(pickle.loads(pickle.dumps(data))) is made
    finally:
        del globals()["Upon"]


class OwnCollate(YOLODataset):
    """Its collate function cannot be set from outside, from when it is made."""

    @property
    def collate_fn(self) -> Any:  # pyright: ignore[reportIncompatibleMethodOverride]
        return YOLODataset.collate_fn


class Registered(YOLODataset):
    def __init_subclass__(cls, *, name: str, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)


class Final(YOLODataset):
    def __init_subclass__(cls, **kwargs: Any) -> None:
        raise RuntimeError("no class may be made of this one")


@pytest.mark.parametrize(
    ("kind", "skip"), [(OwnCollate, True), (Registered, True), (Registered, False), (Final, False)]
)
def test_a_class_that_forbids_it_is_left_as_it_is_and_that_is_told(
    kind: Any, skip: bool, images: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = dataset(images, mosaic=0.0)
    data.__class__ = kind
    vars(data).pop("collate_fn", None)
    before, told = dict(vars(data)), []
    monkeypatch.setattr(LOGGER, "warning", told.append)
    assert not watch(data, PathStates(12), skip=skip)
    assert (type(data), vars(data).keys()) == (kind, before.keys())
    assert data[2]["im_file"] == data.im_files[2]
    assert len(told) == 1
    assert kind.__name__ in told[0]


def test_a_collate_function_that_cannot_be_set_is_no_hindrance_in_training(images: Path) -> None:
    data = dataset(images)
    data.__class__ = OwnCollate
    states = watched(data)
    os.remove(data.im_files[2])
    assert Path(data[2]["im_file"]).stem == "003"
    assert lost(states, data) == {"002.png": Problem.GONE}


@pytest.mark.parametrize("own", [False, True])
def test_a_copy_draws_from_its_own_lists(own: bool, images: Path) -> None:
    data, calls = dataset(images, mosaic=0.0), []
    if own:
        inner = data.get_image_and_label
        data.get_image_and_label = lambda index: calls.append(index) or inner(index)
    states = watched(data)
    copied = copy.copy(data)
    kept = [4, 7, 9]
    for name in ("im_files", "labels", "npy_files", "ims", "im_hw0", "im_hw"):
        setattr(copied, name, [getattr(data, name)[n] for n in kept])
    if own:
        assert copied[0]["im_file"] == data.im_files[0], "as with a function that is bound to the first one"
        assert calls == [0]
        return
    assert [Path(copied[n]["im_file"]).stem for n in range(3)] == ["004", "007", "009"]
    os.remove(copied.im_files[1])
    copied.ims = [None] * 3
    assert [Path(copied[n]["im_file"]).stem for n in range(3)] == ["004", "009", "009"]
    assert lost(states, data) == {"007.png": Problem.GONE}
