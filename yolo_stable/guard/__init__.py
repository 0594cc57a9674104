"""The guard: a training step that applies a healthy window whole and leaves no trace of a bad one.

Pure PyTorch; nothing here knows about Ultralytics. The way in is :class:`StepGuard`.
"""

from __future__ import annotations

from .config import GuardConfig as GuardConfig
from .decision import Decision as Decision
from .decision import Verdict as Verdict
from .guard import StepGuard as StepGuard
from .ladder import Climb as Climb
from .ladder import Rung as Rung
from .limits import Counts as Counts
