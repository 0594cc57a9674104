"""Equality bit for bit, for the tests that compare whole states."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


def assert_same(a: Any, b: Any, path: str = "") -> None:
    """Assert that two states are equal bit for bit, through dicts and lists; NaN is never equal.

    Args:
        a: Tensors, numbers, text, and dicts, lists and tuples of them.
        b: What it is compared with.
        path: Where in the state this is, for the message.
    """
    assert type(a) is type(b), path
    if isinstance(a, Tensor):
        assert a.dtype == b.dtype, path
        assert torch.equal(a, b), f"{path}: {a} is not {b}"
    elif isinstance(a, dict):
        assert a.keys() == b.keys(), path
        for key in a:
            assert_same(a[key], b[key], f"{path}/{key}")
    elif isinstance(a, (list, tuple)):
        assert len(a) == len(b), path
        for i, (left, right) in enumerate(zip(a, b, strict=True)):
            assert_same(left, right, f"{path}[{i}]")
    else:
        assert a == b, f"{path}: {a} is not {b}"
