"""Generator of the reference pages: they say what the code says, and stand in the repository for those who read them there.

    python docs/generate.py

writes settings, command line, rules and presets into ``docs/reference/``. ``make docs`` does it first, and
``tests/test_docs.py`` holds that the pages are those of the code.
"""

from __future__ import annotations

import ast
import dataclasses
import inspect
import itertools
import re
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parent / "reference"
HINT = "\n<!-- Written by docs/generate.py: change the code, then `make docs`. -->\n"


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    r"""Return a table in Markdown.

    Examples:
        >>> table(["a", "b"], [["1", "x|y"]])
        '| a | b |\n|---|---|\n| 1 | x\\|y |\n'
    """
    lines = ["| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in (head, *rows)]
    return "\n".join([lines[0], "|" + "---|" * len(head), *lines[1:]]) + "\n"


def prose(text: str) -> str:
    r"""Return a docstring's text as one line of Markdown.

    Examples:
        >>> prose(":class:`~a.B` has\n    ``x``.")
        '`B` has `x`.'
    """
    one_line = " ".join(text.split())
    return re.sub(r":\w+:`~?(?:[\w.]*\.)?(\w+)`", r"`\1`", one_line.replace("``", "`"))


# ---- settings --------------------------------------------------------------------------------------------------------------


def field_docs(of: type) -> dict[str, str]:
    """Return the docstrings under the fields of a class."""
    (body,) = (node.body for node in ast.parse(inspect.getsource(of)).body if isinstance(node, ast.ClassDef))
    found = {}
    for field, text in itertools.pairwise(body):
        if isinstance(field, ast.AnnAssign) and isinstance(text, ast.Expr) and isinstance(text.value, ast.Constant):
            found[ast.unparse(field.target)] = prose(str(text.value.value))
    return found


def number(value: Any) -> str:
    """Return a default as one types it on the command line.

    Examples:
        >>> number(2.0**-14), number(None), number(1e12), number("auto")
        ('2^-14', 'none', '1e12', 'auto')
    """
    if value is None:
        return "none"
    if value == 2.0**-14:
        return "2^-14"
    return f"{value:g}".replace("e+", "e") if isinstance(value, float) and value >= 1e6 else str(value)


def settings() -> str:
    """Return the page of all settings."""
    from yolo_stable.guard import GuardConfig
    from yolo_stable.presets.guard_settings import GUARD_DEFAULTS, TrainerConfig

    guard, trainer = field_docs(GuardConfig), field_docs(TrainerConfig)
    of_guard = [
        [f"`guard.{f.name}`", number(GUARD_DEFAULTS.get(f.name, f.default)), number(f.default), guard[f.name]]
        for f in dataclasses.fields(GuardConfig)
    ]
    of_trainer = [[f"`guard.{f.name}`", number(f.default), trainer[f.name]] for f in dataclasses.fields(TrainerConfig)]
    return (
        "# Guard settings\n\n"
        "On the command line a setting is `guard.NAME=VALUE`, with `none` for off; in Python it is a key of `guard={...}`,\n"
        "with `None`. They are kept in the run's `args.yaml`.\n\n"
        "```bash\nyolo-stable train data.yaml guard.max_norm=5.0 guard.max_share=none\n```\n\n"
        "## The guard\n\nThese are also the arguments of `StepGuard`, in [any loop](../how-to/any-loop.md).\n\n"
        + table(("setting", "default", "`StepGuard` alone", "meaning"), of_guard)
        + "\n## The trainer\n\n"
        + table(("setting", "default", "meaning"), of_trainer)
    )


# ---- command line ----------------------------------------------------------------------------------------------------------


def option_row(parameter: Any) -> list[str]:
    """Return an argument's or option's names and its help."""
    names = [*parameter.opts, *parameter.secondary_opts]
    if parameter.param_type_name == "argument":
        names = [str(parameter.metavar or parameter.name)]
    elif parameter.metavar:
        names[0] += f" {parameter.metavar}"
    text = prose(parameter.help or "")
    default = parameter.default
    shown = isinstance(default, (int, float, str)) and not isinstance(default, bool) and "efault" not in text
    return [", ".join(f"`{name}`" for name in names), text + (f" Default: {default}." if shown else "")]


def commands() -> Iterable[tuple[str, Any]]:
    """Return all commands with their words, such as ``presets show``."""
    import typer

    from yolo_stable.cli.main import app

    def walk(words: list[str], command: Any) -> Iterable[tuple[str, Any]]:
        if words:
            yield " ".join(words), command
        for name, inner in getattr(command, "commands", {}).items():
            yield from walk([*words, name], inner)

    return walk([], typer.main.get_command(app))


def cli() -> str:
    """Return the page of the command line."""
    parts = [
        "# Command line\n\n"
        "`yolo-stable VERB --help` prints the same. A wrong call prints one line and exits with code 2 before anything\n"
        "is written; [Exit codes](exit-codes.md) has the others.\n"
    ]
    for words, command in commands():
        level = "##" if " " not in words else "###"
        parameters = [option_row(p) for p in command.params if p.name != "help"]
        usage = [str(p.metavar or p.name) for p in command.params if p.param_type_name == "argument"]
        paragraphs = (paragraph(text) for text in (command.help or "").split("\n\n"))
        parts.append(f"{level} {words}\n\n" + "\n\n".join(paragraphs) + "\n")
        line = " ".join(["yolo-stable", words, *usage, "[OPTION ...]" if len(parameters) > len(usage) else ""])
        parts.append(f"```text\n{line.strip()}\n```\n")
        if parameters:
            parts.append(table(("argument, option", "meaning"), parameters))
    return "\n".join(parts)


def paragraph(text: str) -> str:
    r"""Return a paragraph of a help text; an example becomes a block.

    Examples:
        >>> paragraph("Example: yolo-stable check data.yaml")
        '```bash\nyolo-stable check data.yaml\n```'
    """
    example = re.fullmatch(r"(?:Examples?: )?(yolo-stable .+)", text.strip())
    return f"```bash\n{example[1]}\n```" if example else prose(text)


# ---- rules -----------------------------------------------------------------------------------------------------------------


def rules() -> str:
    """Return the page of the rules of ``check``, in the groups of their file."""
    import yaml

    text = (Path(__file__).parents[1] / "yolo_stable" / "check" / "rules.yaml").read_text(encoding="utf-8")
    groups = re.split(r"^# ---- (.+)$", text, flags=re.MULTILINE)[1:]
    parts = [
        "# Rules of check\n\n"
        "[Check and fix a data set](../how-to/check.md) uses them. A finding may be milder or more severe than its rule. A\n"
        "limit is the number from which a rule speaks: `--limit RULE=NUMBER` moves it.\n"
    ]
    for title, entries in zip(groups[::2], groups[1::2], strict=True):
        rows = []
        for name, rule in yaml.safe_load(entries).items():
            limit = f"{rule['limit']} ({rule['unit']})" if "limit" in rule else ""
            rows.append([f"`{name}`", rule["severity"], prose(rule["why"]), prose(rule["fix"]), limit])
        parts.append(f"## {title if '.' in title else title.capitalize()}\n")
        parts.append(table(("rule", "severity", "why it matters", "fix", "limit"), rows))
    return "\n".join(parts)


# ---- presets ---------------------------------------------------------------------------------------------------------------


def presets() -> str:
    """Return the page of the presets."""
    from yolo_stable.presets.presets import load_preset, preset_names

    parts = [
        "# Presets\n\n[Set a preset](../how-to/presets.md) says when. An empty cell: Ultralytics has no value of its own.\n"
    ]
    for name in preset_names():
        preset = load_preset(name)
        rows = [
            [f"`{setting.key}`", plain(setting.value), plain(setting.default), setting.reason]
            for setting in preset.settings
        ]
        parts.append(f"## {name}\n\n{preset.purpose} {' '.join(preset.notes)}".rstrip() + "\n")
        parts.append(table(("key", "value", "Ultralytics", "why"), rows))
    return "\n".join(parts)


def plain(value: Any) -> str:
    """Return a value of a preset as text; nothing for None."""
    return "" if value is None else str(value)


PAGES: dict[str, Callable[[], str]] = {
    "settings.md": settings,
    "cli.md": cli,
    "rules.md": rules,
    "presets.md": presets,
}


def main() -> None:
    """Write all pages."""
    for name, page in PAGES.items():
        (FOLDER / name).write_text(page() + HINT, encoding="utf-8")


if __name__ == "__main__":
    main()
