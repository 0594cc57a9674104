"""Worker of an autopsy: it answers, or it is one line, within its time and memory, whatever is in the bundle."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from yolo_stable.autopsy.bundle import read_bundle, write_bundle
from yolo_stable.chaos import NAN, Fault
from yolo_stable.errors import InvalidCallError
from yolo_stable.incidents import replay as autopsy_run
from yolo_stable.incidents import worker as autopsy_worker
from yolo_stable.incidents.replay import run
from yolo_stable.incidents.worker import run_apart
from yolo_stable.trainer.trainers import TRAINERS

Change = Callable[[dict[str, Any]], object]


@pytest.fixture(scope="module")
def incident(tmp_path_factory: pytest.TempPathFactory, narrow: Any, shapes: Any) -> Path:
    """Return a bundle of a NaN pixel."""
    settings = {"epochs": 1, "imgsz": 64, "batch": 4, "nbs": 4, "optimizer": "SGD", "amp": False, "device": "cpu"}
    quiet = {"plots": False, "verbose": False, "val": False, "project": str(tmp_path_factory.mktemp("run"))}
    overrides = {"model": narrow("detect"), "data": shapes("detect"), **settings, **quiet}
    trainer = Fault("pixel", NAN, at=(1,)).on(TRAINERS["detect"])(overrides=overrides)
    trainer.train()
    assert trainer.chaos.fired == 1
    return trainer.save_dir / "incidents" / "0001"


@pytest.fixture
def bundle(incident: Path, tmp_path: Path) -> Path:
    folder = Path(shutil.copytree(incident, tmp_path / "incidents" / "0001"))
    changed(folder, lambda incident: incident.update(injected={}))
    return folder


def changed(bundle: Path, change: Change) -> None:
    file = bundle / "incident.json"
    content = json.loads(file.read_text())
    change(content)
    file.write_text(json.dumps(content))


def pooled(incident: dict[str, Any]) -> None:
    """Let the SPPF pool a million times."""
    model = incident["bundle"]["plain"]["model"]
    name = next(name for name, kind in model["types"].items() if kind.endswith(".SPPF"))
    model["attributes"].setdefault(name, {})["n"] = 1_000_000


def digits(key: str) -> Change:
    def change(incident: dict[str, Any]) -> None:
        incident["bundle"]["plain"]["model"]["yaml"][key] = 10**400

    return change


def size(incident: dict[str, Any]) -> None:
    incident["bundle"]["plain"]["model"]["yaml"]["backbone"][0][3] = [10**400, 3, 2]


def test_a_sound_bundle_is_answered_as_in_this_process(bundle: Path) -> None:
    assert run_apart(bundle, seconds=120.0) == run(bundle)


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(pooled, id="a million repeats"),
        pytest.param(digits("nc"), id="400 digits of classes"),
        pytest.param(digits("depth_multiple"), id="400 digits of depth"),
        pytest.param(size, id="400 digits of channels"),
    ],
)
def test_what_would_never_end_is_one_line_within_its_time(change: Change, bundle: Path) -> None:
    changed(bundle, change)
    began = time.monotonic()
    with pytest.raises(InvalidCallError) as refused:
        run(bundle, seconds=15.0)
    assert time.monotonic() - began < 30
    assert len(str(refused.value).splitlines()) == 1


@pytest.mark.parametrize(
    ("code", "says"),
    [
        pytest.param("while True: pass", "had not ended after", id="hangs"),
        pytest.param("bytearray(1 << 50)", "MemoryError", id="takes all memory"),
        pytest.param("import os; os.abort()", "without an answer (signal 6)", id="dies"),
    ],
)
def test_whatever_the_code_in_it_does_is_one_line(
    code: str, says: str, bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, warm_workers: Any
) -> None:
    monkeypatch.setattr(autopsy_worker, "multiprocessing", warm_workers)
    (tmp_path / "mine.py").write_text(code + "\n")
    with pytest.raises(InvalidCallError) as refused:
        run_apart(bundle, seconds=1.0, imports=[str(tmp_path / "mine.py")])
    assert says in str(refused.value)
    assert len(str(refused.value).splitlines()) == 1


def test_the_advice_of_a_stranger_is_not_printed(bundle: Path) -> None:
    def forge(incident: dict[str, Any]) -> None:
        found = incident["autopsy"]
        found["next"] = "Run this:\nyolo-stable train evil.yaml"
        found["evidence"]["what"] = "broke\n  next       yolo-stable train evil.yaml"
        found["module"] = "a\nyolo-stable train evil.yaml"
        incident["injected"] = {"fired": ["x\nyolo-stable train evil.yaml"]}
        incident["bundle"]["batch"]["values"] = {}

    changed(bundle, forge)
    text = run(bundle)
    assert not [line for line in text.splitlines() if line.strip().startswith("yolo-stable train evil")]
    assert not [line for line in text.splitlines() if line.split()[:1] == ["next"] and "evil" in line]
    assert "Run this" not in text


def test_a_worker_that_is_never_ready_is_given_up(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(autopsy_worker, "BEGIN", 0.01)
    with pytest.raises(InvalidCallError, match="had not ended after"):
        run_apart(bundle, seconds=60.0)


def test_labels_whose_loss_would_fill_the_machine_are_one_line(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of 4 images of 64 x 64 pixels, 4 x 84 places take 40 bytes for each label."""
    found = read_bundle(bundle)
    rows = 50_000
    batch = {
        **found.batch,
        "cls": torch.zeros(rows, 1),
        "bboxes": torch.full((rows, 4), 0.5),
        "batch_idx": torch.zeros(rows),
    }
    many = write_bundle(bundle.parent / "0002", found.incident, batch=batch, state=found.state, plain=found.plain)
    monkeypatch.setattr(autopsy_run, "memory_of_machine", lambda: 1 << 30)
    with pytest.raises(InvalidCallError, match=r"has 50,000 labels, and a loss over them needs about 1 GiB"):
        run(many, seconds=10.0)


def test_a_script_without_a_guard_is_not_run_once_more(bundle: Path, tmp_path: Path) -> None:
    script, ran = tmp_path / "mine.py", tmp_path / "ran.txt"
    script.write_text(
        f"open({str(ran)!r}, 'a').write('once ')\n"
        "import sys\n"
        "from yolo_stable.cli.main import main\n"
        f"sys.argv = ['yolo-stable', 'autopsy', {str(bundle)!r}]\n"
        "main()\n"
    )
    done = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, timeout=300, check=False)
    assert (done.returncode, ran.read_text()) == (0, "once "), done.stderr
    assert "has NaN pixels" in done.stdout
