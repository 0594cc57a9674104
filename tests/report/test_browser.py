"""The page in a real browser: Debian's chromium, without a window."""

from __future__ import annotations

import base64
import io
import json
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from check.planted import BOX, clean
from PIL import Image
from report_rig import EVIL, Log, guarded_run, stock_run
from validations import failing, validation

from yolo_stable.check import check
from yolo_stable.check.page import page_of
from yolo_stable.report import write_report
from yolo_stable.validate.compare import compare
from yolo_stable.validate.page import comparison_page, result_page

CHROMIUM = next(
    (found for name in ("chromium", "chromium-browser", "google-chrome") if (found := shutil.which(name))), None
)
DRIVER = shutil.which("chromedriver")
if CHROMIUM is None or DRIVER is None:
    pytest.skip("no chromium with its chromedriver is installed", allow_module_level=True)
webdriver = pytest.importorskip("selenium.webdriver", reason="selenium is not installed")

IMAGE = "<img src=x onerror=\"document.title='pwned'\">.jpg"
"""Another name that must stay text, and one that a file system takes."""
LONG = "guarded,preset=stable,optimizer=AdamW,lr0=0.001,seed=0"


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    for option in (
        "--headless=new",
        "--no-sandbox",
        "--disable-gpu",
        "--disable-dev-shm-usage",
        "--window-size=1280,900",
    ):
        options.add_argument(option)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    service = webdriver.ChromeService(DRIVER)
    driver = webdriver.Chrome(options=options, service=service)
    driver.set_page_load_timeout(60)
    yield driver
    driver.quit()


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("pages")
    guarded, stock = guarded_run(folder / "guarded", file=IMAGE), stock_run(folder / "stock")
    evil = guarded_run(folder / "<b onmouseover=alert(1)>adamw", seed=5, file=EVIL)
    return {
        "one": write_report([guarded]),
        "many": write_report([guarded, evil, stock], folder / "many.html"),
        "stock": write_report([stock]),
        "long": write_report([stock_run(folder / LONG), stock_run(folder / f"{LONG},again")], folder / "long.html"),
        **other_pages(folder),
    }


def other_pages(folder: Path) -> dict[str, Path]:
    """Write the pages of the other verbs, with long names and what has no page without them."""
    data = clean(folder / "data", names=[LONG, "x" * 120])
    data.line("class-range", BOX, "7 0.5 0.5 0.2 0.2", name="a-name-without-a-blank-" * 4)
    broken = validation(failing(), device_name=LONG)
    pages = {
        "check": page_of(check(data.root, near=False, sample=0)),
        "validate": result_page(broken),
        "machines": comparison_page(compare([validation(), broken], ("a.json", f"{LONG}.json"))),
    }
    for name, content in pages.items():
        (folder / f"{name}.html").write_text(content, encoding="utf-8")
    return {name: folder / f"{name}.html" for name in pages}


@pytest.fixture
def opened(browser: Any, pages: dict[str, Path]) -> Callable[..., Any]:
    def at(which: str, *, width: int = 1280, dark: bool = False, anchor: str = "", anew: bool = False) -> Any:
        for log in ("browser", "performance"):
            browser.get_log(log)
        address = pages[which].as_uri() + anchor
        features = [{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}]
        browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})
        size = {"width": width, "height": 800, "deviceScaleFactor": 1, "mobile": width < 500}
        browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
        if not anew and browser.current_url == address:
            return browser
        browser.get("about:blank")  # a change of the anchor alone would not load the page
        browser.get(address)
        end = time.monotonic() + 90
        while not browser.execute_script(
            "return document.readyState === 'complete'"
            " && (!document.getElementById('data') || document.documentElement.dataset.ready === 'yes')"
        ):
            assert time.monotonic() < end, browser.get_log("browser")
            time.sleep(0.05)
        return browser

    return at


PATHS = """return [...document.querySelectorAll('.chart')].map((chart) =>
  [...chart.querySelectorAll('.scatterlayer path.js-line')]
  .map((path) => (path.getAttribute('d').match(/[MLHV]/g) || []).length));"""
"""How many points each curve of each chart has."""


def requests_of(browser: Any) -> list[str]:
    """Return the addresses that were asked for since the last look, without those that the page's policy has stopped."""
    messages = [json.loads(entry["message"])["message"] for entry in browser.get_log("performance")]
    asked = {
        m["params"]["requestId"]: m["params"]["request"]["url"]
        for m in messages
        if m["method"] == "Network.requestWillBeSent"
    }
    failed = [m["params"] for m in messages if m["method"] == "Network.loadingFailed"]
    stopped = {one["requestId"] for one in failed if one.get("blockedReason") == "csp"}
    return [url for request, url in asked.items() if request not in stopped]


def script(browser: Any, code: str, *words: Any) -> Any:
    return browser.execute_script(code, *words)


def until(browser: Any, code: str) -> None:
    end = time.monotonic() + 60
    while not script(browser, f"return {code}"):
        assert time.monotonic() < end, code
        time.sleep(0.05)


def picture(browser: Any) -> Image.Image:
    taken = browser.execute_cdp_cmd("Page.captureScreenshot", {"format": "png"})
    return Image.open(io.BytesIO(base64.b64decode(taken["data"]))).convert("RGB")


@pytest.mark.parametrize("which", ["one", "many", "stock"])
def test_the_curves_are_drawn_the_console_is_silent_and_nothing_is_asked_of_the_network(
    opened: Callable[..., Any], pages: dict[str, Path], which: str
) -> None:
    browser = opened(which, anew=True)
    script(browser, "document.querySelectorAll('details').forEach((d) => { d.open = true; })")
    for axis in ("epoch", "step") if which == "one" else ("step", "epoch"):  # and as it was in the end
        script(browser, f"document.querySelector('[data-axis={axis}]')?.click()")
    time.sleep(0.3)
    assert [entry for entry in browser.get_log("browser") if entry["level"] in ("SEVERE", "WARNING")] == []
    asked = {url for url in requests_of(browser) if not url.startswith(("data:", "blob:", "about:"))}
    assert asked == {pages[which].as_uri()}
    lines = script(browser, PATHS)
    assert len(lines) == (3 if which == "stock" else 9)
    assert all(max(chart) > 1 for chart in lines), f"{lines} points in the curves of the charts"


def test_the_network_would_not_be_asked_whatever_a_script_tried(opened: Callable[..., Any]) -> None:
    """And the tests before would have seen it: what is refused is told on the console."""
    browser = opened("one")
    browser.get_log("browser")
    script(browser, "new Image().src = 'http://127.0.0.1:9/x.png'; fetch('http://127.0.0.1:9/').catch(() => {});")
    time.sleep(0.3)
    told = [entry["message"] for entry in browser.get_log("browser") if entry["level"] == "SEVERE"]
    assert sum("Content Security Policy" in message for message in told) >= 2
    assert not any("127.0.0.1" in url for url in requests_of(browser))


def test_the_axis_of_the_norm_is_logarithmic_and_shows_where_it_is_clipped(opened: Callable[..., Any]) -> None:
    browser = opened("one")
    assert script(browser, "return document.querySelector('#chart-norm .plot').layout.yaxis.type") == "log"
    assert "clipped above 10" in script(browser, "return document.querySelector('#chart-norm').textContent")
    assert script(browser, "return document.querySelectorAll('#chart-norm .shapelayer path').length") > 0
    script(browser, "document.querySelector('#chart-norm input').click()")
    until(browser, "document.querySelector('#chart-norm .plot').layout.yaxis.type === 'linear'")
    script(browser, "document.querySelector('#chart-norm input').click()")


def test_a_mark_leads_to_its_incident_and_back(opened: Callable[..., Any]) -> None:
    browser = opened("one")
    script(browser, "document.querySelectorAll('details').forEach((d) => { d.open = false; })")
    script(browser, "document.querySelector('#chart-norm').scrollIntoView({block: 'center', behavior: 'instant'})")
    place = script(
        browser,
        "const marks = [...document.querySelectorAll('#chart-norm .scatterlayer .trace')].at(-1);"
        "const box = marks.querySelectorAll('path.point')[1].getBoundingClientRect();"
        "return [box.x + box.width / 2, box.y + box.height / 2]",
    )
    for kind in ("mouseMoved", "mousePressed", "mouseReleased"):
        event = {
            "type": kind,
            "x": place[0],
            "y": place[1],
            "button": "none" if kind == "mouseMoved" else "left",
            "clickCount": 1,
        }
        browser.execute_cdp_cmd("Input.dispatchMouseEvent", event)
        time.sleep(0.15)
    until(browser, "location.hash === '#run-1-incident-2'")
    assert script(browser, "return document.getElementById('run-1-incident-2').open") is True
    script(browser, "document.querySelector('#run-1-incident-2 [data-show]').click()")
    until(browser, "location.hash === '#curves'")
    assert script(browser, "return document.querySelector('#chart-loss .plot').layout.shapes.at(-1).x0") == 190


def test_an_address_with_an_anchor_opens_its_incident(opened: Callable[..., Any]) -> None:
    browser = opened("many", anchor="#run-2-incident-3")
    assert script(browser, "return document.getElementById('run-2-incident-3').open") is True
    until(browser, "Math.abs(document.getElementById('run-2-incident-3').getBoundingClientRect().top) < 300")


def test_every_link_leads_somewhere(opened: Callable[..., Any]) -> None:
    browser = opened("many")
    astray = "(a) => a.hash && !document.getElementById(decodeURIComponent(a.hash.slice(1)))"
    assert script(browser, f"return [...document.links].filter({astray}).length") == 0
    files = script(
        browser, "return [...document.links].filter((a) => !a.getAttribute('href').startsWith('#')).map((a) => a.href)"
    )
    assert len(files) > 5
    for address in files:
        assert address.startswith("file:///")
        browser.get(address)
        assert "ERR_FILE_NOT_FOUND" not in browser.page_source


@pytest.mark.parametrize("which", ["one", "many"])
def test_names_that_are_html_do_no_harm(opened: Callable[..., Any], which: str) -> None:
    browser = opened(which)
    hover = "(p) => Plotly.Fx.hover(p, [{curveNumber: 0, pointNumber: 0}, {curveNumber: p.data.length - 1, pointNumber: 0}])"
    script(browser, f"document.querySelectorAll('.plot').forEach({hover})")
    until(browser, "document.querySelectorAll('.hoverlayer text').length > 0")
    assert browser.title.endswith(": report")
    assert IMAGE in script(browser, "return document.body.innerText")
    assert script(browser, "return document.querySelectorAll('script').length") == 3
    assert (
        script(
            browser, "return document.querySelectorAll('b, [onerror], [onmouseover], img:not([src^=\"data:\"])').length"
        )
        == 0
    )
    if which == "many":
        assert EVIL in script(browser, "return document.body.innerText")
        legend = script(browser, "return document.querySelector('#chart-map .legend').textContent")
        assert "<b onmouseover=alert(1)>adamw" in legend


def test_what_is_filtered_out_of_the_timeline_goes_and_comes_back(opened: Callable[..., Any]) -> None:
    browser = opened("one")
    shown = "(li) => li.offsetHeight && li.dataset.kind === 'rejection'"
    seen = f"return [...document.querySelectorAll('.timeline li')].filter({shown}).length"
    assert script(browser, seen) == 2
    script(browser, "document.querySelector('.filter input[value=rejection]').click()")
    assert script(browser, seen) == 0
    script(browser, "document.querySelector('.filter input[value=rejection]').click()")
    assert script(browser, seen) == 2


def test_steps_and_epochs_can_be_changed_and_agree(opened: Callable[..., Any]) -> None:
    browser = opened("one")
    title = "document.querySelector('#chart-loss .plot').layout.xaxis.title.text"
    ends = "const t = document.querySelector('#chart-norm .plot').data[0].x; return [t[0], t.at(-1)]"
    assert script(browser, f"return {title}") == "optimizer step"
    assert script(browser, ends) == [10, 600]
    script(browser, "document.querySelector('[data-axis=epoch]').click()")
    assert script(browser, f"return {title}") == "epoch"
    assert script(browser, ends) == [0.1, 6]
    script(browser, "document.querySelector('[data-axis=step]').click()")


def test_runs_of_which_one_has_no_steps_are_shown_by_epochs(opened: Callable[..., Any]) -> None:
    title = "return document.querySelector('#chart-loss .plot').layout.xaxis.title.text"
    assert script(opened("many", anew=True), title) == "epoch"


def test_a_line_can_be_hidden_by_its_name(opened: Callable[..., Any]) -> None:
    browser = opened("one")
    line = "(t) => t.mode === 'lines' && t.visible !== false"
    seen = f"document.querySelector('#chart-lr .plot').data.filter({line}).length"
    assert script(browser, f"return {seen}") == 2
    script(browser, "document.querySelector('#chart-lr .legend button').click()")
    until(browser, f"{seen} === 1")
    script(browser, "document.querySelector('#chart-lr .legend button').click()")
    until(browser, f"{seen} === 2")


def test_no_line_goes_back(opened: Callable[..., Any]) -> None:
    browser = opened("one")
    goes_back = (
        "return [...document.querySelectorAll('.plot')].flatMap((p) => p.data).filter((t) => !t.name.includes('undone')"
        " && !t.customdata && t.x.some((x, i) => i && x < t.x[i - 1])).length"
    )
    assert script(browser, goes_back) == 0
    assert script(
        browser, "return document.querySelector('#chart-norm .plot').data.some((t) => t.name.includes('undone'))"
    )


def is_dark(browser: Any) -> bool:
    corner = picture(browser).getpixel((2, 400))
    assert isinstance(corner, tuple)
    return sum(corner) < 150


def test_light_and_dark_follow_the_system_and_then_the_button(opened: Callable[..., Any]) -> None:
    browser = opened("many")
    grid = "return document.querySelector('#chart-map .plot').layout.xaxis.gridcolor"
    light = script(browser, grid)
    assert not is_dark(browser)
    browser = opened("many", dark=True)
    assert is_dark(browser)
    assert script(browser, grid) != light, "the curves as well"
    script(browser, "document.getElementById('theme').click()")
    assert not is_dark(browser)
    assert script(browser, grid) == light
    script(browser, "delete document.documentElement.dataset.theme; try { localStorage.clear(); } catch {}")


CONTRAST = """
const luminance = (colour) => {
  const linear = (v) => (v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
  const [r, g, b] = colour.match(/[\\d.]+/g).map((v) => linear(v / 255));
  return 0.2126 * r + 0.7152 * g + 0.0722 * b;
};
const behind = (element) => {
  const own = element ? getComputedStyle(element).backgroundColor : 'rgb(255, 255, 255)';
  return own.startsWith('rgba(0, 0, 0, 0') ? behind(element.parentElement) : own;
};
const says = (element) => [...element.childNodes].some((node) => node.nodeType === 3 && node.textContent.trim());
return [...document.querySelectorAll('main *, .bar *')].filter((element) => !element.closest('.plot') && says(element))
  .map((element) => {
    const [a, b] = [luminance(getComputedStyle(element).color), luminance(behind(element))].sort((x, y) => y - x);
    return [(a + 0.05) / (b + 0.05), element.outerHTML.slice(0, 80)];
  }).filter(([ratio]) => ratio < 4.5);
"""


@pytest.mark.parametrize("dark", [False, True])
def test_all_text_can_be_told_from_its_background(opened: Callable[..., Any], dark: bool) -> None:
    assert script(opened("many", dark=dark), CONTRAST) == []


CUT = """
const cut = (e) => e.scrollWidth > e.clientWidth + 1 && getComputedStyle(e).overflowX !== 'visible';
return [...document.querySelectorAll('main *, .bar *')].filter((e) => !e.closest('.plot, pre') && e.clientWidth)
  .filter((e) => cut(e) || e.getBoundingClientRect().right > innerWidth).map((e) => e.outerHTML.slice(0, 80));
"""
"""What is cut at its side, or beyond the side of the page."""


@pytest.mark.parametrize("which", ["one", "many", "long", "check", "validate", "machines"])
def test_nothing_is_wider_than_a_phone_and_nothing_is_cut(opened: Callable[..., Any], which: str) -> None:
    browser = opened(which, width=360, anew=True)
    script(browser, "document.querySelectorAll('details').forEach((d) => { d.open = true; })")
    assert script(browser, "return [innerWidth, document.documentElement.scrollWidth]") == [360, 360]
    assert script(browser, CUT) == []
    wide = "(p) => p.getBoundingClientRect().right > 360 || p.offsetWidth < 250"
    assert script(browser, f"return [...document.querySelectorAll('.plot')].filter({wide}).length") == 0
    assert picture(browser).width == 360


@pytest.mark.parametrize("dark", [False, True])
@pytest.mark.parametrize("which", ["check", "validate", "machines"])
def test_the_other_pages_can_be_read_in_light_and_dark(opened: Callable[..., Any], which: str, dark: bool) -> None:
    browser = opened(which, dark=dark, anew=True)
    script(browser, "document.querySelectorAll('details').forEach((d) => { d.open = true; })")
    assert is_dark(browser) == dark
    assert script(browser, CONTRAST) == []
    assert {url.partition(":")[0] for url in requests_of(browser)} <= {"file", "data", "about"}


TICKS = """
const boxes = (plot) => [...plot.querySelectorAll('.ytick text')].map((t) => t.getBoundingClientRect());
return [...document.querySelectorAll('.plot')].map((plot) => [plot.parentElement.id, boxes(plot).length,
  boxes(plot).some((a, i, all) => all.some((b, j) => j > i && a.top < b.bottom - 2 && b.top < a.bottom - 2))]);
"""
RANGES = {
    "one value": (5.0, 5.0), "within a decade": (1.0, 3.9), "nearly one": (1.1, 9.8), "twenty": (1e-10, 1e10),
    "far below the limit": (1e-6, 1.2e-6), "zero as well": (0.0, 2.0),
}  # fmt: skip


def test_no_labels_of_an_axis_collide_however_far_its_values_reach(browser: Any, tmp_path: Path) -> None:
    browser.execute_cdp_cmd(
        "Emulation.setDeviceMetricsOverride", {"width": 360, "height": 800, "deviceScaleFactor": 1, "mobile": True}
    )
    for name, (low, high) in RANGES.items():
        log = Log().start()
        for step in range(1, 20):
            log.add("steps", 1, step=step, norm=low if step % 2 else high)
        browser.get(write_report([log.write(tmp_path / name)]).as_uri())
        until(browser, "document.documentElement.dataset.ready === 'yes'")
        ((chart, labels, collide),) = script(browser, TICKS)
        assert (chart, labels > 1, collide) == ("chart-norm", True, False), name
        drawn = script(browser, "return document.querySelector('.plot').data[0].y")
        assert (high in drawn, 0 in drawn) == (True, False), "what has no logarithm is a gap, no line down to the edge"


def test_labels_have_room_with_every_axis_the_other_way_too(opened: Callable[..., Any]) -> None:
    browser = opened("one")
    other = "document.querySelectorAll('.chart .tools input').forEach((box) => box.click())"
    for _ in range(2):
        found = script(browser, TICKS)
        assert len(found) == 9
        assert [chart for chart, labels, collide in found if labels < 2 or collide] == []
        script(browser, other)


def test_map_runs_from_0_to_1(opened: Callable[..., Any]) -> None:
    axis = "return document.querySelector('#chart-map .plot').layout.yaxis.range"
    assert script(opened("one"), axis) == [0, 1]
    assert script(opened("stock"), axis) == [0, 1]


def test_a_long_name_breaks_at_its_commas(opened: Callable[..., Any]) -> None:
    browser = opened("long", width=360, anew=True)
    broken = """
    const range = document.createRange();
    const words = [...document.querySelectorAll('strong, .legend button, tbody th')].flatMap((e) => [...e.childNodes])
      .filter((node) => node.nodeType === 3 && node.textContent.trim());
    return [words.length, words.filter((node) => { range.selectNode(node); return range.getClientRects().length > 1; })
      .map((node) => node.textContent)];"""
    pieces, split = script(browser, broken)
    assert pieces > 30
    assert split == []


def test_a_long_run_opens_and_zooms_all_charts_together(browser: Any, tmp_path: Path) -> None:
    log = Log().start()
    for step in range(0, 12_000, 3):
        log.steps(1 + step // 3000, step)
    page = write_report([log.write(tmp_path)])
    browser.get(page.as_uri())
    until(browser, "document.documentElement.dataset.ready === 'yes'")
    zoom = "{'xaxis.range[0]': 100, 'xaxis.range[1]': 500}"
    script(browser, f"document.querySelector('#chart-norm .plot').emit('plotly_relayout', {zoom})")
    until(browser, "document.querySelector('#chart-loss .plot').layout.xaxis.range[1] === 500")
    script(browser, "document.getElementById('reset').click()")
    until(browser, "document.querySelector('#chart-loss .plot').layout.xaxis.range[1] > 11000")
