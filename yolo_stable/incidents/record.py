"""Incident record: the batch, the circumstances, and what goes to the disk."""

from __future__ import annotations

import dataclasses
import math
import platform
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import psutil
import torch
from torch import Tensor, nn

from .._shared.numbers import number
from .._shared.system import installed_versions
from ..autopsy.advice import CALMER
from ..autopsy.flags import flags
from ..autopsy.report import AutopsyReport, Sample
from ..autopsy.symptom import Symptom
from ..guard import Decision, Escalation, EscalationLevel
from ..guard.generators import GeneratorStates
from ..guard.state import TrainingState
from ..guard.wrappers import plainly_named
from ..provenance.recipe import Provenance

ROW_NEXT = "The incidents and guard.jsonl, just before this, say what was wrong with each batch."
"""After rejections in a row, which say nothing of the training itself."""


@dataclass(frozen=True, slots=True)
class ImageNames:
    """The image files of a micro-batch, one of each image without its partners, computed on demand."""

    provenance: tuple[Provenance, ...] = ()
    """Of each image; empty for a data set that is not traced."""
    said: tuple[str, ...] = ()
    """The file names in the batch itself."""

    def __iter__(self) -> Iterator[str]:
        if not self.provenance:
            yield from map(str, self.said)
        for one in self.provenance:
            yield from one.files()[:1]


@dataclass(slots=True)
class DrawnBatch:
    """One micro-batch as the model got it."""

    number: int
    """Of the batch in its epoch, from 1."""
    labels: dict[str, Tensor]
    """As drawn, with those that no loss can use."""
    names: ImageNames = ImageNames()
    batch: dict[str, Any] = field(default_factory=dict)
    fault: str = ""
    """What was wrong with its labels."""
    generators: GeneratorStates | None = None

    @property
    def provenance(self) -> tuple[Provenance, ...]:
        """Of each image; empty for a data set that is not traced."""
        return self.names.provenance

    @property
    def nbytes(self) -> int:
        """Bytes of its tensors."""
        return sum(value.numel() * value.element_size() for value in self.batch.values() if isinstance(value, Tensor))

    def as_drawn(self) -> dict[str, Any]:
        """Return the batch with its labels as drawn, if the loss could not use them."""
        if not self.fault:
            return self.batch
        return {**self.batch, **{key: value.to(self.batch["img"].device) for key, value in self.labels.items()}}


@dataclass(frozen=True, kw_only=True, slots=True)
class Circumstances:
    """Where a run was, and how it computed."""

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
    """One unhealthy event, with the answer of its autopsy."""

    kind: str
    """``micro_batch`` or ``window`` (rejected), ``validation`` (of healthy weights, not finite), or the level of an escalation:
    ``repair``, ``roll_back``, ``lower_precision``, ``halt``."""
    reason: str
    report: AutopsyReport
    where: Circumstances
    loss: float | None = None
    items: Mapping[str, float] = field(default_factory=dict)
    norm: float | None = None
    culprits: tuple[str, ...] = ()
    drawn: DrawnBatch | None = None
    """The batch, if one belongs to the event."""
    seen: Symptom | None = None
    validated: nn.Module | None = None
    """The model of a validation; None for a training batch."""
    healed: bool = False
    """Whether the guard restores a ruined state."""
    injected: tuple[str, ...] = ()
    """Injected faults that had fired before."""
    injected_now: tuple[str, ...] = ()
    """Injected faults that fired in this event."""

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
        """Return the digests for a replay in another process; without gradients if none were computed."""
        if self.report.location is None or self.seen is None:
            return {}
        went_back = self.seen.backward or not self.seen.signs & {"loss", "buffers", "jump"}
        return {k: v for k, v in self.report.location.digests.items() if k != "gradients" or went_back}


def symptom_of(decision: Decision, fault: str, scale: float) -> Symptom:
    """Return the symptom of a rejected batch, with the fault of its labels and the loss scale."""
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
    """Return the symptom from the record of an incident, without missing values or those of another type."""
    items = {str(k): value for k, v in mapping(record.get("items")).items() if (value := number(v)) is not None}
    culprits = record.get("culprits")
    scale = number(record.get("loss_scale"))
    return Symptom(
        kind="window" if record.get("kind") == "window" else "micro_batch",
        reason=str(record.get("reason", "")),
        loss=number(record.get("loss")),
        items=items,
        norm=number(record.get("norm")),
        scale=scale if scale is not None and math.isfinite(scale) and scale > 0 else 1.0,
        culprits=tuple(map(str, culprits)) if isinstance(culprits, list) else (),
        fault=str(record.get("label_fault", "")),
        digests={str(k): str(v) for k, v in mapping(record.get("digests")).items()},
    )


def state_before(state: TrainingState, generators: GeneratorStates) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Return the state that a batch met: weights, buffers, optimizer, loss scale and generators, without the EMA.

    Args:
        state: The training state, without a trace of the batch.
        generators: From before the forward pass.
    """
    tensors = {name: tensor for name, tensor in state.live().items() if not name.startswith("ema/")}
    drawn, plain_of_generators = generators.state()
    _, plain = state.aside()
    return {**tensors, **drawn}, {**plain, "rng": plain_of_generators}


def state_validated(model: nn.Module, generators: GeneratorStates) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Return the weights and buffers of a validation, named as in a training state, and the generators."""
    drawn, plain_of_generators = generators.state()
    tensors = {
        f"model/{name}": t.detach() for name, t in plainly_named((*model.named_parameters(), *model.named_buffers()))
    }
    return {**tensors, **drawn}, {"rng": plain_of_generators}


def report_of_escalation(escalation: Escalation) -> AutopsyReport:
    """Return the report of an escalation, without a replay."""
    damage = [str(one) for one in escalation.damage]
    neighbours = [name for one in escalation.damage for name in one.neighbours]
    if damage:
        first = escalation.damage[0]
        part, _, name = first.name.partition("/")
        what = f"{'' if part == 'model' else f'({part}) '}{name.rpartition('.')[2]} was {first.value:.4g}"
        why = "the state held numbers that no training step produces; it was rolled back to a snapshot"
        once = "Once may be an accident of the memory. If it comes again, test the device:\nyolo-stable validate"
        evidence = {"what": what, "why": why, "damage": damage, "healthy_neighbours": neighbours}
        module = name.rpartition(".")[0] if part in ("model", "ema") else first.name
        return AutopsyReport(cause="weights", phase="state", module=module, evidence=evidence, next=once)
    halted = escalation.level is EscalationLevel.HALT
    if not escalation.diverged:
        what = "was ended" if halted else "was rolled back to a snapshot"
        return AutopsyReport(
            phase="state", evidence={"what": what, "why": escalation.reason, "halted": halted}, next=ROW_NEXT
        )
    return AutopsyReport(
        cause="optimisation",
        phase="step",
        evidence={"what": "diverged", "why": escalation.reason, "halted": halted},
        next=f"{'If' if halted else 'The guard has rolled back and goes on. If'} it comes again, {CALMER}",
    )


def memory(device: torch.device) -> dict[str, float]:
    """Return MiB of the process, and of torch on an accelerator (0 if it cannot say).

    Syncs: none.
    """
    module: Any = getattr(torch, device.type, None)
    held = module.memory_allocated(device) if device.type != "cpu" and hasattr(module, "memory_allocated") else 0
    return {"process": round(psutil.Process().memory_info().rss / 2**20, 1), "device": round(held / 2**20, 1)}


def versions() -> dict[str, str]:
    """Return the versions of Python, of packages, and of CUDA or HIP."""
    packages = ("torch", "ultralytics", "yolo-stable", "numpy", "albumentations", "opencv-python")
    found = {"python": platform.python_version(), **installed_versions(*packages)}
    for name, value in (("cuda", torch.version.cuda), ("hip", torch.version.hip)):
        if value:
            found[name] = str(value)
    return found


def boxes_of(sample: Sample, provenance: Provenance | None) -> list[int]:
    """Return the boxes of a training image that come from a guilty label row."""
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


def mapping(value: Any) -> Mapping[str, Any]:
    """Return a mapping as it is, and an empty one for anything else."""
    return value if isinstance(value, Mapping) else {}
