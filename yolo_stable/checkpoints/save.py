"""One save: checks the content, and writes the files in an order that survives a crash.

It looks for what is not finite, checks the content, restores what Ultralytics has clamped, and writes the side file, then
``last.pt``, then the copies, each with ``write_whole``. The first content of a run is loaded as well. Later ones come out of the
same code, so their checksums are enough; loading takes a third of the writing, most of it with the interpreter's lock held.
"""

from __future__ import annotations

import contextlib
import io
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from .._shared.atomic_file import Content, write_whole
from ..errors import InvalidCallError
from ..guard.health import all_finite, non_finite_names
from .float16 import beyond_half, put_back, rounded
from .reader import culprits, digest, load, network_of, require_whole
from .state_file import SavedState, encode

CHECKED = ("model/", "ema/", "optimizer/")
"""Parts of the state that must be finite."""


@dataclass(frozen=True)
class Save:
    """What to write; immutable."""

    epoch: int
    """The last whole epoch, from 0; -1 in the middle of the first one."""
    step: int
    """Optimizer steps applied."""
    content: bytes
    """The checkpoint as Ultralytics makes it."""
    state: SavedState
    """The state in full precision on the host; the plain values are empty where they could not be copied."""
    last: Path
    copies: tuple[Path, ...]
    """Further files with the same content."""
    state_file: Path | None
    """The side file; None: this run has none."""
    before: str | None
    """SHA-256 of the ``last.pt`` that is there."""
    is_first: bool = True
    """Whether no content of this run has been loaded yet."""


@dataclass
class Outcome:
    """The result of a save."""

    save: Save
    culprits: tuple[str, ...] = ()
    """What is not finite; nothing was written."""
    damage: str = ""
    """What else is wrong with the content, if something is; nothing was written."""
    beyond_half: tuple[str, ...] = ()
    """Tensors of the network that were put back in float32."""
    digest: str = ""
    """SHA-256 of the ``last.pt`` that was written; empty when it was not."""
    failed: dict[Path, Exception] = field(default_factory=dict)
    """Files that could not be written, and why."""

    @property
    def written(self) -> bool:
        """Whether ``last.pt`` is that of this save."""
        return bool(self.digest)


def write(save: Save) -> Outcome:
    """Check the content and write the files; a failed write leaves the old file."""
    outcome = Outcome(save)
    content = _checked(save, outcome)
    if content is None:
        return outcome
    # The side file first: after a crash between the two it is the newer one, and complete by itself.
    of_last = digest(content)
    has_state = save.state_file is None or _write_state(save, save.state_file, of_last, outcome)
    if not _write(save.last, lambda: content, outcome):
        return outcome
    outcome.digest = of_last
    if save.state_file is not None and not has_state:
        # The one that is there goes with the last.pt of before, and would have this one refused.
        with contextlib.suppress(OSError):
            save.state_file.unlink(missing_ok=True)
    for path in save.copies:  # copies, not links: what damages the one must not damage the other
        _write(path, lambda: content, outcome)
    return outcome


def _checked(save: Save, outcome: Outcome) -> bytes | None:
    """Return the checked content with clamped numbers restored; None when it must not be written."""
    state = {name: tensor for name, tensor in save.state.tensors.items() if name.startswith(CHECKED)}
    beyond = beyond_half(
        state.items()
    )  # one look at each tensor for both: what is NaN or infinite is beyond float16 as well
    looked_past = [tensor for tensor in state.values() if tensor.dtype is torch.float16 or tensor.is_complex()]
    if not all_finite(
        [*(state[name] for name in beyond), *looked_past]
    ):  # Ultralytics would have written zeros instead
        outcome.culprits = non_finite_names(state.items())
        return None
    kept = dict(_part(beyond, "ema/"))
    of_optimizer = dict(rounded(_part(beyond, "optimizer/")))
    try:
        if not (kept or of_optimizer or save.is_first):
            require_whole(save.content)
            return save.content
        checkpoint = load(save.content)
    except InvalidCallError as error:
        outcome.damage = str(error)
        return None
    outcome.beyond_half = tuple(kept)
    put_back(network_of(checkpoint), kept)
    for index, values in checkpoint["optimizer"]["state"].items() if of_optimizer else ():
        for key in values:
            values[key] = of_optimizer.get(f"{index}/{key}", values[key])
    outcome.culprits = culprits(checkpoint)
    if outcome.culprits:
        return None
    return _dumped(checkpoint) if kept or of_optimizer else save.content


def _part(named: Mapping[str, Tensor], part: str) -> Iterator[tuple[str, Tensor]]:
    return ((name.removeprefix(part), tensor) for name, tensor in named.items() if name.startswith(part))


def _dumped(checkpoint: dict[str, Any]) -> bytes:
    buffer = io.BytesIO()
    torch.save(checkpoint, buffer)
    return buffer.getvalue()


def _write_state(save: Save, path: Path, of_last: str, outcome: Outcome) -> bool:
    if not save.state.plain:
        return False
    plain = {**save.state.plain, "checkpoint": {"sha256": of_last, "before": save.before}}
    return _write(path, lambda: encode(save.state.tensors, plain), outcome)


def _write(path: Path, content: Callable[[], Content], outcome: Outcome) -> bool:
    try:
        write_whole(path, content())
    except (OSError, MemoryError, TypeError, ValueError) as error:  # a full disk; a state that is not JSON
        outcome.failed[path] = error
        return False
    return True
