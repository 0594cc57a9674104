from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import yaml

import yolo_stable.presets.presets
from yolo_stable._shared.resources import resource_dir
from yolo_stable.errors import InvalidCallError
from yolo_stable.presets.presets import OF_A_CALL, diff_presets, hyperparameters, load_hyp, load_preset, preset_names
from yolo_stable.presets.ultralytics_settings import default_hyp

NAMES = ("adamw", "cautious", "finetune", "guarded", "recovery", "stable")
PINNED: dict[str, dict[str, Any]] = {
    "stable": {
        "optimizer": "SGD",
        "lr0": 0.0005,
        "momentum": 0.9,
        "warmup_epochs": 5,
        "warmup_bias_lr": 0.05,
        "hsv_h": 0.01,
        "hsv_s": 0.5,
        "hsv_v": 0.3,
        "val": True,
        "amp": False,
    },
    "cautious": {
        "lr0": 0.00025,
        "momentum": 0.85,
        "weight_decay": 0.001,
        "warmup_epochs": 10,
        "warmup_bias_lr": 0.025,
        "hsv_h": 0.005,
        "hsv_s": 0.3,
        "hsv_v": 0.2,
    },
    "recovery": {"lr0": 0.0002, "warmup_epochs": 10, "batch": 4},
    "adamw": {"optimizer": "AdamW", "lr0": 3e-4},
    "finetune": {"optimizer": "SGD"},
    "guarded": {"optimizer": "SGD", "lr0": 0.01, "momentum": 0.937},
}


def test_the_presets_are_listed() -> None:
    assert preset_names() == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_a_preset_has_the_documented_values(name: str) -> None:
    values = load_preset(name).values
    assert {key: values.get(key) for key in PINNED[name]} == PINNED[name]


def test_guarded_is_ultralytics_with_the_optimizer_pinned() -> None:
    assert diff_presets("guarded", "default") == [("optimizer", "SGD", "auto")]


@pytest.mark.parametrize("name", NAMES)
def test_a_preset_names_its_optimizer(name: str) -> None:
    assert load_preset(name).values["optimizer"] in ("SGD", "AdamW")


def test_adamw_cannot_explode_in_its_bias_warm_up() -> None:
    values = load_preset("adamw").values
    assert values["warmup_bias_lr"] <= values["lr0"]


@pytest.mark.parametrize("name", NAMES)
def test_every_line_of_a_preset_has_a_reason_and_a_plain_key(name: str) -> None:
    preset = load_preset(name)
    defaults = default_hyp()
    for setting in preset.settings:
        assert setting.key in defaults
        assert setting.default == defaults[setting.key]
        assert len(setting.reason) > 20
    assert {setting.key for setting in preset.settings}.isdisjoint({"data", "model", "epochs", "imgsz", "cfg"})


@pytest.mark.parametrize("name", NAMES)
def test_a_preset_starts_with_what_it_is_for_and_when_not(name: str) -> None:
    preset = load_preset(name)
    assert preset.purpose.startswith("For ")
    assert any(note.startswith("Not ") for note in preset.notes)


@pytest.mark.parametrize("name", ["stable", "cautious", "recovery", "guarded"])
def test_the_price_of_a_conservative_rate_is_in_the_head(name: str) -> None:
    head = " ".join(load_preset(name).notes)
    assert "mAP50 0.74 by epoch 12" in head
    assert "starves" in head


def test_the_suggested_guard_limit_is_a_comment() -> None:
    preset = load_preset("cautious")
    assert any("Add guard.max_norm=5.0 to this preset" in note for note in preset.notes)


def test_overrides_replace_and_add() -> None:
    hyp = load_hyp("stable", lr0=0.002, epochs=50, name="run")
    assert (hyp["lr0"], hyp["epochs"], hyp["name"], hyp["momentum"]) == (0.002, 50, "run", 0.9)
    assert load_hyp("stable")["lr0"] == 0.0005


def test_a_file_of_ones_own_works(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text("optimizer: auto\nlr0: 1.0e-3\nbox: 5  # boxes are easy here\n")
    assert load_hyp(path) == load_hyp(str(path)) == {"optimizer": "auto", "lr0": 0.001, "box": 5}
    preset = load_preset(path)
    assert (preset.name, preset.purpose, preset.settings[2].reason) == ("mine", "", "boxes are easy here")


def test_a_folder_does_not_hide_a_preset(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "stable").mkdir()
    monkeypatch.chdir(tmp_path)
    assert load_hyp("stable")["lr0"] == 0.0005


ALL = "The presets are adamw, cautious, finetune, guarded, recovery, stable"


def test_an_unknown_preset_is_answered_with_all_of_them() -> None:
    with pytest.raises(InvalidCallError) as caught:
        load_hyp("Stabel")
    assert str(caught.value) == (
        f"There is no preset 'Stabel'. Did you mean 'stable'? {ALL}; "
        "name your own file by its path, such as my/hyp.yaml."
    )


def test_a_missing_file_is_named_with_the_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InvalidCallError) as caught:
        load_hyp("hyp/stable.yaml")
    path = Path("hyp/stable.yaml")
    assert str(caught.value) == (
        f"The settings file {path} does not exist (looked in {tmp_path / 'hyp'}). The preset is called 'stable'. {ALL}."
    )
    with pytest.raises(InvalidCallError, match="is not a file"):
        load_hyp(tmp_path)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("momentun: 0.9", "'momentun' is not a setting of Ultralytics. Did you mean 'momentum'?"),
        ("lr0: 1e-3", "lr0 is '1e-3' (str), but takes float"),
        ("lr0: .nan", "lr0=nan is not finite"),
        ("epochs: true", "epochs is True (bool), but takes int"),
        ("augment_more: 1", "'augment_more' is not a setting of Ultralytics."),
    ],
)
def test_a_wrong_line_is_refused_with_file_and_line(tmp_path: Path, line: str, message: str) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(f"# mine\nbox: 7.0\n{line}\n")
    with pytest.raises(InvalidCallError) as caught:
        load_preset(path)
    assert str(caught.value).startswith(f"{path}:3: {message}")


@pytest.mark.parametrize("key", OF_A_CALL)
def test_a_preset_of_a_run_holds_nothing_that_belongs_to_the_call(tmp_path: Path, key: str) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(f"box: 7.0\n{key}: {'true' if key == 'resume' else 'train'}\n")
    with pytest.raises(InvalidCallError) as caught:
        hyperparameters(path)
    assert str(caught.value) == (
        f"{path}: {key} cannot be in a preset, which holds hyperparameters only."
        f" Give it as key=value, or use the file as cfg={path}."
    )
    path.write_text("box: 7.0\n")
    assert hyperparameters(path) == {"box": 7.0}


@pytest.mark.parametrize("name", NAMES)
def test_the_presets_are_hyperparameters(name: str) -> None:
    assert hyperparameters(name) == load_hyp(name)


@pytest.mark.parametrize(("key", "value"), [("epoch", 5), ("epochs", "many"), ("lr0", float("inf"))])
def test_a_wrong_override_is_refused(key: str, value: object) -> None:
    with pytest.raises(InvalidCallError, match=rf"^load_hyp\('stable'\): .*{key}"):
        load_hyp("stable", **{key: value})


def test_a_comparison_shows_effective_values_in_ultralytics_order() -> None:
    assert diff_presets("stable", "recovery") == [
        ("batch", 16, 4),
        ("lr0", 0.0005, 0.0002),
        ("warmup_epochs", 5, 10),
        ("warmup_bias_lr", 0.05, 0.02),
    ]
    assert diff_presets("stable", "stable") == []
    assert diff_presets("ultralytics", "adamw")[0] == ("optimizer", "auto", "AdamW")


def test_a_comparison_takes_files_and_keys_without_a_default(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text("save_dir: runs/x\n")
    assert diff_presets("default", path) == [("save_dir", None, "runs/x")]


def test_presets_are_read_without_torch_and_ultralytics() -> None:
    code = (
        "import sys; from yolo_stable.presets.presets import *; load_hyp('stable'); diff_presets('stable', 'default');"
        "import yolo_stable.presets.lr_schedule; print([m for m in ('torch', 'ultralytics', 'numpy') if m in sys.modules])"
    )
    root = Path(yolo_stable.presets.presets.__file__).parents[2]
    done = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


# Each run is what `yolo train cfg=hyp/NAME.yaml ...` calls; one process for all six saves five slow imports.
RUNNER = """
import os
import sys
import ultralytics.cfg as cfg
for name in sys.argv[1:]:
    cfg.ARGV = ["yolo", "train", f"cfg=hyp/{name}.yaml", "data=data.yaml", "model=tiny.yaml", "epochs=1", "imgsz=64",
                "device=cpu", "workers=0", "plots=False", f"project={os.getcwd()}/runs", f"name={name}"]
    if name != "recovery":
        cfg.ARGV.append("batch=2")
    cfg.entrypoint()
"""
TINY_MODEL = """
nc: 1
backbone:
  - [-1, 1, Conv, [8, 3, 2]]
  - [-1, 1, Conv, [8, 3, 2]]
  - [-1, 1, Conv, [16, 3, 2]]
head:
  - [[2], 1, Detect, [nc]]
"""


def _write_data(folder: Path) -> None:
    """Draw eight grey images with one white box each, four for training and four for validation."""
    for index in range(8):
        split = "train" if index < 4 else "val"
        images, labels = folder / "images" / split, folder / "labels" / split
        images.mkdir(parents=True, exist_ok=True)
        labels.mkdir(parents=True, exist_ok=True)
        image = np.full((64, 64, 3), 60, np.uint8)
        cv2.rectangle(image, (16 + index, 16), (40 + index, 48), (255, 255, 255), -1)
        cv2.imwrite(str(images / f"{index}.png"), image)
        (labels / f"{index}.txt").write_text(f"0 {(28 + index) / 64} 0.5 {24 / 64} 0.5\n")
    data = {"path": str(folder), "train": "images/train", "val": "images/val", "names": {0: "box"}}
    (folder / "data.yaml").write_text(yaml.safe_dump(data))


def test_every_preset_trains_with_plain_yolo_train_cfg(tmp_path: Path) -> None:
    _write_data(tmp_path)
    (tmp_path / "tiny.yaml").write_text(TINY_MODEL)
    shutil.copytree(resource_dir("hyp"), tmp_path / "hyp")
    config = tmp_path / "config" / "Ultralytics"
    config.mkdir(parents=True)
    (config / "Arial.ttf").touch()  # present, though never drawn with: else Ultralytics downloads it
    environment = {
        **os.environ,
        "YOLO_CONFIG_DIR": str(config.parent),
        "YOLO_OFFLINE": "True",
        "YOLO_AUTOINSTALL": "False",
        "OMP_NUM_THREADS": "1",
    }
    done = subprocess.run(
        [sys.executable, "-c", RUNNER, *NAMES], cwd=tmp_path, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    for name in NAMES:
        folder = tmp_path / "runs" / name
        args = yaml.safe_load((folder / "args.yaml").read_text())
        expected = load_preset(name).values
        assert {key: args[key] for key in expected} == expected, json.dumps(args)
        assert (folder / "results.csv").is_file()
        others = {key: value for key, value in default_hyp().items() if key.startswith(("lr", "warmup", "hsv", "amp"))}
        assert {key: args[key] for key in others if key not in expected} == {
            key: value for key, value in others.items() if key not in expected
        }
