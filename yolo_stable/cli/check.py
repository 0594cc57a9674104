"""Verb ``check``: inspects a data set."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from .options import JsonFile


def check(
    data: Annotated[
        str, typer.Argument(metavar="DATA", help="Path of a data.yaml or of a folder, or 'digits' or 'shapes'.")
    ],
    task: Annotated[
        str | None,
        typer.Option(help="detect, segment, semantic, depth, pose, obb or classify. Default: what the data says."),
    ] = None,
    split: Annotated[str | None, typer.Option(help="train, val, test, or several with commas. Default: all.")] = None,
    json_file: JsonFile = None,
    html: Annotated[Path | None, typer.Option(metavar="FILE", help="Also write a page with thumbnails.")] = None,
    fix: Annotated[
        Path | None,
        typer.Option(metavar="FOLDER", help="Write a cleaned copy into this folder: new or empty, outside the data."),
    ] = None,
    near: Annotated[bool, typer.Option(help="Decode every image and look for near duplicates.")] = True,
    sample: Annotated[
        int,
        typer.Option(
            min=0, metavar="N", help="Also draw N images through the conservative augmentation. Loads PyTorch (1 GB)."
        ),
    ] = 0,
    limit: Annotated[
        list[str] | None,
        typer.Option(
            metavar="RULE=VALUE", help="Change the limit of a rule, such as box-large=0.9. Repeat for more rules."
        ),
    ] = None,
    imgsz: Annotated[int, typer.Option(min=1, help="Report boxes that are below one pixel at this image size.")] = 640,
    workers: Annotated[int | None, typer.Option(min=1, help="Threads. Default: one per core.")] = None,
    progress: Annotated[bool, typer.Option(help="Show a progress bar.")] = True,
) -> None:
    """Check a data set before training: files, labels, duplicates, balance. Changes nothing.

    Exit codes: 0 clean or warnings, 1 errors (with --fix: errors that the copy still has), 2 wrong call.

    Example: yolo-stable check data.yaml --html findings.html
    """
    from ..check import run_check

    code = run_check(
        data, task=task, split=split, near=near, sample=sample, imgsz=imgsz, workers=workers, json=json_file, html=html,
        fix=fix, progress=progress, limit=limit or (),
    )  # fmt: skip
    raise typer.Exit(code)
