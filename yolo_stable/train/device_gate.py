"""Device gate: validates a device before training when asked to, and warns of one that was never validated."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from .._shared.numbers import count
from .._shared.text import listed
from ..errors import InvalidCallError, YoloStableError
from ..validate import Status
from ..validate.command import examine
from ..validate.pool import Pool
from ..validate.show import print_line
from ..validate.verdict_cache import DeviceIdentity, DeviceVerdict, is_first_time, recall
from .call import WHERE, TrainCall


def prepared(call: TrainCall) -> TrainCall:
    """Validate the devices of a call, or use kept verdicts; return the call with the switches that heal.

    Environment variables that heal are set in this process, so torch must not have been imported yet.

    Raises:
        InvalidCallError: The data set or a device is not there.
        YoloStableError: A device computes wrongly, and nothing heals it or ``validate`` is not ``heal``.
    """
    if call.data is not None:
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
    """Return the devices that Ultralytics' ``device`` means, as the validation names them; None: Ultralytics chooses.

    Examples:
        >>> devices_of(None), devices_of(0), devices_of("0,1"), devices_of([1, 2]), devices_of("xpu:0,1"), devices_of("cuda:1")
        ([None], ['cuda:0'], ['cuda:0', 'cuda:1'], ['cuda:1', 'cuda:2'], ['xpu:0', 'xpu:1'], ['cuda:1'])
        >>> devices_of("cpu"), devices_of(-1), devices_of("-1,-1")
        (['cpu'], [None], [None])
    """
    text = str("" if value is None else value).lower()
    for remove in ("none", "(", ")", "[", "]", "'", " "):
        text = text.replace(remove, "")
    if not text or text.startswith("-1"):  # idle ones, not known yet
        return [None]
    kind, _, indices = text.partition(":") if text[0].isalpha() else ("cuda", "", text)
    if not indices:
        return [kind]
    return [f"{kind}:{index.removeprefix(f'{kind}:')}" for index in indices.split(",")]


def set_switches(switches: Mapping[str, Any]) -> None:
    """Set attributes of ``torch.backends`` in this process.

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
    """Warn once of an accelerator that was never validated, and each time of one that failed; never of the CPU."""
    import torch

    from ..validate.backend import BACKENDS, is_available, is_rocm
    from ..validate.machine import Machine

    for name in devices_of(device):
        kind, place = (name or "cuda").partition(":")[0], name or "cuda:0"
        kind = "rocm" if kind == "cuda" and is_rocm(torch) else kind
        if kind == "cpu" or kind not in BACKENDS or not is_available(torch, BACKENDS[kind]):
            continue  # whether it exists is checked elsewhere
        machine = Machine(BACKENDS[kind], place)  # computes nothing: this process may only start others
        line = _warning(DeviceIdentity.of(kind, place, machine.name, machine.environment()))
        if line:
            warn(line)


def _warning(identity: DeviceIdentity) -> str:
    verdict = recall(identity)
    if verdict is None:
        if not is_first_time(identity):
            return ""
        return (
            f"{identity} was never validated.\nCheck in a minute whether it computes correctly (validate=quick does so before"
            f" a training):\nyolo-stable validate --quick --device {identity.device}"
        )
    if verdict.status is Status.FAIL:
        way = "validate=heal trains under the setting that heals it" if verdict.heal else "no known setting heals it"
        wrong = f"{identity} failed {_failures(verdict)} when it was validated ({verdict.when[:10]}); {way}."
        return f"{wrong}\n{_what_is_wrong(identity)}"
    return ""


def _what_is_wrong(identity: DeviceIdentity) -> str:
    return f"See what it gets wrong:\nyolo-stable validate --device {identity.device}"


def _how_to_heal(verdict: DeviceVerdict) -> str:
    if verdict.flags:  # no shell can set them
        return "Let training set what heals it: add validate=heal."
    shell = "\n".join(verdict.heal.split("; "))
    return f"Heal it in this shell, or add validate=heal:\n{shell}"


def _make_fit(device: str | None, *, heal: bool) -> dict[str, Any]:
    """Return the switches to set for a device; environment variables are set here."""
    device, identity = _found(device)
    verdict = _verdict(identity, device, {})
    if verdict.status is not Status.FAIL:
        return {}
    if not verdict.heal:
        raise YoloStableError(
            f"{WHERE}: {identity} fails {_failures(verdict)}, and no known setting heals it. Training did not start."
            f" Train on another device, or without validate=.\n{_what_is_wrong(identity)}"
        )
    if not heal:
        raise YoloStableError(
            f"{WHERE}: {identity} fails {_failures(verdict)}. Training did not start.\n{_how_to_heal(verdict)}"
        )
    before = {name: os.environ.get(name) for name in verdict.env}
    _set_variables(verdict.env)
    settings = {"env": dict(verdict.env), "flags": dict(verdict.flags)}
    again = _verdict(identity.under(verdict.env, verdict.flags), device, settings)
    if again.status is Status.FAIL:
        _set_variables({name: value or "" for name, value in before.items()})
        raise YoloStableError(
            f"{WHERE}: {identity} fails {_failures(verdict)}, and with {verdict.heal} still"
            f" {_failures(again)}. Training did not start. Train on another device.\n{_what_is_wrong(identity)}"
        )
    print_line(f"Healed: this training runs with {verdict.heal}, under which the device passes ({_checks(again)}).")
    return dict(verdict.flags)


def _verdict(identity: DeviceIdentity, device: str | None, settings: Mapping[str, Any]) -> DeviceVerdict:
    """Return the kept verdict, or make one; a failure without a search for healing is validated again."""
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
    """Return a device's name and identity; without a name, those of the one that Ultralytics would take."""
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
    return f"{len(verdict.failed)} of {_checks(verdict)} ({listed(verdict.failed)})"


def _checks(verdict: DeviceVerdict) -> str:
    return count(verdict.checks, "check")
