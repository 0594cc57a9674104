"""Settings tables: a run against Ultralytics' defaults, and runs against each other."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from .._shared.numbers import text
from ..errors import InvalidCallError
from ..presets.ultralytics_settings import default_hyp
from .run import Run

OURS = frozenset({"save_dir", "name", "project", "mode", "exist_ok"})
"""Settings that say where a run lies; they differ for every run."""


def changed(run: Run) -> tuple[list[tuple[str, str, str]], int]:
    """Return the settings that differ from Ultralytics' defaults, as name, value, default; and how many do not.

    Raises:
        InvalidCallError: Ultralytics is not installed: its defaults are unknown.
    """
    defaults = default_hyp()
    rows = [
        (key, shown(value), shown(defaults[key]) if key in defaults else "(not a setting of this version)")
        for key, value in run.settings.items()
        if key not in OURS and (key not in defaults or not same(value, defaults[key]))
    ]
    known = [key for key in run.settings if key in defaults and key not in OURS]
    return rows, len(known) - sum(row[0] in known for row in rows)


def differing(runs: Sequence[Run]) -> list[tuple[str, list[str]]]:
    """Return the settings in which runs differ, the guard's included: name, and a value for each run."""
    all_of = [{"preset": run.preset, **run.settings, **{f"guard.{k}": v for k, v in run.guard.items()}} for run in runs]
    names = dict.fromkeys(name for settings in all_of for name in settings if name not in OURS)
    rows = []
    for name in names:
        values = [settings.get(name, _MISSING) for settings in all_of]
        if any(not same(value, values[0]) for value in values):
            rows.append((name, ["" if value is _MISSING else shown(value) for value in values]))
    return rows


def defaults_problem() -> str:
    """Return why the defaults are unknown; empty when they are known."""
    try:
        default_hyp()
    except InvalidCallError as error:
        return str(error)
    return ""


def same(a: Any, b: Any) -> bool:
    """Return whether two values of a setting mean the same.

    Examples:
        >>> same(1, 1.0), same(True, 1), same("a", "a"), same(None, "")
        (True, False, True, False)
    """
    if isinstance(a, bool) or isinstance(b, bool):
        return a is b
    if isinstance(a, (int, float)) and isinstance(b, (int, float)):
        return a == b
    return type(a) is type(b) and (a == b if isinstance(a, str) or a is None else shown(a) == shown(b))


def shown(value: Any) -> str:
    """Return a value as on the command line.

    Examples:
        >>> shown(None), shown(0.01), shown("x.yaml"), shown([1, 2])
        ('none', '0.01', 'x.yaml', '[1, 2]')
    """
    return "none" if value is None else text(value, 200)


_MISSING = object()
