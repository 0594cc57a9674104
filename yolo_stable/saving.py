"""One save, apart from the trainer: its content is checked, and its files are written in the order that survives a crash."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from .checkpoint_file import culprits, digest, load
from .errors import InvalidCallError
from .state_file import SavedState, encode
from .whole_file import Content, write_whole


@dataclass(frozen=True)
class Save:
    """What is to be written; nothing in it changes any more."""

    epoch: int
    """The last whole epoch, from 0; -1 in the middle of the first one."""
    step: int
    """Optimizer steps applied."""
    content: bytes
    """Of the checkpoint."""
    last: Path
    copies: tuple[Path, ...]
    """Further files with the same content."""
    before: str | None
    """SHA-256 of the ``last.pt`` that is there."""
    state_file: Path | None
    """The side file; None: this run has none."""
    state: SavedState | None
    """What goes into it, on the host; None: it could not be collected."""


@dataclass
class Outcome:
    """What came of a save."""

    save: Save
    damage: str = ""
    """What is wrong with the content, if something is; nothing was written."""
    culprits: tuple[str, ...] = ()
    """What is not finite in the content; nothing was written."""
    digest: str = ""
    """SHA-256 of the ``last.pt`` that was written; empty when it was not."""
    failed: dict[Path, Exception] = field(default_factory=dict)
    """Files that could not be written, and why."""

    @property
    def written(self) -> bool:
        """Whether ``last.pt`` is that of this save."""
        return bool(self.digest)


def write(save: Save) -> Outcome:
    """Check the content and write the files; the old ones stay where that fails."""
    outcome = Outcome(save)
    try:
        outcome.culprits = culprits(load(save.content))
    except InvalidCallError as error:
        outcome.damage = str(error)
    if outcome.damage or outcome.culprits:
        return outcome
    # The side file first: after a crash between the two it is the newer one, and complete by itself.
    of_last = digest(save.content)
    has_state = save.state_file is None or _write_state(save, save.state_file, of_last, outcome)
    if not _write(save.last, lambda: save.content, outcome):
        return outcome
    outcome.digest = of_last
    if save.state_file is not None and not has_state:
        # The one that is there goes with the last.pt of before, and would have this one refused.
        with contextlib.suppress(OSError):
            save.state_file.unlink(missing_ok=True)
    for path in save.copies:  # copies, not links: what damages the one must not damage the other
        _write(path, lambda: save.content, outcome)
    return outcome


def _write_state(save: Save, path: Path, of_last: str, outcome: Outcome) -> bool:
    state = save.state
    if state is None:
        return False
    plain = {**state.plain, "checkpoint": {"sha256": of_last, "before": save.before}}
    return _write(path, lambda: encode(state.tensors, plain), outcome)


def _write(path: Path, content: Callable[[], Content], outcome: Outcome) -> bool:
    try:
        write_whole(path, content())
    except (OSError, MemoryError, TypeError, ValueError) as error:  # a full disk; a state that is not JSON
        outcome.failed[path] = error
        return False
    return True
