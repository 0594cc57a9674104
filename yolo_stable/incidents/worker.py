"""Worker: replays a stranger's incident in a process of its own, within limits of time and memory."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import sys
import time
from collections.abc import Iterator
from multiprocessing.connection import Connection
from pathlib import Path
from types import ModuleType
from typing import Any

from .._shared.system import memory_of_machine
from ..errors import InvalidCallError, YoloStableError

BEGIN = 120.0
"""Seconds until a worker has to be ready: it imports torch and Ultralytics."""
GRACE = 5.0
"""Extra seconds to report what it has found until then."""
SHARE = 0.75
"""Share of the machine's memory that a worker may take beyond what its libraries have mapped."""
READY, ANSWER, REFUSED = "ready", "answer", "refused"


def run_apart(folder: Path, *, seconds: float, **options: Any) -> str:
    """Replay an incident in a process of its own.

    Args:
        folder: Of the incident.
        seconds: For all of it, once the worker is ready.
        options: As for :func:`yolo_stable.incidents.replay.run`.

    Returns:
        The answer as text.

    Raises:
        InvalidCallError: As ``run``, or the time is up, or the worker ended without an answer. One line.
    """
    spawning = multiprocessing.get_context("spawn")
    ours, theirs = spawning.Pipe(duplex=False)
    worker = spawning.Process(target=_work, args=(theirs, Path(folder), {**options, "seconds": seconds}), daemon=True)
    with _without_main():
        worker.start()
    theirs.close()
    try:
        kind, said = _next(ours, BEGIN)
        if kind == READY:
            kind, said = _next(ours, seconds + GRACE)
        if not kind and not said:  # it is dying: wait for its own exit code
            worker.join(GRACE)
    finally:
        worker.kill()
        worker.join()
        ours.close()
    if kind == ANSWER:
        return said
    if kind == REFUSED:
        raise InvalidCallError(said)
    raise InvalidCallError(
        f"autopsy: {folder}: {said or _ended(worker.exitcode)}. The answer from the run is in its incident.json."
    )


@contextlib.contextmanager
def _without_main() -> Iterator[None]:
    """Hide the running program: a spawned worker would run it once more, unless it guards against that."""
    main = sys.modules["__main__"]
    sys.modules["__main__"] = ModuleType("__main__")
    try:
        yield
    finally:
        sys.modules["__main__"] = main


def _next(pipe: Connection, seconds: float) -> tuple[str, str]:
    """Return the worker's next message; without a kind if there is none."""
    try:
        if pipe.poll(seconds):
            kind, said = pipe.recv()
            return kind, said
    except EOFError:
        return "", ""
    return "", f"the replay was stopped, as it had not ended after {seconds:.0f} s"


def _ended(code: int | None) -> str:
    if code is not None and code < 0:
        return f"the replay has ended without an answer (signal {-code}), as it may when memory runs out"
    return f"the replay has ended without an answer (exit code {code})"


def _work(pipe: Connection, folder: Path, options: dict[str, Any]) -> None:
    """Replay, and send the result; runs in the worker."""
    began = time.monotonic()
    from .replay import run

    _bound_memory(options.get("device", "cpu"))
    with open(os.devnull, "wb") as nowhere:  # hides what a library prints as it dies
        os.dup2(nowhere.fileno(), 2)
    pipe.send((READY, f"{time.monotonic() - began:.1f} s"))
    try:
        answer = (ANSWER, run(folder, **options))
    except YoloStableError as error:
        answer = (REFUSED, str(error))
    except MemoryError:
        answer = (REFUSED, f"autopsy: {folder}: there is not enough memory for its replay.")
    except Exception as error:  # noqa: BLE001 - whatever a stranger's file does, it is one line
        what = " ".join(f"{type(error).__name__}: {error}".split())[:200]
        answer = (REFUSED, f"autopsy: {folder}: it cannot be replayed ({what}).")
    pipe.send(answer)


def _bound_memory(device: str) -> None:
    """Bound the address space, on the CPU: an accelerator's driver maps far more than it takes."""
    with contextlib.suppress(ImportError, OSError, ValueError):  # no such limits on this system
        import resource

        if not device.startswith("cpu"):
            return
        pages = int(Path("/proc/self/statm").read_text().split()[0])
        most = pages * resource.getpagesize() + int(SHARE * memory_of_machine())
        _, hard = resource.getrlimit(resource.RLIMIT_AS)
        resource.setrlimit(resource.RLIMIT_AS, (most if hard < 0 else min(most, hard), hard))
