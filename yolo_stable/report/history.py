"""Run history: reduces a run's events, one by one, to curves, incidents, a timeline and counts, in bounded memory.

The log's step counts applied steps, and never falls within a process. Steps that an escalation has undone leave their curves and
are drawn apart; so do steps that a resumed run repeats. If the counter restarts, as without the side file of the checkpoint, the
history continues it from the start of the epoch.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from .._shared.numbers import count, finite, number, short, text, whole
from ..runlog.tally import EPOCHS, Tally
from .curve import Curve
from .incident import WORDS, ReportIncident
from .log_histogram import LogHistogram
from .timeline import Timeline, TimelineEntry

INCIDENTS = 200
"""Incidents kept; further ones are counted."""
CURVES = 64
LAYERS = 1000
STARTS = 50
NAME = 200
"""Longest name of a curve or a layer; a longer one is ignored."""
_MEASURED = ("norm", "clip", "scale", "seconds", "memory")
_GROUPS = tuple(f"lr/{group}" for group in range(16))


@dataclass
class Layer:
    """A layer's share of the squared gradient norm."""

    total: float = 0.0
    lines: int = 0
    most: float = 0.0
    most_step: int = 0


@dataclass
class RunHistory:
    """What the events of a run say, once all were added."""

    events: int = 0
    starts: list[Mapping[str, Any]] = field(default_factory=list)
    curves: dict[str, Curve] = field(default_factory=dict)
    """``loss/NAME``, ``norm``, ``clip``, ``lr/GROUP``, ``scale``, ``seconds``, ``memory``."""
    norms: LogHistogram = field(default_factory=LogHistogram)
    epochs: dict[int, Mapping[str, Any]] = field(default_factory=dict)
    """The ``epoch`` events; the newer one of a repeated epoch."""
    ends: dict[int, int] = field(default_factory=lambda: {0: 0})
    """The step at the end of each epoch."""
    incidents: list[ReportIncident] = field(default_factory=list)
    tally: Tally = field(default_factory=Tally)
    left_out: list[str] = field(default_factory=list)
    warnings: int = 0
    layers: dict[str, Layer] = field(default_factory=dict)
    timeline: Timeline = field(default_factory=Timeline)
    end: Mapping[str, Any] | None = None
    """The ``end`` after the last start, or None."""
    first_time: float | None = None
    last_time: float | None = None
    step: int = 0
    epoch: int = 0
    firsts: set[int] = field(default_factory=set)
    """Epochs (from 1) with which a process began: the clock of ``results.csv`` restarts there."""
    processes: int = 0
    _offset: int = 0
    _resumed: int | None = None
    _latest: ReportIncident | None = None
    _plain: int = 0
    _numbered: int = 0

    def add(self, event: Mapping[str, Any]) -> None:
        """Take the next event; an unknown one only counts."""
        self.events += 1
        time, epoch = finite(event.get("time")), whole(event.get("epoch"))
        if time is not None:
            self.first_time = time if self.first_time is None else self.first_time
            self.last_time = time
        if epoch is not None and epoch <= EPOCHS:
            self.epoch = epoch
        self.tally.add(event)
        take = getattr(self, f"_on_{event['event']}", None) if event["event"] in KNOWN else None
        if take is not None:
            take(event)

    # ---- one event each --------------------------------------------------------------------------------------------------

    def _on_start(self, event: Mapping[str, Any]) -> None:
        before = whole(event.get("epochs_before")) or 0
        if len(self.starts) < STARTS:
            self.starts.append(event)
        self.processes += 1
        if before <= EPOCHS:
            self.firsts.add(before + 1)
        self._forget(before)
        self.end, self._resumed, self._latest = None, before, None
        how = f"resumed after epoch {before}" if before else "started again" if len(self.starts) > 1 else "started"
        words = [text(event.get(key), 60) for key in ("optimizer", "precision", "device") if event.get(key)]
        self._tell("run", f"{how}: {', '.join(words)}" if words else how, event)

    def _on_steps(self, event: Mapping[str, Any]) -> None:
        """Take a ``steps`` event, of which there may be a million."""
        step = self._place(event)
        if step is None:
            return
        point = self._point
        losses = event.get("loss")
        if isinstance(losses, dict) and losses:
            total = 0.0
            for name, value in losses.items():
                if (value := number(value)) is not None:
                    total += value
                    point("loss/" + name, step, value)
            if len(losses) > 1:
                point("loss/sum", step, total)
        for name in _MEASURED:
            if (value := number(event.get(name))) is not None:
                point(name, step, value)
                if name == "norm":
                    self.norms.add(value)
        rates = event.get("lr")
        for group, value in zip(_GROUPS, rates if isinstance(rates, list) else (), strict=False):
            if (value := number(value)) is not None:
                point(group, step, value)
        layers = event.get("layers")
        for entry in layers[:10] if isinstance(layers, list) else ():
            if type(entry) is list and len(entry) == 2 and type(entry[0]) is str:
                share = entry[1]
                if type(share) is float and 0.0 <= share <= 1.0:
                    self._layer(entry[0], share, step)

    def _on_epoch(self, event: Mapping[str, Any]) -> None:
        before = self.ends.get(self.epoch - 1)
        applied = whole(event.get("applied"))
        if before is not None and applied is not None:
            resumed, self._resumed = self._resumed is not None, None  # then the log has none of its steps yet
            self.step = before + applied if resumed else max(self.step, before + applied)
        self.ends[self.epoch] = self.step
        self.epochs[self.epoch] = event

    def _on_rejection(self, event: Mapping[str, Any]) -> None:
        found = ReportIncident.from_event(event)
        found.step = self._place(event)
        self._count(found)
        self._tell("rejection", f"{WORDS[found.kind]}: {found.reason}", event, found)

    def _on_climb(self, event: Mapping[str, Any]) -> None:
        found = ReportIncident.from_event(event)
        found.step = self._place(event)
        if found.to_step is not None:
            found.to_step += self._offset
        if found.kind != "repair" and found.to_step is not None:
            for curve in self.curves.values():
                curve.cut(found.to_step)
        self._count(found)
        undone = f" ({count(found.lost, 'step')} undone)" if found.lost else ""
        factor = f", learning rate × {short(found.lr_factor)}" if found.lr_factor not in (None, 1.0) else ""
        self._tell("escalation", f"{WORDS[found.kind]}{undone}{factor}: {found.reason}", event, found)

    def _on_incident(self, event: Mapping[str, Any]) -> None:
        found, latest = None, self._latest
        if latest is not None and latest.answer is None and latest.kind == event.get("kind"):
            found = latest
        else:  # its rejection was in a damaged line
            kind = event.get("kind")
            known = kind if isinstance(kind, str) and kind in WORDS else "micro_batch"
            found = ReportIncident(kind=known, epoch=self.epoch, reason="", time=finite(event.get("time")))
            self._count(found)
        if found.kept:
            self._plain -= not found.escalation
            found.looked_into(event)
        else:
            found.looked_into(event)
            self._keep(found)
        self._tell("incident", found.headline, event, found)

    def _on_warning(self, event: Mapping[str, Any]) -> None:
        self.warnings += 1
        self._tell("warning", text(event.get("message") or event.get("what")), event)

    def _on_left_out(self, event: Mapping[str, Any]) -> None:
        path = text(event.get("path"))
        if len(self.left_out) < INCIDENTS:
            self.left_out.append(path)
        self._tell("left out", f"{path} is left out of the rest of the run", event)

    def _on_unreadable(self, event: Mapping[str, Any]) -> None:
        path = text(event.get("path"))
        if len(self.left_out) < INCIDENTS and event.get("split") == "train":
            self.left_out.append(path)
        self._tell("left out", f"{path} {text(event.get('why'))}: it is left out", event)

    def _on_validation_not_finite(self, event: Mapping[str, Any]) -> None:
        names = event.get("names")
        named = ", ".join(text(name, 60) for name in names[:8]) if isinstance(names, list) else ""
        self._tell("validation", f"results that were not finite: {named}", event)

    def _on_checkpoint_kept(self, event: Mapping[str, Any]) -> None:
        names = event.get("culprits")
        named = ", ".join(text(name, 100) for name in names[:4]) if isinstance(names, list) else ""
        self._tell("checkpoint", f"a save was refused, the old checkpoint stays: {named}", event)

    def _on_end(self, event: Mapping[str, Any]) -> None:
        self.end = event
        message = text(str(event.get("message") or "").partition("\n")[0], 1000)
        self._tell("run", f"{text(event.get('status'), 40)}{': ' if message else ''}{message}", event)

    # ---- what they share -------------------------------------------------------------------------------------------------

    def _forget(self, before: int) -> None:
        """Drop the incidents of epochs that a resumed run repeats; the timeline keeps them."""
        for found in [found for found in self.incidents if found.epoch > before]:
            found.kept = False
            self.incidents.remove(found)
        self._plain = sum(not found.escalation and found.answer is None for found in self.incidents)
        for epoch in [epoch for epoch in self.epochs if epoch > before]:
            del self.epochs[epoch]

    def _place(self, event: Mapping[str, Any]) -> int | None:
        """Return an event's step as the page counts it, and cut off steps that are repeated."""
        step = whole(event.get("step"))
        if step is None:
            return None
        last = None
        if self._resumed is not None:
            before, self._resumed = self.ends.get(self._resumed, 0), None
            self._offset = before if step < before else 0
            last = before if self._offset else step - 1
        step += self._offset
        if last is None and step < self.step:  # after a start that is not in the log
            last = step - 1
        if last is not None:
            for curve in self.curves.values():
                curve.cut(last, broken=False)
        self.step = step
        return step

    def _point(self, name: str, step: int, value: float) -> None:
        curve = self.curves.get(name)
        if curve is None:
            if len(self.curves) >= CURVES or len(name) > NAME:
                return
            curve = self.curves[name] = Curve()
        curve.add(step, value)

    def _layer(self, name: str, share: float, step: int) -> None:
        layer = self.layers.get(name)
        if layer is None:
            if len(self.layers) >= LAYERS or len(name) > NAME:
                return
            layer = self.layers[name] = Layer()
        layer.total += share
        layer.lines += 1
        if share > layer.most:
            layer.most, layer.most_step = share, step

    def _count(self, found: ReportIncident) -> None:
        self._numbered += 1
        found.number = self._numbered
        self._latest = found
        self._keep(found)

    def _keep(self, found: ReportIncident) -> None:
        """Keep an incident while there is room; an escalation or an answer replaces the last plain rejection."""
        telling = found.escalation or found.answer is not None
        if len(self.incidents) >= INCIDENTS:
            if not telling or not self._plain:
                return
            plain = next(old for old in reversed(self.incidents) if not old.escalation and old.answer is None)
            plain.kept = False
            self.incidents.remove(plain)
            self._plain -= 1
        self._plain += not telling
        found.kept = True
        self.incidents.append(found)

    def _tell(self, kind: str, words: str, event: Mapping[str, Any], about: ReportIncident | None = None) -> None:
        batch = whole(event.get("batch"))
        where = f"batch {batch}: " if batch is not None and kind == "rejection" else ""
        entry = TimelineEntry(kind, self.epoch, where + words, time=finite(event.get("time")), step=self.step)
        entry.about = about.number if about is not None else 0
        self.timeline.add(entry)


KNOWN = {name.removeprefix("_on_") for name in vars(RunHistory) if name.startswith("_on_")}
