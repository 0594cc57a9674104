"""Bundle: an incident on the disk, with the batch and the state of the training just before it.

A folder with ``incident.json`` (strict JSON, schema 1: the incident's own keys, and ``bundle`` with everything but tensors),
``batch.safetensors`` (the batch after preprocessing), ``state.safetensors`` (the state before it), and further files such as a
picture. It may come from a stranger: it holds no pickle, and reading it executes and writes nothing.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import re
import shutil
import stat
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from .._shared.atomic_file import PART
from .._shared.regular_file import read_file
from .._shared.strict_json import strict
from .._shared.text import listed
from ..errors import InvalidCallError
from . import image_levels, tensor_file
from .exact_json import pack, parse, unpack
from .layout import check, lay_down, take_up

SCHEMA = 1
INCIDENT, BATCH, STATE = "incident.json", "batch.safetensors", "state.safetensors"
MOST_JSON = 16 << 20
"""Largest ``incident.json``, in bytes; a usual one has a few hundred thousand."""
_IMAGES = "img"


class BundleError(InvalidCallError):
    """An incident cannot be opened: it is damaged, malicious, of another version, or no incident."""


@dataclass(frozen=True)
class Bundle:
    """An incident as it was read.

    Args:
        folder: Where it is.
        incident: What happened; a stranger's JSON: print only its printable text on a terminal.
        batch: As the model got it: tensors on the host, and plain values.
        state: Tensors by name, on the host, with the same bits and layout.
        plain: What belongs to the state and is no tensor.
        left_out: Parts of the batch that could not be kept, with the reasons.
    """

    folder: Path
    incident: dict[str, Any]
    batch: dict[str, Any]
    state: dict[str, Tensor]
    plain: dict[str, Any]
    left_out: dict[str, str]


def write_bundle(
    folder: Path,
    incident: Mapping[str, Any],
    *,
    batch: Mapping[str, Any],
    state: Mapping[str, Tensor],
    plain: Mapping[str, Any],
    extra_files: Mapping[str, bytes] | None = None,
) -> Path:
    """Write an incident, completely or not at all, and return ``folder``.

    It is written into a hidden folder beside ``folder``, which is then renamed; the rest of a killed process is removed.

    Args:
        folder: Such as ``incidents/0001``; it must not exist.
        incident: What happened; non-finite numbers become text, as in ``guard.jsonl``.
        batch: Tensors of any device and layout, and plain values; anything else is left out and named.
        state: Tensors of any device, dtype and layout.
        plain: The state's values that are no tensors; read back as they were.
        extra_files: By name, such as ``preview.jpg``.

    Raises:
        OSError: The disk is full, or the folder exists (``FileExistsError``); nothing remains.
        InvalidCallError: Something cannot be kept.

    Syncs: one per tensor that is not on the host.
    """
    extra_files = extra_files or {}
    if {"schema", "bundle"} & incident.keys():
        raise InvalidCallError("The keys 'schema' and 'bundle' of an incident are reserved.")
    for name in extra_files:
        if not re.fullmatch(r"\w[\w.-]*", name) or name in {INCIDENT, BATCH, STATE}:
            raise InvalidCallError(f"{name!r} cannot be the name of a further file of an incident.")
    try:
        batch_tensors, batch_plain = _pack_batch(batch)
        state_tensors, state_plain = lay_down(state)
        inside: dict[str, Tensor] = {}
        packed = pack(dict(plain), inside, "plain")
        if inside:
            raise ValueError(f"{next(iter(inside))} is a tensor: it belongs to the state")
    except (TypeError, ValueError, RecursionError) as error:
        raise InvalidCallError(f"The incident {folder} cannot be written: {error}.") from error

    folder = Path(folder)
    part = folder.with_name(f".{folder.name}{PART}")
    folder.parent.mkdir(parents=True, exist_ok=True)
    if os.path.lexists(folder):
        raise FileExistsError(errno.EEXIST, "an incident is not written over", str(folder))
    _remove(part)
    try:
        part.mkdir()
        files = {
            BATCH: tensor_file.write(part / BATCH, batch_tensors),
            STATE: tensor_file.write(part / STATE, state_tensors),
        }
        about = {"plain": packed, "batch": batch_plain, "state": state_plain, "files": files}
        document = {"schema": SCHEMA, **strict(dict(incident)), "bundle": about}
        text = json.dumps(document, allow_nan=False).encode()
        if len(text) > MOST_JSON:
            raise InvalidCallError(f"The incident {folder} cannot be written: it has {len(text)} bytes of JSON.")
        for name, content in {**extra_files, INCIDENT: text}.items():
            with open(part / name, "xb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
        os.rename(part, folder)
    except BaseException:
        with contextlib.suppress(OSError):
            _remove(part)
        raise
    return folder


def read_bundle(folder: Path | str) -> Bundle:
    """Read an incident; this executes and writes nothing.

    Raises:
        BundleError: It cannot be used; in one line, which file, why, and what to do.
    """
    folder = Path(folder)
    _check_folder(folder)
    document = _read_incident(folder)
    about = document.pop("bundle", None)
    document.pop("schema")
    if not isinstance(about, dict):
        raise _refused(folder, INCIDENT, "this incident was recorded without its batch and state", _LATER)
    files, of_batch, of_state = about.get("files"), about.get("batch"), about.get("state")
    with _refusing(folder, BATCH):
        batch_tensors = _take_up_batch(_read_tensors(folder / BATCH, files), of_batch)
    with _refusing(folder, STATE):
        state = take_up(_read_tensors(folder / STATE, files), of_state)
    with _refusing(folder, INCIDENT):
        batch, left_out = _unpack_batch(batch_tensors, of_batch)
        plain = unpack(about.get("plain"), {})
        if not isinstance(plain, dict):
            raise ValueError("what belongs to the state is missing")
    return Bundle(folder, document, batch, state, plain, left_out)


_COPY = "Copy the folder again from where it was written"
_LATER = "Its report is in incident.json; other incidents of the run, or of a run with fewer incidents, may have them"


def _pack_batch(batch: Mapping[str, Any]) -> tuple[dict[str, Tensor], dict[str, Any]]:
    tensors: dict[str, Tensor] = {}
    values: dict[str, Any] = {}
    left_out: dict[str, str] = {}
    for key, value in batch.items():
        found: dict[str, Tensor] = {}
        try:
            values[key] = pack(value, found, key)
            for name, tensor in found.items():
                check(name, tensor)
        except (TypeError, ValueError, RecursionError) as error:
            values.pop(key, None)
            left_out[str(key)] = str(error)
            continue
        tensors.update(found)
    held, about = lay_down(tensors)
    about.update(values=values, left_out=left_out, images=None)
    if _IMAGES in held and (parts := image_levels.split(held[_IMAGES])) is not None:
        levels, about["images"] = parts
        del held[_IMAGES]
        held.update({f"{_IMAGES}/{name}": tensor for name, tensor in levels.items()})
    return held, about


def _take_up_batch(held: dict[str, Tensor], about: Any) -> dict[str, Tensor]:
    images = about.get("images") if isinstance(about, dict) else None
    if images is not None:
        levels, rest = held.pop(f"{_IMAGES}/levels", None), held.pop(f"{_IMAGES}/rest", None)
        if levels is None or _IMAGES in held:
            raise ValueError("its images are missing, or there twice")
        held[_IMAGES] = image_levels.join(levels, rest, images)
    return take_up(held, about)


def _unpack_batch(tensors: Mapping[str, Tensor], about: Any) -> tuple[dict[str, Any], dict[str, str]]:
    values, left_out = about.get("values"), about.get("left_out", {})
    if not isinstance(values, dict) or not isinstance(left_out, dict):
        raise ValueError("it does not say what is in the batch")
    batch = {key: unpack(value, tensors) for key, value in values.items()}
    return batch, {key: str(why) for key, why in left_out.items()}


def _check_folder(folder: Path) -> None:
    """Refuse what is no incident, and an incident that holds links or devices."""
    try:
        if not stat.S_ISDIR(os.stat(folder).st_mode):
            raise _refused(folder, "", "this is a file", f"Give the folder of an incident, such as {folder.parent}")
        entries = list(os.scandir(folder))
    except (OSError, ValueError) as error:
        raise _refused(folder, "", _why(error), "Give the folder of an incident, such as RUN/incidents/0001") from error
    names = {entry.name for entry in entries}
    if INCIDENT not in names:
        inside = folder / "incidents" if "incidents" in names else folder
        with contextlib.suppress(OSError):
            found = sorted(path.parent.name for path in inside.glob(f"*/{INCIDENT}") if path.parent.name[0] != ".")
            if found:
                raise _refused(
                    folder, "", "it is no incident but holds some", f"Give one of {inside}/: {listed(found, 5)}"
                )
        raise _refused(folder, INCIDENT, "it is not there", "Give the folder of an incident: RUN/incidents/0001")
    for entry in entries:
        mode = entry.stat(follow_symlinks=False).st_mode
        if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
            kind = "a link" if stat.S_ISLNK(mode) else "no file but a pipe, socket or device"
            raise _refused(
                folder, entry.name, f"it is {kind}, which no incident has", "Do not trust where it came from"
            )


def _read_incident(folder: Path) -> dict[str, Any]:
    with _refusing(folder, INCIDENT):
        document = parse(read_file(folder / INCIDENT, most=MOST_JSON))
        schema = document.get("schema") if isinstance(document, dict) else None
        if type(schema) is not int or schema < 1:
            raise ValueError("it has no schema: it is not an incident of yolo-stable")
        if schema > SCHEMA:
            newer = f"its schema is {schema}, and this version reads up to {SCHEMA}"
            raise _refused(folder, INCIDENT, newer, "Update yolo-stable")
        return document


def _read_tensors(path: Path, files: Any) -> dict[str, Tensor]:
    written = files.get(path.name) if isinstance(files, dict) else None
    if not isinstance(written, dict):
        raise ValueError(f"{INCIDENT} does not say what was written")
    return tensor_file.decode(read_file(path, written))


@contextlib.contextmanager
def _refusing(folder: Path, name: str) -> Iterator[None]:
    """Turn any error with a file into one line for the person at the terminal."""
    try:
        yield
    except BundleError:
        raise
    except (OSError, ValueError, TypeError, LookupError, RuntimeError, MemoryError) as error:
        raise _refused(folder, name, _why(error)) from error


def _why(error: BaseException) -> str:
    if isinstance(error, RecursionError):
        return "it is nested too deeply"
    if isinstance(error, MemoryError):
        return "there is not enough memory for it"
    if isinstance(error, FileNotFoundError):
        return "it is not there"
    return (error.strerror if isinstance(error, OSError) else None) or str(error)[:300] or type(error).__name__


def _refused(folder: Path, name: str, why: str, advice: str = _COPY) -> BundleError:
    where = f"{folder}: {name}" if name else str(folder)
    line = " ".join(f"The incident cannot be read: {where}: {why}. {advice}.".split())
    return BundleError("".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in line))


def _remove(path: Path) -> None:
    """Remove a folder, or whatever else has its name, but no target of a link."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
