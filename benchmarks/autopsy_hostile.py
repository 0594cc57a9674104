"""Bundles that are damaged, or made to do harm: each is refused with one line, and nothing is executed or written.

A stranger can write whatever fits together, so after most of these damages lengths and checksums are made right again.
"""

from __future__ import annotations

import json
import os
import pickle
import shutil
import signal
import struct
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from yolo_stable.autopsy_run import run
from yolo_stable.errors import InvalidCallError

Row = dict[str, Any]
Damage = Callable[[Path], None]
SECONDS = 60
"""After so many a bundle counts as one that does not end."""
WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
BAD_EVENTS = (
    "os.system",
    "os.exec",
    "os.posix_spawn",
    "os.fork",
    "subprocess.Popen",
    "pickle.find_class",
    "socket.connect",
    "os.rename",
    "os.remove",
    "os.mkdir",
    "os.link",
    "os.symlink",
    "shutil.rmtree",
    "ctypes.dlopen",
)
_seen: list[str] | None = None


def _watch(event: str, args: tuple[Any, ...]) -> None:
    if _seen is None:
        return
    if event in BAD_EVENTS:
        _seen.append(f"{event} {str(args)[:80]}")
    elif event == "open" and (
        (isinstance(args[1], str) and set(args[1]) & set("wax+")) or (isinstance(args[2], int) and args[2] & WRITING)
    ):
        _seen.append(f"open {args[0]} for writing")


@contextmanager
def watched() -> Iterator[list[str]]:
    """Note what the process executes, writes or removes; a hook of Python's own, which cannot be taken off again."""
    global _seen
    if not getattr(sys, "_benchmark_hook", False):
        sys.addaudithook(_watch)
        sys._benchmark_hook = True  # pyright: ignore[reportAttributeAccessIssue]
    _seen = []
    try:
        yield _seen
    finally:
        _seen = None


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
        for name in ("batch.safetensors", "state.safetensors"):
            if (folder / name).is_file():
                content = (folder / name).read_bytes()
                document["bundle"]["files"][name] = {"bytes": len(content), "sha256": sha256(content).hexdigest()}

    edited(change)(folder)


def _first(held: dict[str, Any], part: str = "") -> str:
    return next(name for name in held if part in name and name != "__metadata__")


def _yaml(change: Callable[[dict[str, Any]], Any]) -> Damage:
    return edited(lambda d: change(d["bundle"]["plain"]["model"]["yaml"]))


def _model(change: Callable[[dict[str, Any]], Any]) -> Damage:
    return edited(lambda d: change(d["bundle"]["plain"]["model"]))


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
    batch, state = "batch.safetensors", "state.safetensors"
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
        "offsets that overlap": header(state, lambda h: h[_first(h)].update(data_offsets=h[list(h)[1]]["data_offsets"])),
        "a shape larger than its bytes": header(state, lambda h: h[_first(h)].update(shape=[1 << 20, 1 << 20])),
        "a negative shape": header(state, lambda h: h[_first(h)].update(shape=[-1])),
        "a shape of 2**80 elements, one of them 0": header(state, lambda h: h[_first(h)].update(shape=[0, 1 << 62, 1 << 62])),
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
        "no model": edited(lambda d: d["bundle"]["plain"].pop("model")),
        "no generators, but a word": edited(lambda d: d["bundle"]["plain"].update(rng={"python": "x"})),
        "generators of another size": tensors(state, lambda t: t.update({n: v[:8] for n, v in t.items() if n.startswith("rng/")})),
        "a class that runs things": _model(lambda m: m.update({"class": "os.system"})),
        "a layer that is code": _yaml(lambda y: y["backbone"][0].__setitem__(2, command)),
        "a layer of torch that is no layer": _yaml(lambda y: y["backbone"][0].__setitem__(2, "torch.load")),
        "an argument that is code": _yaml(lambda y: y["backbone"][0].__setitem__(3, [command, 3, 2])),
        "an activation that is code": _yaml(lambda y: y.update(activation=command)),
        "a layer a thousand million times": _yaml(lambda y: y["backbone"][2].__setitem__(1, 10**9)),
        "a layer of 2**40 channels": _yaml(lambda y: y["backbone"][0].__setitem__(3, [1 << 40, 3, 2])),
        "a layer fed by none": _yaml(lambda y: y["head"][0].__setitem__(0, 99)),
        "an attribute __class__": _model(lambda m: m["attributes"].setdefault("", {}).update(__class__="x")),
        "an attribute forward": _model(lambda m: m["attributes"].setdefault("", {}).update(forward="x")),
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
        "NaN in all of the state": tensors(
            state, lambda t: [v.fill_(float("nan")) for n, v in t.items() if n.startswith("model/") and v.is_floating_point()]
        ),
        "boxes of images that are not there": tensors(batch, lambda t: [v.fill_(10**6) for n, v in t.items() if "batch_idx" in n]),
        "a million threads": edited(lambda d: d["flags"].update(threads=10**6)),
        "a reason that moves the cursor": edited(lambda d: d.update(reason="\x1b[2J\x1b]0;x\x07")),
        "files with terminal codes": edited(lambda d: d.update(files=["\x1b[2J"])),
    }
    return {n: (d, "refused") for n, d in refused.items()} | {n: (d, "answered") for n, d in answered.items()}


def attempt(folder: Path, sentinel: Path) -> Row:
    """Open a bundle and say what came of it."""

    def late(*_: Any) -> None:
        raise TimeoutError(f"after {SECONDS} s")

    signal.signal(signal.SIGALRM, late)
    signal.alarm(SECONDS)
    begun = time.perf_counter()
    with watched() as events:
        try:
            text = run(folder, seconds=20.0)
            outcome, line = "answered", text.splitlines()[0]
            clean = all(c.isprintable() or c == "\n" for c in text)
        except InvalidCallError as error:
            outcome, line = "refused", str(error)
            clean = "\n" not in line and all(c.isprintable() for c in line)
        except BaseException as error:  # noqa: BLE001 - anything else is what is looked for
            outcome, line, clean = "crash", f"{type(error).__name__}: {error}"[:300], False
        finally:
            signal.alarm(0)
    return {
        "outcome": outcome,
        "line": line,
        "one clean line": clean,
        "events": list(events),
        "executed": sentinel.exists(),
        "seconds": time.perf_counter() - begun,
    }


def hostile(bundle: Path, work: Path) -> list[Row]:
    """Damage a good bundle in every way, and open each.

    Args:
        bundle: A good one.
        work: An empty folder.

    Returns:
        A row for each damage; ``met``: what had to come of it did, in one printable line, and nothing was executed or written.
    """
    rows = []
    sentinel = work / "EXECUTED"
    run(bundle, seconds=20.0)  # imports write their caches now
    for name, (damage, wanted) in damages(sentinel).items():
        folder = work / "0001"
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(bundle, folder)
        damage(folder)
        before = {p: p.lstat().st_mtime_ns for p in work.rglob("*")}
        row = {"damage": name, "wanted": wanted, **attempt(folder, sentinel)}
        row["written"] = {p: p.lstat().st_mtime_ns for p in work.rglob("*")} != before
        sentinel.unlink(missing_ok=True)
        quiet = not row["events"] and not row["executed"] and not row["written"]
        row["met"] = row["outcome"] == wanted and row["one clean line"] and quiet
        rows.append(row)
    return rows
