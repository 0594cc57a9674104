"""Gradient shares: each module's share of a window's gradient."""

from __future__ import annotations

from collections.abc import Sequence

from .wrappers import plain_name

Shares = tuple[tuple[str, float], ...]
"""Module paths with their share of the squared gradient norm, 0..1, largest first."""


def module_of(name: str) -> str:
    """Return the path of a parameter's module in the unwrapped model.

    Examples:
        >>> module_of("model.0.conv.weight"), module_of("_orig_mod.module.model.23.cv2.0.2.bias")
        ('model.0.conv', 'model.23.cv2.0.2')
        >>> module_of("weight"), module_of("optimizer.param_groups[1][0]")
        ('the model itself', 'optimizer.param_groups[1][0]')
    """
    if name.startswith("optimizer.param_groups["):  # only the optimizer knows it
        return name
    parts = plain_name(name).split(".")
    if parts[0] == "module":  # DistributedDataParallel
        parts = parts[1:]
    return ".".join(parts[:-1]) or "the model itself"


def shares(modules: Sequence[str], norms: Sequence[float]) -> Shares:
    """Return what part of the squared norm each module has.

    Args:
        modules: The module of each gradient.
        norms: The 2-norm of each gradient, all scaled alike.

    Returns:
        All modules; none if all norms are 0, or one is not finite.

    Examples:
        >>> shares(["a", "b", "a"], [1.0, 2.0, 2.0])
        (('a', 0.5555555555555556), ('b', 0.4444444444444444))
        >>> shares(["a", "b"], [0.0, 0.0])
        ()
    """
    largest = max(norms, default=0.0)
    squares: dict[str, float] = {}
    for module, norm in zip(modules, norms, strict=True):
        if not (norm >= 0.0 and largest < float("inf")):
            return ()
        if largest:  # divided by it, no square overflows
            squares[module] = squares.get(module, 0.0) + (norm / largest) ** 2
    total = sum(squares.values())
    return tuple(sorted(((m, s / total) for m, s in squares.items()), key=lambda entry: -entry[1]))
