"""Leaves the stubs of libraries to the programs that import them as what they stand for."""

from __future__ import annotations

collect_ignore = ["stubs"]
