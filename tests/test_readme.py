"""The README is short, answers on its first screen, and its figures are those of kept results."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from yolo_stable.chaos import CATALOGUE

ROOT = Path(__file__).parent.parent
RESULTS = ROOT / "benchmarks" / "results"
README = (ROOT / "README.md").read_text(encoding="utf-8")
COSTS = (ROOT / "docs" / "explanation" / "costs.md").read_text(encoding="utf-8")


def rows_of(name: str) -> list[dict[str, Any]]:
    return json.loads((RESULTS / f"{name}.json").read_text())["rows"]


def test_it_is_read_to_its_end() -> None:
    assert len(README.encode()) <= 9_000


def test_the_first_screen_says_what_it_does_what_it_costs_and_how_to_switch_it_on() -> None:
    problem, answers, *_ = README.split("\n\n")[1:]
    assert len(re.findall(r"[.:] ", problem.replace("\n", " "))) <= 4, "three sentences, one of them with a colon"
    for answer in ("What it does", "What it costs", "What it changes", "How to switch it on"):
        assert f"- **{answer}:**" in answers
    first_screen = README.splitlines()[:24]
    for command in ("from yolo_stable import YOLO", "pip install .", "yolo-stable train shapes"):
        assert any(command in line for line in first_screen), command


def test_both_make_targets_are_named() -> None:
    assert "`make demo`" in README
    assert "`make test`" in README


def test_its_pictures_are_small() -> None:
    pictures = [ROOT / path for path in re.findall(r"!\[[^\]]+\]\((docs/images/[\w.-]+)\)", README)]
    assert len(pictures) == 2
    assert sum(picture.stat().st_size for picture in pictures) < 300_000


def test_the_figures_of_the_costs_are_those_of_the_kept_results() -> None:
    for model in ("yolo11n", "yolo11s", "yolo11m", "yolo26n"):
        measured = {
            row["optimizer"]: row["guarded / stock"] for row in rows_of("step") if row["model"] == f"{model}.yaml"
        }
        written = " | ".join(f"{measured[optimizer]:.2f}" for optimizer in ("SGD", "AdamW", "MuSGD"))
        assert f"| `optimizer_step()`, {model} | {written} |" in COSTS
        assert model != "yolo11n" or f"`optimizer_step()`, yolo11n on a CPU | {written} |" in README
    epoch = rows_of("epoch")[0]
    written = f"| {epoch['guarded / stock']:.2f} ({epoch['95 % low']:.2f} to {epoch['95 % high']:.2f}) |"
    assert written in COSTS
    assert written in README
    assert f"an epoch takes {epoch['guarded / stock']:.2f} of stock's time" in README
    for row in rows_of("reads"):
        if row["what"] == "micro-batch":
            assert f"{row['reads']:.1f}" in COSTS
    snapshots = {r["optimizer"]: r for r in rows_of("snapshots")[:2]}
    steady = [f"{snapshots[optimizer]['steady cost %']:.1f} % ({optimizer})" for optimizer in ("SGD", "AdamW")]
    back = [f"{snapshots[optimizer]['rollback ms']:.0f} ms ({optimizer})" for optimizer in ("SGD", "AdamW")]
    assert f"| {', '.join(steady)} |" in COSTS
    assert f"| {', '.join(back)} |" in COSTS
    memory = rows_of("memory")[0]
    assert f"{memory['held over stock MB']:.2f}, and {memory['snapshots MB']:.0f} for snapshots" in COSTS
    assert f"| +{memory['snapshots MB']:.0f}, for snapshots" in README


ENDS = {
    "as clean as without the fault": "as clean",
    "with its mAP lost": "mAP lost",
    "with a ruined checkpoint": "checkpoint ruined",
    "in a crash": "crash",
}
"""Row of the README's table, and the verdict of the benchmark that it counts."""


def test_the_table_of_what_it_survives_counts_the_kept_results() -> None:
    rows = rows_of("faults")
    assert f"{len(CATALOGUE)} faults, each" in README
    assert {row["verdict"] for row in rows} == set(ENDS.values())
    for name, verdict in ENDS.items():
        counts = [
            sum(row["verdict"] == verdict for row in rows if row["trainer"] == trainer)
            for trainer in ("stock", "clip-and-skip", "guarded")
        ]
        assert f"| {name} | {' | '.join(map(str, counts))} |" in README
    assert f"none of {rows_of('oddities')[0]['auto']} honest trainings" in README
    bars = {row["what"]: row for row in rows_of("autopsies") if row["table"] == "bars"}
    assert f"Of {bars['cause']['of']} faults the autopsy named the cause of {bars['cause']['right']}" in README
    assert f"each of {rows_of('kills')[0]['resumable']}\nSIGKILLs" in README
