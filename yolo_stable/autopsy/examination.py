"""Examination: the steps of an autopsy, each of which adds evidence."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

from ..guard.untouched import untouched
from .case import AutopsyCase
from .culprits import Culprit, Culprits
from .finding import Break, Location, shortened
from .inspection import bad_pixels, sick_weights
from .locate import OnBreak, locate_call
from .loss_memory import mend
from .replay import Replayer, ReplayOutcome, error_in_words, is_out_of_memory
from .steadiness import fickle
from .suspects import SearchResult
from .symptom import Symptom, agree, same_bits, signs_of
from .twin import other_weights

HALVES = ("float16", "bfloat16")


class Examination:
    """One autopsy.

    Args:
        cases: The micro-batches, oldest first.
        seen: What training saw.
        provenance: One per image of all of them, or nothing.
        healthy_state: Earlier weights, or None.
        player: Replays cases.
        reference: The same batch on another device, or None.
        frugal: Replay nothing that needs more memory than the batch.
    """

    def __init__(
        self,
        cases: list[AutopsyCase],
        seen: Symptom,
        provenance: Sequence[Any],
        healthy_state: Mapping[str, Tensor] | None,
        player: Replayer,
        reference: AutopsyCase | None,
        *,
        frugal: bool = False,
    ) -> None:
        self.cases, self.seen, self.provenance, self.player = cases, seen, provenance, player
        self.healthy_state, self.reference, self.frugal = healthy_state, reference, frugal
        self.known: dict[str, Any] = {}
        """Fields of `AutopsyEvidence`."""
        self.facts: dict[str, Any] = {}
        self.location: Location | None = None
        self.culprits: tuple[Culprit, ...] = ()
        self.what = ""
        """What the culprits did, for the first line."""
        self.bitwise = False
        self.turn_to(0)

    def turn_to(self, number: int) -> None:
        """Examine this micro-batch from here on."""
        self.case = self.cases[number]
        start = sum(case.size for case in self.cases[:number])
        own = self.provenance[start : start + self.case.size]
        self.names = Culprits(self.case, own, self.player)
        self.micro_batch = number

    def run(self, frames: int, on_break: OnBreak | None) -> None:
        """Take all steps, and stop once the cause is plain."""
        if self._labels_are_unusable() or self._state_is_known():
            return
        self._choose_micro_batch()
        self._look()
        if not self._trace(frames, on_break):
            return
        if not (self.known.get("pixels") or self.known.get("weights") or self._suspicious_labels()):
            self._conclude()

    # ---- without running anything ----------------------------------------------------------------------------------------

    def _labels_are_unusable(self) -> bool:
        """Blame labels that no forward pass can use: replaying them could crash the device."""
        for number, case in enumerate(self.cases):
            wrong = {
                row: what
                for row, what in case.label_faults().items()
                if self.seen.fault or "class" in what or "image" in what
            }
            rows = tuple(wrong) or (self.seen.rows if len(self.cases) == 1 else ())
            if wrong or (self.seen.fault and number == len(self.cases) - 1):
                self.turn_to(number)
                self._blame_labels(rows, self.seen.fault or ", ".join(dict.fromkeys(wrong.values())))
                self.known["reproduced"] = bool(wrong)
                return True
        return False

    def _blame_labels(self, rows: Sequence[int], fault: str) -> None:
        self.culprits = self.names.by_labels(rows)
        self.known["labels"] = fault if "label" in fault or "target" in fault else f"label {fault}"
        self.what = f"has a label that no loss can use ({fault})"

    def _state_is_known(self) -> bool:
        """Blame a non-finite or absurd number that an audit found."""
        if self.seen.kind != "state" or not self.seen.culprits:
            return False
        found = sick_weights(self.case.model)
        self.known.update(weights=str(found) or f"not finite: {', '.join(self.seen.culprits)}")
        self.known.update(widespread=found.widespread and not found.not_finite, reproduced=bool(found))
        self.facts["culprits"] = shortened(self.seen.culprits)
        self.what = "holds numbers that no training can use"
        return True

    def _choose_micro_batch(self) -> None:
        """Turn to the micro-batch of a window that breaks, found by its pixels or by replaying each."""
        if len(self.cases) == 1:
            return
        order = sorted(range(len(self.cases)), key=lambda n: (not bad_pixels(self.cases[n]), self.cases[n].size, n))
        for number in order:
            if bad_pixels(self.cases[number]) or self.player.sick(self.cases[number], backward=True):
                self.turn_to(number)
                self.facts["micro_batch"] = number
                return
        self.turn_to(len(self.cases) - 1)

    def _look(self) -> None:
        pixels, weights = bad_pixels(self.case), sick_weights(self.case.model)
        if pixels:
            self.known["pixels"] = pixels[0].what
            self.what = f"has {pixels[0].what}"
            self.facts["pixels"] = [
                f"sample {bad.sample}: {bad.count} {bad.what}, the first at {list(bad.first)}" for bad in pixels
            ]
            self.culprits = self.names.by_pixels(pixels)
        elif weights:
            self.known["weights"] = str(weights)
            self.known["widespread"] = weights.widespread and not weights.not_finite
            self.what = "computed with weights that no training can use"

    # ---- the replay ------------------------------------------------------------------------------------------------------

    def _trace(self, frames: int, on_break: OnBreak | None) -> bool:
        """Replay the batch with the tracer; False when there is nothing more to find."""
        if self.player.deadline.over():
            return False
        seen, case = self.seen, self.case
        signs = seen.signs
        backward = seen.backward or not signs & {"loss", "buffers", "jump"} or "gradients" in seen.digests
        scale = seen.scale if backward else 1.0

        def call() -> tuple[Tensor, Mapping[str, Any]]:
            loss, items = case.call()
            return (loss * scale if scale != 1.0 else loss), items

        self.player.replays += 1
        try:
            location = locate_call(
                case.model,
                call,
                inputs=case.batch,
                backward=backward,
                seconds=self.player.deadline.left,
                frames=frames,
                on_break=on_break,
            )
        except Exception as error:
            if is_out_of_memory(error):
                raise
            # Whatever else the network raises, the earlier evidence counts.
            self.known["error"] = self.facts["error"] = error_in_words(error)
            return False
        self.location = location
        if location.truncated:
            self.player.deadline.met = True
        loss = None if location.loss is None else location.loss / scale
        digests = {key: value for key, value in location.digests.items() if key != "loss" or scale == 1.0}
        self.bitwise = same_bits(seen, loss, location.items, digests)
        self.facts.update(location.facts(), loss=loss)
        found = signs_of(
            loss,
            location.items,
            buffers=location.bad_buffers,
            gradients=location.bad_gradients,
            nan_only=self.player.nan_only,
        )
        if location.error:
            found |= signs or {"loss"}
        return self._is_reproduced(found)

    def _is_reproduced(self, found: frozenset[str]) -> bool:
        """Say whether the fault came again; if the trace is healthy, a plain replay decides."""
        seen = self.seen
        if agree(seen.signs, found):
            self.known["reproduced"] = True
            return True
        if seen.kind == "state" and not seen.signs and not found:
            self.known["diverged"] = True
            return self._compare_with_snapshot()
        again = self.player.play(self.case, backward=seen.backward or not seen.signs)
        if not found and again.sick is False and self.bitwise and seen.signs and seen.signs <= {"buffers", "jump"}:
            # The same loss bit for bit, and healthy statistics: this batch did not write those that training saw.
            names = ", ".join(shortened(seen.culprits))
            self.known["weights"] = f"running statistics were not as training leaves them: {names}"
            self.what = "met running statistics that no training can use"
            return False
        if again.norm is not None:
            self.facts["norm"] = again.norm
        self.known["reproduced"] = bool(again.sick) and agree(seen.signs, again.signs)
        self.known["sick_otherwise"] = bool(found or again.signs)
        self.known["healthy_replays"] = (not found) + (again.sick is False)
        if not self.known["reproduced"]:
            self.known["fickle"] = fickle(self.case, self.player, sick=False)
        return self.known["reproduced"]

    def _compare_with_snapshot(self) -> bool:
        if self.healthy_state is not None and self.location is not None and self.location.loss is not None:
            before = self.player.play(self.case, model=other_weights(self.case.model, self.healthy_state))
            if before.loss is not None:
                self.facts["loss_on_snapshot"] = before.loss
                self.known["healthy_on_snapshot"] = before.loss < 0.5 * self.location.loss
        return False

    def _suspicious_labels(self) -> bool:
        """Blame usable but suspicious labels if the batch is healthy without them."""
        wrong = self.case.label_faults()
        if not wrong:
            return False
        lesser = self.case.without_labels(wrong)
        if lesser is not self.case and self.player.sick(lesser) is not False:
            return False
        self._blame_labels(tuple(wrong), ", ".join(dict.fromkeys(wrong.values())))
        return True

    # ---- what must be concluded ------------------------------------------------------------------------------------------

    def _memory_is_ruined(self) -> bool:
        """Blame a non-finite number that the loss keeps, if the batch is healthy with another one in its place.

        Such a number may also mean "not yet", like a smallest loss that begins at infinity.
        """
        names, healthy = self._healthy_with("")
        if not healthy:
            return False
        alone = [name for name in names if len(names) > 1 and self._healthy_with(name)[1]]
        names = tuple(alone) or names
        which = ", ".join(f"`{name}`" for name in shortened(names))
        self.known["memory"] = f"the loss's {which} was not finite"
        self.what = f"met a loss whose {which} was not finite"
        return True

    def _healthy_with(self, only: str) -> tuple[tuple[str, ...], bool]:
        with untouched(self.case.model):
            names = mend(self.case.model, only)
            return names, bool(names) and self.player.sick(self.case, backward=self.seen.backward) is False

    def _conclude(self) -> None:
        if self._memory_is_ruined():
            return
        first = self.location.first if self.location is not None else None
        half = first is not None and any(kind in HALVES for kind in (first.dtype, *(r.dtype for r in first.inputs)))
        self.known.update(half=half, wide="" if first is None else first.wide)
        if half:
            self.known["healthy_in_float32"] = _healthy(self.player.play(self.case, precision="float32"))
        if first is not None and first.wide == "finite" and not self.known.get("healthy_in_float32"):
            self.known["sick_again"] = self.player.sick(self.case)
            return
        self.known["fickle"] = fickle(self.case, self.player, sick=True)
        if self.known["fickle"]:  # chance would pick an image
            return
        if self.reference is not None:
            self.known["healthy_on_reference"] = _healthy(self.player.play(self.reference))
            if self.known["healthy_on_reference"]:
                return
        rows = first.rows if first is not None and first.shape[:1] == (self.case.size,) else ()
        finding, self.culprits = self.names.by_replay(rows, labels=_labels_matter(first))
        self.known.update(every=finding.every, together=not finding.alone)
        self._describe(finding)
        if not self.known.get("healthy_in_float32"):
            self._try_other_weights(self.names.smallest(finding))

    def _describe(self, finding: SearchResult) -> None:
        if finding.every:
            self.facts["samples"] = "every image that was tried breaks it alone"
        elif not finding.alone:
            self.facts["samples"] = "no image breaks it alone: it takes the batch together"
        elif finding.rest_is_healthy is False:
            self.facts["samples"] = "there are more than these"

    def _try_other_weights(self, suspect: AutopsyCase) -> None:
        """Try what breaks this state on other weights, and in float64."""
        key = "healthy_on_fresh" if self.healthy_state is None else "healthy_on_snapshot"
        self.known[key] = _healthy(self.player.play(suspect, model=other_weights(suspect.model, self.healthy_state)))
        first = self.location.first if self.location is not None else None
        # An infinity from finite numbers is an overflow, even if the operation could not be recomputed.
        overflow = first is not None and (first.wide == "overflow" or (not first.wide and first.value != "nan"))
        if not self.known[key] and not self.known["half"] and not overflow and self._has_room(suspect):
            self.known["healthy_in_float64"] = _healthy(self.player.play(suspect, precision="float64"))

    def _has_room(self, suspect: AutopsyCase) -> bool:
        """Say whether a backward pass in float64, twice as wide, weights included, needs no more memory than the batch."""
        offloaded = suspect.images.device.type != "cpu"
        return not (self.frugal and self.seen.backward) or offloaded or 4 * suspect.size <= self.case.size


def _healthy(outcome: ReplayOutcome) -> bool | None:
    return None if outcome.sick is None else not outcome.sick


def _labels_matter(first: Break | None) -> bool:
    """Say whether labels can cause a break: not if it happened in a module, before any loss."""
    if first is None or first.phase == "loss":
        return True
    return first.phase == "backward" and (not first.module or first.module.startswith(("<", "criterion")))
