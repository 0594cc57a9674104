"""Run: read from its folder, guarded or stock, finished or cut off anywhere."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from .._shared.numbers import count, finite, text, text_of_lines, whole
from ..errors import InvalidCallError
from ..runlog.events import SCHEMA
from ..runlog.reader import LogDamage, read_events
from ..runlog.results_csv import Results, read_results
from .history import RunHistory
from .incident import ReportIncident

LARGEST = 1 << 24
"""Most bytes of an ``args.yaml`` or ``summary.json``."""


@dataclass(kw_only=True)
class Run:
    """All that a page needs to know of a run."""

    folder: Path
    name: str
    settings: dict[str, Any] = field(default_factory=dict)
    """Ultralytics' arguments."""
    guard: dict[str, Any] = field(default_factory=dict)
    """Settings of the guard; empty without one."""
    preset: str = ""
    history: RunHistory = field(default_factory=RunHistory)
    """The events, reduced."""
    results: Results = field(default_factory=Results)
    summary: dict[str, Any] = field(default_factory=dict)
    unknown: str = ""
    """Why the run cannot be judged: its log has an unknown form; empty if it can."""
    notices: list[str] = field(default_factory=list)
    """Missing or damaged parts, a sentence each."""

    @property
    def guarded(self) -> bool:
        """Whether a guard has kept a log."""
        return self.history.events > 0

    @property
    def incidents(self) -> list[ReportIncident]:
        """The incidents that the page lists."""
        return self.history.incidents

    @property
    def status(self) -> str:
        """``done``, ``halted``, ``interrupted`` or ``failed``; ``unfinished`` when the log has no end; ``stock``; ``unknown``."""
        if self.unknown:
            return "unknown"
        if not self.guarded:
            return "stock" if self.results.known else "unknown"
        if self.history.end is None:
            return "unfinished"
        status = self.history.end.get("status")
        return status if status in ("done", "halted", "interrupted", "failed") else "unknown"

    @property
    def message(self) -> str:
        """Why the run ended, in the words of the log."""
        return text_of_lines((self.history.end or {}).get("message"), 2000)

    @property
    def epochs_planned(self) -> int:
        """Epochs asked for; 0: unknown."""
        return whole(self.settings.get("epochs")) or 0

    @property
    def epochs_done(self) -> int:
        """Epochs finished."""
        return max(self.results.done, max(self.history.epochs, default=0))

    @property
    def counts(self) -> Mapping[str, Any]:
        """The guard's counts at the end; empty without an end."""
        counts = (self.history.end or {}).get("counts")
        return counts if isinstance(counts, Mapping) else {}

    @property
    def best(self) -> tuple[float, int] | None:
        """The best value of the run's measure, and its epoch."""
        values = [(v, -e) for e, v in self.results.column(self.results.measure) if finite(v) is not None]
        return (max(values)[0], -max(values)[1]) if values else None

    @property
    def environment(self) -> dict[str, str]:
        """Versions, device and precision of the last start."""
        if not self.history.starts:
            device = self.settings.get("device")
            return {} if device in (None, "") else {"device (as asked for)": text(device)}
        start = self.history.starts[-1]
        found = {name: text(start.get(name), 200) for name in ("device", "precision", "optimizer") if start.get(name)}
        versions = start.get("versions")
        if isinstance(versions, Mapping):
            found.update({text(name, 60): text(version, 100) for name, version in list(versions.items())[:50]})
        return found


def read_run(folder: Path) -> Run:
    """Read a run's folder; a missing or damaged part becomes a notice.

    Args:
        folder: Has a ``results.csv`` or a ``guard.jsonl``; perhaps also ``args.yaml``, ``summary.json`` and ``incidents/``.

    Raises:
        InvalidCallError: There is no such folder, or no run in it.
    """
    folder = Path(folder)
    log, table = folder / "guard.jsonl", folder / "results.csv"
    if not folder.is_dir():
        known = f" It is a file: give its folder, {folder.parent}." if folder.is_file() else ""
        raise InvalidCallError(
            f"report: there is no folder {folder}.{known or ' Give the folder of a run, such as runs/detect/train.'}"
        )
    if not log.is_file() and not table.is_file():
        raise InvalidCallError(
            f"report: {folder} is no folder of a run: it has neither results.csv nor guard.jsonl.{_runs_inside(folder)}"
        )
    run = Run(folder=folder, name=text(folder.resolve().name, 80) or "run")
    if log.is_file():
        damage = LogDamage()
        try:
            for event in read_events(log, damage):
                run.history.add(event)
        except OSError as error:
            run.notices.append(f"guard.jsonl cannot be read: {error.strerror or error}.")
        else:
            run.notices += damage.notices("guard.jsonl")
            if damage.unknown:
                run.unknown = f"guard.jsonl has lines of schema {damage.schema}, which is not known here"
    else:
        run.notices.append(
            "There is no guard.jsonl: this run was trained without the guard, and is shown from results.csv."
        )
    if table.is_file():
        try:
            run.results = read_results(table)
        except OSError as error:
            run.notices.append(f"results.csv cannot be read: {error.strerror or error}.")
        run.notices += run.results.notices
    else:
        run.notices.append("There is no results.csv: mAP and the losses of the validation are not known.")
    _read_settings(run)
    injected = run.settings.pop("injected", None)
    if isinstance(injected, list) and injected:
        names = ", ".join(text(name, 100) for name in injected[:20])
        run.notices.insert(0, f"Faults were put into this run on purpose: {names}.")
    if run.guarded:
        _read_summary(run)
    if len(run.incidents) < run.history.tally.incidents:
        more = run.history.tally.incidents - len(run.incidents)
        run.notices.append(f"{count(more, 'incident is', 'incidents are')} not listed one by one, only counted.")
    return run


def _read_settings(run: Run) -> None:
    try:
        settings = yaml.load(_read(run.folder / "args.yaml"), getattr(yaml, "CSafeLoader", yaml.SafeLoader))
        if not isinstance(settings, dict):
            raise ValueError("it holds no settings")
    except FileNotFoundError:
        run.notices.append("There is no args.yaml: the settings of the run are not known.")
        settings = {}
    except (OSError, ValueError, yaml.YAMLError, RecursionError) as error:
        run.notices.append(f"args.yaml cannot be read: {text(' '.join(str(error).split()), 200)}.")
        settings = {}
    guard, preset = settings.pop("guard", None), settings.pop("preset", None)
    start = run.history.starts[-1] if run.history.starts else {}
    guard, preset = guard or start.get("guard"), preset or start.get("preset")
    run.settings = {text(key, 80): value for key, value in settings.items()}
    run.guard = {text(key, 80): value for key, value in guard.items()} if isinstance(guard, Mapping) else {}
    run.preset = text(preset, 200)


def _read_summary(run: Run) -> None:
    try:
        summary = json.loads(_read(run.folder / "summary.json"))
        schema = summary.get("schema", SCHEMA) if isinstance(summary, dict) else None
        if type(schema) is not int or not 1 <= schema <= SCHEMA:
            run.notices.append(
                f"summary.json is of schema {text(schema, 40)}, which is not known here: it is left out."
            )
            return
        run.summary = summary
    except FileNotFoundError:
        return  # a run that is still going on has none
    except (OSError, ValueError, RecursionError) as error:
        run.notices.append(f"summary.json cannot be read: {text(' '.join(str(error).split()), 200)}.")


def _read(path: Path) -> str:
    with open(path, "rb") as file:
        content = file.read(LARGEST + 1)
    if len(content) > LARGEST:
        raise ValueError("it is far too large")
    return content.decode("utf-8", errors="replace")


def _runs_inside(folder: Path) -> str:
    """Return a hint for the folder of all runs, given instead of one of them."""
    inside = sorted(path.parent.name for name in ("results.csv", "guard.jsonl") for path in folder.glob(f"*/{name}"))
    if not inside:
        return " Give the folder of a run, such as runs/detect/train."
    names = list(dict.fromkeys(inside))
    return f" Runs are in it: {', '.join(names[:5])}{', ...' if len(names) > 5 else ''}."
