"""What Ultralytics' own tests of training claim, held against Ultralytics and against the drop-in classes on drawn data.

    python -m benchmarks.ultralytics_claims [NAME ...]

Each claim has the name of the test that makes it (``tests/test_engine.py``, ``tests/test_python.py`` of Ultralytics) and is told
anew with data sets drawn here, networks that need no download, and trainers of the guard. The table says which hold.
"""

from __future__ import annotations

import contextlib
import io
import os
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
import torch
import ultralytics
import yaml
from rich.console import Console
from rich.table import Table
from ultralytics.cfg import get_cfg
from ultralytics.models.yolo import classify, detect, obb, pose, segment
from ultralytics.nn.tasks import load_checkpoint
from ultralytics.utils import LOGGER
from ultralytics.utils.torch_utils import unwrap_model

import yolo_stable
from yolo_stable.data.builtin import make

from .narrow import HEADS, NETWORK

ROOMS = {"detect": detect, "segment": segment, "classify": classify, "obb": obb, "pose": pose}


@dataclass(frozen=True)
class Door:
    """Where the classes come from, and a folder to work in."""

    name: str
    yolo: Any
    guard: Callable[[type], type]
    """Of Ultralytics' trainers."""
    folder: Path

    @property
    def settings(self) -> dict[str, Any]:
        """Return what every training here has in common."""
        return {
            "imgsz": 32,
            "batch": 4,
            "workers": 0,
            "device": "cpu",
            "plots": False,
            "verbose": False,
            "project": str(self.folder / "runs"),
            "exist_ok": True,
        }

    def network(self, task: str = "detect") -> str:
        """Return the path of a network's YAML."""
        path = self.folder / f"narrow-{task}.yaml"
        if not path.exists():
            last = [[9, 12], 1, *HEADS["detect" if task == "end2end" else task]] if task != "classify" else None
            head = [[-1, 1, "Classify", ["nc"]]] if last is None else [*NETWORK["head"][:-1], last]
            spec = {**NETWORK, "head": head}
            spec.update({"kpt_shape": [4, 3]} if task == "pose" else {})
            spec.update({"end2end": True, "reg_max": 1} if task == "end2end" else {})
            path.write_text(yaml.safe_dump(spec))
        return str(path)

    def data(self, task: str = "detect") -> str:
        """Return the path of a data set of 8 and 4 images."""
        return str(make("shapes", task=task, cache=self.folder, train=8, val=4, imgsz=32))

    def weights(self, task: str = "detect") -> str:
        """Return the path of a checkpoint that was not trained."""
        path = self.folder / f"weights-{task}.pt"
        if not path.exists():
            model = ultralytics.YOLO(self.network(task), task="detect" if task == "end2end" else task)
            model.save(path)
        return str(path)

    def image(self, task: str = "detect") -> str:
        """Return the path of an image."""
        return str(next(Path(self.data(task)).parent.glob("**/val/**/*.*g")))

    def trainer(self, task: str = "detect", **overrides: Any) -> Any:
        """Return a trainer of a task, called directly."""
        kind = next(value for key, value in vars(ROOMS[task]).items() if key.endswith("Trainer"))
        given = {"data": self.data(task), "model": self.network(task), "epochs": 1, **self.settings, **overrides}
        return self.guard(kind)(overrides=given)


Claim = Callable[[Door], None]
CLAIMS: dict[str, tuple[str, Claim]] = {}
"""By the name of the test: what it claims, and the test told anew."""


def claim(name: str, says: str) -> Callable[[Claim], Claim]:
    """Enter a claim."""

    def enter(told: Claim) -> Claim:
        CLAIMS[name] = (says, told)
        return told

    return enter


def finite(checkpoint: Path) -> bool:
    """Say whether the network of a checkpoint is finite."""
    model, _ = load_checkpoint(checkpoint)
    return all(bool(value.isfinite().all()) for value in model.state_dict().values() if value.is_floating_point())


def stop_after_the_first_epoch(trainer: Any) -> None:
    """Interrupt a training so that it can be resumed."""
    if trainer.epoch == 0:
        trainer.stop = True


def every_task(door: Door, task: str) -> None:
    """Train without saving, validate, predict by the classes of a task, and refuse to resume what is finished."""
    seen: list[str] = []
    trainer = door.trainer(task, save=False, mask_ratio=1, overlap_mask=False)
    trainer.add_callback("on_train_start", lambda trainer: seen.append("train"))
    trainer.train()
    validator, predictor = (
        next(value for key, value in vars(ROOMS[task]).items() if key.endswith(kind))
        for kind in ("Validator", "Predictor")
    )
    validates = validator(args=get_cfg(overrides={"data": door.data(task), "imgsz": 32, "plots": False, "workers": 0}))
    validates.add_callback("on_val_start", lambda validator: seen.append("val"))
    validates(model=trainer.best)
    predicts = predictor(overrides={"imgsz": [64, 64], "save": False})
    predicts.add_callback("on_predict_start", lambda predictor: seen.append("predict"))
    assert len(predicts(source=door.image(task), model=trainer.best)) > 0
    assert seen == ["train", "val", "predict"]
    try:
        door.trainer(task, save=False, resume=trainer.last).train()
    except AssertionError:
        return
    raise RuntimeError("a finished training was resumed")


for _task in ROOMS:

    def _told(door: Door, task: str = _task) -> None:
        every_task(door, task)

    claim(f"test_task[{_task}]", "trainer, validator and predictor by class; a finished run raises AssertionError")(
        _told
    )


@claim("test_resume_incomplete", "resume=True goes on in the second epoch")
def _resume(door: Door) -> None:
    model = door.yolo(door.network())
    model.add_callback("on_train_start", lambda trainer: setattr(trainer, "final_eval", lambda: None))
    model.add_callback("on_train_epoch_end", stop_after_the_first_epoch)
    given = {"data": door.data(), "epochs": 2, "save": True, "name": "resume", **door.settings}
    model.train(**given)
    assert load_checkpoint(model.trainer.last)[1]["epoch"] == 0
    resumed = door.yolo(model.trainer.last)
    resumed.train(resume=True, **given)
    assert resumed.trainer.start_epoch == resumed.trainer.epoch == 1


@claim("test_distill_resume", "a distillation is resumed with its teacher")
def _distill(door: Door) -> None:
    given = {"distill_model": door.weights(), "multi_scale": 0.5, "epochs": 2, "name": "distill"}
    trainer = door.trainer(**given)
    trainer.final_eval = lambda: None
    trainer.add_callback("on_train_epoch_end", stop_after_the_first_epoch)
    trainer.train()
    checkpoint = load_checkpoint(trainer.last)[1]
    assert checkpoint["epoch"] == 0
    assert checkpoint["ema"].teacher_model is None
    assert checkpoint["ema"].projector is not None
    resumed = door.trainer(resume=trainer.last, **given)
    resumed.final_eval = lambda: None
    resumed.train()
    assert unwrap_model(resumed.model).teacher_model is not None
    assert resumed.start_epoch == resumed.epoch == 1


@claim("test_nan_recovery", "a NaN that a callback puts into the running loss does not end the training")
def _nan(door: Door) -> None:
    put = []

    def spoil(trainer: Any) -> None:
        if trainer.epoch == 1 and trainer.tloss is not None and not put:
            losses = trainer.tloss
            trainer.tloss = {name: value * float("nan") for name, value in losses.items()}
            put.append(True)

    trainer = door.trainer(epochs=3, name="nan")
    trainer.add_callback("on_train_batch_end", spoil)
    trainer.train()
    assert put
    assert finite(trainer.last)


def ruined(door: Door, name: str, epochs: int, *, ema: float, model: float | None = None) -> Any:
    """Train while a callback writes numbers into the first element of EMA and model at the end of each epoch."""

    def spoil(trainer: Any) -> None:
        next(iter(trainer.ema.ema.parameters())).data.flatten()[0] = ema
        if model is not None:
            next(iter(unwrap_model(trainer.model).parameters())).data.flatten()[0] = model

    trainer = door.trainer(epochs=epochs, name=name)
    trainer.add_callback("on_train_epoch_end", spoil)
    trainer.train()
    assert finite(trainer.last)
    return trainer


@claim("test_checkpoint_fp16_overflow", "weights above float16's range are saved clamped; the EMA in memory stays")
def _overflow(door: Door) -> None:
    trainer = ruined(door, "overflow", 2, ema=1e5)
    first = next(iter(trainer.ema.ema.parameters()))
    assert first.dtype == torch.float32
    assert first.flatten()[0] == 1e5


@claim("test_checkpoint_nonfinite_ema_resync", "an EMA that is not finite does not keep a checkpoint from being saved")
def _bad_ema(door: Door) -> None:
    ruined(door, "ema", 2, ema=float("inf"))


@claim("test_checkpoint_nonfinite_ema_and_model_sanitized", "nor an EMA and a model that are not finite")
def _bad_both(door: Door) -> None:
    ruined(door, "both", 1, ema=float("inf"), model=float("nan"))


@claim("test_train_reuses_loaded_checkpoint_model", "a loaded model is handed to the trainer, unless pretrained=False")
def _reuse(door: Door) -> None:
    for given, loaded in (({}, True), ({"pretrained": True}, True), ({"pretrained": False}, False)):
        model = door.yolo(door.weights())
        model.overrides["pretrained"] = False if not given else given["pretrained"]
        network, seen = model.model, {}

        class Fake:
            best, last = Path("there-is-none.pt"), Path(door.weights())

            def __init__(self, overrides: Any = None, _callbacks: Any = None) -> None:
                self.validator = SimpleNamespace(metrics=None)
                self.model = None

            def get_model(self, cfg: Any = None, weights: Any = None, verbose: bool = True) -> Any:
                seen.update(cfg=cfg, weights=weights)  # noqa: B023 - it is called within this turn
                return network  # noqa: B023

            def train(self) -> None:
                seen["trained"] = True  # noqa: B023

        model._smart_load = lambda key, fake=Fake: fake
        model.train(data=door.data(), epochs=1, **{"pretrained": True, **given})
        assert seen["trained"]
        assert seen["cfg"] == network.yaml
        assert seen["weights"] is (network if loaded else None)


@claim(
    "test_train_multi_custom_trainer_metrics_and_failure_keys", "own trainers of several data sets keep their metrics"
)
def _several_fake(door: Door) -> None:
    model = door.yolo(door.weights())
    calls = []

    class Fake:
        def __init__(self, overrides: Any = None, _callbacks: Any = None) -> None:
            pass

        def get_model(self, cfg: Any = None, weights: Any = None, verbose: bool = True) -> Any:
            return model.model

        def train(self) -> None:
            calls.append(1)
            if len(calls) == 2:
                raise RuntimeError("the second data set fails")
            self.validator = SimpleNamespace(metrics=SimpleNamespace(results_dict={"fitness": 1.0}))

    Path(door.folder, "some.yaml").write_text(Path(door.data()).read_text())
    data = str(door.folder / "some.yaml")
    results = model.train(data=[data, data], trainer=Fake, save=False, **{**door.settings, "exist_ok": False})
    assert model.trainer.trainer is Fake
    assert results == {"some": {"fitness": 1.0}, "some-2": None}


@claim("test_train_multi", "a list of data sets: one result for each, one folder for all")
def _several(door: Door) -> None:
    model = door.yolo(door.weights())
    model.add_callback("on_train_start", lambda trainer: None)  # in this process, not by commands
    data = door.data()
    results = model.train(data=[data, data], epochs=1, **{**door.settings, "exist_ok": False, "plots": True})
    assert len(results) == len(model.trainer.trainers) == 2
    assert all("fitness" in metrics for metrics in results.values())
    folder = model.trainer.save_dir
    assert folder.name.startswith("multitrain")
    assert {"multitrain_results.json", "multitrain_results.png"} <= {path.name for path in folder.iterdir()}


@claim("test_train_scratch", "images of several formats, cache=disk, close_mosaic, batch=-1")
def _scratch(door: Door) -> None:
    folder = Path(door.data()).parent
    for image, suffix in zip(
        sorted((folder / "images" / "train").glob("*.png")), (".bmp", ".jpg", ".tif", ".webp"), strict=False
    ):
        cv2.imwrite(str(image.with_suffix(suffix)), np.asarray(cv2.imread(str(image))))
        image.unlink()
    model = door.yolo(door.network())
    given = {**door.settings, "batch": -1}
    model.train(data=door.data(), epochs=2, cache="disk", close_mosaic=1, name="scratch", **given)
    assert len(model(door.image(), verbose=False)) == 1


@claim(
    "test_train_pretrained", "segmentation from a checkpoint, cache=ram, copy-paste, mixup, with and without single_cls"
)
def _pretrained(door: Door) -> None:
    for single in (False, True):
        model = door.yolo(door.weights("segment"))
        given = {"cache": "ram", "copy_paste": 0.5, "mixup": 0.5, "name": "0", "single_cls": single, **door.settings}
        model.train(data=door.data("segment"), epochs=1, **given)
        assert len(model(door.image("segment"), verbose=False)) == 1


@claim("test_workflow", "train, validate, predict, export on one object")
def _workflow(door: Door) -> None:
    model = door.yolo(door.weights())
    model.train(data=door.data(), epochs=1, optimizer="SGD", name="flow", **door.settings)
    model.val(imgsz=32, plots=False, workers=0)
    assert len(model.predict(door.image(), imgsz=32, verbose=False)) == 1
    assert Path(model.export(format="torchscript", imgsz=32)).is_file()


@claim("test_yolov10", "a pair of heads: train, validate, predict")
def _end_to_end(door: Door) -> None:
    model = door.yolo(door.network("end2end"))
    model.train(data=door.data(), epochs=1, close_mosaic=1, cache="disk", name="pair", **door.settings)
    model.val(data=door.data(), imgsz=32, plots=False)
    assert len(model(door.image(), verbose=False)) == 1


def channels(door: Door, count: int) -> str:
    """Return a data set whose images have other than three channels."""
    description = yaml.safe_load(Path(door.data()).read_text())
    if count != 1:
        folder = door.folder / "channels"
        for split in ("train", "val"):
            for kind in ("images", "labels"):
                (folder / kind / split).mkdir(parents=True, exist_ok=True)
            for label in sorted(Path(description["path"], "labels", split).glob("*.txt")):
                (folder / "labels" / split / label.name).write_text(label.read_text())
                picture = np.random.default_rng(0).integers(0, 255, (count, 32, 32), dtype=np.uint8)
                cv2.imwritemulti(str(folder / "images" / split / f"{label.stem}.tiff"), list(picture))
        description["path"] = str(folder)
    path = door.folder / f"channels-{count}.yaml"
    path.write_text(yaml.safe_dump({**description, "channels": count}))
    return str(path)


@claim("test_multichannel", "ten channels: train, validate, predict")
def _ten_channels(door: Door) -> None:
    model = door.yolo(door.weights())
    data = channels(door, 10)
    model.train(data=data, epochs=1, close_mosaic=1, cache="disk", name="ten", **door.settings)
    model.val(data=data, plots=False, imgsz=32)
    assert len(model.predict(np.zeros((32, 32, 10), np.uint8), imgsz=32, verbose=False)) == 1


@claim("test_grayscale", "one channel: train, validate, predict, for each task with boxes")
def _one_channel(door: Door) -> None:
    for task in ("detect", "segment", "obb", "pose"):
        description = {**yaml.safe_load(Path(door.data(task)).read_text()), "channels": 1}
        data = door.folder / f"grey-{task}.yaml"
        data.write_text(yaml.safe_dump(description))
        model = door.yolo(door.weights(task))
        model.train(data=str(data), epochs=1, close_mosaic=1, cache="ram", name=f"grey-{task}", **door.settings)
        model.val(data=str(data), plots=False, imgsz=32)
        assert len(model.predict(np.zeros((32, 32, 1), np.uint8), imgsz=32, verbose=False)) == 1


@claim("test_model_tune", "two trainings of a tuning, by commands, over one and two data sets")
def _tune(door: Door) -> None:
    for number, data in enumerate((door.data(), [door.data(), door.data()])):
        given = {**door.settings, "exist_ok": False}
        door.yolo(door.weights()).tune(data=data, epochs=1, iterations=2, name=f"tune{number}", **given)
        assert (door.folder / "runs" / f"tune{number}" / "best_hyperparameters.yaml").is_file()


def doors(folder: Path) -> tuple[Door, Door]:
    """Return stock and the drop-in classes."""
    folders = [folder / name for name in ("stock", "drop-in")]
    for path in folders:
        path.mkdir()
    return (
        Door("stock", ultralytics.YOLO, lambda kind: kind, folders[0]),
        Door("drop-in", yolo_stable.YOLO, yolo_stable.guarded, folders[1]),
    )


def holds(told: Claim, door: Door) -> str:
    """Return yes, or why a claim does not hold."""
    level = LOGGER.level
    LOGGER.setLevel("ERROR")
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            told(door)
    except Exception as error:  # noqa: BLE001 - whatever it is, it is the finding
        return f"{type(error).__name__}: {' '.join(str(error).split())[:150]}"
    finally:
        LOGGER.setLevel(level)
    return "yes"


def main(names: list[str]) -> None:
    """Print the table."""
    table = Table("test of Ultralytics", "claim", "stock", "drop-in")
    for name, (says, told) in CLAIMS.items():
        if names and not any(each in name for each in names):
            continue
        with tempfile.TemporaryDirectory() as folder:
            before = os.getcwd()
            os.chdir(folder)
            try:
                found = [holds(told, door) for door in doors(Path(folder))]
            finally:
                os.chdir(before)
        print(name, *found, sep=" | ", flush=True)
        table.add_row(name, says, *found)
    Console(width=200).print(table)


if __name__ == "__main__":
    main(sys.argv[1:])
