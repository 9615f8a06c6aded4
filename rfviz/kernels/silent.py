"""Channels of the first pooling layer that do not fire: which they are, and why.

A channel is inactive if its response is exactly 0 for every evaluation image and position.

Before the ReLU, a neuron of the first convolution is an affine function of the pixels it sees. So it can be said
exactly how high it could go, and whether the filter or the shift of its batch norm keeps it below 0. (Max pooling takes
the largest of several such neurons: it fires if one of them does.)
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from rfviz.errors import RfvizError
from rfviz.images.batches import Images, batches
from rfviz.images.whitening import NONE, Whitening
from rfviz.kernels.pictures import VANISHED
from rfviz.kernels.responses import LayerResponses
from rfviz.nets import receptive_field
from rfviz.nets.cone import Cone
from rfviz.nets.graph import ForwardPass
from rfviz.nets.precision import exact

RARE = 0.01
"""A channel with a smaller share of firing neurons than this is rarely active."""

KINDS = ("active", "rarely active", "shift", "filter")
"""What a channel may be; the last two never fire, for one reason or the other."""


def inactive_channels(responses: LayerResponses) -> tuple[int, ...]:
    """Return the channels whose response is exactly 0 for every image and position."""
    return tuple((responses.maximum <= 0).nonzero().flatten().tolist())


def least_active_channels(responses: LayerResponses, count: int) -> tuple[int, ...]:
    """Return the `count` channels that fire least often; ties go to the lower mean response, then the lower number."""
    order = sorted(
        range(responses.channels), key=lambda c: (responses.positive_count[c].item(), responses.mean[c].item(), c)
    )
    return tuple(sorted(order[:count]))


def control_count(channels: int) -> int:
    """Return how many channels the last two rows take: the paper's 13 of 64, in proportion, at least 1."""
    return max(1, round(13 * channels / 64))


def tested_channels(responses: LayerResponses) -> tuple[int, ...]:
    """Return the inactive channels, or where there are none the `control_count` least active ones."""
    return inactive_channels(responses) or least_active_channels(responses, control_count(responses.channels))


def matched_active(tested: Sequence[int], inactive: Sequence[int], strength: Tensor) -> tuple[int, ...]:
    """Choose for each tested channel the active one that is read most nearly as strongly, each once.

    Parameters
    ----------
    tested, inactive : sequence of int
        Channels of both kinds cannot be chosen.
    strength : Tensor, shape (C,)
        How strongly the next layer reads each channel, as `rfviz.kernels.stream.read_strength` says.

    Returns
    -------
    tuple of int
        In the order of `tested`; shorter where there are too few active channels.
    """
    left = sorted(set(range(len(strength))) - set(tested) - set(inactive))
    chosen = []
    for channel in tested:
        if left:
            nearest = min(left, key=lambda other: (abs(float(strength[other] - strength[channel])), other))
            left.remove(nearest)
            chosen.append(nearest)
    return tuple(chosen)


@dataclass(frozen=True)
class Silence:
    """What keeps the C channels of the first pooling layer from firing.

    Parameters
    ----------
    firing_rate : Tensor of float64, shape (C,)
        Share of neurons with response > 0.
    highest : Tensor of float64, shape (C,)
        The highest value before the ReLU over all images and positions.
    shift : Tensor of float64, shape (C,)
        What the batch norm adds (its beta): its output has this mean over the training images.
    reach : Tensor of float64, shape (C,)
        The highest value before the ReLU that any picture in [0, 1] can cause.
    """

    firing_rate: Tensor
    highest: Tensor
    shift: Tensor
    reach: Tensor

    @property
    def kinds(self) -> list[str]:
        """One of `KINDS` per channel.

        A channel that never fires is silent by its ``"filter"`` if the images lift it above the shift of its batch norm
        by less than `VANISHED` of what they lift the median channel that fires, and else by its ``"shift"``.
        """
        rise, fires = self.highest - self.shift, self.firing_rate > 0
        least = VANISHED * rise[fires].median() if fires.any() else torch.tensor(0.0)
        return [
            ("active" if rate >= RARE else "rarely active") if rate > 0 else ("shift" if lifted else "filter")
            for rate, lifted in zip(self.firing_rate.tolist(), (rise > least).tolist(), strict=True)
        ]

    @property
    def reachable(self) -> Tensor:
        """Whether any picture that a screen can show makes the channel fire, bool `(C,)`."""
        return self.reach > 0


def silence(
    net: nn.Module,
    images: Images,
    responses: LayerResponses,
    *,
    preprocess: Whitening = NONE,
    batch_size: int = 64,
) -> Silence:
    """Look for what keeps channels of the first pooling layer from firing.

    Parameters
    ----------
    net : nn.Module
        With torchvision's names ``conv1`` and ``bn1``.
    images : Tensor (N, 3, H, W), data set or iterable of batches
        RGB in [0, 1].
    responses : LayerResponses
        Of ``maxpool`` for the same images.
    preprocess : Whitening
        Applied to the images just before the network. It must be affine, as those of `rfviz.images.whitening` are.
    batch_size : int
        Changes the speed, never the result.

    Raises
    ------
    RfvizError
        If the network has no batch norm ``bn1``, or not as many channels as the responses.
    """
    norm = getattr(net, "bn1", None)
    if not isinstance(norm, nn.BatchNorm2d):
        raise RfvizError(f"{type(net).__name__} has no batch norm 'bn1' behind its first convolution.")
    if norm.num_features != responses.channels:
        raise RfvizError(
            f"the responses have {responses.channels} channels, but 'bn1' has {norm.num_features}: collect them anew."
        )
    device = next(net.parameters()).device
    forward = ForwardPass(net, ["conv1"], before_relu=True)
    highest = torch.full((norm.num_features,), -torch.inf, dtype=torch.float64)
    with torch.inference_mode(), exact(device):
        for batch in batches(images, batch_size):
            values = forward(preprocess(batch.images.to(device)))
            highest = torch.maximum(highest, values.amax((0, 2, 3)).double().cpu())
    shift = norm.bias.detach().double().cpu() if norm.affine else torch.zeros_like(highest)
    return Silence(responses.firing_rate, highest, shift, reach(net, preprocess))


def reach(net: nn.Module, preprocess: Whitening = NONE) -> Tensor:
    """Return the highest value before the ReLU that a picture in [0, 1] can cause in ``conv1``, float64 `(C,)`.

    The value at mid-grey, plus half the absolute weight of every pixel: each pixel as black or as white as helps.
    """
    side = receptive_field.of(net, "conv1").size
    forward = Cone(net, "conv1", before_relu=True)
    parameter = next(net.parameters())
    grey = torch.full((1, 3, side, side), 0.5, device=parameter.device, dtype=parameter.dtype)
    with exact(parameter.device):
        slopes = torch.autograd.functional.jacobian(lambda image: forward(preprocess(image))[0, :, 0, 0], grey)
        with torch.inference_mode():
            middle = forward(preprocess(grey))[0, :, 0, 0]
    return (middle.double() + 0.5 * slopes.double().abs().sum((1, 2, 3, 4))).cpu()
