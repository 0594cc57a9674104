"""The order of the data goes on where it was; other data begin anew."""

from __future__ import annotations

import random
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from yolo_stable.checkpoints.loader_state import restore_behind_reset, restore_order, save_order


class Pipeline:
    """Draws as one of Albumentations does; without a seed before its first image."""

    def __init__(self, seed: int | None = None, transforms: Any = ()) -> None:
        self.transforms = list(transforms)
        self.set_random_seed(seed)

    def set_random_seed(self, seed: int | None) -> None:
        self.seed, self.py_random, self.random_generator = seed, random.Random(seed), np.random.default_rng(seed)

    def draw(self) -> tuple[float, float]:
        return self.py_random.random(), float(self.random_generator.random())


class Images:
    """A data set that keeps images for mosaics."""

    def __init__(self, count: int = 5, seed: int | None = None) -> None:
        self.count, self.buffer, self.gone = count, [], {3}
        self.inner = Pipeline(seed)
        self.pipeline = Pipeline(seed, [self.inner])
        self.transforms = SimpleNamespace(transforms=[SimpleNamespace(transform=self.pipeline), None])

    def __len__(self) -> int:
        return self.count

    def load_image(self, index: int) -> None:
        if index in self.gone:
            raise FileNotFoundError(index)
        self.buffer.append(index)


class Loader:
    """A loader without an iterator."""

    def __init__(self, images: Images, seed: int = 0) -> None:
        self.dataset, self.iterator, self.num_workers, self.resets = images, None, 0, 0
        self.generator = torch.Generator().manual_seed(seed)

    def reset(self) -> None:
        self.resets += 1

    def draw(self) -> list[float]:
        images = self.dataset
        return [float(torch.rand((), generator=self.generator)), *images.pipeline.draw(), *images.inner.draw()]


def used() -> Loader:
    loader = Loader(Images(seed=1), seed=2)
    loader.draw()
    loader.dataset.buffer = [4, 3, 0]
    return loader


def test_all_generators_go_on_and_images_that_are_there_are_read_again() -> None:
    before, after = used(), Loader(Images(seed=8), seed=9)
    tensors, plain = save_order(before)
    restore_order(after, tensors, plain)
    assert after.draw() == before.draw()
    assert after.dataset.buffer == [4, 0]


def test_other_data_begin_anew() -> None:
    other, same = Loader(Images(6, seed=8), seed=9), Loader(Images(6, seed=8), seed=9)
    restore_order(other, *save_order(used()))
    assert other.draw() == same.draw()
    assert other.dataset.buffer == []


def test_another_rank_keeps_its_generators() -> None:
    other, same = Loader(Images(seed=8), seed=9), Loader(Images(seed=8), seed=9)
    restore_order(other, *save_order(used()), generators=False)
    assert other.draw() == same.draw()
    assert other.dataset.buffer == [4, 0]


def test_what_was_not_used_yet_has_no_state_to_go_on_with() -> None:
    _, plain = save_order(Loader(Images()))
    assert plain == {"images": 5, "running": False, "buffer": [], "augmentation": [None, None]}
    after, same = Loader(Images(seed=8), seed=9), Loader(Images(seed=8), seed=9)
    restore_order(after, {}, plain)
    assert after.draw() == same.draw()


@pytest.mark.parametrize("generators", [True, False])
def test_a_reset_that_is_behind_the_run_is_undone_once(generators: bool) -> None:
    before, after, same = used(), Loader(Images(seed=8), seed=9), Loader(Images(seed=8), seed=9)
    restore_behind_reset(after, *save_order(before), generators=generators)
    assert after.resets == 0
    after.reset()
    assert after.resets == 1
    assert after.draw() == (before if generators else same).draw()
    after.reset()
    assert after.resets == 2
    assert after.draw() == (before if generators else same).draw(), "it goes on"
