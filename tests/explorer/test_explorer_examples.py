"""Named examples of the explorer: found by their rules in planted runs, left out where no channel follows them."""

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from bs4 import BeautifulSoup

from rfviz.explorer import examples
from rfviz.nets.network import network
from rfviz.pages import landing
from rfviz.pages.evidence import reference

LAYERS = ("maxpool", "layer1.0", "layer1.2")


def planted(monkeypatch: pytest.MonkeyPatch, silent: tuple[int, ...] = (1, 4), wide: int = 6) -> Any:
    """Channel 3 keeps its picture, 4 responds more than 1 behind it, 2 is oriented, 0 colourful, 5 fires least."""
    generator = torch.Generator().manual_seed(0)
    pictures = {
        layer: torch.randn(wide, 3, side, side, generator=generator)
        for layer, side in zip(LAYERS, (11, 27, 59), strict=True)
    }
    pictures["layer1.2"][3, :, 16:43, 16:43] = pictures["layer1.0"][3]
    rates = {layer: torch.full((6 if layer == "maxpool" else wide,), 0.3) for layer in LAYERS}
    rates["maxpool"][list(silent)] = 0
    rates["layer1.2"][:6] = torch.tensor([0.9, 0.2, 0.9, 0.9, 0.5, 0.1])
    largest = {layer: 0.01 + 0.1 * torch.arange(len(rate)) for layer, rate in rates.items()}
    found = {
        layer: SimpleNamespace(firing_rate=rates[layer], strongest_deviation=pictures[layer], maximum=largest[layer])
        for layer in LAYERS
    }
    monkeypatch.setattr(examples, "stimuli", lambda run, name: found)
    selectivity = torch.tensor([0.1, torch.nan, 0.8, 0.2, 0.3, 0.4] + [0.0] * (wide - 6))
    sensitivity = torch.tensor([2.0, torch.inf, 0.8, 0.2, torch.nan, 0.4] + [0.0] * (wide - 6))
    monkeypatch.setattr(examples, "orientation", lambda run, name, layer: SimpleNamespace(selectivity=selectivity))
    monkeypatch.setattr(examples, "colour", lambda run, name, layer: SimpleNamespace(sensitivity=sensitivity))
    return SimpleNamespace(subject=network("resnet34"))


def test_every_rule_finds_its_channel(monkeypatch: pytest.MonkeyPatch) -> None:
    found = examples.examples(planted(monkeypatch))
    places = ["layer1.2/3", "maxpool/4", "layer1.2/2", "layer1.2/0", "layer1.2/5"]  # the silent one where it is silent
    addresses = [f"explorer.html#resnet34/{place}" for place in places]
    assert [each.place.address for each in found] == addresses
    assert [each.title.split()[0] for each in found] == ["The", "Silent", "The", "The", "The"]
    for made in (examples.named(found), examples.listed(found)):
        links = BeautifulSoup(made.data, "html.parser").find_all("a")
        assert [link["href"] for link in links] == addresses
    assert all(each.rule in made.data for each in found)


def test_what_no_channel_shows_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """No silent channel, and a network whose blocks have other channels than its stem."""
    for run in (planted(monkeypatch, silent=()), planted(monkeypatch, wide=24)):
        titles = [each.title for each in examples.examples(run)]
        assert len(titles) == 4 and not any("Silent" in title for title in titles)


def test_a_silent_channel_of_the_network_trained_on_imagenet() -> None:
    kept = reference.kept("evidence/resnet18")
    found = examples.kept_example(kept)
    model, layer, channel = found.place.address.split("/")
    assert (model, layer) == ("explorer.html#imagenet-resnet18", "maxpool")
    assert int(channel) in kept.effects["resnet18"][0].inactive
    assert f"ch. {channel}" in [ax.get_title() for ax in landing.hero(kept).axes]
