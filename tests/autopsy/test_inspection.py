from __future__ import annotations

import math

import torch
from autopsy_rig import classifier, cross_entropy, tensor_case
from torch import nn

from yolo_stable.autopsy.case import TensorCase
from yolo_stable.autopsy.inspection import MOST_PLACES, bad_pixels, sick_weights


def test_good_images_and_weights_are_not_suspected() -> None:
    case = tensor_case()
    assert bad_pixels(case) == ()
    assert not sick_weights(case.model)


def test_each_bad_image_is_named_with_what_is_wrong() -> None:
    case = tensor_case()
    case.images[1, 2, 3, 4] = math.nan
    case.images[1, 0, 7, 7] = math.inf
    case.images[4, :, 5, 6] = -math.inf
    case.images[6, 0, 0, 0] = -1e20
    nan, infinite, huge = bad_pixels(case)
    assert (nan.sample, nan.what, nan.count, nan.places, nan.first) == (1, "NaN pixels", 1, ((3, 4),), (2, 3, 4))
    assert (infinite.sample, infinite.what, infinite.count, infinite.places) == (4, "infinite pixels", 3, ((5, 6),))
    assert (huge.sample, huge.what) == (6, "pixels of 1e+20")


def test_of_many_bad_pixels_those_from_all_over_the_image_are_looked_up() -> None:
    case = tensor_case()
    case.images[0] = math.nan
    (found,) = bad_pixels(case)
    assert found.count == 3 * 16 * 16
    assert len(found.places) <= MOST_PLACES
    assert {y for y, _ in found.places} == set(range(16))


def test_inputs_that_are_no_pictures() -> None:
    model = nn.Linear(3, 2)
    flat = TensorCase(model, (torch.tensor([[0.0, 1.0, math.nan], [0.0, 0.0, 0.0]]), torch.zeros(2)), cross_entropy)
    (found,) = bad_pixels(flat)
    assert (found.sample, found.what, found.places, found.first) == (0, "NaN inputs", (), (2,))
    assert bad_pixels(TensorCase(model, (torch.ones(2, 3, dtype=torch.long), torch.zeros(2)), cross_entropy)) == ()


def test_one_ruined_weight_is_told_from_many() -> None:
    model = classifier()
    with torch.no_grad():
        model.get_submodule("6").weight[0, 0] = 1e30  # type: ignore[index]
        found = sick_weights(model)
        assert (found.not_finite, [name for name, _ in found.absurd], found.widespread) == ((), ["6.weight"], False)
        for p in model.parameters():
            p.fill_(1e12)
        assert sick_weights(model).widespread
        model.get_buffer("1.running_var").fill_(math.nan)
        assert sick_weights(model).not_finite == ("1.running_var",)


def test_absurd_running_statistics_break_no_training_batch() -> None:
    model = classifier()
    model.get_buffer("1.running_var").fill_(1e30)
    assert not sick_weights(model)
