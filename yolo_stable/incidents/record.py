"""Incident record: the batch that was drawn, the circumstances, and what is written to the disk."""

from __future__ import annotations

import dataclasses
import math
import platform
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from importlib import metadata
from typing import Any

import psutil
import torch
from torch import Tensor, nn

from .._shared.shell_text import AGAIN
from ..autopsy.flags import flags
from ..autopsy.report import AutopsyReport, Sample
from ..autopsy.symptom import Symptom
from ..guard import Climb, Decision, Rung
from ..guard.generators import Draw
from ..guard.state import TrainingState
from ..guard.wrappers import plainly_named
from ..provenance.recipe import Provenance

ROW_NEXT = (
    "What was wrong with the batches stands with each of them: in the incidents and in guard.jsonl, just before this."
)
"""After batches were rejected in a row, which tells nothing of the training itself."""


@dataclass(frozen=True, slots=True)
class ImageNames:
    """The image files of a micro-batch, worked out when somebody asks: of each image the sample itself, without partners."""

    provenance: tuple[Provenance, ...] = ()
    """Of each image; none of a data set that is not traced."""
    said: tuple[str, ...] = ()
    """What the batch itself says."""

    def __iter__(self) -> Iterator[str]:
        if not self.provenance:
            yield from map(str, self.said)
        for one in self.provenance:
            yield from one.files()[:1]


@dataclass(slots=True)
class Drawn:
    """One micro-batch as it went into the model."""

    number: int
    """Of the batch in its epoch, from 1."""
    labels: dict[str, Tensor]
    """As they were drawn: those that no loss can use are still in them."""
    names: ImageNames = ImageNames()
    batch: dict[str, Any] = field(default_factory=dict)
    fault: str = ""
    """What was wrong with its labels."""
    generators: Draw | None = None

    @property
    def provenance(self) -> tuple[Provenance, ...]:
        """Of each image; none of a data set that is not traced."""
        return self.names.provenance

    @property
    def nbytes(self) -> int:
        """Bytes of its tensors."""
        return sum(value.numel() * value.element_size() for value in self.batch.values() if isinstance(value, Tensor))

    def as_drawn(self) -> dict[str, Any]:
        """Return the batch with the labels that it was drawn with, where these could not be used."""
        if not self.fault:
            return self.batch
        return {**self.batch, **{key: value.to(self.batch["img"].device) for key, value in self.labels.items()}}


@dataclass(frozen=True, kw_only=True, slots=True)
class Circumstances:
    """Where a run was and how it computed when something happened."""

    epoch: int
    batch: int
    step: int
    rank: int
    device: str
    precision: str
    loss_scale: float
    learning_rates: tuple[float, ...]
    memory: Mapping[str, float]
    args: Mapping[str, Any]
    classes: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Incident:
    """One event that was not healthy, with what was found out about it."""

    kind: str
    """``micro_batch`` or ``window`` (rejected), ``validation`` (of healthy weights, not finite), or the rung of a climb:
    ``repair``, ``roll_back``, ``lower_precision``, ``halt``."""
    reason: str
    report: AutopsyReport
    where: Circumstances
    loss: float | None = None
    items: Mapping[str, float] = field(default_factory=dict)
    norm: float | None = None
    culprits: tuple[str, ...] = ()
    drawn: Drawn | None = None
    """The batch; None when it takes none to say what happened."""
    seen: Symptom | None = None
    validated: nn.Module | None = None
    """What a validation was of; None: it is of a training batch."""
    healed: bool = False
    """Whether the guard puts a state back whose numbers were ruined."""
    injected: tuple[str, ...] = ()
    """Faults that were put into the run on purpose and had fired before."""
    injected_now: tuple[str, ...] = ()
    """Those that have fired in what this is about."""

    def to_json(self) -> dict[str, Any]:
        """Return the record for ``incident.json``."""
        location = self.report.location
        drawn = self.drawn
        return {
            "kind": self.kind,
            "time": round(time.time(), 3),
            **dataclasses.asdict(self.where),
            "phase": self.report.phase,
            "reason": self.reason,
            "loss": self.loss,
            "items": dict(self.items),
            "norm": self.norm,
            "culprits": list(self.culprits),
            "not_finite": list(location.bad_gradients + location.bad_buffers)[:64] if location else [],
            "finite_neighbours": list(location.good_gradients)[:64] if location else [],
            "label_fault": drawn.fault if drawn else "",
            "files": sorted({file for one in drawn.provenance for file in one.files()}) if drawn else [],
            "provenance": [one.to_json() for one in drawn.provenance] if drawn else [],
            "versions": versions(),
            "platform": platform.platform(),
            "flags": flags(),
            "healed": self.healed,
            "injected": {"fired": list(self.injected), "now": list(self.injected_now)} if self.injected else {},
            "autopsy": self.report.to_json(),
            "digests": self._digests(),
        }

    def _digests(self) -> dict[str, str]:
        """Return what a replay in another process is compared with; without gradients where none were computed."""
        if self.report.location is None or self.seen is None:
            return {}
        went_back = self.seen.backward or not self.seen.signs & {"loss", "buffers", "jump"}
        return {k: v for k, v in self.report.location.digests.items() if k != "gradients" or went_back}


def symptom_of(decision: Decision, fault: str, scale: float) -> Symptom:
    """Return what was seen of a rejected batch.

    Args:
        decision: The guard's.
        fault: What was wrong with the labels.
        scale: The loss scale.
    """
    return Symptom(
        kind="micro_batch" if decision.norm is None else "window",
        reason=decision.reason,
        loss=decision.loss,
        items=dict(decision.items),
        norm=decision.norm,
        scale=scale,
        culprits=decision.culprits,
        fault=fault,
    )


def symptom_again(record: Mapping[str, Any]) -> Symptom:
    """Return what was seen, from the record of an incident; what is not there or of another type is left out."""
    numbers = {str(k): number for k, v in _mapping(record, "items").items() if (number := _number(v)) is not None}
    culprits = record.get("culprits")
    scale = _number(record.get("loss_scale"))
    return Symptom(
        kind="window" if record.get("kind") == "window" else "micro_batch",
        reason=str(record.get("reason", "")),
        loss=_number(record.get("loss")),
        items=numbers,
        norm=_number(record.get("norm")),
        scale=scale if scale is not None and math.isfinite(scale) and scale > 0 else 1.0,
        culprits=tuple(map(str, culprits)) if isinstance(culprits, list) else (),
        fault=str(record.get("label_fault", "")),
        digests={str(k): str(v) for k, v in _mapping(record, "digests").items()},
    )


def state_before(state: TrainingState, generators: Draw) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Return the state that a batch met: weights, buffers, optimizer, loss scale and generators, without the average.

    Args:
        state: Of the training, in which the batch has left no trace.
        generators: As they were before the forward pass.
    """
    tensors = {name: tensor for name, tensor in state.live().items() if not name.startswith("ema/")}
    drawn, plain_of_generators = generators.state()
    _, plain = state.aside()
    return {**tensors, **drawn}, {**plain, "rng": plain_of_generators}


def state_validated(model: nn.Module, generators: Draw) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Return the weights and buffers that a validation was of, named as those of a training state, and the generators."""
    drawn, plain_of_generators = generators.state()
    tensors = {
        f"model/{name}": t.detach() for name, t in plainly_named((*model.named_parameters(), *model.named_buffers()))
    }
    return {**tensors, **drawn}, {"rng": plain_of_generators}


def report_of_climb(climb: Climb) -> AutopsyReport:
    """Return what is known of a climb without a replay."""
    damage = [str(one) for one in climb.damage]
    neighbours = [name for one in climb.damage for name in one.neighbours]
    if damage:
        first = climb.damage[0]
        part, _, name = first.name.partition("/")
        what = f"{'' if part == 'model' else f'({part}) '}{name.rpartition('.')[2]} was {first.value:.4g}"
        why = "numbers that no training step puts there were in the state; it was put back to a snapshot"
        once = "Once may be an accident of the memory.\nAgain: ask whether the device computes rightly:\nyolo-stable validate"
        evidence = {"what": what, "why": why, "damage": damage, "healthy_neighbours": neighbours}
        module = name.rpartition(".")[0] if part in ("model", "ema") else first.name
        return AutopsyReport(cause="weights", phase="state", module=module, evidence=evidence, next=once)
    halted = climb.rung is Rung.HALT
    if not climb.diverged:
        what = "was ended" if halted else "was put back to a snapshot"
        return AutopsyReport(
            phase="state", evidence={"what": what, "why": climb.reason, "halted": halted}, next=ROW_NEXT
        )
    lower = f"{'Lower' if halted else 'The guard has gone back and goes on. If it comes again, lower'} the learning rate (lr0=)."
    return AutopsyReport(
        cause="optimisation",
        phase="step",
        evidence={"what": "went astray in its training", "why": climb.reason, "halted": halted},
        next=f"{lower}\nOr take a calmer preset:\n{AGAIN} --preset cautious",
    )


def memory(device: torch.device) -> dict[str, float]:
    """Return MiB that the process takes, and that torch holds on an accelerator (0 where it cannot say).

    Syncs: none.
    """
    module: Any = getattr(torch, device.type, None)
    held = module.memory_allocated(device) if device.type != "cpu" and hasattr(module, "memory_allocated") else 0
    return {"process": round(psutil.Process().memory_info().rss / 2**20, 1), "device": round(held / 2**20, 1)}


def versions() -> dict[str, str]:
    """Return the versions of what computed."""
    found = {"python": platform.python_version()}
    for name in ("torch", "ultralytics", "yolo-stable", "numpy", "albumentations", "opencv-python"):
        if any(True for _ in metadata.distributions(name=name)):
            found[name] = metadata.version(name)
    for name, value in (("cuda", torch.version.cuda), ("hip", torch.version.hip)):
        if value:
            found[name] = str(value)
    return found


def boxes_of(sample: Sample, provenance: Provenance | None) -> list[int]:
    """Return which boxes of a training image a guilty label row is behind."""
    if provenance is None or sample.label_row is None:
        return []
    sources = provenance.sources
    return [
        position
        for position, origin in enumerate(provenance.rows)
        if origin is not None and origin[1] == sample.label_row and sources[origin[0]].index == sample.index
    ]


def plain_args(args: Any) -> dict[str, Any]:
    """Return Ultralytics' arguments as plain values."""
    return {key: _plain(value) for key, value in vars(args).items()}


def _plain(value: Any) -> Any:
    if isinstance(value, (list, tuple)):
        return [_plain(one) for one in value]
    return value if value is None or isinstance(value, (bool, int, float, str)) else str(value)


def _mapping(record: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    value = record.get(key)
    return value if isinstance(value, Mapping) else {}


def _number(value: Any) -> float | None:
    """Read a number; those that JSON cannot say are words."""
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
        return None
    try:
        return float(value)
    except ValueError:
        return None
