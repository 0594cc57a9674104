from __future__ import annotations

import dataclasses
import json
import math
import pickle
import re
from typing import Any

import pytest
import torch
import yaml

from yolo_stable.errors import InvalidCallError
from yolo_stable.guard import GuardConfig, StepGuard

DEFAULTS: dict[str, Any] = {
    "max_norm": 10.0,
    "reject_norm": 1e12,
    "batchnorm": True,
    "step": "auto",
    "max_jump": None,
    "max_consecutive": 50,
    "max_share": 0.5,
    "max_total": None,
    "min_scale": 2.0**-14,
    "snapshot_every": None,
    "snapshots": 2,
    "snapshot_device": "auto",
    "max_value": 1e8,
    "max_loss_rise": None,
    "max_norm_rise": None,
    "patience": 32,
    "max_rollbacks": 8,
    "ramp_steps": 100,
    "lower_precision": True,
}
OTHERS: dict[str, Any] = {
    "max_norm": 5.0,
    "reject_norm": 1e6,
    "batchnorm": False,
    "step": "fused",
    "max_consecutive": 3,
    "max_share": 0.25,
    "max_total": 4,
    "min_scale": 1.0,
    "max_jump": 10.0,
    "snapshot_every": 16,
    "snapshots": 3,
    "snapshot_device": "host",
    "max_value": 1e6,
    "max_loss_rise": 4.0,
    "max_norm_rise": 100.0,
    "patience": 8,
    "max_rollbacks": 2,
    "ramp_steps": 10,
    "lower_precision": False,
}
NUMBERS = (
    "max_norm",
    "reject_norm",
    "max_jump",
    "min_scale",
    "max_value",
    "max_loss_rise",
    "max_norm_rise",
    "max_share",
)
COUNTS = ("max_consecutive", "patience", "max_rollbacks", "ramp_steps")


def test_the_defaults_are_the_documented_ones() -> None:
    assert GuardConfig().to_dict() == DEFAULTS
    assert [field.name for field in dataclasses.fields(GuardConfig)] == list(DEFAULTS)


@pytest.mark.parametrize("name", DEFAULTS)
def test_each_setting_can_be_changed_alone(name: str) -> None:
    config = GuardConfig.from_mapping({name: OTHERS[name]})
    assert config.to_dict() == {**DEFAULTS, name: OTHERS[name]}
    assert config == GuardConfig(**{name: OTHERS[name]})


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("max_norm", None),
        ("max_norm", 1),
        ("max_norm", 1e-300),
        ("max_norm", 1.7976931348623157e308),
        ("reject_norm", None),
        ("reject_norm", 5),
        ("min_scale", 65536),
        ("max_consecutive", 1),
        ("max_share", 0.01),
        ("max_share", None),
        ("max_total", 1),
        ("max_total", None),
        ("max_total", 10**30),
        ("batchnorm", False),
        ("step", "auto"),
        ("step", "fused"),
        ("step", "reference"),
    ],
)
def test_values_at_the_edge_of_their_range_are_allowed(name: str, value: object) -> None:
    assert getattr(GuardConfig.from_mapping({name: value}), name) == value


@pytest.mark.parametrize(
    "value",
    [0, 0.0, -1.0, math.nan, math.inf, -math.inf, True, False, "5", [5.0], pytest.param(10**400, id="googol**4")],
    ids=str,
)
@pytest.mark.parametrize("name", NUMBERS)
def test_a_number_must_be_finite_and_above_zero(name: str, value: object) -> None:
    off = "" if name == "min_scale" else " or None (off)"
    message = f"guard.{name}={value!r} is not allowed. It must be a finite number above 0{off}."
    with pytest.raises(InvalidCallError, match=f"^{re.escape(message)}$"):
        GuardConfig.from_mapping({name: value})


def test_a_tensor_is_not_a_number() -> None:
    with pytest.raises(InvalidCallError, match=r"^guard\.max_norm=tensor\(5\.\) is not allowed"):
        GuardConfig.from_mapping({"max_norm": torch.tensor(5.0)})


def test_the_floor_of_the_scale_cannot_be_switched_off() -> None:
    with pytest.raises(
        InvalidCallError, match=r"^guard\.min_scale=None is not allowed\. It must be a finite number above 0\.$"
    ):
        GuardConfig.from_mapping({"min_scale": None})


@pytest.mark.parametrize("value", [0, -1, 1.0, 2.5, math.nan, math.inf, True, False, None, "3"], ids=str)
@pytest.mark.parametrize("name", COUNTS)
def test_a_limit_must_be_a_whole_number_of_one_or_more(name: str, value: object) -> None:
    message = f"guard.{name}={value!r} is not allowed. It must be a whole number of 1 or more."
    with pytest.raises(InvalidCallError, match=f"^{re.escape(message)}$"):
        GuardConfig.from_mapping({name: value})


@pytest.mark.parametrize("value", [0, -1, 1.0, True, "3"], ids=str)
@pytest.mark.parametrize("name", ["max_total", "snapshot_every"])
def test_a_count_may_also_be_off(name: str, value: object) -> None:
    message = f"guard.{name}={value!r} is not allowed. It must be a whole number of 1 or more or None (off)."
    with pytest.raises(InvalidCallError, match=f"^{re.escape(message)}$"):
        GuardConfig.from_mapping({name: value})
    assert getattr(GuardConfig.from_mapping({name: None}), name) is None


@pytest.mark.parametrize("value", [0, 1, None], ids=str)
def test_one_snapshot_is_not_enough(value: object) -> None:
    message = f"guard.snapshots={value!r} is not allowed. It must be a whole number of 2 or more."
    with pytest.raises(InvalidCallError, match=f"^{re.escape(message)}$"):
        GuardConfig.from_mapping({"snapshots": value})


@pytest.mark.parametrize("value", [1, 1.0, 0.5], ids=str)
@pytest.mark.parametrize("name", ["max_loss_rise", "max_norm_rise"])
def test_a_rise_is_above_one(name: str, value: object) -> None:
    message = f"guard.{name}={value!r} is not allowed. It must be above 1, or None (off)."
    with pytest.raises(InvalidCallError, match=f"^{re.escape(message)}$"):
        GuardConfig.from_mapping({name: value})


@pytest.mark.parametrize("value", [1, 1.0, 50], ids=str)
@pytest.mark.parametrize("name", ["max_share"])
def test_a_share_is_below_one(name: str, value: object) -> None:
    message = f"guard.{name}={value!r} is not allowed. It must be below 1, or None (off)."
    with pytest.raises(InvalidCallError, match=f"^{re.escape(message)}$"):
        GuardConfig.from_mapping({name: value})


@pytest.mark.parametrize("value", ["", "cpu", "Host", None, 1], ids=str)
def test_snapshots_have_one_of_three_places(value: object) -> None:
    message = f"guard.snapshot_device={value!r} is not allowed. It must be one of auto, device, host."
    with pytest.raises(InvalidCallError, match=f"^{re.escape(message)}$"):
        GuardConfig.from_mapping({"snapshot_device": value})


@pytest.mark.parametrize("value", [0, 1, 1.0, None, "true", []], ids=str)
@pytest.mark.parametrize("name", ["batchnorm", "lower_precision"])
def test_a_switch_must_be_true_or_false(name: str, value: object) -> None:
    message = f"guard.{name}={value!r} is not allowed. It must be True or False."
    with pytest.raises(InvalidCallError, match=f"^{re.escape(message)}$"):
        GuardConfig.from_mapping({name: value})


@pytest.mark.parametrize("value", ["", "Auto", "fuse", "device", None, True, 1, ["auto"]], ids=str)
def test_a_step_must_be_one_of_the_three(value: object) -> None:
    message = f"guard.step={value!r} is not allowed. It must be one of auto, fused, reference."
    with pytest.raises(InvalidCallError, match=f"^{re.escape(message)}$"):
        GuardConfig.from_mapping({"step": value})


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"max_nrom": 5.0}, "guard has no setting 'max_nrom'. Did you mean 'max_norm'?"),
        (
            {"zzz": 5.0},
            f"guard has no setting 'zzz'. Valid: {', '.join(DEFAULTS)}.",
        ),
        (
            {5: 5.0},
            f"guard has no setting 5. Valid: {', '.join(DEFAULTS)}.",
        ),
        (5.0, "guard=5.0 is not allowed. It must be a dict of settings such as {'max_norm': 5.0}."),
        ("max_norm=5", "guard='max_norm=5' is not allowed. It must be a dict of settings such as {'max_norm': 5.0}."),
        ([("max_norm", 5.0)], "guard=[('max_norm', 5.0)] is not allowed. It must be a dict of settings"),
        (False, "guard=False is not allowed. It must be a dict of settings"),
    ],
    ids=["typo", "unknown", "not-a-name", "number", "text", "pairs", "switch"],
)
def test_what_is_not_a_mapping_of_settings_is_refused(settings: Any, message: str) -> None:
    with pytest.raises(InvalidCallError) as caught:
        GuardConfig.from_mapping(settings)
    assert str(caught.value).startswith(message)
    assert caught.value.exit_code == 2


@pytest.mark.parametrize("settings", [None, {}, GuardConfig()], ids=["none", "empty", "config"])
def test_nothing_given_means_all_defaults(settings: Any) -> None:
    assert GuardConfig.from_mapping(settings) == GuardConfig()


def test_a_config_is_returned_as_it_is() -> None:
    config = GuardConfig(max_norm=1.0)
    assert GuardConfig.from_mapping(config) is config


@pytest.mark.parametrize(
    "settings", [{}, OTHERS, {"max_norm": None, "reject_norm": None}], ids=["default", "all", "off"]
)
def test_the_settings_survive_yaml_json_and_pickle(settings: dict[str, Any]) -> None:
    config = GuardConfig.from_mapping(settings)
    plain = config.to_dict()
    assert GuardConfig.from_mapping(plain) == config
    assert GuardConfig.from_mapping(yaml.safe_load(yaml.safe_dump(plain))) == config
    assert GuardConfig.from_mapping(json.loads(json.dumps(plain, allow_nan=False))) == config
    assert pickle.loads(pickle.dumps(config)) == config


def test_settings_cannot_be_changed_behind_the_guards_back() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        setattr(GuardConfig(), "max_norm", 1.0)  # noqa: B010 - a type checker would refuse the plain assignment


@pytest.mark.parametrize("name", ["report", "incidents", "quarantine", "telemetry_every"])
def test_what_only_a_trainer_does_is_no_setting_of_the_guard(name: str) -> None:
    with pytest.raises(InvalidCallError, match=f"^guard has no setting '{name}'"):
        GuardConfig.from_mapping({name: None})
    model = torch.nn.Linear(1, 1)
    with pytest.raises(InvalidCallError, match=f"^guard has no setting '{name}'"):
        StepGuard(model, torch.optim.SGD(model.parameters(), lr=0.1), **{name: None})
