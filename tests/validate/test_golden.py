"""The shipped reference of trainings: for seed 0 and the installed Ultralytics only, and equal to what is computed here."""

from __future__ import annotations

import json
from importlib import resources

import pytest
import torch

from yolo_stable.validate import golden as module
from yolo_stable.validate.deviation import distance
from yolo_stable.validate.golden import FIRST, MAKERS, STEP, Golden, StepReference, compare_gradients, cosine
from yolo_stable.validate.hashed import HashedDraw
from yolo_stable.validate.sketch import sketch

G = {name: HashedDraw("g")(name, 400) for name in ("model.0.w", "model.9.w")}
REFERENCE = StepReference(
    losses=(1.0,), norms={name: float(g.norm()) for name, g in G.items()},
    sketches={name: sketch(g) for name, g in G.items()}, buffers={},
)  # fmt: skip


def test_the_shipped_file_fits_this_battery_and_names_itself() -> None:
    shipped = json.loads((resources.files("yolo_stable.validate") / "golden.json").read_text())
    assert set(MAKERS) <= shipped.keys()
    assert Golden().id
    assert Golden(seed=1).id == Golden(recompute=True).id == ""


def test_one_step_computed_here_is_the_shipped_one() -> None:
    from yolo_stable.validate.battery import find_check

    shipped, made = Golden().get(STEP), MAKERS[STEP](find_check(STEP), 0)
    assert made["losses"] == pytest.approx(shipped["losses"], rel=1e-10)
    for name, value in shipped["sketches"].items():
        assert distance(tuple(made["sketches"][name]), tuple(value)) <= 1e-8 * max(shipped["norms"][name], 1e-3), name


def test_another_ultralytics_computes_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "installed", lambda: "99.0")
    monkeypatch.setitem(module.MAKERS, FIRST, lambda check, seed: {"made": [check.id, seed]})
    assert Golden().get(FIRST) == {"made": [FIRST, 0]}


def test_a_gradient_is_off_by_as_much_as_it_was_changed() -> None:
    whole, worst, most = compare_gradients(REFERENCE, {**G, "model.9.w": G["model.9.w"] * 1.1})
    assert (worst, most) == ("model.9.w", pytest.approx(0.1, rel=0.5))
    assert 0 < whole < most


def test_the_cosine_tells_direction_and_not_size() -> None:
    assert cosine(REFERENCE, G) == pytest.approx(1.0)
    assert cosine(REFERENCE, {name: -g for name, g in G.items()}) < -0.5
    other = {name: HashedDraw("other")(name, 400) for name in G}
    assert abs(cosine(REFERENCE, other)) < 0.45  # two tensors of one size: the sketches tell it no better
    assert cosine(REFERENCE, {"model.9.w": G["model.9.w"], "model.0.w": torch.zeros(400)}, "model.0.") == 0.0
