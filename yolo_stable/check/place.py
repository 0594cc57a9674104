"""Place of a data set: ``DATA`` names a built-in one, a ``data.yaml``, or a folder."""

from __future__ import annotations

import importlib.util
from pathlib import Path

from .._shared.text import listed
from ..data.builtin import is_builtin, make
from ..errors import InvalidCallError, nearest
from .description import read_yaml
from .folders import read_folders
from .layout import SPLITS, TASKS, WHERE, Layout


def read_layout(data: str, task: str | None = None, only: tuple[str, ...] = SPLITS) -> Layout:
    """Find and read the description of a data set.

    Args:
        data: Path of a ``data.yaml`` or of a folder; a built-in data set of ours or, by name, of Ultralytics.
        task: One of :data:`TASKS`, or None: classification for a folder without a YAML, else told by the labels later.
        only: Splits that are wanted.

    Raises:
        InvalidCallError: There is no such data set, or it is not on this machine.
    """
    if task is not None and task not in TASKS:
        raise InvalidCallError(f"{WHERE}: task={task} is not among {', '.join(TASKS)}.{nearest(task, TASKS)}")
    path = _locate(data, task)
    if path.is_dir():
        inside = sorted(path.glob("*.yaml")) or sorted(path.rglob("*.yaml")) or sorted(path.rglob("*.yml"))
        if task == "classify" or (task is None and _looks_classified(path)):
            return read_folders(path, only)
        if len(inside) > 1:
            inside = [file for file in inside if file.stem == path.stem] or inside
        if len(inside) != 1:
            what = f"{len(inside)} YAML files ({listed(file.name for file in inside)})" if inside else "no YAML file"
            raise InvalidCallError(
                f"{WHERE}: {path} holds {what} and no class folders. Give the path of the data.yaml."
            )
        path = inside[0]
    if task == "classify":
        raise InvalidCallError(
            f"{WHERE}: {path} is a file. For task=classify give the folder that holds train/ and val/."
        )
    return read_yaml(path, task, only)


def _locate(data: str, task: str | None) -> Path:
    if is_builtin(data):
        return Path(make(data, task=task or "detect"))
    path = Path(data)
    if "://" in data or path.suffix in {".zip", ".tar", ".gz", ".ndjson"}:
        raise InvalidCallError(
            f"{WHERE}: {data} is not a folder or a YAML on this machine. Download and unpack it first."
        )
    if path.exists():
        return path.resolve()
    spec = importlib.util.find_spec("ultralytics")  # finds the folder without importing anything
    for folder in spec.submodule_search_locations or () if spec else ():
        known = Path(folder, "cfg", "datasets", path.name if path.suffix else f"{path.name}.yaml")
        if known.exists() and path.name == str(path):
            return known
    raise InvalidCallError(f"{WHERE}: {data} does not exist. Give the path of a data.yaml or of a folder.")


def _looks_classified(path: Path) -> bool:
    """Say whether ``train`` holds folders of classes; ``train/images`` with ``train/labels`` are no classes."""
    folders = (
        {child.name for child in (path / "train").iterdir() if child.is_dir()} if (path / "train").is_dir() else set()
    )
    return bool(folders) and not folders & {"images", "labels"}
