"""One injected fault played through a rig and judged, and the tables that come of many."""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Iterable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from .autopsy_faults import Trial
from .autopsy_planted import Leap
from .autopsy_rig import Answer, Rig, seed_all

Row = dict[str, Any]
TRIES = 60
"""Batches that are drawn until the broken file is in one."""
CAUSES = ("data", "weights", "optimisation", "precision", "hardware transient", "hardware persistent", "undecided")


def play(rig: Rig, trial: Trial, folder: Path | None = None, *, twice: bool = False) -> Row:
    """Break something, feed the batch, and judge the answer.

    Args:
        rig: Is put back to where it was before the next fault, when anything was changed.
        trial: What is broken.
        folder: Where a bundle is written; None: none.
        twice: Feed the same batch once more, and compare the answers.

    Returns:
        A row: what was broken, whether it fired and was rejected, and which parts of the answer are right (None: not asked).
    """
    row: Row = {"rig": rig.name, "group": trial.group, "kind": trial.kind, "seed": trial.seed, "cause": trial.cause}
    model, file = trial.model, trial.file
    row["where"] = repr(model if file is None else file if model is None else (model, file))
    with ExitStack() as stack:
        counted, batches = [], []
        windows = range(rig.setting.accumulate)
        if file is not None:
            armed = stack.enter_context(file.install(rig.dataset))
            for attempt in range(TRIES):
                batches = [rig.draw(trial.seed + 1000 * attempt + n) for n in windows]
                if armed.fired:
                    break
            counted.append(armed)
        else:
            batches = [rig.draw(trial.seed + n) for n in windows]
        seed_all(trial.seed)
        before, same = rig.fingerprint(), [dict(batch) for batch in batches]
        if isinstance(model, Leap):
            model.leap(rig)
        elif model is not None:
            target = rig.model if trial.where == "model" else getattr(rig.model.criterion, trial.where)
            counted.append(stack.enter_context(model.install(target)))
        rig.listener.bundle_to = folder
        heard = rig.feed(*batches)
        rig.listener.bundle_to = None
        again = None
        lasting = trial.group != "weights" and rig.setting.accumulate == 1 and trial.cause != "hardware transient"
        if twice and lasting and heard.answers and not heard.escalations:
            seed_all(trial.seed)
            again = rig.feed(*same)
    row["fired"] = all(armed.fired for armed in counted)
    row["images"] = counted[0].fired if file is not None and counted else 0
    row["rejected"] = bool(heard.answers)
    if heard.answers:
        truth = counted[-1].truth if counted and model is not None else None
        row.update(judged(trial, truth, heard.answers[0], rig))
    changed = isinstance(model, Leap) or trial.group == "weights"
    if heard.escalations or changed or not heard.answers:
        rig.go_back()
    elif rig.setting.accumulate == 1:  # else the other micro-batches of the window are trained on
        row["untouched"] = rig.fingerprint() == before
    if again is not None:
        first, second = (h.answers[0].incident.report.to_json() if h.answers else None for h in (heard, again))
        row["same again"] = first == second
    return row


def judged(trial: Trial, truth: Any, answer: Answer, rig: Rig) -> Row:
    """Compare an answer with what is known."""
    report = answer.incident.report
    found = {
        "said": report.cause,
        "phase": report.phase,
        "module": report.module,
        "op": report.op,
        "reproduced": report.reproduced,
        "bitwise": report.bitwise,
        "why": report.evidence.get("why", ""),
        "error": report.evidence.get("error", ""),
        "files": sorted({sample.path for sample in report.samples}),
        "rows": [sample.label_row for sample in report.samples],
        "seconds": answer.seconds,
        "steps": answer.seconds / rig.step_seconds,
        "operation steps": report.location.seconds / rig.step_seconds if report.location is not None else None,
        "symptom": answer.incident.kind,
        "cause right": report.cause == trial.cause,
    }
    transient = trial.cause == "hardware transient"
    if truth is not None and truth.op and not transient:
        module = trial.module or truth.module
        found["true module"], found["true op"] = module, truth.op
        exact = report.module == module
        if trial.kind != "shared activation":  # there the place is the question
            exact = exact or same_module(rig, report.module, module)
        found["operation right"] = report.op == truth.op and exact
        found["pass"] = report.evidence.get("pass", "")
        # What `where` drops in the forward pass comes back as a gradient: either pass may be named.
        masked = trial.kind.startswith("masked") and found["pass"] == "forward"
        found["pass right"] = masked or found["pass"] == ("loss" if trial.group == "loss" else truth.phase)
        if truth.forward_op:  # where the forward pass made something not finite already, that operation is named itself
            op = report.op if found["pass"] == "forward" else report.evidence.get("forward_op", "")
            found["forward op"], found["true forward op"] = op, truth.forward_op
            found["forward op right"] = op == truth.forward_op
    elif trial.group == "weights" and truth is not None:
        found["true module"] = truth.module
        told = f"{report.module} {report.evidence.get('weights', '')}"
        found["weights' module right"] = truth.module in told
    if trial.file is not None:
        found["true file"] = trial.file.file
        found["file named"] = trial.file.file in found["files"]
        found["file right"] = found["files"] == [trial.file.file]
        if trial.group == "label":
            pairs = {(sample.path, sample.label_row) for sample in report.samples}
            found["row right"] = pairs == {(trial.file.file, trial.file.row)}
    else:
        found["innocent named"] = len(found["files"]) if report.cause == "data" else 0
    return found


def same_module(rig: Rig, named: str, true: str) -> bool:
    """Tell whether two names are of one module: several blocks may have it in common, and each is a name of it."""
    modules = dict(rig.model.named_modules(remove_duplicate=False))
    return named == true or (true in modules and modules.get(named) is modules[true] and not true.startswith("<"))


def share(rows: Iterable[Row], key: str) -> tuple[int, int]:
    """Return how many are right, and of how many."""
    asked = [bool(row[key]) for row in rows if row.get(key) is not None]
    return sum(asked), len(asked)


def bar(what: str, right: int, total: int, least: float) -> Row:
    """Return a row of the table of bars; nothing asked is not met."""
    value = right / total if total else 0.0
    return {"what": what, "right": right, "of": total, "share": value, "bar": f">= {least:.0%}", "met": value >= least}


def most(what: str, values: list[float], limit: float) -> Row:
    """Return a row for a cost: the median, with the 90th percentile beside it."""
    middle = statistics.median(values) if values else float("nan")
    high = sorted(values)[int(0.9 * (len(values) - 1))] if values else float("nan")
    return {
        "what": what,
        "of": len(values),
        "median": middle,
        "p90": high,
        "bar": f"<= {limit:g}",
        "met": middle <= limit,
    }


def bars(rows: list[Row]) -> list[Row]:
    """Return the table of the issue for the faults that fired and were rejected."""
    asked = [row for row in rows if row["fired"] and row["rejected"]]
    by = {group: [r for r in asked if r["group"] == group] for group in {r["group"] for r in asked}}
    mixed = [r for r in asked if r["rig"].startswith("mixed")]
    plain = [r for r in asked if not r["rig"].startswith("mixed")]
    return [
        {"what": "faults that fired and were rejected", "of": len(asked), "bar": ">= 400", "met": len(asked) >= 400},
        bar("operation and module, all", *share(asked, "operation right"), 0.99),
        bar("operation and module, forward", *share(by.get("forward", []), "operation right"), 0.99),
        bar("operation and module, backward", *share(by.get("backward", []), "operation right"), 0.99),
        bar("operation and module, loss", *share(by.get("loss", []), "operation right"), 0.99),
        bar("operation and module, precision", *share(by.get("precision", []), "operation right"), 0.99),
        bar("operation and module, hardware", *share(by.get("hardware", []), "operation right"), 0.99),
        bar("forward operation of a backward fault", *share(asked, "forward op right"), 0.99),
        bar("pass: forward, loss or backward", *share(asked, "pass right"), 0.99),
        bar("module of sick weights", *share(asked, "weights' module right"), 0.99),
        bar("image file exact, mosaic on", *share(plain, "file right"), 0.98),
        bar(
            "image file exact, in one image of the batch",
            *share([r for r in plain if r["images"] == 1], "file right"),
            0.98,
        ),
        bar("image file exact, in several", *share([r for r in plain if r["images"] > 1], "file right"), 0.98),
        bar("image file in the named set, mixup and copy-paste on", *share(mixed, "file named"), 0.98),
        bar("image file exact, mixup and copy-paste on", *share(mixed, "file right"), 0.0),
        bar("label row exact", *share(asked, "row right"), 0.98),
        bar("cause", *share(asked, "cause right"), 0.95),
        *(
            bar(f"cause, where it is {c}", *share([r for r in asked if r["cause"] == c], "cause right"), 0.95)
            for c in CAUSES
        ),
        bar("state and generators left as they were", *share(asked, "untouched"), 1.0),
        bar("the same answer a second time", *share(asked, "same again"), 1.0),
        most("autopsy, operation only (step times)", _numbers(asked, "operation steps"), 4.0),
        most("autopsy with the image (step times)", [r["steps"] for r in asked], 8.0),
    ]


def _numbers(rows: list[Row], key: str) -> list[float]:
    return [row[key] for row in rows if row.get(key) is not None]


def confusion(rows: list[Row]) -> list[Row]:
    """Return truth in rows and answer in columns."""
    asked = [row for row in rows if row["fired"] and row["rejected"]]
    counts = Counter((row["cause"], row["said"]) for row in asked)
    return [{"truth": truth, **{said: counts[truth, said] for said in CAUSES}} for truth in CAUSES]


def by_kind(rows: list[Row]) -> list[Row]:
    """Return one row for each group and kind."""
    kinds: dict[tuple[str, str], list[Row]] = {}
    for row in rows:
        kinds.setdefault((row["group"], row["kind"]), []).append(row)
    table = []
    for (group, kind), members in sorted(kinds.items()):
        asked = [row for row in members if row["fired"] and row["rejected"]]
        shown = {
            key: "{} of {}".format(*share(asked, key)) if share(asked, key)[1] else ""
            for key in ("operation right", "file right", "row right", "cause right")
        }
        table.append({"group": group, "kind": kind, "injected": len(members), "asked": len(asked), **shown})
    return table


ASKED = (
    "operation right",
    "forward op right",
    "weights' module right",
    "file right",
    "file named",
    "row right",
    "cause right",
    "untouched",
    "same again",
)


def misses(rows: list[Row]) -> list[Row]:
    """Return the rows with something wrong, and what that is."""
    found = []
    for row in rows:
        if row["fired"] and row["rejected"]:
            wrong = [key for key in ASKED if row.get(key) is False]
            if row["rig"].startswith("mixed") and row.get("file named"):
                wrong = [key for key in wrong if key != "file right"]
            if wrong:
                found.append({**row, "wrong": wrong})
    return found
