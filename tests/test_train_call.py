"""The words of ``yolo-stable train`` and what is checked of them before anything is trained."""

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
from yolo_stable.train_call import OPTIMIZERS, TrainCall, check_arguments, check_data, one_line
from yolo_stable.train_run import run

COMPLETE = "train: images/train\nval: images/val\nnames: [cat, dog]\n"


def one_line_of(error: pytest.ExceptionInfo[InvalidCallError]) -> str:
    """Return the message, which is one line without colours and signs."""
    text = str(error.value)
    assert text.isprintable(), f"more than one plain line: {text!r}"
    assert "❌" not in text
    return text


# ---- words ---------------------------------------------------------------------------------------------------------------


def test_words_are_sorted_into_data_model_settings_and_guard() -> None:
    words = [
        "model=yolo11n.yaml",
        "lr0=1e-3",
        "epochs=50",
        "amp=False",
        "name=007",
        "guard.max_norm=none",
        "guard.x=true",
    ]
    call = TrainCall.parse("data.yaml", words, "stable")
    assert call == TrainCall(
        data="data.yaml",
        model="yolo11n.yaml",
        settings={"lr0": 0.001, "epochs": 50, "amp": False, "name": "007"},
        guard={"max_norm": None, "x": True},
        preset="stable",
    )


@pytest.mark.parametrize(
    ("data", "words", "settings"),
    [
        pytest.param("my/data.yaml", [], {}, id="bare"),
        pytest.param("data=my/data.yaml", [], {}, id="data="),
        pytest.param("data=my/data.yaml", ["epochs=3"], {"epochs": 3}, id="data= before others"),
        pytest.param("epochs=3", ["data=my/data.yaml"], {"epochs": 3}, id="data= behind others"),
    ],
)
def test_the_data_set_may_be_written_as_ultralytics_writes_it(
    data: str, words: list[str], settings: dict[str, Any]
) -> None:
    assert TrainCall.parse(data, words) == TrainCall(data="my/data.yaml", settings=settings)


def test_a_file_with_an_equals_sign_in_its_name_is_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("lr0=1.yaml").touch()
    assert TrainCall.parse("lr0=1.yaml", []).data == "lr0=1.yaml"


def test_of_a_key_that_is_given_twice_the_last_value_counts() -> None:
    assert TrainCall.parse("data.yaml", ["lr0=0.1", "lr0=0.2"]).settings == {"lr0": 0.2}


def test_the_task_is_detect_unless_another_is_asked_for() -> None:
    assert TrainCall.parse("data.yaml", []).task == "detect"
    assert TrainCall.parse("data.yaml", ["task=obb"]).task == "obb"


@pytest.mark.parametrize(
    ("words", "match"),
    [
        pytest.param(["epochs"], r"'epochs' is not understood\. Settings are written key=value", id="no equals sign"),
        pytest.param(["=50"], r"'=50' is not understood", id="no key"),
        pytest.param(["lr_0=0.1"], r"'lr_0' is not a setting of Ultralytics\. Did you mean 'lr0'\?", id="unknown key"),
        pytest.param(["zzzzz=1"], r"'zzzzz' is not a setting of Ultralytics\. `yolo cfg` lists", id="nothing near"),
        pytest.param(["epochs=many"], r"epochs is 'many' \(str\), but takes int", id="text for a number"),
        pytest.param(["epochs=1.5"], r"epochs is 1\.5 \(float\), but takes int", id="fraction for a whole number"),
        pytest.param(["amp=3"], r"amp is 3 \(int\), but takes bool", id="number for a flag"),
        pytest.param(["lr0=1e999"], r"lr0=inf is not finite", id="infinity"),
        pytest.param(["task=segmnt"], r"task=segmnt is not among .*: detect, segment, .* mean 'segment'\?", id="task"),
        pytest.param(["task=semantic"], r"task=semantic is not among the tasks that the guard knows", id="other task"),
        pytest.param(["data=b.yaml"], r"the data set is named twice: 'a\.yaml' and 'b\.yaml'", id="two data sets"),
    ],
)
def test_a_wrong_word_is_refused_with_what_would_be_right(words: list[str], match: str) -> None:
    with pytest.raises(InvalidCallError, match=match) as error:
        TrainCall.parse("a.yaml", words)
    assert one_line_of(error).startswith("train: ")


@pytest.mark.parametrize("data", ["epochs=3", "data=", ""])
def test_a_call_without_a_data_set_is_refused(data: str) -> None:
    with pytest.raises(InvalidCallError, match=r"train: the data set is missing\. Name one"):
        TrainCall.parse(data, [])


def test_an_unknown_preset_is_answered_with_the_list() -> None:
    with pytest.raises(
        InvalidCallError, match=r"no preset 'stabel'\. Did you mean 'stable'\?.* adamw, cautious,"
    ) as error:
        TrainCall.parse("data.yaml", [], "stabel")
    one_line_of(error)


@pytest.mark.parametrize(
    ("word", "match"),
    [
        pytest.param("guard.max_nrom=5", r"guard has no setting 'max_nrom'\. Did you mean 'max_norm'\?", id="unknown"),
        pytest.param("guard.zzz=5", r"guard has no setting 'zzz'\. Valid: max_norm, reject_norm,", id="nothing near"),
        pytest.param("guard.max_norm=-1", r"guard\.max_norm=-1 is not allowed\. It must be .* above 0", id="range"),
        pytest.param("guard.max_norm=five", r"guard\.max_norm='five' is not allowed", id="text"),
        pytest.param("guard.min_scale=none", r"guard\.min_scale=None is not allowed", id="none"),
        pytest.param("guard.max_total=0", r"guard\.max_total=0 is not allowed\. .* 1 or more", id="zero"),
        pytest.param("guard.batchnorm=1", r"guard\.batchnorm=1 is not allowed\. It must be True or False", id="flag"),
    ],
)
def test_a_wrong_guard_setting_is_refused_before_the_data_are_looked_for(word: str, match: str) -> None:
    call = TrainCall.parse("nowhere.yaml", [word])
    with pytest.raises(InvalidCallError, match=match) as error:
        run(call)
    one_line_of(error)


def test_an_error_of_others_becomes_one_plain_line() -> None:
    assert (
        one_line(ValueError("\x1b[34mtrain:\x1b[0m key missing ❌.\n  See  the docs"))
        == "train: key missing. See the docs"
    )
    assert one_line(KeyError()) == "KeyError"


# ---- ranges, optimizer, other files --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "match"),
    [
        pytest.param({"lr0": -1}, r"'lr0=-1' is an invalid value.*between 0\.0 and 1\.0", id="negative rate"),
        pytest.param({"mosaic": 3}, r"'mosaic=3' is an invalid value", id="probability above 1"),
        pytest.param({"epochs": 0}, r"'epochs=0' is an invalid value\. 'epochs' must be >= 1", id="no epochs"),
        pytest.param({"amp": "maybe"}, r"'amp=maybe' is invalid\. Valid 'amp' values are", id="precision"),
        pytest.param({"optimizer": "Adan"}, r"optimizer=Adan is not among SGD, .* mean 'Adam'\?", id="optimizer"),
        pytest.param({"optimizer": "sgdd"}, r"optimizer=sgdd is not among .* mean 'sgd'\?", id="optimizer, lower case"),
        pytest.param({"cfg": "gone.yaml"}, r"cfg=gone\.yaml cannot be used: 'gone\.yaml' does not exist", id="no cfg"),
    ],
)
def test_what_ultralytics_would_refuse_is_refused_in_one_line(settings: dict[str, Any], match: str) -> None:
    with pytest.raises(InvalidCallError, match=match) as error:
        check_arguments({"device": "cpu", **settings})
    assert one_line_of(error).startswith("train: ")


def test_the_settings_in_another_file_are_checked_as_well(tmp_path: Path) -> None:
    file = tmp_path / "more.yaml"
    file.write_text("optimizer: Lion\n")
    with pytest.raises(InvalidCallError, match=r"optimizer=Lion is not among"):
        check_arguments({"device": "cpu", "cfg": str(file)})
    file.write_text("optimizer: [\n")
    with pytest.raises(InvalidCallError, match=r"cfg=.*more\.yaml cannot be used: YAML syntax error") as error:
        check_arguments({"device": "cpu", "cfg": str(file)})
    one_line_of(error)


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
    assert not missing, f"add to train_call.OPTIMIZERS what Ultralytics builds by now: {sorted(missing)}"
    assert not gone, f"take out of train_call.OPTIMIZERS what Ultralytics does not build any more: {sorted(gone)}"


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


def test_a_data_set_that_does_not_exist_is_refused(folder: Path) -> None:
    with pytest.raises(
        InvalidCallError, match=r"there is no data set 'data\.yaml' \(seen from .*\)\. Give the path"
    ) as error:
        TrainCall.parse("data.yaml", []).resolve_data()
    assert str(folder) in one_line_of(error)
    with pytest.raises(InvalidCallError, match=r"there is no data set 'digit' .*\. Did you mean 'digits'\?"):
        TrainCall.parse("digit", []).resolve_data()


def test_a_path_and_an_address_are_taken_as_they_are(folder: Path) -> None:
    (folder / "data.yaml").write_text(COMPLETE)
    for data in ("data.yaml", "https://example.com/data.zip"):
        assert TrainCall.parse(data, []).resolve_data() == data


def test_a_built_in_data_set_is_made_for_the_task(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[tuple[str, str]] = []

    def make(name: str, *, task: str) -> Path:
        made.append((name, task))
        return Path("made.yaml")

    monkeypatch.setattr("yolo_stable.train_call.make", make)
    call = TrainCall.parse("shapes", ["task=pose"])
    assert (call.resolve_data(), call.resolve_data("obb")) == ("made.yaml", "made.yaml")
    assert made == [("shapes", "pose"), ("shapes", "obb")]


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
            r"no images for 'train' \(looked at: .*gone\)\. Put images there, or mend the 'train:' line\.",
            id="no train folder",
        ),
    ],
)
def test_a_description_that_is_broken_or_incomplete_is_refused(folder: Path, description: str, match: str) -> None:
    (folder / "data.yaml").write_text(description)
    with pytest.raises(InvalidCallError, match=match) as error:
        check_data("data.yaml", "detect")
    assert one_line_of(error).startswith("train: data set data.yaml: ")


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
