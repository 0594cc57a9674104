"""Background job: one at a time, on a thread beside the training; whoever wants its result waits."""

from __future__ import annotations

import os
import threading
import weakref
from collections.abc import Callable
from typing import Generic, TypeVar

T = TypeVar("T")

_running: weakref.WeakSet[threading.Thread] = weakref.WeakSet()


class Background(Generic[T]):
    """Does one job beside its caller.

    The thread is no daemon: a process that ends otherwise ends the job first. A process that forks (for the workers of a data
    loader) waits as well: the child would inherit the locks that the job holds, with nobody to release them, and its open files.
    """

    def __init__(self) -> None:
        self._thread: threading.Thread | None = None
        self._results: list[T] = []
        self._errors: list[BaseException] = []

    @property
    def idle(self) -> bool:
        """Whether there is no job, and nothing that :meth:`result` would return."""
        return self._thread is None

    @property
    def done(self) -> bool:
        """Whether a job has ended, and :meth:`result` returns at once."""
        return self._thread is not None and not self._thread.is_alive()

    def start(self, job: Callable[[], T]) -> None:
        """Begin a job; the result of the one before has been taken."""
        assert self.idle
        self._thread = threading.Thread(target=self._do, args=(job,), name="yolo-stable save")
        _wait_before_forks()
        _running.add(self._thread)
        self._thread.start()

    def wait(self) -> None:
        """Wait for the job, from any thread; its result stays to be taken."""
        thread = self._thread
        if thread is not None:
            thread.join()

    def result(self) -> T:
        """Wait for the job, and return what it returned; once.

        Raises:
            BaseException: What the job has raised.
        """
        assert self._thread is not None
        self._thread.join()
        self._thread = None
        if self._errors:
            raise self._errors.pop()
        return self._results.pop()

    def _do(self, job: Callable[[], T]) -> None:
        try:
            self._results.append(job())
        except BaseException as error:  # noqa: BLE001 - it is raised where the result is asked for
            self._errors.append(error)


def _wait_before_forks() -> None:
    """Let forks of this process wait, from the first job on; where there is no fork (Windows) there is nothing to do."""
    global _waits
    if not _waits and hasattr(os, "register_at_fork"):
        os.register_at_fork(before=_wait)
    _waits = True


_waits = False


def _wait() -> None:
    for thread in list(_running):
        if thread is not threading.current_thread() and thread.is_alive():
            thread.join()
