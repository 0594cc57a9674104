from __future__ import annotations

import os
from pathlib import Path

import pytest
from ultralytics.engine import trainer as engine

from yolo_stable.cli.yolo import taken_out
from yolo_stable.guard import GuardConfig
from yolo_stable.models.asked import Asked
from yolo_stable.models.command import guarded_command
from yolo_stable.presets.guard_settings import GuardSettings
from yolo_stable.presets.presets import load_hyp
from yolo_stable.presets.run_plan import ALERT


def test_nothing_named_is_the_guard_with_its_defaults() -> None:
    for guard in (None, True):
        asked = Asked.of(guard, None)
        assert (asked.settings, asked.words, asked.stock) == ({}, (), False)
    assert not Asked.of(None, None).by_name
    assert Asked.of(True, None).by_name


def test_a_config_is_passed_on_as_plain_values() -> None:
    for given in (GuardConfig(max_norm=5.0), GuardSettings.of({"max_norm": 5.0})):
        assert Asked.of(given, None).settings["guard"]["max_norm"] == 5.0


def test_the_words_mean_to_the_command_what_was_asked(tmp_path: Path) -> None:
    guard = {"max_norm": None, "report": False, "incidents": 3, "quarantine_from": str(tmp_path / "a list.txt")}
    words = Asked.of(guard, "stable").words
    assert taken_out(["train", *words]) == (["train"], guard, "stable")
    assert taken_out(list(Asked.of(GuardConfig(), None).words))[1] == GuardConfig().to_dict()


def test_what_a_tuning_asks_for_counts_where_its_trainings_name_nothing() -> None:
    tuning = Asked.of({"max_norm": 5.0}, None)
    assert Asked.of(None, None, instead=tuning) is tuning
    assert Asked.of({"max_norm": 3.0}, None, instead=tuning).settings == {"guard": {"max_norm": 3.0}}


def test_the_secret_address_is_in_the_environment_of_a_command_and_not_in_its_words(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv(ALERT, raising=False)
    address = "https://hooks.slack.com/services/T0/B0/key"
    settings = {"alert": address, "max_norm": 5.0}
    for given in (settings, GuardSettings.of(settings)):
        asked = Asked.of(given, None)
        with guarded_command(asked):
            command = engine._YOLO_CLI_COMMAND
            assert os.environ[ALERT] == address
        assert "guard.max_norm=5.0" in command
        assert "hooks.slack.com" not in " ".join(command)
        assert ALERT not in os.environ
        assert GuardSettings.of(asked.settings["guard"]).trainer.alert == GuardSettings.of(settings).trainer.alert


def test_the_values_of_a_preset_are_those_of_its_file() -> None:
    assert Asked.of(None, "guarded").hyperparameters("yolo26n.pt", {}) == load_hyp("guarded")
    assert Asked.of(None, "auto").hyperparameters("yolo26n.pt", {}) == load_hyp("stable")
    assert Asked.of(None, "auto").hyperparameters("yolo26n.pt", {"pretrained": False}) == load_hyp("guarded")
    for preset in (None, "none"):
        assert Asked.of(None, preset).hyperparameters("yolo26n.pt", {}) == {}
