"""The figures of colour draw what was measured."""

import numpy as np
import pytest
import torch

from rfviz.kernels import controls
from rfviz.kernels.tuning import centre_surround, hue
from rfviz.kernels.tuning.opponent import AXES
from rfviz.nets import models
from rfviz.pages import colour_figures
from rfviz.pages.figures import BookFigure
from rfviz.pages.tuning_figures import AXIS_COLOURS


@pytest.fixture
def hues(resnet: models.Net34) -> dict[str, hue.HueTuning]:
    return {layer: hue.measure(resnet, layer, angles=6) for layer in ("maxpool", "layer1.0")}


def test_hue_curves_close_the_circle_beside_their_control(resnet: models.Net34, hues: dict[str, hue.HueTuning]) -> None:
    other = controls.control(resnet, "random weights")
    chance = {layer: hue.measure(other, layer, angles=6) for layer in hues}
    figure = colour_figures.hue_curves({"resnet34": hues}, {"resnet34": chance}, {"resnet34": 2})
    for ax, (layer, expected) in zip(figure.axes, hues.items(), strict=True):
        grey, own = ax.lines
        curve = expected.axis_curve[2]
        assert own.get_xdata().tolist() == [0, 30, 60, 90, 120, 150, 180]
        np.testing.assert_allclose(own.get_ydata(), [*(curve / curve.max()), curve[0] / curve.max()])
        control = chance[layer].axis_curve[2]
        np.testing.assert_allclose(grey.get_ydata()[:6], control / control.max())
        assert f"channel 2: axis {expected.preferred_axis[2]:.0f}°" in ax.get_title()
        names = [label.get_text() for label in ax.get_xticklabels()]
        assert names == ["0\nL-M", "45", "90\nS", "135", "180\nL-M"]
    assert len(figure._repr_png_()) > 5000


def test_a_silent_channel_has_a_flat_curve(hues: dict[str, hue.HueTuning]) -> None:
    found = hues["maxpool"]
    nothing = hue.HueTuning(found.gratings, found.angles, 0 * found.responses, 0 * found.blank)
    alone = {"resnet34": {"maxpool": nothing}}
    (ax,) = colour_figures.hue_curves(alone, alone, {"resnet34": 0}).axes
    assert ax.get_title().endswith("channel 0: no response")
    assert not np.any(ax.lines[1].get_ydata())


def test_profiles_of_both_pictures_of_each_layer() -> None:
    generator = torch.Generator().manual_seed(0)
    kinds = ("mean of the strongest", "maximization")
    fires = torch.tensor([True, True, False])
    structure = {
        model: {
            layer: {
                kind: centre_surround.measure(
                    torch.rand(3, 3, side, side, generator=generator), torch.tensor([0.5, 0.4, 0.4]), fires
                )
                for kind in kinds
            }
            for layer, side in (("maxpool", 11), ("layer1.0", 27))
        }
        for model in ("resnet34", "plainnet34")
    }
    figure = colour_figures.radial_profiles(structure, {"resnet34": 1, "plainnet34": 2})
    assert isinstance(figure, BookFigure)
    panels = np.array(figure.axes).reshape(4, 2)
    for row, kind in enumerate(kinds):
        for column, layer in enumerate(("maxpool", "layer1.0")):
            found = structure["resnet34"][layer][kind]
            luminance, *colours = (line.get_ydata() for line in panels[row, column].lines[:3])
            profile = found.profiles[1].numpy()
            np.testing.assert_allclose(luminance, profile[0] / np.abs(profile[0]).max())
            np.testing.assert_allclose(colours, profile[1:] / np.abs(profile[1:]).max())
            np.testing.assert_allclose(panels[row, column].lines[0].get_xdata(), found.distances)
            assert [line.get_color() for line in panels[row, column].lines[:3]] == [AXIS_COLOURS[a] for a in AXES]
            title = panels[row, column].get_title()
            assert f"index {found.index[1]:.2f}, p = {found.p[1]:.2g}" in title
            assert panels[row + 2, column].get_title() == "never fires"
    assert panels[0, 0].get_title().startswith("first pooling layer\n")
    assert [ax.get_ylabel() for ax in panels[:, 0]][::2] == [
        "ResNet34, channel 1\nmean of the strongest", "PlainNet34, channel 2\nmean of the strongest",
    ]  # fmt: skip
    assert len(figure._repr_png_()) > 5000
