"""The benchmark of the autopsy: its truths, its judgement, and a slice of it from end to end."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from benchmarks import autopsy_scores as scores
from benchmarks.autopsy_damages import damages
from benchmarks.autopsy_faults import spread, trials_of
from benchmarks.autopsy_planted import Cancel, Shared
from benchmarks.autopsy_rig import Rig, clocked
from yolo_stable.chaos import FileFault, LayerFault

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def rig(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rig]:
    rig = Rig("detect", tmp_path_factory.mktemp("rig"), warm=4)
    yield rig
    rig.close()


@pytest.mark.usefixtures("warm_programs")
def test_a_slice_of_all_of_it(tmp_path: Path) -> None:
    file = tmp_path / "autopsies.json"
    command = [sys.executable, "-m", "benchmarks.autopsies", "--quick", "--rigs", "classify", "--json", str(file)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    rows = json.loads(file.read_text())["rows"]
    tables: dict[str, list[dict[str, Any]]] = {}
    for row in rows:
        tables.setdefault(row.pop("table"), []).append(row)
    bars = {row["what"]: row for row in tables["bars"]}
    assert bars["faults that fired and were rejected"]["of"] >= 12
    assert bars["operation and module, all"]["met"]
    assert bars["replay in a fresh process, bitwise"]["met"], tables["replays"]
    assert all(row["met"] for row in tables["hostile"]), [row for row in tables["hostile"] if not row["met"]]
    assert len(tables["hostile"]) >= 25


def test_a_marked_file_is_found_and_the_trainer_is_as_before(rig: Rig) -> None:
    names = [t.model.module for t in trials_of(rig, 0, 0.25) if t.kind == "divide, marked file"]
    model = LayerFault("divide", names[0], marked=True)
    trial = scores.Trial("detect", "forward", "divide", 3, "data", model=model, file=FileFault(rig.files[5], "mark"))
    before = {name: value.clone() for name, value in rig.model.state_dict().items()}
    with clocked():
        row = scores.play(rig, trial)
    assert row["fired"]
    assert row["rejected"]
    assert row["operation right"]
    assert row["file named"]
    assert row["seconds"] > 0
    assert all(bool((value == before[name]).all()) for name, value in rig.model.state_dict().items())


@pytest.mark.parametrize("fault", [Shared("model.3"), Cancel("model.3.conv")])
def test_faults_of_its_own_fire_and_leave_nothing(rig: Rig, fault: Any) -> None:
    on_modules = {name: sorted(vars(module)) for name, module in rig.model.named_modules()}
    with fault.install(rig.model) as armed:
        assert rig.feed(rig.draw(1)).answers
    assert armed.fired
    assert {name: sorted(vars(module)) for name, module in rig.model.named_modules()} == on_modules
    assert not rig.healthy().answers


def test_the_same_seed_gives_the_same_faults(rig: Rig) -> None:
    trials = trials_of(rig, 1, 0.25)
    assert trials == trials_of(rig, 1, 0.25)
    assert trials != trials_of(rig, 2, 0.25)
    assert len({trial.seed for trial in trials}) == len(trials)


def test_places_are_spread_over_all() -> None:
    chosen = spread(range(100), 4, random.Random(0))
    assert [n // 25 for n in chosen] == [0, 1, 2, 3]
    assert spread("ab", 4, random.Random(0)) == ["a", "b"]


GOOD = {"rig": "detect", "group": "forward", "kind": "divide", "cause": "data", "said": "data", "fired": True}
GOOD |= {"rejected": True, "images": 1, "operation right": True, "file right": True, "file named": True}
GOOD |= {"cause right": True, "steps": 5.0, "operation steps": 2.0}


def test_only_what_fired_and_was_rejected_is_judged() -> None:
    rows = [GOOD, {**GOOD, "operation right": False}, {**GOOD, "fired": False}, {**GOOD, "rejected": False}]
    table = {row["what"]: row for row in scores.bars(rows)}
    assert table["faults that fired and were rejected"]["of"] == 2
    whole = table["operation and module, all"]
    assert (whole["right"], whole["of"], whole["met"]) == (1, 2, False)
    assert not table["operation and module, backward"]["met"], "nothing was asked"
    assert [row["wrong"] for row in scores.misses(rows)] == [["operation right"]]
    assert scores.confusion(rows)[0]["data"] == 2
    assert scores.by_kind(rows)[0]["operation right"] == "1 of 2"


def test_more_files_than_the_guilty_one_count_as_named_where_files_are_mixed() -> None:
    rows = [{**GOOD, "rig": "mixed", "file right": False}]
    table = {row["what"]: row for row in scores.bars(rows)}
    assert table["image file in the named set, mixup and copy-paste on"]["met"]
    assert not scores.misses(rows)


def test_there_are_many_damages(tmp_path: Path) -> None:
    wanted = [wanted for _, wanted in damages(tmp_path / "x").values()]
    assert wanted.count("refused") >= 25
