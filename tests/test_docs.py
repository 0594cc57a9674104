"""The documentation is true: its code runs, its commands parse, its links lead somewhere, its figures are kept results."""

from __future__ import annotations

import doctest
import importlib.util
import json
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
import typer
import ultralytics
from ultralytics.engine.model import Model
from ultralytics.utils import LOGGER
from verb import carried_out

from benchmarks.preflight import PLANTED
from yolo_stable.chaos import CATALOGUE
from yolo_stable.cli.main import app
from yolo_stable.incidents import worker as autopsy_worker
from yolo_stable.presets.guard_settings import GuardSettings
from yolo_stable.presets.presets import preset_names
from yolo_stable.train.call import TrainCall

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
RESULTS = ROOT / "benchmarks" / "results"
PAGES = [ROOT / "README.md", *sorted(DOCS.rglob("[!_]*.md"))]
LINK = re.compile(r"\]\(([^)\s]+)\)")
COMMAND: Any = typer.main.get_command(app)
TINY = {"epochs": 1, "imgsz": 32, "batch": 4, "workers": 0, "device": "cpu", "plots": False, "val": False}
"""What a training of the documentation is run with instead, so that it takes a second."""


def name_of(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


def of(name: str) -> str:
    """Return a page of the site as one line, as its sentences are wrapped anywhere."""
    return " ".join((DOCS / f"{name}.md").read_text(encoding="utf-8").split())


def rows_of(name: str) -> list[dict[str, Any]]:
    return json.loads((RESULTS / f"{name}.json").read_text())["rows"]


def blocks(page: Path, language: str) -> list[str]:
    """Return the fenced blocks of a language, also those within a list."""
    found = re.findall(rf"^( *)```{language}\n(.*?)^ *```$", page.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)
    return [re.sub(rf"^{indent}", "", text, flags=re.MULTILINE) for indent, text in found]


def commands(page: Path) -> list[str]:
    """Return the lines that one types, without their comments."""
    lines = [shlex.split(line, comments=True) for block in blocks(page, "bash") for line in joined(block)]
    return [shlex.join(words) for words in lines if words]


def joined(block: str) -> list[str]:
    """Return the lines of a block; a backslash at the end of one goes on in the next."""
    return block.replace("\\\n", " ").splitlines()


def module(name: str) -> ModuleType:
    """Return a module of ``docs/``, which is no package."""
    spec = importlib.util.spec_from_file_location(f"docs_{name}", DOCS / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    loaded = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(loaded)
    return loaded


# ---- code ------------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory, narrow: Callable[[str], str], shapes: Callable[..., str]) -> Path:
    """Return a folder with what the documentation names: ``data.yaml`` and ``yolo26n.pt``, both small."""
    folder = tmp_path_factory.mktemp("desk")
    (folder / "data.yaml").write_text(Path(shapes("detect", train=4, val=4, imgsz=32)).read_text())
    network = ultralytics.YOLO(narrow("detect"))
    network.save(folder / "yolo26n.pt")
    return folder


@pytest.fixture
def tiny(desk: Path, monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """Return the trainings that were called, each run in small in the folder."""
    called: list[dict[str, Any]] = []
    train = Model.train

    def small(self: Model, trainer: Any = None, **kwargs: Any) -> Any:
        called.append(kwargs)
        return train(self, trainer, **{**kwargs, **TINY, "project": str(desk / "runs"), "exist_ok": True})

    monkeypatch.setattr(Model, "train", small)
    monkeypatch.chdir(desk)
    return called


WITH_CODE = [page for page in PAGES if blocks(page, "python")]


@pytest.mark.parametrize("page", WITH_CODE, ids=name_of)
def test_its_code_runs_as_it_stands(
    page: Path, tiny: list[dict[str, Any]], without_final_evaluation: None, capsys: pytest.CaptureFixture[str]
) -> None:
    texts = blocks(page, "python")
    names: dict[str, Any] = {}
    for text in texts:
        names = {"__name__": "documentation"}
        exec(compile(text, name_of(page), "exec"), names)
    assert len(tiny) == sum(text.count(".train(") for text in texts)
    if page.stem == "any-loop":
        assert isinstance(names["ema"], torch.nn.Module)
        assert all(bool(v.isfinite().all()) for v in names["ema"].state_dict().values())


def test_the_code_of_generator_and_hook_does_what_its_examples_say() -> None:
    for name in ("generate", "hooks"):
        result = doctest.testmod(module(name))
        assert result.attempted > 0
        assert result.failed == 0


# ---- commands --------------------------------------------------------------------------------------------------------------


def parsed(words: list[str]) -> None:
    """Parse the words of a command as the command itself does, without carrying it out."""
    command, path = COMMAND, "yolo-stable"
    while hasattr(command, "commands"):
        assert words[0] in command.commands, f"{path} has no verb {words[0]}"
        command, path, words = command.commands[words[0]], f"{path} {words[0]}", words[1:]
        if not words and getattr(command, "invoke_without_command", False):
            return
    context = command.make_context(path, list(words))
    if path.split()[1] in ("train", "preflight", "compare"):
        TrainCall.parse(context.params["data"], context.params["settings"] or [], context.params.get("preset"))


def known(line: str) -> None:
    """Fail unless a line is a command that works here."""
    words = shlex.split(line)
    if words[0] == "yolo-stable":
        parsed(words[1:])
    elif words[0] == "make":
        assert re.search(rf"^{words[1]}:", (ROOT / "Makefile").read_text(), re.MULTILINE), line
    elif words[:2] == ["pip", "install"]:
        extras = re.findall(r"^(\w+) = \[", (ROOT / "pyproject.toml").read_text(), re.MULTILINE)
        assert {extra for word in words for part in re.findall(r"\[(.+)\]", word) for extra in part.split(",")} <= {
            *extras
        }
    elif words[0] == "export":
        name = words[1].partition("=")[0]
        files = [*(ROOT / "yolo_stable").rglob("*.py"), *(ROOT / "yolo_stable").rglob("*.yaml")]
        assert any(name in file.read_text(encoding="utf-8") for file in files), line
    elif words[:2] == ["yolo", "settings"]:
        assert {word.partition("=")[0] for word in words[2:]} <= set(ultralytics.settings), line
    elif words[:2] == ["docker", "build"]:
        assert (ROOT / words[words.index("-f") + 1]).is_file(), line
    elif words[:2] == ["docker", "run"]:
        image = next(n for n, word in enumerate(words) if word.startswith("yolo-stable:"))
        parsed(words[image + 1 :])
    elif words[:2] == ["jupyter", "execute"]:
        assert (ROOT / words[2]).is_file(), line
    else:
        raise AssertionError(f"what is {line!r}?")


@pytest.mark.parametrize("page", [page for page in PAGES if commands(page)], ids=name_of)
def test_its_commands_are_understood(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for line in commands(page):
        known(line)


OPTIONS = {
    option for _, command in module("generate").commands() for parameter in command.params for option in parameter.opts
}


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_what_it_names_is_there(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    settings = set(GuardSettings.of(None).to_dict()) | {"NAME", "jsonl"}
    assert set(re.findall(r"`guard\.(\w+)(?:=[^`]*)?`", text)) <= settings
    assert set(re.findall(r"`yolo-stable ([a-z]\w*)", text)) <= set(COMMAND.commands)
    named = re.findall(r"(?<![\w-])(--[a-z][\w-]+)", re.sub(r"```bash.*?```", "", text, flags=re.DOTALL))
    secondary = {f"--no-{option[2:]}" for option in OPTIONS}
    assert set(named) <= OPTIONS | secondary | {
        "--help",
        "--index-url",
        "--clean-seeds",
        "--how",
        "--list",
        "--build-arg",
        "--ipc",
    }
    for benchmark in re.findall(r"-m (benchmarks\.\w+)", text):
        assert (ROOT / f"{benchmark.replace('.', '/')}.py").is_file(), benchmark
    for path in re.findall(r"`((?:yolo_stable|benchmarks|hyp|notebooks|docs)/[\w/.-]+)`", text):
        assert (ROOT / path).exists(), path


TUTORIAL = DOCS / "tutorial.md"
PROMISED = (
    "guard of yolo-stable",
    "steps applied",
    "micro-batch rejected: loss nan",
    "has NaN pixels: data",
    "aten.convolution.default in model.0.conv (Conv2d), forward",
    "bit for bit",
    "0 errors, 0 warnings, 0 info",
)
"""Parts of the output that the tutorial shows."""


def test_the_tutorial_goes_as_it_says(
    tmp_path: Path,
    narrow: Callable[[str], str],
    warm_workers: Any,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(autopsy_worker, "multiprocessing", warm_workers)
    monkeypatch.setenv("YOLO_STABLE_CACHE", str(tmp_path / "cache"))
    (handler,) = (handler for handler in LOGGER.handlers if handler.name == "ultralytics.utils.set_logging")
    small = [f"{key}={value}" for key, value in TINY.items() if key != "epochs"]
    said, page = "", " ".join(TUTORIAL.read_text(encoding="utf-8").split())
    for line in commands(TUTORIAL):
        words = shlex.split(line.replace("yolo11n.yaml", narrow("detect")))[1:]
        if words[0] not in ("train", "autopsy", "check") or "data.yaml" in words or "name=first" in words:
            continue  # the installation, what needs a data set of one's own, and the run in which nothing happens
        if words[0] == "train":
            words += [*small, "batch=8", "fraction=0.2", f"project={tmp_path / 'runs/detect'}"]
        monkeypatch.setattr(handler, "stream", sys.stdout)
        code, out, err = carried_out(capsys, monkeypatch, *words)
        assert code == 0, err
        said += out + err
    said = " ".join(said.split())
    for part in PROMISED:
        assert part in said
        assert part in page
    for path in ("runs/detect/nan/report.html", "runs/detect/nan/incidents/0001/preview.jpg"):
        assert path in page
        assert (tmp_path / path).exists()


# ---- pages -----------------------------------------------------------------------------------------------------------------


def anchors(page: Path) -> set[str]:
    """Return the names of a page's headings, as GitHub and the site make them."""
    prose = re.sub(r"^```.*?^```$", "", page.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE)
    headings = re.findall(r"^#+ (.+)$", prose, flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_its_links_lead_somewhere_in_the_repository(page: Path) -> None:
    for link in LINK.findall(page.read_text(encoding="utf-8")):
        assert "://" not in link, f"{link}: a page needs no network"
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        assert target.exists(), link
        assert not anchor or anchor in anchors(target), link


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_its_blocks_fit_beside_the_menus(page: Path) -> None:
    """The help of a command has examples of any length."""
    for language in ("python", "text", *(["bash"] if page.stem != "cli" else [])):
        assert [line for block in blocks(page, language) for line in block.splitlines() if len(line) > 98] == []


def test_the_pages_of_reference_are_those_of_the_code() -> None:
    generate = module("generate")
    for name, page in generate.PAGES.items():
        kept = (generate.FOLDER / name).read_text(encoding="utf-8")
        assert kept == page() + generate.HINT, f"docs/reference/{name} is not that of the code: run docs/generate.py"


def test_every_setting_and_every_preset_has_its_row() -> None:
    table = dict(
        re.findall(r"^\| `guard\.(\w+)` \| (\S+) \|", (DOCS / "reference/settings.md").read_text(), re.MULTILINE)
    )
    config = GuardSettings.of(None).to_dict()
    assert set(table) == set(config)
    for name, default in config.items():
        written = table[name].replace("2^-14", str(2.0**-14))
        read = written if isinstance(default, str) else None if written == "none" else type(default)(eval(written))
        assert read == default, name
    section = (DOCS / "how-to/presets.md").read_text()
    assert set(re.findall(r"^\| `(\w+)` \|", section, flags=re.MULTILINE)) == set(preset_names())


def test_the_site_builds_strictly_and_needs_no_network(tmp_path: Path) -> None:
    pytest.importorskip("material", reason="mkdocs-material is not installed")
    pytest.importorskip("mkdocstrings", reason="mkdocstrings is not installed")
    command = [sys.executable, "-m", "mkdocs", "build", "--quiet", "--strict", "--site-dir", str(tmp_path / "site")]
    environment = {**os.environ, "NO_MKDOCS_2_WARNING": "1"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    pages = list((tmp_path / "site").rglob("*.html"))
    assert len(pages) > len(PAGES)
    for page in pages:
        fetched = re.findall(r"<(?:script|img|iframe|source)[^>]+src=\"(https?:[^\"]+)", page.read_text())
        fetched += re.findall(
            r"<link[^>]+rel=\"(?:stylesheet|preload|icon)\"[^>]+href=\"(https?:[^\"]+)", page.read_text()
        )
        assert fetched == [], page.name


# ---- figures ---------------------------------------------------------------------------------------------------------------


def test_the_table_of_faults_is_that_of_the_kept_results() -> None:
    page = (DOCS / "explanation/escalation.md").read_text()
    cells: dict[str, dict[str, str]] = {}
    for row in rows_of("faults"):
        lost = f", {row['steps lost']} lost" if row["steps lost"] and row["verdict"] == "as clean" else ""
        cells.setdefault(row["fault"], {})[row["trainer"]] = row["verdict"] + lost
    assert set(cells) == set(CATALOGUE)
    assert len(cells) == 36, "as the heading says"
    for fault, by in cells.items():
        assert f"| {fault} | {by['stock']} | {by['clip-and-skip']} | {by['guarded']} |" in page


def test_the_figures_of_the_kills_are_those_of_the_kept_results() -> None:
    (row,) = rows_of("kills")[:1]
    assert (row["kills"], row["resumable"], row["damaged checkpoints"], row["epochs lost at most"]) == (100, 100, 0, 1)
    assert "After each of 100 SIGKILLs" in of("explanation/escalation")
    assert f"{row['inside a save']} inside a save" in of("explanation/escalation")


def test_the_figures_of_the_honest_trainings_are_those_of_the_kept_results() -> None:
    assert f"none of {rows_of('oddities')[0]['reference']} honest trainings" in of("explanation/no-trace")


NAMED = {
    "operation and module": "operation and module, all",
    "image file exactly, mosaic on": "image file exact, mosaic on",
    "image file in the named set, mixup and copy-paste on": "image file in the named set, mixup and copy-paste on",
    "label row": "label row exact",
    "cause": "cause",
    "replay of a bundle in a fresh process, to the bit": "replay in a fresh process, bitwise",
    "damaged and hostile bundles refused in one line": "hostile bundles: one line, nothing run",
}
"""What the page says was named, and the row of the benchmark that it is from."""


def test_the_figures_of_the_autopsies_are_those_of_the_kept_results() -> None:
    page, costs = (DOCS / "explanation/autopsy.md").read_text(), of("explanation/costs")
    bars = {row["what"]: row for row in rows_of("autopsies") if row["table"] == "bars"}
    assert set(re.findall(r"^\| ([a-z ,-]+) \| \d+ of \d+ \|$", page, flags=re.MULTILINE)) == set(NAMED)
    for name, what in NAMED.items():
        assert f"| {name} | {bars[what]['right']} of {bars[what]['of']} |" in page
    assert f"Of {bars['faults that fired and were rejected']['of']} faults" in page
    alone = bars["autopsy, operation only (step times)"]["median"]
    with_image = bars["autopsy with the image (step times)"]["median"]
    assert f"{alone:.1f} step times ({with_image:.1f} with the image)" in page
    assert f"{alone:.1f} step times, and {with_image:.1f} with the image" in costs
    for row in rows_of("provenance"):
        if row["what"] != "drawing alone":
            figure = f"{row['on / off']:.2f} ({row['95 % low']:.2f} to {row['95 % high']:.2f})"
            assert figure in of("explanation/provenance")
            assert f"{figure} |" in costs


def test_the_figures_of_the_telemetry_are_those_of_the_kept_result() -> None:
    (row,) = (row for row in rows_of("telemetry") if row["what"] == "ten steps in turns")
    assert f"{row['on / off']:.3f} of the time without it" in of("how-to/watch")
    assert f"interval {row['95 % low']:.3f} to {row['95 % high']:.3f}" in of("how-to/watch")
    figure = f"{row['on / off']:.3f} ({row['95 % low']:.3f} to {row['95 % high']:.3f})"
    assert f"| telemetry, every tenth step | {figure} |" in of("explanation/costs")


def test_the_figures_of_the_data_check_are_those_of_the_kept_result() -> None:
    ratio = {(row["files"], row["check"]): row["ratio"] for row in rows_of("check")}
    page = of("how-to/check")
    for files, what in (("JPEG", "it takes {:.2f} of the time"), ("PNG", "near duplicates need: {:.2f} and")):
        assert what.format(ratio[files, "without near duplicates"]) in page
    assert f"and {ratio['JPEG', 'all rules']:.1f} times that with all rules" in page
    assert f"and {ratio['PNG', 'all rules']:.1f} (`python" in page


def test_the_number_of_planted_faults_of_a_preflight_is_that_of_the_benchmark() -> None:
    assert len(PLANTED) == 24
    assert "Twenty-four planted faults" in of("how-to/preflight")


def test_the_figures_of_the_outside_faults_are_those_of_the_kept_results() -> None:
    page = of("explanation/device-validation")

    def blind(name: str) -> tuple[int, int, int]:
        """Return how many faults a list has, and how many quick and default found at first sight."""
        rows = [row for row in rows_of(f"device_outside{name}") if row["when"] == "blind"]
        found = {tier: sum(r["found"] for r in rows if r["tier"] == tier) for tier in ("quick", "default")}
        return len({row["fault"] for row in rows}), found["quick"], found["quick"] + found["default"]

    faults, quick, _ = blind("")
    assert f"{quick} of {faults} by `--quick`" in page
    faults, quick, default = blind("_second")
    assert f"then {quick} of {faults}, and {default} by the default" in page
    faults, quick, default = blind("_third")
    assert f"{quick} of {faults}, and {default} by the default" in page
    assert (quick / faults, default / faults) > (0.85, 0.95)


def test_the_figures_of_the_device_faults_are_those_of_the_kept_result() -> None:
    rows = rows_of("device_faults")
    faults, clean = ([row for row in rows if row["table"] == table] for table in ("faults", "clean"))
    kinds = len({(row["family"], row["kind"]) for row in faults})
    page = of("explanation/device-validation")
    assert (
        f"Of {len(faults)} injected faults of {kinds} kinds, {sum(row['caught'] for row in faults)} are found" in page
    )
    assert f"and {sum(not row['bad'] for row in clean)} of {len(clean)} runs with nothing wrong pass" in page
