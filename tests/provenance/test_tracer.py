"""What is noted of one draw, by what was read for it."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from yolo_stable.provenance import dataset as tracing
from yolo_stable.provenance.dataset import SEPARATOR, DatasetTracer
from yolo_stable.provenance.geometry import NOTHING
from yolo_stable.provenance.labels import TracedLabels, rows_of
from yolo_stable.provenance.reading import WATCH, Read
from yolo_stable.provenance.recipe import unknown
from yolo_stable.provenance.transforms import KEY


class Watched:
    """Stands in for a data set, whose first image is the hundredth of all."""


def read(path: str | None, index: int = 3) -> Read:
    data = Watched()
    vars(data)[WATCH] = SimpleNamespace(start=100)
    return Read(path, index, np.zeros((4, 6, 3), np.uint8), data)


def drawn(image: Any, reads: list[Read], **labels: Any) -> dict[str, Any]:
    noted = {"img": image, "cls": np.zeros((2, 1)), **labels}
    DatasetTracer(classifies=False).note_draw(noted, reads)
    return noted


def without_serial(recipe: Any) -> Any:
    return (recipe[0], *recipe[2:])


def test_the_image_that_was_read_is_the_file_and_its_rows_are_known() -> None:
    first, second = read("a.jpg"), read("b.jpg", 5)
    noted = drawn(second.image, [first, second], im_file="b.jpg")
    assert without_serial(noted[KEY]) == ("image", 105, "b.jpg", 6, 4)
    assert type(noted["cls"]) is TracedLabels
    assert (rows_of(noted["cls"]) & 0xFFFFFF).tolist() == [0, 1]


@pytest.mark.parametrize(("shape", "known"), [((4, 6, 3), True), ((8, 6, 3), False)])
def test_an_image_that_was_changed_after_it_was_read_is_of_the_only_file(shape: tuple[int, ...], known: bool) -> None:
    noted = drawn(np.ones(shape, np.uint8), [read("a.jpg")], im_file="a.jpg")
    recipe = noted[KEY] if known else noted[KEY][1]
    assert (noted[KEY][0] == "unknown") is not known
    assert without_serial(recipe) == ("image", 103, "a.jpg", 6, 4)


def test_one_that_was_made_of_several_is_of_all_files_that_are_known() -> None:
    noted = drawn(np.ones((4, 6, 3), np.uint8), [read("a.jpg"), read(None), read("b.jpg")], im_file="a.jpg")
    kind, *recipes = noted[KEY]
    assert (kind, [recipe[3] for recipe in recipes]) == ("unknown", ["a.jpg", "b.jpg"])
    assert type(noted["cls"]) is np.ndarray
    kind, *recipes = drawn(np.ones((4, 6, 3), np.uint8), [read("a.jpg"), read("b.jpg")])[KEY]
    assert [recipe[3] for recipe in recipes] == ["a.jpg", "b.jpg"]


def test_what_is_said_to_be_of_another_file_or_of_none_is_not_known() -> None:
    other = read("a.jpg")
    assert drawn(np.ones((4, 6, 3), np.uint8), [other], im_file="b.jpg")[KEY] == NOTHING
    from_memory = read(None)
    assert drawn(from_memory.image, [from_memory])[KEY] == NOTHING
    assert drawn(np.ones((4, 6, 3), np.uint8), [from_memory])[KEY] == NOTHING
    assert KEY not in drawn(np.ones((4, 6, 3), np.uint8), [])
    labelled_otherwise = drawn(other.image, [other], im_file="b.jpg")
    assert type(labelled_otherwise["cls"]) is np.ndarray, "the rows are those of another file"


def test_a_classification_sample_is_of_the_files_that_were_read_for_it() -> None:
    tracer, image = DatasetTracer(classifies=True), torch.zeros(3, 4, 6)
    first, second = read("a.jpg", 0), read("b.jpg", 1)
    sample: dict[str, Any] = {"img": image, "cls": 1}
    tracer.finish(sample, [first, read(None), second], [])
    assert sample[KEY] == SEPARATOR.join(("100", "a.jpg", "101", "b.jpg"))
    assert tracer.files(sample) == ("a.jpg", "b.jpg")
    tracer.note_sample(sample, first)
    assert tracer.files(sample) == ("a.jpg",)
    assert tracer.files({KEY: unknown()}) == tracer.files({}) == tracer.files(None) == ()


def test_transforms_that_are_traced_are_followed_again_and_others_wrapped() -> None:
    def somebodys(labels: Any) -> Any:
        return labels

    made = tracing._pipeline(somebodys)
    assert made.transforms == [somebodys]
    assert tracing._pipeline(made) is made
