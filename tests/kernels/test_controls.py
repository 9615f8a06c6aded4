"""Control networks: nothing learnt, or nothing left of the shape of what was learnt."""

import copy

import pytest
import torch
from torch import nn

from rfviz.errors import RfvizError
from rfviz.images.data import Evaluation
from rfviz.images.whitening import Whitening
from rfviz.kernels import controls
from rfviz.kernels.effective import effective_fields, spread
from rfviz.kernels.responses import collect
from rfviz.nets import models, receptive_field

ZCA = Whitening(torch.tensor([0.4, 0.5, 0.6]), torch.tensor([[2.0, 0.3, 0.0], [0.3, 3.0, -0.2], [0.0, -0.2, 4.0]]))


def test_the_network_itself_does_not_change_and_seeds_count(resnet: models.ResidualNet) -> None:
    before = {name: value.clone() for name, value in resnet.state_dict().items()}
    state = torch.get_rng_state()
    first, again, other = (controls.random_weights(resnet, seed) for seed in (0, 0, 1))
    assert torch.equal(state, torch.get_rng_state())
    assert all(torch.equal(value, before[name]) for name, value in resnet.state_dict().items())
    assert torch.equal(first.conv1.weight, again.conv1.weight)
    assert not torch.equal(first.conv1.weight, other.conv1.weight)
    assert not torch.equal(first.conv1.weight, resnet.conv1.weight)
    assert not first.training


def test_random_weights_touch_every_layer(resnet: models.ResidualNet) -> None:
    fresh = controls.random_weights(resnet)
    for name, module in fresh.named_modules():
        if isinstance(module, nn.BatchNorm2d):
            assert (
                module.running_mean.abs().max() == 0 and (module.running_var == 1).all() and (module.weight == 1).all()
            )
        if isinstance(module, nn.Conv2d):
            assert not torch.equal(module.weight, resnet.get_submodule(name).weight)


def test_random_weights_leave_nothing_of_what_torch_cannot_draw() -> None:
    class Attending(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.attention, self.token = nn.MultiheadAttention(8, 2), nn.Parameter(torch.randn(3, 8) + 5)

    net = Attending()
    fresh = controls.random_weights(net)
    assert not torch.equal(fresh.attention.in_proj_weight, net.attention.in_proj_weight)
    assert not torch.equal(fresh.token, net.token)
    torch.testing.assert_close(fresh.token.mean(), net.token.mean(), rtol=0, atol=1)
    torch.testing.assert_close(fresh.token.std(), net.token.std(), rtol=0, atol=1)


def test_calibrated_batch_norms_standardise_what_goes_through_them(
    resnet: models.ResidualNet, tiles: Evaluation
) -> None:
    other = controls.random_weights(resnet)
    before = copy.deepcopy(other.state_dict())
    ready = controls.calibrated(other, tiles, preprocess=ZCA, count=12)
    assert all(torch.equal(value, before[key]) for key, value in other.state_dict().items())
    assert not any(module.training for module in ready.modules())
    seen = {}
    for name, module in ready.named_modules():
        if isinstance(module, nn.BatchNorm2d):
            module.register_forward_hook(lambda *given, name=name: seen.update({name: given[2].clone()}))
    step = -(-len(tiles) // 12)
    ready(ZCA(torch.stack([tiles[i][0] for i in range(0, len(tiles), step)])))
    for name in ("bn1", "layer1.2.bn2", "layer3.0.downsample.1"):
        torch.testing.assert_close(seen[name].mean((0, 2, 3)), torch.zeros(seen[name].shape[1]), rtol=0, atol=0.02)
        torch.testing.assert_close(seen[name].std((0, 2, 3)), torch.ones(seen[name].shape[1]), rtol=0, atol=0.05)
    with pytest.raises(RfvizError, match="at least 2"):
        controls.calibrated(other, tiles, count=1)


def test_without_calibration_blocks_of_a_residual_net_say_little(resnet: models.ResidualNet, tiles: Evaluation) -> None:
    other = controls.random_weights(resnet)
    found = collect(resnet, tiles, ["layer2.0"], 4, mean_stimulus=False)["layer2.0"]
    assert receptive_field.of(other, "layer2.0") == found.receptive_field
    channels = spread(found, 6)
    plain, ready = (
        effective_fields(net, tiles, "layer2.0", found, channels) for net in (other, controls.calibrated(other, tiles))
    )
    assert plain.diameter.nanmedian() < 0.8 * ready.diameter.nanmedian()
