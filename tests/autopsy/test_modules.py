from __future__ import annotations

import sys
from typing import cast

import torch
from torch import Tensor, nn

from yolo_stable.autopsy.modules import OUTSIDE, ModuleTracker, caller, source_of


class Fails(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        raise ValueError("no")


class Watch(nn.Module):
    """Notes the running module."""

    def __init__(self, seen: list[str]) -> None:
        super().__init__()
        self.seen = seen
        self.places: list[ModuleTracker] = []

    def forward(self, x: Tensor) -> Tensor:
        self.seen.append(self.places[0].now.module)
        return x


def test_a_module_is_known_while_it_runs() -> None:
    seen: list[str] = []
    watch = Watch(seen)
    model = nn.Sequential(nn.ModuleDict({"inner": watch})["inner"], nn.Sequential(watch))
    with ModuleTracker(model, lambda: 0) as places:
        watch.places.append(places)
        model(torch.ones(1))
        Watch.forward(watch, torch.ones(1))
        assert places.now is OUTSIDE
    assert seen == ["0", "1.0", ""], "a module registered twice goes by the name of the place where it runs"
    model(torch.ones(1))
    assert places.calls == 4
    assert not torch.nn.modules.module._has_any_global_hook()


def test_an_exception_leaves_the_modules_that_it_ended() -> None:
    class Catches(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = nn.Sequential(Fails())

        def forward(self, x: Tensor) -> Tensor:
            try:
                return self.inner(x)
            except ValueError:
                here.append(places.now.module)
                return x

    here: list[str] = []
    model = nn.Sequential(Catches())
    with ModuleTracker(model, lambda: 0) as places:
        model(torch.ones(1))
        assert places.now is OUTSIDE
    assert here == ["0"]


def test_a_parameter_belongs_to_the_module_that_holds_it() -> None:
    model = nn.Sequential(nn.Linear(1, 1), nn.Sequential(nn.Linear(1, 1)))
    places = ModuleTracker(model, lambda: 0)
    assert places.owner_of(cast("nn.Linear", cast("nn.Sequential", model[1])[0]).weight).module == "1.0"
    assert places.owner_of(torch.ones(1)) is OUTSIDE
    assert places.place_of(nn.ReLU()).module == "<ReLU>"


def test_a_source_is_the_first_line_outside_torch_below_the_anchor() -> None:
    def inside() -> str:
        frame = caller(sys._getframe(), test_a_source_is_the_first_line_outside_torch_below_the_anchor.__code__)
        assert frame is not None
        return source_of(frame.f_code, frame.f_lineno)

    assert inside().endswith(" in inside")
    assert caller(sys._getframe(), sys._getframe().f_code) is None
    assert source_of(None, None) == ""
