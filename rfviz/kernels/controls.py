"""Networks that should not show what a measurement is after: the same with random weights. What they show is chance.

Random weights need batch norms that know what goes through them. An untrained network in evaluation mode has batch
norms that do nothing. In a residual network that is no fair picture of chance: torch's initial weights shrink what goes
through a block about threefold, so the block adds little to the skip, and the network behaves as if it
were shallow. In training, batch norm prevents that from the first step.
"""

import copy
from typing import TypeVar

import torch
from torch import nn

from rfviz.errors import RfvizError
from rfviz.images.batches import Images, batches, is_indexed
from rfviz.images.whitening import NONE, Whitening
from rfviz.nets.graph import seeded

DRAWS = 2
"""Networks with random weights that stand for chance."""

Net = TypeVar("Net", bound=nn.Module)


def random_weights(net: Net, seed: int = 0) -> Net:
    """Return a network of the same architecture with weights as torch draws them, in evaluation mode.

    Its normalizations do nothing; `calibrated` lets them know images. Parameters that torch has no way to draw, such as
    class tokens, tables of positions and scales of layers, get normal numbers of the same mean and standard deviation.

    Parameters
    ----------
    net : nn.Module
        It does not change.
    seed : int
    """
    other = copy.deepcopy(net).eval()
    with seeded(seed):
        for module in other.modules():
            own = type(module).__module__.startswith("torch.")  # what others call so may want something given
            reset = getattr(module, "reset_parameters", getattr(module, "_reset_parameters", None) if own else None)
            if reset is not None:
                reset()
        for parameter, trained in zip(other.parameters(), net.parameters(), strict=True):
            if trained.is_floating_point() and trained.numel() and torch.equal(parameter, trained):
                std, mean = torch.std_mean(trained.detach(), correction=0)
                nn.init.normal_(parameter, mean.item(), std.item())
    return other


@torch.no_grad()
def calibrated(net: Net, images: Images, *, preprocess: Whitening = NONE, count: int = 64) -> Net:
    """Return a copy of a network, in evaluation mode, whose batch norms have the statistics of these images.

    Parameters
    ----------
    net : nn.Module
        It does not change.
    images : Tensor (N, 3, H, W) or data set
        RGB in [0, 1].
    preprocess : Whitening or callable
        Applied to the images just before the network.
    count : int
        At most so many images, evenly spread, go through together.

    Raises
    ------
    RfvizError
        If there are no images, or `count` is less than 2.
    """
    if not is_indexed(images) or count < 2:
        raise RfvizError(f"count is {count}: give at least 2, and a tensor or a data set of images.")
    other = copy.deepcopy(net).eval()
    for module in other.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.reset_running_stats()
            module.momentum = None  # the plain average over what it sees
            module.train()
    total = len(images)  # type: ignore[arg-type]
    device = next(other.parameters())
    for batch in batches(images, count, indices=range(0, total, -(-total // count) or 1)):
        other(preprocess(batch.images.to(device)))
    return other.eval()
