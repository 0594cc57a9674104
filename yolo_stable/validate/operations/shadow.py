"""Operations of the shadow family: real training steps, each of whose operations is judged."""

from __future__ import annotations

import copy
from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor, nn

from ...guard.config import GuardConfig
from ...guard.fused import FusedStep
from ..check import CheckCase
from ..evidence import CheckEvidence
from ..hashed import HashedDraw, sha256_of
from ..machine import Machine
from ..network import draw_weights, place
from ..recipe import LOW, Tensors, lay_out
from ..shadow.blocks import Block, building_blocks
from ..shadow.mode import Shadow
from ..shadow.networks import CLASSES, batch_of, network_of
from .optimizer import SETTINGS
from .step import NOT_ON_CPU

_PATIENCE = 100.0
"""Seconds for each image: Ultralytics leaves the rest out, but no verdict may depend on time."""
SCALE = 1024.0
"""Of the loss in float16."""


def step(machine: Machine, case: CheckCase, draw: HashedDraw) -> CheckEvidence:
    """Train a network for a step, with validation where the check says so, and judge each operation that this calls."""
    low, params = LOW.get(case.precision), case.check.params
    if low == torch.float16 and machine.backend.name == "cpu":
        return CheckEvidence(skip=NOT_ON_CPU)
    task = params["task"]
    model = network_of(task, draw)
    data = batch_of(task, params["size"], params["images"], params["boxes"], draw)
    digest = sha256_of(data)
    shadow = Shadow()
    with machine.computing():
        data = {name: machine.place(t) for name, t in data.items()}
        place(model, machine)
        averaged = copy.deepcopy(model).eval()
        if case.layout == "channels_last":
            model.to(memory_format=torch.channels_last)
            data["img"] = data["img"].contiguous(memory_format=torch.channels_last)
        machine.dirty(float("nan"))
        with shadow:
            data["img"] = data["img"].float() / 255
            _train(machine, model, data, low, params.get("optimizer", "guard"))
            _average(averaged, model)
            if params.get("validates"):
                _validate(averaged, data, params["size"])
    return _evidence(shadow, digest)


def _evidence(shadow: Shadow, digest: str = "") -> CheckEvidence:
    """Return what a shadow has seen."""
    return CheckEvidence(
        problems=shadow.problems(),
        numbers={"judged": float(shadow.judged), "not_judged": float(sum(shadow.not_judged.values()))},
        notes=[f"not judged: {what}, {count} x" for what, count in sorted(shadow.not_judged.items())],
        input_sha256=digest,
        reference=(),
    )


def _train(machine: Machine, model: nn.Module, data: Tensors, low: torch.dtype | None, optimizer: str) -> None:
    kind = machine.device.type
    with torch.autocast(kind, dtype=low) if low is not None else nullcontext():
        losses, _ = model(data)
    scaler = torch.amp.GradScaler(kind, init_scale=SCALE, enabled=low == torch.float16)  # type: ignore[attr-defined]
    scaler.scale(losses.sum()).backward()
    STEPS[optimizer](model, scaler)


def _guard(model: nn.Module, scaler: Any) -> None:
    """Take two steps as this project does: the second has momentum."""
    parameters = nn.ParameterList(model.parameters())
    sgd = torch.optim.SGD(parameters, **SETTINGS["SGD"])
    fused = FusedStep(
        parameters, sgd, scaler if scaler.is_enabled() else None, GuardConfig(max_norm=10.0), on_device=True
    )
    kept = [p.grad.clone() if p.grad is not None else None for p in parameters]
    for _ in range(2):
        for p, g in zip(parameters, kept, strict=True):
            p.grad = None if g is None else g.clone()
        fused.run()


def _torch(make: Callable[[list[nn.Parameter]], torch.optim.Optimizer]) -> Callable[[nn.Module, Any], None]:
    def steps(model: nn.Module, scaler: Any) -> None:
        parameters = [p for p in model.parameters() if p.requires_grad]
        optimizer = make(parameters)
        scaler.unscale_(optimizer)
        torch.nn.utils.clip_grad_norm_(parameters, 10.0)
        scaler.step(optimizer)
        scaler.update()
        optimizer.step()

    return steps


def _musgd(parameters: list[nn.Parameter]) -> torch.optim.Optimizer:
    from ultralytics.optim.muon import MuSGD

    common = {"lr": 0.01, "momentum": 0.9, "nesterov": True, "weight_decay": 5e-4}
    many, few = [p for p in parameters if p.ndim > 1], [p for p in parameters if p.ndim < 2]
    return MuSGD(
        [{"params": many, "use_muon": True, **common}, {"params": few, "use_muon": False, **common}], muon=0.2, sgd=1.0
    )


STEPS: dict[str, Callable[[nn.Module, Any], None]] = {
    "guard": _guard,
    "sgd-foreach": _torch(lambda p: torch.optim.SGD(p, **SETTINGS["SGD"], foreach=True)),
    "adamw-foreach": _torch(lambda p: torch.optim.AdamW(p, **SETTINGS["AdamW"], foreach=True)),
    "adamw-fused": _torch(lambda p: torch.optim.AdamW(p, **SETTINGS["AdamW"], fused=True)),
    "adamw-plain": _torch(lambda p: torch.optim.AdamW(p, **SETTINGS["AdamW"], foreach=False)),
    "musgd": _torch(_musgd),
}


def _average(averaged: nn.Module, model: nn.Module) -> None:
    """Average the weights as the EMA of Ultralytics does."""
    pairs = [
        (a, b.detach())
        for a, b in zip(averaged.state_dict().values(), model.state_dict().values(), strict=True)
        if a.dtype.is_floating_point
    ]
    torch._foreach_lerp_([a for a, _ in pairs], [b for _, b in pairs], 0.3)


def _validate(model: nn.Module, data: Tensors, size: tuple[int, int]) -> None:
    """Find objects, drop those that overlap, and compare with the labels, as a validation does."""
    from ultralytics.utils.metrics import box_iou
    from ultralytics.utils.nms import non_max_suppression
    from ultralytics.utils.ops import xywh2xyxy

    with torch.no_grad():
        predicted: Any = model(data["img"])
        found: Any = non_max_suppression(
            predicted, conf_thres=1e-4, iou_thres=0.6, nc=CLASSES, multi_label=True, max_nms=40, max_time_img=_PATIENCE
        )
        boxes = xywh2xyxy(data["bboxes"][:, :4]) * data["bboxes"].new_tensor([size[1], size[0]] * 2)
        for i, rows in enumerate(found):
            mine = data["batch_idx"] == i
            overlap = box_iou(boxes[mine], rows[:, :4])
            matches = overlap * (data["cls"][mine].view(-1, 1) == rows[:, 5])
            (matches >= 0.5).nonzero()
            matches.max(0)


def blocks(machine: Machine, case: CheckCase, draw: HashedDraw) -> CheckEvidence:
    """Compute each building block, forward and backward, and judge each operation that this calls."""
    low = LOW.get(case.precision)
    if low == torch.float16 and machine.backend.name == "cpu":
        return CheckEvidence(skip=NOT_ON_CPU)
    shadow = Shadow()
    with machine.computing():
        for name, block in building_blocks().items():
            with torch.random.fork_rng(devices=[]):
                module = block.make().train()
            draw_weights(module, HashedDraw(f"{draw.key}/{name}"))
            place(module, machine)
            inputs = [machine.place(draw(f"{name}/x{i}", *shape).float()) for i, shape in enumerate(block.shapes)]
            if case.layout == "channels_last":
                module.to(memory_format=torch.channels_last)
                inputs = [lay_out(t, case.layout) for t in inputs]
            machine.dirty(float("nan"))
            with shadow:
                _back_and_forth(machine, block, module, [t.requires_grad_(True) for t in inputs], low, draw)
    return _evidence(shadow)


def _back_and_forth(
    machine: Machine, block: Block, module: nn.Module, inputs: list[Tensor], low: torch.dtype | None, draw: HashedDraw
) -> None:
    with torch.autocast(machine.device.type, dtype=low) if low is not None else nullcontext():
        out = block.call(module, *inputs)
    upstream = draw("upstream", *out.shape).to(out.dtype)
    out.backward(lay_out(machine.place(upstream), "channels_last" if _is_last(inputs[0]) else "contiguous"))


def _is_last(tensor: Tensor) -> bool:
    return tensor.ndim == 4 and not tensor.is_contiguous()


PROCEDURES = {"step": step, "blocks": blocks}
