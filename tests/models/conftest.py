"""What is no test: a script that the tests run."""

from __future__ import annotations

collect_ignore = ["every_way.py"]
