"""Preflight command: the stages of any model on Ultralytics' own trainer, after those of its set-up."""

from __future__ import annotations

import json as json_format
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

from .._shared.atomic_file import write_asked_for
from ..autopsy.advice import Names
from ..errors import InvalidCallError
from ..train.call import TrainCall, said_by
from ..train.checks import planned_folder
from ..train.device_gate import devices_of, set_switches
from ..train.request import TrainRequest, resolve
from .environment import device, environment
from .inspection import require_precision, stages
from .quiet import quietly
from .sample import LoaderBatches
from .show import Show
from .stage import Preflight, StageOutcome
from .stage_runner import Clock, StageContext, StageRunner
from .subject import undone
from .trained import subject_of
from .trainer_setup import TrainerSetup, trainer_setup

WHERE = "preflight"


def run(
    call: TrainCall,
    *,
    json: Path | None = None,
    precisions: str | None = None,
    lr_range: bool = True,
    seconds: float = 60.0,
    used: float = 0.0,
    show: Show | None = None,
) -> Preflight:
    """Check a call as ``train`` does, then take one step of that training, stage by stage, and leave nothing behind.

    Ultralytics' scan of the data set writes its cache beside the labels, and missing weights or a built-in data set are
    downloaded or made, as by ``train``.

    Args:
        call: The parsed call.
        json: File for all results, schema 1.
        precisions: Names with commas, compared with float32 beside that of the training.
        lr_range: With the sweep of the learning rate.
        seconds: Time for everything.
        used: Seconds of it that are gone already.
        show: Prints the rows; None: to stdout.

    Raises:
        InvalidCallError: The call is wrong, or the file cannot be written.
    """
    wanted = [word.strip() for word in precisions.split(",") if word.strip()] if precisions else []
    for name in wanted:
        require_precision(name, WHERE)
    if call.settings.get("resume"):
        raise InvalidCallError(
            f"{WHERE}: resume={call.settings['resume']} is not supported: a preflight looks at the start of a training."
            " Leave it out, and give the checkpoint as model=."
        )
    call = replace(call, stock=False)
    show, clock = show or Show(), Clock(seconds, used)
    runner = StageRunner(clock, show.begin, show.stage)
    try:
        with quietly(), said_by(WHERE):
            show.begin("call")
            request = resolve(call)
            show.end()
        runner.names = Names(data=str(request.arguments["data"]), device=devices_of(call.settings.get("device"))[0])
        with trainer_setup(request) as ready:
            _run_stages(runner, call, request, ready, wanted, lr_range=lr_range)
    finally:
        show.end()
    found = runner.preflight()
    if json is not None:
        _write(json, found)
    show.verdict(found)
    return found


def _run_stages(
    runner: StageRunner,
    call: TrainCall,
    request: TrainRequest,
    ready: TrainerSetup,
    wanted: Sequence[str],
    *,
    lr_range: bool,
) -> None:
    with quietly() as said:

        def setup() -> StageOutcome:
            outcome = ready.build(said)
            set_switches(call.switches)
            return outcome

        folder = planned_folder({**call.settings, "task": request.task})
        runner.run(
            [
                ("environment", partial(environment, folder)),
                ("device", partial(device, call.settings.get("device"))),
                ("setup", setup),
            ]
        )
        if runner.failed:
            return
        batches = LoaderBatches(ready.trainer)
        runner.run([("data", batches.look)])
        if runner.failed:
            return
        subject = subject_of(ready.trainer, batches)
        with undone(subject) as before:
            context = StageContext(subject=subject, clock=runner.clock, before=before)
            runner.run(stages(context, [subject.precision, *wanted], lr_range=lr_range))


def _write(path: Path, found: Preflight) -> None:
    text = json_format.dumps(found.to_dict(), indent=1, allow_nan=False) + "\n"
    write_asked_for(path, text.encode(), f"{WHERE}: --json {path}")
