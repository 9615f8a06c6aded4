"""Figures draw what the results say."""

import dataclasses
import io

import numpy as np
import pytest
import torch
from PIL import Image

from rfviz.images.data import Evaluation
from rfviz.images.whitening import NONE
from rfviz.kernels import maximization, responses
from rfviz.kernels.responses import LayerResponses
from rfviz.kernels.similarity import pairing
from rfviz.lab.presets import FIGURE_LAYERS
from rfviz.nets import models
from rfviz.pages import figures


@pytest.fixture
def found(resnet: models.Net34, tiles: Evaluation) -> dict[str, LayerResponses]:
    return responses.collect(resnet, tiles, FIGURE_LAYERS, strongest=8)


def pixels(figure: figures.Figure) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(figure._repr_png_())))


def images_in(figure: figures.Figure) -> list[np.ndarray]:
    return [np.asarray(image.get_array()) for axes in figure.findobj(figures.Axes) for image in axes.get_images()]


def test_stretch_takes_the_mean_colour_off_and_uses_one_gain() -> None:
    image = torch.full((3, 4, 4), 0.6)
    image[0, 1, 1] += 0.1
    stretched, gain = figures.stretch(image)
    centred = image - image.mean(dim=(1, 2), keepdim=True)
    assert gain == pytest.approx(0.5 / centred.abs().max().item())
    torch.testing.assert_close(stretched, 0.5 + gain * centred)
    assert stretched.max() == pytest.approx(1.0)
    assert figures.stretch(torch.full((3, 4, 4), 0.3))[1] == 0.0


def test_min_max_is_joint_over_colours() -> None:
    image = torch.tensor([[[0.0]], [[1.0]], [[4.0]]])
    assert figures.min_max(image).flatten().tolist() == [0.0, 0.25, 1.0]
    assert figures.min_max(torch.full((3, 2, 2), 7.0)).unique().tolist() == [0.5]


def test_preferred_stimuli_shows_the_patches_with_grey_outside(
    found: dict[str, LayerResponses], tiles: Evaluation
) -> None:
    shown = images_in(figures.preferred_stimuli(tiles, found, 2))
    expected = []
    for result in found.values():
        patches, inside = responses.preferred_stimuli(tiles, result, 2)
        for value, patch, there in zip(result.top_values[2], patches, inside, strict=True):
            if value > 0:
                expected.append(torch.where(there, patch, torch.tensor(figures.NO_IMAGE)).permute(1, 2, 0).numpy())
    assert len(shown) == len(expected) > 16
    for one, other in zip(shown, expected, strict=True):
        np.testing.assert_array_equal(one, other)


def test_a_channel_that_never_fires_is_said_to_be_so(found: dict[str, LayerResponses], tiles: Evaluation) -> None:
    result = found["maxpool"]
    silent = dataclasses.replace(
        result, top_values=torch.zeros_like(result.top_values), positive_count=torch.zeros_like(result.positive_count)
    )
    figure = figures.preferred_stimuli(tiles, {"maxpool": silent}, 0)
    assert images_in(figure) == []
    assert "never fires" in figure.subfigs[0].get_suptitle()
    assert len(images_in(figures.mean_stimuli(torch.rand(6, 3, 7, 7), {"maxpool": silent}, 0, 8))) == 1  # the filter


def test_mean_stimuli_prints_gain_and_count(resnet: models.Net34, found: dict[str, LayerResponses]) -> None:
    figure = figures.mean_stimuli(resnet.conv1.weight, found, 1, 8)
    labels = {axes.get_xlabel() for axes in figure.axes}
    for result in found.values():
        assert f"N = {int(result.positive_count[1]):,}" in labels
        assert f"gain {figures.stretch(result.mean_stimulus[1])[1]:.1f}" in labels
    assert len(images_in(figure)) == 1 + 3 * len(found)


def test_maximization_shows_image_and_curve(resnet: models.Net34) -> None:
    found = {layer: maximization.maximize(resnet, layer, steps=3) for layer in FIGURE_LAYERS}
    figure = figures.maximization(found, 4, NONE)
    curves = [line.get_ydata() for axes in figure.axes for line in axes.lines if len(line.get_ydata()) == 4]
    for curve, result in zip(curves, found.values(), strict=True):
        np.testing.assert_array_equal(curve, result.activations[:, 4].numpy())
    assert [image.shape[0] for image in images_in(figure)] == [11, 27, 59]


def test_figure_1_frames_are_the_composed_fields() -> None:
    figure = figures.receptive_field_overview()
    frames = [
        [(p.get_width(), p.get_edgecolor()[:3]) for p in axes.patches if not p.get_fill()] for axes in figure.axes
    ]
    assert [[width for width, _ in panel] for panel in frames] == [[3, 5], [3], []]


def test_figure_s1_is_to_scale() -> None:
    figure = figures.receptive_fields_to_scale()
    drawn = {patch.get_label(): patch.get_width() for axes in figure.findobj(figures.Axes) for patch in axes.patches}
    assert drawn["layer1.2: 59 px"] == 59
    assert drawn["layer4.2: 899 px"] == 899


def test_training_curves_and_examples(tiles: Evaluation) -> None:
    entry = {"epoch": 1, "loss": 1.0, "evaluation_loss": 1.2, "train_top1": 0.4, "evaluation_top1": 0.3}
    history = [entry, {**entry, "epoch": 2, "loss": 0.5}]
    figure = figures.training_curves({"resnet34": [history], "plainnet34": [history]}, chance=0.25)
    assert [axes.get_ylabel() for axes in figure.axes] == ["cross-entropy (nats)", "top-1 accuracy (%)"]
    assert pixels(figure).shape[1] == 1152
    assert len(images_in(figures.example_images(tiles, tiles.classes))) == 4


def test_class_names_are_text() -> None:
    images = Evaluation(_Odd())
    figure = figures.example_images(images, images.classes)
    assert figure.axes[0].get_title() == "<b>$x^2$"
    pixels(figure)  # a formula would not parse


class _Odd:
    classes = ("<b>$x^2$", "other")
    labels = (0, 1)
    fingerprint = "odd"

    def __len__(self) -> int:
        return 2

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        return torch.zeros(3, 8, 8, dtype=torch.uint8), index


def test_firing_rates_cross_out_silent_channels(found: dict[str, LayerResponses]) -> None:
    result = found["maxpool"]
    count = result.positive_count.clone()
    count[2] = 0
    silent = dataclasses.replace(result, positive_count=count)
    figure = figures.firing_rates({"resnet34": [silent]})
    crosses = [line for line in figure.axes[0].lines if line.get_marker() == "x"]
    assert [list(line.get_xdata()) for line in crosses] == [[5]]  # sorted: the silent one is last
    figure = figures.firing_rates({"resnet34": [result, silent, silent]})
    assert len(figure.axes[0].lines) == 5
    labels = figure.axes[0].get_legend_handles_labels()[1]
    assert labels == ["ResNet34", "ResNet34: never fires"]


def test_curves_of_several_seeds_are_mean_and_range() -> None:
    entry = {"epoch": 1, "loss": 1.0, "evaluation_loss": 1.2, "train_top1": 0.4, "evaluation_top1": 0.3}
    replicas = [[{**entry, "loss": loss}] for loss in (1.0, 2.0, 6.0)]
    figure = figures.training_curves({"resnet34": replicas}, chance=0.25)
    loss = figure.axes[0]
    assert list(loss.lines[0].get_ydata()) == [3.0]
    assert (
        loss.collections[0].get_datalim(loss.transData).ymin,
        loss.collections[0].get_datalim(loss.transData).ymax,
    ) == (1, 6)


def test_the_poster_shows_the_channels_with_the_highest_contrast(
    resnet: models.Net34, found: dict[str, LayerResponses], tiles: Evaluation
) -> None:
    result, driven = found["layer1.0"], maximization.maximize(resnet, "layer1.0")
    means = result.strongest_stimulus
    contrast = (means - means.mean((2, 3), keepdim=True)).abs().amax((1, 2, 3))
    best = sorted(sorted(range(6), key=lambda channel: -contrast[channel])[:4])
    figure = figures.poster(tiles, result, driven, NONE, channels=4)
    assert [ax.get_title() for ax in figure.axes[:4]] == [f"channel {channel}" for channel in best]
    shown = images_in(figure)
    assert len(shown) == 12
    for i, channel in enumerate(best):
        np.testing.assert_array_equal(shown[4 + i], figures.stretch(means[channel])[0].permute(1, 2, 0).numpy())
        np.testing.assert_array_equal(shown[8 + i], driven.images[channel].clamp(0, 1).permute(1, 2, 0).numpy())


def test_pairings_are_points_over_what_chance_gives() -> None:
    pictures = torch.rand(5, 3, 9, 9, generator=torch.Generator().manual_seed(0))
    pair, empty = ("maxpool", "layer1.0"), ("layer1.0", "layer1.1")
    found = {pair: pairing(pictures, pictures), empty: pairing(pictures[:0], pictures[:0])}
    (ax,) = figures.channel_pairings({"resnet34": found, "plainnet34": found}).axes
    points = [line for line in ax.lines if line.get_marker() in ("o", "s")]
    assert [line.get_ydata()[0] for line in points] == pytest.approx([1.0, 1.0])  # none where there are no channels
    bars = [line for line in ax.lines if line.get_linewidth() == 7 and len(line.get_ydata())]
    low, high = np.percentile(found[pair].by_chance, [2.5, 97.5])
    assert bars[0].get_ydata().tolist() == pytest.approx([low, high])


def test_the_profile_shows_every_relu_in_per_cent() -> None:
    profile = {"conv1": 0.5, "layer1.0.relu1": 0.7, "layer1.0": 0.2}
    (ax,) = figures.sparsity_profile({"resnet34": profile}).axes
    whole, outer, inner = ax.lines
    assert whole.get_ydata().tolist() == pytest.approx([50, 70, 20])
    assert outer.get_xdata().tolist() == [0, 2] and inner.get_xdata().tolist() == [1]
