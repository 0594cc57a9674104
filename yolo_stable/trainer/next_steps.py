"""Next steps: advice and commands with the names of this run filled in."""

from __future__ import annotations

import os
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import nn
from ultralytics.nn.tasks import WorldModel, YOLOEModel
from ultralytics.utils.torch_utils import unwrap_model

from ..autopsy.advice import SHIPPED, Names, named
from ..checkpoints.trainer_view import TrainerView
from ..incidents.own_layers import files_of, own_modules
from ..runlog.injections import Injections


class NextSteps:
    """Names its run in commands that work in any folder.

    Args:
        trainer: Read for the files of the run, its network and its device.
        injections: What was put in on purpose is told with the advice.
    """

    def __init__(self, trainer: TrainerView, injections: Injections) -> None:
        self._trainer, self._injections = trainer, injections

    def names(self) -> Names:
        """Return what commands may name: files that exist."""
        trainer = self._trainer
        own = own_modules(trainer.model if isinstance(trainer.model, nn.Module) else None)
        good = trainer.save_dir / "weights" / "last_good.pt"
        return Names(
            data=self._data(),
            model=_to_be_named(trainer.args.model),
            last=str(trainer.last.absolute()) if self._is_kept(trainer.last) else None,
            run=os.path.abspath(trainer.save_dir) if self._is_kept(good) else None,
            device=str(trainer.device),
            preset=trainer.plan.preset,
            own=tuple(own),
            own_files=files_of(own),
        )

    def filled(self, text: str) -> str:
        """Return a text with this run filled into its commands, without commands that would do nothing."""
        return self._of_the_network(named(text, "", self.names()))

    def told(self, advice: str) -> str:
        """Return advice about a fault, filled likewise, with the faults that were injected on purpose."""
        return self._of_the_network(named(advice, "", replace(self.names(), injected=self._injections.over)))

    def _of_the_network(self, text: str) -> str:
        """Return a text whose commands train this network: ``train`` opens no YOLO-World and no YOLOE, ``yolo train`` does."""
        model = self._trainer.model
        by_text = isinstance(model, nn.Module) and isinstance(unwrap_model(model), (WorldModel, YOLOEModel))
        return re.sub(r"yolo-stable train (?=\S)", "yolo-stable yolo train data=", text) if by_text else text

    def _is_kept(self, checkpoint: Path) -> bool:
        """Return whether a checkpoint is one of this run; only the workers of a multi-GPU run know, not what starts them."""
        return checkpoint.is_file() and (self._trainer.ddp or self._trainer.run_log.checkpoint is not None)

    def _data(self) -> str:
        """Return the path of the data set; of one given by Ultralytics' name, the folder of its images."""
        given: Any = self._trainer.args.data
        held = getattr(self._trainer, "data", None)
        train = held.get("train") if isinstance(held, dict) else None
        places = [str(given), *([os.path.dirname(train)] if isinstance(train, (str, Path)) else [])]
        return next((os.path.abspath(place) for place in places if os.path.exists(place)), str(given))


def _to_be_named(model: Any) -> str | None:
    """Return the network's name when it can be typed: a file, or one of Ultralytics' own."""
    name = str(model)
    if Path(name).is_file():
        return os.path.abspath(name)
    return name if SHIPPED.fullmatch(name) else None
