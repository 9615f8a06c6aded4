"""Correlations of pictures, against numpy one pair at a time."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from rfviz.data import Evaluation
from rfviz.similarity import centred, correlations


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
