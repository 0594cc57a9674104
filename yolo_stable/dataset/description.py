"""The ``data.yaml``, read as Ultralytics reads it, but to the end.

Ultralytics stops at the first thing that is wrong; here each becomes a finding at its line, and reading goes on with what is
left. ``tests/dataset/test_description.py`` holds this reading against Ultralytics' own.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

import yaml

from ..errors import InvalidCallError
from .finding import number, some
from .layout import SPLITS, WHERE, Layout
from .rules import found

_TYPES: dict[str, tuple[type, ...]] = {
    "path": (str,),
    "train": (str, list),
    "val": (str, list),
    "test": (str, list),
    "names": (list, dict),
    "kpt_shape": (list,),
    "flip_idx": (list,),
}
_NOT_TEXT = re.compile("[^\x09\x0a\x0d\x20-\x7e\x85\xa0-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]+")


def read_yaml(path: Path, task: str | None, only: tuple[str, ...]) -> Layout:
    """Read a ``data.yaml``.

    Args:
        path: The file.
        task: What was asked for, or None.
        only: Splits that are wanted.

    Raises:
        InvalidCallError: The file cannot be opened.
    """
    layout = Layout(place=path, root=path.parent, task=task)
    try:
        text = _NOT_TEXT.sub("", path.read_text(encoding="utf-8", errors="ignore"))
        content = yaml.safe_load(text)
        if not isinstance(content, dict):
            layout.add("yaml-unreadable", f"holds {type(content).__name__}; it must be keys with values")
            return layout
        layout.lines = _lines(text)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = mark.line + 1 if mark else None
        problem = getattr(error, "problem", None) or "not YAML"
        layout.findings.append(found("yaml-unreadable", path, f"not YAML: {problem}", line=line))
        return layout
    except OSError as error:
        raise InvalidCallError(f"{WHERE}: {path} cannot be read: {error.strerror}.") from error
    layout.description = content
    _read_keys(layout, content)
    _read_names(layout, content)
    _read_keypoints(layout, content)
    _read_splits(layout, content, only)
    return layout


def _lines(text: str) -> dict[str, int]:
    """Return the line of each key, from 1, and of each entry of ``names``."""
    root = yaml.compose(text, Loader=yaml.SafeLoader)
    lines: dict[str, int] = {}
    for key, value in root.value if isinstance(root, yaml.MappingNode) else ():
        lines[str(key.value)] = key.start_mark.line + 1
        if key.value == "names" and isinstance(value, yaml.CollectionNode):
            for index, entry in enumerate(value.value):
                node, name = entry if isinstance(entry, tuple) else (entry, str(index))
                lines[f"names/{name if isinstance(name, str) else node.value}"] = node.start_mark.line + 1
    return lines


def _read_keys(layout: Layout, content: dict[str, Any]) -> None:
    if "val" not in content and "validation" in content:
        content["val"] = content.pop("validation")
        layout.lines["val"] = layout.lines["validation"]
    for key, types in _TYPES.items():
        if content.get(key) is not None and not isinstance(content[key], types):
            expected = " or ".join(kind.__name__ for kind in types)
            layout.add("yaml-key", f"'{key}' is {type(content[key]).__name__}; it must be {expected}", key)
            content.pop(key)
    for key in ("train", "val"):
        if not content.get(key) and not any(finding.message.startswith(f"'{key}'") for finding in layout.findings):
            layout.add("yaml-key", f"'{key}' is missing; a data.yaml needs 'train' and 'val'", key)


def _read_names(layout: Layout, content: dict[str, Any]) -> None:
    names, nc = content.get("names"), content.get("nc")
    if "nc" in content:
        try:
            nc = int(float(nc)) if float(nc) == int(float(nc)) else None  # pyright: ignore[reportArgumentType]
        except (TypeError, ValueError, OverflowError):
            nc = None
        if nc is None:
            layout.add("names-nc", f"nc is {content['nc']!r}; it must be a whole number", "nc")
    if names is None:
        layout.names = {i: f"class_{i}" for i in range(nc or 0)}
        if nc is None or nc < 1:
            layout.add("names-nc", f"names is missing and nc is {nc}; one class or more is needed", "names")
        return
    pairs = enumerate(names) if isinstance(names, list) else names.items()
    try:
        layout.names = {int(key): str(name) for key, name in pairs}
    except (TypeError, ValueError):
        layout.add("names-nc", f"ids of names are {some(names)}; they must be whole numbers", "names")
        layout.names = dict(enumerate(map(str, names if isinstance(names, list) else names.values())))
    count = len(layout.names)
    if nc is not None and nc != count:
        layout.add("names-nc", f"nc is {nc} and names has {count}; they must be equal", "nc")
    if sorted(layout.names) != list(range(count)) or not count:
        ids = some(sorted(layout.names), 6) or "none"
        layout.add("names-nc", f"ids of names are {ids}; they must be 0 to {max(count - 1, 0)}", "names")
    seen: dict[str, int] = {}
    for key, name in layout.names.items():
        other = seen.setdefault(name.strip().lower(), key)
        if other != key:
            layout.add("names-twice", f"class {key} is called {name!r}, as is class {other}", f"names/{key}")


def _read_keypoints(layout: Layout, content: dict[str, Any]) -> None:
    shape, flip = content.get("kpt_shape"), content.get("flip_idx")
    whole = isinstance(shape, list) and len(shape) == 2 and all(type(value) is int for value in shape)
    count, size = shape if isinstance(shape, list) and whole else (0, 0)
    if count > 0 and size in (2, 3):
        layout.keypoints = (count, size)
        layout.task = layout.task or "pose"
    elif shape is not None or layout.task == "pose":
        given = "missing" if shape is None else f"{shape!r}"
        layout.add("kpt-shape", f"kpt_shape is {given}; it must be [number of keypoints, 2 or 3]", "kpt_shape")
    if flip is not None and count and sorted(map(str, flip)) != sorted(map(str, range(count))):
        layout.add("flip-idx", f"flip_idx is {flip!r}; it must hold 0 to {number(count - 1)}, each once", "flip_idx")


def _read_splits(layout: Layout, content: dict[str, Any], only: tuple[str, ...]) -> None:
    root = Path(content.get("path") or layout.place.parent)
    if not root.exists() and not root.is_absolute():
        from ultralytics.utils import DATASETS_DIR  # its settings say where; asked only when nothing else is known

        root = DATASETS_DIR / root
    layout.root = Path(os.path.abspath(root))
    for split in (split for split in SPLITS if split in only and content.get(split)):
        value = content[split]
        sources: list[Path] = []
        for entry in [value] if isinstance(value, str) else value:
            path = (root / str(entry)).resolve()
            if isinstance(value, str) and not path.exists() and value.startswith("../"):
                path = (root / value[3:]).resolve()
            if path.exists():
                sources.append(path)
            else:
                layout.add("path-missing", f"{split}: {path} does not exist", split)
        layout.splits[split] = sources
