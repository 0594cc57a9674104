"""Every notebook runs from top to bottom, is kept without outputs, and links to what is there."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from IPython.core.inputtransformer2 import TransformerManager

FOLDER = Path(__file__).parent.parent / "notebooks"
NOTEBOOKS = sorted(FOLDER.glob("*.ipynb"))
PAGES = [*NOTEBOOKS, FOLDER / "README.md"]
LINK = re.compile(r"\]\(([^)\s]+)\)")
ELSEWHERE = re.compile(r"(?<![\w.])/(?:tmp|home|root|work|Users|mnt)/|\b[A-Z]:\\\\")


def prose(page: Path) -> str:
    """Return what is text in a notebook or a page."""
    if page.suffix == ".md":
        return page.read_text()
    cells = json.loads(page.read_text())["cells"]
    return "\n".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "markdown")


def anchors(page: Path) -> set[str]:
    """Return the names that the headings of a page have: of a notebook as Jupyter, of a page as GitHub makes them."""
    headings = re.findall(r"^#+ (.+)$", prose(page), flags=re.MULTILINE)
    if page.suffix == ".ipynb":
        return {heading.replace(" ", "-") for heading in headings}
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.fixture
def kernels(tmp_path: Path, warm_python: str) -> Path:
    """Return a folder in which Jupyter finds how Python's kernel is started."""
    spec = tmp_path / "jupyter" / "kernels" / "python3" / "kernel.json"
    spec.parent.mkdir(parents=True)
    command = [warm_python, "-m", "ipykernel_launcher", "-f", "{connection_file}"]
    spec.write_text(json.dumps({"argv": command, "display_name": "Python 3", "language": "python"}))
    return tmp_path / "jupyter"


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda path: path.stem)
def test_it_runs(notebook: Path, tmp_path: Path, narrow: Callable[[str], str], kernels: Path) -> None:
    """With a narrower network, which shows the same in a third of the time."""
    copy, written = tmp_path / notebook.name, notebook.read_text()
    copy.write_text(written.replace("yolo11n.yaml", narrow("detect")))
    environment = {
        **os.environ,
        "YOLO_STABLE_CACHE": str(tmp_path),
        "JUPYTER_PATH": str(kernels),
        "IPYTHONDIR": str(tmp_path),
    }
    command = [sys.executable, "-m", "jupyter", "execute", "--inplace", str(copy)]
    done = subprocess.run(
        command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    cells = json.loads(copy.read_text())["cells"]
    assert any("micro-batch rejected: loss nan" in json.dumps(cell.get("outputs", [])) for cell in cells)


class Shell:
    """What a notebook's magics are calls of: remembers them."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, str]] = []

    def run_line_magic(self, name: str, line: str) -> None:
        self.asked.append((name, line))


class TestInstalling:
    """The first cell of code, where the roots of Colab and Kaggle are folders of the test."""

    @pytest.fixture
    def cell(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[], list[tuple[str, str]]]:
        """Return a way to run the cell, which returns the magics that it asked for."""
        monkeypatch.delenv("KAGGLE_KERNEL_RUN_TYPE", raising=False)
        cells = [json.loads(notebook.read_text())["cells"] for notebook in NOTEBOOKS]
        (source,) = {"".join(next(cell["source"] for cell in them if cell["cell_type"] == "code")) for them in cells}
        for root in ("/content", "/kaggle/input"):
            assert f'"{root}"' in source
            source = source.replace(f'"{root}"', repr(f"{tmp_path}{root}"))

        def run() -> list[tuple[str, str]]:
            shell = Shell()
            names: dict[str, Any] = {"get_ipython": lambda: shell}
            exec(TransformerManager().transform_cell(source), names)
            return [(name, line.format(package=names["package"])) for name, line in shell.asked]

        return run

    def test_elsewhere_it_does_nothing(self, cell: Callable[[], list[tuple[str, str]]]) -> None:
        assert cell() == []

    def test_on_colab_it_installs_the_wheel(
        self, cell: Callable[[], list[tuple[str, str]]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setitem(sys.modules, "google.colab", ModuleType("google.colab"))
        wheel = tmp_path / "content" / "yolo_stable-0.1.0-py3-none-any.whl"
        wheel.parent.mkdir()
        wheel.touch()
        assert cell() == [("pip", f'install --quiet "{wheel}[demo]"')]

    def test_on_kaggle_it_installs_the_checkout(
        self, cell: Callable[[], list[tuple[str, str]]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("KAGGLE_KERNEL_RUN_TYPE", "Interactive")
        checkout = tmp_path / "kaggle" / "input" / "datasets" / "yolo-stable-main"
        for project in (checkout, tmp_path / "kaggle" / "input" / "other"):
            project.mkdir(parents=True)
            (project / "pyproject.toml").touch()
        assert cell() == [("pip", f'install --quiet "{checkout}[demo]"')]

    def test_where_nothing_was_brought_it_says_so(
        self, cell: Callable[[], list[tuple[str, str]]], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("KAGGLE_KERNEL_RUN_TYPE", "Batch")
        with pytest.raises(FileNotFoundError, match="wheel nor a checkout"):
            cell()


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda path: path.stem)
def test_it_is_kept_without_outputs(notebook: Path) -> None:
    for cell in json.loads(notebook.read_text())["cells"]:
        assert not cell.get("outputs")
        assert cell.get("execution_count") is None


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.stem)
def test_its_links_lead_somewhere(page: Path) -> None:
    links = [link for link in LINK.findall(prose(page)) if not link.startswith("https://")]
    assert links
    for link in links:
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        assert target.is_file(), link
        assert not anchor or anchor in anchors(target), link


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda path: path.stem)
def test_it_names_no_place_of_one_machine(notebook: Path) -> None:
    assert not ELSEWHERE.search(notebook.read_text())
