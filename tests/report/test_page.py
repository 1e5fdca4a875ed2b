"""The page in a real browser: it is drawn, it plays, it fits, and it asks for nothing."""

from __future__ import annotations

from collections.abc import Generator
from pathlib import Path
from typing import get_args

import pytest
from playwright.sync_api import Browser, Page

from wanc.report.document import Outcome
from wanc.report.write import write_report

from .browser import SCHEMES, WIDTHS, Scheme, browser, needs_chromium, opened
from .example import BASELINE, HOSTILE, NEW, OTHER, example, nothing, write_example_media

pytestmark = needs_chromium
PLOTS_WITHOUT_SVG = (
    "[...document.querySelectorAll('.drawn')].filter(e => e.offsetParent && !e.querySelector('svg.main-svg'))"
)
LUMINANCE = """element => {
  const [red, green, blue] = getComputedStyle(element).fill.match(/[0-9.]+/g).map(Number);
  return (red + green + blue) / 3;
}"""
VIDEOS = "[...document.querySelectorAll('video')]"
PANELS = "document.querySelectorAll('article:not([hidden])').length"


@pytest.fixture(scope="module")
def chromium() -> Generator[Browser]:
    with browser() as started:
        yield started


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("report")
    return write_report(example(write_example_media(folder)), folder, folder)[-1]


def shown_bundle(page: Page) -> str:
    (name,) = page.locator("article:visible h3").all()
    return name.inner_text().split("\n")[0]


@pytest.mark.parametrize(
    ("width", "scheme"),
    [
        pytest.param(width, scheme, marks=() if (width, scheme) == (WIDTHS[0], SCHEMES[0]) else pytest.mark.slow)
        for width in WIDTHS
        for scheme in SCHEMES
    ],
)
def test_it_is_drawn_and_fits(chromium: Browser, path: Path, width: int, scheme: Scheme) -> None:
    with opened(chromium, path, width, scheme) as watched:
        page = watched.page
        assert page.locator(".drawn:visible").count() >= 10
        assert page.evaluate(f"{PLOTS_WITHOUT_SVG}.length") == 0
        text = page.locator(".drawn:visible .xtick text").first.evaluate(LUMINANCE)
        assert text > 160 if scheme == "dark" else text < 90, "plots are as light or dark as the page"
        assert page.locator("h1").inner_text() == "✖\nMust not ship: regression"
        assert page.locator("img").evaluate_all("all => all.every(one => one.naturalWidth > 0 && one.alt)")
        watched.require_no_sideways_scrolling()
        for name in (BASELINE, OTHER):
            page.get_by_role("tab", name=name, exact=False).last.click()
            assert page.evaluate(f"{PLOTS_WITHOUT_SVG}.length") == 0
        watched.require_no_sideways_scrolling()
        watched.require_clean()


def test_both_videos_play_in_step(chromium: Browser, path: Path) -> None:
    with opened(chromium, path) as watched:
        page = watched.page
        watched.wait_until(f"{VIDEOS}.every(one => one.readyState >= 2)")
        page.locator("#play").click()
        watched.wait_until(f"{VIDEOS}.every(one => one.currentTime > .3)")
        page.locator("#play").click()
        watched.wait_until(f"{VIDEOS}.every(one => one.paused)")
        page.locator("#time").fill("0.5")
        times = f"{VIDEOS}.map(one => one.currentTime)"
        watched.wait_until(f"{times}.every(time => time == .5)")
        assert page.locator("#frame").inner_text() == "frame 8 of 16"
        page.locator("#forward").click()
        assert page.evaluate(times) == pytest.approx([9 / 16, 9 / 16])
        page.locator("#back").click()
        assert page.evaluate(times) == pytest.approx([0.5, 0.5])
        watched.require_clean()


@pytest.mark.slow
def test_clips_bundles_and_where_they_meet_can_be_chosen(chromium: Browser, path: Path) -> None:
    with opened(chromium, path) as watched:
        page = watched.page
        sources = f"{VIDEOS}.map(one => one.src)"
        before = page.evaluate(sources)
        page.locator("#right").select_option(label=BASELINE)
        page.locator("#clip").select_option(index=1)
        watched.wait_until(f"{VIDEOS}.every(one => one.readyState >= 2)")
        assert not set(before) & set(page.evaluate(sources))
        assert page.locator("#video-right").get_attribute("aria-label") == BASELINE
        clip = "getComputedStyle(document.getElementById('video-right')).clipPath"
        assert page.evaluate(clip) == "inset(0px 0px 0px 50%)"
        page.locator("#wipe").fill("20")
        assert page.evaluate(clip) == "inset(0px 0px 0px 20%)"
        page.locator("#wipe").press("ArrowRight")
        assert page.evaluate(clip) != "inset(0px 0px 0px 20%)", "by the keyboard as well"
        box = page.locator("#stage").bounding_box()
        assert box
        page.mouse.move(box["x"] + box["width"] * 0.75, box["y"] + box["height"] / 2)
        assert float(page.locator("#wipe").input_value()) == pytest.approx(75, abs=1)
        page.locator("#difference").check()
        assert page.evaluate("getComputedStyle(document.getElementById('video-right')).mixBlendMode") == "difference"
        watched.require_clean()


@pytest.mark.slow
def test_points_and_arrow_keys_select_bundles(chromium: Browser, path: Path) -> None:
    with opened(chromium, path) as watched:
        page = watched.page
        assert shown_bundle(page) == NEW
        points = page.locator("#compared .drawn .point").all()
        assert len(points) == 3
        for point, name in zip(points[1:], (BASELINE, OTHER), strict=True):
            point.scroll_into_view_if_needed()
            box = point.bounding_box()
            assert box
            page.mouse.move(box["x"] + box["width"] / 2 - 3, box["y"] + box["height"] / 2)
            page.mouse.click(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
            watched.wait_until(f"document.querySelector('article:not([hidden]) h3').innerText.startsWith('{name}')")
            assert shown_bundle(page) == name
        page.locator("#tab-0").focus()
        for name in (BASELINE, OTHER, NEW):
            page.keyboard.press("ArrowRight")
            assert shown_bundle(page) == name
        page.keyboard.press("ArrowLeft")
        assert shown_bundle(page) == OTHER
        assert page.locator('[role="tab"][aria-selected="true"]').get_attribute("id") == "tab-2"
        watched.require_clean()


@pytest.mark.slow
def test_plots_follow_the_scheme_while_the_page_is_open(chromium: Browser, path: Path) -> None:
    with opened(chromium, path, scheme="light") as watched:
        page = watched.page
        page.emulate_media(color_scheme="dark")
        watched.wait_until(f"({LUMINANCE})(document.querySelector('.drawn .xtick text')) > 160")
        page.locator("#tab-1").click()
        assert page.locator(".drawn:visible .xtick text").last.evaluate(LUMINANCE) > 160
        watched.require_clean()


@pytest.mark.slow
def test_paper_gets_all_bundles_dark_on_white(chromium: Browser, path: Path) -> None:
    with opened(chromium, path, 760, "dark") as watched:
        page = watched.page
        page.emulate_media(media="print")
        watched.wait_until(f"{PANELS} == 3")
        assert page.evaluate(f"{PLOTS_WITHOUT_SVG}.length") == 0
        assert page.locator(".drawn .xtick text").first.evaluate(LUMINANCE) < 90
        assert not page.locator("#player").is_visible() and page.locator(".strip img:visible").count() == 8
        watched.require_no_sideways_scrolling()
        page.emulate_media(media="screen")
        watched.wait_until(f"{PANELS} == 1")
        assert page.pdf().startswith(b"%PDF")
        watched.require_clean()


def test_texts_of_others_stay_texts(chromium: Browser, path: Path, tmp_path: Path) -> None:
    report = example()
    first = report.bundles[0].model_copy(update={"name": f"<b>x</b>{HOSTILE}"})
    report = report.model_copy(update={"bundles": [first, *report.bundles[1:]]})
    with opened(chromium, write_report(report, tmp_path, tmp_path)[-1]) as watched:
        assert watched.page.locator("b").count() == 0
        legend = watched.page.locator("#drift .legendtext").all_text_contents()
        assert any(text.startswith("<b>x</b></script>") for text in legend)
        assert "<b>x</b>" in shown_bundle(watched.page)
        watched.require_clean()


@pytest.mark.slow
@pytest.mark.parametrize("outcome", get_args(Outcome))
def test_every_outcome_opens_also_where_nothing_was_measured(
    outcome: Outcome, chromium: Browser, tmp_path: Path
) -> None:
    report = nothing(outcome)
    if outcome == "not-comparable":
        nowhere = {"quality": None, "speed": None, "ratios": [], "failure": "it broke"}
        bundles = [one.model_copy(update=nowhere) for one in example().bundles]
        report = report.model_copy(update={"bundles": bundles, "baseline": BASELINE})
    with opened(chromium, write_report(report, tmp_path, tmp_path)[-1], 420) as watched:
        assert watched.page.locator("header").get_attribute("class") == f"verdict {outcome}"
        assert "Not measured" in watched.page.locator("main").inner_text()
        watched.require_no_sideways_scrolling()
        watched.require_clean()


FAULTS = {
    "an error in the console": "<script>console.error('x')</script>",
    "a script that fails": "<script>nobody()</script>",
    "a picture from elsewhere": "<img src='http://127.0.0.1:9/x.png'>",
    "a question to elsewhere": "<script>fetch('http://127.0.0.1:9/').catch(() => 0)</script>",
    "a file beside it": "<link rel=stylesheet href=style.css>",
}


@pytest.mark.parametrize("fault", FAULTS)
def test_whoever_watches_sees_faults(fault: str, chromium: Browser, tmp_path: Path) -> None:
    page = tmp_path / "index.html"
    page.write_text(f"<!doctype html><title>x</title>{FAULTS[fault]}")
    with opened(chromium, page) as watched:
        watched.page.wait_for_timeout(100)
        with pytest.raises(AssertionError):
            watched.require_clean()


@pytest.mark.slow
def test_whoever_watches_sees_what_is_too_wide(chromium: Browser, tmp_path: Path) -> None:
    page = tmp_path / "index.html"
    page.write_text("<!doctype html><title>x</title><div style='width: 500px'>x</div>")
    with opened(chromium, page, 420) as watched, pytest.raises(AssertionError):
        watched.require_no_sideways_scrolling()


def test_the_page_itself_lets_nothing_out(chromium: Browser, path: Path, tmp_path: Path) -> None:
    """Should a text ever become more than that, its scripts do not run and its pictures are not asked for."""
    evil = "<img src='http://127.0.0.1:9/x.png' onerror='window.ran = 1'><script>window.ran = 1</script>"
    page = tmp_path / "index.html"
    page.write_text(path.read_text("utf-8").replace("<main>", f"<main>{evil}", 1), "utf-8")
    with opened(chromium, page) as watched:
        assert watched.page.evaluate("window.ran") is None
        assert "failed: http://127.0.0.1:9/x.png: csp" in watched.faults
        assert [fault for fault in watched.faults if "Content Security Policy" in fault]
