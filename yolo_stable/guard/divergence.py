"""Divergence rule: a loss or gradient norm that stays out of line is suspicious, although every number is finite."""

from __future__ import annotations

from collections.abc import Mapping

from .baseline import Baseline, Entry

NORM_HASTE = 2.0
"""The baseline of the norm follows this many times faster than that of the loss in the first steps: norms grow a hundredfold in
warm-up, and with 2 the baseline is then never more than a factor of 100 ** (1 / 5) = 2.5 behind."""

NORM_BLIND = 32
"""No norm is high before this many values: a warm-up may raise it a hundredfold within five steps. The loss shows a run that
explodes in its first steps."""


class Divergence:
    """Watches a run once per optimizer step; knows nothing of torch, costs a few microseconds and keeps some 20 numbers.

    Each signal has a baseline (see `Baseline`) and is suspicious once it has been high for ``patience`` steps. The loss also is
    once its baseline has crept to ``max_loss_rise`` times its lowest; the norm is not, as norms grow in honest training. A
    value that is None, not finite, not above 0, beyond 1e15 (or below its inverse) or 1e12 times its baseline counts as if the
    step had never been. A loss is not watched in steps where it is 0 or negative; do not watch a loss that hovers around 0.

    A suspicion is no alarm: hard batches after a block of easy ones raise it too, and an honest order of the data can have
    these for any time. Whoever can ask the model (see ``inquiry.py``) calls :meth:`believe` when it is the data. The signals
    alone raise an alarm only for what no data can do: a streak 1e8 times above the lowest baseline.

    Defaults for a YOLO trainer: ``max_loss_rise=4.0, max_norm_rise=10.0, patience=32``. ``python -m benchmarks.alarms`` measures
    them, with the inquiry, in scripted runs (kept in ``benchmarks/results/alarms.json``).

    Args:
        max_loss_rise: Largest ratio of a loss to its baseline, and of that baseline to its lowest, above 1; None: not watched.
        max_norm_rise: Largest ratio of a gradient norm to its baseline, above 1; None: not watched.
        patience: Length of a streak that is suspicious, at least 1.

    Raises:
        ValueError: An argument is out of its range.

    Examples:
        >>> divergence = Divergence(max_loss_rise=4.0, max_norm_rise=10.0, patience=3)
        >>> [divergence.add(loss, 1.0) for loss in (12.0, 12.0, 12.0, 500.0, 2000.0, 9000.0)]
        ['', '', '', '', '', '']
        >>> divergence.suspicion
        'loss 9e+03 has been above 4 times its baseline of 12 for 3 steps'
    """

    def __init__(self, max_loss_rise: float | None, max_norm_rise: float | None, patience: int) -> None:
        self.loss = Baseline("loss", max_loss_rise, patience)
        self.norm = Baseline(
            "gradient norm", max_norm_rise, patience, haste=NORM_HASTE, blind=NORM_BLIND, watch_lowest=False
        )
        self.suspicion = ""
        """The suspicion of the last step; empty without one."""

    def add(self, loss: float | None, norm: float | None) -> str:
        """Take the numbers of one optimizer step.

        Args:
            loss: Mean loss of the window's micro-batches, or None.
            norm: Global 2-norm of the window's gradients before clipping, unscaled, or None.

        Returns:
            The reason for an alarm in each step in which it lasts; empty when in line, suspicious or not known yet.
        """
        of_loss, of_norm = self.loss.add(loss), self.norm.add(norm)
        self.suspicion = f"{of_loss}; {of_norm}" if of_loss and of_norm else of_loss or of_norm
        return self.suspicion if self.suspicion and (self.loss.far or self.norm.far) else ""

    def believe(self) -> None:
        """Accept suspicious streaks as honest: they become the baselines."""
        for baseline in (self.loss, self.norm):
            if baseline.suspected:
                baseline.believe()
        self.suspicion = ""

    @property
    def suspicious(self) -> bool:
        """True while a streak is open: a rollback may have to undo what is saved now."""
        return self.loss.suspicious or self.norm.suspicious

    def reset_streaks(self) -> None:
        """Forget the streaks after a rollback; keep the baselines."""
        self.loss.reset_streaks()
        self.norm.reset_streaks()
        self.suspicion = ""

    def state_dict(self) -> dict[str, Entry]:
        """Return all that later verdicts depend on, without the settings, as finite numbers or None."""
        return {
            f"{name}_{key}": value
            for name, baseline in (("loss", self.loss), ("norm", self.norm))
            for key, value in baseline.state_dict().items()
        }

    def load_state_dict(self, state: Mapping[str, Entry]) -> None:
        """Continue from `state_dict`.

        Raises:
            ValueError: An entry is missing, unknown or not possible; nothing has been changed.
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
