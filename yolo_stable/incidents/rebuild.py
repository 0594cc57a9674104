"""Rebuild: describes an Ultralytics model in plain values for an incident, and builds it from them again, without pickle.

The code that built the model in the run builds it again from the same YAML, after ``yaml_allowlist.py`` accepted this YAML and
the meta device sized the model without memory; then each number goes to its place. Description and state may come from a
stranger.
"""

from __future__ import annotations

import contextlib
import copy
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from ultralytics.nn import tasks
from ultralytics.nn.modules import Conv
from ultralytics.utils import IterableSimpleNamespace
from ultralytics.utils.torch_utils import initialize_weights

from .._shared.system import memory_of_machine
from ..autopsy.bundle import BundleError
from ..autopsy.exact_json import pack, unpack
from ..guard.wrappers import plain_modules, plain_name, plainly_named, unwrap
from .attributes import differing, is_plain, set_attributes
from .own_layers import is_own, known, own_layers
from .yaml_allowlist import checked

CLASSES = {
    name: getattr(tasks, name)
    for name in (
        "DetectionModel",
        "SegmentationModel",
        "PoseModel",
        "OBBModel",
        "ClassificationModel",
        "RTDETRDetectionModel",
        "SemanticSegmentationModel",
        "DepthModel",
    )
}
"""Models that can be rebuilt."""
PREFIX = "model/"
"""Prefix of the model's own tensors in a `TrainingState`."""
CRITERION = "criterion"
"""Where a model keeps its loss, made on first use; RT-DETR's is a module, without numbers."""
MOST_OPERATIONS = 100_000
"""Most operations of a pass; Ultralytics' largest networks take some thousands."""
SPARE = 4
"""Bytes of all results of a pass, as a multiple of the machine's memory: most are not kept until its end."""
_INSTEAD = "The answer from the run is in incident.json."


def describe_model(model: nn.Module) -> dict[str, Any]:
    """Describe a model without its parameters and buffers, in values for JSON that :func:`rebuild_model` takes.

    This builds the model once more, without memory for its numbers, and notes the difference: attributes that training has set.

    Args:
        model: Of Ultralytics, wrapped (``DistributedDataParallel``, ``torch.compile``) or not.

    Raises:
        BundleError: It cannot be built again; says why.
    """
    model = unwrap(model)
    kind = type(model).__name__
    if CLASSES.get(kind) is not type(model):
        raise BundleError(
            f"A {type(model).__module__}.{kind} cannot be built from an incident, only {', '.join(CLASSES)}. {_INSTEAD}"
        )
    own = own_layers(getattr(model, "yaml", None))
    yaml = checked(getattr(model, "yaml", None), own)
    with _refusing(), _without_numbers():  # a user's own layers may refuse the meta device
        fresh = _built(kind, yaml)
    modules = {name: module for name, module in plain_modules(model) if name.split(".")[0] != CRITERION}
    types = {name: _type(module) for name, module in modules.items()}
    _require_same(types, {name: _type(module) for name, module in fresh.named_modules()})
    twins = dict(fresh.named_modules())
    attributes = {name: differing(module, twins[name]) for name, module in modules.items()}
    updates = getattr(getattr(model, "criterion", None), "updates", None)
    arguments = getattr(model, "args", None) or {}
    arguments = arguments if isinstance(arguments, Mapping) else vars(arguments)
    return {
        "class": kind,
        "yaml": yaml,
        "own": sorted(own),
        "types": types,
        "attributes": {name: found for name, found in attributes.items() if found},
        "args": {k: pack(v, {}, k) for k, v in arguments.items() if is_plain(v) and not isinstance(v, Tensor)},
        "updates": updates if isinstance(updates, int) else None,
        "training": model.training,
        "otherwise": [name for name, module in modules.items() if module.training != model.training],
        "frozen": [n for n, parameter in plainly_named(model.named_parameters()) if not parameter.requires_grad],
    }


class OwnLayersError(BundleError):
    """A network has a user's own layers that are unknown here."""

    def __init__(self, message: str, names: tuple[str, ...] = ()) -> None:
        super().__init__(message)
        self.names = names


def rebuild_model(
    description: Any,
    state: Mapping[str, Tensor],
    *,
    images: Sequence[int] | None = None,
    own: Mapping[str, type[nn.Module]] | None = None,
) -> nn.Module:
    """Build a described model on the CPU, with each number of the state.

    This draws no random number, and leaves Ultralytics' own settings alone.

    Args:
        description: From :func:`describe_model`; may come from a stranger.
        state: Tensors of a `TrainingState`; the model takes those named ``model/...``, not copies.
        images: Shape of the batch (B, C, H, W), if known: to refuse a network whose pass over it would far exceed this machine's
            memory.
        own: Layers that the user has named, by their names in the YAML; their code is run.

    Raises:
        OwnLayersError: The network has layers that are not among ``own``.
        BundleError: It cannot be built, or does not fit the state; nothing larger than the state was built.
    """
    if not isinstance(description, dict) or description.get("class") not in list(CLASSES):
        kind = description.get("class") if isinstance(description, dict) else description
        raise BundleError(f"A {kind!r:.80} cannot be built from an incident, only {', '.join(CLASSES)}. {_INSTEAD}")
    own = _own(description.get("own", []), own or {})
    kind, yaml = description["class"], checked(description.get("yaml"), own)
    numbers = {plain_name(name.removeprefix(PREFIX)): t for name, t in state.items() if name.startswith(PREFIX)}
    with _refusing(), known(own):
        with _without_numbers(numbers):
            fresh = _built(kind, yaml)
        _require_same(description.get("types"), {name: _type(module) for name, module in fresh.named_modules()})
        _require_fit(fresh, numbers)
        set_attributes(fresh, description.get("attributes"))
        if images is not None:
            _require_memory(fresh, images)
        with torch.device("cpu"), torch.random.fork_rng(devices=[]), _ultralytics_untouched():
            model = _built(kind, yaml)
        set_attributes(model, description.get("attributes"))
        _load(model, numbers)
        _set_flags(model, description)
        arguments = description.get("args")
        if not isinstance(arguments, dict) or not all(key.isidentifier() for key in arguments):
            raise ValueError("its arguments are not named values")
        model.args = IterableSimpleNamespace(**{key: unpack(value, {}) for key, value in arguments.items()})
        updates = description.get("updates")
        if updates is not None:
            _set_updates(model, updates)
    return model


def _own(names: Any, given: Mapping[str, type[nn.Module]]) -> dict[str, type[nn.Module]]:
    """Return the user's own layers of a network; all of them have to be given."""
    if not isinstance(names, list) or not all(isinstance(name, str) and name.isidentifier() for name in names):
        raise BundleError(f"The model cannot be built from this incident: its own layers are not named. {_INSTEAD}")
    missing = tuple(name for name in names if name not in given)
    if missing:
        raise OwnLayersError(f"Not known here, as they are not Ultralytics': the layers {', '.join(missing)}.", missing)
    return {name: given[name] for name in names}


def _built(kind: str, yaml: dict[str, Any]) -> Any:
    """Build a model as its class does, without the pass that finds its strides: they are attributes here."""
    model = CLASSES[kind].__new__(CLASSES[kind])
    nn.Module.__init__(model)
    model.yaml = copy.deepcopy(yaml)
    model.model, model.save = tasks.parse_model(copy.deepcopy(yaml), ch=yaml["channels"], verbose=False)
    model.names = {i: str(i) for i in range(yaml["nc"])}
    model.inplace = yaml.get("inplace", True)
    if kind != "ClassificationModel":
        initialize_weights(model)
    return model


@contextlib.contextmanager
def _ultralytics_untouched() -> Iterator[None]:
    """Restore what building a model changes in the process: the activation, and marks on classes of heads."""
    heads: list[Any] = [c for c in vars(tasks).values() if isinstance(c, type) and issubclass(c, nn.Module)]
    marks = [(c, vars(c).get("legacy")) for c in heads]
    activation = Conv.default_act
    try:
        yield
    finally:
        Conv.default_act = activation
        for head, mark in marks:
            if mark is not None:
                head.legacy = mark
            elif "legacy" in vars(head):
                del head.legacy


@contextlib.contextmanager
def _without_numbers(numbers: Mapping[str, Tensor] | None = None) -> Iterator[None]:
    """Build on the ``meta`` device, at most several times as much as a state has."""
    most = math.inf if numbers is None else 10_000_000 + 16 * sum(tensor.numel() for tensor in numbers.values())
    parts = math.inf if numbers is None else 5_000 + 64 * len(numbers)
    with torch.device("meta"), torch.random.fork_rng(devices=[]), _ultralytics_untouched(), _Meter(most, parts):
        yield


class _Meter(TorchDispatchMode):
    """Counts tensors and their numbers, and stops a network that is far larger than its state."""

    def __init__(self, most: float, parts: float) -> None:
        super().__init__()
        self.numbers, self.parts, self.most, self.most_parts = 0, 0, most, parts

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        made = func(*args, **(kwargs or {}))
        self.parts += 1
        self.numbers += made.numel() if isinstance(made, Tensor) else 0
        if self.numbers > self.most or self.parts > self.most_parts:
            raise _TooLargeError("its network is far larger than its state")
        return made


class _TooLargeError(ValueError):
    """A network, or a pass through it, is larger than it may be."""


def _require_memory(model: nn.Module, images: Sequence[int]) -> None:
    """Pass images through a model on the meta device, and add up the results of its operations."""
    most = SPARE * memory_of_machine() / 4
    try:
        with torch.device("meta"), torch.no_grad(), _Meter(most, MOST_OPERATIONS):
            model.train()(torch.empty(tuple(images)))
    except _TooLargeError as error:
        memory = memory_of_machine() / 2**30
        raise ValueError(
            f"a pass of its batch needs far more than the {memory:.0f} GiB of this machine, or {MOST_OPERATIONS:,} operations"
        ) from error
    except (RuntimeError, TypeError, IndexError):  # an operation that reads numbers ends the count
        return


@contextlib.contextmanager
def _refusing() -> Iterator[None]:
    try:
        yield
    except BundleError:
        raise
    except Exception as error:
        what = " ".join(str(error).split())[:300]
        raise BundleError(f"The model cannot be built from this incident: {what}. {_INSTEAD}") from error


def _type(module: nn.Module) -> str:
    if is_own(type(module)):  # imported under another name, it is the same
        return type(module).__qualname__
    return f"{type(module).__module__}.{type(module).__qualname__}"


def _require_same(theirs: Any, mine: dict[str, str]) -> None:
    if not isinstance(theirs, dict):
        raise ValueError("its modules are missing")
    if theirs != mine:
        wrong = next(name for name in sorted({*mine, *theirs}) if mine.get(name) != theirs.get(name))
        raise BundleError(
            f"The model cannot be built from its YAML: {wrong!r:.100} is {theirs.get(wrong, 'missing')!r:.100}, and"
            f" {mine.get(wrong, 'missing')!r:.100} when built again; it was changed afterwards. {_INSTEAD}"
        )


def _tensors(model: nn.Module) -> dict[str, Tensor]:
    """Return parameters and all buffers, as `TrainingState` names them."""
    return {**dict(model.named_parameters()), **dict(model.named_buffers())}


def _require_fit(model: nn.Module, numbers: Mapping[str, Tensor]) -> None:
    mine = {name: tuple(t.shape) for name, t in _tensors(model).items()}
    theirs = {name: tuple(t.shape) for name, t in numbers.items()}
    if mine != theirs:
        wrong = next(name for name in sorted({*mine, *theirs}) if mine.get(name) != theirs.get(name))
        raise ValueError(
            f"shape of {wrong!r:.100}: {theirs.get(wrong, 'missing')} in the state, {mine.get(wrong, 'missing')} in the model"
        )
    for name, tensor in _tensors(model).items():
        if tensor.is_floating_point() != numbers[name].is_floating_point():
            raise ValueError(f"dtype of {name!r:.100}: {numbers[name].dtype} in the state, {tensor.dtype} in the model")


def _load(model: nn.Module, numbers: Mapping[str, Tensor]) -> None:
    for name, tensor in _tensors(model).items():
        tensor.data = numbers[name]  # in place: what is tied stays tied


def _set_flags(model: nn.Module, description: Mapping[str, Any]) -> None:
    training, otherwise, frozen = (description.get(key) for key in ("training", "otherwise", "frozen"))
    if not isinstance(training, bool) or not isinstance(otherwise, list) or not isinstance(frozen, list):
        raise ValueError("it lacks what was trained")
    model.train(training)
    modules, parameters = dict(model.named_modules()), dict(model.named_parameters())
    for name in otherwise:
        modules[name].training = not training
    for name, parameter in parameters.items():
        parameter.requires_grad_(name not in frozen and parameter.is_floating_point())


def _set_updates(model: Any, updates: Any) -> None:
    """Bring the schedule of YOLO26's loss to where it was."""
    if type(updates) is not int or not 0 <= updates <= 1_000_000:
        raise ValueError(f"its loss was updated {updates!r:.40} times")
    model.criterion = model.init_criterion()
    if updates and hasattr(model.criterion, "update"):
        model.criterion.updates = updates - 1
        model.criterion.update()
