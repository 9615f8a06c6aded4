"""Every page of the built book in a real browser: on a desk, on a phone, served, from a folder, light and dark."""

import json
import re
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path

import pytest
from browsing import serving, watch
from PIL import Image
from playwright.sync_api import Browser, Page

from rfviz.book import batch
from rfviz.lab import presets

AXE = Path(__file__).parents[1] / "axe" / "node_modules" / "axe-core" / "axe.min.js"
pytestmark = [pytest.mark.book, pytest.mark.browser]
SIZES = {"desk": (1280, 900), "phone": (390, 844)}
PAGES = [*batch.sources(), "search", "genindex", "py-modindex"]


@pytest.fixture(scope="module")
def html(smoke_runs: Path) -> Path:
    return smoke_runs / "smoke" / "html"


@pytest.fixture(scope="module")
def homes(html: Path) -> Iterator[dict[str, str]]:
    with serving(html) as address:
        yield {"http": address, "file": f"{html.as_uri()}/"}


@pytest.fixture(scope="module")
def tabs(browser: Browser) -> Iterator[Callable[..., Page]]:
    """Give an empty page of a size and a colour scheme, which tests share."""

    @cache
    def made(size: str, scheme: str) -> Page:
        width, height = SIZES[size]
        page = browser.new_page(viewport={"width": width, "height": height}, color_scheme=scheme)
        page.set_default_timeout(20_000)
        return page

    def emptied(size: str = "desk", scheme: str = "light") -> Page:
        page = made(size, scheme)
        page.goto("about:blank")
        return page

    yield emptied
    for context in browser.contexts:
        context.close()


WORDS = ("introduction", "methods", "conclusion", "glossary", "references", "reproduce", "reliability", "genindex")
"""Pages of little but words, which few changes touch."""


@pytest.mark.parametrize("scheme", [pytest.param("http", marks=pytest.mark.thorough), "file"])
@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.thorough if name in WORDS else ()) for name in PAGES]
)
def test_a_page_loads_without_errors_asks_nobody_else_and_fits_a_phone(
    tabs: Callable[..., Page], homes: dict[str, str], name: str, scheme: str
) -> None:
    page = tabs("phone")
    wrong = watch(page, homes[scheme])
    page.goto(f"{homes[scheme]}{name}.html", wait_until="load")
    page.wait_for_timeout(200)
    without = page.eval_on_selector_all("img:not([alt]), canvas[role=img]:not([aria-label])", "all => all.length")
    assert without == 0
    empty = page.eval_on_selector_all("article img[alt='']", "all => all.map((image) => image.src)")
    assert empty == []
    assert page.evaluate("document.documentElement.scrollWidth") == SIZES["phone"][0]  # it scrolls down only
    assert wrong == []


@pytest.mark.parametrize(
    "name",
    [
        "explorer",
        "notebooks/02_preferred_stimuli",
        *(pytest.param(name, marks=pytest.mark.thorough) for name in ("index", "reference_run")),
    ],
)
def test_a_dark_page_leaves_pictures_as_they_are(tabs: Callable[..., Page], homes: dict[str, str], name: str) -> None:
    page = tabs(scheme="dark")
    page.goto(f"{homes['file']}{name}.html", wait_until="load")
    assert page.evaluate("document.documentElement.dataset.theme") == "dark"
    page.locator("article :is(img, canvas)").first.wait_for()
    filters = page.evaluate(
        "[...document.querySelectorAll('article :is(img, canvas)')].map((picture) => getComputedStyle(picture).filter)"
    )
    assert filters and set(filters) == {"none"}


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize(
    "name",
    [
        "notebooks/02_preferred_stimuli",
        *(pytest.param(name, marks=pytest.mark.thorough) for name in ("index", "reference_run")),
    ],
)
def test_figures_have_half_their_size_and_scroll_on_a_phone(
    tabs: Callable[..., Page], homes: dict[str, str], name: str, size: str
) -> None:
    """Half, so that a pixel of a picture covers equally many of the page everywhere, and type has one size."""
    page = tabs(size, "dark")
    page.goto(f"{homes['file']}{name}.html", wait_until="load")
    figures = page.locator(".cell_output figure img")
    drawn = "(image) => (image.clientWidth - 2 * parseFloat(getComputedStyle(image).paddingLeft)) / image.naturalWidth"
    assert set(figures.evaluate_all(f"all => all.map({drawn})")) == {0.5}
    scrolled = "(image) => { const to = image.closest('.rfviz-wide'); to.scrollLeft = 1000; return to.scrollLeft; }"
    assert (figures.first.evaluate(scrolled) > 0) == (size == "phone")


EVERY_KIND = ("index", "claims", "explorer", "notebooks/04_inactive_neurons")
"""Pages that have between them nearly everything that a page may have; the list of functions takes the checker long."""
assert set(EVERY_KIND) <= set(PAGES)


@pytest.mark.parametrize(
    ("name", "scheme"),
    [
        pytest.param(name, scheme, marks=() if scheme == "light" and name in EVERY_KIND else pytest.mark.thorough)
        for name in PAGES
        for scheme in ("light", "dark")
    ],
)
def test_nothing_serious_stands_in_the_way_of_anybody(
    tabs: Callable[..., Page], homes: dict[str, str], name: str, scheme: str
) -> None:
    if not AXE.exists():
        pytest.skip("axe-core is not installed: `make test` does it where there is npm")
    page = tabs("phone" if scheme == "dark" else "desk", scheme)
    page.goto(f"{homes['http']}{name}.html", wait_until="load")
    page.evaluate(AXE.read_text())
    found = page.evaluate("axe.run(document, { resultTypes: ['violations'] })")["violations"]
    serious = [(each["id"], each["nodes"][0]["html"]) for each in found if each["impact"] in ("serious", "critical")]
    assert serious == []


def test_the_checker_of_accessibility_finds_what_is_wrong(browser: Browser) -> None:
    if not AXE.exists():
        pytest.skip("axe-core is not installed: `make test` does it where there is npm")
    page = browser.new_page()
    page.set_content(
        "<html lang=en><title>t</title><main><img src='data:,'><p style='color:#ccc'>pale</p></main></html>"
    )
    page.evaluate(AXE.read_text())
    found = {each["id"] for each in page.evaluate("axe.run()")["violations"]}
    assert {"image-alt", "color-contrast"} <= found
    page.close()


@pytest.mark.parametrize("scheme", [pytest.param("http", marks=pytest.mark.thorough), "file"])
def test_the_search_finds_double_opponent(tabs: Callable[..., Page], homes: dict[str, str], scheme: str) -> None:
    page = tabs()
    page.goto(f"{homes[scheme]}search.html?q=double+opponent", wait_until="load")
    page.locator("#search-results li a", has_text="Introduction").first.wait_for()  # results come one by one


def test_the_field_in_the_sidebar_searches(tabs: Callable[..., Page], homes: dict[str, str]) -> None:
    page = tabs()
    page.goto(homes["http"])
    page.keyboard.press("Control+k")
    page.keyboard.type("double opponent")
    page.keyboard.press("Enter")
    page.wait_for_url("**/search.html?q=*")
    page.wait_for_selector("#search-results li a")


def test_code_is_one_click_away(tabs: Callable[..., Page], homes: dict[str, str]) -> None:
    page = tabs()
    page.goto(f"{homes['http']}notebooks/02_preferred_stimuli.html")
    code = page.get_by_text("page.preferred_stimuli(").first
    assert not code.is_visible()
    page.locator("details", has=code).first.locator("summary").first.click()
    assert code.is_visible()


def test_icons_are_there_without_the_second_copy_of_them(tabs: Callable[..., Page], homes: dict[str, str]) -> None:
    page = tabs()
    page.goto(homes["http"], wait_until="networkidle")
    assert "fontawesome.js" not in page.content()
    loaded = page.evaluate("[...document.fonts].filter((font) => font.status === 'loaded').map((font) => font.family)")
    assert any("Font Awesome" in family for family in loaded), loaded
    icon = page.locator("button.fullscreen-button i, .btn-fullscreen-button i").first
    assert "Font Awesome" in icon.evaluate("(icon) => getComputedStyle(icon, '::before').fontFamily")
    assert icon.bounding_box()["width"] > 5


def test_previews_say_what_the_book_is(html: Path) -> None:
    text = (html / "index.html").read_text()
    assert '<meta property="og:title"' in text
    assert re.search(r'<meta property="og:image:alt" content="[^"]{40,}"', text)
    with Image.open(html / "_static" / "preview.png") as preview:
        assert preview.width > 1000
        assert preview.width / preview.height == pytest.approx(1.91, abs=0.02)  # of a preview in social media


def test_a_page_of_the_explorer_is_light(browser: Browser, homes: dict[str, str]) -> None:
    """Less than a megabyte comes before the first picture, the theme and its fonts included."""
    page = browser.new_page()  # one of its own: nothing of it has been loaded before
    page.add_init_script(
        """new MutationObserver(() => {
             if (!window.first && document.querySelector('.rx-panel canvas')) window.first = performance.now();
           }).observe(document, { childList: true, subtree: true });"""
    )
    page.goto(f"{homes['http']}explorer.html", wait_until="networkidle")
    sizes = page.evaluate(
        """[...performance.getEntriesByType('navigation'), ...performance.getEntriesByType('resource')]
             .filter((entry) => entry.startTime < window.first)
             .map((entry) => [entry.name, entry.encodedBodySize])"""
    )
    total = sum(size for _, size in sizes)
    assert any("resnet34-maxpool.webp" in name for name, _ in sizes)
    assert 200_000 < total < 1_000_000, json.dumps(sizes, indent=1)
    page.close()


def test_every_model_has_a_table_without_javascript(browser: Browser, homes: dict[str, str]) -> None:
    context = browser.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto(f"{homes['http']}explorer.html")
    assert page.get_by_text("The explorer needs JavaScript.").is_visible()
    page.get_by_text("All numbers as a table").click()
    for name in presets.PRESETS["smoke"].networks:
        assert page.locator(f"tbody a[href='#{name}/layer1.2/19']").is_visible()
    context.close()
