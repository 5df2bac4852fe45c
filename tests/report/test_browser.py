"""The page in a real Chromium, opened from the disk: drawn, quiet, reachable by keyboard, for phones, and in the "
"dark."""

import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from made import made_up, write_sweep
from playwright.sync_api import Browser, Page, sync_playwright

from snnsweep.report import compare, data, page

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
]
SOFTWARE = ["--use-angle=swiftshader", "--enable-unsafe-swiftshader"]  # WebGL where there is no GPU
LOCAL = ("file:", "data:", "blob:")
PATIENCE_MS = 120_000


def launched(play: Any, *flags: str) -> Browser:
    found = next(filter(None, map(shutil.which, BROWSERS)), None)
    if found is None:
        pytest.skip(f"no browser in PATH: {', '.join(BROWSERS)}")
    return play.chromium.launch(executable_path=found, args=[*FLAGS, *flags])


@pytest.fixture(scope="module")
def play() -> Iterator[Any]:
    with sync_playwright() as play:
        yield play


@pytest.fixture(scope="module")
def browser(play: Any) -> Iterator[Browser]:
    browser = launched(play, *SOFTWARE)
    yield browser
    browser.close()


@pytest.fixture(scope="module")
def address(swept: Path) -> str:
    return page.write(swept).as_uri()


def opened(browser: Browser, address: str, **how: Any) -> tuple[Page, list[str]]:
    """The page when all is drawn, and what went wrong on the way."""
    view = browser.new_context(**how).new_page()
    wrong: list[str] = []
    view.on("console", lambda said: wrong.append(said.text) if said.type == "error" else None)
    view.on("pageerror", lambda error: wrong.append(str(error)))
    view.on(
        "request",
        lambda asked: wrong.append(asked.url) if not asked.url.startswith(("file:", "data:", "blob:")) else None,
    )
    view.on("requestfailed", lambda asked: wrong.append(f"failed: {asked.url}"))
    view.goto(address)
    view.wait_for_selector("body[data-drawn]", timeout=PATIENCE_MS)
    return view, wrong


@pytest.fixture(scope="module")
def desktop(browser: Browser, address: str) -> Iterator[tuple[Page, list[str]]]:
    view, wrong = opened(browser, address, viewport={"width": 1280, "height": 900}, color_scheme="light")
    yield view, wrong
    view.context.close()


def test_every_panel_is_drawn_and_nothing_goes_wrong(desktop: tuple[Page, list[str]]) -> None:
    view, wrong = desktop
    assert wrong == []
    assert view.evaluate("window.hacked") is None
    assert view.locator("img, u").count() == 0
    sizes = view.evaluate(
        """() => [...document.querySelectorAll("[data-chart]")].map((place) => [
            place.dataset.chart, place.dataset.drawn, [...place.querySelectorAll("svg, canvas")].some((one) => {
                const { width, height } = one.getBoundingClientRect(); return width > 100 && height > 100; })])"""
    )
    assert len(sizes) >= 14
    assert [one for one in sizes if one[1:] != ["yes", True]] == []
    assert view.locator(".missing:visible").count() == 0
    with_charts = view.evaluate(
        """() => [...document.querySelectorAll("section")]
            .filter((part) => part.querySelector("[data-chart]")).map((part) => part.id)"""
    )
    assert with_charts == ["front", "parallel", "importance", "hypervolume", "eps", "layers", "training", "confirmed"]


def test_a_point_tells_its_trial(desktop: tuple[Page, list[str]]) -> None:
    view, _ = desktop
    drawn = view.evaluate("""() => document.getElementById("chart-front-1").data.map((t) => [t.customdata, t.text])""")
    told = {trial: text for trials, texts in drawn if trials for trial, text in zip(trials, texts, strict=True)}
    assert told
    for trial, text in told.items():
        assert text.startswith(f"{trial} (")
        assert "audit: " in text
        assert "neuron.v_threshold = " in text
        assert re.search(r"robust_accuracy [\d.]+ \[", text)


def test_a_text_like_a_colour_stays(desktop: tuple[Page, list[str]]) -> None:
    view, _ = desktop
    layers = view.evaluate("""() => document.getElementById("chart-layers-zeros").data.flatMap((one) => one.x)""")
    assert "@orange" in layers


def test_tab_reaches_every_control(desktop: tuple[Page, list[str]]) -> None:
    view, _ = desktop
    wanted = view.evaluate(
        """() => { const all = [...document.querySelectorAll('a[href], button, summary, [tabindex="0"]')];
        all.forEach((one, place) => { one.dataset.stop = place; });
        return all.filter((one) => one.checkVisibility()).map((one) => one.dataset.stop); }"""
    )
    reached, unseen = set(), set()
    view.evaluate("() => { document.activeElement.blur(); window.scrollTo(0, 0); }")
    for _ in range(len(wanted) + 2):
        view.keyboard.press("Tab")
        at, outline = view.evaluate(
            """() => [document.activeElement.dataset.stop, getComputedStyle(document.activeElement).outlineStyle]"""
        )
        reached.add(at)
        if at is not None and outline == "none":
            unseen.add(at)
    assert set(wanted) <= reached
    assert unseen == set()


def test_keys_sort_turn_and_copy(desktop: tuple[Page, list[str]]) -> None:
    view, _ = desktop
    head = view.locator("#members table[data-sorts] th button").nth(1)
    head.press("Enter")
    cells = view.locator("#members table[data-sorts]").first.locator("tbody tr td:nth-child(2)").all_inner_texts()
    assert [float(cell.split()[0]) for cell in cells] == sorted(float(cell.split()[0]) for cell in cells)
    eye = "() => document.getElementById('chart-front-3d')._fullLayout.scene.camera.eye.x"
    before = view.evaluate(eye)
    view.get_by_role("button", name="Turn left").press("Enter")
    view.wait_for_function(f"(was) => ({eye})() !== was", arg=before, timeout=PATIENCE_MS)
    view.get_by_role("button", name="Copy Methods").press("Enter")
    view.wait_for_function("() => document.querySelector('[role=status]').textContent !== ''")
    assert view.locator("[role=status]").first.inner_text() == "copied"
    assert "snnsweep" in view.evaluate("() => getSelection().toString()")


def test_a_phone_scrolls_only_down(browser: Browser, address: str) -> None:
    view, wrong = opened(browser, address, viewport={"width": 375, "height": 812}, is_mobile=True, has_touch=True)
    assert wrong == []
    assert view.evaluate("() => document.documentElement.scrollWidth") == 375
    view.evaluate("() => document.querySelectorAll('details').forEach((one) => { one.open = true; })")
    assert view.evaluate("() => document.documentElement.scrollWidth") == 375
    view.context.close()


def test_colours_change_in_the_dark_and_back(desktop: tuple[Page, list[str]]) -> None:
    view, wrong = desktop

    def grounds() -> tuple[str, str, str]:
        return view.evaluate(
            """() => [getComputedStyle(document.documentElement).backgroundColor,
            document.querySelector("#chart-front-1 .main-svg").style.background,
            document.querySelector("#chart-front-1 .xtick text").style.fill]"""
        )

    light = grounds()
    view.emulate_media(color_scheme="dark")
    view.wait_for_selector("body[data-drawn=dark]", timeout=PATIENCE_MS)
    dark = grounds()
    view.emulate_media(color_scheme="light")
    view.wait_for_selector("body[data-drawn=light]", timeout=PATIENCE_MS)
    assert grounds() == light
    assert dark[0] == "rgb(21, 25, 30)"
    assert light[0] == "rgb(255, 255, 255)"
    assert dark[1] == dark[0]
    assert light[1] == light[0]
    assert dark[2] != light[2]
    assert wrong == []


def test_without_webgl_the_page_says_so(play: Any, address: str) -> None:
    browser = launched(play, "--disable-3d-apis")
    view, wrong = opened(browser, address)
    said = view.locator(".missing:visible").all_inner_texts()
    assert len(said) == 2  # three axes, parallel ones
    assert all("WebGL" in text for text in said)
    assert view.locator("[data-turn]:visible").count() == 0
    assert wrong == []
    browser.close()


def test_two_sweeps_are_drawn(browser: Browser, swept: Path, tmp_path: Path) -> None:
    other = write_sweep(tmp_path / "other", made_up(8, seed=9))
    view, wrong = opened(browser, compare.write(swept, other).as_uri())
    assert wrong == []
    for name, sweep in (("A (digits)", swept), ("B (other)", other)):
        drawn = view.evaluate(
            """(name) => document.getElementById("chart-fronts-1").data.find((one) => one.name === name).x""", name
        )
        assert drawn == pytest.approx(data.read(sweep).front["clean_accuracy"].tolist(), rel=1e-4)
    assert view.locator("[data-drawn=yes]").count() == 4
    assert view.evaluate("window.hacked") is None
    view.context.close()
