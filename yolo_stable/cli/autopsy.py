"""Verb ``autopsy``: replays a bad batch."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from .options import Imports, JsonFile


def autopsy(
    incident: Annotated[Path, typer.Argument(metavar="INCIDENT", help="Folder of an incident: RUN/incidents/0001.")],
    json_file: JsonFile = None,
    frames: Annotated[
        int,
        typer.Option(min=0, max=1000, metavar="N", help="Show the last N modules before the break and their ranges."),
    ] = 0,
    debug: Annotated[
        bool, typer.Option("--pdb", help="Stop in Python's debugger at the operation that broke.")
    ] = False,
    device: Annotated[
        str, typer.Option(help="Replay on this device, as torch names it: cpu, cuda:0, mps, xpu.")
    ] = "cpu",
    seconds: Annotated[
        float, typer.Option(min=0.0, metavar="S", help="Stop after S seconds and report what was found.")
    ] = 600.0,
    imports: Imports = None,
) -> None:
    """Replay a bad batch from its bundle and name the operation, the image and the cause.

    A bundle may come from a stranger: it holds no pickle, and opening it executes nothing. The replay runs in its own process
    with limits on time and memory; with --pdb it runs in this one. Use --import for a network with layers of your own.

    Example: yolo-stable autopsy runs/detect/train/incidents/0001 --frames 5
    """
    options = {"json_file": json_file, "frames": frames, "device": device, "seconds": seconds, "imports": imports or ()}
    if debug:
        from ..incidents.replay import run

        print(run(incident, debug=True, **options))
    else:
        from ..incidents.worker import run_apart

        print(run_apart(incident, **options))
