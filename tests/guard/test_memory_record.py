"""What a loss keeps goes through JSON and tensors into a loss that was made anew."""

from __future__ import annotations

import json
from typing import Any

import pytest
import torch
from memories import KINDS, Mean, picture
from torch import nn

from yolo_stable.guard.memory import Memory
from yolo_stable.guard.memory_record import put_back, record


class Model(nn.Module):
    def __init__(self, kind: str) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(()))
        self.criterion: Any = KINDS[kind]()


def trained(kind: str, batches: int) -> tuple[Model, Memory, list[str]]:
    model = Model(kind)
    said: list[str] = []
    memory = Memory(model, tell=said.append)
    for number in range(batches):
        memory.before_forward()
        model.criterion(model.weight * (0.3 + number))
        memory.accept()
        memory.commit()
    return model, memory, said


@pytest.mark.parametrize("kind", KINDS)
def test_a_memory_goes_through_a_file_and_on_as_before(kind: str) -> None:
    before, memory, said = trained(kind, 7)
    tensors, entries = record(memory)
    text = json.dumps(entries)
    after, fresh, _ = trained(kind, 0)
    assert picture(after.criterion) != picture(before.criterion)
    put_back(fresh, {name: tensor.clone() for name, tensor in tensors.items()}, json.loads(text))
    for _ in range(2):
        assert picture(after.criterion) == picture(before.criterion)
        for model in (before, after):
            model.criterion(model.weight * 0.7)
    assert said == []


def test_objects_that_a_batch_has_made_are_not_made_of_a_file() -> None:
    model, memory, said = trained("Objects", 3)
    memory.before_forward()
    model.criterion.means.append(Mean())
    memory.accept()
    tensors, entries = record(memory)
    assert said == []
    after, fresh, said = trained("Objects", 0)
    put_back(fresh, tensors, entries)
    assert said[0] == "criterion.means of the saved run has no place in the loss of now"
    assert after.criterion.means[0].value == model.criterion.means[0].value, "what has one is there"


def test_where_a_loss_computed_is_for_the_next_run_to_find_out_and_in_which_type_is_kept() -> None:
    model, memory, said = trained("Objects", 2)
    memory.before_forward()
    model.criterion.device, model.criterion.dtype = torch.device("cuda:3"), torch.bfloat16
    memory.accept()
    tensors, entries = record(memory)
    after, fresh, told = trained("Objects", 0)
    after.criterion.device = torch.device("cpu")
    put_back(fresh, tensors, json.loads(json.dumps(entries)))
    assert (after.criterion.device, after.criterion.dtype) == (torch.device("cpu"), torch.bfloat16)
    assert said == told == []


def test_what_no_file_can_keep_is_said_once() -> None:
    model, memory, said = trained("Number", 1)
    for _ in range(2):
        memory.before_forward()
        model.criterion.made = lambda: 0
        memory.accept()
        record(memory)
    assert said == ["criterion holds what no file can keep: a resumed run starts it from the beginning"]


def test_what_has_no_place_is_said() -> None:
    _, memory, _ = trained("Nested", 3)
    tensors, entries = record(memory)
    _, fresh, said = trained("Number", 0)
    put_back(fresh, tensors, entries)
    assert said[0] == "criterion.by_name of the saved run has no place in the loss of now"


def test_a_loss_without_a_memory_takes_nothing_in_the_file() -> None:
    model = Model("Number")
    model.criterion = nn.MSELoss()
    memory = Memory(model)
    memory.before_forward()
    memory.accept()
    assert record(memory) == ({}, [])


@pytest.mark.parametrize(
    "kept",
    [torch.tensor([1.0, 2.0, 3.0]), torch.tensor(2.5, dtype=torch.float64), torch.tensor([1.0, 2.0, 3.0]).double()],
    ids=["three numbers", "another type", "both"],
)
def test_a_tensor_of_another_shape_or_type_takes_the_place_of_the_one_that_is_there(kept: torch.Tensor) -> None:
    """Copied into it, it would be rounded, or not fit."""
    before, memory, said = trained("TensorInPlace", 0)
    memory.before_forward()
    before.criterion.mean = kept
    memory.accept()
    tensors, entries = record(memory)
    after, fresh, told = trained("TensorInPlace", 1)
    assert after.criterion.mean.shape == ()
    put_back(fresh, tensors, json.loads(json.dumps(entries)))
    assert torch.equal(after.criterion.mean, kept)
    assert after.criterion.mean.dtype is kept.dtype
    assert said == told == []


def test_where_a_loss_computes_is_where_this_run_does() -> None:
    def memory_of(model: Model) -> Memory:
        model.criterion = Mean()
        return Memory(model)

    before, after = Model("Deque"), Model("Deque")
    memory, fresh = memory_of(before), memory_of(after)
    memory.before_forward()
    before.criterion.place, before.criterion.old_place = torch.device("cpu"), torch.device("cpu")
    memory.accept()
    memory.commit()
    tensors, entries = record(memory)
    after.criterion.old_place = torch.device("meta")
    put_back(fresh, tensors, json.loads(json.dumps(entries)))
    assert (after.criterion.place, after.criterion.old_place) == (torch.device("cpu"), torch.device("meta"))
