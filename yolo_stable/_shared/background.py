"""Background job: one at a time, on a thread beside the training."""

from __future__ import annotations

import os
import threading
import weakref
from collections.abc import Callable
from typing import Generic, TypeVar

T = TypeVar("T")

_running: weakref.WeakSet[threading.Thread] = weakref.WeakSet()


class Background(Generic[T]):
    """Runs one job beside its caller.

    The thread is no daemon: the process finishes the job before it ends. Before a fork (for the workers of a data loader) it
    waits, too: the child would inherit the job's open files and its locks, which nobody would release.
    """

    def __init__(self) -> None:
        self._thread: threading.Thread | None = None
        self._results: list[T] = []
        self._errors: list[BaseException] = []

    @property
    def idle(self) -> bool:
        """Whether there is neither a job nor a result."""
        return self._thread is None

    @property
    def done(self) -> bool:
        """Whether a job has ended, so that :meth:`result` returns at once."""
        return self._thread is not None and not self._thread.is_alive()

    def start(self, job: Callable[[], T]) -> None:
        """Begin a job; the previous result must have been taken."""
        assert self.idle
        self._thread = threading.Thread(target=self._do, args=(job,), name="yolo-stable save")
        _wait_before_forks()
        _running.add(self._thread)
        self._thread.start()

    def wait(self) -> None:
        """Wait for the job, from any thread; its result stays."""
        thread = self._thread
        if thread is not None:
            thread.join()

    def result(self) -> T:
        """Wait for the job, and take its result, or raise its error."""
        assert self._thread is not None
        self._thread.join()
        self._thread = None
        if self._errors:
            raise self._errors.pop()
        return self._results.pop()

    def _do(self, job: Callable[[], T]) -> None:
        try:
            self._results.append(job())
        except BaseException as error:  # noqa: BLE001 - raised again in result()
            self._errors.append(error)


def _wait_before_forks() -> None:
    """Let forks of this process wait from the first job on; Windows has no forks."""
    global _waits
    if not _waits and hasattr(os, "register_at_fork"):
        os.register_at_fork(before=_wait)
    _waits = True


_waits = False


def _wait() -> None:
    for thread in list(_running):
        if thread is not threading.current_thread() and thread.is_alive():
            thread.join()
