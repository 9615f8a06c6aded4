"""Centre and surround of planted pictures, whose answer is known, and a slow reference."""

import math
import time

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from rfviz.errors import RfvizError
from rfviz.kernels.tuning import centre_surround, opponent
from rfviz.kernels.tuning.centre_surround import SURROGATES, measure

GREY = torch.full((3,), opponent.GREY, dtype=torch.float64)
BROWN = torch.tensor([0.467, 0.386, 0.362], dtype=torch.float64)
"""The mean colour of the photographs of scikit-image."""


def around(background: torch.Tensor, shape: torch.Tensor, colour: list[float]) -> torch.Tensor:
    """Return the picture `(1, 3, R, R)` that differs from a background by a colour times a shape, for adapted cones."""
    cones = torch.from_numpy(opponent.LMS_FROM_RGB)
    axes = cones @ torch.stack([opponent.direction(axis) for axis in opponent.AXES], dim=1)
    grey, light = cones @ opponent.to_linear(GREY), opponent.to_linear(background)
    back = torch.linalg.inv(cones) @ torch.diag((cones @ light) / grey) @ axes
    seen = torch.tensor(colour, dtype=torch.float64)[:, None, None] * shape
    return opponent.to_srgb(light[:, None, None] + torch.einsum("ij,jyx->iyx", back, seen))[None]


def distance(side: int) -> torch.Tensor:
    place = torch.arange(side, dtype=torch.float64) - (side - 1) / 2
    return torch.hypot(place[:, None], place[None, :])


def difference_of_gaussians(side: int) -> torch.Tensor:
    """A spot within a ring, without a mean; 1 in the centre."""
    narrow, wide = (torch.exp(-(distance(side) ** 2) / (2 * (side / part) ** 2)) for part in (8, 4))
    shape = narrow / narrow.sum() - wide / wide.sum()
    return shape / shape.max()


def noise(count: int, side: int, seed: int = 0, size: float = 0.05) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return (0.5 + size * torch.randn(count, 3, side, side, generator=generator)).clamp(0, 1)


COLOURS = {
    "yellow within blue": [0.0, 0.0, -0.6],
    "blue within yellow": [0.0, 0.0, 0.6],
    "red within green": [0.0, 0.6, 0.0],
    "orange within sky": [0.1, 0.4, -0.4],
}


@pytest.mark.parametrize("background", [GREY, BROWN], ids=["on grey", "on brown"])
@pytest.mark.parametrize("side", [11, 28, 59])
@pytest.mark.parametrize("colour", COLOURS)
def test_opponent_pictures_are_found(colour: str, side: int, background: torch.Tensor) -> None:
    found = measure(around(background, difference_of_gaussians(side), COLOURS[colour]), background)
    assert found.colour_opponent.tolist() == [True]
    assert 0.1 < found.index.item() < 0.3


@pytest.mark.parametrize("contrast", [0.02, 1])
def test_yellow_in_the_middle_of_blue_is_equal_and_opposite(contrast: float) -> None:
    shape = torch.where(distance(31) < 31 / 4, 1.0, -1.0)
    found = measure(around(BROWN, shape, [0, 0, -0.5 * contrast]), BROWN)
    assert found.index.item() == pytest.approx(1, abs=1e-6)
    assert found.colour_opponent.item() and not found.luminance_opponent.item()


def test_saturated_colours() -> None:
    yellow, blue, red = (
        torch.tensor(each)[:, None, None] for each in ([0.8, 0.8, 0.1], [0.3, 0.3, 0.9], [0.9, 0.2, 0.2])
    )
    inside = distance(31) < 31 / 4
    found = measure(torch.stack([torch.where(inside, yellow, blue), torch.where(inside, yellow, red)]), GREY)
    assert found.colour_opponent.tolist() == [True, False]  # yellow within red is not opponent for cones


def test_pictures_without_opponent_colours_are_not() -> None:
    side = 27
    spot = torch.exp(-(distance(side) ** 2) / (2 * (side / 8) ** 2))
    grey = noise(20, side, size=0.2)[:, :1].expand(-1, 3, -1, -1)
    for pictures, background in (
        (torch.rand(20, 3, 1, 1, generator=torch.Generator().manual_seed(0)).expand(-1, -1, side, side), BROWN),
        (BROWN[None, :, None, None].expand(1, -1, side, side), BROWN),
        (BROWN.float()[None, :, None, None].expand(1, -1, side, side), BROWN),
        (grey, GREY),
        (grey, BROWN),
        (around(GREY, spot, [0, 0, -0.6]), GREY),  # one colour in the middle of nothing
        (around(GREY, distance(side) / side, [0, 0.6, 0]), GREY),
    ):
        assert not measure(pictures, background).colour_opponent.any()


def test_light_and_shade_on_a_coloured_background_are_no_colours() -> None:
    light = opponent.to_linear(BROWN)[:, None, None] * (1 + 0.4 * difference_of_gaussians(27))
    found = measure(opponent.to_srgb(light)[None], BROWN)
    assert found.luminance_opponent.item() and not found.colour_opponent.item()
    assert found.index.item() == 0  # nothing but rounding
    assert opponent.opponent(opponent.to_srgb(light))[1].std() > 0.01  # it does move along L-M for other cones
    added = (BROWN[:, None, None] + 0.2 * difference_of_gaussians(27))[None]
    found = measure(added, BROWN)
    assert found.luminance_opponent.item() and found.index.item() > 0.1
    assert not found.chromatic.item() and not found.colour_opponent.item()


@pytest.mark.parametrize("side", [11, 16])
def test_noise_is_opponent_as_often_as_chance_has_it(side: int) -> None:
    found = measure(noise(600, side), GREY)
    for p in (found.p, found.luminance_p):
        assert 0.02 < (p <= 0.05).double().mean() < 0.08
    assert found.colour_opponent.double().mean() < 0.08


def test_p_of_smooth_noise_is_no_lower_than_chance_has_it() -> None:
    spectrum = torch.fft.fft2(torch.randn(400, 3, 15, 15, generator=torch.Generator().manual_seed(1)))
    frequency = torch.hypot(torch.fft.fftfreq(15)[:, None], torch.fft.fftfreq(15)[None, :]).clamp(min=0.01)
    smooth = torch.fft.ifft2(spectrum / frequency).real
    found = measure(0.5 + 0.1 * smooth / smooth.abs().amax((1, 2, 3), keepdim=True), GREY)
    assert (found.p <= 0.05).double().mean() < 0.08


@pytest.mark.parametrize("side", [11, 12])
def test_a_quarter_turn_changes_nothing_but_luck(side: int) -> None:
    pictures = torch.cat([noise(8, side), around(GREY, difference_of_gaussians(side), [0.2, 0.5, -0.5]).float()])
    found = measure(pictures, BROWN)
    for turns in (1, 2, 3):
        turned = measure(torch.rot90(pictures, turns, (2, 3)), BROWN)
        for name in ("index", "luminance_index", "centre", "surround", "profiles"):
            torch.testing.assert_close(getattr(turned, name), getattr(found, name), rtol=1e-8, atol=1e-12)
        assert turned.colour_opponent[-1] == found.colour_opponent[-1]


@given(factor=st.floats(1e-3, 1), seed=st.integers(0, 5))
def test_the_answer_does_not_depend_on_contrast(factor: float, seed: int) -> None:
    light = opponent.to_linear(noise(2, 11, seed, 0.1).double()) - opponent.to_linear(BROWN)[:, None, None]
    full, faint = (
        measure(opponent.to_srgb(opponent.to_linear(BROWN)[:, None, None] + each * light), BROWN)
        for each in (1, factor)
    )
    torch.testing.assert_close(faint.index, full.index, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(faint.p, full.p, rtol=0, atol=1.01 / SURROGATES)
    assert (full.index >= 0).all() and (full.index <= 1).all()


def slowly(seen: np.ndarray, phases: torch.Tensor) -> dict[str, float]:
    """Centre, surround and p of one picture `(3, R, R)`, pixel by pixel; every surrogate is drawn."""
    side = seen.shape[-1]
    middle = (side - 1) / 2

    def regions(picture: np.ndarray) -> tuple[np.ndarray, list[np.ndarray]]:
        centre, weight = np.zeros(3), 0.0
        quarters: list[list[np.ndarray]] = [[], [], [], []]
        for y in range(side):
            for x in range(side):
                dy, dx = y - middle, x - middle
                away = math.hypot(dy, dx)
                if away < side / 4:
                    one = math.exp(-(away**2) / (2 * (side / 8) ** 2))
                    centre, weight = centre + one * picture[:, y, x], weight + one
                elif away <= side / 2:
                    quarters[int(math.atan2(dy, dx) % (2 * math.pi) / (math.pi / 2) + 1e-9) % 4].append(
                        picture[:, y, x]
                    )
        return centre / weight, [np.mean(each, axis=0) for each in quarters]

    def against(picture: np.ndarray) -> float:
        centre, quarters = regions(picture)
        return max(0, min(-(centre[1:] @ each[1:]) for each in quarters))

    centre, quarters = regions(seen)
    surround = np.mean(quarters, axis=0)
    largest = max(np.linalg.norm(centre[1:]), np.linalg.norm(surround[1:]))
    frequencies = [
        (k // side, k % side) for k in range(1, side * side) if k <= (-(k // side) % side) * side + -k % side
    ]
    at_least = 0
    for of_one in phases.tolist():
        turn = np.ones((side, side), complex)
        for (ky, kx), phase in zip(frequencies, of_one, strict=True):
            turn[-ky % side, -kx % side] = np.exp(-1j * phase)
            turn[ky, kx] = np.exp(1j * phase)
        surrogate = np.fft.ifft2(np.fft.fft2(seen) * turn)
        assert np.abs(surrogate.imag).max() < 1e-9
        np.testing.assert_allclose(np.abs(np.fft.fft2(surrogate.real)), np.abs(np.fft.fft2(seen)), atol=1e-9)
        at_least += against(surrogate.real) >= against(seen)
    index = max(0, -(centre[1:] @ surround[1:])) / largest**2
    return {"centre": centre, "surround": surround, "index": index, "p": (1 + at_least) / (1 + len(phases))}


@pytest.mark.parametrize("side", [9, 8])
def test_against_a_slow_reference(side: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(centre_surround, "SURROGATES", 40)
    pictures = torch.cat([around(BROWN, difference_of_gaussians(side), [0.1, 0.3, -0.3]).float(), noise(3, side)])
    found = measure(pictures, BROWN, seed=3)
    generator = torch.Generator().manual_seed(3)
    for i, seen in enumerate(centre_surround.deviations(pictures, BROWN).numpy()):
        expected = slowly(seen, centre_surround._phases(side, generator))
        for name, value in expected.items():
            np.testing.assert_allclose(getattr(found, name)[i].numpy(), value, rtol=1e-9, atol=1e-12, err_msg=name)


@pytest.mark.parametrize("side", [5, 11, 12])
def test_profiles_are_means_over_rings(side: int) -> None:
    pictures = noise(2, side)
    found = measure(pictures, GREY)
    seen = opponent.opponent(pictures)  # on this grey, nothing is to be adapted
    torch.testing.assert_close(centre_surround.deviations(pictures, GREY), seen, rtol=1e-9, atol=1e-12)
    away = distance(side)
    assert len(found.distances) == math.ceil(side / 2)
    for ring, mean in enumerate(found.distances.tolist()):
        there = (away >= ring) & (away < ring + 1)
        assert mean == pytest.approx(away[there].mean().item())
        torch.testing.assert_close(found.profiles[:, :, ring], seen[:, :, there].mean(-1))


def test_pictures_that_are_not_there_are_left_out() -> None:
    pictures = noise(4, 11)
    pictures[1] = torch.nan
    there = torch.tensor([True, False, True, True])
    found = measure(pictures, GREY, there)
    alone = measure(pictures[there], GREY)
    for name in ("index", "luminance_index", "p", "luminance_p", "centre", "surround", "profiles"):
        assert getattr(found, name)[1].isnan().all(), name
        assert torch.equal(getattr(found, name)[there], getattr(alone, name)), name
    assert not (found.colour_opponent | found.luminance_opponent | found.chromatic)[1]
    nothing = measure(pictures[:0], GREY)
    assert nothing.index.shape == nothing.p.shape == nothing.colour_opponent.shape == (0,)


def test_a_black_background_gives_numbers() -> None:
    found = measure(noise(2, 11), torch.zeros(3))
    assert found.index.isfinite().all() and not found.colour_opponent.any()


def test_the_same_each_time_and_fast() -> None:
    pictures = noise(64, 59)
    began = time.perf_counter()
    found = measure(pictures, GREY)
    assert time.perf_counter() - began < 5
    assert torch.equal(found.p[:3], measure(pictures[:3], GREY).p)
    assert not torch.equal(found.p[:3], measure(pictures[:3], GREY, seed=1).p)


@pytest.mark.parametrize(
    ("shape", "background", "there", "said"),
    [
        ((2, 3, 4, 4), 3, 2, r"pictures have the shape \(2, 3, 4, 4\): it must be \(N, 3, R, R\), with R from 5 px up"),
        ((2, 1, 9, 9), 3, 2, r"pictures have the shape \(2, 1, 9, 9\)"),
        ((2, 3, 9, 8), 3, 2, r"pictures have the shape \(2, 3, 9, 8\)"),
        ((3, 9, 9), 3, 3, r"pictures have the shape \(3, 9, 9\)"),
        ((2, 3, 9, 9), 4, 2, r"the shapes \(4,\) and \(2,\): they must be \(3,\) and \(2,\)"),
        ((2, 3, 9, 9), 3, 5, r"the shapes \(3,\) and \(5,\): they must be \(3,\) and \(2,\)"),
    ],
)
def test_shapes_are_checked(shape: tuple[int, ...], background: int, there: int, said: str) -> None:
    with pytest.raises(RfvizError, match=said):
        measure(torch.zeros(shape), torch.zeros(background), torch.ones(there, dtype=torch.bool))


def test_values_that_are_not_finite_are_named() -> None:
    pictures = noise(3, 9)
    pictures[2, 0, 0, 0] = torch.inf
    with pytest.raises(RfvizError, match=r"^picture 2 has a value that is not finite: .*leave the picture out\.$"):
        measure(pictures, GREY)
    with pytest.raises(RfvizError, match="the background has a value that is not finite"):
        measure(pictures[:2], torch.full((3,), torch.nan))
