"""Run files: the log, the incidents' folder and ``args.yaml`` of a guarded run."""

from __future__ import annotations

from copy import copy
from typing import Any

from ultralytics.utils import RANK, YAML

from ..incidents.folder import IncidentFolder
from ..presets.run_plan import INJECTED, RunPlan
from ..runlog.writer import RunLog
from .services import Services


def open_run_files(services: Services) -> RunLog:
    """Open the log and the incidents of a run in the folder that Ultralytics made, and rewrite ``args.yaml``."""
    trainer, plan = services.view, services.view.plan
    if plan.trainer.incidents is not None and not trainer.ddp:
        services.incidents.keep_in(IncidentFolder(trainer.save_dir / "incidents", plan.trainer.incidents, RANK))
    if RANK in {-1, 0}:
        on_record = {INJECTED: list(plan.injected)} if plan.injected else {}
        # Ultralytics' own arguments stay free of our keys: its validator and its checkpoints refuse what they do not
        # know, and a checkpoint must load where this package is not installed.
        YAML.save(str(trainer.save_dir / "args.yaml"), {**vars(trainer.args), **plan.to_dict(), **on_record})
    return RunLog(trainer.save_dir, resumed=bool(trainer.resume), write=RANK in {-1, 0} and not trainer.ddp)


def arguments_for_workers(args: Any, plan: RunPlan) -> Any:
    """Return the arguments for the workers of a multi-GPU run: Ultralytics' own and the guard's two keys."""
    whole = copy(args)
    vars(whole).update(plan.to_dict())
    return whole
