"""Gabor fits of filters whose parameters are known."""

import math

import numpy as np
import pytest
import torch

from rfviz.kernels.tuning import gabor


def planted(
    degrees: float, frequency: float, phase: float = 0.5, colours=(1.0, 1.0, 1.0), side: int = 7
) -> torch.Tensor:
    place = np.arange(side) - (side - 1) / 2
    y, x = np.meshgrid(place, place, indexing="ij")
    values = np.array([1, math.radians(degrees), frequency, phase, 0.3, -0.4, math.log(2.0), math.log(1.6)])
    shape = gabor.wave(values, y, x)
    return torch.tensor(np.array(colours)[:, None, None] * shape)


@pytest.mark.parametrize("frequency", [0.15, 0.25])
@pytest.mark.parametrize("degrees", [15 * i for i in range(12)])
def test_planted_gabors_are_found(degrees: float, frequency: float) -> None:
    found = gabor.fit(planted(degrees, frequency))
    assert abs((found.orientation - degrees + 90) % 180 - 90) < 5
    assert found.frequency == pytest.approx(frequency, rel=0.15)
    assert found.goodness > 0.99
    assert found.profile == pytest.approx(1)


@pytest.mark.parametrize("seed", [0, 1, 2, 65, 85])  # in the last two, higher frequencies fitted as well
def test_the_frequency_is_one_that_the_filter_has(seed: int) -> None:
    """Within one cycle per side of the strongest of its spectrum, also where a filter is no Gabor."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:7, :7] - 3.0
    f, phase, angle = rng.uniform(0.05, 0.5), rng.uniform(0, 6), rng.uniform(0, 3)
    wave = np.cos(2 * np.pi * f * (x * np.sin(angle) + y * np.cos(angle)) + phase)
    noisy = np.exp(-(x**2 + y**2) / rng.uniform(2, 20)) * wave + rng.normal(0, 0.1, (7, 7))
    fitted = gabor.fit(torch.from_numpy(np.stack([noisy] * 3)))
    power = np.abs(np.fft.fft2(noisy - noisy.mean(), (112, 112)))
    steps = np.fft.fftfreq(112)
    strongest = np.hypot(*np.meshgrid(steps, steps)).flat[power.argmax()]
    assert abs(fitted.frequency - min(0.5, strongest)) <= 1 / 7 + 1e-6


def test_all_of_the_parameters() -> None:
    found = gabor.fit(planted(40, 0.2))
    assert found.centre == pytest.approx((0.3, -0.4), abs=0.02)
    assert found.width == pytest.approx((2.0, 1.6), rel=0.02)


def test_the_slopes_are_those_of_small_steps() -> None:
    place = np.arange(9) - 4.0
    y, x = np.meshgrid(place, place, indexing="ij")
    values = np.array([0.7, 0.9, 0.17, -1.1, 0.6, -0.8, math.log(1.7), math.log(2.3)])
    for i, step in enumerate(1e-6 * np.eye(8)):
        by_steps = (gabor.wave(values + step, y, x) - gabor.wave(values - step, y, x)) / 2e-6
        assert gabor.slopes(values, y, x)[..., i] == pytest.approx(by_steps, abs=1e-8)


def test_a_coloured_gabor_is_one_profile_and_two_colours_are_not() -> None:
    red_green = gabor.fit(planted(60, 0.2, colours=(1.0, -0.8, 0.1)))
    assert red_green.profile == pytest.approx(1)
    assert red_green.goodness > 0.99
    mixed = planted(0, 0.2, colours=(1.0, 0, 0)) + planted(90, 0.2, colours=(0, 0, 1.0))
    assert 0.4 < gabor.fit(mixed).profile < 0.7


def test_noise_fits_badly_and_nothing_not_at_all() -> None:
    generator = torch.Generator().manual_seed(0)
    goodness = [gabor.fit(torch.randn(3, 7, 7, generator=generator)).goodness for _ in range(6)]
    assert np.median(goodness) < 0.8
    assert gabor.fit(torch.zeros(3, 7, 7)) is None


def test_the_same_filter_gives_the_same_fit() -> None:
    weight = torch.randn(3, 7, 7, generator=torch.Generator().manual_seed(3))
    assert gabor.fit(weight) == gabor.fit(weight)


def test_the_profile_is_the_best_of_one_colour_axis() -> None:
    weight = torch.randn(3, 5, 5, generator=torch.Generator().manual_seed(1)).double().numpy()
    profile, share = gabor.spatial_profile(weight)
    assert np.linalg.norm(profile) == pytest.approx(1)
    colours = weight.reshape(3, -1) @ profile.ravel()
    rest = weight - colours[:, None, None] * profile
    assert (rest**2).sum() / (weight**2).sum() == pytest.approx(1 - share)
    assert colours.sum() >= 0
