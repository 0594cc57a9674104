"""Damaged and hostile bundles are opened: each is refused with one line, and nothing is executed or written."""

from __future__ import annotations

import os
import shutil
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from yolo_stable.errors import InvalidCallError
from yolo_stable.incidents.replay import run

from .autopsy_damages import damages

Row = dict[str, Any]
SECONDS = 60
"""After so many a bundle counts as one that does not end."""
WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
SLOW = ("a million threads",)
BAD_EVENTS = (
    "os.system",
    "os.exec",
    "os.posix_spawn",
    "os.fork",
    "subprocess.Popen",
    "pickle.find_class",
    "socket.connect",
    "os.rename",
    "os.remove",
    "os.mkdir",
    "os.link",
    "os.symlink",
    "shutil.rmtree",
    "ctypes.dlopen",
)
_seen: list[str] | None = None


def _watch(event: str, args: tuple[Any, ...]) -> None:
    if _seen is None:
        return
    if event in BAD_EVENTS:
        _seen.append(f"{event} {str(args)[:80]}")
    elif event == "open" and (
        (isinstance(args[1], str) and set(args[1]) & set("wax+")) or (isinstance(args[2], int) and args[2] & WRITING)
    ):
        _seen.append(f"open {args[0]} for writing")


@contextmanager
def watched() -> Iterator[list[str]]:
    """Note what the process executes, writes or removes; a hook of Python's own, which cannot be taken off again."""
    global _seen
    if not getattr(sys, "_benchmark_hook", False):
        sys.addaudithook(_watch)
        sys._benchmark_hook = True  # pyright: ignore[reportAttributeAccessIssue]
    _seen = []
    try:
        yield _seen
    finally:
        _seen = None


def attempt(folder: Path, sentinel: Path) -> Row:
    """Open a bundle and say what came of it."""

    def late(*_: Any) -> None:
        raise TimeoutError(f"after {SECONDS} s")

    signal.signal(signal.SIGALRM, late)
    signal.alarm(SECONDS)
    begun = time.perf_counter()
    with watched() as events:
        try:
            text = run(folder, seconds=20.0)
            outcome, line = "answered", text.splitlines()[0]
            clean = all(c.isprintable() or c == "\n" for c in text)
        except InvalidCallError as error:
            outcome, line = "refused", str(error)
            clean = "\n" not in line and all(c.isprintable() for c in line)
        except BaseException as error:  # noqa: BLE001 - anything else is what is looked for
            outcome, line, clean = "crash", f"{type(error).__name__}: {error}"[:300], False
        finally:
            signal.alarm(0)
    return {
        "outcome": outcome,
        "line": line,
        "one clean line": clean,
        "events": list(events),
        "executed": sentinel.exists(),
        "seconds": time.perf_counter() - begun,
    }


def hostile(bundle: Path, work: Path, *, slow: bool = True) -> list[Row]:
    """Damage a good bundle in every way, and open each.

    Args:
        bundle: A good one.
        work: An empty folder.
        slow: Those as well that take seconds.

    Returns:
        A row for each damage; ``met``: what had to come of it did, in one printable line, and nothing was executed or written.
    """
    rows = []
    sentinel = work / "EXECUTED"
    run(bundle, seconds=20.0)  # imports write their caches now
    for name, (damage, wanted) in damages(sentinel).items():
        if name in SLOW and not slow:
            continue
        folder = work / "0001"
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(bundle, folder)
        damage(folder)
        before = {p: p.lstat().st_mtime_ns for p in work.rglob("*")}
        row = {"damage": name, "wanted": wanted, **attempt(folder, sentinel)}
        row["written"] = {p: p.lstat().st_mtime_ns for p in work.rglob("*")} != before
        sentinel.unlink(missing_ok=True)
        quiet = not row["events"] and not row["executed"] and not row["written"]
        row["met"] = row["outcome"] == wanted and row["one clean line"] and quiet
        rows.append(row)
    return rows
