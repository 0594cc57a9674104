"""Verb ``presets``: lists, shows and compares presets."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from .._shared.terminal import Column, Sheet, console

app = typer.Typer(
    invoke_without_command=True,
    no_args_is_help=False,
    help="Hyperparameters for --preset: list, show, compare.",
)


@app.callback()
def presets(context: typer.Context) -> None:
    """List the presets when no other verb is given."""
    if context.invoked_subcommand is None:
        list_presets()


@app.command("list")
def list_presets() -> None:
    """List all presets and what each is for."""
    from ..presets.presets import load_preset, preset_names

    sheet = Sheet(Column(title="preset", kind="head"), Column(title="for", kind="text"))
    for name in preset_names():
        sheet.add(name, load_preset(name).purpose)
    sheet.print(console())


@app.command("show")
def show_preset(name: Annotated[str, typer.Argument(metavar="NAME", help="Name or path of a preset.")]) -> None:
    """Show a preset: each value, Ultralytics' default, and the reason for the change."""
    from ..presets.presets import load_preset

    found = load_preset(name)
    console().print(f"{found.name}: {found.purpose}\n{found.path}", soft_wrap=True)
    figures = (Column(title="value"), Column(title="Ultralytics"))
    sheet = Sheet(Column(title="key", kind="head"), *figures, Column(title="why", kind="text"))
    for setting in found.settings:
        sheet.add(setting.key, _text(setting.value), _text(setting.default), setting.reason)
    sheet.print(console())


@app.command("diff")
def diff(
    a: Annotated[str, typer.Argument(metavar="A", help="Name or path of a preset, or 'default'.")],
    b: Annotated[str, typer.Argument(metavar="B", help="Name or path of a preset, or 'default'.")],
) -> None:
    """Show where two presets differ; a key that one of them leaves out has Ultralytics' default there."""
    from ..presets.presets import diff_presets

    rows = diff_presets(a, b)
    if not rows:
        console().print(f"{a} and {b} have the same values.", soft_wrap=True)
        return
    sheet = Sheet(Column(title="key", kind="head"), Column(title=a), Column(title=b))
    for key, left, right in rows:
        sheet.add(key, _text(left), _text(right))
    sheet.print(console())


def _text(value: Any) -> str:
    return "none" if value is None else str(value)
