"""Fixtures that several test modules share: small real photographs and small networks."""

import pytest
import torch

import rfviz  # noqa: F401  # declares torchvision's operators: must come before anything that imports torchvision
from rfviz import models, photographs
from rfviz.data import Evaluation

torch.set_num_threads(1)  # the tests run in several processes


@pytest.fixture(scope="session")
def tiles() -> Evaluation:
    """Real photographs: 64-px tiles of four of them, with labels."""
    return Evaluation(photographs.load(64, classes=4).evaluation)


@pytest.fixture(scope="session")
def some_tiles(tiles: Evaluation) -> torch.Tensor:
    """Twelve of the tiles, spread over the photographs: (12, 3, 64, 64)."""
    step = len(tiles) // 12
    return torch.stack([tiles[i * step][0] for i in range(12)])


def settled(net: models.Net34, seed: int = 0) -> models.Net34:
    """Give every batch norm statistics and an affine part that are not the trivial ones, and evaluate."""
    generator = torch.Generator().manual_seed(seed)
    for module in net.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            shape = module.running_mean.shape
            module.running_mean.copy_(0.1 * torch.randn(shape, generator=generator))
            module.running_var.copy_(0.5 + torch.rand(shape, generator=generator))
            module.weight.data.copy_(0.5 + torch.rand(shape, generator=generator))
            module.bias.data.copy_(0.2 * torch.randn(shape, generator=generator))
    return net.eval()


@pytest.fixture
def resnet() -> models.Net34:
    """A ResNet34 of width 6 with random weights and batch-norm statistics, 4 classes."""
    torch.manual_seed(0)
    return settled(models.resnet34(6, 4))


@pytest.fixture
def plainnet() -> models.Net34:
    """A PlainNet34 of width 6 with random weights and batch-norm statistics, 4 classes."""
    torch.manual_seed(1)
    return settled(models.plainnet34(6, 4))
