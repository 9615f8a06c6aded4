"""The page on preferred stimuli draws what the results say, and its words follow an interval."""

import dataclasses
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from rfviz.images.data import Evaluation
from rfviz.kernels import responses
from rfviz.kernels.responses import LayerResponses
from rfviz.nets import models
from rfviz.nets.network import NETWORKS
from rfviz.nets.receptive_field import ReceptiveField
from rfviz.pages import figures
from rfviz.pages import stimuli as page
from rfviz.pages.style import NO_IMAGE, stretch, with_links

RESNET = NETWORKS["resnet34"]


@pytest.fixture
def shown(resnet: models.ResidualNet, tiles: Evaluation) -> page.Shown:
    found = responses.collect(resnet, tiles, RESNET.figure_layers, strongest=8)
    at_borders = responses.collect(resnet, tiles, RESNET.figure_layers, mean_stimulus=False, borders=True)
    given = SimpleNamespace(strongest=8)
    run: Any = SimpleNamespace(stimuli=tiles, given=given, networks=[RESNET], subject=RESNET)
    return page.Shown(run, {"resnet34": found}, {"resnet34": resnet.conv1.weight.detach()}, at_borders)


def images_in(figure: Figure) -> list[np.ndarray]:
    return [np.asarray(image.get_array()) for axes in figure.findobj(Axes) for image in axes.get_images()]


def test_preferred_stimuli_shows_the_patches_with_grey_outside(shown: page.Shown) -> None:
    figure = page.preferred_stimuli(shown, RESNET, {"resnet34": 2})
    drawn = images_in(figure)
    addresses = [link.address for link in figure.links()]  # one around all of a panel
    assert addresses == [f"explorer.html#resnet34/{layer}/2" for layer in RESNET.figure_layers]
    expected = []
    for found in shown.responses["resnet34"].values():
        patches, inside = responses.preferred_stimuli(shown.run.stimuli, found, 2)
        for value, patch, there in zip(found.top_values[2], patches, inside, strict=True):
            if value > 0:
                expected.append(torch.where(there, patch, torch.tensor(NO_IMAGE)).permute(1, 2, 0).numpy())
    assert len(drawn) == len(expected) > 16
    for one, other in zip(drawn, expected, strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("sides", [(45, 113, 241), (49, 109, 237), (241, 241, 241), (45, 1200, 241)])
def test_panels_are_whole_multiples_that_fit_and_differ_least(sides: tuple[int, ...]) -> None:
    room = 1129
    widths = figures._multiples(sides, room)
    times = [width // side for width, side in zip(widths, sides, strict=True)]
    assert widths == [side * many for side, many in zip(sides, times, strict=True)] and min(times) >= 1
    least = widths.index(min(widths))
    assert sum(widths) + sides[least] > room  # there is no room for more of the narrowest
    assert sum(widths) <= room or times == [1] * 3
    for width, side, many in zip(widths, sides, times, strict=True):
        assert many == 1 or width - side <= min(widths)  # none grew beyond one that was left behind


def test_a_channel_that_never_fires_is_said_to_be_so(shown: page.Shown) -> None:
    silent = {
        layer: dataclasses.replace(
            found, top_values=torch.zeros_like(found.top_values), positive_count=torch.zeros_like(found.positive_count)
        )
        for layer, found in shown.responses["resnet34"].items()
    }
    nothing = shown._replace(responses={"resnet34": silent})
    figure = page.preferred_stimuli(nothing, RESNET, {"resnet34": 0})
    assert images_in(figure) == []
    assert all("never fires" in panel.get_suptitle() for panel in figure.subfigs[0].subfigs)
    assert len(figure.links()) == 3
    assert len(images_in(page.mean_stimuli(nothing, RESNET, {"resnet34": 0}))) == 1  # the filter


def test_mean_stimuli_prints_gain_and_count(shown: page.Shown) -> None:
    figure = page.mean_stimuli(shown, RESNET, {"resnet34": 1})
    labels = {axes.get_xlabel() for axes in figure.axes}
    for found in shown.responses["resnet34"].values():
        assert f"N = {int(found.positive_count[1]):,}" in labels
        gain = stretch(found.mean_deviation[1])[1]
        little = ",\nhardly anything" if gain > figures.MUCH else ""
        assert (f"gain {gain:.1f}{little}" if gain else "all fire:\nno difference") in labels
    assert len(images_in(figure)) == 1 + 3 * 3
    addresses = [link.address for link in figure.links()]
    assert addresses == [f"explorer.html#resnet34/{layer}/1" for layer in RESNET.figure_layers]


def test_what_sticks_out_is_counted_stimulus_by_stimulus(shown: page.Shown) -> None:
    figure = page.border_stimuli(shown, {"resnet34": 2})
    bars = [bar.get_height() for bar in figure.subfigs[0].axes[0].patches]
    said = page.borders_answer(shown).data
    for found, bar in zip(shown.at_borders.values(), bars, strict=True):
        out = []
        for channel in range(found.channels):
            _, inside = responses.preferred_stimuli(shown.run.stimuli, found, channel)
            out += [
                not whole.all() for whole, value in zip(inside, found.top_values[channel], strict=True) if value > 0
            ]
        of_stimuli, of_neurons = page.sticking_out(found, shown.run.stimuli)
        assert bar == pytest.approx(100 * of_stimuli) and of_stimuli == pytest.approx(np.mean(out)) and any(out)
        side = round((found.neuron_count / found.image_count) ** 0.5)
        whole = found.receptive_field.whole(side, 64)
        assert of_neurons == pytest.approx(1 - ((whole.stop - whole.start) / side) ** 2)
        assert f"{of_stimuli:.0%} in" in said
    whole = page.sticking_out(shown.responses["resnet34"]["layer1.2"], shown.run.stimuli)
    assert whole[0] == 0
    with_borders, without = (images_in(panel) for panel in figure.subfigs[1:])
    grey = torch.tensor(NO_IMAGE).item()
    assert any((picture == grey).any() for picture in with_borders)
    assert not any((picture == grey).any() for picture in without) and without


def test_without_a_contrast_the_figures_say_why(shown: page.Shown) -> None:
    for draw in (page.preferred_stimuli, page.mean_stimuli):
        figure = draw(shown, None, {"resnet34": 1})
        assert "needs a network without skips" in figure.texts[0].get_text()


def planted(contrasts: torch.Tensor, positive: torch.Tensor) -> LayerResponses:
    means = torch.full((len(contrasts), 3, 3, 3), 0.5)
    means[:, 0, 0, 0] += contrasts
    zeros, count = torch.zeros(len(contrasts), dtype=torch.float64), torch.ones(len(contrasts), 3, 3).long()
    patch = torch.full((3, 3, 3), 0.5)
    return LayerResponses(
        ReceptiveField(3, 1, 0), 1, 100, torch.zeros(len(contrasts), 1), torch.zeros(len(contrasts), 1).long(),
        torch.zeros(len(contrasts), 1, 2).long(), positive, zeros, zeros, torch.zeros(len(contrasts), 23).long(), means,
        count, means, count, patch, patch,
    )  # fmt: skip


def test_mean_stimulus_table_gives_contrast_in_rgb() -> None:
    found = planted(torch.tensor([0.0, 0.3]), torch.tensor([1, 50]))
    run: Any = None
    shown = page.Shown(run, {"resnet18": {"layer1.1": found}, "plainnet34": {"maxpool": found}}, {}, {})
    table = page.mean_stimulus_table(shown, {"resnet18": 1, "plainnet34": 0})
    row = table.loc[("ResNet18", "conv. layer 5")]
    assert row["contrast of the mean"] == "0.300"
    assert row["neurons that fire"] == "50.0%"
    number = table.loc[("PlainNet34", "first pooling layer"), "channel"]
    assert number == '<a href="explorer.html#plainnet34/maxpool/0">0</a>'
    assert f"<td>{number}</td>" in with_links(table).data


def test_the_answer_follows_the_interval_of_the_contrasts() -> None:
    noise = 0.02 * torch.rand(20, generator=torch.Generator().manual_seed(0))
    fires = torch.ones(20, dtype=torch.int64)
    run: Any = None

    def layers(*contrasts: float) -> dict[str, LayerResponses]:
        stages = zip(NETWORKS["resnet50"].figure_layers, contrasts, strict=True)
        return {layer: planted(contrast + noise, fires) for layer, contrast in stages}

    found = {"resnet50": layers(0.4, 0.3, 0.1), "plainnet34": layers(0.1, 0.1, 0.4), "resnet18": layers(0.3, 0.1, 0.3)}
    text = page.stimuli_answer(page.Shown(run, found, {}, {})).data
    assert (
        "In ResNet50, the mean of conv. layer 10 has less contrast than that of the first pooling layer: -0.300" in text
    )
    assert (
        "In PlainNet34, the mean of conv. layer 10 has more contrast" not in text
    )  # its layers have titles of their own
    assert "In PlainNet34, the mean of conv. layer 7 has more contrast" in text
    assert "In ResNet18, the mean of layer1.2 has neither measurably less nor more contrast" in text


def test_channels_that_never_fire_do_not_count_as_flat() -> None:
    contrasts = torch.tensor([0.30, 0.32, 0.0, 0.31])
    fires = planted(contrasts, torch.tensor([1, 1, 0, 1]))
    change = page.flattening({"maxpool": fires, "layer1.0": fires, "layer1.2": fires})
    assert (change.value, change.n) == (0, 6)
