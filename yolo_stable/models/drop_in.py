"""Drop-in classes: ``YOLO``, ``RTDETR``, ``YOLOWorld`` and ``YOLOE`` of Ultralytics, with the guard in every training.

Only ``train`` and ``tune`` are ours, and they hand over to Ultralytics' own with a guarded trainer. Nothing is attached to the
network: what is saved, exported and copied is stock's.
"""

from __future__ import annotations

import functools
import signal
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import ultralytics
from ultralytics.engine.model import Model
from ultralytics.utils import LOGGER, YAML
from ultralytics.utils.callbacks import get_default_callbacks
from ultralytics.utils.checks import check_yaml

from ..errors import TrainingInterruptedError
from .asked import Asked
from .command import guarded_command
from .sweep import Sweep, of_processes, raise_halts
from .trainer_choice import choose

if TYPE_CHECKING:
    from ..guard import GuardConfig

    _Base = Model
else:
    _Base = object


class GuardedModelMixin(_Base):
    """Put before a class of Ultralytics' models in the bases of a class to guard its trainings."""

    def train(
        self,
        trainer: Any = None,
        *,
        guard: Mapping[str, Any] | GuardConfig | bool | None = None,
        preset: str | None = None,
        **kwargs: Any,
    ) -> Any:
        """Train as Ultralytics does, with the guard.

        Args:
            trainer: A class of Ultralytics' trainers or your subclass of one; it is guarded when it is not already. None: that
                of the model's task. What cannot be guarded, such as a function, is used as it is, and a line says so.
            guard: Settings of the guard; None or True for the defaults. False: train as stock, without the guard.
            preset: Name or path of a preset whose values lie under the arguments, or ``"auto"``. None: no argument of
                Ultralytics is changed.
            **kwargs: As for Ultralytics' ``train``.

        Returns:
            What Ultralytics returns: the metrics, or a dict of them for a list of data sets.

        Raises:
            InvalidCallError: A setting of the guard, the preset or the trainer cannot be used; nothing has been written.
            TrainingHaltedError: The guard gave up. With a list of data sets, after all of them were tried.
            KeyboardInterrupt: Ctrl-C, as with Ultralytics; the message says what was saved.
            SystemExit: SIGTERM, with code 143; a line says what was saved.
        """
        with ending_as_stock_does():
            return self._train(trainer, guard, preset, kwargs)

    def _train(self, trainer: Any, guard: Any, preset: str | None, kwargs: dict[str, Any]) -> Any:
        asked = Asked.of(guard, preset, instead=self.__dict__.get(_TUNING))
        if asked.stock:
            return super().train(trainer=trainer, **kwargs)
        self._check_is_pytorch_model()
        several = isinstance(_data(kwargs), (list, tuple))
        if several and trainer is None and self.callbacks == get_default_callbacks():
            # Ultralytics trains each data set by a command of its own, from weights in float16.
            began = time.time()
            with guarded_command(asked):
                result = super().train(**kwargs)
            raise_halts(self.trainer, of_processes(self.trainer, began))
            return result
        chosen = choose(trainer, self, self._smart_load("trainer"), must=asked.by_name)
        settings = {**asked.settings, **kwargs}
        if not several:
            return super().train(trainer=chosen, **settings)
        sweep, began = Sweep(chosen), time.time()
        with sweep.until_interrupted():
            result = super().train(trainer=sweep, **settings)
        done: Any = self.trainer
        done.trainer = chosen
        raise_halts(done, {**of_processes(done, began), **sweep.halts})
        return result

    def tune(
        self,
        use_ray: bool = False,
        iterations: int = 300,
        *args: Any,
        guard: Mapping[str, Any] | GuardConfig | bool | None = None,
        preset: str | None = None,
        **kwargs: Any,
    ) -> Any:
        """Tune hyperparameters as Ultralytics does, with the guard in each training.

        Args:
            use_ray: Whether Ray Tune does it.
            iterations: Number of trainings.
            *args: As for Ultralytics' ``tune``.
            guard: As for :meth:`train`.
            preset: As for :meth:`train`; the tuned values win.
            **kwargs: As for Ultralytics' ``tune``.

        Returns:
            What Ultralytics returns. A training that halts is a failed one, as one with another error is.

        Raises:
            InvalidCallError: A setting of the guard or the preset cannot be used.
        """
        asked = Asked.of(guard, preset)
        if (
            asked.preset is not None and not use_ray
        ):  # Ultralytics hands every argument to its trainings, which would win
            kwargs = {**asked.hyperparameters(self.overrides["model"], kwargs), **kwargs}
            asked = replace(asked, preset=None)
        with ending_as_stock_does(), guarded_command(asked), self._tuning(asked):
            return super().tune(use_ray, iterations, *args, **kwargs)

    @contextmanager
    def _tuning(self, asked: Asked) -> Iterator[None]:
        """Let the trainings in here be those that were asked for: Ray's are of copies, and get Ultralytics' arguments alone."""
        self.__dict__[_TUNING] = asked
        try:
            yield
        finally:
            del self.__dict__[_TUNING]


@contextmanager
def ending_as_stock_does() -> Iterator[None]:
    """Let a signal end a script as it does with Ultralytics: no ``except Exception`` goes on with the next training."""
    try:
        yield
    except TrainingInterruptedError as error:
        if error.signal == signal.SIGINT:
            raise KeyboardInterrupt(str(error)) from error
        LOGGER.warning(str(error))
        raise SystemExit(error.exit_code) from error


class YOLO(GuardedModelMixin, ultralytics.YOLO):
    """Ultralytics' ``YOLO`` with the guard in every training.

    As there, a model of another kind makes it one of the other classes.
    """

    if not TYPE_CHECKING:  # for a type checker it is stock's

        @functools.wraps(ultralytics.YOLO.__init__)
        def __init__(self, *args, **kwargs):
            super().__init__(*args, **kwargs)
            self.__class__ = _OURS.get(type(self), type(self))


class RTDETR(GuardedModelMixin, ultralytics.RTDETR):
    """Ultralytics' ``RTDETR`` with the guard in every training."""


class YOLOWorld(GuardedModelMixin, ultralytics.YOLOWorld):
    """Ultralytics' ``YOLOWorld`` with the guard in every training."""


class YOLOE(GuardedModelMixin, ultralytics.YOLOE):
    """Ultralytics' ``YOLOE`` with the guard in every training."""


_OURS: dict[type, type] = {kind.__bases__[1]: kind for kind in (YOLO, RTDETR, YOLOWorld, YOLOE)}
_TUNING = "_asked_of_tune"


def _data(kwargs: Mapping[str, Any]) -> Any:
    """Return the data that Ultralytics will train on, as far as the call says it."""
    if "data" in kwargs or not kwargs.get("cfg"):
        return kwargs.get("data")
    return YAML.load(str(check_yaml(kwargs["cfg"]))).get("data")
