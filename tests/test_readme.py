"""The README says what is true: its loop runs as it stands, and its tables have the real settings and presets."""

from __future__ import annotations

import json
import re
from pathlib import Path

import torch

from yolo_stable.chaos import CATALOGUE
from yolo_stable.presets.guard_settings import GuardSettings
from yolo_stable.presets.presets import preset_names

RESULTS = Path(__file__).parent.parent / "benchmarks" / "results"
README = (Path(__file__).parent.parent / "README.md").read_text(encoding="utf-8")


def test_the_blocks_run_as_they_stand() -> None:
    loop, location = re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL)
    names: dict[str, object] = {}
    exec(compile(location, "README.md", "exec"), names)
    exec(compile(loop, "README.md", "exec"), names)
    assert isinstance(names["ema"], torch.nn.Module)
    assert all(bool(v.isfinite().all()) for v in names["ema"].state_dict().values())


def test_every_guard_setting_is_in_the_table_with_its_default() -> None:
    table = dict(re.findall(r"^\| `guard\.(\w+)` \| (\S+) \|", README, flags=re.MULTILINE))
    config = GuardSettings.of(None)
    assert set(table) == set(config.to_dict())
    for name, default in config.to_dict().items():
        written = table[name].replace("2^-14", str(2.0**-14))
        read = written if isinstance(default, str) else None if written == "none" else type(default)(eval(written))
        assert read == default, name


def test_every_preset_is_in_the_table() -> None:
    section = README.split("## Presets")[1].split("\n## ")[0]
    assert set(re.findall(r"^\| `(\w+)` \|", section, flags=re.MULTILINE)) == set(preset_names())


def test_both_commands_stand_on_the_first_screen() -> None:
    first_screen = README.splitlines()[:32]
    for command in ("    make demo", "    make test", "    pip install ."):
        assert any(line.startswith(command) for line in first_screen), command


def test_the_figures_of_the_costs_are_those_of_the_kept_results() -> None:
    rows = json.loads((RESULTS / "step.json").read_text())["rows"]
    for model in ("yolo11n", "yolo11s", "yolo11m", "yolo26n"):
        measured = {r["optimizer"]: r["guarded / stock"] for r in rows if r["model"] == f"{model}.yaml"}
        written = " | ".join(f"{measured[optimizer]:.2f}" for optimizer in ("SGD", "AdamW", "MuSGD"))
        assert f"| `optimizer_step()`, {model} | {written} |" in README
    epoch = json.loads((RESULTS / "epoch.json").read_text())["rows"][0]
    assert f"| {epoch['guarded / stock']:.2f} ({epoch['95 % low']:.2f} to {epoch['95 % high']:.2f}) |" in README
    for row in json.loads((RESULTS / "reads.json").read_text())["rows"]:
        if row["what"] == "micro-batch":
            assert f"{row['reads']:.1f}" in README
    snapshots = {r["optimizer"]: r for r in json.loads((RESULTS / "snapshots.json").read_text())["rows"][:2]}
    steady = [f"{snapshots[optimizer]['steady cost %']:.1f} % ({optimizer})" for optimizer in ("SGD", "AdamW")]
    back = [f"{snapshots[optimizer]['rollback ms']:.0f} ms ({optimizer})" for optimizer in ("SGD", "AdamW")]
    assert f"| {', '.join(steady)} |" in README
    assert f"| {', '.join(back)} |" in README


def test_the_table_of_faults_is_that_of_the_kept_results() -> None:
    rows = json.loads((RESULTS / "faults.json").read_text())["rows"]
    cells: dict[str, dict[str, str]] = {}
    for row in rows:
        lost = f", {row['steps lost']} lost" if row["steps lost"] and row["verdict"] == "as clean" else ""
        cells.setdefault(row["fault"], {})[row["trainer"]] = row["verdict"] + lost
    assert set(cells) == set(CATALOGUE)
    for fault, of in cells.items():
        assert f"| {fault} | {of['stock']} | {of['clip-and-skip']} | {of['guarded']} |" in README


def test_the_figures_of_the_kills_are_those_of_the_kept_results() -> None:
    row = json.loads((RESULTS / "kills.json").read_text())["rows"][0]
    assert (row["kills"], row["resumable"], row["damaged checkpoints"], row["epochs lost at most"]) == (100, 100, 0, 1)
    assert "After each of 100 SIGKILLs" in README
    assert f"{row['inside a save']} inside a save" in README


NAMED = {
    "operation and module": "operation and module, all",
    "image file exactly, mosaic on": "image file exact, mosaic on",
    "image file in the named set, mixup and copy-paste on": "image file in the named set, mixup and copy-paste on",
    "label row": "label row exact",
    "cause": "cause",
    "replay of a bundle in a fresh process, to the bit": "replay in a fresh process, bitwise",
    "damaged and hostile bundles refused in one line": "hostile bundles: one line, nothing run",
}
"""What the README says was named, and the row of the benchmark that it is from."""


def test_the_figures_of_the_autopsies_are_those_of_the_kept_results() -> None:
    section = README.split("## Who did it")[1].split("\n## ")[0]
    rows = json.loads((RESULTS / "autopsies.json").read_text())["rows"]
    bars = {row["what"]: row for row in rows if row["table"] == "bars"}
    assert set(re.findall(r"^\| ([a-z ,-]+) \| \d+ of \d+ \|$", section, flags=re.MULTILINE)) == set(NAMED)
    for name, what in NAMED.items():
        assert f"| {name} | {bars[what]['right']} of {bars[what]['of']} |" in section
    assert f"Of {bars['faults that fired and were rejected']['of']} faults" in section
    assert f"{bars['autopsy, operation only (step times)']['median']:.1f} step times" in section
    assert f"({bars['autopsy with the image (step times)']['median']:.1f} with the image)" in section
    for row in json.loads((RESULTS / "provenance.json").read_text())["rows"]:
        if row["what"] != "drawing alone":
            assert f"{row['on / off']:.2f} ({row['95 % low']:.2f} to {row['95 % high']:.2f})" in section


def test_the_figures_of_the_telemetry_are_those_of_the_kept_result() -> None:
    (row,) = (
        r for r in json.loads((RESULTS / "telemetry.json").read_text())["rows"] if r["what"] == "ten steps in turns"
    )
    section = " ".join(README.split("## Watch, and look back")[1].split("\n## ")[0].split())
    assert f"{row['on / off']:.3f} of the time without it" in section
    assert f"interval {row['95 % low']:.3f} to {row['95 % high']:.3f}" in section


def test_the_figures_of_the_data_check_are_those_of_the_kept_result() -> None:
    rows = json.loads((RESULTS / "check.json").read_text())["rows"]
    ratio = {(row["files"], row["check"]): row["ratio"] for row in rows}
    section = " ".join(README.split("## Look before")[1].split("\n## ")[0].split())
    for files, what in (("JPEG", "it takes {:.2f} of the time"), ("PNG", "near duplicates need: {:.2f} and")):
        assert what.format(ratio[files, "without near duplicates"]) in section
    assert f"and {ratio['JPEG', 'all rules']:.1f} times that with all rules" in section
    assert f"and {ratio['PNG', 'all rules']:.1f} (`python" in section


def test_the_figures_of_the_outside_faults_are_those_of_the_kept_results() -> None:
    section = " ".join(README.split("## Does the device compute correctly?")[1].split("\n## ")[0].split())

    def blind(name: str) -> tuple[int, int, int]:
        """Return how many faults a list has, and how many quick and default found at first sight."""
        rows = json.loads((RESULTS / f"device_outside{name}.json").read_text())["rows"]
        rows = [row for row in rows if row["when"] == "blind"]
        found = {tier: sum(r["found"] for r in rows if r["tier"] == tier) for tier in ("quick", "default")}
        return len({row["fault"] for row in rows}), found["quick"], found["quick"] + found["default"]

    faults, quick, _ = blind("")
    assert f"{quick} of {faults} by `--quick`" in section
    faults, quick, default = blind("_second")
    assert f"then {quick} of {faults}, and {default} by the default" in section
    faults, quick, default = blind("_third")
    assert f"{quick} of {faults}, and {default} by the default" in section
    assert (quick / faults, default / faults) > (0.85, 0.95)


def test_the_figures_of_the_device_faults_are_those_of_the_kept_result() -> None:
    rows = json.loads((RESULTS / "device_faults.json").read_text())["rows"]
    faults, clean = ([row for row in rows if row["table"] == table] for table in ("faults", "clean"))
    kinds = len({(row["family"], row["kind"]) for row in faults})
    section = " ".join(README.split("## Does the device compute correctly?")[1].split("\n## ")[0].split())
    assert (
        f"Of {len(faults)} injected faults of {kinds} kinds, {sum(row['caught'] for row in faults)} are found"
        in section
    )
    assert f"and {sum(not row['bad'] for row in clean)} of {len(clean)} runs with nothing wrong pass" in section
