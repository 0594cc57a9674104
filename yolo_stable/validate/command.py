"""The command ``yolo-stable validate``: validates a device and searches for what heals it, or compares results."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .._shared.atomic_file import reason, write_whole
from ..errors import InvalidCallError, YoloStableError
from . import Status, ValidationResult, to_json, validate
from .compare import compare, read_result
from .healing import Healing, healed, search
from .page import comparison_page, result_page
from .show import Live, print_line, show_comparison, show_result
from .verdict_cache import DeviceIdentity, DeviceVerdict, remember

WHERE = "validate"
"""Beginning of the messages of this verb."""


@dataclass(frozen=True, kw_only=True)
class ValidateCall:
    """A call of ``yolo-stable validate``."""

    device: str | None = None
    quick: bool = False
    full: bool = False
    seed: int | None = None
    inject: str | None = None
    stress: float | None = None
    """Minutes."""
    recompute_reference: bool = False
    heal: bool = True
    json: Path | None = None
    html: Path | None = None
    compare: bool = False
    files: Sequence[Path] = ()

    @property
    def tier(self) -> str:
        """Return the tier that was asked for."""
        return "quick" if self.quick else "full" if self.full else "default"


def run(call: ValidateCall, families: tuple[str, ...] = ()) -> int:
    """Validate a device or compare results, print what was found, and return the exit code: 1 for a failure or a regression.

    Args:
        call: The call.
        families: Validate these families only; empty: all.

    Raises:
        InvalidCallError: The call is wrong, or the device is not there.
        IncomparableError: The results cannot be compared.
        YoloStableError: A file could not be written.
    """
    _check(call)
    return _compare(call) if call.compare else _validate(call, families)


def _validate(call: ValidateCall, families: tuple[str, ...]) -> int:
    result, healing = examine(
        call.device,
        call.tier,
        seed=call.seed or 0,
        inject=call.inject,
        stress_minutes=call.stress or 0.0,
        recompute_reference=call.recompute_reference,
        heal=call.heal,
        families=families,
    )
    show_result(result, healing)
    _write(call.json, lambda: to_json(result))
    _write(call.html, lambda: result_page(result, healing))
    return int(result.status is Status.FAIL)


def _compare(call: ValidateCall) -> int:
    names = _short_names(call.files)
    comparison = compare([read_result(path) for path in call.files], names)
    show_comparison(comparison)
    _write(call.json, comparison.to_json)
    _write(call.html, lambda: comparison_page(comparison))
    return int(comparison.status != "same")


def examine(
    device: str | None,
    tier: str,
    *,
    seed: int = 0,
    inject: str | None = None,
    stress_minutes: float = 0.0,
    recompute_reference: bool = False,
    heal: bool = True,
    families: tuple[str, ...] = (),
    settings: Mapping[str, Any] | None = None,
) -> tuple[ValidationResult, Healing | None]:
    """Validate a device, search for what heals its failures, and keep the verdict for later trainings.

    The arguments are those of :func:`~yolo_stable.validate.run.validate`. A verdict under an injected fault or on some families
    alone is not kept. Without ``heal``, or without a failure, there is no search.
    """
    healing = None
    with Live() as live:
        result = validate(
            device, tier, seed, inject, live.check, stress_minutes, recompute_reference=recompute_reference,
            families=families, settings=settings,
        )  # fmt: skip
        if heal and result.failed():
            healing = search(result, device, inject=inject, progress=live.say)
            result = healed(result, healing)
    if not inject and not families:
        identity = DeviceIdentity.of(result.backend, result.device, result.device_name, result.environment)
        problem = remember(identity, DeviceVerdict.of(result, healing))
        if problem:
            print_line(f"Later trainings will not know this verdict, as it could not be saved: {problem}")
    return result, healing


def _check(call: ValidateCall) -> None:
    """Refuse a wrong call before anything is computed."""
    for problem in _problems(call):
        raise InvalidCallError(f"{WHERE}: {problem}")


def _problems(call: ValidateCall) -> Iterator[str]:
    if call.compare:
        chosen = {
            "--device": call.device, "--quick": call.quick, "--full": call.full, "--seed": call.seed, "--inject": call.inject,
            "--stress": call.stress, "--recompute-reference": call.recompute_reference, "--no-heal": not call.heal,
        }  # fmt: skip
        useless = [name for name, value in chosen.items() if value is not None and value is not False]
        if useless:
            yield f"--compare only reads results: leave {useless[0]} out."
        if len(call.files) < 2:
            yield "--compare takes two results or more: --compare A.json B.json."
    elif call.files:
        yield f"{call.files[0]} is a result without --compare. Type --compare A.json B.json."
    if call.quick and call.full:
        yield "--quick and --full exclude each other. Leave both out for the default battery."
    if call.seed is not None and call.seed < 0:
        yield f"--seed {call.seed} is not allowed. It must be 0 or more."
    if call.stress is not None and not 0 < call.stress < float("inf"):
        yield f"--stress {call.stress:g} is not allowed. Give minutes, such as --stress 10."
    for option, path in (("--json", call.json), ("--html", call.html)):
        if path is not None:
            problem = _why_not_writable(path)
            if problem:
                yield f"{option} {path} {problem}. Give another file."
            if path.resolve() in [file.resolve() for file in call.files]:
                yield f"{option} {path} would overwrite a result that is compared. Give another file."
    if call.json is not None and call.json == call.html:
        yield f"--json and --html are the same file, {call.json}. Give two files."


def _why_not_writable(path: Path) -> str:
    """Return why a file could not be written; empty when it could."""
    parent = path.absolute().parent
    while not parent.exists():
        parent = parent.parent
    if path.is_dir():
        return "is a folder"
    if not parent.is_dir():
        return f"cannot be made: {parent} is not a folder"
    return "" if os.access(parent, os.W_OK) else f"cannot be written: you may not write to {parent}"


def _write(path: Path | None, make: Callable[[], str]) -> None:
    if path is None:
        return
    try:
        write_whole(path, make().encode())
    except OSError as error:
        raise YoloStableError(f"{WHERE}: {path} could not be written: {reason(error)}.") from error
    print_line(f"{path} was written.")


def _short_names(paths: Sequence[Path]) -> list[str]:
    """Return file names, or whole paths where two names are the same."""
    names = [path.name for path in paths]
    return names if len(set(names)) == len(names) else [str(path) for path in paths]
