"""Honest little trainings that look odd: what people really do, scaled down to seconds."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from . import oddity_habits as habits
from .oddity_pictures import BACKGROUND, DataSet, Look, Looks

BESIDE = "other"
"""Folder of a second data set, beside the one that the run begins with."""


@dataclass(frozen=True, kw_only=True)
class Story:
    """One training."""

    data: DataSet = field(default_factory=DataSet)
    settings: Mapping[str, Any] = field(default_factory=dict)
    """Ultralytics' arguments that are not those of :data:`COMMON`."""
    network: str = "detect"
    """A kind of :func:`~benchmarks.oddity_networks.small_network`, or a YAML that Ultralytics brings along."""
    habit: habits.Habit | None = None
    subclass: habits.Subclass | None = None
    beside: DataSet | None = None
    """A second data set, drawn into the folder ``other`` beside the first."""
    first: Mapping[str, Any] | None = None
    """Arguments of an earlier stock training that this one goes on from."""
    teacher: bool = False
    """Whether that earlier training's network is only the teacher of a distillation."""
    unplugged_at: int | None = None
    """Epoch from 0 at whose begin the process is gone; it is resumed then."""
    resumes_stock: bool = False
    """Whether the run that is resumed was stock's in both cases."""
    tells: tuple[str, ...] = ()
    """Parts of the sentences that are rightly said of it, which accuse nobody."""
    twice: bool = False
    """Whether ``YOLO(...).train(...)`` is called a second time on the same object."""

    @property
    def task(self) -> str:
        """The task of the trainer."""
        return self.data.task if self.network != "rtdetr" else "rtdetr"


COMMON: dict[str, Any] = {
    "epochs": 15,
    "imgsz": 64,
    "batch": 4,
    "nbs": 4,
    "optimizer": "SGD",
    "amp": False,
    "device": "cpu",
    "workers": 0,
    "plots": False,
    "verbose": False,
    "exist_ok": True,
    "close_mosaic": 0,
}
"""Eight steps in each of fifteen epochs."""
PLAIN = {"mosaic": 0.0, "hsv_h": 0.0, "hsv_s": 0.0, "hsv_v": 0.0}


def blocks(*looks: Look, of: int) -> Looks:
    """Return looks that follow each other in blocks of so many pictures."""
    return lambda number: looks[number // of % len(looks)]


def later(count: int, first: Look, then: Look) -> Looks:
    """Return the looks of pictures that are of one kind first, and of another from a number on."""
    return lambda number: first if number < count else then


def always(look: Look) -> Looks:
    """Return one look for all pictures."""
    return lambda _: look


CROWD = Look(objects=60, side=(0.03, 0.12))
TINY = Look(objects=6, side=(0.02, 0.05))
EASY, HARD = Look(side=(0.6, 0.9), ground=(0.0, 0.0)), Look(objects=5, side=(0.1, 0.25), ground=(0.0, 0.9))
SOURCES = (Look(ground=(0.0, 0.05)), Look(ground=(0.85, 1.0), paint=(0.0, 0.3)), CROWD, BACKGROUND)
SHAPES = (Look(objects=0, width=96, height=24), Look(), Look(objects=12, side=(0.1, 0.3), width=24, height=96))
SLOW = {"lr0": 1e-6, "warmup_bias_lr": 1e-6}
TRAINED = {"epochs": 25, "lr0": 0.01}

ORDERS: dict[str, Story] = {
    "rect with blocks of shapes": Story(
        data=DataSet(looks=blocks(*SHAPES, of=32), train=96), settings={"rect": True, "epochs": 20}
    ),
    "backgrounds first in each epoch": Story(
        data=DataSet(looks=later(80, BACKGROUND, HARD), train=128), subclass=habits.in_order, settings={**PLAIN}
    ),
    "one source after the other": Story(
        data=DataSet(looks=blocks(*SOURCES, of=24), train=96), subclass=habits.in_order, settings={**PLAIN}
    ),
    "one class after the other": Story(
        data=DataSet(looks=lambda n: Look(kinds=(n // 24,)), train=96, classes=4), subclass=habits.in_order
    ),
    "from few objects to many": Story(
        data=DataSet(looks=lambda n: Look(objects=n // 6, side=(0.1, 0.3)), train=96), subclass=habits.in_order
    ),
    "curriculum from easy to hard": Story(
        data=DataSet(looks=later(32, EASY, HARD), train=64),
        subclass=habits.sampled(lambda _: habits.Order(range(32))),
        habit=habits.curriculum([range(32), range(16, 48), range(32, 64)], epochs=8),
        settings={"epochs": 24},
    ),
    "from hard to easy and back": Story(
        data=DataSet(looks=later(32, EASY, HARD), train=64),
        subclass=habits.sampled(lambda _: habits.Order(range(32))),
        habit=habits.curriculum([range(32, 64), range(32), range(32, 64)], epochs=8),
        settings={"epochs": 24, **PLAIN},
    ),
    "weighted sampler": Story(subclass=habits.sampled(habits.weighted)),
    "one picture listed twenty times": Story(data=DataSet(listed=lambda files: [*files, *files[:1] * 20])),
    "backgrounds for epochs, then objects": Story(
        data=DataSet(looks=later(32, BACKGROUND, HARD), train=64),
        subclass=habits.sampled(lambda _: habits.Order(range(32))),
        habit=habits.curriculum([range(32), range(32, 64)], epochs=12),
        settings={"epochs": 24, **PLAIN},
    ),
    "other pictures from epoch 8 on": Story(
        beside=DataSet(looks=always(Look(objects=8, side=(0.1, 0.2), ground=(0.7, 1.0), paint=(0.0, 0.2)))),
        habit=lambda trainer: habits.at_epoch(8, habits.other_pictures(beside_of(trainer)))(trainer),
    ),
    "bigger pictures from epoch 8 on": Story(habit=habits.at_epoch(8, habits.bigger_pictures)),
}
SIZES: dict[str, Story] = {
    "one picture": Story(data=DataSet(train=1, val=1), settings={"epochs": 60}),
    "two pictures": Story(data=DataSet(train=2, val=1), settings={"epochs": 60}),
    "eight pictures, and validation on them": Story(
        data=DataSet(train=8, val_is_train=True), settings={"epochs": 40, "optimizer": "AdamW", "lr0": 0.005}
    ),
    "batches of one": Story(data=DataSet(train=24), settings={"batch": 1, "nbs": 1, "epochs": 8}),
    "batch larger than the data": Story(data=DataSet(train=6), settings={"batch": 64, "nbs": 64, "epochs": 40}),
    "one batch an epoch, nbs of 64": Story(data=DataSet(train=6), settings={"batch": 8, "nbs": 64, "epochs": 120}),
    "nbs of 256, steps over epochs": Story(data=DataSet(train=24), settings={"nbs": 256, "epochs": 30}),
    "nbs of 1": Story(settings={"nbs": 1}),
    "last batch of one": Story(data=DataSet(train=33)),
    "fraction": Story(data=DataSet(train=64), settings={"fraction": 0.3}),
    "validation of one picture": Story(data=DataSet(val=1), settings={"epochs": 30, "lr0": 0.02}),
}
PICTURES: dict[str, Story] = {
    "gray": Story(data=DataSet(bands=1)),
    "four bands": Story(data=DataSet(bands=4)),
    "ten bands in a tiff": Story(data=DataSet(bands=10, suffix=".tiff")),
    "16 bits in a png": Story(data=DataSet(depth=np.uint16)),
    "16 bits in a tiff": Story(data=DataSet(depth=np.uint16, suffix=".tiff")),
    "numbers of 16 bits in arrays": Story(
        data=DataSet(depth=np.float32, suffix=".npy"), settings=PLAIN, tells=("float16 cannot",)
    ),
    "thermal pictures, nearly black": Story(data=DataSet(looks=always(Look(ground=(0, 0.01), paint=(0.01, 0.03))))),
    "black pictures among bright ones": Story(
        data=DataSet(looks=blocks(Look(ground=(0, 0), paint=(0, 0)), Look(ground=(0.9, 1)), of=1)), settings=PLAIN
    ),
    "negatives among positives": Story(subclass=habits.inverted, settings={"batch": 2}),
    "mean and spread taken off": Story(subclass=habits.normalised),
    "nothing but noise": Story(data=DataSet(looks=always(Look(ground=(0, 1), paint=(0, 1), lie=True)))),
    "labels that lie": Story(data=DataSet(looks=always(Look(lie=True))), settings={"optimizer": "AdamW", "lr0": 0.01}),
    "half of the objects without label": Story(data=DataSet(looks=always(Look(objects=4, told=0.5)))),
    "crowds": Story(data=DataSet(looks=always(CROWD), val_looks=always(CROWD)), settings={"epochs": 8}),
    "one crowd among single objects": Story(data=DataSet(looks=later(30, Look(), CROWD)), settings=PLAIN),
    "objects of a pixel or two": Story(data=DataSet(looks=always(TINY))),
    "objects that fill the picture": Story(data=DataSet(looks=always(Look(side=(0.98, 1.0))))),
    "objects as thin as lines": Story(data=DataSet(looks=always(Look(side=(0.5, 0.9), flat=0.03)))),
    "forty classes of two pictures": Story(
        data=DataSet(looks=lambda n: Look(kinds=(n // 2,)), train=80, classes=40), settings={"epochs": 8}
    ),
    "one class for all": Story(settings={"single_cls": True}),
    "rare class with a weight": Story(
        data=DataSet(looks=lambda n: Look(kinds=(int(n == 0),))), settings={"cls_pw": 1.0}
    ),
    "validation without labels": Story(data=DataSet(val_looks=always(BACKGROUND)), settings={"patience": 4}),
    "all colours, brightness and bands shaken": Story(
        settings={"hsv_h": 1.0, "hsv_s": 1.0, "hsv_v": 1.0, "bgr": 0.5, "degrees": 180.0, "shear": 20.0, "flipud": 0.5}
    ),
}
RATES: dict[str, Story] = {
    "fine-tuning at ten times the rate": Story(first=TRAINED, settings={"lr0": 0.1, "warmup_epochs": 0.0}),
    "fine-tuning with AdamW at ten times the rate": Story(
        first=TRAINED, settings={"lr0": 0.01, "optimizer": "AdamW", "warmup_epochs": 0.0}
    ),
    "a rate that moves nothing": Story(settings=SLOW),
    "warm-up longer than the run": Story(settings={"warmup_epochs": 40.0}),
    "no warm-up": Story(settings={"warmup_epochs": 0.0}),
    "cosine": Story(settings={"cos_lr": True, "lr0": 0.02}),
    "a rate ten times higher from epoch 7 on": Story(
        habit=habits.learning_rate(lambda epoch: None if epoch < 7 else 0.1), settings={"warmup_epochs": 1.0}
    ),
    "a rate of nothing from epoch 7 on": Story(habit=habits.learning_rate(lambda epoch: None if epoch < 7 else 0.0)),
    "warm restarts": Story(
        habit=habits.learning_rate(lambda epoch: 0.05 * (1 + math.cos(math.pi * (epoch % 5) / 5)) / 2),
        settings={"warmup_epochs": 0.0},
    ),
    "no weight decay, no momentum": Story(settings={"weight_decay": 0.0, "momentum": 0.0, "warmup_momentum": 0.0}),
    "gains of 50": Story(settings={"box": 50.0, "cls": 50.0, "dfl": 50.0, "lr0": 0.001}),
    "gains of a thousandth": Story(settings={"box": 1e-3, "cls": 1e-3, "dfl": 1e-3}),
    "gains of 0 but one": Story(settings={"box": 0.0, "dfl": 0.0}),
    "a loss a hundred times as loud from epoch 5 on": Story(
        subclass=habits.louder_later, settings={"optimizer": "AdamW", "lr0": 1e-3}
    ),
    "first the head, then all": Story(
        first=TRAINED, habit=habits.frozen(("model.0.", "model.1.", "model.2."), until=7)
    ),
    "frozen backbone": Story(first=TRAINED, settings={"freeze": 4}),
    "statistics of BatchNorm kept still": Story(
        first=TRAINED, habit=habits.on("on_train_batch_start", habits.still_statistics)
    ),
    "hooks that make gradients small": Story(habit=habits.at_epoch(0, habits.small_gradients)),
    "an average that follows at once": Story(habit=habits.at_epoch(0, habits.average_follows_fast)),
    "a parameter that is not the model's": Story(habit=habits.at_epoch(0, habits.parameter_of_its_own)),
}
AUGMENTED: dict[str, Story] = {
    "end of mosaic": Story(settings={"close_mosaic": 5, "mosaic": 1.0}),
    "mixup, cutmix, mosaic, copy-paste at once": Story(
        data=DataSet(task="segment", looks=always(Look(objects=3))),
        network="segment",
        settings={"mixup": 1.0, "cutmix": 1.0, "mosaic": 1.0, "copy_paste": 1.0, "close_mosaic": 4, "epochs": 10},
    ),
    "sizes from a half to one and a half": Story(settings={"multi_scale": 0.5}),
    "no augmentation": Story(settings={**PLAIN, "translate": 0.0, "scale": 0.0, "fliplr": 0.0}),
}
OPTIMIZERS: dict[str, Story] = {
    f"optimizer {name}": Story(settings={"optimizer": name, "lr0": rate})
    for name, rate in {
        "AdamW": 0.002, "Adam": 0.002, "Adamax": 0.002, "NAdam": 0.002, "RAdam": 0.002, "RMSProp": 0.0005,
        "MuSGD": 0.01, "auto": 0.01,
    }.items()
} | {"an optimizer of one's own": Story(habit=habits.at_epoch(0, habits.other_optimizer))}  # fmt: skip
RUNS: dict[str, Story] = {
    "resumed after epoch 6": Story(unplugged_at=6),
    "resumed after epoch 6 with a window open": Story(
        data=DataSet(train=24), settings={"nbs": 16, "warmup_epochs": 0.0}, unplugged_at=6
    ),
    "stock's run resumed": Story(unplugged_at=6, resumes_stock=True, tells=("no last.safetensors",)),
    "a time instead of epochs": Story(settings={"time": 0.002}, habit=habits.scripted_clock),
    "small patience": Story(settings={"patience": 2, "epochs": 30, "lr0": 0.02}),
    "small patience, nothing found yet": Story(
        settings={"patience": 3, "epochs": 30, **SLOW}, tells=("guard.stop_at_zero",)
    ),
    "not deterministic": Story(settings={"deterministic": False, "seed": 7}),
    "pictures kept in memory": Story(settings={"cache": "ram"}),
    "pictures kept on the disk": Story(settings={"cache": "disk"}),
    "two workers": Story(settings={"workers": 2, "epochs": 6}),
    "every epoch saved": Story(settings={"save_period": 1, "epochs": 6}),
    "nothing saved": Story(settings={"save": False}),
    "no validation": Story(settings={"val": False}),
    "validation every third epoch": Story(
        habit=habits.on("on_train_epoch_start", lambda t: setattr(t.args, "val", t.epoch % 3 == 0))
    ),
    "stopped by a callback": Story(
        habit=habits.at_epoch(5, lambda trainer: setattr(trainer, "stop", True), "on_train_batch_end")
    ),
    "random numbers drawn in callbacks": Story(habit=habits.on("on_train_batch_end", habits.draw_numbers)),
    "own weights, other classes": Story(
        data=DataSet(classes=5, looks=lambda n: Look(kinds=(n % 5,))), beside=DataSet(), first=TRAINED
    ),
    "trained twice": Story(twice=True, settings={"epochs": 8}),
    "distillation": Story(first={"epochs": 4}, teacher=True, settings={"epochs": 8}),
}
TASKS: dict[str, Story] = {
    **{
        f"task {task}": Story(data=DataSet(task=task), network=task)
        for task in ("detect", "segment", "pose", "obb", "classify")
    },
    "classify with dropout, batch of one": Story(
        data=DataSet(task="classify"), network="classify", settings={"dropout": 0.5, "batch": 1, "nbs": 1, "epochs": 5}
    ),
    "classify, 8 pictures of one class": Story(
        data=DataSet(
            task="classify", train=8, val=4, looks=always(Look(kinds=(0,))), val_looks=always(Look(kinds=(0,)))
        ),
        network="classify",
        settings={"epochs": 30},
    ),
    "pose without objects in most pictures": Story(
        data=DataSet(task="pose", looks=later(28, BACKGROUND, Look())), network="pose", settings=PLAIN
    ),
    "RT-DETR": Story(network="rtdetr", settings={"optimizer": "AdamW", "lr0": 1e-4, "epochs": 8}),
    "YOLO26's pair of heads, MuSGD": Story(network="end2end", settings={"optimizer": "MuSGD"}),
    "YOLO26's pair of heads, crowds": Story(
        network="end2end", data=DataSet(looks=always(CROWD)), settings={"epochs": 6}
    ),
    **{
        name: Story(network=name, data=DataSet(train=8, val=4), settings={"epochs": 3, "optimizer": "auto"})
        for name in ("yolo26n.yaml", "yolo11n.yaml", "yolov8n.yaml", "yolov10n.yaml")
    },
}
STORIES: dict[str, Story] = {
    **ORDERS, **SIZES, **PICTURES, **RATES, **AUGMENTED, **OPTIMIZERS, **RUNS, **TASKS,
}  # fmt: skip


def beside_of(trainer: Any) -> str:
    """Return the training pictures of the second data set of a run's story."""
    return str(Path(trainer.args.data).parent.parent / BESIDE / "images" / "train")
