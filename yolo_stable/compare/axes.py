"""Axes of a comparison: what it varies, and the resulting combinations."""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import InvalidCallError
from ..presets.presets import values_of
from ..train.checks import optimizer_named

WHERE = "compare"
"""What the messages of this verb start with."""
_MOST_SEED = 2**32 - 1


@dataclass(frozen=True, kw_only=True)
class Axes:
    """What a comparison varies; an empty axis is not varied."""

    stock: bool = False
    """Also train each combination with Ultralytics' own trainer."""
    presets: tuple[str, ...] = ()
    optimizers: tuple[str, ...] = ()
    rates: tuple[float, ...] = ()
    """Values of ``lr0``."""
    seeds: tuple[int, ...] = ()

    @classmethod
    def parse(
        cls,
        *,
        optimizers: str | None = None,
        presets: str | None = None,
        lr0: str | None = None,
        seeds: str | None = None,
        stock: bool = False,
    ) -> Axes:
        """Read the options of the command, each a list with commas or None.

        Raises:
            InvalidCallError: A list is empty or repeats a value, a name is unknown, a number is out of its range, or nothing
                varies.

        Examples:
            >>> axes = Axes.parse(optimizers="sgd, AdamW", lr0="0.01,1e-3")
            >>> axes.optimizers, axes.rates
            (('SGD', 'AdamW'), (0.01, 0.001))
        """
        names = _words("--presets", presets)
        for name in names:
            values_of(name)
        axes = cls(
            stock=stock,
            presets=names,
            optimizers=_once(
                "--optimizers",
                [optimizer_named(word, f"{WHERE}: --optimizers: ") for word in _words("--optimizers", optimizers)],
            ),
            rates=_once("--lr0", [_rate(word) for word in _words("--lr0", lr0)]),
            seeds=_once("--seeds", [_seed(word) for word in _words("--seeds", seeds)]),
        )
        if len(list(axes.combinations())) < 2:
            raise InvalidCallError(
                f"{WHERE}: there is nothing to compare. Name two or more with --optimizers SGD,AdamW, --presets"
                " none,stable, --lr0 0.01,0.001 or --seeds 0,1,2, or add a baseline with --stock."
            )
        return axes

    def combinations(self) -> Iterator[dict[str, Any]]:
        """Yield the product of all axes, the seeds outermost, so that the first runs make a complete comparison."""
        inner: dict[str, Sequence[Any]] = {
            "trainer": ("guarded", "stock") if self.stock else (),
            "preset": self.presets,
            "optimizer": self.optimizers,
            "lr0": self.rates,
        }
        inner = {name: values for name, values in inner.items() if values}
        for seed in self.seeds or (None,):
            for values in itertools.product(*inner.values()):
                tail = {} if seed is None else {"seed": seed}
                yield {**dict(zip(inner, values, strict=True)), **tail}


def name_of(choice: dict[str, Any]) -> str:
    """Return a name for a combination that any file system accepts.

    Examples:
        >>> name_of({"trainer": "stock", "preset": "my/own hyp.yaml", "lr0": 0.001})
        'stock,preset=own-hyp,lr0=0.001'
        >>> name_of({})
        'run'
    """
    parts = []
    for key, value in choice.items():
        text = Path(str(value)).stem if key == "preset" else f"{value:g}" if isinstance(value, float) else str(value)
        text = re.sub(r"[^\w.+-]+", "-", text)
        parts.append(text if key == "trainer" else f"{key}={text}")
    return ",".join(parts) or "run"


def _words(option: str, text: str | None) -> tuple[str, ...]:
    if text is None:
        return ()
    words = [word.strip() for word in text.split(",")]
    if not all(words):
        raise InvalidCallError(f"{WHERE}: {option} {text!r} has an empty entry. Separate values with single commas.")
    return _once(option, words)


def _once(option: str, values: Sequence[Any]) -> tuple[Any, ...]:
    twice = [value for position, value in enumerate(values) if value in values[:position]]
    if twice:
        raise InvalidCallError(
            f"{WHERE}: {option} names {twice[0]} twice. To repeat runs, use other seeds: --seeds 0,1,2."
        )
    return tuple(values)


def _rate(word: str) -> float:
    try:
        rate = float(word)
    except ValueError:
        rate = math.nan
    if not (math.isfinite(rate) and rate > 0):
        raise InvalidCallError(f"{WHERE}: --lr0: {word} is not allowed. It must be a number above 0.")
    return rate


def _seed(word: str) -> int:
    if not (word.isascii() and word.isdigit() and int(word) <= _MOST_SEED):
        raise InvalidCallError(
            f"{WHERE}: --seeds: {word} is not allowed. It must be a whole number between 0 and {_MOST_SEED}."
        )
    return int(word)
