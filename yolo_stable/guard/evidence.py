"""Divergence evidence: asks the model whether a suspicion of the divergence rule is a divergence.

On a suspicion the micro-batch at hand runs under the current weights and under those of an earlier snapshot, one micro-batch a
step, for up to 16 steps (``witness.py`` measures, ``inquiry.py`` compares). If the older state is no better, the streak becomes
the baseline and snapshots go on; if it is far better, the guard restores it. A rollback that has not helped quarters the learning
rate. A forward pass that fails or would wait for other ranks leaves the suspicion undecided: the guard says so once, without an
alarm. Without ``again=`` every suspicion stays undecided, and only a rise by 1e8 counts. The guard reads nothing while nothing is
out of line.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping
from enum import Enum

from torch import Tensor

from .anchor import Anchor
from .config import GuardConfig
from .divergence import Divergence
from .inquiry import Answer, Inquiry
from .snapshot import Snapshot, SnapshotRing
from .witness import Witness

BATCHES = 16
"""Micro-batches to compare, one a step, before ``patience`` is over."""
EARLY, EARLY_BATCHES, EARLY_RATIO = 3, 12, 10.0
"""High losses in a row, or one loss so many times the baseline (the last number), that begin an early comparison of so many
micro-batches. An explosion does not wait: after eight steps a detector may be dead, and then its loss is 0, which is never
high."""
MARGIN = 8
"""Steps before a streak whose snapshots do not count as from before it: the first losses of a divergence may still be in line."""
PROBATION, PROBATION_BATCHES, PROBATION_RATIO = 4, 8, 1.3
"""Steps after a rollback from a divergence until the state is compared with the restored one, by so many micro-batches, and the
ratio of a failure. Half a learning rate that was far too high is still too high: that need not look like a divergence, but it
undoes what was learned. Honest trainings are not on probation."""


class Occasion(Enum):
    """Why the guard compares batches."""

    EARLY = 1
    """A few high losses: is it an explosion?"""
    STREAK = 2
    """A suspicion that has lasted: is it the data?"""
    PROBATION = 3
    """A rollback: has it helped?"""


class DivergenceEvidence:
    """Asks, when loss or norm are out of line, whether an older state is better on the same batches.

    The older state is the newest snapshot from well before the suspicion, as none is taken while it lasts; for a loss that creeps
    up it is the anchor, since the snapshots have crept along. Without a witness a suspicion is neither an alarm nor cleared.

    Args:
        witness: Measures a micro-batch under both states, or None.
        config: The run's settings.
    """

    def __init__(self, witness: Witness | None, config: GuardConfig) -> None:
        self._witness, self._config = witness, config
        self._anchor = Anchor()
        self._inquiry: Inquiry | None = None
        self._occasion = Occasion.EARLY
        self._heard_early = self._undecided = self._warned = False
        self._restored: tuple[Snapshot, int] | None = None
        self._since = 0
        self._suspicion, self._step = "", -1
        self.older: Snapshot | None = None
        """The state that is compared, or was compared last."""

    @property
    def patience(self) -> int:
        """Length of a streak that the rule suspects; the comparison then ends when the streak is ``config.patience`` long."""
        return max(1, self._config.patience - BATCHES + 1)

    def doubts(self, divergence: Divergence) -> bool:
        """Return whether a rollback may have to undo the current state."""
        return divergence.suspicious or self._inquiry is not None or self._restored is not None

    def delays(self, divergence: Divergence) -> bool:
        """Return whether snapshots have to wait until a suspicion is cleared; never when nobody can clear it."""
        unanswered = self._undecided or self._witness is None
        return self.doubts(divergence) and not (unanswered and divergence.suspicion)

    def follow(self, divergence: Divergence, step: int, live: Mapping[str, Tensor]) -> None:
        """Move the anchor when it is due; call this with each state without a suspicion.

        Syncs: none.
        """
        if self._witness is not None:
            self._anchor.follow(divergence.loss.settled_value, step, live)

    def hear(self, divergence: Divergence, ring: SnapshotRing, step: int) -> str:
        """Compare one micro-batch if there is a suspicion; believe what turns out to be the data.

        Args:
            divergence: The rule, after this step.
            ring: The snapshots.
            step: Optimizer steps applied so far.

        Returns:
            Why training has diverged; empty until that is shown.

        Syncs: none while nothing is out of line; else two.
        """
        if not divergence.suspicious:
            self._heard_early = self._undecided = False
            if self._inquiry is None and self._restored is None:
                return ""
        if self._witness is None or self._undecided:
            return ""
        if self.older is not None and self.older.step != self._step:
            self._inquiry = None  # several ranks do not wait: a newer snapshot now occupies its memory
        if self._inquiry is None:
            before = step - max(divergence.loss.high, divergence.norm.high) - MARGIN
            self._begin(self._witness, divergence, ring.at_or_before(before, trusted=True))
        inquiry = self._inquiry
        if inquiry is None:
            return ""
        if self._occasion is Occasion.STREAK:
            self._suspicion = divergence.suspicion or self._suspicion
        answer = self._ask(self._witness, inquiry)
        if answer is Answer.OPEN:
            return ""
        self._inquiry = None
        if answer is Answer.WORSE:
            return f"{self._suspicion}; {inquiry.figures(f'the state of step {self._step}')}"
        if self._occasion is Occasion.EARLY:
            self._heard_early = True
        elif self._occasion is Occasion.STREAK:
            if divergence.loss.suspected:  # else the norm was believed, and the loss may creep on
                self._anchor.forget()
            divergence.believe()
        else:
            self._occasion = Occasion.EARLY  # the rollback has helped
        return ""

    def watch_after(self, snapshot: Snapshot) -> None:
        """Compare with this state soon: a divergence was rolled back to it."""
        self.drop()
        if self._witness is not None:
            self._restored, self._since = (snapshot, snapshot.step), 0

    @property
    def not_helped(self) -> bool:
        """Whether the last comparison showed that a rollback has not helped."""
        return self._occasion is Occasion.PROBATION

    def better_in(self, ring: SnapshotRing) -> Snapshot | None:
        """Return the snapshot that was found better, unless it is the newest, which may be from within the divergence."""
        return self.older if self.older in ring.older_ones else None

    def drop(self) -> None:
        """Forget the comparison: another state was restored."""
        self._inquiry = self._restored = self.older = None
        self._heard_early = self._undecided = False

    def forget(self) -> None:
        """Drop the anchor as well: the state was changed from outside."""
        self.drop()
        self._anchor.forget()

    def _begin(self, witness: Witness, divergence: Divergence, before: Snapshot | None) -> None:
        """Begin a comparison if there is an occasion."""
        self._since += 1
        if self._restored is not None and self._since > PROBATION:
            (older, step), self._restored = self._restored, None
            if older.step != step:
                return
            self._occasion, self.older, self._suspicion = Occasion.PROBATION, older, "the rollback has not helped"
        elif divergence.suspicion:
            crept = divergence.loss.crept_only and not divergence.norm.suspected
            self._occasion, self.older = Occasion.STREAK, self._anchor.snapshot if crept else before
            self._suspicion = divergence.suspicion
        elif not self._heard_early and (divergence.loss.high >= EARLY or divergence.loss.above > EARLY_RATIO):
            self._occasion, self.older, self._suspicion = Occasion.EARLY, before, divergence.loss.seen
        else:
            return
        self._step = -1 if self.older is None else self.older.step
        if hindrance := witness.hindrance() or ("" if self.older is not None else "there is no state from before"):
            self._give_up(hindrance)
        else:
            self._inquiry = self._question(divergence)

    def _question(self, divergence: Divergence) -> Inquiry:
        patience = self._config.patience
        if self._occasion is Occasion.PROBATION:
            return Inquiry(PROBATION_RATIO, batches=PROBATION_BATCHES)
        if self._occasion is Occasion.EARLY:
            return Inquiry(EARLY_RATIO, batches=min(EARLY_BATCHES, patience))
        loss_rise, norm_rise = self._config.max_loss_rise, self._config.max_norm_rise
        norm_ratio = math.sqrt(norm_rise) if norm_rise is not None and divergence.norm.suspected else None
        return Inquiry(math.sqrt(loss_rise or 4.0), norm_ratio, batches=min(BATCHES, patience))

    def _ask(self, witness: Witness, inquiry: Inquiry) -> Answer:
        assert self.older is not None
        norm = inquiry.norm_ratio is not None
        try:
            then = witness.measure(self.older.tensors, norm=norm)
            return inquiry.add(now=witness.measure(None, norm=norm), then=then)
        except Exception as error:  # noqa: BLE001 - whatever the forward pass raises: undecided is an answer
            self._give_up(f"{type(error).__name__}: {error}")
            return Answer.OPEN

    def _give_up(self, why: str) -> None:
        self._inquiry, self._undecided = None, True
        if not self._warned:
            text = f"The guard cannot tell whether training diverges: {self._suspicion}, but {why}. Training goes on."
            warnings.warn(text, RuntimeWarning, stacklevel=2)
        self._warned = True
