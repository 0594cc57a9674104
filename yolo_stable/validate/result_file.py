"""Result files: strict JSON, written and read; a file that cannot be compared is refused in one line."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from .._shared.strict_json import strict
from ..errors import InvalidCallError, YoloStableError
from .deviation import Errors
from .gate import Status
from .result import SCHEMA, SUITE, CheckResult, Part, ValidationResult


class IncomparableError(YoloStableError):
    """A result is of another version of the form or the battery, and cannot be compared."""

    exit_code = 3


def to_json(result: ValidationResult) -> str:
    """Return a result as strict JSON, one check a line; NaN and infinities are strings."""
    content = asdict(result)
    checks = content.pop("results")
    head = {"schema_version": content.pop("schema_version"), "suite_version": content.pop("suite_version"), **content}
    head |= {"status": result.status.value, "summary": result.summary}
    lines = ",\n".join(_dump(check) for check in checks)
    return f'{_dump(head)[:-1]}, "results": [\n{lines}\n]}}\n'


def from_json(text: str, source: str | Path = "the result") -> ValidationResult:
    """Read a result.

    Args:
        text: What ``to_json`` made.
        source: What to call it in an error, such as its path.

    Returns:
        The result.

    Raises:
        InvalidCallError: It is cut short, no JSON, or no result of a validation.
        IncomparableError: It is of another version of the form or the battery.
    """
    try:
        content = json.loads(text)
    except ValueError as error:
        raise InvalidCallError(
            f"{source} is not JSON, or was cut short: {error}. Make it again with validate --json."
        ) from error
    if not isinstance(content, dict) or "schema_version" not in content or "suite_version" not in content:
        raise InvalidCallError(f"{source} was not written by validate --json: it has no schema_version.")
    found, ours = (content["schema_version"], content["suite_version"]), (SCHEMA, SUITE)
    if found != ours:
        raise IncomparableError(
            f"{source} has form {found[0]} and battery {found[1]}; this version reads form {ours[0]} and battery {ours[1]}."
            " Validate that machine again with this version."
        )
    content = {name: value for name, value in content.items() if name not in ("status", "summary")}  # made anew
    try:
        content["results"] = tuple(_check(entry) for entry in content["results"])
        return ValidationResult(**content)
    except (TypeError, KeyError, ValueError, AttributeError) as error:
        raise InvalidCallError(
            f"{source} is not a whole result: {error}. Make it again with validate --json."
        ) from error


def check_to_json(result: CheckResult) -> str:
    """Return the result of one check as one line of strict JSON."""
    return _dump(asdict(result))


def check_from_json(text: str) -> CheckResult:
    """Read what ``check_to_json`` made."""
    return _check(json.loads(text))


def _dump(value: Any) -> str:
    return json.dumps(strict(value), allow_nan=False)


def _check(entry: dict[str, Any]) -> CheckResult:
    parts = tuple(
        Part(
            **{
                **part,
                "shape": tuple(part["shape"]),
                "sample": tuple(part["sample"]),
                "sketch": tuple(float(v) for v in part["sketch"]),
                **{name: float(part[name]) for name in ("l2", "absmax", "mean")},
                "errors": _errors(part["errors"]),
            }
        )
        for part in entry["parts"]
    )
    lists = {"notes": tuple(entry["notes"]), "reference": tuple(float(v) for v in entry["reference"]), "parts": parts}
    numbers = {name: float(value) for name, value in entry["numbers"].items()}
    errors = None if entry["errors"] is None else _errors(entry["errors"])
    return CheckResult(**{**entry, **lists, "numbers": numbers, "errors": errors, "status": Status(entry["status"])})


def _errors(entry: dict[str, Any]) -> Errors:
    known: dict[str, Any] = {name: None if v is None else float(v) for name, v in entry.items()}
    return Errors(**{**known, "nf": int(entry["nf"])})
