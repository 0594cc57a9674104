"""Training state: the named tensors and plain values that snapshots and files keep."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import InvalidCallError
from .generators import random_state, restore_random_state
from .memory import CRITERION, Memory
from .wrappers import plain_name, unwrap

Slot = tuple[str, dict[str, Any], str]
TEACHER = "teacher_model"
"""Ultralytics' name of the frozen half of a distillation."""


class TrainingState:
    """Names everything that the next step depends on, except the data.

    Tensors are named by part: ``model/``, ``ema/`` (parameters and all buffers), ``optimizer/I/KEY`` (``I`` counts the
    parameters over all groups), ``outside/I`` (parameters that only the optimizer holds), ``scaler/``, ``rng/``. Plain values
    are JSON: hyperparameters of the groups, counters, schedules.

    The state leaves out the teacher of a distillation (``teacher_model`` in the model, without trained parameters): no step
    writes to it, a copy in every snapshot and side file would only cost memory, and a resumed run loads it from its own file.

    It also leaves out a loss that is a module of the model: this comes with the first batch, and is memory. Those of its
    parameters that the optimizer holds are there as ``outside/I``.

    Args:
        model: The trained model, wrapped (``DistributedDataParallel``, ``torch.compile``) or not.
        optimizer: Its optimizer.
        scaler: A ``GradScaler``, or None.
        ema: An averaged module, or Ultralytics' object with the module as ``ema`` and a counter ``updates``.
        schedules: Objects with ``state_dict()`` and ``load_state_dict()`` of plain values that follow the loop: learning rate,
            weights of the loss.
        counters: Returns plain values that belong to the state.
        memory: What the loss keeps, for snapshots, or None.
    """

    def __init__(
        self,
        model: nn.Module,
        optimizer: torch.optim.Optimizer,
        *,
        scaler: Any = None,
        ema: Any = None,
        schedules: Mapping[str, Any] | None = None,
        counters: Callable[[], dict[str, Any]] | None = None,
        memory: Memory | None = None,
    ) -> None:
        self.model, self.optimizer, self.scaler, self.ema = unwrap(model), optimizer, scaler, ema
        self.schedules = dict(schedules or {})
        self.counters = counters or dict
        self.memory = memory
        self._slots: dict[int, tuple[nn.Module, list[Slot]]] = {}

    def resync(self) -> None:
        """Find the layers again, after some were added or removed."""
        self._slots.clear()

    def live(self) -> dict[str, Tensor]:
        """Return the tensors themselves, not copies, without those of the random number generators.

        Syncs: none.
        """
        named = {f"model/{name}": tensor for name, tensor in self._module(self.model)}
        known = {id(tensor) for tensor in named.values()}
        for teacher in _teachers(self.model):  # optimizers get its parameters with the rest
            known.update(map(id, self.model.get_submodule(teacher).parameters()))
        for i, parameter in enumerate(_parameters(self.optimizer)):
            if id(parameter) not in known:
                named[f"outside/{i}"] = parameter
            for key, value in self.optimizer.state.get(parameter, {}).items():
                if isinstance(value, Tensor):
                    named[f"optimizer/{i}/{key}"] = value
        if self.ema is not None:
            named.update((f"ema/{name}", tensor) for name, tensor in self._module(_averaged(self.ema)))
        if isinstance(getattr(self.scaler, "_scale", None), Tensor):
            named["scaler/scale"] = self.scaler._scale
            named["scaler/growth_tracker"] = self.scaler._growth_tracker
        return named

    def aside(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Return copies of the rest: generators as tensors on the host, and plain values.

        Syncs: none on CUDA, whose generators are kept on the host.
        """
        groups = [{k: _plain(v) for k, v in group.items() if k != "params"} for group in self.optimizer.param_groups]
        scalars = {
            str(i): {k: _plain(v) for k, v in self.optimizer.state[p].items() if not isinstance(v, Tensor)}
            for i, p in enumerate(_parameters(self.optimizer))
            if p in self.optimizer.state
        }
        generators, drawn = random_state(self._device())
        plain = {
            "optimizer": {
                "class": type(self.optimizer).__name__,
                "groups": groups,
                "state": scalars,
                "sizes": self._sizes(),
            },
            "ema": {"updates": getattr(self.ema, "updates", None)},
            "schedules": {name: _plain(part.state_dict()) for name, part in self.schedules.items()},
            "rng": drawn,
            **copy.deepcopy(self.counters()),
        }
        return generators, plain

    def restore(
        self,
        tensors: Mapping[str, Tensor],
        plain: Mapping[str, Any],
        *,
        schedules: bool = True,
        generators: bool | None = None,
    ) -> None:
        """Restore everything in place, bit for bit.

        A model of another dtype takes the values rounded to it. The state of an optimizer of another class, or with other
        parameters in its groups, is dropped, as if it had never made a step. The optimizer may have further groups behind the
        others.

        Args:
            tensors: By name, as from :meth:`live` and :meth:`aside`; of any device.
            plain: As from :meth:`aside`.
            schedules: Also restore what follows the loop: schedules and hyperparameters of the groups. False after a rollback:
                the loop goes on from where it is.
            generators: Also restore the random number generators; None: as ``schedules``. False after a rollback, as the same
                numbers could lead to the same fault for ever, and on another rank than the state's.

        Raises:
            InvalidCallError: The tensors are those of another model; nothing has been changed.

        Syncs: none between tensors of one device.
        """
        live = self.live()
        tensors = {
            plain_name(name): tensor for name, tensor in tensors.items()
        }  # earlier versions wrote the names of wrappers
        self._require_same_model(live, tensors)
        in_place = self._is_in_place(plain["optimizer"].get("sizes"))
        same_class = in_place and plain["optimizer"]["class"] == type(self.optimizer).__name__
        apart = ("optimizer/",) if in_place else ("optimizer/", "outside/")  # counted: they may be other parameters
        pairs = [
            (live[name], theirs)
            for name, theirs in tensors.items()
            if name in live and live[name].shape == theirs.shape and not name.startswith(apart)
        ]
        if same_class:
            pairs += [(live[n], t) for n, t in tensors.items() if n.startswith("optimizer/") and _fits(live.get(n), t)]
        with torch.no_grad():
            torch._foreach_copy_([a for a, _ in pairs], [b for _, b in pairs])
        if same_class:
            self._restore_optimizer(live, tensors, plain["optimizer"])
        else:
            self.optimizer.state.clear()
        self._restore_scaler(live, tensors)
        self._restore_updates(plain)
        if schedules:
            # A group that was added since keeps its values.
            groups = zip(self.optimizer.param_groups, plain["optimizer"]["groups"] if same_class else [], strict=False)
            for group, values in groups:
                for key, value in values.items():
                    _set(group, key, value)
            for name, part in self.schedules.items():
                if name in plain["schedules"]:
                    part.load_state_dict(copy.deepcopy(plain["schedules"][name]))
        if schedules if generators is None else generators:
            restore_random_state(tensors, plain["rng"], self._device())

    def restore_late(self, tensors: Mapping[str, Tensor], plain: Mapping[str, Any], held: int) -> None:
        """Restore parameters that the optimizer got after :meth:`restore`, as from a callback.

        Args:
            tensors: As for :meth:`restore`.
            plain: As for :meth:`restore`, of an optimizer of this class.
            held: How many parameters it had then.

        Syncs: none between tensors of one device.
        """
        if not self._is_in_place(plain["optimizer"].get("sizes")):
            return
        live = self.live()
        with torch.no_grad():
            for i, parameter in enumerate(_parameters(self.optimizer)):
                theirs = tensors.get(f"outside/{i}")
                if i >= held and theirs is not None and theirs.shape == parameter.shape:
                    parameter.copy_(theirs)
        self._restore_optimizer(live, tensors, plain["optimizer"])

    def _sizes(self) -> list[int]:
        return [len(group["params"]) for group in self.optimizer.param_groups]

    def _is_in_place(self, sizes: list[int] | None) -> bool:
        """Return whether counting over all groups finds the same parameters, as far as both have them."""
        return sizes is None or all(a == b for a, b in zip(sizes, self._sizes(), strict=False))

    def restore_ema(self, tensors: Mapping[str, Tensor], plain: Mapping[str, Any]) -> None:
        """Restore the averaged model and its counter alone, as far as ``tensors`` has them."""
        live = {name: tensor for name, tensor in self.live().items() if name.startswith("ema/") and name in tensors}
        with torch.no_grad():
            torch._foreach_copy_(list(live.values()), [tensors[name] for name in live])
        self._restore_updates(plain)

    def renew_ema(self) -> None:
        """Restart the averaged model from the model; its counter stays."""
        mine = dict(self._module(self.model))
        with torch.no_grad():
            for name, tensor in self._module(_averaged(self.ema)):
                source = mine.get(name.removeprefix("module."))  # AveragedModel has it one level deeper
                if source is not None and source.shape == tensor.shape:
                    tensor.copy_(source)

    def _device(self) -> torch.device:
        return next(self.model.parameters()).device

    def _module(self, module: nn.Module) -> Iterator[tuple[str, Tensor]]:
        """Yield parameters and buffers without a teacher's; it walks the tree once, and finds tensors replaced since."""
        known = self._slots.get(id(module))
        if known is None or known[0] is not module:
            slots: list[Slot] = []
            seen: set[int] = set()
            left_out = [*_teachers(module), *([CRITERION] if module is self.model else [])]
            for name, part in module.named_modules():
                prefix = plain_name(name)
                if any(prefix == path or prefix.startswith(f"{path}.") for path in left_out):
                    continue
                for owner in (part._parameters, part._buffers):
                    for key, tensor in owner.items():
                        if tensor is not None and id(tensor) not in seen:
                            seen.add(id(tensor))
                            slots.append((f"{prefix}.{key}" if prefix else key, owner, key))
            known = self._slots[id(module)] = module, slots
        for name, owner, key in known[1]:
            if owner.get(key) is not None:
                yield name, owner[key]

    def _require_same_model(self, live: Mapping[str, Tensor], tensors: Mapping[str, Tensor]) -> None:
        for part in ("model/", "ema/"):
            mine = {name: tuple(t.shape) for name, t in live.items() if name.startswith(part)}
            theirs = {name: tuple(t.shape) for name, t in tensors.items() if name.startswith(part)}
            # Earlier versions had the loss among the model's parts.
            theirs = {name: shape for name, shape in theirs.items() if not name.startswith(f"model/{CRITERION}.")}
            if mine == theirs or (part == "ema/" and not (mine and theirs)):  # only the first rank has an average
                continue
            wrong = next(n for n in sorted({*mine, *theirs}) if mine.get(n) != theirs.get(n))
            raise InvalidCallError(
                f"This is the state of another model: shape of {wrong}: {theirs.get(wrong, 'missing')} there,"
                f" {mine.get(wrong, 'missing')} here."
            )

    def _restore_optimizer(self, live: Mapping[str, Tensor], tensors: Mapping[str, Tensor], plain: Any) -> None:
        """Restore the optimizer's state, with keys that came or went since."""
        parts: dict[int, dict[str, Tensor]] = {}
        for name, tensor in tensors.items():
            if name.startswith("optimizer/"):
                _, i, key = name.split("/", 2)
                parts.setdefault(int(i), {})[key] = tensor
        state = self.optimizer.state
        on_device = {
            id(p)
            for group in self.optimizer.param_groups
            if group.get("capturable") or group.get("fused")
            for p in group["params"]
        }
        for i, parameter in enumerate(_parameters(self.optimizer)):
            values, scalars = parts.get(i, {}), plain["state"].get(str(i))
            if not values and scalars is None:
                state.pop(parameter, None)
                continue
            mine = state[parameter]
            for key in [key for key in mine if key not in values and key not in (scalars or {})]:
                del mine[key]
            for key, tensor in values.items():
                if key not in mine or not _fits(live.get(f"optimizer/{i}/{key}"), tensor):
                    like = parameter if tensor.shape == parameter.shape else tensor
                    # A step counter stays on its device, unless the optimizer wants it with the parameter.
                    stays = key == "step" and id(parameter) not in on_device
                    device = tensor.device if stays else parameter.device
                    mine[key] = torch.empty_like(like, dtype=tensor.dtype, device=device).copy_(tensor).detach()
            mine.update(copy.deepcopy(scalars or {}))

    def _restore_scaler(self, live: Mapping[str, Tensor], tensors: Mapping[str, Tensor]) -> None:
        """Restore a scaler that makes its tensors on first use; those there before are in place already."""
        scaler = self.scaler
        if "scaler/scale" in live and "scaler/scale" not in tensors:  # it had not been used
            scaler._scale.fill_(scaler._init_scale)
            scaler._growth_tracker.fill_(scaler._init_growth_tracker)
        elif "scaler/scale" in tensors and "scaler/scale" not in live and hasattr(scaler, "_scale"):
            device = getattr(scaler, "_device", tensors["scaler/scale"].device)
            scaler._scale = tensors["scaler/scale"].to(device, copy=True)
            scaler._growth_tracker = tensors["scaler/growth_tracker"].to(device, copy=True)

    def _restore_updates(self, plain: Mapping[str, Any]) -> None:
        if plain["ema"]["updates"] is not None and hasattr(self.ema, "updates"):
            self.ema.updates = plain["ema"]["updates"]


def _teachers(module: nn.Module) -> list[str]:
    """Return the paths of the frozen half of a distillation; AveragedModel has it one level deeper."""
    found = []
    for prefix in (TEACHER, f"module.{TEACHER}"):
        try:
            teacher = module.get_submodule(prefix)
        except AttributeError:  # there is none, or Ultralytics took it out of its average
            continue
        if not any(parameter.requires_grad for parameter in teacher.parameters()):
            found.append(prefix)
    return found


def _averaged(ema: Any) -> nn.Module:
    return unwrap(ema.ema) if isinstance(getattr(ema, "ema", None), nn.Module) else ema


def _parameters(optimizer: torch.optim.Optimizer) -> Iterator[Tensor]:
    for group in optimizer.param_groups:
        yield from group["params"]


def _fits(mine: Tensor | None, theirs: Tensor) -> bool:
    return mine is not None and mine.shape == theirs.shape and mine.dtype == theirs.dtype


def _set(group: dict[str, Any], key: str, value: Any) -> None:
    """Set a hyperparameter from :func:`_plain`."""
    mine = group.get(key)
    if isinstance(mine, Tensor):  # a captured graph may read this very tensor
        mine.fill_(value)
    else:
        group[key] = tuple(value) if isinstance(mine, tuple) else copy.deepcopy(value)  # JSON turned betas into a list


def _plain(value: Any) -> Any:
    """Copy plain values, with tensors (a learning rate can be one) as numbers."""
    if isinstance(value, Tensor):
        return value.item() if value.numel() == 1 else value.tolist()
    if type(value) is dict:  # not a Counter, as MultiStepLR has
        return {k: _plain(v) for k, v in value.items()}
    if type(value) in (list, tuple):
        return type(value)(_plain(v) for v in value)
    return copy.deepcopy(value)
