"""Loss scale: backs off as torch does, and returns when the scale was not the cause.

A micro-batch whose loss is not finite never reaches the scaler. A window whose gradients are not finite although every loss was
may have overflowed because of the scale: the scale backs off, never below ``guard.min_scale``. A finite but absurd norm leaves
the scale alone: unscaled, it would be the same at any scale. Healthy windows read nothing for this. ``StepGuard.state_dict()``
has the policy's numbers.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from ..errors import InvalidCallError
from .setting_checks import is_count, is_state

TRIES = 3
"""Times in a row that the scale settles one back-off lower before the proven scale is tried again: after non-finite windows at
all of these, the scale was not the cause."""
LARGEST_DROP = 2.0**-8
"""Least part of a restored scale that one overflow leaves, however far the streak before went: after 100,000 bad windows and a
clean one, a single bad one must not leave the scale at its floor."""


class LossScale:
    """Decides a GradScaler's scale after each window.

    A *streak* is windows in a row whose gradients were not finite. In a streak the scale backs off as in torch, to a floor. A
    scale is *proven* once a window was applied at it: torch's growth tracker is above zero, or the scale has grown since. After
    a streak:

    - Nothing is proven, as when a new scaler looks for its scale, or the proven scale is reached again, as when growth went too
      far: exactly torch.
    - Otherwise the first applied window restores the proven scale. An overflow before anything was applied at it refutes it: the
      scale goes to the one that worked, in one window, and stays.
    - A scale that overflows now and then is the usual end of growth in float16; restoring it each time would lose every such
      window. If torch has not raised a restored scale before the next streak, that streak restores one back-off less; a scale
      that lasts until torch raises it is kept. If :data:`TRIES` such steps do not help, the scale was not the cause, and the
      proven one is tried again.

    Args:
        floor: The scale never backs off below this, > 0.
    """

    def __init__(self, floor: float) -> None:
        self.floor = float(floor)  # update() takes no whole numbers
        self._forget()

    def applied(self, scaler: torch.amp.GradScaler) -> None:
        """Update the scaler after an applied window; restore the scale when a streak has ended.

        Args:
            scaler: Enabled, and told that it found nothing that is not finite.

        Syncs: none, but one (reads the scale) after a streak.
        """
        scaler.update()
        if not self._streak:
            self._applied += 1
            self._fallback = 0.0  # a window was applied at the restored scale
            return
        self._streak = False
        scale = scaler.get_scale()
        if not (_same(scale, self._left) or _same(scale, self._left * scaler.get_growth_factor())):
            self._forget()  # someone has set it: nothing to restore
            return
        if self._goal > scale and not _same(self._goal, scale):
            scaler.update(new_scale=self._goal)  # leaves the growth tracker at this one window
            self._applied, self._fallback, self._left = 0, self._left, self._goal
        else:
            self._applied, self._left = 1, scale

    def rejected(self, scaler: torch.amp.GradScaler, *, overflowed: bool) -> str:
        """Update the scaler after a rejected window; back off only if the scale can be the cause.

        Args:
            scaler: Enabled, and told what it found.
            overflowed: Whether any gradient is not finite.

        Returns:
            The change of the scale, to be appended to a reason; empty without one.

        Syncs: a few (reads the scale and the growth tracker).
        """
        before = scaler.get_scale()
        if not overflowed:  # finite but absurd: unscaled gradients would be the same at any scale
            scaler.update(new_scale=before)
            return ""
        growths = self._growths(scaler, before)
        if growths is None:
            self._forget()
        refuted = not self._streak and self._fallback > 0.0
        if not self._streak:
            self._begin(scaler, before, bool(growths))
        scaler.update()
        after = scaler.get_scale()
        # Not lower, the overflow is in a parameter that only the model knows, not the scaler.
        lowered = after if after < before else before * scaler.get_backoff_factor()
        lowered = max(self._goal if refuted else lowered, self.floor)
        if lowered != after:
            scaler.update(new_scale=lowered)
        self._streak, self._applied, self._fallback, self._left = True, 0, 0.0, lowered
        return f", loss scale {before:g} -> {lowered:g}"

    def _begin(self, scaler: torch.amp.GradScaler, scale: float, grown: bool) -> None:
        """Decide which scale to restore after the streak that begins at ``scale``."""
        if self._fallback:
            self._goal, self._tries = max(self._fallback, scale * LARGEST_DROP), TRIES
        elif self._top and not grown:
            if self._tries:
                self._goal, self._tries = self._goal * scaler.get_backoff_factor(), self._tries - 1
            else:
                self._goal, self._tries = self._top, TRIES
        else:
            tracker = scaler.state_dict()["_growth_tracker"]
            proven = scale if tracker > 0 else scale / scaler.get_growth_factor() if grown else 0.0
            self._top, self._goal, self._tries = proven, proven, TRIES

    def _growths(self, scaler: torch.amp.GradScaler, scale: float) -> int | None:
        """Return how often torch has raised the scale since; None when someone else has set it."""
        left = self._left or getattr(scaler, "_init_scale", 0.0)  # also what load_state_dict() of a scaler sets
        if _same(scale, left):
            return 0
        if not (0.0 < left < scale < math.inf):
            return None
        factor = scaler.get_growth_factor()
        growths = round(math.log(scale / left, factor))
        in_time = self._applied > (growths - 1) * scaler.get_growth_interval()
        return growths if growths > 0 and in_time and _same(scale, left * factor**growths) else None

    def _forget(self) -> None:
        self._top = self._goal = self._fallback = self._left = 0.0
        self._tries = self._applied = 0
        self._streak = False

    # ---- saving ----------------------------------------------------------------------------------------------------------

    def state_dict(self) -> dict[str, float | int]:
        """Return the policy's numbers; they belong to the scaler's own state of the same moment.

        ``top``, ``goal``, ``fallback``, ``left`` are scales, 0 for none: the proven one, the one to restore after the streak,
        the one that worked before, the one last set. ``tries`` are left before ``top`` is tried again, ``applied`` are windows
        since the scale was set, ``streak`` is 1 within a streak.
        """
        return {
            "top": self._top,
            "goal": self._goal,
            "fallback": self._fallback,
            "left": self._left,
            "tries": self._tries,
            "applied": self._applied,
            "streak": int(self._streak),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from what :meth:`state_dict` returned.

        Raises:
            InvalidCallError: ``state`` is not that; nothing is changed then.
        """
        valid = self.state_dict()
        counts = dict.fromkeys(("tries", "applied", "streak"), is_count)
        if not is_state(state, {**dict.fromkeys(valid, _is_scale), **counts}):
            raise InvalidCallError(
                f"This is not the state of a loss scale: {state!r}. It must have finite numbers of 0 or more named"
                f" {', '.join(valid)}."
            )
        self._top, self._goal, self._fallback, self._left = (
            float(state[name]) for name in ("top", "goal", "fallback", "left")
        )
        self._tries, self._applied, self._streak = state["tries"], state["applied"], bool(state["streak"])


def scale_of(scaler: torch.amp.GradScaler, like: Tensor) -> Tensor:
    """Return the scale of the gradients, with the device and dtype of ``like``, without a read."""
    scale = scaler._get_scale_async()
    assert scale is not None  # made by the first scaled loss, and there are gradients
    return scale.to(like)


def _is_scale(value: Any) -> bool:
    return type(value) in (int, float) and 0 <= value < math.inf


def _same(a: float, b: float) -> bool:
    """Return whether two scales are equal; torch keeps them in float32."""
    return math.isclose(a, b, rel_tol=1e-5)
