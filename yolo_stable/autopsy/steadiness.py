"""Steadiness: whether network and loss always give the same result for the same state and batch.

A layer with its own random generator, or a counter that no replay restores, gives another result each time on healthy hardware.
Then replays prove nothing.
"""

from __future__ import annotations

import hashlib
import math
import random
from collections.abc import Iterator, Mapping
from types import FunctionType, MethodType, ModuleType
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ..guard.untouched import device_of, untouched
from .case import AutopsyCase
from .replay import Replayer, ReplayOutcome

REPLAYS, MORE = 3, 8
"""Replays that must agree; the second number if something changes from call to call."""
CLOSE = 1e-4
"""Relative difference of losses that an accelerator may have, since its sums have no fixed order."""
MOST, DEEP, LARGE = 20_000, 6, 1 << 16
"""Limits: objects that are inspected, their depth, and elements of a compared array."""
OURS = ("torch.", "ultralytics.", "numpy.", "builtins")
"""Modules whose functions keep nothing between calls."""
_HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")


def fickle(case: AutopsyCase, player: Replayer, *, sick: bool) -> str:
    """Replay a case, and say what differs between replays; empty if they agree, or time is up.

    With ``sick``, the replays so far were sick, perhaps by chance.

    Syncs: as the replays.
    """
    before = _kept(case.model)
    outcomes = [player.play(case, backward=player.seen.backward)]
    changed = sorted(name for name, value in _kept(case.model).items() if before.get(name, value) != value)
    for number in range(1, MORE if changed else REPLAYS):
        outcomes.append(_with_other_numbers(case, player, number))
    known = [outcome for outcome in outcomes if not outcome.error]
    signs = {outcome.sick for outcome in known}
    if sick and signs == {True}:
        return ""
    if len(signs) > 1 or (known and signs == {not sick}):
        return f"{sum(bool(o.sick) for o in known)} of {len(known)} further replays of the same batch were sick"
    if changed:
        return f"{changed[0]} is another one after each pass, and no replay puts it back"
    apart = _apart(known, case.images.device)
    return f"the same batch on the same state has given losses from {apart[0]:.6g} to {apart[1]:.6g}" if apart else ""


def _with_other_numbers(case: AutopsyCase, player: Replayer, number: int) -> ReplayOutcome:
    """Replay with other global random numbers: a case that restores its own does not care."""
    with untouched(case.model, device_of(case.model)):
        random.seed(number)
        np.random.seed(number)
        torch.manual_seed(number)
        return player.play(case, backward=player.seen.backward)


def _apart(outcomes: list[ReplayOutcome], device: torch.device) -> tuple[float, float] | None:
    losses = [outcome.loss for outcome in outcomes if outcome.loss is not None and math.isfinite(outcome.loss)]
    if len(losses) < 2:
        return None
    low, high = min(losses), max(losses)
    allowed = 0.0 if device.type == "cpu" and torch.get_num_threads() == 1 else CLOSE * max(abs(low), abs(high))
    return (low, high) if high - low > allowed else None


def _kept(model: nn.Module) -> dict[str, Any]:
    """Return what is kept between calls outside parameters and buffers: numbers and generator states by name."""
    found: dict[str, Any] = {}
    seen: set[int] = set()
    for name, module in model.named_modules():
        for path, value in _walk(name or type(module).__name__, module, seen, 0):
            found[path] = value
            if len(found) >= MOST:
                return found
    return found


def _walk(path: str, thing: Any, seen: set[int], depth: int) -> Iterator[tuple[str, Any]]:
    if isinstance(thing, (bool, int, float, str, type(None))):
        yield path, repr(thing)
        return
    if id(thing) in seen or depth > DEEP or len(seen) > MOST:
        return
    seen.add(id(thing))
    if isinstance(thing, torch.Generator):
        yield f"the generator {path}", _digest(thing.get_state().numpy().tobytes())
    elif isinstance(thing, np.random.Generator):
        yield f"the generator {path}", repr(thing.bit_generator.state)
    elif isinstance(thing, (np.random.RandomState, random.Random)):
        state = thing.getstate() if isinstance(thing, random.Random) else thing.get_state()
        yield f"the generator {path}", _digest(repr(state).encode())
    elif isinstance(thing, (Tensor, np.ndarray)):
        yield from _array(path, thing)
    elif isinstance(thing, nn.Module):
        plain = {k: v for k, v in vars(thing).items() if k not in {"_parameters", "_buffers", "_modules", "training"}}
        hooks = {k: list(plain.pop(k).values()) for k in _HOOKS if k in plain}
        own = not type(thing).__module__.startswith(OURS)
        parts = {**plain, **hooks, **({"forward": type(thing).forward} if own else {})}
        yield from _items(path, parts, seen, depth)
    elif isinstance(thing, Mapping):
        yield from _items(path, {str(key): value for key, value in list(thing.items())[:1000]}, seen, depth)
    elif isinstance(thing, (list, tuple, set, frozenset)):
        yield from _items(path, {str(i): value for i, value in enumerate(list(thing)[:1000])}, seen, depth)
    elif isinstance(thing, MethodType):
        yield from _items(path, {"": thing.__func__, "self": thing.__self__}, seen, depth)
    elif isinstance(thing, FunctionType):
        if not (thing.__module__ or "").startswith(OURS):
            yield from _items(path, _of_function(thing), seen, depth)
    elif hasattr(thing, "__next__"):
        return  # inspecting it would advance it
    elif isinstance(getattr(thing, "__dict__", None), dict) and not _is_library(thing):
        yield from _items(path, vars(thing), seen, depth)


def _is_library(thing: Any) -> bool:
    return isinstance(thing, (type, ModuleType)) or type(thing).__module__.startswith(("torch", "numpy"))


def _items(path: str, parts: Mapping[str, Any], seen: set[int], depth: int) -> Iterator[tuple[str, Any]]:
    for key, value in parts.items():
        yield from _walk(f"{path}.{key}" if key else path, value, seen, depth + 1)


def _of_function(function: FunctionType) -> dict[str, Any]:
    """Return the closure of a function, and the globals that it names."""
    names = function.__code__.co_freevars
    cells = {name: cell for name, cell in zip(names, function.__closure__ or (), strict=False)}
    held = {name: cell.cell_contents for name, cell in cells.items() if _is_filled(cell)}
    used = {name: function.__globals__[name] for name in function.__code__.co_names if name in function.__globals__}
    return {**used, **held, "defaults": function.__defaults__}


def _is_filled(cell: Any) -> bool:
    try:
        return cell.cell_contents is not None
    except ValueError:
        return False


def _array(path: str, thing: Any) -> Iterator[tuple[str, Any]]:
    size = thing.numel() if isinstance(thing, Tensor) else thing.size
    if size > LARGE or (isinstance(thing, Tensor) and (thing.device.type == "meta" or thing.is_sparse)):
        return
    values = (
        thing.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy() if isinstance(thing, Tensor) else thing
    )
    if values.dtype != object:
        yield path, _digest(np.ascontiguousarray(values).tobytes())


def _digest(content: bytes) -> str:
    return hashlib.blake2b(content, digest_size=16).hexdigest()
