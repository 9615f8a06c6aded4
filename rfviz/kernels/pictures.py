"""What pictures of channels have in common, as numbers.

How alike two pictures are is the correlation over pixels and colours, each picture minus its mean colour.
"""

import itertools
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from rfviz.images.data import Indexed
from rfviz.kernels.responses import FLAT, LayerResponses, preferred_stimuli
from rfviz.stats import ROUNDING


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


REACH = 2
"""Pixels by which one picture may be shifted against another before they are called different."""


def diversity(images: Tensor | Indexed, responses: LayerResponses, side: int) -> Tensor:
    """Return how little the strongest stimuli of a channel have in common, float64 `(C,)`.

    One minus the mean likeness of any two of them: the largest correlation of the middle of one with a piece of the
    other that may be shifted by up to `REACH` px each way, and the same with the two exchanged, the mean of both. What
    is compared are the central `side` x `side` px, the same piece in every layer, so that larger fields are not more
    diverse for being larger. NaN where fewer than two stimuli fire the channel with that piece wholly inside the image.
    """
    found = []
    for channel in range(responses.channels):
        patches, inside = preferred_stimuli(images, responses, channel)
        whole = central(inside, side).flatten(1).all(1)
        alike = _shifted_likeness(central(patches[whole], side))
        count = len(alike)
        pairs = alike.sum() - alike.diagonal().sum()
        found.append(1 - pairs / (count * (count - 1)) if count > 1 else alike.new_tensor(torch.nan))
    return torch.stack(found)


def _shifted_likeness(pictures: Tensor) -> Tensor:
    """Return the largest correlation of the middle of each picture with shifted pieces of each other, `(n, n)`."""
    side = pictures.shape[-1] - 2 * REACH
    pieces = pictures.double().unfold(2, side, 1).unfold(3, side, 1).permute(0, 2, 3, 1, 4, 5).flatten(1, 2)
    pieces = F.normalize(centred(pieces).flatten(2), dim=2)  # (n, shifts, pixels)
    middle = pieces[:, pieces.shape[1] // 2]
    alike = torch.einsum("ap,bsp->abs", middle, pieces).amax(2)
    return (alike + alike.T) / 2


def readability(images: Tensor | Indexed, responses: LayerResponses) -> Tensor:
    """Return how much contrast the mean stimulus of each channel has kept, float64 `(C,)`; NaN where it never fires.

    Root mean square over pixels and colours of the mean, minus the mean patch, over that of the strongest stimuli one
    by one. This is how the mean looks as it is; stretching it would hide the loss.

    Parameters
    ----------
    images : Tensor or Indexed
        Those that `responses` was collected over.
    responses : LayerResponses
        With mean stimuli.
    """
    single = torch.full((responses.channels,), torch.nan, dtype=torch.float64)
    assert responses.competing_patch is not None
    assert responses.mean_count is not None
    for channel in responses.competes.nonzero().flatten().tolist():
        patches, inside = preferred_stimuli(images, responses, channel)
        there = inside[:, None].expand_as(patches)
        single[channel] = (patches - responses.competing_patch).double()[there].square().mean().sqrt()
    covered = (responses.mean_count > 0)[:, None].expand_as(responses.mean_deviation)
    power = (responses.mean_deviation.double().square() * covered).sum((1, 2, 3)) / covered.sum((1, 2, 3))
    return power.sqrt() / single


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


def reliability(first: Tensor, second: Tensor) -> Tensor:
    """Return how alike the centres of two pictures of the same channel are, float64 `(C,)`.

    Parameters
    ----------
    first, second : Tensor, shape (C, 3, R, R)
        From two halves of the images, as they differ from the mean patch.

    Returns
    -------
    Tensor
        Correlation over the pixels of the central third of the side; NaN where one of the two is flat there.
    """
    side = max(3, first.shape[-1] // 3)
    side += (first.shape[-1] - side) % 2
    a, b = (centred(central(each.double(), side)).flatten(1) for each in (first, second))
    return (a * b).sum(1) / (a.norm(dim=1) * b.norm(dim=1))  # 0 / 0 is NaN


def equalized(pictures: Tensor, spectrum: Tensor) -> Tensor:
    """Give every picture `(N, 3, R, R)` the same amplitudes, `(3, R, R // 2 + 1)`, and leave it its phases.

    Means over stimuli are smooth and maximization images are not, for any channel; that is no likeness or unlikeness of
    what they show.
    """
    found = torch.fft.rfft2(centred(pictures.double()))
    amplitudes = torch.where(found.abs() > 0, spectrum, 0.0)  # what is flat has no phases, and stays flat
    return torch.fft.irfft2(torch.polar(amplitudes, found.angle()), s=pictures.shape[-2:])


def spectrum(pictures: Tensor) -> Tensor:
    """Return the mean amplitudes of pictures `(N, 3, R, R)`, each of norm 1 before, `(3, R, R // 2 + 1)`."""
    normal = F.normalize(centred(pictures.double()).flatten(1), dim=1).view(pictures.shape)
    return torch.fft.rfft2(normal).abs().mean(0)


def own_rank(first: Tensor, second: Tensor) -> Tensor:
    """Return how often a picture is more like the other one of its channel than like another channel's, `(C,)`.

    Parameters
    ----------
    first, second : Tensor, shape (C, 3, R, R)
        Two pictures of each channel.

    Returns
    -------
    Tensor of float64
        Share of the other channels whose picture in `second` is less like the one in `first`, in [0, 1]: 0.5 is chance,
        and the mean over channels an area under the ROC curve. How alike they are is the largest correlation at equal
        spectra (`equalized`) over shifts by up to `REACH` px, round the edges. Ties count half. NaN without other
        channels, and where one of the two pictures is of one colour: such a channel is no other channel either.
    """
    ranks = torch.full((len(first),), torch.nan, dtype=torch.float64)
    shaped = (centred(first).flatten(1).abs().amax(1) > FLAT) & (centred(second).flatten(1).abs().amax(1) > FLAT)
    if shaped.sum() < 2:
        return ranks
    first, second = first[shaped], second[shaped]
    amplitudes = (spectrum(first) + spectrum(second)) / 2
    one, other = equalized(first, amplitudes), equalized(second, amplitudes)
    shifts = itertools.product(range(-REACH, REACH + 1), repeat=2)
    alike = torch.stack([correlations(one, other.roll(shift, (2, 3))) for shift in shifts]).amax(0)
    less_alike = alike.diagonal()[:, None] - alike
    less = (less_alike > ROUNDING).double() + 0.5 * (less_alike.abs() <= ROUNDING).double()
    ranks[shaped] = (less.sum(1) - 0.5) / (len(alike) - 1)  # itself is a tie
    return ranks


def outside_span(pictures: Tensor, filters: Tensor) -> Tensor:
    """Return the share of the contrast energy of pictures that no combination of filters makes, float64 `(C,)`, 0 to 1.

    That is the sum of squares of a picture, minus its mean colour; mean colours are thrown in with the filters.

    Parameters
    ----------
    pictures : Tensor, shape (C, 3, R, R)
        Of which the central F x F px count.
    filters : Tensor, shape (N, 3, F, F)
        Those of vanishing norm, less than `VANISHED` of the median, do not count: they are gone.

    Returns
    -------
    Tensor
        NaN where a picture is flat.
    """
    seen = centred(central(pictures.double(), filters.shape[-1])).flatten(1)
    rows = centred(filters.detach().cpu().double()).flatten(1)
    norms = filters.detach().cpu().double().flatten(1).norm(dim=1)
    rows = rows[norms > VANISHED * norms.median()] / norms[norms > VANISHED * norms.median(), None]
    basis = torch.linalg.svd(rows, full_matrices=False)
    basis = basis.Vh[1e-6 * basis.S.max() < basis.S]
    whole = seen.square().sum(1)
    return torch.where(whole > 0, 1 - (seen @ basis.T).square().sum(1) / whole, torch.nan).clamp(min=0)


VANISHED = 1e-2
"""Norm of a filter, over the median one, below which it counts as gone."""
