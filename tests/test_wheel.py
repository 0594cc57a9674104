"""Wheel and source archive are whole: built, installed in an environment of their own, and used from there without the checkout.

``make dist`` sets YOLO_STABLE_DIST: then what lies in that folder is tried, and the source archive is installed as well.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tarfile
import venv
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SUFFIXES = {".py", ".yaml", ".md", ".typed", ".json", ".html", ".j2", ".css", ".js"}
DATA_FOLDERS = ("hyp", "datasets")
BESIDE = {"CHANGELOG.md", "LICENSE", "README.md", "pyproject.toml"}
RELEASE = os.environ.get("YOLO_STABLE_DIST")


def run(*words: str | Path, cwd: Path, python: str | Path = sys.executable) -> str:
    """Run Python with words that have to succeed, without the checkout on its path, and return what it printed."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    command = [str(python), *map(str, words)]
    done = subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, f"{words}: exit code {done.returncode}\n{done.stdout}\n{done.stderr}"
    return done.stdout


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build the source archive, and from it the wheel, as a release does, without a download."""
    if RELEASE:
        return Path(RELEASE)
    folder = tmp_path_factory.mktemp("dist")
    run("-m", "build", "--no-isolation", "--outdir", folder, ROOT, cwd=folder)
    return folder


@pytest.fixture(scope="module")
def wheel(built: Path) -> Path:
    """Return the wheel."""
    (found,) = built.glob("*.whl")
    return found


@pytest.fixture(scope="module")
def archive(built: Path) -> Path:
    """Return the source archive."""
    (found,) = built.glob("*.tar.gz")
    return found


def fresh(folder: Path, package: Path) -> Path:
    """Make an environment that has a package, and all that it depends on from the one of now; return its Python."""
    venv.create(folder)
    python = folder / "bin" / "python"
    (own,) = folder.glob("lib/python*/site-packages")
    (own / "dependencies.pth").write_text("\n".join(path for path in sys.path if path.endswith("site-packages")))
    words = ("install", "--no-deps", "--no-index", "--no-build-isolation", "--disable-pip-version-check", package)
    run("-m", "pip", "--python", python, *words, cwd=folder)
    where = run("-c", "import yolo_stable; print(yolo_stable.__file__)", cwd=folder, python=python)
    assert Path(where.strip()) == own / "yolo_stable" / "__init__.py", "not the installed package, but another one"
    return python


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., str]:
    """Install the wheel in an environment of its own; return a way to run its Python, far from the checkout."""
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    python = fresh(tmp_path_factory.mktemp("environment"), wheel)
    return lambda *words: run(*words, cwd=elsewhere, python=python)


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


def test_the_source_archive_has_what_the_wheel_is_built_from_and_nothing_else(archive: Path) -> None:
    with tarfile.open(archive) as packed:
        names = {name.partition("/")[2] for name in packed.getnames()}
    folders = ("yolo_stable", *DATA_FOLDERS)
    expected = {path.relative_to(ROOT).as_posix() for folder in folders for path in sources(folder)} | BESIDE
    assert names - {"PKG-INFO", ".gitignore"} == expected


def test_the_source_archive_builds_the_wheel_of_the_checkout(wheel: Path, tmp_path: Path) -> None:
    run("-m", "build", "--wheel", "--no-isolation", "--outdir", tmp_path, ROOT, cwd=tmp_path)
    assert (tmp_path / wheel.name).read_bytes() == wheel.read_bytes()


def test_an_image_sees_what_the_wheel_is_built_from() -> None:
    """A source archive has the list of changes as well, which no image needs."""
    lines = (ROOT / ".dockerignore").read_text().splitlines()
    assert "*" in lines
    assert {line[1:] for line in lines if line.startswith("!")} == {"yolo_stable", *DATA_FOLDERS, *BESIDE} - {
        "CHANGELOG.md"
    }


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
    assert {"Author: yolo-stable contributors", "Requires-Python: <3.15,>=3.10"} <= set(lines)
    classifiers = {line.partition(": ")[2] for line in lines if line.startswith("Classifier: ")}
    minors = {int(minor) for minor in re.findall(r"Python :: 3\.(\d+)$", "\n".join(classifiers), re.MULTILINE)}
    assert minors == set(range(10, 15)), "one classifier for each Python that is allowed"
    assert not any(classifier.startswith("License ::") for classifier in classifiers), (
        "PEP 639: an expression stands alone"
    )
    extras = {line.partition(": ")[2] for line in lines if line.startswith("Provides-Extra: ")}
    for extra in extras:
        assert any(f"extra == '{extra}'" in line for line in lines if line.startswith("Requires-Dist: ")), (
            f"{extra} is empty"
        )


@pytest.mark.skipif(not RELEASE, reason="make dist does it; the wheel, which is tried here, is built from the archive")
def test_the_source_archive_is_installed_and_works(
    archive: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("YOLO_STABLE_CACHE", str(tmp_path / "cache"))
    python = fresh(tmp_path / "environment", archive)
    run("-c", "import yolo_stable.guard", cwd=tmp_path, python=python)
    assert "0 errors" in run("-m", "yolo_stable", "check", "shapes", cwd=tmp_path, python=python)


def test_the_command_is_there_without_the_checkout(wheel: Path, installed: Callable[..., str]) -> None:
    """The script that pip made, and what a stranger types first."""
    command = Path(installed("-c", "import sys; print(sys.executable)").strip()).with_name("yolo-stable")
    assert installed(command, "--version") == f"yolo-stable {wheel.name.split('-')[1]}\n"
    assert "validate" in installed(command, "--help")


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
