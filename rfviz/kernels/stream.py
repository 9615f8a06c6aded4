"""The residual stream: which blocks write to the channels that skips hand on, and which convolutions read them.

A block of a ResNet gives ``relu(s)`` with ``s = x + F(x)``: it hands on what it was given and writes F on top. All
blocks of a stage write to the same channels, so one may ask of each channel whose they are. Without skips, nothing is
handed on.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from rfviz.errors import RfvizError
from rfviz.images.batches import Images, batches
from rfviz.images.whitening import NONE, Whitening
from rfviz.nets.graph import ForwardPass
from rfviz.nets.precision import exact


class Written(NamedTuple):
    """What a block writes to C channels.

    Parameters
    ----------
    share : Tensor of float64, shape (C,)
        Share of the variance of the sum ``s``; NaN where that does not vary.
    variance : Tensor of float64, shape (C,)
        Variance of what it adds, ``F``.
    given : Tensor of float64, shape (C,)
        Share of neurons of the first of the layers that fire: those the channel starts with.
    """

    share: Tensor
    variance: Tensor
    given: Tensor


def written(
    net: nn.Module,
    images: Images,
    layers: Sequence[str],
    *,
    preprocess: Whitening = NONE,
    batch_size: int = 64,
) -> dict[str, Written]:
    """Return what a block has written to each channel: how much, and the share of the channel's variance.

    With the sum ``s = x + F`` of what a block was given and what it adds, over all images and positions, that is
    ``cov(F, s) / var(s)``; the share of what it was given, ``cov(x, s) / var(s)``, is the rest to 1. (A share may be
    negative, and above 1, where a block works against what it was given.)

    Parameters
    ----------
    net : nn.Module
        A network with skips.
    images : Tensor (N, 3, H, W), data set or iterable of batches
        RGB in [0, 1].
    layers : sequence of str
        Blocks with identity skips, one behind the other; before them the layer that the first is given.
    preprocess : Whitening
        Applied to the images just before the network.
    batch_size : int
        Changes the speed, never the result beyond rounding.

    Returns
    -------
    dict from layer to Written
        For every layer but the first.

    Raises
    ------
    RfvizError
        If a layer and the one before it differ in shape.
    """
    device = next(net.parameters()).device
    forward = ForwardPass(net, layers, before_relu=True)
    sums: dict[str, Tensor] = {}
    fired: list[Tensor] = []
    neurons = 0
    with torch.inference_mode(), exact(device):
        for batch in batches(images, batch_size):
            given: list[Tensor] = []

            def read(layer: str, total: Tensor, given: list[Tensor] = given) -> None:
                whole = total.double()
                if not given:
                    fired.append((whole > 0).sum((0, 2, 3)).double().cpu())
                else:
                    if given[0].shape != whole.shape:
                        raise RfvizError(f"layer {layer!r} does not have the shape of the layer before it.")
                    added = whole - given.pop()
                    products = (added, whole, added * whole, whole * whole, added * added)
                    part = torch.stack([each.sum((0, 2, 3)) for each in products]).cpu()
                    sums[layer] = sums.get(layer, 0) + part
                given.append(whole.clamp(min=0))

            forward(preprocess(batch.images.to(device)), read)
            neurons += given[0].shape[0] * given[0].shape[2] * given[0].shape[3]
    found = {}
    for layer in layers[1:]:
        added, whole, both, square, added_square = sums[layer] / neurons
        variance = square - whole * whole
        constant = variance <= 1e-12 * square
        shares = torch.where(constant, torch.nan, (both - added * whole) / variance)
        found[layer] = Written(shares, (added_square - added * added).clamp(min=0), torch.stack(fired).sum(0) / neurons)
    return found


class HandedOn(NamedTuple):
    """How far a channel behind a block follows the channels in front of it; C channels.

    Parameters
    ----------
    whole, cut : Tensor of float64, shape (C, C)
        Correlation over images and positions of each channel in front (row) with each behind (column): as the network
        is, and with the skip of the block taken away. NaN where one of the two does not vary.
    """

    whole: Tensor
    cut: Tensor


def handed_on(
    net: nn.Module, images: Images, layers: Sequence[str], *, skips: bool, preprocess: Whitening = NONE,
    batch_size: int = 64,
) -> dict[str, HandedOn]:  # fmt: skip
    """Correlate the responses of all channels in front of a block with those behind it.

    Parameters
    ----------
    net, images, preprocess, batch_size
        As for `written`.
    layers : sequence of str
        Blocks one behind the other that keep the shape; before them the layer that the first is given.
    skips : bool
        Whether the blocks have skips, which can be taken away.

    Returns
    -------
    dict from layer to HandedOn
        For every layer but the first.
    """
    device = next(net.parameters()).device
    forward = ForwardPass(net, layers, before_relu=True)
    sums: dict[str, list[_Products]] = {layer: [_Products(), _Products()] for layer in layers[1:]}
    with torch.inference_mode(), exact(device):
        for batch in batches(images, batch_size):
            given: list[Tensor] = []

            def read(layer: str, total: Tensor, given: list[Tensor] = given) -> None:
                whole = total.double()
                if given:
                    before = given.pop()
                    cut = whole - before if skips else whole
                    for products, behind in zip(sums[layer], (whole, cut), strict=True):
                        products.add(before, behind.clamp(min=0))
                given.append(whole.clamp(min=0))

            forward(preprocess(batch.images.to(device)), read)
    return {layer: HandedOn(*(products.correlations() for products in each)) for layer, each in sums.items()}


class _Products:
    """Sums over positions from which the correlations of channels in front with channels behind follow."""

    def __init__(self) -> None:
        self.count, self.sums = 0, dict[str, Tensor]()

    def add(self, before: Tensor, behind: Tensor) -> None:
        x, y = (each.transpose(0, 1).flatten(1) for each in (before, behind))
        self.count += x.shape[1]
        parts = {"x": x.sum(1), "y": y.sum(1), "xx": (x * x).sum(1), "yy": (y * y).sum(1), "xy": x @ y.T}
        self.sums = {name: self.sums.get(name, 0) + part.cpu() for name, part in parts.items()}

    def correlations(self) -> Tensor:
        x, y, xx, yy, xy = (each / self.count for each in self.sums.values())
        spread = [torch.where(square - mean**2 > 1e-12 * square, square - mean**2, torch.nan).sqrt()
                  for square, mean in ((xx, x), (yy, y))]  # fmt: skip
        return (xy - x[:, None] * y) / (spread[0][:, None] * spread[1])


def read_strength(net: nn.Module, readers: Sequence[str]) -> dict[str, Tensor]:
    """Return how strongly convolutions read each channel: the norm of its weights over their mean, `(C,)`.

    1 is the average channel. Convolutions that the network does not have are left out.
    """
    found = {}
    for name, module in net.named_modules():
        if name in readers and isinstance(module, nn.Conv2d):
            norms = module.weight.detach().double().norm(dim=(2, 3)).norm(dim=0).cpu()
            found[name] = norms / norms.mean()
    return found
