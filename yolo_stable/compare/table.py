"""Table of a comparison, printed and as JSON."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from .._shared.terminal import Column, Sheet
from .._shared.terminal import console as stdout
from .outcome import DONE
from .ranking import Group, Spread, TrialRow, conclusion, groups_of, ranked, title_of

SCHEMA = 1
_NONE = "-"


def print_table(rows: Sequence[TrialRow], notes: Sequence[str], console: Console | None = None) -> None:
    """Print the runs in order, the groups when there are several seeds, the reasons, the notes and the conclusion."""
    console = console or stdout()
    _table(rows).print(console)
    seeds = {row.trial.choice.get("seed") for row in rows}
    if len(seeds) > 1:
        _group_table(groups_of(rows), title_of(rows)).print(console)
    for row in ranked(rows):
        if row.outcome.reason and row.outcome.status != DONE:
            console.print(
                f"{row.trial.name}: {row.outcome.status}: {row.outcome.reason}", markup=False, highlight=False
            )
    for note in notes:
        console.print(note, markup=False, highlight=False)
    console.print(conclusion(rows), markup=False, highlight=False)


def to_json(rows: Sequence[TrialRow], notes: Sequence[str], folder: Path, **more: Any) -> dict[str, Any]:
    """Return the same as plain values, schema 1."""
    return {
        "schema": SCHEMA,
        "folder": str(folder),
        **more,
        "runs": [
            {
                "name": row.trial.name,
                "choice": dict(row.trial.choice),
                "folder": str(row.trial.folder(folder)),
                "log": str(row.trial.log(folder)),
                **dataclasses.asdict(row.outcome),
                **dataclasses.asdict(row.measured),
            }
            for row in ranked(rows)
        ],
        "groups": [
            {
                **{field.name: _plain(getattr(group, field.name)) for field in dataclasses.fields(group)},
                "rows": [row.trial.name for row in group.rows],
            }
            for group in groups_of(rows)
        ],
        "notes": list(notes),
        "conclusion": conclusion(rows),
    }


def _plain(value: Any) -> Any:
    return dataclasses.asdict(value) if isinstance(value, Spread) else value


def _table(rows: Sequence[TrialRow]) -> Sheet:
    score, second = title_of(rows)
    titles = ("final\nloss", score, second, "best\nepoch", "norm\n50 %", "norm\n95 %", "norm\nmax", "rejected",
              "rolled\nback", "s per\nepoch")  # fmt: skip
    sheet = Sheet(Column(title="run", kind="head"), Column(title="status", kind="head"), *map(_figure, titles))
    best = next((row for row in ranked(rows) if row.outcome.status == DONE and row.measured.score), None)
    for row in ranked(rows):
        m = row.measured
        style = "bold green" if row is best else "" if row.outcome.status == DONE else "red"
        again = ", resumed" if (m.starts or 0) > 1 else ""
        sheet.add(
            row.trial.name,
            f"{row.outcome.status}{again}",
            _number(m.loss),
            _number(m.score),
            _number(m.second),
            _number(m.best_epoch),
            _number(m.norm_median, 3),
            _number(m.norm_95, 3),
            _number(m.norm_max, 3),
            _number(m.rejections),
            _number(m.rollbacks),
            _number(m.epoch_seconds, 3),
            style=style,
        )
    return sheet


def _group_table(groups: Sequence[Group], titles: tuple[str, str]) -> Sheet:
    columns = map(_figure, ("done", "final\nloss", *titles, "s per\nepoch"))
    sheet = Sheet(Column(title="runs of", kind="head"), *columns, title="mean over the seeds (from lowest to highest)")
    for group in groups:
        figures = (group.loss, group.score, group.second, group.epoch_seconds)
        sheet.add(group.name, f"{len(group.rows)} of {group.runs}", *map(_spread, figures))
    return sheet


def _figure(title: str) -> Column:
    return Column(title=title, right=True)


def _spread(spread: Spread | None) -> str:
    return _NONE if spread is None else f"{spread.mean:.4g} ({spread.width:.2g})"


def _number(value: float | None, digits: int = 4) -> str:
    return _NONE if value is None else str(value) if isinstance(value, int) else f"{value:.{digits}g}"
