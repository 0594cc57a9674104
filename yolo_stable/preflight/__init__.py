"""One honest training step before a run, stage by stage; of any PyTorch model, and of Ultralytics' own.

The way in is :func:`inspect`; ``yolo-stable preflight`` is built on the same stages.
"""

from __future__ import annotations

from .inspection import inspect as inspect
from .stage import Preflight as Preflight
from .stage import StageResult as StageResult
from .stage import Verdict as Verdict
