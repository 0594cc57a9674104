"""Trainings whose files go while they run: each is named once, others are drawn, and too many end the run."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from torch.utils.data import ConcatDataset

from yolo_stable.errors import TrainingHaltedError
from yolo_stable.provenance.path_states import LEFT_OUT, PathStates
from yolo_stable.provenance.unreadable import Problem
from yolo_stable.runlog.reader import read_events
from yolo_stable.trainer.lost_files import LostFiles
from yolo_stable.trainer.trainers import TRAINERS

pytestmark = pytest.mark.usefixtures("without_epilogue")
Arguments = Callable[..., dict[str, Any]]


@pytest.fixture
def own(shapes: Callable[..., str], tmp_path: Path) -> Callable[[str], tuple[Path, list[Path], list[Path]]]:
    """Return a maker of a data set of the test's own: what ``data=`` takes, its training and its validation images."""

    def make(task: str) -> tuple[Path, list[Path], list[Path]]:
        source = Path(shapes(task))
        root = Path(shutil.copytree(source if source.is_dir() else source.parent, tmp_path / "own"))
        for cache in root.rglob("*.cache"):
            cache.unlink()
        data = root
        if not source.is_dir():
            data = root / source.name
            content = yaml.safe_load(data.read_text())
            data.write_text(yaml.safe_dump({**content, "path": str(root)}))
        found = sorted(path for path in root.rglob("*") if path.suffix in {".png", ".jpg"})
        return data, *([path for path in found if split in path.parts] for split in ("train", "val"))  # type: ignore[return-value]

    return make


def train(task: str, overrides: dict[str, Any], at_epoch: Callable[[Any], None]) -> Any:
    trainer = TRAINERS[task](overrides=overrides)
    trainer.add_callback("on_train_epoch_start", at_epoch)
    trainer.train()
    return trainer


def forget_images(trainer: Any) -> None:
    """Let workers and buffers begin anew: of so few images all are in memory."""
    trainer.train_loader.reset()
    dataset = trainer.train_loader.dataset
    if hasattr(dataset, "buffer"):
        dataset.ims, dataset.buffer = [None] * len(dataset), []


def summary(trainer: Any) -> dict[str, Any]:
    return json.loads((trainer.save_dir / "summary.json").read_text())


@pytest.mark.parametrize("task", ["detect", "segment", "pose", "obb", "classify", "rtdetr"])
@pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork:DeprecationWarning")
def test_a_file_that_goes_is_named_once_and_the_run_goes_on(
    task: str, own: Any, arguments: Arguments, said: list[str]
) -> None:
    data, images, validation = own(task)
    gone, cut, seen_later = images[3], images[6], validation[1]

    def ruin(trainer: Any) -> None:
        if trainer.epoch == 1:
            gone.unlink()
            cut.write_bytes(cut.read_bytes()[:40])
            seen_later.unlink()
            forget_images(trainer)

    workers = 2 if task in {"pose", "classify"} else 0
    trainer = train(task, arguments(task, data=str(data), epochs=3, batch=2, save=False, workers=workers), ruin)
    assert trainer.epoch == 2
    assert {(Path(lost["path"]).name, lost["split"]) for lost in summary(trainer)["unreadable"]} == {
        (gone.name, "train"), (cut.name, "train"), (seen_later.name, "val"),
    }  # fmt: skip
    assert sorted(Path(path).name for path in summary(trainer)["left_out"]) == sorted([gone.name, cut.name])
    for path, words in ((gone, "is gone"), (cut, "cannot be decoded"), (seen_later, "is gone")):
        assert (
            sum(str(path) in line and words in line for line in said if "left out from" in line or "of the val" in line)
            == 1
        )
    listed = (trainer.save_dir / "quarantine.txt").read_text().splitlines()
    assert {line for line in listed if not line.startswith("#")} == {str(gone), str(cut)}
    events = [event for event in read_events(trainer.save_dir / "guard.jsonl") if event["event"] == "unreadable"]
    assert len(events) == 3


def loses(path: Path) -> Callable[[Any], None]:
    def ruin(trainer: Any) -> None:
        if trainer.epoch == 1:
            path.unlink()
            forget_images(trainer)

    return ruin


@pytest.mark.parametrize("guard", [{"incidents": None}, {"quarantine": False}, {"max_unreadable": None}], ids=str)
def test_no_setting_lets_one_file_end_a_run(guard: dict[str, Any], own: Any, arguments: Arguments) -> None:
    data, images, _ = own("detect")
    trainer = train("detect", arguments(data=str(data), batch=2, save=False, guard=guard), loses(images[3]))
    assert trainer.epoch == 1
    assert [Path(lost["path"]).name for lost in summary(trainer)["unreadable"]] == [images[3].name]


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork:DeprecationWarning")
@pytest.mark.parametrize("lost", ["half", "all"])
def test_too_many_lost_files_halt_the_run_and_it_says_so(
    lost: str, workers: int, own: Any, arguments: Arguments
) -> None:
    data, images, _ = own("detect")

    def ruin(trainer: Any) -> None:
        if trainer.epoch == 1:
            for path in images if lost == "all" else images[::2]:
                path.unlink()
            forget_images(trainer)

    with pytest.raises(TrainingHaltedError) as caught:
        train("detect", arguments(data=str(data), epochs=4, batch=2, workers=workers, mosaic=0.0), ruin)
    message = str(caught.value)
    assert "of 16 images cannot be read any more" in message
    assert "is gone" in message
    assert "yolo-stable train" in message
    assert "model=" in message
    assert "resume=True" in message
    assert "Traceback" not in message


def test_a_validation_without_any_image_halts_in_words(own: Any, arguments: Arguments) -> None:
    data, _, validation = own("detect")

    def remove(trainer: Any) -> None:
        for path in validation if trainer.epoch == 1 else []:
            path.unlink()

    with pytest.raises(TrainingHaltedError, match=r"No image could be drawn any more\. val: 8 of 8 images"):
        train("detect", arguments(data=str(data)), remove)


def test_what_is_back_when_the_run_is_resumed_is_drawn_again(own: Any, arguments: Arguments) -> None:
    data, images, _ = own("detect")
    content = images[3].read_bytes()
    overrides = arguments(data=str(data), batch=2, mosaic=0.0, save_period=1)
    trainer = train("detect", {**overrides, "epochs": 3}, loses(images[3]))
    assert "# the next one is gone:" in (trainer.save_dir / "quarantine.txt").read_text()
    images[3].write_bytes(content)
    last = trainer.save_dir / "weights" / "epoch0.pt"
    again = TRAINERS["detect"](overrides={**overrides, "model": str(last), "resume": True, "epochs": 4})
    again._setup_train()
    assert not again.services.files.by_mode["train"].states
    again.services.ending.close_books("interrupted", "that was all")


class Data:
    """Stands for a data set; nothing is read of it."""

    def __init__(self, count: int) -> None:
        self.paths = [f"/data/{n}.jpg" for n in range(count)]

    def __len__(self) -> int:
        return len(self.paths)


@pytest.fixture
def files(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], LostFiles]:
    monkeypatch.setattr("yolo_stable.trainer.lost_files.parts_of", lambda data: [(data, 0)])
    monkeypatch.setattr("yolo_stable.trainer.lost_files.paths_of", lambda data: data.paths)
    return lambda count: LostFiles(PathStates(count), [Data(count)])


@pytest.mark.parametrize(
    ("images", "most"), [(1, 0), (2, 1), (4, 2), (6, 3), (8, 3), (12, 3), (30, 3), (40, 4), (100, 10), (1000, 100)]
)
def test_how_many_may_be_lost(images: int, most: int, files: Callable[[int], LostFiles]) -> None:
    lost = files(images)
    for n in range(most):
        lost.states.set(f"/data/{n}.jpg", Problem.GONE)
    lost.news()
    assert not lost.are_too_many(0.1)
    lost.states.set(f"/data/{most}.jpg", Problem.EMPTY)
    assert lost.news() == [(f"/data/{most}.jpg", Problem.EMPTY)]
    assert lost.are_too_many(0.1)
    assert not lost.are_too_many(None)


def test_what_another_rank_has_lost_is_news_here_and_goes_on_to_the_next(files: Callable[[int], LostFiles]) -> None:
    here, there = files(8), files(8)
    there.states.set("/data/2.jpg", Problem.EMPTY)
    there.states.set("/data/3.jpg", LEFT_OUT)
    there.news()
    assert list(there.lost_entries().values()) == [Problem.EMPTY], (
        "also what was told of, and what was left out is not lost"
    )
    here.learn(there.lost_entries())
    assert here.news() == [("/data/2.jpg", Problem.EMPTY)]
    here.learn(there.lost_entries())
    assert here.news() == []
    assert here.lost_entries() == there.lost_entries()


def test_a_file_that_left_the_lists_has_no_name(files: Callable[[int], LostFiles]) -> None:
    lost = files(8)
    lost.datasets[0].paths.remove("/data/2.jpg")
    lost.states.set("/data/2.jpg", Problem.GONE)
    assert lost.news() == [("an image that is not in the data set any more", Problem.GONE)]


def test_the_first_three_are_named_and_the_others_counted(files: Callable[[int], LostFiles]) -> None:
    lost = files(9)
    three = "/data/0.jpg is gone; /data/1.jpg is gone; /data/2.jpg is gone"
    told = []
    for n in range(5):
        lost.states.set(f"/data/{n}.jpg", Problem.GONE)
        lost.news()
        told.append(lost.in_words())
    assert told[2] == f"3 of 9 images cannot be read any more ({three})"
    assert told[4] == f"5 of 9 images cannot be read any more ({three}; and 2 more)"


def test_a_file_that_is_in_two_data_sets_counts_once(files: Callable[[int], LostFiles]) -> None:
    lost = files(8)
    lost.datasets.append(Data(10))
    assert lost.images == 10
    assert list(lost.parts()) == lost.datasets
    lost.datasets[1].paths.append("/data/../data/1.jpg")
    assert lost.images == 10, "by another spelling, too"


def test_a_lost_file_is_news_once_and_one_that_was_left_out_is_none(files: Callable[[int], LostFiles]) -> None:
    lost = files(8)
    lost.states.set("/data/1.jpg", LEFT_OUT)
    lost.states.set("/data/2.jpg", Problem.GONE)
    lost.states.set("/data/2.jpg", Problem.EMPTY)
    assert lost.news() == [("/data/2.jpg", Problem.GONE)]
    assert lost.news() == []
    lost.datasets[0].paths.append("/data/new.jpg")
    lost.states.set("/data/new.jpg", Problem.GONE)
    assert lost.news() == [("/data/new.jpg", Problem.GONE)], "it came into the data set later"
    assert lost.in_words() == "2 of 9 images cannot be read any more (/data/2.jpg is gone; /data/new.jpg is gone)"


def test_the_same_data_built_anew_go_on_without_it(files: Callable[[int], LostFiles]) -> None:
    lost = files(8)
    lost.states.set("/data/2.jpg", Problem.GONE)
    lost.news()
    lost.datasets[:] = [Data(8)]
    assert lost.news() == []
    assert (list(lost.lost), lost.images) == (["/data/2.jpg"], 8)


class Joined(TRAINERS["detect"]):  # type: ignore[misc, valid-type]
    """Trains with two data sets, one behind the other."""

    def build_dataset(self, img_path: str, mode: str = "train", batch: int | None = None) -> Any:
        if mode != "train":
            return super().build_dataset(img_path, mode, batch)
        both = [super(Joined, self).build_dataset(path, mode, batch) for path in (img_path, self.data["val"])]
        joined: Any = ConcatDataset(both)
        joined.labels, joined.collate_fn = [*both[0].labels, *both[1].labels], both[0].collate_fn
        joined.close_mosaic = lambda hyp: [one.close_mosaic(hyp) for one in both]
        return joined


def test_of_two_data_sets_that_are_joined_both_are_told_of(own: Any, arguments: Arguments) -> None:
    data, images, validation = own("detect")
    gone = [images[3], validation[1]]

    def ruin(trainer: Any) -> None:
        if trainer.epoch == 1:
            trainer._build_train_pipeline()  # as when memory ran out
            assert len(trainer.services.files.by_mode["train"].datasets) == 2
            for path in gone:
                path.unlink()

    trainer = Joined(overrides=arguments("detect", data=str(data), epochs=3, batch=2, mosaic=0.0, val=False))
    trainer.add_callback("on_train_epoch_end", ruin)
    trainer.train()
    lost = {Path(lost["path"]) for lost in summary(trainer)["unreadable"] if lost["split"] == "train"}
    assert lost == set(gone)
    quarantine = trainer.services.quarantine.quarantine
    assert quarantine is not None
    assert trainer.services.files.by_mode["train"].images == quarantine.images == len(images) + len(validation)
    listed = (trainer.save_dir / "quarantine.txt").read_text().splitlines()
    assert {line for line in listed if not line.startswith("#")} == {str(path) for path in gone}


def test_the_files_are_counted_once(files: Callable[[int], LostFiles], monkeypatch: pytest.MonkeyPatch) -> None:
    lost, counted = files(1000), []
    monkeypatch.setattr("yolo_stable.trainer.lost_files.paths_of", lambda data: counted.append(data) or data.paths)
    assert not lost.are_too_many(None)
    assert not counted, "nobody asks how many there are"
    for n in range(50):
        lost.states.set(f"/data/{n}.jpg", Problem.GONE)
        assert (len(lost.news()), lost.are_too_many(0.1), lost.images) == (1, False, 1000)
    assert len(counted) == 2, "once for their number, once for their names"
