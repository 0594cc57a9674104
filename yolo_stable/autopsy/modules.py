"""Module tracker: the module that runs an operation, and its place in the code."""

from __future__ import annotations

import sys
import sysconfig
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import CodeType, FrameType, TracebackType
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.loss import _Loss
from torch.nn.modules.module import register_module_forward_hook, register_module_forward_pre_hook
from torch.utils._python_dispatch import _disable_current_modes

from ..guard.wrappers import plain_name
from .frames import Frame, frame_of, tensors_in

_TORCH = str(Path(torch.__file__).parent)
_MODULE = nn.Module.__call__.__code__.co_filename
_CALLS = ("_call_impl", "inner")
"""Functions in which torch runs a module with its hooks."""
_HERE = str(Path(__file__).parent)
_PYTHON = sysconfig.get_paths()["stdlib"]
_PACKAGES = ("site-packages", "dist-packages")
_foreign: dict[str, bool] = {}
"""Whether a file is torch's, Python's or ours, so that its lines are no answer."""


@dataclass(slots=True)
class ModuleCall:
    """One call of a module."""

    module: str
    module_type: str
    call: int
    """The number of the call, from 1; 0: outside any module."""
    known: bool
    """The model has it registered."""
    loss: bool
    """It is in a module that computes a loss."""


OUTSIDE = ModuleCall("", "", 0, known=True, loss=False)


class ModuleTracker:
    """A context that knows the running module, by hooks on all modules that it removes on leaving."""

    def __init__(self, model: nn.Module, clock: Callable[[], int], frames: bool = False) -> None:
        self.model = model
        self.names: dict[int, list[str]] = {}
        """Names of each module; several for one in several places, such as a shared activation."""
        for name, module in model.named_modules(remove_duplicate=False):
            self.names.setdefault(id(module), []).append(plain_name(name))
        self.clock = clock
        self.now = OUTSIDE
        self.calls = 0
        self.frames: list[Frame] | None = [] if frames else None
        self.done = 0
        """The operation at which the last registered part of the model finished."""
        self.root_done: int | None = None
        """Likewise of the model itself."""
        self.root_gives_loss = False
        """The model returned nothing that looks like a prediction."""
        self.forward = True
        """The forward pass is running."""
        self._stack: list[tuple[nn.Module, ModuleCall]] = []
        self._handles: list[Any] = []

    def __enter__(self) -> ModuleTracker:
        self._handles = [
            register_module_forward_pre_hook(self._enter),
            register_module_forward_hook(self._leave, always_call=True),
        ]
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        for handle in self._handles:
            handle.remove()
        self._stack.clear()

    def phase(self, ordinal: int, place: ModuleCall, loss_from: int | None, backward_from: int | None) -> str:
        """Return the part of the pass that an operation belongs to, once the pass is over."""
        if backward_from is not None and ordinal > backward_from:
            return "backward"
        if loss_from is not None:
            return "loss" if ordinal > loss_from else "forward"
        if place.loss or (self.root_done is not None and ordinal > self.root_done):
            return "loss"
        outside = place.module == "" or not place.known
        return "loss" if outside and self.root_gives_loss and 0 < self.done < ordinal else "forward"

    def place_of(self, module: nn.Module) -> ModuleCall:
        """Return the place of a module that is not running."""
        name, kind = self._name(module), type(module).__name__
        return ModuleCall(f"<{kind}>" if name is None else name, kind, 0, known=name is not None, loss=False)

    def here(self, frame: FrameType | None, anchor: CodeType) -> ModuleCall:
        """Return the place of an operation; in a forward hook, that of the hook's module, which has ended."""
        while frame is not None and frame.f_code is not anchor:
            if frame.f_code.co_filename == _MODULE and frame.f_code.co_name in _CALLS:
                module = frame.f_locals.get("self")
                running = bool(self._stack) and self._stack[-1][0] is module
                return self.now if running or not isinstance(module, nn.Module) else self.place_of(module)
            frame = frame.f_back
        return self.now

    def owner_of(self, parameter: Tensor) -> ModuleCall:
        """Return the module that holds a parameter."""
        for module in self.model.modules():
            if any(own is parameter for own in module.parameters(recurse=False)):
                return self.place_of(module)
        return OUTSIDE

    def _enter(self, module: nn.Module, args: Any) -> None:
        self.calls += 1
        name = self._name(module)
        kind = type(module).__name__
        lossy = isinstance(module, _Loss) or name == "criterion"
        self.now = ModuleCall(
            f"<{kind}>" if name is None else name,
            kind,
            self.calls,
            known=name is not None,
            loss=self.now.loss or lossy,
        )
        self._stack.append((module, self.now))

    def _name(self, module: nn.Module) -> str | None:
        """Return the name in the model; of several, the one inside the running module."""
        names = self.names.get(id(module))
        if names is None:
            return None
        return next((name for name in names if name.rpartition(".")[0] == self.now.module), names[0])

    def _leave(self, module: nn.Module, args: Any, output: Any) -> None:
        if not any(entered is module for entered, _ in self._stack):
            return
        left, place = self._stack.pop()
        while left is not module:  # those in between raised
            left, place = self._stack.pop()
        self.now = self._stack[-1][1] if self._stack else OUTSIDE
        if self.frames is not None:
            with _disable_current_modes(), torch.no_grad():  # frames are for people, and no part of the pass
                self.frames.append(frame_of(module, place.module, place.call, args, output))
        if not self.forward:
            return
        if module is self.model:
            self.root_done = self.clock()
            self.root_gives_loss = not any(t.is_floating_point() and t.ndim > 1 for _, t in tensors_in(output))
        elif place.known and not place.loss:
            self.done = self.clock()


def caller(frame: FrameType | None, anchor: CodeType) -> FrameType | None:
    """Return the first frame outside torch, Python and this package; None if the anchor, which started the pass, comes first."""
    while frame is not None:
        code = frame.f_code
        if code is anchor:
            return None
        file = code.co_filename
        foreign = _foreign.get(file)
        if foreign is None:
            foreign = _foreign[file] = _is_foreign(file)
        if not foreign:
            return frame
        frame = frame.f_back
    return None


def source_of(code: CodeType | None, line: int | None) -> str:
    """Return ``path/file.py:123 in function``, with a path below the working folder relative to it."""
    if code is None:
        return ""
    path = Path(code.co_filename)
    if path.is_absolute() and path.is_relative_to(Path.cwd()):
        path = path.relative_to(Path.cwd())
    return f"{path}:{line} in {code.co_name}"


def hooked_module(frame: FrameType | None) -> nn.Module | None:
    """Return the module whose backward hook is running, from torch's frame."""
    while frame is not None:
        if frame.f_code.co_filename.endswith("hooks.py") and frame.f_code.co_filename.startswith(_TORCH):
            owner = getattr(frame.f_locals.get("self"), "module", None)
            if isinstance(owner, nn.Module):
                return owner
        frame = frame.f_back
    return None


def _is_foreign(file: str) -> bool:
    if file.startswith((_TORCH, _HERE, "<frozen")) or file == sys.modules[__name__].__file__:
        return True
    return file.startswith(_PYTHON) and not any(part in file for part in _PACKAGES)
