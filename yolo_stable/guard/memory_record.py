"""Memory record: writes what a loss keeps as JSON and tensors for a file, and reads it into a new loss.

It records what micro-batches have changed, by path: ``{"path", "kind", "value"}``. Reading makes no object of a class that the
file names: it fills the objects that the loss has.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .holders import GONE, ArrayNumbers, Attributes, Bytes, Dictionary, Holder, Items, Members, Numbers
from .memory import Memory

PREFIX = "memory/"
"""Prefix of its tensors' names."""


class _NotPlainError(Exception):
    """A value that no file can hold without pickle, or that has no place in the new loss."""


def record(memory: Memory) -> tuple[dict[str, Tensor], list[dict[str, Any]]]:
    """Return what a memory has learned: tensors by name, and entries for JSON. The memory reports what cannot be recorded.

    Syncs: none.
    """
    tensors: dict[str, Tensor] = {}
    entries: list[dict[str, Any]] = []
    now = memory.again()
    paths = {id(holder.held): path for path, holders in now.holders().items() for holder in holders}

    def kept(tensor: Tensor) -> dict[str, Any]:
        name = f"{PREFIX}{len(tensors)}"
        tensors[name] = tensor.detach()
        return {"tensor": name}

    def plain(value: Any) -> Any:
        if isinstance(value, np.generic):
            return {"number": value.item(), "dtype": str(value.dtype)}
        if value is None or isinstance(value, (bool, int, float, str)):
            return value
        if isinstance(value, torch.dtype):
            return {"dtype": str(value).removeprefix("torch.")}
        if isinstance(value, torch.device):
            return {"device": str(value)}
        if isinstance(value, Tensor):
            return kept(value)
        if isinstance(value, np.ndarray) and not value.dtype.hasobject:
            return {"array": kept(torch.from_numpy(np.ascontiguousarray(value)))["tensor"]}
        if isinstance(value, deque):
            return {"deque": [plain(one) for one in value], "maxlen": value.maxlen}
        if type(value) in {list, tuple}:
            return {type(value).__name__: [plain(one) for one in value]}
        if type(value) is set:
            return {"set": [plain(one) for one in value]}
        if type(value) is dict:
            return {"dict": [[plain(key), plain(one)] for key, one in value.items()]}
        if id(value) in paths:
            return {"at": paths[id(value)]}
        raise _NotPlainError

    for holder in now.learned():
        entry: dict[str, Any] = {"path": holder.path, "kind": type(holder).__name__}
        try:
            content = holder.read()
            if isinstance(holder, Attributes):
                gone = [plain(key) for key in holder.inner if content.get(key, GONE) is GONE]
                there = [k for k in content if k in holder.inner and content[k] is not GONE]
                entry |= {"gone": gone, "value": [[plain(key), plain(content[key])] for key in there]}
                if type(holder) is Dictionary:
                    entry["order"] = [plain(key) for key in content]
            elif isinstance(holder, Numbers):
                entry["value"] = kept(content[1])
            elif isinstance(holder, Bytes):
                entry["value"] = list(content)
            else:
                entry["value"] = plain(content)
            entries.append(entry)
        except (_NotPlainError, RecursionError, TypeError):
            memory.say(f"{holder.path} holds what no file can keep: a resumed run starts it from the beginning")
    return tensors, entries


def put_back(memory: Memory, tensors: Mapping[str, Tensor], entries: list[dict[str, Any]]) -> None:
    """Give a memory what another one had learned.

    Args:
        memory: Of a new loss; reports what has no place in it.
        tensors: By name, on any device.
        entries: From :func:`record`.

    Raises:
        KeyError, TypeError, ValueError: The record is damaged.

    Syncs: none.
    """
    device = next(memory.model.parameters()).device

    def made(value: Any, old: Any = None) -> Any:
        if not isinstance(value, dict):
            return value
        (kind, inner), *_ = value.items()
        if kind == "tensor":
            here = old.device if isinstance(old, Tensor) else device
            if isinstance(old, Tensor) and old.shape == tensors[inner].shape and old.dtype == tensors[inner].dtype:
                old.data.copy_(tensors[inner])  # in place, for others that hold it
                return old
            return tensors[inner].to(here, copy=True)
        if kind == "array":
            return tensors[inner].cpu().numpy().copy()
        if kind == "dtype":
            return getattr(torch, inner)
        if kind == "device":
            return device if old is None else old  # a resumed run may compute elsewhere
        if kind == "number":
            return np.dtype(value["dtype"]).type(inner)
        if kind == "deque":
            return deque((made(one) for one in inner), maxlen=value["maxlen"])
        if kind in {"list", "tuple", "set"}:
            return {"list": list, "tuple": tuple, "set": set}[kind](made(one) for one in inner)
        if kind == "dict":
            return {made(key): made(one) for key, one in inner}
        if kind == "at":
            if inner not in (there := memory.holders()):
                raise _NotPlainError
            return there[inner][0].held
        raise ValueError(f"{kind} is not a kind of value")

    for entry in entries:  # containers before their parts, in the order of the walk
        memory.resync()
        fitting = [h for h in memory.holders().get(entry["path"], []) if type(h).__name__ == entry["kind"]]
        try:
            if not fitting:
                raise _NotPlainError
            _fill(fitting[0], entry, made)
        except _NotPlainError:
            memory.say(f"{entry['path']} of the saved run has no place in the loss of now")
    memory.resync()


def _fill(holder: Holder, entry: dict[str, Any], made: Callable[..., Any]) -> None:
    content = holder.read()
    if isinstance(holder, Attributes):
        values = {made(key): value for key, value in entry["value"]}
        gone = {*values, *map(made, entry["gone"])}
        rest = {key: value for key, value in content.items() if key not in gone}
        new = {**rest, **{key: made(value, content.get(key)) for key, value in values.items()}}
        ordered = [key for key in map(made, entry.get("order", [])) if key in new]
        holder.write({**{key: new[key] for key in ordered}, **new})
        holder.inner |= set(values)
    else:
        if isinstance(holder, Numbers):
            holder.write((0, made(entry["value"])))
        elif isinstance(holder, (ArrayNumbers, Items, Members)):
            holder.write(made(entry["value"]))
        elif isinstance(holder, Bytes):
            holder.write(bytes(entry["value"]))
        holder.inner.add(None)
