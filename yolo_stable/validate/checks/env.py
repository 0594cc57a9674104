"""Environment: what it says before anything is computed."""

from __future__ import annotations

from ..check import Check
from .gates import REPORT

CHECKS = (Check(id="env/environment", family="env", operation="environment", gates=REPORT),)
