"""Progress: the guard's columns of ``results.csv`` and of the progress bar."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from ultralytics.utils import LOGGER

from .._shared.atomic_file import reason
from ..runlog.epoch_metrics import DISPLAY, EpochMetrics
from ..runlog.results_csv import end_last_row, widen


def labelled(stock: Callable[..., Any], loss_items: Any, prefix: str, telemetry: EpochMetrics) -> Any:
    """Label loss items as stock does, with the guard's columns behind the training loss.

    ``results.csv`` and all loggers take the training loss from here; validation columns are named after the loss items alone.

    Args:
        stock: Ultralytics' ``label_loss_items``.
        loss_items: By name; None asks for the names alone.
        prefix: ``train`` or ``val``.
        telemetry: Of the epoch.
    """
    if loss_items is None or prefix != "train":
        return stock(loss_items, prefix)
    pure = {k: v for k, v in loss_items.items() if k not in DISPLAY}
    return {**stock(pure, prefix), **telemetry.columns()}


def write_row(stock: Callable[[dict[str, Any]], Any], metrics: dict[str, Any], csv: Path, epoch: int) -> None:
    """Write a row of ``results.csv`` with the guard's columns last, so that stock can resume the run.

    Args:
        stock: Ultralytics' ``save_metrics``.
        metrics: Of the epoch, by column.
        csv: The file.
        epoch: From 1, for the message.
    """
    mine = {key: value for key, value in metrics.items() if key.startswith("guard/")}
    others = {key: value for key, value in metrics.items() if key not in mine}
    try:
        end_last_row(csv)
        widen(csv, list(mine))
        stock({**others, **mine})
    except OSError as error:
        LOGGER.warning(
            f"{csv} could not be written: {reason(error)}. Training goes on; the row of epoch {epoch} is lost."
        )
