from __future__ import annotations

import json
import math
import random
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest
import torch
from autopsy_rig import boxes, classifier, cross_entropy, mosaic, network, run, tensor_case
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from yolo_stable.autopsy.advice import commands
from yolo_stable.autopsy.batch_case import BatchCase
from yolo_stable.autopsy.examine import examine
from yolo_stable.autopsy.report import AutopsyReport, Sample
from yolo_stable.autopsy.symptom import Symptom
from yolo_stable.guard.untouched import untouched

NAN, INF = math.nan, math.inf
SIZES = (2, 1, 3, 2)
ORIGINS = [mosaic(i, tuple((row % 4, 7 + row) for row in range(n))) for i, n in enumerate(SIZES)]


@pytest.fixture(scope="module")
def detector(narrow: Callable[[str], str]) -> nn.Module:
    return network(narrow("detect"))


def everything(model: nn.Module) -> dict[str, Any]:
    """All that an autopsy must leave as it was."""
    return {
        "state": {k: v.clone() for k, v in model.state_dict().items()},
        "gradients": [None if p.grad is None else (id(p.grad), p.grad.clone()) for p in model.parameters()],
        "flags": [module.training for module in model.modules()],
        "random": (random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state()),  # type: ignore[index]
        "modes": (torch.is_grad_enabled(), torch.get_default_dtype(), torch.is_autocast_enabled("cpu")),
    }


def same(a: Any, b: Any) -> bool:
    if isinstance(a, Tensor):
        return torch.equal(a.nan_to_num(7.0), b.nan_to_num(7.0))
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[key], b[key]) for key in a)
    if isinstance(a, (list, tuple)):
        return len(a) == len(b) and all(map(same, a, b))
    return a == b


def autopsy(case: Any, seen: Symptom, **how: Any) -> AutopsyReport:
    """Examine twice: the answers are equal, in strict JSON, and nothing is left behind."""
    model = (case[0] if isinstance(case, list) else case).model
    for p in list(model.parameters())[::2]:
        p.grad = torch.full_like(p, 0.5)
    before = everything(model)
    first, second = examine(case, seen, **how), examine(case, seen, **how)
    assert same(before, everything(model))
    text = json.dumps(first.to_json(), allow_nan=False)
    assert text == json.dumps(second.to_json(), allow_nan=False)
    assert AutopsyReport.from_json(text).text() == first.text()
    return first


def box_case(model: nn.Module, forward: Any = run) -> BatchCase:
    return BatchCase(model, boxes(SIZES), forward, classes=4)


class TestData:
    def test_a_nan_pixel_is_found_with_its_file_and_tile(self, detector: nn.Module) -> None:
        case = box_case(detector)
        case.images[3, 1, 40, 20] = NAN
        loss, items = NAN, {"box_loss": NAN, "cls_loss": NAN, "dfl_loss": NAN}
        report = autopsy(case, Symptom(loss=loss, items=items), provenance=ORIGINS)
        assert (report.cause, report.phase, report.reproduced, report.bitwise) == ("data", "data", True, True)
        assert (report.module, report.op) == ("model.0.conv", "aten.convolution.default")
        assert report.samples == (Sample("data/img_032.jpg", 32, (0, 32, 32, 64)),)
        assert report.headline() == "img_032.jpg (tile 3 of 4) has NaN pixels: data"
        assert "img_032.jpg" in report.next

    def test_pixels_in_two_tiles_name_both_files(self, detector: nn.Module) -> None:
        case = box_case(detector)
        case.images[1, :, 30:34, 5] = INF
        report = autopsy(case, Symptom(loss=NAN), provenance=ORIGINS)
        assert [sample.path for sample in report.samples] == ["data/img_010.jpg", "data/img_012.jpg"]

    def test_a_batch_that_was_resized_is_looked_up_in_the_size_of_its_files(self, detector: nn.Module) -> None:
        case = box_case(detector)
        case.batch["img"] = torch.nn.functional.interpolate(case.images, size=(96, 96))
        case.images[0, 0, 10, 50] = NAN  # at 33 of 64, so in the right half
        report = autopsy(case, Symptom(loss=NAN), provenance=ORIGINS)
        assert [sample.path for sample in report.samples] == ["data/img_001.jpg"]

    def test_a_huge_pixel_that_batchnorm_hides_is_found(self, detector: nn.Module) -> None:
        case = box_case(detector)
        case.images[2, 0, 3, 3] = 1e15
        reason = "a running statistic of BatchNorm jumped to 5e+13 times what it was"
        report = autopsy(case, Symptom(reason=reason, loss=5.0), provenance=ORIGINS)
        assert (report.cause, report.reproduced) == ("data", True)
        assert report.samples == (Sample("data/img_020.jpg", 20, (0, 0, 32, 32)),)
        assert "1e+15" in report.headline()

    def test_without_provenance_the_batch_names_the_file(self, detector: nn.Module) -> None:
        case = box_case(detector)
        case.images[1, 0, 0, 0] = -INF
        assert autopsy(case, Symptom(loss=NAN)).samples == (Sample("data/img_001.jpg", 1),)

    @pytest.mark.parametrize(("key", "value"), [("cls", 4.0), ("bboxes", NAN)])
    def test_a_label_that_was_found_at_fault_is_not_even_replayed(
        self, detector: nn.Module, key: str, value: float
    ) -> None:
        case = BatchCase(detector, boxes(SIZES), refuse, classes=4)
        case.batch[key][4, 0] = value  # the second label of the third image
        seen = Symptom(fault="label class 4 not in 0..3" if key == "cls" else "label box not finite")
        report = autopsy(case, seen, provenance=ORIGINS)
        assert (report.cause, report.phase, report.reproduced) == ("data", "data", True)
        assert report.samples == (Sample("data/img_021.jpg", 21, (32, 0, 64, 32), 8),)
        assert "line 9 of the labels of data/img_021.jpg" in report.next

    def test_labels_that_were_made_harmless_are_told_by_the_rows_that_were_seen(self, detector: nn.Module) -> None:
        seen = Symptom(fault="label class 9 not in 0..3", rows=(7,))
        report = autopsy(box_case(detector), seen, provenance=ORIGINS)
        assert (report.cause, report.reproduced) == ("data", False)
        assert report.samples == (Sample("data/img_031.jpg", 31, (32, 0, 64, 32), 8),)

    def test_a_huge_box_that_makes_the_loss_infinite_is_found(self, detector: nn.Module) -> None:
        def squares(model: nn.Module, batch: Any, precision: str | None) -> tuple[Tensor, Mapping[str, Any]]:
            loss, items = run(model, batch, precision)
            return loss + batch["bboxes"].square().sum(), items

        case = box_case(detector, squares)
        case.batch["bboxes"][2, 3] = 1e30
        report = autopsy(case, Symptom(loss=INF), provenance=ORIGINS)
        assert (report.cause, report.reproduced) == ("data", True)
        assert report.samples == (Sample("data/img_010.jpg", 10, (0, 0, 32, 32), 7),)

    def test_an_ordinary_label_that_breaks_any_weights_is_found_by_taking_labels_away(
        self, detector: nn.Module
    ) -> None:
        def narrow_boxes(model: nn.Module, batch: Any, precision: str | None) -> tuple[Tensor, Mapping[str, Any]]:
            loss, items = run(model, batch, precision)
            return loss + 0.0 * batch["bboxes"][:, 2].log().sum(), items

        case = box_case(detector, narrow_boxes)
        case.batch["bboxes"][4, 2] = 0.0
        report = autopsy(case, Symptom(loss=NAN), provenance=ORIGINS)
        assert report.cause == "data"
        assert report.samples == (Sample("data/img_021.jpg", 21, (32, 0, 64, 32), 8),)

    def test_one_ordinary_image_that_overflows_is_found_by_its_row(self) -> None:
        model = nn.Sequential(Exp(30.0), *classifier())
        case = tensor_case(model)
        case.images[5] += 3.0
        report = autopsy(case, Symptom(loss=NAN))
        assert (report.module, report.op, report.phase) == ("0", "aten.exp.default", "data")
        assert report.samples == (Sample("", 5),)
        assert (report.cause, report.evidence["wide"]) == ("data", "overflow")

    def test_a_tile_is_found_by_greying_one_after_the_other(self, detector: nn.Module) -> None:
        def bright(model: nn.Module, batch: Any, precision: str | None) -> tuple[Tensor, Mapping[str, Any]]:
            loss, items = run(model, batch, precision)
            return loss + 0.0 * (batch["img"].amax() * 30).exp(), items

        case = box_case(detector, bright)
        case.images[2, 1, 50, 40] = 4.0
        report = autopsy(case, Symptom(loss=NAN), provenance=ORIGINS)
        assert report.samples == (Sample("data/img_023.jpg", 23, (32, 32, 64, 64)),)
        assert report.cause == "data"

    def test_a_gradient_that_only_one_image_breaks(self) -> None:
        model = nn.Sequential(nn.Flatten(), nn.Linear(3 * 16 * 16, 4, bias=False), Root(), nn.Linear(4, 4))
        case = tensor_case(model)
        case.images[2] = 0.0  # the square root has no slope at 0
        report = autopsy(case, Symptom(kind="window", norm=NAN))
        assert (report.cause, report.reproduced) == ("data", True)
        assert report.evidence["pass"] == "backward"
        assert report.samples == (Sample("", 2),)


class TestState:
    def test_a_weight_that_is_nan_is_named_and_no_image(self, detector: nn.Module) -> None:
        with changed(dict(detector.named_parameters())["model.5.conv.weight"], NAN):
            report = autopsy(box_case(detector), Symptom(loss=NAN), provenance=ORIGINS)
        assert (report.cause, report.phase, report.samples) == ("weights", "state", ())
        assert (report.module, report.op) == ("model.5.conv", "aten.convolution.default")
        assert report.evidence["origin"] == "parameter model.5.conv.weight"

    def test_a_weight_of_1e30_is_named(self) -> None:
        model = classifier()
        with changed(model.get_submodule("0").weight, 1e30):  # type: ignore[arg-type]
            report = autopsy(tensor_case(model), Symptom(culprits=("1.running_var",)))
        assert (report.cause, report.phase, report.reproduced) == ("weights", "state", True)
        assert (report.module, report.op) == ("1", "aten.native_batch_norm.default")
        assert "0.weight is as large as 1e+30" in report.evidence["weights"]

    def test_weights_that_ran_away_together_are_the_optimisation(self) -> None:
        model = classifier()
        with torch.no_grad():
            for p in model.parameters():
                p.mul_(1e30)
        report = autopsy(tensor_case(model), Symptom(loss=NAN, culprits=("1.running_var",)))
        assert report.cause == "optimisation"
        assert "--preset" in report.next

    @pytest.mark.parametrize("snapshot", [True, False])
    def test_a_state_that_every_image_breaks(self, snapshot: bool) -> None:
        model = chain()
        state = {k: v.clone() for k, v in model.state_dict().items()} if snapshot else None
        with torch.no_grad():
            for p in model.parameters():
                p.mul_(5e7 / p.abs().max())
        report = autopsy(tensor_case(model), Symptom(loss=NAN), healthy_state=state)
        assert (report.cause, report.reproduced, report.samples) == ("optimisation", True, ())
        assert report.evidence["healthy_on_snapshot" if snapshot else "healthy_on_fresh"] is True

    def test_one_image_that_breaks_this_state_only(self) -> None:
        model = nn.Sequential(nn.Conv2d(3, 4, 3), Exp(1.0), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 4))
        case = tensor_case(model)
        state = {k: v.clone() for k, v in model.state_dict().items()}
        with torch.no_grad():
            model.get_submodule("0").weight.fill_(10.0)  # type: ignore[union-attr]
        case.images[:] *= 0.2
        case.images[6] += 0.8
        report = autopsy(case, Symptom(loss=NAN), healthy_state=state)
        assert (report.cause, report.phase, report.op) == ("optimisation", "forward", "aten.exp.default")
        assert report.samples == (Sample("", 6),)

    def test_what_an_audit_found_needs_no_replay(self, detector: nn.Module) -> None:
        case = BatchCase(detector, boxes(SIZES), refuse)
        seen = Symptom(kind="state", reason="audit", culprits=("ema model.5.conv.weight",))
        report = autopsy(case, seen)
        assert (report.cause, report.phase, report.module, report.reproduced) == (
            "weights",
            "state",
            "model.5.conv",
            False,
        )

    def test_a_divergence_is_compared_with_the_snapshot(self) -> None:
        model = classifier()
        state = {k: v.clone() for k, v in model.state_dict().items()}
        with torch.no_grad():
            model.get_submodule("6").weight.mul_(1e4)  # type: ignore[operator]
        report = autopsy(tensor_case(model), Symptom(kind="state", reason="diverged"), healthy_state=state)
        assert (report.cause, report.phase) == ("optimisation", "state")

    def test_a_network_that_breaks_whatever_it_is_given_is_not_blamed_on_an_image(self) -> None:
        report = autopsy(tensor_case(nn.Sequential(Divide(), *classifier())), Symptom(loss=NAN))
        assert (report.cause, report.module, report.samples) == ("undecided", "0", ())

    def test_a_sum_that_only_the_whole_batch_overflows(self) -> None:
        case = tensor_case(nn.Sequential(*list(classifier())[:3], Crowd(), *list(classifier())[3:]))
        report = autopsy(case, Symptom(loss=NAN))
        assert len(report.samples) == case.size
        assert "together" in report.evidence["samples"]


class TestPrecision:
    def test_float16_overflows_where_float32_does_not(self) -> None:
        model = nn.Sequential(nn.Flatten(), nn.Linear(3 * 16 * 16, 4))
        nn.init.constant_(model.get_submodule("1").weight, 200.0)  # type: ignore[arg-type]
        case = tensor_case(model, forward=autocast(torch.float16))
        report = autopsy(case, Symptom(loss=NAN))
        assert (report.cause, report.module, report.phase) == ("precision", "1", "forward")
        assert commands(report.next) == ["yolo-stable train DATA model=MODEL amp=False"]

    def test_bfloat16_rounds_away_what_float32_keeps(self) -> None:
        model = nn.Sequential(nn.Flatten(), nn.Linear(3 * 16 * 16, 4), Complement())
        nn.init.constant_(model.get_submodule("1").weight, 0.02)  # type: ignore[arg-type]
        report = autopsy(tensor_case(model, forward=autocast(torch.bfloat16)), Symptom(loss=NAN))
        assert (report.cause, report.module) == ("precision", "2")

    def test_float32_rounds_away_what_float64_keeps(self) -> None:
        model = nn.Sequential(nn.Flatten(), Scale(20.0), Complement(), nn.Linear(3 * 16 * 16, 4))
        case = tensor_case(model)
        case.images[3, 0, 0, 0] = 1.4
        case.images[:3].mul_(0.5)
        case.images[4:].mul_(0.5)
        report = autopsy(case, Symptom(loss=NAN))
        assert (report.cause, report.module) == ("precision", "2")
        assert report.evidence["healthy_in_float64"] is True

    def test_a_loss_scale_that_is_too_large_is_replayed(self) -> None:
        case = tensor_case(forward=autocast(torch.float16))
        report = autopsy(case, Symptom(kind="window", norm=INF, scale=2.0**60))
        assert (report.cause, report.reproduced, report.phase) == ("precision", True, "backward")


class TestHardware:
    def test_a_fault_that_does_not_come_again_is_transient(self, detector: nn.Module) -> None:
        report = autopsy(box_case(detector), Symptom(loss=NAN, items={"box_loss": NAN}), provenance=ORIGINS)
        assert (report.cause, report.reproduced, report.bitwise) == ("hardware transient", False, False)
        assert report.samples == ()
        assert "could not be reproduced" in report.text()

    def test_a_device_that_always_computes_an_operation_wrongly_is_persistent(self) -> None:
        with Wrong():
            report = autopsy(tensor_case(), Symptom(loss=NAN))
        assert (report.cause, report.module, report.op) == ("hardware persistent", "6", "aten.addmm.default")
        assert report.evidence["wide"] == "finite"
        assert "yolo-stable validate" in report.next

    def test_a_device_that_computes_it_wrongly_once_is_transient(self) -> None:
        with Wrong(times=1) as device:
            report = examine(tensor_case(), Symptom(loss=NAN))
        assert device.fired == 1
        assert (report.cause, report.op) == ("hardware transient", "aten.addmm.default")

    def test_a_reference_on_which_all_is_well_accuses_the_device(self) -> None:
        model = nn.Sequential(Exp(30.0), *classifier())
        case = tensor_case(model)
        case.images[5] += 3.0
        report = autopsy(case, Symptom(loss=NAN), reference=tensor_case(classifier()))
        assert report.cause == "hardware persistent"


class TestWindows:
    def test_the_micro_batch_that_breaks_is_turned_to(self) -> None:
        model = nn.Sequential(Exp(30.0), *classifier())
        cases = [tensor_case(model) for _ in range(3)]
        cases[1].images[4] += 3.0
        report = autopsy(cases, Symptom(kind="window", norm=NAN))
        assert report.evidence["micro_batch"] == 1
        assert report.samples == (Sample("", 4),)

    def test_provenance_is_counted_through_the_window(self, detector: nn.Module) -> None:
        cases = [box_case(detector), box_case(detector)]
        cases[1].images[0, 0, 0, 0] = NAN
        origins = [*ORIGINS, *(mosaic(40 + i) for i in range(4))]
        report = autopsy(cases, Symptom(kind="window", norm=NAN), provenance=origins)
        assert [sample.index for sample in report.samples] == [400]

    def test_a_gradient_that_is_finite_but_absurd_is_reproduced(self) -> None:
        def steep(model: nn.Module, batch: Any, precision: str | None) -> tuple[Tensor, Mapping[str, Any]]:
            loss, items = cross_entropy(model, batch, precision)
            return loss + 1e17 * model(batch[0])[batch[0].mean((1, 2, 3)) > 1].sum(), items

        case = tensor_case(forward=steep)
        case.images[3] += 2.0
        report = autopsy(case, Symptom(kind="window", norm=1e16))
        assert report.reproduced
        assert report.samples == (Sample("", 3),)
        assert report.evidence["norm"] > 1e15


class TestItself:
    def test_no_time_still_tells_what_can_be_seen(self, detector: nn.Module) -> None:
        case = BatchCase(detector, boxes(SIZES), refuse)
        case.images[3, 1, 40, 20] = NAN
        report = autopsy(case, Symptom(loss=NAN), provenance=ORIGINS, seconds=0)
        assert (report.cause, report.reproduced) == ("data", False)
        assert report.evidence["out_of_time"] is True
        report = autopsy(box_case(detector), Symptom(loss=NAN), seconds=0)
        assert (report.cause, report.op) == ("undecided", "")

    @pytest.mark.parametrize("seconds", [0.001, 0.01, 0.03, 0.1])
    def test_it_stops_in_time_wherever_it_is(self, seconds: float) -> None:
        model = chain()
        with torch.no_grad():
            for p in model.parameters():
                p.mul_(5e7 / p.abs().max())
        before = everything(model)
        report = examine(tensor_case(model), Symptom(loss=NAN), seconds=seconds)
        assert report.cause in {"undecided", "optimisation"}
        assert same(before, everything(model))

    def test_a_case_that_raises_is_undecided(self, detector: nn.Module) -> None:
        report = autopsy(BatchCase(detector, boxes(SIZES), refuse), Symptom(loss=NAN))
        assert (report.cause, report.reproduced) == ("undecided", False)
        assert "RuntimeError: out of order" in report.evidence["error"]

    def test_a_case_that_is_none_at_all_is_undecided(self) -> None:
        broken: Any = object()
        report = examine(broken, Symptom(loss=NAN))
        assert report.cause == "undecided"
        assert report.evidence["error"].startswith("AttributeError")

    def test_provenance_of_other_images_is_not_believed(self, detector: nn.Module) -> None:
        case = box_case(detector)
        case.images[1, 0, 0, 0] = NAN
        assert autopsy(case, Symptom(loss=NAN), provenance=ORIGINS[:2]).samples[0].path == "data/img_001.jpg"

    def test_statistics_that_were_ruined_before_the_batch_are_no_fault_of_it(self) -> None:
        case = tensor_case(classifier())
        with untouched(case.model):
            loss = float(case.call()[0].detach())
        for reason in (
            "a running statistic is not finite",
            "a running statistic of BatchNorm jumped to 5e+29 times what it was",
        ):
            seen = Symptom(reason=reason, loss=loss, items={"loss": loss}, culprits=("1.running_var",))
            report = autopsy(case, seen)
            assert (report.cause, report.phase, report.module) == ("weights", "state", "1")
            assert autopsy(case, Symptom(reason=reason, loss=loss + 1, culprits=("1.running_var",))).cause != "weights"

    def test_the_recorded_bits_are_compared(self) -> None:
        model = nn.Sequential(Exp(30.0), *classifier())
        case = tensor_case(model)
        case.images[5] += 3.0
        assert autopsy(case, Symptom(loss=NAN, items={"loss": NAN})).bitwise
        assert not autopsy(case, Symptom(loss=INF, items={"loss": NAN})).bitwise
        assert not autopsy(case, Symptom(loss=NAN, digests={"buffers": "0"})).bitwise


def refuse(model: nn.Module, batch: Any, precision: str | None) -> tuple[Tensor, Mapping[str, Any]]:
    raise RuntimeError("out of order")


def autocast(dtype: torch.dtype) -> Callable[..., tuple[Tensor, Mapping[str, Any]]]:
    def forward(model: nn.Module, batch: Any, precision: str | None) -> tuple[Tensor, Mapping[str, Any]]:
        with torch.autocast("cpu", dtype=dtype, enabled=precision is None):
            return cross_entropy(model, batch, precision)

    return forward


@contextmanager
def changed(weight: Tensor, value: float) -> Iterator[None]:
    before = weight.detach().clone()
    with torch.no_grad():
        weight.view(-1)[0] = value
        yield
        weight.copy_(before)


def chain() -> nn.Sequential:
    torch.manual_seed(1)
    return nn.Sequential(nn.Flatten(), nn.Linear(3 * 16 * 16, 16), *(nn.Linear(16, 16) for _ in range(5)))


class Exp(nn.Module):
    def __init__(self, factor: float) -> None:
        super().__init__()
        self.factor = factor

    def forward(self, x: Tensor) -> Tensor:
        return (x * self.factor).exp()


class Scale(Exp):
    def forward(self, x: Tensor) -> Tensor:
        return x * self.factor


class Complement(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return (1 - x.sigmoid()).log()


class Root(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.abs().sqrt()


class Divide(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x / (x - x)


class Crowd(nn.Module):
    """Overflows when there are more than six samples."""

    def forward(self, x: Tensor) -> Tensor:
        return x * (torch.ones(len(x)).sum() * 14.0).exp()


class Wrong(TorchDispatchMode):
    """A device that gives NaN for a matrix product in float32."""

    def __init__(self, times: int | None = None) -> None:
        super().__init__()
        self.left, self.fired = times, 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        if func is torch.ops.aten.addmm.default and out.dtype == torch.float32 and self.left != 0:
            out[0, 0] = NAN
            self.fired += 1
            self.left = None if self.left is None else self.left - 1
        return out
