from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import rich.console
import torch
from torch import nn

from yolo_stable._shared.tables import render_table
from yolo_stable.errors import UnhealthyStartError
from yolo_stable.guard import GuardConfig, StepGuard
from yolo_stable.presets.guard_settings import TrainerConfig
from yolo_stable.presets.run_plan import RunPlan
from yolo_stable.trainer.banner import (
    guard_rows,
    incident_row,
    named_state,
    precision,
    preset_rows,
    require_finite_start,
    telemetry_row,
)

NAN = math.nan


def trained(optimizer: str = "AdamW") -> tuple[nn.Sequential, torch.optim.Optimizer]:
    """Return a model and an optimizer that has a state."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3), nn.Linear(3, 1))
    made = getattr(torch.optim, optimizer)(model.parameters(), lr=0.1)
    model(torch.randn(4, 2)).sum().backward()
    made.step()
    return model, made


def spoil_parameter(model: nn.Sequential, optimizer: torch.optim.Optimizer) -> None:
    next(model[2].parameters()).data[0, -1] = NAN


def spoil_buffer(model: nn.Sequential, optimizer: torch.optim.Optimizer) -> None:
    model.get_buffer("1.running_var")[-1] = math.inf


def spoil_class_weights(model: nn.Sequential, optimizer: torch.optim.Optimizer) -> None:
    model.class_weights = torch.tensor([1.0, -math.inf])  # pyright: ignore[reportArgumentType] - as Ultralytics does


def spoil_optimizer(model: nn.Sequential, optimizer: torch.optim.Optimizer) -> None:
    optimizer.state[next(model.parameters())]["exp_avg_sq"][0, 0] = NAN


def spoil_all(model: nn.Sequential, optimizer: torch.optim.Optimizer) -> None:
    for tensor in [*model.parameters(), *model.buffers()]:
        if tensor.is_floating_point():
            tensor.data.fill_(NAN)


@pytest.mark.parametrize(
    ("spoil", "names"),
    [
        (spoil_parameter, "2.weight"),
        (spoil_buffer, "1.running_var"),
        (spoil_class_weights, "class_weights"),
        (spoil_optimizer, "optimizer exp_avg_sq of 0.weight"),
        (spoil_all, "0.weight, 0.bias, 1.weight, 1.bias, 2.weight, and 3 more"),
    ],
    ids=["parameter", "buffer", "class-weights", "optimizer", "all"],
)
def test_what_is_not_finite_is_named_before_the_first_step(
    spoil: Callable[[nn.Sequential, torch.optim.Optimizer], None], names: str
) -> None:
    model, optimizer = trained()
    require_finite_start(model, optimizer)
    spoil(model, optimizer)
    with pytest.raises(UnhealthyStartError) as caught:
        require_finite_start(model, optimizer)
    assert str(caught.value) == (
        f"Training was not started: not finite before the first step: {names}. Such weights cannot be trained; start from"
        " another checkpoint, or from the model's YAML."
    )
    assert caught.value.exit_code == 1


def test_without_an_optimizer_only_the_model_is_looked_at() -> None:
    model, optimizer = trained()
    spoil_optimizer(model, optimizer)
    require_finite_start(model)
    with pytest.raises(UnhealthyStartError):
        require_finite_start(model, optimizer)


@pytest.mark.parametrize("optimizer", ["SGD", "AdamW", "RMSprop"])
def test_large_values_and_fresh_optimizers_are_fine(optimizer: str) -> None:
    model, made = trained(optimizer)
    next(model.parameters()).data.fill_(3e38)
    require_finite_start(model, made)
    require_finite_start(nn.Identity(), getattr(torch.optim, optimizer)([nn.Parameter(torch.ones(1))], lr=0.1))


def test_all_that_training_reads_has_a_name() -> None:
    model, optimizer = trained("SGD")
    other = nn.Parameter(torch.ones(1))
    optimizer.add_param_group({"params": [other]})
    optimizer.state[other]["momentum_buffer"] = torch.ones(1)
    optimizer.state[other]["step"] = 3
    names = [name for name, _ in named_state(model, optimizer)]
    assert names[:3] == ["0.weight", "0.bias", "1.weight"]
    assert {"1.running_mean", "1.running_var", "1.num_batches_tracked"} <= set(names)
    assert names[-1] == "optimizer momentum_buffer of a parameter"
    assert "class_weights" not in names


@pytest.mark.parametrize(
    ("amp", "asked", "scaled", "words"),
    [
        (False, True, False, "float32"),
        (True, "bf16", False, "bfloat16 autocast, no loss scale"),
        (True, True, True, "float16 autocast, loss scale on"),
        (True, "fp16", False, "float16 autocast, loss scale off"),
    ],
)
def test_the_precision_has_words(amp: bool, asked: object, scaled: bool, words: str) -> None:
    assert precision(amp, asked, torch.amp.GradScaler("cpu", enabled=scaled)) == words


def guard_of(model: nn.Module, **settings: Any) -> StepGuard:
    return StepGuard(model, torch.optim.SGD(model.parameters(), lr=0.1), **settings)


@pytest.mark.parametrize(
    ("settings", "row"),
    [
        ({}, ("clipping", "global norm 10")),
        ({"max_norm": 2.5}, ("clipping", "global norm 2.5")),
        ({"max_norm": None}, ("clipping", "off (guard.max_norm=None)")),
        ({}, ("rejection", "loss, loss items, gradients not finite; norm up to 1e+12 believed")),
        ({"reject_norm": None}, ("rejection", "loss, loss items, gradients not finite; any finite norm believed")),
        ({}, ("BatchNorm protection", "1 layers, 7 numbers")),
        (
            {"max_jump": 10.0},
            ("BatchNorm protection", "1 layers, 7 numbers; statistics that jump beyond 10 times are rejected"),
        ),
        ({"step": "reference"}, ("optimizer step", "reference")),
        ({"batchnorm": False}, ("BatchNorm protection", "off (guard.batchnorm=False)")),
        (
            {},
            ("limits", "halt after 50 rejections in a row or more than 0.5 of the last 500 to 1000 windows rejected"),
        ),
        (
            {"max_consecutive": 2, "max_share": None, "max_total": 3},
            ("limits", "halt after 2 rejections in a row or 3 rejections in all"),
        ),
    ],
)
def test_the_table_says_what_the_guard_does(settings: dict[str, Any], row: tuple[str, str]) -> None:
    rows = guard_rows(guard_of(trained()[0], **settings))
    assert row in rows
    assert [name for name, _ in rows] == [
        "clipping",
        "rejection",
        "BatchNorm protection",
        "optimizer step",
        "snapshots",
        "limits",
    ]


def test_the_table_counts_large_models_and_those_without_batchnorm() -> None:
    large = guard_of(nn.Sequential(*[nn.BatchNorm1d(1000) for _ in range(3)]))
    assert ("BatchNorm protection", "3 layers, 6,003 numbers") in guard_rows(large)
    assert ("BatchNorm protection", "on (the model has none)") in guard_rows(guard_of(nn.Linear(1, 1)))


@pytest.mark.parametrize(
    ("settings", "more"),
    [
        ({"again": lambda: torch.tensor(1.0), "max_loss_rise": 4.0}, ", and 0.5 MiB of weights on the host"),
        ({"again": lambda: torch.tensor(1.0)}, ""),
        ({"max_loss_rise": 4.0}, ""),
    ],
    ids=["asked", "loss not watched", "nobody to ask"],
)
def test_the_table_counts_all_copies_of_the_weights(settings: dict[str, Any], more: str) -> None:
    model = nn.Linear(512, 256, bias=False)  # 0.5 MiB
    again = settings.pop("again", None)
    guard = StepGuard(
        model, torch.optim.SGD(model.parameters(), lr=0.1), again=again, snapshot_every=16, snapshots=3, **settings
    )
    said = dict(guard_rows(guard))["snapshots"]
    assert said == f"every 16 steps, 3 kept: up to 3 MiB on cpu{more}"
    assert guard.recovery is not None
    anchor = guard.recovery.evidence._anchor
    anchor.follow(0.0, 0, guard.state.live())
    assert anchor.snapshot is not None
    assert anchor.snapshot.nbytes == 2**19


CONFIG = GuardConfig()


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        (
            {},
            "every 10 steps a line in guard.jsonl; warned of: norm above 100, norm rising, loss scale falling,"
            " one layer dominating",
        ),
        (
            {"telemetry_every": 1, "warn_norm": None},
            "every step a line in guard.jsonl; warned of: norm rising, loss scale falling, one layer dominating",
        ),
        ({"telemetry_every": None}, "off (guard.telemetry_every=None): no steps in guard.jsonl, no warnings"),
    ],
    ids=["default", "each", "off"],
)
def test_the_table_says_what_is_written_and_warned_of(settings: dict[str, Any], said: str) -> None:
    assert telemetry_row(TrainerConfig(**settings)) == ("telemetry", said)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({}, "up to 10 written in full, of at most 1000 MB each (guard.incidents, guard.incident_bytes)"),
        ({"incidents": 3, "incident_bytes": None}, "up to 3 written in full (guard.incidents, guard.incident_bytes)"),
        ({"incidents": None}, "off (guard.incidents=None): no bad batch is looked into"),
    ],
    ids=["default", "any size", "off"],
)
def test_the_table_says_what_bad_batches_leave_on_the_disk(settings: dict[str, Any], said: str) -> None:
    assert incident_row(TrainerConfig(**settings)) == ("incidents", said)


@pytest.mark.parametrize(
    ("plan", "rows"),
    [
        (
            RunPlan(guard=CONFIG),
            [("preset", "none: Ultralytics' own settings and yours; after trouble, --preset stable")],
        ),
        (RunPlan(guard=CONFIG, preset="stable"), [("preset", "stable")]),
        (RunPlan(guard=CONFIG, preset="stable", why="because"), [("preset", "stable (because)")]),
        (
            RunPlan(guard=CONFIG, preset="stable", overridden={"lr0": (0.0005, 0.01), "amp": (False, True)}),
            [
                ("preset", "stable"),
                ("", "lr0=0.01 (yours; the preset has 0.0005)"),
                ("", "amp=True (yours; the preset has False)"),
            ],
        ),
    ],
    ids=["none", "named", "chosen", "overridden"],
)
def test_the_table_names_the_preset_and_what_was_given_over_it(plan: RunPlan, rows: list[tuple[str, str]]) -> None:
    assert preset_rows(plan) == rows


ROWS: list[tuple[str, Any]] = [("clipping", "global norm 10"), ("", "[bold]:warning: C:\\data[/bold]"), ("number", 3)]


def test_a_table_is_plain_text() -> None:
    text = render_table("guard of yolo-stable", ROWS)
    lines = text.splitlines()
    assert lines[0] == "guard of yolo-stable"
    assert [line.split(maxsplit=1) for line in lines if line.strip()][1:] == [
        ["clipping", "global norm 10"],
        ["[bold]:warning:", "C:\\data[/bold]"],
        ["number", "3"],
    ]
    assert "\x1b" not in text
    assert all(line == line.rstrip() for line in lines)
    assert text == text.rstrip()


def test_a_long_value_is_folded_and_not_cut() -> None:
    path = "/a" * 100
    lines = render_table("t", [("details", path)]).splitlines()
    assert max(len(line) for line in lines) <= 110
    assert "".join("".join(lines[1:]).split()) == f"details{path}"


def test_a_table_is_the_same_in_a_notebook_and_on_any_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    expected = render_table("title", ROWS)
    monkeypatch.setattr(rich.console, "_is_jupyter", lambda: True)
    for name, value in {"FORCE_COLOR": "1", "COLUMNS": "20", "TERM": "dumb", "TTY_COMPATIBLE": "1"}.items():
        monkeypatch.setenv(name, value)
    assert render_table("title", ROWS) == expected
