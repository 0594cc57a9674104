"""Baseline: the usual size of one noisy positive number, and for how long the number has been out of line with it.

Out of line is only a suspicion: hard batches after easy ones look the same in a single number. ``inquiry.py`` tells them apart.
"""

from __future__ import annotations

import math

FIRST = 3
"""Values whose lowest sets the first baseline: the very first comes from a state that no step has harmed yet, so a run that
explodes in its second step is measured against it."""
SLOWEST = 1 / 64
"""Share of a value's distance that a settled baseline moves: a memory of some 64 steps, which leaves an eighth of the noise
(``sqrt(a / (2 - a))`` for independent values, as for any exponentially weighted mean; Roberts, 1959)."""
UPWARD, DOWNWARD = 2.0, 0.5
"""Factors on that share for values above and below: the baseline is an expectile at 0.8 (Newey and Powell, 1987), not a mean.
Losses of 2 and 60 in turns, as recorded from small batches, are then measured against the 60."""
SETTLED = 64
"""Values after which high ones never move the baseline, and its lowest counts: before, a baseline that began too low by chance
would count for ever. A creep that begins earlier is only seen later."""
BELIEVED = 1e15
"""Values not between this and its inverse are absurd: no training has them."""
BELIEVED_RISE = 1e12
"""Values further than this from the baseline, up or down, are absurd too."""
FAR = 1e8
"""A rise that no data cause: the ratio between the first batch of an untrained network (a loss of 100) and an image without
objects under a network that has learned to be silent (1e-6)."""

Entry = float | int | None

_LOG_BELIEVED = math.log(BELIEVED)
_LOG_BELIEVED_RISE = math.log(BELIEVED_RISE)
_LOG_FAR = math.log(FAR)


class Baseline:
    """Follows in-line values in log space, with two streaks: high values, and a high baseline.

    A value above ``max_rise`` times the baseline is high: it lengthens the streak by one and leaves the baseline alone. Any other
    value is in line: it shortens the streak by one and moves the baseline, but never by more than a fall by ``max_rise`` would.
    So mostly high values are a streak, and single ones in line hide nothing. A value that is None, not finite, not above 0 or
    absurd counts as if it had never been.

    Until the baseline is settled, a value in line ends a streak, which has only shown how far the values scatter: its values
    then move the baseline as if each had been ``max_rise`` times it. Otherwise a fresh detector's first steps would be
    suspicious: while the assigner finds no objects, losses of 8 and 120 take turns, and a baseline that began at 8 would stay
    there.

    Examples:
        >>> baseline = Baseline("loss", max_rise=4.0, patience=2)
        >>> [baseline.add(value) for value in (6.0, 6.0, 6.0, 6.0, 60.0, math.nan)]
        ['', '', '', '', '', '']
        >>> baseline.add(57.3)
        'loss 57.3 has been above 4 times its baseline of 6 for 2 steps'
    """

    def __init__(
        self,
        name: str,
        max_rise: float | None,
        patience: int,
        *,
        haste: float = 1.0,
        blind: int = FIRST,
        watch_lowest: bool = True,
    ) -> None:
        """Begin without a baseline.

        Args:
            name: What the number is called in a reason.
            max_rise: Largest ratio to the baseline that is in line, above 1; None: nothing is watched.
            patience: Length of a streak that is suspicious, at least 1.
            haste: The n-th value moves the baseline by ``haste / n`` of its distance (times `UPWARD` or `DOWNWARD`) while that
                is more than `SLOWEST`: a number that grows geometrically from its first step on is then followed at a
                distance of ``1 / (2 haste + 1)`` of all its growth (in log space), however fast it grows.
            blind: Values before which none is high: those above the line move the baseline as if they were on it.
            watch_lowest: Also suspect when the baseline itself stays above ``max_rise`` times the lowest it has been.

        Raises:
            ValueError: If ``max_rise`` is not a finite number above 1, or ``patience`` is below 1.
        """
        if max_rise is not None and not 1.0 < max_rise < math.inf:
            raise ValueError(f"the largest rise of the {name} must be a finite number above 1 or None, not {max_rise}")
        if patience < 1:
            raise ValueError(f"patience must be at least 1 step, not {patience}")
        self.name, self.max_rise, self.patience = name, max_rise, patience
        self._log_rise = math.log(max_rise) if max_rise is not None else math.inf
        self._haste, self._blind, self._watch_lowest = haste, blind, watch_lowest
        self.first: list[float] = []
        self.count = 0
        self.value = self.lowest = self.peak = 0.0
        self.high = self.crept = 0

    def add(self, value: float | None) -> str:
        """Take the value of one step, or None; return the suspicion in each step whose streak is ``patience`` long or longer."""
        if self.max_rise is None or value is None or not 1.0 / BELIEVED < value < BELIEVED:  # NaN is not between
            return ""
        log = math.log(value)
        if self.count < FIRST:
            self._begin(log)
            return ""
        rise = log - self.value
        if not -_LOG_BELIEVED_RISE < rise < _LOG_BELIEVED_RISE:
            return ""
        if rise > self._log_rise and self.count >= self._blind:
            self.high += 1
            self.peak += (log - self.peak) / min(self.high, self.patience)
        else:
            if self.count < SETTLED:
                if self.high:
                    self._move(self._log_rise, self.high)
                self.high = 0
            else:
                self.high = max(0, self.high - 1)
            self._move(max(-self._log_rise, min(log - self.value, self._log_rise)), 1)
            self.lowest = min(self.lowest, self.value) if self.count > SETTLED else self.value
        self.crept = self.crept + 1 if self._watch_lowest and self.value - self.lowest > self._log_rise else 0
        return self._reason(value) if self.suspected else ""

    def _begin(self, log: float) -> None:
        self.first.append(log)
        self.count += 1
        if self.count == FIRST:
            self.value = self.lowest = min(self.first)
            self.first = []

    def _move(self, distance: float, times: int) -> None:
        """Take ``times`` values at this distance from the baseline, in log space, at once."""
        self.count += times
        share = (UPWARD if distance > 0 else DOWNWARD) * max(SLOWEST, self._haste / self.count)
        self.value += distance * min(1.0, times * share)

    @property
    def seen(self) -> str:
        """The size of the streak's values, in words."""
        baseline = f"its baseline of {math.exp(self.value):.3g}"
        return f"{self.name} {math.exp(self.peak):.3g} is above {self.max_rise:g} times {baseline}"

    def _reason(self, value: float) -> str:
        if self.high >= self.patience:
            baseline, steps = f"its baseline of {math.exp(self.value):.3g}", self.high
            return f"{self.name} {value:.3g} has been above {self.max_rise:g} times {baseline} for {steps} steps"
        baseline, lowest = f"baseline {math.exp(self.value):.3g}", f"its lowest of {math.exp(self.lowest):.3g}"
        return f"{self.name} {baseline} has been above {self.max_rise:g} times {lowest} for {self.crept} steps"

    @property
    def suspicious(self) -> bool:
        """True while a streak is open."""
        return self.high > 0 or self.crept > 0

    @property
    def suspected(self) -> bool:
        """True while a streak is ``patience`` long or longer."""
        return max(self.high, self.crept) >= self.patience

    @property
    def above(self) -> float:
        """The streak's values as a multiple of the baseline; 0 without a streak."""
        return math.exp(self.peak - self.value) if self.high else 0.0

    @property
    def settled_value(self) -> float | None:
        """Logarithm of the baseline; None before it is settled."""
        return self.value if self.count > SETTLED else None

    @property
    def crept_only(self) -> bool:
        """True while only the baseline itself is suspected: values are in line with it."""
        return self.crept >= self.patience > self.high

    @property
    def far(self) -> bool:
        """True when a streak of ``patience`` is further above the lowest baseline than any data explain."""
        return self.high >= self.patience and self.peak - self.lowest > _LOG_FAR

    def believe(self) -> None:
        """Accept the streak as honest: it becomes the baseline, and the lowest one from here on."""
        if self.high:
            self.value = self.peak
        self.lowest = self.value
        self.reset_streaks()

    def reset_streaks(self) -> None:
        """Forget the streaks; the baseline stays."""
        self.high = self.crept = 0

    def state_dict(self) -> dict[str, Entry]:
        """Return all that later verdicts depend on; logarithms as they are, so that nothing is rounded."""
        first: list[float | None] = [*self.first, *[None] * (FIRST - len(self.first))]
        return {
            "count": self.count,
            **{f"log_first_{i}": log for i, log in enumerate(first)},
            "log_level": self.value,
            "log_lowest": self.lowest,
            "log_peak": self.peak,
            "high": self.high,
            "crept": self.crept,
        }

    def load_state_dict(self, state: dict[str, Entry]) -> None:
        """Continue from `state_dict`.

        Raises:
            ValueError: An entry is missing, unknown or not possible; nothing has been changed.
        """
        state = {"log_peak": 0.0, **state}  # older runs have none: the next streak sets it
        wrong = sorted(state.keys() ^ self.state_dict().keys())
        if wrong:
            raise ValueError(f"missing or unknown in the state of the {self.name}: {', '.join(wrong)}")
        count, high, crept = (self._whole(key, state[key]) for key in ("count", "high", "crept"))
        keys = [f"log_first_{i}" for i in range(count if count < FIRST else 0)]
        first = [self._log(key, state[key]) for key in keys]
        baseline, lowest, peak = (self._log(key, state[key]) for key in ("log_level", "log_lowest", "log_peak"))
        self.first, self.count, self.high, self.crept = first, count, high, crept
        self.value, self.lowest, self.peak = baseline, lowest, peak

    def _log(self, key: str, value: Entry) -> float:
        if value is None or not abs(value) < _LOG_BELIEVED:
            raise ValueError(f"{key} of the {self.name} must be the logarithm of a value that is believed, not {value}")
        return float(value)

    def _whole(self, key: str, value: Entry) -> int:
        if not isinstance(value, int) or value < 0:
            raise ValueError(f"{key} of the {self.name} must be a whole number from 0 on, not {value}")
        return value
