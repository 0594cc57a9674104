"""Inspection: one honest training step of any PyTorch model, stage by stage."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import InvalidCallError
from ..guard import GuardConfig
from ..incidents.forward import AMP
from . import evaluation, gradients, memory, network, step
from .precision import precision as compare
from .rate import rate
from .stage import Preflight, StageResult
from .stage_runner import Clock, Stage, StageContext, StageRunner
from .subject import Subject, undone


def inspect(
    model: nn.Module,
    inputs: Any,
    loss_fn: Callable[[Any], Any] | None = None,
    *,
    more_inputs: Sequence[Any] = (),
    optimizer: torch.optim.Optimizer | None = None,
    ema: Any = None,
    scaler: torch.amp.GradScaler | None = None,
    precision: str = "float32",
    precisions: Sequence[str] = (),
    max_norm: float | None = 10.0,
    lr_range: bool = True,
    seconds: float = 60.0,
    on_stage: Callable[[StageResult], None] | None = None,
) -> Preflight:
    """Take one training step of a model and judge each part of it; afterwards everything is as before.

    The stages are ``parameters``, ``settings``, ``forward``, ``loss``, ``backward``, ``gradients``, ``gradient norm``,
    ``optimizer``, ``ema``, ``validation``, ``memory``, ``precision`` and ``lr range``; the first that fails is the last.

    Args:
        model: Any module, in the mode in which it is trained.
        inputs: A tuple of arguments, a dict of keyword arguments, or one argument. A dict that is itself the one argument is
            given as ``(batch,)``.
        loss_fn: Called with the model's output, returns the loss, or loss and items. None: the output is that already.
        more_inputs: Further batches of the same form, used when the first one leaves a parameter without a gradient.
        optimizer: None: after the gradients only the validation is judged.
        ema: An average of the model: torch's, with ``update_parameters(model)``, or Ultralytics', with ``update(model)``
            and ``ema``.
        scaler: The loop's ``GradScaler``.
        precision: That of training: ``float32``, ``float16`` or ``bfloat16``.
        precisions: Others to compare with float32, beside that of training.
        max_norm: What the loop clips gradients to; None: it does not.
        lr_range: Look for the learning rate at which the loss diverges.
        seconds: Time for everything; the sweep of the learning rate is shortened or left out.
        on_stage: Given each result.

    Returns:
        All stages.

    Raises:
        InvalidCallError: An unknown precision.

    Syncs: many reads; run it once.

    Examples:
        >>> model = nn.Sequential(nn.Linear(2, 2), nn.ReLU(), nn.Linear(2, 1))
        >>> _ = nn.init.constant_(model[0].weight, float("nan"))
        >>> found = inspect(model, torch.ones(3, 2), lambda out: out.square().mean())
        >>> found.line()
        'FAIL at parameters: not finite before the first step: 0.weight'
    """
    for name in (precision, *precisions):
        require_precision(name, "inspect")
    batches = [inputs, *more_inputs]

    def forward(module: nn.Module, batch: Any) -> Any:
        if isinstance(batch, tuple):
            return module(*batch)
        return module(**batch) if isinstance(batch, dict) else module(batch)

    def call(batch: Any) -> Any:
        output = forward(model, batch)
        return output if loss_fn is None else loss_fn(output)

    def evaluate(module: nn.Module) -> tuple[Any, Mapping[str, Any]]:
        return forward(module, inputs), {}

    subject = Subject(
        model=model,
        draw=batches.__getitem__,
        call=call,
        optimizer=optimizer,
        ema=ema,
        scaler=scaler,
        precision=precision,
        config=GuardConfig(max_norm=max_norm, step="reference"),
        evaluate=evaluate,
        evaluated_in=precision,
        size=_samples,
    )
    clock = Clock(seconds)
    course = StageRunner(clock, on_end=on_stage)
    with undone(subject) as before:
        context = StageContext(subject=subject, clock=clock, before=before)
        course.run(stages(context, [precision, *precisions], lr_range=lr_range))
    return course.preflight()


def stages(context: StageContext, precisions: Sequence[str], *, lr_range: bool) -> list[Stage]:
    """Return the stages that any model has, from its parameters to the learning rate."""
    memory.begin(context.subject.device)
    listed: list[Stage] = [
        ("parameters", partial(network.parameters, context)),
        ("settings", partial(step.settings, context)),
        ("forward", partial(network.forward, context)),
        ("loss", partial(network.loss, context)),
        ("backward", partial(gradients.backward, context)),
        ("gradients", partial(gradients.gradients, context)),
        ("gradient norm", partial(gradients.norm, context)),
        ("optimizer", partial(step.optimizer, context)),
        ("ema", partial(step.average, context)),
        ("validation", partial(evaluation.validation, context)),
        ("memory", partial(memory.memory, context)),
        ("precision", partial(compare, context, precisions)),
    ]
    if lr_range:
        listed.append(("lr range", partial(rate, context)))
    return listed


def require_precision(name: str, where: str) -> None:
    """Refuse an unknown precision."""
    if name not in AMP:
        raise InvalidCallError(f"{where}: precision {name!r} is not among {', '.join(AMP)}.")


def _samples(batch: Any) -> int:
    """Return the number of samples in a batch: the length of its first tensor."""
    values = batch if isinstance(batch, tuple) else batch.values() if isinstance(batch, dict) else [batch]
    return next((len(value) for value in values if isinstance(value, Tensor) and value.ndim), 1)
