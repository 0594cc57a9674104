"""The side file: what goes in comes out bit for bit, and what is damaged is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from equality import assert_same
from safetensors.torch import save

from yolo_stable.checkpoints.state_file import SavedState, encode, on_host, read
from yolo_stable.errors import InvalidCallError

PLAIN = {"loop": {"epoch": 3, "best": 0.1 + 0.2, "nothing": None}, "checkpoint": {"sha256": "b", "before": "a"}}


def tensors() -> dict[str, torch.Tensor]:
    flat = torch.arange(12, dtype=torch.float32)
    return {
        "views of one tensor": flat[:6].view(2, 3),
        "the other": flat[6:],
        "in another layout": torch.randn(2, 3, 4, 4).to(memory_format=torch.channels_last),
        "turned": torch.randn(3, 5).T,
        "a number": torch.tensor(7, dtype=torch.int64),
        "none": torch.empty(0),
        "bytes": torch.arange(256, dtype=torch.uint8),
        "short": torch.tensor([1e-40, 3e38], dtype=torch.bfloat16),
        "odd": torch.tensor([float("nan"), float("inf"), -0.0, 1e-45]),
        "flags": torch.tensor([True, False]),
        "learned": torch.nn.Parameter(torch.ones(2)),
    }


def content(tensors: dict[str, torch.Tensor], plain: dict[str, Any]) -> bytes:
    return b"".join(encode(on_host(tensors), plain))


def test_what_goes_in_comes_out_bit_for_bit(tmp_path: Path) -> None:
    given = tensors()
    path = tmp_path / "last.safetensors"
    path.write_bytes(content(given, PLAIN))
    saved = read(path)
    odd, theirs = given.pop("odd"), dict(saved.tensors)
    assert torch.equal(odd.view(torch.int32), theirs.pop("odd").view(torch.int32))
    assert_same({name: tensor.detach().contiguous() for name, tensor in given.items()}, theirs)
    assert saved.plain == PLAIN
    assert (saved.epoch, saved.belongs_to("b"), saved.follows("a"), saved.belongs_to("a")) == (3, True, True, False)


def test_numbers_of_other_libraries_become_plain(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(content({}, {"a": np.float64(0.1), "b": torch.tensor(2.0), "c": np.int64(3)}))
    assert read(path) == SavedState({}, {"a": 0.1, "b": 2.0, "c": 3})
    with pytest.raises(TypeError, match="object cannot be kept in a side file"):
        encode({}, {"a": object()})


def test_every_flipped_bit_is_found(tmp_path: Path) -> None:
    whole = content({"weight": torch.arange(8, dtype=torch.float32), "bias": torch.ones(2)}, PLAIN)
    path, refused = tmp_path / "file", 0
    for at in range(len(whole)):
        damaged = bytearray(whole)
        damaged[at] ^= 1 << at % 8
        path.write_bytes(damaged)
        try:
            saved = read(path)
        except InvalidCallError:
            refused += 1
            continue
        assert saved.plain == PLAIN, at  # a byte of the header that says the same, such as another blank
        assert saved.tensors["weight"].tolist() == list(range(8)), at
    assert refused > len(whole) * 0.9


@pytest.mark.parametrize("share", [0.0, 0.01, 0.5, 0.99])
def test_a_file_that_was_cut_off_is_refused(tmp_path: Path, share: float) -> None:
    whole = content({"weight": torch.ones(100)}, PLAIN)
    path = tmp_path / "file"
    path.write_bytes(whole[: int(len(whole) * share)])
    with pytest.raises(InvalidCallError, match=r"it is damaged or cut off \(.*\)\. Delete it to resume"):
        read(path)


def test_what_is_not_ours_is_told_from_what_is_damaged(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(save({"a": torch.ones(1)}))
    with pytest.raises(InvalidCallError, match="it is not a side file of yolo-stable"):
        read(path)
    path.write_bytes(save({"a": torch.ones(1)}, {"yolo-stable": "9"}))
    with pytest.raises(InvalidCallError, match="its schema is 9, and this version of yolo-stable reads 1"):
        read(path)


@pytest.mark.parametrize("shape", ["[3, 2]", "[1, 6]", "[6]"])
def test_numbers_in_another_shape_are_not_those_that_were_saved(tmp_path: Path, shape: str) -> None:
    path = tmp_path / "file"
    whole = content({"weight": torch.arange(6, dtype=torch.float32).view(2, 3)}, PLAIN)
    path.write_bytes(whole)
    assert read(path).tensors["weight"].tolist() == [[0, 1, 2], [3, 4, 5]]
    assert whole.count(b"[2, 3]") == 1
    path.write_bytes(whole.replace(b"[2, 3]", shape.encode().ljust(6)))
    with pytest.raises(InvalidCallError, match="it is damaged: its checksum is wrong"):
        read(path)


def test_numbers_of_another_kind_are_not_those_that_were_saved(tmp_path: Path) -> None:
    path = tmp_path / "file"
    whole = content({"weight": torch.zeros(3)}, PLAIN)
    assert whole.count(b'"F32"') == 1
    path.write_bytes(whole.replace(b'"F32"', b'"I32"'))
    with pytest.raises(InvalidCallError, match="it is damaged: its checksum is wrong"):
        read(path)
