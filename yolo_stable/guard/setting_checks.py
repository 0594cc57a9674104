"""Setting checks: of ``guard.`` settings, each with an error that names value and range; and of states that were saved."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ..errors import InvalidCallError, nearest


def mapping_of(settings: Any) -> Mapping[str, Any]:
    """Return the settings that a user passed as ``guard=``; an empty mapping for None."""
    if settings is None:
        return {}
    if not isinstance(settings, Mapping):
        raise InvalidCallError(
            f"guard={settings!r} is not allowed. It must be a dict of settings such as {{'max_norm': 5.0}}."
        )
    return settings


def require_names(settings: Mapping[str, Any], valid: Sequence[str]) -> None:
    """Refuse unknown names, and suggest the nearest valid one."""
    for name in settings:
        if name not in valid:
            raise InvalidCallError(
                f"guard has no setting {name!r}.{nearest(str(name), valid) or ' Valid: ' + ', '.join(valid) + '.'}"
            )


def require_share(name: str, value: Any) -> None:
    """Refuse a value that is neither in (0, 1) nor None."""
    require_positive(name, value, allow_none=True)
    if value is not None and value >= 1.0:
        raise InvalidCallError(f"guard.{name}={value!r} is not allowed. It must be below 1, or None (off).")


def require_switch(name: str, value: Any) -> None:
    """Refuse a value that is neither True nor False."""
    if not isinstance(value, bool):
        raise InvalidCallError(f"guard.{name}={value!r} is not allowed. It must be True or False.")


def require_count(name: str, value: Any, least: int, *, allow_none: bool) -> None:
    """Refuse a value that is no whole number of at least ``least``."""
    if value is None and allow_none:
        return
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        off = " or None (off)" if allow_none else ""
        raise InvalidCallError(
            f"guard.{name}={value!r} is not allowed. It must be a whole number of {least} or more{off}."
        )


def require_positive(name: str, value: Any, *, allow_none: bool) -> None:
    """Refuse a value that is no finite number above 0."""
    if value is None and allow_none:
        return
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not (0.0 < value <= sys.float_info.max):
        off = " or None (off)" if allow_none else ""
        raise InvalidCallError(f"guard.{name}={value!r} is not allowed. It must be a finite number above 0{off}.")


def is_state(values: Any, kinds: Mapping[str, Callable[[Any], bool]]) -> bool:
    """Return whether saved values are a mapping with exactly these names, each of its kind."""
    return (
        isinstance(values, Mapping) and set(values) == set(kinds) and all(kinds[name](values[name]) for name in kinds)
    )


def is_count(value: Any) -> bool:
    """Return whether a value is a whole number of 0 or more."""
    return type(value) is int and value >= 0
