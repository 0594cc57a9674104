from __future__ import annotations

import json
import math
from typing import Any

import pytest

from yolo_stable._shared.strict_json import strict
from yolo_stable.autopsy.advice import Names
from yolo_stable.autopsy.report import AutopsyReport, Sample
from yolo_stable.errors import InvalidCallError

FOUND = AutopsyReport(
    reproduced=True,
    bitwise=True,
    cause="data",
    phase="data",
    module="model.0.conv",
    op="aten.convolution.default",
    samples=(Sample("data/img_017.jpg", 17, (32, 0, 64, 32), 2),),
    evidence={
        "what": "has NaN pixels",
        "tiles": ["2 of 4"],
        "why": "NaN pixels",
        "loss": math.nan,
        "pass": "forward",
        "module_type": "Conv2d",
        "source": "conv.py:87 in forward",
        "inputs": ["input float32 [4, 3, 64, 64]: 0 to 1, 1 of 49152 not finite"],
    },
    next="Repair or remove data/img_017.jpg",
)


def test_the_schema_is_what_was_agreed() -> None:
    answer = FOUND.to_json()
    keys = ["schema", "reproduced", "bitwise", "cause", "phase", "module", "op", "samples", "evidence", "next"]
    assert list(answer) == keys
    assert answer["schema"] == 1
    sample = {"path": "data/img_017.jpg", "index": 17, "tile": [32, 0, 64, 32], "label_row": 2}
    assert answer["samples"] == [sample]
    assert answer["evidence"]["loss"] == "nan"


def test_it_is_read_back_as_it_was() -> None:
    text = json.dumps(FOUND.to_json(), allow_nan=False)
    again = AutopsyReport.from_json(text)
    assert again.to_json() == FOUND.to_json()
    assert again.text() == FOUND.text()
    assert AutopsyReport.from_json(json.loads(text)) == again


def test_the_first_line_is_what_a_person_needs() -> None:
    lines = FOUND.text().splitlines()
    assert lines[0] == "img_017.jpg (tile 2 of 4, label row 2) has NaN pixels: data"
    assert "  operation  aten.convolution.default in model.0.conv (Conv2d), forward" in lines
    assert lines[-1].endswith("Repair or remove data/img_017.jpg")


def test_without_a_file_the_place_in_the_batch_is_named() -> None:
    assert AutopsyReport(samples=(Sample("", 3),)).headline() == "image 3 of the batch broke the training: undecided"
    assert AutopsyReport().headline() == "the batch broke the training: undecided"


def broken(**changes: Any) -> dict[str, Any]:
    return {**FOUND.to_json(), **changes}


@pytest.mark.parametrize(
    "value",
    [
        pytest.param("{", id="no JSON"),
        pytest.param([], id="a list"),
        pytest.param({"schema": 1}, id="too few keys"),
        pytest.param({**broken(), "more": 1}, id="a key more"),
        pytest.param(broken(schema=2), id="schema"),
        pytest.param(broken(schema=True), id="schema true"),
        pytest.param(broken(cause="witchcraft"), id="cause"),
        pytest.param(broken(phase="lunch"), id="phase"),
        pytest.param(broken(reproduced=1), id="reproduced"),
        pytest.param(broken(module=None), id="module"),
        pytest.param(broken(samples=[{}]), id="sample"),
        pytest.param(broken(samples=[{"path": "a", "index": 1, "tile": [1, 2], "label_row": None}]), id="tile"),
        pytest.param(broken(evidence=None), id="evidence"),
        pytest.param(broken(cause=[]), id="unhashable"),
    ],
)
def test_what_is_something_else_is_refused_in_one_line(value: Any) -> None:
    with pytest.raises(InvalidCallError) as refused:
        AutopsyReport.from_json(value)
    assert "\n" not in str(refused.value)


def test_numbers_that_json_does_not_have_become_text() -> None:
    value = {"a": [math.inf, -math.inf, 1.5, None, True], 2: {"b", "a"}, "c": object}
    text = json.dumps(strict(value), allow_nan=False)
    assert json.loads(text)["a"] == ["inf", "-inf", 1.5, None, True]
    assert json.loads(text)["2"] == ["a", "b"]


def test_the_commands_of_the_next_step_stand_on_lines_of_their_own() -> None:
    report = AutopsyReport(next="Take smaller steps:\nyolo-stable train DATA model=MODEL --preset cautious")
    named = report.naming(Names(data="d.yaml", model="yolo11s.pt"))
    assert named.next.splitlines()[1] == "yolo-stable train d.yaml model=yolo11s.pt --preset cautious"
    assert [line.strip() for line in named.text().splitlines()[-2:]] == [
        "next       Take smaller steps:",
        "yolo-stable train d.yaml model=yolo11s.pt --preset cautious",
    ]


def test_several_images_have_what_one_has() -> None:
    two = (Sample("a.jpg", 1), Sample("b.jpg", 2))
    assert AutopsyReport(cause="data", samples=two, evidence={"what": "has NaN pixels"}).headline() == (
        "a.jpg, b.jpg have NaN pixels: data"
    )


@pytest.mark.parametrize(
    ("phase", "reproduced", "bitwise", "expected"),
    [
        ("forward", True, True, "bit for bit"),
        ("forward", True, False, "the same fault"),
        ("forward", False, False, "could not be reproduced"),
        ("state", False, False, "none: no single batch did it"),
    ],
)
def test_what_came_of_the_replay_is_said(phase: str, reproduced: bool, bitwise: bool, expected: str) -> None:
    text = AutopsyReport(phase=phase, reproduced=reproduced, bitwise=bitwise).text()
    assert [line.split(maxsplit=1)[1] for line in text.splitlines() if line.split()[0] == "replay"] == [expected]
