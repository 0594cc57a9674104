"""The cleaned copy of any data set: nothing honest is lost, renamed or moved, and what cannot be had is refused.

``--hypothesis-profile=thorough`` draws 200 data sets of each task.
"""

from __future__ import annotations

import io
import json
import logging
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from unittest import mock

import pytest
from check.drawn import Drawn, Row, data_sets, digest, expected
from hypothesis import event, given
from hypothesis import strategies as st
from rich.console import Console

from yolo_stable.check import Severity, check, run_check
from yolo_stable.errors import InvalidCallError


@contextmanager
def quiet() -> Iterator[None]:
    """Ultralytics, without its words and without a look for fonts on the network."""
    from ultralytics.utils import LOGGER

    level = LOGGER.level
    LOGGER.setLevel(logging.CRITICAL)
    try:
        with mock.patch("ultralytics.data.utils.check_font"):
            yield
    finally:
        LOGGER.setLevel(level)


def loaded(place: Path, task: str) -> dict[str, Counter[tuple[str, tuple[Row, ...]]]]:
    """Return what Ultralytics reads of a data set: by split, each image with its objects, as often as it comes."""
    from ultralytics.cfg import get_cfg
    from ultralytics.data.dataset import YOLODataset
    from ultralytics.data.utils import check_det_dataset

    if task == "classify":
        return loaded_classes(place)
    data: dict[str, Any] = check_det_dataset(str(place / "data.yaml"))
    seen: dict[str, Counter[tuple[str, tuple[Row, ...]]]] = {}
    hyp = get_cfg(overrides={"task": task})
    for split in (split for split in ("train", "val", "test") if data.get(split)):
        dataset = YOLODataset(img_path=data[split], data=data, task=task, imgsz=32, augment=True, hyp=hyp)
        assert dataset[0]["img"].shape[0] == 3
        seen[split] = Counter(image_of(label, data["names"]) for label in dataset.labels)
    return seen


def image_of(label: dict[str, Any], names: dict[int, str]) -> tuple[str, tuple[Row, ...]]:
    rows: set[Row] = set()
    for place, cls in enumerate(label["cls"][:, 0]):
        numbers = label["segments"][place].ravel() if label["segments"] else label["bboxes"][place]
        numbers = [*numbers, *(label["keypoints"][place].ravel() if label["keypoints"] is not None else ())]
        rows.add((names[int(cls)], tuple(round(float(number), 4) for number in numbers)))
    return digest(Path(label["im_file"]).read_bytes()), tuple(sorted(rows))


def loaded_classes(place: Path) -> dict[str, Counter[tuple[str, tuple[Row, ...]]]]:
    from ultralytics.cfg import get_cfg
    from ultralytics.data.dataset import ClassificationDataset
    from ultralytics.data.utils import check_cls_dataset

    data = check_cls_dataset(str(place))
    seen: dict[str, Counter[tuple[str, tuple[Row, ...]]]] = {}
    args: Any = get_cfg(overrides={"task": "classify", "imgsz": 32})
    for split in (split for split in ("train", "val", "test") if data[split]):
        dataset = ClassificationDataset(str(data[split]), args, names=data["names"])
        images = ((digest(Path(sample[0]).read_bytes()), data["names"][sample[1]]) for sample in dataset.samples)
        seen[split] = Counter((file, ((name, ()),)) for file, name in images)
    return seen


def hold(drawn: Drawn, root: Path) -> None:
    """Hold the copy of a data set against what was drawn."""
    place, out = drawn.write(root / "data"), root / "copy"
    console = Console(file=io.StringIO(), width=200)
    options: dict[str, Any] = {"task": drawn.task, "near": False, "sample": 0, "workers": 1, "console": console}
    if drawn.must_refuse:
        event("refused")
        with pytest.raises(InvalidCallError) as caught:
            run_check(str(place), fix=out, **options)
        assert "\n" not in str(caught.value)
        assert not out.exists()
        return
    event("copied")
    code = run_check(str(place), fix=out, **options)
    changes = json.loads((out / "changes.json").read_text())
    left_out, unmended = dict(changes["left_out"]), changes["unmended"]
    leaks = {digest(Path(path).read_bytes()) for path, rule in left_out.items() if rule == "duplicate-across-splits"}
    with quiet():
        seen = loaded(out, drawn.task)
    assert set(seen) == {split for split, shots in drawn.splits.items() if shots or drawn.task == "classify"} - (
        {"test"} if not drawn.splits.get("test") else set()
    )
    for split, images in seen.items():
        assert images == expected(drawn, split, leaks)
        assert images
    elsewhere = {image for split in seen if split != "train" for image, _ in seen[split]}
    assert leaks <= elsewhere
    faulty = [shot for shots in drawn.splits.values() for shot in shots if shot.fault]
    for shot in faulty:
        assert any(Path(path).stem == shot.stem for path in left_out), shot
    said: dict[str, set[tuple[Row, ...]]] = {}
    for split in drawn.splits:
        for shot in drawn.honest(split):
            said.setdefault(digest(shot.file), set()).add(drawn.rows(shot))
    torn = sum(len(rows) > 1 for rows in said.values())
    assert bool(torn) <= ("duplicate-labels" in {rule for _, rule, _ in unmended})
    again = check(out if drawn.task == "classify" else out / "data.yaml", task=drawn.task, near=False, sample=0)
    errors = [finding for finding in again.findings if finding.severity is Severity.ERROR]
    assert code == int(bool(unmended))
    assert bool(errors) <= bool(code)
    if drawn.task == "classify":
        for split in seen:
            assert sorted(folder.name for folder in (out / split).iterdir() if folder.is_dir()) == sorted(drawn.names)


@pytest.mark.parametrize("task", ["detect", "segment", "pose", "obb", "classify"])
@given(data=st.data())
def test_the_copy_holds_all_that_is_honest(task: str, data: st.DataObject) -> None:
    drawn = data.draw(data_sets(task))
    with TemporaryDirectory(prefix="yolo-stable-drawn-") as folder:
        (Path(folder) / "data").mkdir()
        hold(drawn, Path(folder))
