"""The data sets that need no download: made on first use, whole or not at all, and kept in a cache folder.

What they are and which options they take stands in ``datasets/<name>.yaml``; ``datasets/<name>.py`` draws them and is
loaded only when something has to be drawn, so importing this module costs no numpy and no OpenCV.
"""

from __future__ import annotations

import argparse
import functools
import hashlib
import importlib.machinery
import json
import os
import shutil
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from types import ModuleType
from typing import Any

import yaml

from .._shared.resources import resource_dir
from ..errors import InvalidCallError, nearest

BUILTIN: tuple[str, ...] = ("digits", "shapes")
CACHE_VARIABLE = "YOLO_STABLE_CACHE"
MANIFEST = "manifest.json"
UNFINISHED = ".unfinished-"


def is_builtin(name: str) -> bool:
    """Tell whether ``name`` is a data set that :func:`make` can make.

    Examples:
        >>> is_builtin("digits"), is_builtin("coco8.yaml")
        (True, False)
    """
    return name in BUILTIN


def cache_dir() -> Path:
    """Return the folder for made data sets: ``$YOLO_STABLE_CACHE``, else the user's cache folder of this platform.

    Returns:
        An absolute path; the folder need not exist yet.

    Raises:
        InvalidCallError: The variable is not set and this user has no home folder.
    """
    if chosen := os.environ.get(CACHE_VARIABLE):
        return Path(chosen).expanduser().resolve()
    try:
        if sys.platform == "win32":
            base = Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local")
        elif sys.platform == "darwin":
            base = Path.home() / "Library" / "Caches"
        else:
            # The XDG specification tells programs to ignore a relative XDG_CACHE_HOME.
            xdg = Path(os.environ.get("XDG_CACHE_HOME", ""))
            base = xdg if xdg.is_absolute() else Path.home() / ".cache"
    except RuntimeError as error:
        raise InvalidCallError(
            f"No cache folder: {error} Set the environment variable {CACHE_VARIABLE} to a folder that can be written."
        ) from error
    return base.resolve() / "yolo-stable"


def declaration(name: str) -> dict[str, Any]:
    """Return what ``datasets/<name>.yaml`` declares: tasks with class names, options with defaults and ranges.

    Raises:
        InvalidCallError: There is no such data set.
    """
    if name not in BUILTIN:
        raise InvalidCallError(
            f"There is no built-in data set {name!r}. Allowed: {', '.join(BUILTIN)}.{nearest(str(name), BUILTIN)}"
        )
    return yaml.safe_load((resource_dir("datasets") / f"{name}.yaml").read_text(encoding="utf-8"))


@functools.cache
def generator(name: str) -> ModuleType:
    """Load ``datasets/<name>.py`` (which imports numpy and OpenCV) from where this installation has it."""
    path = str(resource_dir("datasets") / f"{name}.py")
    loader = importlib.machinery.SourceFileLoader(f"yolo_stable_datasets_{name}", path)
    module = ModuleType(loader.name)
    loader.exec_module(module)
    return module


def resolve(name: str, *, task: str, seed: int, options: Mapping[str, int]) -> dict[str, int]:
    """Check a wish against the declaration and return the value of every option that the task takes.

    Args:
        name: One of :data:`BUILTIN`.
        task: A task of this data set.
        seed: 0 to 2**32 - 1.
        options: The options given by the caller; whole numbers.

    Returns:
        Option name to value, defaults filled in, in the order of the declaration.

    Raises:
        InvalidCallError: A name is unknown, or a value has the wrong type or is out of range.

    Examples:
        >>> resolve("shapes", task="classify", seed=0, options={"train": 8})
        {'train': 8, 'val': 64, 'imgsz': 128, 'texture': 30}
    """
    declared = declaration(name)
    where = f"Data set {name!r}"
    if task not in list(declared["tasks"]):
        others = [other for other in BUILTIN if task in declaration(other)["tasks"]]
        hint = f" The data set {others[0]!r} has it." if others else nearest(str(task), declared["tasks"])
        raise InvalidCallError(f"{where} has no task {task!r}. Allowed: {', '.join(declared['tasks'])}.{hint}")
    rules = {key: rule for key, rule in declared["options"].items() if task in rule.get("tasks", declared["tasks"])}
    seed_rule = {"min": 0, "max": 2**32 - 1, "unit": "any of them"}
    for key, value in {"seed": seed, **options}.items():
        rule = {**rules, "seed": seed_rule}.get(key)
        if rule is None:
            unknown = f"task {task!r} has no option" if key in declared["options"] else "there is no option"
            raise InvalidCallError(f"{where}: {unknown} {key!r}. Allowed: {', '.join(rules)}.{nearest(key, rules)}")
        allowed = f"Give a whole number from {rule['min']} to {rule['max']} ({rule['unit']})."
        if isinstance(value, bool) or not isinstance(value, int):
            raise InvalidCallError(f"{where}: {key}={value!r} is of type {type(value).__name__}. {allowed}")
        if not rule["min"] <= value <= rule["max"]:
            raise InvalidCallError(f"{where}: {key}={value} is out of range. {allowed}")
    settings = {key: options.get(key, rule["default"]) for key, rule in rules.items()}
    for key, limit in ((key, rule["at_most"]) for key, rule in rules.items() if "at_most" in rule):
        if settings[key] > settings[limit]:
            raise InvalidCallError(
                f"{where}: {key}={settings[key]} is more than {limit}={settings[limit]}. Lower {key} or raise {limit}."
            )
    return settings


def make(name: str, *, task: str = "detect", cache: Path | str | None = None, seed: int = 0, **options: int) -> Path:
    """Return what Ultralytics takes as ``data=``, after making the data set if the cache does not have it whole.

    The folder is named after all options and the generator's own source, so a set made with other options, or by
    another version, is never mistaken for this one. Several processes may call this at once: one draws, the others
    wait for it. A folder that lost files since is made anew.

    Args:
        name: One of :data:`BUILTIN`.
        task: ``detect`` or ``classify``; ``shapes`` also has ``segment``, ``semantic``, ``depth``, ``obb`` and ``pose``.
        cache: The folder to keep it in; ``None`` means :func:`cache_dir`.
        seed: 0 to 2**32 - 1; the same seed and options give the same bytes on the same machine.
        **options: Whole numbers, such as ``train`` and ``val`` (images) and ``imgsz`` (pixels); ranges and defaults
            stand in ``datasets/<name>.yaml``.

    Returns:
        The path of ``data.yaml``; for ``classify`` the folder that holds ``train/`` and ``val/``.

    Raises:
        InvalidCallError: The call is wrong, the cache cannot be written, or scikit-learn is missing for ``digits``.
    """
    recipe = _recipe(name, task, seed, options)
    place = cache_dir() if cache is None else Path(cache).expanduser().resolve()
    digest = hashlib.sha256(json.dumps(recipe, sort_keys=True).encode()).hexdigest()
    folder = place / f"{name}-{task}-{digest[:12]}"
    try:
        if not _is_whole(folder, recipe):  # asked without a lock: a finished set in a read-only cache is welcome
            place.mkdir(parents=True, exist_ok=True)
            _sweep(place)
            _build(folder, recipe)
    except OSError as error:
        raise InvalidCallError(
            f"The data set {name!r} could not be written to the cache folder {place}: {error}. "
            f"Set the environment variable {CACHE_VARIABLE} to another folder."
        ) from error
    return folder if task == "classify" else folder / "data.yaml"


def script(name: str, argv: Sequence[str] | None = None) -> int:
    """Run ``python datasets/<name>.py OUT [--task T] [--train N] ...``: :func:`make` with ``OUT`` as the cache folder.

    Returns:
        The exit code: 0, or 2 when the call was wrong.
    """
    declared = declaration(name)
    parser = argparse.ArgumentParser(description=declared["about"], argument_default=argparse.SUPPRESS)
    parser.add_argument("cache", metavar="OUT", help="the folder in which the data set gets a folder of its own")
    parser.add_argument("--task", help=f"{', '.join(declared['tasks'])} (default: detect)")
    parser.add_argument("--seed", type=int, metavar="N", help="the same seed draws the same images (default: 0)")
    for option, rule in declared["options"].items():
        text = f"{rule['about']}: {rule['min']} to {rule['max']} {rule['unit']} (default: {rule['default']})"
        parser.add_argument(f"--{option}", type=int, metavar="N", help=text.replace("%", "%%"))
    try:
        print(make(name, **vars(parser.parse_args(argv))))
    except InvalidCallError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    return 0


def _recipe(name: str, task: str, seed: int, options: Mapping[str, int]) -> dict[str, Any]:
    """Everything that decides about the content, with the sources themselves as the generator's version number."""
    settings = resolve(name, task=task, seed=seed, options=options)
    sources = [Path(__file__), *(resource_dir("datasets") / f"{name}{suffix}" for suffix in (".py", ".yaml"))]
    version = hashlib.sha256(b"".join(path.read_bytes() for path in sources)).hexdigest()
    return {"name": name, "task": task, "seed": seed, "options": settings, "generator": version}


def _data_yaml(folder: Path, recipe: Mapping[str, Any]) -> str:
    """The text of data.yaml for a data set that lies, or will lie, in ``folder``."""
    images = "" if recipe["task"] == "classify" else "images/"
    content = {"path": str(folder), "train": f"{images}train", "val": f"{images}val"}
    content |= declaration(recipe["name"])["tasks"][recipe["task"]]
    content["names"] = dict(enumerate(content["names"]))
    title = f"# The data set {recipe['name']!r} of yolo-stable, see {MANIFEST}. Made anew when a file is missing.\n"
    return title + yaml.safe_dump(content, sort_keys=False, allow_unicode=True, width=1000)


def _inventory(folder: Path) -> dict[str, list[int]]:
    """Count the generator's files and their bytes by folder; label caches and arrays of Ultralytics do not count."""
    found: dict[str, list[int]] = {}
    for path in (path for path in folder.rglob("*") if path.suffix in {".jpg", ".png", ".txt", ".csv"}):
        entry = found.setdefault(path.parent.relative_to(folder).as_posix(), [0, 0])
        entry[:] = entry[0] + 1, entry[1] + path.stat().st_size
    return found


def _is_whole(folder: Path, recipe: Mapping[str, Any]) -> bool:
    """Tell whether ``folder`` was finished by this recipe, lies where its data.yaml says, and still has its files."""
    try:
        manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
        text = (folder / "data.yaml").read_text(encoding="utf-8")
        return text == _data_yaml(folder, recipe) and manifest == {**recipe, "files": _inventory(folder)}
    except (FileNotFoundError, NotADirectoryError, ValueError):  # absent or just being replaced; neither JSON nor text
        return False


def _build(folder: Path, recipe: Mapping[str, Any]) -> None:
    """Draw into a folder beside ``folder`` and rename it when nothing is missing."""
    with _locked(folder, wait=True):
        if _is_whole(folder, recipe):  # another process made it while this one waited
            return
        unfinished = folder.with_name(f"{UNFINISHED}{folder.name}")
        shutil.rmtree(unfinished, ignore_errors=True)  # a killed process left it; a live one would hold the lock
        try:
            unfinished.mkdir()
            options = {"task": recipe["task"], "seed": recipe["seed"], **recipe["options"]}
            generator(recipe["name"]).generate(unfinished, **options)
            manifest = json.dumps({**recipe, "files": _inventory(unfinished)}, indent=1) + "\n"
            for name, text in (("data.yaml", _data_yaml(folder, recipe)), (MANIFEST, manifest)):
                with (unfinished / name).open("w", encoding="utf-8", newline="\n") as handle:
                    handle.write(text)
                    handle.flush()
                    os.fsync(handle.fileno())  # else a power cut after the rename could leave it empty
            shutil.rmtree(folder, ignore_errors=True)  # a damaged one; what cannot be deleted makes the rename fail
            unfinished.rename(folder)
        finally:
            shutil.rmtree(unfinished, ignore_errors=True)


def _sweep(cache: Path) -> None:
    """Delete what killed processes left in the cache: the unfinished folders whose lock nobody holds."""
    for unfinished in cache.glob(f"{UNFINISHED}*"):
        folder = unfinished.with_name(unfinished.name.removeprefix(UNFINISHED))
        with suppress(OSError), _locked(folder, wait=False) as dead:  # OSError: another user's, not ours to delete
            if dead:
                shutil.rmtree(unfinished, ignore_errors=True)


@contextmanager
def _locked(folder: Path, *, wait: bool) -> Iterator[bool]:
    """Hold the lock for making ``folder``, or yield False; the system frees it when the process dies, however it dies.

    The lock file stays: whoever deleted it could not know that nobody had opened it a moment ago.
    """
    from filelock import FileLock, Timeout

    lock = FileLock(folder.with_name(f".lock-{folder.name}"))
    try:
        lock.acquire(timeout=0)
    except Timeout:
        if not wait:
            yield False
            return
        print(f"yolo-stable: another process is making {folder}, waiting for it", file=sys.stderr)
        lock.acquire()
    try:
        yield True
    finally:
        lock.release()
