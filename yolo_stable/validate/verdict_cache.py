"""Verdict cache: a file in the user's cache folder for each device, driver, version of torch and settings."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from .._shared.atomic_file import write_whole
from .._shared.strict_json import strict
from ..data.builtin import cache_dir
from ..errors import InvalidCallError
from .backend import BACKENDS
from .check import TIERS
from .gate import Status
from .healing import Healing
from .result import SCHEMA, SUITE, ValidationResult

FORM = 1
"""Version of the files' form; others are not read."""
_FACTS = ("torch", "cuda", "hip", "cudnn", "driver", "gcn_arch", "uuid")
"""Facts of an environment that decide the verdict, besides the device and its settings."""


@dataclass(frozen=True, kw_only=True, slots=True)
class DeviceIdentity:
    """The device, software and settings that a verdict is about."""

    backend: str
    device: str
    """As torch names it, with an index: ``cuda:0``."""
    device_name: str
    facts: Mapping[str, Any]
    settings: Mapping[str, Any]
    """The variables and switches that are known to heal, where they are set."""

    @classmethod
    def of(cls, backend: str, device: str, device_name: str, environment: Mapping[str, Any]) -> DeviceIdentity:
        """Return the identity of a device; its environment is that of a machine, a worker's greeting or a result."""
        heals = BACKENDS[backend].heals
        variables, switches = environment.get("variables", {}), environment.get("switches", {})
        settings = {name: variables[name] for heal in heals for name in heal.env if name in variables}
        settings |= {name: switches[name] for heal in heals for name in heal.flags if name in switches}
        facts = {name: environment.get(name) for name in _FACTS}
        if backend != "cpu" and ":" not in device:
            device += ":0"
        return cls(backend=backend, device=device, device_name=device_name, facts=facts, settings=settings)

    def under(self, env: Mapping[str, str], flags: Mapping[str, Any]) -> DeviceIdentity:
        """Return the identity of the same device under settings."""
        gone = {name for name, value in env.items() if not value}
        settings = {n: v for n, v in self.settings.items() if n not in gone} | {n: v for n, v in env.items() if v}
        return DeviceIdentity(
            backend=self.backend, device=self.device, device_name=self.device_name, facts=self.facts,
            settings={**settings, **flags},
        )  # fmt: skip

    @property
    def key(self) -> str:
        """Return the name of its file, without suffix."""
        facts = {name: value for name, value in self.facts.items() if value not in (None, "")}
        # One card has one uuid, wherever it is plugged in; without one, the index has to tell two cards apart.
        place = "" if facts.get("uuid") else self.device
        what = [FORM, SCHEMA, SUITE, self.backend, place, self.device_name, facts, dict(self.settings)]
        return hashlib.sha256(json.dumps(strict(what), sort_keys=True).encode()).hexdigest()[:16]

    def __str__(self) -> str:
        driver = f", driver {self.facts['driver']}" if self.facts.get("driver") else ""
        return f"{self.device} ({self.device_name}, torch {self.facts.get('torch')}{driver})"


@dataclass(frozen=True, kw_only=True, slots=True)
class DeviceVerdict:
    """The result of a validation, as far as training needs it."""

    status: Status
    tier: str
    checks: int
    """Those that were run."""
    failed: tuple[str, ...] = ()
    heal: str = ""
    """The line to paste under which failing checks pass."""
    env: Mapping[str, str] = field(default_factory=dict)
    """The variables of that line; an empty value takes one away."""
    flags: Mapping[str, Any] = field(default_factory=dict)
    """The switches of that line, below ``torch.backends``."""
    searched: bool = False
    """Whether a setting that heals was looked for."""
    when: str = ""
    """UTC, ISO 8601."""

    @classmethod
    def of(cls, result: ValidationResult, healing: Healing | None = None) -> DeviceVerdict:
        """Return the verdict of a validation."""
        searched, healing = healing is not None, healing or Healing()
        return cls(
            status=result.status,
            tier=result.tier,
            checks=sum(result.summary.values()) - result.summary["skip"],
            failed=tuple(r.id for r in result.failed()),
            heal=healing.line,
            env={name: value for setting in healing.chosen for name, value in setting.env.items()},
            flags={name: value for setting in healing.chosen for name, value in setting.flags.items()},
            searched=searched,
            when=result.started,
        )


def folder() -> Path:
    """Return where verdicts are kept.

    Raises:
        InvalidCallError: There is no cache folder.
    """
    return cache_dir() / "validated"


def recall(identity: DeviceIdentity, tier: str = "quick") -> DeviceVerdict | None:
    """Return the verdict on a device, or None where there is none of this tier or a larger one.

    A file that cannot be read, or was written by another version, counts as none.
    """
    with suppress(OSError, ValueError, TypeError, KeyError, InvalidCallError):
        content = json.loads((folder() / f"{identity.key}.json").read_text(encoding="utf-8"))
        entry = content["verdict"]
        found = DeviceVerdict(**{**entry, "status": Status(entry["status"]), "failed": tuple(entry["failed"])})
        if content["form"] == FORM and TIERS.index(found.tier) >= TIERS.index(tier):
            return found
    return None


def remember(identity: DeviceIdentity, verdict: DeviceVerdict) -> str:
    """Keep a verdict, whole or not at all; return why it could not be kept, empty when it was."""
    content = {
        "form": FORM,
        "device": str(identity),
        "backend": identity.backend,
        "facts": dict(identity.facts),
        "settings": dict(identity.settings),
        "verdict": {**asdict(verdict), "status": verdict.status.value},
    }
    return _write(f"{identity.key}.json", json.dumps(strict(content), indent=1, allow_nan=False) + "\n")


def is_first_time(identity: DeviceIdentity) -> bool:
    """Return True once for each device and version: a warning is printed once.

    Where the cache folder cannot be written it is True each time.
    """
    name = f"{identity.key}.asked"
    with suppress(OSError, InvalidCallError):
        if (folder() / name).exists():
            return False
    _write(name, f"{identity}\n")
    return True


def _write(name: str, text: str) -> str:
    try:
        write_whole(folder() / name, text.encode())
    except OSError as error:
        return f"{folder() / name}: {error.strerror or error}"
    except InvalidCallError as error:
        return str(error)
    return ""
