"""Inputs that must be the same everywhere."""

from __future__ import annotations

import torch

from yolo_stable.validate.hashed import HashedDraw, hash_stream, sha256_of

PINNED = [7569578889909940714, 4504528965725572720, 1981871072442075640]
DIGEST = "352c52b6cce0651f9757bbd93c8c8de0eb3ab8a305a289dbe06aef1db1cc7cc2"


def test_the_stream_is_pinned() -> None:
    """Another machine, or another torch, must draw the same numbers."""
    assert hash_stream("a", 3).tolist() == PINNED
    x = HashedDraw("0/linear/conv3x3-64")("x", 2, 3)
    assert sha256_of({"x": x}) == DIGEST


def test_numbers_lie_where_they_were_asked_for_and_no_generator_is_touched() -> None:
    before = torch.random.get_rng_state()
    x, i = HashedDraw("k")("x", 10_000, low=2.0, high=3.0), HashedDraw("k").integers("i", 10_000, below=7)
    assert 2.0 <= float(x.min()) < 2.01 < 2.99 < float(x.max()) < 3.0
    assert abs(float(x.mean()) - 2.5) < 0.01
    assert set(i.tolist()) == set(range(7))
    assert sorted(HashedDraw("k").permutation("p", 100).tolist()) == list(range(100))
    assert torch.equal(torch.random.get_rng_state(), before)


def test_the_digest_sees_a_bit_a_type_and_a_name() -> None:
    x = torch.zeros(4)
    other = [sha256_of({"y": x}), sha256_of({"x": x.half()}), sha256_of({"x": -x}), sha256_of({"x": x.view(2, 2)})]
    assert len({sha256_of({"x": x}), *other}) == 5
