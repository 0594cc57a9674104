"""The verb ``presets``."""

from __future__ import annotations

import sys
from typing import Annotated, Any

import typer
from rich import box
from rich.console import Console
from rich.table import Table

app = typer.Typer(
    invoke_without_command=True, no_args_is_help=False, help="Conservative hyperparameters: list, show, compare."
)


@app.callback()
def presets(context: typer.Context) -> None:
    """List the presets when no other verb is given."""
    if context.invoked_subcommand is None:
        list_presets()


@app.command("list")
def list_presets() -> None:
    """List all presets with what they are for."""
    from ..presets import load_preset, preset_names

    table = _table("preset", "for")
    for name in preset_names():
        table.add_row(name, load_preset(name).purpose)
    _print(table)


@app.command("show")
def show_preset(name: Annotated[str, typer.Argument(metavar="NAME", help="Name or path of a preset.")]) -> None:
    """Show a preset: each value, Ultralytics' default, and the reason for the change."""
    from ..presets import load_preset

    found = load_preset(name)
    console = Console()
    console.print(f"{found.name}: {found.purpose}\n{found.path}", markup=False, highlight=False, soft_wrap=True)
    table = _table("key", "value", "Ultralytics", "why")
    for setting in found.settings:
        table.add_row(setting.key, _text(setting.value), _text(setting.default), setting.reason)
    _print(table)


@app.command("diff")
def diff(
    a: Annotated[str, typer.Argument(metavar="A", help="Name or path of a preset, or 'default'.")],
    b: Annotated[str, typer.Argument(metavar="B", help="Name or path of a preset, or 'default'.")],
) -> None:
    """Show where two presets differ; a key that only one of them sets has Ultralytics' default in the other."""
    from ..presets import diff_presets

    rows = diff_presets(a, b)
    if not rows:
        _print(f"{a} and {b} have the same values.")
        return
    table = _table("key", a, b)
    for key, left, right in rows:
        table.add_row(key, _text(left), _text(right))
    _print(table)


def _table(*columns: str) -> Table:
    table = Table(box=box.SIMPLE_HEAD)
    for column in columns:
        table.add_column(column, overflow="fold")
    return table


def _text(value: Any) -> str:
    return "none" if value is None else str(value)


def _print(what: Table | str) -> None:
    # A pipe or a file is not 80 columns wide because it has no width.
    Console(width=None if sys.stdout.isatty() else 160).print(what, markup=False, highlight=False)
