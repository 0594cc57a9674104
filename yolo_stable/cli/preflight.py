"""Verb ``preflight``: takes one training step before a run."""

from __future__ import annotations

import time
from typing import Annotated

import typer

from .options import Imports, JsonFile, TrainData


def preflight(
    data: TrainData,
    settings: Annotated[
        list[str] | None,
        typer.Argument(metavar="[key=value ...]", help="Settings of the training, as for 'train'."),
    ] = None,
    preset: Annotated[str | None, typer.Option(help="Preset of the training, as for 'train'.")] = None,
    precision: Annotated[
        str | None,
        typer.Option(
            metavar="P,P", help="Compare with float32: float32, bfloat16, float16. Default: the training's precision."
        ),
    ] = None,
    lr_range: Annotated[
        bool, typer.Option("--lr-range/--no-lr-range", help="Find the learning rate at which the loss diverges.")
    ] = True,
    seconds: Annotated[
        float, typer.Option(min=1.0, metavar="S", help="Time for everything; the batch and the sweep are cut to fit.")
    ] = 60.0,
    json_file: JsonFile = None,
    imports: Imports = None,
    traceback: Annotated[bool, typer.Option("--traceback", help="Show where a stage raised an error.")] = False,
) -> None:
    """Take one honest training step before a run, and stop at the first stage that fails, with the fix.

    The stages: environment, device, set-up, data, parameters, optimizer settings, forward pass, loss, backward pass, the gradient
    of every trainable parameter, optimizer step, EMA, validation, memory, precisions, and how far lr0 is from divergence. It
    leaves no run folder and no weights; only Ultralytics' scan of the data set writes its cache beside the labels.

    Exit codes: 0 clean or warnings, 1 a stage failed, 2 wrong call.

    Example: yolo-stable preflight data.yaml model=yolo26n.pt imgsz=640 batch=16
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
