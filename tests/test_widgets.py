"""The live widget follows its controls."""

from pathlib import Path

import pytest
from bs4 import BeautifulSoup

from rfviz import runs, widgets
from rfviz.models import PAPER_NAMES


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> widgets.Browser:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RFVIZ_RUNS", str(tmp_path_factory.mktemp("runs")))
        run = runs.open_run("smoke", epochs=1, repeats=4)
        run.progress = False
        yield widgets.Browser(run)


@pytest.mark.parametrize("model", ["resnet34", "plainnet34"])
@pytest.mark.parametrize("layer", ["maxpool", "layer1.0", "layer1.2"])
@pytest.mark.parametrize("channel", [0, 19])
def test_every_control_changes_the_figure(browser: widgets.Browser, model: str, layer: str, channel: int) -> None:
    browser.model.value, browser.layer.value, browser.channel.value = model, layer, channel
    paper = {"resnet34": "ResNet34", "plainnet34": "PlainNet34"}[model]
    assert browser.figure().get_suptitle() == f"{paper}, {PAPER_NAMES[layer]}, channel {channel}"


def test_a_change_redraws(browser: widgets.Browser) -> None:
    browser.model.value, browser.layer.value = "resnet34", "layer1.0"
    seen = set()
    for channel in (7, 8):
        browser.channel.value = channel
        picture = BeautifulSoup(browser.picture.value, "html.parser").img
        assert picture["alt"].startswith(f"ResNet34, conv. layer 3, channel {channel}: preferred stimuli")
        assert picture["src"].startswith("data:image/png;base64,")
        seen.add(picture["src"])
    assert len(seen) == 2


def test_no_output_widget_makes_a_batch_wait() -> None:
    assert "Output(" not in Path(widgets.__file__).read_text()


def test_the_channel_stays_in_range(browser: widgets.Browser) -> None:
    browser.channel.value = 99
    assert browser.channel.value == 19


def test_the_notebook_shows_it() -> None:
    page = Path(__file__).parents[1] / "notebooks" / "02_preferred_stimuli.md"
    assert "Browser(run, channel" in page.read_text()
