"""Figures, numbers and words about higher layers follow what was measured, whichever way it comes out."""

import dataclasses
import math
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from rfviz import stats
from rfviz.images.data import Evaluation
from rfviz.kernels import controls
from rfviz.kernels.effective import EffectiveFields, effective_fields
from rfviz.kernels.identify import KINDS
from rfviz.kernels.responses import LayerResponses, collect, preferred_stimuli
from rfviz.lab import presets, results
from rfviz.lab.run import Run
from rfviz.nets.models import ResidualNet
from rfviz.nets.network import NETWORKS
from rfviz.nets.receptive_field import ReceptiveField
from rfviz.pages import figures, higher
from rfviz.pages.higher import Scores, Shown
from rfviz.pages.style import NO_IMAGE

FIELD = ReceptiveField(31, 1, -15)


def squares(side: int, channels: int = 8, top: int = 2) -> EffectiveFields:
    """Fields of equal weights in a square around the centre of images of 31 px, slightly different per channel."""
    count = channels * top
    maps = torch.zeros(count, 31, 31)
    for i in range(count):
        half = side // 2
        maps[i, 15 - half : 16 + half, 15 - half : 16 + half + i // top] = 1
    return EffectiveFields(
        FIELD, torch.arange(channels).repeat_interleave(top), torch.arange(count), torch.full((count, 2), 15),
        torch.full((count, 2), 31), maps / maps.sum((1, 2), keepdim=True),
    )  # fmt: skip


def scores(*means: float) -> Scores:
    around = torch.linspace(-0.05, 0.05, 12, dtype=torch.float64)
    turned = (around, around.flip(0), around.roll(5))  # differences have a spread of their own
    return {kind: mean + each for kind, mean, each in zip(KINDS, means, turned, strict=True)}


def shown(networks: Sequence[str] = ("resnet34",), **fields: Any) -> Shown:
    run = Run(presets.get("smoke", networks=networks), 0, Path("nowhere"))
    return Shown(**{"run": run, "fields": {}, "controls": {}, "scores": {}, "readable": {}, **fields})


# -- what matters in a stimulus ----------------------------------------------------------------------------------------


def images_in(axes: list) -> list[np.ndarray]:
    return [np.asarray(image.get_array()) for ax in axes for image in ax.get_images()]


def test_what_matters_is_shown_and_the_rest_is_grey(resnet: ResidualNet, tiles: Evaluation) -> None:
    """One stimulus per layer, of the channel in the middle of those that are measured."""
    found = collect(resnet, tiles, ["layer1.0", "layer3.0"], 1, mean_stimulus=False, borders=True)
    other = controls.calibrated(controls.random_weights(resnet), tiles)
    fields, chance = (
        {layer: effective_fields(net, tiles, layer, each, [1, 2, 4], top=1) for layer, each in found.items()}
        for net in (resnet, other)
    )
    run: Any = SimpleNamespace(stimuli=tiles, subject=resnet.network)
    page = shown(fields={"resnet34": fields}, controls={"resnet34": chance})._replace(run=run)
    figure = higher.what_matters(page)
    small, large = np.array(figure.axes).reshape(2, 4)
    assert [ax.get_title() for ax in small] == ["stimulus", "what matters", "gradient", "random weights"]
    assert [row[0].get_ylabel() for row in (small, large)] == ["(a) conv. 3\nchannel 2", "(b) conv. 17\nchannel 2"]
    # A field that fits the image is cut out of it.
    patches, inside = preferred_stimuli(tiles, found["layer1.0"], 2)
    stimulus, matters, weights, random = images_in(small)
    expected = torch.where(inside[0], patches[0], torch.tensor(NO_IMAGE)).permute(1, 2, 0)
    np.testing.assert_allclose(stimulus, expected)
    assert weights.shape == random.shape == (27, 27, 3)
    alpha = weights[..., :1]
    blended = np.where(inside[0][..., None], 0.5 + alpha * (stimulus - 0.5), NO_IMAGE)
    np.testing.assert_allclose(matters, blended, atol=1e-6)
    # One that does not is shown with the whole image, the cross at the neuron.
    stimulus, _, weights, random = images_in(large)
    np.testing.assert_allclose(stimulus, tiles[int(fields["layer3.0"].images[1])][0].permute(1, 2, 0))
    np.testing.assert_allclose(weights[..., 0], figures.opacity(fields["layer3.0"].maps[1]))
    np.testing.assert_allclose(random[..., 0], figures.opacity(chance["layer3.0"].maps[1]))
    y, x = fields["layer3.0"].centres[1].tolist()
    assert not large[0].lines
    for ax in large[1:]:
        (cross,) = ax.lines
        assert (cross.get_xdata()[0], cross.get_ydata()[0]) == (x, y)
    assert figure._repr_png_().startswith(b"\x89PNG")
    (link,) = figure.links()  # the explorer has neither the other layer nor the control
    assert link.address == "explorer.html#resnet34/layer1.0/2"


def test_opacity_is_full_where_weights_are_and_none_elsewhere() -> None:
    weights = torch.zeros(96, 96)
    weights[40:60, 40:60] = 1
    alpha = figures.opacity(weights)
    assert alpha[50, 50] == 1 and alpha[5, 5] < 1e-6 and alpha.min() >= 0
    assert not figures.opacity(torch.zeros(9, 9)).any()


@pytest.mark.parametrize(
    ("side", "control", "said"),
    [(3, 9, "less than"), (9, 3, "more than"), (5, 5, "not distinguishable from that")],
)
def test_effective_fields_are_compared_with_random_weights(side: int, control: int, said: str) -> None:
    fields, chance = squares(side), squares(control)
    if side == control:  # half of the channels one way, half the other
        fields.maps[:8], chance.maps[8:] = squares(9).maps[:8], squares(9).maps[8:]
    page = shown(
        fields={"resnet34": {"layer2.3": fields, "layer3.5": fields}},
        controls={"resnet34": {"layer2.3": chance, "layer3.5": chance}},
    )
    text = higher.effective_answer(page).data
    size = f"{np.median(fields.diameter):.0f} px in"
    assert text.startswith(
        f"**Answer.** In ResNet34, the median effective diameter is {size} conv. layer 15 and {size} conv. layer 27; "
    )
    assert text.endswith(f"; this is {said} with random weights in conv. layer 15 and conv. layer 27.")


def test_medians_of_diameters_are_drawn_beside_those_with_random_weights() -> None:
    names = ("resnet34", "plainnet34", "resnet18")
    sides = {name: {layer: 3 + 2 * i for i, layer in enumerate(NETWORKS[name].high_layers)} for name in names}
    fields = {name: {layer: squares(side) for layer, side in layers.items()} for name, layers in sides.items()}
    chance = {name: {layer: squares(side + 6) for layer, side in layers.items()} for name, layers in sides.items()}
    (ax,) = higher.effective_diameters(shown(names, fields=fields, controls=chance)).axes
    drawn = zip(zip(ax.lines[::2], ax.lines[1::2], strict=True), names, strict=True)
    for pair, name in drawn:
        for points, measured in zip(pair, (fields[name], chance[name]), strict=True):
            medians = [stats.median(each.diameter, groups=each.channels) for each in measured.values()]
            assert points.get_ydata().tolist() == pytest.approx([each.value for each in medians])
            assert points.get_color() == NETWORKS[name].colour
        assert [points.get_markerfacecolor() for points in pair] == [NETWORKS[name].colour, "white"]
        assert [points.get_label() for points in pair] == [
            NETWORKS[name].title, f"{NETWORKS[name].title}, random weights",
        ]  # fmt: skip
    ends = [(bar.get_segments()[0][0][1], bar.get_segments()[0][1][1]) for bar in ax.collections]
    first = stats.median(fields["resnet34"]["layer2.3"].diameter, groups=fields["resnet34"]["layer2.3"].channels)
    assert len(ends) == 6 and ends[0] == pytest.approx((first.low, first.high))
    places = np.concatenate([line.get_xdata() for line in ax.lines])
    assert len(set(places.round(6))) == 18 and abs(places - places.round()).max() < 0.5  # none hides another
    labels = [label.get_text() for label in ax.get_xticklabels()]
    assert labels == [f"conv. {number}\nfield of 31 px" for number in (15, 27, 33)]


def test_a_network_without_stimuli_is_told() -> None:
    none = {"plainnet34": {"layer4.2": squares(3, 0)}}
    page = shown(["plainnet34"], fields=none, controls=none)
    assert "In PlainNet34, no channel depends on the image" in higher.effective_answer(page).data


# -- do the pictures work as stimuli? ----------------------------------------------------------------------------------


def test_points_and_intervals_of_identification() -> None:
    generator = torch.Generator().manual_seed(0)
    networks = ("resnet34", "plainnet34", "resnet18")
    found = {
        name: {
            layer: {kind: torch.rand(9, generator=generator) for kind in KINDS}
            for layer in NETWORKS[name].picture_layers
        }
        for name in networks
    }
    figure = higher.identification_by_layer(shown(networks, scores=found))
    for ax, (name, layers) in zip(figure.axes, found.items(), strict=True):
        assert NETWORKS[name].title in ax.get_title()
        *points, chance = ax.lines
        assert set(chance.get_ydata()) == {0.5} and chance.get_linestyle() == "--"
        assert len({line.get_marker() for line in points}) == len({line.get_color() for line in points}) == 3
        for line, bars, kind in zip(points, ax.collections, KINDS, strict=True):
            expected = [stats.mean(each[kind]) for each in layers.values()]
            assert line.get_ydata().tolist() == pytest.approx([each.value for each in expected])
            ends = [(segment[0][1], segment[1][1]) for segment in bars.get_segments()]
            assert np.array(ends) == pytest.approx(np.array([[each.low, each.high] for each in expected]))
    labels = [[label.get_text() for label in ax.get_xticklabels()] for ax in figure.axes]
    assert labels[0] == labels[1] == ["pooling", "conv. 3", "conv. 7", "conv. 15"]
    assert labels[2] == ["pooling", "conv. 3", "conv. 5", "conv. 9"]


@pytest.mark.parametrize(
    ("means", "words", "verdict"),
    [
        (
            (0.5, 0.7, 0.95),
            ("firing neurons scores 0.50", "not distinguishable from chance", "maximization scores 0.95"),
            ("better than the mean over all firing neurons", "better than the mean over the strongest"),
        ),
        (
            (0.9, 0.6, 0.3),
            (
                "firing neurons scores 0.90",
                "n = 12 channels), better than chance",
                "n = 12 channels), worse than chance",
            ),
            ("worse than the mean over all firing neurons", "worse than the mean over the strongest"),
        ),
        (
            (0.8, 0.6, 0.8),
            ("maximization scores 0.80", "n = 12 channels), better than chance"),
            ("not distinguishable from the mean over all firing neurons", "better than the mean over the strongest"),
        ),
    ],
)
def test_words_about_pictures_follow_the_numbers(means: tuple, words: tuple, verdict: tuple) -> None:
    found = {"resnet34": {"maxpool": scores(0.9, 0.9, 0.9), "layer2.3": scores(*means)}}
    page = shown(scores=found)
    text = higher.identification_answer(page).data
    assert "In the highest layer tested of ResNet34, conv. layer 15," in text
    assert all(each in text for each in words)
    leads = [stats.mean(found["resnet34"]["layer2.3"][KINDS[2]] - found["resnet34"]["layer2.3"][k]) for k in KINDS[:2]]
    said = ", and ".join(f"{each}, with a difference of {lead:+.3f}" for each, lead in zip(verdict, leads, strict=True))
    assert f"On the same channels, maximization is {said}." in text


def test_scores_of_one_in_every_channel_are_better_than_chance() -> None:
    perfect = {**scores(0.7, 0.7, 0.7), KINDS[-1]: torch.ones(12, dtype=torch.float64)}
    text = higher.identification_answer(shown(scores={"resnet34": {"layer2.3": perfect}})).data
    assert "maximization scores 1.00 (1.00 to 1.00, n = 12 channels), better than chance" in text


# -- can one see anything in the mean? ---------------------------------------------------------------------------------

CHEQUERED = (1.0 - 2.0 * (torch.arange(25).view(5, 5) % 2)).expand(3, 5, 5)


def averaged(contrast: float) -> tuple[LayerResponses, Tensor]:
    """Responses of three channels and the images: two with a mean of some contrast, one that never fires.

    Stimuli of channel 0 have a contrast of 0.1 and of 0.2, a third drives it no more; that of channel 1 has 0.3, and
    sticks out of its image by a row and a column.
    """
    images = torch.full((4, 3, 9, 9), 0.5)
    for image, size in zip(images, (0.1, 0.2, 0.4), strict=False):
        image[:, 2:7, 2:7] += size * CHEQUERED
    images[3, :, :4, :4] += 0.3 * CHEQUERED[:, 1:, 1:]
    values = torch.tensor([[3.0, 2.0, 0.0], [1.0, -math.inf, -math.inf], [0.0, 0.0, 0.0]])
    numbers = torch.tensor([[0, 1, 2], [3, -1, -1], [0, 1, 2]])
    positions = torch.full((3, 3, 2), 3)
    positions[1] = torch.tensor([[0, 0], [-1, -1], [-1, -1]])
    means = 0.4 + contrast * CHEQUERED.expand(3, 3, 5, 5)
    count, nothing = torch.ones(3, 5, 5).long(), torch.zeros(3, dtype=torch.float64)
    count[2] = 0
    found = LayerResponses(
        ReceptiveField(5, 1, -1), 4, 100, values, numbers, positions, torch.tensor([5, 5, 0]), nothing, nothing,
        torch.zeros(3, 23).long(), means, count, means, count, torch.full((3, 5, 5), 0.4), torch.full((3, 5, 5), 0.5),
    )  # fmt: skip
    return found, images


@pytest.mark.parametrize(("contrast", "hard"), [(0.2, False), (0.004, True)])
@pytest.mark.parametrize("name", ["resnet34", "resnet18", "resnet50"])
def test_contrast_that_the_mean_has_kept(
    contrast: float, hard: bool, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a network whose means are as strong as their stimuli, and of one whose means are hard to read."""
    network = NETWORKS[name]
    (found, images), last = averaged(contrast), NETWORKS[name].last_block(2)
    double = dataclasses.replace(found, mean_stimulus=0.4 + 2 * (found.mean_stimulus - 0.4))
    monkeypatch.setattr(results, "stimuli", lambda run, name: {network.figure_layers[-1]: double})
    monkeypatch.setattr(results, "mean_stimuli", lambda run, name, layer: {last: found}[layer])
    run: Any = SimpleNamespace(network=NETWORKS.get, stimuli=[(image, 0) for image in images])
    assert higher.judged(network) == (network.last_block(1), last)
    below, kept = (results.readability.function(run, name, layer) for layer in higher.judged(network))
    single = [math.sqrt((0.1**2 + 0.2**2) / 2), 0.3]
    assert kept[:2].tolist() == pytest.approx([contrast / each for each in single], rel=1e-4) and kept[2].isnan()
    torch.testing.assert_close(below, 2 * kept, rtol=1e-4, atol=0, equal_nan=True)
    assert (kept[:2] < higher.HARD).all() == hard


def test_every_cell_on_how_readable_means_are() -> None:
    names = ("resnet34", "plainnet18")
    kept = {
        name: {layer: torch.linspace(0.01, 0.1, 9) * (1 + i) for i, layer in enumerate(higher.judged(NETWORKS[name]))}
        for name in names
    }
    found = {
        name: {layer: scores(0.5 + i / 10, 0.6, 0.7) for i, layer in enumerate(higher.judged(NETWORKS[name]))}
        for name in names
    }
    found["plainnet18"]["layer2.1"][KINDS[2]][:3] = math.nan
    table = higher.readability_table(shown(names, scores=found, readable=kept))
    assert table.index.tolist() == [
        (NETWORKS[name].title, NETWORKS[name].layer_title(layer)) for name in names for layer in kept[name]
    ]
    for (name, layer), (_, row) in zip([(n, x) for n in names for x in kept[n]], table.iterrows(), strict=True):
        assert row.tolist() == [
            stats.median(kept[name][layer]).brief(".1%"),
            *(stats.mean(found[name][layer][kind]).brief(".2f") for kind in KINDS),
            9 if layer == "layer2.1" else 12,
        ]  # fmt: skip
    assert table.iloc[0].iloc[0].startswith("5.5% (") and list(table.columns[1:4]) == list(KINDS)


def test_silent_channels_leave_dashes() -> None:
    nothing = {kind: torch.full((5,), math.nan) for kind in KINDS}
    layers = higher.judged(NETWORKS["plainnet34"])
    page = shown(
        ["plainnet34"], scores={"plainnet34": dict.fromkeys(layers, nothing)},
        readable={"plainnet34": dict.fromkeys(layers, torch.full((5,), math.nan))},
    )  # fmt: skip
    assert higher.readability_table(page).to_numpy().tolist() == [["–"] * 4 + [0]] * 2
    assert "In PlainNet34, too few channels fire to tell." in higher.identification_answer(page).data


def test_other_pages_get_the_numbers_of_this_one(monkeypatch: pytest.MonkeyPatch) -> None:
    by_seed = [scores(0.5, 0.7, 0.9), scores(0.6, 0.7, 0.8), scores(0.4, 0.7, 0.8)]
    monkeypatch.setattr(results, "identification", lambda run, network, layer: by_seed[run.seed])
    runs: list[Any] = [SimpleNamespace(seed=seed) for seed in range(3)]
    first = stats.mean(by_seed[0][KINDS[2]] - by_seed[0][KINDS[0]])
    assert higher.lead(runs[:1], "resnet34", "layer2.3") == first
    assert f"with a difference of {first:+.3f}" in higher.identification_answer(
        shown(scores={"resnet34": {"layer2.3": by_seed[0]}})
    ).data  # fmt: skip
    assert higher.score(runs[:1], "resnet34", "layer2.3", KINDS[1]) == stats.mean(by_seed[0][KINDS[1]])
    several = higher.lead(runs, "resnet34", "layer2.3")
    assert several.of == "seeds" and several.n == 3 and several.value == pytest.approx((0.4 + 0.2 + 0.4) / 3)
