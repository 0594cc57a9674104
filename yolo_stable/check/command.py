"""Command: the body of ``yolo-stable check``."""

from __future__ import annotations

import json as json_format
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from .._shared.atomic_file import write_asked_for
from .._shared.terminal import console as stdout
from .._shared.terminal import print_folded
from ..errors import InvalidCallError
from .check import check, splits_wanted
from .layout import WHERE
from .limits import parse_limits
from .page import page_of
from .place import read_layout
from .repair import check_target, repair
from .report import PLACES, printable


def run_check(
    data: str,
    *,
    task: str | None = None,
    split: str | None = None,
    json: Path | None = None,
    html: Path | None = None,
    fix: Path | None = None,
    near: bool = True,
    sample: int = 0,
    limit: Sequence[str] = (),
    imgsz: int = 640,
    workers: int | None = None,
    progress: bool = True,
    console: Console | None = None,
) -> int:
    """Check a data set, print the table and write the files that were asked for.

    Args:
        data: As for :func:`check`, with ``task``, ``near``, ``sample``, ``imgsz`` and ``workers``.
        task: See :func:`check`.
        split: One split, or several with commas.
        json: File for all findings, schema 1.
        html: File for a page with thumbnails.
        fix: Folder for a cleaned copy: empty or new, and outside the data.
        near: See :func:`check`.
        sample: See :func:`check`.
        limit: Limits of rules, each as ``RULE=VALUE``.
        imgsz: See :func:`check`.
        workers: See :func:`check`.
        progress: Show a bar when stderr is a terminal.
        console: Where the table goes; None: stdout.

    Returns:
        The exit code: 0 clean or warnings, 1 errors; with ``fix``: errors in the copy.

    Raises:
        InvalidCallError: The call is wrong (exit code 2), or a file cannot be written.
    """
    splits = splits_wanted([word.strip() for word in split.split(",")] if split else None)
    if fix is not None:
        if split:
            raise InvalidCallError(f"{WHERE}: fix={fix} copies whole data sets. Leave split={split} out.")
        layout = read_layout(data, task, splits)
        check_target(fix, layout)
    limits = parse_limits(limit)
    show = progress and sys.stderr.isatty()
    options: dict[str, Any] = {"sample": sample, "limits": limits, "imgsz": imgsz, "workers": workers}
    report = check(data, task=task, split=splits, near=near, progress=show, **options)
    console = console or stdout()
    report.show(console)
    if json is not None:
        text = json_format.dumps(report.to_dict(), indent=1, ensure_ascii=True)
        write_asked_for(json, text.encode("ascii"), f"{WHERE}: {json}")
    if html is not None:
        write_asked_for(html, page_of(report).encode("utf-8", "replace"), f"{WHERE}: {html}")
    if fix is not None:
        done = repair(report, fix)
        place = fix if report.task == "classify" else fix / "data.yaml"
        report = check(place, task=report.task, near=False, **options)
        done.judged(report)
        for path, _, message in done.unmended[:PLACES]:
            print_folded(console, f"error remains: {printable(path)}: {printable(message)}")
        print_folded(console, done.verdict)
        return int(bool(done.unmended))
    return report.exit_code
