from __future__ import annotations

import json
import multiprocessing
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch

from yolo_stable.errors import InvalidCallError
from yolo_stable.provenance.quarantine import LeftOut, Quarantine

PATHS = [f"/data/{name}.jpg" for name in "abcdefgh"]


def quarantine(paths: list[str] = PATHS) -> Quarantine:
    made = Quarantine(len(paths))
    made.describe(paths)
    return made


def test_an_image_is_left_out_the_second_time_it_is_blamed() -> None:
    ward = quarantine()
    assert [ward.blame(PATHS[1]) for _ in range(4)] == [False, True, False, False]
    assert ward.left_out == [PATHS[1]]
    assert [ward.has_out(path) for path in PATHS[:3]] == [False, True, False]


def test_a_path_is_the_same_image_however_it_is_written() -> None:
    ward = quarantine()
    assert (ward.blame("/data/../data/c.jpg"), ward.blame(Path(PATHS[2]))) == (False, True)
    assert ward.left_out == [PATHS[2]]


def test_an_image_that_came_into_the_data_set_later_is_counted_as_well() -> None:
    ward = quarantine()
    assert (ward.blame("/data/x.jpg"), ward.blame("/data/x.jpg")) == (False, True)
    assert ward.has_out("/data/x.jpg")
    assert ward.left_out == ["/data/x.jpg"]


def test_an_image_that_the_data_set_has_often_counts_once() -> None:
    """A list may name an image again and again for it to be drawn more often."""
    ward = quarantine([*PATHS[:4], *[PATHS[0]] * 9])
    came = ward.leave_out([PATHS[0], PATHS[1], PATHS[2]])
    assert (came.taken, came.refused) == ((PATHS[0], PATHS[1]), (PATHS[2],))
    assert (ward.images, ward.left_out) == (4, PATHS[:2])


def test_half_of_what_is_in_the_data_set_now_remains() -> None:
    ward = quarantine()
    ward.leave_out(PATHS[:3])
    ward.describe(PATHS[2:6])  # somebody has put another sample of the images into the data set
    assert ward.leave_out([PATHS[3], PATHS[4]]) == LeftOut(taken=(PATHS[3],), refused=(PATHS[4],))


def test_half_of_the_images_always_remain_and_it_says_so() -> None:
    ward = quarantine()
    came = ward.leave_out(PATHS)
    assert (came.taken, came.refused) == (tuple(PATHS[:4]), tuple(PATHS[4:]))
    assert "at least half of the images must remain: /data/e.jpg, /data/f.jpg, /data/g.jpg and 1 more" in str(came)
    assert (ward.blame(PATHS[6]), ward.blame(PATHS[6])) == (False, False)
    assert ward.refused == PATHS[4:]
    assert [path for path in PATHS if ward.has_out(path)] == PATHS[:4]


def test_half_of_each_of_several_data_sets_remains() -> None:
    ward = Quarantine(8)
    ward.describe(PATHS[:2])
    ward.describe(PATHS[2:], 2)
    came = ward.leave_out([PATHS[0], PATHS[1], PATHS[2], PATHS[3], PATHS[4]])
    assert came.refused == (PATHS[1],)


def test_the_only_image_of_a_data_set_stays() -> None:
    assert quarantine(PATHS[:1]).leave_out(PATHS[:1]) == LeftOut(refused=(PATHS[0],))


def test_what_cannot_be_read_stands_in_the_file_with_the_reason_and_may_come_back(tmp_path: Path) -> None:
    ward, file = quarantine(), tmp_path / "quarantine.txt"
    ward.leave_out([PATHS[4]])
    ward.lose(PATHS[1], "is gone")
    assert ward.left_out == [PATHS[4], PATHS[1]]
    ward.write(file)
    assert file.read_text().splitlines()[1:] == [PATHS[4], "# the next one is gone:", PATHS[1]]
    assert quarantine().read(file).taken == (PATHS[4], PATHS[1])
    assert quarantine().read(file, lost=False).taken == (PATHS[4],)
    assert ward.state_dict()["left_out"] == [PATHS[4]]


def test_the_file_is_read_back_with_comments_and_strangers(tmp_path: Path) -> None:
    ward, file = quarantine(), tmp_path / "quarantine.txt"
    ward.leave_out([PATHS[4], PATHS[1]])
    ward.write(file)
    text = file.read_text()
    assert text.startswith("# ")
    assert [line for line in text.splitlines() if not line.startswith("#")] == [PATHS[1], PATHS[4]]
    file.write_bytes(b"\xef\xbb\xbf" + text.replace("\n", "\r\n").encode() + b"\n  # note\n/data/gone.jpg\n")
    other = quarantine()
    came = other.read(file)
    assert came == LeftOut(taken=(PATHS[1], PATHS[4]), unknown=("/data/gone.jpg",))
    assert other.left_out == ward.left_out


def test_odd_names_stand_in_the_file_or_are_said_not_to(tmp_path: Path) -> None:
    odd = ["#1.jpg", "a\nb.jpg", " blank .jpg ", "\udcff.jpg", "c d.jpg", "e", "f", "g", "h", "i"]
    ward, other, file = quarantine(odd), quarantine(odd), tmp_path / "q.txt"
    ward.leave_out(odd[:5])
    ward.write(file)
    assert other.read(file).unknown == ()
    assert other.left_out == ["#1.jpg", "\udcff.jpg", "c d.jpg"]
    assert file.read_bytes().count(b"# cannot stand on a line") == 2


def test_a_path_from_the_working_folder_is_the_image(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    ward = quarantine([str(tmp_path / "a.jpg"), str(tmp_path / "b.jpg")])
    assert ward.leave_out(["a.jpg"]).taken == (str(tmp_path / "a.jpg"),)


def test_a_file_that_is_not_there_is_an_error_of_one_line(tmp_path: Path) -> None:
    with pytest.raises(InvalidCallError, match=r"cannot be read: No such file or directory\. Give the quarantine\.txt"):
        quarantine().read(tmp_path / "none.txt")


def test_a_resumed_run_keeps_counts_and_images() -> None:
    first, second = quarantine(), quarantine()
    first.blame(PATHS[3])
    first.leave_out([PATHS[0]])
    assert second.load_state_dict(json.loads(json.dumps(first.state_dict()))).taken == (PATHS[0],)
    assert second.blame(PATHS[3])
    assert second.left_out == [PATHS[0], PATHS[3]]


def test_pickled_with_plain_pickle_it_is_a_copy_that_works() -> None:
    ward = quarantine()
    ward.leave_out([PATHS[5]])
    copied = pickle.loads(pickle.dumps(ward))
    assert copied.left_out == [PATHS[5]]
    copied.leave_out([PATHS[6]])
    assert copied.has_out(PATHS[6])


def watch(ward: Quarantine, ask: Any, answer: Any) -> None:
    while (path := ask.get(timeout=60)) is not None:
        answer.put(ward.has_out(path))


@pytest.mark.parametrize("method", ["fork", "spawn"])
@pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork:DeprecationWarning")
def test_a_process_that_already_runs_sees_what_is_left_out_later(method: str) -> None:
    if method not in multiprocessing.get_all_start_methods():
        pytest.skip(f"this system has no {method}")
    context: Any = torch.multiprocessing.get_context(method)
    ward, ask, answer = quarantine(), context.Queue(), context.Queue()
    process = context.Process(target=watch, args=(ward, ask, answer))
    process.start()
    seen = []
    for _ in range(2):
        ask.put(PATHS[4])
        seen.append(answer.get(timeout=60))
        ward.leave_out([PATHS[4]])
    ask.put(None)
    process.join(60)
    assert seen == [False, True]
    assert process.exitcode == 0


class TestWhoIsToBlame:
    """With mixup, two images are named for one that is bad: nobody can tell them apart."""

    def test_what_is_blended_with_a_bad_image_again_and_again_stays(self) -> None:
        ward = quarantine()
        bad = PATHS[0]
        for beside in (PATHS[1:3], PATHS[3:5]):
            for path in ward.to_blame([bad, *beside], guilty=1):
                ward.blame(path)
        assert ward.left_out == [bad]
        for path in ward.to_blame([bad, PATHS[1]], guilty=1):  # drawn before it was left out
            ward.blame(path)
        assert ward.left_out == [bad]

    def test_as_many_as_can_be_guilty_are_blamed(self) -> None:
        ward = quarantine()
        ward.blame(PATHS[0])
        ward.blame(PATHS[1])
        assert ward.to_blame(PATHS[:3], guilty=2) == PATHS[:2]
        assert ward.to_blame(PATHS[:3], guilty=1) == [], "two are as likely"
        assert ward.to_blame(PATHS[:3], guilty=3) == PATHS[:3]
