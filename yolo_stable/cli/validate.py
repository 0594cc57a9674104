"""The verb ``validate``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


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
    from ..validate.command import ValidateCall, run

    call = ValidateCall(
        device=device, quick=quick, full=full, seed=seed, inject=inject, stress=stress, heal=not no_heal, json=json,
        html=html, recompute_reference=recompute_reference, compare=compare, files=tuple(files or ()),
    )  # fmt: skip
    code = run(call)
    if code:
        raise typer.Exit(code)
