"""The verb ``check``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer


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
        int,
        typer.Option(
            min=0,
            metavar="N",
            help="Draw N images through the conservative augmentation as well; loads PyTorch (1 GB).",
        ),
    ] = 0,
    limit: Annotated[
        list[str] | None,
        typer.Option(
            metavar="RULE=VALUE", help="Set from which number a rule speaks, such as box-large=0.9; again for more."
        ),
    ] = None,
    imgsz: Annotated[int, typer.Option(min=1, help="Boxes below one pixel at this size are reported.")] = 640,
    workers: Annotated[int | None, typer.Option(min=1, help="Threads. Without it: one for each core.")] = None,
    progress: Annotated[bool, typer.Option(help="Show a progress bar.")] = True,
) -> None:
    """Look through a data set before training: files, labels, duplicates, balance. Changes nothing.

    Exit codes: 0 clean or warnings, 1 errors (with --fix: errors that the copy has too), 2 the call is wrong.

    Example: yolo-stable check data.yaml --html findings.html
    """
    from ..check import run_check

    options: dict[str, Any] = {
        "task": task,
        "split": split,
        "near": near,
        "sample": sample,
        "imgsz": imgsz,
        "workers": workers,
    }
    code = run_check(data, **options, json=json_file, html=html, fix=fix, progress=progress, limit=limit or ())
    raise typer.Exit(code)
