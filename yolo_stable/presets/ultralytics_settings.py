"""Ultralytics' training settings: their defaults, their types, and whether a value can be one of them.

They come from the installed ``ultralytics/cfg/default.yaml`` and its ``# (type) description`` comments, without importing
Ultralytics, which takes seconds.
"""

from __future__ import annotations

import ast
import functools
import importlib.util
import math
import os
import re
import warnings
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any

from ..errors import InvalidCallError, nearest
from .commented_yaml import CommentedYaml

_PYTHON_ONLY = ("augmentations", "save_dir")  # train() takes them, though default.yaml does not list them
_WIDER = {  # where Ultralytics accepts more than the comment in default.yaml says
    "auto_augment": ("optional",),  # None switches it off
    "data": ("list",),  # several data sets are trained one after the other
    "name": ("int", "float"),  # a number becomes text
    "project": ("int", "float"),
    "resume": ("str",),  # the path of a checkpoint
}


@dataclass(frozen=True)
class _Declared:
    """What default.yaml says about one key: its default, the names of its types, and their text for a message."""

    default: Any
    types: frozenset[str]
    text: str


@functools.cache
def _declared() -> dict[str, _Declared]:
    spec = importlib.util.find_spec("ultralytics")  # does not import it
    if spec is None or not spec.submodule_search_locations:
        raise InvalidCallError("Ultralytics is not installed in this Python. Install it: pip install ultralytics")
    declared = {}
    for entry in CommentedYaml.read(Path(spec.submodule_search_locations[0], "cfg", "default.yaml")).entries:
        match = re.match(r"\((.*?)\)", entry.comment)  # (int | list[int], optional)
        names = [name.strip() for name in re.split(r"[|,]", match.group(1))] if match else []
        if names:
            names += [*_WIDER.get(entry.key, ()), *([] if entry.value is not None else ["optional"])]
        types = frozenset(name.split("[")[0] for name in names)
        text = " or ".join(dict.fromkeys("none" if name == "optional" else name for name in names))
        declared[entry.key] = _Declared(entry.value, types, text)
    return declared


def is_installed() -> bool:
    """Say whether this Python has Ultralytics."""
    return importlib.util.find_spec("ultralytics") is not None


def default_hyp() -> dict[str, Any]:
    """Return all of Ultralytics' settings with their defaults, in its order.

    Raises:
        InvalidCallError: Ultralytics is not installed.

    Examples:
        >>> default_hyp()["optimizer"]
        'auto'
    """
    return {key: entry.default for key, entry in _declared().items()}


def parse_value(text: str, key: str = "") -> Any:
    """Turn the text after ``=`` into a value, as Ultralytics' own command line does.

    Args:
        text: What follows the ``=``: none, true, false or a Python literal; else it stays text.
        key: What precedes it; ``name`` and ``project`` stay text, except ``none``.

    Examples:
        >>> [parse_value(text) for text in ("none", "TRUE", "1e-3", "[3, 4]", "320,640", "yolo11n.pt")]
        [None, True, 0.001, [3, 4], (320, 640), 'yolo11n.pt']
        >>> parse_value("007", key="name")
        '007'
    """
    text = text.strip()
    words = {"none": None, "true": True, "false": False}
    if text.lower() == "none" or (key not in ("name", "project") and text.lower() in words):
        return words[text.lower()]
    if key in ("name", "project"):
        return text
    try:
        with warnings.catch_warnings():  # Python warns of text that is almost a literal, such as 1if
            warnings.simplefilter("ignore")
            return ast.literal_eval(text)
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):  # all that literal_eval documents
        return text


def check_setting(key: str, value: Any, where: str) -> None:
    """Refuse what Ultralytics would refuse or misunderstand.

    Ultralytics itself checks ranges when it sets up training.

    Raises:
        InvalidCallError: The key is unknown, or the value has the wrong type or is not finite.

    Examples:
        >>> check_setting("lr0", 0.001, "command line")
        >>> check_setting("lr_0", 0.001, "command line")
        Traceback (most recent call last):
        yolo_stable.errors.InvalidCallError: command line: 'lr_0' is not a setting of Ultralytics. Did you mean 'lr0'? \
`yolo cfg` lists all of them.
    """
    declared = _declared()
    if key in _PYTHON_ONLY:
        return
    if key not in declared:
        hint = nearest(key, declared)
        raise InvalidCallError(f"{where}: {key!r} is not a setting of Ultralytics.{hint} `yolo cfg` lists all of them.")
    number = _first_non_finite(value)
    if number is not None:
        raise InvalidCallError(f"{where}: {key}={value!r} is not finite. Give a number{_example(key)}.")
    types = declared[key].types
    if types and not _matches(value, types):
        found = "None" if value is None else f"{value!r} ({type(value).__name__})"
        raise InvalidCallError(
            f"{where}: {key} is {found}, but takes {declared[key].text}{_example(key)}.{_number_hint(value, types)}"
        )


def _example(key: str) -> str:
    """Return the default as an example, if there is one."""
    default = _declared()[key].default
    return "" if default is None else f", such as Ultralytics' default {default!r}"


def _first_non_finite(value: Any) -> float | None:
    """Return the first NaN or infinity in a number or in a flat sequence."""
    members = value if isinstance(value, (list, tuple)) else (value,)
    return next((member for member in members if isinstance(member, float) and not math.isfinite(member)), None)


def _matches(value: Any, types: frozenset[str]) -> bool:
    """Say whether a value has a declared type; unlike in Python, a bool is no int."""
    if value is None:
        return "optional" in types
    if isinstance(value, bool):
        return "bool" in types
    if isinstance(value, int):
        return not types.isdisjoint({"int", "float"})
    if isinstance(value, float):  # Ultralytics turns 1e2 into 100 where only an int will do
        return "float" in types or (types <= {"int", "optional"} and value.is_integer())
    if isinstance(value, (str, os.PathLike)):
        return "str" in types
    if isinstance(value, (list, tuple)):
        return not types.isdisjoint({"list", "tuple"})
    return False


def _number_hint(value: Any, types: frozenset[str]) -> str:
    """Say how to write a number that arrived as text, as 1e-3 does from YAML.

    Examples:
        >>> _number_hint("1e-5", frozenset({"float"}))
        ' It arrived as text: YAML needs a point and a sign in 1.0e-5; or write 0.00001, without quotes.'
        >>> _number_hint("8", frozenset({"int"}))
        ' It arrived as text: write 8, without quotes.'
    """
    if not isinstance(value, str) or types.isdisjoint({"int", "float"}):
        return ""
    match = re.fullmatch(r"\s*([-+]?)(\d*)\.?(\d*)(?:[eE]([-+]?)(\d{1,2}))?\s*", value)
    if not match or not (match.group(2) or match.group(3)):
        return ""
    plain = format(Decimal(value.strip()), "f")
    if match.group(5) is None:
        return f" It arrived as text: write {plain}, without quotes."
    sign, whole, fraction, exponent_sign, exponent = match.groups()
    scientific = f"{sign}{whole or 0}.{fraction or 0}e{exponent_sign or '+'}{exponent}"
    return f" It arrived as text: YAML needs a point and a sign in {scientific}; or write {plain}, without quotes."
