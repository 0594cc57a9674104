"""Class balance: how often each class occurs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np

from .finding import DataFinding
from .layout import Layout
from .rules import found

_SMALL = 10
"""Objects in all for one of a class; in smaller data sets every class is rare."""


def check_balance(
    layout: Layout, counts: Mapping[str, np.ndarray], limits: Mapping[str, float]
) -> Iterator[DataFinding]:
    """Judge the number of objects (for classification: images) of each class.

    Args:
        layout: The data set.
        counts: By split, in the order of the class ids.
        limits: By rule: ``class-imbalance``, ``class-rare`` and ``class-unmeasured``.
    """
    train = counts.get("train")
    if train is None or not train.sum():
        return
    classes = sorted(layout.names.items())
    for place, (index, name) in enumerate(classes):
        line = layout.lines.get(f"names/{index}")
        if place >= len(train):
            continue
        if train[place]:
            yield from _seldom(f"class {index} ({name})", place, counts, limits, (layout.place, line))
            continue
        elsewhere = [split for split, some in counts.items() if some[place]]
        rule = "class-unseen" if elsewhere else "class-unused"
        where = f", but it has some in {' and '.join(elsewhere)}" if elsewhere else ""
        message = f"class {index} ({name}) has no object in train{where}; expected: one or more"
        yield found(rule, layout.place, message, line=line)
    used = np.flatnonzero(train)
    most, least = used[train[used].argmax()], used[train[used].argmin()]
    if train[most] > limits["class-imbalance"] * train[least]:
        names = [classes[i][1] for i in (most, least)]
        message = (
            f"{train[most]} x {names[0]} for {train[least]} x {names[1]} in train:"
            f" {train[most] / train[least]:.0f} : 1; expected: {limits['class-imbalance']:g} : 1 at most"
        )
        yield found("class-imbalance", layout.place, message, line=layout.lines.get(f"names/{classes[least][0]}"))


def _seldom(
    name: str,
    place: int,
    counts: Mapping[str, np.ndarray],
    limits: Mapping[str, float],
    where: tuple[object, int | None],
) -> Iterator[DataFinding]:
    """Judge a class that training has, but rarely, or that validation lacks."""
    train, val = counts["train"], counts.get("val")
    objects = int(train[place])
    if objects < limits["class-rare"] and train.sum() >= _SMALL * objects:
        message = f"{name} has {objects} objects in train; expected: {limits['class-rare']:g} or more"
        yield found("class-rare", where[0], message, line=where[1])
    elif val is not None and val.sum() and not val[place] and objects >= limits["class-unmeasured"]:
        message = f"{name} has {objects} objects in train and none in val; expected: one or more"
        yield found("class-unmeasured", where[0], message, line=where[1])
