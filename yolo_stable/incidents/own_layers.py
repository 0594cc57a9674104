"""Own layers: finds the user's own layers of a network, imports them, and makes them known to Ultralytics."""

from __future__ import annotations

import contextlib
import importlib
import os
import sys
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from torch import nn
from ultralytics.nn import tasks

from ..errors import InvalidCallError


def own_layers(yaml: Any) -> dict[str, type[nn.Module]]:
    """Return the classes that a network's ``model.yaml`` names, without Ultralytics' and torch's."""
    rows = [*yaml.get("backbone", ()), *yaml.get("head", ())] if isinstance(yaml, Mapping) else []
    found = {}
    for row in rows:
        name = row[2] if isinstance(row, (list, tuple)) and len(row) == 4 else None
        kind = getattr(tasks, name, None) if isinstance(name, str) and name.isidentifier() else None
        if isinstance(kind, type) and issubclass(kind, nn.Module) and is_own(kind):
            found[name] = kind
    return found


def own_modules(model: nn.Module | None) -> dict[str, type[nn.Module]]:
    """Return the classes of a network's modules, without Ultralytics' and torch's: its checkpoints need them."""
    kinds = dict.fromkeys(type(module) for module in (model.modules() if model is not None else ()))
    return {kind.__name__: kind for kind in kinds if is_own(kind)}


def is_own(kind: type) -> bool:
    """Return whether a class is neither Ultralytics' nor torch's."""
    return kind.__module__.split(".")[0] not in {"ultralytics", "torch"}


def files_of(own: Mapping[str, type]) -> tuple[str, ...]:
    """Return the Python files from which another process can import classes; empty unless it can import all.

    It cannot import a class of the running script: that might run the script.
    """
    files: dict[str, None] = {}
    for name, kind in own.items():
        module = sys.modules.get(kind.__module__)
        file = getattr(module, "__file__", None)
        if kind.__module__ == "__main__" or getattr(module, name, None) is not kind or not str(file).endswith(".py"):
            return ()
        files[os.path.abspath(str(file))] = None
    return tuple(files)


def imported(words: Iterable[str], where: str) -> list[Any]:
    """Import what the user names, which runs its code.

    Args:
        words: Names of modules, or paths of Python files.
        where: The option, for the message.

    Raises:
        InvalidCallError: One cannot be imported; says why.
    """
    modules = []
    for word in words:
        root, name = _importable(word)
        sys.path.insert(0, str(root))
        try:
            modules.append(importlib.import_module(name))
        except Exception as error:
            what = " ".join(f"{type(error).__name__}: {error}".split())[:300]
            raise InvalidCallError(f"{where} {word}: it cannot be imported: {what}.") from error
        finally:
            sys.path.remove(str(root))
    return modules


def make_known(words: Iterable[str], where: str) -> None:
    """Import as :func:`imported` does, and let Ultralytics find the new layers; its own names stay."""
    for module in imported(words, where):
        for name, kind in vars(module).items():
            is_layer = isinstance(kind, type) and issubclass(kind, nn.Module) and is_own(kind)
            if is_layer and not hasattr(tasks, name):
                setattr(tasks, name, kind)


def chosen(names: Iterable[str], modules: Iterable[Any]) -> dict[str, type[nn.Module]]:
    """Return the layers that modules define, or that Ultralytics knows."""
    places = [*modules, tasks]
    found = {}
    for name in names:
        kinds = [getattr(place, name, None) for place in places]
        kind = next((k for k in kinds if isinstance(k, type) and issubclass(k, nn.Module)), None)
        if kind is not None:
            found[name] = kind
    return found


@contextlib.contextmanager
def known(own: Mapping[str, type[nn.Module]]) -> Iterator[None]:
    """Let Ultralytics find own layers by name within this context."""
    nothing = object()
    before = {name: vars(tasks).get(name, nothing) for name in own}
    for name, kind in own.items():
        setattr(tasks, name, kind)
    try:
        yield
    finally:
        for name, kind in before.items():
            if kind is nothing:
                delattr(tasks, name)
            else:
                setattr(tasks, name, kind)


def _importable(word: str) -> tuple[Path, str]:
    """Return the folder to put on the path, and the dotted name of the module in it."""
    if not word.endswith(".py"):
        return Path.cwd(), word
    path = Path(word).absolute()
    root, parts = path.parent, [path.stem]
    while (root / "__init__.py").is_file():
        root, parts = root.parent, [root.name, *parts]
    return root, ".".join(parts)
