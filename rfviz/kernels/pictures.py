"""What pictures of channels have in common, as numbers.

How alike two pictures are is the correlation over pixels and colours, each picture minus its mean colour.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from rfviz.images.data import Indexed
from rfviz.images.whitening import Whitening
from rfviz.kernels.maximization import Maximization
from rfviz.kernels.responses import LayerResponses, preferred_stimuli


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


def pairing(first: Tensor, second: Tensor, seed: int = 0) -> Pairing:
    """Compare the pictures of channels in two layers, number by number, beside random pairings.

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


def diversity(images: Tensor | Indexed, responses: LayerResponses, side: int) -> Tensor:
    """Return how little the strongest stimuli of a channel have in common, float64 `(C,)`.

    One minus the mean correlation between the central `side` x `side` px of any two of them: the same piece in every
    layer, so that larger fields are not more diverse for being larger. NaN where fewer than two stimuli fire the
    channel with that piece wholly inside the image.
    """
    found = []
    for channel in range(responses.channels):
        patches, inside = preferred_stimuli(images, responses, channel)
        whole = central(inside, side).flatten(1).all(1) & (responses.top_values[channel] > 0)
        alike = correlations(central(patches[whole], side), central(patches[whole], side))
        count = len(alike)
        pairs = alike.sum() - alike.diagonal().sum()
        found.append(1 - pairs / (count * (count - 1)) if count > 1 else alike.new_tensor(torch.nan))
    return torch.stack(found)


def centrality(deviations: Tensor) -> Tensor:
    """Return how much stronger the contrast of pictures is in their centre than towards their rim, float64 `(C,)`.

    The base-2 logarithm of the root mean square in the central third of the side over that outside of the central two
    thirds, of pictures as they differ from the mean patch, `(C, 3, R, R)`. NaN where there is nothing in one of them.
    """
    side = deviations.shape[-1]
    squares = deviations.double().square().mean(1)
    place = (torch.arange(side) - (side - 1) / 2).abs() / (side / 2)
    distance = torch.maximum(place[:, None], place[None, :])
    centre, rim = (squares[:, part].mean(1) for part in (distance <= 1 / 3, distance > 2 / 3))
    return torch.where((centre > 0) & (rim > 0), 0.5 * (centre / rim).log2(), torch.nan)


def own_resemblance(first: Tensor, second: Tensor) -> Tensor:
    """Return how much more a picture is like another one of its channel than like those of other channels, `(C,)`.

    Correlations of `first` with `second`, both `(C, 3, R, R)`: that of the same number minus the mean of all others.
    """
    alike = correlations(first, second)
    count = len(alike)
    own = alike.diagonal()
    return own - (alike.sum(1) - own) / (count - 1) if count > 1 else own * torch.nan


def own_maximization(
    responses: Mapping[str, LayerResponses], maxima: Mapping[str, Maximization], whitening: Whitening
) -> Tensor:
    """Return `own_resemblance` of mean stimulus and maximization image, the mean over layers, `(C,)`.

    NaN for channels that fire in none of them. All layers must have the same channels.
    """
    found = []
    for layer, each in responses.items():
        there = each.positive_count > 0
        driven = whitening.to_rgb(maxima[layer].images[there].double(), clip=False)
        placed = torch.full((each.channels,), torch.nan, dtype=torch.float64)
        placed[there] = own_resemblance(each.mean_deviation[there], driven)
        found.append(placed)
    return torch.stack(found).nanmean(0)
