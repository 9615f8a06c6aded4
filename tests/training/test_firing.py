"""Counting how often channels fire, on the side."""

import pytest
import torch

from rfviz.errors import RfvizError
from rfviz.kernels.responses import collect
from rfviz.nets.models import ResidualNet
from rfviz.training.firing import firing, reading, shortfall


def test_the_rates_are_those_of_a_pass(resnet: ResidualNet, some_tiles: torch.Tensor) -> None:
    expected = collect(resnet, some_tiles, ["maxpool"], mean_stimulus=False)["maxpool"].firing_rate
    with firing(resnet, "maxpool") as rates, torch.inference_mode():
        for part in some_tiles.split(5):
            resnet(part)
    assert rates() == expected.tolist()
    with torch.inference_mode():
        resnet(some_tiles)
    assert rates() == expected.tolist()  # nothing is counted any more


def test_nothing_seen_gives_nothing(resnet: ResidualNet) -> None:
    with firing(resnet, "maxpool") as rates:
        pass
    assert rates() == []


def test_an_unknown_layer_is_refused(resnet: ResidualNet) -> None:
    with pytest.raises(RfvizError, match=r"maxpol.*maxpool"), firing(resnet, "maxpol"):
        pass


def test_the_shortfall_is_what_each_channel_lacks() -> None:
    values = torch.randn(5, 4, 3, 2, generator=torch.Generator().manual_seed(0), requires_grad=True)
    expected = 0.0
    for channel in range(4):
        highest = max(values[i, channel, y, x].item() for i in range(5) for y in range(3) for x in range(2))
        expected += max(0.0, 2.5 - highest)
    lacking = shortfall(values, 2.5)
    assert lacking.item() == pytest.approx(expected) and expected > 0
    lacking.backward()
    assert values.grad is not None
    short = values.detach().amax((0, 2, 3)) < 2.5
    assert values.grad.sum((0, 2, 3)).tolist() == [-1.0 if each else 0.0 for each in short]  # one neuron each


def test_what_a_module_gives_is_kept_as_it_was_before_the_relu(resnet: ResidualNet, some_tiles: torch.Tensor) -> None:
    with reading(resnet, "bn1") as kept, torch.inference_mode():
        resnet(some_tiles)
        expected = resnet.bn1(resnet.conv1(some_tiles))
    assert len(kept) == 1 and torch.equal(kept[0], expected) and kept[0].min() < 0
    before = kept[0]
    with torch.inference_mode():
        resnet(some_tiles[:2])
    assert kept[0] is before
