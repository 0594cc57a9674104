from __future__ import annotations

import contextlib
import hashlib
import json
import math
import os
import random
import struct
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from yolo_stable.autopsy.bundle import BATCH, INCIDENT, STATE, Bundle, BundleError, read_bundle, write_bundle
from yolo_stable.errors import InvalidCallError

NAN, INF = math.nan, math.inf


def assert_bits(mine: Tensor, theirs: Tensor) -> None:
    """Assert that two tensors are equal bit for bit, NaN and the sign of zero too, and lie alike in memory."""
    assert (mine.dtype, mine.shape, mine.stride()) == (theirs.dtype, theirs.shape, theirs.stride())
    assert torch.equal(
        mine.contiguous().reshape(-1).view(torch.uint8), theirs.contiguous().reshape(-1).view(torch.uint8)
    )


def images(*shape: int) -> Tensor:
    return torch.randint(0, 256, shape, generator=torch.Generator().manual_seed(1)).to(torch.uint8).float() / 255


def a_batch() -> dict[str, Any]:
    return {
        "img": images(4, 3, 32, 32),
        "cls": torch.tensor([[0.0], [2.0]]),
        "bboxes": torch.rand(2, 4, generator=torch.Generator().manual_seed(2)),
        "batch_idx": torch.tensor([0.0, 3.0]),
        "im_file": ("a.jpg", "b.jpg", "c d.jpg", "é.jpg"),
        "ori_shape": ((480, 640), (1, 2), (3, 4), (5, 6)),
    }


def a_state() -> dict[str, Tensor]:
    return {"model/model.0.conv.weight": torch.randn(4, 3, 3, 3), "optimizer/0/step": torch.tensor(7.0)}


def write(folder: Path, **changes: Any) -> Bundle:
    """Write an incident and read it again."""
    parts: dict[str, Any] = {"batch": a_batch(), "state": a_state(), "plain": {"lr": 0.01}, **changes}
    write_bundle(folder, {"epoch": 3, "loss": NAN}, **parts)
    return read_bundle(folder)


@pytest.fixture
def incident(tmp_path: Path) -> Path:
    write(tmp_path / "incidents" / "0001")
    return tmp_path / "incidents" / "0001"


class TestWhatIsWrittenIsRead:
    def test_a_whole_incident(self, tmp_path: Path) -> None:
        batch, state = a_batch(), a_state()
        read = write(tmp_path / "0001", batch=batch, state=state)
        assert read.incident == {"epoch": 3, "loss": "nan"}
        assert list(read.batch) == list(batch)
        for key, value in batch.items():
            assert_bits(read.batch[key], value) if isinstance(value, Tensor) else None
        assert (read.batch["im_file"], read.batch["ori_shape"]) == (batch["im_file"], batch["ori_shape"])
        assert list(read.state) == list(state)
        for name, tensor in state.items():
            assert_bits(read.state[name], tensor)
        assert sorted(path.name for path in (tmp_path / "0001").iterdir()) == sorted([INCIDENT, BATCH, STATE])

    @pytest.mark.parametrize("dtype", ["float64", "float32", "float16", "bfloat16", "int64", "uint8", "bool"])
    def test_each_dtype_with_no_some_and_many_elements(self, tmp_path: Path, dtype: str) -> None:
        state = {
            str(n): torch.randint(0, 2, shape).to(getattr(torch, dtype)) for n, shape in enumerate([(), (0, 4), (3, 5)])
        }
        read = write(tmp_path / "0001", state=state)
        for name, tensor in state.items():
            assert_bits(read.state[name], tensor)

    def test_numbers_that_are_not_finite_keep_their_bits(self, tmp_path: Path) -> None:
        strange = torch.tensor([0x7FC00001, 0x7F800001, -1, 0x7F800000, -0x800000, -0x80000000], dtype=torch.int64)
        strange = strange.to(torch.int32).view(torch.float32)
        read = write(tmp_path / "0001", state={"a": strange, "all": torch.full((9, 9), NAN)})
        assert_bits(read.state["a"], strange)
        assert_bits(read.state["all"], torch.full((9, 9), NAN))

    def test_the_layout_in_memory_comes_back(self, tmp_path: Path) -> None:
        state = {
            "channels_last": torch.randn(2, 3, 4, 5).contiguous(memory_format=torch.channels_last),
            "one pixel": torch.randn(4, 3, 1, 1).contiguous(memory_format=torch.channels_last),
            "turned": torch.randn(3, 7).T,
            "usual": torch.randn(2, 3, 4, 5),
        }
        batch = {**a_batch(), "img": images(4, 3, 8, 8).contiguous(memory_format=torch.channels_last)}
        read = write(tmp_path / "0001", state=state, batch=batch)
        for name, tensor in state.items():
            assert_bits(read.state[name], tensor)
        assert_bits(read.batch["img"], batch["img"])

    def test_a_view_with_gaps_comes_back_without_them(self, tmp_path: Path) -> None:
        view = torch.arange(20.0).reshape(4, 5)[:, ::2]
        read = write(tmp_path / "0001", state={"view": view, "spread": torch.ones(1).expand(3, 3)})
        assert_bits(read.state["view"], view.contiguous())
        assert_bits(read.state["spread"], torch.ones(3, 3))

    def test_tied_weights_stay_tied_and_are_kept_once(self, tmp_path: Path) -> None:
        flat = torch.arange(1000.0)
        read = write(tmp_path / "0001", state={"a": flat[:500], "b": flat[:500], "c": flat[200:700]})
        assert read.state["a"] is read.state["b"]
        assert_bits(read.state["c"], flat[200:700])
        assert (tmp_path / "0001" / STATE).stat().st_size < 1000 * 4 + 500

    def test_plain_values_come_back_as_they_were(self, tmp_path: Path) -> None:
        plain = {
            "rng": random.Random(3).getstate(),
            "names": {0: "a", 1: "b"},
            "loss": [NAN, INF, -INF, 0.1],
            "$odd": {"$float": "x"},
            "betas": (0.9, 0.999),
            "none": None,
            "flag": True,
        }
        read = write(tmp_path / "0001", plain=plain).plain
        assert math.isnan(read["loss"].pop(0))
        plain["loss"].pop(0)
        assert read == plain

    def test_what_a_batch_may_hold_besides(self, tmp_path: Path) -> None:
        batch = {
            **a_batch(),
            "texts": [["a"], ["b"]],
            "sizes": np.arange(6.0).reshape(2, 3),
            "parts": [torch.ones(2), torch.zeros(3)],
            "scale": np.float32(0.5),
            "custom": object(),
            "complex": torch.zeros(2, dtype=torch.complex64),
        }
        read = write(tmp_path / "0001", batch=batch)
        assert (read.batch["texts"], read.batch["scale"]) == ([["a"], ["b"]], 0.5)
        assert np.array_equal(read.batch["sizes"], batch["sizes"])
        assert [part.tolist() for part in read.batch["parts"]] == [[1, 1], [0, 0, 0]]
        assert read.left_out.keys() == {"custom", "complex"}
        assert "object cannot be kept without pickle" in read.left_out["custom"]


class TestImages:
    def test_levels_of_a_file_take_a_quarter_of_the_room(self, tmp_path: Path) -> None:
        write(tmp_path / "0001", batch={"img": images(4, 3, 64, 64)})
        assert (tmp_path / "0001" / BATCH).stat().st_size < 4 * 3 * 64 * 64 + 500

    @pytest.mark.parametrize("number", [NAN, INF, -0.0, 0.5, 1e30, -1.0])
    def test_a_changed_image_is_kept_beside_the_others_bit_for_bit(self, tmp_path: Path, number: float) -> None:
        img = images(4, 3, 64, 64)
        img[2, 1, 40, 3] = number
        read = write(tmp_path / "0001", batch={"img": img})
        assert_bits(read.batch["img"], img)
        assert (tmp_path / "0001" / BATCH).stat().st_size < (3 + 4) * 3 * 64 * 64 + 500

    @pytest.mark.parametrize("img", [torch.randn(2, 3, 8, 8), images(2, 3, 8, 8).half(), torch.full((2, 3, 8, 8), NAN)])
    def test_images_that_are_no_levels_are_kept_as_they_are(self, tmp_path: Path, img: Tensor) -> None:
        assert_bits(write(tmp_path / "0001", batch={"img": img}).batch["img"], img)

    def test_levels_that_a_device_made_by_a_product(self, tmp_path: Path) -> None:
        img = torch.arange(256).reshape(1, 1, 16, 16).float() * torch.tensor(1 / 255)
        assert not torch.equal(img, torch.arange(256).reshape(1, 1, 16, 16).float() / 255)
        assert_bits(write(tmp_path / "0001", batch={"img": img}).batch["img"], img)
        assert (tmp_path / "0001" / BATCH).stat().st_size < 256 + 300


class TestWritten:
    def test_an_incident_is_never_written_over(self, incident: Path) -> None:
        before = (incident / INCIDENT).read_bytes()
        with pytest.raises(FileExistsError):
            write(incident)
        assert (incident / INCIDENT).read_bytes() == before
        assert os.listdir(incident.parent) == ["0001"]

    @pytest.mark.usefixtures("warm_programs")
    def test_what_a_killed_process_left_is_removed(self, tmp_path: Path) -> None:
        code = (
            "import os, torch, yolo_stable.autopsy.bundle as b\n"
            "b.os.rename = lambda *_: os._exit(9)\n"
            f"b.write_bundle(b.Path({str(tmp_path / '0001')!r}), {{}}, batch={{}}, state={{'a': torch.ones(3)}}, plain={{}})"
        )
        assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 9
        assert [path.name for path in tmp_path.iterdir()] == [".0001.part"]
        write(tmp_path / "0001")
        assert [path.name for path in tmp_path.iterdir()] == ["0001"]

    def test_a_full_disk_leaves_nothing(self, tmp_path: Path) -> None:
        resource = pytest.importorskip("resource", reason="the size of files can be limited on POSIX only")
        before = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, before[1]))
        try:
            with pytest.raises(OSError, match=r"too large|No space"):
                write(tmp_path / "incidents" / "0001", state={"a": torch.zeros(100_000)})
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)
        assert list((tmp_path / "incidents").iterdir()) == []

    def test_further_files(self, tmp_path: Path) -> None:
        write(tmp_path / "0001", extra_files={"preview.jpg": b"picture"})
        assert (tmp_path / "0001" / "preview.jpg").read_bytes() == b"picture"
        for name in ("../x", "state.safetensors", ".hidden", "a/b", ""):
            with pytest.raises(InvalidCallError, match="cannot be the name"):
                write(tmp_path / "0002", extra_files={name: b""})

    @pytest.mark.parametrize(
        ("changes", "message"),
        [
            ({"state": {"a": torch.zeros(2, dtype=torch.complex64)}}, "complex64"),
            ({"state": {"../a": torch.zeros(2)}}, "not that of a tensor"),
            ({"plain": {"a": object()}}, "without pickle"),
            ({"plain": {"a": torch.zeros(2)}}, "belongs to the state"),
        ],
    )
    def test_what_cannot_be_kept_is_said(self, tmp_path: Path, changes: dict[str, Any], message: str) -> None:
        with pytest.raises(InvalidCallError, match=message):
            write(tmp_path / "0001", **changes)
        assert list(tmp_path.iterdir()) == []

    def test_size_and_time_for_a_small_network(self, tmp_path: Path) -> None:
        """YOLO11n with momentum, and 16 images of 640 px: a second is the bar, a fifth of one was measured."""
        state = {f"{part}/{i}": torch.randn(5200) for part in ("model", "optimizer") for i in range(500)}
        batch = {"img": images(16, 3, 640, 640)}
        total = sum(t.numel() * t.element_size() for t in [*state.values(), *batch.values()])
        started = time.process_time()
        write_bundle(tmp_path / "0001", {}, batch=batch, state=state, plain={})
        assert time.process_time() - started < 5  # on a busy machine
        assert sum(path.stat().st_size for path in (tmp_path / "0001").iterdir()) < 0.45 * total


def edit(folder: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    document = json.loads((folder / INCIDENT).read_text())
    change(document)
    (folder / INCIDENT).write_text(json.dumps(document))


def put(folder: Path, name: str, content: bytes) -> None:
    """Replace a file, with a checksum that fits, as someone who means harm would."""
    (folder / name).write_bytes(content)
    entry = {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
    edit(folder, lambda document: document["bundle"]["files"].update({name: entry}))


def tensors(header: Any, data: bytes = b"", length: int | None = None) -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text) if length is None else length) + text + data


def entry(kind: str = "F32", shape: Any = (2,), start: int = 0, end: int = 8) -> dict[str, Any]:
    return {"dtype": kind, "shape": list(shape) if isinstance(shape, tuple) else shape, "data_offsets": [start, end]}


def refused(folder: Path, message: str) -> None:
    """Assert that reading fails with one clear line, quickly, and changes nothing."""
    before = sorted((str(p), p.lstat().st_mtime_ns) for p in folder.parent.rglob("*"))
    started = time.process_time()
    with pytest.raises(BundleError, match=message) as caught:
        read_bundle(folder)
    assert time.process_time() - started < 5
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 700
    assert str(folder) in str(caught.value)
    assert caught.value.exit_code == 2
    assert sorted((str(p), p.lstat().st_mtime_ns) for p in folder.parent.rglob("*")) == before


HARMFUL = {
    "empty": (b"", "first 8 bytes"),
    "seven bytes": (b"\0" * 7, "first 8 bytes"),
    "no header": (b"\0" * 8, "not JSON"),
    "a header of 10 GB": (tensors({"a": entry()}, b"\0" * 8, length=10 << 30), "claims 10737418240 bytes"),
    "a header of all bytes": (tensors({"a": entry()}, b"\0" * 8, length=2**64 - 1), "claims"),
    "another file": (b"PK\3\4" + b"x" * 400, "claims"),
    "a list": (tensors([]), "no list of tensors"),
    "deeply nested": (tensors(b"[" * 200_000), "nested too deeply"),
    "not UTF-8": (tensors(b'{"\xff": 1}'), "no text"),
    "data cut off": (tensors({"a": entry()}, b"\0" * 7), "damaged or cut off"),
    "data too long": (tensors({"a": entry()}, b"\0" * 9), "damaged or cut off"),
    "overlapping": (tensors({"a": entry(), "b": entry(start=4, end=12)}, b"\0" * 12), "damaged or cut off"),
    "a hole": (tensors({"a": entry(), "b": entry(start=12, end=20)}, b"\0" * 20), "damaged or cut off"),
    "backwards": (tensors({"a": entry(start=8, end=0)}, b"\0" * 8), "damaged or cut off"),
    "beyond the file": (tensors({"a": entry(end=1 << 40)}, b"\0" * 8), "damaged or cut off"),
    "a wrong product": (tensors({"a": entry(shape=(3,))}, b"\0" * 8), "damaged or cut off"),
    "an overflowing product": (tensors({"a": entry(shape=(2**63, 2))}, b"\0" * 8), "impossible shape"),
    "nothing, enormous": (tensors({"a": entry(shape=(0, 2**62), end=0)}), "impossible shape"),
    "nothing, beyond integers": (tensors({"a": entry(shape=(2**63, 0), end=0)}), "impossible shape"),
    "negative": (tensors({"a": entry(shape=(-2,))}, b"\0" * 8), "impossible shape"),
    "100,000 dimensions": (tensors({"a": entry(shape=(1,) * 100_000 + (2,))}, b"\0" * 8), "impossible shape"),
    "no shape": (tensors({"a": entry(shape="x")}, b"\0" * 8), "impossible shape"),
    "unknown dtype": (tensors({"a": entry("X99")}, b"\0" * 8), "unknown dtype"),
    "a dtype of four bits": (tensors({"a": entry("F4", (16,))}, b"\0" * 8), "unknown dtype"),
    "a list as dtype": (tensors({"a": entry(["F32"], (16,))}, b"\0" * 8), "unknown dtype"),  # pyright: ignore[reportArgumentType]
    "strange truth": (tensors({"a": entry("BOOL", (8,))}, b"\7" * 8), "neither 0 nor 1"),
    "a key twice": (tensors(b'{"a": 1, "a": 2}'), "there twice"),
    "metadata": (tensors({"__metadata__": {"a": 1}, "a": entry()}, b"\0" * 8), "damaged"),
    "a path": (tensors({"../../etc/x": entry()}, b"\0" * 8), "not that of a tensor"),
    "an absolute path": (tensors({"/etc/x": entry()}, b"\0" * 8), "not that of a tensor"),
    "NUL": (tensors({"a\0b": entry()}, b"\0" * 8), "not that of a tensor"),
    "a backslash": (tensors({"a\\b": entry()}, b"\0" * 8), "not that of a tensor"),
    "a terminal's orders": (tensors({"\x1b[2J": entry()}, b"\0" * 8), "not that of a tensor"),
    "an unknown tensor": (tensors({"stranger": entry()}, b"\0" * 8), "missing|does not know"),
    "none at all": (tensors({}), "missing"),
}


class TestHostile:
    @pytest.mark.parametrize("name", [BATCH, STATE])
    @pytest.mark.parametrize("case", HARMFUL)
    def test_tensors(self, incident: Path, name: str, case: str) -> None:
        content, message = HARMFUL[case]
        put(incident, name, content)
        refused(incident, message)

    @pytest.mark.parametrize("name", [BATCH, STATE])
    def test_any_cut_and_any_flipped_bit_of_a_copy(self, incident: Path, name: str) -> None:
        whole = (incident / name).read_bytes()
        chance = random.Random(4)
        for _ in range(20):
            (incident / name).write_bytes(whole[: chance.randrange(len(whole))])
            refused(incident, "cut off")
            at = chance.randrange(len(whole))
            (incident / name).write_bytes(whole[:at] + bytes([whole[at] ^ 1 << chance.randrange(8)]) + whole[at + 1 :])
            refused(incident, "checksum is wrong")

    def test_random_changes_with_a_fitting_checksum_never_crash(self, incident: Path) -> None:
        chance = random.Random(5)
        files = {name: (incident / name).read_bytes() for name in (INCIDENT, BATCH, STATE)}
        opened = 0
        for _ in range(150):
            name = chance.choice([INCIDENT, BATCH, STATE])
            content = bytearray(files[name])
            for _ in range(chance.choice([1, 1, 4, 64])):
                content[chance.randrange(min(len(content), 900))] = chance.randrange(256)
            put(incident, name, bytes(content)) if name != INCIDENT else (incident / name).write_bytes(content)
            with contextlib.suppress(BundleError):
                read_bundle(incident)
                opened += 1
            for path, whole in files.items():
                (incident / path).write_bytes(whole)
        assert 0 < opened < 150

    @pytest.mark.parametrize(
        ("content", "message"),
        [
            (b"", "not JSON"),
            (b"{", "not JSON"),
            (b"[]", "no schema"),
            (b"{}", "no schema"),
            (b'{"schema": true}', "no schema"),
            (b'{"schema": "1"}', "no schema"),
            (b'{"schema": 2}', "schema is 2, and this version reads up to 1. Update"),
            (b'{"schema": 1, "schema": 1}', "there twice"),
            (b'{"schema": 1, "a": 1e999}', "beyond what a float holds"),
            (b'{"schema": 1, "a": NaN}', "NaN is no JSON"),
            (b'{"schema": 1, "a": ' + b"9" * 5000 + b"}", "5000 digits"),
            (b'{"schema": 1, "a": "\\ud800"}', "no text"),
            (b"\xff\xfe", "no text"),
            (b'{"schema": 1, "a": ' + b"[" * 100_000 + b"]" * 100_000 + b"}", "nested too deeply"),
            (b" " * (16 << 20) + b"{}", "at most 16777216 are read"),
            (b'{"schema": 1}', "recorded without its batch and state"),
            (b'{"schema": 1, "bundle": {}}', "does not say what was written"),
            (b'{"schema": 1, "bundle": {"files": [], "batch": 3}}', "does not say what was written"),
        ],
        ids=lambda value: "" if isinstance(value, bytes) else value,
    )
    def test_json(self, incident: Path, content: bytes, message: str) -> None:
        (incident / INCIDENT).write_bytes(content)
        refused(incident, message)

    @pytest.mark.parametrize(
        ("path", "value", "message"),
        [
            ("state", None, "does not say which tensors"),
            ("state/tensors", [], "does not say which tensors"),
            ("state/tensors/new", ["float32", [2]], "'new' is missing"),
            ("state/tensors/optimizer\\0\\step", ["float32", [1]], "shape \\[\\]"),
            ("state/tensors/optimizer\\0\\step", 7, "says 7"),
            ("state/tensors/model\\model.0.conv.weight", ["float64", [4, 3, 3, 3]], "is float32"),
            (
                "state/tensors/model\\model.0.conv.weight",
                ["float32", [4, 3, 3, 3], [1 << 60, 1, 1, 1]],
                "impossible strides",
            ),
            ("state/tensors/model\\model.0.conv.weight", ["float32", [4, 3, 3, 3], [0, 0, 0, 0]], "impossible strides"),
            (
                "state/tensors/model\\model.0.conv.weight",
                ["float32", [4, 3, 3, 3], [-27, 9, 3, 1]],
                "impossible strides",
            ),
            ("state/same", {"a": "b"}, "said to be the same"),
            ("state/same", {"../a": "optimizer/0/step"}, "not that of a tensor"),
            ("batch/images", {"rule": "eval", "exact": [0, 1, 2, 3]}, "became numbers"),
            ("batch/images", {"rule": ["divide"], "exact": [0, 1, 2, 3]}, "became numbers"),
            ("batch/images", {"rule": "divide", "exact": [0, 1, 2, 2]}, "do not fit"),
            ("batch/images", {"rule": "divide", "exact": [0, 1, 2, 10**12]}, "do not fit"),
            ("batch/images", None, "is missing"),
            ("batch/values", 3, "what is in the batch"),
            ("batch/values/cls", {"$tensor": "nobody"}, "not understood"),
            ("batch/values/cls", {"$import": "os"}, "not understood"),
            ("batch/values/cls", {"$items": [[["a"], 1]]}, "cannot be a key"),
            ("plain", None, "is missing"),
            ("plain", {"$float": "1e5"}, "not understood"),
        ],
    )
    def test_values_that_do_not_fit(self, incident: Path, path: str, value: Any, message: str) -> None:
        def change(document: dict[str, Any]) -> None:
            *way, last = path.split("/")
            inside = document["bundle"]
            for key in way:
                inside = inside[key]
            inside[last.replace("\\", "/")] = value

        edit(incident, change)
        refused(incident, message)

    def test_missing_files(self, incident: Path) -> None:
        (incident / STATE).unlink()
        refused(incident, f"{STATE}: it is not there")

    @pytest.mark.parametrize("name", [INCIDENT, BATCH, STATE, "preview.jpg"])
    def test_links(self, incident: Path, tmp_path: Path, name: str) -> None:
        (tmp_path / "secret").write_bytes((incident / name).read_bytes() if (incident / name).exists() else b"")
        (incident / name).unlink(missing_ok=True)
        (incident / name).symlink_to(tmp_path / "secret")
        refused(incident, f"{name}: it is a link")

    @pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="the system has no named pipes")
    @pytest.mark.parametrize("name", [INCIDENT, BATCH, "preview.jpg"])
    def test_pipes(self, incident: Path, name: str) -> None:
        (incident / name).unlink(missing_ok=True)
        os.mkfifo(incident / name)
        refused(incident, "pipe")

    def test_a_folder_in_the_place_of_a_file(self, incident: Path) -> None:
        (incident / STATE).unlink()
        (incident / STATE).mkdir()
        refused(incident, "no regular file|directory")

    def test_a_file_larger_than_the_memory(self, incident: Path) -> None:
        with open(incident / STATE, "r+b") as file:
            file.truncate(1 << 42)
        edit(incident, lambda document: document["bundle"]["files"][STATE].update(bytes=1 << 42))
        refused(incident, "are read here")


class TestTheWrongPath:
    def test_what_is_not_there(self, tmp_path: Path) -> None:
        refused(tmp_path / "a" / "0001", "not there")

    def test_a_file(self, incident: Path) -> None:
        refused(incident / INCIDENT, f"this is a file. Give the folder of an incident, such as {incident}")

    def test_a_run_and_its_folder_of_incidents(self, incident: Path) -> None:
        for n in range(2, 9):
            write(incident.parent / f"000{n}")
        (incident.parent / ".0009.part").mkdir()
        listed = r"Give one of .*incidents.*: 0001, 0002, 0003, 0004, 0005 and 3 more"
        refused(incident.parents[1], listed)
        refused(incident.parent, listed)

    def test_a_folder_of_something_else(self, tmp_path: Path) -> None:
        (tmp_path / "x").mkdir()
        refused(tmp_path / "x", "incident.json: it is not there")

    def test_a_name_that_a_terminal_would_obey(self, tmp_path: Path) -> None:
        folder = tmp_path / "a\x1b[2J\nb"
        folder.mkdir()
        with pytest.raises(BundleError) as caught:
            read_bundle(folder)
        assert str(caught.value).isprintable()


def test_nothing_in_the_package_can_unpickle() -> None:
    for path in (Path(__file__).parents[2] / "yolo_stable" / "autopsy").glob("*.py"):
        text = path.read_text(encoding="utf-8")
        assert "import pickle" not in text, path
        assert "torch.load" not in text, path
