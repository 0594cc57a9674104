"""Holders: copy and restore each kind of object that can keep something from batch to batch.

A holder copies one level: the attributes of an object, the items of a list, the numbers of a tensor; their parts have holders of
their own. It copies only what has changed, and identity tells: Python's numbers and words are immutable, so a dictionary with the
very same values is unchanged. Class names are the ``kind`` in files (``memory_record.py``): they stay.
"""

# ruff: noqa: D102 - `Holder` documents the methods
from __future__ import annotations

import _thread
import datetime
import decimal
import enum
import fractions
import functools
import io
import logging
import pathlib
import random
import re
import threading
import types
import uuid
import weakref
from collections import OrderedDict, deque
from collections.abc import Callable, Iterator
from operator import is_
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

ATOMS = (
    type(None), bool, int, float, complex, str, bytes, type, range, slice, type(...), type(NotImplemented), enum.Enum,
    types.FunctionType, types.BuiltinFunctionType, types.MethodType, types.ModuleType, types.MethodWrapperType,
    types.MappingProxyType, types.GenericAlias, types.CodeType, property, staticmethod, classmethod,
    datetime.date, datetime.time, datetime.timedelta, datetime.tzinfo, decimal.Decimal, fractions.Fraction, uuid.UUID,
    pathlib.PurePath, re.Pattern, np.generic, np.dtype, np.ufunc,
    torch.device, torch.dtype, torch.layout, torch.memory_format, torch.Size, torch.finfo, torch.iinfo,
)  # fmt: skip
"""Immutable."""
APART = (
    torch.optim.Optimizer, torch.optim.lr_scheduler.LRScheduler, torch.amp.GradScaler,
    torch.utils.data.Dataset, torch.utils.data.DataLoader, torch.utils.data.Sampler,
    torch.Generator, random.Random, np.random.Generator, np.random.RandomState, np.random.BitGenerator,
    logging.Logger, logging.Handler, weakref.ref, threading.Thread, _thread.LockType, _thread.RLock, io.IOBase,
)  # fmt: skip
"""No memory of a loss: other parts of training, and generators, as a rejected batch has been drawn."""
APART_BY_NAME = (("ultralytics.engine", ""), ("ultralytics.utils", "IterableSimpleNamespace"))
"""The same of Ultralytics, by module and class: trainers, validators, and a run's arguments, which a loss holds as ``hyp``."""
LIBRARIES = frozenset({"torch", "ultralytics", "torchvision"})
"""Packages whose classes never write into tensors by ``.data``, so that the tensor's version tells."""
OF_A_MODULE = frozenset(vars(nn.Module()))
"""Torch's own attributes of every module: hooks, flags, registered parts."""
GONE: Any = type("Gone", (), {"__repr__": lambda self: "GONE"})()
"""Stands for a missing value."""


class Holder:
    """One object that holds others, or numbers.

    Args:
        held: The object.
        path: Where it is, for people, such as ``criterion.mean``.
        is_of_model: Whether it is part of the model's own state, which files have anyway.
    """

    __slots__ = ("first", "held", "inner", "is_of_model", "kept", "outer", "path", "start")

    def __init__(self, held: Any, path: str, *, is_of_model: bool = False) -> None:
        self.held, self.path, self.is_of_model = held, path, is_of_model
        self.inner: set[Any] = set()
        """Keys that micro-batches have changed: only these are memory."""
        self.outer: set[Any] = set()
        """Keys that were changed between two micro-batches."""
        self.kept = self.start = self.first = self.read()
        """Copies: before the next micro-batch, before the window, and the earliest known."""

    def read(self) -> Any:
        """Return a copy of the content."""
        raise NotImplementedError

    def is_as(self, content: Any) -> bool:
        """Return whether the content is still this copy."""
        raise NotImplementedError

    def write(self, content: Any) -> None:
        """Restore a copy."""
        raise NotImplementedError

    def changed(self, content: Any) -> set[Any]:
        """Return the keys that differ from a copy; one key, None, for a content without keys."""
        return {None}

    def merged(self, old: Any, new: Any, keys: set[Any]) -> Any:
        """Return a copy with these keys from ``new``, and all else from ``old``."""
        return new if keys else old

    def parts(self) -> Iterator[tuple[Any, str, Any]]:
        """Yield key, path and value of each part."""
        yield from ()

    def keys(self) -> set[Any]:
        """Return all keys; one, None, for a content without keys."""
        return {None}

    def settle(self, content: Any) -> None:
        """Note that a copy was restored."""
        self.kept = content


class Attributes(Holder):
    """An object's ``__dict__``; of a module without torch's own attributes."""

    __slots__ = ()

    def read(self) -> dict[Any, Any]:
        return dict(self._dict())

    def is_as(self, content: dict[Any, Any]) -> bool:
        live = self._dict()
        return len(live) == len(content) and all(map(is_, live.values(), content.values())) and [*live] == [*content]

    def write(self, content: dict[Any, Any]) -> None:
        live, fixed = self._dict(), self._fixed()
        for key in [key for key in live if key not in content and key not in fixed]:
            del live[key]
        live.update({key: value for key, value in content.items() if key not in fixed})

    def changed(self, content: dict[Any, Any]) -> set[Any]:
        live = self._dict()
        keys = {k for k in {**live, **content} if live.get(k, GONE) is not content.get(k, GONE)}
        return (keys or set(live)) - self._fixed()  # the same values in another order

    def keys(self) -> set[Any]:
        return set(self._dict()) - self._fixed()

    def merged(self, old: dict[Any, Any], new: dict[Any, Any], keys: set[Any]) -> dict[Any, Any]:
        made = {key: value for key, value in old.items() if key not in keys or key in new}
        made.update({key: new[key] for key in keys if key in new})
        return made

    def parts(self) -> Iterator[tuple[Any, str, Any]]:
        fixed = self._fixed()
        for key, value in self._dict().items():
            if key not in fixed and value is not GONE:
                yield key, self._name(key), value

    def _dict(self) -> dict[Any, Any]:
        return self.held.__dict__

    def _fixed(self) -> frozenset[str]:
        return OF_A_MODULE if isinstance(self.held, nn.Module) else frozenset()

    def _name(self, key: Any) -> str:
        return f"{self.path}.{key}" if self.path else str(key)


class OwnAttributes(Attributes):
    """The plain attributes of a module of the model; its loss has a :class:`CriterionPlace`."""

    __slots__ = ()

    def _fixed(self) -> frozenset[str]:
        return OF_A_MODULE | {"criterion"}


class Dictionary(Attributes):
    """A dictionary."""

    __slots__ = ()

    def write(self, content: dict[Any, Any]) -> None:
        self.held.clear()
        self.held.update(content)

    def _dict(self) -> dict[Any, Any]:
        return self.held

    def _fixed(self) -> frozenset[str]:
        return frozenset()

    def _name(self, key: Any) -> str:
        return f"{self.path}[{key!r:.40}]"


class Registered(Dictionary):
    """A module's registered parameters, buffers or parts.

    Args:
        module: The module.
        part: ``_parameters``, ``_buffers`` or ``_modules``.
        owner: Where the module is.
        is_of_model: As for every holder.
    """

    __slots__ = ("owner",)

    def __init__(self, module: nn.Module, part: str, owner: str, *, is_of_model: bool = False) -> None:
        self.owner = owner
        super().__init__(vars(module)[part], f"{owner}.{part}", is_of_model=is_of_model)

    def _name(self, key: Any) -> str:
        return f"{self.owner}.{key}" if self.owner else str(key)


class Slots(Attributes):
    """An object's ``__slots__``."""

    __slots__ = ()

    def is_as(self, content: dict[Any, Any]) -> bool:
        live = self._dict()
        return all(map(is_, live.values(), content.values()))

    def write(self, content: dict[Any, Any]) -> None:
        for name, member in _members(type(self.held)).items():
            if content[name] is not GONE:
                member.__set__(self.held, content[name])
            elif self._dict()[name] is not GONE:
                member.__delete__(self.held)

    def _dict(self) -> dict[Any, Any]:
        found: dict[Any, Any] = {}
        for name, member in _members(type(self.held)).items():
            try:
                found[name] = member.__get__(self.held)
            except AttributeError:
                found[name] = GONE
        return found


class Items(Holder):
    """A list or a deque, in its order."""

    __slots__ = ()

    def read(self) -> list[Any]:
        return list(self.held)

    def is_as(self, content: list[Any]) -> bool:
        return len(self.held) == len(content) and all(map(is_, self.held, content))

    def write(self, content: list[Any]) -> None:
        self.held.clear()
        self.held.extend(content)

    def parts(self) -> Iterator[tuple[Any, str, Any]]:
        yield from ((i, f"{self.path}[{i}]", value) for i, value in enumerate(self.held))


class Members(Holder):
    """A set."""

    __slots__ = ()

    def read(self) -> set[Any]:
        return set(self.held)

    def is_as(self, content: set[Any]) -> bool:
        return self.held == content

    def write(self, content: set[Any]) -> None:
        self.held.clear()
        self.held.update(content)


class Numbers(Holder):
    """A tensor; a copy is its numbers and their version."""

    __slots__ = ()

    def read(self) -> tuple[int, Tensor]:
        return self.held._version, self.held.detach().clone()

    def is_as(self, content: tuple[int, Tensor]) -> bool:
        return self.held._version == content[0]

    def write(self, content: tuple[int, Tensor]) -> None:
        _, value = content
        # Through `data`: what autograd has saved of a live graph stays valid.
        if self.held.shape == value.shape:
            self.held.data.copy_(value)
        else:
            self.held.data = value.clone()

    def settle(self, content: tuple[int, Tensor]) -> None:
        self.kept = self.held._version, content[1]

    def has_moved(self) -> bool:
        """Return whether the numbers may differ from those kept, whatever the version says.

        Syncs: none; off the CPU it is always true.
        """
        value = self.kept[1]
        return self.held.device.type != "cpu" or not torch.equal(self.held.detach(), value)


class ArrayNumbers(Holder):
    """A NumPy array, which has no version: compared byte by byte."""

    __slots__ = ()

    def read(self) -> np.ndarray:
        return self.held.copy()

    def is_as(self, content: np.ndarray) -> bool:
        return self.held.shape == content.shape and self.held.tobytes() == content.tobytes()

    def write(self, content: np.ndarray) -> None:
        if self.held.shape != content.shape:
            self.held.resize(content.shape, refcheck=False)
        self.held[...] = content


class Bytes(Holder):
    """A bytearray."""

    __slots__ = ()

    def read(self) -> bytes:
        return bytes(self.held)

    def is_as(self, content: bytes) -> bool:
        return self.held == content

    def write(self, content: bytes) -> None:
        self.held[:] = content


class CriterionPlace(Holder):
    """The place of a module's loss: made with the first batch, as an attribute, or as a part if it is a module itself."""

    __slots__ = ()

    def read(self) -> tuple[Any, Any]:
        return self.held.__dict__.get("criterion", GONE), self.held._modules.get("criterion", GONE)

    def is_as(self, content: tuple[Any, Any]) -> bool:
        return all(map(is_, self.read(), content))

    def write(self, content: tuple[Any, Any]) -> None:
        places = self.held.__dict__, self.held._modules
        if all(value is GONE for value in content):
            made = next((value for value in self.read() if value is not GONE), None)
            if not is_of_a_library(type(made)):  # else it has no memory, and a loop may ask for its schedule
                for place in places:
                    place.pop("criterion", None)
                places[0]["criterion"] = None  # the next batch makes it again; until then somebody may ask for it
            return
        for place, value in zip(places, content, strict=True):
            if value is GONE:
                place.pop("criterion", None)
            else:
                place["criterion"] = value

    def parts(self) -> Iterator[tuple[Any, str, Any]]:
        yield from ((None, self.path, value) for value in self.read() if value is not GONE)


def holders_of(value: Any, path: str) -> list[Holder] | None:
    """Return the holders of one object; None when it cannot be copied.

    Args:
        value: Neither one of ``ATOMS`` nor of ``APART``.
        path: Where it is.
    """
    if isinstance(value, Tensor):
        return [Numbers(value, path)] if value.layout == torch.strided and not value.is_meta else None
    if isinstance(value, np.ndarray):
        return None if value.dtype.hasobject else [ArrayNumbers(value, path)]
    found: list[Holder] = []
    for kind, holder in _KINDS:
        if isinstance(value, kind):
            found.append(holder(value, path))
            break
    if isinstance(value, nn.Module):
        fixed = is_of_a_library(type(value))  # registers nothing later
        for part in ("_parameters", "_buffers", "_modules"):
            if vars(value)[part] or not fixed:
                found.append(Registered(value, part, path))
    if hasattr(value, "__dict__"):
        found.append(Attributes(value, path))
    if _members(type(value)):
        found.append(Slots(value, path))
    return found if found or _is_plain(type(value)) else None


def is_atom(value: Any) -> bool:
    """Return whether a value is immutable, or no memory."""
    if isinstance(value, Tensor):
        return value.is_inference()
    if isinstance(value, np.ndarray):
        return not value.flags.writeable
    return _is_atomic(type(value))


@functools.lru_cache(maxsize=4096)
def _is_atomic(kind: type) -> bool:
    names = [(base.__module__, base.__name__) for base in kind.__mro__]
    apart = any(m.startswith(part) and name in {"", n} for m, n in names for part, name in APART_BY_NAME)
    return apart or issubclass(kind, ATOMS + APART)


def is_of_a_library(kind: type) -> bool:
    """Return whether a class is torch's or Ultralytics'."""
    return kind.__module__.partition(".")[0] in LIBRARIES


_KINDS: tuple[tuple[Any, Callable[[Any, str], Holder]], ...] = (
    ((dict, OrderedDict), Dictionary),
    ((list, deque), Items),
    (set, Members),
    (bytearray, Bytes),
)


def _is_plain(kind: type) -> bool:
    """Return whether a class written in Python keeps nothing of its own."""
    return all("__slots__" in vars(base) for base in kind.__mro__ if base is not object)


def _members(kind: type) -> dict[str, Any]:
    """Return the descriptors of a class's ``__slots__``."""
    found: dict[str, Any] = {}
    for base in kind.__mro__:
        if "__slots__" in vars(base):
            for name, member in vars(base).items():
                if isinstance(member, types.MemberDescriptorType):
                    found.setdefault(name, member)
    return found
