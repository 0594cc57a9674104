"""Signals: let a run that is asked to end stop where that does no harm."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from collections.abc import Callable, Iterator
from types import FrameType, TracebackType
from typing import Any

SIGNALS = (signal.SIGTERM, signal.SIGINT)


class GracefulStop:
    """Remembers the first SIGTERM or SIGINT while it is entered, so that the work can finish its step, save and leave.

    A second signal of either kind stops at once: it restores the previous handlers and is delivered again, so that Ctrl-C raises
    ``KeyboardInterrupt`` and SIGTERM ends the process, also when several are nested.

    Only the main thread can set handlers; elsewhere this does nothing. It leaves alone a signal that the process ignores from its
    start (``nohup``, a shell's background job), and one whose handler Python does not know. A forked child, such as a loader's
    worker, ignores SIGINT, since its parent decides, and treats SIGTERM as if there were no handler. A spawned child inherits
    nothing: see :func:`held_back` and :class:`LeftToParent`.

    Args:
        on_request: Called once with the first signal, to tell the user. It runs inside the handler, between two instructions of
            the main thread, so it should only print a line. What it raises goes into the work.
        ignore_first: For ranks other than 0 of a multi-GPU run, all of which get the signal: drop the first one, since they must
            compute along until rank 0 has saved; ``requested`` stays None.

    Examples:
        >>> with GracefulStop() as stop:
        ...     signal.raise_signal(signal.SIGTERM)
        ...     print(stop.requested.name)
        SIGTERM
    """

    def __init__(
        self, on_request: Callable[[signal.Signals], None] | None = None, *, ignore_first: bool = False
    ) -> None:
        self.requested: signal.Signals | None = None
        """The first signal, once it came; kept until it is entered again."""
        self._on_request = on_request
        self._ignore_first = ignore_first
        self._signalled = False
        self._process = 0  # that has entered it; 0: none
        self._previous: dict[signal.Signals, Any] = {}

    def __enter__(self) -> GracefulStop:
        """Install the handlers.

        Raises:
            RuntimeError: It is entered already.
        """
        if self._process:
            raise RuntimeError("This GracefulStop is entered already; nest another one.")
        self.requested, self._signalled, self._process, self._previous = None, False, os.getpid(), {}
        if threading.current_thread() is threading.main_thread():
            for number in SIGNALS:
                self._install(number)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Restore the previous handlers."""
        for number, previous in self._previous.items():
            if signal.getsignal(number) == self._handle:  # unless somebody replaced it
                signal.signal(number, previous)
        self._process = 0

    def _install(self, number: signal.Signals) -> None:
        previous = signal.getsignal(number)
        if previous is None or previous is signal.SIG_IGN:
            return
        # Before the handler is there: a signal may come between any two instructions.
        self._previous[number] = previous
        try:
            signal.signal(number, self._handle)
        except (ValueError, OSError):  # an interpreter inside another one, or a platform without it
            del self._previous[number]

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self._process == os.getpid() and not self._signalled:
            self._signalled = True
            if not self._ignore_first:
                self.requested = signal.Signals(number)
                if self._on_request is not None:
                    self._on_request(self.requested)
            return
        if self._process not in {0, os.getpid()} and number == signal.SIGINT:
            return  # Ctrl-C also reaches the loader's workers, and the last step may need their batches
        # A second signal, SIGTERM in a fork, or one passed on by a handler on top of this one.
        self._stand_aside()
        signal.raise_signal(number)

    def _stand_aside(self) -> None:
        """Restore the handlers from before the outermost one, whatever was set since."""
        for number, previous in self._previous.items():
            signal.signal(number, previous)
            around = getattr(previous, "__self__", None)
            if isinstance(around, GracefulStop):
                around._stand_aside()


@contextlib.contextmanager
def held_back(number: signal.Signals = signal.SIGINT) -> Iterator[None]:
    """Let a signal wait until this is left; a process that starts meanwhile never gets it.

    Without signal masks, as on Windows, it does nothing.
    """
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {number})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


class LeftToParent:
    """Leaves Ctrl-C, which the terminal sends to all processes, to the parent: the first call in a loader's worker."""

    def __init__(self, inner: Callable[[int], object] | None = None) -> None:
        self._inner = inner

    def __call__(self, worker: int) -> None:
        """Ignore Ctrl-C from here on, then call the previous ``worker_init_fn``."""
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        if self._inner is not None:
            self._inner(worker)
