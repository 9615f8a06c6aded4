"""Who writes to the residual stream, against a loop over images."""

import pytest
import torch

from rfviz.errors import RfvizError
from rfviz.images.data import Evaluation
from rfviz.images.whitening import IMAGENET
from rfviz.kernels.stream import read_strength, written
from rfviz.nets.models import ResidualNet


def test_shares_are_covariances(resnet: ResidualNet, tiles: Evaluation) -> None:
    found = written(resnet, tiles, resnet.network.stream, preprocess=IMAGENET, batch_size=7)
    given, total = {}, {}
    with torch.inference_mode():
        x = torch.stack([IMAGENET(tiles[i][0][None])[0] for i in range(len(tiles))])
        x = resnet.maxpool(resnet.relu(resnet.bn1(resnet.conv1(x))))
        for i, block in enumerate(resnet.layer1):
            given[f"layer1.{i}"] = x.double()
            inner = block.bn2(block.conv2(block.bn1(block.conv1(x)).relu()))
            total[f"layer1.{i}"] = (inner + x).double()
            x = (inner + x).relu()
    assert list(found) == list(resnet.network.stream[1:])
    torch.testing.assert_close(found["layer1.0"].given, (given["layer1.0"] > 0).double().mean((0, 2, 3)))
    for layer, each in found.items():
        for channel in range(6):
            s = total[layer][:, channel].flatten()
            added = s - given[layer][:, channel].flatten()
            expected = torch.cov(torch.stack([added, s]), correction=0)
            torch.testing.assert_close(each.share[channel], expected[0, 1] / expected[1, 1], rtol=1e-4, atol=1e-6)
            torch.testing.assert_close(each.variance[channel], expected[0, 0], rtol=1e-4, atol=1e-8)


def test_a_silent_channel_is_written_by_the_first_block_alone(resnet: ResidualNet, tiles: Evaluation) -> None:
    resnet.bn1.bias.data[1] = -1e3
    found = written(resnet, tiles, resnet.network.stream)["layer1.0"]
    assert found.share[1].item() == pytest.approx(1)
    assert (found.share[[0, 2, 3, 4, 5]] - 1).abs().min() > 1e-4


def test_a_block_that_adds_a_constant_has_written_nothing(resnet: ResidualNet, tiles: Evaluation) -> None:
    resnet.layer1[1].bn2.weight.data[:] = 0
    found = written(resnet, tiles, resnet.network.stream)["layer1.1"]
    torch.testing.assert_close(found.share, torch.zeros(6, dtype=torch.float64), atol=1e-6, rtol=0)
    torch.testing.assert_close(found.variance, torch.zeros(6, dtype=torch.float64), atol=1e-9, rtol=0)


def test_a_channel_that_never_changes_has_no_share(resnet: ResidualNet, tiles: Evaluation) -> None:
    resnet.bn1.bias.data[2] = -1e3
    resnet.layer1[0].bn2.weight.data[2] = 0
    assert written(resnet, tiles, resnet.network.stream)["layer1.0"].share[2].isnan()


def test_layers_of_different_shape_are_refused(resnet: ResidualNet, tiles: Evaluation) -> None:
    with pytest.raises(RfvizError, match=r"'layer2.0' does not have the shape"):
        written(resnet, tiles, ["layer1.2", "layer2.0"])


def test_read_strength_is_the_norm_of_the_weights(resnet: ResidualNet, plainnet: ResidualNet) -> None:
    found = read_strength(resnet, resnet.network.readers)
    assert list(found) == list(resnet.network.readers)
    weight = resnet.layer1[2].conv1.weight.detach().double()
    norms = torch.tensor([weight[:, channel].square().sum().sqrt() for channel in range(6)], dtype=torch.float64)
    torch.testing.assert_close(found["layer1.2.conv1"], norms / norms.mean())
    assert list(read_strength(plainnet, plainnet.network.readers)) == list(plainnet.network.readers[:-1])
