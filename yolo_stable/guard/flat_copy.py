"""Flat copy: memory for a copy of many tensors, one flat tensor per device and dtype, with a view for each tensor."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


class FlatCopy:
    """Uninitialised memory for tensors of the same shapes.

    Args:
        live: The tensors to copy.
        on_host: Put the copy on the host, pinned for CUDA; else on the tensors' devices.
    """

    def __init__(self, live: Sequence[Tensor], *, on_host: bool = False) -> None:
        kinds: dict[tuple[torch.device, torch.dtype], list[int]] = {}
        for i, tensor in enumerate(live):
            kinds.setdefault((tensor.device, tensor.dtype), []).append(i)
        self.groups: list[tuple[list[int], Tensor]] = []
        """Places of tensors of one device and dtype, and their flat tensor."""
        self.views: list[Tensor] = [torch.empty(0)] * len(live)
        """Views of the flat tensors, in the order and with the shapes of ``live``."""
        self.is_pinned = False
        for (device, dtype), members in kinds.items():
            pin = on_host and device.type == "cuda"
            self.is_pinned |= pin
            sizes = [live[i].numel() for i in members]
            place = torch.device("cpu") if on_host else device
            flat = torch.empty(sum(sizes), dtype=dtype, device=place, pin_memory=pin)
            self.groups.append((members, flat))
            for i, part in zip(members, flat.split(sizes), strict=True):
                self.views[i] = part.view(live[i].shape)

    @property
    def nbytes(self) -> int:
        """Bytes of the copy."""
        return sum(flat.numel() * flat.element_size() for _, flat in self.groups)
