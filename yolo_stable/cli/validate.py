"""Verb ``validate``: checks whether a device computes correctly."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def validate(
    files: Annotated[
        list[Path] | None, typer.Argument(metavar="[FILE ...]", help="With --compare: results written by --json.")
    ] = None,
    device: Annotated[
        str | None,
        typer.Option(metavar="D", help="cuda, cuda:1, rocm, mps, xpu, cpu or a number. Default: the best there is."),
    ] = None,
    quick: Annotated[
        bool, typer.Option("--quick", help="Run the shapes and layouts that matter most: a minute.")
    ] = False,
    full: Annotated[bool, typer.Option("--full", help="Also run the very large shapes.")] = False,
    seed: Annotated[int | None, typer.Option(metavar="N", help="Seed of the inputs. Default: 0.")] = None,
    json: Annotated[Path | None, typer.Option(metavar="F", help="Also write all results as JSON.")] = None,
    html: Annotated[Path | None, typer.Option(metavar="F", help="Also write a page.")] = None,
    inject: Annotated[
        str | None, typer.Option(metavar="FAULT", help="Inject a fault, to see that the checks find it.")
    ] = None,
    stress: Annotated[
        float | None, typer.Option(metavar="MINUTES", help="Repeat for so long, and watch for bits that change.")
    ] = None,
    recompute_reference: Annotated[
        bool, typer.Option("--recompute-reference", help="Compute the reference of the trainings here; takes minutes.")
    ] = False,
    no_heal: Annotated[
        bool, typer.Option("--no-heal", help="Do not look for a setting under which failing checks pass.")
    ] = False,
    compare: Annotated[
        bool, typer.Option("--compare", help="Compare the results of other machines with the first.")
    ] = False,
) -> None:
    """Check whether a device computes a YOLO training step correctly, operation by operation, against float64 on the CPU.

    Exit codes: 0 pass or warnings, 1 fail, 2 wrong call or no such device. With --compare: 0 no worse than the first, 1 worse,
    3 not comparable.

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
