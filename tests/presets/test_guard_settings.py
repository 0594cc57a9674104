from __future__ import annotations

import dataclasses
import json
import math
import re
from typing import Any

import pytest
import yaml

from yolo_stable._shared.secret_url import SecretURL
from yolo_stable.errors import InvalidCallError
from yolo_stable.guard import GuardConfig
from yolo_stable.presets.guard_settings import (
    GUARD_DEFAULTS,
    OF_GUARD,
    OF_TRAINER,
    STEP_VARIABLE,
    GuardSettings,
    TrainerConfig,
)

DEFAULTS: dict[str, Any] = {
    "collapse": 0.1,
    "stop_at_zero": False,
    "save_every_steps": None,
    "incidents": 10,
    "incident_bytes": 1_000_000_000,
    "autopsy_seconds": 60.0,
    "quarantine": True,
    "quarantine_from": None,
    "max_unreadable": 0.1,
    "telemetry_every": 10,
    "warn_norm": 100.0,
    "report": True,
    "alert": None,
}
OTHERS: dict[str, Any] = {
    "collapse": 0.2,
    "stop_at_zero": True,
    "save_every_steps": 100,
    "incidents": 3,
    "incident_bytes": None,
    "autopsy_seconds": 5.0,
    "quarantine": False,
    "quarantine_from": "quarantine.txt",
    "max_unreadable": 0.3,
    "telemetry_every": 1,
    "warn_norm": 50.0,
    "report": False,
    "alert": SecretURL("https://hooks.slack.com/services/T0/B0/key"),
}


def test_the_defaults_are_the_documented_ones() -> None:
    assert dataclasses.asdict(TrainerConfig()) == DEFAULTS
    assert list(DEFAULTS) == list(OF_TRAINER)


def test_the_two_kinds_have_no_name_in_common() -> None:
    assert not set(OF_GUARD) & set(OF_TRAINER)


@pytest.mark.parametrize("name", DEFAULTS)
def test_each_setting_can_be_changed_alone(name: str) -> None:
    settings = GuardSettings.of({name: OTHERS[name]})
    assert dataclasses.asdict(settings.trainer) == {**DEFAULTS, name: OTHERS[name]}
    assert settings.guard == GuardConfig(**GUARD_DEFAULTS)


def test_a_trainer_guards_more_closely_than_any_loop() -> None:
    settings = GuardSettings.of(None)
    assert settings.guard == dataclasses.replace(GuardConfig(), **GUARD_DEFAULTS)
    assert (settings.guard.max_jump, GuardSettings.of({"max_jump": None}).guard.max_jump) == (10.0, None)


def test_a_config_of_the_guard_is_taken_as_it_is() -> None:
    config = GuardConfig(max_norm=1.0)
    settings = GuardSettings.of(config)
    assert settings.guard is config
    assert settings.trainer == TrainerConfig()
    assert GuardSettings.of(settings) is settings


def test_both_kinds_are_given_together_and_survive_yaml_and_json() -> None:
    settings = GuardSettings.of({"max_norm": 5.0, **OTHERS})
    plain = settings.to_dict()
    assert plain["max_norm"] == 5.0
    assert {name: plain[name] for name in OTHERS} == {**OTHERS, "alert": "https://hooks.slack.com/***"}
    kept = GuardSettings.of(plain)
    assert kept.changed({"alert": OTHERS["alert"]}) == settings
    assert GuardSettings.of(yaml.safe_load(yaml.safe_dump(plain))) == kept
    assert GuardSettings.of(json.loads(json.dumps(plain, allow_nan=False))) == kept


def test_some_are_changed_and_the_others_stay() -> None:
    settings = GuardSettings.of({"max_norm": 5.0, "incidents": 3})
    assert settings.changed({"incidents": None}) == GuardSettings.of({"max_norm": 5.0, "incidents": None})
    assert settings.changed({}) == settings


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"max_nrom": 5.0}, "guard has no setting 'max_nrom'. Did you mean 'max_norm'?"),
        ({"incidentz": 5}, "guard has no setting 'incidentz'. Did you mean 'incidents'?"),
        ({"zzz": 5.0}, f"guard has no setting 'zzz'. Valid: {', '.join((*OF_GUARD, *OF_TRAINER))}."),
        ("report=False", "guard='report=False' is not allowed. It must be a dict of settings"),
    ],
)
def test_what_is_no_setting_of_either_is_refused(settings: Any, message: str) -> None:
    with pytest.raises(InvalidCallError) as caught:
        GuardSettings.of(settings)
    assert str(caught.value).startswith(message)


@pytest.mark.parametrize("value", [0, 0.0, -1.0, math.nan, math.inf, True, "5"], ids=str)
@pytest.mark.parametrize("name", ["autopsy_seconds", "warn_norm", "collapse", "max_unreadable"])
def test_a_number_must_be_finite_and_above_zero(name: str, value: object) -> None:
    message = f"guard.{name}={value!r} is not allowed. It must be a finite number above 0 or None (off)."
    with pytest.raises(InvalidCallError, match=f"^{re.escape(message)}$"):
        GuardSettings.of({name: value})


@pytest.mark.parametrize("value", [1, 1.0, 50], ids=str)
@pytest.mark.parametrize("name", ["collapse", "max_unreadable"])
def test_a_share_is_below_one(name: str, value: object) -> None:
    message = f"guard.{name}={value!r} is not allowed. It must be below 1, or None (off)."
    with pytest.raises(InvalidCallError, match=f"^{re.escape(message)}$"):
        GuardSettings.of({name: value})


@pytest.mark.parametrize("value", [0, -1, 1.0, True, "3"], ids=str)
@pytest.mark.parametrize("name", ["save_every_steps", "incidents", "telemetry_every"])
def test_a_count_may_be_off(name: str, value: object) -> None:
    message = f"guard.{name}={value!r} is not allowed. It must be a whole number of 1 or more or None (off)."
    with pytest.raises(InvalidCallError, match=f"^{re.escape(message)}$"):
        GuardSettings.of({name: value})
    assert getattr(GuardSettings.of({name: None}).trainer, name) is None


@pytest.mark.parametrize("value", [0, 1, None, "true"], ids=str)
@pytest.mark.parametrize("name", ["quarantine", "report", "stop_at_zero"])
def test_a_switch_must_be_true_or_false(name: str, value: object) -> None:
    message = f"guard.{name}={value!r} is not allowed. It must be True or False."
    with pytest.raises(InvalidCallError, match=f"^{re.escape(message)}$"):
        GuardSettings.of({name: value})


def test_the_list_of_a_quarantine_is_a_path() -> None:
    with pytest.raises(
        InvalidCallError, match=r"guard\.quarantine_from=3 is not allowed\. It must be the path of a file"
    ):
        GuardSettings.of({"quarantine_from": 3})


def test_the_environment_chooses_the_step_of_a_call_that_does_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(STEP_VARIABLE, "reference")
    assert GuardSettings.of(None).guard == GuardConfig(**{**GUARD_DEFAULTS, "step": "reference"})
    assert GuardSettings.of({"max_norm": 5.0}).guard.step == "reference"
    assert GuardSettings.of({"step": "fused"}).guard.step == "fused"
    assert GuardSettings.of(GuardConfig()).guard.step == "auto"
    monkeypatch.setenv(STEP_VARIABLE, "")
    assert GuardSettings.of(None).guard == GuardConfig(**GUARD_DEFAULTS)


def test_a_wrong_step_of_the_environment_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(STEP_VARIABLE, "refernce")
    with pytest.raises(InvalidCallError) as caught:
        GuardSettings.of(None)
    assert str(caught.value) == (
        "YOLO_STABLE_STEP='refernce' is not allowed. The environment variable must be one of auto, fused, reference."
    )


SECRET = "T0/B0/kEy"


class TestTheAddressOfAlerts:
    def test_no_file_and_no_message_has_more_than_its_host(self) -> None:
        settings = GuardSettings.of({"alert": f"https://hooks.slack.com/services/{SECRET}"})
        assert SECRET not in f"{settings!r} {settings.to_dict()} {settings.trainer.alert}"
        assert isinstance(settings.trainer.alert, SecretURL)
        assert settings.trainer.alert.address.endswith(SECRET)

    def test_it_stays_when_others_are_changed(self) -> None:
        settings = GuardSettings.of({"alert": f"https://hooks.slack.com/services/{SECRET}"})
        assert settings.changed({"incidents": 3}).trainer.alert == settings.trainer.alert

    @pytest.mark.parametrize(
        ("value", "why"),
        [
            (SECRET, "it does not begin with https:// or http://"),
            (f"hooks.slack.com/services/{SECRET}", "it does not begin with https:// or http://"),
            (f"file:///{SECRET}", "it does not begin with https:// or http://"),
            (f"ftp://host/{SECRET}", "it does not begin with https:// or http://"),
            (f"https:///{SECRET}", "it must name a host"),
            ("https://kEy@host/", "it must name a host"),
            ("https://user:kEy@host/", "it must name a host"),
            ("https://host:kEy/", "its host or its port cannot be read"),
            (f"https://host/a b{SECRET}", "it has a space"),
            (f"https://host/\n{SECRET}", "it has a space"),
            (f"https://host:99999/{SECRET}", ""),
            (f"https://[::1/{SECRET}", ""),
            ("", "it does not begin"),
            (3, "it is no text, but int"),
            (True, "it is no text, but bool"),
        ],
    )
    def test_one_that_is_none_is_refused_without_repeating_it(self, value: object, why: str) -> None:
        with pytest.raises(InvalidCallError, match=r"^guard\.alert is no address: ") as refused:
            GuardSettings.of({"alert": value})
        assert why in str(refused.value)
        assert "kEy" not in str(refused.value)
        assert "\n" not in str(refused.value)
        assert refused.value.__cause__ is None
