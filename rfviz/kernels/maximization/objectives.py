"""What activation maximization drives: one number per image, of that image's own channel."""

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor


class Objective(Protocol):
    """Anything that looks like `Neuron`."""

    @property
    def before_relu(self) -> bool:
        """Whether the layer is read before its last ReLU."""

    @property
    def one_neuron(self) -> bool:
        """Whether the centre neuron is all that is looked at, so that nothing else has to be computed."""

    def __call__(self, maps: Tensor, channels: Tensor) -> Tensor:
        """Return what is maximised `(N,)` from maps `(N, C, h, w)` and the channel of each image `(N,)`."""


@dataclass(frozen=True)
class Neuron:
    """The neuron at the centre of the map, (h // 2, w // 2).

    Parameters
    ----------
    before_relu : bool
        The value before the layer's last ReLU, which the paper calls the neuron's input, or the response itself. A
        channel that is silent on the zero image has no gradient in its response and would never move.
    """

    before_relu: bool = True
    one_neuron = True

    def __call__(self, maps: Tensor, channels: Tensor) -> Tensor:
        """Return the value of the neuron `(N,)`."""
        each = torch.arange(len(maps), device=maps.device)
        return maps[each, channels, maps.shape[2] // 2, maps.shape[3] // 2]


@dataclass(frozen=True)
class ChannelMean:
    """The mean of the channel over all positions of a canvas.

    Parameters
    ----------
    before_relu : bool
        As in `Neuron`.
    """

    before_relu: bool = True
    one_neuron = False

    def __call__(self, maps: Tensor, channels: Tensor) -> Tensor:
        """Return the mean `(N,)`."""
        each = torch.arange(len(maps), device=maps.device)
        return maps[each, channels].mean((1, 2))


OBJECTIVES: dict[str, Objective] = {
    "before_relu": Neuron(),
    "response": Neuron(before_relu=False),
    "channel_mean": ChannelMean(),
}
