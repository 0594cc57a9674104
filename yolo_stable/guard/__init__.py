"""The guard: a training step that applies a healthy window whole and leaves no trace of a bad one.

Pure PyTorch, without Ultralytics. Start at :class:`StepGuard`.
"""

from __future__ import annotations

from .config import GuardConfig as GuardConfig
from .decision import Decision as Decision
from .decision import GuardVerdict as GuardVerdict
from .escalation import Escalation as Escalation
from .escalation import EscalationLevel as EscalationLevel
from .guard import StepGuard as StepGuard
from .limits import Counts as Counts
