"""A preflight of plain PyTorch models: what stops it, where, and that nothing of it stays."""

from __future__ import annotations

import copy
import json
import math
import random
from collections.abc import Callable
from typing import Any

import pytest
import torch
from equality import assert_same
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from yolo_stable.errors import InvalidCallError
from yolo_stable.preflight import Preflight, StageResult, StageVerdict, inspect

STAGES = [
    "parameters", "settings", "forward", "loss", "backward", "gradients", "gradient norm", "optimizer", "ema", "validation",
    "memory", "precision", "lr range",
]  # fmt: skip


class Adapter(nn.Module):
    """LoRA: a frozen layer, and beside it B A, where B begins with zeros."""

    def __init__(self, layer: nn.Linear, rank: int = 2) -> None:
        super().__init__()
        self.layer = layer.requires_grad_(False)
        self.a = nn.Parameter(torch.randn(rank, layer.in_features) * 0.1)
        self.b = nn.Parameter(torch.zeros(layer.out_features, rank))

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x) + x @ self.a.T @ self.b.T


class Blocks(nn.Module):
    """Three blocks and a head; ``reentrant`` switches gradient checkpointing on."""

    def __init__(self, *, adapters: bool = False, reentrant: bool | None = None) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.blocks = nn.ModuleList(
            nn.Sequential(Adapter(nn.Linear(8, 8)) if adapters else nn.Linear(8, 8), nn.BatchNorm1d(8), nn.ReLU())
            for _ in range(3)
        )
        if adapters:
            for block in self.blocks:
                block[1].requires_grad_(False)  # pyright: ignore[reportIndexIssue]
        self.head, self.reentrant = nn.Linear(8, 1), reentrant

    def forward(self, x: Tensor) -> Tensor:
        for block in self.blocks:
            x = block(x) if self.reentrant is None else checkpoint(block, x, use_reentrant=self.reentrant)  # pyright: ignore
        return self.head(x)


@pytest.fixture
def x() -> Tensor:
    return torch.randn(16, 8, generator=torch.Generator().manual_seed(1))


def squares(out: Tensor) -> Tensor:
    return (out - 1).square().mean()


def sgd(model: nn.Module, lr: float = 0.01) -> torch.optim.Optimizer:
    return torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=lr, momentum=0.9)


def look(model: nn.Module, x: Any, loss_fn: Callable[[Any], Any] = squares, **options: Any) -> Preflight:
    return inspect(model, x, loss_fn, **{"optimizer": sgd(model), "lr_range": False, **options})


def require_stop(found: Preflight, stage: str, *words: str) -> StageResult:
    """Assert that the preflight has stopped at a stage, and says these words of it."""
    assert found.failed is not None, found.line()
    assert found.failed.stage == stage, found.line()
    assert found.stages[-1] is found.failed
    assert found.exit_code == 1
    assert found.failed.fix
    for word in words:
        assert word in f"{found.failed.reason} | {found.failed.fix}", found.line()
    return found.failed


# ---- healthy -------------------------------------------------------------------------------------------------------------


def test_a_healthy_model_passes_all_stages_in_order(x: Tensor) -> None:
    model, told = Blocks(), []
    found = look(model, x, precisions=["bfloat16"], lr_range=True, seconds=20.0, on_stage=told.append)
    assert [stage.stage for stage in found.stages] == STAGES
    assert tuple(told) == found.stages
    assert (found.verdict, found.exit_code) == (StageVerdict.PASS, 0), found.line()
    assert found["ema"].verdict is StageVerdict.SKIP
    assert found["gradients"].figure.startswith("14 of 14 after 1 batch")
    assert found["precision"].details["precisions"][0]["apart"] < 0.05
    assert found["lr range"].details["chosen"] == 0.01
    assert found.line().startswith("PASS: 12 stages in ")


def test_nothing_of_a_preflight_stays(x: Tensor) -> None:
    model = Blocks()
    optimizer, ema = sgd(model), torch.optim.swa_utils.AveragedModel(model, use_buffers=True)
    scaler = torch.amp.GradScaler("cpu", init_scale=256.0)
    squares(model(x)).backward()
    model.blocks[1].eval()
    gradients = [p.grad for p in model.parameters()]

    def everything() -> Any:
        return copy.deepcopy(
            {
                "model": model.state_dict(),
                "optimizer": optimizer.state_dict(),
                "ema": ema.state_dict(),
                "scaler": scaler.state_dict(),
                "flags": [module.training for module in model.modules()],
                "hooks": [len(m._forward_hooks) + len(m._forward_pre_hooks) for m in model.modules()],
                "gradients": [p.grad for p in model.parameters()],
                "rng": [torch.get_rng_state(), random.getstate()],
            }
        )

    before = everything()
    found = inspect(
        model, x, squares, optimizer=optimizer, ema=ema, scaler=scaler, precisions=["float16"], seconds=20.0
    )
    assert found.failed is None, found.line()
    assert found["ema"].details["followed"] > 0
    assert found["lr range"].details["trace"]
    assert_same(everything(), before)
    assert all(now is then for now, then in zip((p.grad for p in model.parameters()), gradients, strict=True))


def test_without_an_optimizer_the_model_alone_is_looked_at(x: Tensor) -> None:
    model = Blocks()
    before = copy.deepcopy(model.state_dict())
    found = inspect(model, x, squares)
    assert found.verdict is StageVerdict.PASS, found.line()
    assert found["gradients"].verdict is StageVerdict.PASS
    assert found["optimizer"].verdict is StageVerdict.SKIP
    assert_same(model.state_dict(), before)


def test_the_json_is_strict_also_when_nothing_is_finite(x: Tensor) -> None:
    found = look(Blocks(), x, lambda out: (squares(out), {"box": out.sum() * math.inf}))
    text = json.dumps(found.to_dict(), allow_nan=False)
    read = json.loads(text)
    assert (read["schema"], read["verdict"]) == (1, "FAIL")
    assert set(read["stages"][0]) == {"stage", "verdict", "figure", "seconds", "reason", "fix", "details"}
    assert read["stages"][-1]["details"]["items"]["box"] in {"inf", "-inf"}


def test_an_unknown_precision_is_refused(x: Tensor) -> None:
    with pytest.raises(InvalidCallError, match="precision 'fp8' is not among float32, float16, bfloat16"):
        look(Blocks(), x, precisions=["fp8"])


# ---- adapters and checkpointing ------------------------------------------------------------------------------------------


def test_adapters_whose_a_has_no_gradient_before_the_first_step_are_healthy(x: Tensor) -> None:
    found = look(Blocks(adapters=True), x)
    assert found.failed is None, found.line()
    late = found["gradients"].details["late"]
    assert late == ["blocks.0.0.a", "blocks.1.0.a", "blocks.2.0.a"]


@pytest.mark.parametrize("reentrant", [False, True])
def test_reentrant_checkpointing_lets_no_gradient_through_to_adapters(x: Tensor, reentrant: bool) -> None:
    found = look(Blocks(adapters=True, reentrant=reentrant), x)
    if not reentrant:
        assert found.failed is None, found.line()
        return
    stop = require_stop(
        found,
        "gradients",
        "no gradient reaches 6 of 8 trainable parameters (first: blocks.0.0.a)",
        "enable_input_require_grads",
        "use_reentrant=False",
    )
    assert len(stop.details["dead"]) == 6
    assert look(Blocks(adapters=True, reentrant=True), x.clone().requires_grad_()).failed is None  # the fix


def test_where_only_adapters_are_trained_the_loss_hangs_on_nothing(x: Tensor) -> None:
    model = Blocks(adapters=True, reentrant=True)
    model.head.requires_grad_(False)
    require_stop(look(model, x), "backward", "no gradient reaches 6 of 6 trainable parameters", "use_reentrant=False")


# ---- what stops it -------------------------------------------------------------------------------------------------------


def test_a_weight_that_is_not_finite(x: Tensor) -> None:
    model = Blocks()
    nn.init.constant_(model.head.weight, math.inf)
    require_stop(look(model, x), "parameters", "head.weight")


def test_nothing_left_to_train(x: Tensor) -> None:
    model = Blocks()
    model.requires_grad_(False)
    require_stop(inspect(model, x, squares), "parameters", "every parameter is frozen")


def test_an_overflow_names_the_module_that_made_it(x: Tensor) -> None:
    model = Blocks()
    nn.init.constant_(model.blocks[1][0].weight, 1e38)  # pyright: ignore[reportIndexIssue, reportArgumentType]
    stop = require_stop(look(model, x), "forward", "blocks.1.0 (Linear)", "float32 cannot hold it")
    assert stop.details["module"] == "blocks.1.0"


def test_a_forward_pass_that_raises_is_a_failure_of_its_stage(x: Tensor) -> None:
    stop = require_stop(look(Blocks(), x[:, :5]), "forward", "RuntimeError", "blocks.0.0 was running")
    assert stop.details["traceback"]


def test_a_loss_that_raises_is_not_blamed_on_the_network(x: Tensor) -> None:
    def broken(out: Tensor) -> Tensor:
        raise IndexError("class 7")

    found = look(Blocks(), x, broken)
    require_stop(found, "loss", "IndexError: class 7", "look at labels and classes.")
    assert found["forward"].verdict is StageVerdict.PASS


def test_a_loss_item_that_is_not_finite(x: Tensor) -> None:
    found = look(Blocks(), x, lambda out: (squares(out), {"box": squares(out), "dfl": (out - out).log().sum()}))
    require_stop(found, "loss", "dfl is -inf", "log.default gave -inf")


def test_a_detached_loss(x: Tensor) -> None:
    require_stop(
        look(Blocks(), x, lambda out: squares(out).detach()), "backward", "no gradient reaches 14 of 14", "detach()"
    )


def test_a_module_that_is_never_called(x: Tensor) -> None:
    model = Blocks()
    model.extra = nn.Linear(2, 2)
    require_stop(look(model, x), "gradients", "2 of 16", "extra is not called in the forward pass")


def test_an_output_that_the_loss_does_not_use(x: Tensor) -> None:
    class Two(Blocks):
        def forward(self, x: Tensor) -> Any:
            return super().forward(x), self.blocks[0](x)

    model = Two()
    model.head = nn.Linear(8, 1)
    last = nn.Linear(8, 1)
    model.last = last

    def forward(x: Tensor) -> Any:
        return Blocks.forward(model, x), last(x)

    model.forward = forward  # pyright: ignore[reportAttributeAccessIssue]
    require_stop(look(model, x, lambda outs: squares(outs[0])), "gradients", "last (2)", "the loss does not")


def test_a_gradient_that_is_not_finite(x: Tensor) -> None:
    found = look(Blocks(), x, lambda out: squares(out) + (out - out).sum().sqrt())
    require_stop(found, "gradients", "gradients are not finite", "test_inspection.py")


def test_gradients_that_are_zero_for_want_of_an_object_are_no_failure(x: Tensor) -> None:
    """Connected, and masked away by the loss: as the box branch of a detector's level without an object."""

    class Branches(Blocks):
        def forward(self, x: Tensor) -> Any:
            return super().forward(x), branch(x)

    model = Branches()
    branch = nn.Linear(8, 2)
    model.branch = branch
    found = look(model, x, lambda outs: squares(outs[0]) + (outs[1] * 0).sum(), lr_range=False)
    assert found["gradients"].verdict is StageVerdict.PASS
    assert "branch (2) have a gradient of 0" in found["gradients"].figure


@pytest.mark.parametrize(
    ("flat", "stage"),
    [
        pytest.param(lambda out: (out * 0).sum(), "loss", id="weight of 0"),
        pytest.param(lambda out: (out - out.detach()).clamp(0, 0).sum(), "loss", id="clamped"),
        pytest.param(lambda out: (out * 0).sum() + 3.0, "gradients", id="constant"),
        pytest.param(lambda out: torch.zeros(3, requires_grad=True).sum(), "loss", id="0 of its own"),
        pytest.param(lambda out: torch.ones(3, requires_grad=True).sum(), "gradients", id="of its own"),
        pytest.param(lambda out: out.round().sum() + 0.25, "gradients", id="rounded"),
        pytest.param(lambda out: out.clamp(-1e-9, 1e-9).mean() + 2.0, "gradients", id="saturated"),
    ],
)
def test_a_loss_that_nothing_can_be_learnt_from(flat: Callable[[Tensor], Tensor], stage: str, x: Tensor) -> None:
    found = look(Blocks(), x, flat, lr_range=False)
    assert found.failed is not None
    assert found.failed.stage == stage, found.line()


def test_a_loss_of_0_on_the_first_batch_alone_is_a_warning(x: Tensor) -> None:
    """A hinge whose first batch is met already."""
    model = Blocks()
    found = look(model, x * 0, lambda out: (out - model(x * 0).detach()).abs().sum(), more_inputs=(x,), lr_range=False)
    assert found["loss"].verdict is StageVerdict.WARN, found.line()


def test_hyperparameters_that_nothing_is_learnt_under(x: Tensor) -> None:
    model = Blocks()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=1.0)
    require_stop(look(model, x, optimizer=optimizer), "settings", "forgets nothing")


def test_an_optimizer_that_does_not_hold_all(x: Tensor) -> None:
    model = Blocks()
    found = look(model, x, optimizer=sgd(model.blocks))
    require_stop(found, "optimizer", "does not hold 2 trainable parameters (first: head.weight)")


def test_an_optimizer_of_another_model(x: Tensor) -> None:
    model = Blocks()
    optimizer = sgd(model)
    optimizer.add_param_group({"params": list(nn.Linear(3, 3).parameters())})
    found = look(model, x, optimizer=optimizer)
    assert found["optimizer"].verdict is StageVerdict.WARN
    assert "2 parameters that are not the model's" in found["optimizer"].reason


def test_a_learning_rate_of_nothing(x: Tensor) -> None:
    model = Blocks()
    require_stop(look(model, x, optimizer=sgd(model, lr=0.0)), "optimizer", "moved nothing", "set lr0")


def test_a_step_that_moves_one_group_only(x: Tensor) -> None:
    model = Blocks()
    groups = [
        {"params": list(model.blocks.parameters()), "lr": 0.01},
        {"params": list(model.head.parameters()), "lr": 0.0},
    ]
    require_stop(look(model, x, optimizer=torch.optim.SGD(groups)), "optimizer", "1 of 2 groups (group 1, lr 0: 2")


def test_an_average_that_stays_where_it_is(x: Tensor) -> None:
    model = Blocks()
    ema = torch.optim.swa_utils.AveragedModel(model, avg_fn=lambda old, new, count: old)
    ema.update_parameters(model)  # the first update copies
    require_stop(look(model, x, ema=ema), "ema", "has not moved although the model has")


def test_a_validation_that_overflows_where_training_does_not(x: Tensor) -> None:
    model = Blocks()
    for block in model.blocks:
        block[1].running_var.fill_(1e-40)  # pyright: ignore[reportIndexIssue, reportCallIssue]
        block[1].eps, block[1].momentum = 1e-30, 0.0  # pyright: ignore[reportIndexIssue]
    found = look(model, x)
    require_stop(found, "validation", "not finite in float32", "running statistics")
    assert model.training


def test_a_precision_that_cannot_hold_the_activations(x: Tensor) -> None:
    model = Blocks()
    nn.init.constant_(model.blocks[0][0].weight, 1e5)  # pyright: ignore[reportIndexIssue, reportArgumentType]
    found = look(model, x, precisions=["bfloat16", "float16"])
    require_stop(found, "precision", "in float16 the loss is nan, in float32 all is finite", "bfloat16")


def test_a_forward_pass_near_the_limit_of_float16_is_told(x: Tensor) -> None:
    wide, narrow = nn.Linear(8, 8, bias=False), nn.Linear(8, 1, bias=False)
    nn.init.constant_(wide.weight, 5000.0)
    nn.init.constant_(narrow.weight, 1e-6)
    model = nn.Sequential(wide, narrow)
    found = look(model, torch.ones(4, 8), precision="float16")
    assert found["forward"].verdict is StageVerdict.WARN
    assert "above half of what float16 holds" in found["forward"].reason
    assert found["forward"].details["widest"][0]["module"] == "0"
    assert found["forward"].details["widest"][0]["abs_max"] == pytest.approx(40000, rel=0.01)


def test_a_loss_scale_that_looks_for_its_place_is_no_failure(x: Tensor) -> None:
    model = Blocks()
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**100)
    found = look(model, x, lambda out: squares(out) * 1e10, scaler=scaler, max_norm=None)
    assert found["gradients"].verdict is StageVerdict.PASS, found.line()
    assert "loss scale halved" in found["gradients"].figure
    assert scaler.get_scale() == 2.0**100


# ---- the learning rate ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("lr", "verdict"),
    [
        pytest.param(0.001, StageVerdict.PASS, id="far below"),
        pytest.param(1.9, StageVerdict.WARN, id="just below"),
        pytest.param(90.0, StageVerdict.FAIL, id="far above"),
    ],
)
def test_the_learning_rate_is_held_against_where_the_loss_diverges(lr: float, verdict: StageVerdict) -> None:
    """Gradient descent on a parabola of curvature 1 diverges from a learning rate of 2 on."""
    model = nn.Linear(1, 1, bias=False)
    nn.init.constant_(model.weight, 1.0)
    optimizer = torch.optim.SGD(model.parameters(), lr=lr)
    found = inspect(model, torch.ones(1, 1), lambda out: 0.5 * out.square().sum(), optimizer=optimizer, max_norm=None)
    if lr == 0.001:
        assert found["lr range"].details["diverges"] is None
        assert found["lr range"].figure.startswith("no divergence up to 1;")
        return
    assert found["lr range"].verdict is verdict, found["lr range"]
    assert 2.0 < found["lr range"].details["diverges"] <= 90.0
    assert model.weight.item() == 1.0
    assert optimizer.param_groups[0]["lr"] == lr


def test_without_time_the_sweep_is_left_out(x: Tensor) -> None:
    found = look(Blocks(), x, lr_range=True, seconds=0.0)
    assert found["lr range"].verdict is StageVerdict.SKIP
    assert "--seconds" in found["lr range"].figure
