"""Injected faults: what ``--inject`` puts into a run on purpose, written as ``nan-pixel@2.10``.

    KIND[:DETAIL]@EPOCH.BATCH[xN | +]

Epoch and batch count from 1, as they are printed. ``xN``: N batches in a row; ``+``: every batch from there on. Commas separate
several. Reading the text needs no torch; the batches of the run are known once its loader is.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from ..errors import InvalidCallError, nearest

WHERE = "--inject"
FORM = "KIND[:DETAIL]@EPOCH.BATCH[xN | +], such as nan-pixel@2.10"
NAN, INF = float("nan"), float("inf")
HUGE = {"pixel": 1e20, "gradient": 1e25, "weight": 1e20}
NO_CLASS = 99_999
NUMBERS = ("pixel", "gradient", "weight", "momentum", "exp-avg-sq", "ema", "running-var")
MODULE, FILE = "a module, such as model.4", "the end of the path of a training image, such as 000012.jpg"
PATTERN = re.compile(
    r"(?P<kind>[^:@]+)(:(?P<detail>.+))?@(?P<epoch>\d+)\.(?P<batch>\d+)(x(?P<times>\d+)|(?P<onwards>\+))?"
)


@dataclass(frozen=True, slots=True)
class FaultKind:
    """One kind of fault."""

    make: Callable[..., Any]
    """Takes the module of the faults, the detail, ``at`` and ``since``."""
    detail: str = ""
    """What the detail is; empty: there is none."""
    required: bool = False
    whenever_drawn: bool = False
    """It belongs to a file, not to a batch."""


def _of_loop(place: str, value: float) -> Callable[..., Any]:
    def make(chaos: Any, detail: str, **when: Any) -> Any:
        return chaos.Fault(place.replace("-", "_"), value, module=detail, **when)

    return make


def _of_layer(kind: str) -> Callable[..., Any]:
    return lambda chaos, detail, **when: chaos.LayerFault(kind, detail, **when)


def _of_device(*, persistent: bool) -> Callable[..., Any]:
    return lambda chaos, detail, **when: chaos.DeviceFault(detail, persistent=persistent, **when)


def _of_file(kind: str, value: float) -> Callable[..., Any]:
    return lambda chaos, detail, **when: chaos.FileFault(detail, kind, value)


def _number(place: str, value: float) -> FaultKind:
    return FaultKind(_of_loop(place, value), detail=MODULE if place in {"weight", "running-var"} else "")


KINDS: dict[str, FaultKind] = {
    **{
        f"{name}-{place}": _number(place, value)
        for place in NUMBERS
        for name, value in (("nan", NAN), ("inf", INF), ("huge", HUGE.get(place, 1e30)))
    },
    "nan-loss": _number("loss", NAN),
    "inf-loss": _number("loss", INF),
    "bad-label": _number("label", NO_CLASS),
    "lr-x100": _number("lr", 100.0),
    "overflow": _number("overflow", INF),
    "nan-layer": FaultKind(_of_layer("log"), MODULE, required=True),
    "inf-layer": FaultKind(_of_layer("divide"), MODULE, required=True),
    "overflow-layer": FaultKind(_of_layer("overflow"), MODULE, required=True),
    "half-layer": FaultKind(_of_layer("overflow-half"), MODULE, required=True),
    "nan-backward": FaultKind(_of_layer("masked"), MODULE, required=True),
    "inf-backward": FaultKind(_of_layer("root"), MODULE, required=True),
    "device-once": FaultKind(_of_device(persistent=False), MODULE, required=True),
    "device-always": FaultKind(_of_device(persistent=True), MODULE, required=True),
    "nan-file": FaultKind(_of_file("image", NAN), FILE, required=True, whenever_drawn=True),
    "huge-file": FaultKind(_of_file("image", 1e20), FILE, required=True, whenever_drawn=True),
    "nan-box": FaultKind(_of_file("box", NAN), FILE, required=True, whenever_drawn=True),
    "bad-class": FaultKind(_of_file("class", NO_CLASS), FILE, required=True, whenever_drawn=True),
}
"""What can be injected, by the name that is typed."""


@dataclass(frozen=True, slots=True)
class Injection:
    """One requested fault; epoch and batch from 1."""

    kind: str
    epoch: int
    batch: int
    times: int = 1
    onwards: bool = False
    detail: str = ""

    def __str__(self) -> str:
        """Return its text."""
        detail = f":{self.detail}" if self.detail else ""
        return f"{self.kind}{detail}@{self.epoch}.{self.batch}" + (
            "+" if self.onwards else f"x{self.times}" if self.times > 1 else ""
        )

    def fault(self, batches: int, epochs: int | None = None, first_epoch: int = 1) -> Any:
        """Return the fault for a run, one of :mod:`yolo_stable.chaos`; its batches count from 0 over the whole run.

        Args:
            batches: Of an epoch.
            epochs: The last epoch; None: not known.
            first_epoch: That of the run, above 1 if it was resumed.

        Raises:
            InvalidCallError: The run has no such epoch, or an epoch no such batch: it would never fire.

        Examples:
            >>> parse("nan-pixel@2.10")[0].fault(batches=16).at
            (25,)
        """
        if self.batch > batches:
            raise InvalidCallError(f"{WHERE} {self}: an epoch of this run has {batches} batches, from 1 to {batches}.")
        if self.epoch < first_epoch or (epochs is not None and self.epoch > epochs):
            last = "" if epochs is None else f" to {epochs}"
            raise InvalidCallError(f"{WHERE} {self}: this run has the epochs {first_epoch}{last}.")
        start = (self.epoch - first_epoch) * batches + self.batch - 1
        return self._made(at=() if self.onwards else tuple(range(start, start + self.times)), since=start)

    def _made(self, *, at: tuple[int, ...], since: int) -> Any:
        from .. import chaos  # brings torch along

        return KINDS[self.kind].make(chaos, self.detail, at=at, since=since if self.onwards else None)


def parse(text: str) -> tuple[Injection, ...]:
    """Read what to inject.

    Raises:
        InvalidCallError: Something in it is not understood.

    Examples:
        >>> [str(one) for one in parse("nan-pixel@2.10, nan-layer:model.4@1.3x2,lr-x100@3.1+")]
        ['nan-pixel@2.10', 'nan-layer:model.4@1.3x2', 'lr-x100@3.1+']
    """
    return tuple(_parse_one(part.strip()) for part in text.split(","))


def _parse_one(text: str) -> Injection:
    match = PATTERN.fullmatch(text)
    name = re.split("[:@]", text)[0]
    if name not in KINDS:
        raise InvalidCallError(
            f"{WHERE} {text}: there is no kind {name!r}: {', '.join(sorted(KINDS))}.{nearest(name, KINDS)}"
        )
    if match is None:
        raise InvalidCallError(f"{WHERE} {text}: write {FORM}.")
    kind, detail = KINDS[name], match["detail"] or ""
    found = Injection(
        name, int(match["epoch"]), int(match["batch"]), int(match["times"] or 1), bool(match["onwards"]), detail
    )
    if min(found.epoch, found.batch, found.times) < 1:
        raise InvalidCallError(f"{WHERE} {text}: epochs, batches and repetitions count from 1.")
    if detail and not kind.detail:
        raise InvalidCallError(f"{WHERE} {text}: {name} has no detail: leave out ':{detail}'.")
    if kind.required and not detail:
        raise InvalidCallError(f"{WHERE} {text}: {name} needs {kind.detail}: {name}:DETAIL@EPOCH.BATCH.")
    if kind.whenever_drawn and (found.epoch, found.batch, found.onwards) != (1, 1, True):
        raise InvalidCallError(f"{WHERE} {text}: a file is broken whenever it is drawn: write {name}:{detail}@1.1+.")
    return found


class Injected:
    """The faults of one run: what was requested, and whether it fired."""

    def __init__(self, injections: tuple[Injection, ...]) -> None:
        self.injections = injections
        self.armed: list[Any] = []
        """One for each; ``fired`` counts."""

    def describe(self) -> str:
        """Return the line for the start of the run."""
        return f"Faults are injected on purpose ({WHERE}): {', '.join(map(str, self.injections))}."

    def report(self) -> str:
        """Return the line for the end of the run: whether each has fired."""
        counts = [
            f"{asked} fired {armed.fired} time{'' if armed.fired == 1 else 's'}"
            if armed.fired
            else f"{asked} NEVER fired"
            for asked, armed in zip(self.injections, self.armed, strict=True)
        ]
        return f"Injected faults: {', '.join(counts)}."

    def resolve(self, trainer: Any) -> None:
        """Find the batches of the run once its loader is known; they count from here.

        Raises:
            InvalidCallError: There is no such batch, epoch or module.
        """
        from ..chaos import find

        first = getattr(trainer, "start_epoch", 0) + 1
        epochs = getattr(trainer, "epochs", None)
        for asked, armed in zip(self.injections, self.armed, strict=True):
            armed.fault = asked.fault(len(trainer.train_loader), epochs, first)
            armed.batches = armed.due = 0
            if hasattr(armed.fault, "find_in"):
                armed.fault.find_in(trainer.model)
            elif KINDS[asked.kind].detail == MODULE and asked.detail:
                find(trainer.model, asked.detail)


def faulty(trainer_class: type, text: str, say: Callable[[str], Any] = print) -> Any:
    """Return a subclass of a trainer's class with faults in it, for one run on one device.

    Returns:
        The subclass; its attribute ``injected`` is the :class:`Injected`.

    Raises:
        InvalidCallError: The text is not understood. When training starts: there is no such batch or module, or the run has
            several devices.
    """
    injected = Injected(parse(text))
    base: Any = trainer_class
    for asked in injected.injections:
        base = asked._made(at=(0,), since=0).on(base)  # for its place; the batches are set once they are known
        injected.armed.append(base.chaos)
    shared = injected

    class Injecting(base):
        injected = shared
        _known = False

        def _build_train_pipeline(self) -> None:  # again when memory ran out and the epoch restarts
            super()._build_train_pipeline()
            self._known = False

        def preprocess_batch(self, batch: dict[str, Any]) -> dict[str, Any]:
            if not self._known:
                shared.resolve(self)
                self._known = True
            return super().preprocess_batch(batch)

        def train(self, *args: Any, **kwargs: Any) -> Any:
            if getattr(self, "ddp", False):
                raise InvalidCallError(f"{WHERE} works on one device only: name one with device=.")
            say(shared.describe())
            try:
                return super().train(*args, **kwargs)
            finally:
                say(shared.report())

    if not hasattr(base, "_build_train_pipeline"):
        del Injecting._build_train_pipeline
    Injecting.__name__ = Injecting.__qualname__ = f"{trainer_class.__name__}Injected"
    return Injecting
