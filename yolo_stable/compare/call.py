"""Call of ``yolo-stable compare``: its words, parsed into runs; nothing is written."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import InvalidCallError
from ..presets.presets import values_of
from ..presets.ultralytics_settings import default_hyp
from ..train.call import TrainCall, said_by
from ..train.words import canonical
from .axes import WHERE, Axes, name_of
from .fingerprint import FINGERPRINT, fingerprint
from .trial import Trial

EPOCHS = 3
"""Epochs of each run, unless the call names them."""
OF_THE_FOLDER = ("project", "name", "exist_ok", "save_dir", "resume")
"""Arguments that a comparison sets itself."""
LIKE_ADAM = frozenset({"Adam", "AdamW", "Adamax", "NAdam", "RAdam", "RMSprop"})
"""Optimizers that divide by the gradient's size, and so need smaller learning rates."""


@dataclass(frozen=True, kw_only=True)
class CompareCall:
    """A call of ``yolo-stable compare``, parsed; :meth:`parse` makes one."""

    train: TrainCall
    """What all runs have in common."""
    axes: Axes
    epochs: int
    trials: tuple[Trial, ...]
    """The runs, in the order of training."""

    @classmethod
    def parse(
        cls, data: str, words: Sequence[str], axes: Axes, epochs: int | None = None, imports: Sequence[str] = ()
    ) -> CompareCall:
        """Parse and check what can be checked without torch.

        Raises:
            InvalidCallError: As :meth:`TrainCall.parse`; also when a word sets what varies, or where the runs are written.
        """
        with said_by(WHERE):
            words = canonical([data, *words])
        given = {word.partition("=")[0].strip() for word in words}
        for option, key, values in (
            ("--optimizers", "optimizer", axes.optimizers),
            ("--lr0", "lr0", axes.rates),
            ("--seeds", "seed", axes.seeds),
            ("--presets", "preset", axes.presets),
            ("--epochs", "epochs", epochs),
        ):
            if values and key in given:
                raise InvalidCallError(f"{WHERE}: {key}= and {option} set the same thing. Leave one of them out.")
        if "guard" in given:
            raise InvalidCallError(f"{WHERE}: guard= cannot be set: --stock adds runs without the guard. Leave it out.")
        ours = [key for key in OF_THE_FOLDER if key in given]
        if ours:
            raise InvalidCallError(
                f"{WHERE}: {', '.join(f'{key}=' for key in ours)} cannot be set: each run has its own folder below the one"
                " of --out, and an interrupted comparison continues with the same command. Leave it out."
            )
        if "guard.alert" in given:
            raise InvalidCallError(
                f"{WHERE}: guard.alert= cannot be set: it is a secret, and a comparison writes down what its runs are started"
                " with. Leave it out; the environment variable YOLO_STABLE_ALERT reaches all runs."
            )
        train = TrainCall.parse("", words, imports=imports)
        settings = train.settings
        number = epochs if epochs is not None else settings.get("epochs", EPOCHS)
        if number < 1:
            raise InvalidCallError(f"{WHERE}: {number} epochs are not allowed. It must be 1 or more.")
        common = [*words, f"epochs={number}", *([] if "seed" in settings or axes.seeds else ["seed=0"])]
        trials: list[Trial] = []
        for choice in axes.combinations():
            name = _unused(name_of(choice), {trial.name for trial in trials})
            group = name_of({key: value for key, value in choice.items() if key != "seed"})
            mine = [f"{key}={choice[key]}" for key in ("optimizer", "lr0", "seed") if key in choice]
            trial = Trial(
                name=name,
                group=_unused(group, {t.group for t in trials if _without_seed(t.choice) != _without_seed(choice)}),
                choice=choice,
                stock=choice.get("trainer") == "stock",
                data=str(train.data),
                words=(*common, *mine),
                preset=choice.get("preset"),
                imports=train.imports,
                epochs=number,
            )
            TrainCall.parse(trial.words[0], trial.words[1:], trial.preset)
            trials.append(trial)
        call = cls(train=train, axes=axes, epochs=number, trials=tuple(trials))
        if axes.rates and call._ignoring_lr0() == call.trials:
            raise InvalidCallError(
                f"{WHERE}: --lr0 would change nothing: optimizer=auto chooses its own learning rate. Name an optimizer as well,"
                " such as --optimizers SGD or optimizer=SGD."
            )
        return call

    def record(self) -> dict[str, Any]:
        """Return everything that decides the results, in plain values: two calls with equal records are the same."""
        train = self.train
        settings = {key: value for key, value in train.settings.items() if key not in OF_THE_FOLDER}
        common = {
            "data": _place(str(train.data)),
            "model": None if train.model is None else _place(train.model),
            **{key: value for key, value in settings.items() if key != "epochs"},
            **{f"guard.{key}": value for key, value in train.guard.items()},
            "epochs": self.epochs,
            "preset": None if train.preset is None else _preset(train.preset),
            "validate": train.validate,
            **({"--import": [_place(name) for name in train.imports]} if train.imports else {}),
        }
        varied = dataclasses.asdict(self.axes) | {"presets": [_preset(name) for name in self.axes.presets]}
        options = {f"--{'lr0' if key == 'rates' else key}": value for key, value in varied.items()}
        return {**common, **options, **fingerprint(str(train.data), train.model)}

    def notes(self) -> list[str]:
        """Return notes on what limits the comparison."""
        found = []
        longest = max(float(self._value(trial, "warmup_epochs")) for trial in self.trials)
        warmup = min(longest, self.epochs - 1)  # as Ultralytics: the last epoch is never warm-up
        if warmup * 3 > self.epochs:
            found.append(
                f"The warm-up takes {warmup:g} of the {self.epochs} epochs; during it all runs train below their learning rate."
                " More epochs (--epochs 10) or warmup_epochs=0.5 would tell more."
            )
        optimizers = set(self.axes.optimizers) - {"auto"}
        if optimizers & LIKE_ADAM and optimizers - LIKE_ADAM and len(self.axes.rates) < 2:
            names = ", ".join(name for name in self.axes.optimizers if name != "auto")
            found.append(
                f"{names} have the same learning rate, though Adam and its kin usually need about a tenth of SGD's."
                " --lr0 0.01,0.001 trains each of them with both."
            )
        if self.axes.rates and self._ignoring_lr0():
            found.append("optimizer=auto chooses its own learning rate: --lr0 changes nothing in its runs.")
        return found

    def _ignoring_lr0(self) -> tuple[Trial, ...]:
        """Return the runs whose optimizer chooses its own learning rate."""
        return tuple(trial for trial in self.trials if str(self._value(trial, "optimizer")).lower() == "auto")

    def _value(self, trial: Trial, key: str) -> Any:
        """Return a setting of a run; for a preset that the model chooses, Ultralytics' default."""
        below = values_of(trial.preset or self.train.preset)
        return {**default_hyp(), **below, **self.train.settings, **trial.choice}[key]


def difference(before: Mapping[str, Any], now: Mapping[str, Any]) -> str:
    """Say briefly what differs between two records; empty when nothing does.

    Examples:
        >>> difference({"epochs": 3, "data": "a.yaml"}, {"epochs": 5, "data": "a.yaml", "batch": 4})
        'batch: not given before, 4 now; epochs: 3 before, 5 now'
    """
    missing = object()
    told = []
    before = {**{key: now[key] for key in FINGERPRINT if key in now}, **before}  # the first versions did not keep it
    for key in sorted({*before, *now}):
        old, new = before.get(key, missing), now.get(key, missing)
        if old != new:
            was, is_now = ("not given" if value is missing else _text(value) for value in (old, new))
            told.append(f"{key}: {was} before, {is_now} now")
    return "; ".join(told)


def _text(value: Any) -> str:
    if isinstance(value, (list, tuple)):
        return ",".join(_text(item) for item in value) or "none"
    if isinstance(value, dict) and "preset" in value:
        return str(value["preset"])
    return "none" if value is None else str(value)


def _place(name: str) -> str:
    return os.path.abspath(name) if Path(name).exists() else name


def _preset(name: str) -> dict[str, Any]:
    """Return a preset with its values: an edited file counts as another preset."""
    return {"preset": name, "values": values_of(name)}


def _without_seed(choice: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in choice.items() if key != "seed"}


def _unused(name: str, taken: set[str]) -> str:
    """Return a name that differs from all others even if case is ignored."""
    low = {other.lower() for other in taken}
    names = (name if number == 1 else f"{name}-{number}" for number in range(1, len(taken) + 2))
    return next(candidate for candidate in names if candidate.lower() not in low)
