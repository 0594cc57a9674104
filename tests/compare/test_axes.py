"""What a comparison varies."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from yolo_stable.compare.axes import Axes, name_of
from yolo_stable.errors import InvalidCallError


def test_several_axes_are_combined_each_with_each_and_the_seeds_are_outermost() -> None:
    axes = Axes.parse(optimizers="SGD,AdamW", lr0="0.01,0.001", seeds="0,1", stock=True)
    names = [name_of(choice) for choice in axes.combinations()]
    assert len(names) == len(set(names)) == 16
    assert names[:3] == [
        "guarded,optimizer=SGD,lr0=0.01,seed=0",
        "guarded,optimizer=SGD,lr0=0.001,seed=0",
        "guarded,optimizer=AdamW,lr0=0.01,seed=0",
    ]
    assert all(name.endswith("seed=0") for name in names[:8])


@pytest.mark.parametrize(
    ("options", "line"),
    [
        pytest.param({}, "there is nothing to compare. Name two or more with --optimizers", id="nothing"),
        pytest.param({"optimizers": "SGD"}, "there is nothing to compare", id="one of one"),
        pytest.param(
            {"optimizers": "SGD,Adan"}, "--optimizers: Adan is not among SGD, .*Did you mean 'Adam'?", id="name"
        ),
        pytest.param({"optimizers": "SGD,sgd"}, "--optimizers names SGD twice", id="the same in other letters"),
        pytest.param({"optimizers": "SGD,,Adam"}, "--optimizers 'SGD,,Adam' has an empty entry", id="empty"),
        pytest.param({"presets": "stable,nope"}, "There is no preset 'nope'. The presets are adamw, ", id="preset"),
        pytest.param({"lr0": "0.01,fast"}, "--lr0: fast is not allowed. It must be a number above 0", id="rate"),
        pytest.param({"lr0": "0.01,0"}, "--lr0: 0 is not allowed", id="rate 0"),
        pytest.param({"lr0": "0.01,nan"}, "--lr0: nan is not allowed", id="rate nan"),
        pytest.param({"lr0": "0.01,1e-2"}, "--lr0 names 0.01 twice", id="the same rate"),
        pytest.param({"seeds": "0,-1"}, "--seeds: -1 is not allowed. It must be a whole number between 0", id="seed"),
        pytest.param({"seeds": "0,4294967296"}, "--seeds: 4294967296 is not allowed", id="large seed"),
    ],
)
def test_what_cannot_be_compared_is_refused(options: dict[str, Any], line: str) -> None:
    with pytest.raises(InvalidCallError, match=line) as caught:
        Axes.parse(**options)
    assert "\n" not in str(caught.value)
    assert caught.value.exit_code == 2


def test_a_baseline_alone_is_a_comparison() -> None:
    assert [name_of(choice) for choice in Axes.parse(stock=True).combinations()] == ["guarded", "stock"]


def test_a_preset_of_ones_own_has_a_name_that_a_folder_can_have(tmp_path: Path) -> None:
    (tmp_path / "a b:c.yaml").write_text("lr0: 0.02\n")
    (choice, _) = Axes.parse(presets=f"{tmp_path / 'a b:c.yaml'},stable").combinations()
    assert name_of(choice) == "preset=a-b-c"
