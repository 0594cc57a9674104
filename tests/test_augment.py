"""The conservative augmentation: finite, mild, and as Ultralytics takes it."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import yaml

from yolo_stable.augment import conservative, named
from yolo_stable.errors import InvalidCallError


def test_every_transform_keeps_size_type_and_most_of_the_picture() -> None:
    random = np.random.default_rng(0)
    images = [np.full((64, 48, 3), value, np.uint8) for value in (0, 128, 255)]
    images.append(random.integers(0, 256, (64, 48, 3), dtype=np.uint8))
    furthest = 255 * 0.1 + 255 * 0.1 + 1  # brightness and contrast, both at their limits, and rounding
    for transform in conservative():
        transform.p = 1.0
        transform.set_random_seed(0)
        for image in images:
            for _ in range(5):
                out = transform(image=image)["image"]
                assert (out.shape, out.dtype) == (image.shape, np.uint8)
                if type(transform).__name__ not in {"ToGray", "Blur", "ImageCompression"}:
                    assert np.abs(out.astype(int) - image).mean() <= furthest


def test_nothing_moves_an_object() -> None:
    import albumentations

    assert not any(isinstance(transform, albumentations.DualTransform) for transform in conservative())


def test_a_trainer_takes_the_list_and_keeps_it_in_its_arguments(arguments: Callable[..., dict[str, Any]]) -> None:
    from ultralytics.models.yolo.detect import DetectionTrainer

    trainer = DetectionTrainer(overrides=arguments(epochs=1, augmentations=conservative()))
    trainer.train()
    kept = yaml.safe_load((trainer.save_dir / "args.yaml").read_text())["augmentations"]
    assert [entry["transform"]["__class_fullname__"].split(".")[-1] for entry in kept] == [
        type(transform).__name__ for transform in conservative()
    ]


def test_importing_asks_no_network_and_leaves_the_environment_alone() -> None:
    code = (
        "import os, socket\n"
        "def refuse(*a, **k): raise AssertionError('network')\n"
        "socket.socket.connect = socket.getaddrinfo = refuse\n"
        "from yolo_stable.augment import conservative\n"
        "conservative()\n"
        "assert 'NO_ALBUMENTATIONS_UPDATE' not in os.environ\n"
    )
    environment = {key: value for key, value in os.environ.items() if key != "NO_ALBUMENTATIONS_UPDATE"}
    done = subprocess.run(
        [sys.executable, "-W", "error::UserWarning", "-c", code],
        capture_output=True,
        text=True,
        env=environment,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_a_name_that_is_not_there_is_refused_with_the_nearest() -> None:
    with pytest.raises(InvalidCallError, match="Did you mean 'conservative'"):
        named("conservativ")
