"""Exact JSON: restores a value exactly, and may come from a stranger.

Tuples, dicts with keys that are no text, and non-finite numbers become objects with one key that starts with ``$``. Tensors and
arrays, at any depth, are taken out and named; they belong into a file of tensors.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, MutableMapping
from pathlib import PurePath
from typing import Any

import numpy as np
import torch
from torch import Tensor

MOST_DIGITS = 100
"""Of a whole number; the time to read it grows with their square."""
_NOT_FINITE = {"nan": math.nan, "inf": math.inf, "-inf": -math.inf}


def pack(value: Any, tensors: MutableMapping[str, Tensor], name: str) -> Any:
    """Return ``value`` as JSON can say it; :func:`unpack` reverses it.

    NumPy's numbers come back as Python's, paths as text.

    Args:
        value: Numbers, text, None, tensors, arrays; lists, tuples and dicts of them.
        tensors: Receives the tensors.
        name: Of a tensor found here; one in a container adds its place, ``NAME/0``.

    Raises:
        TypeError: It holds something else; says what and where.

    Examples:
        >>> pack((1, float("inf"), {2: "a"}), {}, "")
        {'$tuple': [1, {'$float': 'inf'}, {'$items': [[2, 'a']]}]}
    """
    if isinstance(value, np.generic):
        value = value.item()
    if value is None or isinstance(value, (bool, int, str)):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else {"$float": str(value)}
    if isinstance(value, PurePath):
        return str(value)
    if isinstance(value, Tensor):
        tensors[name] = value
        return {"$tensor": name}
    if isinstance(value, np.ndarray) and value.dtype.kind in "biuf":
        tensors[name] = torch.from_numpy(np.array(value, order="C", copy=True))
        return {"$array": name}
    if isinstance(value, (list, tuple)):
        packed = [pack(part, tensors, f"{name}/{i}") for i, part in enumerate(value)]
        return {"$tuple": packed} if isinstance(value, tuple) else packed
    if isinstance(value, Mapping):
        if all(type(key) is str and not key.startswith("$") for key in value):
            return {key: pack(part, tensors, f"{name}/{key}") for key, part in value.items()}
        pairs = [[pack(key, {}, name), part] for key, part in value.items()]
        return {"$items": [[key, pack(part, tensors, f"{name}/{i}")] for i, (key, part) in enumerate(pairs)]}
    raise TypeError(f"{name}: {type(value).__module__}.{type(value).__qualname__} cannot be kept without pickle")


def unpack(value: Any, tensors: Mapping[str, Tensor]) -> Any:
    """Return what :func:`pack` was given.

    Raises:
        ValueError: :func:`pack` cannot have returned it, or a tensor is missing.

    Examples:
        >>> unpack({"$tuple": [1, {"$float": "inf"}]}, {})
        (1, inf)
    """
    if isinstance(value, list):
        return [unpack(part, tensors) for part in value]
    if not isinstance(value, dict):
        return value
    kind = next((key for key in value if key.startswith("$")), None)
    if kind is None:
        return {key: unpack(part, tensors) for key, part in value.items()}
    inside = value[kind]
    if len(value) == 1 and isinstance(inside, str):
        if kind == "$float" and inside in _NOT_FINITE:
            return _NOT_FINITE[inside]
        if kind in {"$tensor", "$array"} and inside in tensors:
            return tensors[inside] if kind == "$tensor" else tensors[inside].numpy()
    if len(value) == 1 and isinstance(inside, list):
        if kind == "$tuple":
            return tuple(unpack(part, tensors) for part in inside)
        if kind == "$items" and all(isinstance(pair, list) and len(pair) == 2 for pair in inside):
            pairs = [(_key(key), unpack(part, tensors)) for key, part in inside]
            return dict(pairs)
    raise ValueError(f"{json.dumps(value)[:100]} is not understood, or names a tensor that is not there")


def _key(packed: Any) -> Any:
    key = unpack(packed, {})
    try:
        hash(key)
    except TypeError as error:
        raise ValueError(f"{json.dumps(packed)[:100]} cannot be a key") from error
    return key


def parse(content: bytes) -> Any:
    """Read strict JSON: finite numbers, no repeated keys, printable text.

    Raises:
        ValueError: It is not JSON, or not strict, or nested too deeply; says what.

    Examples:
        >>> parse(b'{"a": 1e999}')
        Traceback (most recent call last):
            ...
        ValueError: the number 1e999 is beyond what a float holds
    """
    try:
        value = json.loads(
            content.decode("utf-8"),
            object_pairs_hook=_object,
            parse_int=_integer,
            parse_float=_number,
            parse_constant=_constant,
        )
        json.dumps(value, ensure_ascii=False).encode("utf-8")  # half a character, as in "\ud800"
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error
    except UnicodeError as error:
        raise ValueError("it holds what is no text") from error
    except json.JSONDecodeError as error:
        raise ValueError(f"it is not JSON ({error})") from error
    return value


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        seen: set[str] = set()
        twice = next(name for name, _ in pairs if name in seen or seen.add(name))
        raise ValueError(f"the key {twice[:100]!r} is there twice")
    return found


def _integer(text: str) -> int:
    if len(text) > MOST_DIGITS:
        raise ValueError(f"the number {text[:40]}... has {len(text)} digits")
    return int(text)


def _number(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError(f"the number {text[:40]} is beyond what a float holds")
    return number


def _constant(text: str) -> float:
    raise ValueError(f"{text} is no JSON")
