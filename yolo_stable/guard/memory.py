"""Memory: copies and restores what a loss, or another object beside the model, keeps from batch to batch.

A loss may weigh its terms by a running mean. One NaN batch stays in that mean, however well the model is guarded. So the memory
walks through all objects reachable from the loss once, and after that copies only what has changed: attributes, lists,
dictionaries, sets, deques, slots, tensors and arrays, however nested.

It leaves out the model's own parameters and statistics, which are guarded elsewhere; the trainer and its arguments; optimizers,
data sets, loggers; and random number generators, as a rejected batch was drawn all the same.

Each object has a holder (``holders.py``) that copies one level of it. Identity tells what has changed, and a tensor's version
where only torch or Ultralytics writes to it. A stock loss takes 11 to 34 holders, no operation on the device and no read. The
memory does not cover plain attributes that somebody puts on a module of torch or Ultralytics itself.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from torch import Tensor, nn
from torch.optim import Optimizer

from .holders import CriterionPlace, Holder, Numbers, OwnAttributes, Registered, holders_of, is_atom, is_of_a_library
from .wrappers import unwrap

CRITERION = "criterion"
"""Where Ultralytics' models keep their loss."""
MOST_HOLDERS = 20_000
"""Most objects in a memory; more are something else."""
MOST_BYTES = 2**28
"""Larger tensors and arrays are left out."""
STAYS = ": what a rejected batch leaves there stays"
Kept = list[tuple[Holder, Any]]
"""A copy of everything: each holder with what it held."""


class Memory:
    """What the loss of a model and other objects keep.

    It covers the loss (``criterion``) of each module, buffers that are no running statistics, plain attributes of modules whose
    class is neither torch's nor Ultralytics', and all objects of ``beside``.

    Only what a micro-batch changes is memory. A change between two micro-batches, by a callback or by Ultralytics'
    ``criterion.update()`` after each epoch, follows the loop: no rejection and no rollback undoes it.

    Args:
        model: The trained model, wrapped or not.
        beside: Other objects that keep something, by name.
        tell: Called once for each part that cannot be copied.
    """

    def __init__(
        self,
        model: nn.Module,
        beside: Mapping[str, Any] | None = None,
        tell: Callable[[str], None] | None = None,
    ) -> None:
        self.model, self.beside, self._tell = unwrap(model), dict(beside or {}), tell
        self._told: set[str] = set()
        self._holders: list[Holder] = []
        self._open: list[Numbers] = []
        """Tensors whose versions may miss a write."""
        self._known: dict[int, list[Holder]] = {}
        self._excluded: set[int] = set()
        self._walked = 0
        self.optimizer: Optimizer | None = None
        """Steps the parameters of a loss that learns: these are part of the state, not memory."""
        self._is_told = self._under_way = False
        """Whether the loop announces micro-batches, and whether one has begun."""
        self.resync()

    # ---- the way of a micro-batch ----------------------------------------------------------------------------------------

    def before_forward(self) -> None:
        """Begin a micro-batch: changes since the last one are the loop's, and no rejection undoes them.

        Syncs: none.
        """
        self._is_told = self._under_way = True
        self._follow_loop()

    def accept(self) -> None:
        """Accept what the micro-batch has changed.

        Syncs: none.
        """
        self._under_way = False
        for holder in self._open:
            if holder.has_moved():
                holder.inner.add(None)
                holder.kept = holder.read()
        for holder in self._holders:
            if not holder.is_as(holder.kept):
                holder.inner |= holder.changed(holder.kept)
                holder.kept = holder.read()
                known = len(self._holders)
                self._look_into(holder)
                if not isinstance(holder, CriterionPlace):  # all that a batch has made is memory
                    for made in self._holders[known:]:
                        made.inner |= made.keys()

    def reject(self) -> None:
        """Restore what the micro-batch met.

        Syncs: none.
        """
        self._under_way = False
        stepped = self._stepped()
        for holder in self._holders:
            if id(holder.held) in stepped:
                continue
            if not holder.is_as(holder.kept) or holder in self._open:
                holder.write(holder.kept)
                holder.settle(holder.kept)

    def commit(self) -> None:
        """Begin the next window with what the last micro-batch left."""
        for holder in self._holders:
            holder.start = holder.kept
        if len(self._holders) > 2 * self._walked + 64:  # drop objects that are gone
            self.resync()

    def undo_window(self) -> None:
        """Restore what the window met.

        Syncs: none.
        """
        if self._is_told and not self._under_way:
            self._follow_loop()
        self._under_way = False
        stepped = self._stepped()
        for holder in self._holders:
            if id(holder.held) in stepped:
                continue
            if holder.start is not holder.kept or not holder.is_as(holder.kept) or holder in self._open:
                holder.write(holder.start)
                holder.settle(holder.start)
                holder.start = holder.kept

    def before_replay(self) -> None:
        """Accept changes since the last micro-batch as the loop's, before a replay of it.

        Syncs: none.
        """
        self._follow_loop()

    def settle(self) -> None:
        """Note that a replay has written into the objects and restored all numbers.

        Syncs: none.
        """
        for holder in self._holders:
            if isinstance(holder, Numbers):
                same = holder.start is holder.kept
                holder.settle(holder.kept)
                holder.start = holder.kept if same else holder.start

    # ---- snapshots -------------------------------------------------------------------------------------------------------

    def capture(self) -> Kept:
        """Return a copy of everything; unchanged parts are shared with earlier copies.

        Syncs: none.
        """
        self._follow_loop()
        return [(holder, holder.kept) for holder in self._holders]

    def restore(self, kept: Kept, *, whole: bool = False) -> None:
        """Restore a copy.

        Args:
            kept: From :meth:`capture`.
            whole: Restore everything. If not, only what micro-batches have changed: what follows the loop stays, and newer
                objects return to their earliest known content.

        Syncs: none.
        """
        stepped = set() if whole else self._stepped()
        copies = {_key(holder): content for holder, content in kept}
        holders = {_key(holder): holder for holder in (*(h for h, _ in kept), *self._holders)}
        for key, holder in holders.items():
            if whole and key in copies:
                holder.write(copies[key])
            elif (
                not whole and holder.inner and not isinstance(holder, CriterionPlace) and id(holder.held) not in stepped
            ):
                content = copies.get(key, holder.first)
                follows = bool(holder.outer - holder.inner)
                holder.write(holder.merged(holder.read(), content, holder.inner) if follows else content)
        self.resync()

    # ---- what is in it ---------------------------------------------------------------------------------------------------

    def holders(self) -> dict[str, list[Holder]]:
        """Return all holders, by path."""
        found: dict[str, list[Holder]] = {}
        for holder in self._holders:
            found.setdefault(holder.path, []).append(holder)
        return found

    def learned(self) -> Iterator[Holder]:
        """Yield what micro-batches have changed, without the model's own state."""
        stepped = self._stepped()
        for holder in self._holders:
            if holder.inner and not (
                holder.is_of_model or isinstance(holder, CriterionPlace) or id(holder.held) in stepped
            ):
                yield holder

    def again(self) -> Memory:
        """Return a memory of the same objects with current paths: an object that moved in a list still has its old one.

        Syncs: none.
        """
        known = {_key(holder): holder.inner for holder in self._holders}
        made = Memory(self.model, self.beside)
        for holder in made._holders:
            holder.inner = known.get(_key(holder), set())
        return made

    def say(self, what: str) -> None:
        """Report what is left alone, each thing once."""
        if self._tell is not None and what not in self._told:
            self._told.add(what)
            self._tell(what)

    # ---- looking through -------------------------------------------------------------------------------------------------

    def resync(self) -> None:
        """Walk through everything again, and begin a window with it as it is.

        Syncs: none.
        """
        before = {_key(holder): holder for holder in self._holders}
        self._holders, self._open, self._known = [], [], {}
        own = list(_own_modules(self.model))
        self._excluded = {id(module) for _, module in own}
        for path, module in own:
            if hasattr(type(module), "init_criterion") or CRITERION in vars(module) or CRITERION in module._modules:
                self._add([CriterionPlace(module, f"{path}.{CRITERION}".lstrip("."))])
            trusted = is_of_a_library(type(module))
            if module._buffers and "running_mean" not in module._buffers:
                self._add([Registered(module, "_buffers", path, is_of_model=True)])
                for key, buffer in module._buffers.items():
                    if buffer is not None and not is_atom(buffer):
                        name = f"{path}.{key}".lstrip(".")
                        self._add([Numbers(buffer, name, is_of_model=True)], trusted=trusted)
            if not trusted:
                self._add([OwnAttributes(module, path)])
        for holder in list(self._holders):
            if not holder.is_of_model:
                self._look_into(holder)
        for name, value in self.beside.items():
            self._look_at(name, value, trusted=False)
        for holder in self._holders:
            if (old := before.get(_key(holder))) is not None:
                holder.inner, holder.outer, holder.first = old.inner, old.outer, old.first
        self._walked = len(self._holders)

    def _stepped(self) -> set[int]:
        groups = () if self.optimizer is None else self.optimizer.param_groups
        return {id(parameter) for group in groups for parameter in group["params"]}

    def _follow_loop(self) -> None:
        for holder in self._holders:
            if not holder.is_as(holder.kept):
                keys = holder.changed(holder.kept)
                holder.outer |= keys
                same, holder.kept = holder.start is holder.kept, holder.read()
                holder.start = holder.kept if same else holder.merged(holder.start, holder.kept, keys)
                self._look_into(holder)

    def _look_into(self, holder: Holder) -> None:
        for _, path, value in list(holder.parts()):
            self._look_at(path, value, trusted=is_of_a_library(type(holder.held)))

    def _look_at(self, path: str, value: Any, *, trusted: bool) -> None:
        """Walk through an object and all that it leads to."""
        waiting = [(path, value, trusted)]
        while waiting:
            path, value, trusted = waiting.pop()
            if isinstance(value, (tuple, frozenset)):
                waiting += [(f"{path}[{i}]", one, trusted) for i, one in enumerate(value)]
                continue
            if id(value) in self._known or id(value) in self._excluded or is_atom(value):
                continue
            if len(self._holders) >= MOST_HOLDERS:
                self.say(f"{path} leads to more than {MOST_HOLDERS:,} objects{STAYS}")
                return
            try:
                made = None if _bytes(value) > MOST_BYTES else holders_of(value, path)
            except (RuntimeError, TypeError, ValueError, MemoryError):
                made = None
            if made is None:
                self.say(f"{path} is a {type(value).__name__} that cannot be copied{STAYS}")
                continue
            if not isinstance(value, Tensor) and type(value).__module__ not in {"builtins", "collections"}:
                # Torch writes running statistics without a new version.
                statistics = isinstance(value, nn.Module) and "running_mean" in value._buffers
                trusted = is_of_a_library(type(value)) and not statistics
            self._add(made, trusted=trusted)
            waiting += [(name, part, trusted) for holder in made for _, name, part in holder.parts()]

    def _add(self, holders: list[Any], *, trusted: bool = True) -> None:
        for holder in holders:
            self._known.setdefault(id(holder.held), []).append(holder)
            self._holders.append(holder)
            if isinstance(holder, Numbers) and not trusted:
                self._open.append(holder)


def _own_modules(model: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """Yield the modules of a model with their paths, without those of its loss."""
    for name, module in model.named_modules():
        if CRITERION not in name.split("."):
            yield name, module


def _key(holder: Holder) -> tuple[int, type]:
    return id(holder.held), type(holder)


def _bytes(value: Any) -> int:
    return value.numel() * value.element_size() if isinstance(value, Tensor) else getattr(value, "nbytes", 0)
