"""Text of a ``data.yaml``: its values, the lines of its keys, keys that it has twice, and names as they are written."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import yaml

MOST_VALUES = 200_000
MOST_DIGITS = 200
_LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
"""Ultralytics' choice; the two read blanks and tabs differently."""
_TEXT = frozenset({"tag:yaml.org,2002:str", "tag:yaml.org,2002:binary"})
_MERGE = "tag:yaml.org,2002:merge"
_NOT_TEXT = re.compile("[^\x09\x0a\x0d\x20-\x7e\x85\xa0-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]+")


@dataclass(frozen=True, slots=True)
class Repeated:
    """A key that one mapping has more than once."""

    key: str
    lines: tuple[int, ...]
    value: Any
    """What the loader takes: the last one."""


@dataclass
class Parsed:
    """What a YAML holds."""

    value: Any = None
    lines: dict[str, int] = field(default_factory=dict)
    """The line of each key, from 1, and of each entry of ``names`` as ``names/KEY``."""
    repeated: list[Repeated] = field(default_factory=list)
    """Keys that the document, or its ``names``, has more than once."""
    written: list[str] = field(default_factory=list)
    """Each entry of ``names`` as it is written; none when a key is repeated or merged from elsewhere."""


def parse(content: bytes) -> Parsed:
    """Read a YAML as Ultralytics does, without the bytes that are no text.

    Raises:
        yaml.YAMLError: It is no YAML.
        ValueError: It holds a value that YAML allows and Python does not, or unfolds to more than :data:`MOST_VALUES`.
        RecursionError: It is too deep.
    """
    loader = _LOADER(_NOT_TEXT.sub("", content.decode("utf-8", errors="ignore")))
    try:
        root = loader.get_single_node()
        if root is None:
            return Parsed()
        size = _unfolded(root, {})
        if size > MOST_VALUES:
            raise ValueError(f"its aliases unfold to more than {MOST_VALUES} values")
        names = {key.value: value for key, value in _pairs(root) if isinstance(key, yaml.ScalarNode)}.get("names")
        lines, keys, keys_of_names = _lines(root), _keys(root, loader), _keys(names, loader)
        merged = any(key.tag == _MERGE for key, _ in _pairs(names))
        written = [] if merged or len(keys_of_names) < len(_pairs(names)) else _written(names)
        value = loader.construct_document(root)  # writes into the nodes
        repeated = [*_repeated(keys, value), *_repeated(keys_of_names, value["names"] if keys_of_names else None)]
        return Parsed(value, lines, repeated, written)
    finally:
        loader.dispose()


def _pairs(node: yaml.Node | None) -> list[tuple[yaml.Node, yaml.Node]]:
    return node.value if isinstance(node, yaml.MappingNode) else []


def _unfolded(node: yaml.Node, sizes: dict[int, int]) -> int:
    """Return how many values a node holds with aliases written out, at most :data:`MOST_VALUES` + 1.

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
    lines: dict[str, int] = {}
    for key, value in _pairs(root):
        lines[str(key.value)] = key.start_mark.line + 1
        if key.value == "names" and isinstance(value, yaml.CollectionNode):
            for index, entry in enumerate(value.value):
                node, name = entry if isinstance(entry, tuple) else (entry, str(index))
                lines[f"names/{name if isinstance(name, str) else node.value}"] = node.start_mark.line + 1
    return lines


def _keys(node: yaml.Node | None, loader: Any) -> dict[Any, list[int]]:
    """Return the lines of each key: ``1``, ``01`` and ``0x1`` are one."""
    lines: dict[Any, list[int]] = {}
    for key, _ in _pairs(node):
        if isinstance(key, yaml.ScalarNode) and key.tag != _MERGE:
            lines.setdefault(loader.construct_object(key), []).append(key.start_mark.line + 1)
    return lines


def _repeated(keys: Mapping[Any, Sequence[int]], values: Any) -> Iterator[Repeated]:
    for key, lines in keys.items():
        if len(lines) > 1 and isinstance(values, dict):  # a YAML set takes no values
            yield Repeated(str(key), tuple(lines), values[key])


def _written(names: yaml.Node | None) -> list[str]:
    nodes = names.value if isinstance(names, yaml.SequenceNode) else [value for _, value in _pairs(names)]
    return [node.value if isinstance(node, yaml.ScalarNode) else "a list or mapping" for node in nodes]
