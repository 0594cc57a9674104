"""What the ranks of a multi-GPU run tell each other; only when something is wrong, and always all of them."""

from __future__ import annotations

import torch
import torch.distributed as dist
from torch import Tensor, nn


def shared() -> bool:
    """Return whether gradients are shared with other ranks."""
    return dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1


def backward_nan(loss: Tensor, parameters: list[nn.Parameter]) -> None:
    """Make every gradient NaN that ``loss`` reaches, also behind clamp() or where(), which turn NaN into zero.

    It takes part in the exchange of gradients as any backward pass does; that is how the other ranks learn of it.
    """
    hooks = [p.register_hook(_to_nan) for p in parameters]
    try:
        loss.backward()
    finally:
        for hook in hooks:
            hook.remove()


def _to_nan(gradient: Tensor | None) -> Tensor | None:
    return None if gradient is None else gradient * float("nan")  # autograd also asks where there is none


def any_rank(wish: bool, device: torch.device) -> bool:
    """Return whether any rank has a wish; all ranks have to ask.

    Syncs: one collective of one number.
    """
    if not shared():
        return wish
    flag = torch.tensor([int(wish)], device=_reachable(device))
    dist.all_reduce(flag, op=dist.ReduceOp.MAX)
    return bool(flag.item())


def lowest(step: int, device: torch.device) -> int:
    """Return the lowest number that any rank has; all ranks have to ask.

    Syncs: one collective of one number.
    """
    if not shared():
        return step
    number = torch.tensor([step], device=_reachable(device))
    dist.all_reduce(number, op=dist.ReduceOp.MIN)
    return int(number.item())


def highest(number: int, device: torch.device) -> int:
    """Return the highest number that any rank has; all ranks have to ask.

    Syncs: one collective of one number.
    """
    return -lowest(-number, device)


def _reachable(device: torch.device) -> torch.device:
    """Return where the process group can see a tensor: gloo on the host, the others on their device."""
    return torch.device("cpu") if dist.get_backend() == "gloo" else device
