"""One honest training step before a run, stage by stage; of any PyTorch model, and of Ultralytics' own.

The way in is :func:`inspect`; ``yolo-stable preflight`` is built on the same stages.

A ``Course`` runs stages until one fails; a stage returns an ``Outcome`` and raises what it likes. A ``Subject`` is a model with
its batches, optimizer and EMA; ``undone`` restores all of it through ``TrainingState`` and ``untouched``. Ultralytics' trainer
gets there through ``YOLO.train`` itself, in a subclass that waits where training would begin and calls no callbacks (loggers
would open a run). A zero gradient is judged by a random sum of the network's outputs: connected, it waits for an object; not
connected, and not woken by a step or two, it is dead.
"""

from __future__ import annotations

from .inspection import inspect as inspect
from .stage import Preflight as Preflight
from .stage import StageResult as StageResult
from .stage import Verdict as Verdict
