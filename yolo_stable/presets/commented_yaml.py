"""Commented YAML: a mapping with the comments on its lines.

PyYAML reads the values; its nodes know the line of each key, and the rest of that line is the comment.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from ..errors import InvalidCallError


@dataclass(frozen=True)
class YamlEntry:
    """One ``key: value  # comment`` of a file."""

    key: str
    """Text, even where YAML reads another type (``on``, ``1``)."""
    value: Any
    comment: str
    """On the line where the value ends, without ``#``; may be empty."""
    line: int
    """Of the key, from 1."""


@dataclass(frozen=True)
class CommentedYaml:
    """A YAML file that holds one mapping."""

    path: Path
    head: tuple[str, ...]
    """The comment lines at the top of the file, without ``#``."""
    entries: tuple[YamlEntry, ...]
    """In the order of the file."""

    @classmethod
    def read(cls, path: Path) -> CommentedYaml:
        """Read a UTF-8 file.

        Raises:
            InvalidCallError: The file cannot be read, is not YAML, is no mapping, or repeats a key; with the line if known.
        """
        try:
            text = path.read_text(encoding="utf-8-sig")
        except (OSError, UnicodeDecodeError) as error:
            reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
            raise InvalidCallError(f"{path} cannot be read: {reason}. Give the path of a YAML file.") from error
        try:
            entries = _entries(path, text)
        except yaml.MarkedYAMLError as error:
            mark = error.problem_mark or error.context_mark
            where = f"{path}:{mark.line + 1}" if mark else f"{path}"
            problem = error.problem or error.context
            raise InvalidCallError(f"{where}: not valid YAML: {problem}. Write one `key: value` per line.") from error
        except yaml.YAMLError as error:
            raise InvalidCallError(f"{path}: not valid YAML: {error}. Write one `key: value` per line.") from error
        return cls(path, _head(text), entries)


def _head(text: str) -> tuple[str, ...]:
    """Return the comment lines before the first other line."""
    lines: list[str] = []
    for line in text.splitlines():
        if not line.startswith("#"):
            break
        lines.append(line.lstrip("#").strip())
    return tuple(lines)


def _entries(path: Path, text: str) -> tuple[YamlEntry, ...]:
    """Construct the values node by node, since only the nodes know their lines."""
    loader = yaml.SafeLoader(text)
    try:
        node = loader.get_single_node()
        if not isinstance(node, yaml.MappingNode):
            found = "is empty" if node is None else "holds a list" if isinstance(node, yaml.SequenceNode) else "is text"
            raise InvalidCallError(f"{path} {found}, but settings are a mapping: write one `key: value` per line.")
        lines: dict[str, int] = {}
        for key, _ in node.value:
            name, line = str(key.value), key.start_mark.line + 1
            if name in lines:  # YAML would silently take the last one
                raise InvalidCallError(
                    f"{path}:{line}: {name!r} is given twice, first on line {lines[name]}. Remove one of the two."
                )
            lines[name] = line
        loader.flatten_mapping(node)  # replaces a merge key (<<) by its pairs
        entries: dict[str, YamlEntry] = {}
        for key, value in node.value:
            name, line = str(key.value), key.start_mark.line + 1
            rest = text[value.end_mark.index :].split("\n", 1)[0].strip()
            comment = rest.lstrip("#").strip() if rest.startswith("#") else ""
            try:
                entries[name] = YamlEntry(name, loader.construct_object(value, deep=True), comment, line)
            except ValueError as error:  # YAML takes 2024-13-45 for a date
                raise InvalidCallError(f"{path}:{line}: the value of {name!r} is not valid: {error}.") from error
        return tuple(entries.values())
    finally:
        loader.dispose()
