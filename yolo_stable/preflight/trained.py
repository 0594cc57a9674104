"""Trainer subject: an Ultralytics trainer as the subject of the stages."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from torch import nn

from ..guard.wrappers import unwrap
from ..incidents.forward import precision_of
from .hyperparameters import Plan
from .sample import LoaderBatches
from .subject import Subject

VALIDATED = 8
"""Images of a validation batch that run; a whole one has twice as many as a training batch."""


def subject_of(trainer: Any, sample: LoaderBatches) -> Subject:
    """Return the subject of a trainer that is set up; it is put into training mode here."""
    trainer._model_train()
    for group in trainer.optimizer.param_groups:
        group["lr"] = group.get("initial_lr", group["lr"])
    model = unwrap(trainer.model)
    network: Any = getattr(model, "student_model", model)
    warm = float(trainer.args.warmup_epochs or 0) > 0
    return Subject(
        model=trainer.model,
        draw=sample.draw,
        call=trainer.model,
        optimizer=trainer.optimizer,
        ema=trainer.ema,
        scaler=trainer.scaler.scaler,
        precision=precision_of(bool(trainer.amp), trainer.args.amp),
        # The trainer believes a jump that comes three times in a row; here there is one batch.
        config=replace(trainer.plan.guard, snapshot_every=None, max_jump=None),
        network=network.model[-1],
        cut=sample.cut,
        size=lambda batch: len(batch["img"]),
        evaluate=lambda module: evaluate(trainer, sample, module),
        evaluated_in=validated_in(trainer),
        evaluated_on=lambda: f"{len(sample.validation(VALIDATED)['img'])} images in ",
        lr=float(trainer.args.lr0),
        lr_note="(the rate after the warm-up)" if warm else "",
        plan=Plan(arguments=vars(trainer.args), warmup=trainer._get_warmup_iterations(len(trainer.train_loader))),
    )


def validated_in(trainer: Any) -> str:
    """Return the precision in which Ultralytics validates during a training."""
    return "float16" if trainer.device.type != "cpu" and trainer.amp else "float32"


def evaluate(trainer: Any, sample: LoaderBatches, module: nn.Module) -> tuple[Any, Mapping[str, Any]]:
    """Run a validation batch as ``BaseValidator`` does in a training; return predictions, raw and filtered, and loss items."""
    validator: Any = trainer.validator
    model: Any = module
    if hasattr(model, "end2end"):
        model.end2end = validator.args.nms is False
    validator.device, validator.data, validator.training = trainer.device, trainer.data, True
    validator.args.quantize = 16 if validated_in(trainer) == "float16" else None
    validator.init_metrics(model)
    batch = validator.preprocess(sample.validation(VALIDATED))
    predictions = model(batch["img"])
    items = model.loss(batch, predictions)[1]
    return (predictions, validator.postprocess(predictions)), items
