"""What a run names in the commands that it tells, and what it leaves out because it is not there."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn
from ultralytics.nn.tasks import WorldModel, YOLOEModel

from yolo_stable._shared.shell_text import AGAIN, CHECK, GO_ON
from yolo_stable.autopsy.advice import Names
from yolo_stable.trainer.next_steps import NextSteps


class Mine(nn.Linear):
    """A layer that is neither torch's nor Ultralytics'."""


class Bare:
    """The advice of a trainer that is a stub, in a folder of its own."""

    def __init__(self, folder: Path) -> None:
        self.weights = folder / "run" / "weights"
        self.weights.mkdir(parents=True)
        self.trainer: Any = SimpleNamespace(
            model="yolo11n.pt",
            args=SimpleNamespace(data="coco8.yaml", model="yolo11n.pt"),
            save_dir=folder / "run",
            last=self.weights / "last.pt",
            device=torch.device("cpu"),
            ddp=False,
            run_log=SimpleNamespace(checkpoint=None),
            plan=SimpleNamespace(preset="finetune"),
        )
        self.injections: Any = SimpleNamespace(over=())
        self.next_steps = NextSteps(self.trainer, self.injections)

    def save(self, *names: str, of_this_run: bool = True) -> None:
        for name in names:
            (self.weights / name).touch()
        self.trainer.run_log.checkpoint = self.trainer.last if of_this_run else None

    @property
    def names(self) -> Names:
        return self.next_steps.names()


@pytest.fixture
def bare(tmp_path: Path) -> Bare:
    return Bare(tmp_path)


class TestCheckpoints:
    def test_before_the_first_save_there_is_none(self, bare: Bare) -> None:
        assert bare.names == Names(data="coco8.yaml", model="yolo11n.pt", device="cpu", preset="finetune")

    def test_those_of_this_run_are_named(self, bare: Bare) -> None:
        bare.save("last.pt", "last_good.pt")
        assert bare.names.last == str(bare.weights / "last.pt")
        assert bare.names.run == str(bare.trainer.save_dir)

    def test_without_a_good_one_there_is_no_run_to_start_again_from(self, bare: Bare) -> None:
        bare.save("last.pt")
        assert bare.names.last == str(bare.weights / "last.pt")
        assert bare.names.run is None

    def test_those_that_another_run_left_in_the_folder_are_not(self, bare: Bare) -> None:
        bare.save("last.pt", "last_good.pt", of_this_run=False)
        assert (bare.names.last, bare.names.run) == (None, None)

    def test_of_a_multi_gpu_run_its_workers_know_and_files_that_are_there_count(self, bare: Bare) -> None:
        bare.save("last.pt", "last_good.pt", of_this_run=False)
        bare.trainer.ddp = True
        assert bare.names.last == str(bare.weights / "last.pt")
        assert bare.names.run == str(bare.trainer.save_dir)

    def test_they_can_be_typed_in_any_folder(self, bare: Bare, monkeypatch: pytest.MonkeyPatch) -> None:
        bare.save("last.pt", "last_good.pt")
        monkeypatch.chdir(bare.trainer.save_dir.parent)
        bare.trainer.save_dir, bare.trainer.last = Path("run"), Path("run/weights/last.pt")
        assert bare.names.last == str(bare.weights / "last.pt")
        assert bare.names.run == str(bare.weights.parent)


class TestData:
    def test_a_file_by_its_whole_path(self, bare: Bare, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        (tmp_path / "my.yaml").touch()
        monkeypatch.chdir(tmp_path)
        bare.trainer.args.data = "my.yaml"
        bare.trainer.data = {"train": str(tmp_path / "run" / "weights")}
        assert bare.names.data == str(tmp_path / "my.yaml")

    @pytest.mark.parametrize("kind", [str, Path])
    def test_a_shipped_one_by_where_its_images_are(self, bare: Bare, tmp_path: Path, kind: type) -> None:
        (tmp_path / "images" / "train").mkdir(parents=True)
        bare.trainer.data = {"train": kind(tmp_path / "images" / "train")}
        assert bare.names.data == str(tmp_path / "images")

    @pytest.mark.parametrize(
        "held",
        [{"train": ["/data/a", "/data/b"]}, {"train": "/nowhere/at/all"}, {}, None],
        ids=["several folders", "gone", "none", "not loaded"],
    )
    def test_else_as_it_was_given(self, bare: Bare, held: Any) -> None:
        bare.trainer.data = held
        assert bare.names.data == "coco8.yaml"


class TestModel:
    def test_a_file_by_its_whole_path(self, bare: Bare, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        (tmp_path / "mine.yaml").touch()
        monkeypatch.chdir(tmp_path)
        bare.trainer.args.model = "mine.yaml"
        assert bare.names.model == str(tmp_path / "mine.yaml")

    @pytest.mark.parametrize("name", ["yolo11n.pt", "yolov8s-seg.yaml", "rtdetr-l.yaml"])
    def test_one_of_ultralytics_own_by_its_name(self, bare: Bare, name: str) -> None:
        bare.trainer.args.model = name
        assert bare.names.model == name

    @pytest.mark.parametrize("given", ["mine.yaml", nn.Linear(1, 1), None], ids=["gone", "a network", "nothing"])
    def test_what_cannot_be_typed_is_not_named(self, bare: Bare, given: Any) -> None:
        bare.trainer.args.model = given
        assert bare.names.model is None

    def test_layers_of_ones_own_are_named_with_their_files(self, bare: Bare) -> None:
        bare.trainer.model = nn.DataParallel(nn.Sequential(nn.Linear(1, 1), Mine(1, 1)))
        assert bare.names.own == ("Mine",)
        assert [Path(file).name for file in bare.names.own_files] == ["test_next_steps.py"]

    def test_before_the_network_is_built_none_is_known(self, bare: Bare) -> None:
        bare.trainer.model = "mine.pt"
        assert (bare.names.own, bare.names.own_files) == ((), ())


class TestText:
    def test_commands_are_filled(self, bare: Bare) -> None:
        bare.save("last.pt")
        told = bare.next_steps.filled(f"Saved.\nGo on with:\n{GO_ON}\nLook at the data:\n{CHECK}")
        assert told == (
            f"Saved.\nGo on with:\nyolo-stable train coco8.yaml model={bare.trainer.last} resume=True\n"
            "Look at the data:\nyolo-stable check coco8.yaml"
        )

    def test_those_that_would_do_nothing_are_left_out_with_what_leads_to_them(self, bare: Bare) -> None:
        assert bare.next_steps.filled(f"Nothing was saved.\nGo on with:\n{GO_ON}") == "Nothing was saved."

    def test_the_device_of_the_run_is_the_one_to_be_asked(self, bare: Bare) -> None:
        bare.trainer.device = torch.device("cuda:1")
        assert bare.next_steps.filled("yolo-stable validate") == "yolo-stable validate --device cuda:1"

    def test_what_was_put_in_on_purpose_is_told_with_what_went_wrong(self, bare: Bare) -> None:
        bare.injections.over = ("pixel nan", "loss inf")
        told = bare.next_steps.told(f"Again:\n{AGAIN}")
        before, *rest = told.splitlines()
        assert before == (
            "Faults were put into this run on purpose before (pixel nan, loss inf): this may come of them."
        )
        assert rest == ["Again:", "yolo-stable train coco8.yaml model=yolo11n.pt"]
        assert bare.next_steps.filled(f"Again:\n{AGAIN}").splitlines() == rest, "how to go on is no news of faults"

    def test_without_any_both_say_the_same(self, bare: Bare) -> None:
        assert bare.next_steps.told(f"Again:\n{AGAIN}") == bare.next_steps.filled(f"Again:\n{AGAIN}")


@pytest.mark.parametrize("kind", [WorldModel, YOLOEModel])
def test_a_network_that_train_does_not_open_is_trained_by_the_command_that_does(bare: Bare, kind: Any) -> None:
    bare.save("last.pt")
    text = f"Go on with:\n{GO_ON}\nCheck the data:\n{CHECK}"
    usual = bare.next_steps.filled(text)
    assert usual.startswith("Go on with:\nyolo-stable train coco8.yaml model=")
    bare.trainer.model = kind.__new__(kind)
    nn.Module.__init__(bare.trainer.model)
    told = bare.next_steps.filled(text)
    assert told == usual.replace("yolo-stable train coco8.yaml", "yolo-stable yolo train data=coco8.yaml")
    assert "yolo-stable check coco8.yaml" in told
    assert "yolo train data=coco8.yaml" in bare.next_steps.told(f"Again:\n{GO_ON}")
