"""Correlations of pictures, against numpy one pair at a time, and measures of pictures that are known."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from rfviz.images.data import Evaluation
from rfviz.kernels.pictures import (
    PERMUTATIONS,
    central,
    centrality,
    centred,
    correlations,
    diversity,
    own_resemblance,
    pairing,
)
from rfviz.kernels.responses import collect, preferred_stimuli
from rfviz.nets.models import ResidualNet


def by_hand(first: torch.Tensor, second: torch.Tensor) -> float:
    vectors = []
    for image in (first, second):
        pixels = image.double().numpy()
        vectors.append(np.concatenate([colour.ravel() - colour.mean() for colour in pixels]))
    return float(vectors[0] @ vectors[1] / np.sqrt((vectors[0] @ vectors[0]) * (vectors[1] @ vectors[1])))


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


def test_diversity_by_hand(resnet: ResidualNet, tiles: Evaluation) -> None:
    found = collect(resnet, tiles, ["layer1.0"], top_k=5, mean_stimulus=False)["layer1.0"]
    for side in (11, 27):
        measured = diversity(tiles, found, side)
        for channel in range(6):
            patches, inside = preferred_stimuli(tiles, found, channel)
            begin = (27 - side) // 2
            kept = [
                patch[:, begin : begin + side, begin : begin + side]
                for patch, there, value in zip(patches, inside, found.top_values[channel], strict=True)
                if value > 0 and there[begin : begin + side, begin : begin + side].all()
            ]
            flat = [(patch - patch.mean((1, 2), keepdim=True)).flatten().numpy() for patch in kept]
            alike = [np.corrcoef(a, b)[0, 1] for i, a in enumerate(flat) for b in flat[:i]]
            expected = 1 - np.mean(alike) if alike else np.nan
            assert measured[channel].item() == pytest.approx(expected, abs=1e-4, nan_ok=True)


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


def test_own_resemblance() -> None:
    pictures = torch.rand(5, 3, 9, 9, generator=torch.Generator().manual_seed(0))
    same = own_resemblance(pictures, pictures)
    assert (same > 0.8).all()
    assert (own_resemblance(pictures, pictures.roll(1, 0)) < 0).all()
    assert own_resemblance(pictures[:1], pictures[:1]).isnan().all()
