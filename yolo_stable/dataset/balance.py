"""How often each class is there."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np

from .finding import Finding
from .layout import Layout
from .rules import found

IMBALANCE = 100
"""Objects of the most frequent class for one of the rarest, above which it is said."""


def check_balance(layout: Layout, counts: Mapping[str, np.ndarray]) -> Iterator[Finding]:
    """Judge the number of objects (for classification: images) of each class.

    Args:
        layout: The data set.
        counts: By split: objects of each class, in the order of their ids.
    """
    train = counts.get("train")
    if train is None or not train.sum():
        return
    classes = sorted(layout.names.items())
    for place, (index, name) in enumerate(classes):
        if place >= len(train) or train[place]:
            continue
        elsewhere = [split for split, some in counts.items() if some[place]]
        rule = "class-unseen" if elsewhere else "class-unused"
        where = f", but it has some in {' and '.join(elsewhere)}" if elsewhere else ""
        message = f"class {index} ({name}) has no object in train{where}; expected is one or more"
        yield found(rule, layout.place, message, line=layout.lines.get(f"names/{index}"))
    used = np.flatnonzero(train)
    most, least = used[train[used].argmax()], used[train[used].argmin()]
    if train[most] > IMBALANCE * train[least]:
        names = [classes[i][1] for i in (most, least)]
        message = (
            f"{train[most]} x {names[0]} for {train[least]} x {names[1]} in train:"
            f" {train[most] / train[least]:.0f} : 1; expected is {IMBALANCE} : 1 at most"
        )
        yield found("class-imbalance", layout.place, message, line=layout.lines.get(f"names/{classes[least][0]}"))
