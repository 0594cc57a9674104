"""What people do to a trainer in honest trainings: another order of the data, callbacks, subclasses."""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable, Iterable, Iterator, Sequence
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
import ultralytics.engine.trainer as loop
from torch import nn
from torch.utils.data import Sampler, WeightedRandomSampler
from ultralytics.data.build import InfiniteDataLoader

Habit = Callable[[Any], None]
"""Is given a trainer before it trains."""
Subclass = Callable[[type], type]
"""Makes a trainer of one's own out of Ultralytics' or the guarded one."""


class Stopped(Exception):  # noqa: N818 - nothing is wrong: somebody has pulled the plug
    """The process would be gone now."""


class Order(Sampler[int]):
    """Draws the samples in an order that may be exchanged between two epochs."""

    def __init__(self, numbers: Iterable[int]) -> None:
        self.numbers = list(numbers)

    def __len__(self) -> int:
        return len(self.numbers)

    def __iter__(self) -> Iterator[int]:
        return iter(self.numbers)


def sampled(make: Callable[[int], Any]) -> Subclass:
    """Return what makes a trainer whose training samples are drawn by another sampler.

    Args:
        make: Is given the number of pictures and returns a sampler.
    """

    def subclass(base: type) -> type:
        class Sampled(base):  # type: ignore[misc]
            def get_dataloader(
                self, dataset_path: str, batch_size: int = 16, rank: int = 0, mode: str = "train"
            ) -> Any:
                loader = super().get_dataloader(dataset_path, batch_size, rank, mode)
                if mode != "train":
                    return loader
                data = loader.dataset
                how = {"batch_size": min(batch_size, len(data)), "sampler": make(len(data)), "num_workers": 0}
                return InfiniteDataLoader(data, collate_fn=data.collate_fn, **how)

        return Sampled

    return subclass


in_order = sampled(lambda count: Order(range(count)))
"""By name, as the files lie."""


def weighted(count: int) -> Any:
    """Return a sampler that draws the first quarter four times as often."""
    weights = [4.0 if number < count // 4 else 1.0 for number in range(count)]
    return WeightedRandomSampler(weights, count, generator=torch.Generator().manual_seed(0))


def on(event: str, act: Habit) -> Habit:
    """Return the habit of doing something at an event of the loop."""
    return lambda trainer: trainer.add_callback(event, act)


def both(*habits: Habit) -> Habit:
    """Return several habits as one."""

    def all_of_them(trainer: Any) -> None:
        for habit in habits:
            habit(trainer)

    return all_of_them


def at_epoch(epoch: int, act: Habit, event: str = "on_train_epoch_start") -> Habit:
    """Return the habit of doing something once, at an epoch from 0."""
    return on(event, lambda trainer: act(trainer) if trainer.epoch == epoch else None)


def curriculum(stages: Sequence[Sequence[int]], epochs: int) -> Habit:
    """Return the habit of drawing other pictures every few epochs; as many in each, as the loop counts them once."""

    def choose(trainer: Any) -> None:
        stage = min(trainer.epoch // epochs, len(stages) - 1)
        if trainer.epoch % epochs == 0:
            trainer.train_loader.sampler.numbers = list(stages[stage])
            trainer.train_loader.reset()

    return on("on_train_epoch_start", choose)


def learning_rate(at: Callable[[int], float | None]) -> Habit:
    """Return the habit of setting the learning rate by hand.

    Args:
        at: The rate of an epoch from 0; None: that of the schedule.
    """

    def apply(trainer: Any) -> None:
        rate = at(trainer.epoch)
        for group in trainer.optimizer.param_groups:
            group["lr"] = group["lr"] if rate is None else rate

    return on("on_train_batch_start", apply)


def frozen(layers: tuple[str, ...], until: int) -> Habit:
    """Return the habit of training only the head at first."""

    def choose(trainer: Any) -> None:
        for name, parameter in trainer.model.named_parameters():
            if name.startswith(layers):
                parameter.requires_grad = trainer.epoch >= until

    return on("on_train_epoch_start", choose)


def still_statistics(trainer: Any) -> None:
    """Keep the running statistics of BatchNorm as they are."""
    for module in trainer.model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.eval()


def draw_numbers(_: Any) -> None:
    """Draw from all generators, as loggers and augmentations of one's own do."""
    random.random()
    np.random.rand()
    torch.rand(1)


def bigger_pictures(trainer: Any) -> None:
    """Go on with pictures of twice the size."""
    trainer.args.imgsz *= 2
    trainer.train_loader = trainer.get_dataloader(trainer.data["train"], trainer.batch_size, -1, "train")


def other_pictures(folder: str) -> Habit:
    """Return the act of going on with the pictures of another folder."""

    def exchange(trainer: Any) -> None:
        trainer.train_loader = trainer.get_dataloader(folder, trainer.batch_size, -1, "train")

    return exchange


def small_gradients(trainer: Any) -> None:
    """Let hooks make all gradients a hundred times smaller."""
    for parameter in trainer.model.parameters():
        if parameter.requires_grad:
            parameter.register_hook(lambda gradient: gradient * 0.01)


def other_optimizer(trainer: Any) -> None:
    """Take an optimizer of one's own instead of the loop's."""
    groups = [{**group, "param_group": group.get("param_group")} for group in trainer.optimizer.param_groups]
    kept = ("params", "lr", "weight_decay", "initial_lr", "param_group")
    trainer.optimizer = torch.optim.Adagrad([{key: group[key] for key in kept if key in group} for group in groups])
    trainer.scheduler.optimizer = trainer.optimizer


def parameter_of_its_own(trainer: Any) -> None:
    """Give the optimizer a parameter that is not the model's, as learned weights of losses are."""
    parameter = nn.Parameter(torch.ones(3))
    trainer.optimizer.add_param_group({"params": [parameter], "lr": 0.01, "initial_lr": 0.01})
    trainer.scheduler.base_lrs.append(0.01)
    trainer.scheduler.lr_lambdas.append(trainer.lf)
    on("on_train_batch_start", lambda _: setattr(parameter, "grad", torch.ones(3)))(trainer)


def average_follows_fast(trainer: Any) -> None:
    """Let the averaged model follow at once."""
    trainer.ema.decay = lambda updates: 0.5


def scripted_clock(_: Any) -> None:
    """Let the loop see a clock that moves by the same at each look, so that ``time=`` means the same in two runs."""
    ticks = itertools.count()
    loop.time = SimpleNamespace(time=lambda: 0.01 * next(ticks))  # type: ignore[assignment]


def pull_the_plug(trainer: Any) -> None:
    """End the process, so to speak."""
    raise Stopped


def normalised(base: type) -> type:
    """Return a trainer that subtracts a mean from the pixels and divides by their spread."""

    class Normalised(base):  # type: ignore[misc]
        def preprocess_batch(self, batch: dict[str, Any]) -> dict[str, Any]:
            batch = super().preprocess_batch(batch)
            batch["img"] = (batch["img"] - 0.45) / 0.225
            return batch

    return Normalised


def inverted(base: type) -> type:
    """Return a trainer that shows every second batch as a negative."""

    class Inverted(base):  # type: ignore[misc]
        shown = 0

        def preprocess_batch(self, batch: dict[str, Any]) -> dict[str, Any]:
            batch = super().preprocess_batch(batch)
            self.shown += 1
            batch["img"] = 1.0 - batch["img"] if self.shown % 2 else batch["img"]
            return batch

    return Inverted


def louder_later(base: type) -> type:
    """Return a trainer that multiplies the loss by a hundred from epoch 5 on."""

    class Louder(base):  # type: ignore[misc]
        def preprocess_batch(self, batch: dict[str, Any]) -> dict[str, Any]:
            criterion = getattr(self.model, "criterion", None)
            if self.epoch >= 5 and criterion is not None:
                criterion.hyp.box, criterion.hyp.cls = 750.0, 50.0
            return super().preprocess_batch(batch)

    return Louder
