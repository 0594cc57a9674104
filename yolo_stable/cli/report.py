"""Verb ``report``: writes the page of a run."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer


def report(
    runs: Annotated[
        list[Path],
        typer.Argument(metavar="RUN ...", help="Folders of runs, such as runs/detect/train, guarded or stock."),
    ],
    out: Annotated[
        Path | None,
        typer.Option(
            metavar="F", help="File of the page. Default: RUN/report.html; for several runs, report.html here."
        ),
    ] = None,
    show: Annotated[bool, typer.Option("--open", help="Open the page in the browser.")] = False,
) -> None:
    """Write a page of one run, or of several side by side: verdict, curves, incidents, settings. It needs no network.

    Exit codes: 0 the page was written, whatever it says; 2 wrong call.

    Example: yolo-stable report runs/detect/train
    """
    from ..report import write_report

    path = write_report(runs, out)
    print(os.fsencode(path).decode("utf-8", "replace"))  # a name on the disk need not be text
    if show:
        typer.launch(str(path))
