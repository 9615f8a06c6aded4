"""The live widget follows its controls."""

from pathlib import Path

import pytest

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


def test_a_change_redraws(browser: widgets.Browser, monkeypatch: pytest.MonkeyPatch) -> None:
    titles = []
    monkeypatch.setattr(widgets, "display", lambda figure: titles.append(figure.get_suptitle()))
    browser.channel.value = 7
    browser.layer.value = "maxpool" if browser.layer.value != "maxpool" else "layer1.0"
    assert len(titles) == 2
    assert titles[-1].endswith("channel 7")


def test_the_channel_stays_in_range(browser: widgets.Browser) -> None:
    browser.channel.value = 99
    assert browser.channel.value == 19


def test_the_notebook_shows_it() -> None:
    page = Path(__file__).parents[1] / "notebooks" / "02_preferred_stimuli.md"
    assert "Browser(run, channel" in page.read_text()
