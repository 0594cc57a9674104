"""Advice: the next step after an incident, as sentences and as working commands on their own lines."""

from __future__ import annotations

import re
import shlex
from collections.abc import Sequence
from dataclasses import dataclass

from .._shared.shell_text import AGAIN, CHECK, is_command
from .._shared.text import listed
from .cause import DATA, OPTIMISATION, PERSISTENT, PRECISION, TRANSIENT, WEIGHTS

EXAMPLE = "incidents/0001"
"""Placeholder of the incident's folder, as ``DATA``, ``MODEL``, ``LAST`` and ``RUN`` are of the data set, the network, the
checkpoint to resume, and the run."""
SHIPPED = re.compile(r"(yolo|rtdetr)[\w-]{0,40}\.(yaml|pt)", re.ASCII)
"""Names of networks that Ultralytics ships or downloads."""
STABLE = f"{AGAIN} --preset stable"
CALMER = f"lower the learning rate.\nA calmer preset does that:\n{STABLE}"
"""The end of an advice after a divergence."""
CALMEST = ("cautious", "recovery")
"""Presets without a calmer one."""
CONSTANT = (
    "Look at how the loss is made: a part of it is detached or a new tensor, or all that it depends on is frozen. The loss of"
    " YOLOE's visual prompts is a constant 0 for a batch with as many prompts as there were classes when it was made."
)
HEALED = (
    "Nothing: the guard restores the state from a snapshot.\n"
    "If it happens again, check whether the device computes correctly:\n"
    "yolo-stable validate"
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Names:
    """Names for the placeholders of a next step; None: not known, or missing."""

    folder: str | None = None
    """Of the incident, if it was written."""
    data: str | None = None
    model: str | None = None
    """The trained network, as named."""
    last: str | None = None
    """The checkpoint to resume from."""
    run: str | None = None
    """Folder of the run, if its ``weights/last_good.pt`` exists."""
    device: str | None = None
    """Of the run."""
    replayable: bool = True
    """Whether the bundle holds a batch and a network that can be rebuilt."""
    asked: bool = False
    """Whether an autopsy prints this, and so need not advise one."""
    healed: bool = False
    """Whether the guard restores a ruined state."""
    own: tuple[str, ...] = ()
    """The user's own layers of the network."""
    own_files: tuple[str, ...] = ()
    """Python files that define them, for ``--import``; empty: not importable."""
    preset: str | None = None
    """Of the run."""
    injected: tuple[str, ...] = ()
    """Injected faults that had fired before."""
    injected_now: tuple[str, ...] = ()
    """Those of them that caused this incident."""


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
    """Return what to do now; :func:`named` fills the names into its commands.

    Args:
        cause: One of ``CAUSES``.
        files: Guilty files, when there are any.
        rows: Guilty rows of their label files, from 0.
        images: Training images that hold them; if fewer than the files, some files may be innocent.
        half: Whether training used float16 or bfloat16.
        hurried: Whether time ran out before the end.
        cramped: Whether memory ran out before the end.
        memory: Whether the loss itself keeps the ruined number.

    Examples:
        >>> next_step("precision", half=True).splitlines()
        ['Numbers left the range of the precision.', 'Train in float32:', 'yolo-stable train DATA model=MODEL amp=False']
    """
    named = listed(files)
    if cause == DATA:
        line = f"the label in line {rows[0] + 1} of the labels of {named}" if named and len(rows) == 1 else named
        if images is not None and len(files) > images and len(rows) != 1:
            line = f"what is bad among {named}"
        what = line or "the images and labels of this batch"
        return f"Repair or remove {what}.\nSee what else is wrong with the data set:\n{CHECK}"
    if cause == WEIGHTS and memory:
        return "Let the loss keep finite numbers only, whatever a batch brings."
    if cause == WEIGHTS:
        good = "yolo-stable train DATA model=RUN/weights/last_good.pt --preset recovery"
        return f"The weights were ruined before the batch came.\nStart again from good weights:\n{good}"
    if cause == OPTIMISATION:
        return f"If it happens again, {CALMER}"
    if cause == PRECISION:
        how = "amp=False" if half else "--preset stable amp=False"
        return f"Numbers left the range of the precision.\nTrain in float32:\n{AGAIN} {how}"
    if cause == TRANSIENT:
        once = "Go on: a fault that came once and not again is no evidence against anything."
        return f"{once}\nTo replay the batch, here or on another machine:\nyolo-stable autopsy {EXAMPLE}"
    if cause == PERSISTENT:
        return "See what the device gets wrong, and what heals it:\nyolo-stable validate"
    if cramped:
        return f"Memory ran out.\nRun the autopsy again after the training:\nyolo-stable autopsy {EXAMPLE}"
    if hurried:
        return f"Time ran out.\nRun the autopsy again with more time:\nyolo-stable autopsy {EXAMPLE} --seconds 3600"
    look = f"Look at the layers before the break:\nyolo-stable autopsy {EXAMPLE} --frames 5"
    return f"What broke is known, but not why.\n{look}"


def commands(step: str) -> list[str]:
    """Return the commands of a next step, as typed."""
    return [line for line in step.splitlines() if is_command(line)]


def named(step: str, cause: str, names: Names) -> str:
    r"""Return a next step with the names of this run, without commands that would do nothing here and their introductions.

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
        if leads and (not filled or filled[0][0].isupper()):  # a sentence needs no introduction
            lines.pop()
        lines += filled
    if names.injected:
        before = ", ".join(names.injected)
        lines.insert(0, f"Faults were put into this run on purpose before ({before}): this may come of them.")
    return "\n".join(lines)


def _filled(command: str, names: Names) -> list[str]:
    """Return the lines that replace a command; none if it would do nothing here."""
    if command.startswith("yolo-stable autopsy "):
        if names.folder is None:
            keep = _filled(f"{AGAIN} guard.incidents=100", names)
            return ["Its bundle was not kept. To keep more bundles:", *keep] if keep else []
        if not names.replayable or (names.asked and "--frames" not in command):
            return []
        if names.own and not names.own_files:
            return [f"To replay it, move {', '.join(names.own)} into a file of its own, and name that with --import."]
        return [command.replace(EXAMPLE, shlex.quote(names.folder)) + _imports(names)]
    if command.startswith("yolo-stable validate") and names.device:
        return [f"{command} --device {names.device}"]
    if command == STABLE and names.preset in CALMEST:
        return ["Set lr0= below that of the preset."]
    if command == STABLE and names.preset == "stable":
        command = f"{AGAIN} --preset cautious"
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
    """Return the options that import the user's own layers."""
    return "".join(f" --import {shlex.quote(file)}" for file in names.own_files)


def _known(own: tuple[str, ...]) -> list[str]:
    """Return the lines of Python that register the user's own layers with Ultralytics."""
    return [f'setattr(ultralytics.nn.tasks, "{name}", {name})' for name in own]


def _as_arguments(typed: Sequence[str]) -> str:
    """Return the words after the model of a command, as arguments of ``train()``."""
    rest = re.sub(r"--preset (\S+)", r'preset="\1"', " ".join(typed[4:]))
    rest = re.sub(r"guard\.(\w+)=(\S+)", r'guard={"\1": \2}', rest)
    return rest.replace(" ", ", ") if "guard=" not in rest else rest
