"""The verb ``preflight``."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated

import typer

from .options import Imports


def preflight(
    data: Annotated[
        str, typer.Argument(metavar="DATA", help="Path of a data.yaml, or 'digits' or 'shapes' (made on first use).")
    ],
    settings: Annotated[
        list[str] | None,
        typer.Argument(metavar="[key=value ...]", help="As for train: the arguments of the training to come."),
    ] = None,
    preset: Annotated[str | None, typer.Option(help="As for train.")] = None,
    precision: Annotated[
        str | None,
        typer.Option(
            metavar="P,P",
            help="Compare these with float32 as well: float32, bfloat16, float16. Without it: the training's.",
        ),
    ] = None,
    lr_range: Annotated[
        bool, typer.Option("--lr-range/--no-lr-range", help="Look for the learning rate at which the loss diverges.")
    ] = True,
    seconds: Annotated[
        float, typer.Option(min=1.0, metavar="S", help="Time for everything; batch and sweep are made to fit.")
    ] = 60.0,
    json_file: Annotated[
        Path | None, typer.Option("--json", metavar="FILE", help="Write all figures as JSON, schema 1.")
    ] = None,
    imports: Imports = None,
    traceback: Annotated[
        bool, typer.Option("--traceback", help="Show where an error was raised that ended a stage.")
    ] = False,
) -> None:
    """Take one honest training step before a run, stage by stage, and stop at the first that fails, with the fix.

    Environment, device, data, parameters, forward pass, loss, backward pass, gradients of every trainable parameter, optimizer
    step, EMA, validation, memory, precisions, and how far lr0 is from where the loss diverges. It leaves nothing behind: no run
    folder, no weights; only Ultralytics' own scan of the data set writes its cache beside the labels.

    Exit codes: 0 clean or warnings, 1 a stage failed, 2 the call is wrong.

    Example: yolo-stable preflight data.yaml model=yolo11n.pt imgsz=640 batch=16
    """
    began = time.monotonic()
    from ..train.call import TrainCall, said_by

    with said_by("preflight"):
        call = TrainCall.parse(data, settings or [], preset, imports)
    if call.validate is not None:
        from ..train.device_gate import prepared

        call = prepared(call)  # before torch is imported, as for train
    from ..preflight.command import run
    from ..preflight.show import Show

    found = run(
        call,
        json=json_file,
        precisions=precision,
        lr_range=lr_range,
        seconds=seconds,
        used=time.monotonic() - began,
        show=Show(traceback=traceback),
    )
    raise typer.Exit(found.exit_code)
