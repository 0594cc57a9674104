"""A fault that was put in on purpose is on record wherever the run is told of, and no healthy picture is blamed for it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml

from yolo_stable import StableDetectionTrainer
from yolo_stable.chaos import NAN, Fault, FileFault
from yolo_stable.incidents.replay import run as autopsy
from yolo_stable.presets.run_plan import separate
from yolo_stable.runlog.injections import Injections
from yolo_stable.runlog.reader import read_events
from yolo_stable.train.inject import faulty

pytestmark = pytest.mark.usefixtures("without_final_evaluation")
Arguments = Callable[..., dict[str, Any]]


def test_the_faults_of_a_class_are_known_and_when_each_has_fired() -> None:
    first, second = SimpleNamespace(fired=0), SimpleNamespace(fired=0, fault=Fault("pixel", NAN, at=(1,)))
    kind = type("Two", (type("One", (), {"chaos": first}),), {"chaos": second})
    known = Injections(kind)
    assert known.names == ("SimpleNamespace", "pixel nan")
    known.begin_batch()
    second.fired += 1
    assert known.just_now("micro_batch") == known.just_now("window") == known.just_now("roll_back") == ("pixel nan",)
    known.begin_batch()
    assert known.just_now("micro_batch") == ()
    assert known.just_now("window") == ("pixel nan",)
    known.end_window()
    assert known.just_now("window") == ()
    known.escalated()
    assert known.just_now("roll_back") == ()
    assert known.fired == {"SimpleNamespace": 0, "pixel nan": 1}


def test_an_ordinary_class_has_none() -> None:
    known = Injections(StableDetectionTrainer)
    assert (known.names, known.fired, known.just_now("window"), known.has_broken("a.jpg")) == ((), {}, (), False)


@pytest.mark.parametrize("by_command", [True, False], ids=["--inject", "chaos in Python"])
def test_it_is_on_record_and_no_picture_is_blamed(by_command: bool, arguments: Arguments) -> None:
    name = "nan-pixel@1.2x3" if by_command else "pixel nan"
    fault = Fault("pixel", NAN, at=(1, 2, 3))
    kind = faulty(StableDetectionTrainer, name, lambda line: None) if by_command else fault.on(StableDetectionTrainer)
    trainer = kind(overrides=arguments(epochs=1, guard={"quarantine": True}))
    trainer.train()
    folder = trainer.save_dir
    assert sum(trainer.services.injections.fired.values()) == 3
    assert yaml.safe_load((folder / "args.yaml").read_text())["injected"] == [name]
    assert json.loads((folder / "summary.json").read_text())["injected"] == [name]
    events = list(read_events(folder / "guard.jsonl"))
    assert events[0]["injected"] == [name]
    incidents = [event for event in events if event["event"] == "incident"]
    assert [incident["injected"] for incident in incidents] == [[name]] * 3
    record = json.loads((folder / "incidents" / "0001" / "incident.json").read_text())
    assert record["injected"] == {"fired": [name], "now": [name]}
    assert record["autopsy"]["cause"] == "data"
    nothing = f"Nothing: what broke was put in on purpose ({name})."
    assert record["autopsy"]["next"] == nothing
    assert nothing in autopsy(folder / "incidents" / "0001")
    assert trainer.services.quarantine.quarantine.counts == {}
    assert not (folder / "quarantine.txt").exists()
    page = (folder / "report.html").read_text()
    assert f"Faults were put into this run on purpose: {name}." in page
    assert nothing in page
    assert "Repair or remove" not in page
    plan, _ = separate({"model": str(trainer.last), "resume": True})
    assert plan.injected == (name,), "a resumed run knows it as well"


def test_a_file_that_is_broken_on_purpose_is_left_out_of_this_run_only(
    arguments: Arguments, shapes: Callable[..., str]
) -> None:
    data = yaml.safe_load(Path(shapes()).read_text())
    images = sorted((Path(data["path"]) / data["train"]).rglob("*.*"))
    broken = images[3].name
    trainer = FileFault(broken).on(StableDetectionTrainer)(
        overrides=arguments(epochs=3, mosaic=0.0, guard={"quarantine": True})
    )
    trainer.train()
    assert trainer.chaos.fired == 2
    assert [Path(path).name for path in trainer.services.quarantine.quarantine.left_out] == [broken]
    assert broken not in (trainer.save_dir / "quarantine.txt").read_text()


def test_an_honest_run_has_no_word_of_it(arguments: Arguments) -> None:
    trainer = StableDetectionTrainer(overrides=arguments(epochs=1))
    trainer.train()
    for name in ("args.yaml", "guard.jsonl", "summary.json"):
        assert "injected" not in (trainer.save_dir / name).read_text()
