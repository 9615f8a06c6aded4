"""A test of pictures of what neurons prefer: do they work as stimuli.

A picture of a channel is a claim: this drives the neuron. It can be tested by showing the neuron that picture, and
those of all other channels, at equal mean colour and equal contrast. If the picture holds the channel's feature, it
wins; if the feature was lost, as by averaging over stimuli that have little in common, it does no better than chance.
"""

import torch
from torch import Tensor, nn

from rfviz.errors import RfvizError
from rfviz.images.whitening import NONE, Whitening
from rfviz.kernels.responses import LayerResponses
from rfviz.nets import receptive_field
from rfviz.nets.cone import Cone
from rfviz.nets.precision import exact

CHANCE = 0.5
"""Expected score of a picture that has nothing to do with its channel."""

KINDS = ("mean over all firing neurons", "mean over the strongest", "maximization")
"""The kinds of pictures that `identify` tests."""


@torch.no_grad()
def drive(
    net: nn.Module,
    layer: str,
    pictures: Tensor,
    *,
    inside: Tensor | None = None,
    preprocess: Whitening = NONE,
    contrast: float = 1.0,
    batch_size: int = 16,
) -> Tensor:
    """Show pictures to one neuron of every channel, all at the same mean colour and contrast.

    Every picture is shifted to a mean of 0 in each colour, which is the mean colour of the training pixels, and scaled
    to one root mean square over pixels and colours. A picture of one colour stays flat.

    Parameters
    ----------
    net : nn.Module
        Any network that `torch.fx` can trace; it is run in evaluation mode.
    layer : str
        Name as in `rfviz.nets.graph`; it must end in a ReLU.
    pictures : Tensor, shape (N, 3, R, R)
        Of exactly the size of the layer's receptive field.
    inside : Tensor of bool, shape (N, R, R), optional
        Which pixels are known; the others take the picture's mean colour.
    preprocess : Whitening or callable
        Takes the pictures to the network's input units; by default they are in these already.
    contrast : float
        The root mean square, in input units; for whitened input, 1 is one standard deviation of the training pixels.
    batch_size : int
        Changes the speed, never the result beyond rounding.

    Returns
    -------
    Tensor, shape (N, C)
        The value of the neuron before the last ReLU of the layer.

    Raises
    ------
    RfvizError
        If the layer is unknown, does not end in a ReLU or has no known receptive field, or the pictures have another
        size.
    """
    size = receptive_field.of(net, layer).size
    if pictures.dim() != 4 or tuple(pictures.shape[1:]) != (3, size, size):
        raise RfvizError(
            f"pictures of shape {tuple(pictures.shape)} do not fit {layer!r}: give (N, 3, {size}, {size}), exactly its "
            "receptive field."
        )
    if not contrast > 0 or batch_size < 1:
        raise RfvizError(f"contrast ({contrast}) must be more than 0, and batch_size ({batch_size}) at least 1.")
    forward, parameter = Cone(net, layer, before_relu=True), next(net.parameters())
    known = torch.ones_like(pictures[:, 0], dtype=torch.bool) if inside is None else inside
    shown = preprocess(pictures.double())
    count = known.sum((1, 2)).clamp(min=1)[:, None, None, None]
    shown = shown - (shown * known[:, None]).sum((2, 3), keepdim=True) / count
    shown = shown * known[:, None]
    rms = shown.square().mean((1, 2, 3), keepdim=True).sqrt()
    shown = shown * (contrast / rms.where(rms > 1e-9, torch.inf))  # below it, a picture is flat but for rounding
    with exact(parameter.device):
        driven = [forward(part.to(parameter))[:, :, 0, 0].cpu() for part in shown.split(batch_size)]
    return torch.cat(driven)


def identification(driven: Tensor, known: Tensor | None = None) -> Tensor:
    """Tell how often a channel's own picture drives it more than another channel's picture.

    Parameters
    ----------
    driven : Tensor, shape (C, C)
        Row: picture of a channel; column: channel that sees it.
    known : Tensor of bool, shape (C,), optional
        Which channels have a picture; all by default.

    Returns
    -------
    Tensor of float64, shape (C,)
        Share of the other pictures that drive the channel less than its own does, in [0, 1]; ties count half. 1: its
        own picture is the best of all; 0.5: chance. It is the area under the ROC curve of "own or another's". NaN
        without a picture, or without another one.
    """
    known = torch.ones(len(driven), dtype=torch.bool) if known is None else known
    own = driven.diagonal()
    wins = (driven < own).double() + 0.5 * (driven == own).double()
    others = known[:, None] & ~torch.eye(len(driven), dtype=torch.bool)
    share = (wins * others).sum(0) / others.sum(0)  # 0 / 0 is NaN
    return share.where(known, torch.nan)


def identify(
    net: nn.Module,
    layer: str,
    responses: LayerResponses,
    maxima: Tensor,
    channels: list[int],
    *,
    preprocess: Whitening = NONE,
    contrast: float = 1.0,
) -> dict[str, Tensor]:
    """Score the three pictures that this book has of a channel: two means, and the image from maximization.

    Parameters
    ----------
    net, layer
        See `drive`.
    responses : LayerResponses
        Of the layer, with the mean over all firing neurons and the mean over the strongest.
    maxima : Tensor, shape (n, 3, R, R)
        From activation maximization, one per channel, in the network's input units.
    channels : list of int
        n channels that are told apart.
    preprocess : Whitening or callable
        Takes the means, which are RGB in [0, 1], to the network's input units.
    contrast : float
        See `drive`.

    Returns
    -------
    dict from each of KINDS to Tensor of float64, shape (n,)
        What `identification` says. NaN for channels without a preferred stimulus, for all kinds alike.

    Raises
    ------
    RfvizError
        As `drive`; or if there are no means, or not one image per channel.
    """
    mean, strongest = responses.mean_stimulus, responses.strongest_stimulus
    if mean is None or responses.mean_count is None or strongest is None or responses.strongest_count is None:
        raise RfvizError(f"the responses of {layer!r} hold no means: collect them with mean_stimulus and strongest.")
    if len(maxima) != len(channels):
        raise RfvizError(
            f"there are {len(maxima)} maximization images for {len(channels)} channels: give one for each."
        )
    shown = (
        drive(net, layer, mean[channels], inside=responses.mean_count[channels] > 0, preprocess=preprocess,
              contrast=contrast),
        drive(net, layer, strongest[channels], inside=responses.strongest_count[channels] > 0, preprocess=preprocess,
              contrast=contrast),
        drive(net, layer, maxima, contrast=contrast),
    )  # fmt: skip
    fires = responses.competes[channels]
    return {kind: identification(driven[:, channels], fires) for kind, driven in zip(KINDS, shown, strict=True)}
