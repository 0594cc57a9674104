"""The random number generators that training draws from: Python's, NumPy's, torch's and the device's."""

from __future__ import annotations

import random
import sys
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor


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
    own = _own_state(device)
    if own is not None:
        tensors[f"rng/{device.type}"] = own.cpu()
    return tensors, plain


def _own_state(device: torch.device) -> Tensor | None:
    """Return the state of an accelerator's generator: of the one that is trained on, which need not be the current one."""
    module: Any = getattr(torch, device.type, None)
    if device.type == "cpu" or not hasattr(module, "get_rng_state"):
        return None
    return module.get_rng_state() if device.type == "mps" else module.get_rng_state(device)


def _set_own_state(state: Tensor, device: torch.device) -> None:
    module: Any = getattr(torch, device.type)
    module.set_rng_state(state) if device.type == "mps" else module.set_rng_state(state, device)


class Draw:
    """The generators at one moment, kept as they are: cheap enough for every batch.

    Args:
        device: What is trained on.

    Syncs: none on CUDA, whose generators are kept on the host.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        numpy = sys.modules.get("numpy")
        self._python, self._torch = random.getstate(), torch.get_rng_state()
        self._numpy = None if numpy is None else numpy.random.get_state()
        self._own = _own_state(device)

    def restore(self) -> None:
        """Set the generators to what they were."""
        random.setstate(self._python)
        if self._numpy is not None:
            sys.modules["numpy"].random.set_state(self._numpy)
        torch.set_rng_state(self._torch)
        if self._own is not None:
            _set_own_state(self._own, self.device)

    def state(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Return it as :func:`random_state` does."""
        now = Draw(self.device)
        self.restore()
        try:
            return random_state(self.device)
        finally:
            now.restore()


def restore_random_state(tensors: Mapping[str, Tensor], plain: Mapping[str, Any], device: torch.device) -> None:
    """Set the generators to what :func:`random_state` returned; that of another kind of device is left alone.

    Args:
        tensors: At least those named ``rng/...``.
        plain: What of it is plain.
        device: What is trained on.
    """
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
