"""All pages are of one family: the verb, the verdict, the version and the date; and nothing of them is fetched."""

from __future__ import annotations

import re
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path

import pytest
from check.planted import BOX, clean
from report_rig import guarded_run, stock_run
from validations import failing, validation

from yolo_stable import __version__
from yolo_stable.check import check
from yolo_stable.check.page import page_of
from yolo_stable.pages.frame import breaks
from yolo_stable.report import write_report
from yolo_stable.validate.compare import compare
from yolo_stable.validate.page import comparison_page, result_page


def check_page(folder: Path) -> str:
    data = clean(folder)
    data.line("class-range", BOX, "7 0.5 0.5 0.2 0.2")
    return page_of(check(data.root, near=False, sample=0))


def report_page(folder: Path) -> str:
    return write_report([guarded_run(folder / "run")]).read_text(encoding="utf-8")


def compare_page(folder: Path) -> str:
    runs = [guarded_run(folder / "lr0=0.1,seed=0"), stock_run(folder / "stock,seed=0")]
    page = write_report(runs, folder / "page.html", title="out", conclusion="One seed cannot tell.", verb="compare")
    return page.read_text(encoding="utf-8")


def validate_page(folder: Path) -> str:
    return result_page(validation(failing()))


def machines_page(folder: Path) -> str:
    return comparison_page(compare([validation(), validation(failing())], ("a.json", "b.json")))


PAGES: dict[Callable[[Path], str], str] = {
    check_page: "check", report_page: "report", compare_page: "compare", validate_page: "validate", machines_page: "validate"
}  # fmt: skip


class Reader(HTMLParser):
    """Takes a page apart."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.texts: dict[str, list[str]] = {}
        self.attributes: list[tuple[str, str]] = []
        self._tag = ""
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self._tag = tag
        self.texts.setdefault(tag, []).append("")
        self.attributes += [(name, value or "") for name, value in attrs]

    def handle_data(self, data: str) -> None:
        if self._tag:
            self.texts[self._tag][-1] += data

    def values(self, *names: str) -> list[str]:
        return [value for name, value in self.attributes if name in names]


@pytest.mark.parametrize("make", PAGES)
def test_every_page_has_its_verb_a_verdict_a_version_and_a_date(make: Callable[[Path], str], tmp_path: Path) -> None:
    verb, read = PAGES[make], Reader(make(tmp_path))
    assert read.texts["title"][0].strip().endswith(f": {verb}")
    assert f"yolo-stable: {verb}" in read.texts["span"][0]
    assert read.texts["h1"][0].strip()
    foot = rf"Made by yolo-stable {re.escape(__version__)} \({verb}\), \d{{4}}-\d\d-\d\d \d\d:\d\d.*This page needs no network\."
    assert re.match(foot, read.texts["footer"][0])
    parts = [value[1:] for value in read.values("href") if value.startswith("#")]
    assert parts[0] == "top"
    assert set(parts) <= set(read.values("id")), "each part of the navigation is there"


@pytest.mark.parametrize("make", PAGES)
def test_no_page_fetches_anything_nor_may_it(make: Callable[[Path], str], tmp_path: Path) -> None:
    page = make(tmp_path)
    read = Reader(page)
    assert "default-src 'none'" in read.values("content")[1]
    assert not [value for value in read.values("href", "src") if not re.match(r"#|data:|\./", value)]
    styles = "".join(read.texts["style"])
    assert "prefers-color-scheme: dark" in styles
    assert not re.search(r"@import|url\(", styles)


@pytest.mark.parametrize("make", PAGES)
def test_cells_say_on_a_phone_which_column_they_are_of(make: Callable[[Path], str], tmp_path: Path) -> None:
    """There the heads of the columns are not shown: a number without its title could be any."""
    numbers = re.findall(r'<td class="n"([^>]*)>([^<]*)</td>', make(tmp_path))
    assert numbers
    assert [value for attributes, value in numbers if "data-label" not in attributes] == []


def test_names_break_after_commas_and_slashes_and_stay_text() -> None:
    assert str(breaks('a,b, c,<i>,"d"/e')) == "a,<wbr>b, c,<wbr>&lt;i&gt;,<wbr>&#34;d&#34;/<wbr>e"
