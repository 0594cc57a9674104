"""Facts about a break and about sick weights, in JSON and in words."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from torch import nn

from ..guard.wrappers import plainly_named
from .finding import Break, Location
from .inspection import WeightFindings
from .ranges import Range

MOST_NAMES = 5


def facts_of(location: Location) -> dict[str, Any]:
    """Return the evidence that a traced replay gave."""
    facts: dict[str, Any] = {"loss": location.loss, "items": location.items}
    if location.first is not None:
        facts.update(_facts_of_break(location.first))
    if location.also:
        facts["also"] = [f"{one.op} in {one.module}" for one in location.also[:MOST_NAMES]]
    for key, names in (
        ("bad_gradients", location.bad_gradients),
        ("good_gradients", location.good_gradients),
        ("bad_buffers", location.bad_buffers),
    ):
        if names:
            facts[key] = shortened(names)
    return facts


def _facts_of_break(first: Break) -> dict[str, Any]:
    place = f" {list(first.index)}" if first.index else ""
    facts: dict[str, Any] = {
        "pass": first.phase,
        "module_type": first.module_type,
        "source": first.source,
        "first_bad": f"output {first.output}{place} = {first.value} ({first.non_finite} of {first.numel} not finite)",
        "inputs": [_range(one) for one in first.inputs],
        "origin": first.origin,
        "forward_op": first.forward_op,
        "forward_source": first.forward_source,
        "wide": first.wide,
        "dtype": first.dtype,
    }
    return {key: value for key, value in facts.items() if value}


def _range(one: Range) -> str:
    between = "no finite element" if one.low is None or one.high is None else f"{one.low:.4g} to {one.high:.4g}"
    bad = f", {one.non_finite} of {one.numel} not finite" if one.non_finite else ""
    return f"{one.name} {one.dtype} {list(one.shape)}: {between}{bad}"


def weights_in_words(found: WeightFindings) -> str:
    """Return what is wrong with weights, the first few by name; empty when nothing is."""
    if found.not_finite:
        return f"not finite: {', '.join(shortened(found.not_finite))}"
    return ", ".join(shortened([f"{name} is as large as {value:.3g}" for name, value in found.absurd]))


def shortened(names: Iterable[str]) -> list[str]:
    """Return the first few names, and how many more there are."""
    every = list(names)
    return every if len(every) <= MOST_NAMES else [*every[:MOST_NAMES], f"and {len(every) - MOST_NAMES} more"]


def module_of(model: nn.Module, culprits: Iterable[str]) -> str:
    """Return the module of the first name that is a parameter or a buffer, or ends with one, as those of an average do."""
    names = [name for name, _ in plainly_named([*model.named_parameters(), *model.named_buffers()])]
    for culprit in culprits:
        fitting = [name for name in names if culprit == name or culprit.endswith((f".{name}", f" {name}"))]
        if fitting:
            return max(fitting, key=len).rpartition(".")[0]
    return ""
