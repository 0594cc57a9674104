"""The benchmarks run, and the bars that do not depend on the machine hold: host reads, dispatched operations, memory."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from benchmarks import faults

pytestmark = pytest.mark.usefixtures("warm_programs")
ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory, narrow: Callable[[str], str]) -> Callable[..., Any]:
    """Run a benchmark on the narrow detector and return what it kept."""
    folder = tmp_path_factory.mktemp("benchmarks")

    def run(name: str, *options: str) -> Any:
        file = folder / f"{name}.json"
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        command = [sys.executable, "-m", f"benchmarks.{name}", "--json", str(file), *options]
        done = subprocess.run(
            command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300, check=False
        )
        assert done.returncode == 0, done.stderr[-3000:]
        content = json.loads(file.read_text())
        assert content["benchmark"] == name
        assert {"processor", "torch", "ultralytics"} <= set(content["machine"])
        return content["rows"]

    return run


def test_reads_and_operations_are_at_most_those_of_stock(
    results: Callable[..., Any], narrow: Callable[[str], str]
) -> None:
    rows = results("reads", "--model", narrow("detect"))
    found = {(row["what"], row["trainer"]): row for row in rows}
    whats = list(dict.fromkeys(row["what"] for row in rows))
    assert whats == ["micro-batch", "optimizer_step, SGD", "optimizer_step, AdamW", "optimizer_step, MuSGD"]
    for what in whats:
        stock, guarded = found[what, "stock"], found[what, "guarded"]
        print(f"{what}: reads {stock['reads']} stock, {guarded['reads']} guarded; ops {stock['ops']}, {guarded['ops']}")
        assert guarded["ops"] <= stock["ops"]
    assert found["micro-batch", "guarded"]["reads"] <= found["micro-batch", "stock"]["reads"]
    assert all(found[what, "guarded"]["reads"] == 1 for what in whats[1:]), "a step reads the norm and nothing else"


def test_memory_over_stock_is_that_of_the_buffers(results: Callable[..., Any], narrow: Callable[[str], str]) -> None:
    for row in results("memory", "--models", narrow("detect"), "--optimizers", "SGD", "AdamW"):
        assert row["held over stock MB"] <= row["BatchNorm buffers MB"] + 1.0
        assert row["peak of a step, guarded MB"] <= row["peak of a step, stock MB"] + 0.1


def test_the_step_is_measured_for_every_contender(
    results: Callable[..., Any], narrow: Callable[[str], str], tmp_path: Path
) -> None:
    picture = tmp_path / "step.png"
    rows = results(
        "step", "--models", narrow("detect"), "--optimizers", "SGD", "--repeats", "5", "--plot", str(picture)
    )
    assert rows[0]["guarded / stock"] > 0
    assert rows[0]["clip-and-skip / stock"] > 0
    assert picture.stat().st_size > 1000


def test_saves_are_measured_in_turns(results: Callable[..., Any], narrow: Callable[[str], str]) -> None:
    size = ("--pairs", "1", "--saves", "1", "--batches", "2", "--imgsz", "64")
    (row,) = results("saves", "--models", narrow("detect"), "--optimizers", "SGD", *size)
    assert row["saves"] == 1
    assert all(row[key] > 0 for key in ("stock s", "guarded cpu s", "beside s", "step s"))
    assert row["more s"] == pytest.approx(row["guarded s"] - row["stock s"])


def test_epochs_are_measured_in_pairs(results: Callable[..., Any], narrow: Callable[[str], str]) -> None:
    rows = results(
        "epoch", "--model", narrow("detect"), "--pairs", "2", "--batches", "2", "--imgsz", "64", "--batch", "4"
    )
    assert rows[0]["epochs"] == 6
    assert rows[0]["95 % low"] <= rows[0]["guarded / stock"] <= rows[0]["95 % high"]


def test_the_telemetry_is_measured_in_turns(results: Callable[..., Any], narrow: Callable[[str], str]) -> None:
    small = ("--blocks", "2", "--pairs", "1", "--batches", "6", "--imgsz", "64", "--batch", "2")
    turns, epochs, inside = results("telemetry", "--model", narrow("detect"), *small)
    assert (turns["pairs"], turns["lines"]) == (2, 4), "two blocks of ten steps behind two of warming up"
    assert (epochs["pairs"], epochs["lines"]) == (3, 2), "four epochs of six steps"
    assert all(row["95 % low"] <= row["on / off"] <= row["95 % high"] for row in (turns, epochs))
    assert inside["steps"] == 20
    assert inside["microseconds a step"] > 0


def test_every_fault_gets_a_verdict_and_a_crash_is_a_row(results: Callable[..., Any]) -> None:
    names, trainers = ("overflow in every step from epoch 2", "class out of range"), ("stock", "guarded")
    rows = results("faults", "--start-epochs", "1", "--images", "32", "--trainers", *trainers, "--only", *names)
    found = {(row["fault"], row["trainer"]): row for row in rows}
    assert [*found] == [(name, trainer) for name in names for trainer in trainers]
    assert all(row["fired"] for row in rows)
    overflow, label = ({t: found[name, t] for t in trainers} for name in names)
    assert overflow["stock"]["verdict"] == label["stock"]["verdict"] == "crash"
    assert overflow["stock"]["error"].startswith("RuntimeError: ")
    assert overflow["guarded"]["steps lost"] == 8, "every step of the second and third epoch"
    assert (label["guarded"]["steps lost"], label["guarded"]["counts"]["rejected_micro_batches"]) == (1, 1)
    assert (label["guarded"]["last.pt"], label["guarded"]["best.pt"]) == ("healthy", "healthy")


GOOD = {"ending": "done", "fired": 1, "last.pt": "healthy", "best.pt": "healthy"}
GOOD |= {"mAP50 last epoch": 0.5, "mAP50 best.pt": 0.5}


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, "as clean"),
        ({"mAP50 last epoch": 0.41}, "as clean"),
        ({"mAP50 last epoch": 0.39}, "mAP lost"),
        ({"mAP50 best.pt": 0.0}, "mAP lost"),
        ({"mAP50 last epoch": float("nan")}, "mAP lost"),
        ({"last.pt": "ruined"}, "checkpoint ruined"),
        ({"last.pt": "none", "best.pt": "ruined"}, "checkpoint ruined"),
        ({"best.pt": "none"}, "no checkpoint"),
        ({"fired": 0}, "not fired"),
        ({"ending": "halted"}, "halted (healthy checkpoint)"),
        ({"ending": "halted", "last.pt": "none"}, "halted (no healthy checkpoint)"),
        ({"ending": "crash", "fired": 0}, "crash"),
    ],
)
def test_a_verdict_is_one_of_a_few(changes: dict[str, Any], expected: str) -> None:
    assert faults.verdict({**GOOD, **changes}, GOOD) == expected


@pytest.mark.parametrize("value", [None, float("nan"), float("inf"), 65504.0, 0.0])
def test_a_checkpoint_is_ruined_by_what_stock_writes_for_nan(value: float | None, tmp_path: Path) -> None:
    model = torch.nn.Sequential(torch.nn.Conv2d(1, 1, 3), torch.nn.BatchNorm2d(1)).half()
    if value is not None:
        model.state_dict()["0.weight"].fill_(value)
    torch.save({"ema": None, "model": model}, tmp_path / "last.pt")
    assert faults.health(tmp_path / "last.pt") == ("healthy" if value is None else "ruined")
    assert faults.health(tmp_path / "best.pt") == "none"
