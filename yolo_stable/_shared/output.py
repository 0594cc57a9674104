"""Output that may go away: a closed pipe, a terminal that hung up, a full disk."""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import signal
import sys
import threading
from collections.abc import Iterable, Iterator
from typing import Any

GONE = frozenset(
    {errno.EPIPE, errno.EIO, errno.ENXIO, errno.EBADF, errno.ESHUTDOWN, errno.ECONNRESET, errno.ENOTCONN}
    | ({errno.EINVAL} if os.name == "nt" else set())  # what a closed pipe is on Windows
)
"""Errors of a write that nobody will ever read: the pipe is closed, the terminal hung up."""


class Outlet:
    """A text stream whose writes do not fail once its reader is gone.

    From then on its file descriptor is the null device, so that the writes of others and Python's last flush cannot fail, either.

    Args:
        stream: Any text stream.
        whatever: Also drop what cannot be written for another reason, such as a full disk; the next write tries again.
    """

    def __init__(self, stream: Any, *, whatever: bool = False) -> None:
        self._stream, self._whatever = stream, whatever

    def write(self, text: str) -> int:
        """Write, or drop what nobody can read."""
        with self._surviving():
            return self._stream.write(text)
        return len(text)

    def writelines(self, lines: Iterable[str]) -> None:
        """Write, or drop what nobody can read."""
        with self._surviving():
            self._stream.writelines(lines)

    def flush(self) -> None:
        """Flush, or drop what nobody can read."""
        flush = getattr(self._stream, "flush", None)  # not every such object has one
        if flush is not None:
            with self._surviving():
                flush()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    @contextlib.contextmanager
    def _surviving(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            if error.errno in GONE:
                self._lead_nowhere()
            elif not self._whatever:
                raise
        except ValueError:
            if not getattr(self._stream, "closed", False):  # a text that cannot be encoded, for example
                raise

    def _lead_nowhere(self) -> None:
        try:
            descriptor = self._stream.fileno()
        except (OSError, ValueError, AttributeError):
            return  # not a file: the next write is dropped like this one
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, descriptor)
        os.close(null)


@contextlib.contextmanager
def surviving(*, whatever: bool = False) -> Iterator[None]:
    """Let work go on while nobody reads what it prints; SIGPIPE does not end it, either.

    Standard output and error, and the streams of Ultralytics' and the root logger, become an :class:`Outlet` each. Missing
    streams become the null device.

    Args:
        whatever: See :class:`Outlet`.
    """
    with contextlib.ExitStack() as stack:
        for name in ("stdout", "stderr"):
            stack.enter_context(_replaced(name, whatever))
        for logger in (logging.getLogger(), logging.getLogger("ultralytics")):
            for handler in logger.handlers:
                if isinstance(handler, logging.StreamHandler) and not isinstance(handler, logging.FileHandler):
                    stack.enter_context(_rerouted(handler, whatever))
        if hasattr(signal, "SIGPIPE") and signal.getsignal(signal.SIGPIPE) is signal.SIG_DFL:
            stack.enter_context(_ignored(signal.SIGPIPE))
        yield


def occupy_standard_descriptors() -> None:
    """Open the null device for each missing descriptor from 0 to 2.

    Otherwise the next file would get that number, and libraries would print into it.
    """
    for descriptor in range(3):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # gets the lowest free number, this one


@contextlib.contextmanager
def _replaced(name: str, whatever: bool) -> Iterator[None]:
    before = getattr(sys, name)
    with contextlib.ExitStack() as stack:
        stream = before if before is not None else stack.enter_context(open(os.devnull, "w"))
        outlet = Outlet(stream, whatever=whatever)
        setattr(sys, name, outlet)
        try:
            yield
        finally:
            if getattr(sys, name) is outlet:  # unless somebody replaced it
                setattr(sys, name, before)
            outlet.flush()


@contextlib.contextmanager
def _rerouted(handler: logging.StreamHandler[Any], whatever: bool) -> Iterator[None]:
    before = handler.stream
    if before is None:
        yield
        return
    outlet = Outlet(before, whatever=whatever)
    handler.stream = outlet  # setStream() would flush the old one first, which may fail
    try:
        yield
    finally:
        if handler.stream is outlet:
            handler.stream = before


@contextlib.contextmanager
def _ignored(number: signal.Signals) -> Iterator[None]:
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(number, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(number, before)
