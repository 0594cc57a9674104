"""Loop state: what a resumed run needs to continue as if it had never stopped.

Not kept: the order of loader workers, which are ahead of the loop; random numbers of ranks other than 0; BatchNorm as it was at
the start of a window that is open across the stop (if that window is then rejected, statistics go back to the stop).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor

from .._shared.system import installed_versions
from ..guard import StepGuard
from ..guard.generators import restore_random_state
from ..guard.memory import CRITERION
from ..guard.memory_record import put_back, record
from ..guard.wrappers import plain_name, plainly_named
from .accumulation import Cadence
from .loader_state import restore_order, save_order
from .state_file import SavedState
from .trainer_view import TrainerView

GRADIENT = "gradient/"
OF_THE_DEVICE = ("fused", "foreach", "capturable", "differentiable")
"""Optimizer settings that choose a kernel; the current device decides, not the one that saved."""


class LoopMemory(NamedTuple):
    """Attributes of the trainer in which Ultralytics' loop remembers earlier epochs."""

    best_fitness: float | None
    nan_recovery_attempts: int


def collect(
    trainer: TrainerView, cadence: Cadence, epoch: int, *, at_the_end_of_an_epoch: bool
) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Return the side file's content: the live tensors, and copies of the plain values.

    Args:
        trainer: A guarded trainer, after an epoch or in the middle of one.
        cadence: Knows which window is open.
        epoch: The last whole one, from 0; -1 in the middle of the first one.
        at_the_end_of_an_epoch: The window that is open goes on; in the middle of an epoch it is dropped.

    Syncs: none on the CPU; those of ``TrainingState.aside``.
    """
    guard = trainer.guard
    assert guard is not None
    tensors = dict(guard.state.live())
    generators, plain = guard.state.aside()
    learned, plain["memory"] = record(guard.memory)
    order, data = save_order(trainer.train_loader)
    batches = len(trainer.train_loader)
    strides: dict[str, list[int]] = {}  # of gradients: norms are summed in the order of memory
    is_open = at_the_end_of_an_epoch and cadence.last_step < batches * (epoch + 1) - 1
    if is_open:
        for name, parameter in _with_gradients(guard):
            if parameter.grad is not None:
                tensors[GRADIENT + name] = parameter.grad
                strides[name] = list(parameter.grad.stride())
    fitness = trainer.best_fitness
    of_stopper = vars(trainer.stopper)  # stock's own has no ``zero_since``
    remembered = ("best_fitness", "best_epoch", "possible_stop", "zero_since")
    stopper = {key: of_stopper[key] for key in remembered if key in of_stopper}
    plain["loop"] = {
        "epoch": epoch,
        "epochs": trainer.epochs,
        "batches": batches,
        "batch": trainer.batch_size,
        "accumulate": cadence.nominal(trainer),
        "last_step": cadence.last_step if at_the_end_of_an_epoch else batches * (epoch + 1) - 1,
        "losses": list(guard._losses) if is_open else [],
        "strides": strides,
        "mosaic_closed": bool(trainer.args.close_mosaic) and epoch >= trainer.epochs - trainer.args.close_mosaic,
        "best_fitness": None if fitness is None else float(fitness),
        "stopper": stopper,
        "nan_recovery_attempts": trainer.nan_recovery_attempts,
        "shown": {"norm": trainer.telemetry.norm, "loss": {k: float(v) for k, v in trainer.telemetry.loss.items()}},
        "results": trainer.csv.read_text(encoding="utf-8") if trainer.csv.is_file() else "",
    }
    plain["data"] = data
    plain["versions"] = installed_versions("torch", "ultralytics", "yolo-stable")
    return {**tensors, **learned, **generators, **order}, plain


def restore_training(
    trainer: TrainerView, saved: SavedState, *, same_optimizer: bool, same_scale: bool, generators: bool
) -> LoopMemory:
    """Restore weights, EMA, optimizer, loss scale, guard, epoch metrics and early stopping.

    Args:
        trainer: A guarded trainer that is set up, before its loop; its optimizer's groups have the numbers of now.
        saved: From the side file.
        same_optimizer: False: the optimizer was exchanged and keeps its fresh state.
        same_scale: False: loss and gradients may be of another size now, and the divergence rule begins anew. High values
            never move a level that has settled: by that of the old data or gains, every step would be an alarm.
        generators: Also the random number generators, which are those of the rank that saved.

    Returns:
        What the loop itself remembers of the epochs before, to be given to it.

    Raises:
        InvalidCallError: It is the state of another model; nothing has been changed.
    """
    guard = trainer.guard
    assert guard is not None
    tensors, plain = dict(saved.tensors), dict(saved.plain)
    groups = [{k: v for k, v in group.items() if k != "params"} for group in trainer.optimizer.param_groups]
    if same_optimizer:
        old = [{k: v for k, v in g.items() if k not in OF_THE_DEVICE} for g in plain["optimizer"]["groups"]]
        plain["optimizer"] = {**plain["optimizer"], "groups": old}
    else:
        tensors = {name: tensor for name, tensor in tensors.items() if not name.startswith("optimizer/")}
        plain["optimizer"] = {"class": type(trainer.optimizer).__name__, "groups": groups, "state": {}}
    guard.state.restore(tensors, plain, schedules=True, generators=generators)
    of_guard = dict(plain["guard"])
    if not same_scale and guard.recovery is not None:
        of_guard["divergence"] = guard.recovery.divergence.state_dict()  # as it is before the first step
    _load_guard(guard, of_guard)
    loop = plain["loop"]
    trainer.stopper.__dict__.update(loop["stopper"])
    # An epoch without a step or without an accepted batch shows the numbers of the one before.
    trainer.telemetry.norm, trainer.telemetry.loss = loop["shown"]["norm"], dict(loop["shown"]["loss"])
    return LoopMemory(loop["best_fitness"], loop["nan_recovery_attempts"])


def restore_late(trainer: TrainerView, saved: SavedState, held: int) -> None:
    """Restore the state of parameters that a callback added to the optimizer afterwards.

    Args:
        trainer: At the start of its first epoch, after all callbacks.
        saved: From the side file; of an optimizer of this class.
        held: How many parameters the optimizer had then.
    """
    guard = trainer.guard
    assert guard is not None
    if sum(len(group["params"]) for group in trainer.optimizer.param_groups) > held:
        guard.state.restore_late(saved.tensors, saved.plain, held)


def restore_memory(trainer: TrainerView, saved: SavedState) -> None:
    """Restore the memory of the loss; a loss that the first batch would create is created now.

    Args:
        trainer: At the start of its first epoch, after all callbacks.
        saved: From the side file.
    """
    entries = saved.plain.get("memory") or []  # files of earlier versions have none
    guard = trainer.guard
    assert guard is not None
    model: Any = guard.state.model
    if not entries:
        return
    if getattr(model, CRITERION, None) is None and hasattr(model, "init_criterion"):
        model.criterion = model.init_criterion()
    put_back(guard.memory, saved.tensors, entries)


def restore_data(trainer: TrainerView, saved: SavedState, *, generators: bool) -> None:
    """Restore the data order and, last, the random number generators; nothing may draw before the first batch.

    Args:
        trainer: At the start of its first epoch.
        saved: From the side file.
        generators: Also the random number generators, the global ones and those of the data, which are those of the rank that
            saved.
    """
    restore_order(trainer.train_loader, dict(saved.tensors), saved.plain["data"], generators=generators)
    if generators:
        restore_random_state(saved.tensors, saved.plain["rng"], trainer.device)


def restore_window(trainer: TrainerView, cadence: Cadence, saved: SavedState) -> None:
    """Restore the gradients and the position of an open window, unless the number or size of batches changed.

    Args:
        trainer: At the start of its first epoch, after its loop has zeroed the gradients.
        cadence: Holds the loop back until the window is full.
        saved: From the side file.
    """
    loop = saved.plain["loop"]
    now = (len(trainer.train_loader), trainer.batch_size)
    if now != (loop["batches"], loop["batch"]):
        return
    cadence.continue_from(loop["last_step"])
    guard = trainer.guard
    assert guard is not None
    gradients = {plain_name(name): tensor for name, tensor in saved.tensors.items() if name.startswith(GRADIENT)}
    strides = dict(plainly_named(loop["strides"].items()))
    for name, parameter in _with_gradients(guard):
        gradient = gradients.get(GRADIENT + name)
        if gradient is not None and parameter.requires_grad:
            stride = strides[name]
            place = {"dtype": parameter.dtype, "device": parameter.device}
            parameter.grad = torch.empty_strided(gradient.shape, stride, **place).copy_(gradient)
    guard._losses = list(loop["losses"])


def _with_gradients(guard: StepGuard) -> Iterator[tuple[str, Any]]:
    """Yield the parameters of the model, and those that only the optimizer holds."""
    yield from plainly_named(guard.state.model.named_parameters())
    yield from ((name, tensor) for name, tensor in guard.state.live().items() if name.startswith("outside/"))


def _load_guard(guard: StepGuard, saved: Mapping[str, Any]) -> None:
    """Restore the guard's counters; those of an incompatible version begin anew."""
    counts = guard.counts.to_dict()
    counts.update({name: value for name, value in saved["counts"].items() if name in counts})
    try:
        guard.load_state_dict({**saved, "counts": counts})
    except (
        ValueError,
        TypeError,
        KeyError,
    ):  # the levels of the divergence rule: they find themselves again in a few steps
        guard.load_state_dict({"counts": counts})
