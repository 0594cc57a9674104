"""Asked: what the ``guard=`` and ``preset=`` of a call ask for, checked before anything is written."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ..errors import InvalidCallError
from ..guard import GuardConfig
from ..presets.guard_settings import GuardSettings
from ..presets.presets import AUTO, values_of
from ..presets.run_plan import choose_preset, separate


@dataclass(frozen=True, kw_only=True, slots=True)
class Asked:
    """A checked call."""

    guard: Mapping[str, Any] | None = None
    """Settings of the guard, as plain values; None: the defaults."""
    preset: str | None = None
    stock: bool = False
    """Train without the guard."""
    by_name: bool = False
    """The call names the guard or a preset, so that it must not train without."""

    @classmethod
    def of(cls, guard: Any, preset: Any, instead: Asked | None = None) -> Asked:
        """Check a call.

        Args:
            guard: False: stock; None or True: the default settings; else settings.
            preset: Name or path, ``"auto"``, or None.
            instead: What counts when the call names neither.

        Raises:
            InvalidCallError: They cannot be used.

        Examples:
            >>> Asked.of({"max_norm": 5.0}, None).words
            ('guard.max_norm=5.0',)
        """
        if guard is None and preset is None and instead is not None:
            return instead
        if guard is False:
            if preset is not None:
                raise InvalidCallError(
                    f"guard=False trains as stock, without preset={os.fspath(preset)!r}. For its values alone pass"
                    f" **load_hyp({os.fspath(preset)!r})."
                )
            return cls(stock=True)
        settings = None if guard is True else guard
        separate({"guard": settings, "preset": preset})
        if isinstance(settings, GuardSettings):
            settings = {**settings.to_dict(), "alert": settings.trainer.alert}
        elif isinstance(settings, GuardConfig):
            settings = settings.to_dict()
        return cls(
            guard=None if settings is None else dict(settings),
            preset=None if preset is None else os.fspath(preset),
            by_name=guard is not None or preset is not None,
        )

    @property
    def settings(self) -> dict[str, Any]:
        """The arguments of a guarded trainer."""
        given = {"guard": self.guard, "preset": self.preset}
        return {key: value for key, value in given.items() if value is not None}

    def hyperparameters(self, model: str, arguments: Mapping[str, Any]) -> dict[str, Any]:
        """Return the values of the preset.

        Args:
            model: As the call names it, for ``"auto"``.
            arguments: The call's others, likewise.
        """
        name = choose_preset(model, arguments.get("pretrained", True))[0] if self.preset == AUTO else self.preset
        return values_of(name)

    @property
    def alert(self) -> str | None:
        """Address of ``guard.alert`` in full, if the call has one."""
        given = (self.guard or {}).get("alert")
        return None if given is None else getattr(given, "address", str(given))

    @property
    def words(self) -> tuple[str, ...]:
        """The same as words of a command, but for the secret :attr:`alert`: everybody sees the commands of a machine."""
        guard = (f"guard.{name}={value}" for name, value in (self.guard or {}).items() if name != "alert")
        return (*guard, *([f"preset={self.preset}"] if self.preset else []))
