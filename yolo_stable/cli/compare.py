"""Verb ``compare``: trains short runs side by side."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from .options import Imports, JsonFile, TrainData


def compare(
    data: TrainData,
    settings: Annotated[
        list[str] | None,
        typer.Argument(metavar="[key=value ...]", help="Settings of all runs, as for 'train'."),
    ] = None,
    optimizers: Annotated[
        str | None, typer.Option(metavar="A,B,...", help="Optimizers, such as SGD,AdamW,MuSGD.")
    ] = None,
    presets: Annotated[
        str | None, typer.Option(metavar="A,B,...", help="Presets, such as none,stable; see 'yolo-stable presets'.")
    ] = None,
    lr0: Annotated[str | None, typer.Option(metavar="X,Y,...", help="Learning rates, such as 0.01,0.001.")] = None,
    seeds: Annotated[
        str | None, typer.Option(metavar="N,M,...", help="Seeds that repeat everything, such as 0,1,2.")
    ] = None,
    stock: Annotated[
        bool, typer.Option("--stock", help="Also train everything with Ultralytics' own trainer, as a baseline.")
    ] = False,
    epochs: Annotated[int | None, typer.Option(min=1, metavar="N", help="Epochs per run. Default: 3.")] = None,
    out: Annotated[
        Path | None,
        typer.Option(metavar="FOLDER", help="Folder of the comparison. Default: runs/compare, or the next free one."),
    ] = None,
    json_file: JsonFile = None,
    imports: Imports = None,
    ray: Annotated[
        bool, typer.Option("--ray", help="Train several runs at a time, on a Ray cluster or on this whole machine.")
    ] = False,
    resources: Annotated[
        str | None,
        typer.Option(
            metavar="KIND=N,...", help="With --ray: what each run takes, such as GPU=1,CPU=4. Default: a GPU."
        ),
    ] = None,
) -> None:
    """Train short runs of each choice, one after the other, and print a table.

    Several options are combined, each value with each. All runs share one seed, so they see the same batches. An interrupted
    comparison continues with the same command; finished runs are kept. It also writes a page of all runs.

    Exit codes: 0 all runs done, 1 a run failed or halted, 2 wrong call, 130 interrupted, 143 terminated.

    Example: yolo-stable compare data.yaml model=yolo26n.pt --optimizers SGD,AdamW,MuSGD --lr0 0.01,0.001 --epochs 10
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
