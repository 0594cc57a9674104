"""Child process: trains one run; it is started, found again after its parent was killed, and asked to end."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol

import psutil

from .trial import Trial

Launch = Callable[[Trial, list[str]], list[str]]
"""Returns the command that trains a run, given the words after ``train``."""


class Child(Protocol):
    """A process to wait for."""

    def poll(self) -> int | None:
        """Return its exit code once it has ended."""
        ...

    def send_signal(self, sig: int, /) -> None:
        """Ask it to end."""
        ...

    def kill(self) -> None:
        """End it at once."""
        ...


def command(trial: Trial, words: list[str]) -> list[str]:
    """Return the command that trains a run: this Python, this package."""
    if trial.stock:
        return [sys.executable, "-m", "yolo_stable.compare.stock_run", *words]
    return [sys.executable, "-m", "yolo_stable", "train", *words, "--traceback"]


def start(argv: Sequence[str], log: Path) -> Child:
    """Start a command that appends its output to a log.

    It gets its own session, so that Ctrl-C reaches it once, through the parent, and not again from the terminal.

    Raises:
        OSError: The log cannot be written.
    """
    with open(log, "ab") as output:
        return subprocess.Popen(
            argv,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=os.name == "posix",
        )


GONE = 256
"""What :class:`Orphan` polls once it has ended: its exit code is unknown."""


class Orphan:
    """A child whose parent was killed; it trains on."""

    def __init__(self, process: psutil.Process) -> None:
        self._process = process

    def poll(self) -> int | None:
        """Return :data:`GONE` once it has ended."""
        with contextlib.suppress(psutil.NoSuchProcess):
            # Nobody may collect it, as in a container whose first process does not.
            if self._process.is_running() and self._process.status() != psutil.STATUS_ZOMBIE:
                return None
        return GONE

    def send_signal(self, sig: int, /) -> None:
        """Ask it to end."""
        with contextlib.suppress(psutil.NoSuchProcess):
            self._process.send_signal(sig)

    def kill(self) -> None:
        """End it at once."""
        self.send_signal(getattr(signal, "SIGKILL", signal.SIGTERM))


def find_orphan(trial: Trial, comparison: Path) -> Orphan | None:
    """Return the process that still trains a run, found by the words of its command.

    Nobody else starts runs in the folder of the comparison, since its lock is held.
    """
    begun = set(trial.start_words(comparison)[-5:]) & {f"project={comparison}", f"name={trial.name}"}
    resumed = {f"model={trial.last(comparison)}", "resume=True"}
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            words = set(process.cmdline())
            # The workers of a loader have the words of their parent.
            if (
                process.pid != os.getpid()
                and (begun <= words or resumed <= words)
                and not _same(process.parent(), words)
            ):
                return Orphan(process)
    return None


def _same(parent: psutil.Process | None, words: set[str]) -> bool:
    with contextlib.suppress(psutil.Error):
        return parent is not None and set(parent.cmdline()) == words
    return False
