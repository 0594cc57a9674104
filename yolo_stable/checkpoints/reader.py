"""Checkpoint reader: loads and verifies checkpoints, and finds the newest good one."""

from __future__ import annotations

import hashlib
import io
import zipfile
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ..errors import InvalidCallError
from ..guard.health import all_finite, non_finite_names
from .float16 import optimizer_tensors

LAST, LAST_GOOD, BEST = "last.pt", "last_good.pt", "best.pt"


def load(source: Path | bytes) -> dict[str, Any]:
    """Load a checkpoint on the host after verifying every byte.

    It is a pickle, as Ultralytics writes it: load only what you trust.

    Args:
        source: A file, or what would be in it.

    Raises:
        InvalidCallError: It is not whole, or not a checkpoint; says what is wrong, without the name of the file.
    """
    require_whole(source)
    try:
        content = torch.load(_stream(source), map_location="cpu", weights_only=False)
    except Exception as error:  # unpickling damaged bytes can raise anything
        raise _damaged(error) from error
    if not isinstance(content, dict) or not isinstance(network_of(content), nn.Module):
        raise InvalidCallError("not a checkpoint of Ultralytics: there is no network in it")
    return content


def require_whole(source: Path | bytes) -> None:
    """Verify every byte of a checkpoint by its checksums, without loading it.

    Args:
        source: A file, or what would be in it.

    Raises:
        InvalidCallError: As :func:`load` does, but for what only loading shows.
    """
    try:
        with zipfile.ZipFile(_stream(source)) as archive:
            bad = archive.testzip()
    except FileNotFoundError as error:
        raise InvalidCallError("not there") from error
    except zipfile.BadZipFile as error:
        raise InvalidCallError("empty, cut off, or no checkpoint at all") from error
    except Exception as error:  # a name of a part that is no text, a kind of compression that is not known, ...
        raise _damaged(error) from error
    if bad is not None:
        raise InvalidCallError(f"damaged: the checksum of its part {bad} is wrong")


def _stream(source: Path | bytes) -> Path | io.BytesIO:
    return io.BytesIO(source) if isinstance(source, bytes) else source


def _damaged(error: Exception) -> InvalidCallError:
    return InvalidCallError(f"damaged ({type(error).__name__}: {' '.join(str(error).split())[:200]})")


def network_of(content: dict[str, Any]) -> Any:
    """Return the network of a loaded checkpoint."""
    return content.get("ema") or content.get("model")


def culprits(content: dict[str, Any]) -> tuple[str, ...]:
    """Return the names of what is not finite in a loaded checkpoint."""
    named = [(name, t) for name, t in network_of(content).state_dict().items() if isinstance(t, torch.Tensor)]
    state = (content.get("optimizer") or {}).get("state", {})
    named += [(f"optimizer {name}", tensor) for name, tensor in optimizer_tensors(state)]
    return () if all_finite(tensor for _, tensor in named) else non_finite_names(named)


def load_good(path: Path) -> dict[str, Any]:
    """Load a checkpoint that training may continue from.

    Raises:
        InvalidCallError: It is damaged, foreign, or not finite; names the newest file in its folder that is good.
    """
    try:
        content = load(path)
        bad = culprits(content)
        if bad:
            raise InvalidCallError(f"not finite: {', '.join(bad)}")
    except InvalidCallError as error:
        other = newest_good(path)
        way = f"The newest good checkpoint beside it is {other}." if other else "There is no good checkpoint beside it."
        raise InvalidCallError(f"Checkpoint {path} cannot be resumed: it is {error}. {way}") from error
    return content


def newest_good(path: Path) -> Path | None:
    """Return the newest checkpoint in the folder of ``path``, other than it, that is whole and finite."""
    names = [path.with_name(name) for name in (LAST, LAST_GOOD, BEST)] + list(path.parent.glob("epoch*.pt"))
    files = [file for file in names if file.is_file() and file != path]
    for file in sorted(files, key=lambda file: file.stat().st_mtime, reverse=True):
        try:
            if not culprits(load(file)):
                return file
        except InvalidCallError:
            continue
    return None


def digest(source: Path | bytes) -> str:
    """Return the SHA-256 of a file or of bytes, in hexadecimal digits."""
    if isinstance(source, bytes):
        return hashlib.sha256(source).hexdigest()
    total = hashlib.sha256()
    with open(source, "rb") as file:
        while chunk := file.read(1 << 20):
            total.update(chunk)
    return total.hexdigest()
