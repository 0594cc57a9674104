"""Divergence rule: loss or gradient norm out of line for long is a suspicion, although every number is finite."""

from __future__ import annotations

from collections.abc import Mapping

from .level import Entry, Level

NORM_HASTE = 2.0
"""The level of the norm follows this many times faster than that of the loss in the first steps: norms grow a hundredfold in
warm-up, and with 2 the level is then never more than a factor of 100 ** (1 / 5) = 2.5 behind."""

NORM_BLIND = 32
"""Values before which no norm is high: a warm-up may raise it a hundredfold within five steps. A run that explodes in its first
steps is seen by its loss."""


class Divergence:
    """Watches a run once per optimizer step; knows nothing of torch, costs a few microseconds, and keeps some 20 numbers.

    Both signals have a level (see `Level`) and are suspicious while they are high for ``patience`` steps. The loss also is when
    its level has crept to ``max_loss_rise`` times the lowest it has been; the norm is not, as norms grow in honest training.
    A signal that is None, not finite, not above 0, beyond 1e15 (or below its inverse), or 1e12 times its level, is for that
    signal as if the step had never been. A loss that may be 0 or negative is therefore not watched in those steps, and one that
    hovers around 0 should not be watched at all.

    A suspicion is no alarm: hard batches after a block of easy ones raise it as well, and an honest order of the data can have
    these for as long as it likes. Who can, asks the model (see ``inquiry.py``), and says :meth:`believe` when it is the data.
    An alarm by the signals alone is what no data can do: a streak 1e8 times above the lowest level.

    Defaults for a YOLO trainer: ``max_loss_rise=4.0, max_norm_rise=10.0, patience=32``; ``python -m benchmarks.alarms`` says what
    they, with the inquiry, find in scripted runs (kept in ``benchmarks/results/alarms.json``).

    Args:
        max_loss_rise: Largest ratio of a loss to its level, and of that level to its lowest, above 1; None: not watched.
        max_norm_rise: Largest ratio of a gradient norm to its level, above 1; None: not watched.
        patience: Length of a streak that is suspicious, at least 1.

    Raises:
        ValueError: If an argument is out of its range.

    Examples:
        >>> divergence = Divergence(max_loss_rise=4.0, max_norm_rise=10.0, patience=3)
        >>> [divergence.add(loss, 1.0) for loss in (12.0, 12.0, 12.0, 500.0, 2000.0, 9000.0)]
        ['', '', '', '', '', '']
        >>> divergence.suspicion
        'loss 9e+03 has been above 4 times its level of 12 for 3 steps'
    """

    def __init__(self, max_loss_rise: float | None, max_norm_rise: float | None, patience: int) -> None:
        self.loss = Level("loss", max_loss_rise, patience)
        self.norm = Level(
            "gradient norm", max_norm_rise, patience, haste=NORM_HASTE, blind=NORM_BLIND, watch_lowest=False
        )
        self.suspicion = ""
        """What was suspicious in the last step; empty when nothing was."""

    def add(self, loss: float | None, norm: float | None) -> str:
        """Take what was read in one optimizer step.

        Args:
            loss: Mean loss of the window's micro-batches; None when there is none.
            norm: Global 2-norm of the window's gradients before clipping, unscaled; None when there is none.

        Returns:
            The reason for an alarm, in each step for which it lasts; nothing when in line, suspicious or not known yet.
        """
        of_loss, of_norm = self.loss.add(loss), self.norm.add(norm)
        self.suspicion = f"{of_loss}; {of_norm}" if of_loss and of_norm else of_loss or of_norm
        return self.suspicion if self.suspicion and (self.loss.far or self.norm.far) else ""

    def believe(self) -> None:
        """Take what is suspicious for honest: the levels go where the streaks are."""
        for level in (self.loss, self.norm):
            if level.suspected:
                level.believe()
        self.suspicion = ""

    @property
    def suspicious(self) -> bool:
        """True while a streak is open: what is saved now may be what a roll-back should undo."""
        return self.loss.suspicious or self.norm.suspicious

    def reset_streaks(self) -> None:
        """Forget the streaks after a roll-back; the levels stay as `load_state_dict` gave them."""
        self.loss.reset_streaks()
        self.norm.reset_streaks()
        self.suspicion = ""

    def state_dict(self) -> dict[str, Entry]:
        """Return all that later verdicts depend on, as finite numbers or None; the settings are not in it."""
        return {
            f"{name}_{key}": value
            for name, level in (("loss", self.loss), ("norm", self.norm))
            for key, value in level.state_dict().items()
        }

    def load_state_dict(self, state: Mapping[str, Entry]) -> None:
        """Take over what `state_dict` returned, here or in another process.

        Args:
            state: Its entries.

        Raises:
            ValueError: If an entry is missing, unknown, or not what it can be; nothing has been taken over then.
        """
        parts: dict[str, dict[str, Entry]] = {"loss": {}, "norm": {}}
        for name, value in state.items():
            signal, _, key = name.partition("_")
            if signal not in parts:
                raise ValueError(f"unknown in the state of the divergence rule: {name}")
            parts[signal][key] = value
        before = self.loss.state_dict()
        self.loss.load_state_dict(parts["loss"])
        try:
            self.norm.load_state_dict(parts["norm"])
        except ValueError:
            self.loss.load_state_dict(before)
            raise
