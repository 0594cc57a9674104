"""Signals: a run that is asked to end ends at a place where that does no harm."""

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
    """While it is entered, the first SIGTERM or SIGINT is only remembered: the work finishes its step, saves and leaves.

    The second one, of either kind, stops at once: the handlers of before are put back and the signal is delivered again, so
    that Ctrl-C raises ``KeyboardInterrupt`` and SIGTERM ends the process, also out of several nested ones.

    Handlers can be set by the main thread only; elsewhere it does nothing. A signal that the process was started to ignore
    (``nohup``, a shell's background job), and one whose handler Python does not know, is left alone. A child process that
    inherited the handler by a fork, as a loader's workers do, ignores SIGINT, since its parent decides; with SIGTERM it behaves
    as if the handler had never been installed. A spawned one inherits nothing: see :func:`held_back` and :class:`LeftToParent`.

    Args:
        on_request: Called once with the first signal, to say so to the user. It runs inside the handler, between two
            instructions of the main thread: a line on the terminal is as much as it should do. What it raises goes into the
            work.
        ignore_first: For ranks other than 0 of a multi-GPU run, all of which are signalled: the first signal is dropped, since
            they have to compute along until rank 0 has saved; ``requested`` stays None and nobody is called.

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
        """The first signal, once it has come; kept after leaving, until it is entered again."""
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
        """Put the handlers of before back."""
        for number, previous in self._previous.items():
            if signal.getsignal(number) == self._handle:  # not the one that somebody has set since
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
            return  # Ctrl-C reaches the loader's workers as well, and the step to be finished may need their batches
        # The second signal; or SIGTERM in a fork; or one that a handler set on top of this one still passes on.
        self._stand_aside()
        signal.raise_signal(number)

    def _stand_aside(self) -> None:
        """Put back the handlers from before the outermost one, whatever has been set since."""
        for number, previous in self._previous.items():
            signal.signal(number, previous)
            around = getattr(previous, "__self__", None)
            if isinstance(around, GracefulStop):
                around._stand_aside()


@contextlib.contextmanager
def held_back(number: signal.Signals = signal.SIGINT) -> Iterator[None]:
    """Let a signal wait until this is left; a process that is started meanwhile, in whatever way, never gets it.

    Where threads have no signal masks, as on Windows, it does nothing.
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
    """The first call in a loader's worker: Ctrl-C, which the terminal sends to all processes, is left to the parent."""

    def __init__(self, inner: Callable[[int], object] | None = None) -> None:
        self._inner = inner

    def __call__(self, worker: int) -> None:
        """Ignore Ctrl-C from here on, and do what was done before."""
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        if self._inner is not None:
            self._inner(worker)
