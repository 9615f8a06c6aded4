"""Counting how often channels fire, on the side."""

import pytest
import torch

from rfviz.errors import RfvizError
from rfviz.kernels.responses import collect
from rfviz.nets.models import ResidualNet
from rfviz.training.firing import watching


def test_the_rates_are_those_of_a_pass(resnet: ResidualNet, some_tiles: torch.Tensor) -> None:
    expected = collect(resnet, some_tiles, ["maxpool"], mean_stimulus=False)["maxpool"].firing_rate
    with watching(resnet, "maxpool") as watched, torch.inference_mode():
        for part in some_tiles.split(5):
            resnet(part)
    assert watched.rates() == expected.tolist()
    with torch.inference_mode():
        resnet(some_tiles)
    assert watched.rates() == expected.tolist()  # nothing is counted any more


def test_nothing_seen_gives_nothing(resnet: ResidualNet) -> None:
    with watching(resnet, "maxpool") as watched:
        pass
    assert watched.rates() == []


def test_an_unknown_layer_is_refused(resnet: ResidualNet) -> None:
    with pytest.raises(RfvizError, match=r"maxpol.*maxpool"), watching(resnet, "maxpol"):
        pass
