"""Early stopping: when a run that no longer improves may end."""

from __future__ import annotations

import math
from typing import Any

from ultralytics.utils import LOGGER, colorstr
from ultralytics.utils.torch_utils import EarlyStopping


class Patience(EarlyStopping):
    """Ultralytics' early stopping that NaN does not mislead; it can also end a run that learns nothing.

    Stock takes a NaN that comes while the best fitness is 0 for the best fitness, which nothing is ever better than. Here one
    that is not finite is never an improvement. For all other numbers it is stock's in every answer and attribute, and
    ``best_fitness`` and ``best_epoch`` go into checkpoints and come out of them as stock's do.

    While the fitness is 0 stock loses no patience, as a training from scratch may find nothing for long. When that has lasted
    as long as the patience, a warning says so, once.

    Args:
        patience: Epochs without improvement after which to stop, >= 1; 0 or None: never.
        stop_at_zero: Let epochs at fitness 0 count against the patience as well.
        tell_of_zero: Whether the warning makes sense: not, when the validation set has nothing that could be found.

    Examples:
        >>> stopper = Patience(patience=2, stop_at_zero=True)
        >>> [stopper(epoch, 0.0) for epoch in (1, 2, 3)]
        [False, False, True]
    """

    def __init__(self, patience: Any = 50, *, stop_at_zero: bool = False, tell_of_zero: bool = True) -> None:
        super().__init__(patience)
        self.zero_since: int | None = None
        """First epoch with fitness 0; None before it, and after any other fitness."""
        self._stop_at_zero, self._tell_of_zero = stop_at_zero, tell_of_zero

    def __call__(self, epoch: int, fitness: Any) -> bool:
        """Return whether to stop after an epoch.

        Args:
            epoch: Its number, from 1.
            fitness: A number, higher is better; None when there was no validation, which is no answer and no patience lost.

        Returns:
            True when the last improvement is ``patience`` epochs old.
        """
        if fitness is None:
            return False
        if not math.isfinite(self.best_fitness):
            self.best_fitness = 0.0
        if not math.isfinite(fitness):
            fitness = 0.0 if self.best_fitness == 0 else -math.inf
        stop = super().__call__(epoch, fitness)
        if self.best_fitness != 0:
            self.zero_since = None
            return stop
        self.zero_since = epoch if self.zero_since is None else self.zero_since
        return self._nothing_found_for(epoch - self.zero_since)

    def _nothing_found_for(self, waited: int) -> bool:
        """Return whether to stop this many epochs after the first fitness of 0, and say so."""
        if self._stop_at_zero:
            self.possible_stop = waited >= self.patience - 1
            if waited < self.patience:
                return False
            LOGGER.info(
                f"{colorstr('EarlyStopping: ')}Training stopped as the fitness was 0 in the last {waited + 1} epochs"
                f" (patience={self.patience}, guard.stop_at_zero=True). Nothing was ever found."
            )
            return True
        if waited == self.patience and self._tell_of_zero:
            LOGGER.warning(
                f"The fitness was 0 in the last {waited + 1} epochs, longer than patience={self.patience}. Training goes on,"
                " as patience begins with the first fitness above 0. guard.stop_at_zero=True ends such a run."
            )
        return False


def follow(stopper: Any, *, stop_at_zero: bool, dataset: Any) -> Patience:
    """Return the guard's early stopping with the memory of stock's.

    Args:
        stopper: Stock's.
        stop_at_zero: As in :class:`Patience`.
        dataset: The one that validation looks at; where all its labels are known to be empty, a fitness of 0 means nothing.
    """
    labels = getattr(dataset, "labels", None)
    can_be_found = not isinstance(labels, list) or any(map(_has_objects, labels))
    patience = Patience(stopper.patience, stop_at_zero=stop_at_zero, tell_of_zero=can_be_found)
    vars(patience).update(vars(stopper))
    return patience


def _has_objects(label: Any) -> bool:
    """Return whether a label holds an object; true for a label of another kind."""
    return not (isinstance(label, dict) and "cls" in label) or bool(len(label["cls"]))
