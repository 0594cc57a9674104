"""Run verdict: the result of a run in one sentence, and what to do next; a pure function of the run."""

from __future__ import annotations

import math
import re
import shlex
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from .._shared.numbers import count, finite, short, text
from .incident import ReportIncident
from .run import Run

SEEN = 0.05
"""A best mAP above this shows that the network found something."""
WORDS = {
    "weights": "ruined weights",
    "optimisation": "a divergence",
    "precision": "numbers beyond the precision",
    "hardware transient": "a fault that did not come again",
    "hardware persistent": "a device that computes wrongly",
}
LOST = 0.1
"""A last value below this share of the best one is a collapse."""


@dataclass(frozen=True)
class RunVerdict:
    """The first sentence of a page."""

    tone: str
    """``good``, ``mind`` or ``bad``."""
    text: str
    next: str = ""


def verdict(run: Run) -> RunVerdict:
    """Judge a run."""
    if run.status == "unknown":
        return RunVerdict("mind", f"Not judged: {_unknown(run)}.")
    trouble = trouble_in_results(run)
    if run.status == "stock":
        ending = _ending(run)
        where = f", {best}" if (best := best_words(run)) else ""
        if trouble:
            advice = "Train it again with the guard.\n" + _lines("With its data and network", _train(run))
            advice = advice.strip()
            return RunVerdict("bad", f"{ending} without a guard{where}. {trouble}", advice)
        shown = run.results.measure or any(name.startswith("train/") for name in run.results.columns)
        return RunVerdict("good" if run.results.rows and shown else "mind", f"{ending} without a guard{where}.")
    guard = guard_words(run)
    if run.status == "done":
        where = f", {best}" if (best := best_words(run)) else ""
        words = f"{_ending(run)}{where}. {guard}{' ' + trouble if trouble else ''}"
        careful = run.history.tally.rollbacks or run.history.tally.incidents > run.history.tally.repairs or trouble
        return RunVerdict(
            "bad" if trouble else "mind" if careful and not _explained(run) else "good", words, _next(run)
        )
    of = f" of {run.epochs_planned}" if run.epochs_planned else ""
    epoch = f"epoch {max(run.history.epoch, 1)}{of}"
    first = {
        "halted": f"Halted by the guard in {epoch}",
        "interrupted": f"Interrupted in {epoch}",
        "failed": f"Failed in {epoch}",
        "unfinished": f"Not finished: the log ends in {epoch}, the run is going on or was killed",
    }[run.status]
    why = f": {_sentence(run.message)}" if run.message and run.status in ("halted", "failed") else "."
    where = f" Until then {best}." if (best := best_words(run)) else ""
    tone = "bad" if run.status in ("halted", "failed") or trouble else "mind"
    rest = run.message[len(_sentence(run.message)) :].strip() if run.status in ("halted", "failed") else run.message
    if not rest and run.status in ("interrupted", "unfinished"):
        lead = "Go on with" if run.status == "interrupted" else "If it was killed, go on with"
        rest = _lines(lead, _train(run, run.folder / "weights" / "last.pt", " resume=True"))
    return RunVerdict(tone, f"{first}{why}{where} {guard}{' ' + trouble if trouble else ''}", rest)


def verdict_of_many(runs: Sequence[Run]) -> RunVerdict:
    """Judge which of several runs is best, and which did not end well."""
    verdicts = [verdict(run) for run in runs]
    judged = [run for run in runs if run.best and run.status != "unknown"]
    measures, data = (
        {run.results.measure for run in judged},
        {text(run.settings.get("data")) for run in runs if run.settings},
    )
    words = f"{len(runs)} runs side by side"
    apart = len(data) > 1 or len(measures) > 1
    values = sorted(((run.best or (0.0, 0))[0] for run in judged), reverse=True)
    if judged and not apart:
        if values[0] > 0 and values[0] != (values[1] if len(values) > 1 else None):
            best = max(judged, key=lambda run: (run.best or (0.0, 0))[0])
            words += f": the highest is {best.name} with {best_words(best).removeprefix('best ')}"
        else:
            words += f": {measure_name(judged[0])} cannot tell which is best, several have {short(round(values[0], 4))}"
    words += "."
    if apart:
        how = "for different tasks" if len(measures) > 1 else "on different data"
        words += f" They were trained {how}: mAP cannot tell which is best."
    bad = [run.name for run, one in zip(runs, verdicts, strict=True) if one.tone == "bad"]
    if bad:
        words += f" Look at {', '.join(bad)}, which did not end well."
    unknown = [run.name for run in runs if run.status == "unknown"]
    if unknown:
        words += f" Not judged: {', '.join(unknown)}."
    return RunVerdict("mind" if bad or apart or unknown else "good", words)


def measure_name(run: Run) -> str:
    """Return the name of a run's measure, such as ``mAP50-95``.

    Examples:
        >>> from pathlib import Path
        >>> from yolo_stable.runlog.results_csv import Results
        >>> measure_name(Run(folder=Path(), name="a", results=Results(columns=["metrics/mAP50-95(B)"])))
        'mAP50-95'
    """
    name = run.results.measure.removeprefix("metrics/").removesuffix("(B)").replace("mAP_0.5:0.95", "mAP50-95")
    return {"accuracy_top1": "top-1 accuracy"}.get(name, name)


def best_words(run: Run) -> str:
    """Return ``best mAP50-95 0.71 (epoch 13)``; empty without a validation."""
    if run.best is None:
        return ""
    counted = ", counted from 0" if run.results.from_zero else ""
    return f"best {measure_name(run)} {short(round(run.best[0], 4))} (epoch {run.best[1]}{counted})"


def guard_words(run: Run) -> str:
    """Return what the guard did, in one or several sentences."""
    history = run.history
    done = []
    if history.tally.rejected:
        batches = finite(run.counts.get("micro_batches"))
        of = f" of {int(batches):,} batches" if batches else f" {'batch' if history.tally.rejected == 1 else 'batches'}"
        done.append(f"rejected {history.tally.rejected:,}{of}")
    if history.tally.rollbacks:
        times = "once" if history.tally.rollbacks == 1 else f"{history.tally.rollbacks:,} times"
        done.append(f"rolled back {times} ({count(history.tally.undone, 'step')} undone)")
    if history.tally.repairs:
        done.append(f"restored the EMA {'once' if history.tally.repairs == 1 else f'{history.tally.repairs:,} times'}")
    if not done:
        return "The guard had nothing to do."
    return f"The guard {' and '.join([', '.join(done[:-1]), done[-1]] if len(done) > 1 else done)}.{_causes(run)}"


def trouble_in_results(run: Run) -> str:
    """Return what went wrong by the results: a loss that is not finite, or a lost mAP."""
    said = []
    for name in (name for name in run.results.columns if name.startswith("train/")):
        bad = [epoch for epoch, value in run.results.column(name) if not math.isfinite(value)]
        if bad:
            said.append(
                f"Its loss was not finite from epoch {bad[0]} on"
                if len(bad) > 1
                else f"Its loss was not finite in epoch {bad[0]}"
            )
            break
    values = run.results.column(run.results.measure)
    best = run.best
    if best is not None and best[0] > SEEN and values:
        lost = values[-1][1]
        if not math.isfinite(lost) or lost < LOST * best[0]:
            begin = next(e for e, v in reversed(values) if math.isfinite(v) and v >= LOST * best[0])
            said.append(f"{measure_name(run)} collapsed after epoch {begin}, from {short(best[0])} to {short(lost)}")
    elif best is not None and best[0] == 0 and len(values) > 2:
        said.append(f"{measure_name(run)} is 0 in all {len(values)} epochs: the network finds nothing")
    return "".join(f"{one}. " for one in said).strip()


def _unknown(run: Run) -> str:
    """Return why a run cannot be judged."""
    if run.unknown:
        return run.unknown
    if not run.guarded:
        return "results.csv is an unknown table, and there is no guard.jsonl"
    status = text((run.history.end or {}).get("status"), 40)
    return f"guard.jsonl ends with the status {status!r}, which is not known here"


def _ending(run: Run) -> str:
    done, planned = run.epochs_done, run.epochs_planned
    if not done:
        return "No epoch was finished"
    if planned and done < planned:
        return f"Ended after {done} of {count(planned, 'epoch')}"
    return f"Finished: {count(done, 'epoch')}"


def _causes(run: Run) -> str:
    """Return the causes that the autopsies found."""
    causes, history = run.history.tally.causes, run.history
    if not causes:
        return ""
    known = {cause: amount for cause, amount in causes.items() if cause != "undecided"}
    looked, found = sum(causes.values()), sum(known.values())
    if not found:
        return f" No cause was found for {count(looked, 'incident')}."
    all_of = found == looked == history.tally.incidents
    extent = "Cause found" if found == 1 and all_of else "Causes found for all" if all_of else (
        f"Causes found for {found:,} of {count(history.tally.incidents, 'incident')}"
    )  # fmt: skip
    return f" {extent}: {', '.join(_cause_words(run, cause) for cause in sorted(known, key=lambda c: (-known[c], c)))}."


def _cause_words(run: Run, cause: str) -> str:
    amount = run.history.tally.causes[cause]
    same = [found for found in run.incidents if found.cause == cause]
    files = {path for found in same for path in found.guilty}
    if cause != "data" or not files:
        return WORDS.get(cause, cause) + (f" ({amount:,} times)" if amount > 1 else "")
    (what, often), *_ = Counter(found.what for found in same).most_common(1)
    how = (
        f" {what.replace('has ', 'with ', 1)}"
        if often == len(same) and what.startswith("has ")
        else " that broke a batch"
    )
    return f"{count(len(files), 'file')}{how}"


def _explained(run: Run) -> bool:
    """Return whether bad data explain every incident."""
    known = run.history.tally.causes
    return set(known) == {"data"} and known["data"] == run.history.tally.incidents


def _next(run: Run) -> str:
    """Return the next step of the first incident of the most frequent cause."""
    told: list[ReportIncident] = [found for found in run.incidents if found.next]
    if not told:
        return ""
    often = Counter(found.cause for found in told).most_common(1)[0][0]
    return next(found.next for found in told if found.cause == often)


def _lines(what: str, command: str) -> str:
    """Return a step and, on a line of its own, its command; empty without a command that works."""
    return f"{what}:\n{command}" if command else ""


def _train(run: Run, model: Path | None = None, more: str = "") -> str:
    """Return the command that trains with the data of a run; empty if the run does not say, or the model's file is missing."""
    data, network = run.settings.get("data"), run.settings.get("model") if model is None else str(model)
    if not isinstance(data, str) or not isinstance(network, str) or (model is not None and not model.is_file()):
        return ""
    return f"yolo-stable train {shlex.quote(text(data))} {shlex.quote(f'model={text(network)}')}{more}"


def _sentence(message: str) -> str:
    """Return the first sentence of a message, with its full stop."""
    end = re.search(r"\.\s", message)
    return message if end is None else message[: end.start() + 1]
