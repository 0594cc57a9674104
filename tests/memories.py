"""Losses that keep something from batch to batch, one kind of keeping each, for the tests of the memory."""

from __future__ import annotations

import collections
import dataclasses
import types
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn


class Loss:
    """Weighs a loss by what it has seen of the losses before; a kind says how it remembers."""

    def __init__(self) -> None:
        self.begin()

    def __call__(self, raw: Tensor) -> Tensor:
        """Return the weighted loss; what is remembered is without a graph."""
        weight = 1.0 / (1.0 + self.level())
        self.keep(raw.detach())
        return raw * weight

    def begin(self) -> None:
        raise NotImplementedError

    def level(self) -> Any:
        """Return a number that depends on all batches so far."""
        raise NotImplementedError

    def keep(self, loss: Tensor) -> None:
        raise NotImplementedError


class Number(Loss):
    def begin(self) -> None:
        self.mean, self.calls = 1.0, 0

    def level(self) -> Any:
        return self.mean + self.calls

    def keep(self, loss: Tensor) -> None:
        self.mean, self.calls = 0.9 * self.mean + 0.1 * float(loss), self.calls + 1


class NumPyNumber(Number):
    def keep(self, loss: Tensor) -> None:
        self.mean = np.float64(0.9 * self.mean + 0.1 * float(loss))


class TensorAnew(Loss):
    def begin(self) -> None:
        self.mean = torch.tensor(1.0)

    def level(self) -> Any:
        return self.mean

    def keep(self, loss: Tensor) -> None:
        self.mean = 0.9 * self.mean + 0.1 * loss


class TensorInPlace(TensorAnew):
    def keep(self, loss: Tensor) -> None:
        self.mean = self.mean.clone() if self.mean.is_inference() else self.mean
        self.mean.mul_(0.9).add_(loss, alpha=0.1)

    def level(self) -> Any:
        return self.mean.clone()  # the graph keeps what it computes with


class TensorBehindItsVersion(TensorInPlace):
    def keep(self, loss: Tensor) -> None:
        self.mean.data.mul_(0.9).add_(loss, alpha=0.1)


class Array(Loss):
    def begin(self) -> None:
        self.means = np.ones(3)

    def level(self) -> Any:
        return float(self.means.mean())

    def keep(self, loss: Tensor) -> None:
        self.means[1:] = self.means[:-1]
        self.means[0] = float(loss)


class ArrayOfATensor(Array):
    """Written through NumPy, as the tensor's version does not say."""

    def begin(self) -> None:
        self.held = torch.ones(3)
        self.means = self.held.numpy()


class Deque(Loss):
    def begin(self) -> None:
        self.last: collections.deque[float] = collections.deque([1.0], maxlen=3)

    def level(self) -> Any:
        return sum(self.last)

    def keep(self, loss: Tensor) -> None:
        self.last.append(float(loss))


class ListOfTensors(Loss):
    def begin(self) -> None:
        self.seen: list[Tensor] = []

    def level(self) -> Any:
        return torch.stack(self.seen).mean() if self.seen else 1.0

    def keep(self, loss: Tensor) -> None:
        self.seen.append(loss)
        del self.seen[:-5]
        self.seen[0].mul_(0.5)


class Nested(Loss):
    def begin(self) -> None:
        self.by_name: dict[str, Any] = {"iou": {"mean": 1.0, "history": [1.0]}, "n": 0}

    def level(self) -> Any:
        return self.by_name["iou"]["mean"] + self.by_name["n"] + len(self.by_name)

    def keep(self, loss: Tensor) -> None:
        iou = self.by_name["iou"]
        iou["mean"] = 0.9 * iou["mean"] + 0.1 * float(loss)
        iou["history"].append(iou["mean"])
        self.by_name["n"] += 1
        self.by_name.setdefault(f"batch {self.by_name['n']}", {"loss": float(loss)})


class Dictionaries(Loss):
    def begin(self) -> None:
        self.sums: Any = collections.defaultdict(float, a=1.0)
        self.counts: Any = collections.Counter(a=1)
        self.order: Any = collections.OrderedDict(a=1, b=2)

    def level(self) -> Any:
        return self.sums["a"] / self.counts["a"] + next(iter(self.order.values()))

    def keep(self, loss: Tensor) -> None:
        self.sums["a"] += float(loss)
        self.sums[f"{len(self.sums)}"] = 0.0
        self.counts["a"] += 1
        self.order.move_to_end(next(iter(self.order)))


class SetAndBytes(Loss):
    def begin(self) -> None:
        self.seen: set[float] = {1.0}
        self.flags = bytearray(4)

    def level(self) -> Any:
        return sum(sorted(self.seen)) + self.flags[0]

    def keep(self, loss: Tensor) -> None:
        self.seen.add(round(float(loss), 6))
        self.flags[0] = (self.flags[0] + 1) % 7


class Mean:
    def __init__(self) -> None:
        self.value, self.count = 1.0, 0

    def add(self, number: float) -> None:
        self.count += 1
        self.value += (number - self.value) / self.count


class Objects(Loss):
    def begin(self) -> None:
        self.means = [Mean(), Mean()]
        self.shared = self.means[1]

    def level(self) -> Any:
        return self.means[0].value + self.shared.value

    def keep(self, loss: Tensor) -> None:
        self.means[0].add(float(loss))
        self.shared.add(2.0 * float(loss))


class ObjectsAnew(Objects):
    """The object is another after each batch."""

    def keep(self, loss: Tensor) -> None:
        mean = Mean()
        mean.value = 0.5 * self.means[0].value + 0.5 * float(loss)
        self.means = [mean, self.shared]


class Slotted:
    __slots__ = ("count", "value")

    def __init__(self) -> None:
        self.value = 1.0  # no count yet


class InSlots(Loss):
    __slots__ = ("inner",)

    def begin(self) -> None:
        self.inner = Slotted()

    def level(self) -> Any:
        return self.inner.value + getattr(self.inner, "count", 0)

    def keep(self, loss: Tensor) -> None:
        self.inner.value = 0.9 * self.inner.value + 0.1 * float(loss)
        self.inner.count = getattr(self.inner, "count", 0) + 1


@dataclasses.dataclass
class Levels:
    low: float = 1.0
    high: list[float] = dataclasses.field(default_factory=list)


class DataClassAndNamespace(Loss):
    def begin(self) -> None:
        self.levels = Levels()
        self.space = types.SimpleNamespace(mean=1.0, inner=types.SimpleNamespace(n=0))

    def level(self) -> Any:
        return self.levels.low + self.space.mean + self.space.inner.n

    def keep(self, loss: Tensor) -> None:
        self.levels.low = min(self.levels.low, float(loss))
        self.levels.high.append(float(loss))
        self.space.mean = 0.5 * self.space.mean + 0.5 * float(loss)
        self.space.inner.n += 1


class InATuple(Loss):
    """A tuple never changes, what is in it does."""

    def begin(self) -> None:
        self.parts = (Mean(), [1.0], torch.ones(2))

    def level(self) -> Any:
        return self.parts[0].value + self.parts[1][-1] + float(self.parts[2][0])

    def keep(self, loss: Tensor) -> None:
        self.parts[0].add(float(loss))
        self.parts[1].append(float(loss))
        self.parts[2][0] = loss


class ComesAndGoes(Loss):
    """An attribute that is made with the second batch, and taken away with the fourth."""

    def begin(self) -> None:
        self.calls = 0

    def level(self) -> Any:
        return getattr(self, "mean", 1.0) + self.calls

    def keep(self, loss: Tensor) -> None:
        self.calls += 1
        if self.calls % 4 == 2:
            self.mean = float(loss)
        elif self.calls % 4 == 0 and hasattr(self, "mean"):
            del self.mean


class InACircle(Loss):
    """Knows itself, and the model."""

    model: Any = None

    def begin(self) -> None:
        self.me, self.mean = self, 1.0
        self.ways = {"loss": self, "list": [self]}

    level = Number.level
    calls = 0

    def keep(self, loss: Tensor) -> None:
        self.mean = 0.9 * self.mean + 0.1 * float(loss)


class Several(Loss):
    def begin(self) -> None:
        self.losses = [Number(), Deque(), TensorAnew()]

    def level(self) -> Any:
        return sum(float(one.level()) for one in self.losses)

    def keep(self, loss: Tensor) -> None:
        for one in self.losses:
            one.keep(loss)


class ModuleLoss(nn.Module):
    """A loss that is a module: buffers, one written into and one made anew, a part, and a plain number."""

    plain: Tensor
    anew: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("plain", torch.ones(()))
        self.register_buffer("anew", torch.ones(()))
        self.norm = nn.BatchNorm1d(1, affine=False)
        self.calls = 0

    def forward(self, raw: Tensor) -> Tensor:
        weight = 1.0 / (1.0 + self.plain.clone() + self.anew + self.calls + self.norm.running_mean.sum())  # type: ignore[union-attr]
        with torch.no_grad():
            self.plain.mul_(0.9).add_(raw.detach(), alpha=0.1)
            self.anew = 0.5 * self.anew + 0.5 * raw.detach()
            self.norm(raw.detach() * torch.ones(2, 1))
        self.calls += 1
        return raw * weight


class LearningLoss(ModuleLoss):
    """One that learns as well."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(()))

    def forward(self, raw: Tensor) -> Tensor:
        return super().forward(raw) * torch.exp(-self.weight) + self.weight


KINDS: dict[str, Callable[[], Any]] = {
    kind.__name__: kind
    for kind in (
        Number, NumPyNumber, TensorAnew, TensorInPlace, TensorBehindItsVersion, Array, ArrayOfATensor, Deque, ListOfTensors,
        Nested, Dictionaries, SetAndBytes, Objects, ObjectsAnew, InSlots, DataClassAndNamespace, InATuple, ComesAndGoes,
        InACircle, Several, ModuleLoss, LearningLoss,
    )
}  # fmt: skip


def picture(value: Any, seen: dict[int, str] | None = None, path: str = "loss") -> Any:
    """Return all that an object keeps as plain values that can be compared; tensors by their numbers."""
    seen = {} if seen is None else seen
    if isinstance(value, (Tensor, np.ndarray)):
        return [
            str(value.dtype),
            [str(number) for number in np.asarray(value.detach() if isinstance(value, Tensor) else value).flatten()],
        ]
    if value is None or isinstance(
        value, (bool, int, float, str, bytes, bytearray, np.generic, type, types.FunctionType)
    ):
        return repr(value)
    if id(value) in seen:
        return f"as {seen[id(value)]}"
    seen[id(value)] = path
    found: list[Any] = [type(value).__name__]
    if isinstance(value, dict):
        found += [[repr(k), picture(v, seen, f"{path}[{k}]")] for k, v in value.items()]
    elif isinstance(value, (list, tuple, collections.deque)):
        found += [picture(v, seen, f"{path}[{i}]") for i, v in enumerate(value)]
    elif isinstance(value, set):
        found += sorted(map(repr, value))
    for base in type(value).__mro__:
        for name in [n for n in vars(base).get("__slots__", ()) if hasattr(value, n)]:
            found.append([name, picture(getattr(value, name), seen, f"{path}.{name}")])
    for name, part in getattr(value, "__dict__", {}).items():
        if name != "model":
            found.append([name, picture(part, seen, f"{path}.{name}")])
    return found
