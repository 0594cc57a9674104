"""Generator states: the random number generators of training: Python's, NumPy's, torch's and the device's."""

from __future__ import annotations

import random
import sys
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor


def random_state(device: torch.device) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Return the states of all generators: tensors on the host, named ``rng/...``, and plain values."""
    version, numbers, gauss = random.getstate()
    tensors = {"rng/torch": torch.get_rng_state(), "rng/python": torch.tensor(numbers, dtype=torch.int64)}
    plain: dict[str, Any] = {"python": [version, gauss]}
    numpy = sys.modules.get("numpy")  # never imported: nobody has drawn from it
    if numpy is not None:
        name, keys, position, has_gauss, cached = numpy.random.get_state(legacy=True)
        tensors["rng/numpy"] = torch.tensor(keys.tolist(), dtype=torch.int64)
        plain["numpy"] = [name, int(position), int(has_gauss), float(cached)]
    own = _own_state(device)
    if own is not None:
        tensors[f"rng/{device.type}"] = own.cpu()
    return tensors, plain


def _own_state(device: torch.device) -> Tensor | None:
    """Return the generator state of the accelerator that trains, which need not be the current one."""
    module: Any = getattr(torch, device.type, None)
    if device.type == "cpu" or not hasattr(module, "get_rng_state"):
        return None
    return module.get_rng_state() if device.type == "mps" else module.get_rng_state(device)


def _set_own_state(state: Tensor, device: torch.device) -> None:
    module: Any = getattr(torch, device.type)
    module.set_rng_state(state) if device.type == "mps" else module.set_rng_state(state, device)


class GeneratorStates:
    """The generators at one moment, in their own form: cheap enough for every batch.

    Args:
        device: The device that trains.

    Syncs: none on CUDA, whose generators are kept on the host.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        numpy = sys.modules.get("numpy")
        self._python, self._torch = random.getstate(), torch.get_rng_state()
        self._numpy = None if numpy is None else numpy.random.get_state()
        self._own = _own_state(device)

    def restore(self) -> None:
        """Restore the generators."""
        random.setstate(self._python)
        if self._numpy is not None:
            sys.modules["numpy"].random.set_state(self._numpy)
        torch.set_rng_state(self._torch)
        if self._own is not None:
            _set_own_state(self._own, self.device)

    def state(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Return them as :func:`random_state` does."""
        now = GeneratorStates(self.device)
        self.restore()
        try:
            return random_state(self.device)
        finally:
            now.restore()


def restore_random_state(tensors: Mapping[str, Tensor], plain: Mapping[str, Any], device: torch.device) -> None:
    """Restore the generators from :func:`random_state`, except that of another kind of device."""
    version, gauss = plain["python"]
    random.setstate((version, tuple(tensors["rng/python"].tolist()), gauss))
    numpy = sys.modules.get("numpy")
    if numpy is not None and "numpy" in plain:
        name, position, has_gauss, cached = plain["numpy"]
        numpy.random.set_state((name, tensors["rng/numpy"].tolist(), position, has_gauss, cached))
    torch.set_rng_state(tensors["rng/torch"].cpu())
    own = tensors.get(f"rng/{device.type}")
    if own is not None and device.type != "cpu":
        _set_own_state(own, device)
