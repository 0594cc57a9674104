"""Description: the ``data.yaml`` as Ultralytics reads it, but to the end.

Ultralytics stops at the first fault; here each becomes a finding at its line, and reading goes on with the rest.
``tests/check/test_description.py`` compares this reading with Ultralytics' own.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import yaml

from .._shared.regular_file import read_file
from .._shared.text import listed
from ..errors import InvalidCallError
from .finding import Severity, number
from .layout import SPLITS, WHERE, Layout
from .rules import found
from .yaml_text import parse

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
"""Limit of a ``data.yaml``; 20,000 classes take half of it."""
LARGEST_ID = 1 << 24
"""Labels are float32, which holds whole numbers below this."""
ENDINGS = (".yaml", ".yml")
_MOST_SHOWN = 60
"""Characters of a value in a message."""


def read_yaml(path: Path, task: str | None, only: tuple[str, ...]) -> Layout:
    """Read a ``data.yaml``, of whose splits those in ``only`` are wanted.

    Raises:
        InvalidCallError: The file cannot be opened.
    """
    layout = Layout(place=path, root=path.parent, task=task)
    try:
        raw = read_file(path, most=MOST_BYTES, links=True)
    except (OSError, ValueError) as error:
        why = getattr(error, "strerror", None) or error
        raise InvalidCallError(f"{WHERE}: {path} cannot be read: {why}.") from error
    if not str(path).lower().endswith(ENDINGS):
        layout.add("yaml-unreadable", f"ends in {path.suffix or 'nothing'}; Ultralytics reads {' and '.join(ENDINGS)}")
    try:
        raw.decode("utf-8")
    except UnicodeDecodeError as error:
        layout.add("yaml-encoding", f"byte {error.start} is not UTF-8")
    try:
        parsed = parse(raw)
        content, layout.lines = parsed.value, parsed.lines
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
    for key in parsed.repeated:
        lines, taken = dict.fromkeys(map(str, key.lines)), repr(key.value)
        taken = taken if len(taken) <= _MOST_SHOWN else f"{taken[:_MOST_SHOWN]}..."
        where = f"line{'s' * (len(lines) > 1)} {', '.join(lines)}"
        message = f"{key.key} is there {len(key.lines)} times ({where}); Ultralytics takes the last: {taken}"
        layout.findings.append(found("yaml-twice", path, message, line=key.lines[0]))
    _read_keys(layout, content)
    _read_names(layout, content)
    _read_written(layout, parsed.written)
    _read_keypoints(layout, content)
    _read_channels(layout, content)
    _read_splits(layout, content, only)
    return layout


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
        layout.add("names-nc", f"ids of names are {listed(names)}; they must be whole numbers", "names")
        return
    count = len(names)
    if any(abs(key) >= LARGEST_ID for key in layout.names) or len(layout.names) != count:
        ids = listed(map(repr, names), 6)
        layout.names = {}  # which name belongs to which number cannot be told
        layout.add("names-nc", f"ids of names are {ids}; they must be 0 to {count - 1}, each once", "names")
        return
    if nc is not None and nc != count:
        layout.add("names-nc", f"nc is {nc} and names has {count}; they must be equal", "nc")
    if sorted(layout.names) != list(range(count)) or not count:
        ids = listed(sorted(layout.names), 6) or "none"
        layout.add("names-nc", f"ids of names are {ids}; they must be 0 to {max(count - 1, 0)}", "names")
    seen: dict[str, int] = {}
    for key, name in layout.names.items():
        other = seen.setdefault(name.strip().lower(), key)
        if other != key:
            layout.add("names-twice", f"classes {other} and {key} are both called {name!r}", f"names/{key}")


def _read_written(layout: Layout, written: list[str]) -> None:
    """Report empty names, and names that YAML takes for something else than what is written."""
    for (key, name), text in zip(layout.names.items(), written, strict=False):
        if not name.strip():
            layout.add("names-odd", f"class {key} has an empty name", f"names/{key}")
        elif name != text:
            layout.add("names-odd", f"class {key} is written {text or 'empty'} and is called {name!r}", f"names/{key}")


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
    if count and flip is None and "flip_idx" in content:
        layout.add("flip-idx", "flip_idx is null; leave the key out, or list each keypoint's mirror image", "flip_idx")
    elif count and flip:
        whole = all(type(value) is int for value in flip)
        if not whole or sorted(flip) != list(range(count)):
            must = f"it must hold the numbers 0 to {number(count - 1)}, each once"
            layout.add("flip-idx", f"flip_idx is {flip!r}; {must}", "flip_idx")
        elif odd := [n for n in range(count) if flip[flip[n]] != n]:
            n = odd[0]
            message = (
                f"the mirror image of keypoint {n} is {flip[n]}, and that of {flip[n]} is {flip[flip[n]]}, not {n}"
            )
            layout.add("flip-idx", message, "flip_idx")


def _read_channels(layout: Layout, content: dict[str, Any]) -> None:
    channels = content.get("channels", layout.channels)
    severity = Severity.WARNING if channels is True else None  # which counts as 1
    if isinstance(channels, int) and channels > 0:
        layout.channels = int(channels)
    if type(channels) is not int or channels < 1:
        message = f"'channels' is {channels!r:.40}; it must be a whole number above 0"
        layout.add("yaml-key", message, "channels", severity)


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
