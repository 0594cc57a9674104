"""The environment, before anything is computed."""

from __future__ import annotations

from ..check import check_of
from .gates import REPORT

CHECKS = (check_of("env", "environment", gates=REPORT),)
