"""Bundles of injected faults, replayed in a process that knows nothing but them.

A fault in the code is no part of a bundle: as a person who has the same code has the same fault, it is put into the network
that is built again, before it is replayed. What was broken in the data or in the state comes from the bundle alone.
"""

from __future__ import annotations

import json
import os
import pickle
import subprocess
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import torch
from torch import nn

from yolo_stable.chaos import DeviceFault, LayerFault
from yolo_stable.incidents import replay as autopsy_run

from .autopsy_faults import Trial
from .autopsy_planted import Cancel, Shared
from .contenders import quiet

Row = dict[str, Any]
IN_CODE = (LayerFault, Shared, Cancel, DeviceFault)


def in_code(trial: Trial) -> bool:
    """Tell whether a fault has to be put into the network anew; one that happens once does not come again."""
    return isinstance(trial.model, IN_CODE) and trial.cause != "hardware transient"


def replayed(folder: Path, trial: Trial) -> Row:
    """Replay a bundle here, and return the answer."""
    own = autopsy_run.rebuild_model
    answer = folder.parent / f"{folder.name}.json"
    with ExitStack() as stack:

        def rebuild(*args: Any, **kwargs: Any) -> nn.Module:
            model: Any = own(*args, **kwargs)
            if in_code(trial):
                if trial.where != "model" and getattr(model, "criterion", None) is None:
                    model.criterion = model.init_criterion()
                target = model if trial.where == "model" else getattr(model.criterion, trial.where)
                stack.enter_context(trial.model.install(target))
            return model

        autopsy_run.rebuild_model = rebuild
        try:
            autopsy_run.run(folder, json_file=answer)
        finally:
            autopsy_run.rebuild_model = own
    return json.loads(answer.read_text())


def fresh(bundles: Sequence[tuple[Path, Trial, Row]], work: Path) -> list[Row]:
    """Replay bundles in one fresh process, and compare with what the run had said.

    Args:
        bundles: Folder, fault, and the row of the run's own autopsy.
        work: For the list and the answers.

    Returns:
        A row for each; ``met``: to the bit as in the run, or what else is asked of one that is not run again; ``same``: operation
        and module as in the run.
    """
    (work / "list.pickle").write_bytes(pickle.dumps([(folder, trial) for folder, trial, _ in bundles]))
    command = [sys.executable, "-m", "benchmarks.autopsy_replays", str(work)]
    root = Path(__file__).parent.parent
    done = subprocess.run(command, cwd=root, env=os.environ, capture_output=True, text=True, timeout=1800, check=False)
    if done.returncode:
        raise RuntimeError(done.stderr[-2000:])
    answers = json.loads((work / "answers.json").read_text())
    rows = []
    for (folder, trial, run), answer in zip(bundles, answers, strict=True):
        once = trial.cause == "hardware transient"
        row = {
            "rig": trial.rig,
            "group": trial.group,
            "kind": trial.kind,
            "once": once,
            "told by its labels": run["operation steps"] is None and not once,
            "bitwise": answer.get("bitwise"),
            "reproduced": answer.get("reproduced"),
            "same": (answer.get("module"), answer.get("op")) == (run["module"], run["op"]),
            "cause": answer.get("cause"),
            "in the run": run["said"],
            "error": answer.get("error", "") or (answer.get("evidence") or {}).get("error", ""),
            "why": (answer.get("evidence") or {}).get("why", ""),
            "bundle": folder.name,
        }
        if once:
            row["met"] = row["reproduced"] is False
        elif row["told by its labels"]:  # nothing was run: such labels can take a device down
            row["met"] = row["reproduced"] is True and row["cause"] == run["said"]
        else:
            row["met"] = row["bitwise"] is True
        rows.append(row)
    return rows


def by_command(folder: Path) -> Row:
    """Replay one bundle with ``yolo-stable autopsy``."""
    answer = folder.parent / f"{folder.name}-command.json"
    command = [sys.executable, "-m", "yolo_stable", "autopsy", str(folder), "--json", str(answer)]
    done = subprocess.run(command, env=os.environ, capture_output=True, text=True, timeout=300, check=False)
    return json.loads(answer.read_text()) if not done.returncode else {"error": done.stderr[-500:]}


def main() -> None:
    """Replay the bundles of a list."""
    torch.set_num_threads(1)
    quiet()
    work = Path(sys.argv[1])
    answers: list[Row] = []
    for folder, trial in pickle.loads((work / "list.pickle").read_bytes()):  # of the process that started this one
        try:
            answers.append(replayed(folder, trial))
        except Exception as error:  # noqa: BLE001 - what goes wrong with one bundle is what is measured
            answers.append({"error": f"{type(error).__name__}: {error}"[:500]})
    (work / "answers.json").write_text(json.dumps(answers))


if __name__ == "__main__":
    main()
