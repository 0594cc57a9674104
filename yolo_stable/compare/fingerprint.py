"""Fingerprint of a comparison: the content of data and network, and the versions of the code.

Runs of different days share a table only when all of it is the same.
"""

from __future__ import annotations

import hashlib
import os
import platform
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from .. import __version__
from .._shared.system import installed_versions
from ..data.builtin import is_builtin

DATA, MODEL, VERSIONS = FINGERPRINT = ("content of the data", "content of the model", "versions")
"""Keys of the record beside the call."""
LARGEST = 1 << 20
"""Bytes that are read of a description or of a list of images."""
PIECES, PIECE = 9, 1 << 12
"""Pieces that are read of an image, and their bytes; they are spread over it, and cover one of 36 KiB."""
PACKAGES = ("torch", "torchvision", "ultralytics", "numpy")
SPLITS = ("train", "val", "test")
PASSED_OVER = (".cache", ".npy")
"""What Ultralytics itself writes beside images and labels."""


def fingerprint(data: str, model: str | None) -> dict[str, Any]:
    """Return what decides the results beside the call.

    Images count by name, size and pieces of their content; labels and descriptions by all of it. Touched or copied files are the
    same data.

    Returns:
        One text for each of :data:`FINGERPRINT`; empty where there is nothing yet.
    """
    found = installed_versions(*PACKAGES)
    versions = {"yolo-stable": __version__, "python": platform.python_version()}
    versions |= {name: found.get(name, "not installed") for name in PACKAGES}
    network = _file(Path(model)) if model is not None and Path(model).is_file() else ""
    words = ", ".join(f"{name} {version}" for name, version in versions.items())
    return {DATA: _data(data), MODEL: network, VERSIONS: words}


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
    """Yield a description, the folders and lists that it names, and the labels beside them."""
    if not description.is_file():  # reading a pipe would wait
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
