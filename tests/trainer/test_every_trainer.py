"""Every trainer of Ultralytics, found by walking its package, trains with the guard: a bad batch is rejected and named."""

from __future__ import annotations

import functools
import importlib
import json
import logging
import os
import re
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
import ultralytics
import yaml
from torch import Tensor
from ultralytics.cfg import get_cfg
from ultralytics.engine.trainer import BaseTrainer
from ultralytics.models.yolo.world.train_world import WorldTrainerFromScratch
from ultralytics.nn import tasks
from ultralytics.utils import LOGGER

from yolo_stable import InvalidCallError, TrainingHaltedError
from yolo_stable.chaos import NAN, OF_MAPS, Fault
from yolo_stable.check.layout import MAPS, TASKS
from yolo_stable.guard.decision import NO_GRADIENT
from yolo_stable.incidents.replay import run as autopsy
from yolo_stable.runlog.reader import read_events
from yolo_stable.train.model import open_model
from yolo_stable.trainer.trainers import TRAINERS, guarded

Arguments = Callable[..., dict[str, Any]]

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


@pytest.fixture(scope="module", autouse=True)
def texts() -> Iterator[None]:
    """Let no text model be downloaded, and leave out what comes behind the last epoch."""
    module = ModuleType("ultralytics.nn.text_model")
    module.build_text_model = lambda variant, device=None: Texts()  # type: ignore[attr-defined]
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, module.__name__, module)
        patch.setattr(BaseTrainer, "final_eval", lambda self: None)
        yield


@pytest.fixture(scope="module")
def call_of(
    arguments_in: Arguments, narrow: Any, shapes: Any, tmp_path_factory: pytest.TempPathFactory
) -> Callable[..., dict[str, Any]]:
    """Return a maker of overrides for a trainer: two epochs of two batches of four images."""

    def call(kind: type, **changes: Any) -> dict[str, Any]:
        network, folder = NETWORKS[kind.__name__], tmp_path_factory.mktemp(kind.__name__)
        small = {"imgsz": 64 if network in {"obb", "pose"} else 32, "batch": 4, "data": shapes(network, train=8, val=4)}
        made = arguments_in(folder, network, **{**small, **changes})
        if network.startswith("yoloe"):  # it trains with 80 texts, however few classes there are
            data = yaml.safe_load(Path(made["data"]).read_text())
            data["names"] = {n: data["names"].get(n, f"class {n}") for n in range(80)}
            made["data"] = str(folder / "data.yaml")
            Path(made["data"]).write_text(yaml.safe_dump(data))
            made["task"] = "segment" if network == "yoloe-seg" else "detect"
        if issubclass(kind, WorldTrainerFromScratch):
            made["data"] = {split: {"yolo_data": [made["data"]]} for split in ("train", "val")}
        if "YOLOEPE" in kind.__name__:  # linear probing begins with weights
            model = (tasks.YOLOESegModel if network == "yoloe-seg" else tasks.YOLOEModel)(
                narrow(network), ch=3, nc=4, verbose=False
            )
            made["model"] = str(folder / "weights.pt")
            torch.save({"model": model, "train_args": {}}, made["model"])
        return made

    return call


@dataclass
class Seen:
    """What was seen of a trainer's run with a NaN pixel in its second batch and an image that is in quarantine."""

    trainer: Any
    answers: list[dict[str, Any]]
    again: str
    """The answer of a replay from the bundle."""
    said: list[str]
    listed: str
    drawn: list[str]
    """Files that training images were made of."""

    @property
    def rejects(self) -> bool:
        """Whether one micro-batch was rejected, and nothing of it has stayed."""
        counts = self.trainer.guard.counts
        healthy = all(bool(v.isfinite().all()) for v in self.trainer.ema.ema.state_dict().values())
        return healthy and (counts.micro_batches, counts.rejected_micro_batches, counts.applied) == (4, 1, 3)

    @property
    def names_files(self) -> bool:
        """Whether the files of every training image are known."""
        return len(self.drawn) >= 16 and all(Path(file).is_file() for file in self.drawn)

    @property
    def autopsy(self) -> str:
        """Where the fault could be replayed."""
        (answer,) = self.answers
        if (answer["cause"], answer["phase"], answer["reproduced"], answer["bitwise"]) != ("data", "data", True, True):
            return "no"
        return (
            "in the run, and from its bundle"
            if "replay     bit for bit" in self.again and not self.plain
            else "in the run"
        )

    @property
    def plain(self) -> bool:
        """Whether it was said that the network cannot be built again."""
        noted = "It cannot be replayed: this is the answer from the run." in self.again
        assert noted == any("cannot be built from an incident" in line for line in self.said)
        return noted

    @property
    def quarantines(self) -> bool:
        """Whether the image in quarantine was left out, and nothing else."""
        return self.listed not in self.drawn and len(set(self.drawn)) == 7


@pytest.fixture(scope="module")
def seen_of(call_of: Callable[..., dict[str, Any]], tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Seen]:
    """Return what trains each trainer once."""

    @functools.cache
    def seen(name: str) -> Seen:
        kind, drawn, said = found()[name], [], []
        call = call_of(kind)
        listed = first_image(call["data"])
        note = tmp_path_factory.mktemp("listed") / "listed.txt"
        note.write_text(f"{listed}\n")

        class Watched(guarded(kind)):  # type: ignore[misc]
            def preprocess_batch(self, batch: dict[str, Any]) -> dict[str, Any]:
                batch = super().preprocess_batch(batch)
                if self.services.window.drawn:
                    drawn.extend(file for one in self.services.window.drawn[-1].provenance for file in one.files())
                return batch

        def keep(record: logging.LogRecord) -> bool:
            said.append(record.getMessage())
            return True

        LOGGER.addFilter(keep)
        try:
            trainer: Any = Fault("pixel", NAN, at=(1,)).on(Watched)(
                overrides={**call, "guard": {"quarantine_from": str(note)}}
            )
            trainer.train()
        finally:
            LOGGER.removeFilter(keep)
        assert trainer.last.is_file()
        answers = incidents(trainer)
        return Seen(trainer, answers, autopsy(Path(answers[0]["folder"])), said, listed, drawn)

    return seen


def first_image(data: Any) -> str:
    """Return the first training image of a data set."""
    place = Path(data["train"]["yolo_data"][0] if isinstance(data, dict) else data)
    root = (
        place / "train" if place.is_dir() else Path((told := yaml.safe_load(place.read_text()))["path"]) / told["train"]
    )
    return str(sorted(root.rglob("*.png"))[0])


def incidents(trainer: Any) -> list[dict[str, Any]]:
    return [event for event in read_events(trainer.save_dir / "guard.jsonl") if event["event"] == "incident"]


def test_no_trainer_is_forgotten() -> None:
    trainers = found()
    assert set(trainers) == {*NETWORKS, *EXCUSED}
    assert {kind.__bases__[1].__name__ for kind in TRAINERS.values()} <= set(NETWORKS)


@pytest.mark.parametrize("name", NETWORKS)
def test_every_trainer_rejects_a_bad_batch_and_names_its_image(name: str, seen_of: Callable[[str], Seen]) -> None:
    seen = seen_of(name)
    assert seen.rejects
    assert seen.names_files
    assert seen.quarantines
    (answer,) = seen.answers
    (sample, *_) = answer["samples"]
    assert sample["path"] in seen.drawn
    assert Path(sample["path"]).name in seen.again.splitlines()[0]
    assert (Path(answer["folder"]) / "preview.jpg").stat().st_size
    assert seen.autopsy == ("in the run, and from its bundle" if NETWORKS[name] in REBUILT else "in the run")


ROWS = {
    "detect": "detect",
    "segment": "segment",
    "semantic": "semantic",
    "depth": "depth",
    "pose": "pose",
    "obb": "obb",
    "classify": "classify",
    "rtdetr": "detect, RT-DETR",
    "world": "detect, YOLO-World",
    "yoloe": "detect, YOLOE",
    "yoloe-seg": "segment, YOLOE",
}
"""Networks, as the table calls them."""
HEAD = (
    "Task and model",
    "Trainers of Ultralytics",
    "Guard",
    "Provenance",
    "Autopsy",
    "Quarantine",
    "`check`",
    "`preflight`",
)
TABLE = Path(__file__).parents[2] / "docs" / "reference" / "tasks.md"


def test_the_table_of_the_documentation_is_what_is_seen(seen_of: Callable[[str], Seen], narrow: Any) -> None:
    """``TASKS_TABLE=write`` in the environment writes it anew."""
    lines = ["| " + " | ".join(HEAD) + " |", "|" + "---|" * len(HEAD)]
    for network, shown in ROWS.items():
        names = [name for name, of in NETWORKS.items() if of == network]
        seen = [seen_of(name) for name in names]
        cells = {(yes(one.rejects), yes(one.names_files), one.autopsy, yes(one.quarantines)) for one in seen}
        assert len(cells) == 1, "one row tells of all"
        task = shown.partition(",")[0]
        checked = "images" if task in MAPS else "images and labels" if task in TASKS else "no"
        row = [shown, ", ".join(f"`{name}`" for name in names), *cells.pop(), checked, yes(is_called(narrow(network)))]
        lines.append("| " + " | ".join(row) + " |")
    intro = TABLE.read_text(encoding="utf-8").partition("| ")[0]
    text = intro + "\n".join(lines) + "\n"
    if os.environ.get("TASKS_TABLE") == "write":
        TABLE.write_text(text, encoding="utf-8")
    assert TABLE.read_text(encoding="utf-8") == text


def yes(seen: bool) -> str:
    return "yes" if seen else "no"


def is_called(model: str) -> bool:
    """Return whether the commands take a model."""
    try:
        open_model(model)
    except InvalidCallError:
        return False
    return True


def test_nan_in_a_depth_map_makes_the_loss_nan_and_no_gradient(narrow: Any) -> None:
    """Nothing that looks at gradients alone would see it."""
    model = tasks.DepthModel(narrow("depth"), ch=3, nc=1, verbose=False).train()
    model.args = get_cfg()
    depth = torch.rand(2, 32, 32) + 1
    depth[0, 5, 5] = NAN
    loss = model({"img": torch.rand(2, 3, 32, 32), "depth": depth})[0].sum()
    loss.backward()
    assert loss.isnan()
    gradients = [p.grad for p in model.parameters() if p.grad is not None]
    assert gradients
    assert all(bool(gradient.isfinite().all()) for gradient in gradients)


@pytest.mark.parametrize("story", OF_MAPS)
def test_a_bad_value_in_a_label_for_each_pixel_is_traced_to_its_file(
    story: str, call_of: Callable[..., dict[str, Any]]
) -> None:
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
