"""The explorer used by mouse, keyboard and link, in the built book and in a live notebook."""

import base64
import contextlib
import io
import itertools
import json
import os
import re
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import nbformat
import numpy as np
import pytest
from browsing import serving, watch
from PIL import Image
from playwright.sync_api import Browser, Locator, Page, expect
from torch import nn

from rfviz import explore
from rfviz.explorer.atlas import FIRES
from rfviz.explorer.sources import RunSource
from rfviz.explorer.static import shelf
from rfviz.kernels.responses import levels
from rfviz.lab.run import Run


@pytest.fixture(scope="module")
def homes(smoke_runs: Path) -> Iterator[dict[str, str]]:
    html = smoke_runs / "smoke" / "html"
    with serving(html) as address:
        yield {"http": address, "file": f"{html.as_uri()}/"}


@pytest.fixture(scope="module")
def tabs(browser: Browser, homes: dict[str, str]) -> Iterator[dict[str, tuple[Page, list[str]]]]:
    """Of each home a page that all tests share, and a list of what goes wrong on it."""
    context, found = browser.new_context(), {}
    for scheme, home in homes.items():
        tab = context.new_page()
        tab.set_default_timeout(10_000)
        tab.home = home
        found[scheme] = tab, watch(tab, home)
    yield found
    context.close()


@contextlib.contextmanager
def emptied(tab: Page, wrong: list[str]) -> Iterator[Page]:
    """Give a page in which nothing is open (see `go`), with what goes wrong counted at the end."""
    tab.goto("about:blank")
    tab.unroute_all()
    tab.set_viewport_size({"width": 1400, "height": 1000})
    wrong.clear()
    yield tab
    assert wrong == []


@pytest.fixture(params=[pytest.param("http", marks=pytest.mark.thorough), "file"])
def page(request: pytest.FixtureRequest, tabs: dict[str, tuple[Page, list[str]]]) -> Iterator[Page]:
    """A page of the book, from a server or from a folder."""
    with emptied(*tabs[request.param]) as opened:
        yield opened


@pytest.fixture
def served(tabs: dict[str, tuple[Page, list[str]]]) -> Iterator[Page]:
    """A page of the book from a server, for tests that change what it says or read pixels."""
    with emptied(*tabs["http"]) as opened:
        yield opened


def go(page: Page, state: str = "") -> None:
    page.goto("about:blank")  # else only the part behind the # would change
    page.goto(f"{page.home}explorer.html{'#' if state else ''}{state}")
    shown(page)


def shown(page: Page, title: str | None = None, side: int = 0) -> Locator:
    """Wait until a panel shows a channel, by its title, and return it."""
    panel = page.locator(".rx-panel").nth(side)
    if title is not None:
        expect(panel.locator("h3")).to_have_text(title)
    panel.locator(".rx-large canvas, .rx-view .rx-none").wait_for()
    return panel


def state(page: Page) -> str:
    return page.evaluate("location.hash.slice(1)")


def pixels(canvas: Locator) -> np.ndarray:
    """Read the pixels of a canvas, RGB `(H, W, 3)`; only of pages that are served."""
    png = canvas.evaluate("(canvas) => canvas.toDataURL('image/png').split(',')[1]")
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(png))).convert("RGB"))


def tiles(page: Page) -> list[int]:
    return page.eval_on_selector_all(".rx-tile", "all => all.map((tile) => Number(tile.dataset.channel))")


def test_it_begins_with_the_papers_channel(page: Page) -> None:
    go(page)
    panel = shown(page, "ResNet34, first pooling layer, channel 18")
    kinds = panel.locator("[data-picture]").evaluate_all("all => all.map((each) => each.dataset.picture)")
    assert kinds == [
        "filter", "mean", "stretched", "strongest", "luminance", "l-m", "s", "maximization", "clear", "stimulus",
        "where",
    ]  # fmt: skip
    for canvas in panel.locator("[role=img]").all():
        assert len(canvas.get_attribute("aria-label")) > 20


SCALES = """() => [
  ...document.querySelectorAll(".rfviz-explorer canvas:not(.rx-place, [data-picture=where] canvas)"),
].map((canvas) => {
  const { width, height } = canvas.getBoundingClientRect();
  return [width / canvas.width, height / canvas.height];
})"""


@pytest.mark.parametrize(
    ("width", "layer"),
    [
        (390, "layer1.2"),
        *(pytest.param(*each, marks=pytest.mark.thorough) for each in (
            (1400, "maxpool"), (1400, "layer1.0"), (1400, "layer1.2"), (390, "maxpool"), (390, "layer1.0")
        )),
    ],
)  # fmt: skip
def test_all_pixels_of_a_picture_are_equally_large(page: Page, layer: str, width: int) -> None:
    page.set_viewport_size({"width": width, "height": 900})
    go(page, f"resnet34/{layer}/18&with=plainnet34/18")
    shown(page, side=1)
    scales = page.evaluate(SCALES)
    assert len(scales) > 50
    for across, down in scales:
        assert across == down >= 1 and across == int(across)
    assert page.evaluate("document.documentElement.scrollWidth") == width


def test_only_what_is_wrong_has_a_dashed_border(page: Page) -> None:
    go(page)
    fields = page.locator(".rfviz-explorer :is(select, input[type=number])")
    dashed = "all => all.filter((field) => getComputedStyle(field).borderStyle === 'dashed').map(({ value }) => value)"
    assert fields.count() > 5 and fields.evaluate_all(dashed) == []
    page.get_by_label("Channel", exact=True).fill("99")
    assert fields.evaluate_all(dashed) == ["99"]


def test_a_click_shows_another_channel(page: Page) -> None:
    go(page)
    page.locator(".rx-tile[data-channel='3']").click()
    shown(page, "ResNet34, first pooling layer, channel 3")
    assert state(page) == "resnet34/maxpool/3"
    expect(page.get_by_role("status")).to_contain_text("channel 3: ")
    expect(page.locator(".rx-tile[aria-selected=true]")).to_have_attribute("data-channel", "3")


def test_menus_and_the_number(page: Page) -> None:
    go(page)
    page.get_by_label("Network").select_option("plainnet34")
    page.get_by_label("Layer", exact=True).select_option("layer1.1")
    page.get_by_label("Channel", exact=True).fill("7")
    shown(page, "PlainNet34, conv. layer 5, channel 7")
    assert state(page) == "plainnet34/layer1.1/7"
    page.get_by_label("Channel", exact=True).fill("99")  # there is none: nothing changes
    page.get_by_label("Channel", exact=True).blur()
    expect(page.get_by_label("Channel", exact=True)).to_have_value("7")
    assert state(page) == "plainnet34/layer1.1/7"
    for wrong in ("99", "7.5", "-1"):
        page.get_by_label("Channel", exact=True).fill(wrong)
        expect(page.get_by_role("status")).to_have_text(
            f"There is no channel {wrong}: this layer has channels 0 to 19."
        )
        expect(page.get_by_label("Channel", exact=True)).to_have_attribute("aria-invalid", "true")
        assert state(page) == "plainnet34/layer1.1/7"
    page.get_by_label("Channel", exact=True).blur()
    expect(page.get_by_label("Channel", exact=True)).to_have_value("7")
    expect(page.get_by_label("Channel", exact=True)).to_have_attribute("aria-invalid", "false")


@pytest.mark.thorough
def test_layer_before_and_after_keep_the_channel(page: Page) -> None:
    go(page)
    before, after = page.get_by_role("button", name="Layer before"), page.get_by_role("button", name="Layer after")
    expect(before).to_be_disabled()
    for number in (3, 5, 7, 15, 27, 33):
        after.click()
        shown(page, f"ResNet34, conv. layer {number}, channel 18")
    expect(after).to_be_disabled()
    before.click()
    shown(page, "ResNet34, conv. layer 27, channel 18")


def test_the_keyboard_is_enough(page: Page) -> None:
    go(page)
    page.locator(".rx-tile[aria-selected=true]").focus()
    order = tiles(page)
    moves = [("Home", 0), ("ArrowRight", 1), ("ArrowRight", 2), ("ArrowLeft", 1), ("End", 19), ("ArrowRight", 19)]
    for key, place in moves:
        channel = order[place]
        page.keyboard.press(key)
        shown(page, f"ResNet34, first pooling layer, channel {channel}")
        expect(page.locator(":focus")).to_have_attribute("data-channel", str(channel))
    across = page.evaluate(
        "(() => { const all = [...document.querySelectorAll('.rx-tile')];"
        " return all.filter((tile) => tile.offsetTop === all[0].offsetTop).length; })()"
    )
    assert across == 3
    page.keyboard.press("Home")
    page.keyboard.press("ArrowDown")
    expect(page.locator(":focus")).to_have_attribute("data-channel", str(order[across]))
    page.keyboard.press("Home")
    page.keyboard.press("PageDown")
    shown(page, "ResNet34, conv. layer 3, channel 0")
    expect(page.locator(":focus")).to_have_attribute("data-channel", "0")
    page.keyboard.press("PageUp")
    shown(page, "ResNet34, first pooling layer, channel 0")
    outline = page.locator(":focus").evaluate("(tile) => getComputedStyle(tile).outlineStyle")
    assert outline == "solid"


@pytest.mark.thorough
def test_every_control_can_be_reached_by_tab(page: Page) -> None:
    go(page)
    page.get_by_label("Network").focus()
    reached = set()
    for _ in range(80):
        page.keyboard.press("Tab")
        reached.add(
            page.evaluate(
                "(document.activeElement.getAttribute('aria-label') ?? document.activeElement.textContent).slice(0, 90)"
            )
        )
    assert {"Random", "Copy link", "Layer after", "Turn the order round"} <= reached
    assert any("strongest" in name for name in reached)


def grouped(channels: list[int], facts: list[dict]) -> list[int]:
    """The order of the list: silent channels after the others."""
    silent = [
        i for i in channels if not (facts[i]["fires"] if facts[i]["inactive"] is None else not facts[i]["inactive"])
    ]
    return [i for i in channels if i not in silent] + silent


@pytest.mark.parametrize("every", [4, pytest.param(1, marks=pytest.mark.thorough)])
def test_sorting_by_any_statistic(page: Page, smoke: Run, every: int) -> None:
    go(page, "resnet34/layer1.2/0")
    channels = RunSource(smoke).drawn("resnet34", "layer1.2").facts["channels"]
    for statistic in RunSource(smoke).manifest()["statistics"][::every]:
        values = [channel["statistics"][statistic["key"]] for channel in channels]
        page.get_by_label("Sort by").select_option(statistic["key"])
        for order, sign in (("down", -1), ("up", 1)):  # the most comes first
            assert f"sort={statistic['key']}{'&order=down' if order == 'down' else ''}" in state(page)
            known = sorted((i for i in range(20) if values[i] is not None), key=lambda i: (sign * values[i], i))
            assert tiles(page) == grouped(known + [i for i in range(20) if values[i] is None], channels)
            assert statistic["explanation"] in page.locator(".rx-finder .rx-note").first.text_content()
            page.get_by_role("button", name="Turn the order round").click()


@pytest.mark.thorough
def test_only_what_was_measured_is_offered(page: Page) -> None:
    go(page)
    offered = page.get_by_label("Sort by").locator("option")
    names = offered.evaluate_all("all => all.map((option) => option.value)")
    assert {"orientation", "colour", "agreement", "removal"} <= {*names} and "wrote" not in names
    go(page, "resnet34/layer3.5/0&sort=orientation")
    names = offered.evaluate_all("all => all.map((option) => option.value)")
    assert names == ["channel", "maximum", "mean", "firing_rate", "peak"]
    expect(page.get_by_label("Sort by")).to_have_value("channel")


def test_filters(page: Page, smoke: Run) -> None:
    go(page, "plainnet34/layer1.2/0&sort=firing_rate&order=down")
    channels = RunSource(smoke).drawn("plainnet34", "layer1.2").facts["channels"]
    rates = [channel["statistics"]["firing_rate"] for channel in channels]
    limit = sorted(rates)[10]
    show = page.get_by_label("Show", exact=True)
    expect(page.get_by_label("Limit: neurons that fire (%)")).to_be_hidden()
    show.select_option("least")
    page.get_by_label("Limit").fill(str(limit))
    assert sorted(tiles(page)) == [i for i in range(20) if rates[i] >= limit]
    show.select_option("most")
    assert sorted(tiles(page)) == [i for i in range(20) if rates[i] <= limit]
    assert state(page) == f"plainnet34/layer1.2/0&sort=firing_rate&order=down&only=most&limit={limit}"
    page.reload()
    shown(page)
    assert sorted(tiles(page)) == [i for i in range(20) if rates[i] <= limit]
    silent = [i for i, channel in enumerate(channels) if not channel["fires"]]
    expect(show).to_contain_text(f"those that never fire ({len(silent) or 'none'})")
    expect(show).to_contain_text(f"those that fire ({20 - len(silent)})")
    show.select_option("inactive")
    assert sorted(tiles(page)) == silent
    if not silent:
        expect(page.get_by_text("No channel is like that.")).to_be_visible()
    show.select_option("active")
    assert sorted(tiles(page)) == [i for i in range(20) if i not in silent]


@pytest.mark.thorough
def test_random_stays_within_the_filter(page: Page, smoke: Run) -> None:
    rates = [c["statistics"]["maximum"] for c in RunSource(smoke).drawn("resnet34", "maxpool").facts["channels"]]
    limit = sorted(rates)[-4]
    go(page, f"resnet34/maxpool/0&sort=maximum&only=least&limit={limit}")
    chosen = set()
    for _ in range(12):
        page.get_by_role("button", name="Random").click()
        chosen.add(int(re.match(r"resnet34/maxpool/(\d+)", state(page))[1]))
    assert chosen <= {i for i in range(20) if rates[i] >= limit}
    assert len(chosen) > 1


def test_a_link_leads_to_exactly_the_same_view(page: Page) -> None:
    link = "plainnet34/layer1.0/19&with=resnet34/18,resnet34-random/3&sort=peak&order=down"
    link += "&picture=maximization&view=luminance&stimulus=2"
    go(page, link)
    shown(page, "PlainNet34, conv. layer 3, channel 19")
    shown(page, "ResNet34, conv. layer 3, channel 18", side=1)
    assert state(page) == link
    expect(page.get_by_label("Sort by")).to_have_value("peak")
    shown(page, "ResNet34, random weights, conv. layer 3, channel 3", side=2)
    expect(page.get_by_label("Picture", exact=True)).to_have_value("maximization")
    first = page.locator(".rx-panel").first
    expect(first.locator(".rx-stimuli [aria-pressed=true]")).to_have_attribute(
        "aria-label", re.compile("3rd strongest")
    )
    expect(first.locator("[data-picture][aria-pressed=true]")).to_have_attribute("data-picture", "luminance")
    page.evaluate("location.hash = 'resnet34/layer1.2/5'")  # as the browser's own buttons do
    shown(page, "ResNet34, conv. layer 7, channel 5")


@pytest.mark.parametrize(
    "link",
    [
        "resnet99/layer7/4000",
        "resnet34/maxpool/3&view=constructor&picture=none",
        *(
            pytest.param(each, marks=pytest.mark.thorough)
            for each in (
                "resnet34/layer1.0/-1",
                "&&&=",
                "resnet34/maxpool/3&with=resnet34/4",
                "resnet34/maxpool/1.5",
                "a/b/c&with=x/9&sort=no",
                "resnet34/maxpool/3&stimulus=1.5",
                "resnet34/maxpool/3&stimulus=999",
                "resnet34/maxpool/3&only=least&limit=abc",
                "how-to-read-it",
            )
        ),
    ],
)
def test_a_wrong_link_shows_something_right(page: Page, link: str) -> None:
    go(page, link)
    expect(page.locator(".rx-tile")).to_have_count(20)
    expect(page.locator(".rx-panel")).to_have_count(1)
    assert re.match(
        r"ResNet34, (first pooling layer|conv. layer 3), channel \d+$", shown(page).locator("h3").text_content()
    )


@pytest.mark.thorough
def test_the_address_names_what_is_shown_from_the_start(page: Page) -> None:
    go(page)
    assert state(page) == "resnet34/maxpool/18"
    go(page, "resnet34/layer9/400")
    assert state(page) == "resnet34/maxpool/0"
    expect(page.get_by_role("status")).to_contain_text("The address names something that is not here. ResNet34, first")


def test_an_address_that_is_typed_over_says_what_is_not_there(page: Page) -> None:
    go(page, "resnet34/maxpool/0")
    page.evaluate("location.hash = '#resnet34/maxpool/999'")
    shown(page, "ResNet34, first pooling layer, channel 0")
    expect(page.get_by_role("status")).to_contain_text("The address names something that is not here.")


def test_stimuli_of_a_folder_are_told_by_the_names_of_their_files(browser: Browser, tmp_path: Path) -> None:
    name = '<img src=x onerror=alert(1)> & "quoted".png'
    (tmp_path / "photographs").mkdir()
    noise = np.random.default_rng(0).integers(0, 256, (32, 32, 3), dtype=np.uint8)
    Image.fromarray(noise).save(tmp_path / "photographs" / name)
    net = nn.Sequential(nn.Conv2d(3, 2, 3), nn.ReLU())
    nn.init.constant_(net[0].bias, 1)
    explore({"mine": net}, tmp_path / "photographs", ["1"], size=32, steps=2).save(tmp_path / "page")
    page = browser.new_page()
    wrong = watch(page, tmp_path.as_uri())
    page.goto(f"{(tmp_path / 'page' / 'index.html').as_uri()}#mine/1/0&view=where")
    expect(page.locator(".rx-told")).to_contain_text(f" of {name} (32 × 32 px)")
    assert wrong == []
    page.close()


@pytest.mark.thorough
def test_the_browsers_own_button_leads_back(page: Page) -> None:
    go(page)
    for channel in (3, 5):
        page.wait_for_timeout(900)
        page.locator(f".rx-tile[data-channel='{channel}']").click()
        shown(page, f"ResNet34, first pooling layer, channel {channel}")
    page.go_back()
    shown(page, "ResNet34, first pooling layer, channel 3")
    page.go_back()
    shown(page, "ResNet34, first pooling layer, channel 18")


def test_a_channel_that_never_fires_has_a_page_too(page: Page, smoke: Run) -> None:
    silent = [
        f"{row['model']}/{row['key']}/{channel}"
        for row in RunSource(smoke).manifest()["layers"][:7]
        for channel, said in enumerate(RunSource(smoke).drawn(row["model"], row["key"]).facts["channels"])
        if not said["fires"]
    ]
    for view in silent[:5]:
        go(page, view)
        panel = shown(page)
        expect(panel).to_contain_text("never fires")
        assert not re.search(r"\b(null|undefined|NaN)\b", panel.text_content())


def test_a_channel_that_never_fires_where_only_photographs_are_shown(served: Page) -> None:
    """Planted, as it depends on the processor whether a trained network has one."""
    page = served
    silent = 'rfvizExplorer.data["resnet34/layer4.2"].channels[3]'
    page.route(
        "**/resnet34-layer4.2.js",
        lambda route: route.fulfill(
            body=f"{route.fetch().text()}Object.assign({silent}, {{ fires: false, stimuli: [], nearest: [] }});"
        ),
    )
    go(page, "resnet34/layer4.2/3")
    panel = shown(page, "ResNet34, conv. layer 33, channel 3")
    for said in ("never fires", "There is no picture of it", "It has no preferred stimuli"):
        expect(panel).to_contain_text(said)
    page.get_by_label("Put beside it").select_option("plainnet34")
    shown(page, side=1)
    page.locator(".rx-tile[data-channel='2']").click()
    shown(page, "ResNet34, conv. layer 33, channel 2").locator(".rx-large canvas").wait_for()


@pytest.mark.thorough
def test_other_links_of_the_page_leave_the_view_alone(page: Page) -> None:
    go(page, "plainnet34/layer1.2/19&sort=peak")
    for link in ("#main-content", "#how-to-read-it"):
        page.evaluate("(link) => { location.hash = link; }", link)
        page.wait_for_timeout(50)
        shown(page, "PlainNet34, conv. layer 7, channel 19")
        expect(page.get_by_label("Sort by")).to_have_value("peak")


def test_a_number_in_the_table_leads_to_its_channel(page: Page) -> None:
    go(page)
    page.get_by_text("All numbers as a table").click()
    page.locator("tbody a[href='#plainnet34/layer1.1/7']").click()
    heading = shown(page, "PlainNet34, conv. layer 5, channel 7").locator("h3")
    expect(heading).to_be_focused()
    assert page.locator(".rfviz-explorer").bounding_box()["y"] > -50


def test_the_focus_stays_where_the_reader_is(page: Page) -> None:
    """While a layer is on its way, and where a button has nothing more to do."""
    go(page)
    page.route("**/plainnet34-layer1.0.js", lambda route: (page.wait_for_timeout(300), route.continue_()))
    page.get_by_label("Network").select_option("plainnet34")
    shown(page, "PlainNet34, first pooling layer, channel 18")
    page.locator(".rx-tile[aria-selected=true]").focus()
    page.keyboard.press("PageDown")
    shown(page, "PlainNet34, conv. layer 3, channel 18")
    expect(page.locator(".rx-tile[data-channel='18']")).to_be_focused()
    after = page.get_by_role("button", name="Layer after")
    after.focus()
    for _ in range(7):
        page.keyboard.press("Enter")
    shown(page, "PlainNet34, conv. layer 33, channel 18")
    expect(after).to_be_focused()
    page.locator(".rx-tile[aria-selected=true]").focus()
    page.keyboard.press("Alt+ArrowRight")  # the browser's own
    shown(page, "PlainNet34, conv. layer 33, channel 18")


@pytest.mark.thorough
def test_the_list_keeps_the_focus_when_pictures_of_silent_channels_come(served: Page) -> None:
    """They are of another layer, which may be a while on its way."""
    page = served
    page.route("**/imagenet-resnet18-layer1.1.js", lambda route: (page.wait_for_timeout(700), route.continue_()))
    go(page, "imagenet-resnet18/maxpool/0")
    page.locator(".rx-tile[aria-selected=true]").focus()
    expect(page.get_by_role("group", name="silent: 8, shown as in conv. layer 5")).to_be_visible()
    expect(page.locator(":focus")).to_have_attribute("data-channel", "0")
    page.keyboard.press("ArrowRight")
    shown(page, "ResNet18, trained on ImageNet, first pooling layer, channel 1")


def test_copy_link(page: Page) -> None:
    go(page)
    page.get_by_role("button", name="Copy link").click()
    expect(page.get_by_role("status")).to_contain_text(page.evaluate("location.href"))


def test_side_by_side(page: Page) -> None:
    go(page)
    beside = page.get_by_label("Put beside it")
    beside.select_option("plainnet34")
    shown(page, "PlainNet34, first pooling layer, channel 18", side=1)
    field = page.get_by_label("Channel of PlainNet34")
    field.fill("19")
    field.press("Enter")
    shown(page, "PlainNet34, first pooling layer, channel 19", side=1)
    assert state(page) == "resnet34/maxpool/18&with=plainnet34/19"
    beside.select_option("resnet34-random")
    shown(page, "ResNet34, random weights, first pooling layer, channel 18", side=2)
    for width in (1400, 390):
        page.set_viewport_size({"width": width, "height": 900})
        boxes = [page.locator(".rx-panel").nth(i).bounding_box() for i in range(3)]
        for left, right in itertools.pairwise(boxes):
            assert left["y"] == right["y"] and right["x"] > left["x"] + left["width"]
        assert page.evaluate("document.documentElement.scrollWidth") == width
    page.get_by_role("button", name="Layer after").click()
    shown(page, "PlainNet34, conv. layer 3, channel 19", side=1)
    page.get_by_label("Network").select_option("plainnet34")  # the two change places, and both keep their channels
    shown(page, "PlainNet34, conv. layer 3, channel 19")
    shown(page, "ResNet34, conv. layer 3, channel 18", side=1)
    page.get_by_role("button", name="Take ResNet34 away").click()
    page.get_by_role("button", name="Take ResNet34, random weights away").click()
    expect(page.locator(".rx-panel")).to_have_count(1)
    assert state(page) == "plainnet34/layer1.0/19"


def test_beside_a_network_is_the_layer_most_like_it(page: Page) -> None:
    """ResNet18's first stage ends with another block."""
    go(page, "resnet34/layer1.2/18&with=imagenet-resnet18/7,reference-plainnet34/63")
    shown(page, "ResNet18, trained on ImageNet, conv. layer 5, channel 7", side=1)
    shown(page, "PlainNet34, trained on Caltech-101, conv. layer 7, channel 63", side=2)


def test_networks_without_photographs(page: Page) -> None:
    go(page, "imagenet-resnet18/maxpool/7")
    panel = shown(page, "ResNet18, trained on ImageNet, first pooling layer, channel 7")
    expect(panel).to_contain_text("No photograph of these networks is kept")
    expect(panel).to_contain_text("inactive")
    expect(panel.locator(".rx-held")).to_contain_text("in conv. layer 5 the same channel fires at")
    panel.locator(".rx-held button").click()
    panel = shown(page, "ResNet18, trained on ImageNet, conv. layer 5, channel 7")
    kinds = panel.locator("[data-picture]").evaluate_all("all => all.map((each) => each.dataset.picture)")
    assert kinds == ["filter", "stretched", "strongest", "clear"]
    assert not re.search(r"\b(null|undefined|NaN)\b", page.locator(".rfviz-explorer").text_content())


def test_silent_channels_stand_by_themselves(page: Page) -> None:
    """With what they hold in the last layer of the stage."""
    go(page, "imagenet-resnet18/maxpool/0")
    group = page.get_by_role("group", name="silent: 8, shown as in conv. layer 5")
    silent = [2, 4, 7, 9, 13, 36, 38, 48]
    expect(group.locator(".rx-tile")).to_have_count(len(silent))  # their pictures are of another layer
    assert group.locator(".rx-tile").evaluate_all("all => all.map((tile) => Number(tile.dataset.channel))") == silent
    assert group.locator(".rx-tile").first.get_attribute("aria-label") == "channel 2, inactive"
    fire = page.get_by_role("group", name="fire: 56").locator(".rx-tile")
    assert fire.count() == 56


def test_where_a_channel_fires(served: Page, smoke: Run) -> None:
    """Colour lies over the photograph where the responses are."""
    page = served
    go(page, "resnet34/layer1.0/18&view=where")
    facts = RunSource(smoke).drawn("resnet34", "layer1.0").facts
    _, place, *_, width, height = facts["channels"][18]["stimuli"][0]
    heat = page.get_by_role("checkbox", name="where the channel fires")
    expect(heat).to_be_checked()
    page.wait_for_timeout(300)
    with_heat = pixels(page.locator(".rx-place")).astype(float)
    heat.uncheck()
    page.wait_for_timeout(300)
    without = pixels(page.locator(".rx-place")).astype(float)
    side = facts["sources"][place]["height"]
    fires = levels.maps(
        smoke.net("resnet34"), smoke.stimuli, "layer1.0", {facts["sources"][place]["image"]: [18]},
        preprocess=smoke.whitening("resnet34"),
    )[facts["sources"][place]["image"], 18]  # fmt: skip
    assert fires.shape == (height, width)
    # Behind the veil a pixel is 0.55 of what it was and 0.45 white; colour takes as much of that away as it fires.
    veiled = 0.55 * without + 0.45 * 255
    colour = np.array(FIRES, float)
    taken = ((veiled - with_heat) * (veiled - colour)).sum(2) / np.square(veiled - colour).sum(2)
    corner = facts["field"]["start"] + (27 - 4) / 2
    scale = with_heat.shape[0] / side
    rows = [int((corner + 4 * (i + 0.5)) * scale) for i in range(height)]
    inside = [i for i, row in enumerate(rows) if 8 < row < with_heat.shape[0] - 8]
    seen = np.array([[taken[rows[i], rows[j]] for j in inside] for i in inside])
    expected = fires.numpy()[np.ix_(inside, inside)]
    assert np.corrcoef(seen.ravel(), expected.ravel())[0, 1] > 0.98


@pytest.mark.thorough
def test_a_larger_picture(page: Page) -> None:
    go(page)
    large = page.locator(".rx-large canvas")
    before = large.bounding_box()["width"]
    page.get_by_role("button", name="Larger").click()
    assert large.bounding_box()["width"] == 2 * before
    expect(page.get_by_role("button", name="Larger")).to_be_focused()
    page.get_by_role("button", name="Smaller").click()
    assert large.bounding_box()["width"] == before


def test_a_picture_is_chosen(page: Page) -> None:
    go(page)
    page.locator("[data-picture=l-m]").click()
    expect(page.locator(".rx-large figcaption")).to_contain_text("light is towards red, dark towards green")
    expect(page.locator("[data-picture=l-m]")).to_be_focused()
    assert state(page) == "resnet34/maxpool/18&view=l-m"
    page.locator("[data-picture=maximization]").click()
    expect(page.locator(".rx-view .rx-chart")).to_have_attribute("aria-label", re.compile("activation before the ReLU"))


@pytest.mark.thorough
def test_a_channel_lies_before_the_reader_without_scrolling(page: Page) -> None:
    page.set_viewport_size({"width": 1280, "height": 800})
    for address in ("", "resnet34/layer1.2/18"):
        go(page, address)
        page.wait_for_timeout(300)
        for part in (".rx-tile[aria-selected=true]", ".rx-large canvas", ".rx-stimuli button >> nth=0"):
            box = page.locator(part).first.bounding_box()
            assert box["y"] > 0 and box["y"] + box["height"] < 800, (address, part)


@pytest.mark.thorough
def test_on_a_phone_what_was_picked_comes_into_view(page: Page) -> None:
    page.set_viewport_size({"width": 390, "height": 700})
    go(page)
    page.locator(".rx-tile[data-channel='3']").click()
    shown(page, "ResNet34, first pooling layer, channel 3")
    assert page.locator(".rx-panel h3").bounding_box()["y"] < 500
    assert page.get_by_role("status").bounding_box()["width"] > 200
    for menu in page.locator(".rx-bar select").all():
        assert menu.bounding_box()["width"] > 110


def test_where_a_stimulus_was(page: Page, smoke: Run) -> None:
    go(page, "resnet34/layer1.0/18")
    facts = RunSource(smoke).drawn("resnet34", "layer1.0").facts
    stimuli = facts["channels"][18]["stimuli"]
    buttons = page.locator(".rx-stimuli .rx-strip button")
    expect(buttons).to_have_count(len(stimuli))
    buttons.nth(4).click()
    value, place, top, left, bottom, right = stimuli[4][:6]
    source = facts["sources"][place]
    words = page.locator(".rx-told")
    expect(words).to_contain_text(f"5th strongest: response {float(f'{value:.3g}'):g}")
    expect(words).to_contain_text(
        f"rows {top} to {bottom - 1}, columns {left} to {right - 1} of image {source['image']} ("
    )
    expect(words).to_contain_text(f"class: {source['class']}")
    assert state(page) == "resnet34/layer1.0/18&view=where&stimulus=4"
    expect(buttons.nth(4)).to_be_focused()
    weak = [i for i, stimulus in enumerate(stimuli) if stimulus[6] >= facts["ranges"][2]["first"]]
    buttons.nth(weak[0]).click()
    expect(words).to_contain_text(f"Near a tenth of it: response {float(f'{stimuli[weak[0]][0]:.3g}'):g}")


def test_nearest_channels_and_other_layers_are_links(page: Page, smoke: Run) -> None:
    go(page, "resnet34/layer1.0/18")
    nearest = RunSource(smoke).drawn("resnet34", "layer1.0").facts["channels"][18]["nearest"]
    section = page.locator("div", has=page.get_by_role("heading", name="Nearest channels")).last
    section.get_by_role("button").first.click()
    shown(page, f"ResNet34, conv. layer 3, channel {nearest[0][0]}")
    layers = page.locator("div", has=page.get_by_role("heading", name="from layer to layer")).last
    expect(layers.get_by_role("button")).to_have_count(4)
    expect(layers.locator("[aria-current=true]")).to_contain_text("conv. layer 3")
    layers.get_by_role("button").nth(3).click()
    shown(page, f"ResNet34, conv. layer 7, channel {nearest[0][0]}")
    expect(page.locator("h3:focus")).to_have_count(1)


def test_a_click_shows_its_picture_within_a_tenth_of_a_second(page: Page) -> None:
    """Not how fast this machine is, but that nothing is waited for: everything happens within the click itself."""
    go(page)
    before = page.locator(".rx-panel h3").text_content()
    at_once = page.evaluate(
        """() => {
             document.querySelector(".rx-tile[data-channel='5']").click();
             const panel = document.querySelector(".rx-panel");
             return [panel.querySelector("h3").textContent, panel.querySelectorAll("[data-picture] canvas").length];
           }"""
    )
    assert at_once == ["ResNet34, first pooling layer, channel 5", 11] != before


@pytest.mark.thorough
def test_pictures_are_those_of_the_atlas(served: Page, smoke: Run) -> None:
    page = served
    for model, layer in (("resnet34", "maxpool"), ("plainnet34", "layer1.0"), ("imagenet-resnet18", "layer1.1")):
        drawn = shelf(smoke).drawn(model, layer)
        cells, stimuli = (np.asarray(Image.open(io.BytesIO(sheet))) for sheet in drawn[:2])
        side = drawn.facts["cell"]
        for channel in (0, 19):
            go(page, f"{model}/{layer}/{channel}")
            page.wait_for_timeout(300)
            top = channel * side
            for column, each in enumerate(drawn.facts["columns"]):
                canvas = page.locator(f".rx-panel [data-picture='{each['key']}'] canvas")
                if canvas.count():
                    left, size = column * side, each["size"]
                    np.testing.assert_array_equal(pixels(canvas), cells[top : top + size, left : left + size])
            for number, stimulus in enumerate(drawn.facts["channels"][channel]["stimuli"]):
                left = stimulus[6] * side
                canvas = page.locator(".rx-stimuli .rx-strip canvas").nth(number)
                np.testing.assert_array_equal(pixels(canvas), stimuli[top : top + side, left : left + side])


def test_data_that_is_missing_is_said(browser: Browser, homes: dict[str, str]) -> None:
    page = browser.new_page()  # one of its own: what it asks for fails
    page.home = homes["http"]
    page.route("**/resnet34-layer1.2.js", lambda route: route.abort())
    page.goto(f"{homes['http']}explorer.html#resnet34/layer1.2/3")
    expect(page.locator(".rx-panel")).to_contain_text("resnet34-layer1.2.js could not be read")
    page.get_by_label("Layer", exact=True).select_option("maxpool")
    shown(page, "ResNet34, first pooling layer, channel 3")
    page.unroute("**/resnet34-layer1.2.js")
    page.get_by_label("Layer", exact=True).select_option("layer1.2")  # it is asked for again
    shown(page, "ResNet34, conv. layer 7, channel 3")
    page.close()


def test_an_image_that_cannot_be_read_is_said(browser: Browser, homes: dict[str, str]) -> None:
    page = browser.new_page()  # one of its own: what it asks for fails
    errors = []
    page.on("pageerror", lambda error: errors.append(error))
    page.route("**/resnet34-maxpool-sources.webp", lambda route: route.abort())
    page.goto(f"{homes['http']}explorer.html#resnet34/maxpool/3&view=where")
    expect(page.get_by_role("status")).to_have_text("The image it was in could not be read.")
    page.unroute("**/resnet34-maxpool-sources.webp")
    page.locator(".rx-stimuli .rx-strip button").nth(1).click()
    for _ in range(2):
        expect(page.get_by_role("status")).to_contain_text("2nd strongest")
        page.wait_for_timeout(300)
    assert errors == []
    page.close()


# ---------------------------------------------------------------- live

CELLS = {
    "run": """from rfviz import Explorer, open_run
Explorer.of_run(open_run("smoke"), "plainnet34/layer1.0/19")""",
    "net": """import torch
from rfviz.nets import models
from rfviz.images import photographs
from rfviz.images.data import Evaluation
from rfviz.explorer import Explorer
torch.manual_seed(0)
images = Evaluation(photographs.load(64, classes=2).evaluation)
nets = {"mine": models.resnet34(6, 2).eval(), "plain": models.plainnet34(6, 2).eval()}
Explorer(nets, images, ["bn1", "maxpool"], steps=2)""",
}


@pytest.fixture(scope="module")
def lab(smoke_runs: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """JupyterLab with one notebook per cell above; the address, without the notebook's name."""
    folder = tmp_path_factory.mktemp("lab")
    kernel = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
    for name, source in CELLS.items():
        notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(source)], metadata=kernel)
        nbformat.write(notebook, folder / f"{name}.ipynb")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    settings = [
        "--no-browser", "--allow-root", "--ip=127.0.0.1", f"--port={port}", f"--ServerApp.root_dir={folder}",
        "--IdentityProvider.token=", "--LabApp.news_url=", "--LabApp.expose_app_in_browser=True",
        "--LabApp.check_for_updates_class=jupyterlab.NeverCheckForUpdate",
    ]  # fmt: skip
    environment = os.environ | {
        "RFVIZ_RUNS": str(smoke_runs), "JUPYTER_CONFIG_DIR": str(folder / ".config"),
        "IPYTHONDIR": str(folder / ".ipython"), "JUPYTER_RUNTIME_DIR": str(folder / ".runtime"), "OMP_NUM_THREADS": "1",
    }  # fmt: skip
    log = folder / "lab.log"
    with log.open("w") as output:
        server = subprocess.Popen(
            [sys.executable, "-m", "jupyterlab", *settings], stdout=output, stderr=output, cwd=folder, env=environment
        )
    try:
        address = f"http://127.0.0.1:{port}/"
        for _ in range(300):
            with contextlib.suppress(OSError):
                urllib.request.urlopen(f"{address}api", timeout=1)  # noqa: S310  # our own server
                break
            assert server.poll() is None, log.read_text()
            time.sleep(0.2)
        yield f"{address}doc/tree/"
    finally:
        server.terminate()
        server.wait()


@contextlib.contextmanager
def live(browser: Browser, lab: str, name: str) -> Iterator[Page]:
    """Open a notebook, run its cell and wait for the explorer."""
    page = browser.new_page(viewport={"width": 1400, "height": 1000})
    page.set_default_timeout(60_000)
    # On a busy machine JupyterLab may ask for the kernel or report that its server is slow: the default answer serves.
    page.add_locator_handler(page.locator(".jp-Dialog"), lambda asked: asked.locator(".jp-mod-accept").last.click())
    page.goto(f"{lab}{name}.ipynb")
    indicator = page.locator(".jp-Notebook-ExecutionIndicator")
    expect(indicator).to_have_attribute("data-status", "idle", timeout=60_000)
    # By command, not by key: while it is still starting, JupyterLab may take the focus away.
    kernel = "window.jupyterapp.shell.currentWidget.sessionContext.session?.kernel"
    page.wait_for_function(f"{kernel}?.connectionStatus === 'connected'")
    page.evaluate("window.jupyterapp.commands.execute('notebook:run-all-cells').then(() => null)")
    picture = page.locator(".jp-OutputArea .rx-panel [data-picture=maximization] canvas").first
    expect(picture).to_be_visible(timeout=60_000)
    yield page
    page.close()


@pytest.mark.thorough
def test_live_and_static_show_the_same_pictures(browser: Browser, homes: dict[str, str], lab: str) -> None:
    views = ["plainnet34/layer1.0/19", "resnet34/layer1.2/18", "resnet34/maxpool/0"]
    seen: dict[str, dict[str, list]] = {}
    static = browser.new_page(viewport={"width": 1400, "height": 1000})
    static.home = homes["http"]
    with live(browser, lab, "run") as page:
        for view in views:
            model, layer, channel = view.split("/")
            page.get_by_label("Network").select_option(model)
            page.get_by_label("Layer", exact=True).select_option(layer)
            page.get_by_label("Channel", exact=True).fill(channel)
            panel = page.locator(f".rx-panel[data-view='{view}']")
            panel.locator("[data-picture=maximization] canvas").wait_for()
            go(static, view)
            static.wait_for_timeout(500)
            for host, where in (("live", panel), ("static", static.locator(".rx-panel"))):
                canvases = where.locator("[data-picture] canvas, .rx-stimuli .rx-strip canvas").all()
                names = [canvas.locator("..").get_attribute("aria-label") for canvas in canvases]
                seen.setdefault(host, {})[view] = [names, [pixels(canvas).tolist() for canvas in canvases]]
                assert len(canvases) >= 21
    static.close()
    assert seen["live"] == seen["static"]


@pytest.mark.thorough
def test_a_network_of_ones_own_and_maximizing_again(browser: Browser, lab: str) -> None:
    with live(browser, lab, "net") as page:
        layers = page.get_by_label("Layer", exact=True)
        layers.select_option("bn1")
        panel = page.locator(".rx-panel[data-view='mine/bn1/0']")
        panel.locator("[data-picture=maximization] canvas").wait_for()
        canvas = panel.locator("[data-picture=maximization] canvas")
        before = pixels(canvas)
        panel.get_by_label("Steps", exact=True).fill("40")
        panel.get_by_label("Total variation weight").fill("0.01")
        panel.get_by_role("button", name="Maximize again").click()
        expect(page.get_by_role("status")).to_contain_text(
            "channel 0: maximized with 40 steps, rate 0.1, L2 1e-06, total variation 0.01"
        )
        expect(panel.locator("[data-picture=maximization]")).to_have_attribute("aria-label", re.compile("40 steps"))
        after = pixels(canvas)
        assert after.shape == before.shape and not np.array_equal(after, before)
        expect(panel.get_by_label("Steps", exact=True)).to_have_value("40")  # the form is as it was
        expect(panel.get_by_role("button", name="Maximize again")).to_be_focused()
        panel.get_by_label("Learning rate").fill("1e30")
        panel.get_by_role("button", name="Maximize again").click()
        expect(page.get_by_role("status")).to_contain_text(
            "learning rate is 1e+30: it must be a number from 0 to 1e+06"
        )
        page.get_by_role("button", name="Random").focus()
        page.keyboard.type("dd")  # not JupyterLab's "delete the cell"
        expect(page.locator(".jp-CodeCell").first).to_contain_text("torch.manual_seed(0)")
        page.get_by_label("Put beside it").select_option("plain")
        other = page.locator(".rx-panel[data-view='plain/bn1/0']")
        other.locator("[data-picture=maximization] canvas").wait_for()


@pytest.mark.thorough
def test_the_state_of_a_live_explorer_holds_no_pixels(browser: Browser, lab: str) -> None:
    with live(browser, lab, "run") as page:
        page.keyboard.press("Control+s")
        page.wait_for_timeout(1500)
        saved = json.loads(urllib.request.urlopen(lab.replace("doc/tree", "api/contents") + "run.ipynb").read())  # noqa: S310
        assert len(json.dumps(saved["content"])) < 300_000
