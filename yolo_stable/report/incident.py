"""Report incident: a rejection or an escalation as the page shows it, with the answer of its autopsy."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import PurePath
from typing import Any

from .._shared.numbers import count, finite, number, short, text, text_of_lines, whole
from ..runlog.tally import kind_of

FILES = 20
"""Image files kept of an incident; further ones are counted."""
WORDS = {
    "micro_batch": "micro-batch rejected",
    "window": "window rejected",
    "validation": "validation not finite",
    "repair": "EMA restored",
    "roll_back": "rolled back",
    "lower_precision": "rolled back, lower precision",
    "halt": "halted",
}
_FOLDER = re.compile(r"\d{4,}(-rank\d+)?")
_SHOWN = ("what", "why", "loss", "items", "files")
"""Evidence that the page shows elsewhere."""


@dataclass(kw_only=True)
class ReportIncident:
    """A rejection or an escalation, with the autopsy's answer if there was one."""

    kind: str
    """``micro_batch``, ``window``, ``validation``, or the level of an escalation."""
    epoch: int
    reason: str
    time: float | None = None
    batch: int | None = None
    step: int | None = None
    to_step: int | None = None
    lost: int = 0
    lr_factor: float | None = None
    precision: str = ""
    culprits: list[str] = field(default_factory=list)
    loss: float | None = None
    norm: float | None = None
    files: list[str] = field(default_factory=list)
    files_in_all: int = 0
    answer: Mapping[str, Any] | None = None
    """The autopsy's answer; None: there was no autopsy."""
    folder: str = ""
    """Name of its folder in ``incidents/``; empty if it was not written in full."""
    number: int = 0
    """From 1 in the run."""
    kept: bool = False
    """Whether the page lists it."""

    @classmethod
    def from_event(cls, event: Mapping[str, Any]) -> ReportIncident:
        """Read a ``rejection`` or a ``climb``."""
        files = event.get("files")
        files = files if isinstance(files, list) else []
        return cls(
            kind=kind_of(event),
            epoch=whole(event.get("epoch")) or 0,
            reason=text(event.get("reason")),
            time=finite(event.get("time")),
            batch=whole(event.get("batch")),
            step=whole(event.get("step")),
            to_step=whole(event.get("to_step")),
            lost=whole(event.get("lost")) or 0,
            lr_factor=finite(event.get("lr_factor")),
            precision=text(event.get("precision"), 40),
            culprits=_texts(event.get("culprits")),
            loss=number(event.get("loss")),
            norm=number(event.get("norm")),
            files=_texts(files),
            files_in_all=len(files),
        )

    def looked_into(self, event: Mapping[str, Any]) -> None:
        """Take the answer from an ``incident`` event."""
        self.answer = event
        name = PurePath(str(event.get("folder") or "").replace("\\", "/")).name  # the run may have moved since
        self.folder = name if _FOLDER.fullmatch(name) else ""

    @property
    def escalation(self) -> bool:
        """Whether more than a batch was undone."""
        return self.kind not in ("micro_batch", "window", "validation")

    @property
    def cause(self) -> str:
        """The cause that the autopsy names; empty without an autopsy."""
        return "" if self.answer is None else text(self.answer.get("cause"), 60)

    @property
    def what(self) -> str:
        """What the autopsy found, such as ``has NaN pixels``."""
        return text(self._evidence().get("what"), 200)

    @property
    def next(self) -> str:
        """The next step, with commands on lines of their own."""
        written = "" if self.answer is None else self.answer.get("next")
        return text_of_lines(written, 1000) if isinstance(written, str) else ""

    @property
    def guilty(self) -> list[str]:
        """Paths of the guilty images."""
        return [path for path, _ in self._samples() if path]

    @property
    def place(self) -> str:
        """Epoch, batch and step in words."""
        words = [f"epoch {self.epoch}"]
        if self.batch is not None:
            words.append(f"batch {self.batch}")
        if self.step is not None:
            words.append(f"step {self.step:,}")
        return ", ".join(words)

    @property
    def headline(self) -> str:
        """One line: who did what, or what the guard saw."""
        if self.answer is None:
            return self.reason or WORDS[self.kind]
        who = self._who()
        return f"{who} {self.what or 'broke the training'}: {self.cause or 'undecided'}"

    def rows(self) -> list[tuple[str, str]]:
        """Return what is known, as names and values in reading order."""
        rows = [("seen", self.reason), ("where", self.place)]
        if self.escalation and self.to_step is not None:
            undone = f", {count(self.lost, 'step')} undone" if self.lost else ""
            rows.append(("rolled back", f"to step {self.to_step:,}{undone}"))
        if self.escalation and self.lr_factor is not None:
            rows.append(("learning rate", f"× {short(self.lr_factor)}"))
        if self.precision:
            rows.append(("new precision", self.precision))
        if self.answer is None:
            rows.append(("cause", "no autopsy"))
        else:
            rows += self._found()
        if self.loss is not None:
            rows.append(("loss", short(self.loss)))
        if self.norm is not None:
            rows.append(("gradient norm", short(self.norm)))
        if self.culprits:
            rows.append(("not healthy", ", ".join(self.culprits[:6])))
        return [(name, value) for name, value in rows if value]

    def _found(self) -> list[tuple[str, str]]:
        facts, answer = self._evidence(), self.answer or {}
        why = text(facts.get("why"))
        rows = [("cause", f"{self.cause}: {why}" if why else self.cause)]
        if answer.get("op"):
            module = f" in {text(answer.get('module'), 200)}" if answer.get("module") else ""
            rows.append(("operation", f"{text(answer['op'], 200)}{module}, {text(answer.get('phase'), 40)}"))
        elif answer.get("module"):
            rows.append(("module", f"{text(answer['module'], 200)}, {text(answer.get('phase'), 40)}"))
        rows.append(("replay", _replayed(answer)))
        for name, value in list(facts.items())[:12]:
            if name not in _SHOWN:
                rows.append((text(name, 60).replace("_", " "), _words(value)))
        return rows

    def _evidence(self) -> Mapping[str, Any]:
        facts = (self.answer or {}).get("evidence")
        return facts if isinstance(facts, Mapping) else {}

    def _samples(self) -> list[tuple[str, str]]:
        """Return path and place of each guilty image."""
        samples = (self.answer or {}).get("samples")
        found = []
        for sample in samples[:FILES] if isinstance(samples, list) else ():
            if isinstance(sample, Mapping):
                row = whole(sample.get("label_row"))
                found.append((text(sample.get("path")), "" if row is None else f" (label row {row})"))
        return found

    def _who(self) -> str:
        samples = self._samples()
        names = [(PurePath(path).name or "an image of the batch") + row for path, row in samples]
        if not names:
            answer = self.answer or {}
            module, op = text(answer.get("module"), 200), text(answer.get("op"), 200)
            nobody = "the run" if answer.get("phase") in ("step", "state") else "the batch"
            return f"{op} in {module}" if module and op else module or op or nobody
        return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")


def _replayed(answer: Mapping[str, Any]) -> str:
    if answer.get("bitwise") is True:
        return "broke again, with the very same bits"
    return "broke again" if answer.get("reproduced") is True else "did not break again, or was not done"


def _texts(values: Any) -> list[str]:
    return [text(value) for value in values[:FILES]] if isinstance(values, (list, tuple)) else []


def _words(value: Any) -> str:
    if isinstance(value, (list, tuple)):
        return text(", ".join(text(one, 200) for one in value[:8]))
    if isinstance(value, Mapping):
        return text(", ".join(f"{key} {text(one, 60)}" for key, one in list(value.items())[:8]))
    return text(value)
