"""The command ``yolo-stable preflight``: the stages of any model on Ultralytics' own trainer, with those that it adds."""

from __future__ import annotations

import json as json_format
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from .._shared.atomic_file import write_asked_for
from ..autopsy.advice import Names
from ..errors import InvalidCallError
from ..train.call import TrainCall, said_by
from ..train.checks import planned_folder
from ..train.device_gate import devices_of, set_switches
from ..train.run import Ready, prepare
from .environment import device, environment
from .flight import Clock, Course, Flight
from .inspection import require_precision, stages
from .quiet import quietly
from .sample import Sample
from .show import Show
from .stage import Outcome, Preflight
from .subject import undone
from .trained import subject_of
from .trainer_setup import Standing, standing

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
    """Check a call as ``train`` would, then take one step of that training, stage by stage. It leaves nothing behind.

    Ultralytics' scan of the data set writes its cache beside the labels, and a built-in data set or weights that are not here
    are made or downloaded, as by ``train``.

    Args:
        call: The parsed call.
        json: File for all that was found, schema 1.
        precisions: Names with commas, to be compared with float32; that of the training is compared anyway.
        lr_range: With the sweep of the learning rate.
        seconds: Time for everything.
        used: Seconds of it that had gone before.
        show: Where rows are printed; None: to stdout.

    Returns:
        All stages; ``exit_code`` is that of the command.

    Raises:
        InvalidCallError: The call is wrong, or the file cannot be written.
    """
    wanted = [word.strip() for word in precisions.split(",") if word.strip()] if precisions else []
    for name in wanted:
        require_precision(name, WHERE)
    if call.settings.get("resume"):
        raise InvalidCallError(
            f"{WHERE}: resume={call.settings['resume']} is not looked at: a preflight begins where a training would."
            " Leave it out, and give the checkpoint as model=."
        )
    show, clock = show or Show(), Clock(seconds, used)
    course = Course(clock, show.begin, show.stage)
    try:
        with quietly(), said_by(WHERE):
            show.begin("call")
            ready = prepare(call)
            show.end()
        course.names = Names(data=str(ready.arguments["data"]), device=devices_of(call.settings.get("device"))[0])
        with standing(ready) as place:
            _fly(course, call, ready, place, wanted, lr_range=lr_range)
    finally:
        show.end()
    found = course.preflight()
    if json is not None:
        _write(json, found)
    show.verdict(found)
    return found


def _fly(
    course: Course, call: TrainCall, ready: Ready, place: Standing, wanted: Sequence[str], *, lr_range: bool
) -> None:
    with quietly() as said:

        def setup() -> Outcome:
            outcome = place.build(said)
            set_switches(call.switches)
            return outcome

        folder = planned_folder({**call.settings, "task": ready.task})
        course.run(
            [
                ("environment", partial(environment, folder)),
                ("device", partial(device, call.settings.get("device"))),
                ("setup", setup),
            ]
        )
        if course.failed:
            return
        sample = Sample(place.trainer)
        course.run([("data", sample.look)])
        if course.failed:
            return
        subject = subject_of(place.trainer, sample)
        with undone(subject) as before:
            flight = Flight(subject=subject, clock=course.clock, before=before)
            course.run(stages(flight, [subject.precision, *wanted], lr_range=lr_range))


def _write(path: Path, found: Preflight) -> None:
    text = json_format.dumps(found.to_dict(), indent=1, allow_nan=False) + "\n"
    write_asked_for(path, text.encode(), f"{WHERE}: --json {path}")
