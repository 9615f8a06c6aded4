"""Gratings are what they say, pixel by pixel."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from rfviz.errors import RfvizError
from rfviz.kernels.tuning.gratings import FINEST, Gratings, for_field, window


def test_every_pixel_by_hand() -> None:
    size = 9
    gratings = Gratings(size, (0.0, 30.0, 90.0), (0.1, 0.25), (0.0, 1.0, 2.5))
    inside = window(size)
    for degrees, patterns in zip(gratings.orientations, gratings.patterns(), strict=True):
        shown = patterns.reshape(2, 3, size, size)
        for f, frequency in enumerate(gratings.frequencies):
            for p, phase in enumerate(gratings.phases):
                for row in range(size):
                    for column in range(size):
                        # along the normal of the bars; y upwards is minus the row
                        x, up = column - 4, -(row - 4)
                        normal = x * math.sin(math.radians(degrees)) - up * math.cos(math.radians(degrees))
                        value = math.sin(2 * math.pi * frequency * normal + phase) * inside[row, column].item()
                        assert shown[f, p, row, column].item() == pytest.approx(value, abs=1e-6)


def test_bars_of_0_degrees_are_horizontal_and_of_90_vertical() -> None:
    horizontal, vertical = (pattern[0] for pattern in Gratings(21, (0.0, 90.0), (0.1,), (0.3,)).patterns())
    middle = slice(7, 14)  # where the window is 1
    assert horizontal[middle, middle].std(1).max() < 1e-6 < horizontal[middle, middle].std(0).min()
    assert vertical[middle, middle].std(0).max() < 1e-6 < vertical[middle, middle].std(1).min()
    # 45 degrees: constant from the lower left to the upper right
    (diagonal,) = (pattern[0] for pattern in Gratings(21, (45.0,), (0.1,), (0.3,)).patterns())
    assert diagonal[12, 8].item() == pytest.approx(diagonal[8, 12].item(), abs=1e-6)
    assert abs(diagonal[8, 8].item() - diagonal[12, 12].item()) > 0.1


def test_a_frequency_of_0_is_uniform() -> None:
    (patterns,) = Gratings(9, (30.0,), (0.0,), (0.0, math.pi / 2)).patterns()
    assert patterns[0].abs().max() == 0
    assert torch.equal(patterns[1], torch.ones(9, 9))


@given(size=st.integers(4, 40))
def test_the_window_is_round(size: int) -> None:
    inside = window(size)
    assert torch.allclose(inside, inside.T) and torch.allclose(inside, inside.flip(0))
    assert inside.min() >= 0 and inside.max() <= 1
    assert inside[size // 2, size // 2] > 0.9
    assert inside[0, 0] == 0


@pytest.mark.parametrize("size", [7, 11, 59, 899])
def test_they_are_scaled_to_the_field(size: int) -> None:
    gratings = for_field(size)
    assert gratings.shape == (12, 8, 8)
    assert gratings.frequencies[0] == pytest.approx(1 / size)
    assert gratings.frequencies[-1] == pytest.approx(FINEST)
    ratios = np.diff(np.log(gratings.frequencies))
    assert np.allclose(ratios, ratios[0])
    assert np.diff(gratings.orientations) == pytest.approx([15] * 11)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ((0, (0.0,), (0.1,), (0.0,)), "a size of 1 px or more"),
        ((5, (), (0.1,), (0.0,)), "an orientation, a frequency and a phase"),
        ((5, (180.0,), (0.1,), (0.0,)), "orientation is 180"),
        ((5, (0.0,), (0.6,), (0.0,)), "frequency is 0.6"),
    ],
)
def test_impossible_gratings(values: tuple, message: str) -> None:
    with pytest.raises(RfvizError, match=message):
        Gratings(*values)
