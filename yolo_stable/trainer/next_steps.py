"""Next steps: what a guarded trainer tells to type, as advice with the names of its own run put in."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import nn

from ..autopsy.advice import SHIPPED, Names, named
from ..guard.wrappers import unwrap
from ..incidents.own_layers import files_of, own_modules
from ..runlog.injections import Injections
from ..runlog.writer import RunLog

if TYPE_CHECKING:
    from ultralytics.engine.trainer import BaseTrainer as _Base
else:
    _Base = object


class GuardedNextSteps(_Base):
    """The part of :class:`~yolo_stable.GuardedTrainerMixin` that knows how its run is named in a command, typed in any folder."""

    injections: Injections
    run_log: RunLog

    def names(self) -> Names:
        """Return what commands may name: files that are there."""
        whole = unwrap(self.model) if isinstance(self.model, nn.Module) else None
        own = own_modules(whole)
        good = self.save_dir / "weights" / "last_good.pt"
        return Names(
            data=self._data(),
            model=_to_be_named(self.args.model),
            last=str(self.last.absolute()) if self._is_kept(self.last) else None,
            run=os.path.abspath(self.save_dir) if self._is_kept(good) else None,
            device=str(self.device),
            own=tuple(own),
            own_files=files_of(own),
        )

    def filled(self, text: str) -> str:
        """Return a text with the names of this run in its commands, without those that would do nothing."""
        return named(text, "", self.names())

    def told(self, advice: str) -> str:
        """Return advice about what went wrong, filled likewise; what was put in on purpose before is told with it."""
        return named(advice, "", replace(self.names(), injected=self.injections.over))

    def _is_kept(self, checkpoint: Path) -> bool:
        """Return whether a checkpoint is one of this run; only the workers of a multi-GPU run know, not what starts them."""
        return checkpoint.is_file() and (self.ddp or self.run_log.checkpoint is not None)

    def _data(self) -> str:
        """Return where the data set is; one that was given by a name of Ultralytics' own is where its images are."""
        given: Any = self.args.data
        held = getattr(self, "data", None)
        train = held.get("train") if isinstance(held, dict) else None
        places = [str(given), *([os.path.dirname(train)] if isinstance(train, (str, Path)) else [])]
        return next((os.path.abspath(place) for place in places if os.path.exists(place)), str(given))


def _to_be_named(model: Any) -> str | None:
    """Return the network's name when it can be typed: a file, or one of Ultralytics' own."""
    name = str(model)
    if Path(name).is_file():
        return os.path.abspath(name)
    return name if SHIPPED.fullmatch(name) else None
