"""Progress: the guard's columns of ``results.csv``, and the head of the progress bar."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ultralytics.utils import LOGGER

from .._shared.atomic_file import reason
from ..runlog.epoch_metrics import DISPLAY, EpochTelemetry
from ..runlog.results_csv import end_last_row, widen

if TYPE_CHECKING:
    from ultralytics.engine.trainer import BaseTrainer as _Base
else:
    _Base = object


class GuardedResults(_Base):
    """The part of :class:`~yolo_stable.GuardedTrainerMixin` that faces the user's files."""

    telemetry: EpochTelemetry

    def label_loss_items(self, loss_items: Any = None, prefix: str = "train") -> Any:
        """Label loss items as stock does, and add the guard's columns to those of the training loss.

        ``results.csv`` and all loggers take the training loss from here; validation columns are named after the loss items
        alone.
        """
        if loss_items is None or prefix != "train":
            return super().label_loss_items(loss_items, prefix)
        pure = {k: v for k, v in loss_items.items() if k not in DISPLAY}
        labelled: Any = super().label_loss_items(pure, prefix)
        return {**labelled, **self.telemetry.columns()}

    def save_metrics(self, metrics: dict[str, Any]) -> None:
        """Write a row of ``results.csv`` with the guard's columns last, so that a run can change hands when it is resumed."""
        mine = [key for key in metrics if key.startswith("guard/")]
        others = {key: value for key, value in metrics.items() if key not in mine}
        try:
            end_last_row(self.csv)
            widen(self.csv, mine)
            super().save_metrics({**others, **{key: metrics[key] for key in mine}})
        except OSError as error:
            LOGGER.warning(
                f"{self.csv} could not be written: {reason(error)}. Training goes on; the row of epoch {self.epoch + 1} is lost."
            )

    def progress_string(self) -> Any:
        """Return the head of the progress bar, with the guard's columns after those of the loss."""
        names = self.loss_names
        try:
            self.loss_names = (*names, *DISPLAY)
            return super().progress_string()
        finally:
            self.loss_names = names
