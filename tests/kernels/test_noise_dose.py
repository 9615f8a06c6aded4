"""Noise by dose and one by one, against a loop over images, and the choice of matched channels."""

import pytest
import torch
from test_interventions import Labelled64, losses

from rfviz.errors import RfvizError
from rfviz.images.data import Evaluation
from rfviz.images.whitening import IMAGENET
from rfviz.kernels import noise_dose as kernel
from rfviz.kernels.inactivity import adding_noise, noise
from rfviz.kernels.noise_dose import matched_active, noise_dose
from rfviz.kernels.responses import collect
from rfviz.kernels.stream import READERS, read_strength
from rfviz.nets.models import Net34


def measured(net: Net34, images: Labelled64, **options):
    pooled = collect(net, images, ["maxpool"], mean_stimulus=False, preprocess=IMAGENET)["maxpool"]
    strength = read_strength(net)[READERS[0]]
    return noise_dose(net, images, pooled, strength, preprocess=IMAGENET, **options), pooled, strength


@pytest.mark.parametrize("batch_size", [4, 64])
def test_every_number_is_that_of_a_loop(resnet: Net34, tiles: Evaluation, batch_size: int) -> None:
    net, images = resnet.double(), Labelled64(tiles)
    net.bn1.bias.data[[1, 4]] = -1e3
    found, _, strength = measured(net, images, doses=(0.5, 2.0), seeds=(3, 5), batch_size=batch_size)
    assert (found.tested, found.inactive) == ((1, 4), True)
    assert found.matched == matched_active((1, 4), (1, 4), strength)
    clean = losses(net, images)
    for group, channels in (("tested", found.tested), ("matched", found.matched)):
        for i, dose in enumerate(found.doses):
            each = [losses(net, images, adding_noise(channels, seed, dose)) - clean for seed in (3, 5)]
            torch.testing.assert_close(found.loss[group][i], torch.stack(each).mean(0))
    for channel in range(6):
        torch.testing.assert_close(found.single[channel], losses(net, images, adding_noise([channel], 3)) - clean)


def test_without_inactive_channels_the_least_active_stand_in(resnet: Net34, tiles: Evaluation) -> None:
    found, pooled, _ = measured(resnet.double(), Labelled64(tiles), doses=(1.0,), at_most=4)
    assert not found.inactive
    assert found.tested == (int(pooled.positive_count.argmin()),) == kernel.tested_channels(pooled)
    assert found.single.shape == (6, 4)
    assert found.loss["tested"].shape == (1, 4)


def test_noise_grows_with_the_dose_and_is_else_the_same() -> None:
    maps = torch.zeros(2, 3, 4, 4)
    one, two = (adding_noise([1], 7, sigma)(maps.clone(), [5, 9]) for sigma in (1.0, 2.0))
    torch.testing.assert_close(one[0, 1], noise(7, 5, 1, (4, 4)))
    torch.testing.assert_close(one[1, 1], noise(7, 9, 1, (4, 4)))
    torch.testing.assert_close(two, 2 * one)
    assert one[:, [0, 2]].abs().max() == 0


def test_matched_channels_are_the_nearest_each_once() -> None:
    strength = torch.tensor([1.0, 0.5, 1.02, 0.9, 0.52, 0.53])
    assert matched_active([0, 1], [0, 1], strength) == (2, 4)
    assert matched_active([1, 4], [1, 4], strength) == (5, 3)
    assert matched_active([0], [0, 2], strength) == (3,)
    assert matched_active([0, 1, 2, 3], [0, 1, 2, 3], strength) == (5, 4)  # two are left


def test_responses_of_other_images_are_refused(resnet: Net34, tiles: Evaluation) -> None:
    images = Labelled64(tiles)
    _, pooled, strength = measured(resnet.double(), images, doses=(1.0,), at_most=2)
    images.images.pop()
    with pytest.raises(RfvizError, match=f"of {len(images) + 1} images, but {len(images)} were given"):
        noise_dose(resnet, images, pooled, strength)


@pytest.mark.parametrize("options", [{"doses": ()}, {"seeds": ()}, {"doses": (-1.0,)}])
def test_impossible_doses_are_refused(resnet: Net34, tiles: Evaluation, options: dict) -> None:
    with pytest.raises(RfvizError, match="at least one of each"):
        measured(resnet, Labelled64(tiles), **options)
