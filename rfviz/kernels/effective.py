"""Effective receptive fields: which pixels of the receptive field a neuron depends on, and how strongly.

The receptive field that `rfviz.nets.receptive_field` composes says which pixels *can* influence a neuron. From layer2
on it exceeds small images, so it says little about where a stimulus is. The gradient of the neuron with respect to the
image says which pixels *do*, on this image and to first order; Luo et al. (2016) call it the effective receptive field.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from rfviz.errors import RfvizError, check_channel
from rfviz.images.batches import Images, batches, is_indexed
from rfviz.images.whitening import Whitening
from rfviz.kernels.responses import LayerResponses, normalizing
from rfviz.nets import receptive_field
from rfviz.nets.graph import ForwardPass, in_channels
from rfviz.nets.precision import exact
from rfviz.nets.receptive_field import ReceptiveField

HELD = 0.5
"""Share of the squared weight that the effective area holds."""


@dataclass(frozen=True)
class EffectiveFields:
    """The effective receptive fields of n neurons, each on an image of its own.

    Parameters
    ----------
    receptive_field : ReceptiveField
        Of the layer: the theoretical field.
    channels, images : Tensor of int64, shape (n,)
        Channel of each neuron, and index of the image. The stimuli of a channel follow each other, strongest first.
    positions : Tensor of int64, shape (n, 2)
        Neuron (y, x).
    sizes : Tensor of int64, shape (n, 2)
        Height and width of the image, px.
    maps : Tensor of float32, shape (n, H, W)
        Weight of every pixel of the image, >= 0, with sum 1: the Euclidean norm over colours of the gradient. Exactly 0
        outside the theoretical field and, where images differ in size, beyond the smaller ones. All 0 where the neuron
        does not depend on the image at all.
    """

    receptive_field: ReceptiveField
    channels: Tensor
    images: Tensor
    positions: Tensor
    sizes: Tensor
    maps: Tensor

    @property
    def centres(self) -> Tensor:
        """Row and column at the centre of each theoretical field, float64 `(n, 2)`, px; it may be half an integer."""
        return self.receptive_field.centre + self.receptive_field.stride * self.positions.double()

    @property
    def diameter(self) -> Tensor:
        """Effective diameter, float64 `(n,)`, px; NaN where all weights are 0.

        That of a disc with the area of the smallest set of pixels that holds at least half of the squared weight,
        2 sqrt(A / pi). The set need not be connected: it counts pixels, wherever they are.
        """
        area = core(self.maps).sum((1, 2)).double()
        return torch.where(area > 0, 2 * (area / math.pi).sqrt(), math.nan)


def core(weights: Tensor) -> Tensor:
    """Mark the smallest set of pixels that holds at least half of the squared weight.

    Parameters
    ----------
    weights : Tensor, shape (n, H, W)
        Each >= 0.

    Returns
    -------
    Tensor of bool, shape (n, H, W)
        Nothing where all weights are 0. Among equals, the first in raster order.
    """
    power, order = weights.double().square().flatten(1).sort(dim=1, descending=True, stable=True)
    running = power.cumsum(1)
    before = running - power  # a pixel belongs if those before it do not hold enough yet
    enough = (before < HELD * running[:, -1:]) & (power > 0)
    return torch.zeros_like(enough).scatter_(1, order, enough).view(weights.shape)


def spread(responses: LayerResponses, count: int) -> list[int]:
    """Return up to `count` channels that fire, evenly spread over all that do: a choice without looking at them."""
    firing = responses.competes.nonzero().flatten().tolist()
    count = min(count, len(firing))
    return [firing[i * len(firing) // count] for i in range(count)]


@torch.inference_mode(False)
@torch.enable_grad()
def effective_fields(
    net: nn.Module,
    images: Images,
    layer: str,
    responses: LayerResponses,
    channels: Sequence[int],
    *,
    top: int = 4,
    preprocess: Any = None,
    batch_size: int = 16,
) -> EffectiveFields:
    """Measure the effective receptive fields of some channels on their strongest stimuli.

    The gradient is that of the neuron's value before the last ReLU of its layer, with respect to the image in RGB. It
    is taken through the whole image, so padding counts as it does in the pass.

    Parameters
    ----------
    net : nn.Module
        Any network that `torch.fx` can trace; it is run in evaluation mode, and its parameters get no gradients. It
        need not be the one that the responses come from: given a control network, the fields are those of neurons at
        the same places on the same images.
    images : Tensor (N, 3, H, W) or data set
        The images that the responses were collected from, RGB in [0, 1].
    layer : str
        Name as in `rfviz.nets.graph`; it must end in a ReLU.
    responses : LayerResponses
        Of the layer. Only stimuli with a response > 0 count.
    channels : sequence of int
    top : int
        Stimuli per channel, at most as many as the responses hold.
    preprocess : Whitening, transform, str or pair, optional
        As for `rfviz.kernels.responses.collect`; the gradient goes through it.
    batch_size : int
        Changes the speed, never the result beyond rounding.

    Raises
    ------
    RfvizError
        If the layer is unknown, does not end in a ReLU or is not the one of the responses, a channel does not exist,
        or an option is impossible.

    Notes
    -----
    W. Luo, Y. Li, R. Urtasun and R. Zemel, Understanding the effective receptive field in deep convolutional neural
    networks, NeurIPS 2016. They average over many random images; here each stimulus keeps a map of its own.
    """
    held = responses.top_values.shape[1]
    if batch_size < 1 or not 1 <= top <= held:
        raise RfvizError(
            f"batch_size ({batch_size}) must be at least 1, and top ({top}) from 1 to {held}, as many stimuli as the "
            "responses hold."
        )
    if not is_indexed(images):
        raise RfvizError("the images are looked up by number: give a tensor or a data set, not an iterator.")
    responses.check_images(images)
    for channel in channels:
        check_channel(channel, responses.channels)
    forward = ForwardPass(net, [layer], before_relu=True)
    field = receptive_field.of(net, layer)
    if field != responses.receptive_field:
        raise RfvizError(
            f"the responses are of a layer with a receptive field of {responses.receptive_field.size} px, but that of "
            f"{layer!r} is {field.size} px wide: give the responses of {layer!r}."
        )
    wanted = torch.tensor(list(channels), dtype=torch.int64)
    fires = responses.top_values[wanted, :top] > 0
    channel_of = wanted[:, None].expand(-1, top)[fires]
    image_of = responses.top_images[wanted, :top][fires]
    position_of = responses.top_positions[wanted, :top][fires]
    found: list[Tensor] = []
    white = normalizing(net, preprocess)
    parameter = next(net.parameters())
    with exact(parameter.device):
        numbers, colours = image_of.tolist(), in_channels(net)
        for batch in batches(images, batch_size, indices=numbers, colours=colours) if numbers else ():
            neurons = slice(len(found), len(found) + len(batch.images))
            found += _weights(forward, batch.images.to(parameter), channel_of[neurons], position_of[neurons], white)
    sizes = torch.tensor([weights.shape for weights in found], dtype=torch.int64).view(-1, 2)
    maps = torch.zeros(len(found), *(sizes.amax(0).tolist() if found else (0, 0)))
    for whole, weights in zip(maps, found, strict=True):
        whole[: weights.shape[0], : weights.shape[1]] = weights
    return EffectiveFields(field, channel_of, image_of, position_of, sizes, maps)


def _weights(
    forward: ForwardPass, images: Tensor, channels: Tensor, positions: Tensor, preprocess: Whitening
) -> Tensor:
    """Return the weights `(N, H, W)` of one neuron per image."""
    images = images.detach().clone().requires_grad_(True)
    values = forward(preprocess(images))[torch.arange(len(images)), channels, positions[:, 0], positions[:, 1]]
    (gradient,) = torch.autograd.grad(values.sum(), images)  # evaluation mode: no image takes part in another's value
    weights = gradient.double().square().sum(1).sqrt()  # of a deep net with random weights, squares are tiny
    total = weights.sum((1, 2), keepdim=True)
    return (weights / total.where(total > 0, 1)).float().cpu()
