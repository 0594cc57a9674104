"""Selection: which images of a data set go into its cleaned copy, under which class ids, and why the others do not.

All is decided before anything is written. An image that training reads stays, as often as it is listed; guesses are refused.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from .._shared.text import listed
from ..errors import InvalidCallError
from .box_format import RULE as BOX_FORMAT
from .files import label_path
from .finding import DataFinding, Severity
from .folders import class_of
from .label_file import objects_of
from .layout import WHERE
from .report import DataReport

LEFT_OUT = frozenset(
    {
        *("image-empty", "image-unreadable", "image-truncated", "image-format", "image-small", "image-huge"),
        "image-channels",
        *("label-beside", "label-encoding", "label-parse", "label-columns", "label-not-finite"),
        *("class-fraction", "class-range", "coordinate-negative", "coordinate-above-one", "polygon-points"),
        *("keypoint-outside", "keypoint-visibility", "augment-failed", "augment-not-finite"),
    }
)
"""Rules whose errors keep an image out: nobody can read it, or an object would become background."""
NEVER_READ = frozenset(
    {
        *("path-missing", "list-entry-missing", "link-broken", "symlink-loop", "image-ignored", "image-stray"),
        *("label-beside", "label-orphan", "npy-unreadable", "npy-mismatch", "npy-not-finite", "split-empty"),
    }
)
"""Rules about files that training does not or should not read."""
NEEDED = frozenset({"yaml-unreadable", "yaml-key", "kpt-shape", "flip-idx"})
"""Rules about what only the description can say."""
LEAST_KEPT = 0.5
"""Share of the training images that must stay when copies are taken out."""
COPY, LEAK, CONTRADICTION = "duplicate", "duplicate-across-splits", "duplicate-labels"
LOST = "class-unused"


@dataclass
class Selection:
    """What goes into a copy."""

    images: dict[str, list[str]] = field(default_factory=dict)
    """By split, as often as they are listed."""
    classes: dict[int, int] = field(default_factory=dict)
    """Ids in the copy by those in the labels."""
    left_out: list[tuple[str, str]] = field(default_factory=list)
    """Files that are not copied, each with the rule."""
    unmended: list[tuple[str, str, str]] = field(default_factory=list)
    """Images that stay against a rule, and lost classes: with the rule and why."""


def select(report: DataReport) -> Selection:
    """Decide what goes into a copy of a whole data set.

    Raises:
        InvalidCallError: A copy would lose or rename something, or need a guess.
    """
    _refuse_guesses(report)
    why = _rules_against(report)
    selection = Selection(classes={old: new for new, old in enumerate(sorted(report.names))})
    for split, paths in report.images.items():
        kept = [image for image in paths if image not in why]
        gone = [image for image in dict.fromkeys(paths) if image in why]
        selection.left_out += [(image, why[image]) for image in gone]
        for name in sorted(_classes_in(report, split, gone) - _classes_in(report, split, kept)) if gone else ():
            selection.unmended.append((name, LOST, f"the last images of this class in {split} are left out"))
        if kept:
            selection.images[split] = kept
        elif paths or split != "test":
            rules = sorted({why[image] for image in paths}) or ["no image is there"]
            raise _refused(f"{split} would be empty ({listed(rules)})")
    _take_out_leaks(report, selection)
    left = {path for path, _ in selection.left_out}
    for finding in report.findings:
        if finding.rule.id in NEVER_READ and finding.path not in left:
            selection.left_out.append((finding.path, finding.rule.id))
    selection.left_out = list(dict.fromkeys(selection.left_out))  # an image of two splits is told once
    return selection


def _refused(why: str) -> InvalidCallError:
    return InvalidCallError(f"{WHERE}: no copy is made: {why}. Mend that by hand first; the findings say where.")


def _refuse_guesses(report: DataReport) -> None:
    by_rule: dict[str, DataFinding] = {}
    for finding in report.findings:
        if finding.severity is Severity.ERROR:
            by_rule.setdefault(finding.rule.id, finding)
    for rule in sorted(NEEDED & set(by_rule)):
        raise _refused(report.one_line(by_rule[rule]))
    if not report.names:
        raise _refused("which class has which number is not said")
    if {"names-nc", "class-range"} <= set(by_rule):
        raise _refused(
            f"which names are meant cannot be told: {report.one_line(by_rule['names-nc'])};"
            f" {report.one_line(by_rule['class-range'])}"
        )
    if any(finding.rule.id == "split-made" for finding in report.findings):
        raise _refused("the classes are not split into train and val")
    for finding in report.findings:
        if finding.rule.id == BOX_FORMAT:
            raise _refused(f"what the numbers of the boxes mean cannot be told: {finding.message}")
    for split in ("train", "val"):
        if split not in report.images:
            raise _refused(f"{split} is not among the splits, and Ultralytics needs it")


def _rules_against(report: DataReport) -> dict[str, str]:
    """Return the rule against each image that is not copied."""
    return {
        finding.image or finding.path: finding.rule.id
        for finding in reversed(report.findings)  # the first one counts
        if finding.rule.id in LEFT_OUT and finding.severity is Severity.ERROR
    }


def _take_out_leaks(report: DataReport, selection: Selection) -> None:
    """Take out of training what another split has too, if training keeps its classes and most of its images.

    Images whose labels contradict each other stay, as do copies in validation and test: nobody can say which is right.
    """
    torn = [finding for finding in report.findings if finding.rule.id == CONTRADICTION]
    for finding in torn:
        selection.unmended.append((finding.path, CONTRADICTION, "which labels are right cannot be told"))
    train = dict.fromkeys(selection.images["train"])
    firsts = {finding.others[0] for finding in report.findings if finding.rule.id == LEAK}
    firsts -= {finding.others[0] for finding in torn}
    copies = (f.others for f in report.findings if f.rule.id in (LEAK, COPY) and f.others[0] in firsts)
    leaks = {path: None for others in copies for path in others if path in train}
    if not leaks:
        return
    left = [image for image in train if image not in leaks]
    lost = _classes_in(report, "train", list(train)) - _classes_in(report, "train", left)
    why = ""
    if len(left) < LEAST_KEPT * len(train):
        why = (
            f"{len(leaks)} of {len(train)} training images are in another split too; without them little would be left"
        )
    elif lost:
        why = f"without the training images that are in another split too, training would lose {listed(sorted(lost))}"
    if why:
        selection.unmended += [(image, LEAK, why) for image in leaks]
    else:
        selection.images["train"] = [image for image in selection.images["train"] if image not in leaks]
        selection.left_out += [(image, LEAK) for image in leaks]


def _classes_in(report: DataReport, split: str, images: list[str]) -> set[str]:
    if report.task == "classify":
        return {str(class_of(image, report.splits[split][0])) for image in images}
    objects = (objects_of(label_path(image)) for image in images)
    ids = {float(row[0]) for rows in objects if isinstance(rows, frozenset) for row in rows}
    return {name for number, name in report.names.items() if number in ids}
