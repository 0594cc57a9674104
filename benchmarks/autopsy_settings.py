"""What the autopsies are measured on: tasks, precisions, augmentations, and narrow networks for them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from yolo_stable.trainer.trainers import TRAINERS

from .narrow import HEADS, NETWORK

ALWAYS = {"hsv_h": 0.0, "hsv_s": 0.0, "hsv_v": 0.0, "mosaic": 1.0}


@dataclass(frozen=True, slots=True)
class Setting:
    """What a rig trains."""

    task: str
    precision: str = "float32"
    accumulate: int = 1
    """Micro-batches of a window."""
    changes: tuple[tuple[str, Any], ...] = ()
    """Further overrides of the trainer."""


MIXED = (("mixup", 0.5), ("cutmix", 0.3), ("copy_paste", 0.5))
SETTINGS: dict[str, Setting] = {
    **{task: Setting(task) for task in TRAINERS},
    "end2end": Setting("detect"),
    "windows": Setting("detect", accumulate=2),
    "mixed": Setting("detect", changes=MIXED),
    "mixed segment": Setting("segment", changes=(*MIXED, ("degrees", 10.0), ("perspective", 0.0005))),
    "multi scale": Setting("detect", changes=(("multi_scale", 0.5), ("degrees", 5.0))),
    "adamw": Setting("detect", changes=(("optimizer", "AdamW"), ("lr0", 0.002))),
    "float16": Setting("detect", precision="float16"),
    "bfloat16": Setting("segment", precision="bfloat16"),
}
"""Each network is about an eighth of the smallest YOLO11 in width; mosaic is on in all, where the task has it."""


def network(folder: Path, name: str, task: str) -> Path:
    """Return the YAML of a narrow network."""
    path = folder / f"narrow-{name.replace(' ', '-')}-{task}.yaml"
    spec: dict[str, Any] = {**NETWORK}
    if task == "classify":
        spec["head"] = [[-1, 1, "Classify", ["nc"]]]
    elif task in HEADS:
        spec["head"] = [*NETWORK["head"][:-1], [[9, 12], 1, *HEADS[task]]]
    if task == "pose":
        spec["kpt_shape"] = [4, 3]
    if name == "end2end":
        spec.update(end2end=True, reg_max=1)
    path.write_text(yaml.safe_dump(spec), encoding="utf-8")
    return path
