"""The faults that the autopsy is asked about: what is broken, in which rig, and what is true of it."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from yolo_stable.chaos import DeviceFault, Fault, FileFault, LayerFault, leaves

from .autopsy_planted import Cancel, Grown, Leap, Shared
from .autopsy_rig import Rig

INF, NAN = math.inf, math.nan
FORWARD = ("divide", "log", "sqrt", "exp", "multiply")
BACKWARD = ("root", "norm", "power", "arcsine", "masked", "function")


@dataclass(frozen=True, slots=True)
class Trial:
    """One injected fault."""

    rig: str
    group: str
    """``forward``, ``backward``, ``loss``, ``pixel``, ``label``, ``weights``, ``optimisation``, ``precision``, ``hardware``."""
    kind: str
    seed: int
    cause: str
    """The right answer."""
    model: Any = None
    """The fault in the network, if any."""
    file: FileFault | None = None
    """The fault in the data, if any."""
    where: str = "model"
    """``model``, or ``criterion``: the loss."""
    module: str = ""
    """The module that has to be named, where the fault does not know it; with ``where="criterion"`` in angle brackets."""


def usable(rig: Rig) -> list[str]:
    """Return the leaf modules that compute something in training, each in the place where it is called first."""
    seen: dict[str, bool] = {}
    names = leaves(rig.model)
    modules = dict(rig.model.named_modules())
    handles = [
        modules[name].register_forward_hook(
            lambda m, a, out, name=name: seen.__setitem__(name, not any(out is x for x in a))
        )
        for name in names
        if name
    ]
    try:
        rig.healthy()
    finally:
        for handle in handles:
            handle.remove()
    return [name for name in names if seen.get(name)]


def spread(values: Sequence[Any], count: int, rng: random.Random) -> list[Any]:
    """Return so many of them, evenly over all, each moved a little."""
    if count >= len(values):
        return list(values)
    width = len(values) / count
    return [values[min(len(values) - 1, int((i + rng.random()) * width))] for i in range(count)]


def trials_of(rig: Rig, seed: int, scale: float = 1.0) -> list[Trial]:
    """Return all faults for a rig; the same seed gives the same.

    Args:
        rig: Its network and its data say what can be broken.
        seed: Where and in which image.
        scale: Share of the usual number of places.
    """
    rng = random.Random(f"{rig.name} {seed}")
    names, files = usable(rig), rig.files
    modules = dict(rig.model.named_modules())
    few = max(1, round(4 * scale))
    made: list[Trial] = []

    def add(group: str, kind: str, cause: str, **more: Any) -> None:
        made.append(Trial(rig.name, group, kind, rng.randrange(10**9), cause, **more))

    def a_file() -> str:
        return rng.choice(files)

    half = rig.setting.precision != "float32"
    if half:
        _precision(rig, rng, names, modules, add, few)
        return made
    if rig.name.startswith("mixed"):
        for kind in ("divide", "sqrt", "multiply", "root", "masked"):
            for name in spread(names, 2 * few, rng):
                group = "backward" if kind in BACKWARD else "forward"
                fault = LayerFault(kind, name, marked=True)
                add(group, f"{kind}, marked file", "data", model=fault, file=FileFault(a_file(), "mark"))
        _data(rig, rng, add, a_file, 2 * few)
        return made
    for kind in (*FORWARD, *BACKWARD):
        group = "backward" if kind in BACKWARD else "forward"
        for name in spread(names, few, rng):
            fault = LayerFault(kind, name, marked=True)
            add(group, f"{kind}, marked file", "data", model=fault, file=FileFault(a_file(), "mark"))
        for name in spread(names, max(1, few // 2), rng):
            add(group, f"{kind}, always", "undecided", model=LayerFault(kind, name))
    weighted = [n for n in names if isinstance(getattr(modules[n], "weight", None), Tensor)]
    for name in spread(weighted, few, rng):
        add("forward", "overflow, always", "undecided", model=LayerFault("overflow", name))
    acts = [n for n, m in modules.items() if getattr(m, "act", None) is modules.get("model.0.act") and n != "model.0"]
    for name in spread([n for n in acts if f"{n}.conv" in names], few, rng):
        add("forward", "shared activation", "undecided", model=Shared(name))
    for name in spread(names, few, rng):
        add("precision", "cancel in float32", "precision", model=Cancel(name))
    _loss(rig, rng, add)
    _data(rig, rng, add, a_file, few)
    _weights(rng, names, modules, add, few)
    for persistent in (True, False):
        for phase in ("forward", "backward"):
            for value in (NAN, INF):
                for name in spread(names, max(1, few // 2), rng):
                    cause = f"hardware {'persistent' if persistent else 'transient'}"
                    fault = DeviceFault(name, persistent=persistent, value=value, phase=phase)
                    add("hardware", f"{cause}, {phase} {value}", cause, model=fault)
    for factor in (1e6, 1e10, 1e15, 1e25):
        add("optimisation", f"lr x {factor:g}", "optimisation", model=Leap(factor))
    return made


def _data(rig: Rig, rng: random.Random, add: Any, a_file: Any, few: int) -> None:
    for value in (NAN, INF, -INF, 1e20):
        for _ in range(max(1, few // 2)):
            add("pixel", f"file of {value}", "data", file=FileFault(a_file(), "image", value))
    if rig.setting.task == "classify":
        return
    labels = [
        ("class", 99.0),
        ("class", -1.0),
        ("class", NAN),
        ("box", NAN),
        ("box", INF),
        ("box", 1e30),
        ("box", -5.0),
    ]
    for kind, value in labels:
        for _ in range(max(1, few // 2)):
            file = a_file()
            count = len(rig.dataset.labels[rig.files.index(file)]["cls"])
            add("label", f"{kind} {value}", "data", file=FileFault(file, kind, value, rng.randrange(count)))


def _weights(rng: random.Random, names: list[str], modules: dict[str, nn.Module], add: Any, few: int) -> None:
    for place in ("weight", "running_var"):
        having = [n for n in names if isinstance(getattr(modules[n], place, None), Tensor)]
        if place == "weight":
            having = [n for n in having if modules[n].weight.requires_grad]  # pyright: ignore
        for value in (NAN, INF, -INF, 1e30):
            for name in spread(having, max(1, few // 2), rng):
                add("weights", f"{place} {value}", "weights", model=Fault(place, value, since=0, module=name))


def _loss(rig: Rig, rng: random.Random, add: Any) -> None:
    criterion: Any = rig.model.criterion
    parts = vars(criterion) if not isinstance(criterion, nn.Module) else {}
    for name, part in parts.items():
        if (
            isinstance(part, nn.Module) and name != "assigner"
        ):  # whose numbers are indices: a loss that reads them raises
            for kind in rng.sample(FORWARD, 2):
                fault = LayerFault(kind, "")
                module = f"<{type(part).__name__}>"
                add("loss", f"{kind} in the loss", "undecided", model=fault, where=name, module=module)


def _precision(
    rig: Rig, rng: random.Random, names: list[str], modules: dict[str, nn.Module], add: Any, few: int
) -> None:
    convolutions = [n for n in names if isinstance(modules[n], nn.Conv2d)]
    for name in spread(convolutions, 2 * few, rng):
        add("precision", f"cancel in {rig.setting.precision}", "precision", model=LayerFault("cancel", name))
    if rig.setting.precision == "float16":
        for name in spread(convolutions, 2 * few, rng):
            add("precision", "overflow of float16", "precision", model=LayerFault("overflow-half", name))
        for name in spread([n for n in convolutions if n.endswith(".conv")], 2 * few, rng):
            add("precision", "weights too large for float16", "precision", model=Grown(name))
    for kind in ("divide", "sqrt", "root", "function"):
        for name in spread(names, few // 2 or 1, rng):
            group = "backward" if kind in BACKWARD else "forward"
            add(group, f"{kind}, always", "undecided", model=LayerFault(kind, name))
