"""Alert: what one post says, in the shape that its receiver reads."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from .._shared.strict_json import strict

SCHEMA = 1
LONGEST = 2000
"""Characters of a text; Discord refuses more."""
SLACK = ("slack.com", "slack-gov.com")
DISCORD = ("discord.com", "discordapp.com")


@dataclass(frozen=True, kw_only=True, slots=True)
class Alert:
    """One alert.

    Any receiver but Slack and Discord gets an object with ``schema`` (1), ``event``, ``text``, ``run``, ``epoch``, ``step``,
    ``counts`` and, of the end, ``status``.

    Examples:
        >>> alert = Alert(event="halt", text="Halted.", run="runs/a", epoch=2, step=7)
        >>> alert.line("hooks.slack.com"), alert.line("discord.com")
        ('{"text": "Halted."}', '{"content": "Halted.", "allowed_mentions": {"parse": []}}')
    """

    event: str
    """``rejections``, ``rollback``, ``lower_precision``, ``halt`` or ``end``."""
    text: str
    """The same in words, for people."""
    run: str
    """Folder of the run."""
    epoch: int
    """From 1; 0 before the first."""
    step: int
    """Optimizer steps applied."""
    counts: Mapping[str, int] = field(default_factory=dict)
    """The guard's counts of the whole run."""
    status: str = ""
    """How the run ended: ``done``, ``halted``, ``interrupted`` or ``failed``."""

    def line(self, host: str) -> str:
        """Return the line of JSON for a receiver.

        Args:
            host: Its name; chooses the shape.
        """
        text = self.text if len(self.text) <= LONGEST else self.text[: LONGEST - 3] + "..."
        if _is_of(host, SLACK):
            for sign, written in (("&", "&amp;"), ("<", "&lt;"), (">", "&gt;")):  # a link or a mention begins with <
                text = text.replace(sign, written)
            return json.dumps({"text": text})
        if _is_of(host, DISCORD):  # a file may be called @everyone
            return json.dumps({"content": text, "allowed_mentions": {"parse": []}})
        whole: dict[str, Any] = {
            "schema": SCHEMA,
            "event": self.event,
            "text": text,
            "run": self.run,
            "epoch": self.epoch,
            "step": self.step,
            "counts": dict(self.counts),
            **({"status": self.status} if self.status else {}),
        }
        return json.dumps(strict(whole), allow_nan=False)


def _is_of(host: str, domains: tuple[str, ...]) -> bool:
    return any(host == domain or host.endswith(f".{domain}") for domain in domains)
