"""All generators that training draws from are kept and set back, and those that are not there are no hindrance."""

from __future__ import annotations

import random

import numpy as np
import pytest
import torch

from yolo_stable.guard.generators import GeneratorStates, random_state, restore_random_state

CPU, META = torch.device("cpu"), torch.device("meta")


def drawn() -> tuple[float, float, float, float]:
    return random.random(), random.gauss(0, 1), float(np.random.standard_normal()), float(torch.rand(()))


@pytest.mark.parametrize("device", [CPU, META], ids=str)
def test_what_is_drawn_after_a_restore_is_what_was_drawn_before(device: torch.device) -> None:
    drawn()  # of two normal numbers, the second is kept until it is asked for
    tensors, plain = random_state(device)
    draw = GeneratorStates(device)
    first = drawn()
    restore_random_state(tensors, plain, device)
    assert drawn() == first
    draw.restore()
    assert drawn() == first
    assert set(tensors) == {"rng/python", "rng/numpy", "rng/torch"}, "a device without a generator of its own has none"


def test_the_state_of_a_draw_is_that_of_its_moment_and_leaves_the_generators_alone() -> None:
    draw = GeneratorStates(CPU)
    tensors, plain = random_state(CPU)
    drawn()
    before = random_state(CPU)
    kept, kept_plain = draw.state()
    assert kept_plain == plain
    assert all(torch.equal(kept[name], tensors[name]) for name in tensors)
    after = random_state(CPU)
    assert after[1] == before[1]
    assert all(torch.equal(after[0][name], before[0][name]) for name in before[0])
