"""Banner: the start-up table, and the check that all weights are finite before the first step."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from .._shared.numbers import megabytes
from ..checkpoints.live_state import named_state
from ..errors import UnhealthyStartError
from ..guard import GuardConfig, StepGuard
from ..guard.escalation import most_micro_batches
from ..guard.health import all_finite, non_finite_names
from ..guard.recent import STRETCH
from ..guard.witness import MODEL
from ..presets.guard_settings import TrainerConfig
from ..presets.run_plan import RunPlan


def require_finite_start(model: nn.Module, optimizer: torch.optim.Optimizer | None = None) -> None:
    """Refuse to start from a state that is not finite.

    Args:
        model: The unwrapped model.
        optimizer: Its optimizer; a resumed one carries state.

    Raises:
        UnhealthyStartError: Names what is not finite.

    Syncs: one per device and dtype; once a run.
    """
    state = list(named_state(model, optimizer))
    if all_finite(tensor for _, tensor in state):
        return
    bad = ", ".join(non_finite_names(state))
    raise UnhealthyStartError(
        f"Training was not started: not finite before the first step: {bad}."
        " Such weights cannot be trained; start from another checkpoint, or from the model's YAML."
    )


def guard_rows(
    guard: StepGuard, *, accumulate: int = 1, precisions: int = 1, collapse: float | None = None
) -> list[tuple[str, str]]:
    """Return the rows of the start-up table about the guard.

    Args:
        guard: As it was built.
        accumulate: Micro-batches in a window.
        precisions: How many there are to try, the one of now included.
        collapse: ``guard.collapse``; None where nothing validates.
    """
    config: GuardConfig = guard.config
    shadow = guard.shadow
    if shadow is None:
        batchnorm = "off (guard.batchnorm=False)"
    else:
        batchnorm = f"{shadow.layers} layers, {shadow.numel:,} numbers" if shadow.layers else "on (the model has none)"
    if config.max_jump is not None and shadow is not None:
        batchnorm += f"; statistics that jump beyond {config.max_jump:g} times are rejected"
    believed = "any finite norm" if config.reject_norm is None else f"norm up to {config.reject_norm:g}"
    return [
        ("clipping", "off (guard.max_norm=None)" if config.max_norm is None else f"global norm {config.max_norm:g}"),
        ("rejection", f"loss, loss items, gradients not finite; {believed} believed"),
        ("BatchNorm protection", batchnorm),
        ("optimizer step", guard.step_name),
        *_backend_rows(guard),
        *_recovery_rows(guard, accumulate, precisions if config.lower_precision else 1, collapse),
    ]


def _backend_rows(guard: StepGuard) -> list[tuple[str, str]]:
    """Return a row about a device that loses NaN; nothing for an honest one."""
    if not guard.doubted:
        return []
    where = ", ".join(guard.doubted)
    return [("this device", f"norms or maxima lose NaN or infinity ({where}): isfinite is asked as well")]


def telemetry_row(config: TrainerConfig) -> tuple[str, str]:
    """Return the row of the start-up table about the step log and its warnings."""
    if config.telemetry_every is None:
        return "telemetry", "off (guard.telemetry_every=None): no steps in guard.jsonl, no warnings"
    every = "every step" if config.telemetry_every == 1 else f"every {config.telemetry_every} steps"
    norm = "" if config.warn_norm is None else f"norm above {config.warn_norm:g}, "
    warned = f"{norm}norm rising, loss scale falling, one layer dominating"
    return "telemetry", f"{every} a line in guard.jsonl; warned of: {warned}"


def incident_row(config: TrainerConfig) -> tuple[str, str]:
    """Return the row of the start-up table about what a bad batch leaves on the disk."""
    if config.incidents is None:
        return "incidents", "off (guard.incidents=None): no bad batch is looked into"
    each = "" if config.incident_bytes is None else f", of at most {megabytes(config.incident_bytes)} each"
    return "incidents", f"up to {config.incidents} written in full{each} (guard.incidents, guard.incident_bytes)"


def _recovery_rows(guard: StepGuard, accumulate: int, precisions: int, collapse: float | None) -> list[tuple[str, str]]:
    config, recovery = guard.config, guard.recovery
    collapse = None if guard.ranks.shared else collapse
    if recovery is None:
        row = ("limits", f"halt after {config.max_consecutive} rejections in a row{_share_and_total(config, ' or ')}")
        return [("snapshots", "off (guard.snapshot_every=None)"), row]
    place = "host" if recovery.ring.on_host else str(next(guard.state.model.parameters()).device)
    kept = recovery.ring.keep + (collapse is not None)
    held = f"{recovery.ring.keep} kept" + ("" if collapse is None else " and the one of the best fitness")
    size = kept * full_size(guard) / 2**20
    anchor = f", and {weights_size(guard) / 2**20:.3g} MiB of weights on the host" if recovery.keeps_anchor else ""
    believed = "any finite number" if config.max_value is None else f"weights up to {config.max_value:g} believed"
    for first in recovery.beyond[:1]:
        others = f" and {len(recovery.beyond) - 1} more" if len(recovery.beyond) > 1 else ""
        believed += f", {first}{others} beyond that as they are"
    rises = (("loss", config.max_loss_rise), ("norm", config.max_norm_rise))
    watched = [f"{name} above {rise:g} times its level" for name, rise in rises if rise is not None]
    divergence = f"{' or '.join(watched)} for {config.patience} steps" if watched else "not judged"
    if collapse is not None:
        divergence += f"; fitness below {collapse:g} of the best twice in a row and training batches worse too"
    lower = ", then in the next safer precision" if precisions > 1 else ""
    most = most_micro_batches(config, precisions, accumulate)
    return [
        ("snapshots", f"every {config.snapshot_every} steps, {held}: up to {size:.3g} MiB on {place}{anchor}"),
        ("audit", f"{believed}; at every snapshot, validation and save"),
        ("divergence", divergence),
        (
            "escalation",
            f"after {config.max_consecutive} rejections in a row, divergence or a ruined state: roll back, where training went"
            f" astray with half the learning rate, {config.max_rollbacks} times{lower}, then halt",
        ),
        (
            "limits",
            f"a fault that never goes away halts within {most} micro-batches{_share_and_total(config, '; ')}",
        ),
    ]


def _share_and_total(config: GuardConfig, joined: str) -> str:
    """Return the limits of all rejections, each with ``joined`` in front."""
    newest = f"{STRETCH} to {2 * STRETCH} windows"
    share = (
        "" if config.max_share is None else f"{joined}more than {config.max_share:.3g} of the last {newest} rejected"
    )
    total = "" if config.max_total is None else f"{joined}{config.max_total} rejections in all"
    return share + total


def full_size(guard: StepGuard) -> int:
    """Return the size of one snapshot in bytes, with the optimizer's state.

    Before the first step that is estimated: SGD and Muon keep one number for each that is trained, the others two.
    """
    live = guard.state.live()
    size = sum(t.numel() * t.element_size() for t in live.values())
    if not any(name.startswith("optimizer/") for name in live):
        trained = (p for group in guard.optimizer.param_groups for p in group["params"])
        each = 1 if "momentum" in guard.optimizer.param_groups[0] else 2
        size += each * sum(p.numel() * p.element_size() for p in trained)
    return size


def weights_size(guard: StepGuard) -> int:
    """Return the size of the model's parameters and buffers in bytes."""
    live = guard.state.live()
    return sum(t.numel() * t.element_size() for name, t in live.items() if name.startswith(MODEL))


def precision(amp: bool, asked: Any, scaler: Any) -> str:
    """Return the precision in words.

    Args:
        amp: Whether autocast is on.
        asked: Ultralytics' ``amp`` argument.
        scaler: The loop's GradScaler.
    """
    if not amp:
        return "float32"
    if asked == "bf16":
        return "bfloat16 autocast, no loss scale"
    return f"float16 autocast, loss scale {'on' if scaler.is_enabled() else 'off'}"


def preset_rows(plan: RunPlan) -> list[tuple[str, str]]:
    """Return the rows of the start-up table about the preset and the arguments that override it."""
    changed = [("changed", f"{key}={new} (before: {old})") for key, (old, new) in plan.changed.items()]
    if plan.preset is None:
        return [("preset", "none: Ultralytics' own settings and yours; after trouble, --preset stable"), *changed]
    rows = [("preset", f"{plan.preset} ({plan.why})" if plan.why else plan.preset)]
    for key, (old, new) in plan.overridden.items():
        rows.append(("", f"{key}={new} (yours; the preset has {old})"))
    return rows + changed
