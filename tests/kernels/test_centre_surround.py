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


def difference_of_gaussians(side: int, part: int = 8) -> torch.Tensor:
    """A spot within a ring, without a mean; 1 in the centre."""
    narrow, wide = (torch.exp(-(distance(side) ** 2) / (2 * (times * side / part) ** 2)) for times in (1, 2))
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
@pytest.mark.parametrize(
    ("side", "part"),
    [(11, 8), (59, 16), *(pytest.param(*each, marks=pytest.mark.thorough) for each in ((28, 8), (28, 16), (59, 11)))],
)
@pytest.mark.parametrize("colour", COLOURS)
def test_opponent_pictures_are_found(colour: str, side: int, part: int, background: torch.Tensor) -> None:
    found = measure(around(background, difference_of_gaussians(side, part), COLOURS[colour]), background)
    assert found.colour_opponent.item() and found.hue_differs.item()
    assert 0.1 < found.index.item() < 0.35
    assert found.angle.item() == pytest.approx(180, abs=0.1)


@pytest.mark.parametrize("contrast", [0.02, 1])
@pytest.mark.parametrize("part", [16, 8])
def test_yellow_in_the_middle_of_blue_is_equal_and_opposite(part: int, contrast: float) -> None:
    away = distance(32)
    shape = torch.where(away < 2 * 32 / part, 1.0, torch.where(away < 4 * 32 / part + 0.01, -1.0, 0.0))
    found = measure(around(BROWN, shape, [0, 0, -0.5 * contrast]), BROWN)
    assert found.index.item() == pytest.approx(1, abs=1e-6)
    assert found.colour_opponent.item() and found.hue_differs.item()
    torch.testing.assert_close(found.opposed[0, :, 2], torch.tensor([-0.5, 0.5]).double() * contrast)
    torch.testing.assert_close(found.differing, found.opposed)


SHADES = {"yellow": [0.8, 0.8, 0.1], "blue": [0.3, 0.3, 0.9], "red": [0.9, 0.2, 0.2], "green": [0.2, 0.7, 0.2]}


@pytest.mark.parametrize(
    ("inner", "outer", "differs", "opponent"),
    [
        ("yellow", "blue", True, True),
        ("red", "green", True, True),
        ("green", "red", True, True),
        ("yellow", "red", True, False),  # which is not opponent for cones
        ("red", "yellow", True, False),
        ("red", "red", False, False),
    ],
)
@pytest.mark.parametrize("part", [16, 8])
@pytest.mark.parametrize("side", [11, pytest.param(31, marks=pytest.mark.thorough)])
def test_saturated_colours(side: int, part: int, inner: str, outer: str, differs: bool, opponent: bool) -> None:
    one, other = (torch.tensor(SHADES[each])[:, None, None] for each in (inner, outer))
    found = measure(torch.where(distance(side) < 2 * side / part, one, other)[None], GREY)
    assert (found.hue_differs.item(), found.colour_opponent.item()) == (differs, opponent)


@given(turn=st.floats(0, 180), to=st.floats(0, 360))
def test_the_angle_is_that_between_the_hues(turn: float, to: float) -> None:
    """At any angle in the plane of L-M and S, each of which is measured in its own largest contrast."""
    picture = torch.zeros(1, 3, 32, 32, dtype=torch.float64) + opponent.GREY
    for inside, angle in ((True, to), (False, to + turn)):
        colour = [0, 0.2 * math.cos(math.radians(angle)), 0.2 * math.sin(math.radians(angle))]
        there = (distance(32) < 8) == inside
        picture = torch.where(there, around(GREY, torch.ones(32, 32).double(), colour), picture)
    found = measure(picture, GREY)
    assert found.angle.nan_to_num(0).item() == pytest.approx(turn, abs=1e-3)
    if abs(turn - 30) > 1:
        assert found.hue_differs.item() == (turn > 30)
    assert found.index.item() == pytest.approx(max(0, -math.cos(math.radians(turn))), abs=1e-6)


def test_pictures_without_two_colours_have_none() -> None:
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
        (around(BROWN, spot, [0.1, 0.4, 0.3]), BROWN),
        (around(BROWN, spot > 0.5, [0, 0.6, 0]), BROWN),
        (around(GREY, distance(side) / side, [0, 0.6, 0]), GREY),
    ):
        found = measure(pictures, background)
        assert not (found.colour_opponent | found.hue_differs).any()


def test_light_and_shade_on_a_coloured_background_are_no_colours() -> None:
    light = opponent.to_linear(BROWN)[:, None, None] * (1 + 0.4 * difference_of_gaussians(27))
    found = measure(opponent.to_srgb(light)[None], BROWN)
    assert not (found.colour_opponent | found.hue_differs).item()
    assert found.index.item() == 0  # nothing but rounding
    assert opponent.opponent(opponent.to_srgb(light))[1].std() > 0.01  # it does move along L-M for other cones
    added = (BROWN[:, None, None] + 0.2 * difference_of_gaussians(27))[None]
    found = measure(added, BROWN)
    assert found.index.item() > 0.1 and found.angle.item() > 90
    assert not (found.chromatic | found.colour_opponent | found.hue_differs).item()


def test_a_faint_ring_is_no_second_hue() -> None:
    ring = (distance(32) >= 8) & (distance(32) <= 16)
    for faint in (0.05, 0.2):
        shape = torch.where(distance(32) < 8, 1.0, torch.where(ring, -faint, 0.0))
        found = measure(around(GREY, shape, [0, 0.5, 0]), GREY)
        assert found.angle.item() == pytest.approx(180, abs=0.1) and found.hue_p.item() < 0.02
        assert found.hue_differs.item() == found.colour_opponent.item() == (faint > centre_surround.LEAST)


@pytest.mark.parametrize("side", [5, 11, 16])
def test_noise_is_opponent_as_often_as_chance_has_it(side: int) -> None:
    found = measure(noise(600, side), GREY)
    for p in (found.p, found.hue_p):
        assert 0.02 < (p <= 0.05).double().mean() < 0.08
        assert 0.06 < (p <= 0.1).double().mean() < 0.14
    assert 0.42 < (found.hue_p <= 0.5).double().mean() < 0.58
    for passed in (found.colour_opponent, found.hue_differs):
        assert passed.double().mean() < 0.08


def test_p_of_smooth_noise_is_no_lower_than_chance_has_it() -> None:
    spectrum = torch.fft.fft2(torch.randn(400, 3, 15, 15, generator=torch.Generator().manual_seed(1)))
    frequency = torch.hypot(torch.fft.fftfreq(15)[:, None], torch.fft.fftfreq(15)[None, :]).clamp(min=0.01)
    smooth = torch.fft.ifft2(spectrum / frequency).real
    found = measure(0.5 + 0.1 * smooth / smooth.abs().amax((1, 2, 3), keepdim=True), GREY)
    assert (found.p <= 0.05).double().mean() < 0.08
    assert (found.hue_p <= 0.05).double().mean() < 0.08


@pytest.mark.parametrize("side", [11, 12])
def test_a_quarter_turn_changes_nothing_but_luck(side: int) -> None:
    pictures = torch.cat([noise(8, side), around(GREY, difference_of_gaussians(side), [0.2, 0.5, -0.5]).float()])
    found = measure(pictures, BROWN)
    for turns in (1, 2, 3):
        turned = measure(torch.rot90(pictures, turns, (2, 3)), BROWN)
        for name in ("index", "angle", "opposed", "differing"):
            torch.testing.assert_close(getattr(turned, name), getattr(found, name), rtol=1e-8, atol=1e-12)
        assert turned.colour_opponent[-1] and found.colour_opponent[-1]
        assert turned.hue_differs[-1] and found.hue_differs[-1]


@given(factor=st.floats(1e-3, 1), seed=st.integers(0, 5))
def test_the_answer_does_not_depend_on_contrast(factor: float, seed: int) -> None:
    light = opponent.to_linear(noise(2, 11, seed, 0.1).double()) - opponent.to_linear(BROWN)[:, None, None]
    full, faint = (
        measure(opponent.to_srgb(opponent.to_linear(BROWN)[:, None, None] + each * light), BROWN)
        for each in (1, factor)
    )
    torch.testing.assert_close(faint.index, full.index, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(faint.angle, full.angle, rtol=1e-4, atol=1e-3)
    for name in ("p", "hue_p"):
        torch.testing.assert_close(getattr(faint, name), getattr(full, name), rtol=0, atol=1.01 / SURROGATES)
    assert (full.index >= 0).all() and (full.index <= 1).all()


def slowly(seen: np.ndarray, phases: torch.Tensor) -> dict[str, float | np.ndarray]:
    """Centre, surround and p of one picture `(3, R, R)`, pixel by pixel; every surrogate is drawn."""
    side = seen.shape[-1]
    middle = (side - 1) / 2

    def regions(picture: np.ndarray, width: float) -> tuple[np.ndarray, list[np.ndarray]]:
        centre, weight = np.zeros(3), 0.0
        quarters: list[list[np.ndarray]] = [[], [], [], []]
        for y in range(side):
            for x in range(side):
                dy, dx = y - middle, x - middle
                away = math.hypot(dy, dx)
                if away < 2 * width:
                    one = math.exp(-(away**2) / (2 * width**2))
                    centre, weight = centre + one * picture[:, y, x], weight + one
                elif away <= 4 * width:
                    quarters[int(math.atan2(dy, dx) % (2 * math.pi) / (math.pi / 2) + 1e-9) % 4].append(
                        picture[:, y, x]
                    )
        return centre / weight, [np.mean(each, axis=0) for each in quarters]

    widths = [max(side / part, 0.5) for part in (16, 11, 8)]

    def against(picture: np.ndarray, width: float) -> float:
        centre, quarters = regions(picture, width)
        return max(0, min(-(centre[1:] @ each[1:]) for each in quarters))

    def apart(picture: np.ndarray, width: float) -> float:
        centre, quarters = regions(picture, width)
        c = centre[1:]
        return min(np.linalg.norm(c) * np.linalg.norm(each[1:]) - c @ each[1:] for each in quarters)

    frequencies = [
        (k // side, k % side) for k in range(1, side * side) if k <= (-(k // side) % side) * side + -k % side
    ]
    surrogates = []
    for of_one in phases.tolist():
        turn = np.ones((side, side), complex)
        for (ky, kx), phase in zip(frequencies, of_one, strict=True):
            turn[-ky % side, -kx % side] = np.exp(-1j * phase)
            turn[ky, kx] = np.exp(1j * phase)
        surrogate = np.fft.ifft2(np.fft.fft2(seen) * turn)
        assert np.abs(surrogate.imag).max() < 1e-9
        np.testing.assert_allclose(np.abs(np.fft.fft2(surrogate.real)), np.abs(np.fft.fft2(seen)), atol=1e-9)
        surrogates.append(surrogate.real)

    found: dict[str, float | np.ndarray] = {}
    for name, p, statistic in (("opposed", "p", against), ("differing", "hue_p", apart)):
        best = max(widths, key=lambda width, statistic=statistic: statistic(seen, width))
        centre, quarters = regions(seen, best)
        found[name] = np.stack([centre, np.mean(quarters, axis=0)])
        most = statistic(seen, best)
        found[p] = (1 + sum(max(statistic(each, w) for w in widths) >= most for each in surrogates)) / (1 + len(phases))
    centre, surround = found["opposed"][:, 1:]
    found["index"] = max(0, -(centre @ surround)) / max(np.linalg.norm(centre), np.linalg.norm(surround)) ** 2
    centre, surround = found["differing"][:, 1:]
    found["angle"] = math.degrees(math.acos(centre @ surround / np.linalg.norm(centre) / np.linalg.norm(surround)))
    return found


@pytest.mark.parametrize("side", [9, 8])
def test_against_a_slow_reference(side: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(centre_surround, "SURROGATES", 40)
    shapes = [around(BROWN, difference_of_gaussians(side, part), [0.1, 0.3, -0.3]).float() for part in (8, 16)]
    pictures = torch.cat([*shapes, noise(3, side)])
    found = measure(pictures, BROWN, seed=3)
    generator = torch.Generator().manual_seed(3)
    for i, seen in enumerate(centre_surround.deviations(pictures, BROWN).numpy()):
        expected = slowly(seen, centre_surround._phases(side, generator))
        for name, value in expected.items():
            np.testing.assert_allclose(getattr(found, name)[i].numpy(), value, rtol=1e-8, atol=1e-12, err_msg=name)


@pytest.mark.parametrize("side", [5, 6, 11, 12])
def test_on_grey_nothing_is_to_be_adapted(side: int) -> None:
    pictures = noise(2, side)
    seen = opponent.opponent(pictures)
    torch.testing.assert_close(centre_surround.deviations(pictures, GREY), seen, rtol=1e-9, atol=1e-12)


def test_pictures_that_are_not_there_are_left_out() -> None:
    pictures = noise(4, 11)
    pictures[1] = torch.nan
    there = torch.tensor([True, False, True, True])
    found = measure(pictures, GREY, there)
    alone = measure(pictures[there], GREY)
    for name in ("index", "angle", "p", "hue_p", "opposed", "differing"):
        assert getattr(found, name)[1].isnan().all(), name
        assert torch.equal(getattr(found, name)[there], getattr(alone, name)), name
    assert not (found.colour_opponent | found.hue_differs | found.chromatic)[1]
    nothing = measure(pictures[:0], GREY)
    assert nothing.index.shape == nothing.hue_p.shape == nothing.hue_differs.shape == (0,)


def test_a_black_background_gives_numbers() -> None:
    found = measure(noise(2, 11), torch.zeros(3))
    assert found.index.isfinite().all() and not (found.colour_opponent | found.hue_differs).any()


def test_the_same_each_time_and_fast() -> None:
    pictures = noise(64, 59)
    began = time.process_time()  # whatever else the machine does
    found = measure(pictures, GREY)
    assert time.process_time() - began < 5
    for name in ("p", "hue_p"):
        some = getattr(found, name)[:3]
        assert torch.equal(some, getattr(measure(pictures[:3], GREY), name))
        assert not torch.equal(some, getattr(measure(pictures[:3], GREY, seed=1), name))


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
