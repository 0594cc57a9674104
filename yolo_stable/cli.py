"""The command ``yolo-stable``: one function for each verb, and nothing heavy imported before a verb needs it."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer
from rich import box
from rich.console import Console
from rich.table import Table

from . import __version__
from .errors import TrainingInterruptedError, YoloStableError

_UsageError: Any = typer.BadParameter.__base__  # Click's, which newer versions of Typer carry inside

app = typer.Typer(
    name="yolo-stable",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Ultralytics YOLO training that no bad batch can kill.",
    epilog="Exit codes: 0 done, 1 training failed or halted, 2 the call is wrong, 130 interrupted, 143 terminated.",
)
presets_app = typer.Typer(
    invoke_without_command=True, no_args_is_help=False, help="Conservative hyperparameters: list, show, compare."
)
app.add_typer(presets_app, name="presets")


@app.command()
def train(
    data: Annotated[
        str, typer.Argument(metavar="DATA", help="Path of a data.yaml, or 'digits' or 'shapes' (made on first use).")
    ],
    settings: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[key=value ...]",
            help="Any Ultralytics train argument (model=yolo11n.yaml epochs=50 ...) and guard.key=value.",
        ),
    ] = None,
    preset: Annotated[
        str | None,
        typer.Option(
            help="Name or path of a preset; see 'yolo-stable presets'. "
            "Without it: 'stable' for a model that starts from weights, 'guarded' for one that starts from a YAML."
        ),
    ] = None,
    inject: Annotated[
        str | None,
        typer.Option(
            metavar="FAULT@EPOCH.BATCH",
            help="Put a fault in on purpose, to see what happens: nan-pixel@2.10, inf-gradient@1.3x5, nan-layer:model.4@2.1, ...",
        ),
    ] = None,
    traceback: Annotated[
        bool, typer.Option("--traceback", help="Show Python's traceback of an unexpected error.")
    ] = False,
) -> None:
    """Train with the guard on.

    Precedence: Ultralytics' defaults < preset < file given as cfg=FILE < key=value. FILE may be the args.yaml of an earlier
    run: its guard settings and its preset are taken along, its save_dir, exist_ok and resume are not.

    Guard settings, as guard.NAME=VALUE: max_norm (10.0), max_consecutive (20), max_total (5000), snapshot_every (16; none: never
    go back), max_loss_rise (4), collapse (0.1), max_rollbacks (8), save_every_steps (none); all of them are in the README.

    validate=quick looks first whether the device computes rightly; validate=heal also trains under the setting that heals it.

    Example: yolo-stable train data.yaml model=yolo11n.pt epochs=50 guard.max_norm=5.0
    """
    from .inject import parse as parse_faults
    from .train_call import TrainCall, one_line

    try:
        call = TrainCall.parse(data, settings or [], preset)
        if inject is not None:
            parse_faults(inject)
        if call.validate is not None:
            from .train_validation import prepared

            call = prepared(call)  # before torch is imported, which reads environment variables only then
        from .train_run import run  # torch and ultralytics: only now that the words are known to be right

        run(call, inject=inject)
    except TrainingInterruptedError:  # says what was saved; also when it comes from Ctrl-C
        raise
    except Exception as error:
        if _comes_from_ctrl_c(error):
            raise KeyboardInterrupt from error
        if traceback or isinstance(error, YoloStableError):
            raise
        raise YoloStableError(
            f"Training failed: {type(error).__name__}: {one_line(error)} (--traceback shows where)"
        ) from error


@app.command()
def autopsy(
    incident: Annotated[Path, typer.Argument(metavar="INCIDENT", help="Folder of an incident: RUN/incidents/0001.")],
    json_file: Annotated[
        Path | None, typer.Option("--json", metavar="FILE", help="Write the answer as JSON, schema 1, as well.")
    ] = None,
    frames: Annotated[
        int,
        typer.Option(min=0, max=1000, metavar="N", help="Show the last N modules before the break, with their ranges."),
    ] = 0,
    debug: Annotated[
        bool, typer.Option("--pdb", help="Stop in Python's debugger at the operation that broke.")
    ] = False,
    device: Annotated[
        str, typer.Option(help="Replay on this device, as torch names it: cpu, cuda:0, mps, xpu.")
    ] = "cpu",
    seconds: Annotated[
        float | None, typer.Option(min=0.0, help="Replay nothing more after so many seconds. Without it: no limit.")
    ] = None,
) -> None:
    """Replay a bad batch from its bundle, and name the operation, the image and the cause.

    A bundle holds no pickle, and opening it executes nothing: it may come from a stranger.

    Example: yolo-stable autopsy runs/detect/train/incidents/0001 --frames 5
    """
    from .autopsy_run import run

    print(run(incident, json_file=json_file, frames=frames, debug=debug, device=device, seconds=seconds))


@app.command()
def check(
    data: Annotated[
        str, typer.Argument(metavar="DATA", help="Path of a data.yaml or of a folder, or 'digits' or 'shapes'.")
    ],
    task: Annotated[
        str | None, typer.Option(help="detect, segment, pose, obb or classify. Without it: told by the data.")
    ] = None,
    split: Annotated[
        str | None, typer.Option(help="train, val, test, or several with commas. Without it: all.")
    ] = None,
    json_file: Annotated[
        Path | None, typer.Option("--json", metavar="FILE", help="Write all findings as JSON, schema 1.")
    ] = None,
    html: Annotated[Path | None, typer.Option(metavar="FILE", help="Write a page with thumbnails.")] = None,
    fix: Annotated[
        Path | None,
        typer.Option(
            metavar="FOLDER", help="Write a cleaned copy; must be empty or not be there, and lie outside the data."
        ),
    ] = None,
    near: Annotated[bool, typer.Option(help="Decode every image and look for near duplicates.")] = True,
    sample: Annotated[
        int, typer.Option(min=0, metavar="N", help="Images drawn through the conservative augmentation; 0: none.")
    ] = 32,
    imgsz: Annotated[int, typer.Option(min=1, help="Boxes below one pixel at this size are reported.")] = 640,
    workers: Annotated[int | None, typer.Option(min=1, help="Threads. Without it: one for each core.")] = None,
    progress: Annotated[bool, typer.Option(help="Show a progress bar.")] = True,
) -> None:
    """Look through a data set before training: files, labels, duplicates, balance. Changes nothing.

    Exit codes: 0 clean or warnings, 1 errors, 2 the call is wrong.

    Example: yolo-stable check data.yaml --html findings.html
    """
    from .dataset import run_check

    options = {"task": task, "split": split, "near": near, "sample": sample, "imgsz": imgsz, "workers": workers}
    code = run_check(data, **options, json=json_file, html=html, fix=fix, progress=progress)
    raise typer.Exit(code)


@app.command()
def validate(
    files: Annotated[
        list[Path] | None, typer.Argument(metavar="[FILE ...]", help="With --compare: results that --json has written.")
    ] = None,
    device: Annotated[
        str | None,
        typer.Option(
            metavar="D", help="cuda, cuda:1, rocm, mps, xpu, cpu or a number. Without it: the best that is there."
        ),
    ] = None,
    quick: Annotated[bool, typer.Option("--quick", help="A minute: the shapes and layouts that matter most.")] = False,
    full: Annotated[bool, typer.Option("--full", help="The very large shapes as well.")] = False,
    seed: Annotated[int | None, typer.Option(metavar="N", help="Other inputs (0).")] = None,
    json: Annotated[Path | None, typer.Option(metavar="F", help="Write all numbers to this file.")] = None,
    html: Annotated[Path | None, typer.Option(metavar="F", help="Write a page to this file.")] = None,
    inject: Annotated[
        str | None, typer.Option(metavar="FAULT", help="Put in a fault, to see the validator find it.")
    ] = None,
    stress: Annotated[
        float | None, typer.Option(metavar="MINUTES", help="Repeat so long, and watch for bits that change.")
    ] = None,
    recompute_reference: Annotated[
        bool, typer.Option("--recompute-reference", help="Compute the reference of trainings here; takes minutes.")
    ] = False,
    no_heal: Annotated[
        bool, typer.Option("--no-heal", help="Do not look for a setting under which failures pass.")
    ] = False,
    compare: Annotated[
        bool, typer.Option("--compare", help="Hold results of other machines against the first.")
    ] = False,
) -> None:
    """Check whether a device computes a YOLO training step rightly, operation by operation, against float64 on the CPU.

    Exit codes: 0 pass, warnings included; 1 fail; 2 the call is wrong or the device is not there. With --compare: 0 no worse than
    the first, 1 worse, 3 not comparable.

    Examples: yolo-stable validate --device cuda:0 --json a.json --html a.html

    yolo-stable validate --compare a.json b.json
    """
    from .validate_run import ValidateCall, run

    call = ValidateCall(
        device=device, quick=quick, full=full, seed=seed, inject=inject, stress=stress, heal=not no_heal, json=json,
        html=html, recompute_reference=recompute_reference, compare=compare, files=tuple(files or ()),
    )  # fmt: skip
    code = run(call)
    if code:
        raise typer.Exit(code)


def _comes_from_ctrl_c(error: BaseException | None) -> bool:
    """Say whether an error is but the consequence of Ctrl-C, such as an import that fails because another was interrupted."""
    while error is not None and not isinstance(error, KeyboardInterrupt):
        error = error.__cause__ or error.__context__
    return error is not None


@presets_app.callback()
def presets(context: typer.Context) -> None:
    """List the presets when no other verb is given."""
    if context.invoked_subcommand is None:
        list_presets()


@presets_app.command("list")
def list_presets() -> None:
    """List all presets with what they are for."""
    from .presets import load_preset, preset_names

    table = _table("preset", "for")
    for name in preset_names():
        table.add_row(name, load_preset(name).purpose)
    _print(table)


@presets_app.command("show")
def show_preset(name: Annotated[str, typer.Argument(metavar="NAME", help="Name or path of a preset.")]) -> None:
    """Show a preset: each value, Ultralytics' default, and the reason for the change."""
    from .presets import load_preset

    found = load_preset(name)
    console = Console()
    console.print(f"{found.name}: {found.purpose}\n{found.path}", markup=False, highlight=False, soft_wrap=True)
    table = _table("key", "value", "Ultralytics", "why")
    for setting in found.settings:
        table.add_row(setting.key, _text(setting.value), _text(setting.default), setting.reason)
    _print(table)


@presets_app.command("diff")
def diff(
    a: Annotated[str, typer.Argument(metavar="A", help="Name or path of a preset, or 'default'.")],
    b: Annotated[str, typer.Argument(metavar="B", help="Name or path of a preset, or 'default'.")],
) -> None:
    """Show where two presets differ; a key that only one of them sets has Ultralytics' default in the other."""
    from .presets import diff_presets

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


def main() -> None:
    """Run the command; what goes wrong is one line on stderr and an exit code."""
    try:
        code = app(prog_name=app.info.name, standalone_mode=False)
    except YoloStableError as error:
        _end(str(error), error.exit_code)
    except _UsageError as error:
        text = error.format_message().strip()
        command = error.ctx.command_path if error.ctx else app.info.name
        # Without a verb Typer has already printed the help, and there is nothing left to say.
        _end(f"{text}{'' if text[-1] in '.?' else '.'} See '{command} --help'." if text else "", error.exit_code)
    if code == 130:  # Typer's answer to Ctrl-C
        _end("interrupted.", code)
    sys.exit(code or 0)


def _end(text: str, code: int) -> NoReturn:
    if text:
        print(f"yolo-stable: {' '.join(map(str.strip, text.splitlines()))}", file=sys.stderr)
    sys.exit(code)
