"""Orientation tuning beside chance: what counts as selective, what is drawn, and words that follow the numbers."""

import math
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from matplotlib.axes import Axes

from rfviz import stats
from rfviz.images.data import Evaluation
from rfviz.kernels import controls, responses, tuning
from rfviz.kernels.controls import DRAWS
from rfviz.kernels.tuning import Tuning
from rfviz.kernels.tuning.gabor import Gabor
from rfviz.kernels.tuning.gratings import for_field
from rfviz.lab import results
from rfviz.nets.models import ResidualNet
from rfviz.nets.network import NETWORKS, network
from rfviz.pages import orientation
from rfviz.pages.orientation import LEAST, Shown, chance, excess, selective
from rfviz.pages.style import GREY, covered, stretch
from rfviz.stats import AGREES, CANNOT_TELL, DISAGREES, judge

GRATINGS = for_field(11, orientations=4, frequencies=2, phases=4)
RUN: Any = SimpleNamespace(network=network)


def tuned(*values: float, silent: int = 0, fine: bool = False, other: float = 0.0, torn: bool = False) -> Tuning:
    """Channels of given selectivities at the frequency that they prefer, the coarse one or the fine one.

    At the other, where they respond half as strongly, they have another selectivity. Torn ones prefer 45 degrees in one
    half of the drift and 135 in the other, at all frequencies.
    """
    found = torch.zeros(len(values) + silent, *GRATINGS.shape, dtype=torch.float64)
    for channel, value in enumerate(values):
        for frequency, index, size in ((int(fine), value, 1.0), (1 - int(fine), other, 0.5)):
            found[channel, :, frequency] = size * (1 - index) / (1 + 3 * index)
            found[channel, 1, frequency] = size
            if torn:
                found[channel, 1, frequency, ::2], found[channel, 3, frequency, 1::2] = 2 * size, 2 * size
    return Tuning(GRATINGS, found, torch.zeros(len(found), dtype=torch.float64))


CHANCE = [tuned(*[0.1] * 20), tuned(*[0.3] * 20, silent=3)]
"""A control whose channels are at most 0.3."""


def shown(names: list[str], layers: dict[str, Tuning], control: list[Tuning], gabors: list | None = None) -> Shown:
    """The same layers and controls for every network."""
    fits = {kind: gabors or [] for kind in ("trained", "random weights")}
    return Shown(
        [network(name) for name in names], dict.fromkeys(names, layers),
        {name: dict.fromkeys(layers, control) for name in names}, {}, dict.fromkeys(names, fits),
    )  # fmt: skip


# -- what is selective -------------------------------------------------------------------------------------------------


def test_the_planted_channels_come_out() -> None:
    found = tuned(0.2, 0.9, other=0.6, silent=1)
    assert found.selectivity[:2].tolist() == pytest.approx([0.2, 0.9]) and found.selectivity[2].isnan()
    assert found.selectivities[:2, 1].tolist() == pytest.approx([0.6, 0.6])
    assert tuned(0.9, torn=True).reliability.item() == pytest.approx(90)


@pytest.mark.parametrize("fine", [True, False])
def test_selective_is_beyond_a_percentile_of_the_control_at_the_same_frequency(fine: bool) -> None:
    """The edge is that of the control's channels at this frequency, whichever they prefer."""
    generator = np.random.default_rng(0)
    preferring = [generator.uniform(0.2, 0.7, 30) for _ in range(2)]
    control = [tuned(*values, fine=fine, other=0.9, silent=4) for values in preferring]
    edge = np.percentile(np.concatenate(preferring), 95)
    found = tuned(edge - 0.01, edge + 0.01, fine=fine, silent=1)
    assert selective(found, control)[:2].tolist() == [0, 1] and selective(found, control)[2].isnan()
    # at the other frequency, the control has 0.9
    assert selective(tuned(0.8, 0.95, fine=not fine), control).tolist() == [0, 1]


def test_selective_is_a_channel_that_is_so_at_all_and_in_both_halves_of_the_drift() -> None:
    control = [tuned(*[0.01] * 40)]
    assert selective(tuned(LEAST - 0.01, LEAST + 0.01), control).tolist() == [0, 1]
    assert selective(tuned(0.9), control).tolist() == [1]
    both_ways = tuned(0.9, torn=True)
    assert both_ways.responds.all() and selective(both_ways, control).tolist() == [0]
    for size, expected in ((1.0, 0), (0.1, 1)):  # of a second orientation, in one half of the drift
        found = tuned(0.9)
        found.responses[0, 2, 0, 1::2] = size
        assert (found.reliability.item() > 15) == (size == 1) and found.selectivity > LEAST
        assert selective(found, control).tolist() == [expected]


def test_channels_that_are_like_the_control_are_not_selective() -> None:
    same = [0.5] * 20
    assert not selective(tuned(*same), [tuned(*same)]).any()  # ties count for chance


def test_without_anything_to_compare_there_is_no_number() -> None:
    nothing = tuned(silent=3)
    for found, control in ((nothing, CHANCE), (tuned(0.5, 0.5, 0.5), [nothing, nothing])):
        assert selective(found, control).isnan().all()
        share = excess(found, control)
        assert math.isnan(share.value) and share.sign == 0
        page = shown(["resnet34"], {"maxpool": found}, control)
        assert orientation.selectivity_table(page)["selective"].tolist() == ["0 of 0"]
        assert "first pooling layer –, undecided." in orientation.selectivity_answer(page).data


def test_each_draw_of_random_weights_is_judged_by_the_others() -> None:
    control = [tuned(*[0.3] * 20), tuned(*[0.3] * 17, *[0.8] * 3, silent=1)]
    first, second = chance(control)
    assert first.tolist() == [0] * 20  # in the other, 3 of 20 have 0.8
    assert second[:20].tolist() == [0] * 17 + [1] * 3 and second[20].isnan()
    assert not selective(control[1], control)[:20].any()  # beside itself, they would be no exception


@pytest.mark.parametrize(("found", "held_out", "verdict"), [(10, 1, AGREES), (1, 10, DISAGREES), (6, 6, CANNOT_TELL)])
def test_the_excess_counts_all_layers_and_draws_and_a_channel_once(
    found: int, held_out: int, verdict: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of 3 layers with 12 channels, so many are selective, and of 3 draws of them so many of 12 by the others."""

    def planted(run: object, name: str, layer: str, control: str | None = None, draw: int = 0) -> Tuning:
        assert layer in NETWORKS[name].figure_layers and control in (None, "random weights")
        count = found if control is None else held_out
        return tuned(*[0.95] * count, *[0.1] * (12 - count), silent=1)

    monkeypatch.setattr(results, "orientation", planted)
    monkeypatch.setattr(orientation, "selective", lambda each, control: (each.selectivity - 0.4).round())
    share = orientation.selective_excess(RUN, "resnet34")
    ours, random = ((torch.arange(12) < count).double() for count in (found, held_out))  # the same ones in each layer
    assert share == stats.difference(ours, random.repeat(DRAWS))._replace(n=12)
    assert judge(share) == verdict


@pytest.mark.parametrize("name", ["resnet34", "resnet50"])
def test_a_network_that_is_selective_and_one_that_is_not(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Layers may differ in channels, as those of bottleneck blocks do."""
    trained = {"strong": 0.9, "weak": 0.2}

    def planted(run: Any, name: str, layer: str, control: str | None = None, draw: int = 0) -> Tuning:
        wide = 48 if name == "resnet50" and layer != "maxpool" else 12
        if control:
            return tuned(*np.linspace(0, 0.5, wide) + draw / 1000)
        return tuned(*[trained[run.kind]] * wide, silent=1)

    monkeypatch.setattr(results, "orientation", planted)
    strong, weak = (
        orientation.selective_excess(SimpleNamespace(network=network, kind=kind), name)
        for kind in trained  # type: ignore[arg-type]
    )
    assert strong.n == weak.n == (48 if name == "resnet50" else 12)  # without the last, which is silent
    assert strong.value > 0.8 and strong.sign == 1
    assert -0.2 < weak.value < 0 and judge(weak, least=0.1) == DISAGREES


# -- figures, tables and words -----------------------------------------------------------------------------------------


def test_the_most_selective_channels_are_shown_first() -> None:
    layers = {
        "maxpool": tuned(0.9, 0.1, 0.7),
        "layer1.0": tuned(0.8, 0.95),
        "layer1.2": tuned(0.99, torn=True),
    }
    page = shown(["resnet34"], layers, CHANCE)
    expected = [("layer1.0", 1), ("maxpool", 0), ("layer1.0", 0), ("maxpool", 2)]
    assert orientation.best_channels(page, "resnet34") == expected
    many = shown(["resnet34"], {"maxpool": tuned(*[0.9] * 9)}, CHANCE)
    assert orientation.best_channels(many, "resnet34") == [("maxpool", channel) for channel in range(5)]


def visible(axes: list[Axes]) -> list[Axes]:
    return [ax for ax in axes if ax.axison]


def test_pictures_and_curves_of_selective_channels_beside_their_control(resnet: ResidualNet, tiles: Evaluation) -> None:
    layers = {layer: tuning.measure(resnet, layer) for layer in ("maxpool", "layer1.0")}
    found = responses.collect(resnet, tiles, list(layers), 1, strongest=8)
    other = controls.random_weights(resnet)
    control = {layer: [tuning.measure(other, layer)] for layer in layers}
    page = Shown(
        [network("resnet34"), network("plainnet34")], {"resnet34": layers, "plainnet34": {"maxpool": tuned(0.1)}},
        {"resnet34": control, "plainnet34": {"maxpool": CHANCE}}, {"resnet34": found}, {},
    )  # fmt: skip
    chosen = orientation.best_channels(page, "resnet34")
    assert chosen  # of 12 channels with random weights, some are beyond others
    figure = orientation.selective_channels(page)
    band, none = figure.subfigs
    assert (band.get_suptitle(), none.get_suptitle()) == ("ResNet34", "PlainNet34: none is selective")
    assert not none.axes
    pictures, curves = visible(band.axes[:5]), visible(band.axes[5:])
    assert len(pictures) == len(curves) == len(chosen)
    for picture, ax, (layer, channel) in zip(pictures, curves, chosen, strict=True):
        short = {"maxpool": "first pooling layer", "layer1.0": "conv. 3"}[layer].replace(
            "first pooling layer", "pooling"
        )
        assert picture.get_title() == f"{short}\nch. {channel}: {layers[layer].selectivity[channel]:.2f}"
        stretched = covered(
            stretch(found[layer].strongest_deviation[channel])[0], found[layer].strongest_count[channel]
        )
        (image,) = picture.get_images()
        np.testing.assert_allclose(image.get_array(), stretched.permute(1, 2, 0))
        grey, own = ax.lines
        assert (grey.get_color(), own.get_color()) == (GREY, NETWORKS["resnet34"].colour)
        curve = layers[layer].orientation_curve[channel]
        assert own.get_xdata().tolist() == [15 * i for i in range(13)]
        np.testing.assert_allclose(own.get_ydata(), [*(curve / curve.max()), curve[0] / curve.max()])
        assert ax.get_xlabel() == "bars (°)"
        np.testing.assert_allclose(grey.get_ydata(), turned(control[layer][0], layers[layer], channel))
    assert len(figure._repr_png_()) > 5000
    addresses = [link.address for link in figure.links()]
    assert addresses == [f"explorer.html#resnet34/{layer}/{channel}" for layer, channel in chosen]


def turned(control: Tuning, tuning: Tuning, channel: int) -> list[float]:
    """The slow way: the mean of the curves of a control, each over its largest and turned to the peak of a channel."""
    top, frequency = int(tuning.orientation_curve[channel].argmax()), int(tuning.best[1][channel])
    curves = []
    for each, responds in zip(control.strength[:, :, frequency].tolist(), control.responds, strict=True):
        if responds and max(each) > 0:
            peak = each.index(max(each))
            curves.append([each[(i - top + peak) % 12] / max(each) for i in range(12)])
    mean = [sum(values) / len(curves) for values in zip(*curves, strict=True)]
    assert mean[top] == pytest.approx(1)
    return [*mean, mean[0]]


@pytest.mark.parametrize("names", [["plainnet34"], ["resnet34", "plainnet34"], ["resnet18", "plainnet18", "resnet50"]])
def test_every_network_and_layer_has_a_row_of_its_own(names: list[str]) -> None:
    layers = {name: dict.fromkeys(NETWORKS[name].figure_layers, tuned(0.5, 0.1, silent=1)) for name in names}
    page = Shown(
        [network(name) for name in names], layers, {name: dict.fromkeys(layers[name], CHANCE) for name in names}, {}, {}
    )
    table = orientation.selectivity_table(page)
    assert table.index.tolist() == [
        (NETWORKS[name].title, NETWORKS[name].layer_title(layer)) for name in names for layer in layers[name]
    ]
    assert (table["selective"] == "1 of 2").all() and (table["random weights"] == "20 of 40").all()
    assert (table["median selectivity"] == "0.30").all()  # two channels have no interval
    median = stats.median(torch.tensor([0.1] * 20 + [0.3] * 20, dtype=torch.float64)).brief(".2f")
    assert (table["random weights: median"] == median).all() and median.startswith("0.20 (")


def fit(goodness: float) -> Gabor:
    return Gabor(0.0, 0.2, 0.0, (0.0, 0.0), (1.0, 1.0), goodness, 0.7)


@pytest.mark.parametrize(
    ("trained", "words"),
    [([0.99] * 30, "more than chance"), ([0.01] * 3, "undecided"), ([0.01] * 60, "fewer than chance")],
)
def test_words_follow_the_numbers(trained: list[float], words: str) -> None:
    """Of the second draw of random weights, 10 of 20 are beyond the first; of the first none are."""
    control = [tuned(*[0.1] * 20), tuned(*[0.1] * 10, *[0.3] * 10)]
    page = shown(["resnet34"], {"maxpool": tuned(*trained, silent=1)}, control)
    page.gabors["resnet34"] = {"trained": [fit(0.9), fit(0.79), None, fit(0.8)], "random weights": [None, fit(0.2)]}
    count = len(trained) if trained[0] > 0.5 else 0
    share = stats.share_difference((count, len(trained)), (10, 40))
    assert orientation.selectivity_table(page)["selective"].tolist() == [f"{count} of {len(trained)}"]
    (line,) = orientation.selectivity_answer(page).data.splitlines()[2:]
    assert line == (
        f"- ResNet34: first pooling layer {share:+.0%}, {words}. A Gabor explains 80% or more of the strongest profile "
        "of 2 of 4 first filters (random weights: 0 of 2)."
    )
