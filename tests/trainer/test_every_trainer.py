"""Every trainer of Ultralytics, found by walking its package, trains with the guard: one bad batch is rejected and named."""

from __future__ import annotations

import importlib
import inspect
import json
import pkgutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
import ultralytics
import yaml
from torch import Tensor
from ultralytics.engine.trainer import BaseTrainer
from ultralytics.models import yolo
from ultralytics.models.rtdetr.train import RTDETRTrainer
from ultralytics.models.yolo.classify import ClassificationTrainer
from ultralytics.models.yolo.depth import DepthTrainer
from ultralytics.models.yolo.detect import DetectionTrainer
from ultralytics.models.yolo.obb import OBBTrainer
from ultralytics.models.yolo.pose import PoseTrainer
from ultralytics.models.yolo.segment import SegmentationTrainer
from ultralytics.models.yolo.semantic import SemanticSegmentationTrainer
from ultralytics.models.yolo.world import WorldTrainer
from ultralytics.models.yolo.world.train_world import WorldTrainerFromScratch
from ultralytics.models.yolo.yoloe import train as yoloe_train, train_seg as yoloe_train_seg
from ultralytics.nn import tasks

from yolo_stable.chaos import NAN, Fault
from yolo_stable.incidents.replay import run as autopsy
from yolo_stable.runlog.reader import read_events
from yolo_stable.trainer.trainers import guarded

Arguments = Callable[..., dict[str, Any]]

CASES = {
    DetectionTrainer: "detect",
    SegmentationTrainer: "segment",
    SemanticSegmentationTrainer: "semantic",
    DepthTrainer: "depth",
    PoseTrainer: "pose",
    OBBTrainer: "obb",
    ClassificationTrainer: "classify",
    RTDETRTrainer: "rtdetr",
    WorldTrainer: "world",
    WorldTrainerFromScratch: "world",
    yoloe_train.YOLOETrainer: "yoloe",
    yoloe_train.YOLOEPETrainer: "yoloe",
    yoloe_train.YOLOETrainerFromScratch: "yoloe",
    yoloe_train.YOLOEPEFreeTrainer: "yoloe",
    yoloe_train.YOLOEVPTrainer: "yoloe",
    yoloe_train_seg.YOLOESegTrainer: "yoloe-seg",
    yoloe_train_seg.YOLOEPESegTrainer: "yoloe-seg",
    yoloe_train_seg.YOLOESegTrainerFromScratch: "yoloe-seg",
    yoloe_train_seg.YOLOESegVPTrainer: "yoloe-seg",
}
SCRATCH = WorldTrainerFromScratch


class Texts:
    """Stands for CLIP, which would be downloaded: features of unit length that depend on the text alone."""

    def tokenize(self, texts: list[str]) -> Tensor:
        return torch.tensor([[sum(map(ord, text))] for text in texts])

    def encode_text(self, tokens: Tensor) -> Tensor:
        rows = [torch.randn(512, generator=torch.Generator().manual_seed(int(n))) for n in tokens[:, 0]]
        return torch.nn.functional.normalize(torch.stack(rows), dim=-1)


@pytest.fixture(autouse=True)
def texts(monkeypatch: pytest.MonkeyPatch) -> None:
    module = ModuleType("ultralytics.nn.text_model")
    module.build_text_model = lambda variant, device=None: Texts()  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, module.__name__, module)


def weights(task: str, path: str, folder: Path) -> str:
    kind = tasks.YOLOESegModel if task == "yoloe-seg" else tasks.YOLOEModel
    model = kind(path, ch=3, nc=4, verbose=False)
    model.args = {}
    file = folder / "weights.pt"
    torch.save({"model": model, "train_args": {}}, file)
    return str(file)


@pytest.mark.parametrize("kind", CASES, ids=lambda kind: kind.__name__)
def test_it(kind: Any, arguments: Arguments, narrow: Any, tmp_path: Path) -> None:
    task = CASES[kind]
    call = arguments(task, imgsz=64)
    if task == "yoloe-seg":
        call["task"] = "segment"
    if task.startswith("yoloe"):
        data = yaml.safe_load(Path(call["data"]).read_text())
        data["names"] = {n: data["names"].get(n, f"class {n}") for n in range(80)}
        call["data"] = str(tmp_path / "data.yaml")
        Path(call["data"]).write_text(yaml.safe_dump(data))
    if issubclass(kind, SCRATCH):
        data = {"yolo_data": [call["data"]]}
        call["data"] = {"train": data, "val": data}
    if "PE" in kind.__name__:
        call["model"] = weights(task, narrow(task), tmp_path)
    trainer = Fault("pixel", NAN, at=(2,)).on(guarded(kind))(overrides=call)
    trainer.train()
    counts = trainer.guard.counts
    print(counts)
    print([e for e in read_events(trainer.save_dir / "guard.jsonl") if e["event"] == "incident"])
    folder = trainer.save_dir / "incidents" / "0001"
    print(sorted(p.name for p in folder.glob("*")))
    print(autopsy(folder))
    assert 0
