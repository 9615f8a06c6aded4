"""Pictures that hold a channel's feature identify it; others do not."""

import dataclasses

import pytest
import torch
from torch import nn

from rfviz.errors import RfvizError
from rfviz.images.data import Evaluation
from rfviz.images.whitening import Whitening
from rfviz.kernels import maximization
from rfviz.kernels.identify import KINDS, drive, identification, identify
from rfviz.kernels.responses import collect
from rfviz.nets import models
from rfviz.nets.cone import Cone

WHITE = Whitening(torch.tensor([0.4, 0.5, 0.6]), torch.diag(torch.tensor([4.0, 5.0, 6.0])))
COUNT, SIDE = 12, 5


@pytest.fixture
def matched() -> tuple[nn.Module, torch.Tensor]:
    """A layer of orthogonal filters without mean, and these filters."""
    values = torch.randn(COUNT, 3, SIDE**2, generator=torch.Generator().manual_seed(0))
    values = values - values.mean(2, keepdim=True)
    filters = torch.linalg.svd(values.flatten(1), full_matrices=False).Vh.view(COUNT, 3, SIDE, SIDE)
    net = nn.Sequential()
    net.add_module("conv", nn.Conv2d(3, COUNT, SIDE))
    net.add_module("relu", nn.ReLU())
    net.conv.weight.data = filters
    return net, filters


def test_the_filter_itself_is_the_best_picture_whatever_its_contrast(matched: tuple[nn.Module, torch.Tensor]) -> None:
    net, filters = matched
    strength = torch.logspace(-2, 2, COUNT)[:, None, None, None]
    driven = drive(net, "conv", strength * filters + torch.linspace(-1, 1, 3)[:, None, None])
    rms = (3 * SIDE**2) ** -0.5  # of a filter of norm 1
    torch.testing.assert_close(driven, torch.eye(COUNT) / rms + net.conv.bias, atol=1e-4, rtol=0)
    assert identification(driven).tolist() == [1] * COUNT


def test_pictures_of_other_channels_do_no_better_than_chance(matched: tuple[nn.Module, torch.Tensor]) -> None:
    net, filters = matched
    generator = torch.Generator().manual_seed(1)
    scores = []
    for _ in range(30):
        order = torch.randperm(COUNT, generator=generator)
        noisy = filters[order] + 0.05 * torch.randn(filters.shape, generator=generator)
        scores.append(identification(drive(net, "conv", noisy)))
    assert torch.stack(scores).mean().item() == pytest.approx(0.5, abs=0.06)
    assert identification(drive(net, "conv", filters.roll(1, 0))).max() < 1


def test_drive_is_what_the_neuron_says_of_a_standardised_picture(resnet: models.ResidualNet) -> None:
    size = 27
    pictures = torch.rand(5, 3, size, size, generator=torch.Generator().manual_seed(0))
    pictures[3] = 0.7  # flat
    inside = torch.ones(5, size, size, dtype=torch.bool)
    inside[1, :, :9] = False
    pictures[1, :, :, :9] = 0
    found = drive(resnet, "layer1.0", pictures, inside=inside, preprocess=WHITE, contrast=0.7, batch_size=2)
    forward = Cone(resnet, "layer1.0", before_relu=True)
    for picture, there, driven in zip(pictures, inside, found, strict=True):
        shown = WHITE(picture)
        for colour in range(3):
            shown[colour] -= shown[colour][there].mean()
            shown[colour][~there] = 0
        rms = shown.square().mean().sqrt()
        shown = shown * (0.7 / rms) if rms > 1e-5 else torch.zeros_like(shown)
        with torch.no_grad():
            torch.testing.assert_close(forward(shown[None])[0, :, 0, 0], driven, rtol=1e-4, atol=1e-4)
    assert not found.requires_grad


def test_identification_counts_like_the_obvious_loop() -> None:
    driven = torch.randint(0, 4, (9, 9), generator=torch.Generator().manual_seed(0)).float()  # with ties
    known = torch.ones(9, dtype=torch.bool)
    known[[2, 7]] = False
    for mask in (None, known):
        found = identification(driven, mask)
        for channel in range(9):
            if mask is not None and not mask[channel]:
                assert found[channel].isnan()
                continue
            others = [p for p in range(9) if p != channel and (mask is None or mask[p])]
            wins = sum(
                1.0
                if driven[p, channel] < driven[channel, channel]
                else 0.5 * (driven[p, channel] == driven[channel, channel]).item()
                for p in others
            )
            assert found[channel].item() == pytest.approx(wins / len(others))
    assert identification(torch.ones(4, 4)).tolist() == [0.5] * 4
    assert identification(torch.ones(1, 1)).isnan().all()


def test_three_kinds_of_pictures_are_scored(resnet: models.ResidualNet, tiles: Evaluation) -> None:
    found = collect(resnet, tiles, ["layer1.0"], 1, strongest=8, preprocess=WHITE)["layer1.0"]
    found.top_values[:, 0] = torch.tensor([1, 1, 1, 0, 1, 1])  # as if channel 3 never fired
    channels = [0, 1, 3, 5]
    maxima = maximization.maximize(resnet, "layer1.0", channels, steps=8).images
    scores = identify(resnet, "layer1.0", found, maxima, channels, preprocess=WHITE)
    assert tuple(scores) == KINDS
    for values in scores.values():
        assert values.isnan().tolist() == [False, False, True, False]
    fires = torch.tensor([True, True, False, True])
    for kind, pictures, white in zip(
        KINDS, (found.mean_stimulus, found.strongest_stimulus, maxima), (WHITE, WHITE, None), strict=True
    ):
        shown = pictures if white is None else white(pictures[channels])
        expected = identification(drive(resnet, "layer1.0", shown)[:, channels], fires)
        torch.testing.assert_close(scores[kind], expected, equal_nan=True)
    assert scores["maximization"].nanmean() == 1
    for changed, pictures, said in [
        (dataclasses.replace(found, strongest_stimulus=None), maxima, "collect them with mean_stimulus and strongest"),
        (found, maxima[:2], "2 maximization images for 4 channels"),
    ]:
        with pytest.raises(RfvizError, match=said):
            identify(resnet, "layer1.0", changed, pictures, channels)


@pytest.mark.parametrize(
    ("layer", "shape", "options", "said"),
    [
        ("layer1.0", (2, 3, 25, 25), {}, r"give \(N, 3, 27, 27\), exactly its receptive field"),
        ("layer1.0", (2, 1, 27, 27), {}, r"of shape \(2, 1, 27, 27\) do not fit 'layer1.0'"),
        ("layer1.0", (2, 3, 27, 27), {"contrast": 0.0}, r"contrast \(0.0\) must be more than 0"),
        ("layer1.0.bn2", (2, 3, 27, 27), {}, "does not end in a ReLU"),
    ],
)
def test_errors_are_one_line(resnet: models.ResidualNet, layer: str, shape: tuple, options: dict, said: str) -> None:
    with pytest.raises(RfvizError, match=said) as error:
        drive(resnet, layer, torch.zeros(shape), **options)
    assert "\n" not in str(error.value)
