from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from autopsy_rig import box_case, boxes, classifier, network, run, tensor_case
from torch import Tensor, nn

from yolo_stable.autopsy.batch_case import BatchCase
from yolo_stable.autopsy.case import GREY, TensorCase
from yolo_stable.autopsy.examine import examine
from yolo_stable.autopsy.symptom import Symptom
from yolo_stable.errors import InvalidCallError

TASKS = ("detect", "segment", "pose", "obb", "classify", "rtdetr", "end2end")
NOTHING = nn.Module()


def batch_for(task: str, sizes: tuple[int, ...] = (2, 0, 3, 1)) -> dict[str, Any]:
    generator = torch.Generator().manual_seed(1)
    batch = boxes(sizes, columns=5 if task == "obb" else 4)
    count, images = sum(sizes), len(sizes)
    if task == "classify":
        return {"img": batch["img"], "cls": torch.arange(images) % 4}
    if task == "pose":
        batch["keypoints"] = torch.rand(count, 4, 3, generator=generator)
    if task == "segment":
        batch["masks"] = torch.stack([torch.randint(0, n + 1, (16, 16), generator=generator) for n in sizes]).byte()
        batch["sem_masks"] = torch.zeros(images, 16, 16, dtype=torch.long)
    return {**batch, "ori_shape": [(64, 64 + i) for i in range(images)], "resized_shape": ((64, 64),) * images}


def loss_of(case: BatchCase, precision: str | None = None) -> Tensor:
    torch.manual_seed(3)  # the decoder of RT-DETR draws noise
    return case.call(precision)[0].detach()


@pytest.fixture(scope="module")
def case_for(narrow: Callable[[str], str]) -> Callable[..., BatchCase]:
    models: dict[str, nn.Module] = {}

    def make(task: str, batch: dict[str, Any] | None = None) -> BatchCase:
        if task not in models:
            models[task] = network(narrow(task), task)
        return BatchCase(models[task], batch or batch_for(task), run, classes=4)

    return make


@pytest.mark.parametrize("task", TASKS)
def test_all_images_in_their_order_are_the_same_batch(task: str, case_for: Callable[..., BatchCase]) -> None:
    case = case_for(task)
    again = case.select(range(4))
    assert set(again.batch) == set(case.batch)
    for key, value in case.batch.items():
        assert torch.equal(value, again.batch[key]) if isinstance(value, Tensor) else value == again.batch[key]
    assert torch.equal(loss_of(case), loss_of(again))


@pytest.mark.parametrize("task", TASKS)
def test_parts_train_and_are_as_if_they_had_been_loaded_so(task: str, case_for: Callable[..., BatchCase]) -> None:
    case = case_for(task)
    part = case.select([3, 0])
    assert part.size == 2
    assert torch.equal(part.batch["img"], case.batch["img"][[3, 0]])
    if task != "classify":
        assert part.batch["batch_idx"].tolist() == [0, 1, 1]
        assert part.batch["cls"].tolist() == case.batch["cls"][[5, 0, 1]].tolist()
        assert part.batch["ori_shape"] == [(64, 67), (64, 64)]
        assert part.path(0) == "data/img_003.jpg"
    assert loss_of(part).isfinite()
    assert torch.equal(loss_of(part.select([1, 0])), loss_of(case.select([0, 3])))


@pytest.mark.parametrize("task", TASKS)
def test_one_image_twice_and_images_without_labels_train(task: str, case_for: Callable[..., BatchCase]) -> None:
    case = case_for(task)
    for sample in range(4):
        assert loss_of(case.select([sample, sample])).isfinite()
        bare = case.select([sample])
        assert loss_of(bare.blank(0, None, bare.rows_of(0)).select([0, 0])).isfinite()


@pytest.mark.parametrize("task", ["detect", "segment", "pose", "obb", "classify"])
def test_float64_is_the_same_loss_more_exactly(task: str, case_for: Callable[..., BatchCase]) -> None:
    case = case_for(task)
    wide = loss_of(case, "float64")
    assert wide.dtype == torch.float64
    torch.testing.assert_close(wide, loss_of(case, "float32").double(), rtol=0.01, atol=0.01)
    assert torch.get_default_dtype() == torch.float32
    assert all(p.dtype == torch.float32 for p in case.model.parameters())


def test_masks_of_indices_count_on_without_the_labels_that_are_gone() -> None:
    batch = batch_for("segment", (3, 1))
    batch["masks"] = torch.tensor([[[0, 1], [2, 3]], [[0, 1], [1, 0]]], dtype=torch.uint8)
    case = BatchCase(NOTHING, batch, run)
    assert case.overlap
    lesser = case.without_labels([1])
    assert lesser.batch["masks"].tolist() == [[[0, 1], [0, 2]], [[0, 1], [1, 0]]]
    assert lesser.batch["masks"].dtype == torch.uint8
    assert lesser.batch["batch_idx"].tolist() == [0, 0, 1]
    assert case.batch["masks"].tolist()[0] == [[0, 1], [2, 3]]


@pytest.mark.parametrize(("sizes", "overlap"), [((2, 1, 3), None), ((1, 1, 1), False)])
def test_a_mask_for_each_label_goes_with_its_label(sizes: tuple[int, ...], overlap: bool | None) -> None:
    batch = boxes(sizes)
    count = sum(sizes)
    batch["masks"] = torch.arange(count).view(-1, 1, 1).expand(count, 4, 4).clone()
    case = BatchCase(NOTHING, batch, run, overlap=overlap)
    assert not case.overlap
    assert case.select([2]).batch["masks"][:, 0, 0].tolist() == list(range(count - sizes[2], count))
    assert case.without_labels([0]).batch["masks"][:, 0, 0].tolist() == list(range(1, count))


def test_a_part_of_an_image_is_made_grey_with_the_labels_in_it() -> None:
    batch = boxes((3, 2))
    batch["bboxes"][:3, :2] = torch.tensor([[0.1, 0.1], [0.9, 0.9], [0.4, 0.2]])
    case = BatchCase(NOTHING, batch, run)
    blanked = case.blank(0, [(0, 0), (32, 0), (32, 32), (0, 32)])
    assert torch.all(blanked.batch["img"][0, :, :32, :32] == GREY)
    assert torch.equal(blanked.batch["img"][0, :, 32:], batch["img"][0, :, 32:])
    assert torch.equal(blanked.batch["img"][1], batch["img"][1])
    assert blanked.batch["cls"].tolist() == batch["cls"][[1, 3, 4]].tolist()
    assert not torch.all(case.batch["img"][0, :, :32, :32] == GREY)


def test_a_triangle_is_filled_by_the_centres_of_its_pixels() -> None:
    case = BatchCase(NOTHING, {**boxes((1,)), "img": torch.zeros(1, 3, 4, 4)}, run)
    grey = case.blank(0, [(0, 0), (4, 0), (0, 4)], rows=()).batch["img"][0, 0] > 0
    assert grey.int().tolist() == [[1, 1, 1, 0], [1, 1, 0, 0], [1, 0, 0, 0], [0, 0, 0, 0]]


def test_labels_that_no_loss_can_use_are_found_by_row() -> None:
    batch = {**boxes((2, 2)), "keypoints": torch.rand(4, 4, 3)}
    batch["cls"][0], batch["cls"][1] = 4.0, -1.0
    batch["bboxes"][2, 3] = float("nan")
    batch["keypoints"][3, 1, 0] = float("inf")
    found = BatchCase(NOTHING, batch, run, classes=4).label_faults()
    assert found == {
        0: "class 4 not in 0..3",
        1: "class -1 not in 0..3",
        2: "box not finite",
        3: "keypoint not finite",
    }
    assert 0 not in BatchCase(NOTHING, batch, run).label_faults()


def test_good_labels_are_not_suspected(case_for: Callable[..., BatchCase]) -> None:
    for task in TASKS:
        assert case_for(task).label_faults() == {}


def test_a_batch_needs_images() -> None:
    with pytest.raises(InvalidCallError, match="'img'"):
        BatchCase(NOTHING, {"cls": torch.zeros(2)}, run)
    with pytest.raises(InvalidCallError, match="two tensors"):
        TensorCase(NOTHING, (torch.zeros(2), torch.zeros(3)), run)
    with pytest.raises(InvalidCallError, match="float16"):
        tensor_case().call("float16")


def test_a_pair_of_tensors_is_cut_down_and_blanked() -> None:
    case = tensor_case(classifier().eval())
    part = case.select([5, 5])
    assert torch.equal(part.images[0], case.images[5])
    assert part.batch[1].tolist() == [1, 1]
    assert not case.blank(2, None).images[2].any()
    assert case.images[2].any()
    assert case.without_labels([1]) is case
    bad = TensorCase(case.model, (case.images, torch.tensor([0.0, float("nan")] * 4)), case.forward)
    assert list(bad.label_faults()) == [1, 3, 5, 7]


def test_calling_does_not_write_to_the_batch(narrow: Callable[[str], str]) -> None:
    case = box_case(network(narrow("detect"), "detect"))
    before = {k: v.clone() for k, v in case.batch.items() if isinstance(v, Tensor)}
    case.call()
    assert all(torch.equal(case.batch[key], value) for key, value in before.items())


@pytest.mark.parametrize("number", [math.nan, math.inf, -1.0, 2.0])
def test_a_label_of_no_image_is_a_label_fault_and_names_none(number: float) -> None:
    batch = {**boxes((1, 1)), "img": torch.zeros(2, 3, 4, 4)}
    batch["batch_idx"] = batch["batch_idx"].float()
    batch["batch_idx"][1] = number
    case = BatchCase(NOTHING, batch, run)
    assert case.label_faults() == {1: f"image number {number:g} not in 0..1"}
    report = examine(case, Symptom(loss=math.nan), seconds=None)
    assert (report.cause, report.samples) == ("data", ())
    assert "image number" in str(report.evidence["why"])
