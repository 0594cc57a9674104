"""Every trainer of Ultralytics, found by walking its package, trains with the guard: a bad batch is rejected and named."""

from __future__ import annotations

import functools
import importlib
import json
import re
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
import ultralytics
import yaml
from torch import Tensor
from ultralytics.models.yolo.world.train_world import WorldTrainerFromScratch
from ultralytics.nn import tasks

from yolo_stable import TrainingHaltedError
from yolo_stable.chaos import NAN, OF_MAPS, Fault
from yolo_stable.guard.decision import NO_GRADIENT
from yolo_stable.incidents.replay import run as autopsy
from yolo_stable.runlog.reader import read_events
from yolo_stable.trainer.trainers import TRAINERS, guarded

Arguments = Callable[..., dict[str, Any]]
pytestmark = pytest.mark.usefixtures("texts", "without_final_evaluation")

NETWORKS = {
    "DetectionTrainer": "detect",
    "SegmentationTrainer": "segment",
    "SemanticSegmentationTrainer": "semantic",
    "DepthTrainer": "depth",
    "PoseTrainer": "pose",
    "OBBTrainer": "obb",
    "ClassificationTrainer": "classify",
    "RTDETRTrainer": "rtdetr",
    "WorldTrainer": "world",
    "WorldTrainerFromScratch": "world",
    "YOLOETrainer": "yoloe",
    "YOLOEPETrainer": "yoloe",
    "YOLOETrainerFromScratch": "yoloe",
    "YOLOEPEFreeTrainer": "yoloe",
    "YOLOEVPTrainer": "yoloe",
    "YOLOESegTrainer": "yoloe-seg",
    "YOLOEPESegTrainer": "yoloe-seg",
    "YOLOESegTrainerFromScratch": "yoloe-seg",
    "YOLOESegVPTrainer": "yoloe-seg",
}
"""The trainers that are guarded, and the network that each trains here."""
EXCUSED = {
    "BaseTrainer": "abstract: the others derive from it",
    "MultiTrainer": "trains nothing itself: it runs another trainer for each data set",
}
REBUILT = {"detect", "segment", "semantic", "depth", "pose", "obb", "classify", "rtdetr"}
"""Networks that are built again from a bundle; of the others the answer is that of the run."""


@functools.cache
def found() -> dict[str, type]:
    """Return every class of Ultralytics whose name says that it is a trainer, wherever it stands in the package."""
    root, trainers = Path(ultralytics.__file__).parent, {}
    for file in sorted(root.rglob("*.py")):
        for name in re.findall(r"^class (\w*Trainer\w*)", file.read_text(encoding="utf-8"), re.MULTILINE):
            module = importlib.import_module(".".join(("ultralytics", *file.relative_to(root).with_suffix("").parts)))
            trainers[name] = getattr(module, name)
    return trainers


class Texts:
    """Stands for CLIP, which would be downloaded: features of unit length that depend on the text alone."""

    def tokenize(self, texts: list[str]) -> Tensor:
        return torch.tensor([[sum(map(ord, text))] for text in texts])

    def encode_text(self, tokens: Tensor) -> Tensor:
        rows = [torch.randn(512, generator=torch.Generator().manual_seed(int(n))) for n in tokens[:, 0]]
        return torch.nn.functional.normalize(torch.stack(rows), dim=-1)


@pytest.fixture
def texts(monkeypatch: pytest.MonkeyPatch) -> None:
    module = ModuleType("ultralytics.nn.text_model")
    module.build_text_model = lambda variant, device=None: Texts()  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, module.__name__, module)


@pytest.fixture
def call_of(arguments: Arguments, narrow: Any, shapes: Any, tmp_path: Path) -> Callable[[type], dict[str, Any]]:
    """Return a maker of overrides for a trainer: two epochs of two batches of two images."""

    def call(kind: type, **changes: Any) -> dict[str, Any]:
        network = NETWORKS[kind.__name__]
        small = {"imgsz": 64 if network in {"obb", "pose"} else 32, "batch": 4, "data": shapes(network, train=8, val=4)}
        made = arguments(network, **{**small, **changes})
        if network.startswith("yoloe"):  # it trains with 80 texts, however few classes there are
            data = yaml.safe_load(Path(made["data"]).read_text())
            data["names"] = {n: data["names"].get(n, f"class {n}") for n in range(80)}
            made["data"] = str(tmp_path / "data.yaml")
            Path(made["data"]).write_text(yaml.safe_dump(data))
            made["task"] = "segment" if network == "yoloe-seg" else "detect"
        if issubclass(kind, WorldTrainerFromScratch):
            made["data"] = {split: {"yolo_data": [made["data"]]} for split in ("train", "val")}
        if "YOLOEPE" in kind.__name__:  # linear probing begins with weights
            model = (tasks.YOLOESegModel if network == "yoloe-seg" else tasks.YOLOEModel)(
                narrow(network), ch=3, nc=4, verbose=False
            )
            made["model"] = str(tmp_path / "weights.pt")
            torch.save({"model": model, "train_args": {}}, made["model"])
        return made

    return call


def incidents(trainer: Any) -> list[dict[str, Any]]:
    return [event for event in read_events(trainer.save_dir / "guard.jsonl") if event["event"] == "incident"]


def test_no_trainer_is_forgotten() -> None:
    trainers = found()
    assert set(trainers) == {*NETWORKS, *EXCUSED}
    assert {kind.__bases__[1].__name__ for kind in TRAINERS.values()} <= set(NETWORKS)


@pytest.mark.parametrize("name", NETWORKS)
def test_every_trainer_rejects_a_bad_batch_and_names_its_image(
    name: str, call_of: Callable[..., dict[str, Any]], said: list[str]
) -> None:
    kind = found()[name]
    trainer = Fault("pixel", NAN, at=(1,)).on(guarded(kind))(overrides=call_of(kind))
    trainer.train()
    counts = trainer.guard.counts
    assert (counts.micro_batches, counts.rejected_micro_batches, counts.applied) == (4, 1, 3)
    assert all(bool(v.isfinite().all()) for v in trainer.ema.ema.state_dict().values())
    assert trainer.last.is_file()

    (answer,) = incidents(trainer)
    assert (answer["cause"], answer["phase"], answer["reproduced"], answer["bitwise"]) == ("data", "data", True, True)
    (sample, *_) = answer["samples"]
    assert Path(sample["path"]).is_file()
    folder = Path(answer["folder"])
    assert (folder / "preview.jpg").stat().st_size
    again = autopsy(folder)
    assert f"{Path(sample['path']).name}" in again.splitlines()[0]
    plain = "cannot be built from an incident" in "".join(said)
    if NETWORKS[name] in REBUILT:
        assert "replay     bit for bit" in again
        assert not plain
    else:
        assert "It cannot be replayed: this is the answer from the run." in again
        assert plain


@pytest.mark.parametrize("story", OF_MAPS)
def test_a_bad_value_in_a_label_for_each_pixel_is_traced_to_its_file(
    story: str, call_of: Callable[..., dict[str, Any]]
) -> None:
    """A depth that is not finite makes the loss so, but no gradient: nothing but the guard would see it."""
    fault = OF_MAPS[story](2, 2)
    base = TRAINERS["depth" if fault.place == "depth" else "semantic"]
    trainer = fault.on(base)(overrides=call_of(base.__bases__[1], mosaic=0.0))
    drawn: list[list[str]] = []
    trainer.add_callback(
        "on_train_batch_end", lambda t: drawn.append(list(t.services.window.newest.get("im_file", [])))
    )
    trainer.train()
    assert trainer.chaos.fired == 1
    assert (trainer.guard.counts.rejected_micro_batches, trainer.guard.counts.applied) == (1, 3)
    (answer,) = incidents(trainer)
    assert (answer["cause"], answer["phase"], answer["reproduced"]) == ("data", "data", True)
    (sample,) = answer["samples"]
    assert Path(sample["path"]).is_file()
    assert sample["label_row"] is None
    says = "mask label of class 99 not in 0..4" if fault.place == "mask" else "depth label not finite"
    assert says in answer["evidence"]["what"]
    assert says in autopsy(Path(answer["folder"]))
    record = json.loads((Path(answer["folder"]) / "incident.json").read_text())
    assert sample["path"] in record["files"]


def test_a_loss_without_a_gradient_is_said_and_not_trained_on_in_silence(
    call_of: Callable[..., dict[str, Any]], shapes: Any, said: list[str]
) -> None:
    """The loss of visual prompts is a new 0 where a batch has as many prompts as the head had when the loss was made."""
    kind = found()["YOLOEVPTrainer"]
    one = shapes("detect", train=8, val=4, min_objects=1, max_objects=1)
    trainer: Any = guarded(kind)(overrides=call_of(kind, data=one, mosaic=0.0, epochs=1))
    trainer.add_callback("on_train_start", lambda t: setattr(t.model.model[-1], "nc", 1))
    with pytest.raises(TrainingHaltedError, match="0 were rejected, and 2 windows, and no step was taken"):
        trainer.train()
    assert sum(NO_GRADIENT in line for line in said) >= 2
    (answer, *_) = incidents(trainer)
    assert (answer["cause"], answer["phase"]) == ("undecided", "loss")
    assert "a constant for whatever is trained" in answer["evidence"]["why"]
    assert "visual prompts" in answer["next"]
    assert "It cannot be replayed" in autopsy(Path(answer["folder"]))
