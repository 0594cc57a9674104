"""State of a comparison in ``comparison.json``: its call, and the outcome of each run so far. Schema 1.

Keys: ``schema`` (1), ``call`` (everything that decides the results, see :meth:`CompareCall.record`), ``runs``: for each one
``name``, ``choice``, ``status`` (one of :data:`~yolo_stable.compare.outcome.STATUSES`), ``reason``, ``exit_code`` (null: not
known), ``starts`` (how often this program began to train it).
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from .._shared.atomic_file import reason, write_whole
from .._shared.strict_json import strict
from ..errors import InvalidCallError, YoloStableError
from .axes import WHERE
from .call import difference
from .outcome import FINISHED, RUNNING, STATUSES, WAITING, TrialOutcome
from .trial import Trial

SCHEMA = 1
NAME = "comparison.json"
LOCK = ".comparison.lock"
DEFAULT = Path("runs", "compare")


class State:
    """The state of a comparison, rewritten with each change.

    Entering it takes the folder's lock, which the system releases however the process ends.

    Raises:
        InvalidCallError: The folder belongs to another comparison, or to something else.
    """

    def __init__(self, folder: Path, call: Mapping[str, Any], trials: Sequence[Trial]) -> None:
        self.folder = folder.absolute()
        self.call = _plain(call)
        """The record, as plain values."""
        self._names = [(trial.name, dict(trial.choice)) for trial in trials]
        self._runs: dict[str, dict[str, Any]] = {}
        self._lock = FileLock(self.folder / LOCK, timeout=0)
        self.new = not self.folder.exists()
        """Whether the folder was made for this comparison."""
        self._read()

    def __enter__(self) -> State:
        """Take the lock, and read what is there.

        Raises:
            InvalidCallError: The folder cannot be written, or another process uses it.
        """
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            self._lock.acquire()
        except Timeout as error:
            raise InvalidCallError(
                f"{WHERE}: another process runs the comparison in {self.folder}. Wait for it, or end it."
            ) from error
        except OSError as error:
            raise InvalidCallError(
                f"{WHERE}: the folder {self.folder} cannot be made or written: {reason(error)}. Name another one with --out."
            ) from error
        self._read()
        return self

    def __exit__(self, *_: object) -> None:
        """Release the lock."""
        self._lock.release()

    def outcome(self, trial: Trial) -> TrialOutcome:
        """Return the outcome of a run so far."""
        run = self._runs[trial.name]
        return TrialOutcome(status=run["status"], reason=run["reason"], exit_code=run["exit_code"])

    def has_trained(self) -> bool:
        """Say whether any run ended otherwise than by refusing its call."""
        outcomes = [TrialOutcome(status=run["status"], exit_code=run["exit_code"]) for run in self._runs.values()]
        return any(outcome.status not in (WAITING, RUNNING) and not outcome.refused for outcome in outcomes)

    def is_finished(self, trial: Trial) -> bool:
        """Say whether a run is over and its folder still exists; deleting the folder asks for the run again."""
        return self.outcome(trial).status in FINISHED and trial.folder(self.folder).is_dir()

    def begin(self, trial: Trial) -> None:
        """Record that a run is about to start."""
        run = self._runs[trial.name]
        again = run["status"] not in FINISHED  # else its folder was deleted, and it begins anew
        run.update(status=RUNNING, reason="", exit_code=None, starts=(run["starts"] if again else 0) + 1)
        self._write()

    def end(self, trial: Trial, outcome: TrialOutcome) -> None:
        """Record how a run ended."""
        self._runs[trial.name].update(status=outcome.status, reason=outcome.reason, exit_code=outcome.exit_code)
        self._write()

    def forget(self) -> None:
        """Remove what was written for a refused call, and the folder if it was made for it."""
        (self.folder / NAME).unlink(missing_ok=True)
        if self.new:
            self._lock.release()
            shutil.rmtree(self.folder, ignore_errors=True)

    def _read(self) -> None:
        waiting = {"status": WAITING, "reason": "", "exit_code": None, "starts": 0}
        self._runs = {name: {"name": name, "choice": choice, **waiting} for name, choice in self._names}
        path = self.folder / NAME
        if not path.exists():
            others = [] if self.new else [p for p in _content(self.folder) if p.name not in (LOCK, NAME + ".part")]
            if others:
                raise InvalidCallError(
                    f"{WHERE}: {self.folder} is not the folder of a comparison: it holds {others[0].name}, but no {NAME}. {_NEXT}"
                )
            return
        content = read(path)
        told = difference(content["call"], self.call)
        if told:
            raise InvalidCallError(f"{WHERE}: {self.folder} holds another comparison: {told}. {_NEXT}")
        for run in content["runs"]:
            if run["name"] in self._runs:
                self._runs[run["name"]].update({key: run[key] for key in waiting})

    def _write(self) -> None:
        content = {"schema": SCHEMA, "call": self.call, "runs": list(self._runs.values())}
        text = json.dumps(strict(content), indent=2, allow_nan=False) + "\n"
        try:
            write_whole(self.folder / NAME, text.encode())
        except OSError as error:
            raise YoloStableError(f"{self.folder / NAME} could not be written: {reason(error)}.") from error


def read(path: Path) -> dict[str, Any]:
    """Return the content of a ``comparison.json``.

    Raises:
        InvalidCallError: It cannot be read, or is not one of schema 1.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        known = content["schema"] == SCHEMA and isinstance(content["call"], dict)
        sound = known and all(
            isinstance(run["name"], str) and run["status"] in STATUSES and isinstance(run["starts"], int)
            and isinstance(run["reason"], str) and isinstance(run["exit_code"], (int, type(None)))
            for run in content["runs"]
        )  # fmt: skip
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise InvalidCallError(f"{WHERE}: {path} cannot be read: {type(error).__name__}: {error}. {_NEXT}") from error
    if not sound:
        raise InvalidCallError(f"{WHERE}: {path} is not a comparison of schema {SCHEMA}. {_NEXT}")
    return content


_NEXT = "Name a new folder with --out, or leave --out out."


def default_folder(call: Mapping[str, Any], below: Path = DEFAULT) -> Path:
    """Return the folder of a comparison that names none: that of the same comparison, else the next free one.

    Args:
        call: Its record.
        below: The first such folder; further ones have a number after it.
    """
    number, plain = 1, _plain(call)
    same: Path | None = None
    while (folder := below if number == 1 else below.with_name(f"{below.name}-{number}")).exists():
        number += 1
        try:
            if not difference(read(folder / NAME)["call"], plain):
                same = folder
        except InvalidCallError:  # a folder of something else is skipped
            continue
    return same or folder


def _plain(call: Mapping[str, Any]) -> dict[str, Any]:
    """Return a record as it comes back from a file."""
    return json.loads(json.dumps(strict(dict(call)), allow_nan=False))


def _content(folder: Path) -> list[Path]:
    return sorted(folder.iterdir()) if folder.is_dir() else [folder]
