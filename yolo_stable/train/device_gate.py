"""Device gate: ``yolo-stable train`` asks whether a device is fit to be trained on, and warns where nobody ever asked."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from ..errors import InvalidCallError, YoloStableError
from ..validate import Status
from ..validate.command import examine
from ..validate.pool import Pool
from ..validate.show import print_line
from ..validate.verdict_cache import DeviceIdentity, DeviceVerdict, is_first_time, recall
from .call import WHERE, TrainCall


def prepared(call: TrainCall) -> TrainCall:
    """Validate the devices of a call, or take the verdicts that are kept; heal when that was asked for.

    Environment variables that heal are set in this process, so torch must not have been imported yet; switches of torch are
    handed on in the call.

    Args:
        call: With ``validate`` set.

    Returns:
        The call with ``switches``.

    Raises:
        InvalidCallError: The data set or a device is not there.
        YoloStableError: A device computes wrongly, and nothing heals it, or healing was not asked for.
    """
    call.resolve_data()  # before a minute is spent
    devices = devices_of(call.settings.get("device"))
    switches: dict[str, Any] = {}
    for device in devices:
        switches |= _make_fit(device, heal=call.validate == "heal")
    if switches and len(devices) > 1:
        raise YoloStableError(
            f"{WHERE}: validate=heal: {', '.join(switches)} can be switched in one process only, not in the workers of"
            f" several devices. Train on one device: device={devices[0]}."
        )
    return replace(call, switches=switches)


def devices_of(value: Any) -> list[str | None]:
    """Return the devices that Ultralytics' ``device`` means, as the validation names them; None: the one it would choose.

    Examples:
        >>> devices_of(None), devices_of(0), devices_of("0,1"), devices_of([1, 2]), devices_of("xpu:0,1"), devices_of("cuda:1")
        ([None], ['cuda:0'], ['cuda:0', 'cuda:1'], ['cuda:1', 'cuda:2'], ['xpu:0', 'xpu:1'], ['cuda:1'])
        >>> devices_of("cpu"), devices_of(-1), devices_of("-1,-1")
        (['cpu'], [None], [None])
    """
    text = str("" if value is None else value).lower()
    for remove in ("none", "(", ")", "[", "]", "'", " "):
        text = text.replace(remove, "")
    if not text or text.startswith("-1"):  # idle ones, which nobody knows yet
        return [None]
    kind, _, indices = text.partition(":") if text[0].isalpha() else ("cuda", "", text)
    if not indices:
        return [kind]
    return [f"{kind}:{index.removeprefix(f'{kind}:')}" for index in indices.split(",")]


def set_switches(switches: Mapping[str, Any]) -> None:
    """Set attributes below ``torch.backends`` in this process.

    Raises:
        YoloStableError: This torch has no such switch, or refuses it.
    """
    if not switches:
        return
    from ..validate.precision import write

    for name, value in switches.items():
        if not write(name, value):
            raise YoloStableError(f"{WHERE}: validate=heal: torch.backends.{name} cannot be set to {value!r} here.")


def warn_of_device(device: Any, warn: Callable[[str], object]) -> None:
    """Warn once of an accelerator that has never been validated, and each time of one that has failed; never of the CPU.

    Args:
        device: Ultralytics' ``device``.
        warn: Takes the line.
    """
    import torch

    from ..validate.backend import BACKENDS, is_available, is_rocm
    from ..validate.machine import Machine

    for name in devices_of(device):
        kind, place = (name or "cuda").partition(":")[0], name or "cuda:0"
        kind = "rocm" if kind == "cuda" and is_rocm(torch) else kind
        if kind == "cpu" or kind not in BACKENDS or not is_available(torch, BACKENDS[kind]):
            continue  # whether it is there is not asked here
        machine = Machine(BACKENDS[kind], place)  # nothing is computed: this process may only start others
        line = _warning(DeviceIdentity.of(kind, place, machine.name, machine.environment()))
        if line:
            warn(line)


def _warning(identity: DeviceIdentity) -> str:
    verdict = recall(identity)
    if verdict is None:
        if not is_first_time(identity):
            return ""
        return (
            f"{identity} has never been validated.\nWhether it computes training rightly, in a minute (validate=quick asks"
            f" before a training):\nyolo-stable validate --quick --device {identity.device}"
        )
    if verdict.status is Status.FAIL:
        way = "validate=heal trains under the setting that heals it" if verdict.heal else "no known setting heals it"
        wrong = f"{identity} computed {_failures(verdict)} wrongly when it was validated ({verdict.when[:10]}); {way}."
        return f"{wrong}\n{_what_is_wrong(identity)}"
    return ""


def _what_is_wrong(identity: DeviceIdentity) -> str:
    return f"What it gets wrong:\nyolo-stable validate --device {identity.device}"


def _how_to_heal(verdict: DeviceVerdict) -> str:
    if verdict.flags:  # no shell can set them
        return "Let training set what heals it, with validate=heal among its words."
    shell = "\n".join(verdict.heal.split("; "))
    return f"Heal it in this shell, or let training do so with validate=heal:\n{shell}"


def _make_fit(device: str | None, *, heal: bool) -> dict[str, Any]:
    """Return the switches to set for a device; variables are set here."""
    device, identity = _found(device)
    verdict = _verdict(identity, device, {})
    if verdict.status is not Status.FAIL:
        return {}
    if not verdict.heal:
        raise YoloStableError(
            f"{WHERE}: {identity} computes {_failures(verdict)} wrongly, and no known setting heals it. Training was not"
            f" started. Train on another device, or without validate=.\n{_what_is_wrong(identity)}"
        )
    if not heal:
        raise YoloStableError(
            f"{WHERE}: {identity} computes {_failures(verdict)} wrongly. Training was not started.\n{_how_to_heal(verdict)}"
        )
    before = {name: os.environ.get(name) for name in verdict.env}
    _set_variables(verdict.env)
    settings = {"env": dict(verdict.env), "flags": dict(verdict.flags)}
    again = _verdict(identity.under(verdict.env, verdict.flags), device, settings)
    if again.status is Status.FAIL:
        _set_variables({name: value or "" for name, value in before.items()})
        raise YoloStableError(
            f"{WHERE}: {identity} computes {_failures(verdict)} wrongly, and with {verdict.heal} still"
            f" {_failures(again)}. Training was not started. Train on another device.\n{_what_is_wrong(identity)}"
        )
    print_line(f"Healed: this training runs with {verdict.heal}, under which it passes ({_checks(again)}).")
    return dict(verdict.flags)


def _verdict(identity: DeviceIdentity, device: str | None, settings: Mapping[str, Any]) -> DeviceVerdict:
    """Return the verdict that is kept, or make one; a failure whose healing was never looked for is looked at again."""
    kept = recall(identity)
    if kept is not None and (kept.searched or kept.status is not Status.FAIL):
        print_line(f"{identity}: {kept.status.value}, {_checks(kept)}, as validated at {kept.when}.")
        return kept
    print_line(f"Validating {identity} before training.")
    result, healing = examine(device, "quick", settings=settings, heal=not settings)
    found = DeviceVerdict.of(result, healing)
    print_line(f"{identity}: {found.status.value}, {_checks(found)} in {result.seconds:.0f} s.")
    return found


def _found(device: str | None) -> tuple[str, DeviceIdentity]:
    """Return a device's name and identity; where none was named, that of the one that Ultralytics would take."""
    if device is None:
        try:
            return _found("cuda")
        except InvalidCallError:  # it takes no other accelerator unasked
            return _found("cpu")
    with Pool(device) as pool:
        said = pool.hello
    return device, DeviceIdentity.of(said["backend"], said["device"], said["device_name"], said["environment"])


def _set_variables(env: Mapping[str, str]) -> None:
    for name, value in env.items():
        if value:
            os.environ[name] = value
        else:
            os.environ.pop(name, None)


def _failures(verdict: DeviceVerdict) -> str:
    more = f" and {len(verdict.failed) - 3} more" if len(verdict.failed) > 3 else ""
    return f"{len(verdict.failed)} of {_checks(verdict)} ({', '.join(verdict.failed[:3])}{more})"


def _checks(verdict: DeviceVerdict) -> str:
    return f"{verdict.checks} check{'' if verdict.checks == 1 else 's'}"
