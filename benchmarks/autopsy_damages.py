"""What can be wrong with a bundle, by accident and on purpose.

A stranger can write whatever fits together, so after most of these damages lengths and checksums are made right again.
"""

from __future__ import annotations

import json
import math
import os
import pickle
import struct
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

Damage = Callable[[Path], None]
BATCH, STATE = "batch.safetensors", "state.safetensors"


class _Runs:
    """Executes a command when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (f"touch {self.path}",)


def edited(change: Callable[[dict[str, Any]], Any]) -> Damage:
    """Return what changes ``incident.json``."""

    def damage(folder: Path) -> None:
        path = folder / "incident.json"
        document = json.loads(path.read_text())
        change(document)
        path.write_text(json.dumps(document))

    return damage


def raw(name: str, change: Callable[[bytes], bytes], *, seal: bool = True) -> Damage:
    """Return what changes the bytes of a file, with length and checksum made right unless ``seal`` is off."""

    def damage(folder: Path) -> None:
        path = folder / name
        path.write_bytes(change(path.read_bytes()))
        if seal:
            sealed(folder)

    return damage


def header(name: str, change: Callable[[dict[str, Any]], Any]) -> Damage:
    """Return what changes the header of a safetensors file."""

    def rewrite(content: bytes) -> bytes:
        (length,) = struct.unpack("<Q", content[:8])
        about = json.loads(content[8 : 8 + length])
        change(about)
        text = json.dumps(about).encode()
        text += b" " * (-len(text) % 8)
        return struct.pack("<Q", len(text)) + text + content[8 + length :]

    return raw(name, rewrite)


def tensors(name: str, change: Callable[[dict[str, torch.Tensor]], Any]) -> Damage:
    """Return what changes the tensors of a file."""

    def damage(folder: Path) -> None:
        held = load_file(folder / name)
        change(held)
        save_file({k: v.contiguous() for k, v in held.items()}, folder / name)
        sealed(folder)

    return damage


def sealed(folder: Path) -> None:
    """Make lengths and checksums right again."""

    def change(document: dict[str, Any]) -> None:
        for name in (BATCH, STATE):
            if (folder / name).is_file():
                content = (folder / name).read_bytes()
                document["bundle"]["files"][name] = {"bytes": len(content), "sha256": sha256(content).hexdigest()}

    edited(change)(folder)


def _shorten(prefix: str) -> Callable[[dict[str, torch.Tensor]], Any]:
    return lambda held: held.update({n: v[:8] for n, v in held.items() if n.startswith(prefix)})


def _fill(part: str, value: float) -> Callable[[dict[str, torch.Tensor]], Any]:
    return lambda held: [v.fill_(value) for n, v in held.items() if part in n and v.is_floating_point()]


def _first(held: dict[str, Any], part: str = "") -> str:
    return next(name for name in held if part in name and name != "__metadata__")


def _yaml(change: Callable[[dict[str, Any]], Any]) -> Damage:
    return edited(lambda d: change(d["bundle"]["plain"]["model"]["yaml"]))


def _model(change: Callable[[dict[str, Any]], Any]) -> Damage:
    return edited(lambda d: change(d["bundle"]["plain"]["model"]))


def _attribute(model: dict[str, Any], module: str, name: str, value: Any) -> None:
    model["attributes"].setdefault(module, {})[name] = [None, value]


def _linked(name: str, target: str) -> Damage:
    def damage(folder: Path) -> None:
        (folder / name).unlink(missing_ok=True)
        (folder / name).symlink_to(target)

    return damage


def _pipe(folder: Path) -> None:
    (folder / "batch.safetensors").unlink()
    os.mkfifo(folder / "batch.safetensors")


def _doubled(content: bytes) -> bytes:
    (length,) = struct.unpack("<Q", content[:8])
    text = content[8 : 8 + length].rstrip()
    name = json.dumps(_first(json.loads(text)))
    text = text[:-1] + b"," + name.encode() + b":" + json.dumps(json.loads(text)[json.loads(name)]).encode() + b"}"
    text += b" " * (-len(text) % 8)
    return struct.pack("<Q", len(text)) + text + content[8 + length :]


def _nested(folder: Path) -> None:
    (folder / "incident.json").write_text('{"schema": 1, "x": ' + "[" * 200_000 + "]" * 200_000 + "}")


def _torch_saved(folder: Path, sentinel: Path) -> None:
    torch.save({"x": _Runs(sentinel)}, folder / "state.safetensors")
    sealed(folder)


def damages(sentinel: Path) -> dict[str, tuple[Damage, str]]:
    """Return the damages by name, and what has to come of each: ``refused``, or ``answered``: it is odd but can be used.

    Args:
        sentinel: A file that something in a bundle tries to make.
    """
    command = f"__import__('os').system('touch {sentinel}')"
    payload = pickle.dumps(_Runs(sentinel))
    batch, state = BATCH, STATE
    refused: dict[str, Damage] = {
        "batch cut off": raw(batch, lambda b: b[: len(b) // 2], seal=False),
        "state cut off": raw(state, lambda b: b[:-1], seal=False),
        "incident.json cut off": raw("incident.json", lambda b: b[:-200], seal=False),
        "a bit of the batch flipped": raw(batch, lambda b: b[:-9] + bytes([b[-9] ^ 1]) + b[-8:], seal=False),
        "a bit of the state flipped": raw(state, lambda b: b[:-9] + bytes([b[-9] ^ 1]) + b[-8:], seal=False),
        "batch cut off, sealed": raw(batch, lambda b: b[: len(b) // 2]),
        "batch empty": raw(batch, lambda b: b""),
        "state missing": lambda f: (f / state).unlink(),
        "header of 10 GB": raw(batch, lambda b: struct.pack("<Q", 10 << 30) + b[8:]),
        "header of 2**63 bytes": raw(state, lambda b: struct.pack("<Q", 1 << 63) + b[8:]),
        "header that is no JSON": raw(batch, lambda b: b[:8] + b"x" * 8 + b[16:]),
        "offsets beyond the end": header(batch, lambda h: h[_first(h)].update(data_offsets=[0, 1 << 40])),
        "negative offsets": header(batch, lambda h: h[_first(h)].update(data_offsets=[-8, 8])),
        "offsets that overlap": header(
            state, lambda h: h[_first(h)].update(data_offsets=h[list(h)[1]]["data_offsets"])
        ),
        "a shape larger than its bytes": header(state, lambda h: h[_first(h)].update(shape=[1 << 20, 1 << 20])),
        "a negative shape": header(state, lambda h: h[_first(h)].update(shape=[-1])),
        "a shape of 2**80 elements, one of them 0": header(
            state, lambda h: h[_first(h)].update(shape=[0, 1 << 62, 1 << 62])
        ),
        "an unknown dtype": header(state, lambda h: h[_first(h)].update(dtype="F8_E5M3")),
        "a name twice": raw(state, _doubled),
        "a name with ../": header(batch, lambda h: h.update({"../../evil": h.pop(_first(h))})),
        "pickle for a batch": raw(batch, lambda b: payload),
        "pickle for a state": raw(state, lambda b: payload),
        "torch.save for a state": lambda f: _torch_saved(f, sentinel),
        "pickle for incident.json": raw("incident.json", lambda b: payload, seal=False),
        "batch is a link": _linked(batch, "/etc/passwd"),
        "a link beside them": _linked("preview.jpg", "/etc/passwd"),
        "batch is a pipe": _pipe,
        "NaN in the JSON": raw("incident.json", lambda b: b[:-1] + b', "x": NaN}', seal=False),
        "a key twice in the JSON": raw("incident.json", lambda b: b[:-1] + b', "schema": 1}', seal=False),
        "JSON 200,000 levels deep": _nested,
        "20 MB of JSON": edited(lambda d: d.update(x="x" * 20_000_000)),
        "a later schema": edited(lambda d: d.update(schema=2)),
        "no schema": edited(lambda d: d.pop("schema")),
        "schema true": edited(lambda d: d.update(schema=True)),
        "no generators, but a word": edited(lambda d: d["bundle"]["plain"].update(rng={"python": "x"})),
        "generators of another size": tensors(state, _shorten("rng/")),
        "a class that runs things": _model(lambda m: m.update({"class": "os.system"})),
        "a layer that is code": _yaml(lambda y: y["backbone"][0].__setitem__(2, command)),
        "a layer of torch that is no layer": _yaml(lambda y: y["backbone"][0].__setitem__(2, "torch.load")),
        "an argument that is code": _yaml(lambda y: y["backbone"][0].__setitem__(3, [command, 3, 2])),
        "an activation that is code": _yaml(lambda y: y.update(activation=command)),
        "a layer a thousand million times": _yaml(lambda y: y["backbone"][2].__setitem__(1, 10**9)),
        "a layer of 2**40 channels": _yaml(lambda y: y["backbone"][0].__setitem__(3, [1 << 40, 3, 2])),
        "a layer fed by none": _yaml(lambda y: y["head"][0].__setitem__(0, 99)),
        "attributes that are none": _model(lambda m: m["attributes"].setdefault("", {}).update(task="x")),
        "an attribute of torch's": _model(lambda m: _attribute(m, "", "_forward_hooks", {})),
        "attributes of a module that is not there": _model(lambda m: _attribute(m, "model.99", "i", 1)),
        "no types": _model(lambda m: m.pop("types")),
        "arguments with names that are none": _model(lambda m: m["args"].update({"a b": 1})),
        "a state of another shape": tensors(state, lambda t: t.update({_first(t, "model/"): torch.zeros(3)})),
        "a state without a tensor": tensors(state, lambda t: t.pop(_first(t, "model/"))),
        "a batch without images": edited(lambda d: d["bundle"]["batch"]["values"].pop("img")),
        "a precision that is none": edited(lambda d: d.update(precision="float8")),
        "classes that are a word": edited(lambda d: d.update(classes="4")),
        "a provenance that is none": edited(lambda d: d.update(provenance=["{}"])),
    }
    answered: dict[str, Damage] = {
        "no model": edited(lambda d: d["bundle"]["plain"].pop("model")),
        "NaN in all of the state": tensors(
            state,
            _fill("model/", math.nan),
        ),
        "boxes of images that are not there": tensors(batch, _fill("batch_idx", 1e6)),
        "a million threads": edited(lambda d: d["flags"].update(threads=10**6)),
        "an attribute __class__": _model(lambda m: _attribute(m, "", "__class__", "x")),
        "an attribute that is a module": _model(lambda m: _attribute(m, "model.0", "conv", "x")),
        "an attribute forward": _model(lambda m: _attribute(m, "model.1", "forward", "x")),
        "a layer that reads another one": _model(lambda m: _attribute(m, "model.1", "f", 99)),
        "a reason that moves the cursor": edited(lambda d: d.update(reason="\x1b[2J\x1b]0;x\x07")),
        "files with terminal codes": edited(lambda d: d.update(files=["\x1b[2J"])),
    }
    return {n: (d, "refused") for n, d in refused.items()} | {n: (d, "answered") for n, d in answered.items()}
