"""Outcome of a run: told by its exit code if that is known, else by what it left behind."""

from __future__ import annotations

import json
import signal
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..runlog.reader import read_events

WAITING, RUNNING, DONE, HALTED, FAILED, INTERRUPTED = "waiting", "running", "done", "halted", "failed", "interrupted"
STATUSES = (WAITING, RUNNING, DONE, HALTED, FAILED, INTERRUPTED)
FINISHED = frozenset({DONE, HALTED, FAILED})
"""Statuses that the same command does not train again."""
REFUSED = 2
"""Exit code of a run whose call is wrong."""
STOCK_END = "stock.json"
"""File that a stock run writes at its end, since it has no ``guard.jsonl``."""
_TAIL = 65536  # bytes of a log in which the reason is looked for
_PROGRAM = "yolo-stable: "


@dataclass(frozen=True, kw_only=True)
class TrialOutcome:
    """How a run ended."""

    status: str
    """One of :data:`STATUSES`."""
    reason: str = ""
    """Why, unless it is done."""
    exit_code: int | None = None
    """None: not known."""

    @property
    def refused(self) -> bool:
        """Whether the run refused its call."""
        return self.status == FAILED and self.exit_code == REFUSED


def outcome_of(code: int, folder: Path, log: Path, start: int = 0) -> TrialOutcome:
    """Return how a run ended that has an exit code.

    Args:
        code: Of the process; below 0: the signal that ended it, as :mod:`subprocess` counts.
        folder: Of the run.
        log: Its output.
        start: Bytes of the log before this start of it.
    """
    if code == 0:
        return TrialOutcome(status=DONE, exit_code=0)
    number = -code if code < 0 else code - 128
    if number in (signal.SIGINT, signal.SIGTERM):
        return TrialOutcome(status=INTERRUPTED, reason=last_words(log, start), exit_code=code)
    if code < 0:
        hint = ", as the system does when memory runs out" if number == signal.SIGKILL else ""
        return TrialOutcome(status=FAILED, reason=f"ended by {_signal(number)}{hint}", exit_code=code)
    told = left_behind(folder)
    halted = told is not None and told.status == HALTED
    reason = told.reason if halted and told is not None else last_words(log, start)
    return TrialOutcome(status=HALTED if halted else FAILED, reason=reason or f"exit code {code}", exit_code=code)


def left_behind(folder: Path) -> TrialOutcome | None:
    """Return what a run's folder says of its end; None: nothing, so it was killed or is still running.

    A run that ended on request, or for a reason outside its training, is interrupted: it can continue.
    """
    end = _end_of_stock(folder / STOCK_END) or _end_of_guarded(folder / "guard.jsonl")
    if end is None:
        return None
    status = str(end.get("status"))
    return TrialOutcome(status=status if status in FINISHED else INTERRUPTED, reason=str(end.get("message") or ""))


def last_words(log: Path, start: int = 0) -> str:
    """Return the last line that the command itself wrote to a log, or else the last line."""
    try:
        with open(log, "rb") as file:
            file.seek(max(start, file.seek(0, 2) - _TAIL))
            text = file.read().decode("utf-8", errors="replace")
    except OSError:
        return ""
    lines = [line.rpartition("\r")[2].strip() for line in text.splitlines()]
    lines = [line for line in lines if line]
    said = [line.removeprefix(_PROGRAM) for line in lines if line.startswith(_PROGRAM)]
    return (said or lines or [""])[-1]


def _signal(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def _end_of_stock(path: Path) -> dict[str, Any] | None:
    try:
        end = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return end if isinstance(end, dict) else None


def _end_of_guarded(path: Path) -> dict[str, Any] | None:
    """Return the event ``end``, unless the run started again after it."""
    last: dict[str, Any] = {}
    try:
        for event in read_events(path):
            if event["event"] in ("start", "end"):
                last = event
    except OSError:
        return None
    return last if last.get("event") == "end" else None
