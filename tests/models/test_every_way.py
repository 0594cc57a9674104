"""A script that uses Ultralytics in every common way does the same with the one import changed."""

from __future__ import annotations

import os
import runpy
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from equality import assert_same

SCRIPT = Path(__file__).with_name("every_way.py")
IMPORT = "from ultralytics import YOLO\n"
pytestmark = pytest.mark.filterwarnings("ignore")  # of the export


@dataclass(frozen=True)
class Ran:
    """A run of the script."""

    folder: Path
    said: list[str]
    """What it printed itself; Ultralytics logs."""

    def weights(self) -> dict[str, Any]:
        """Return the networks of all files that Ultralytics writes, by their place."""
        files = [self.folder / "frozen.pt", *self.folder.glob("runs/**/weights/*t.pt")]
        return {
            file.relative_to(self.folder).as_posix(): torch.load(file, weights_only=False)["model"].float().state_dict()
            for file in files
        }


@pytest.fixture(scope="module")
def ran(
    tmp_path_factory: pytest.TempPathFactory, narrow: Callable[[str], str], shapes: Callable[..., str]
) -> Iterator[Callable[[str], Ran]]:
    before = Path.cwd()

    def run(module: str) -> Ran:
        folder = tmp_path_factory.mktemp(module)
        made = Path(shapes(train=8, val=4, imgsz=32)).parent
        for name in ("images", "labels"):
            shutil.copytree(made / name, folder / name)
        description = (made / "data.yaml").read_text().replace(str(made), str(folder))
        (folder / "data.yaml").write_text(description)
        shutil.copy(narrow("detect"), folder / "network.yaml")
        (folder / "run.py").write_text(SCRIPT.read_text().replace(IMPORT, f"from {module} import YOLO\n"))
        os.chdir(folder)
        with pytest.MonkeyPatch.context() as patch:
            said: list[str] = []
            patch.setattr("builtins.print", lambda *words: said.append(" ".join(map(str, words))))
            patch.setenv("YOLO_STABLE_STEP", "reference")
            runpy.run_path("run.py")
        return Ran(folder, [line.replace(str(folder), "HERE") for line in said])

    yield run
    os.chdir(before)


def test_it_is_short_and_has_one_import_to_change() -> None:
    text = SCRIPT.read_text()
    assert text.count(IMPORT) == 1
    assert 55 <= len(text.splitlines()) <= 70


def test_with_the_import_changed_it_prints_the_same_and_trains_the_same_weights(ran: Callable[[str], Ran]) -> None:
    stock, ours = ran("ultralytics"), ran("yolo_stable")
    assert [line.split()[0] for line in stock.said] == [
        "train", "val", "predict", "export", "own", "resume", *["fold"] * 4, "k-fold",
    ]  # fmt: skip
    assert ours.said == stock.said
    theirs, trained = stock.weights(), ours.weights()
    assert len(trained) == 13
    resumed = "runs/stopped/weights/last.pt"
    assert_same(trained[resumed], theirs["runs/scratch/weights/last.pt"])  # what comes without the interruption
    for weights in (theirs, trained):
        for name in ("last", "best"):
            del weights[f"runs/stopped/weights/{name}.pt"]
    assert_same(trained, theirs)
    guarded = [file.parent.name for file in ours.folder.glob("runs/**/guard.jsonl")]
    assert sorted(guarded) == ["fold0", "fold1", "frozen", "own", "scratch", "stopped"]
