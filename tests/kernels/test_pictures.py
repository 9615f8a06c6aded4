"""Correlations of pictures, against numpy one pair at a time, and measures of pictures that are known."""

import dataclasses

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from rfviz.images.data import Evaluation
from rfviz.kernels.pictures import (
    PERMUTATIONS,
    REACH,
    VANISHED,
    central,
    centrality,
    centred,
    correlations,
    diversity,
    equalized,
    outside_span,
    own_rank,
    pairing,
    reliability,
    spectrum,
)
from rfviz.kernels.responses import LayerResponses, collect, preferred_stimuli
from rfviz.nets.models import ResidualNet


def by_hand(first: torch.Tensor, second: torch.Tensor) -> float:
    vectors = []
    for image in (first, second):
        pixels = image.double().numpy()
        vectors.append(np.concatenate([colour.ravel() - colour.mean() for colour in pixels]))
    sizes = np.sqrt((vectors[0] @ vectors[0]) * (vectors[1] @ vectors[1]))
    return float(vectors[0] @ vectors[1] / sizes) if sizes else 0.0


def test_every_pair_of_photographs(some_tiles: torch.Tensor) -> None:
    first, second = some_tiles[:5, :, :20, :20], some_tiles[4:8, :, 10:30, 5:25]
    found = correlations(first, second)
    assert found.shape == (5, 4) and found.dtype == torch.float64
    for i in range(5):
        for j in range(4):
            assert found[i, j].item() == pytest.approx(by_hand(first[i], second[j]), abs=1e-9)


@given(gain=st.floats(0.01, 50), shift=st.lists(st.floats(-5, 5), min_size=3, max_size=3))
def test_brightness_colour_and_contrast_do_not_matter(gain: float, shift: list[float]) -> None:
    image = torch.rand(1, 3, 6, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    other = gain * image + torch.tensor(shift, dtype=torch.float64)[:, None, None]
    assert correlations(image, other).item() == pytest.approx(1, abs=1e-6)
    assert correlations(image, -other).item() == pytest.approx(-1, abs=1e-6)


def test_an_image_of_one_colour_is_like_none(tiles: Evaluation) -> None:
    flat = torch.tensor([0.2, 0.4, 0.6])[:, None, None].expand(3, 64, 64)[None]
    assert correlations(flat, tiles[0][0][None]).abs().item() < 1e-6
    assert centred(flat).abs().max() < 1e-6


def test_the_centre_is_the_centre() -> None:
    image = torch.arange(25.0).view(1, 5, 5)
    assert central(image, 3).tolist() == image[:, 1:4, 1:4].tolist()
    assert central(image, 5) is not None and torch.equal(central(image, 5), image)


def test_channels_that_keep_their_picture_beat_every_random_pairing(some_tiles: torch.Tensor) -> None:
    small = some_tiles[:, :, 20:31, 20:31]
    large = some_tiles[:, :, 16:35, 16:35]  # the same pictures with more around them
    found = pairing(small, large)
    assert found.same.tolist() == pytest.approx([1.0] * 12)
    assert len(found.by_chance) == PERMUTATIONS and found.same.mean() > found.by_chance.max()
    mixed = pairing(small, large.roll(1, 0))
    assert mixed.same.mean() < np.percentile(mixed.by_chance.numpy(), 95)
    assert mixed.same.tolist() == pytest.approx([by_hand(small[i], small[(i - 1) % 12]) for i in range(12)], abs=1e-9)
    assert torch.equal(pairing(small, large).by_chance, found.by_chance)  # the same each time


def test_a_random_pairing_averages_all_pairs(some_tiles: torch.Tensor) -> None:
    pictures = some_tiles[:6, :, :15, :15]
    expected = correlations(pictures, pictures.roll(2, 0)).mean().item()
    assert pairing(pictures, pictures.roll(2, 0)).by_chance.mean().item() == pytest.approx(expected, abs=0.02)


@pytest.mark.parametrize("count", [0, 1])
def test_too_few_channels_to_pair(count: int) -> None:
    found = pairing(torch.rand(count, 3, 7, 7), torch.rand(count, 3, 11, 11))
    assert (len(found.same), len(found.by_chance)) == (count, PERMUTATIONS if count else 0)


def normal(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def shifted_by_hand(first: torch.Tensor, second: torch.Tensor) -> float:
    """The largest correlation of the middle of one picture with a shifted piece of the other, one shift at a time."""
    side = first.shape[-1] - 2 * REACH
    middle = first[:, REACH : REACH + side, REACH : REACH + side]
    shifts = [(y, x) for y in range(2 * REACH + 1) for x in range(2 * REACH + 1)]
    return max(by_hand(middle, second[:, y : y + side, x : x + side]) for y, x in shifts)


def test_diversity_by_hand(resnet: ResidualNet, tiles: Evaluation) -> None:
    found = collect(resnet, tiles, ["layer1.0"], top_k=5, mean_stimulus=False)["layer1.0"]
    for side in (11, 27):
        measured = diversity(tiles, found, side)
        for channel in range(6):
            patches, inside = preferred_stimuli(tiles, found, channel)
            begin = (27 - side) // 2
            kept = [
                patch[:, begin : begin + side, begin : begin + side]
                for patch, there, value in zip(patches, inside, found.top_values[channel], strict=False)
                if value > 0 and there[begin : begin + side, begin : begin + side].all()
            ]
            alike = [shifted_by_hand(a, b) for i, a in enumerate(kept) for j, b in enumerate(kept) if i != j]
            expected = 1 - np.mean(alike) if alike else np.nan
            assert measured[channel].item() == pytest.approx(expected, abs=1e-6, nan_ok=True)


@pytest.fixture
def placed() -> tuple[torch.Tensor, LayerResponses]:
    """An image of noise, and what five channels say they respond to there: see the test."""
    images = torch.rand(2, 3, 96, 96, generator=torch.Generator().manual_seed(0))
    net = nn.Sequential(nn.Conv2d(3, 5, 21, bias=False))
    found = collect(net, images, ["0"], top_k=4, mean_stimulus=False)["0"]
    corners = [(0, 0), (REACH, 0), (0, REACH), (REACH, REACH)]
    places = [
        [(30, 30)] * 4,
        [(30 + y, 30 + x) for y, x in corners],
        [(30 + 2 * y, 30 + 2 * x) for y, x in corners],  # further than the reach
        [(5, 5), (5, 60), (60, 5), (60, 60)],
        [(30, 30)] * 4,  # which fire once
    ]
    values = torch.ones(5, 4)
    values[4, 1:] = 0
    zeros = torch.zeros(5, 4, dtype=torch.int64)
    return images, dataclasses.replace(found, top_positions=torch.tensor(places), top_images=zeros, top_values=values)


def test_one_picture_that_is_shifted_is_not_diverse(placed: tuple[torch.Tensor, LayerResponses]) -> None:
    same, near, far, noise, once = diversity(*placed, 21).tolist()
    assert same == pytest.approx(0, abs=1e-9) and near == pytest.approx(0, abs=1e-9)
    assert far > 0.8 and noise > 0.85  # the best of 25 shifts is a little alike
    assert np.isnan(once)


def test_centrality_of_a_spot_of_a_rim_and_of_noise() -> None:
    spot, rim = torch.full((2, 3, 30, 30), 0.5)
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn(3, 30, 30, generator=generator)
    spot = spot + 0.01 * noise
    spot[:, 12:18, 12:18] += 0.3
    rim = rim + 0.01 * noise
    rim[:, :3] += 0.3
    found = centrality(torch.stack([spot - 0.5, rim - 0.5, noise, torch.zeros(3, 30, 30)]))
    assert found[0] > 1
    assert found[1] < -1
    assert abs(found[2]) < 0.15
    assert found[3].isnan()
    torch.testing.assert_close(centrality(10 * torch.stack([spot - 0.5, noise])), found[[0, 2]])


def test_reliability_is_a_correlation_of_centres(some_tiles: torch.Tensor) -> None:
    for side, centre in ((59, 19), (28, 10), (7, 3), (8, 4)):  # a third, of the parity of the side
        first, second = some_tiles[:5, :, :side, :side], some_tiles[4:9, :, :side, :side]
        begin = (side - centre) // 2
        rows = slice(begin, begin + centre)
        expected = [by_hand(a[:, rows, rows], b[:, rows, rows]) for a, b in zip(first, second, strict=True)]
        assert reliability(first, second).tolist() == pytest.approx(expected, abs=1e-9)


def test_a_centre_that_comes_back_is_reliable_whatever_is_around_it() -> None:
    first, second = normal(40, 3, 27), normal(40, 3, 27, seed=1)
    first, second = first[..., None] * normal(27, seed=2), second[..., None] * normal(27, seed=2).flip(0)
    assert reliability(first, second).abs().mean() < 0.3
    both = normal(40, 3, 9, 9, seed=3)
    for each in (first, second):
        each[..., 9:18, 9:18] = both + 0.1 * torch.rand(40, 3, 9, 9)
    assert reliability(first, second).min() > 0.95
    assert reliability(first, -second).max() < -0.95
    second[3] = 0
    assert reliability(first, second).isnan().tolist() == [i == 3 for i in range(40)]


def radial(pictures: torch.Tensor, gains: list[float]) -> torch.Tensor:
    """Multiply the amplitude of every frequency by a gain that depends on how high it is."""
    side = pictures.shape[-1]
    rows, columns = torch.fft.fftfreq(side)[:, None], torch.fft.rfftfreq(side)[None, :]
    band = (torch.hypot(rows, columns) / 0.75 * len(gains)).long()
    return torch.fft.irfft2(torch.fft.rfft2(pictures) * torch.tensor(gains)[band], s=(side, side))


@pytest.mark.parametrize("side", [10, 11])
def test_equalized_pictures_have_that_spectrum_and_keep_their_phases(side: int) -> None:
    pictures = normal(4, 3, side, side)
    wanted = spectrum(normal(7, 3, side, side, seed=1))
    wanted[:, 0, 0] = 0  # the mean
    found = equalized(pictures, wanted)
    before, after = torch.fft.rfft2(pictures), torch.fft.rfft2(found)
    torch.testing.assert_close(after.abs(), wanted.expand(4, -1, -1, -1), rtol=0, atol=1e-9)
    turned = (after * before.conj() / before.abs()).flatten(2)[..., 1:]
    torch.testing.assert_close(turned.real, wanted.flatten(1)[None, :, 1:].expand(4, -1, -1), rtol=0, atol=1e-9)
    torch.testing.assert_close(equalized(found, wanted), found)


def test_a_spectrum_is_the_mean_of_those_of_pictures_of_norm_1() -> None:
    pictures = normal(3, 3, 8, 8) + 5
    expected = np.mean(
        [
            np.abs(np.fft.rfft2(each)) / np.sqrt((each**2).sum())
            for each in (pictures - pictures.mean((2, 3), keepdim=True)).numpy()
        ],
        axis=0,
    )
    np.testing.assert_allclose(spectrum(pictures).numpy(), expected, atol=1e-9)
    scales = torch.tensor([0.1, 1, 10])[:, None, None, None]
    torch.testing.assert_close(spectrum(scales * pictures), spectrum(pictures))


@given(gains=st.lists(st.floats(0.05, 20), min_size=6, max_size=6))
def test_a_filter_of_all_pictures_of_a_kind_changes_no_equalized_picture(gains: list[float]) -> None:
    pictures = normal(3, 3, 11, 11)
    wanted = spectrum(pictures)
    torch.testing.assert_close(equalized(radial(pictures, gains), wanted), equalized(pictures, wanted))


def test_own_pictures_rank_first_and_shuffled_ones_anywhere(some_tiles: torch.Tensor) -> None:
    photographs = some_tiles[:, :, 10:41, 10:41].double()
    assert own_rank(photographs, photographs).tolist() == [1.0] * 12
    assert own_rank(photographs, photographs.roll(6, 0)).mean() < 0.6  # of another photograph
    noise = normal(60, 3, 11, 11)
    assert own_rank(noise, normal(60, 3, 11, 11, seed=1)).mean().item() == pytest.approx(0.5, abs=0.12)
    assert own_rank(noise, -noise).tolist() == [0.0] * 60
    noise[:5] = 0.3 + 1e-8 * noise[:5]  # flat: like none, and nobody else's either
    ranks = own_rank(noise, noise)
    assert ranks[:5].isnan().all() and ranks[5:].tolist() == [1.0] * 55
    assert (
        own_rank(noise[5:], noise[5:].roll(1, 0)).tolist()
        == own_rank(noise, noise[[0, 1, 2, 3, 4, 59, *range(5, 59)]])[5:].tolist()
    )
    assert own_rank(noise[:1], noise[:1]).isnan().all() and len(own_rank(noise[:0], noise[:0])) == 0


@given(
    gains=st.lists(st.floats(0.05, 20), min_size=6, max_size=6),
    scale=st.floats(0.01, 100),
)
def test_how_smooth_one_kind_of_pictures_is_does_not_matter(gains: list[float], scale: float) -> None:
    """Not even if it is a mean, which is smooth, beside pictures that are not."""
    first = normal(8, 3, 11, 11)
    second = first + 0.5 * normal(8, 3, 11, 11, seed=1)
    assert (own_rank(first, second) == 1).all()
    assert (own_rank(radial(first, gains), scale * second) == 1).all()
    assert own_rank(radial(first, gains), second.roll(1, 0)).mean() < 0.8


def test_own_rank_by_hand() -> None:
    first, second = normal(5, 3, 8, 8), normal(5, 3, 8, 8, seed=1)
    second[4] = second[3]  # a tie
    amplitudes = (spectrum(first) + spectrum(second)) / 2
    a, b = equalized(first, amplitudes), equalized(second, amplitudes)
    found = own_rank(first, second)
    for i in range(5):
        moves = [(y, x) for y in range(-2, 3) for x in range(-2, 3)]
        own, *others = (
            max(by_hand(a[i], b[j].roll(move, (1, 2))) for move in moves) for j in [i, *(j for j in range(5) if j != i)]
        )
        score = sum(0.5 if abs(each - own) < 1e-9 else float(each < own) for each in others)
        assert found[i].item() == pytest.approx(score / 4)


def test_what_filters_make_lies_in_their_span_and_what_is_at_a_right_angle_does_not() -> None:
    filters = normal(6, 3, 7, 7)
    made = torch.einsum("cn,nkyx->ckyx", normal(4, 6, seed=1), filters)
    colour = torch.tensor([0.3, -2.0, 5.0])[:, None, None]
    assert outside_span(made + colour, filters).max() < 1e-9  # mean colours do not count
    vectors = centred(filters).flatten(1)
    other = centred(normal(4, 3, 7, 7, seed=2)).flatten(1)
    other = (other - other @ torch.linalg.pinv(vectors) @ vectors).view(4, 3, 7, 7)
    assert outside_span(other, filters).min().item() == pytest.approx(1)
    share = other.square().sum((1, 2, 3)) / (other.square() + centred(made).square()).sum((1, 2, 3))
    torch.testing.assert_close(outside_span(other + made, filters), share)
    framed = torch.nn.functional.pad(made, [4] * 4, value=9.0)  # of larger pictures, the middle counts
    assert outside_span(framed, filters).max() < 1e-9
    assert outside_span(0 * made, filters).isnan().all()


def test_filters_that_have_vanished_make_nothing() -> None:
    filters = torch.nn.functional.normalize(normal(5, 3, 7, 7).flatten(1), dim=1).view(5, 3, 7, 7)
    picture = filters[:1]
    for size, gone in ((1, False), (2 * VANISHED, False), (VANISHED / 2, True), (0, True)):
        left = outside_span(picture, torch.cat([size * picture, filters[1:]])).item()
        assert left > 0.8 if gone else left < 1e-9


@given(scales=st.lists(st.floats(0.3, 3), min_size=4, max_size=4), copies=st.integers(1, 3))
def test_a_span_does_not_depend_on_the_sizes_of_filters_nor_on_copies(scales: list[float], copies: int) -> None:
    filters, pictures = normal(4, 3, 5, 5), normal(3, 3, 5, 5, seed=1)
    scaled = torch.tensor(scales, dtype=torch.float64)[:, None, None, None] * filters
    found = outside_span(pictures, torch.cat([scaled] * copies))
    torch.testing.assert_close(found, outside_span(pictures, filters))
    assert ((found > 0.5) & (found < 1)).all()  # 4 of 72 dimensions
