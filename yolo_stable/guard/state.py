"""The whole state of a training, as named tensors and plain values: what a snapshot copies and a file keeps."""

from __future__ import annotations

import copy
import random
import sys
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import InvalidCallError

Slot = tuple[str, dict[str, Any], str]


class TrainingState:
    """Names everything that the next step depends on, but the data.

    Tensors are named by part: ``model/``, ``ema/`` (parameters and all buffers), ``optimizer/I/KEY`` (``I`` counts the
    parameters over all groups), ``scaler/``, ``rng/``. Plain values are JSON: hyperparameters of the groups, counters,
    schedules.

    Args:
        model: What is trained; wrappers of ``DistributedDataParallel`` and ``torch.compile`` are looked through.
        optimizer: Its optimizer.
        scaler: A ``GradScaler``, or None.
        ema: An averaged module, or what Ultralytics has: an object with the module as ``ema`` and a counter ``updates``.
        schedules: Objects with ``state_dict()`` and ``load_state_dict()`` of plain values, that follow the loop: learning
            rate, weights of the loss.
        counters: Returns and takes plain values that belong to the state.
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
    ) -> None:
        self.model, self.optimizer, self.scaler, self.ema = unwrap(model), optimizer, scaler, ema
        self.schedules = dict(schedules or {})
        self.counters = counters or dict
        self._slots: dict[int, tuple[nn.Module, list[Slot]]] = {}

    def resync(self) -> None:
        """Look for layers anew, after some were added or removed."""
        self._slots.clear()

    def live(self) -> dict[str, Tensor]:
        """Return the tensors themselves, not copies, without those of the random number generators.

        Syncs: none.
        """
        named = {f"model/{name}": tensor for name, tensor in self._module(self.model)}
        for i, parameter in enumerate(_parameters(self.optimizer)):
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
        """Return copies of all that :meth:`live` has not: generators as tensors on the host, and plain values.

        Syncs: none on CUDA, whose generators are kept on the host.
        """
        groups = [{k: _plain(v) for k, v in group.items() if k != "params"} for group in self.optimizer.param_groups]
        scalars = {
            str(i): {k: v for k, v in self.optimizer.state[p].items() if not isinstance(v, Tensor)}
            for i, p in enumerate(_parameters(self.optimizer))
            if p in self.optimizer.state
        }
        generators, drawn = random_state(next(self.model.parameters()).device)
        plain = {
            "optimizer": {"class": type(self.optimizer).__name__, "groups": groups, "state": scalars},
            "ema": {"updates": getattr(self.ema, "updates", None)},
            "schedules": {name: _plain(part.state_dict()) for name, part in self.schedules.items()},
            "rng": drawn,
            **copy.deepcopy(self.counters()),
        }
        return generators, plain

    def restore(self, tensors: Mapping[str, Tensor], plain: Mapping[str, Any], *, schedules: bool = True) -> None:
        """Put everything back, in place, bit for bit.

        Args:
            tensors: By name, as from :meth:`live` and :meth:`aside`; of any device.
            plain: As from :meth:`aside`.
            schedules: Also what follows the loop: schedules and the hyperparameters of the groups. Not, where the loop goes on
                from where it is, as after a rollback.

        Raises:
            InvalidCallError: The tensors are those of another model; nothing has been changed.

        Syncs: none between tensors of one device.
        """
        live = self.live()
        self._require_same_model(live, tensors)
        pairs = [(live[n], t) for n, t in tensors.items() if n in live and _fits(live[n], t)]
        with torch.no_grad():
            torch._foreach_copy_([a for a, _ in pairs], [b for _, b in pairs])
        self._restore_optimizer(live, tensors, plain["optimizer"])
        if "scaler/scale" in tensors and "scaler/scale" not in live and hasattr(self.scaler, "_scale"):
            self.scaler._scale = tensors["scaler/scale"].clone()
            self.scaler._growth_tracker = tensors["scaler/growth_tracker"].clone()
        if plain["ema"]["updates"] is not None and hasattr(self.ema, "updates"):
            self.ema.updates = plain["ema"]["updates"]
        if schedules:
            for group, values in zip(self.optimizer.param_groups, plain["optimizer"]["groups"], strict=True):
                for key, value in values.items():
                    pair = isinstance(group.get(key), tuple)  # betas come back from JSON as a list
                    group[key] = tuple(value) if pair else copy.deepcopy(value)
            for name, part in self.schedules.items():
                if name in plain["schedules"]:
                    part.load_state_dict(copy.deepcopy(plain["schedules"][name]))
        restore_random_state(tensors, plain["rng"])

    def restore_ema(self, tensors: Mapping[str, Tensor], plain: Mapping[str, Any]) -> None:
        """Put back the averaged model and its counter, and nothing else."""
        live = {name: tensor for name, tensor in self.live().items() if name.startswith("ema/")}
        with torch.no_grad():
            torch._foreach_copy_(list(live.values()), [tensors[name] for name in live])
        if hasattr(self.ema, "updates"):
            self.ema.updates = plain["ema"]["updates"]

    def _module(self, module: nn.Module) -> Iterator[tuple[str, Tensor]]:
        """Yield parameters and buffers; the tree is walked once, tensors that were replaced since are found."""
        known = self._slots.get(id(module))
        if known is None or known[0] is not module:
            slots: list[Slot] = []
            seen: set[int] = set()
            for prefix, part in module.named_modules():
                for owner in (part._parameters, part._buffers):
                    for key, tensor in owner.items():
                        if tensor is not None and id(tensor) not in seen:
                            seen.add(id(tensor))
                            slots.append((f"{prefix}.{key}" if prefix else key, owner, key))
            known = self._slots[id(module)] = module, slots
        for name, owner, key in known[1]:
            if owner[key] is not None:
                yield name, owner[key]

    def _require_same_model(self, live: Mapping[str, Tensor], tensors: Mapping[str, Tensor]) -> None:
        for part in ("model/", "ema/"):
            mine = {name: tuple(t.shape) for name, t in live.items() if name.startswith(part)}
            theirs = {name: tuple(t.shape) for name, t in tensors.items() if name.startswith(part)}
            if mine == theirs:
                continue
            wrong = next(n for n in sorted({*mine, *theirs}) if mine.get(n) != theirs.get(n))
            raise InvalidCallError(
                f"This is the state of another model: {wrong} has shape {theirs.get(wrong, 'none: it is not there')} there,"
                f" {mine.get(wrong, 'none: it is not there')} here."
            )

    def _restore_optimizer(self, live: Mapping[str, Tensor], tensors: Mapping[str, Tensor], plain: Any) -> None:
        """Make the optimizer's state what it was, with keys that came or went since."""
        parts: dict[int, dict[str, Tensor]] = {}
        for name, tensor in tensors.items():
            if name.startswith("optimizer/"):
                _, i, key = name.split("/", 2)
                parts.setdefault(int(i), {})[key] = tensor
        state = self.optimizer.state
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
                    # A step counter stays on the host unless the optimizer wants it elsewhere.
                    device = tensor.device if key == "step" else parameter.device
                    mine[key] = torch.empty_like(like, dtype=tensor.dtype, device=device).copy_(tensor).detach()
            mine.update(copy.deepcopy(scalars or {}))


def unwrap(model: nn.Module) -> nn.Module:
    """Return the module inside the wrappers of data-parallel training and compilation."""
    while isinstance(inner := getattr(model, "_orig_mod", None) or _ddp_module(model), nn.Module):
        model = inner
    return model


def _ddp_module(model: nn.Module) -> nn.Module | None:
    parallel = (nn.parallel.DistributedDataParallel, nn.DataParallel)
    return model.module if isinstance(model, parallel) else None


def _averaged(ema: Any) -> nn.Module:
    return unwrap(ema.ema) if isinstance(getattr(ema, "ema", None), nn.Module) else ema


def _parameters(optimizer: torch.optim.Optimizer) -> Iterator[Tensor]:
    for group in optimizer.param_groups:
        yield from group["params"]


def _fits(mine: Tensor | None, theirs: Tensor) -> bool:
    return mine is not None and mine.shape == theirs.shape and mine.dtype == theirs.dtype


def _plain(value: Any) -> Any:
    """Copy plain values; tensors among them (a learning rate can be one) as numbers."""
    if isinstance(value, Tensor):
        return value.detach().clone()
    if isinstance(value, dict):
        return {k: _plain(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)(_plain(v) for v in value)
    return copy.deepcopy(value)


def random_state(device: torch.device) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Return the states of all random number generators that training draws from: Python, NumPy, torch, the device's.

    Returns:
        Tensors on the host, named ``rng/...``, and what of it is plain.
    """
    version, numbers, gauss = random.getstate()
    tensors = {"rng/torch": torch.get_rng_state(), "rng/python": torch.tensor(numbers, dtype=torch.int64)}
    plain: dict[str, Any] = {"python": [version, gauss]}
    numpy = sys.modules.get("numpy")  # nobody can have drawn from it when it was never imported
    if numpy is not None:
        name, keys, position, has_gauss, cached = numpy.random.get_state(legacy=True)
        tensors["rng/numpy"] = torch.tensor(keys.tolist(), dtype=torch.int64)
        plain["numpy"] = [name, int(position), int(has_gauss), float(cached)]
    module = getattr(torch, device.type, None)
    if device.type != "cpu" and hasattr(module, "get_rng_state"):
        tensors[f"rng/{device.type}"] = module.get_rng_state().cpu()
    return tensors, plain


def restore_random_state(tensors: Mapping[str, Tensor], plain: Mapping[str, Any]) -> None:
    """Set the generators to what :func:`random_state` returned; a generator of a device that is not here is left out."""
    version, gauss = plain["python"]
    random.setstate((version, tuple(tensors["rng/python"].tolist()), gauss))
    numpy = sys.modules.get("numpy")
    if numpy is not None and "numpy" in plain:
        name, position, has_gauss, cached = plain["numpy"]
        numpy.random.set_state((name, tensors["rng/numpy"].tolist(), position, has_gauss, cached))
    torch.set_rng_state(tensors["rng/torch"].cpu())
    for kind in ("cuda", "mps", "xpu", "npu"):
        module = getattr(torch, kind, None)
        if f"rng/{kind}" in tensors and module is not None and module.is_available():
            module.set_rng_state(tensors[f"rng/{kind}"])
