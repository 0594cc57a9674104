"""Recovery: takes snapshots of healthy states and restores them: repair of the EMA, rollback, lower precision, halt.

Recovery audits the state every ``snapshot_every`` steps and before each validation and save: one fused pass, one read. Only a
healthy state becomes a snapshot, and none while loss or norm are out of line.

A rollback restores parameters, buffers, optimizer, EMA and loss scale. It leaves what follows the loop: schedules,
hyperparameters of the groups, counters, and the random number generators, since the same numbers could lead to the same fault
for ever.

A rollback costs steps, not learning. The learning rate backs off only where training diverged; every other rollback is a
setback (``setbacks.py``). Only on this rare path does recovery ask what happened (``damage.py``). Most weights far off:
training diverged, even if they are no longer finite. One weight out of all proportion: a flipped bit, even if it is finite, and
the newest snapshot without it is restored. Rejections past their limit: the batches, until steps taken from the restored state
lead there again.

Bounds: a ruined number costs at most ``snapshot_every`` steps; a divergence also the ``patience`` steps in which it shows. The
third rollback in a row to the same snapshot takes an older one, which loses as many steps again. A fault that never goes away
halts within ``escalation.most_micro_batches``, with the state of a snapshot. Measured by
``python -m benchmarks.rollbacks``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from ..errors import InvalidCallError
from .audit import Audit, AuditFinding
from .config import GuardConfig
from .damage import StateDamage, all_over, damages, lone_numbers
from .decision import Decision
from .divergence import Divergence
from .escalation import Escalation, EscalationLevel, next_level
from .evidence import DivergenceEvidence
from .limits import ASTRAY_ADVICE, ROW_ADVICE, RUINED_ADVICE, Counts, PassedLimit, halted, limit_passed
from .lr_backoff import LearningRateBackoff
from .milestone import Milestone
from .ranks import Ranks
from .recent import RecentWindows
from .repair import EmaRepair
from .setbacks import Setbacks
from .snapshot import Snapshot, SnapshotRing
from .snapshot_choice import choose, copies
from .state import TrainingState
from .witness import Again, Witness

TRIES = 2
"""Rollbacks in a row to the same snapshot before an older one is taken."""


class Recovery:
    """Keeps healthy states, and restores one when rejecting batches is not enough.

    Several ranks roll back together. A rank that finds its own state unhealthy cannot say so by a collective, which the others do
    not expect: it makes its next gradients NaN. Then all ranks reject the window, and only then ask each other.

    Args:
        state: What snapshots keep.
        config: ``snapshot_every`` is not None.
        counts: The guard's counters; a rollback never restores them.
        recent: The newest windows; likewise.
        abandon_window: Drops the window under way before a rollback.
        resync: Makes the guard follow the restored state.
        switch_precision: Switches to the next safer precision and returns its name, or None when there is none.
        on_escalation: Called after every escalation.
        ranks: The other processes that train the model.
        again: See :class:`~yolo_stable.guard.StepGuard`.
    """

    def __init__(
        self,
        state: TrainingState,
        config: GuardConfig,
        counts: Counts,
        recent: RecentWindows,
        abandon_window: Callable[[], None],
        resync: Callable[[], None],
        switch_precision: Callable[[], str | None] | None = None,
        on_escalation: Callable[[Escalation], None] | None = None,
        *,
        ranks: Ranks,
        again: Again | None = None,
    ) -> None:
        self.state, self.config, self.counts, self.recent, self.ranks = state, config, counts, recent, ranks
        self.ring = SnapshotRing(state, copies(config, ranks), config.snapshot_device)
        self.audit = Audit(config.max_value, config.reject_norm if config.max_norm is None else config.max_norm)
        self.lr_backoff = LearningRateBackoff(config.ramp_steps)
        self.setbacks = self._no_setbacks()
        self.evidence = DivergenceEvidence(
            None if again is None else Witness(state.model, again, ranks, state.memory), config
        )
        self.divergence = Divergence(config.max_loss_rise, config.max_norm_rise, self.evidence.patience)
        self.keeps_anchor = again is not None and config.max_loss_rise is not None
        """Whether the host keeps the weights of the lowest loss beside the ring."""
        self.beyond: tuple[str, ...] = ()
        """Tensors that were beyond ``max_value`` before the first step, and are believed therefore."""
        self.milestone = Milestone(state)
        self.wish = ""
        """Why this rank wants all ranks to roll back; always empty with a single rank."""
        self._abandon_window, self._resync = abandon_window, resync
        self._switch_precision, self._on_escalation = switch_precision, on_escalation
        self._diverging = False
        self._target: Snapshot | None = None
        self._tries = self._mark = self._undone = 0
        self._repair = EmaRepair(state, config.snapshot_every or 1)

    @property
    def trained(self) -> int:
        """Optimizer steps in the state: those applied, less those undone."""
        return self.counts.applied - self._undone

    def begin(self) -> None:
        """Accept the state as it is as healthy, and take the first snapshot.

        Syncs: two per device and dtype.
        """
        self.state.resync()
        self.ring.clear()
        self.milestone.forget()
        self.evidence.forget()
        self.wish, self._diverging = "", False
        self._target, self._tries = None, 0
        live = self.state.live()
        self.beyond = self.audit.calibrate(live)
        self._take(live)

    def after_rejection(self, last: Decision) -> None:
        """Find out whether the batch or the state that it met is to blame, and escalate if it is the state.

        With several ranks: only after a rejected window, which all ranks reject together.

        Raises:
            TrainingHaltedError: Nothing is left to try.

        Syncs: one per device and dtype, and with several ranks one collective.
        """
        finding = self.audit.inspect(self.state.live())
        if finding and finding.ema_only:
            self._repair_ema(finding)
        elif finding:
            self.wish = f"the training state is not healthy: {finding.reason}"
        if self.ranks.any(bool(self.wish)):
            why = self.wish or "another rank asks for it"
            self._escalate(why, finding.names, diverged=self._diverging, last=last)
        elif passed := limit_passed(self.counts, self.recent, self.config):
            if passed.for_good:
                raise self._halt(passed, last)
            astray = self.setbacks.led_astray(self.counts.applied)
            self._escalate(passed.reason, (), diverged=astray, last=last)

    def after_step(self, loss: float | None, norm: float | None) -> str:
        """Judge after an applied window whether training diverges, and roll back if it does.

        Args:
            loss: Mean loss of the window's micro-batches.
            norm: Norm of its gradients before clipping.

        Returns:
            Why the window was undone; empty when it stands.

        Raises:
            TrainingHaltedError: Nothing is left to try.
        """
        self.lr_backoff.applied()
        why = self.divergence.add(loss, norm) or self.evidence.hear(self.divergence, self.ring, self.counts.applied)
        if why and self.ranks.shared:
            self.wish, self._diverging = why, True
            return ""
        if why:
            if self.evidence.not_helped:
                self.lr_backoff.factor /= 2  # a quarter with the half that follows: a half was not nearly enough
            self._escalate(why, (), diverged=True, better=self.evidence.better_in(self.ring))
        return why

    def settle(self) -> None:
        """Take a snapshot when one is due and the state is healthy; restore the state when it is not.

        A suspicious state becomes no snapshot until it is known whether the data are the reason. With several ranks it does,
        marked as not trusted: the loss is each rank's own, but all ranks need snapshots of the same steps.

        Raises:
            TrainingHaltedError: Nothing is left to try.

        Syncs: one per device and dtype, when a snapshot is due.
        """
        if self.counts.applied - self._mark < self.setbacks.pace:
            return
        live = self.state.live()
        if self._restore(self.audit.inspect(live)) and (self.ranks.shared or not self.evidence.delays(self.divergence)):
            self._take(live)
            self.setbacks.kept()

    def inspect(self) -> bool:
        """Audit the state now, and restore it if it is not healthy.

        Returns:
            Whether it is healthy now. With several ranks the rollback may have to wait for the next window.

        Raises:
            TrainingHaltedError: Nothing is left to try.

        Syncs: one per device and dtype; twice that when something was wrong.
        """
        finding = self.audit.inspect(self.state.live())
        if finding:
            self._restore(finding)
            finding = self.audit.inspect(self.state.live())
        return not finding

    def keep_best(self) -> None:
        """Keep the state, which has just been validated, for :meth:`roll_back_to_best`.

        Syncs: none.
        """
        self.milestone.keep(self.counts.applied, self.trained, self.state.live(), on_host=self.ring.on_host)

    def roll_back_to_best(self, why: str) -> bool:
        """Roll back to what :meth:`keep_best` kept; with a single rank only.

        Returns:
            False when there is nothing to restore.

        Raises:
            TrainingHaltedError: Nothing is left to try.
        """
        if self.milestone.snapshot is None or self.ranks.shared:
            return False
        self.milestone.collapsed(self.lr_backoff)
        self._escalate(why, (), diverged=True, to=self.milestone.snapshot)
        return True

    def out_of_memory(self) -> None:
        """Free the device memory of the ring's snapshots; the snapshot of the best validation stays where it is."""
        self.evidence.drop()
        newest = self.ring.newest
        self.ring.move_to_host()
        self._target = self.ring.newest if self._target is newest else None

    def state_dict(self) -> dict[str, Any]:
        """Return what a resumed run needs: the learning-rate backoff (``brake`` in files) and the divergence rule's baselines."""
        return {"brake": self.lr_backoff.to_dict(), "divergence": self.divergence.state_dict()}

    def load_state_dict(self, values: Mapping[str, Any]) -> None:
        """Continue from :meth:`state_dict`; the settings determine the length of the ramp.

        Raises:
            InvalidCallError: It is something else; nothing has been changed.
        """
        backoff = LearningRateBackoff(self.config.ramp_steps)
        backoff.load(values.get("brake"))
        baselines = values.get("divergence")
        try:
            self.divergence.load_state_dict(baselines if isinstance(baselines, Mapping) else {})
        except (TypeError, ValueError) as error:
            raise InvalidCallError(
                f"This is not the state of a StepGuard: divergence={baselines!r}: {error}."
            ) from error
        if backoff.rollbacks >= self.config.max_rollbacks:  # the run was halted: who resumes it has changed something
            backoff.rollbacks = 0
        self.lr_backoff, self.setbacks = backoff, self._no_setbacks()

    # ---- escalation ----------------------------------------------------------------------------------------------------

    def _restore(self, finding: AuditFinding) -> bool:
        """Return whether the steps taken so far stand: nothing was wrong, or only the averaged model."""
        if not finding:
            return True
        if finding.ema_only:
            self._repair_ema(finding)
            return True
        why = f"the training state is not healthy: {finding.reason}"
        if self.ranks.shared:
            self.wish = why
        else:
            self._escalate(why, finding.names, diverged=False)
        return False

    def _escalate(
        self,
        reason: str,
        ruined: tuple[str, ...],
        *,
        diverged: bool,
        last: Decision | None = None,
        to: Snapshot | None = None,
        better: Snapshot | None = None,
    ) -> None:
        """Choose the next level and carry it out; only a divergence backs off, on all ranks alike.

        ``ruined`` are tensors that the audit found; ``last`` is the rejection that led here. The state may tell that ``diverged``
        is wrong. The ring gives the snapshot, unless ``to`` is one, or one was found ``better`` than the current state.

        Raises:
            TrainingHaltedError: Nothing is left to try; the state is that of a snapshot.
        """
        step = self.counts.applied
        lone = () if ruined or to is not None else self._lone_numbers()
        diverged = self.ranks.any(diverged or self._is_all_over()) and not self.ranks.any(bool(lone))
        culprits = ruined or lone or (() if last is None else last.culprits)
        damage = self._damages(ruined or lone)
        used = self.lr_backoff.rollbacks if diverged else self.ranks.highest(self.setbacks.before(damage, step))
        may_lower = used >= self.config.max_rollbacks and self.config.lower_precision
        lowered = self._switch_precision() if may_lower and self._switch_precision is not None else None
        has_snapshot = self.ring.newest is not None
        level = next_level(used, self.config, has_snapshot=has_snapshot, can_lower=lowered is not None)
        if level is EscalationLevel.LOWER_PRECISION:
            self.lr_backoff.rollbacks = 0
            self.setbacks.forget()
        if level is not EscalationLevel.HALT:
            if diverged:
                self.lr_backoff.rolled_back()
            else:
                self.setbacks.add(damage, step)
            # The rank whose state was ruined missed the others' last snapshot: from here on all take them at the same steps.
            self.setbacks.pace = self.ranks.lowest(self.setbacks.pace)
            self.counts.rollbacks += 1
            self.counts.consecutive = 0
        if to is None and not lone:
            to = better
        snapshot = (
            to
            if to is not None
            else self._choose(lone, again=level is not EscalationLevel.HALT and self._tries >= TRIES)
        )
        seen = f"{reason}; last seen: {last.reason}" if last is not None else reason
        self._roll_back(level, seen, culprits, damage, snapshot, precision=lowered or "", diverged=diverged)
        if diverged and self._target is not None:
            self.evidence.watch_after(self._target)
        if level is EscalationLevel.HALT:
            advice = ASTRAY_ADVICE if diverged else RUINED_ADVICE if damage else ROW_ADVICE
            found = damage[0] if damage and not diverged else None
            raise halted(self.counts, reason, advice, last, rollbacks=used, damage=found)

    def _halt(self, passed: PassedLimit, last: Decision) -> Exception:
        """Restore a snapshot, so that the last save is healthy, and return the error that ends the run; on all ranks alike."""
        self._roll_back(EscalationLevel.HALT, passed.reason, last.culprits, (), self._choose((), again=False))
        return halted(self.counts, passed.reason, passed.advice, last)

    def _lone_numbers(self) -> tuple[str, ...]:
        """Return tensors with a ruined number that is still finite.

        The oldest snapshot is the reference: newer ones may contain that number. Once only: when the same number is out of all
        proportion again, training leads there.
        """
        oldest = self.ring.oldest
        found = () if oldest is None else lone_numbers(self.state.live(), oldest.tensors)
        return () if self.setbacks.knows(self._damages(found), self.counts.applied) else found

    def _is_all_over(self) -> bool:
        newest = self.ring.newest
        return newest is not None and all_over(self.state.live(), newest.tensors)

    def _damages(self, culprits: tuple[str, ...]) -> tuple[StateDamage, ...]:
        newest = self.ring.newest
        return damages(self.state.live(), culprits, None if newest is None else newest.tensors)

    def _choose(self, lone: tuple[str, ...], *, again: bool) -> Snapshot | None:
        """Return the snapshot to restore: the newest without lone numbers, or an older one when that led nowhere."""
        newest, oldest = self.ring.newest, self.ring.oldest
        if newest is None or oldest is None:
            return choose(self.ring, -1, self.ranks)
        step = newest.step - (again and newest is self._target)
        if lone:
            clean = [s.step for s in self.ring if not set(lone) & set(lone_numbers(s.tensors, oldest.tensors))]
            step = min(step, max(clean))  # the oldest one is always among them
        return choose(self.ring, step, self.ranks)

    def _roll_back(
        self,
        level: EscalationLevel,
        reason: str,
        culprits: tuple[str, ...],
        damage: tuple[StateDamage, ...],
        snapshot: Snapshot | None,
        *,
        precision: str = "",
        diverged: bool = False,
    ) -> None:
        """Restore a snapshot, also before a halt, whose last save has to be healthy, and report the escalation."""
        self.wish, self._diverging = "", False
        trained = self.trained
        if snapshot is not None:
            self._restore_snapshot(snapshot)
        self._tell(
            Escalation(
                level=level,
                reason=reason,
                culprits=culprits,
                step=self.counts.applied,
                to_step=None if snapshot is None else snapshot.step,
                lr_factor=self.lr_backoff.factor,
                precision=precision,
                lost=0 if snapshot is None else trained - snapshot.trained,
                damage=damage,
                diverged=diverged,
            )
        )

    def _restore_snapshot(self, snapshot: Snapshot) -> None:
        self._abandon_window()
        self.state.restore(snapshot.tensors, snapshot.plain, schedules=False)
        if self.state.memory is not None:
            self.state.memory.restore(snapshot.memory)
        self._resync()
        self.divergence.load_state_dict(snapshot.plain["guard"]["divergence"])
        self.divergence.reset_streaks()
        self.evidence.drop()
        self.ring.drop_newer_than(snapshot)
        self._tries = self._tries + 1 if snapshot is self._target else 1
        self._target = snapshot
        self._mark = self.counts.applied
        self._undone = self.counts.applied - snapshot.trained
        if not len(self.ring):  # all were newer; there has to be one
            self._take(self.state.live())

    def _repair_ema(self, finding: AuditFinding) -> None:
        assert self.ring.newest is not None
        self._tell(self._repair(finding, self.ring.newest, self.counts.applied, self.lr_backoff.factor))

    def _take(self, live: Any) -> None:
        snapshot = self.ring.take(self.counts.applied, live)
        snapshot.trained = self.trained
        snapshot.trusted = not self.evidence.doubts(self.divergence)
        if snapshot.trusted:
            self.evidence.follow(self.divergence, snapshot.step, live)
        self._mark = self.counts.applied
        self._tries = 0

    def _no_setbacks(self) -> Setbacks:
        return Setbacks(self.config.snapshot_every or 1, 2 * self.config.patience)

    def _tell(self, escalation: Escalation) -> None:
        if self._on_escalation is not None:
            self._on_escalation(escalation)
