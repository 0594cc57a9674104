"""Words of a training: what an Ultralytics user types, turned into ``key=value``.

Nothing is imported, loaded or downloaded for that.
"""

from __future__ import annotations

import importlib.util
import os
import re
import shlex
from collections.abc import Sequence
from pathlib import Path

from ..data.builtin import is_builtin
from ..errors import InvalidCallError, nearest
from ..presets.ultralytics_settings import default_hyp

WHERE = "train"
"""What the messages of this verb start with."""
TASKS = ("detect", "segment", "semantic", "depth", "classify", "pose", "obb")
MODES = ("train", "val", "predict", "export", "track", "benchmark")
"""Ultralytics' words for tasks and modes."""
OURS = ("guard", "preset", "validate")
"""Keys that Ultralytics does not have."""
DESCRIPTIONS = (".yaml", ".yml")


def canonical(words: Sequence[str]) -> list[str]:
    """Return the words as ``key=value`` alone.

    Understood are also a task, the mode ``train``, options (``--epochs 3``, ``--epochs=3``), switches by their name (``resume``),
    a model by its file (``yolo26n.pt``), and one data set.

    Args:
        words: As typed.

    Raises:
        InvalidCallError: A word is none of these, an option has no value, or two data sets are named.

    Examples:
        >>> canonical(["detect", "train", "data=d.yaml", "--epochs", "3", "yolo26n.pt"])
        ['data=d.yaml', 'epochs=3', 'task=detect', 'model=yolo26n.pt']
        >>> canonical(["resume", "model=last.pt"]), canonical(["d.yaml", "lr0", "=", "0.1"])
        (['model=last.pt', 'resume=True'], ['lr0=0.1', 'data=d.yaml'])
    """
    pairs, bare = _sorted(_joined(words))
    named = [pair.removeprefix("data=").strip() for pair in pairs if pair.startswith("data=")]
    meant = {word: _meaning(word) for word in bare}
    data = [word for word in bare if meant[word] is None]
    if not data and not named:  # a folder may be called like a task or a mode
        data = [word for word in bare if os.path.exists(word) and not is_model(word)][:1]
    if len(data) + len(named) > 1:
        strange = next((word for word in data if not _is_data(word)), None)
        if strange is not None:
            raise not_understood(strange)
        raise InvalidCallError(
            f"{WHERE}: the data set is named twice: {' and '.join(map(repr, (*data, *named)))}. Name one, such as 'data.yaml' or"
            " 'digits'."
        )
    modes = [word for word in bare if word in MODES and word != "train" and word not in data]
    if modes:
        raise InvalidCallError(
            f"{WHERE}: {modes[0]!r} is another mode of Ultralytics. Type:\nyolo-stable yolo {shlex.join(words)}"
        )
    found = [pair for word in bare if (pair := meant[word]) and word not in data]
    return [*pairs, *found, *(f"data={word}" for word in data)]


def not_understood(word: str) -> InvalidCallError:
    """Return the objection to a word."""
    return InvalidCallError(
        f"{WHERE}: {word!r} is not understood. Write settings as key=value, such as epochs=50 or guard.max_norm=5.0; options"
        " start with --, see --help."
    )


def is_model(word: str) -> bool:
    """Say whether a word names a network: weights, or a description of the user or of Ultralytics.

    Examples:
        >>> is_model("runs/detect/train/weights/last.pt"), is_model("yolo26n-seg.yaml"), is_model("coco8.yaml")
        (True, True, False)
    """
    suffix = Path(word).suffix.lower()
    if suffix not in DESCRIPTIONS:
        return suffix == ".pt"
    if os.path.isfile(word):
        text = Path(word).read_text(encoding="utf-8", errors="replace")
        return re.search(r"^(backbone|head)\s*:", text, re.MULTILINE) is not None
    unscaled = re.sub(r"(\d+)([nslmx])(.+)?$", r"\1\3", word)  # yolo26n.yaml is yolo26.yaml at the scale n
    return is_shipped("models", word) or is_shipped("models", unscaled)


def is_shipped(kind: str, name: str) -> bool:
    """Say whether Ultralytics ships a file that it finds by this name.

    Args:
        kind: ``"models"`` or ``"datasets"``.
        name: With or without its suffix.

    Examples:
        >>> is_shipped("datasets", "coco8"), is_shipped("datasets", "coco9.yaml")
        (True, False)
    """
    spec = importlib.util.find_spec("ultralytics")  # does not import it
    places = [] if spec is None else spec.submodule_search_locations or []
    names = {name, *(f"{name}{suffix}" for suffix in DESCRIPTIONS)}
    return any(path.name in names for place in places for path in Path(place, "cfg", kind).rglob("*.y*ml"))


def is_address(word: str) -> bool:
    """Say whether a word is an address, which Ultralytics downloads from."""
    return "://" in word


def _joined(words: Sequence[str]) -> list[str]:
    """Join ``key = value``, as Ultralytics does."""
    joined: list[str] = []
    rest = iter(words)
    for word in rest:
        if word == "=" and joined:
            joined[-1] += f"={next(rest, '')}"
        else:
            joined.append(word)
    return joined


def _sorted(words: Sequence[str]) -> tuple[list[str], list[str]]:
    """Return the words with a key, and the others."""
    pairs: list[str] = []
    bare: list[str] = []
    left = list(words)
    while left:
        word = left.pop(0)
        if word.startswith("--"):
            pairs.append(_option(word, left))
        elif re.match(r"\s*[\w.]+\s*=", word) and not os.path.exists(word):
            pairs.append(word.strip())
        elif "=" in word and not os.path.exists(word):
            raise not_understood(word)
        elif word:
            bare.append(word)
    return pairs, bare


def _option(word: str, left: list[str]) -> str:
    """Return an option as ``key=value``; takes its value from the words that are left."""
    name, equals, value = word[2:].partition("=")
    key = name.replace("-", "_")
    settings = default_hyp()
    if key not in settings and key not in OURS and not key.startswith("guard."):
        hint = nearest(key, (*settings, *OURS))
        raise InvalidCallError(f"No such option: --{name}.{hint} See 'yolo-stable {WHERE} --help'.")
    if equals:
        return f"{key}={value}"
    follows = bool(left) and not left[0].startswith("--") and not re.match(r"[\w.]+=", left[0])
    if isinstance(settings.get(key), bool) and not (follows and left[0].lower() in ("true", "false")):
        return f"{key}=True"
    if not follows:
        raise InvalidCallError(f"{WHERE}: option --{name} needs a value, such as --{name} VALUE or {key}=VALUE.")
    return f"{key}={left.pop(0)}"


def _meaning(word: str) -> str | None:
    """Return a word without a key as ``key=value``, empty for one that says nothing new; None: it may be a data set."""
    if word in TASKS:
        return f"task={word}"
    if word in MODES:
        return ""
    if is_model(word):
        return f"model={word}"
    default = default_hyp().get(word, ...)
    if isinstance(default, bool):
        return f"{word}=True"
    if default is not ... and not os.path.exists(word):
        raise not_understood(word)
    return None


def _is_data(word: str) -> bool:
    """Say whether a word names a data set, there or not."""
    there = is_builtin(word) or is_address(word) or os.path.exists(word) or is_shipped("datasets", word)
    return there or Path(word).suffix.lower() in DESCRIPTIONS
