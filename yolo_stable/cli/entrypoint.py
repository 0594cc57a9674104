"""Entry point of Ultralytics' command line, run in this process with guarded models."""

from __future__ import annotations

import functools
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from types import ModuleType
from typing import Any

import ultralytics
from ultralytics import cfg, utils

from .._shared.text import one_line
from ..errors import InvalidCallError, YoloStableError
from ..models import drop_in


def run(
    words: Sequence[str],
    *,
    guard: Mapping[str, Any] | bool | None = None,
    preset: str | None = None,
    traceback: bool = False,
) -> None:
    """Run a command of Ultralytics.

    Args:
        words: What follows ``yolo``.
        guard: Of all its trainings, as for ``YOLO.train``.
        preset: Likewise.
        traceback: Let an unexpected error through as it is.

    Raises:
        InvalidCallError: Ultralytics does not understand a word.
        YoloStableError: The command failed, or a training was halted.
    """
    try:
        with guarded_models(guard, preset), typed(["yolo", *words]):
            cfg.entrypoint()
    except (KeyboardInterrupt, SystemExit) as error:
        if isinstance(error.__cause__, YoloStableError):  # says what was saved
            raise error.__cause__ from None
        raise
    except YoloStableError:
        raise
    except subprocess.CalledProcessError as error:  # the workers of a multi-GPU run have said why
        raise YoloStableError(f"A worker of the multi-GPU run ended with exit code {error.returncode}.") from error
    except SyntaxError as error:
        if traceback:
            raise
        raise InvalidCallError(f"yolo: {one_line(SyntaxError(str(error).partition(cfg.CLI_HELP_MSG)[0]))}") from error
    except Exception as error:
        if traceback:
            raise
        raise YoloStableError(f"yolo: {type(error).__name__}: {one_line(error)} (--traceback shows where)") from error


@contextmanager
def guarded_models(guard: Mapping[str, Any] | bool | None, preset: str | None) -> Iterator[None]:
    """Let ``ultralytics.YOLO`` and ``ultralytics.RTDETR`` be the drop-in classes while this is entered.

    Args:
        guard: Of every training of such a model.
        preset: Likewise.
    """

    def asking(kind: Any) -> type:
        class Asking(kind):
            """Asks for the guard's settings and the preset of the command."""

            def __init__(self, *args: Any, **kwargs: Any) -> None:
                super().__init__(*args, **kwargs)  # may become a YOLOWorld or a YOLOE
                for name in ("train", "tune"):
                    setattr(self, name, functools.partial(getattr(self, name), guard=guard, preset=preset))

        Asking.__name__ = Asking.__qualname__ = kind.__name__
        return Asking

    with ExitStack() as stack:
        for name in ("YOLO", "RTDETR"):
            stack.enter_context(_holding(ultralytics, name, asking(getattr(drop_in, name))))
        yield


@contextmanager
def typed(words: Sequence[str]) -> Iterator[None]:
    """Let words be what was typed: Ultralytics reads the list itself, also to save what it predicts."""
    lists = [sys.argv] if sys.argv is utils.ARGV else [sys.argv, utils.ARGV]
    before = [list(each) for each in lists]
    for each in lists:
        each[:] = words
    try:
        yield
    finally:
        for each, were in zip(lists, before, strict=True):
            each[:] = were


@contextmanager
def _holding(module: ModuleType, name: str, value: Any) -> Iterator[None]:
    """Set a name of a module, which may make it on first use, and undo that."""
    missing = object()
    before = vars(module).get(name, missing)
    setattr(module, name, value)
    try:
        yield
    finally:
        if before is missing:
            delattr(module, name)
        else:
            setattr(module, name, before)
