"""Control networks: nothing learnt, or nothing left of the shape of what was learnt."""

import pytest
import torch
from torch import nn

from rfviz.errors import RfvizError
from rfviz.kernels import controls
from rfviz.nets import models


@pytest.mark.parametrize("kind", controls.CONTROLS)
def test_the_network_itself_is_left_alone_and_seeds_count(resnet: models.Net34, kind: str) -> None:
    before = {name: value.clone() for name, value in resnet.state_dict().items()}
    state = torch.get_rng_state()
    first, again, other = (controls.control(resnet, kind, seed) for seed in (0, 0, 1))
    assert torch.equal(state, torch.get_rng_state())
    assert all(torch.equal(value, before[name]) for name, value in resnet.state_dict().items())
    assert torch.equal(first.conv1.weight, again.conv1.weight)
    assert not torch.equal(first.conv1.weight, other.conv1.weight)
    assert not torch.equal(first.conv1.weight, resnet.conv1.weight)
    assert not first.training


def test_shuffling_moves_pixels_and_nothing_else(resnet: models.Net34) -> None:
    shuffled = controls.control(resnet, "shuffled filters")
    orders = set()
    for before, after in zip(resnet.conv1.weight, shuffled.conv1.weight, strict=True):
        pixels = [tuple(pixel) for pixel in before.flatten(1).T.tolist()]
        moved = [tuple(pixel) for pixel in after.flatten(1).T.tolist()]
        assert sorted(pixels) == sorted(moved)  # a pixel keeps its three colours together
        orders.add(tuple(pixels.index(pixel) for pixel in moved))
    assert len(orders) == 6  # every filter its own order
    for name, value in shuffled.state_dict().items():
        if name != "conv1.weight":
            assert torch.equal(value, resnet.state_dict()[name]), name


def test_random_weights_touch_every_layer(resnet: models.Net34) -> None:
    fresh = controls.control(resnet, "random weights")
    for name, module in fresh.named_modules():
        if isinstance(module, nn.BatchNorm2d):
            assert (
                module.running_mean.abs().max() == 0 and (module.running_var == 1).all() and (module.weight == 1).all()
            )
        if isinstance(module, nn.Conv2d):
            assert not torch.equal(module.weight, resnet.get_submodule(name).weight)


def test_what_has_no_filters_to_shuffle() -> None:
    with pytest.raises(RfvizError, match="Sequential has no convolution of three colours"):
        controls.control(nn.Sequential(nn.Conv2d(1, 2, 3)), "shuffled filters")
    with pytest.raises(RfvizError, match="unknown control 'random'"):
        controls.control(nn.Sequential(nn.Conv2d(3, 2, 3)), "random")
