"""The page without a browser: what it asks for, what it escapes, where its links lead."""

from __future__ import annotations

import base64
import hashlib
import io
import json
import re
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote

import pytest
from PIL import Image
from report_rig import EVIL, Log, guarded_run, stock_run, write_args, write_bundle, write_results

from yolo_stable.errors import InvalidCallError
from yolo_stable.report import page, write_report
from yolo_stable.report.pictures import BYTES, Pictures

FETCHED = {
    "src",
    "href",
    "action",
    "formaction",
    "data",
    "poster",
    "srcset",
    "background",
    "cite",
    "ping",
    "xlink:href",
}
VOID = {"meta", "link", "img", "input", "br", "hr", "wbr"}


class Page(HTMLParser):
    """Takes a page apart."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str]]] = []
        self.texts: list[str] = []
        self.scripts: list[tuple[dict[str, str], str]] = []
        self.headings: list[int] = []
        self._open: list[str] = []
        self.unbalanced: list[str] = []
        self.size = path.stat().st_size
        self.feed(path.read_text(encoding="utf-8").replace("<wbr>", ""))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, {name: value or "" for name, value in attrs}))
        if tag not in VOID:
            self._open.append(tag)
        if re.fullmatch(r"h[1-6]", tag):
            self.headings.append(int(tag[1]))

    def handle_endtag(self, tag: str) -> None:
        if not self._open or self._open.pop() != tag:
            self.unbalanced.append(tag)

    def handle_data(self, data: str) -> None:
        if self._open and self._open[-1] == "script":
            self.scripts.append((self.tags[-1][1], data))
        elif not self._open or self._open[-1] != "style":
            self.texts.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.texts).split())

    @property
    def ids(self) -> list[str]:
        return [attrs["id"] for _, attrs in self.tags if "id" in attrs]

    def attributes(self, name: str) -> list[str]:
        return [attrs[name] for _, attrs in self.tags if name in attrs]

    def data(self) -> dict:
        return json.loads(next(text for attrs, text in self.scripts if attrs.get("type") == "application/json"))


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_report([guarded_run(tmp_path_factory.mktemp("runs") / "train")])


@pytest.fixture(scope="module")
def of_one(written: Path) -> Page:
    return Page(written)


@pytest.fixture(scope="module")
def of_many(tmp_path_factory: pytest.TempPathFactory) -> Page:
    folder = tmp_path_factory.mktemp("many")
    runs = [guarded_run(folder / "sgd"), guarded_run(folder / "adamw", seed=3), stock_run(folder / "stock")]
    return Page(write_report(runs, folder / "out.html", title="Optimizers"))


def test_the_verdict_comes_first(of_one: Page) -> None:
    assert of_one.headings[:2] == [1, 2]
    start = of_one.text.index("Finished: 6 epochs, best mAP50-95 0.56 (epoch 5). The guard rejected 2 of 1,200 batches")
    assert start < of_one.text.index("gradient norm, median") < of_one.text.index("Timeline: what the guard did")


@pytest.mark.parametrize("which", ["of_one", "of_many"])
def test_nothing_is_asked_of_the_network(which: str, request: pytest.FixtureRequest) -> None:
    found: Page = request.getfixturevalue(which)
    fetched = [value for name in FETCHED for value in found.attributes(name)]
    assert fetched
    for address in fetched:
        assert re.match(r"#|\./|data:", address), address
    style = " ".join(text for text in found.texts if "url(" in text or "@import" in text)
    assert style == ""
    policy = next(attrs["content"] for _, attrs in found.tags if attrs.get("http-equiv") == "Content-Security-Policy")
    assert policy.startswith("default-src 'none'; script-src 'sha256-")
    assert "http" not in policy
    assert "unsafe-eval" not in policy


@pytest.mark.parametrize("which", ["of_one", "of_many"])
def test_only_the_two_scripts_of_ours_may_run(which: str, request: pytest.FixtureRequest) -> None:
    found: Page = request.getfixturevalue(which)
    policy = next(attrs["content"] for _, attrs in found.tags if attrs.get("http-equiv") == "Content-Security-Policy")
    run = [text for attrs, text in found.scripts if attrs.get("type") != "application/json"]
    hashes = [base64.b64encode(hashlib.sha256(text.encode()).digest()).decode() for text in run]
    assert re.findall(r"'sha256-([^']+)'", policy) == hashes
    assert len(hashes) == 2
    assert not [name for _, attrs in found.tags for name in attrs if name.startswith("on")]


@pytest.mark.parametrize("which", ["of_one", "of_many"])
def test_every_link_within_the_page_leads_somewhere(which: str, request: pytest.FixtureRequest) -> None:
    found: Page = request.getfixturevalue(which)
    anchors = [address[1:] for address in found.attributes("href") if address.startswith("#")]
    assert "incidents" in anchors
    assert set(anchors) <= set(found.ids)
    assert len(found.ids) == len(set(found.ids))
    marks = [mark["anchor"] for mark in found.data()["marks"]]
    assert marks
    assert set(marks) <= set(found.ids)
    assert {f"chart-{chart['id']}" for chart in found.data()["charts"]} <= set(found.ids)


@pytest.mark.parametrize("which", ["of_one", "of_many"])
def test_the_page_is_well_formed_and_its_headings_are_in_order(which: str, request: pytest.FixtureRequest) -> None:
    found: Page = request.getfixturevalue(which)
    assert found.unbalanced == []
    assert found.headings.count(1) == 1
    assert all(b - a <= 1 for a, b in zip(found.headings, found.headings[1:], strict=False))


def test_a_file_name_is_text_wherever_it_stands(written: Path, of_one: Page) -> None:
    assert of_one.text.count(EVIL) >= 5
    assert "pwned" not in "".join(text for attrs, text in of_one.scripts if attrs.get("type") != "application/json")
    assert "<script>document" not in written.read_text(encoding="utf-8")


def test_data_cannot_end_their_script() -> None:
    evil = "</script><script>alert(1)</script><!--\u2028\u2029&"
    told = page.script_json({"a": evil})
    assert not set("<>&\u2028\u2029") & set(told)
    assert json.loads(told) == {"a": evil}


def test_links_to_files_lead_to_them(written: Path, of_one: Page) -> None:
    links = [unquote(address) for address in of_one.attributes("href") if address.startswith("./")]
    assert "./incidents/0001/incident.json" in links
    assert "./results.csv" in links
    for link in links:
        assert (written.parent / link).is_file()


def test_links_to_files_of_odd_names_are_still_links(tmp_path: Path) -> None:
    odd = guarded_run(tmp_path / "a b#c?d%41 <i>\"'" / "train")
    found = Page(write_report([odd], tmp_path / "deep" / "out.html"))
    links = [address for address in found.attributes("href") if address.startswith("./")]
    assert links
    for link in links:
        assert (tmp_path / "deep" / unquote(link)).is_file()
        assert not set("#?<> \"'") & set(link)


def test_each_incident_has_its_answer_its_picture_its_files_and_its_way_back(of_one: Page) -> None:
    assert {f"run-1-incident-{number}" for number in (1, 2, 3)} <= set(of_one.ids)
    assert of_one.attributes("data-show") == [f"run-1-incident-{number}" for number in (1, 2, 3)]
    assert sum(address.startswith("data:image/jpeg") for address in of_one.attributes("src")) == 1
    for words in (
        "has NaN pixels: data",
        "broke again, with the very same bits",
        "Ask: yolo-stable validate",
        "images/ok.jpg",
    ):
        assert words in of_one.text


def test_settings_stand_against_the_defaults(of_one: Page) -> None:
    assert "lr0 0.005 0.01" in of_one.text
    assert "mosaic" not in of_one.text
    assert "guard.patience 32" in of_one.text
    assert "ultralytics 8.4.190" in of_one.text


def test_the_charts_have_what_was_asked_of_them(of_one: Page) -> None:
    charts = {chart["id"]: chart for chart in of_one.data()["charts"]}
    assert set(charts) == {"loss", "map", "norm", "lr", "scale", "clip", "rejected", "seconds", "memory"}
    assert (charts["norm"]["log"], charts["norm"]["limits"][0]["y"]) == (True, 10.0)
    assert charts["lr"]["items"] == ["group 0, 1", "group 2"]
    assert (charts["map"]["range"], charts["loss"]["range"]) == ([0, 1], None)
    assert {line["kind"] for line in charts["loss"]["lines"]} == {"train", "val", "undone"}
    assert [mark["step"] for mark in of_one.data()["marks"]] == [130, 190, 260]


def test_runs_side_by_side_have_one_table_and_one_colour_each(of_many: Page) -> None:
    assert of_many.text.startswith("Optimizers: report")
    assert "3 runs side by side: mAP50-95 cannot tell which is best, several have 0.56." in of_many.text
    assert [run["name"] for run in of_many.data()["runs"]] == ["sgd", "adamw", "stock"]
    assert {line["run"] for line in of_many.data()["charts"][0]["lines"]} == {0, 1, 2}
    assert "preset stable stable –" in of_many.text
    assert set(of_many.attributes("data-run")) == {"0", "1", "2"}


def test_runs_of_the_same_name_are_told_apart(tmp_path: Path) -> None:
    a, b = stock_run(tmp_path / "one" / "train"), stock_run(tmp_path / "two" / "train")
    found = Page(write_report([a, b, a], tmp_path / "out.html"))
    assert [run["name"] for run in found.data()["runs"]] == ["one/train", "two/train", "one/train (3)"]


def test_a_run_without_anything_still_has_a_page(tmp_path: Path) -> None:
    (tmp_path / "guard.jsonl").touch()
    found = Page(write_report([tmp_path]))
    for words in ("guard.jsonl is empty.", "There is no results.csv", "There is no args.yaml", "nothing to draw"):
        assert words in found.text


def test_the_first_run_of_a_damaged_log_is_shown_with_what_is_left(tmp_path: Path) -> None:
    path = guarded_run(tmp_path) / "guard.jsonl"
    lines = path.read_bytes().splitlines(keepends=True)
    lines[4] = b'{"schema": 1, "event": "ste\n'
    path.write_bytes(b"".join(lines)[:-20])
    (tmp_path / "args.yaml").unlink()
    (tmp_path / "results.csv").write_text("")
    found = Page(write_report([tmp_path]))
    for words in (
        "1 line is damaged (line 5)",
        "the last line is unfinished",
        "results.csv has no row",
        "no args.yaml",
    ):
        assert words in found.text
    assert "Not finished: the log ends in epoch 5" in found.text


def test_numbers_that_are_not_finite_are_gaps(tmp_path: Path) -> None:
    write_args(write_results(tmp_path, (0.1, 0.2, 0.3), losses=(1.0, "nan", "inf")))
    lines = Page(write_report([tmp_path])).data()["charts"][0]["lines"]
    assert next(line["y"] for line in lines if line["item"] == "box_loss") == [1.0, None, None]


def test_fifty_thousand_events_make_a_small_page_with_every_peak(tmp_path: Path) -> None:
    log = Log().start()
    line = json.dumps({"schema": 1, "event": "steps", "time": 1.0, "epoch": 1, "step": 7, "norm": 0.125, "lr": [0.01]})
    head, tail = line.split('"step": 7')
    steps = [f'{head}"step": {step}{tail}' for step in range(50_000)]
    steps[33_333] = steps[33_333].replace("0.125", "987.5")
    log.lines += steps
    found = Page(write_report([log.write(tmp_path)]))
    norm = next(chart for chart in found.data()["charts"] if chart["id"] == "norm")["lines"]
    assert all(len(line["x"]) <= 2000 for line in norm)
    drawn = dict(zip(norm[0]["x"], norm[0]["y"], strict=True))
    assert (norm[0]["kind"], drawn[33_333]) == ("range", 987.5)
    assert found.size < 6_000_000


def test_many_incidents_with_long_lists_and_large_pictures_stay_within_bounds(tmp_path: Path) -> None:
    log = Log().start()
    files = [f"images/train/{'x' * 60}{i}.jpg" for i in range(300)]
    for number in range(1, 301):
        log.rejection(1, number, number, files).incident(1, folder=f"incidents/{number:04d}")
    picture = write_bundle(tmp_path, 1, side=500) / "preview.jpg"
    assert picture.stat().st_size > BYTES
    for number in range(2, 61):
        (tmp_path / f"incidents/{number:04d}").mkdir()
        (tmp_path / f"incidents/{number:04d}/preview.jpg").symlink_to(picture)
    found = Page(write_report([log.end(1).write(tmp_path)]))
    assert sum(address.startswith("data:image") for address in found.attributes("src")) == 50
    assert "10 more pictures are in the folders" in found.text
    assert "and 100 more, which are only counted." in found.text
    assert found.size < 15_000_000


def test_a_picture_that_is_none_is_left_out(tmp_path: Path) -> None:
    for name, content in (("a", b"<svg onload=alert(1)>"), ("b", b"\xff\xd8\xff"), ("c", b"")):
        (tmp_path / name).write_bytes(content)
        assert Pictures().take(tmp_path / name) == ""
    assert Pictures().take(tmp_path / "nowhere") == ""
    buffer = io.BytesIO()
    Image.effect_noise((3000, 300), 90).save(buffer, "JPEG", quality=95)
    (tmp_path / "d").write_bytes(buffer.getvalue())
    small = Image.open(io.BytesIO(base64.b64decode(Pictures().take(tmp_path / "d").split(",")[1])))
    assert (small.format, small.width) == ("JPEG", 900)


def test_no_run_and_a_place_that_cannot_be_written_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidCallError, match="no run given"):
        write_report([])
    (tmp_path / "file").touch()
    with pytest.raises(InvalidCallError, match=r"cannot be written: .* Give another place with --out\."):
        write_report([stock_run(tmp_path / "run")], tmp_path / "file" / "out.html")


def test_a_page_goes_to_the_run_or_here_or_where_it_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    a, b = stock_run(tmp_path / "a"), stock_run(tmp_path / "b")
    assert write_report([a]) == a / "report.html"
    assert write_report([a, b]) == Path("report.html")
    assert (tmp_path / "report.html").is_file()
    assert write_report([a], tmp_path / "b") == tmp_path / "b" / "report.html"
