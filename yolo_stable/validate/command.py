"""The command ``yolo-stable validate``: the battery and the search for what heals, or the comparison of results."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
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
from .verdict_cache import Identity, Verdict, remember

WHERE = "validate"
"""What the messages of this verb start with."""


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
    """Do what was asked for, and print it.

    Args:
        call: The call.
        families: Validate these families only; empty: all.

    Returns:
        The exit code: 0 pass or same, 1 fail or regression.

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
    """Validate a device, look for what heals its failures, and keep the verdict for trainings to come.

    Args:
        device: As for :func:`~yolo_stable.validate.run.validate`, which the others go to as well.
        tier: ``quick``, ``default`` or ``full``.
        seed: Of the inputs.
        inject: A fault to put in; the verdict is not kept then.
        stress_minutes: Repeat the linear checks so long.
        recompute_reference: Compute the reference of trainings here.
        heal: Whether to search.
        families: Only these; the verdict is not kept then.
        settings: ``env`` and ``flags`` to validate under.

    Returns:
        The result with its healing lines, and the search; None when there was none.
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
        identity = Identity.of(result.backend, result.device, result.device_name, result.environment)
        problem = remember(identity, Verdict.of(result, healing))
        if problem:
            print_line(f"The verdict could not be kept for trainings to come: {problem}")
    return result, healing


def _check(call: ValidateCall) -> None:
    """Refuse a call that cannot be meant, before anything is computed."""
    if call.compare:
        chosen = {
            "--device": call.device, "--quick": call.quick, "--full": call.full, "--seed": call.seed, "--inject": call.inject,
            "--stress": call.stress, "--recompute-reference": call.recompute_reference, "--no-heal": not call.heal,
        }  # fmt: skip
        useless = [name for name, value in chosen.items() if value is not None and value is not False]
        if useless:
            raise InvalidCallError(f"{WHERE}: --compare reads results and computes nothing: {useless[0]} has no place.")
        if len(call.files) < 2:
            raise InvalidCallError(f"{WHERE}: --compare takes two results or more: --compare A.json B.json.")
    elif call.files:
        raise InvalidCallError(f"{WHERE}: {call.files[0]} is not understood: results are given to --compare only.")
    if call.quick and call.full:
        raise InvalidCallError(f"{WHERE}: --quick and --full exclude each other; without either the default is run.")
    if call.seed is not None and call.seed < 0:
        raise InvalidCallError(f"{WHERE}: --seed {call.seed} is not allowed. It must be 0 or more.")
    if call.stress is not None and not 0 < call.stress < float("inf"):
        raise InvalidCallError(f"{WHERE}: --stress {call.stress:g} is not allowed. Give minutes, such as --stress 10.")
    for option, path in (("--json", call.json), ("--html", call.html)):
        if path is not None:
            _require_writable(option, path)
            if path.resolve() in [file.resolve() for file in call.files]:
                raise InvalidCallError(f"{WHERE}: {option} {path} would write over a result that is compared.")
    if call.json is not None and call.json == call.html:
        raise InvalidCallError(f"{WHERE}: --json and --html are the same file, {call.json}.")


def _require_writable(option: str, path: Path) -> None:
    """Say before minutes are spent that the result could not be kept."""
    parent = path.absolute().parent
    while not parent.exists():
        parent = parent.parent
    what = (
        "is a folder" if path.is_dir()
        else f"cannot be made: {parent} is no folder" if not parent.is_dir()
        else f"cannot be written: {parent} is not yours to write to" if not os.access(parent, os.W_OK)
        else ""
    )  # fmt: skip
    if what:
        raise InvalidCallError(f"{WHERE}: {option} {path} {what}. Give another file.")


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
