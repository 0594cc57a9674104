"""The pages: the verdict first, everything escaped, nothing from elsewhere."""

from __future__ import annotations

import re
from html.parser import HTMLParser

import pytest
from validations import CONV, check, failing, validation

from yolo_stable.validate import BACKENDS, Status
from yolo_stable.validate.compare import compare
from yolo_stable.validate.healing import Healing, HealingTrial, healed
from yolo_stable.validate.page import comparison_page, limits, result_page

EVIL = "<script>alert('x')</script> & \"more\""
SETTING = BACKENDS["rocm"].heals[2]
OFF = BACKENDS["rocm"].heals[-2]


class Reader(HTMLParser):
    """Collects tags and text, and requires that what is opened is closed."""

    VOID = ("meta", "br", "link", "img", "wbr")

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.words: list[str] = []
        self._open: list[str] = []
        self.feed(re.sub(r'<wbr>|<span class="n">(.*?)</span>', r"\1", page))  # which part no text
        assert self._open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += attrs
        if tag not in self.VOID:
            self._open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())


def broken_page() -> str:
    result = validation(
        failing(reason=EVIL, notes=(EVIL,), heal=None),
        check("linear/bmm/contiguous/strict", numbers={"loss": 1.5}),
        check("attention/sdpa/contiguous/strict", status=Status.SKIP, reason="no such kernel"),
        device_name=EVIL, environment={"torch": EVIL, "switches": {"cudnn.enabled": True}, "arch_list": ["gfx1100"]},
    )  # fmt: skip
    trials = (HealingTrial(setting=SETTING, passed=(CONV,), tried=1), HealingTrial(setting=OFF, tried=0, problem=EVIL))
    healing = Healing(chosen=(SETTING, OFF), heals={CONV: SETTING}, trials=trials, failing=1)
    return result_page(healed(result, healing), healing)


def compared_page() -> str:
    machines = [validation(), validation(failing(reason=EVIL), device_name=EVIL)]
    return comparison_page(compare(machines, (EVIL, "b.json")))


PAGES = pytest.mark.parametrize("make", [broken_page, compared_page, lambda: result_page(validation())])


@PAGES
def test_a_page_needs_nothing_from_elsewhere_and_runs_nothing(make) -> None:
    page = make()
    read = Reader(page)
    assert not {"script", "img", "iframe", "object", "base", "form"} & set(read.tags)
    assert not [name for name, _ in read.attributes if name == "src" or name.startswith("on")]
    assert {value for name, value in read.attributes if name == "href" and not str(value).startswith("#")} == {"data:,"}
    assert not re.search(r"https?://", page)
    assert ("charset", "utf-8") in read.attributes


@PAGES
def test_the_verdict_comes_first(make) -> None:
    headings = re.findall(r"<h\d[^>]*>[^<]*", make())
    assert re.match(r'<h1 class="(good|bad)">(PASS|FAIL|SAME|REGRESSION)', headings[0])


def test_what_a_driver_says_is_text_wherever_it_stands() -> None:
    for page in (broken_page(), compared_page()):
        assert "<script>" not in page
        assert page.count("&lt;script&gt;") >= 3
        assert EVIL in Reader(page).text


def test_a_failure_has_numbers_limits_reasons_and_the_line_that_heals() -> None:
    text = Reader(broken_page()).text
    assert (
        f"fail {CONV} broken 1.0e-02 1.0e+06 5.0e-01 rms 5.0e-06, fails above 5.0e-05; q 64, fails above 1024" in text
    )
    assert "limits reason source rms 5.0e-06, fails above 5.0e-05; q 64, fails above 1024 an example none" in text
    assert "Passes with export MIOPEN_DEBUG_CONV_WINOGRAD=0" in text
    assert "torch.backends.cudnn.enabled = False # in Python, before training" in text
    assert "MIOPEN_DEBUG_CONV_WINOGRAD=0 1 of 1" in text
    assert "switches.cudnn.enabled True" in text
    assert "arch_list gfx1100" in text
    assert "loss 1.5e+00" in text


def test_a_comparison_has_machines_differences_and_all_checks() -> None:
    a, b = validation(), validation(failing(), environment={"torch": "3.0"})
    text = Reader(comparison_page(compare([a, b], ("a.json", "b.json")))).text
    assert (
        f"regression {CONV} b.json pass → fail: out: rms 1.0e-02 is over 5.0e-05 precision ieee-fp32 → broken" in text
    )
    assert "torch 2.9 3.0" in text
    assert "pass ieee-fp32 1.0e-07 fail broken 1.0e-02" in text


def test_the_limit_of_exact_operations_is_said_in_words() -> None:
    assert limits({"exact": True, "reason": "copies"}) == "every element equal"
