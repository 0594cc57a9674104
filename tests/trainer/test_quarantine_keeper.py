"""Which images are left out, what is told of it, and what stands in ``quarantine.txt``."""

from __future__ import annotations

import errno
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from calls import Calls

from yolo_stable.autopsy.report import AutopsyReport, Sample
from yolo_stable.errors import InvalidCallError
from yolo_stable.presets.guard_settings import TrainerConfig
from yolo_stable.provenance.path_states import PathStates
from yolo_stable.provenance.unreadable import Problem
from yolo_stable.trainer import quarantine_keeper as keeping
from yolo_stable.trainer.lost_files import LostFiles
from yolo_stable.trainer.quarantine_keeper import QuarantineKeeper


class Bare:
    """The quarantine of a trainer that is a stub, over data sets that are lists of paths."""

    def __init__(self, folder: Path, calls: Calls, **settings: Any) -> None:
        self.trainer: Any = SimpleNamespace(
            plan=SimpleNamespace(trainer=TrainerConfig(**settings)),
            save_dir=folder,
            resume=False,
            epoch=1,
            epochs=5,
            batch_number=3,
            run_log=SimpleNamespace(left_out=calls.to("left_out")),
        )
        self.broken: set[str] = set()
        injections: Any = SimpleNamespace(has_broken=self.broken.__contains__)
        next_steps: Any = SimpleNamespace(
            filled=lambda text: text.replace("DATA model=MODEL", "d.yaml model=n.pt"),
            told=lambda text: text.replace("DATA", "d.yaml"),
        )
        self.keeper = QuarantineKeeper(self.trainer, injections, next_steps)

    def attach(self, count: int = 8) -> LostFiles:
        files = LostFiles(PathStates(8), [[f"/data/{n}.jpg" for n in range(count)]])
        self.keeper.attach(files, None)
        return files

    @property
    def listed(self) -> list[str]:
        lines = self.keeper.path.read_text().splitlines()
        return [line for line in lines if not line.startswith("# Images that")]


@pytest.fixture(autouse=True)
def _data_sets_are_lists(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("yolo_stable.trainer.lost_files.parts_of", lambda data: [(data, 0)])
    monkeypatch.setattr("yolo_stable.trainer.lost_files.paths_of", lambda data: data)
    monkeypatch.setattr(keeping, "paths_of", lambda data: data)


@pytest.fixture
def bare(tmp_path: Path, calls: Calls) -> Bare:
    return Bare(tmp_path, calls)


@pytest.fixture
def rank_1(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keeping, "RANK", 1)


def guilty(*names: str, cause: str = "data", row: int | None = None, **evidence: Any) -> AutopsyReport:
    samples = tuple(Sample(f"/data/{name}.jpg" if name else "", 0, label_row=row) for name in names)
    return AutopsyReport(cause=cause, samples=samples, evidence=evidence)


class TestAttach:
    def test_the_first_data_set_begins_it(self, bare: Bare, said: list[str], tmp_path: Path) -> None:
        assert bare.keeper.quarantine is None
        files = LostFiles(PathStates(8), [["/data/1.jpg", "/data/2.jpg"], ["/data/2.jpg", "/data/3.jpg"]])
        bare.keeper.attach(files, None)
        quarantine = bare.keeper.quarantine
        assert quarantine is not None
        assert quarantine.states is files.states, "of a file there is one state, whoever sets it"
        assert quarantine.images == 3
        assert bare.keeper.path == tmp_path / "quarantine.txt"
        assert said == []

    def test_a_further_one_goes_on_with_it(self, bare: Bare) -> None:
        bare.attach(8)
        first = bare.keeper.quarantine
        files = LostFiles(PathStates(8), [["/data/1.jpg"]])
        bare.keeper.attach(files, None)
        assert bare.keeper.quarantine is first
        assert first is not None
        assert first.images == 1

    def test_tracing_knows_of_one_data_set_and_the_count_is_of_all(
        self, bare: Bare, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Tracing describes the data set that it is given as the first one; what there is besides is told behind it."""
        parts = [["/data/1.jpg", "/data/2.jpg"], ["/data/3.jpg"]]
        monkeypatch.setattr(keeping, "trace", lambda dataset, quarantine: quarantine.describe(dataset))
        bare.keeper.attach(LostFiles(PathStates(8), parts), parts[1])
        assert bare.keeper.quarantine is not None
        assert bare.keeper.quarantine.images == 3

    def test_what_is_asked_for_is_left_out_from_the_start(self, tmp_path: Path, calls: Calls, said: list[str]) -> None:
        listed = tmp_path / "mine.txt"
        listed.write_text("/data/3.jpg\n/elsewhere/9.jpg\n")
        bare = Bare(tmp_path, calls, quarantine_from=str(listed))
        bare.attach()
        assert bare.keeper.quarantine is not None
        assert bare.keeper.quarantine.left_out == ["/data/3.jpg"]
        assert said == [f"{listed}: 1 image is left out. Not in the data set: /elsewhere/9.jpg."]
        bare.attach()
        assert len(said) == 1, "of the same data built anew nothing comes"
        listed.write_text("/data/3.jpg\n/data/4.jpg\n")
        bare.attach()
        assert said[1:] == [f"{listed}: 1 image is left out."]

    def test_at_first_it_is_told_also_that_nothing_came_of_it(
        self, tmp_path: Path, calls: Calls, said: list[str]
    ) -> None:
        listed = tmp_path / "mine.txt"
        listed.write_text("/elsewhere/9.jpg\n")
        Bare(tmp_path, calls, quarantine_from=str(listed)).attach()
        assert said == [f"{listed}: 0 images are left out. Not in the data set: /elsewhere/9.jpg."]

    def test_one_that_cannot_be_read_is_refused(self, tmp_path: Path, calls: Calls) -> None:
        with pytest.raises(InvalidCallError, match=r"gone\.txt cannot be read"):
            Bare(tmp_path, calls, quarantine_from=str(tmp_path / "gone.txt")).attach()

    def test_a_resumed_run_goes_on_without_the_guilty_and_tries_the_lost_again(
        self, bare: Bare, said: list[str]
    ) -> None:
        bare.keeper.path.write_text("/data/3.jpg\n# the next one is gone:\n/data/5.jpg\n")
        bare.trainer.resume = True
        bare.attach()
        assert bare.keeper.quarantine is not None
        assert bare.keeper.quarantine.left_out == ["/data/3.jpg"]
        assert said == [f"{bare.keeper.path}: 1 image is left out."]

    def test_a_fresh_run_does_not_read_what_another_one_left_in_its_folder(self, bare: Bare) -> None:
        bare.keeper.path.write_text("/data/3.jpg\n")
        bare.attach()
        assert bare.keeper.quarantine is not None
        assert bare.keeper.quarantine.left_out == []

    def test_turned_off_it_reads_nothing(self, tmp_path: Path, calls: Calls, said: list[str]) -> None:
        bare = Bare(tmp_path, calls, quarantine=False, quarantine_from=str(tmp_path / "gone.txt"))
        bare.attach()
        assert said == []

    @pytest.mark.usefixtures("rank_1")
    def test_other_ranks_leave_the_same_out_and_say_nothing(
        self, tmp_path: Path, calls: Calls, said: list[str]
    ) -> None:
        listed = tmp_path / "mine.txt"
        listed.write_text("/data/3.jpg\n")
        bare = Bare(tmp_path, calls, quarantine_from=str(listed))
        bare.attach()
        assert bare.keeper.quarantine is not None
        assert bare.keeper.quarantine.left_out == ["/data/3.jpg"]
        assert said == []


class TestBlame:
    def test_the_second_time_it_is_left_out_told_logged_and_listed(
        self, bare: Bare, calls: Calls, said: list[str]
    ) -> None:
        bare.attach()
        bare.keeper.blame(guilty("2", what="has NaN pixels"))
        assert (said, calls) == ([], [])
        bare.keeper.blame(guilty("2", what="has NaN pixels"))
        assert said == [
            "",
            "epoch 2/5, batch 3: /data/2.jpg was found guilty twice, and is left out from here on. Repair it, or leave it"
            " out of the next run as well:\n"
            f"    yolo-stable train d.yaml model=n.pt guard.quarantine_from={bare.keeper.path}",
        ]
        assert calls == [("left_out", "/data/2.jpg")]
        assert bare.listed == ["/data/2.jpg"]
        bare.keeper.blame(guilty("2"))
        assert len(said) == 2, "it is out already"

    @pytest.mark.parametrize("cause", ["undecided", "weights", "transient"])
    def test_another_cause_blames_nobody(self, bare: Bare, calls: Calls, cause: str) -> None:
        bare.attach()
        for _ in range(3):
            bare.keeper.blame(guilty("2", cause=cause))
        assert calls == []

    def test_turned_off_it_blames_nobody(self, tmp_path: Path, calls: Calls) -> None:
        bare = Bare(tmp_path, calls, quarantine=False)
        bare.attach()
        for _ in range(3):
            bare.keeper.blame(guilty("2"))
        assert calls == []

    def test_before_a_data_set_is_attached_it_blames_nobody(self, bare: Bare, said: list[str]) -> None:
        bare.keeper.blame(guilty("2"))
        assert said == []

    def test_files_that_are_not_known_are_not_counted(self, bare: Bare) -> None:
        bare.attach()
        bare.keeper.blame(guilty("", "2", row=0))
        assert bare.keeper.quarantine is not None
        assert bare.keeper.quarantine.counts == {"/data/2.jpg": 1}

    def test_of_files_in_one_image_the_one_that_was_there_before_did_it(self, bare: Bare, calls: Calls) -> None:
        bare.attach()
        bare.keeper.blame(guilty("2", "5", positions=[0]))
        bare.keeper.blame(guilty("2", "6", positions=[0]))
        assert calls == [("left_out", "/data/2.jpg")]
        assert bare.keeper.quarantine is not None
        assert bare.keeper.quarantine.counts == {"/data/2.jpg": 2, "/data/5.jpg": 1}

    def test_where_no_image_of_the_batch_is_named_one_is_taken_to_be_guilty(self, bare: Bare) -> None:
        bare.attach()
        bare.keeper.blame(guilty("2", "5"))
        bare.keeper.blame(guilty("2", "6"))
        assert bare.keeper.quarantine is not None
        assert "/data/6.jpg" not in bare.keeper.quarantine.counts

    def test_of_several_images_as_many_files_may_be_guilty(self, bare: Bare) -> None:
        bare.attach()
        bare.keeper.blame(guilty("2", positions=[1]))
        bare.keeper.blame(guilty("2", "6", positions=[0, 1]))
        assert bare.keeper.quarantine is not None
        assert bare.keeper.quarantine.counts == {"/data/2.jpg": 2, "/data/6.jpg": 1}

    def test_files_with_a_guilty_label_each_are_all_guilty(self, bare: Bare) -> None:
        bare.attach()
        bare.keeper.blame(guilty("2", row=0, positions=[1]))
        bare.keeper.blame(guilty("2", "6", row=0, positions=[0]))
        assert bare.keeper.quarantine is not None
        assert bare.keeper.quarantine.counts == {"/data/2.jpg": 2, "/data/6.jpg": 1}

    def test_where_a_label_is_known_of_one_of_them_only_nobody_can_tell_them_apart(self, bare: Bare) -> None:
        bare.attach()
        bare.keeper.blame(guilty("2", row=0))
        both = (*guilty("2", row=0).samples, *guilty("6").samples)
        bare.keeper.blame(AutopsyReport(cause="data", samples=both, evidence={"positions": [0]}))
        assert bare.keeper.quarantine is not None
        assert bare.keeper.quarantine.counts == {"/data/2.jpg": 2}

    def test_half_of_the_images_remain_and_that_is_told_once(self, bare: Bare, calls: Calls, said: list[str]) -> None:
        bare.attach(2)
        for name in ("0", "0", "1", "1", "1"):
            bare.keeper.blame(guilty(name))
        assert calls == [("left_out", "/data/0.jpg")]
        assert said[2:] == [
            "",
            "epoch 2/5, batch 3: /data/1.jpg was found guilty twice, but stays: 1 of 2 images are out, and half must remain."
            " What is wrong with the data set:\n    yolo-stable check d.yaml",
        ]

    def test_images_that_came_into_the_data_set_since_count(self, bare: Bare, calls: Calls) -> None:
        files = bare.attach(2)
        files.datasets[0].extend(["/data/2.jpg", "/data/3.jpg"])
        for name in ("0", "0", "1", "1"):
            bare.keeper.blame(guilty(name))
        assert calls == [("left_out", "/data/0.jpg"), ("left_out", "/data/1.jpg")], "two of four may go"

    def test_a_path_with_a_space_can_be_typed(self, tmp_path: Path, calls: Calls, said: list[str]) -> None:
        folder = tmp_path / "my run"
        folder.mkdir()
        bare = Bare(folder, calls)
        bare.attach()
        bare.keeper.blame(guilty("2"))
        bare.keeper.blame(guilty("2"))
        assert said[1].endswith(f"guard.quarantine_from='{folder}/quarantine.txt'")


class TestWrite:
    def test_before_a_data_set_is_attached_there_is_nothing_to_write(self, bare: Bare) -> None:
        bare.keeper.lose("/data/2.jpg", "is gone")
        bare.keeper.write()
        assert not bare.keeper.path.exists()

    def test_lost_files_stand_in_it_with_the_reason(self, bare: Bare) -> None:
        files = bare.attach()
        files.states.set("/data/2.jpg", Problem.GONE)
        bare.keeper.lose("/data/2.jpg", "is gone")
        bare.keeper.write()
        assert bare.listed == ["# the next one is gone:", "/data/2.jpg"]

    def test_images_that_are_broken_on_purpose_do_not(self, bare: Bare) -> None:
        bare.attach()
        bare.broken.add("/data/2.jpg")
        for name in ("2", "2", "3", "3"):
            bare.keeper.blame(guilty(name))
        assert bare.listed == ["/data/3.jpg"]

    @pytest.mark.usefixtures("rank_1")
    def test_the_first_rank_alone_writes(self, bare: Bare) -> None:
        bare.attach()
        bare.keeper.write()
        assert not bare.keeper.path.exists()

    def test_a_full_disk_is_told_and_ends_nothing(
        self, bare: Bare, said: list[str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def full(path: Path, content: bytes) -> None:
            raise OSError(errno.ENOSPC, "No space left on device")

        bare.attach()
        bare.keeper.lose("/data/2.jpg", "is gone")
        with monkeypatch.context() as patch:
            patch.setattr("yolo_stable.provenance.quarantine.write_whole", full)
            bare.keeper.write()
        assert said == ["", f"{bare.keeper.path} could not be written: No space left on device."]
        bare.keeper.write()
        assert "/data/2.jpg" in bare.keeper.path.read_text(), "the next one has what that one had"
