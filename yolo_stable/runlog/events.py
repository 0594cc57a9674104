"""Events: what happened in a run, one JSON object per line of ``guard.jsonl``.

Schema 1. Every line has ``schema`` (1), ``event``, ``time`` (seconds since 1970) and ``epoch`` (from 1; 0 before training). The
events and their further keys:

- ``start``: ``versions`` (package name to version), ``guard`` (its settings), ``preset``, ``optimizer``, ``precision``,
  ``device``, ``epochs_before`` (completed before this start; above 0 when the run was resumed).
- ``rejection``: ``batch`` (from 1, within the epoch), ``step`` (optimizer steps applied so far), ``what``
  (``micro_batch`` or ``window``), ``reason``, ``culprits`` (buffers or parameters that were not finite), ``loss``, ``items``,
  ``norm``, ``files`` (images of the micro-batch; of a window: of all its micro-batches). A number that was not finite is
  the string ``"nan"``, ``"inf"`` or ``"-inf"``, since JSON has none of them.
- ``steps``: the newest applied step, a line for every ``guard.telemetry_every`` of them: ``batch`` (from 1, within the epoch),
  ``step`` (optimizer steps applied so far), ``loss`` (items of the last accepted micro-batch, by name), ``norm`` (before
  clipping), ``clip`` (what the gradients were multiplied by; 1.0: not clipped), ``lr`` (of each parameter group, as the optimizer
  used it), ``scale`` (loss scale, null without a scaler), ``seconds`` (mean per applied step since the last such line, without
  validations, saves and autopsies), ``memory`` (bytes that the process holds on its device at the peak; on the CPU its resident
  set; null where the device does not say), ``layers`` (up to ten ``[module path, share of the squared norm]``, largest first;
  null when not known). Such a line takes some 600 bytes, 100,000 of them 60 MB. After every 100,000 lines the interval is
  doubled, so that a run of 10 million steps, at the default of 10, leaves 340,000 lines and one of 100 million 660,000.
- ``warning``: ``what`` (``norm over limit``, ``loss scale falling``, ``norm rising`` or ``one layer dominates``; at most one of
  each in an epoch), ``message`` (what was seen and what to do next), ``value``, ``limit``, ``step``. The rules:
  ``runlog/warning_rules.py``.
- ``epoch``: ``applied``, ``clipped``, ``rejected`` (counts within the epoch), ``norm_mean``, ``norm_max`` (before clipping, of
  the steps that were applied; null when there were none), ``loss`` (running means, by name).
- ``climb``: more than a batch was undone. ``rung`` (``repair``: the EMA alone was restored from a snapshot; ``roll_back``: the
  whole state; ``lower_precision``: that, and ``precision`` is computed in from here on; ``halt``), ``reason``, ``culprits``,
  ``step`` and ``to_step`` (optimizer steps applied then, and in the snapshot), ``lost`` (steps undone by this escalation, without
  those that earlier ones had undone), ``lr_factor`` (what the learning rate is multiplied by from here on).
- ``incident``: the autopsy of a rejection or an escalation. ``kind``, ``folder`` (where it is in full, or null), ``bytes`` (of
  that folder), and the answer of the autopsy: ``reproduced``, ``bitwise``, ``cause``, ``phase``, ``module``, ``op``,
  ``samples``, ``evidence``, ``next``. ``injected`` here and in ``start``: faults that were put in on purpose, where there are
  any.
- ``left_out``: ``path`` of an image that was found guilty twice and is left out of the rest of the run.
- ``unreadable``: ``path`` of an image that could not be read any more and is left out from here on, ``why``, ``split``
  (``train``, others are drawn in its place, or ``val``), ``lost`` (files of that split so far) and ``images`` (that it has).
- ``validation_not_finite``: ``names`` of results that were not finite.
- ``checkpoint_kept``: a save was refused because of ``culprits``; the file on disk stays as it was.
- ``end``: ``status`` (``done``, ``halted`` by the guard, ``interrupted`` by a signal, or ``failed`` for another reason),
  ``message``, ``counts``.
"""

from __future__ import annotations

import json
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from .._shared.strict_json import strict

SCHEMA = 1


@dataclass(frozen=True, kw_only=True, slots=True)
class Event:
    """One event; the module lists the kinds and their details."""

    event: str
    epoch: int
    details: dict[str, Any] = field(default_factory=dict)
    time: float = field(default_factory=time.time)

    def to_json(self) -> str:
        """Return the event as one line of strict JSON, without the line's end.

        Examples:
            >>> Event(event="end", epoch=3, details={"norm": float("nan")}, time=0.0).to_json()
            '{"schema": 1, "event": "end", "time": 0.0, "epoch": 3, "norm": "nan"}'
        """
        head = {"schema": SCHEMA, "event": self.event, "time": round(self.time, 3), "epoch": self.epoch}
        return json.dumps({**head, **strict(self.details)}, allow_nan=False)


class EventLog:
    """Appends events to a file, a line each; a full disk ends the log, not the training.

    Args:
        path: The file; the first event makes it.
        append: Keep the lines of an earlier part of the run; otherwise start a new file.
    """

    def __init__(self, path: Path, *, append: bool = False) -> None:
        self.path = path
        self.problem: str | None = None
        """Why writing stopped, or None."""
        self._file: IO[str] | None = None
        self._mode = "a" if append else "w"

    def write(self, event: Event) -> None:
        """Append one event and flush: a killed run keeps every line."""
        if self.problem is not None:
            return
        try:
            file = self._file
            if file is None:
                self.path.parent.mkdir(parents=True, exist_ok=True)
                if self._mode == "a":
                    _end_last_line(self.path)
                file = self._file = open(self.path, self._mode, encoding="utf-8")  # noqa: SIM115 - stays open for the run
            file.write(event.to_json() + "\n")
            file.flush()
        except OSError as error:
            self.problem = f"{self.path}: {error.strerror or error}"
            self.close()

    def close(self) -> None:
        """Close the file; a later write appends to it."""
        if self._file is not None:
            try:
                self._file.close()
            except OSError as error:  # a full disk may say so only now
                self.problem = self.problem or f"{self.path}: {error.strerror or error}"
            self._file = None
            self._mode = "a"


def _end_last_line(path: Path) -> None:
    """Cut off a last line that a killed run left unfinished: the next event would be written into it, and both lost."""
    if not path.is_file():
        return
    with open(path, "r+b") as file:
        content = file.read()
        start = content.rfind(b"\n") + 1
        if start == len(content):
            return
        try:
            json.loads(content[start:])
        except ValueError:
            file.truncate(start)
        else:
            file.write(b"\n")  # only the line's end is missing
