"""The wheel is whole: built, installed in a folder of its own, and used from there without the checkout."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SUFFIXES = {".py", ".yaml", ".md", ".typed", ".json", ".html", ".j2", ".css", ".js"}
DATA_FOLDERS = ("hyp", "datasets")


def run(*words: str | Path, cwd: Path, **environment: str) -> str:
    """Run a command that has to succeed and return what it printed."""
    done = subprocess.run(
        [sys.executable, *map(str, words)],
        cwd=cwd,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 0, f"{words}: exit code {done.returncode}\n{done.stdout}\n{done.stderr}"
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build the wheel as a release does, without a download."""
    folder = tmp_path_factory.mktemp("wheel")
    run("-m", "build", "--wheel", "--no-isolation", "--outdir", folder, ROOT, cwd=folder)
    (built,) = folder.iterdir()
    return built


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., str]:
    """Install the wheel beside everything else; return a way to run Python with it, far from the checkout."""
    site, elsewhere = tmp_path_factory.mktemp("site"), tmp_path_factory.mktemp("elsewhere")
    pip = ("-m", "pip", "install", "--no-deps", "--no-index", "--disable-pip-version-check")
    run(*pip, "--target", site, wheel, cwd=elsewhere)
    where = run("-c", "import yolo_stable; print(yolo_stable.__file__)", cwd=elsewhere, PYTHONPATH=str(site))
    assert Path(where.strip()) == site / "yolo_stable" / "__init__.py", "not the installed package, but another one"
    return lambda *words: run(*words, cwd=elsewhere, PYTHONPATH=str(site))


def test_the_wheel_has_the_package_its_data_its_licence_and_nothing_else(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = {name for name in archive.namelist() if not name.endswith("/")}
    (info,) = {name.split("/")[0] for name in names} - {"yolo_stable"}
    package = {f"yolo_stable/{path.relative_to(ROOT / 'yolo_stable').as_posix()}" for path in sources("yolo_stable")}
    data = {f"yolo_stable/{path.relative_to(ROOT).as_posix()}" for folder in DATA_FOLDERS for path in sources(folder)}
    about = {f"{info}/{name}" for name in ("METADATA", "WHEEL", "RECORD", "entry_points.txt", "licenses/LICENSE")}
    assert names - (package | data | about) == set(), "should not be in the wheel"
    assert (package | data | about) - names == set(), "is missing in the wheel"
    assert {"yolo_stable/py.typed", "yolo_stable/hyp/stable.yaml", "yolo_stable/datasets/digits.yaml"} <= names


def sources(folder: str) -> list[Path]:
    """Return the files of a folder of the checkout that are meant to be there."""
    files = [path for path in (ROOT / folder).rglob("[!.]*") if path.suffix in SUFFIXES]
    return [path for path in files if not any(part.startswith(".") for part in path.relative_to(ROOT).parts)]


def test_the_wheel_says_what_it_is(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        (metadata,) = (name for name in archive.namelist() if name.endswith(".dist-info/METADATA"))
        (entry,) = (name for name in archive.namelist() if name.endswith(".dist-info/entry_points.txt"))
        lines = archive.read(metadata).decode().splitlines()
        assert archive.read(entry).decode().split("\n")[:2] == [
            "[console_scripts]",
            "yolo-stable = yolo_stable.cli.main:main",
        ]
    assert {"Name: yolo-stable", "License-Expression: AGPL-3.0-only", "License-File: LICENSE"} <= set(lines)
    assert "Requires-Python: <3.14,>=3.10" in lines


def test_the_presets_are_there_without_the_checkout(installed: Callable[..., str]) -> None:
    code = "from yolo_stable import load_hyp; print(load_hyp('stable')['lr0'], load_hyp('guarded')['lr0'])"
    assert installed("-c", code) == "0.0005 0.01\n"
    listed = installed("-m", "yolo_stable", "presets", "list")
    for name in ("adamw", "cautious", "finetune", "guarded", "recovery", "stable"):
        assert f"\n  {name} " in listed


def test_the_data_sets_are_made_without_the_checkout(installed: Callable[..., str], tmp_path: Path) -> None:
    listing = (
        "from yolo_stable._shared.resources import resource_dir; "
        "print(*(p.name for p in resource_dir('datasets').iterdir()))"
    )
    assert {"digits.yaml", "digits.py", "shapes.yaml", "shapes.py"} <= set(installed("-c", listing).split())
    code = f"from yolo_stable.data.builtin import make; print(make('shapes', cache={str(tmp_path)!r}, train=2, val=1, imgsz=32))"
    data = Path(installed("-c", code).strip())
    assert data.is_relative_to(tmp_path.resolve())
    assert len(list((data.parent / "images" / "train").iterdir())) == 2


def test_the_trainers_are_there_without_the_checkout(installed: Callable[..., str]) -> None:
    code = "from yolo_stable import StableDetectionTrainer as T; print(T.__module__, *(base.__name__ for base in T.__mro__))"
    module, *bases = installed("-c", code).splitlines()[-1].split()
    assert module == "yolo_stable.trainer.trainers"
    assert bases.index("GuardedTrainerMixin") < bases.index("DetectionTrainer")
