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
from ..regular_file import read_file
from .finding import Severity, number, some
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
MOST_BYTES = 1 << 20
"""Of a ``data.yaml``; one with 20,000 classes has half of it."""
MOST_VALUES = 200_000
MOST_DIGITS = 200
LARGEST_ID = 1 << 24
"""Labels are compared as float32, which holds whole numbers below this."""
_TEXT = frozenset({"tag:yaml.org,2002:str", "tag:yaml.org,2002:binary"})
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
        text = _NOT_TEXT.sub("", read_file(path, most=MOST_BYTES, links=True).decode("utf-8", errors="ignore"))
    except (OSError, ValueError) as error:
        why = getattr(error, "strerror", None) or error
        raise InvalidCallError(f"{WHERE}: {path} cannot be read: {why}.") from error
    try:
        content, layout.lines = _parse(text)
        if not isinstance(content, dict):
            layout.add("yaml-unreadable", f"holds {type(content).__name__}; it must be keys with values")
            return layout
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        mark = getattr(error, "problem_mark", None)
        line = mark.line + 1 if mark else None
        problem = getattr(error, "problem", None) or (str(error) if isinstance(error, ValueError) else "too deep")
        layout.findings.append(found("yaml-unreadable", path, f"not YAML: {problem}", line=line))
        return layout
    layout.description = content
    _read_keys(layout, content)
    _read_names(layout, content)
    _read_keypoints(layout, content)
    _read_channels(layout, content)
    _read_splits(layout, content, only)
    return layout


def _parse(text: str) -> tuple[Any, dict[str, int]]:
    """Return what a YAML holds, and the lines of its keys.

    Raises:
        yaml.YAMLError: It is no YAML.
        ValueError: It holds a value that YAML allows and Python does not, or unfolds to more than :data:`MOST_VALUES`.
    """
    loader = yaml.SafeLoader(text)
    try:
        root = loader.get_single_node()
        if root is None:
            return None, {}
        size = _unfolded(root, {})
        if size > MOST_VALUES:
            raise ValueError(f"its aliases unfold to more than {MOST_VALUES} values")
        return loader.construct_document(root), _lines(root)
    finally:
        loader.dispose()


def _unfolded(node: yaml.Node, sizes: dict[int, int]) -> int:
    """Return how many values a node holds when each alias is written out; :data:`MOST_VALUES` + 1 stands for all more.

    Raises:
        ValueError: An alias stands inside of what it stands for, or a number has more than :data:`MOST_DIGITS` digits.
    """
    if id(node) in sizes:
        if not sizes[id(node)]:
            raise ValueError("an alias stands inside of what it stands for")
        return sizes[id(node)]
    sizes[id(node)] = 0
    size = 1
    if isinstance(node, yaml.CollectionNode):
        for part in node.value:
            size += sum(_unfolded(inner, sizes) for inner in (part if isinstance(part, tuple) else (part,)))
    elif len(node.value) > MOST_DIGITS and node.tag not in _TEXT:
        raise ValueError(f"a number has {len(node.value)} digits")
    sizes[id(node)] = size = min(size, MOST_VALUES + 1)
    return size


def _lines(root: yaml.Node) -> dict[str, int]:
    """Return the line of each key, from 1, and of each entry of ``names``."""
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
    except (TypeError, ValueError, OverflowError):
        layout.add("names-nc", f"ids of names are {some(names)}; they must be whole numbers", "names")
        return
    count = len(names)
    if any(abs(key) >= LARGEST_ID for key in layout.names) or len(layout.names) != count:
        layout.names = {}  # which name belongs to which number cannot be told
        layout.add("names-nc", f"ids of names are {some(names)}; they must be 0 to {count - 1}, each once", "names")
        return
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


def _read_channels(layout: Layout, content: dict[str, Any]) -> None:
    channels = content.get("channels", layout.channels)
    if type(channels) is int and channels > 0:
        layout.channels = channels
    else:
        layout.add("yaml-key", f"'channels' is {channels!r:.40}; it must be a whole number above 0", "channels")


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
                severity = Severity.WARNING if split == "test" else None  # training goes without
                message = f"{split}: {path} does not exist"
                layout.findings.append(
                    found("path-missing", layout.place, message, line=layout.lines.get(split), severity=severity)
                )
        layout.splits[split] = sources
