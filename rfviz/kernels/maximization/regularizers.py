"""What keeps the image of an activation maximization in bounds. Several can be given together."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from rfviz.errors import RfvizError


class Regularizer:
    """The base: it does nothing. A regularizer takes a penalty off the objective, or changes what the network sees."""

    margin = 0
    """By how many px the image is larger on every side than what the network sees."""

    def penalty(self, images: Tensor) -> Tensor:
        """Return what is taken off the objective `(N,)` for images `(N, 3, S, S)`."""
        return images.new_zeros(len(images))

    def view(self, images: Tensor, channels: Tensor, step: int) -> Tensor:
        """Return what the network sees, smaller by `margin` on every side, of the images of some channels `(N,)`."""
        return images


@dataclass(frozen=True)
class L2(Regularizer):
    """Half of the squared norm times a weight, whose gradient is ``weight * x``: Adam's coupled weight decay.

    Eq. 2 of the paper writes the norm without the square; its optimiser does this.

    Parameters
    ----------
    weight : float
        Lambda of eq. 2; the paper's is 1e-6.
    """

    weight: float = 1e-6

    def penalty(self, images: Tensor) -> Tensor:
        """Return the penalty `(N,)`."""
        return self.weight / 2 * images.square().sum((1, 2, 3))


@dataclass(frozen=True)
class TotalVariation(Regularizer):
    """The sum of absolute differences between neighbours, which smooths an image.

    Parameters
    ----------
    weight : float
    """

    weight: float

    def penalty(self, images: Tensor) -> Tensor:
        """Return the penalty `(N,)`."""
        along_y, along_x = (images.diff(dim=dim).abs().sum((1, 2, 3)) for dim in (2, 3))
        return self.weight * (along_y + along_x)


@dataclass(frozen=True)
class Jitter(Regularizer):
    """Before every step, the image is shifted by a random number of px, so that no detail depends on its exact place.

    Parameters
    ----------
    pixels : int
        Largest shift along each axis.
    seed : int
        A shift depends on (seed, channel, step) and nothing else.

    Raises
    ------
    RfvizError
        If one of them is negative or no whole number.
    """

    pixels: int
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("pixels", "seed"):
            value = getattr(self, name)
            if not isinstance(value, int) or value < 0:
                raise RfvizError(f"{name} of Jitter is {value!r}: it must be a whole number from 0 up.")

    @property
    def margin(self) -> int:  # type: ignore[override]
        """Room for the shifts, px."""
        return self.pixels

    def view(self, images: Tensor, channels: Tensor, step: int) -> Tensor:
        """Cut a window out of each image."""
        side = images.shape[2] - 2 * self.pixels
        windows = []
        for image, channel in zip(images, channels.tolist(), strict=True):
            y, x = np.random.default_rng((self.seed, channel, step)).integers(0, 2 * self.pixels + 1, 2).tolist()
            windows.append(image[:, y : y + side, x : x + side])
        return torch.stack(windows)
