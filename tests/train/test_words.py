"""What an Ultralytics user types after ``yolo-stable train``."""

from __future__ import annotations

from pathlib import Path

import pytest

from yolo_stable.errors import InvalidCallError
from yolo_stable.train.call import TrainCall
from yolo_stable.train.words import canonical


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Work in a folder of its own."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("d.yaml", "data=d.yaml"),
        ("detect train data=d.yaml", "data=d.yaml task=detect"),
        ("train data=d.yaml model=yolo26n.pt", "data=d.yaml model=yolo26n.pt"),
        ("train d.yaml", "data=d.yaml"),
        ("segment d.yaml", "task=segment data=d.yaml"),
        ("d.yaml --epochs 3 --lr0=0.1", "epochs=3 lr0=0.1 data=d.yaml"),
        ("--epochs 3 d.yaml", "epochs=3 data=d.yaml"),
        ("d.yaml --guard.max_norm 5 --guard.report=False", "guard.max_norm=5 guard.report=False data=d.yaml"),
        ("d.yaml --cos_lr --cos-lr false --amp --imgsz 64", "cos_lr=True cos_lr=false amp=True imgsz=64 data=d.yaml"),
        ("d.yaml --single_cls epochs=3", "single_cls=True epochs=3 data=d.yaml"),
        ("d.yaml cos_lr exist_ok", "cos_lr=True exist_ok=True data=d.yaml"),
        ("d.yaml epochs = 3", "epochs=3 data=d.yaml"),
        ("yolo11n.pt d.yaml", "model=yolo11n.pt data=d.yaml"),
        ("d.yaml yolo11n-seg.yaml", "model=yolo11n-seg.yaml data=d.yaml"),
        ("coco8.yaml", "data=coco8.yaml"),
        ("coco8 --model yolo26s.yaml", "model=yolo26s.yaml data=coco8"),
        ("https://a.b/c.zip imgsz=64", "imgsz=64 data=https://a.b/c.zip"),
        ("resume model=r/weights/last.pt", "model=r/weights/last.pt resume=True"),
        ("resume=True r/weights/last.pt", "resume=True model=r/weights/last.pt"),
    ],
)
def test_what_is_typed_is_understood(typed: str, meant: str) -> None:
    assert canonical(typed.split()) == meant.split()
    assert canonical(meant.split()) == meant.split()


def test_a_description_of_ones_own_is_known_by_its_content(here: Path) -> None:
    (here / "a.yaml").write_text("nc: 3\nbackbone:\n  - [-1, 1, Conv, [8]]\nhead: []\n")
    (here / "b.yaml").write_text("train: x\nval: y\nnames: [backbone]\n")
    assert canonical(["a.yaml", "b.yaml"]) == ["model=a.yaml", "data=b.yaml"]


@pytest.mark.parametrize("name", ["train", "detect", "val", "cache"])
def test_a_folder_may_be_called_like_a_word_of_ultralytics(here: Path, name: str) -> None:
    (here / name).mkdir()
    assert canonical([name, "epochs=3"]) == ["epochs=3", f"data={name}"]
    assert "data=other.yaml" in canonical(["train", "other.yaml"])


@pytest.mark.parametrize(
    ("typed", "line"),
    [
        ("d.yaml --foo", "No such option: --foo. See 'yolo-stable train --help'."),
        ("d.yaml --epoch 3", "No such option: --epoch. Did you mean 'epochs'? See"),
        ("d.yaml --epochs", "train: option --epochs needs a value, such as --epochs VALUE or epochs=VALUE."),
        ("d.yaml --epochs --lr0 1", "train: option --epochs needs a value"),
        ("d.yaml --epochs lr0=1", "train: option --epochs needs a value"),
        ("d.yaml epochs", "train: 'epochs' is not understood. Write settings as key=value"),
        ("d.yaml foo", "train: 'foo' is not understood."),
        ("foo data=d.yaml", "train: 'foo' is not understood."),
        ("a.yaml b.yaml", "train: the data set is named twice: 'a.yaml' and 'b.yaml'."),
        ("a.yaml data=b.yaml", "train: the data set is named twice: 'a.yaml' and 'b.yaml'."),
        ("val data=d.yaml", "train: 'val' is another mode of Ultralytics. Type:\nyolo-stable yolo val data=d.yaml"),
    ],
)
def test_what_is_not_understood_is_refused(typed: str, line: str) -> None:
    with pytest.raises(InvalidCallError) as error:
        canonical(typed.split())
    assert str(error.value).startswith(line)


def test_a_model_alone_is_asked_for_data() -> None:
    with pytest.raises(InvalidCallError, match=r"the data set is missing \(yolo11n\.pt is the model\)\. Name one"):
        TrainCall.parse("yolo11n.pt", [])


def test_a_run_to_resume_has_its_own_data() -> None:
    call = TrainCall.parse("resume", ["model=r/weights/last.pt"])
    assert (call.data, call.model, call.settings) == (None, "r/weights/last.pt", {"resume": True})


def test_without_the_guard_it_has_no_settings() -> None:
    call = TrainCall.parse("d.yaml", ["guard=False", "preset=stable"])
    assert (call.stock, call.guard, call.preset) == (True, {}, "stable")
    assert not TrainCall.parse("d.yaml", ["guard=True", "guard.max_norm=5"]).stock
    with pytest.raises(InvalidCallError, match=r"guard=False trains without the guard, but guard\.max_norm is set"):
        TrainCall.parse("d.yaml", ["guard=False", "guard.max_norm=5"])
    with pytest.raises(InvalidCallError, match=r"guard=off is not allowed\. It must be True or False"):
        TrainCall.parse("d.yaml", ["guard=off"])


def test_the_folder_of_a_run_is_answered_with_its_checkpoint(here: Path) -> None:
    (here / "run" / "weights").mkdir(parents=True)
    for folder, end in (("run", "Give a checkpoint"), ("run", "Give its checkpoint: model=run/weights/last.pt.")):
        with pytest.raises(InvalidCallError, match=rf"model={folder} is a folder\. {end}"):
            TrainCall.parse("resume", [f"model={folder}"])
        (here / "run" / "weights" / "last.pt").touch()


def test_a_word_longer_than_the_name_of_a_file_may_be_is_a_word() -> None:
    classes = ",".join(map(str, range(100)))
    assert len(TrainCall.parse("d.yaml", [f"classes=[{classes}]"]).settings["classes"]) == 100
