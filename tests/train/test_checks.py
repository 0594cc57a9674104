"""What is checked of a call with the help of Ultralytics: ranges, optimizer, device, data set."""

from __future__ import annotations

import ast
import inspect
import os
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from ultralytics.engine.trainer import BaseTrainer
from ultralytics.utils import torch_utils

from yolo_stable.errors import InvalidCallError
from yolo_stable.train.checks import OPTIMIZERS, check_arguments, check_data, planned_folder

COMPLETE = "train: images/train\nval: images/val\nnames: [cat, dog]\n"


def one_line_of(error: pytest.ExceptionInfo[InvalidCallError]) -> str:
    """Return the message, which is one line without colours and signs."""
    text = str(error.value)
    assert text.isprintable(), f"more than one plain line: {text!r}"
    assert "❌" not in text
    return text


# ---- ranges, optimizer, other files --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "match"),
    [
        pytest.param({"lr0": -1}, r"'lr0=-1' is an invalid value.*between 0\.0 and 1\.0", id="negative rate"),
        pytest.param({"mosaic": 3}, r"'mosaic=3' is an invalid value", id="probability above 1"),
        pytest.param({"epochs": 0}, r"'epochs=0' is an invalid value\. 'epochs' must be >= 1", id="no epochs"),
        pytest.param({"amp": "maybe"}, r"'amp=maybe' is invalid\. Valid 'amp' values are", id="precision"),
        pytest.param({"optimizer": "Adan"}, r"optimizer=Adan is not among SGD, .* mean 'Adam'\?", id="optimizer"),
        pytest.param({"optimizer": "sgdd"}, r"optimizer=sgdd is not among .* mean 'SGD'\?", id="optimizer, lower case"),
        pytest.param({"mode": "val"}, r"mode=val is not allowed\. It must be train\.", id="mode"),
        pytest.param(
            {"copy_paste_mode": "flop"}, r"copy_paste_mode=flop .* flip or mixup\. Did you mean 'flip'", id="paste"
        ),
        pytest.param({"auto_augment": "randaug"}, r"auto_augment=randaug .* mean 'randaugment'\?", id="auto_augment"),
        pytest.param({"cache": "dsk"}, r"cache=dsk .* True or False or ram or disk\. Did you mean 'disk'", id="cache"),
        pytest.param({"cache": ""}, r"cache= is not allowed", id="empty cache"),
        pytest.param({"seed": 2**32}, r"seed=4294967296 .* between 0 and 4294967295\.", id="seed"),
        pytest.param({"seed": -1}, r"'seed=-1' is an invalid value", id="negative seed"),
        pytest.param({"imgsz": 31}, r"imgsz=31 .* whole number of 32 or more\.", id="small images"),
        pytest.param({"imgsz": -640}, r"imgsz=-640 is not allowed", id="negative size"),
        pytest.param({"imgsz": [640, 0]}, r"imgsz=\[640, 0\] is not allowed", id="one size of two"),
        pytest.param({"batch": 0}, r"batch=0 .* 1 or more, -1 for what fits", id="no batch"),
        pytest.param({"batch": -2}, r"batch=-2 is not allowed", id="negative batch"),
        pytest.param({"batch": 2.5}, r"batch=2\.5 is not allowed", id="half an image"),
    ],
)
def test_what_ultralytics_would_refuse_is_refused_in_one_line(settings: dict[str, Any], match: str) -> None:
    with pytest.raises(InvalidCallError, match=match) as error:
        check_arguments({"device": "cpu", **settings})
    assert one_line_of(error).startswith("train: ")


@pytest.mark.parametrize(
    "settings",
    [
        *({"cache": value} for value in (True, False, "ram", "disk", "RAM")),
        *({"auto_augment": value} for value in (None, "", "augmix", "autoaugment", "randaugment")),
        *({"batch": value} for value in (1, -1, 0.7, 16.0)),
        *({"seed": value} for value in (0, 2**32 - 1)),
        *({"imgsz": value} for value in (32, [640, 320])),
        {"copy_paste_mode": "mixup"},
        {"mode": "train"},
    ],
    ids=str,
)
def test_what_ultralytics_can_use_is_accepted(settings: dict[str, Any]) -> None:
    check_arguments({"device": "cpu", **settings})


def test_a_new_run_gets_a_folder_that_is_not_there(tmp_path: Path) -> None:
    settings = {"project": str(tmp_path), "name": "run"}
    assert planned_folder(settings) == tmp_path / "run"
    (tmp_path / "run").mkdir()
    assert planned_folder(settings) == tmp_path / "run-2"
    assert planned_folder({**settings, "exist_ok": True}) == tmp_path / "run"
    assert os.listdir(tmp_path) == ["run"]
    with pytest.raises(InvalidCallError, match=r"the folder of the run cannot be made: .*[Nn]ame too long"):
        planned_folder({**settings, "name": "x" * 5000})


@pytest.mark.parametrize("optimizer", [*OPTIMIZERS, "adamw", "AUTO"])
def test_every_optimizer_is_known_in_any_case_of_letters(optimizer: str) -> None:
    check_arguments({"optimizer": optimizer, "device": "cpu"})


def test_the_optimizers_are_those_that_the_installed_ultralytics_builds() -> None:
    tree = ast.parse(textwrap.dedent(inspect.getsource(BaseTrainer.build_optimizer)))
    found = [
        ast.literal_eval(node.value)
        for node in ast.walk(tree)
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "optimizers"
    ]
    assert len(found) == 1, (
        "BaseTrainer.build_optimizer has no `optimizers = {...}` any more: look where its names went"
    )
    missing, gone = found[0] - set(OPTIMIZERS), set(OPTIMIZERS) - found[0]
    assert not missing, f"add to train_checks.OPTIMIZERS what Ultralytics builds by now: {sorted(missing)}"
    assert not gone, f"take out of train_checks.OPTIMIZERS what Ultralytics does not build any more: {sorted(gone)}"


# ---- devices -------------------------------------------------------------------------------------------------------------


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[int]]:
    """Pretend a machine with so many CUDA devices, and with a Mac's GPU or not; the list fills with what is selected."""

    def pretend(cuda: int = 0, mps: bool = False) -> list[int]:
        selected: list[int] = []
        monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
        monkeypatch.setattr(torch.cuda, "device_count", lambda: cuda)
        monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda > 0)
        monkeypatch.setattr(torch.cuda, "current_device", lambda: 0)
        monkeypatch.setattr(torch.cuda, "set_device", selected.append)
        monkeypatch.setattr(torch.backends.mps, "is_available", lambda: mps)
        monkeypatch.setattr(torch_utils, "get_gpu_info", lambda index: f"pretended GPU {index}")
        return selected

    return pretend


@pytest.mark.parametrize(
    "device", [0, "0", "cuda", "cuda:0", "0,1", [0, 1], "cpu,0", "mps", "mps:1", -1, "xpu", "tpu", "gpu"]
)
def test_a_device_that_is_not_there_is_refused(machine: Callable[..., list[int]], device: Any) -> None:
    machine(cuda=0)
    with pytest.raises(InvalidCallError) as error:
        check_arguments({"device": device})
    message = f"train: device={device} is not there: torch {torch.__version__} sees 0 CUDA or ROCm device(s)."
    assert one_line_of(error) == f"{message} Give another one, or device=cpu."


@pytest.mark.parametrize("device", [1, "cuda:1", "0,1", [0, 1], "mps"])
def test_the_second_of_one_gpu_is_not_there(machine: Callable[..., list[int]], device: Any) -> None:
    selected = machine(cuda=1)
    with pytest.raises(InvalidCallError, match=r"is not there: torch .* sees 1 CUDA or ROCm device\(s\)\."):
        check_arguments({"device": device})
    assert selected == []


def test_the_gpu_of_a_mac_is_named_among_those_that_are_there(machine: Callable[..., list[int]]) -> None:
    machine(mps=True)
    with pytest.raises(InvalidCallError, match=r"sees 0 CUDA or ROCm device\(s\) and mps\."):
        check_arguments({"device": 0})


@pytest.mark.parametrize(
    ("there", "device", "selected"),
    [
        pytest.param({}, None, [], id="nothing asked for"),
        pytest.param({}, "", [], id="empty"),
        pytest.param({}, "cpu", [], id="cpu"),
        pytest.param({"cuda": 2}, None, [], id="nothing asked for, with GPUs"),
        pytest.param({"cuda": 2}, 1, [1], id="second of two"),
        pytest.param({"cuda": 2}, "cuda:0", [0], id="first of two"),
        pytest.param({"cuda": 2}, [0, 1], [], id="both"),
        pytest.param({"mps": True}, "mps", [], id="mps"),
    ],
)
def test_a_device_that_is_there_is_accepted(
    machine: Callable[..., list[int]], there: dict[str, Any], device: Any, selected: list[int]
) -> None:
    chosen = machine(**there)
    check_arguments({"device": device})
    assert chosen == selected


# ---- data sets -----------------------------------------------------------------------------------------------------------


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the working folder, with ``images/train`` and ``images/val`` of one image each, and no description."""
    monkeypatch.chdir(tmp_path)
    for split in ("train", "val"):
        put_image(tmp_path / "images" / split / "1.png")
    return tmp_path


def put_image(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(path), np.zeros((32, 32, 3), np.uint8))


@pytest.mark.parametrize(
    ("description", "match"),
    [
        pytest.param("train: [a\nval: b\n", r"YAML syntax error in .*line 1", id="bad syntax"),
        pytest.param("train: a\n\tval: b\n", r"YAML syntax error in .*line 2", id="tab"),
        pytest.param("- train\n- val\n", r"is not a valid YAML mapping", id="a list"),
        pytest.param("", r"'train:' key missing\. 'train' and 'val' are required", id="empty"),
        pytest.param("val: images/val\nnames: [cat]\n", r"'train:' key missing\.", id="no train"),
        pytest.param("train: images/train\nnames: [cat]\n", r"'val:' key missing\.", id="no val"),
        pytest.param("train: images/train\nval:\nnames: [cat]\n", r"'val:' images not found", id="val without a value"),
        pytest.param("train: images/train\nval: images/val\n", r"either 'names' or 'nc' are required", id="no names"),
        pytest.param(f"{COMPLETE}nc: 3\n", r"'names' length 2 and 'nc: 3' must match", id="names and nc"),
        pytest.param("train: 5\nval: images/val\nnames: [cat]\n", r"'train' must be str or", id="train is a number"),
        pytest.param(
            "train: images/train\nval: gone\nnames: [cat]\n",
            r"images not found, missing path '.*gone'",
            id="no val folder",
        ),
        pytest.param(
            "train: gone\nval: images/val\nnames: [cat]\n",
            r"no images for 'train' \(looked at: .*gone\)\. Put images there, or correct the 'train:' line\.",
            id="no train folder",
        ),
    ],
)
def test_a_description_that_is_broken_or_incomplete_is_refused(folder: Path, description: str, match: str) -> None:
    (folder / "data.yaml").write_text(description)
    with pytest.raises(InvalidCallError, match=match) as error:
        check_data("data.yaml", "detect")
    assert one_line_of(error).startswith("train: data set data.yaml: ")


@pytest.mark.parametrize(
    ("line", "match"),
    [
        pytest.param("", r"'kpt_shape' is missing, and a pose model needs it\.", id="missing"),
        pytest.param("kpt_shape: [17]\n", r"'kpt_shape' is \[17\]", id="one number"),
        pytest.param("kpt_shape: [17, 4]\n", r"'kpt_shape' is \[17, 4\]", id="four dimensions"),
    ],
)
def test_a_pose_data_set_says_how_many_keypoints_there_are(folder: Path, line: str, match: str) -> None:
    (folder / "data.yaml").write_text(COMPLETE + line)
    check_data("data.yaml", "detect")
    with pytest.raises(InvalidCallError, match=match) as error:
        check_data("data.yaml", "pose")
    one_line_of(error)
    (folder / "data.yaml").write_text(f"{COMPLETE}kpt_shape: [17, 3]\n")
    check_data("data.yaml", "pose")


@pytest.mark.parametrize("split", ["train", "val"])
@pytest.mark.parametrize(
    "content",
    [
        pytest.param({}, id="empty folder"),
        pytest.param({"notes.md": "no images here"}, id="other files"),
        pytest.param({".hidden/1.png": "x"}, id="hidden folder, where Ultralytics does not look"),
    ],
)
def test_a_split_without_images_is_refused(folder: Path, split: str, content: dict[str, str]) -> None:
    (folder / "data.yaml").write_text(COMPLETE)
    (folder / "images" / split / "1.png").unlink()
    for name, text in content.items():
        (folder / "images" / split / name).parent.mkdir(exist_ok=True)
        (folder / "images" / split / name).write_text(text)
    with pytest.raises(InvalidCallError, match=rf"no images for '{split}' \(looked at: .*{split}\)") as error:
        check_data("data.yaml", "detect")
    one_line_of(error)


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("", id="empty"),
        pytest.param("\n \n", id="blank lines"),
        pytest.param("./images/train/gone.png\n", id="files that are not there"),
        pytest.param("./data.yaml\n", id="files that are not images"),
        pytest.param("./images/train\n", id="a folder"),
    ],
)
def test_a_list_without_images_is_refused(folder: Path, text: str) -> None:
    (folder / "data.yaml").write_text("train: list.txt\nval: images/val\nnames: [cat]\n")
    (folder / "list.txt").write_text(text)
    with pytest.raises(InvalidCallError, match=r"no images for 'train' \(looked at: .*list\.txt\)"):
        check_data("data.yaml", "detect")


@pytest.mark.parametrize(
    ("train", "files"),
    [
        pytest.param("images/train", {}, id="folder"),
        pytest.param("[images/empty, images/train]", {"images/empty/notes.md": ""}, id="several folders"),
        pytest.param("images", {}, id="folder with folders"),
        pytest.param("images/train/", {}, id="slash at the end"),
        pytest.param("lists/1.txt", {"lists/1.txt": "./../images/train/1.png\n"}, id="list, relative to itself"),
        pytest.param("lists/1.txt", {"lists/1.txt": "images/train/1.png\n"}, id="list, relative to here"),
        pytest.param("list.txt", {"list.txt": "\ufeffimages/train/1.png"}, id="list with a byte-order mark"),
        pytest.param("list.txt", {"list.txt": "gone.jpg\nimages/train/1.png\n"}, id="list with a file that is gone"),
        pytest.param("images [1]", {"images [1]/UPPER.JPG": "x"}, id="brackets in the name, upper case"),
    ],
)
def test_images_are_found_where_ultralytics_finds_them(folder: Path, train: str, files: dict[str, str]) -> None:
    for name, text in files.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(text, encoding="utf-8")
    (folder / "data.yaml").write_text(f"train: {train}\nval: images/val\nnames: [cat, dog]\n")
    check_data("data.yaml", "detect")
    check_data(".", "segment")  # the folder that holds the description


def test_images_behind_a_link_are_found(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    put_image(elsewhere / "1.png")
    (folder / "linked").mkdir()
    os.symlink(elsewhere, folder / "linked" / "there", target_is_directory=True)
    (folder / "data.yaml").write_text("train: linked\nval: images/val\nnames: [cat]\n")
    check_data("data.yaml", "detect")


def test_a_run_that_validates_on_another_split_needs_images_there(folder: Path) -> None:
    (folder / "data.yaml").write_text(f"{COMPLETE}test: images/test\n")
    (folder / "images" / "test").mkdir()
    check_data("data.yaml", "detect")
    with pytest.raises(InvalidCallError, match=r"no images for 'test'"):
        check_data("data.yaml", "detect", split="test")
    put_image(folder / "images" / "test" / "1.png")
    check_data("data.yaml", "detect", split="test")


def test_a_list_of_addresses_is_left_to_ultralytics() -> None:
    check_data("ul://someone/datasets/something", "detect")
    check_data("somewhere/data.ndjson", "classify")


def test_the_folders_of_a_classifier_are_accepted(folder: Path) -> None:
    for split in ("train", "val"):
        for name in ("cat", "dog"):
            put_image(folder / "pets" / split / name / "1.png")
    check_data("pets", "classify")
    (folder / "pets" / "val").rename(folder / "pets" / "test")  # what Ultralytics validates on when there is no val
    check_data("pets", "classify")


@pytest.mark.parametrize(
    ("files", "match"),
    [
        pytest.param(["train/cat/notes.md", "val/cat/1.png"], r"'train:' no training images found", id="none in train"),
        pytest.param(
            ["train/cat/1.png", "val/cat/notes.md"], r"no images for 'val' .*Put images there\.$", id="none in val"
        ),
        pytest.param(["train/cat/1.png"], r"no images for 'val' \(looked at: no folder is given\)", id="no val"),
        pytest.param(["cat/notes.md"], r"No images found in", id="nothing at all"),
    ],
)
def test_folders_of_a_classifier_without_images_are_refused(folder: Path, files: list[str], match: str) -> None:
    for name in files:
        put_image((folder / "pets" / name).with_suffix(".png"))
        (folder / "pets" / name).with_suffix(".png").rename(folder / "pets" / name)
    with pytest.raises(InvalidCallError, match=match) as error:
        check_data("pets", "classify")
    assert one_line_of(error).startswith("train: data set pets: ")


def test_a_classifier_cannot_be_given_a_description(folder: Path) -> None:
    (folder / "data.yaml").write_text(COMPLETE)
    with pytest.raises(InvalidCallError, match=r"Classification datasets must be a directory"):
        check_data("data.yaml", "classify")
