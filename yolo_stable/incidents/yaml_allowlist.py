"""YAML allowlist: accepts a stranger's list of layers only if every value is one of a known layer.

Ultralytics builds a network by evaluating its YAML: names of modules, an activation as Python code, and sizes. The allowlist
decides by the values alone, without running any of it, whether that is safe.
"""

from __future__ import annotations

import ast
import math
import re
from collections.abc import Collection
from typing import Any

from ..autopsy.bundle import BundleError

LAYERS = frozenset(
    [
        "AIFI",
        "AConv",
        "ADown",
        "A2C2f",
        "Bottleneck",
        "BottleneckCSP",
        "C1",
        "C2",
        "C2f",
        "C2fCIB",
        "C2fPSA",
        "C2PSA",
        "C3",
        "C3Ghost",
        "C3k2",
        "C3TR",
        "C3x",
        "CBFuse",
        "CBLinear",
        "Classify",
        "Concat",
        "Conv",
        "ConvTranspose",
        "Depth",
        "Detect",
        "DWConv",
        "DWConvTranspose2d",
        "ELAN1",
        "Focus",
        "GhostBottleneck",
        "GhostConv",
        "HGBlock",
        "HGStem",
        "OBB",
        "OBB26",
        "Pose",
        "Pose26",
        "PSA",
        "RepC3",
        "RepConv",
        "RepNCSPELAN4",
        "ResNetLayer",
        "RTDETRDecoder",
        "SCDown",
        "Segment",
        "Segment26",
        "SemanticSegment",
        "SPP",
        "SPPELAN",
        "SPPF",
        "v10Detect",
    ]
)
"""Layers of Ultralytics' own networks; none reads a file, uses the network or takes code."""
TORCH_LAYERS = frozenset(
    [
        "AvgPool2d",
        "BatchNorm2d",
        "Conv2d",
        "ConvTranspose2d",
        "Dropout",
        "Identity",
        "MaxPool2d",
        "Upsample",
        "ZeroPad2d",
    ]
)
ACTIVATIONS = frozenset(
    [
        "CELU",
        "ELU",
        "GELU",
        "Hardshrink",
        "Hardsigmoid",
        "Hardswish",
        "Hardtanh",
        "Identity",
        "LeakyReLU",
        "LogSigmoid",
        "Mish",
        "PReLU",
        "ReLU",
        "ReLU6",
        "SELU",
        "SiLU",
        "Sigmoid",
        "Softplus",
        "Softshrink",
        "Softsign",
        "Tanh",
        "Tanhshrink",
    ]
)
WORDS = frozenset({"nc", "kpt_shape", "reg_max", "end2end", "None", "True", "False", "nearest", "bilinear"})
"""Text allowed in a layer's arguments: names of values in the same YAML, constants, and kinds of interpolation."""
MOST_LAYERS, MOST_REPEATS, MOST_SIZE, MOST_CLASSES = 500, 200, 16384, 100_000
_SCALE_NAME = re.compile(r"[A-Za-z0-9_]{1,16}")
_WORD = re.compile(r"[A-Za-z0-9_]{1,40}")
"""Text allowed in the arguments of a user's own layer: no path and no code."""


def checked(yaml: Any, own: Collection[str] = ()) -> dict[str, Any]:
    """Return a copy of a network's YAML with only the values that building reads, all within bounds.

    Args:
        yaml: A ``model.yaml`` from JSON.
        own: Layers that the user knows, beside Ultralytics'.

    Raises:
        BundleError: A value is not known to be safe, or out of bounds; nothing has been run.
    """
    _require(isinstance(yaml, dict), "network", yaml, "the YAML of a network")
    good: dict[str, Any] = {
        "nc": _number(yaml.get("nc"), "nc", 1, MOST_CLASSES, whole=True),
        "channels": _number(yaml.get("channels", 3), "channels", 1, 1024, whole=True),
        "backbone": [_layer(row, f"backbone {i}", own) for i, row in enumerate(_rows(yaml, "backbone"))],
        "head": [_layer(row, f"head {i}", own) for i, row in enumerate(_rows(yaml, "head"))],
    }
    for key in ("depth_multiple", "width_multiple"):
        if key in yaml:
            good[key] = _number(yaml[key], key, 0.001, 16)
    if yaml.get("reg_max") is not None:
        good["reg_max"] = _number(yaml["reg_max"], "reg_max", 1, 256, whole=True)
    for key in ("end2end", "inplace"):
        if yaml.get(key) is not None:
            _require(isinstance(yaml[key], bool), key, yaml[key], "true or false")
            good[key] = yaml[key]
    if yaml.get("kpt_shape") is not None:
        shape = yaml["kpt_shape"]
        _require(isinstance(shape, (list, tuple)) and len(shape) == 2, "kpt_shape", shape, "two numbers")
        good["kpt_shape"] = [_number(n, "kpt_shape", 1, 1024, whole=True) for n in shape]
    if yaml.get("activation"):
        good["activation"] = _activation(yaml["activation"])
    if yaml.get("scales"):
        good["scales"] = _scales(yaml["scales"])
        scale = yaml.get("scale") or next(iter(good["scales"]))
        _require(isinstance(scale, str) and scale in good["scales"], "scale", scale, "one of scales")
        good["scale"] = scale
    elif isinstance(yaml.get("scale"), str) and _SCALE_NAME.fullmatch(yaml["scale"]):
        good["scale"] = yaml["scale"]  # some layers ask for it
    if isinstance(yaml.get("yaml_file"), str):
        good["yaml_file"] = yaml["yaml_file"][:1000]
    return good


def _rows(yaml: dict[str, Any], key: str) -> list[Any]:
    rows = yaml.get(key)
    known = isinstance(rows, list) and len(rows) <= MOST_LAYERS and (len(rows) > 0 or key == "head")
    _require(known, key, rows, f"a list of at most {MOST_LAYERS} layers")
    return list(rows or ())


def _layer(row: Any, where: str, own: Collection[str]) -> list[Any]:
    _require(isinstance(row, (list, tuple)) and len(row) == 4, where, row, "[from, repeats, module, arguments]")
    source, repeats, module, arguments = row
    sources = source if isinstance(source, (list, tuple)) else [source]
    _require(0 < len(sources) <= 64, where, source, "where its input comes from")
    sources = [_number(n, where, -MOST_LAYERS, MOST_LAYERS, whole=True) for n in sources]
    known = isinstance(module, str) and (
        module in LAYERS or module in own or (module.startswith("nn.") and module[3:] in TORCH_LAYERS | ACTIVATIONS)
    )
    if not known:
        raise BundleError(
            f"The network cannot be built again: {where} is {module!r:.80}, and only layers of Ultralytics' own networks may come"
            " from an incident. The answer from the run is in incident.json."
        )
    _require(isinstance(arguments, (list, tuple)) and len(arguments) <= 16, where, arguments, "a list of arguments")
    return [
        sources if isinstance(source, (list, tuple)) else sources[0],
        _number(repeats, where, 1, MOST_REPEATS, whole=True),
        module,
        [_argument(value, where, own=module in own) for value in arguments],
    ]


def _argument(value: Any, where: str, depth: int = 0, *, own: bool = False) -> Any:
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, str) and own and _WORD.fullmatch(value):
        return value
    if isinstance(value, str):
        _require(value in WORDS, where, value, f"one of {', '.join(sorted(WORDS))}")
        return value
    if isinstance(value, (list, tuple)):
        _require(depth < 2 and len(value) <= 32, where, value, "a short list")
        return [_argument(part, where, depth + 1, own=own) for part in value]
    return _number(value, where, -MOST_SIZE, MOST_SIZE)


def _scales(scales: Any) -> dict[str, list[Any]]:
    _require(isinstance(scales, dict) and len(scales) <= 32, "scales", scales, "a few scales")
    good = {}
    for name, scale in scales.items():
        named = isinstance(name, str) and _SCALE_NAME.fullmatch(name) is not None
        _require(
            named and isinstance(scale, (list, tuple)) and len(scale) == 3, "scales", name, "[depth, width, channels]"
        )
        depth, width = (_number(n, "scales", 0.001, 16) for n in scale[:2])
        good[name] = [depth, width, _number(scale[2], "scales", 1, 4 * MOST_SIZE)]
    return good


def _activation(text: Any) -> str:
    """Return a call of an activation class with numbers as arguments, written again from its parts."""
    expected = "an activation of torch.nn, such as nn.SiLU()"
    _require(isinstance(text, str) and len(text) <= 100, "activation", text, expected)
    match = re.fullmatch(r"\s*(?:torch\.)?nn\.(\w+)\(([\w\s=.,+-]*)\)\s*", text, re.ASCII)
    _require(match is not None and match[1] in ACTIVATIONS, "activation", text, expected)
    assert match is not None
    try:
        call = ast.parse(f"f({match[2]})", mode="eval").body
        assert isinstance(call, ast.Call)
        values = [ast.literal_eval(value) for value in [*call.args, *(word.value for word in call.keywords)]]
    except (SyntaxError, ValueError) as error:
        raise _wrong("activation", text, expected) from error
    for value in values:
        if not isinstance(value, bool):
            _number(value, "activation", -1e6, 1e6)
    _require(all(word.arg is not None for word in call.keywords), "activation", text, expected)
    names = [""] * len(call.args) + [f"{word.arg}=" for word in call.keywords]
    arguments = ", ".join(f"{name}{value!r}" for name, value in zip(names, values, strict=True))
    return f"torch.nn.{match[1]}({arguments})"


def _number(value: Any, where: str, low: float, high: float, *, whole: bool = False) -> Any:
    kinds = (int,) if whole else (int, float)
    fits = isinstance(value, kinds) and not isinstance(value, bool) and math.isfinite(value) and low <= value <= high
    _require(fits, where, value, f"a {'whole ' if whole else ''}number from {low} to {high}")
    return value


def _require(condition: bool, where: str, value: Any, expected: str) -> None:
    if not condition:
        raise _wrong(where, value, expected)


def _wrong(where: str, value: Any, expected: str) -> BundleError:
    shown = repr(value)[:80] if isinstance(value, (str, int, float)) else type(value).__name__
    return BundleError(
        f"The network cannot be built from this incident: {where} is {shown} instead of {expected}. Do not trust its source. The"
        " answer from the run is in incident.json."
    )
