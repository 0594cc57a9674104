"""Training run: trains what a call of ``yolo-stable train`` asks for."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

from ultralytics.utils import LOGGER

from ..errors import YoloStableError
from .call import TrainCall
from .inject import faulty
from .request import resolve


def run(call: TrainCall, inject: str | None = None) -> Path:
    """Check everything, train, and return the run's folder.

    The folder of a new run that fails before its first batch is removed.

    Raises:
        InvalidCallError: Something in the call is wrong; nothing was written.
        YoloStableError: Training failed or was halted.
    """
    request = resolve(call)
    model, folder, trainer_class = request.model, request.folder, request.trainer
    if request.stock:
        LOGGER.info("guard=False: this training runs without the guard, by Ultralytics' own trainer.")
    made: list[Path] = []
    model.add_callback("on_pretrain_routine_start", lambda trainer: made.append(Path(trainer.save_dir)))
    try:
        if inject is not None:
            trainer_class = faulty(trainer_class or model._smart_load("trainer"), inject, LOGGER.warning)
        model.train(trainer=trainer_class, **request.arguments)
    except BaseException as error:
        trainer: Any = model.trainer
        if trainer is not None:  # with several GPUs only the workers get the callback
            made.append(Path(trainer.save_dir))
        if folder is not None and made:
            folder.remove_unused(made[-1])
        if isinstance(error, subprocess.CalledProcessError):  # the workers of a multi-GPU run have said why
            raise YoloStableError(f"A worker of the multi-GPU run ended with exit code {error.returncode}.") from error
        raise
    trainer = model.trainer
    return Path(trainer.save_dir)
