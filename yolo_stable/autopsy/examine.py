"""Autopsy of one rejected batch: replays it and names what broke, who broke it and why.

It collects evidence in the order of cost: labels, pixels and weights; one traced replay; samples, as the break shows them or by
bisection, then tiles, then label rows; other precisions and other weights. ``cause.judge`` is a pure function of the evidence.
Each replay is inside `untouched`.

During a run, an autopsy begins once the activations of the rejected batch are free (``guard/graph.py``). It holds nothing in
cycles, keeps wider precisions from saving more than the batch did (``frugal``), and ends undecided when memory runs out
(``python -m benchmarks.rejections``).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from torch import Tensor

from .._shared.strict_json import strict
from ..guard.decision import NO_GRADIENT
from ..guard.reductions import try_out
from .advice import CONSTANT, next_step
from .case import AutopsyCase
from .cause import DATA, WEIGHTS, AutopsyEvidence, judge
from .examination import Examination
from .finding import Location
from .inspection import module_of, sick_weights
from .locate import OnBreak
from .replay import Deadline, Replayer, error_in_words, is_out_of_memory
from .report import AutopsyReport
from .symptom import Symptom


def examine(
    case: AutopsyCase | Sequence[AutopsyCase],
    seen: Symptom,
    *,
    provenance: Sequence[Any] = (),
    healthy_state: Mapping[str, Tensor] | None = None,
    seconds: float | None = 60.0,
    nan_only: bool = False,
    reference: AutopsyCase | None = None,
    frugal: bool = False,
    frames: int = 0,
    on_break: OnBreak | None = None,
) -> AutopsyReport:
    """Find out why a batch broke the training.

    The model, its gradients, buffers and flags, and all random number generators stay as they are. The same case gives the same
    answer, unless time runs out. It never raises: an error in here, or a lack of memory, gives an undecided answer.

    Args:
        case: The batch, with the network in the state before it; for a window all micro-batches, oldest first.
        seen: What training saw.
        provenance: The recipe of each image, in the order of all micro-batches, see ``provenance/recipe.py``. Without it, samples
            have only their position and ``AutopsyCase.path``.
        healthy_state: Earlier, healthy parameters and buffers by name.
        seconds: After it nothing more is replayed; None: no limit.
        nan_only: Infinities count as healthy.
        reference: The same batch with the same network on another device, such as the CPU.
        frugal: Replay nothing for which autograd needs more memory than for the batch in training; this finds out less about
            small batches.
        frames: As for `locate_call`; they are in ``AutopsyReport.location``.
        on_break: As for `locate_call`.

    Syncs: one read per operation in the traced replay, a few in each further one.
    """
    if seen.reason == NO_GRADIENT:
        return _of_a_constant()
    cases = list(case) if isinstance(case, Sequence) else [case]
    try:
        try_out(cases[0].model.parameters())  # before anything is traced
        player = Replayer(seen, Deadline(seconds), nan_only=nan_only)
        examination = Examination(cases, seen, provenance, healthy_state, player, reference, frugal=frugal)
        try:
            examination.run(frames, on_break)
        except Exception as error:  # noqa: BLE001 - the evidence so far counts
            examination.known["error"] = examination.facts["error"] = error_in_words(error)
            examination.known["out_of_memory"] = is_out_of_memory(error)
        return report_of(examination)
    except Exception as error:  # noqa: BLE001 - an error in here must never harm the training
        return AutopsyReport(evidence={"error": error_in_words(error)}, next=next_step("undecided"))


def _of_a_constant() -> AutopsyReport:
    """Return the report of a loss that no parameter can change: a replay would find all numbers healthy."""
    why = "all numbers are finite, and the loss is a constant for whatever is trained"
    evidence = {"what": "had a loss that depends on no trained parameter", "why": why}
    return AutopsyReport(phase="loss", evidence=evidence, next=CONSTANT)


def report_of(e: Examination) -> AutopsyReport:
    """Return the answer from what an examination found."""
    evidence = AutopsyEvidence(**e.known, out_of_time=e.player.deadline.met)
    judgement = judge(evidence)
    cause = judgement.cause
    first = e.location.first if e.location is not None else None
    blameless = cause == WEIGHTS or cause.startswith("hardware")
    samples, tiles = e.names.named(() if blameless else e.culprits, labels=cause == DATA)
    facts = {k: v for k, v in asdict(evidence).items() if v not in (None, "", 0) and k not in {"reproduced", "every"}}
    facts.update(e.facts, what=e.what or _what(e.location, bool(samples)), why=judgement.why, tiles=tiles)
    if samples:
        facts["positions"] = sorted({culprit.sample for culprit in e.culprits})
    if e.player.errors:
        facts.setdefault("error", e.player.errors[0])
    files = tuple(dict.fromkeys(sample.path for sample in samples if sample.path))
    rows = tuple(sample.label_row for sample in samples if sample.label_row is not None)
    return AutopsyReport(
        reproduced=evidence.reproduced,
        bitwise=e.bitwise,
        cause=cause,
        phase=_phase(e, cause),
        module=first.module if first is not None else module_of(e.case.model, _sick_names(e)),
        op=first.op if first is not None else "",
        samples=samples,
        evidence=strict(facts),
        next=next_step(
            cause,
            files=files,
            rows=rows,
            images=len({culprit.sample for culprit in e.culprits}),
            half=evidence.half,
            hurried=evidence.out_of_time,
            cramped=evidence.out_of_memory,
            memory=bool(evidence.memory),
        ),
        location=e.location,
    )


def _sick_names(e: Examination) -> tuple[str, ...]:
    found = sick_weights(e.case.model) if e.known.get("weights") else None
    return (
        *(found.not_finite if found else ()),
        *(n for n, _ in (found.absurd if found else ())),
        *e.seen.culprits,
    )


def _phase(e: Examination, cause: str) -> str:
    if cause == DATA:
        return "data"
    if cause == WEIGHTS or e.seen.kind == "state":
        return "state"
    if e.location is not None and e.location.first is not None:
        return e.location.first.phase
    return "backward" if e.seen.backward else "forward"


def _what(location: Location | None, samples: bool) -> str:
    first = location.first if location is not None else None
    if first is None:
        return "broke the training"
    return f"made {first.op} in {first.module or 'the model'} give {first.value}" if samples else f"gave {first.value}"
