"""Which files are followed, what is told of a lost one and to whom, and when a run ends of it."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from calls import Calls

from yolo_stable.errors import TrainingHaltedError
from yolo_stable.presets.guard_settings import TrainerConfig
from yolo_stable.provenance.path_states import LEFT_OUT, key_of
from yolo_stable.provenance.unreadable import Problem
from yolo_stable.trainer import file_watcher as watching
from yolo_stable.trainer.file_watcher import FileWatcher

OUT = "it is left out from here on, and other images are drawn in its place; see run/quarantine.txt"
GO_ON = "yolo-stable train DATA model=LAST resume=True"


class Bare:
    """The watcher of a trainer that is a stub; its data sets are lists of paths."""

    def __init__(self, calls: Calls, **settings: Any) -> None:
        self.trainer: Any = SimpleNamespace(
            plan=SimpleNamespace(trainer=TrainerConfig(**settings)),
            guard=None,
            run_log=SimpleNamespace(unreadable=calls.to("unreadable")),
        )
        quarantine: Any = SimpleNamespace(path=Path("run/quarantine.txt"), **calls.all_to("attach", "lose", "write"))
        self.calls, self.watcher = calls, FileWatcher(self.trainer, quarantine)

    def attach(self, mode: str = "train", count: int = 8) -> list[str]:
        paths = paths_in(mode, count)
        self.watcher.attach(paths, mode)
        self.calls.clear()
        return paths

    def lose(self, *paths: str, mode: str = "train", problem: Problem = Problem.GONE) -> None:
        """Let files be lost, as a worker notices it."""
        for path in paths:
            self.watcher.by_mode[mode].states.set(path, problem)


def paths_in(mode: str, count: int = 8) -> list[str]:
    return [f"/{mode}/{n}.jpg" for n in range(count)]


@pytest.fixture(autouse=True)
def watched(monkeypatch: pytest.MonkeyPatch, calls: Calls) -> dict[str, bool]:
    """Return whether data sets can be watched."""
    answer = {"can": True}
    monkeypatch.setattr("yolo_stable.trainer.lost_files.parts_of", lambda data: [(data, 0)])
    monkeypatch.setattr("yolo_stable.trainer.lost_files.paths_of", lambda data: data)
    monkeypatch.setattr(
        watching, "watch", lambda data, states, skip: calls.append(("watch", data, states, skip)) or answer["can"]
    )
    monkeypatch.setattr(watching, "trace", calls.to("trace"))
    return answer


@pytest.fixture
def bare(calls: Calls) -> Bare:
    return Bare(calls)


class TestAttach:
    def test_training_images_are_watched_quarantined_and_traced(self, bare: Bare, calls: Calls) -> None:
        data = paths_in("train")
        bare.watcher.attach(data, "train")
        files = bare.watcher.by_mode["train"]
        assert calls == [("watch", data, files.states, False), ("attach", files), ("trace", data)]
        assert files.datasets == [data]

    def test_those_of_a_validation_are_skipped_when_they_are_lost(self, bare: Bare, calls: Calls) -> None:
        data = paths_in("val")
        bare.watcher.attach(data, "val")
        files = bare.watcher.by_mode["val"]
        assert calls == [("watch", data, files.states, True)]

    def test_without_incidents_nothing_is_traced(self, calls: Calls) -> None:
        Bare(calls, incidents=None).watcher.attach([], "train")
        assert calls.names == ["watch", "attach"]

    def test_a_data_set_that_cannot_be_watched_is_left_alone(
        self, bare: Bare, calls: Calls, watched: dict[str, bool]
    ) -> None:
        watched["can"] = False
        bare.watcher.attach([], "train")
        assert calls.names == ["watch"]
        assert bare.watcher.by_mode == {}

    def test_beside_one_that_is_it_is_not_traced(self, bare: Bare, calls: Calls, watched: dict[str, bool]) -> None:
        known = bare.attach()
        watched["can"] = False
        bare.watcher.attach([], "train")
        assert calls.names == ["watch", "attach"]
        assert bare.watcher.by_mode["train"].datasets == [known]

    def test_a_second_one_has_the_states_of_the_first(self, bare: Bare) -> None:
        first = bare.attach()
        files = bare.watcher.by_mode["train"]
        second = bare.attach()
        assert bare.watcher.by_mode["train"] is files
        assert files.datasets == [first, second]

    def test_training_and_validation_have_states_of_their_own(self, bare: Bare) -> None:
        bare.attach("train")
        bare.attach("val")
        assert bare.watcher.by_mode["train"].states is not bare.watcher.by_mode["val"].states

    def test_what_was_lost_of_a_data_set_that_is_let_go_stays_lost(self, bare: Bare, said: list[str]) -> None:
        bare.attach("train")
        bare.attach("val")
        bare.lose("/train/3.jpg")
        bare.watcher.look()
        bare.watcher.release()
        assert [files.datasets for files in bare.watcher.by_mode.values()] == [[], []]
        bare.attach("train")
        bare.watcher.look()
        assert list(bare.watcher.by_mode["train"].lost) == ["/train/3.jpg"]
        assert len(said) == 2, "and is told once"


class TestLook:
    def test_without_news_nothing_is_done(self, bare: Bare, calls: Calls, said: list[str]) -> None:
        bare.watcher.look()
        bare.attach("train")
        bare.attach("val")
        bare.watcher.look()
        assert (calls, said) == ([], [])

    def test_a_training_image_is_told_logged_and_listed_once(self, bare: Bare, calls: Calls, said: list[str]) -> None:
        bare.attach()
        bare.lose("/train/3.jpg", problem=Problem.EMPTY)
        bare.watcher.look()
        assert calls == [
            ("lose", "/train/3.jpg", "is empty"),
            ("unreadable", "/train/3.jpg", "is empty", "train", 1, 8),
            ("write",),
        ]
        assert said == ["", f"/train/3.jpg is empty: {OUT}."]
        bare.watcher.look()
        assert (len(calls), len(said)) == (3, 2)

    def test_an_image_of_the_validation_is_no_matter_of_the_quarantine(
        self, bare: Bare, calls: Calls, said: list[str]
    ) -> None:
        bare.attach("val")
        bare.lose("/val/3.jpg", mode="val")
        bare.watcher.look()
        assert calls == [("unreadable", "/val/3.jpg", "is gone", "val", 1, 8)]
        assert said == ["", "/val/3.jpg is gone: it is left out of the validations."]

    def test_one_that_was_left_out_by_the_quarantine_is_not_lost(self, bare: Bare, calls: Calls) -> None:
        bare.attach()
        bare.watcher.by_mode["train"].states.set("/train/3.jpg", LEFT_OUT)
        bare.watcher.look()
        assert calls == []

    def test_of_many_at_once_ten_are_named_and_the_log_has_all(self, bare: Bare, calls: Calls, said: list[str]) -> None:
        bare.attach("val", 100)
        bare.lose(*paths_in("val", 12), mode="val")
        bare.watcher.look()
        told = [line for line in said if line]
        assert len(told) == 11
        assert told[10] == "So it is with 2 more: they are left out of the validations."
        assert len(calls) == 12

    def test_the_others_of_many_training_images_are_out_too(self, calls: Calls, said: list[str]) -> None:
        bare = Bare(calls, max_unreadable=None)
        bare.attach(count=100)
        bare.lose(*paths_in("train", 13))
        bare.watcher.look()
        assert said[-1] == (
            "So it is with 3 more: they are left out from here on, and other images are drawn in their place; see"
            " run/quarantine.txt."
        )

    def test_of_ten_all_are_named(self, bare: Bare, said: list[str]) -> None:
        bare.attach("val", 100)
        bare.lose(*paths_in("val", 10), mode="val")
        bare.watcher.look()
        assert all(line.startswith("/val/") for line in said if line)
        assert len(said) == 20


class TestTooMany:
    def test_one_more_than_three_of_eight_ends_the_run(self, bare: Bare, said: list[str]) -> None:
        bare.attach()
        for path in paths_in("train", 3):
            bare.lose(path)
            bare.watcher.look()
        bare.lose("/train/3.jpg", problem=Problem.FORBIDDEN)
        with pytest.raises(TrainingHaltedError) as halted:
            bare.watcher.look()
        assert str(halted.value) == (
            "4 of 8 images cannot be read any more (/train/0.jpg is gone; /train/1.jpg is gone; /train/2.jpg is gone; and 1"
            " more), and guard.max_unreadable=0.1 allows 3. Bring them back, or allow more with guard.max_unreadable."
        )
        assert halted.value.next == (
            f"When they are back, go on:\n{GO_ON}\nOr go on without them:\n{GO_ON} guard.max_unreadable=none"
        )
        assert said[-1].startswith("/train/3.jpg may not be read: permission denied: "), "it is told before"
        bare.watcher.look()  # without news it does not halt again

    def test_the_share_is_that_of_the_settings(self, calls: Calls) -> None:
        bare = Bare(calls, max_unreadable=0.5)
        bare.attach()
        bare.lose(*paths_in("train", 4))
        bare.watcher.look()
        bare.lose("/train/4.jpg")
        with pytest.raises(TrainingHaltedError, match=r"guard\.max_unreadable=0\.5 allows 4\."):
            bare.watcher.look()

    def test_any_share_where_none_is_set(self, calls: Calls) -> None:
        bare = Bare(calls, max_unreadable=None)
        bare.attach()
        bare.lose(*paths_in("train"))
        bare.watcher.look()
        assert len(bare.watcher.by_mode["train"].lost) == 8

    def test_images_of_the_validation_end_no_training(self, bare: Bare) -> None:
        bare.attach("val")
        bare.lose(*paths_in("val"), mode="val")
        bare.watcher.look()

    def test_nothing_left_says_what_was_lost_of_both(self, calls: Calls) -> None:
        bare = Bare(calls, max_unreadable=None)
        bare.attach("train", 1)
        bare.attach("val", 1)
        bare.lose("/train/0.jpg")
        bare.lose("/val/0.jpg", mode="val")
        halted = bare.watcher.nothing_left()
        assert str(halted) == (
            "No image could be drawn any more. train: 1 of 1 images cannot be read any more (/train/0.jpg is gone). val: 1 of 1"
            " images cannot be read any more (/val/0.jpg is gone). Bring them back, or allow more with guard.max_unreadable."
        )
        assert halted.next.startswith("When they are back, go on:\n")

    def test_nothing_left_does_not_speak_of_images_that_are_there(self, calls: Calls) -> None:
        bare = Bare(calls, max_unreadable=None)
        bare.attach("train", 1)
        bare.attach("val", 1)
        bare.lose("/val/0.jpg", mode="val")
        assert str(bare.watcher.nothing_left()).startswith("No image could be drawn any more. val: 1 of 1 images")

    def test_nothing_left_is_too_many_where_a_share_is_set(self, bare: Bare) -> None:
        bare.attach()
        bare.lose(*paths_in("train"))
        assert str(bare.watcher.nothing_left()).startswith("8 of 8 images cannot be read any more")


class TestSeveralRanks:
    @staticmethod
    def ranks(bare: Bare, calls: Calls, *others: dict[str, dict[int, int]], shared: bool = True) -> None:
        """Let other ranks have lost files, by mode."""

        def gather(mine: dict[str, dict[int, int]]) -> list[dict[str, dict[int, int]]]:
            calls.append(("gather", mine))
            return [mine, *others]

        bare.trainer.guard = SimpleNamespace(ranks=SimpleNamespace(shared=shared, gather=gather))

    def test_alone_nobody_is_asked(self, bare: Bare, calls: Calls) -> None:
        bare.attach()
        bare.lose("/train/3.jpg")
        bare.watcher.share()
        self.ranks(bare, calls, shared=False)
        bare.watcher.share()
        assert calls == []

    def test_what_another_one_has_lost_is_told_here(self, bare: Bare, calls: Calls, said: list[str]) -> None:
        bare.attach("train")
        bare.attach("val")
        theirs = {"train": {key_of("/train/5.jpg"): int(Problem.GONE)}, "other": {1: 2}}
        self.ranks(bare, calls, theirs, {})
        bare.lose("/train/3.jpg", problem=Problem.EMPTY)
        bare.watcher.share()
        assert calls[0] == ("gather", {"train": {key_of("/train/3.jpg"): int(Problem.EMPTY)}, "val": {}})
        lost = [call[1:3] for call in calls if call[0] == "unreadable"]
        assert sorted(lost) == [("/train/3.jpg", "is empty"), ("/train/5.jpg", "is gone")]
        assert sum(bool(line) for line in said) == 2

    def test_together_they_may_be_too_many(self, bare: Bare, calls: Calls) -> None:
        bare.attach()
        bare.lose("/train/0.jpg", "/train/1.jpg")
        theirs = {"train": {key_of(f"/train/{n}.jpg"): int(Problem.GONE) for n in (2, 3)}}
        self.ranks(bare, calls, theirs)
        with pytest.raises(TrainingHaltedError, match=r"4 of 8 images"):
            bare.watcher.share()
