"""Hyperparameters that no training learns under, and those that people train with."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from yolo_stable.preflight import StageVerdict
from yolo_stable.preflight.hyperparameters import Plan, hyperparameters
from yolo_stable.presets.presets import hyperparameters as preset
from yolo_stable.presets.presets import preset_names
from yolo_stable.presets.ultralytics_settings import default_hyp

SGD: dict[str, Any] = {"lr": 0.01, "momentum": 0.937, "weight_decay": 5e-4, "dampening": 0}
ADAMW: dict[str, Any] = {"lr": 1e-3, "betas": (0.9, 0.999), "weight_decay": 0.01, "eps": 1e-8}
WARM = {"warmup_momentum": 0.8, "momentum": 0.937, "warmup_bias_lr": 0.1}


def judged(kind: str, group: dict[str, Any], **arguments: Any) -> tuple[StageVerdict, str]:
    outcome = hyperparameters(kind, [group], Plan(arguments={**WARM, **arguments}, warmup=100))
    return outcome.verdict, outcome.reason


@pytest.mark.parametrize(
    ("kind", "group", "arguments", "words"),
    [
        pytest.param("SGD", {**SGD, "momentum": 1.0}, {"momentum": 1.0}, "momentum=1 of SGD", id="SGD never forgets"),
        pytest.param("MuSGD", {**SGD, "momentum": 1.0}, {"momentum": 1.0}, "momentum=1 of MuSGD", id="MuSGD stands still"),
        pytest.param("RMSprop", {"lr": 0.01, "momentum": 1.0, "alpha": 0.99}, {}, "momentum=1", id="RMSprop"),
        pytest.param("RMSprop", {"lr": 0.01, "momentum": 0.9, "alpha": 1.0}, {}, "alpha=1", id="alpha"),
        pytest.param("SGD", {**SGD, "momentum": 0.9999}, {"momentum": 0.9999}, "acts for 10000 steps", id="momentum"),
        pytest.param("SGD", {**SGD, "momentum": -0.5}, {}, "momentum=-0.5", id="negative momentum"),
        pytest.param("AdamW", {**ADAMW, "betas": (0.9999, 0.999)}, {}, "betas[0]=0.9999", id="beta"),
        pytest.param("SGD", SGD, {"momentum": 1.0}, "momentum=1 of the warm-up", id="put in by the warm-up"),
        pytest.param("SGD", SGD, {"warmup_momentum": 1.0}, "warmup_momentum=1", id="warmup_momentum"),
        pytest.param("SGD", SGD, {"warmup_bias_lr": 1.0}, "warmup_bias_lr=1", id="warmup_bias_lr"),
        pytest.param("AdamW", ADAMW, {"warmup_bias_lr": 0.5}, "by that much in each step", id="warmup_bias_lr of AdamW"),
        pytest.param("SGD", {**SGD, "weight_decay": 1.0}, {}, "15.87% of each weight", id="weight_decay"),
        pytest.param("Adam", {**ADAMW, "weight_decay": 1.0}, {}, "outweighs the gradients", id="weight_decay of Adam"),
        pytest.param("SGD", {**SGD, "weight_decay": -0.1}, {}, "grow without end", id="negative decay"),
        pytest.param("AdamW", {**ADAMW, "lr": 1.0}, {}, "every weight by about that much", id="lr of AdamW"),
        pytest.param("SGD", {**SGD, "dampening": 1.0}, {}, "only the first gradient", id="dampening"),
        pytest.param("SGD", {**SGD, "maximize": True}, {}, "the loss grows", id="maximize"),
        pytest.param("AdamW", {**ADAMW, "eps": 0.0}, {}, "is divided by 0", id="eps"),
        pytest.param("SGD", SGD, {"box": -7.5}, "box=-7.5", id="negative gain"),
    ],
)  # fmt: skip
def test_what_no_training_learns_under_fails(
    kind: str, group: dict[str, Any], arguments: dict[str, Any], words: str
) -> None:
    verdict, reason = judged(kind, group, **arguments)
    assert verdict is StageVerdict.FAIL
    assert words in reason


@pytest.mark.parametrize(
    ("kind", "group", "arguments"),
    [
        pytest.param("SGD", {**SGD, "momentum": 0.995}, {}, id="momentum"),
        pytest.param("SGD", {**SGD, "weight_decay": 0.1}, {}, id="weight_decay"),
        pytest.param("AdamW", {**ADAMW, "weight_decay": 1.0}, {}, id="weight_decay of AdamW"),
        pytest.param("SGD", SGD, {"warmup_bias_lr": 0.5}, id="warmup_bias_lr"),
    ],
)
def test_what_is_unusual_is_a_warning(kind: str, group: dict[str, Any], arguments: dict[str, Any]) -> None:
    assert judged(kind, group, **arguments)[0] is StageVerdict.WARN


@pytest.mark.parametrize(
    ("kind", "group"),
    [
        pytest.param("SGD", SGD, id="Ultralytics"),
        pytest.param("SGD", {"lr": 0.1, "momentum": 0.9, "weight_decay": 1e-3}, id="ResNet"),
        pytest.param("SGD", {"lr": 0.01, "momentum": 0.99, "weight_decay": 3e-5}, id="nnU-Net"),
        pytest.param("SGD", {"lr": 0.01, "momentum": 0.0, "weight_decay": 0}, id="without momentum"),
        pytest.param("AdamW", {**ADAMW, "weight_decay": 0.3}, id="ViT"),
        pytest.param("AdamW", {**ADAMW, "betas": (0.0, 0.99)}, id="without a first moment"),
        pytest.param("Adam", {**ADAMW, "weight_decay": 5e-4}, id="Adam"),
    ],
)
def test_what_people_train_with_passes(kind: str, group: dict[str, Any]) -> None:
    assert judged(kind, group) == (StageVerdict.PASS, "")


def test_without_a_warm_up_its_settings_are_a_warning() -> None:
    plan = Plan(arguments={"warmup_momentum": 1.0, "warmup_bias_lr": 1.0})
    outcome = hyperparameters("SGD", [SGD], plan)
    assert outcome.verdict is StageVerdict.WARN
    assert "without effect" in outcome.reason


@pytest.mark.parametrize("kind", ["SGD", "Adam", "AdamW", "Adamax", "NAdam", "RAdam", "RMSprop"])
def test_torchs_own_defaults_pass(kind: str) -> None:
    optimizer = getattr(torch.optim, kind)(nn.Linear(2, 2).parameters(), lr=1e-3)
    outcome = hyperparameters(kind, optimizer.param_groups, Plan(arguments=default_hyp(), warmup=100))
    assert outcome.verdict is StageVerdict.PASS, outcome.reason


@pytest.mark.parametrize("name", preset_names())
def test_our_presets_pass(name: str) -> None:
    settings = {**default_hyp(), **preset(name)}
    group = {"lr": settings["lr0"], "momentum": settings["momentum"], "weight_decay": settings["weight_decay"]}
    outcome = hyperparameters("SGD", [group], Plan(arguments=settings, warmup=100))
    assert outcome.verdict is StageVerdict.PASS, outcome.reason
