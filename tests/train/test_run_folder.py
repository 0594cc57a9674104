from __future__ import annotations

import json
from pathlib import Path

import pytest

from yolo_stable.errors import InvalidCallError
from yolo_stable.train.run_folder import RunFolder, has_trained

NOTHING = {"args.yaml": "", "labels.jpg": "x"}


def make(folder: Path, files: dict[str, str]) -> None:
    """Make what a run makes before it trains, and these files."""
    (folder / "weights").mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (folder / name).write_text(text)


def counts(**values: int) -> str:
    return json.dumps({"counts": {"micro_batches": 0, "applied": 0, "rejected_micro_batches": 0, **values}})


@pytest.mark.parametrize(
    ("files", "trained"),
    [
        pytest.param({}, False, id="nothing"),
        pytest.param({"summary.json": counts(), "guard.jsonl": "x"}, False, id="no batch judged"),
        pytest.param({"results.csv": ""}, True, id="results"),
        pytest.param({"weights/last.pt": ""}, True, id="weights"),
        pytest.param({"summary.json": counts(rejected_micro_batches=3)}, True, id="halted at once"),
        pytest.param({"summary.json": counts(micro_batches=1)}, True, id="one batch judged"),
        pytest.param({"summary.json": "{"}, True, id="summary that cannot be read"),
        pytest.param({"guard.jsonl": "x"}, True, id="killed before its summary"),
    ],
)
def test_only_a_folder_without_any_training_is_removed(tmp_path: Path, files: dict[str, str], trained: bool) -> None:
    path = tmp_path / "runs" / "run"
    folder = RunFolder(path, "train")
    assert list(tmp_path.iterdir()) == []  # looking leaves no trace
    make(path, {**NOTHING, **files})
    assert has_trained(path) is trained
    folder.remove_unused(path)
    assert path.exists() is trained
    assert (tmp_path / "runs").exists() is trained


def test_what_was_there_before_stays(tmp_path: Path) -> None:
    path = tmp_path / "runs" / "run"
    path.mkdir(parents=True)
    folder = RunFolder(path, "train")
    make(path, NOTHING)
    folder.remove_unused(path)
    assert (path / "args.yaml").exists()


def test_the_folder_of_another_run_stays(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "runs" / "run", "train")
    make(tmp_path / "runs" / "run", NOTHING)
    make(tmp_path / "runs" / "run-2", NOTHING)
    folder.remove_unused(tmp_path / "runs" / "run-2")
    assert len(list((tmp_path / "runs").iterdir())) == 2
    folder.remove_unused(tmp_path / "runs" / "run")
    assert [path.name for path in (tmp_path / "runs").iterdir()] == ["run-2"]


@pytest.mark.parametrize("name", ["file", "file/runs/run"])
def test_a_folder_that_cannot_be_made_is_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(InvalidCallError) as caught:
        RunFolder(tmp_path / name, "train")
    assert str(caught.value) == (
        f"train: the run's folder {tmp_path / name} cannot be made or written: Not a directory."
        " Name another place with project=FOLDER."
    )
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
