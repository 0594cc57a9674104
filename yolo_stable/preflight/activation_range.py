"""Activation range: the largest magnitude of each module's output in one forward pass."""

from __future__ import annotations

from types import TracebackType
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from ..autopsy.frames import tensors_in
from ..guard.reductions import maximum
from ..guard.wrappers import plain_modules


class ActivationRanges:
    """Watches the modules of a network while it runs.

    Args:
        model: Any module; it is not in the list itself.
        network: The module that ends the network; None: the model itself.

    Examples:
        >>> model = nn.Sequential(nn.Identity(), nn.ReLU())
        >>> with ActivationRanges(model) as widths:
        ...     _ = model(torch.tensor([-3.0, 2.0]))
        >>> widths.table(), widths.finished
        ([('0', 'Identity', 3.0, 'float32'), ('1', 'ReLU', 2.0, 'float32')], True)
    """

    def __init__(self, model: nn.Module, network: nn.Module | None = None) -> None:
        self.finished = False
        """Whether the network finished."""
        self.last = ""
        """Name of the module that was entered last."""
        self.outputs: Any = None
        """What the network returned."""
        self._model, self._network = model, network or model
        self._seen: list[tuple[str, str, Tensor, str]] = []
        self._handles: list[RemovableHandle] = []

    def __enter__(self) -> ActivationRanges:
        for name, module in plain_modules(self._model):
            if name:
                self._handles.append(module.register_forward_pre_hook(lambda *_, name=name: self._enter(name)))
                self._handles.append(
                    module.register_forward_hook(lambda m, _, out, name=name: self._leave(name, m, out))
                )
        self._handles.append(self._network.register_forward_hook(lambda _m, _i, out: self._finish(out)))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        for handle in self._handles:
            handle.remove()

    @property
    def called(self) -> frozenset[str]:
        """Names of the modules that ran."""
        return frozenset(name for name, *_ in self._seen)

    def table(self) -> list[tuple[str, str, float, str]]:
        """Return name, type, largest magnitude and dtype of each module's output, in the order of their ends.

        Syncs: one.
        """
        largest = [width.float() for _, _, width, _ in self._seen]
        values = torch.stack([w.cpu() for w in largest]).tolist() if largest else []
        return [(name, kind, value, dtype) for (name, kind, _, dtype), value in zip(self._seen, values, strict=True)]

    def _enter(self, name: str) -> None:
        self.last = name

    def _leave(self, name: str, module: nn.Module, output: Any) -> None:
        held = [t.detach() for _, t in tensors_in(output) if t.is_floating_point() and t.numel()]
        if held:
            width = maximum(torch.stack([maximum(t.abs()).float() for t in held]))
            self._seen.append((name, type(module).__name__, width, str(held[0].dtype).removeprefix("torch.")))
        else:
            self._seen.append((name, type(module).__name__, torch.zeros(()), ""))

    def _finish(self, output: Any) -> None:
        self.finished, self.outputs = True, output


def widest(table: list[tuple[str, str, float, str]], most: int = 10) -> list[dict[str, Any]]:
    """Return the modules with the largest outputs, without those that only pass on the output of a module inside."""
    rows: dict[str, dict[str, Any]] = {}
    for name, kind, value, dtype in table:
        inner = (row["abs_max"] for known, row in rows.items() if known.startswith(f"{name}."))
        if value not in inner and (name not in rows or rows[name]["abs_max"] < value):
            rows[name] = {"module": name, "type": kind, "abs_max": value, "dtype": dtype}
    return sorted(rows.values(), key=lambda row: -row["abs_max"])[:most]
