"""State damage: which numbers of the state are ruined, and what they were in the newest snapshot."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

TENSORS_KEPT = 3
LONE = 1e2
"""A number is out of all proportion when it has moved this many times as far as its neighbours."""
ENOUGH = 16
"""Fewest numbers of a tensor for that judgement: two or three of a bias may move very differently."""
FEW = 100
"""At most one in so many numbers of a tensor is out of proportion."""
FAR = 1e3
"""A tensor of weights is far off when its largest exceeds this many times what it was, or 1."""

ElementPlace = tuple[str, tuple[int, ...]]
"""A tensor of the state and an index in it."""


@dataclass(frozen=True, kw_only=True, slots=True)
class StateDamage:
    """One tensor of the state with numbers that no training puts there."""

    name: str
    """As in :class:`~yolo_stable.guard.state.TrainingState`, such as ``model/model.0.conv.weight``."""
    index: tuple[int, ...]
    """Of the first element that is not finite, or else of the largest."""
    value: float
    before: float | None
    """The same element in the snapshot; None when the snapshot has no such tensor."""
    bad: int
    """Elements that are not finite; of a finite tensor, those a million times larger than all were before."""
    elements: int
    neighbours: tuple[str, ...] = ()
    """The nearest healthy tensors before and after it, in the order of the model."""

    @property
    def place(self) -> ElementPlace:
        """Identifies the number, to see whether it is ruined again."""
        return self.name, self.index

    def __str__(self) -> str:
        """Describe it in words."""
        was = "" if self.before is None else f", {self.before:.4g} in the snapshot"
        place = ", ".join(map(str, self.index))
        return f"{self.name}[{place}] is {self.value:.4g}{was}; {self.bad} of {self.elements} elements are bad"


def damages(
    live: Mapping[str, Tensor], names: Iterable[str], before: Mapping[str, Tensor] | None
) -> tuple[StateDamage, ...]:
    """Describe the tensors that an audit found; for the rare path.

    Args:
        live: The ruined state.
        names: Tensors at fault; names that are not in ``live`` are ignored.
        before: The tensors of a snapshot.

    Returns:
        The first three, in the order of ``live``.

    Syncs: several reads for each.

    Examples:
        >>> live = {"a": torch.tensor([1.0, 2.0]), "b": torch.tensor([1.0, float("nan")])}
        >>> print(damages(live, ["b"], {"b": torch.tensor([1.0, 0.5])})[0])
        b[1] is nan, 0.5 in the snapshot; 1 of 2 elements are bad
    """
    bad_names = set(names)
    order = [name for name, tensor in live.items() if tensor.is_floating_point()]
    found = []
    for name in [name for name in order if name in bad_names][:TENSORS_KEPT]:
        tensor, old = live[name].detach(), (before or {}).get(name)
        old = None if old is None or old.shape != tensor.shape else old.detach()
        bad = ~tensor.isfinite()
        if not bool(bad.any()):
            usual = float(old.abs().max()) if old is not None and old.numel() else 1.0
            bad = tensor.abs() > 1e6 * max(usual, 1e-30)
        flat = bad.reshape(-1)
        first = int(flat.to(torch.uint8).argmax()) if bool(flat.any()) else int(tensor.abs().argmax())
        position = order.index(name)
        around = order[position - 1 : position] + order[position + 1 : position + 2]
        found.append(
            StateDamage(
                name=name,
                index=tuple(int(i) for i in torch.unravel_index(torch.tensor(first), tensor.shape)),
                value=float(tensor.reshape(-1)[first]),
                before=None if old is None else float(old.reshape(-1)[first]),
                bad=int(flat.sum()),
                elements=tensor.numel(),
                neighbours=tuple(other for other in around if bool(live[other].isfinite().all())),
            )
        )
    return tuple(found)


def lone_numbers(live: Mapping[str, Tensor], before: Mapping[str, Tensor]) -> tuple[str, ...]:
    """Return tensors of the model in which a few numbers have moved out of all proportion; for the rare path.

    A flipped bit that leaves a number finite does that: the number exceeds all that the tensor held, and has moved `LONE` times
    as far as the others. A training that diverges moves them all.

    Args:
        live: The state.
        before: The tensors of a snapshot.

    Syncs: one for each tensor of the model.

    Examples:
        >>> before = {"model/a": torch.linspace(-1, 1, 20)}
        >>> live = {"model/a": before["model/a"] + 0.01}
        >>> lone_numbers(live, before)
        ()
        >>> live["model/a"][3] = 4e5
        >>> lone_numbers(live, before)
        ('model/a',)
    """
    found = []
    for name, tensor in live.items():
        old = before.get(name)
        if not name.startswith("model/") or not tensor.is_floating_point() or tensor.numel() < ENOUGH:
            continue
        if old is None or old.shape != tensor.shape:
            continue
        old = old.detach().to(tensor.device)
        moved = (tensor.detach() - old).abs()
        furthest = moved.max()
        few = (moved > furthest / LONE).sum() <= max(1, tensor.numel() // FEW)
        if bool(few & (furthest > old.abs().max())):
            found.append(name)
    return tuple(found)


def all_over(live: Mapping[str, Tensor], before: Mapping[str, Tensor]) -> bool:
    """Return whether most weights are far off: no single fault does that, a divergence does; for the rare path.

    Args:
        live: The state.
        before: The tensors of a snapshot.

    Syncs: one for each tensor of the model.

    Examples:
        >>> before = {name: torch.zeros(2, requires_grad=True) for name in ("model/a", "model/b", "model/c")}
        >>> all_over({**before, "model/a": torch.full((2,), float("nan"), requires_grad=True)}, before)
        False
        >>> all_over({name: torch.full((2,), 1e5, requires_grad=True) for name in before}, before)
        True
    """
    weights = [name for name, tensor in live.items() if name.startswith("model/") and tensor.requires_grad]
    off = [name for name in weights if name in before and _far(live[name].detach(), before[name].detach())]
    return len(off) > max(1, len(weights) // 2)


def _far(tensor: Tensor, old: Tensor) -> bool:
    if not tensor.numel() or not old.numel():
        return False
    return not float(tensor.abs().max()) <= FAR * max(1.0, float(old.abs().max()))  # NaN is not below anything
