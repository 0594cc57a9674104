"""``yolo-stable autopsy``: what it says, what it refuses, and that nobody is harmed by a bundle."""

from __future__ import annotations

import json
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from verb import carried_out

from yolo_stable.chaos import NAN, Fault, LayerFault
from yolo_stable.errors import InvalidCallError
from yolo_stable.incidents import worker as autopsy_worker
from yolo_stable.incidents.replay import run
from yolo_stable.trainer.trainers import TRAINERS


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
    """Return a bundle of which nobody says that its fault was put in on purpose."""
    folder = Path(shutil.copytree(incidents["pixel"], tmp_path / "incidents" / "0001"))
    edit(folder, injected={})
    return folder


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


@pytest.mark.usefixtures("warm_programs")
def test_the_debugger_stops_at_the_operation(bundle: Path) -> None:
    done = command(str(bundle), "--pdb", keys="p op_result.shape\nc\n")
    assert done.returncode == 0
    assert "aten.convolution.default in model.0.conv: op_args" in done.stdout
    assert "(Pdb) torch.Size([4, 8, 32, 32])" in done.stdout


def test_what_is_healthy_elsewhere_is_said_not_to_be_reproduced(incidents: dict[str, Path]) -> None:
    text = run(incidents["layer"])
    assert "hardware transient" in text.splitlines()[0]
    assert "could not be reproduced" in text
    assert "During the run, which had its snapshots, the cause was:" in text


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
def test_a_wrong_call_is_one_line_and_exit_code_two(
    words: list[str],
    says: str,
    bundle: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    warm_workers: Any,
) -> None:
    monkeypatch.setattr(autopsy_worker, "multiprocessing", warm_workers)
    code, out, err = carried_out(capsys, monkeypatch, "autopsy", *[word.format(bundle=bundle) for word in words])
    assert (code, out) == (2, "")
    assert says in err
    assert len(err.splitlines()) == 1


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


def inside(bundle: Path, *keys: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the record, and what is at the end of ``keys`` in it, to be changed."""
    record = json.loads((bundle / "incident.json").read_text())
    found = record
    for key in keys:
        found = found[key]
    return record, found


@pytest.mark.parametrize(
    ("keys", "changes", "says"),
    [
        # NumPy takes any position, and reads there when it is asked for a number.
        (("rng",), {"numpy": ["MT19937", 10**9, 0, 0.0]}, "NumPy's position is 1000000000 of 624"),
        (("rng",), {"numpy": ["MT19937", -1, 0, 0.0]}, "generators are damaged"),
        (("rng",), {"numpy": 5}, "generators are damaged"),
        (("model", "attributes"), {"model.13": {"reg_max": [None, 10**9]}}, "a number beyond 1e"),
        (("model", "attributes"), {"model.0.conv": {"padding": [None, [10**5, 10**5]]}}, "far more than the"),
        (("model", "attributes"), {"model.13": {"nc": [None, "x"]}}, "the loss of its model cannot be made (TypeError"),
    ],
    ids=str,
)
def test_a_state_that_was_tampered_with_is_refused(
    keys: tuple[str, ...], changes: dict[str, Any], says: str, bundle: Path
) -> None:
    record, found = inside(bundle, "bundle", "plain", *keys)
    found.update(changes)
    (bundle / "incident.json").write_text(json.dumps(record))
    with pytest.raises(InvalidCallError, match=re.escape(says)) as refused:
        run(bundle)
    assert len(str(refused.value).splitlines()) == 1


class TestNextStep:
    @pytest.mark.usefixtures("warm_programs")
    def test_it_works_when_it_is_pasted(self, bundle: Path) -> None:
        text = run(bundle).splitlines()[-1]
        words = shlex.split(text.partition("yolo-stable ")[2])
        assert words[0] == "check"
        done = subprocess.run(
            [sys.executable, "-m", "yolo_stable", *words], capture_output=True, text=True, check=False
        )
        assert done.returncode in {0, 1}, done.stderr

    @pytest.mark.parametrize(
        "changes",
        [
            {"data": "gone.yaml"},
            {"data": "https://evil.example/data.yaml"},
            {"data": "{bundle}/data.yaml"},
            {"data": "--fix=x"},
            {"data": {}},
        ],
        ids=str,
    )
    def test_names_of_a_stranger_are_not_put_into_a_command(self, changes: dict[str, Any], bundle: Path) -> None:
        (bundle / "data.yaml").write_text("download: |\n  import os\n")
        text = json.dumps(changes).replace("{bundle}", str(bundle))
        edit(bundle, args={**inside(bundle, "args")[1], **json.loads(text)})
        assert "yolo-stable" not in run(bundle), "a command that cannot be typed is left out"


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
