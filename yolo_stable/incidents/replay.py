"""Replay: runs an incident again from its bundle, for ``yolo-stable autopsy``."""

from __future__ import annotations

import contextlib
import json
import math
import pdb
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from .._shared.atomic_file import write_asked_for
from .._shared.system import memory_of_machine
from ..autopsy.advice import SHIPPED, Names, next_step
from ..autopsy.batch_case import BatchCase
from ..autopsy.bundle import Bundle, BundleError, read_bundle
from ..autopsy.examine import examine
from ..autopsy.finding import Break
from ..autopsy.flags import as_recorded
from ..autopsy.frames import frames_table
from ..autopsy.report import AutopsyReport
from ..errors import InvalidCallError
from ..guard.generators import restore_random_state
from ..provenance.recipe import Provenance
from . import budget
from .forward import AMP, forward_of
from .own_layers import chosen, imported
from .rebuild import OwnLayersError, rebuild_model
from .record import mapping, symptom_again

_IN_THE_RUN = ("It cannot be replayed: this is the answer from the run.",)
_FAULT = re.compile(r"[\w.@:+*/=,\- ]{1,100}", re.ASCII)
STRIDES = (8, 16, 32)
"""Strides of the places at which Ultralytics' networks look for objects."""
BYTES = 40
"""Bytes for each label and place: ten numbers of the assigner live at once."""
_NUMPY_NUMBERS = 624
"""Numbers in the state of NumPy's generator."""


def run(
    folder: Path,
    *,
    json_file: Path | None = None,
    frames: int = 0,
    debug: bool = False,
    device: str = "cpu",
    seconds: float | None = None,
    imports: Sequence[str] = (),
) -> str:
    """Replay an incident.

    Args:
        folder: Of the incident.
        json_file: Where to write the answer as JSON, all or nothing.
        frames: How many of the last modules before the break to show.
        debug: Stop in Python's debugger at the operation that broke.
        device: Where to replay.
        seconds: When to stop replaying.
        imports: The user's own modules that define layers of the network; importing runs them.

    Returns:
        The answer as text.

    Raises:
        InvalidCallError: The bundle, the device or the file is unusable; nothing was executed.
    """
    bundle = read_bundle(folder)
    modules = imported(imports, "autopsy: --import")
    recorded = _recorded(bundle)
    replayable = True
    if not bundle.batch:
        if recorded is None:
            raise BundleError(f"{folder}: it has neither a batch to replay nor an answer from the run.")
        report, notes = recorded, ["No batch belongs to this incident: this is the answer from the run."]
    else:
        on = _device(device)
        try:
            with as_recorded(mapping(bundle.incident.get("flags"))) as notes:
                report = _replayed(bundle, on, frames, seconds, _stop if debug else None, modules)
        except OwnLayersError as error:
            if recorded is None or imports:
                raise InvalidCallError(f"autopsy: {error} {_how_to_import(error.names)}") from error
            report, notes, replayable = recorded, [*_IN_THE_RUN, f"{error} {_how_to_import(error.names)}"], False
        except _NoNetworkError as error:
            if recorded is None:
                raise
            report, notes, replayable = recorded, [*_IN_THE_RUN, str(error)], False
        if recorded is not None and recorded.cause != report.cause:
            notes.append(f"During the run, which had its snapshots, the cause was: {recorded.cause}.")
    gone = budget.recorded(bundle.incident)
    if gone:
        notes.append(f"The run left out {', '.join(gone)} to stay within guard.incident_bytes.")
    report = _named(report, bundle, replayable=replayable, imports=imports)
    if json_file is not None:
        _write(json_file, report)
    parts = [report.text(), *(f"  note       {note}" for note in notes)]
    if frames and report.location is not None:
        parts.append(frames_table(report.location.frames) or "No module was called before the break.")
    return _printable("\n".join(parts))


def _replayed(
    bundle: Bundle,
    device: torch.device,
    frames: int,
    seconds: float | None,
    on_break: Callable[..., None] | None,
    modules: Sequence[Any],
) -> AutopsyReport:
    record = bundle.incident
    images, precision, classes = bundle.batch.get("img"), record.get("precision"), record.get("classes")
    if not isinstance(images, Tensor) or images.ndim != 4:
        raise BundleError(f"{bundle.folder}: its batch has no images.")
    if not isinstance(precision, str) or precision not in AMP or type(classes) is not int:
        raise BundleError(f"{bundle.folder}: its incident.json lacks the precision or the number of classes.")
    _require_room_for_labels(bundle, images)
    if bundle.plain.get("model") is None:
        raise _NoNetworkError(f"{bundle.folder}: it has no description of its network.")
    here = _case(bundle, device, precision, classes, modules)
    elsewhere = None if device.type == "cpu" else _case(bundle, torch.device("cpu"), precision, classes, modules)
    provenance = record.get("provenance")
    return examine(
        here,
        symptom_again(record),
        provenance=[Provenance.from_json(str(one)) for one in provenance] if isinstance(provenance, list) else [],
        seconds=seconds,
        reference=elsewhere,
        frames=frames,
        on_break=on_break,
    )


def _require_room_for_labels(bundle: Bundle, images: Tensor) -> None:
    """Refuse a batch whose loss, with each label against each place, would fill this machine."""
    owners = bundle.batch.get("batch_idx")
    if not isinstance(owners, Tensor) or not owners.numel():
        return
    numbers = owners.reshape(-1).double()
    numbers = numbers[(numbers >= 0) & (numbers < len(images))].long()
    most = int(torch.bincount(numbers, minlength=1).max())
    places = sum(math.ceil(images.shape[2] / stride) * math.ceil(images.shape[3] / stride) for stride in STRIDES)
    needed = BYTES * len(images) * most * places
    if needed > memory_of_machine() / 2:
        raise BundleError(
            f"{bundle.folder}: an image of its batch has {most:,} labels, and a loss over them needs about"
            f" {needed / 2**30:.0f} GiB, more than half of the {memory_of_machine() / 2**30:.0f} GiB of this machine."
        )


def _case(bundle: Bundle, device: torch.device, precision: str, classes: int, modules: Sequence[Any]) -> BatchCase:
    drawn = bundle.plain.get("rng")

    def generators() -> None:
        if isinstance(drawn, Mapping):
            try:
                _require_position(drawn)
                restore_random_state(bundle.state, drawn, device)
            except (KeyError, TypeError, ValueError, RuntimeError) as error:
                raise BundleError(f"{bundle.folder}: its random number generators are damaged ({error}).") from error

    generators()  # refused here rather than in the middle
    description, shape = bundle.plain["model"], tuple(bundle.batch["img"].shape)
    names = description.get("own") if isinstance(description, dict) else None
    own = chosen(names, modules) if modules and isinstance(names, list) and all(map(_is_name, names)) else {}
    model: Any = rebuild_model(description, bundle.state, images=shape, own=own).to(device)
    if getattr(model, "criterion", None) is None:  # made by the first pass, it would shift the count of its operations
        try:
            model.criterion = model.init_criterion()
        except Exception as error:
            what = " ".join(f"{type(error).__name__}: {error}".split())[:200]
            raise BundleError(f"{bundle.folder}: the loss of its model cannot be made ({what}).") from error
    batch = {k: v.to(device) if isinstance(v, Tensor) else v for k, v in bundle.batch.items()}
    return BatchCase(model, batch, forward_of(precision, device, generators), classes=classes)


def _require_position(drawn: Mapping[str, Any]) -> None:
    """Refuse a position outside NumPy's state: NumPy would read whatever memory is there."""
    numpy = drawn.get("numpy")
    if numpy is not None:
        _, position, *_ = numpy
        if type(position) is not int or not 0 <= position <= _NUMPY_NUMBERS:
            raise ValueError(f"NumPy's position is {position!r:.40} of {_NUMPY_NUMBERS}")


class _NoNetworkError(BundleError):
    """A bundle has a batch, but no network."""


def _words(value: Any) -> tuple[str, ...]:
    """Return names of faults, as ``--inject`` has them, without any other text of a stranger."""
    words = [word for word in value[:20] if isinstance(word, str)] if isinstance(value, list) else []
    return tuple(word for word in words if _FAULT.fullmatch(word))


def _is_name(name: Any) -> bool:
    return isinstance(name, str) and name.isidentifier()


def _how_to_import(names: Sequence[str]) -> str:
    """Say how to import layers."""
    return f"Give --import FILE.py with a file of yours that defines {', '.join(names)}; importing runs it."


def _named(report: AutopsyReport, bundle: Bundle, *, replayable: bool, imports: Sequence[str]) -> AutopsyReport:
    """Put names into the next step that work here.

    The bundle may be a stranger's, and a data set or a checkpoint can hold code: only files of this machine outside the bundle
    get named, and Ultralytics' own networks.
    """
    record = bundle.incident
    arguments, faults = mapping(record.get("args")), mapping(record.get("injected"))
    whole = bundle.folder.resolve()
    home = whole.parent.parent
    run = str(home) if (home / "weights").is_dir() else _here(arguments.get("save_dir"), whole)
    model = arguments.get("model")
    own = model if isinstance(model, str) and SHIPPED.fullmatch(model) else _here(model, whole)
    layers = mapping(bundle.plain.get("model")).get("own")
    names = Names(
        folder=str(bundle.folder),
        data=_here(arguments.get("data"), whole),
        model=own,
        run=run if run is not None and (Path(run) / "weights" / "last_good.pt").is_file() else None,
        replayable=replayable and bool(bundle.batch),
        asked=True,
        healed=record.get("healed") is True,
        own=tuple(filter(_is_name, layers)) if isinstance(layers, list) else (),
        own_files=tuple(imports),
        injected=_words(faults.get("fired")),
        injected_now=_words(faults.get("now")),
    )
    return report.naming(names)


def _here(name: Any, folder: Path) -> str | None:
    """Return a recorded path if it exists on this machine, outside the bundle."""
    if not isinstance(name, str) or not name or not name.isprintable() or name.startswith("-"):
        return None
    with contextlib.suppress(OSError, ValueError):
        path = Path(name).resolve()
        if path.exists() and folder != path and folder not in path.parents:
            return name
    return None


def _recorded(bundle: Bundle) -> AutopsyReport | None:
    """Return the answer that the run itself had found, if it is one."""
    try:
        found = AutopsyReport.from_json(bundle.incident.get("autopsy"))
    except InvalidCallError:
        return None
    # The advice is made here from the answer: that of the file may be a stranger's, as may each line of its text.
    files = tuple(dict.fromkeys(_in_a_line(sample.path) for sample in found.samples if sample.path))
    rows = tuple(sample.label_row for sample in found.samples if sample.label_row is not None)
    evidence = {key: _without_lines(value) for key, value in found.evidence.items()}
    advice = next_step(
        found.cause,
        files=files,
        rows=rows,
        half=evidence.get("half") is True,
        hurried=bool(evidence.get("out_of_time")),
        cramped=bool(evidence.get("out_of_memory")),
        memory=bool(evidence.get("memory")),
    )
    samples = tuple(replace(sample, path=_in_a_line(sample.path)) for sample in found.samples)
    texts = {"module": _in_a_line(found.module), "op": _in_a_line(found.op)}
    return replace(found, samples=samples, evidence=evidence, next=advice, **texts)


def _in_a_line(text: Any) -> Any:
    """Return text without line ends: none of it can look like a line of ours."""
    return " ".join(text.split())[:1000] if isinstance(text, str) else text


def _without_lines(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {_in_a_line(key): _without_lines(part) for key, part in value.items()}
    return [_without_lines(part) for part in value] if isinstance(value, list) else _in_a_line(value)


def _device(name: str) -> torch.device:
    try:
        device = torch.device(name)
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError, ValueError) as error:
        what = str(error).splitlines()[0]
        raise InvalidCallError(
            f"autopsy: --device {name} cannot be used here: {what} Leave it out to use the CPU."
        ) from error
    return device


def _write(path: Path, report: AutopsyReport) -> None:
    text = json.dumps(report.to_json(), indent=2, allow_nan=False) + "\n"
    write_asked_for(path, text.encode(), f"autopsy: --json {path}")


def _stop(found: Break, names: dict[str, Any]) -> None:
    """Hand over to the person at the terminal; ``names`` has the variables of the surrounding code."""
    op_args, op_kwargs, op_result = names.get("op_args"), names.get("op_kwargs"), names.get("op_result")
    print(f"{found.op} in {found.module or 'the model'}: op_args, op_kwargs, op_result and names are here; c goes on.")
    pdb.set_trace()
    del op_args, op_kwargs, op_result


def _printable(text: str) -> str:
    """Return a stranger's text without control characters."""
    return "".join(c if c.isprintable() or c == "\n" else c.encode("unicode_escape").decode() for c in text)
