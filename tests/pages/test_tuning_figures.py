"""The figures of tuning draw what was measured."""

import numpy as np
import pytest

from rfviz.kernels import controls, tuning
from rfviz.nets import models
from rfviz.pages import tuning_figures


@pytest.fixture
def tuned(resnet: models.Net34) -> dict[str, tuning.Tuning]:
    return {layer: tuning.measure(resnet, layer) for layer in ("maxpool", "layer1.0")}


def test_orientation_curves_close_the_circle_beside_their_control(
    resnet: models.Net34, tuned: dict[str, tuning.Tuning]
) -> None:
    other = controls.control(resnet, "random weights")
    chance = {layer: tuning.measure(other, layer) for layer in tuned}
    figure = tuning_figures.orientation_curves({"resnet34": tuned}, {"resnet34": chance}, {"resnet34": 2})
    for ax, (layer, expected) in zip(figure.axes, tuned.items(), strict=True):
        grey, own = ax.lines
        curve = expected.orientation_curve[2]
        assert own.get_xdata().tolist() == [15 * i for i in range(13)]
        np.testing.assert_allclose(own.get_ydata(), [*(curve / curve.max()), curve[0] / curve.max()])
        control = chance[layer].orientation_curve[2]
        np.testing.assert_allclose(grey.get_ydata()[:12], control / control.max())
        assert f"channel 2: OSI {expected.selectivity[2]:.2f}" in ax.get_title()


def test_distributions_count_every_channel_that_responds(resnet: models.Net34, tuned: dict[str, tuning.Tuning]) -> None:
    chance = {layer: {kind: [each, each] for kind in controls.CONTROLS} for layer, each in tuned.items()}
    figure = tuning_figures.selectivity_distributions({"resnet34": tuned}, {"resnet34": chance})
    for ax, expected in zip(figure.axes, tuned.values(), strict=True):
        trained, random, _ = ax.lines
        known = expected.selectivity[expected.selectivity.isfinite()].sort().values
        np.testing.assert_allclose(trained.get_xdata(), known)
        np.testing.assert_allclose(trained.get_ydata(), 100 * np.arange(1, len(known) + 1) / len(known))
        assert len(random.get_xdata()) == 2 * len(known)


def test_colour_curves_show_three_axes_and_the_class(resnet: models.Net34) -> None:
    measured = {"maxpool": tuning.measure_colour(resnet, "maxpool")}
    (ax,) = tuning_figures.colour_curves({"resnet34": measured}, {"resnet34": 1}).axes
    for line, found in zip(ax.lines, measured["maxpool"].along.values(), strict=True):
        np.testing.assert_allclose(line.get_ydata(), found.frequency_curve[1])
    assert measured["maxpool"].classes[1] in ax.get_title()
    assert [label.get_text() for label in ax.get_xticklabels()][:2] == ["0", "1"]
