"""Advice: the next step after an incident, as sentences and as commands on lines of their own, each of which does something."""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass

from .._shared.shell_text import AGAIN, CHECK, is_command
from .cause import DATA, OPTIMISATION, PERSISTENT, PRECISION, TRANSIENT, WEIGHTS

EXAMPLE = "incidents/0001"
"""Stands in a next step for the incident's folder, as ``DATA``, ``MODEL``, ``LAST`` and ``RUN`` do for the data set, the network,
the checkpoint that is resumed, and the run."""
SHIPPED = re.compile(r"(yolo|rtdetr)[\w-]{0,40}\.(yaml|pt)", re.ASCII)
"""Names of networks that Ultralytics itself brings along or downloads."""
HEALED = (
    "Nothing: the guard puts the state back to a snapshot.\n"
    "If it comes again, ask whether the device computes rightly:\n"
    "yolo-stable validate"
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Names:
    """What a next step may name here; None: not known, or not there."""

    folder: str | None = None
    """Of the incident, when it was written."""
    data: str | None = None
    model: str | None = None
    """The network that was trained, as it was named."""
    last: str | None = None
    """The checkpoint that the run goes on from."""
    run: str | None = None
    """Folder of the run, when its ``weights/last_good.pt`` exists."""
    device: str | None = None
    """On which the run computes."""
    replayable: bool = True
    """Whether the bundle holds a batch and a network that can be built from it."""
    asked: bool = False
    """Whether an autopsy of the bundle prints this: it is not told to run itself again."""
    healed: bool = False
    """Whether the guard puts a state back whose numbers were ruined."""
    own: tuple[str, ...] = ()
    """Layers of the network that are the user's own."""
    own_files: tuple[str, ...] = ()
    """Python files that define them, for ``--import``; empty: none can be imported."""
    injected: tuple[str, ...] = ()
    """Faults that were put in on purpose and had fired before."""
    injected_now: tuple[str, ...] = ()
    """Those of them that have fired in what this is about."""


def next_step(
    cause: str,
    *,
    files: tuple[str, ...] = (),
    rows: tuple[int, ...] = (),
    images: int | None = None,
    half: bool = False,
    hurried: bool = False,
    cramped: bool = False,
    memory: bool = False,
) -> str:
    """Return what to do now, with commands that can be typed when :func:`named` has put the names in.

    Args:
        cause: One of ``CAUSES``.
        files: Guilty files, when there are any.
        rows: Guilty rows of their label files, from 0.
        images: Training images that they are in; when these are fewer than the files, not all of them need be guilty.
        half: Whether training computed in float16 or bfloat16.
        hurried: Whether the time was up before all had been asked.
        cramped: Whether memory ran out before that.
        memory: Whether it is the loss that keeps what is ruined.

    Examples:
        >>> next_step("precision", half=True).splitlines()
        ['Numbers left the range of the precision.', 'Train in float32:', 'yolo-stable train DATA model=MODEL amp=False']
    """
    named = ", ".join(files[:3]) + (f" and {len(files) - 3} more" if len(files) > 3 else "")
    if cause == DATA:
        line = f"the label in line {rows[0] + 1} of the labels of {named}" if named and len(rows) == 1 else named
        if images is not None and len(files) > images and len(rows) != 1:
            line = f"what is bad among {named}"
        what = line or "the images and labels of this batch"
        return f"Repair or remove {what}.\nWhat else is wrong with the data set:\n{CHECK}"
    if cause == WEIGHTS and memory:
        return "Let the loss keep finite numbers only, whatever a batch brings."
    if cause == WEIGHTS:
        good = "yolo-stable train DATA model=RUN/weights/last_good.pt --preset recovery"
        return f"The weights were ruined before the batch came.\nStart again from weights that were good:\n{good}"
    if cause == OPTIMISATION:
        return f"If it comes again, take smaller steps (lr0=).\nOr take a calmer preset:\n{AGAIN} --preset cautious"
    if cause == PRECISION:
        how = "amp=False" if half else "--preset stable amp=False"
        return f"Numbers left the range of the precision.\nTrain in float32:\n{AGAIN} {how}"
    if cause == TRANSIENT:
        seldom = "Go on: what came once and not again is no evidence against anything."
        return f"{seldom}\nTo replay the batch, also on another machine:\nyolo-stable autopsy {EXAMPLE}"
    if cause == PERSISTENT:
        return "Ask what the device gets wrong, and what heals it:\nyolo-stable validate"
    if cramped:
        return f"Memory ran out.\nRun the autopsy again when the training is over:\nyolo-stable autopsy {EXAMPLE}"
    if hurried:
        return f"The time was up.\nRun the autopsy again, with more time:\nyolo-stable autopsy {EXAMPLE} --seconds 3600"
    look = f"Look at the layers before the break:\nyolo-stable autopsy {EXAMPLE} --frames 5"
    return f"What broke was found; why could not be decided.\n{look}"


def commands(step: str) -> list[str]:
    """Return the commands of a next step, each as it is typed."""
    return [line for line in step.splitlines() if is_command(line)]


def named(step: str, cause: str, names: Names) -> str:
    r"""Return a next step with the names of this run; commands that would do nothing here are left out, with what leads to them.

    Examples:
        >>> print(named("Train in float32:\nyolo-stable train DATA model=MODEL amp=False", "precision",
        ...             Names(data="my data.yaml", model="a.pt")))
        Train in float32:
        yolo-stable train 'my data.yaml' model=a.pt amp=False
    """
    if names.injected_now:
        return f"Nothing: what broke was put in on purpose ({', '.join(names.injected_now)})."
    if cause == WEIGHTS and names.healed and "last_good.pt" in step:
        step = HEALED
    lines: list[str] = []
    for line in step.split("\n"):
        filled = _filled(line, names) if is_command(line) else [line]
        leads = is_command(line) and bool(lines) and lines[-1].endswith(":")
        if leads and (not filled or filled[0][0].isupper()):  # a sentence needs nothing that leads to it
            lines.pop()
        lines += filled
    if names.injected:
        before = ", ".join(names.injected)
        lines.insert(0, f"Faults were put into this run on purpose before ({before}): this may come of them.")
    return "\n".join(lines)


def _filled(command: str, names: Names) -> list[str]:
    """Return the lines in place of a command; none when it would do nothing here."""
    if command.startswith("yolo-stable autopsy "):
        if names.folder is None:
            keep = _filled(f"{AGAIN} guard.incidents=100", names)
            return ["Its bundle was not kept. To keep more of them:", *keep] if keep else []
        if not names.replayable or (names.asked and "--frames" not in command):
            return []
        if names.own and not names.own_files:
            return [
                f"It can be replayed once {', '.join(names.own)} stands in a file of its own, which --import names."
            ]
        return [command.replace(EXAMPLE, shlex.quote(names.folder)) + _imports(names)]
    if command.startswith("yolo-stable validate") and names.device:
        return [f"{command} --device {names.device}"]
    good = names.run and f"{names.run}/weights/last_good.pt"
    files = {"MODEL": names.model, "LAST": names.last, "RUN/weights/last_good.pt": good}
    words = {"DATA": names.data} | {f"model={key}": file and f"model={file}" for key, file in files.items()}
    typed = command.split(" ")
    missing = [word for word in typed if word in words and not words[word]]
    if missing:
        return []
    filled = " ".join(shlex.quote(words[word] or "") if word in words else word for word in typed)
    if not names.own or "train" not in typed:
        return [filled]
    if names.own_files:
        return [filled + _imports(names)]
    model = files[typed[3].removeprefix("model=")]
    return [*_known(names.own), f'# then as before YOLO("{model}").train(...), with {_as_arguments(typed)}']


def _imports(names: Names) -> str:
    """Return the options that make one's own layers known to a command."""
    return "".join(f" --import {shlex.quote(file)}" for file in names.own_files)


def _known(own: tuple[str, ...]) -> list[str]:
    """Return the lines of Python that make one's own layers known to Ultralytics."""
    return [f'setattr(ultralytics.nn.tasks, "{name}", {name})' for name in own]


def _as_arguments(typed: list[str]) -> str:
    """Return the words behind the model of a command, as arguments of ``train()``."""
    rest = re.sub(r"--preset (\S+)", r'preset="\1"', " ".join(typed[4:]))
    rest = re.sub(r"guard\.(\w+)=(\S+)", r'guard={"\1": \2}', rest)
    return rest.replace(" ", ", ") if "guard=" not in rest else rest
