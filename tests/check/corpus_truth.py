"""What the installed Ultralytics does with a data set: its own trainers read it, build a network for it and take a batch."""

from __future__ import annotations

import random
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
import yaml
from check.corpus_descriptions import Case
from check.corpus_folders import Folder
from check.corpus_member import Group, Member
from check.planted import encoded, picture
from ultralytics.cfg import get_cfg
from ultralytics.models.yolo.classify import ClassificationTrainer
from ultralytics.models.yolo.detect import DetectionTrainer
from ultralytics.models.yolo.obb import OBBTrainer
from ultralytics.models.yolo.pose import PoseTrainer
from ultralytics.models.yolo.segment import SegmentationTrainer

TRAINERS: dict[str, Any] = {
    "detect": DetectionTrainer,
    "segment": SegmentationTrainer,
    "pose": PoseTrainer,
    "obb": OBBTrainer,
    "classify": ClassificationTrainer,
}
HEADS: dict[str, list[Any]] = {
    "detect": ["Detect", ["nc"]],
    "segment": ["Segment", ["nc", 8, 16]],
    "pose": ["Pose", ["nc", "kpt_shape"]],
    "obb": ["OBB", ["nc", 1]],
    "classify": ["Classify", ["nc"]],
}
FAR = 12.0
"""Grey levels of 255 by which pixels may differ on average: what a JPEG loses is below."""
REFERENCE = "0 reference.png"


@dataclass(frozen=True)
class Outcome:
    """What became of a file or of a data set.

    Attributes:
        kind: ``trains`` (as it was meant), ``changed``, ``skipped``, ``unread`` (never listed) or ``raises``.
        what: In which way.
    """

    kind: str
    what: str = ""


def _trainer(task: str, given: Path, **changes: Any) -> Any:
    """Return a trainer of Ultralytics that has read the description, and nothing else."""
    trainer = TRAINERS[task].__new__(TRAINERS[task])
    words = {
        "imgsz": 32 if task == "classify" else 64,
        "batch": 64,
        "workers": 0,
        "mosaic": 0.0,
        "fliplr": 1.0,
        "task": task,
    }
    trainer.args = get_cfg(overrides={"mode": "train", "data": str(given), **words, **changes})
    trainer.device, trainer.resume, trainer.stride = torch.device("cpu"), False, 32
    trainer.data = trainer.get_dataset()
    trainer.model = torch.nn.Module()
    trainer.model.stride = torch.tensor([32])
    return trainer


def _network(trainer: Any) -> Any:
    """Return the smallest network of a task that Ultralytics builds for the data set."""
    task = trainer.args.task
    head = HEADS[task]
    layers = {"backbone": [[-1, 1, "Conv", [8, 3, 16]]], "head": [[[0] if task != "classify" else 0, 1, *head]]}
    if task == "pose":
        layers["kpt_shape"] = trainer.data["kpt_shape"]
    network = trainer.get_model({"nc": trainer.data["nc"], "scale": "n", **layers}, verbose=False)
    network.args = trainer.args
    return network


def _taken(trainer: Any, network: Any, batch: dict[str, Any]) -> None:
    """Let the network take a batch, as a training step does."""
    batch = trainer.preprocess_batch(batch)
    loss, _ = network(batch)
    if not bool(torch.isfinite(loss).all()):
        raise FloatingPointError("the loss is not finite")


def of_group(group: Group, root: Path) -> dict[str, Outcome]:
    """Return what becomes of each member of a data set; some JPEGs are rewritten by this."""
    random.seed(0)
    np.random.seed(0)
    trainer = _trainer(group.task, root / "data.yaml")
    folder = root / "images" / "train"
    before = {member.name: _bytes(folder / member.name) for member in group.members}
    data = trainer.build_dataset(trainer.data["train"], "train", 4)
    listed = set(data.get_img_files(data.img_path))
    places = {path: place for place, path in enumerate(data.im_files)}
    network = _network(trainer)
    reference = places[str(folder / REFERENCE)]
    outcomes: dict[str, Outcome] = {}
    samples: dict[str, Any] = {}
    for member in group.members:
        path = folder / member.name
        if str(path) not in listed:
            outcomes[member.name] = Outcome("unread")
            continue
        if str(path) not in places:
            outcomes[member.name] = Outcome("skipped")
            continue
        place = places[str(path)]
        try:
            label, image = data.labels[place], data.load_image(place)[0]
            samples[member.name] = data[place]
            pair = [data[reference], deepcopy(samples[member.name])]  # joining them writes into them
            batch = trainer.preprocess_batch(data.collate_fn(pair))
            network.model[0](batch["img"])
        except Exception as error:  # noqa: BLE001 - whatever it is, training ends with it
            samples.pop(member.name, None)
            outcomes[member.name] = Outcome("raises", f"{type(error).__name__}: {error}"[:200])
            continue
        change = _change(member, label, image) or (before[member.name] != _bytes(path) and "rewritten")
        outcomes[member.name] = Outcome("changed", change) if change else Outcome("trains")
    _taken(trainer, network, data.collate_fn([data[reference], *samples.values()]))
    return outcomes


def _bytes(path: Path) -> bytes:
    return path.read_bytes() if path.is_file() else b""


def _change(member: Member, label: dict[str, Any], image: np.ndarray) -> str:
    """Return how an image or its objects differ from what is meant, or nothing."""
    if member.objects is not None:
        rows = np.concatenate([label["cls"], label["bboxes"]], 1)
        if label["keypoints"] is not None:
            points = label["keypoints"]
            rows = np.concatenate([rows, points.reshape(len(rows), points.shape[1] * points.shape[2])], 1)
        meant = np.array(member.objects, dtype=np.float32).reshape(len(member.objects), rows.shape[1])
        if len(rows) != len(meant):
            return f"{len(rows)} objects, {len(meant)} are meant"
        if len(rows) and not np.allclose(rows[np.lexsort(rows.T)], meant[np.lexsort(meant.T)], atol=1e-4):
            return "other objects"
    if member.pixels is not None:
        pixels = member.pixels
        if image.shape[:2] != pixels.shape[:2]:
            size = (image.shape[1], image.shape[0])
            if abs(size[0] * pixels.shape[0] / (size[1] * pixels.shape[1]) - 1) > 0.1:
                return "other sides"
            pixels = cv2.resize(pixels, size).reshape(*image.shape[:2], -1)
        far = float(np.abs(image.astype(np.float64) - pixels).mean())
        if not far <= FAR:
            return f"pixels are {far:.0f} levels off"
    return ""


def write_group(group: Group, root: Path) -> Path:
    """Write a data set: its members for training, beside a plain image, and the plain image for validation."""
    folders = {kind: root / kind / "train" for kind in ("images", "labels")}
    row = (
        next(m.labels for m in group.members if m.labels and m.objects)
        if group.task != "detect"
        else b"0 0.5 0.5 0.4 0.4\n"
    )
    channels = group.description.get("channels", 3)
    for split, seed in (("train", 1), ("val", 2)):
        for kind in folders:
            (root / kind / split).mkdir(parents=True)
        plain = root / "images" / split / REFERENCE
        plain.write_bytes(encoded(picture(seed)))
        if channels not in (1, 3):
            bands = np.dstack([picture(seed + n)[..., 0] for n in range(channels)])
            np.save(plain.with_suffix(".npy"), bands)
        (root / "labels" / split / f"{plain.stem}.txt").write_bytes(row)
    for member in group.members:
        image = folders["images"] / member.name
        label = folders["labels"] / f"{member.name.rpartition('.')[0] or member.name}.txt"
        if member.image is not None:
            image.write_bytes(member.image)
        if member.labels is not None:
            label.write_bytes(member.labels)
        if member.plant is not None:
            member.plant(image, label)
    keys = {"path": str(root), "train": "images/train", "val": "images/val", "names": ["a", "b"], **group.description}
    (root / "data.yaml").write_text(yaml.safe_dump(keys))
    return root / "data.yaml"


def _fetched(trainer: Any) -> dict[str, Any]:
    """Return the data sets of training and validation, of which a batch each was fetched, and one was trained on."""
    loaders = {mode: trainer.get_dataloader(trainer.data[mode], 64, -1, mode) for mode in ("train", "val")}
    batches = {mode: next(iter(loader)) for mode, loader in loaders.items()}
    _taken(trainer, _network(trainer), batches["train"])
    return {mode: loader.dataset for mode, loader in loaders.items()}


def of_case(case: Case, given: Path) -> Outcome:
    """Return what becomes of a described data set."""
    random.seed(0)
    try:
        trainer = _trainer(case.task, given)
        parts = _fetched(trainer)
    except Exception as error:  # noqa: BLE001 - as above
        return Outcome("raises", f"{type(error).__name__}: {error}"[:300])
    names = tuple(name for _, name in sorted(trainer.data["names"].items()))
    wrong = [f"names are {names}"] if names != case.names else []
    for mode, meant in (("train", case.train), ("val", case.val)):
        labels = parts[mode].labels
        if len(labels) != meant:
            wrong.append(f"{mode} has {len(labels)} images, {meant} are meant")
        elif (objects := sum(len(label["cls"]) for label in labels)) != 2 * meant:
            wrong.append(f"{mode} has {objects} objects, {2 * meant} are meant")
    return Outcome("changed", "; ".join(wrong)) if wrong else Outcome("trains")


def of_folder(folder: Folder, given: Path) -> Outcome:
    """Return what becomes of a folder of classes."""
    try:
        trainer = _trainer("classify", given, cache=False)
        parts = _fetched(trainer)
    except Exception as error:  # noqa: BLE001 - as above
        return Outcome("raises", f"{type(error).__name__}: {error}"[:300])
    names = trainer.data["names"]
    wrong = [f"names are {tuple(names.values())}"] if tuple(names.values()) != folder.classes else []
    for mode, meant in (("train", folder.train), ("val", folder.val)):
        data = parts[mode]
        if meant is not None and len(data.samples) != meant:
            wrong.append(f"{mode} has {len(data.samples)} images, {meant} are meant")
        for path, label, *_ in data.samples:
            if (there := Path(path).relative_to(data.root).parts[0]) != names[label]:
                wrong.append(f"{there} is taken for {names[label]}")
                break
    return Outcome("changed", "; ".join(wrong)) if wrong else Outcome("trains")
