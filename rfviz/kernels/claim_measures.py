"""What the paper says of its pictures, as numbers: one per channel."""

from collections.abc import Mapping

import torch
from torch import Tensor

from rfviz.images.data import Indexed
from rfviz.images.whitening import Whitening
from rfviz.kernels.maximization import Maximization
from rfviz.kernels.responses import LayerResponses, preferred_stimuli
from rfviz.kernels.similarity import central, centred, correlations


def diversity(images: Tensor | Indexed, responses: LayerResponses, side: int) -> Tensor:
    """Return how little the strongest stimuli of a channel have in common, float64 `(C,)`.

    One less the mean correlation between the central `side` x `side` px of any two of them: the same piece in every
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


def centrality(means: Tensor) -> Tensor:
    """Return how much stronger the contrast of pictures is in their centre than towards their rim, float64 `(C,)`.

    The base-2 logarithm of the root mean square in the central third of the side over that outside of the central two
    thirds, each pixel less the mean colour of the picture. NaN for a picture of one colour.
    """
    side = means.shape[-1]
    squares = centred(means.double()).square().mean(1)
    place = (torch.arange(side) - (side - 1) / 2).abs() / (side / 2)
    distance = torch.maximum(place[:, None], place[None, :])
    centre, rim = (squares[:, part].mean(1) for part in (distance <= 1 / 3, distance > 2 / 3))
    return torch.where((centre > 0) & (rim > 0), 0.5 * (centre / rim).log2(), torch.nan)


def own_resemblance(first: Tensor, second: Tensor) -> Tensor:
    """Return how much more a picture is like another one of its channel than like those of other channels, `(C,)`.

    Correlations of `first` with `second`, both `(C, 3, R, R)`: that of the same number less the mean of all others.
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
        assert each.mean_stimulus is not None
        there = each.positive_count > 0
        driven = whitening.to_rgb(maxima[layer].images[there].double(), clip=False)
        placed = torch.full((each.channels,), torch.nan, dtype=torch.float64)
        placed[there] = own_resemblance(each.mean_stimulus[there], driven)
        found.append(placed)
    return torch.stack(found).nanmean(0)
