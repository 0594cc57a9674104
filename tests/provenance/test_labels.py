from __future__ import annotations

import copy
import pickle

import numpy as np
import pytest
import torch

from yolo_stable.provenance.labels import TracedLabels, rows_of, with_note


@pytest.fixture
def labels() -> TracedLabels:
    return with_note(np.array([[10.0], [11.0], [12.0], [13.0]], np.float32), ("file", 0, 4))


@pytest.mark.parametrize(
    "index",
    [
        np.array([2, 0]),
        [3, 3, 1],
        np.array([True, False, False, True]),
        slice(1, 3),
        np.array([], dtype=int),
        [],
        [True, False, True, True],
        (slice(1, 3), slice(None)),
    ],
    ids=["numbers", "list", "mask", "slice", "none", "empty list", "list of truths", "several axes"],
)
def test_choosing_keeps_the_rows(labels: TracedLabels, index: object) -> None:
    chosen = labels[index]
    assert (rows_of(chosen) + 10).tolist() == chosen[:, 0].tolist()


def test_what_was_chosen_stays_when_the_choice_is_used_for_something_else(labels: TracedLabels) -> None:
    mask = np.array([True, False, True, False])
    chosen = labels[mask]
    mask[:] = True
    assert rows_of(chosen).tolist() == [0, 2]


def test_joining_keeps_the_rows(labels: TracedLabels) -> None:
    other = with_note(np.zeros((1, 1), np.float32), ("file", 1, 1))
    joined = np.concatenate([labels[[3]], np.zeros((1, 1), np.float32), other], 0)
    assert rows_of(joined).tolist() == [3, -1, 1 << 24]
    assert joined.dtype == np.float32
    assert rows_of(np.concatenate((np.zeros((0, 1)), labels), axis=0)).tolist() == [0, 1, 2, 3]


def test_forms_and_copies_keep_the_rows(labels: TracedLabels) -> None:
    for same in (labels.reshape(-1, 1), labels.reshape(-1), labels.copy(), copy.deepcopy(labels)):
        assert rows_of(same).tolist() == [0, 1, 2, 3]
    sent = pickle.loads(pickle.dumps(labels))
    assert (rows_of(sent).tolist(), sent.tolist()) == ([0, 1, 2, 3], labels.tolist())


@pytest.mark.parametrize(
    "do",
    [
        lambda x: np.sort(x, axis=0),
        lambda x: x.reshape(2, 2),
        lambda x: x + 1,
        lambda x: np.concatenate([x, x], axis=1),
        lambda x: x.T,
        lambda x: x.repeat(2, 0),
        lambda x: np.flip(x, 1)[:, ::-1].T,
        lambda x: x[x > 10],
    ],
    ids=["sorted", "two columns", "other numbers", "side by side", "turned", "repeated", "flipped", "mask of all axes"],
)
def test_what_is_not_known_has_no_rows(labels: TracedLabels, do: object) -> None:
    assert set(rows_of(do(labels)).tolist()) <= {-1}  # type: ignore[operator]


def test_sorting_in_place_forgets_the_rows(labels: TracedLabels) -> None:
    labels[:] = labels[::-1].copy()
    labels.sort(axis=0)
    assert rows_of(labels).tolist() == [-1] * 4


def test_a_tensor_of_them_is_a_plain_tensor(labels: TracedLabels) -> None:
    assert type(torch.from_numpy(labels)) is torch.Tensor
    assert torch.from_numpy(labels).tolist() == [[10.0], [11.0], [12.0], [13.0]]


@pytest.mark.parametrize(
    "do",
    [
        lambda x: np.concatenate([x, x], 1),
        lambda x: x.reshape(2, 2)[:1],
        lambda x: (x + 1)[[0, 1]],
        lambda x: np.concatenate([x, [[14.0]]]),
        lambda x: with_note(np.zeros(3), ("file", 0, 2)),
    ],
    ids=["side by side by position", "half of two columns", "chosen of others", "joined with a list", "another number"],
)
def test_rows_that_would_be_those_of_other_labels_are_not_told(labels: TracedLabels, do: object) -> None:
    other = do(labels)  # type: ignore[operator]
    assert rows_of(other).tolist() == [-1] * len(other)


def test_a_label_that_becomes_a_number_is_one() -> None:
    assert with_note(np.array([[7.0]]), ("file", 0, 1)).reshape(()) == 7.0


def test_none_chosen_before_others_leaves_their_rows_known(labels: TracedLabels) -> None:
    for nothing in ([], np.array([], dtype=int), slice(0, 0)):
        assert rows_of(np.concatenate([labels[nothing], labels])).tolist() == [0, 1, 2, 3]
