"""What the command prints, writes and returns."""

from __future__ import annotations

import io
import json
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from check.planted import BOX, clean, encoded, picture
from rich.console import Console

from yolo_stable.check import command, run_check
from yolo_stable.check.report import PLACES
from yolo_stable.errors import InvalidCallError


def call(data: object, **options: object) -> tuple[int, str]:
    out = io.StringIO()
    code = run_check(str(data), console=Console(file=out, width=200), near=False, sample=0, **options)  # pyright: ignore[reportArgumentType]
    return code, out.getvalue()


def test_clean_and_warnings_end_with_0_and_errors_with_1(tmp_path: Path) -> None:
    data = clean(tmp_path)
    assert call(data.root)[0] == 0
    data.line("box-over-edge", BOX, "1 0.95 0.5 0.2 0.2")
    code, text = call(data.root)
    assert (code, "1 warning, " in text.replace("1 warnings", "1 warning")) == (0, True)
    data.line("class-range", BOX, "7 0.5 0.5 0.2 0.2", name="wrong")
    code, text = call(data.root)
    assert code == 1
    assert "labels/train/wrong.txt:2: class 7; allowed: 0 to 1" in text.replace("\n", " ")


def test_the_json_file_has_schema_1(tmp_path: Path) -> None:
    data = clean(tmp_path / "data")
    data.line("class-range", BOX, "7 0.5 0.5 0.2 0.2", name="wrong")
    call(data.root, json=tmp_path / "out/findings.json")
    content = json.loads((tmp_path / "out/findings.json").read_text())
    assert (content["schema"], content["images"], len(content["findings"])) == (1, 10, 1)
    finding = content["findings"][0]
    assert sorted(finding) == ["fix", "line", "message", "path", "rule", "severity"]
    assert (finding["rule"], finding["severity"], finding["line"]) == ("class-range", "error", 2)
    assert finding["path"] == str(data.root / "labels/train/wrong.txt")


def test_the_page_and_the_copy_are_written(tmp_path: Path) -> None:
    data = clean(tmp_path / "data")
    code, text = call(data.root, html=tmp_path / "page.html", fix=tmp_path / "out")
    assert code == 0
    assert (tmp_path / "page.html").read_text().startswith("<!doctype html>")
    assert "9 images copied, 0 left out" in text
    assert (tmp_path / "out/data.yaml").exists()


@pytest.mark.parametrize("width", [60, 80, 120])
def test_closing_lines_fit_the_console(tmp_path: Path, width: int) -> None:
    data = clean(tmp_path / "data")
    data.line("class-range", BOX, "7 0.5 0.5 0.2 0.2", name="wrong")
    out = io.StringIO()
    run_check(str(data.root), console=Console(file=out, width=width), near=False, fix=tmp_path / "out")
    lines = out.getvalue().splitlines()
    assert "images copied" in " ".join(lines)
    assert [line for line in lines if len(line) > width and len(line.split()) > 1] == []


def test_a_rule_names_a_few_places_and_how_many_more(tmp_path: Path) -> None:
    data = clean(tmp_path)
    for number in range(PLACES + 4):
        data.line("class-range", BOX, "7 0.5 0.5 0.2 0.2", name=f"wrong-{number}")
    assert "and 4 more" in call(data.root)[1]


def test_a_name_that_would_upset_the_terminal_is_shown_harmless(tmp_path: Path) -> None:
    data = clean(tmp_path)
    data.add("a\x1b[31m[bold]b", labels=None)
    text = call(data.root)[1]
    assert "\x1b[31m" not in text
    assert "a\\x1b[31m[bold]b.png" in text


@pytest.mark.parametrize("split", ["val", "train,val"])
def test_splits_are_given_with_commas(tmp_path: Path, split: str) -> None:
    assert call(clean(tmp_path).root, split=split)[0] == 0


def test_a_file_that_cannot_be_written_is_a_wrong_call(tmp_path: Path) -> None:
    data = clean(tmp_path / "data")
    (tmp_path / "file").write_text("")
    with pytest.raises(InvalidCallError, match="cannot be written"):
        call(data.root, json=tmp_path / "file/findings.json")


def test_limits_are_set_by_the_user(tmp_path: Path) -> None:
    data = clean(tmp_path)
    assert "box-large" not in call(data.root)[1]
    assert "box-large" in call(data.root, limit=["box-large=0.15"])[1]


def test_without_a_sample_neither_pytorch_nor_ultralytics_is_loaded(tmp_path: Path) -> None:
    code = (
        "import sys; from yolo_stable.check import run_check; run_check(sys.argv[1]);"
        "print([name for name in ('torch', 'ultralytics', 'scipy') if name in sys.modules])"
    )
    command = [sys.executable, "-c", code, str(clean(tmp_path).root)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.splitlines()[-1] == "[]"


def test_a_box_of_a_pixel_at_the_size_that_training_has_by_default_is_no_finding(tmp_path: Path) -> None:
    data = clean(tmp_path)
    wide = encoded(picture(5, 1280, 640))
    data.add("large", wide, labels=[f"0 0.5 0.5 {1.0005 / 640} 0.4", f"1 0.5 0.5 {0.9995 / 640} 0.4"])
    _, out = call(data.root)
    assert out.count("pixels at imgsz=640") == 1


@pytest.mark.parametrize(("progress", "terminal"), [(True, True), (True, False), (False, True), (False, False)])
def test_progress_is_shown_on_a_terminal_to_who_wants_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, progress: bool, terminal: bool
) -> None:
    asked: list[bool] = []
    inner = command.check
    monkeypatch.setattr(command, "check", lambda *a, progress, **k: asked.append(progress) or inner(*a, **k))
    monkeypatch.setattr(sys, "stderr", SimpleNamespace(isatty=lambda: terminal))
    call(clean(tmp_path).root, progress=progress)
    assert asked == [progress and terminal]
