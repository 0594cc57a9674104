"""The folder of incidents is numbered and bounded."""

from __future__ import annotations

from pathlib import Path

from yolo_stable.incidents.folder import IncidentFolder


def test_ten_thousand_bad_batches_leave_a_bounded_folder(tmp_path: Path) -> None:
    incidents = IncidentFolder(tmp_path / "incidents", keep=3)
    looked_into = 0
    for _ in range(10_000):
        if not incidents.admit():
            continue
        looked_into += 1
        if (folder := incidents.next_folder()) is not None:
            folder.mkdir(parents=True)
            incidents.written()
    assert incidents.counted == 10_000
    assert looked_into == 30
    assert sorted(path.name for path in incidents.folder.iterdir()) == ["0001", "0002", "0003"]


def test_a_resumed_run_counts_on_and_other_files_are_no_incidents(tmp_path: Path) -> None:
    for name in ("0002", "0007", "0009-rank1", ".0008.part", "notes", "12"):
        (tmp_path / name).mkdir()
    incidents = IncidentFolder(tmp_path, keep=3)
    assert incidents.next_folder() == tmp_path / "0008"
    incidents.written()
    assert incidents.next_folder() is None
    assert IncidentFolder(tmp_path, keep=3, rank=1).next_folder() == tmp_path / "0010-rank1"


def test_a_folder_that_could_not_be_written_keeps_its_number(tmp_path: Path) -> None:
    incidents = IncidentFolder(tmp_path, keep=1)
    assert incidents.admit()
    assert incidents.next_folder() == incidents.next_folder() == tmp_path / "0001"
