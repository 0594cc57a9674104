"""Preflight: one honest training step before a run, stage by stage, of any PyTorch model and of Ultralytics' own.

:func:`inspect` is the entry point; ``yolo-stable preflight`` runs the same stages.

A ``StageRunner`` runs stages until one fails; a stage returns a ``StageOutcome`` and may raise anything. A ``Subject`` is a model
with its batches, optimizer and EMA; ``undone`` restores all of it. Ultralytics' trainer gets there through ``YOLO.train`` itself,
in a subclass that stops where training would begin and calls no callbacks (loggers would open a run). A zero gradient is judged
by a random sum of the network's outputs: a connected parameter waits for an object; one that is not connected, and that a step or
two does not wake, is dead.
"""

from __future__ import annotations

from .inspection import inspect as inspect
from .stage import Preflight as Preflight
from .stage import StageResult as StageResult
from .stage import StageVerdict as StageVerdict

Verdict = StageVerdict
