"""Alert service: posts what befell a run to ``guard.alert``; on the first rank alone."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator

from ultralytics.utils import LOGGER, RANK

from .._shared.environment import variable
from .._shared.numbers import count
from .._shared.secret_url import SecretURL
from ..alerts.alert import Alert
from ..alerts.burst import RejectionBurst
from ..alerts.webhook import Webhook
from ..checkpoints.trainer_view import TrainerView
from ..guard import Decision, EscalationLevel
from ..presets.run_plan import ALERT

LAST_WAIT = 5.0
"""Seconds that the end of a run waits for its last alert at most."""
EVENTS = {EscalationLevel.ROLL_BACK: "rollback", EscalationLevel.LOWER_PRECISION: "lower_precision"}
"""Escalations that are posted as such; a halt has a post of its own, and a repair is of the EMA alone."""


class AlertService:
    """Posts bursts of rejections, rollbacks, lower precision, halt and end.

    Args:
        trainer: Read for the address, and the place in the run.
    """

    def __init__(self, trainer: TrainerView) -> None:
        self._trainer = trainer
        self._webhook: Webhook | None = None
        self._burst: RejectionBurst | None = None

    def __getstate__(self) -> dict[str, object]:
        """A copy of the trainer posts nothing, since a thread and a lock cannot be copied."""
        return {**vars(self), "_webhook": None, "_burst": None}

    def begin(self) -> list[tuple[str, str]]:
        """Post from here on, and return the row of the start-up table; nothing without an address."""
        url, guard = self._trainer.plan.trainer.alert, self._trainer.guard
        if not isinstance(url, SecretURL) or guard is None or RANK not in {-1, 0}:
            return []
        if url.masked:
            LOGGER.warning(
                f"guard.alert: no alerts, since args.yaml keeps of {url} the host alone. Give guard.alert=URL again, or put it"
                f" into the environment variable {ALERT}."
            )
            return []
        self._webhook = Webhook(url, _say)
        self._burst = RejectionBurst(guard.config.max_consecutive, guard.config.max_share)
        return [("alerts", f"{url}: bursts of rejections, rollbacks, lower precision, halt and end")]

    def decided(self, decision: Decision) -> None:
        """Take a decision of the guard, and post a burst of rejections as it begins."""
        begun = "" if self._burst is None else self._burst.add(decision)
        if begun:
            reason = f": {decision.reason}" if decision.reason else ""
            self._post("rejections", f"{begun}{reason}. {self._place()}")

    def escalated(self, level: EscalationLevel, line: str) -> None:
        """Post an escalation.

        Args:
            level: Which.
            line: What the terminal says of it.
        """
        if level in EVENTS:
            self._post(EVENTS[level], line)

    def halted(self, message: str) -> None:
        """Post that the guard gave up, before anything is saved because of it."""
        self._post("halt", f"training is halted: {message}")

    def ended(self, status: str, message: str) -> None:
        """Post how the run ended, and wait a few seconds at most until it is.

        Args:
            status: ``done``, ``halted``, ``interrupted`` or ``failed``.
            message: Why, unless it is done.
        """
        if self._webhook is None or self._trainer.guard is None:
            return
        counts = self._trainer.guard.counts
        done = (count(counts.applied, "step"), count(counts.rejected, "rejection"), count(counts.rollbacks, "rollback"))
        did = "{} applied, {}, {}".format(*done)
        self._post("end", f"{status}: {did}. {self._place()} {message}".strip(), status)
        self._webhook.close(LAST_WAIT)
        self._webhook = self._burst = None

    @contextlib.contextmanager
    def for_workers(self) -> Iterator[None]:
        """Hand the address to the workers of a multi-GPU run that are started in here: by the environment, and in no file."""
        url = self._trainer.plan.trainer.alert
        with variable(ALERT, url.address if isinstance(url, SecretURL) and not url.masked else None):
            yield

    def _place(self) -> str:
        trainer = self._trainer
        if not self._epoch:
            return "Before the first epoch."
        return f"Epoch {self._epoch}/{trainer.epochs}, batch {trainer.batch_number}."

    @property
    def _epoch(self) -> int:
        """From 1; 0 in a run that failed before the first, which Ultralytics' trainer has no number for."""
        return getattr(self._trainer, "epoch", -1) + 1

    def _post(self, event: str, words: str, status: str = "") -> None:
        if self._webhook is None or self._trainer.guard is None:
            return
        run, counts = os.path.abspath(self._trainer.save_dir), self._trainer.guard.counts
        alert = Alert(
            event=event,
            text=f"yolo-stable, {run}: {words}",
            run=run,
            epoch=self._epoch,
            step=counts.applied,
            counts=counts.to_dict(),
            status=status,
        )
        self._webhook.post(alert)


def _say(line: str) -> None:
    LOGGER.info("")  # ends the line of the progress bar
    LOGGER.warning(line)
