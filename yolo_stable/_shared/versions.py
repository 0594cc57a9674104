"""Versions of installed packages."""

from __future__ import annotations

from collections.abc import Iterable
from importlib import metadata


def versions_of(packages: Iterable[str]) -> dict[str, str]:
    """Return the version of each package that is installed."""
    return {name: found.version for name in packages for found in list(metadata.distributions(name=name))[:1]}
