"""Who writes to the residual stream, against a loop over images."""

import numpy as np
import pytest
import torch
from torch import nn

from rfviz.errors import RfvizError
from rfviz.images.data import Evaluation
from rfviz.images.whitening import IMAGENET
from rfviz.kernels.stream import handed_on, read_strength, written
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


def around_blocks(net: ResidualNet, images: torch.Tensor) -> dict[str, tuple[torch.Tensor, torch.Tensor]]:
    """What each block of layer1 is given, and what it adds to that, or makes of it without a skip."""
    found = {}
    with torch.inference_mode():
        x = net.maxpool(net.relu(net.bn1(net.conv1(images))))
        for i, block in enumerate(net.layer1):
            added = block.bn2(block.conv2(block.bn1(block.conv1(x)).relu()))
            found[f"layer1.{i}"] = x, added
            x = (added + x if net.name == "resnet34" else added).relu()
    return found


def pairwise(before: torch.Tensor, behind: torch.Tensor) -> np.ndarray:
    """Correlate channels over images and positions, one pair at a time."""
    rows, columns = (each.double().transpose(0, 1).flatten(1).numpy() for each in (before, behind))
    with np.errstate(invalid="ignore"):  # NaN for what does not vary
        return np.array([[np.corrcoef(a, b)[0, 1] for b in columns] for a in rows])


@pytest.mark.parametrize("name", ["resnet", "plainnet"])
def test_what_is_handed_on_by_hand(name: str, tiles: Evaluation, request: pytest.FixtureRequest) -> None:
    net = request.getfixturevalue(name)
    found = handed_on(net, tiles, net.network.stream, skips=name == "resnet", preprocess=IMAGENET, batch_size=7)
    blocks = around_blocks(net, torch.stack([IMAGENET(tiles[i][0][None])[0] for i in range(len(tiles))]))
    assert list(found) == list(blocks)
    for layer, (given, added) in blocks.items():
        whole = given + added if name == "resnet" else added
        for measured, behind in ((found[layer].whole, whole), (found[layer].cut, added)):
            np.testing.assert_allclose(measured.numpy(), pairwise(given, behind.relu()), rtol=0, atol=1e-4)
    assert (name == "plainnet") == torch.equal(found["layer1.1"].whole, found["layer1.1"].cut)


def test_a_block_that_adds_nothing_hands_everything_on(resnet: ResidualNet, some_tiles: torch.Tensor) -> None:
    resnet.layer1[1].bn2.weight.data[:] = 0
    resnet.layer1[1].bn2.bias.data[:] = 0
    found = handed_on(resnet, some_tiles, resnet.network.stream, skips=True)
    torch.testing.assert_close(found["layer1.1"].whole.diagonal(), torch.ones(6, dtype=torch.float64))
    assert found["layer1.1"].cut.isnan().all()  # nothing is left
    assert found["layer1.0"].whole.diagonal().max() < 0.9999


@pytest.mark.parametrize("name", ["resnet", "plainnet"])
def test_what_a_block_takes_from_another_channel(
    name: str, some_tiles: torch.Tensor, request: pytest.FixtureRequest
) -> None:
    """Planted: the convolutions hand each channel on to the next one; a skip hands it on to itself."""
    net = request.getfixturevalue(name)
    block = net.layer1[0]
    for convolution, norm, shift in ((block.conv1, block.bn1, 0), (block.conv2, block.bn2, 1)):
        nn.init.dirac_(convolution.weight)
        convolution.weight.data[:] = convolution.weight.data.roll(shift, 0)
        norm.reset_running_stats()
        nn.init.ones_(norm.weight)
        nn.init.zeros_(norm.bias)
    block.bn2.weight.data[:] = 0.1
    found = handed_on(net, some_tiles, net.network.stream, skips=name == "resnet")["layer1.0"]
    given, _ = around_blocks(net, some_tiles)["layer1.0"]
    nexts = given.roll(1, 1)
    whole = given + 0.1 * nexts if name == "resnet" else nexts
    np.testing.assert_allclose(found.cut.numpy(), pairwise(given, nexts), rtol=0, atol=1e-4)
    np.testing.assert_allclose(found.whole.numpy(), pairwise(given, whole), rtol=0, atol=1e-4)
    torch.testing.assert_close(found.cut[range(6), [1, 2, 3, 4, 5, 0]], torch.ones(6, dtype=torch.float64))
    assert found.cut.diagonal().max() < 0.95


def test_what_does_not_vary_is_handed_on_to_nobody(resnet: ResidualNet, some_tiles: torch.Tensor) -> None:
    resnet.bn1.weight.data[1], resnet.bn1.bias.data[1] = 0, 0.7
    resnet.layer1[0].bn2.bias.data[2] = -1e3
    found = handed_on(resnet, some_tiles, resnet.network.stream, skips=True)["layer1.0"]
    assert found.whole[1].isnan().all() and found.whole[:, 2].isnan().all()
    kept = [0, 2, 3, 4, 5], [0, 1, 3, 4, 5]
    assert found.whole[kept[0]][:, kept[1]].isfinite().all()


def test_read_strength_is_the_norm_of_the_weights(resnet: ResidualNet, plainnet: ResidualNet) -> None:
    found = read_strength(resnet, resnet.network.readers)
    assert list(found) == list(resnet.network.readers)
    weight = resnet.layer1[2].conv1.weight.detach().double()
    norms = torch.tensor([weight[:, channel].square().sum().sqrt() for channel in range(6)], dtype=torch.float64)
    torch.testing.assert_close(found["layer1.2.conv1"], norms / norms.mean())
    assert list(read_strength(plainnet, plainnet.network.readers)) == list(plainnet.network.readers[:-1])
