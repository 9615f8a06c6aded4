"""The figures of higher layers draw what was measured."""

import numpy as np
import pytest
import torch

from rfviz.images.data import Evaluation
from rfviz.kernels import controls
from rfviz.kernels.calibration import calibrated
from rfviz.kernels.effective_field import effective_fields
from rfviz.kernels.identification import KINDS
from rfviz.kernels.responses import collect, preferred_stimuli
from rfviz.nets import models
from rfviz.pages import figures, higher_layer_figures
from rfviz.pages.higher_layer_tables import mean_and_interval


def images_in(axes: list) -> list[np.ndarray]:
    return [np.asarray(image.get_array()) for ax in axes for image in ax.get_images()]


def test_what_matters_is_shown_and_the_rest_is_grey(resnet: models.Net34, tiles: Evaluation) -> None:
    found = collect(resnet, tiles, ["layer1.0", "layer3.0"], 1, mean_stimulus=False)
    other = calibrated(controls.control(resnet, "random weights"), tiles)
    fields, chance = (
        {layer: effective_fields(net, layer, tiles, each, [1, 2, 4], top=1) for layer, each in found.items()}
        for net in (resnet, other)
    )
    figure = higher_layer_figures.what_matters(tiles, fields, chance, columns=2)
    small, large = figure.subfigs
    assert len(small.subfigs) == len(large.subfigs) == 2
    assert "27 × 27 px" in small.get_suptitle()
    # A field that fits the image is cut out of it.
    patches, inside = preferred_stimuli(tiles, found["layer1.0"], 1)
    stimulus, matters, weights, random = images_in(small.subfigs[0].axes)
    expected = torch.where(inside[0], patches[0], torch.tensor(figures.NO_IMAGE)).permute(1, 2, 0)
    np.testing.assert_allclose(stimulus, expected)
    assert weights.shape == random.shape == (27, 27, 3)
    alpha = weights[..., :1]
    blended = np.where(inside[0][..., None], 0.5 + alpha * (stimulus - 0.5), figures.NO_IMAGE)
    np.testing.assert_allclose(matters, blended, atol=1e-6)
    # One that does not is shown with the whole image, the cross at the neuron.
    stimulus, _, weights, random = images_in(large.subfigs[0].axes)
    np.testing.assert_allclose(stimulus, tiles[int(fields["layer3.0"].images[0])][0].permute(1, 2, 0))
    np.testing.assert_allclose(random[..., 0], higher_layer_figures.opacity(chance["layer3.0"].maps[0]))
    (cross,) = large.subfigs[0].axes[1].lines
    y, x = fields["layer3.0"].centres[0].tolist()
    assert (cross.get_xdata()[0], cross.get_ydata()[0]) == (x, y)
    assert figure._repr_png_().startswith(b"\x89PNG")


def test_fewer_channels_than_columns_leave_room(resnet: models.Net34, tiles: Evaluation) -> None:
    found = collect(resnet, tiles, ["layer1.0"], 1, mean_stimulus=False)["layer1.0"]
    fields = {"layer1.0": effective_fields(resnet, "layer1.0", tiles, found, [3], top=1)}
    figure = higher_layer_figures.what_matters(tiles, fields, fields, columns=3)
    assert [len(images_in(group.axes)) for group in figure.subfigs[0].subfigs] == [4, 0, 0]


def test_opacity_is_full_where_weights_are_and_none_elsewhere() -> None:
    weights = torch.zeros(96, 96)
    weights[40:60, 40:60] = 1
    alpha = higher_layer_figures.opacity(weights)
    assert alpha[50, 50] == 1 and alpha[5, 5] < 1e-6 and alpha.min() >= 0
    assert not higher_layer_figures.opacity(torch.zeros(9, 9)).any()


def test_points_and_intervals_of_identification() -> None:
    generator = torch.Generator().manual_seed(0)
    layers = ("maxpool", "layer1.0", "layer2.3")
    scores = {
        model: {layer: {kind: torch.rand(9, generator=generator) for kind in KINDS} for layer in layers}
        for model in models.ARCHITECTURES
    }
    figure = higher_layer_figures.identification_by_layer(scores)
    for ax, (model, found) in zip(figure.axes, scores.items(), strict=True):
        assert models.PAPER_ARCHITECTURES[model] in ax.get_title()
        *points, chance = ax.lines
        assert set(chance.get_ydata()) == {0.5} and chance.get_linestyle() == "--"
        assert len({line.get_marker() for line in points}) == len({line.get_color() for line in points}) == 3
        for line, bars, kind in zip(points, ax.collections, KINDS, strict=True):
            expected = [mean_and_interval(found[layer][kind]) for layer in layers]
            assert line.get_ydata().tolist() == pytest.approx([each[0] for each in expected])
            ends = [(segment[0][1], segment[1][1]) for segment in bars.get_segments()]
            assert np.array(ends) == pytest.approx(np.array([each[1:] for each in expected]))
        assert [label.get_text() for label in ax.get_xticklabels()] == ["pooling", "conv. 3", "conv. 15"]
