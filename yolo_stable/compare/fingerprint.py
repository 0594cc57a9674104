"""Fingerprint of what a comparison's runs are trained on and with: data, network and versions of the code.

Runs of a comparison that goes on another day stand in one table only when all of it is the same.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import os
import platform
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from .. import __version__
from ..data.builtin import is_builtin

DATA, MODEL, VERSIONS = FINGERPRINT = ("content of the data", "content of the model", "versions")
"""What is kept, beside the call."""
LARGEST = 1 << 20
"""Bytes of a description or of a list of images that are read."""
PIECES, PIECE = 9, 1 << 12
"""So many pieces of so many bytes are read of an image, spread over it: all of one of 36 KiB."""
PACKAGES = ("torch", "torchvision", "ultralytics", "numpy")
SPLITS = ("train", "val", "test")
PASSED_OVER = (".cache", ".npy")
"""What Ultralytics itself writes beside images and labels."""


def fingerprint(data: str, model: str | None) -> dict[str, Any]:
    """Return what decides, beside the call, what the runs come to.

    Images count by name, size and some pieces of their content; labels and descriptions by all of their content. Who only touches
    or copies files has the same data.

    Args:
        data: Path or built-in name of the data set.
        model: Path or name of the network.

    Returns:
        One text for each of :data:`FINGERPRINT`; empty where there is nothing yet.
    """
    versions = {"yolo-stable": __version__, "python": platform.python_version()}
    for name in PACKAGES:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            versions[name] = "not installed"
    network = _file(Path(model)) if model is not None and Path(model).is_file() else ""
    return {DATA: _data(data), MODEL: network, VERSIONS: _words(versions)}


def _data(data: str) -> str:
    path = Path(data)
    if not path.exists():
        return f"built in {__version__}" if is_builtin(data) else ""
    places = [path] if path.is_dir() else list(_places(path))
    digest = hashlib.sha256()
    for place in sorted(set(places)):
        for file in [place] if place.is_file() else _files(place):
            if file.name.endswith(PASSED_OVER):
                continue
            what = (_file if file.suffix in (".txt", ".yaml", ".yml") else _pieces)(file)
            digest.update(f"{file}\0{what}\n".encode(errors="surrogateescape"))
    return digest.hexdigest()[:16]


def _places(description: Path) -> Iterator[Path]:
    """Yield a description, and the folders and lists that it names, with the labels beside them."""
    if not description.is_file():  # a pipe would be waited for
        return
    yield description
    try:
        with open(description, "rb") as file:
            content = yaml.load(file.read(LARGEST), getattr(yaml, "CSafeLoader", yaml.SafeLoader))
    except (OSError, ValueError, yaml.YAMLError, RecursionError):
        return
    if not isinstance(content, dict):
        return
    path = content.get("path")
    root = description.parent / (path if isinstance(path, str) else "")
    for split in SPLITS:
        named = content.get(split)
        for entry in named if isinstance(named, list) else [named]:
            if not isinstance(entry, str):
                continue
            place = (root / entry).absolute()
            if not (place.is_dir() or place.is_file()):
                continue
            yield place
            images = [place] if place.is_dir() else _listed(place)
            for image in images:
                head, middle, tail = str(image).rpartition(f"{os.sep}images")
                labels = Path(f"{head}{os.sep}labels{tail}") if middle else None
                if labels is not None and image.is_file():
                    labels = labels.with_suffix(".txt")
                    yield image
                if labels is not None and labels.exists():
                    yield labels


def _listed(place: Path) -> Iterator[Path]:
    with open(place, encoding="utf-8", errors="replace") as file:
        for line in file.read(LARGEST).splitlines():
            path = Path(line.strip())
            path = path if path.is_absolute() else place.parent / path
            if line.strip() and path.is_file():
                yield path.absolute()


def _files(folder: Path) -> Iterator[Path]:
    for where, folders, names in os.walk(folder):
        folders.sort()
        yield from (path for name in sorted(names) if (path := Path(where, name)).is_file())


def _file(path: Path) -> str:
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while part := file.read(1 << 20):
            digest.update(part)
    return digest.hexdigest()[:16]


def _pieces(path: Path) -> str:
    digest, size = hashlib.sha256(), path.stat().st_size
    with open(path, "rb") as file:
        for place in range(PIECES):
            file.seek(max(size - PIECE, 0) * place // (PIECES - 1))
            digest.update(file.read(PIECE))
    return f"{size} {digest.hexdigest()[:16]}"


def _words(versions: dict[str, str]) -> str:
    return ", ".join(f"{name} {version}" for name, version in versions.items())
