"""Stands for wandb 0.31: what we call has the signatures of its own, and its process-wide run."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from recording import Recording, record

__version__ = "0.31.0"


class Table:
    def __init__(self, columns: list[str] | None = None, data: list[Any] | None = None) -> None:
        self.said = {"columns": columns, "data": data}


class Image:
    def __init__(self, data_or_path: str, mode: str | None = None, caption: str | None = None) -> None:
        self.said = {"path": data_or_path, "caption": caption}


class Artifact(Recording):
    library = "wandb.artifact"

    def __init__(self, **given: Any) -> None: ...


class Run(Recording):
    library = "wandb.run"
    id = "run"
    config = SimpleNamespace(setdefaults=lambda values: None)

    def log(self, data: dict[str, Any], step: int | None = None, commit: bool | None = None) -> None:
        assert run is self, "it is finished"
        record("wandb.log", data=data, step=step, commit=commit)

    def define_metric(self, name: str, step_metric: str | None = None, hidden: bool | None = None) -> None:
        record("wandb.define_metric", name=name, step_metric=step_metric)


run: Run | None = None


def init(**given: Any) -> Run:
    global run
    assert run is None, "there is a run already"
    record("wandb.init", name=given["name"])
    run = Run()
    return run


def finish(exit_code: int | None = None) -> None:
    global run
    if run is not None:
        record("wandb.finish", exit_code=exit_code)
    run = None
