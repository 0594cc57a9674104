"""Command ``yolo-stable``: its verbs, and how it ends."""

from __future__ import annotations

import inspect
import shlex
import sys
from typing import Annotated, Any, NoReturn

import typer

from .. import __version__
from .._shared.output import occupy_standard_descriptors, surviving
from .._shared.shell_text import beneath
from ..errors import YoloStableError
from .autopsy import autopsy
from .check import check
from .compare import compare
from .preflight import preflight
from .presets import app as presets
from .report import report
from .train import train
from .validate import validate
from .yolo import yolo

OF_ULTRALYTICS = (
    *("detect", "segment", "semantic", "depth", "classify", "pose", "obb"),
    *("val", "predict", "export", "track", "benchmark"),
    *("checks", "settings", "cfg", "copy-cfg", "solutions"),
)
"""Words that follow ``yolo`` and are no verbs here."""
OPEN = (train, yolo, preflight, compare)
"""Verbs whose other options are settings, such as ``--epochs 3``."""
_UsageError: Any = typer.BadParameter.__base__  # Click's, which newer versions of Typer carry inside

app = typer.Typer(
    name="yolo-stable",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Ultralytics YOLO training that no bad batch can kill.",
    epilog="Exit codes: 0 done, 1 training failed or halted, 2 wrong call, 130 interrupted, 143 terminated.",
)
for verb in (train, yolo, check, preflight, validate, autopsy, report, compare):
    # Each paragraph is one line: the terminal wraps it, however wide it is.
    paragraphs = inspect.cleandoc(verb.__doc__ or "").split("\n\n")
    app.command(
        help="\n\n".join(" ".join(paragraph.split()) for paragraph in paragraphs),
        context_settings={"ignore_unknown_options": verb in OPEN},
    )(verb)
app.add_typer(presets, name="presets")


def _version(show: bool) -> None:
    if show:
        print(f"yolo-stable {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    """Ultralytics YOLO training that no bad batch can kill."""


@surviving()
def main() -> None:
    """Run the command; an error becomes one line on stderr and an exit code.

    When nobody reads the output, as behind ``| head``, the work goes on, and its exit code counts.
    """
    occupy_standard_descriptors()
    try:
        code = app(prog_name=app.info.name, standalone_mode=False)
    except YoloStableError as error:
        _end(str(error), error.exit_code)
    except _UsageError as error:
        if hint := _hint(sys.argv[1:]):
            _end(hint, error.exit_code)
        text = error.format_message().strip()
        command = error.ctx.command_path if error.ctx else app.info.name
        # Without a verb Typer has already printed the help: there is no text.
        _end(f"{text}{'' if text[-1] in '.?' else '.'} See '{command} --help'." if text else "", error.exit_code)
    if code == 130:  # Typer's answer to Ctrl-C
        _end("interrupted.", code)
    sys.exit(code or 0)


def _hint(words: list[str]) -> str:
    """Return where a command of Ultralytics is to be typed, if that is what the words are."""
    if words[:1] == ["tune"]:
        return "Ultralytics tunes in Python alone: from yolo_stable import YOLO, then YOLO('yolo26n.pt').tune(data='data.yaml')."
    if not words or words[0] not in OF_ULTRALYTICS:
        return ""
    typed = f"yolo-stable yolo {shlex.join(words)}"
    return f"{words[0]!r} is a command of Ultralytics. With the guard in every training it is:\n{typed}"


def _end(text: str, code: int) -> NoReturn:
    if text:
        print(f"yolo-stable: {beneath(text)}", file=sys.stderr)
    sys.exit(code)
