"""Figures of any network: every picture is what was measured, any layers and channels fit, and no titles touch."""

import copy
import dataclasses
import itertools
import re

import numpy as np
import pytest
import torch
import torchvision
from matplotlib.figure import Figure
from matplotlib.text import Text
from PIL import Image
from torch import nn

from rfviz.errors import RfvizError
from rfviz.images.data import Evaluation
from rfviz.kernels.effective import effective_fields
from rfviz.kernels.responses import LayerResponses, collect
from rfviz.kernels.responses import preferred_stimuli as cut_stimuli
from rfviz.nets import receptive_field
from rfviz.nets.receptive_field import ReceptiveField
from rfviz.pages import figures
from rfviz.pages.style import NO_IMAGE, BookFigure, Place, stretch

LAYERS = [
    "features.0", "features.1", "features.3.squeeze_activation", "features.3", "features.4.expand1x1_activation",
    "features.4", "features.6", "features.7",
]  # fmt: skip


@pytest.fixture(scope="module")
def net() -> nn.Module:
    torch.manual_seed(0)
    return torchvision.models.squeezenet1_1(num_classes=3).eval()


@pytest.fixture(scope="module")
def found(net: nn.Module, tiles: Evaluation) -> dict[str, LayerResponses]:
    return collect(net, tiles, LAYERS, 6, strongest=9, borders=True)


def overlaps(figure: Figure) -> list[tuple[str, str]]:
    """The texts of a figure that touch, as drawn."""
    assert isinstance(figure, BookFigure)
    figure._repr_png_()
    texts = [text for text in figure.findobj(Text) if text.get_text().strip() and text.get_visible()]
    boxes = [(text.get_text(), text.get_window_extent()) for text in texts]
    whole = figure.bbox
    outside = [
        (name, "the edge") for name, box in boxes if box.x0 < -1 or box.x1 > whole.x1 + 1 or box.y1 > whole.y1 + 1
    ]
    return outside + [
        (one, other) for (one, first), (other, second) in itertools.combinations(boxes, 2) if first.overlaps(second)
    ]


def pictures(figure: Figure) -> list[np.ndarray]:
    return [np.asarray(image.get_array()) for ax in figure.findobj() if hasattr(ax, "images") for image in ax.images]


@pytest.mark.parametrize("count", [5, *(pytest.param(count, marks=pytest.mark.thorough) for count in (1, 3, 4, 8))])
@pytest.mark.parametrize("first", [False, True])
def test_titles_do_not_touch_however_many_layers(net, found, tiles, count: int, first: bool) -> None:
    some = {layer: found[layer] for layer in LAYERS[:count]}
    ahead = ("features.0", net.features[0].weight.detach()) if first else None
    assert not overlaps(figures.mean_stimuli(some, 7, ahead, 9))
    assert not overlaps(figures.preferred_stimuli(tiles, some, 7))
    touching = overlaps(figures.firing_rates(some))
    assert all(re.fullmatch(r"\W?[\d.]+", one) for one, _ in touching)  # ticks out of sight


def test_stimuli_are_those_of_the_channel(found, tiles) -> None:
    layer, channel = "features.3", 5
    drawn = pictures(figures.preferred_stimuli(tiles, {layer: found[layer]}, channel))
    patches, inside = cut_stimuli(tiles, found[layer], channel)
    assert len(drawn) == len(patches) > 0
    for picture, patch, there in zip(drawn, patches, inside, strict=True):
        expected = torch.where(there, patch, torch.tensor(NO_IMAGE)).permute(1, 2, 0)
        np.testing.assert_allclose(picture, expected.numpy(), atol=1e-6)


def test_faint_responses_are_told_apart_from_none(found) -> None:
    layer, channel = "features.3", 5
    faint = dataclasses.replace(found[layer], top_values=found[layer].top_values * 1e-4)
    best = float(faint.top_values[channel, 0])
    assert best < 0.01 and f"responses {best:.2g} to" in figures._heading(layer, faint, channel, 3.0)
    assert f"responses {1e4 * best:.2f} to" in figures._heading(layer, found[layer], channel, 3.0)


def test_means_are_drawn_as_they_are_and_stretched(net, found) -> None:
    layer = "features.3"
    channel = int(found[layer].positive_count.argmax())
    filters = net.features[0].weight.detach()
    drawn = pictures(figures.mean_stimuli({layer: found[layer]}, channel, ("features.0", filters)))
    assert len(drawn) == 4
    low, high = filters[channel].min(), filters[channel].max()
    np.testing.assert_allclose(drawn[0], ((filters[channel] - low) / (high - low)).permute(1, 2, 0), atol=1e-6)
    np.testing.assert_allclose(drawn[1], found[layer].mean_stimulus[channel].permute(1, 2, 0), atol=1e-6)
    for picture, deviation in zip(
        drawn[2:], (found[layer].mean_deviation[channel], found[layer].strongest_deviation[channel]), strict=True
    ):
        np.testing.assert_allclose(picture, stretch(deviation)[0].permute(1, 2, 0), atol=1e-6)
    without = {layer: collect(net, torch.rand(2, 3, 64, 64), layer, 1, mean_stimulus=False)[layer]}
    with pytest.raises(RfvizError, match=r"of features\.3 there is no mean"):
        figures.mean_stimuli(without, 0)


def test_a_sheet_has_a_picture_for_each_channel_under_its_number(found) -> None:
    each = found["features.3"]
    figure = figures.sheet(each.strongest_deviation, counts=each.positive_count, stretched=True)
    assert [ax.get_title() for ax in figure.axes if ax.images] == [str(number) for number in range(each.channels)]
    assert not overlaps(figure)
    silent = each.positive_count == 0
    for channel, picture in enumerate(pictures(figure)):
        expected = stretch(each.strongest_deviation[channel])[0].permute(1, 2, 0).numpy()
        np.testing.assert_allclose(
            picture, np.full_like(expected, NO_IMAGE) if silent[channel] else expected, atol=1e-6
        )
    some = figures.sheet(each.mean_stimulus, [9, 2], places=lambda called, channel: Place(f"#{channel}", "there"))
    some._repr_png_()
    assert [ax.get_title() for ax in some.axes if ax.images] == ["9", "2"]
    assert [link.address for link in some.links()] == ["#9", "#2"]


def test_silent_channels_are_crosses(found) -> None:
    layers = {name: copy.copy(found[name]) for name in LAYERS[:2]}
    (ax,) = figures.firing_rates(layers).axes
    for line, each in zip([line for line in ax.get_lines() if line.get_marker() != "x"], layers.values(), strict=True):
        assert line.get_ydata().tolist() == sorted((100 * each.firing_rate).tolist(), reverse=True)


def test_effective_fields_need_no_control(net, found, tiles) -> None:
    layer = "features.4"
    channels = found[layer].competes.nonzero().flatten().tolist()[:3]
    fields = effective_fields(net, tiles, layer, found[layer], channels, top=2)
    figure = figures.effective_fields(tiles, {layer: fields}, index=0)
    assert len(pictures(figure)) == 3 and f"channel {channels[0]}" in figure.axes[0].get_ylabel()
    both = figures.effective_fields(tiles, {layer: fields}, {layer: fields})
    drawn = pictures(both)
    assert len(drawn) == 4 and np.array_equal(drawn[2], drawn[3])
    assert not overlaps(both)
    strongest = figures.effective_fields(tiles, {layer: fields}, index=fields.channels.tolist().index(channels[1]))
    assert all(map(np.array_equal, pictures(both), pictures(strongest)))  # of the channel in the middle


def seeing_all(found):
    everything = ReceptiveField(receptive_field.BOUNDLESS, 1, 0)
    whole = dataclasses.replace(found["features.0"], receptive_field=everything, mean_stimulus=None)
    return {"end": whole}


def test_what_matters_is_drawn_on_pictures_as_well(net, found, tiles) -> None:
    layer = "features.4"
    pictures_ = [Image.fromarray((255 * tiles[i][0]).byte().permute(1, 2, 0).numpy()) for i in range(len(tiles))]
    channel = int(found[layer].competes.nonzero()[0])
    fields = effective_fields(net, pictures_, layer, found[layer], [channel], top=1)
    assert len(pictures(figures.effective_fields(pictures_, {layer: fields}))) == 3


@pytest.mark.parametrize(
    ("draw", "said"),
    [
        (lambda found, images: figures.preferred_stimuli(images, {}, 0), "at least one layer"),
        (lambda found, images: figures.preferred_stimuli(images, found, 64), "there is no channel 64"),
        (lambda found, images: figures.mean_stimuli(found, 999), "there is no channel 999"),
        (lambda found, images: figures.mean_stimuli(found["features.0"], 3), "{name: what was found}"),
        (lambda found, images: figures.preferred_stimuli(images, found["features.0"], 3), "{name: what was found}"),
        (lambda found, images: figures.preferred_stimuli([images[0]], found, 0), "responses are of 66 images, but 1"),
        (
            lambda found, images: figures.mean_stimuli(seeing_all(found), 3),
            "of end there is no mean: it sees the whole",
        ),
        (lambda found, images: figures.sheet(torch.zeros(4, 1, 5, 5)), "shape (4, 1, 5, 5)"),
        (lambda found, images: figures.sheet(torch.zeros(4, 3, 5, 5), [4]), "there is no channel 4"),
        (lambda found, images: figures.firing_rates({}), "at least one layer"),
    ],
)
def test_what_cannot_be_drawn_is_refused_in_one_line(draw, said: str, found, tiles) -> None:
    with pytest.raises(RfvizError) as caught:
        draw(found, tiles)
    assert said in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize("inches", [0.5, 1.0, 3.0])
def test_long_names_break_behind_dots(inches: float) -> None:
    name = "features.denseblock4.denselayer16.conv2"
    broken = figures.wrapped(f"{name}\n7 × 7 px", inches)
    assert broken.replace("\n", "").startswith(name) and broken.endswith("px")
    assert ("features.\ndenseblock4.\ndenselayer16.\nconv2\n" in broken) == (inches < 2)
    assert inches < 2 or broken.count("\n") == 1


def test_fields_of_very_different_sizes_leave_room_for_titles() -> None:
    """As of AlexNet: 11, 51, 99 and 163 px side by side."""
    room = 1129
    sides = [figures.COLUMNS * (size + 1 + size // 30) + 1 for size in (11, 51, 99, 163)]
    assert figures._widths(sides, room) == [room // 4] * 4
    sides = [figures.COLUMNS * (size + 1) + 1 for size in (11, 27, 29)]
    assert figures._widths(sides, room) == figures._multiples(sides, room)


def test_layers_of_different_numbers_of_channels_share_an_axis(found) -> None:
    (ax,) = figures.firing_rates({"features.0": found["features.0"], "features.3": found["features.3"]}).axes
    assert ax.get_xlabel() == "channels, sorted (%)"
    assert {line.get_xdata()[-1] for line in ax.get_lines() if line.get_marker() != "x"} == {100}


def test_filters_are_drawn_as_they_lie_in_a_network(net) -> None:
    weight = net.features[0].weight
    assert len(pictures(figures.sheet(weight, [2, 0], stretched=True))) == 2
    tall = figures.sheet(torch.rand(2, 3, 8, 4))
    assert {each.shape for each in pictures(tall)} == {(8, 4, 3)}
    with pytest.raises(RfvizError, match="no channels were asked for"):
        figures.sheet(weight, [])


def test_grey_images_are_drawn_grey(tiles) -> None:
    torch.manual_seed(0)
    grey = torch.stack([tiles[i][0][:1] for i in range(4)])
    layers = collect(nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU()), grey, ["0"], 2, borders=True)
    channel = int(layers["0"].competes.nonzero()[0])
    for drawn in pictures(figures.preferred_stimuli(grey, layers, channel)):
        assert drawn.shape[2] == 3 and np.array_equal(drawn[..., 0], drawn[..., 2])


def test_stimuli_of_layers_that_see_everything_are_whole_images(tiles) -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1))
    layers = collect(net, tiles, ["2"], 2)
    figure = figures.preferred_stimuli(tiles, layers, int(layers["2"].competes.nonzero()[0]))
    (heading,) = [text.get_text() for text in figure.findobj(Text) if "responses" in text.get_text()]
    assert "whole image" in heading
    (panel,) = [ax for ax in figure.findobj() if getattr(ax, "images", [])]
    assert panel.get_xlim()[1] < 5 * tiles[0][0].shape[-1]
