"""Modules of a network: found by name or number, with a replaced ``forward`` for a time."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn

from ..errors import InvalidCallError, nearest

Call = Callable[[nn.Module, Callable[..., Any], tuple[Any, ...], dict[str, Any]], Any]
"""Returns the output from the module, its own forward, and the arguments."""


def leaves(model: nn.Module) -> tuple[str, ...]:
    """Return the names of all modules without modules inside, in the order of ``named_modules``."""
    return tuple(name for name, module in model.named_modules() if not list(module.children()))


def find(model: nn.Module, place: str | int) -> tuple[str, nn.Module]:
    """Return a module and its name.

    Args:
        model: The network; names are those without a wrapper for ranks or compilation.
        place: A name as in ``named_modules``, or the number of a leaf module.

    Raises:
        InvalidCallError: There is no such module.
    """
    modules = dict(model.named_modules())
    if isinstance(place, int):
        names = leaves(model)
        if not 0 <= place < len(names):
            raise InvalidCallError(f"There is no leaf module {place}: the network has {len(names)}, counted from 0.")
        return names[place], modules[names[place]]
    for name in (place, *(f"{wrapper}.{place}" for wrapper in ("module", "_orig_mod", "module._orig_mod"))):
        if name in modules:
            return name, modules[name]
    raise InvalidCallError(f"There is no module {place!r} in the network.{nearest(place, modules)}")


class _Forward:
    """Replaces a module's ``forward``; a pickle of the module does not contain it."""

    def __init__(self, module: nn.Module, call: Call, before: Any) -> None:
        self.module, self.call, self.before = module, call, before

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        own = type(self.module).forward.__get__(self.module) if self.before is None else self.before
        return self.call(self.module, own, args, kwargs)

    def __deepcopy__(self, memo: dict[int, Any]) -> _Forward:
        # For the copied module: a bound function would still call the original.
        return _Forward(memo.get(id(self.module), self.module), self.call, copy.deepcopy(self.before, memo))

    def __reduce__(self) -> tuple[Any, ...]:
        return getattr, (self.module, "forward")


@contextmanager
def forward_replaced(module: nn.Module, call: Call) -> Iterator[None]:
    """Replace a module's forward for a time; afterwards nothing is left on the module.

    A copy that is made meanwhile behaves like the module, and returns to its own forward with it.
    """
    on = True

    def switched(current: nn.Module, own: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        return call(current, own, args, kwargs) if on else own(*args, **kwargs)

    before = vars(module).get("forward")
    vars(module)["forward"] = mine = _Forward(module, switched, before)
    try:
        yield
    finally:
        on = False
        if vars(module).get("forward") is mine:
            if before is None:
                del vars(module)["forward"]
            else:
                vars(module)["forward"] = before


def first_tensor(output: Any) -> Tensor | None:
    """Return the first floating point tensor of what a module returned."""
    if isinstance(output, Tensor):
        return output if output.is_floating_point() else None
    parts = output.values() if isinstance(output, dict) else output if isinstance(output, (list, tuple)) else ()
    return next((found for part in parts if (found := first_tensor(part)) is not None), None)


def with_tensor(output: Any, old: Tensor, new: Tensor) -> Any:
    """Return what a module returned, with one tensor replaced."""
    if output is old:
        return new
    if isinstance(output, dict):
        return type(output)((key, with_tensor(part, old, new)) for key, part in output.items())
    if isinstance(output, (list, tuple)):
        parts = [with_tensor(part, old, new) for part in output]
        return type(output)(*parts) if hasattr(output, "_fields") else type(output)(parts)
    return output


def middle_index(shape: tuple[int, ...], sample: int | None = None) -> tuple[int, ...]:
    """Return the index of the middle element, of one sample if given."""
    index = tuple(n // 2 for n in shape)
    return index if sample is None else (sample, *index[1:])
