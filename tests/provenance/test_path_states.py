from __future__ import annotations

import pickle
from typing import Any

import pytest
import torch

from yolo_stable.provenance.path_states import LEFT_OUT, PathStates, key_of


def test_a_path_has_one_state_however_it_is_written(monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
    monkeypatch.chdir(tmp_path)
    states = PathStates(4)
    assert (bool(states), states.get("a.jpg")) == (False, 0)
    assert states.set("a.jpg", 5)
    assert [states.get(path) for path in ("a.jpg", "./x/../a.jpg", str(tmp_path / "a.jpg"), "b.jpg")] == [5, 5, 5, 0]
    assert states
    assert states.entries() == {key_of("a.jpg"): 5}


def test_the_first_state_stays() -> None:
    states = PathStates(4)
    assert states.set("a.jpg", LEFT_OUT)
    assert states.set("a.jpg", 7)
    assert states.get("a.jpg") == LEFT_OUT


def test_paths_of_one_cell_do_not_disturb_each_other_and_a_full_table_says_so() -> None:
    states = PathStates(1)
    cells = len(states.entries()) or 1024
    assert all(states.set(f"{n}.jpg", n % 200 + 1) for n in range(cells))
    assert all(states.get(f"{n}.jpg") == n % 200 + 1 for n in range(cells))
    assert not states.set("one more.jpg", 1)
    assert states.get("one more.jpg") == 0


def test_a_key_that_is_seen_before_its_state_is_no_entry_yet() -> None:
    states = PathStates(4)
    states.set("a.jpg", 5)
    states._states[:] = 0
    assert states.entries() == {}
    states._states[:] = 5
    assert states.entries() == {key_of("a.jpg"): 5}


def test_odd_names_are_names() -> None:
    states = PathStates(4)
    for n, path in enumerate(("\udcff.jpg", "a\nb.jpg", "", "ü.jpg"), 1):
        states.set(path, n)
        assert states.get(path) == n


def test_copied_by_pickle_it_is_one_of_its_own() -> None:
    states = PathStates(4)
    states.set("a.jpg", 3)
    copied = pickle.loads(pickle.dumps(states))
    copied.set("b.jpg", 4)
    assert (copied.get("a.jpg"), copied.get("b.jpg"), states.get("b.jpg")) == (3, 4, 0)


def loses(states: PathStates, path: str) -> None:
    states.set(path, 6)


@pytest.mark.parametrize("method", ["fork", "spawn"])
@pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork:DeprecationWarning")
def test_what_another_process_sets_is_seen_here(method: str) -> None:
    states = PathStates(4)
    context: Any = torch.multiprocessing.get_context(method)
    process = context.Process(target=loses, args=(states, "a.jpg"))
    process.start()
    process.join(60)
    assert states.get("a.jpg") == 6
