"""Cone-opponent colours, against skimage's colorimetry and by the properties that define them."""

import numpy as np
import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st
from skimage import color

from rfviz.errors import RfvizError
from rfviz.images.data import Evaluation
from rfviz.kernels.tuning import opponent


def xyz(srgb: torch.Tensor) -> np.ndarray:
    """Return CIE XYZ of one sRGB colour, by skimage."""
    return color.rgb2xyz(srgb.double().numpy()[None, None])[0, 0]


@given(value=st.floats(0, 1))
@example(value=0.04045)
def test_light_and_back(value: float) -> None:
    srgb = torch.tensor(value, dtype=torch.float64)
    # The standard rounds both of its thresholds: the two branches meet to within 3e-8 there, and not better.
    assert opponent.to_srgb(opponent.to_linear(srgb)).item() == pytest.approx(value, abs=5e-8)


def test_white_excites_all_cones_alike() -> None:
    assert opponent.LMS_FROM_RGB @ np.ones(3) == pytest.approx([1, 1, 1])


@pytest.mark.parametrize("contrast", [0.2, 0.9])
def test_what_each_axis_changes(contrast: float) -> None:
    ends = {
        axis: opponent.coloured(torch.tensor([[[-1.0]], [[0.0]], [[1.0]]]), opponent.direction(axis), contrast)[
            :, :, 0, 0
        ]
        for axis in opponent.AXES
    }
    for axis, (low, middle, high) in ends.items():
        assert middle.tolist() == pytest.approx([opponent.GREY] * 3, abs=1e-6)
        luminance = [xyz(colour)[1] for colour in (low, middle, high)]
        cones = [opponent.LMS_FROM_RGB @ opponent.to_linear(colour.double()).numpy() for colour in (low, middle, high)]
        up, down = cones[2] - cones[1], cones[0] - cones[1]
        assert up == pytest.approx(-down, rel=1e-4, abs=1e-6)
        if axis == "luminance":
            assert luminance[2] > luminance[1] > luminance[0]
            assert up / cones[1] == pytest.approx([(up / cones[1])[0]] * 3)
        else:
            assert luminance == pytest.approx([luminance[1]] * 3, rel=2e-3)
        if axis == "L-M":
            assert up[0] > 0 > up[1]
            assert abs(up[2]) < 1e-6
        if axis == "S":
            assert up[2] > 0.01
            assert np.abs(up[:2]).max() < 2e-3 * up[2]


def test_a_direction_reaches_the_edge_of_the_screen_and_no_further() -> None:
    background = opponent.to_linear(torch.tensor(opponent.GREY, dtype=torch.float64))
    for axis in opponent.AXES:
        there, back = background + opponent.direction(axis), background + opponent.direction(axis, -1)
        assert min(there.min(), back.min()) >= -1e-12 and max(there.max(), back.max()) <= 1
        assert min(there.min(), back.min()).item() == pytest.approx(0, abs=1e-9)


@given(
    values=st.lists(st.floats(-0.3, 0.3), min_size=3, max_size=3),
)
def test_opponent_coordinates_are_those_that_made_the_colour(values: list[float]) -> None:
    background = opponent.to_linear(torch.tensor(opponent.GREY, dtype=torch.float64))
    light = background + sum(v * opponent.direction(axis) for v, axis in zip(values, opponent.AXES, strict=True))
    found = opponent.opponent(opponent.to_srgb(light)[:, None, None])
    assert found[:, 0, 0].tolist() == pytest.approx(values, abs=1e-6)


def test_a_grey_photograph_has_no_colour(tiles: Evaluation) -> None:
    grey = tiles[0][0].mean(0, keepdim=True).expand(3, -1, -1)
    found = opponent.opponent(grey)
    assert found[1:].abs().max() < 1e-3 < found[0].abs().max()


def test_unknown_axis() -> None:
    with pytest.raises(RfvizError, match="unknown colour axis 'L-N'"):
        opponent.direction("L-N")
