"""Cause of a rejection: pure rules from evidence to cause."""

from __future__ import annotations

from dataclasses import dataclass

DATA, WEIGHTS, OPTIMISATION, PRECISION = "data", "weights", "optimisation", "precision"
TRANSIENT, PERSISTENT, UNDECIDED = "hardware transient", "hardware persistent", "undecided"
CAUSES = (DATA, WEIGHTS, OPTIMISATION, PRECISION, TRANSIENT, PERSISTENT, UNDECIDED)


@dataclass(frozen=True, kw_only=True, slots=True)
class AutopsyEvidence:
    """What the rules use; None: not asked, or not known."""

    error: str = ""
    """What the autopsy or the replay raised."""
    out_of_time: bool = False
    out_of_memory: bool = False
    reproduced: bool = False
    """A replay was sick in the same way as the training."""
    sick_otherwise: bool = False
    """A replay was sick in another way."""
    healthy_replays: int = 0
    labels: str = ""
    """What is wrong with labels; may be empty."""
    pixels: str = ""
    """What is wrong with pixels; may be empty."""
    weights: str = ""
    """What was wrong with parameters or buffers before the batch; may be empty."""
    memory: str = ""
    """The loss's own non-finite number, if the batch is healthy with another one in its place."""
    widespread: bool = False
    """The weights are absurd everywhere, not in one place."""
    half: bool = False
    """The operation used float16 or bfloat16."""
    wide: str = ""
    """The operation's result in float64 on the CPU, as ``Break.wide``."""
    sick_again: bool | None = None
    """Whether a second replay was sick like the first."""
    healthy_in_float32: bool | None = None
    healthy_in_float64: bool | None = None
    healthy_on_reference: bool | None = None
    """The same batch on another device, in the same precision."""
    healthy_on_snapshot: bool | None = None
    """The same samples on earlier weights."""
    healthy_on_fresh: bool | None = None
    """The same samples on freshly initialised weights."""
    every: bool = False
    """Every tried image breaks this state."""
    together: bool = False
    """No image breaks it alone."""
    fickle: str = ""
    """How replays of the same batch on the same state differ; empty if they agree, or were not compared."""
    diverged: bool = False
    """Only the size of the loss is sick."""


@dataclass(frozen=True, slots=True)
class Judgement:
    """A cause, and why."""

    cause: str
    why: str
    """In words, for people."""


def judge(evidence: AutopsyEvidence) -> Judgement:
    """Return the cause that the evidence supports.

    Observations come before conclusions: labels, pixels, weights; then whether it happens again; then which precision, device or
    state it needs.

    Examples:
        >>> judge(AutopsyEvidence(reproduced=True, pixels="NaN pixels")).cause
        'data'
        >>> judge(AutopsyEvidence(healthy_replays=2))
        Judgement(cause='hardware transient', why='the same batch on the same weights was healthy 2 times')
        >>> judge(AutopsyEvidence(reproduced=True, healthy_on_snapshot=True)).cause
        'optimisation'
    """
    return _seen(evidence) or _rerun(evidence) or _concluded(evidence)


def _seen(e: AutopsyEvidence) -> Judgement | None:
    if e.labels:
        return Judgement(DATA, e.labels)
    if e.pixels:
        return Judgement(DATA, e.pixels)
    if e.weights and e.widespread:
        return Judgement(OPTIMISATION, f"{e.weights}: the weights have run away together")
    if e.weights:
        return Judgement(WEIGHTS, f"{e.weights} before the batch came")
    return None


def _rerun(e: AutopsyEvidence) -> Judgement | None:
    if e.out_of_memory:
        return Judgement(UNDECIDED, "not enough memory for a replay")
    if e.error:
        return Judgement(UNDECIDED, f"the replay ended with {e.error}")
    if e.diverged:
        if e.healthy_on_snapshot:
            return Judgement(OPTIMISATION, "all numbers are finite, and the loss is ordinary on the snapshot's weights")
        return Judgement(UNDECIDED, "all numbers are finite and ordinary")
    if not e.reproduced:
        if e.sick_otherwise:
            return Judgement(UNDECIDED, "the replay broke in another way than training did")
        if e.fickle:
            return Judgement(UNDECIDED, f"not reproducible: {e.fickle}")
        if e.healthy_replays >= 2:
            return Judgement(TRANSIENT, f"the same batch on the same weights was healthy {e.healthy_replays} times")
        return Judgement(UNDECIDED, "the time was up" if e.out_of_time else "it could not be replayed")
    return None


def _concluded(e: AutopsyEvidence) -> Judgement:
    if e.fickle:
        return Judgement(UNDECIDED, f"not reproducible: {e.fickle}")
    if e.memory:
        return Judgement(WEIGHTS, f"{e.memory} before the batch came, and with another number there all is healthy")
    if e.half and e.healthy_in_float32:
        return Judgement(PRECISION, "healthy in float32")
    if e.wide == "finite":
        if e.sick_again is False:
            return Judgement(TRANSIENT, "the operation gives a finite result on the CPU, and the rerun was healthy")
        if e.sick_again:
            return Judgement(PERSISTENT, "the operation gives a finite result on the CPU, and the rerun broke again")
    if e.healthy_on_reference:
        return Judgement(PERSISTENT, "the same batch is healthy on the reference device in the same precision")
    if e.healthy_on_snapshot or (e.healthy_on_snapshot is None and e.healthy_on_fresh):
        on = "the snapshot's weights" if e.healthy_on_snapshot else "fresh weights (there was no snapshot)"
        what = "every image breaks this state" if e.every else "finite, ordinary numbers break this state"
        return Judgement(OPTIMISATION, f"{what}, and all is healthy on {on}")
    if e.healthy_in_float64 and e.wide != "overflow":  # what overflows in float32 is absurd in any precision
        return Judgement(PRECISION, "healthy in float64")
    if e.every:
        return Judgement(
            UNDECIDED, "every image breaks it, and no healthy weights were found: the network, its loss or the device"
        )
    if e.together:
        return Judgement(
            UNDECIDED, "no image breaks it alone, and no healthy weights were found: the network or its loss"
        )
    if e.healthy_on_snapshot is False:
        return Judgement(DATA, "it breaks on the snapshot's weights as well")
    if e.healthy_on_fresh is False:
        return Judgement(DATA, "it breaks on fresh weights as well (there was no snapshot)")
    return Judgement(UNDECIDED, "the time was up" if e.out_of_time else "batch and weights are finite and ordinary")
