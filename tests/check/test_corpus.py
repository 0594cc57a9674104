"""The check against what the installed Ultralytics does, over hundreds of odd files, descriptions and folders.

An error is said where Ultralytics stops or leaves an image out, a warning where it goes on otherwise than was meant, and no
error where it trains what was meant. What Ultralytics does is asked of its own trainers; where it is content and should not be,
the member of the corpus says what is expected, and why.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

import pytest
from check import corpus_descriptions, corpus_folders, corpus_images, corpus_labels, corpus_layouts
from check.corpus_descriptions import Case
from check.corpus_folders import Folder
from check.corpus_member import Group, Member
from check.corpus_truth import Outcome, of_case, of_folder, of_group, write_group

from yolo_stable.check.check import check
from yolo_stable.check.finding import DataFinding
from yolo_stable.check.rules import found
from yolo_stable.errors import InvalidCallError

pytestmark = pytest.mark.filterwarnings("ignore")
"""What libraries say of odd files is no failure here: in the trainer it would become one."""
LEVELS = ("", "info", "warning", "error")
FILES = {group.name: group for module in (corpus_images, corpus_labels) for group in module.groups()}
CASES = {case.name: case for module in (corpus_descriptions, corpus_layouts) for case in module.cases()}
FOLDERS = {folder.name: folder for folder in corpus_folders.folders()}


@pytest.fixture(autouse=True)
def apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let relative paths lead nowhere else, and have no font fetched for names in other scripts."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("ultralytics.data.utils.check_font", lambda font: None)


def disagreement(outcome: Outcome, level: str | None, findings: Iterable[DataFinding]) -> str:
    """Return in which way the findings do not tell what became of a member, or nothing."""
    said = max((finding.severity.value for finding in findings), key=LEVELS.index, default="")
    due = {"raises": "error", "skipped": "error", "changed": "warning"}.get(outcome.kind, "")
    due = due if level is None else level
    if LEVELS.index(said) < LEVELS.index(due):
        return f"missed: {due} is due, said is {said or 'nothing'}; Ultralytics: {outcome.kind} {outcome.what}"
    if said == "error" and outcome.kind in {"trains", "unread"} and due != "error":
        return f"false error; Ultralytics: {outcome.kind}"
    return ""


def about(member: Member, root: Path, findings: Iterable[DataFinding]) -> list[DataFinding]:
    """Return the findings at a member's files."""
    image = str(root / "images" / "train" / member.name)
    label = str(root / "labels" / "train" / (member.name.rpartition(".")[0] or member.name))
    places = {image, f"{image.rpartition('.')[0]}.npy"}
    return [f for f in findings if f.image == image or f.path in places or f.path.startswith(f"{label}.")]


def checked(given: Path, task: str) -> Sequence[DataFinding]:
    """Return what the check says of a data set; one that it refuses has one error."""
    try:
        return check(given, task=task, sample=0, workers=1).findings
    except InvalidCallError as error:
        return [found("yaml-unreadable", given, str(error))]


@pytest.mark.parametrize("group", FILES.values(), ids=FILES)
def test_a_file_is_judged_as_ultralytics_takes_it(group: Group, tmp_path: Path) -> None:
    root = tmp_path / "set"
    findings = check(write_group(group, root), task=group.task, sample=0, workers=1).findings
    outcomes = of_group(group, root)

    wrong = {
        member.name: told
        for member in group.members
        if (told := disagreement(outcomes[member.name], member.level, about(member, root, findings)))
    }
    assert not wrong
    assert len(Counter(outcome.kind for outcome in outcomes.values())) > 1, "a group has good and bad members"


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_a_description_is_judged_as_ultralytics_takes_it(case: Case, tmp_path: Path) -> None:
    given = case.build(tmp_path / "set")
    findings = checked(given, case.task)
    outcome = of_case(case, given)
    assert not disagreement(outcome, case.level, findings)


@pytest.mark.parametrize("folder", FOLDERS.values(), ids=FOLDERS)
def test_a_folder_of_classes_is_judged_as_ultralytics_takes_it(folder: Folder, tmp_path: Path) -> None:
    given = folder.build(tmp_path / "set")
    findings = checked(given, "classify")
    outcome = of_folder(folder, given)
    assert not disagreement(outcome, folder.level, findings)


def test_the_corpus_is_large() -> None:
    assert sum(len(group.members) for group in FILES.values()) >= 450
    assert len(CASES) + len(FOLDERS) >= 340
    assert all(len({member.name for member in group.members}) == len(group.members) for group in FILES.values())
