"""What reaches the loggers in a real training: Ultralytics opens and closes them, and the guard goes through what is open.

TensorBoard and MLflow are real. The other three have stubs with the signatures of their own, since they want an account.
"""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

STUBS = Path(__file__).with_name("stubs")
PROGRAM = """
import json, sys
from ultralytics import settings
settings.update(dict.fromkeys(["tensorboard", "wandb", "mlflow", "clearml", "comet"], True) | {"dvc": False})
from yolo_stable import StableDetectionTrainer
from yolo_stable.chaos import NAN, Fault
trainer = Fault("pixel", NAN, at=(2,)).on(StableDetectionTrainer)(overrides=json.loads(sys.argv[1]))
trainer.train()
assert trainer.chaos.fired == 1
"""


class Logged:
    """A training of two epochs with a NaN in its third batch, and what its loggers have of it."""

    def __init__(self, folder: Path, arguments: dict[str, Any]) -> None:
        self.run, self.tracking = folder / "runs" / "run", folder / "mlruns"
        self.recorded = folder / "recorded.jsonl"
        self.recorded.touch()
        # Ultralytics logs nothing of what it takes for a test.
        ours = {k: v for k, v in os.environ.items() if k not in {"PYTEST_CURRENT_TEST", "GITHUB_ACTIONS"}}
        path = os.pathsep.join([str(STUBS), str(Path(__file__).parents[2]), os.environ.get("PYTHONPATH", "")])
        more = {"PYTHONPATH": path, "RECORDED": str(self.recorded), "YOLO_CONFIG_DIR": str(folder)}
        mlflow = {"MLFLOW_TRACKING_URI": self.tracking.as_uri(), "MLFLOW_ALLOW_FILE_STORE": "true"}
        words = [sys.executable, "-c", PROGRAM, json.dumps(arguments)]
        done = subprocess.run(
            words, cwd=folder, env={**ours, **more, **mlflow}, capture_output=True, text=True, check=False, timeout=400
        )
        self.said = done.stdout + done.stderr
        assert done.returncode == 0, self.said

    def calls(self, name: str) -> list[dict[str, Any]]:
        lines = map(json.loads, self.recorded.read_text(encoding="utf-8").splitlines())
        return [line for line in lines if line["call"] == name]

    def events(self) -> Any:
        from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

        return EventAccumulator(str(self.run), size_guidance={"images": 0, "scalars": 0, "tensors": 0}).Reload()


ArgumentsIn = Callable[..., dict[str, Any]]


@pytest.fixture(scope="module")
def logged(tmp_path_factory: pytest.TempPathFactory, arguments_in: ArgumentsIn) -> Logged:
    pytest.importorskip("tensorboard")
    folder = tmp_path_factory.mktemp("logged")
    return Logged(folder, arguments_in(folder, guard={"telemetry_every": 2}))


NAMES = ("grad_norm", "clip", "lr_pg0", "seconds", "rejected", "clipped", "rollbacks")
STEPS = [2, 4, 6]
"""Of eight batches one was rejected: seven steps, of which every second has a line."""


def lines(logged: Logged) -> list[dict[str, Any]]:
    events = map(json.loads, (logged.run / "guard.jsonl").read_text().splitlines())
    return [event for event in events if event["event"] == "steps"]


def test_tensorboard_has_numbers_texts_and_the_picture(logged: Logged) -> None:
    events = logged.events()
    for name in NAMES:
        assert [scalar.step for scalar in events.Scalars(f"guard_steps/{name}")] == STEPS, name
    norms = [scalar.value for scalar in events.Scalars("guard_steps/grad_norm")]
    assert norms == pytest.approx([line["norm"] for line in lines(logged)], rel=1e-5)
    assert [scalar.value for scalar in events.Scalars("guard_steps/rejected")] == [0.0, 1.0, 1.0]
    texts = {tag: events.Tensors(tag) for tag in events.Tags()["tensors"]}
    (incident,) = texts["guard/micro batch/text_summary"]
    said = incident.tensor_proto.string_val[0].decode()
    assert "loss nan" in said
    assert "NaN pixels: data" in said
    assert incident.step == 2
    (verdict,) = texts["guard/verdict/text_summary"]
    assert verdict.tensor_proto.string_val[0].decode().startswith("    done\n    steps applied: 7")
    (image,) = events.Images("guard/micro batch")
    assert (image.step, image.encoded_image_string[:4]) == (2, b"\x89PNG")


def test_mlflow_has_them_in_the_one_run_of_ultralytics(logged: Logged) -> None:
    pytest.importorskip("mlflow")
    (run,) = (path.parent for path in logged.tracking.glob("*/*/artifacts"))
    for name in NAMES:
        rows = (run / "metrics" / "guard_steps" / name).read_text().splitlines()
        assert [int(row.split()[2]) for row in rows] == STEPS, name
    guard = run / "artifacts" / "guard"
    texts = sorted(guard.glob("*.txt"))
    assert [path.name for path in texts] == ["0001-micro-batch-step2.txt", "0002-verdict-step7.txt"]
    assert "NaN pixels: data" in texts[0].read_text()
    assert texts[1].read_text().startswith("done\n")
    assert (guard / "0001-micro-batch-step2" / "preview.jpg").read_bytes()[:3] == b"\xff\xd8\xff"


def test_wandb_has_them_before_its_run_is_finished(logged: Logged) -> None:
    assert len(logged.calls("wandb.init")) == 1
    assert [call["name"] for call in logged.calls("wandb.define_metric")][-2:] == ["guard_steps/step", "guard_steps/*"]
    ours = [call for call in logged.calls("wandb.log") if "guard_steps/step" in call["data"]]
    assert all(call["commit"] is False and call["step"] is None for call in ours)
    numbers = [call["data"] for call in ours if "guard_steps/grad_norm" in call["data"]]
    assert [row["guard_steps/step"] for row in numbers] == STEPS
    tables = [call["data"]["guard/incidents"] for call in ours if "guard/incidents" in call["data"]]
    assert [[row[:2] for row in table["data"]] for table in tables] == [
        [[2, "micro batch"]],
        [[2, "micro batch"], [7, "verdict"]],
    ]
    (picture,) = (call["data"]["guard/incident"] for call in ours if "guard/incident" in call["data"])
    assert picture == {"path": str(logged.run / "incidents" / "0001" / "preview.jpg"), "caption": "micro batch"}


def test_clearml_and_comet_have_them(logged: Logged) -> None:
    scalars = [call for call in logged.calls("clearml.scalar") if call["title"] == "guard_steps"]
    assert [call["iteration"] for call in scalars if call["series"] == "grad_norm"] == STEPS
    incident, verdict = logged.calls("clearml.text")
    assert incident["msg"].startswith("guard, step 2, micro batch: epoch 1/2, batch 3: loss nan")
    assert verdict["msg"].startswith("guard, step 7, verdict: done\n")
    assert not incident["print_console"], "the terminal has said it"
    (image,) = (call for call in logged.calls("clearml.image") if call["title"] == "guard")
    assert (image["series"], image["iteration"], Path(image["path"]).name) == ("micro batch", 2, "preview.jpg")
    metrics = [call for call in logged.calls("comet.metrics") if "guard_steps/grad_norm" in call["dic"]]
    assert [call["step"] for call in metrics] == STEPS
    incident, verdict = logged.calls("comet.text")
    assert (incident["metadata"], incident["step"]) == ({"title": "guard/micro batch"}, 2)
    assert verdict["text"].startswith("done\n")
    assert ("guard micro batch", 2) in [(call["name"], call["step"]) for call in logged.calls("comet.image")]


def test_the_start_up_table_names_them_and_no_logger_refused_anything(logged: Logged) -> None:
    (row,) = (line for line in logged.said.splitlines() if line.strip().startswith("loggers "))
    installed = ["MLflow"] if importlib.util.find_spec("mlflow") else []
    assert row.split(maxsplit=1)[1] == ", ".join(["TensorBoard", "W&B", *installed, "ClearML", "Comet"])
    assert "did not take" not in logged.said
