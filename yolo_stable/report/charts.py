"""Charts: the curves of a page as plain data for its script.

A line is of steps or of epochs; ``ends``, the last step of each epoch of a run, converts one into the other.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any

from .._shared.numbers import finite, number, text
from .curve import Point
from .run import Run

POINTS = 2000
"""Most points of a line."""
ALL_POINTS = 8000
"""Most points of all runs' lines of one kind together; but each line may have `FEW`."""
FEW = 400
MEANS = 250
"""Points of the mean drawn over the range of a longer line."""
MOST_ITEMS = 24


def page_data(runs: Sequence[Run]) -> dict[str, Any]:
    """Return the script's data: runs, charts with their lines, marks of incidents."""
    most = max(FEW, min(POINTS, ALL_POINTS // len(runs)))
    scale_note, clip_note = (
        "Of mixed precision; falls when gradients overflow.",
        "Factor on the gradients; 1: not clipped.",
    )
    charts = [
        *(make(runs, most) for make in (_loss, _measures, _norm, _rate)),
        _of_steps(runs, most, "scale", "Loss scale", "scale", scale_note, log=True),
        _of_steps(runs, most, "clip", "Clipping factor", "factor", clip_note, log=True),
        _rejected(runs, most),
        _of_steps(runs, most, "seconds", "Seconds per step", "seconds"),
        _memory(runs, most),
    ]
    return {
        "runs": [{"name": run.name, "ends": _ends(run), "epochs": run.epochs_done} for run in runs],
        "charts": [chart for chart in charts if chart["lines"]],
        "marks": [mark for i, run in enumerate(runs) for mark in _marks(i, run, len(runs))],
    }


def thin(points: Sequence[Point], most: int) -> list[Point]:
    """Return at most ``most`` points: the extremes of each stretch.

    Examples:
        >>> thin([(x, float(x == 500)) for x in range(1000)], 4)
        [(0, 0.0), (500, 1.0), (501, 0.0)]
    """
    if len(points) <= most:
        return list(points)
    size = math.ceil(len(points) / max(most // 2, 1))
    kept: list[Point] = []
    for start in range(0, len(points), size):
        known = [point for point in points[start : start + size] if point[1] is not None]
        if len(known) < min(size, len(points) - start) and kept and kept[-1][1] is not None:
            kept.append((points[start][0], None))
        if known:
            low, high = min(known, key=_height), max(known, key=_height)
            kept += sorted({low, high}, key=lambda point: point[0]) if low != high else [low]
    return kept


# ---- one chart each ------------------------------------------------------------------------------------------------------


def _loss(runs: Sequence[Run], most: int) -> dict[str, Any]:
    lines: list[dict[str, Any]] = []
    for i, run in enumerate(runs):
        stepped = _stepped(i, run, "loss/", most)
        lines += stepped
        for kind, prefix in (("train", "train/"), ("val", "val/")):
            names = [name for name in run.results.columns if name.startswith(prefix)]
            if kind == "val" or not stepped:
                lines += _of_results(i, run, names, prefix, kind, most)
                lines += _sum(i, run, names, kind, most)
    if not any(line["kind"] == "train" for line in lines):
        lines += [line for i, run in enumerate(runs) for line in _loss_of_epochs(i, run, most)]
    chart = _chart("loss", "Loss", lines, runs, "Train as a line, validation dashed, one point for each epoch.")
    if "sum" in chart["items"] and (len(runs) > 1 or len(chart["items"]) > 5):
        chart["item"] = "sum"
    return chart


def _measures(runs: Sequence[Run], most: int) -> dict[str, Any]:
    lines = []
    for i, run in enumerate(runs):
        names = [name for name in run.results.columns if name.startswith("metrics/")]
        lines += _of_results(i, run, names, "metrics/", "val", most)
    chart = _chart("map", "mAP and other results", lines, runs, "Of the validation after each epoch.")
    best = next((run.results.measure.removeprefix("metrics/") for run in runs if run.results.measure), "")
    if len(runs) > 1 and best in chart["items"]:
        chart["item"] = best
    if all(y is None or 0 <= y <= 1 for line in lines for y in line["y"]):
        chart["range"] = [0, 1]
    return chart


def _norm(runs: Sequence[Run], most: int) -> dict[str, Any]:
    lines: list[dict[str, Any]] = []
    limits = []
    for i, run in enumerate(runs):
        found = _stepped(i, run, "norm", most, "norm")
        if not found:
            columns = {"guard/grad_norm": "mean of the epoch", "guard/grad_norm_max": "largest of the epoch"}
            for column, item in columns.items():
                found += _of_results(i, run, [column], column, "train", most, item)
        if not found:
            for key, item in (("norm_mean", "mean of the epoch"), ("norm_max", "largest of the epoch")):
                found += _of_epochs(i, run, key, item, most)
        limit = finite(run.guard.get("max_norm"))
        if found and limit is not None and limit > 0:
            limits.append({"run": i, "y": limit, "text": f"clipped above {limit:g}"})
        lines += found
    chart = _chart("norm", "Gradient norm before clipping", lines, runs, "")
    if len(runs) > 1 and "norm" in chart["items"]:
        chart["item"] = "norm"
    return {**chart, "log": True, "limits": limits}


def _rate(runs: Sequence[Run], most: int) -> dict[str, Any]:
    lines: list[dict[str, Any]] = []
    for i, run in enumerate(runs):
        found = _stepped(i, run, "lr/", most)
        names = [name for name in run.results.columns if name.startswith("lr/")]
        found = found or _of_results(i, run, names, "lr/pg", "train", most)
        for line in found:
            line["item"] = f"group {line['item']}"
        lines += found if len(runs) > 1 else _one_of_equals(found)
    return _chart("lr", "Learning rate", lines, runs, "Of the parameter groups, as the optimizer used it.")


def _of_steps(
    runs: Sequence[Run], most: int, name: str, title: str, item: str, note: str = "", *, log: bool = False
) -> dict[str, Any]:
    lines = [line for i, run in enumerate(runs) for line in _stepped(i, run, name, most, item)]
    return {**_chart(name, title, lines, runs, note), "log": log}


def _rejected(runs: Sequence[Run], most: int) -> dict[str, Any]:
    lines: list[dict[str, Any]] = []
    for i, run in enumerate(runs):
        found = _of_epochs(i, run, "rejected", "rejected", most)
        lines += [line for line in found if any(line["y"])]
    return _chart("rejected", "Rejected in each epoch", lines, runs, "Micro-batches and windows.")


def _memory(runs: Sequence[Run], most: int) -> dict[str, Any]:
    chart = _of_steps(runs, most, "memory", "Memory of the training process, MiB", "MiB")
    for line in chart["lines"]:
        line["y"] = [None if y is None else _rounded(y / 2**20) for y in line["y"]]
    return chart


# ---- lines ---------------------------------------------------------------------------------------------------------------


def _chart(name: str, title: str, lines: list[dict[str, Any]], runs: Sequence[Run], note: str) -> dict[str, Any]:
    items = list(dict.fromkeys(line["item"] for line in lines))[:MOST_ITEMS]
    lines = [line for line in lines if line["item"] in items]
    item = items[0] if len(runs) > 1 and items else ""
    return {
        "id": name,
        "title": title,
        "note": note,
        "lines": lines,
        "items": items,
        "item": item,
        "log": False,
        "range": None,
        "limits": [],
    }


def _line(run: int, item: str, kind: str, of: str, points: Sequence[Point]) -> dict[str, Any]:
    xs = [int(x) if x == int(x) else x for x, _ in points]
    return {"run": run, "item": item, "kind": kind, "of": of, "x": xs, "y": [_rounded(y) for _, y in points]}


def _stepped(i: int, run: Run, prefix: str, most: int, item: str = "") -> list[dict[str, Any]]:
    """Return the step lines with this prefix, with the undone pieces of each."""
    lines = []
    for name, curve in run.history.curves.items():
        if not name.startswith(prefix):
            continue
        called = item or text(name.removeprefix(prefix), 60)
        means = curve.means(MEANS)
        lines.append(_line(i, called, "range" if means else "train", "step", thin(curve.points(), most)))
        if means:
            lines.append(_line(i, called, "train", "step", means))
        if curve.undone:
            lines.append(_line(i, called, "undone", "step", thin(curve.undone, most)))
    return [line for line in lines if line["x"]]


def _of_results(
    i: int, run: Run, names: Iterable[str], prefix: str, kind: str, most: int, item: str = ""
) -> list[dict[str, Any]]:
    lines = []
    for name in names:
        points: list[Point] = [(epoch, finite(value)) for epoch, value in run.results.column(name)]
        if any(y is not None for _, y in points):
            lines.append(_line(i, item or text(name.removeprefix(prefix), 60), kind, "epoch", thin(points, most)))
    return lines


def _of_epochs(i: int, run: Run, key: str, item: str, most: int) -> list[dict[str, Any]]:
    points: list[Point] = [(epoch, finite(event.get(key))) for epoch, event in sorted(run.history.epochs.items())]
    return [_line(i, item, "train", "epoch", thin(points, most))] if any(y is not None for _, y in points) else []


def _sum(i: int, run: Run, names: Sequence[str], kind: str, most: int) -> list[dict[str, Any]]:
    if len(names) < 2:
        return []
    totals: list[Point] = [
        (epoch, finite(sum(row.get(name, 0.0) for name in names)))
        for epoch, row in zip(run.results.epochs, run.results.rows, strict=True)
    ]
    return [_line(i, "sum", kind, "epoch", thin(totals, most))] if any(y is not None for _, y in totals) else []


def _loss_of_epochs(i: int, run: Run, most: int) -> list[dict[str, Any]]:
    """Return the guard's means of each epoch, for a run without results."""
    points: dict[str, list[Point]] = {}
    for epoch, event in sorted(run.history.epochs.items()):
        losses = event.get("loss")
        for name, value in losses.items() if isinstance(losses, dict) else ():
            points.setdefault(text(name, 40), []).append((epoch, finite(value)))
    return [_line(i, name, "train", "epoch", thin(found, most)) for name, found in list(points.items())[:MOST_ITEMS]]


def _one_of_equals(lines: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Join groups with equal lines, and drop undone pieces."""
    kept: list[dict[str, Any]] = []
    for line in (line for line in lines if line["kind"] != "undone"):
        same = (line["kind"], line["x"], line["y"])
        twin = next((other for other in kept if (other["kind"], other["x"], other["y"]) == same), None)
        if twin is None:
            kept.append(dict(line))
        else:
            twin["item"] += f", {line['item'].removeprefix('group ')}"
    return kept


def _marks(i: int, run: Run, runs: int) -> list[dict[str, Any]]:
    marks = []
    for found in run.incidents:
        kind = "escalation" if found.escalation else "rejection"
        anchor = anchor_of(i, found.number)
        words = f"{run.name}: {found.headline}" if runs > 1 else found.headline
        marks.append(
            {
                "run": i,
                "step": found.step,
                "epoch": found.epoch,
                "kind": kind,
                "anchor": anchor,
                "text": text(words, 160),
            }
        )
    return marks


def anchor_of(run: int, number: int) -> str:
    """Return the anchor of an incident's section."""
    return f"run-{run + 1}-incident-{number}"


def _ends(run: Run) -> list[list[int]]:
    """Return epochs with their last steps, both growing; empty if no line is of steps."""
    if not run.history.curves and not run.history.incidents:
        return []
    pairs: list[list[int]] = []
    for epoch, step in sorted(run.history.ends.items()):
        if not pairs or step > pairs[-1][1]:
            pairs.append([epoch, step])
    if len(pairs) > POINTS:
        pairs = pairs[:: math.ceil(len(pairs) / POINTS)] + pairs[-1:]
    return pairs if len(pairs) > 1 or run.history.curves else []


def _height(point: Point) -> float:
    return 0.0 if point[1] is None else point[1]


def _rounded(value: Any) -> float | None:
    """Round to six digits: a page has no more pixels."""
    read = number(value)
    return None if read is None or not math.isfinite(read) else float(f"{read:.6g}")
