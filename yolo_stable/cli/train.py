"""Verb ``train``: trains with the guard on."""

from __future__ import annotations

from typing import Annotated

import typer

from ..errors import TrainingInterruptedError, YoloStableError
from .options import Imports, TrainData


def train(
    data: TrainData,
    settings: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[key=value ...]",
            help="Any Ultralytics train argument (model=yolo26n.pt epochs=50 ...) and guard.key=value. "
            "Without model=: Ultralytics' default of the task.",
        ),
    ] = None,
    preset: Annotated[
        str | None,
        typer.Option(
            help="Name or path of a preset, see 'yolo-stable presets'; 'auto': the model chooses. "
            "Default: none, so that no setting of Ultralytics changes."
        ),
    ] = None,
    inject: Annotated[
        list[str] | None,
        typer.Option(
            metavar="FAULT@EPOCH.BATCH",
            help="Inject a fault, to see what happens: nan-pixel@2.10, inf-gradient@1.3x5, nan-layer:model.4@2.1, ... "
            "Separate several with commas, or repeat the option.",
        ),
    ] = None,
    imports: Imports = None,
    traceback: Annotated[
        bool, typer.Option("--traceback", help="Show Python's traceback of an unexpected error.")
    ] = False,
) -> None:
    """Train with the guard on. Nothing else changes: without --preset all settings are Ultralytics' own.

    After trouble, --preset stable trains with small steps; 'yolo-stable presets' lists the others.

    Later settings win: Ultralytics' defaults, the preset, the file of cfg=FILE, key=value. FILE may be the args.yaml of an
    earlier run, whose guard settings and preset then apply, but not its save_dir, exist_ok and resume.

    Guard settings, as guard.NAME=VALUE: max_norm (10.0), max_consecutive (20), max_share (0.5), snapshot_every (16; none: no
    rollback), max_loss_rise (4), collapse (0.1), max_rollbacks (8), save_every_steps (none). docs/reference/settings.md has all.

    validate=quick checks the device before training; validate=heal also trains under a setting that heals it.

    Example: yolo-stable train data.yaml model=yolo26n.pt epochs=50 guard.max_norm=5.0
    """
    from .._shared.held_messages import held
    from .._shared.text import one_line
    from ..train.call import TrainCall
    from ..train.inject import parse as parse_faults

    try:
        call = TrainCall.parse(data, settings or [], preset, imports)
        faults = ",".join(inject) if inject else None
        if faults is not None:
            parse_faults(faults)
        if call.validate is not None:
            from ..train.device_gate import prepared

            call = prepared(call)  # before torch is imported, which reads environment variables once
        with held("ultralytics"):
            from ..train.run import run  # imports torch and ultralytics: only now that the words are right

        run(call, inject=faults)
    except TrainingInterruptedError:  # says what was saved, also after Ctrl-C
        raise
    except Exception as error:
        if _comes_from_ctrl_c(error):
            raise KeyboardInterrupt from error
        if traceback or isinstance(error, YoloStableError):
            raise
        raise YoloStableError(
            f"Training failed: {type(error).__name__}: {one_line(error)} (--traceback shows where)"
        ) from error


def _comes_from_ctrl_c(error: BaseException | None) -> bool:
    """Say whether Ctrl-C caused an error, such as an import that fails because another was interrupted."""
    while error is not None and not isinstance(error, KeyboardInterrupt):
        error = error.__cause__ or error.__context__
    return error is not None
