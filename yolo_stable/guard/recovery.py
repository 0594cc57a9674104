"""Recovery: snapshots of healthy states, the audit that says what is healthy, and the ladder that uses them.

The state is audited every ``snapshot_every`` steps and before each validation and save: one fused pass, one read. Only a state
that was found healthy becomes a snapshot, and none is taken while loss or norm are out of line.

A rollback restores parameters, buffers, optimizer, EMA and loss scale. What follows the loop stays: schedules, hyperparameters of
the groups, counters, and the random number generators, since the same numbers drawn again could lead to the same fault for ever.

A rollback costs steps, not learning. The brake halves the learning rate only where training went astray; all else is a setback
(``setbacks.py``). What it was is looked at on this rare path only (``damage.py``): most weights far off are training's doing,
also when they are not finite any more; one weight out of all proportion is a flipped bit, also when it is finite, and the newest
snapshot without it is restored. Rejections past their limit are the batches' doing, until steps taken with the restored state led
there again.

Bounds: a ruined number costs at most ``snapshot_every`` steps; a divergence also the ``patience`` steps in which it shows. The
third time in a row that nothing new was learned from a snapshot, an older one is restored, which loses as many again. A fault
that never goes away halts within ``ladder.most_micro_batches``, with the state of a snapshot. Measured by
``python -m benchmarks.rollbacks``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from ..errors import InvalidCallError
from .audit import Audit, Finding
from .choice import choose, copies
from .config import GuardConfig
from .damage import Damage, all_over, damages, lone_numbers
from .decision import Decision
from .divergence import Divergence
from .evidence import Evidence
from .ladder import Brake, Climb, Rung, next_rung
from .limits import ASTRAY_ADVICE, ROW_ADVICE, RUINED_ADVICE, Counts, Passed, halted, limit_passed
from .milestone import Milestone
from .ranks import Ranks
from .recent import Recent
from .repair import EmaRepair
from .setbacks import Setbacks
from .snapshot import Snapshot, SnapshotRing
from .state import TrainingState
from .witness import Again, Witness

TRIES = 2
"""How often in a row the same snapshot is put back before an older one is."""


class Recovery:
    """Keeps healthy states, and puts one back when rejecting batches is not enough.

    With several ranks, all have to go back together. One that finds something wrong with itself cannot say so without a
    collective, which the others do not expect; it makes its next gradients NaN. Then all reject the window, and only then ask
    each other.

    Args:
        state: What is kept.
        config: ``snapshot_every`` is not None.
        counts: The guard's counters; history, which is never put back.
        recent: The newest windows, likewise.
        abandon_window: Drops what is under way before another state is put back.
        resync: Makes the guard look at the state that was put back.
        lower_precision: Switches to the next safer precision and returns its name, or None when there is none.
        on_climb: Told of every climb, after it was carried out.
        ranks: The other processes that train the model.
        again: Computes the loss of the last micro-batch once more; see :class:`~yolo_stable.guard.StepGuard`.
    """

    def __init__(
        self,
        state: TrainingState,
        config: GuardConfig,
        counts: Counts,
        recent: Recent,
        abandon_window: Callable[[], None],
        resync: Callable[[], None],
        lower_precision: Callable[[], str | None] | None = None,
        on_climb: Callable[[Climb], None] | None = None,
        *,
        ranks: Ranks,
        again: Again | None = None,
    ) -> None:
        self.state, self.config, self.counts, self.recent, self.ranks = state, config, counts, recent, ranks
        self.ring = SnapshotRing(state, copies(config, ranks), config.snapshot_device)
        self.audit = Audit(config.max_value, config.reject_norm if config.max_norm is None else config.max_norm)
        self.brake = Brake(config.ramp_steps)
        self.setbacks = self._no_setbacks()
        self.evidence = Evidence(None if again is None else Witness(state.model, again, ranks, state.memory), config)
        self.divergence = Divergence(config.max_loss_rise, config.max_norm_rise, self.evidence.patience)
        self.keeps_anchor = again is not None and config.max_loss_rise is not None
        """Whether the weights of the lowest loss are kept beside the ring, on the host."""
        self.beyond: tuple[str, ...] = ()
        """Tensors that were beyond ``max_value`` before the first step and are believed therefore."""
        self.milestone = Milestone(state)
        self.wish = ""
        """Why this rank wants all of them to go back; always empty with a single one."""
        self._abandon_window, self._resync = abandon_window, resync
        self._lower_precision, self._on_climb = lower_precision, on_climb
        self._diverging = False
        self._target: Snapshot | None = None
        self._tries = self._mark = self._undone = 0
        self._repair = EmaRepair(state, config.snapshot_every or 1)

    @property
    def trained(self) -> int:
        """Optimizer steps that are in the state: those applied, without those that were undone."""
        return self.counts.applied - self._undone

    def begin(self) -> None:
        """Take the state as it is for healthy and keep it.

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
        """Look whether the batch is to blame, or the state that it met, and climb when it is not the batch.

        With several ranks: only after a window was rejected, which all ranks do together.

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
            self._climb(why, finding.names, diverged=self._diverging, last=last)
        elif passed := limit_passed(self.counts, self.recent, self.config):
            if passed.for_good:
                raise self._halt(passed, last)
            astray = self.setbacks.led_astray(self.counts.applied)
            self._climb(passed.reason, (), diverged=astray, last=last)

    def after_step(self, loss: float | None, norm: float | None) -> str:
        """Judge whether training diverges, after a window was applied, and go back if it does.

        Args:
            loss: Mean loss of the window's micro-batches.
            norm: Norm of its gradients before clipping.

        Returns:
            Why it was undone; empty when it stands.

        Raises:
            TrainingHaltedError: Nothing is left to try.
        """
        self.brake.applied()
        why = self.divergence.add(loss, norm) or self.evidence.hear(self.divergence, self.ring, self.counts.applied)
        if why and self.ranks.shared:
            self.wish, self._diverging = why, True
            return ""
        if why:
            if self.evidence.not_helped:
                self.brake.factor /= 2  # with the half that follows a quarter: a half was not nearly enough
            self._climb(why, (), diverged=True, better=self.evidence.better_in(self.ring))
        return why

    def settle(self) -> None:
        """Keep the state when it is time to and it is healthy; put it right when it is not.

        Not kept is a state of suspicious steps, until it is known whether the data are the reason. Only with several ranks it
        is, marked as such: the loss is each rank's own, and all have to have copies of the same steps.

        Raises:
            TrainingHaltedError: Nothing is left to try.

        Syncs: one per device and dtype, when it is time.
        """
        if self.counts.applied - self._mark < self.setbacks.pace:
            return
        live = self.state.live()
        if self._put_right(self.audit.inspect(live)) and (
            self.ranks.shared or not self.evidence.delays(self.divergence)
        ):
            self._take(live)
            self.setbacks.kept()

    def inspect(self) -> bool:
        """Look at the state now, and put it right when it is not healthy.

        Returns:
            Whether it is healthy now. With several ranks it may have to wait for the next window.

        Raises:
            TrainingHaltedError: Nothing is left to try.

        Syncs: one per device and dtype; twice that when something was wrong.
        """
        finding = self.audit.inspect(self.state.live())
        if finding:
            self._put_right(finding)
            finding = self.audit.inspect(self.state.live())
        return not finding

    def keep_best(self) -> None:
        """Keep the state as it is beside the ring, for :meth:`go_back_to_best`; it has just been validated.

        Syncs: none.
        """
        self.milestone.keep(self.counts.applied, self.trained, self.state.live(), on_host=self.ring.on_host)

    def go_back_to_best(self, why: str) -> bool:
        """Put back what :meth:`keep_best` kept, as a rollback; with a single rank only.

        Returns:
            False when nothing was kept.

        Raises:
            TrainingHaltedError: Nothing is left to try.
        """
        if self.milestone.snapshot is None or self.ranks.shared:
            return False
        self.milestone.collapsed(self.brake)
        self._climb(why, (), diverged=True, to=self.milestone.snapshot)
        return True

    def out_of_memory(self) -> None:
        """Free the device's memory that snapshots of the ring take; that of the best validation stays where it is."""
        self.evidence.drop()
        newest = self.ring.newest
        self.ring.move_to_host()
        self._target = self.ring.newest if self._target is newest else None

    def state_dict(self) -> dict[str, Any]:
        """Return what belongs to a resumed run: the brake and the levels of the divergence rule."""
        return {"brake": self.brake.to_dict(), "divergence": self.divergence.state_dict()}

    def load_state_dict(self, values: Mapping[str, Any]) -> None:
        """Go on with what :meth:`state_dict` returned; the length of the ramp is that of the settings.

        Raises:
            InvalidCallError: It is something else; nothing has been changed.
        """
        brake = Brake(self.config.ramp_steps)
        brake.load(values.get("brake"))
        levels = values.get("divergence")
        try:
            self.divergence.load_state_dict(levels if isinstance(levels, Mapping) else {})
        except (TypeError, ValueError) as error:
            raise InvalidCallError(f"This is not the state of a StepGuard: divergence={levels!r}: {error}.") from error
        if brake.rollbacks >= self.config.max_rollbacks:  # it was halted: who resumes it will have changed something
            brake.rollbacks = 0
        self.brake, self.setbacks = brake, self._no_setbacks()

    # ---- the ladder ----------------------------------------------------------------------------------------------------

    def _put_right(self, finding: Finding) -> bool:
        """Return whether the steps taken so far stand: nothing was wrong, or the averaged model alone."""
        if not finding:
            return True
        if finding.ema_only:
            self._repair_ema(finding)
            return True
        why = f"the training state is not healthy: {finding.reason}"
        if self.ranks.shared:
            self.wish = why
        else:
            self._climb(why, finding.names, diverged=False)
        return False

    def _climb(
        self,
        reason: str,
        ruined: tuple[str, ...],
        *,
        diverged: bool,
        last: Decision | None = None,
        to: Snapshot | None = None,
        better: Snapshot | None = None,
    ) -> None:
        """Take the next rung and carry it out.

        Only a training that went astray brakes. With several ranks all put on the same brake, whichever of them it was, and
        count alike.

        Args:
            reason: Why.
            ruined: Tensors that the audit found at fault.
            diverged: Whether training itself went astray, as far as is known; the state that it has led to may tell otherwise.
            last: The rejection that led here, if one did.
            to: What is put back, in which nothing is ruined; None: a snapshot of the ring.
            better: The one that was found better than the state of now, if it is not the newest.

        Raises:
            TrainingHaltedError: Nothing is left to try; the state is that of a snapshot.
        """
        step = self.counts.applied
        lone = () if ruined or to is not None else self._lone_numbers()
        diverged = self.ranks.any(diverged or self._is_all_over()) and not self.ranks.any(bool(lone))
        culprits = ruined or lone or (() if last is None else last.culprits)
        damage = self._damages(ruined or lone)
        used = self.brake.rollbacks if diverged else self.ranks.highest(self.setbacks.before(damage, step))
        used_up = used >= self.config.max_rollbacks
        may_lower = used_up and self.config.lower_precision and self._lower_precision is not None
        lowered = self._lower_precision() if may_lower and self._lower_precision else None
        known = {"has_snapshot": self.ring.newest is not None, "can_lower": lowered is not None}
        rung = next_rung(used, self.config, **known)
        if rung is Rung.LOWER_PRECISION:
            self.brake.rollbacks = 0
            self.setbacks.forget()
        if rung is not Rung.HALT:
            if diverged:
                self.brake.rolled_back()
            else:
                self.setbacks.add(damage, step)
            # The one whose state was ruined has kept none when the others did: all keep at the same steps from here on.
            self.setbacks.pace = self.ranks.lowest(self.setbacks.pace)
            self.counts.rollbacks += 1
            self.counts.consecutive = 0
        if to is None and not lone:
            to = better
        snapshot = to if to is not None else self._choose(lone, again=rung is not Rung.HALT and self._tries >= TRIES)
        seen = f"{reason}; last seen: {last.reason}" if last is not None else reason
        self._go_back(rung, seen, culprits, damage, snapshot, precision=lowered or "", diverged=diverged)
        if diverged and self._target is not None:
            self.evidence.watch_after(self._target)
        if rung is Rung.HALT:
            advice = ASTRAY_ADVICE if diverged else RUINED_ADVICE if damage else ROW_ADVICE
            found = damage[0] if damage and not diverged else None
            raise halted(self.counts, reason, advice, last, rollbacks=used, damage=found)

    def _halt(self, passed: Passed, last: Decision) -> Exception:
        """Put a snapshot back, so that what is saved at the end is healthy, and return the error that ends the run.

        With several ranks all have to halt together.
        """
        self._go_back(Rung.HALT, passed.reason, last.culprits, (), self._choose((), again=False))
        return halted(self.counts, passed.reason, passed.advice, last)

    def _lone_numbers(self) -> tuple[str, ...]:
        """Return tensors in which a number was ruined that is still finite.

        Held against the oldest snapshot: newer ones may have been taken with that number in them. Once only: when the same
        one is out of all proportion again, it is training that leads there.
        """
        oldest = self.ring.oldest
        found = () if oldest is None else lone_numbers(self.state.live(), oldest.tensors)
        return () if self.setbacks.knows(self._damages(found), self.counts.applied) else found

    def _is_all_over(self) -> bool:
        newest = self.ring.newest
        return newest is not None and all_over(self.state.live(), newest.tensors)

    def _damages(self, culprits: tuple[str, ...]) -> tuple[Damage, ...]:
        newest = self.ring.newest
        return damages(self.state.live(), culprits, None if newest is None else newest.tensors)

    def _choose(self, lone: tuple[str, ...], *, again: bool) -> Snapshot | None:
        """Return what is put back: the newest snapshot without lone numbers, or when it led nowhere an older one."""
        newest, oldest = self.ring.newest, self.ring.oldest
        if newest is None or oldest is None:
            return choose(self.ring, -1, self.ranks)
        step = newest.step - (again and newest is self._target)
        if lone:
            clean = [s.step for s in self.ring if not set(lone) & set(lone_numbers(s.tensors, oldest.tensors))]
            step = min(step, max(clean))  # the oldest one is always among them
        return choose(self.ring, step, self.ranks)

    def _go_back(
        self,
        rung: Rung,
        reason: str,
        culprits: tuple[str, ...],
        damage: tuple[Damage, ...],
        snapshot: Snapshot | None,
        *,
        precision: str = "",
        diverged: bool = False,
    ) -> None:
        """Put a snapshot back, also before a halt, as what is saved then is to be healthy, and tell of it."""
        self.wish, self._diverging = "", False
        trained = self.trained
        if snapshot is not None:
            self._put_back(snapshot)
        self._tell(
            Climb(
                rung=rung,
                reason=reason,
                culprits=culprits,
                step=self.counts.applied,
                to_step=None if snapshot is None else snapshot.step,
                lr_factor=self.brake.factor,
                precision=precision,
                lost=0 if snapshot is None else trained - snapshot.trained,
                damage=damage,
                diverged=diverged,
            )
        )

    def _put_back(self, snapshot: Snapshot) -> None:
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
        if not len(self.ring):  # all were younger; there has to be one
            self._take(self.state.live())

    def _repair_ema(self, finding: Finding) -> None:
        assert self.ring.newest is not None
        self._tell(self._repair(finding, self.ring.newest, self.counts.applied, self.brake.factor))

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

    def _tell(self, climb: Climb) -> None:
        if self._on_climb is not None:
            self._on_climb(climb)
