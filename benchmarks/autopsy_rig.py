"""A guarded trainer that is fed batches one at a time, as Ultralytics' loop does it, and what it finds out about the bad ones.

Everything between the batch and the incident is the package's own: the traced data set with its mosaics, ``preprocess_batch``,
the scaler that asks the guard, the rejection, ``look_into``. Only the loop around it is here.
"""

from __future__ import annotations

import hashlib
import random
import statistics
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from yolo_stable.data.builtin import make
from yolo_stable.incidents.forward import AMP
from yolo_stable.incidents.record import Incident
from yolo_stable.trainer import incident_service as looking_into
from yolo_stable.trainer.incident_service import IncidentService
from yolo_stable.trainer.trainers import TRAINERS

from .autopsy_settings import ALWAYS, SETTINGS, network

IMGSZ, BATCH, IMAGES = 64, 4, 32


@dataclass
class Answer:
    """What a run said about one bad batch."""

    incident: Incident
    seconds: float
    """Of the autopsy: from the symptom to the report."""
    folder: Path | None = None
    """Its bundle."""


@dataclass
class Heard:
    """What came out of the feeding of one window."""

    answers: list[Answer] = field(default_factory=list)
    escalations: list[Incident] = field(default_factory=list)
    seconds: float = 0.0


class Listener:
    """Stands in the place of ``IncidentService.record``: hears each incident, and has one written where it is asked for.

    Args:
        service: Of a trainer.
    """

    def __init__(self, service: IncidentService) -> None:
        self.service, self.record = service, service.record
        self.heard = Heard()
        self.bundle_to: Path | None = None

    def __call__(self, found: Incident) -> None:
        """Take an incident."""
        if found.seen is None:
            self.heard.escalations.append(found)
            return
        self.heard.answers.append(Answer(found, LAST["seconds"], self.bundle_to))
        if self.bundle_to is not None:
            folder, self.bundle_to = self.bundle_to, None
            holder: Any = self.service.folder
            holder.next_folder = lambda: folder
            self.record(found)


LAST = {"seconds": 0.0}
"""What the last autopsy took."""


@contextmanager
def clocked() -> Iterator[None]:
    """Measure each autopsy for a time."""
    own = looking_into.examine

    def examine(*args: Any, **kwargs: Any) -> Any:
        begun = time.perf_counter()
        try:
            return own(*args, **kwargs)
        finally:
            LAST["seconds"] = time.perf_counter() - begun

    looking_into.examine = examine
    try:
        yield
    finally:
        looking_into.examine = own


def seed_all(seed: int) -> None:
    """Seed Python, NumPy and torch."""
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed)


class Rig:
    """One guarded trainer, trained for a few steps.

    Args:
        name: A key of ``SETTINGS``.
        folder: For data, networks and runs.
        warm: Healthy windows before anything is broken.
        imgsz: Side of the images, in pixels.
        batch: Images of a micro-batch.
        model: A network's YAML; None: a narrow one.
        guard: Settings of the guard; None: every incident is looked into, and nothing follows from it.
    """

    def __init__(
        self,
        name: str,
        folder: Path,
        *,
        warm: int = 24,
        imgsz: int = IMGSZ,
        batch: int = BATCH,
        model: str | None = None,
        guard: Mapping[str, Any] | None = None,
    ) -> None:
        self.name, self.setting = name, SETTINGS[name]
        task = self.setting.task
        data_task = "detect" if task == "rtdetr" else task
        data = make("shapes", task=data_task, cache=folder, train=IMAGES, val=4, imgsz=imgsz)
        patient = {"incidents": 10**6, "quarantine": False, "max_consecutive": 10**6, "max_total": 10**9}
        overrides: dict[str, Any] = {
            "model": model or str(network(folder, name, task)),
            "data": str(data),
            "imgsz": imgsz,
            "batch": batch,
            "nbs": batch * self.setting.accumulate,
            "epochs": 100,
            "optimizer": "SGD",
            "lr0": 0.01,
            "warmup_epochs": 0,
            "amp": False,
            "device": "cpu",
            "plots": False,
            "verbose": False,
            "project": str(folder / "runs"),
            "name": name.replace(" ", "-"),
            "exist_ok": True,
            "guard": dict(patient if guard is None else guard),
            **(ALWAYS if task != "classify" else {}),
            **dict(self.setting.changes),
        }
        seed_all(0)
        self.trainer: Any = TRAINERS[task](overrides=overrides)
        service = self.trainer.services.incidents
        self.listener = service.record = Listener(service)
        self.trainer._setup_train()
        self.trainer.epoch = 0
        self.trainer.run_callbacks("on_train_start")
        self.trainer.run_callbacks("on_train_epoch_start")
        self.trainer._model_train()
        self.trainer.optimizer.zero_grad()
        self._set_precision()
        self.times: list[float] = []
        self._drawn = 0
        for _ in range(warm):
            self.healthy()
        del self.times[:2]  # they build state and caches
        self._keep()

    def close(self) -> None:
        """Close the files of the run."""
        self.trainer.services.ending.close_books("interrupted", "that was all")

    @property
    def model(self) -> nn.Module:
        """The network."""
        return self.trainer.model

    @property
    def dataset(self) -> Any:
        """The traced training data."""
        return self.trainer.train_loader.dataset

    @property
    def files(self) -> list[str]:
        """The image files of the training data."""
        data = self.dataset
        return list(getattr(data, "im_files", None) or [sample[0] for sample in data.samples])

    def draw(self, seed: int) -> dict[str, Any]:
        """Return a batch as the loader makes it, of images chosen by the seed."""
        seed_all(seed)
        data = self.dataset
        chosen = random.sample(range(len(data)), self.trainer.batch_size)
        collate = self.trainer.train_loader.collate_fn
        return collate([data[i] for i in chosen])

    def feed(self, *batches: dict[str, Any]) -> Heard:
        """Give the trainer a window of micro-batches, and return what it said."""
        trainer: Any = self.trainer
        self.listener.heard = Heard()
        begun = time.perf_counter()
        for batch in batches:
            trainer.run_callbacks("on_train_batch_start")
            dtype = AMP[self.setting.precision]
            with torch.amp.autocast("cpu", dtype=dtype, enabled=dtype is not None):
                ready = trainer.preprocess_batch(batch)
                loss, trainer.loss_items = trainer.model(ready)
                trainer.loss = loss.sum()
                trainer.tloss = trainer.loss_items
            trainer.scaler.scale(trainer.loss).backward()
        trainer.optimizer_step()
        self.listener.heard.seconds = time.perf_counter() - begun
        return self.listener.heard

    def healthy(self) -> Heard:
        """Train on a window of ordinary batches, and note how long it took."""
        self._drawn += 1
        batches = [self.draw(10_000_000 + 10 * self._drawn + n) for n in range(self.setting.accumulate)]
        heard = self.feed(*batches)
        self.times.append(heard.seconds)
        return heard

    @property
    def step_seconds(self) -> float:
        """Median time of a healthy window: forward, backward and optimizer step."""
        return statistics.median(self.times)

    def fingerprint(self) -> str:
        """Return a digest of the whole state of the training, and of the random number generators."""
        state = self.trainer.guard.state
        drawn = () if "multi_scale" in dict(self.setting.changes) else (random.getstate(),)  # it draws a size itself
        digest = hashlib.sha256(repr((drawn, np.random.get_state())).encode())
        generator = (
            () if self.setting.task == "rtdetr" else (("torch", torch.get_rng_state()),)
        )  # it draws boxes itself
        for name, tensor in [*sorted(state.live().items()), *generator]:
            digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
            digest.update(tensor.detach().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
        return digest.hexdigest()

    def _keep(self) -> None:
        state = self.trainer.guard.state
        aside, plain = state.aside()
        self._kept = {n: t.clone() for n, t in state.live().items()} | aside, plain
        self._counters = self.trainer.guard.state_dict()

    def go_back(self) -> None:
        """Put back the state from before the first fault, and train three steps, so that the snapshot is an older one."""
        guard = self.trainer.guard
        guard.abandon_window()
        guard.state.restore(*self._kept)
        guard.load_state_dict(self._counters)
        for _ in range(3):
            self.healthy()

    def _set_precision(self) -> None:
        """Train in half precision on the CPU, where Ultralytics itself would not."""
        precision = self.setting.precision
        if precision != "float32":
            self.trainer.amp = True
            self.trainer.args.amp = "bf16" if precision == "bfloat16" else True
