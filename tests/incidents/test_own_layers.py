"""A network with a layer of one's own: its incidents are written, and replayed when the class is named."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from own_gate import gate
from ultralytics.nn import tasks

from yolo_stable import StableDetectionTrainer
from yolo_stable.autopsy.advice import commands
from yolo_stable.errors import InvalidCallError
from yolo_stable.incidents import own_layers
from yolo_stable.incidents.replay import run

Arguments = Callable[..., dict[str, Any]]


@pytest.fixture
def blocks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Return the user's module, whose class is known as it is in a training script."""
    (tmp_path / "blocks.py").write_text(gate(3))
    (module,) = own_layers.imported([str(tmp_path / "blocks.py")], "test")
    monkeypatch.setattr(tasks, "Gate", module.Gate, raising=False)
    yield module
    sys.modules.pop("blocks", None)


@pytest.fixture
def incident(blocks: Any, tmp_path: Path, narrow: Callable[[str], str], arguments: Arguments) -> Path:
    spec = yaml.safe_load(Path(narrow("detect")).read_text())
    spec["backbone"].append([-1, 1, "Gate", [1]])
    spec["head"] = [
        [[n + 1 if n > 6 else n for n in row[0]] if isinstance(row[0], list) else row[0], *row[1:]]
        for row in spec["head"]
    ]
    spec["head"][4][0] = [-1, 7]
    (tmp_path / "own.yaml").write_text(yaml.safe_dump(spec))
    trainer = StableDetectionTrainer(overrides=arguments(model=str(tmp_path / "own.yaml"), epochs=1))
    trainer.train()
    assert blocks.Gate.calls > 3
    return trainer.save_dir / "incidents" / "0001"


@pytest.mark.usefixtures("warm_programs")
def test_it_is_replayed_by_the_command_that_was_printed(
    incident: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    record = json.loads((incident / "incident.json").read_text())
    (command,) = commands(record["autopsy"]["next"])
    assert command == f"yolo-stable autopsy {incident} --import {tmp_path / 'blocks.py'}"
    done = subprocess.run(
        [sys.executable, "-m", *command.replace("yolo-stable", "yolo_stable").split()],
        capture_output=True, text=True, check=False, cwd=tmp_path, timeout=120,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    assert "cannot be replayed" not in done.stdout
    monkeypatch.delattr(tasks, "Gate")
    without = run(incident)
    assert "It cannot be replayed: this is the answer from the run." in without
    assert "the layers Gate. Give --import FILE.py" in without


@pytest.mark.parametrize("word", ["nowhere.py", "nowhere", "{tmp}/other.py"])
def test_what_does_not_bring_the_class_is_refused(
    word: str, incident: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "other.py").write_text("x = 1\n")
    monkeypatch.delattr(tasks, "Gate")
    with pytest.raises(InvalidCallError, match="--import"):
        run(incident, imports=[word.format(tmp=tmp_path)])


def test_a_class_of_the_running_script_cannot_be_imported_elsewhere(
    blocks: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert own_layers.files_of({"Gate": blocks.Gate}) == (blocks.__file__,)
    assert own_layers.files_of({"Other": blocks.Gate}) == (), "it is called otherwise there"
    monkeypatch.setattr(blocks.Gate, "__module__", "__main__")
    assert own_layers.files_of({"Gate": blocks.Gate}) == ()


def test_only_what_is_neither_ultralytics_nor_torch_is_ones_own(blocks: Any) -> None:
    yaml = {
        "backbone": [[-1, 1, "Conv", [8]], [-1, 1, "nn.Identity", []], [-1, 1, "Gate", []]],
        "head": [[-1, 1, "Nobody", []]],
    }
    assert own_layers.own_layers(yaml) == {"Gate": blocks.Gate}
    assert own_layers.own_layers(None) == {}


def test_what_was_known_before_is_known_again_afterwards(blocks: Any) -> None:
    with own_layers.known({"Conv": blocks.Gate, "Own": blocks.Gate}):
        assert tasks.Conv is vars(tasks)["Own"] is blocks.Gate
    assert tasks.Conv.__module__.startswith("ultralytics")
    assert not hasattr(tasks, "Own")


@pytest.mark.usefixtures("warm_programs")
def test_the_command_says_how_a_class_becomes_known(tmp_path: Path, narrow: Callable[[str], str], shapes: Any) -> None:
    spec = yaml.safe_load(Path(narrow("detect")).read_text())
    spec["backbone"].append([-1, 1, "Foreign", [1]])
    (tmp_path / "own.yaml").write_text(yaml.safe_dump(spec))
    words = ["train", shapes(), f"model={tmp_path}/own.yaml", "epochs=1", "device=cpu"]
    done = subprocess.run(
        [sys.executable, "-m", "yolo_stable", *words], capture_output=True, text=True, check=False, cwd=tmp_path
    )
    assert done.returncode == 2
    assert (
        "no layer 'Foreign'. If it is a layer of your own: --import FILE.py names the file that defines it."
        in done.stderr
    )
