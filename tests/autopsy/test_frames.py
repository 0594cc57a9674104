from __future__ import annotations

import math

import torch
from torch import nn

from yolo_stable.autopsy import Frame, frames_table
from yolo_stable.autopsy.frames import before, frame_of


def test_a_frame_holds_weights_inputs_and_outputs_by_their_magnitude() -> None:
    layer = nn.Linear(2, 1, bias=False)
    with torch.no_grad():
        layer.weight.copy_(torch.tensor([[-3.0, 1.0]]))
    frame = frame_of(layer, "fc", 4, (torch.tensor([[0.5, -1.5]]),), {"y": torch.tensor([[math.inf, 1.0]])})
    assert (frame.module, frame.module_type, frame.call) == ("fc", "Linear", 4)
    weight, x, y = frame.tensors
    assert (weight.role, weight.name, weight.low, weight.high, weight.mean) == ("weight", "weight", 1.0, 3.0, 2.0)
    assert (x.role, x.low, x.high, x.mean, x.shape) == ("input", 0.5, 1.5, 1.0, (1, 2))
    assert (y.role, y.name, y.high, y.non_finite) == ("output", "y", math.inf, 1)


def test_the_last_frames_before_the_break_are_kept() -> None:
    frames = [Frame(module=str(i), module_type="Linear", tensors=(), call=i) for i in range(5)]
    assert [f.module for f in before(frames, 2, 2)] == ["1", "2"]
    assert [f.module for f in before(frames, 0, 9)] == ["0"]
    assert [f.module for f in before(frames, 77, 1)] == ["4"]
    assert before(frames, 2, 0) == ()


def test_the_table_is_aligned() -> None:
    frame = frame_of(nn.ReLU(), "", 1, (torch.ones(2, 3),), torch.tensor(math.nan))
    lines = frames_table([frame]).splitlines()
    assert lines[0] == "the model (ReLU)"
    assert "input 0 2x3 float32" in lines[2]
    assert "nan" in lines[3]
    assert "output 0 scalar float32" in lines[3]
    assert lines[2].index("input") == lines[3].index("output") == lines[1].index("what")
