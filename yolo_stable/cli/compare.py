"""The verb ``compare``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from .options import Imports


def compare(
    data: Annotated[
        str, typer.Argument(metavar="DATA", help="Path of a data.yaml, or 'digits' or 'shapes', as for 'train'.")
    ],
    settings: Annotated[
        list[str] | None,
        typer.Argument(metavar="[key=value ...]", help="As for 'train'; all runs have them in common."),
    ] = None,
    optimizers: Annotated[
        str | None, typer.Option(metavar="A,B,...", help="Optimizers, such as SGD,AdamW,MuSGD.")
    ] = None,
    presets: Annotated[
        str | None, typer.Option(metavar="A,B,...", help="Presets, such as stable,guarded; see 'yolo-stable presets'.")
    ] = None,
    lr0: Annotated[str | None, typer.Option(metavar="X,Y,...", help="Learning rates, such as 0.01,0.001.")] = None,
    seeds: Annotated[
        str | None, typer.Option(metavar="N,M,...", help="Repeat everything with these seeds, such as 0,1,2.")
    ] = None,
    stock: Annotated[
        bool, typer.Option("--stock", help="Train everything by Ultralytics' own trainer as well, as a baseline.")
    ] = False,
    epochs: Annotated[int | None, typer.Option(min=1, metavar="N", help="Epochs of each run. Without it: 3.")] = None,
    out: Annotated[
        Path | None,
        typer.Option(metavar="FOLDER", help="Where the runs go. Without it: runs/compare, or the next that is free."),
    ] = None,
    json_file: Annotated[
        Path | None, typer.Option("--json", metavar="FILE", help="Write all figures as JSON, schema 1.")
    ] = None,
    imports: Imports = None,
    ray: Annotated[
        bool, typer.Option("--ray", help="Train several at a time, on a Ray cluster or on all that is in this machine.")
    ] = False,
    resources: Annotated[
        str | None,
        typer.Option(
            metavar="KIND=N,...", help="With --ray: what each run takes, such as GPU=1,CPU=4. Without it: a GPU."
        ),
    ] = None,
) -> None:
    """Train short runs of each choice, one after the other, and end with a table and a page.

    Several choices are combined, each with each. All runs have the same seed, so they see the same batches. The same command goes
    on where a comparison was interrupted; runs that are over are taken as they are.

    Exit codes: 0 all runs ended as done, 1 one failed or was halted, 2 the call is wrong, 130 interrupted, 143 terminated.

    Example: yolo-stable compare data.yaml model=yolo11n.pt --optimizers SGD,AdamW,MuSGD --lr0 0.01,0.001 --epochs 10
    """
    from ..compare.axes import Axes
    from ..compare.call import CompareCall
    from ..compare.comparison import run_comparison

    axes = Axes.parse(optimizers=optimizers, presets=presets, lr0=lr0, seeds=seeds, stock=stock)
    call = CompareCall.parse(data, settings or [], axes, epochs, imports or ())
    backend, notes = None, []
    if ray or resources is not None:
        from ..compare.cluster import NOTE, Cluster

        backend, notes = Cluster.prepared(call, resources, asked=ray), [NOTE]
    raise typer.Exit(run_comparison(call, out=out, json=json_file, backend=backend, notes=notes))
