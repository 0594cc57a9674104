"""``yolo-stable autopsy``: what it says, what it refuses, and that nobody is harmed by a bundle."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from yolo_stable.autopsy_run import run
from yolo_stable.chaos import NAN, Fault, LayerFault
from yolo_stable.errors import InvalidCallError
from yolo_stable.trainers import TRAINERS


@pytest.fixture(scope="module")
def incidents(tmp_path_factory: pytest.TempPathFactory, narrow: Any, shapes: Any) -> dict[str, Path]:
    """Return bundles of a NaN pixel, and of a layer whose forward pass breaks where its weights are huge."""
    made = {}
    for name, fault in {"pixel": Fault("pixel", NAN, at=(1,)), "layer": LayerFault("log", "model.4", at=(1,))}.items():
        overrides = {
            "model": narrow("detect"),
            "data": shapes("detect"),
            "epochs": 1,
            "imgsz": 64,
            "batch": 4,
            "nbs": 4,
            "optimizer": "SGD",
            "amp": False,
            "device": "cpu",
            "plots": False,
            "verbose": False,
            "val": False,
            "project": str(tmp_path_factory.mktemp(name)),
        }
        trainer = fault.on(TRAINERS["detect"])(overrides=overrides)
        trainer.train()
        assert trainer.chaos.fired == 1
        made[name] = trainer.save_dir / "incidents" / "0001"
    return made


@pytest.fixture
def bundle(incidents: dict[str, Path], tmp_path: Path) -> Path:
    return Path(shutil.copytree(incidents["pixel"], tmp_path / "incidents" / "0001"))


def command(*words: str, keys: str = "") -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "yolo_stable", "autopsy", *words],
        input=keys,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def edit(bundle: Path, **changes: Any) -> None:
    file = bundle / "incident.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **changes}))


def test_the_command_in_a_fresh_process(bundle: Path, tmp_path: Path) -> None:
    done = command(str(bundle), "--json", str(tmp_path / "answer.json"), "--frames", "2")
    assert (done.returncode, done.stderr) == (0, "")
    first, *rest = done.stdout.splitlines()
    assert first.endswith("has NaN pixels: data")
    assert any("replay     bit for bit" in line for line in rest)
    assert any("model.0.conv (Conv2d)" in line for line in rest), "the frame of the first module"
    answer = json.loads((tmp_path / "answer.json").read_text())
    keys = ["schema", "reproduced", "bitwise", "cause", "phase", "module", "op", "samples", "evidence", "next"]
    assert list(answer) == keys
    assert (answer["schema"], answer["bitwise"], answer["cause"]) == (1, True, "data")


def test_the_debugger_stops_at_the_operation(bundle: Path) -> None:
    done = command(str(bundle), "--pdb", keys="p op_result.shape\nc\n")
    assert done.returncode == 0
    assert "aten.convolution.default in model.0.conv: op_args" in done.stdout
    assert "(Pdb) torch.Size([4, 8, 32, 32])" in done.stdout


def test_what_is_healthy_elsewhere_is_said_not_to_be_reproduced(incidents: dict[str, Path]) -> None:
    text = run(incidents["layer"])
    assert "hardware transient" in text.splitlines()[0]
    assert "could not be reproduced" in text
    assert "During the run, with its snapshots at hand, the cause was:" in text


def test_nothing_is_written_but_the_answer(bundle: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in bundle.parent.rglob("*")}
    run(bundle)
    assert {path: path.stat().st_mtime_ns for path in bundle.parent.rglob("*")} == before


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["nowhere"], "it is not there"),
        (["{bundle}/incident.json"], "this is a file"),
        (["{bundle}/.."], "it is no incident but holds some"),
        (["{bundle}", "--device", "cuda:7"], "--device cuda:7 cannot be used here"),
        (["{bundle}", "--device", "toaster"], "--device toaster cannot be used here"),
        (["{bundle}", "--json", "/dev/null/x.json"], "--json /dev/null/x.json cannot be written"),
    ],
    ids=str,
)
def test_a_wrong_call_is_one_line_and_exit_code_two(words: list[str], says: str, bundle: Path) -> None:
    done = command(*[word.format(bundle=bundle) for word in words])
    assert (done.returncode, done.stdout) == (2, "")
    assert says in done.stderr
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize(
    "changes",
    [
        {"precision": "float8"},
        {"precision": ["float32"]},
        {"classes": "many"},
        {"provenance": ["no"]},
        {"provenance": [{"schema": 9}]},
    ],
    ids=str,
)
def test_a_record_that_was_tampered_with_is_refused(changes: dict[str, Any], bundle: Path) -> None:
    edit(bundle, **changes)
    with pytest.raises(InvalidCallError) as refused:
        run(bundle)
    assert len(str(refused.value).splitlines()) == 1


@pytest.mark.parametrize(
    "changes",
    [
        {"flags": {"threads": 10**9, "deterministic": "yes"}},
        {"items": {"box_loss": [1]}, "loss": "high", "norm": {}, "culprits": 3, "digests": []},
        {"autopsy": {"schema": 1}},
        {"reason": "\x1b[2Jgone", "label_fault": "\x1b[31m"},
        {"loss_scale": "nan"},
    ],
    ids=str,
)
def test_a_strange_record_is_read_as_far_as_it_makes_sense(changes: dict[str, Any], bundle: Path) -> None:
    edit(bundle, **changes)
    text = run(bundle)
    assert "\x1b" not in text
    assert "NaN pixels" in text or "label" in text
