"""How alike two pictures are: the correlation over pixels and colours, each picture less its mean colour."""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F


def centred(images: Tensor) -> Tensor:
    """Take the mean colour off images `(..., 3, R, R)`."""
    return images - images.mean(dim=(-2, -1), keepdim=True)


def correlations(first: Tensor, second: Tensor) -> Tensor:
    """Correlate every image of one set with every image of another.

    Parameters
    ----------
    first, second : Tensor, shapes (A, 3, R, R) and (B, 3, R, R)
        RGB, or any three colour channels.

    Returns
    -------
    Tensor of float64, shape (A, B)
        In [-1, 1]; 0 where an image is of one colour.
    """
    first, second = (F.normalize(centred(images.double()).flatten(1), dim=1) for images in (first, second))
    return (first @ second.T).clamp(-1, 1)


def central(images: Tensor, side: int) -> Tensor:
    """Cut the central `side` x `side` px out of images `(..., R, R)`; both sides must be odd, or both even."""
    begin = (images.shape[-1] - side) // 2
    return images[..., begin : begin + side, begin : begin + side]


PERMUTATIONS = 2000
"""Random pairings of channels that the pairing by number is compared with."""


@dataclass(frozen=True)
class Pairing:
    """How alike channels of the same number are in two layers.

    Parameters
    ----------
    same : Tensor of float64, shape (n,)
        Correlation of each channel with that of the same number in the other layer.
    by_chance : Tensor of float64, shape (PERMUTATIONS,)
        Mean correlation under random pairings of the same channels.
    """

    same: Tensor
    by_chance: Tensor

    @property
    def p(self) -> float:
        """Share of random pairings at least as much alike, the observed one included; NaN for fewer than 2 channels."""
        if len(self.same) < 2:
            return float("nan")
        return float((1 + (self.by_chance >= self.same.mean() - 1e-12).sum()) / (1 + len(self.by_chance)))


def pairing(first: Tensor, second: Tensor, seed: int = 0) -> Pairing:
    """Compare the pictures of channels in two layers, number by number, with random pairings (a permutation test).

    Parameters
    ----------
    first, second : Tensor, shapes (C, 3, R, R) and (C, 3, S, S)
        The same channels, in two layers. The larger pictures are cut to the size of the smaller, around their centre,
        where the fields of both neurons lie.
    seed : int
        Of the random pairings.
    """
    side = min(first.shape[-1], second.shape[-1])
    alike = correlations(central(first, side), central(second, side))
    count = len(alike)
    generator = torch.Generator().manual_seed(seed)
    rows = torch.arange(count)
    means = [
        alike[rows, torch.randperm(count, generator=generator)].mean() for _ in range(PERMUTATIONS if count else 0)
    ]
    return Pairing(alike.diagonal().clone(), torch.stack(means) if means else alike.new_zeros(0))
