"""Going back: snapshots of healthy states, the audit that says what is healthy, and the ladder that uses them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import nn

from .audit import Audit, Finding
from .config import GuardConfig
from .decision import Decision
from .divergence import Divergence
from .ladder import Brake, Climb, Rung, next_rung
from .limits import Counts, halted, limit_passed
from .ranks import any_rank, lowest, shared
from .snapshot import Snapshot, SnapshotRing
from .state import TrainingState


class Recovery:
    """Keeps healthy states, and puts one back when rejecting batches is not enough.

    With several ranks, all have to go back together. One that finds something wrong with itself cannot say so without a
    collective, which the others do not expect; it makes its next gradients NaN. Then all reject the window, and only then ask
    each other.

    Args:
        state: What is kept.
        config: ``snapshot_every`` is not None.
        counts: The guard's counters; history, which is never put back.
        abandon_window: Drops what is under way before another state is put back.
        resync: Makes the guard look at the state that was put back.
        lower_precision: Switches to the next safer precision and returns its name, or None when there is none.
        on_climb: Told of every climb, after it was carried out.
    """

    def __init__(
        self,
        state: TrainingState,
        config: GuardConfig,
        counts: Counts,
        *,
        abandon_window: Callable[[], None],
        resync: Callable[[], None],
        lower_precision: Callable[[], str | None] | None = None,
        on_climb: Callable[[Climb], None] | None = None,
    ) -> None:
        self.state, self.config, self.counts = state, config, counts
        self.ring = SnapshotRing(state, config.snapshots, config.snapshot_device)
        self.audit = Audit(config.max_value)
        self.brake = Brake(config.ramp_steps)
        self.divergence = Divergence(config.max_loss_rise, config.max_norm_rise, config.patience)
        self.beyond: tuple[str, ...] = ()
        """Tensors that were beyond ``max_value`` before the first step and are believed therefore."""
        self.wish = ""
        """Why this rank wants all of them to go back; always empty with a single one."""
        self._abandon_window, self._resync = abandon_window, resync
        self._lower_precision, self._on_climb = lower_precision, on_climb
        self._target: Snapshot | None = None
        self._mark = 0

    def begin(self) -> None:
        """Take the state as it is for healthy and keep it.

        Syncs: two per device and dtype.
        """
        self.state.resync()
        self.ring.clear()
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
        if any_rank(bool(self.wish), self._device()):
            self._climb(self.wish or "another rank asks for it", finding.names, diverged=not finding)
        elif why := limit_passed(self.counts, self.config):
            if self.counts.rejected > self.config.max_total:
                raise self.halt(why, last)
            seen = f"{why}; last seen: {last.reason}"
            if self._climb(seen, last.culprits, diverged=True).rung is Rung.HALT:
                raise halted(self.counts, self.config, why, last)

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
        why = self.divergence.add(loss, norm)
        if why and shared():
            self.wish = why
            return ""
        if why and self._climb(why, (), diverged=True).rung is Rung.HALT:
            raise halted(self.counts, self.config, why, None)
        return why

    def settle(self) -> None:
        """Keep the state when it is time to and it is healthy; put it right when it is not.

        Raises:
            TrainingHaltedError: Nothing is left to try.

        Syncs: one per device and dtype, when it is time.
        """
        if self.counts.applied - self._mark >= (self.config.snapshot_every or 1):
            live = self.state.live()
            if self._put_right(self.audit.inspect(live)) and not self.divergence.suspicious:
                self._take(live)

    def inspect(self) -> bool:
        """Look at the state now, and put it right when it is not healthy.

        Returns:
            Whether it is healthy now. With several ranks it may have to wait for the next window.

        Raises:
            TrainingHaltedError: Nothing is left to try.

        Syncs: one per device and dtype.
        """
        return self._put_right(self.audit.inspect(self.state.live())) or not self.audit.inspect(self.state.live())

    def out_of_memory(self) -> None:
        """Free the device's memory."""
        self.ring.move_to_host()

    def halt(self, why: str, last: Decision | None) -> Exception:
        """Put the newest snapshot back, so that what is saved at the end is healthy, and return the error that ends the run."""
        newest = self.ring.newest
        if newest is not None:
            self._put_back(newest)
        self._tell(Climb(rung=Rung.HALT, reason=why, step=self.counts.applied, to_step=newest and newest.step))
        return halted(self.counts, self.config, why, last)

    def state_dict(self) -> dict[str, Any]:
        """Return what belongs to a resumed run: the brake and the levels of the divergence rule."""
        return {"brake": self.brake.to_dict(), "divergence": self.divergence.state_dict()}

    def load_state_dict(self, values: dict[str, Any]) -> None:
        """Go on with what :meth:`state_dict` returned; the length of the ramp is that of the settings."""
        self.brake = Brake(**{**values["brake"], "ramp_steps": self.config.ramp_steps})
        self.divergence.load_state_dict(values["divergence"])

    # ---- the ladder ----------------------------------------------------------------------------------------------------

    def _put_right(self, finding: Finding) -> bool:
        """Return True when there was nothing to do."""
        if not finding:
            return True
        if finding.ema_only:
            self._repair_ema(finding)
        elif shared():
            self.wish = f"the training state is not healthy: {finding.reason}"
        else:
            why = f"the training state is not healthy: {finding.reason}"
            if self._climb(why, finding.names, diverged=False).rung is Rung.HALT:
                raise halted(self.counts, self.config, why, None)
        return False

    def _climb(self, reason: str, culprits: tuple[str, ...], *, diverged: bool) -> Climb:
        """Take the next rung and carry it out; the halt is the caller's.

        Args:
            reason: Why.
            culprits: Tensors at fault, if known.
            diverged: Whether training itself went astray; not, when a number in the state was ruined.
        """
        self.wish = ""
        snapshot = self._choose()
        used_up = self.brake.rollbacks >= self.config.max_rollbacks
        may_lower = used_up and self.config.lower_precision and self._lower_precision is not None
        lowered = self._lower_precision() if may_lower and self._lower_precision is not None else None
        rung = next_rung(
            self.brake.rollbacks, self.config, has_snapshot=snapshot is not None, can_lower=lowered is not None
        )
        if snapshot is not None:  # also before a halt: what is saved then is healthy
            self._put_back(snapshot)
        if rung is Rung.LOWER_PRECISION:
            self.brake.rollbacks = 0
        if rung is not Rung.HALT:
            self.brake.rolled_back(diverged=diverged)
            self.counts.rollbacks += 1
            self.counts.consecutive = 0
        climb = Climb(
            rung=rung,
            reason=reason,
            culprits=culprits,
            step=self.counts.applied,
            to_step=None if snapshot is None else snapshot.step,
            lr_factor=self.brake.factor,
            precision=lowered or "",
        )
        self._tell(climb)
        return climb

    def _choose(self) -> Snapshot | None:
        """Return the newest snapshot; an older one when nothing was learned since it was put back the last time."""
        newest = self.ring.newest
        if newest is None:
            return None
        again = newest is self._target and self.brake.calm < (self.config.snapshot_every or 1)
        return self.ring.at_or_before(lowest(newest.step - again, self._device()))

    def _put_back(self, snapshot: Snapshot) -> None:
        self._abandon_window()
        self.state.restore(snapshot.tensors, snapshot.plain, schedules=False)
        self._resync()
        self.divergence.load_state_dict(snapshot.plain["guard"]["divergence"])
        self.divergence.reset_streaks()
        self.ring.drop_newer_than(snapshot)
        self._target = snapshot
        self._mark = self.counts.applied

    def _repair_ema(self, finding: Finding) -> None:
        newest = self.ring.newest
        assert newest is not None
        self.state.restore_ema(newest.tensors, newest.plain)
        step = self.counts.applied
        climb = {"rung": Rung.REPAIR, "reason": finding.reason, "culprits": finding.names}
        self._tell(Climb(**climb, step=step, to_step=newest.step, lr_factor=self.brake.factor))

    def _take(self, live: Any) -> None:
        self.ring.take(self.counts.applied, live)
        self._mark = self.counts.applied

    def _device(self) -> Any:
        parameter: nn.Parameter = next(self.state.model.parameters())
        return parameter.device

    def _tell(self, climb: Climb) -> None:
        if self._on_climb is not None:
            self._on_climb(climb)
