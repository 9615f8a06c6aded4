"""What the paper says of pictures, on pictures that are known."""

import numpy as np
import pytest
import torch

from rfviz.images.data import Evaluation
from rfviz.kernels.claim_measures import centrality, diversity, own_resemblance
from rfviz.kernels.responses import collect, preferred_stimuli
from rfviz.nets.models import Net34


def test_diversity_by_hand(resnet: Net34, tiles: Evaluation) -> None:
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
    flat = torch.full((3, 30, 30), 0.25)
    found = centrality(torch.stack([spot, rim, noise, flat]))
    assert found[0] > 1
    assert found[1] < -1
    assert abs(found[2]) < 0.15
    assert found[3].isnan()
    torch.testing.assert_close(centrality(10 * torch.stack([spot, noise])), found[[0, 2]])


def test_own_resemblance() -> None:
    pictures = torch.rand(5, 3, 9, 9, generator=torch.Generator().manual_seed(0))
    same = own_resemblance(pictures, pictures)
    assert (same > 0.8).all()
    assert (own_resemblance(pictures, pictures.roll(1, 0)) < 0).all()
    assert own_resemblance(pictures[:1], pictures[:1]).isnan().all()
