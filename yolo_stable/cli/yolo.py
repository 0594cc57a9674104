"""Verb ``yolo``: Ultralytics' own command line, with the guard in every training."""

from __future__ import annotations

import re
from typing import Annotated, Any

import typer

from ..errors import InvalidCallError
from ..train.call import switch
from ..train.words import MODES


def yolo(
    words: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[WORD ...]", help="What follows 'yolo', and guard.key=value. 'help': Ultralytics' own help."
        ),
    ] = None,
    preset: Annotated[str | None, typer.Option(help="Preset of the trainings, as for 'train'. Default: none.")] = None,
    traceback: Annotated[
        bool, typer.Option("--traceback", help="Show Python's traceback of an unexpected error.")
    ] = False,
) -> None:
    """Run a command of Ultralytics' own command line, with the guard in every training.

    Each training is guarded: also each of a list of data sets, on several GPUs, and in processes that Ultralytics starts. All
    other commands are Ultralytics' own. guard=False trains without the guard.

    Example: yolo-stable yolo detect train data=data.yaml model=yolo26n.pt epochs=50 guard.max_norm=5.0
    """
    rest, guard, preset = taken_out(words or [], preset)
    other = next((mode for mode in _modes(rest) if mode != "train"), None)
    if other is not None and (guard is not None or preset is not None):
        raise InvalidCallError(
            f"yolo: {other!r} trains nothing, so that guard and preset have no effect. Leave them out."
        )
    from ..presets.run_plan import separate

    separate({"guard": guard if isinstance(guard, dict) else None, "preset": preset})
    from .entrypoint import run  # imports torch and ultralytics: only now that our own words are right

    run(rest, guard=guard, preset=preset, traceback=traceback)


def taken_out(
    words: list[str], preset: str | None = None
) -> tuple[list[str], dict[str, Any] | bool | None, str | None]:
    """Take the words that Ultralytics does not know out of a command.

    Args:
        words: As typed.
        preset: Of ``--preset``, which wins.

    Returns:
        The others; the guard's settings, a switch, or None for the defaults; and the preset.

    Raises:
        InvalidCallError: The guard is switched off and set, or a value of the switch is none.

    Examples:
        >>> taken_out(["train", "guard.max_norm=5", "data=d.yaml", "preset=stable"])
        (['train', 'data=d.yaml'], {'max_norm': 5}, 'stable')
    """
    from ..presets.ultralytics_settings import parse_value

    rest: list[str] = []
    settings: dict[str, Any] = {}
    guarded: bool | None = None
    for word in words:
        ours = re.fullmatch(r"(?:--)?(?P<key>guard(?:\.\w+)?|preset)=(?P<text>.*)", word, re.DOTALL)
        if ours is None:
            rest.append(word)
        elif ours["key"] == "preset":
            preset = ours["text"] if preset is None else preset
        elif ours["key"] == "guard":
            guarded = switch(parse_value(ours["text"]), "yolo")
        else:
            settings[ours["key"].removeprefix("guard.")] = parse_value(ours["text"])
    if guarded is False and settings:
        raise InvalidCallError(
            f"yolo: guard=False trains without the guard, but guard.{next(iter(settings))} is set. Leave one of them out."
        )
    return rest, settings or guarded, preset


def _modes(words: list[str]) -> list[str]:
    return [mode for word in words if (mode := word.removeprefix("mode=")) in MODES]
