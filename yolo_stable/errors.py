"""Every error that a user can meet, with the exit code that the command line gives it.

Exit codes: 1 the work was done and failed (training halted, findings); 2 the call was wrong; 3 not comparable; 128 and the
signal's number: a signal ended it (130 Ctrl-C, 143 SIGTERM), as a shell counts.
"""

from __future__ import annotations

import difflib
import signal as signals
from collections.abc import Iterable


class YoloStableError(Exception):
    """Base of all errors raised on purpose; its text is written for the person at the terminal.

    It is not a ``RuntimeError``: Ultralytics' training loop catches those in its search for out-of-memory errors.
    """

    exit_code = 1


class InvalidCallError(YoloStableError, ValueError):
    """The call was wrong: a key, a value, a path or a device; nothing has been started."""

    exit_code = 2


class FinishedRunError(InvalidCallError, AssertionError):
    """The run to resume has finished; Ultralytics says so by an ``AssertionError``, which scripts catch."""


class UnhealthyStartError(YoloStableError):
    """A parameter, buffer or class weight was not finite before the first step."""


class TrainingHaltedError(YoloStableError):
    """The guard gave up: too many batches in a row, or in all, could not be used.

    Args:
        seen: What was seen, where, and how often.
        advice: What to try.
        next: What a trainer adds, which knows the names of the run: commands with ``DATA`` and ``LAST`` in them.
    """

    def __init__(self, seen: str, advice: str = "", next: str = "") -> None:
        super().__init__(f"{seen} {advice}".strip())
        self.seen, self.next = seen, next


class TrainingInterruptedError(YoloStableError):
    """A signal asked the run to end, and it did at the next step.

    Args:
        message: What was saved and how to go on.
        signal: The signal; ``exit_code`` is 128 and its number.

    Examples:
        >>> TrainingInterruptedError("Saved.", signals.SIGTERM).exit_code
        143
    """

    def __init__(self, message: str, signal: signals.Signals) -> None:
        super().__init__(message)
        self.signal = signal
        self.exit_code = 128 + int(signal)

    def __reduce__(self) -> tuple[type, tuple[str, signals.Signals]]:
        return type(self), (str(self), self.signal)  # workers hand errors over pickled


def nearest(name: str, valid: Iterable[str]) -> str:
    """Return a hint that names the valid spelling nearest to ``name``, capitals aside, or an empty string.

    Args:
        name: What the user typed.
        valid: What would have been understood.

    Returns:
        A sentence that starts with a space, ready to be appended to an error message.

    Examples:
        >>> nearest("max_nrom", ["max_norm", "bars"])
        " Did you mean 'max_norm'?"
        >>> nearest("Sgdd", ["SGD", "Adam"])
        " Did you mean 'SGD'?"
        >>> nearest("zzz", ["max_norm"])
        ''
    """
    by_lower = {word.lower(): word for word in valid}
    match = difflib.get_close_matches(name.lower(), list(by_lower), n=1)
    return f" Did you mean {by_lower[match[0]]!r}?" if match else ""
