"""What exactly is wrong with a ruined state: which numbers, and what they were in the newest snapshot."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

TENSORS_KEPT = 3


@dataclass(frozen=True, kw_only=True, slots=True)
class Damage:
    """One tensor of the state with numbers that no training puts there."""

    name: str
    """As in :class:`~yolo_stable.guard.state.TrainingState`, such as ``model/model.0.conv.weight``."""
    index: tuple[int, ...]
    """Of the first bad element: one that is not finite, or else the largest."""
    value: float
    before: float | None
    """The same element in the snapshot; None when the snapshot has no such tensor."""
    bad: int
    """Elements that are not finite; of a tensor that is finite, those a million times larger than all were before."""
    elements: int
    neighbours: tuple[str, ...] = ()
    """The nearest healthy tensors in front of it and behind it, in the order of the model."""

    def __str__(self) -> str:
        """Say it in words."""
        was = "" if self.before is None else f", {self.before:.4g} in the snapshot"
        place = ", ".join(map(str, self.index))
        return f"{self.name}[{place}] is {self.value:.4g}{was}; {self.bad} of {self.elements} elements are bad"


def damages(
    live: Mapping[str, Tensor], names: Iterable[str], before: Mapping[str, Tensor] | None
) -> tuple[Damage, ...]:
    """Look closely at the tensors that an audit found; for the rare path.

    Args:
        live: The ruined state.
        names: Tensors at fault, in their order; names that are not in ``live`` are passed over.
        before: The tensors of a snapshot.

    Returns:
        The first three of them.

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
            Damage(
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
