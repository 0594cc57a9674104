"""When a run that no longer improves may end."""

from __future__ import annotations

import math
from typing import Any

from ultralytics.utils import LOGGER, colorstr
from ultralytics.utils.torch_utils import EarlyStopping


class Patience(EarlyStopping):
    """Ultralytics' early stopping, for runs that have learned nothing as well.

    Stock takes every epoch for an improvement while the best fitness is 0, so that a dead run goes on to its last epoch; and
    a NaN in that stage becomes the best fitness, which nothing is ever better than. Here only a higher fitness is an
    improvement, the first finite one counts as such, and one that is not finite never does. Training from scratch has
    fitness 0 for some epochs: they count against ``patience``, which is meant to be longer than that (100 by default).

    With fitness above 0 it is stock's in every answer and attribute, and ``best_fitness`` and ``best_epoch`` go into
    checkpoints and come out of them as stock's do.

    Args:
        patience: Epochs without improvement after which to stop, >= 1; 0 or None: never.

    Examples:
        >>> stopper = Patience(patience=2)
        >>> [stopper(epoch, 0.0) for epoch in (1, 2, 3)]
        [False, False, True]
    """

    def __call__(self, epoch: int, fitness: Any) -> bool:
        """Take the fitness of an epoch and tell whether to stop.

        Args:
            epoch: Its number, from 1.
            fitness: A number, higher is better; None when there was no validation, which is no answer and no patience lost.

        Returns:
            True when the last improvement is ``patience`` epochs old.
        """
        if fitness is None:
            return False
        # A checkpoint keeps these two only: no epoch seen yet is best_epoch 0, as the loop counts from 1.
        nothing_seen = self.best_epoch == 0 or not math.isfinite(self.best_fitness)
        if math.isfinite(fitness) and (nothing_seen or fitness > self.best_fitness):
            self.best_epoch = epoch
            self.best_fitness = fitness
        waited = epoch - self.best_epoch
        self.possible_stop = waited >= self.patience - 1
        stop = waited >= self.patience
        if stop:
            LOGGER.info(colorstr("EarlyStopping: ") + self._farewell())
        return stop

    def _farewell(self) -> str:
        if self.best_fitness == 0:
            best = "Nothing was ever found: fitness was 0 in all epochs. Look at the labels and at the learning rate."
        else:
            best = f"Best results observed at epoch {self.best_epoch}, best model saved as best.pt."
        return (
            f"Training stopped early as no improvement observed in last {self.patience} epochs. {best} "
            "patience=300, for example, waits longer, and patience=0 never stops."
        )
