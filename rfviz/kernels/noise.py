"""What noise in channels of the first pooling layer does to the classification (Table 1, and beyond it).

The experiment adds ReLU(N(0, 1)) to channels of the layer's output and measures how the mean cross-entropy of the
evaluation images changes. Noise depends on nothing but (seed, image, channel), so batch size and order change nothing.

`noise_effect` is the paper's Table 1, which compares groups of channels at one strength of noise. In `noise_dose` the
noise is ReLU(N(0, sigma^2)) for several sigma, the tested channels have active ones beside them that the network reads
as strongly, and each channel is also disturbed on its own.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cache, partial
from math import pi, sqrt

import numpy as np
import torch
from torch import Tensor, nn

from rfviz import stats
from rfviz.errors import RfvizError
from rfviz.images.data import Indexed, labels_of
from rfviz.images.whitening import NONE, Whitening
from rfviz.kernels.intervene import (
    Change,
    Outcome,
    adding,
    cutting,
    deviation,
    into_convolutions,
    into_skip,
    loss_changes,
    outcomes,
    spread,
)
from rfviz.kernels.responses import LayerResponses
from rfviz.kernels.silent import (
    control_count,
    inactive_channels,
    least_active_channels,
    matched_active,
    tested_channels,
)
from rfviz.stats import NOTHING, Interval

# The first entry of every random key: numpy takes (1, 2) and (1, 2, 0) for the same key, so each purpose has its own.
_NOISE, _INACTIVE, _ACTIVE = 1, 2, 3

PAPER_BATCH = 256
"""Images that share a randomly drawn channel, whatever the compute batch: the paper's mini-batch."""

ROWS = ("inactive", "random_inactive", "least_active", "random_active")
"""The rows of the experiment; the paper does not have the last two, of which the last is the control."""


DOSES = (0.25, 0.5, 1.0, 2.0, 4.0)
"""Standard deviations of the noise before it is rectified."""

PAPER_DOSE = 1.0
"""The paper's."""

SEEDS = 2
"""Noise seeds of each dose."""


def noise(seed: int, image: int, channel: int, size: Sequence[int]) -> Tensor:
    """Return ReLU(N(0, 1)) for one image and channel, float32 of the given size `(h, w)`."""
    generator = np.random.default_rng((_NOISE, seed, image, channel))
    return torch.from_numpy(generator.standard_normal(tuple(size), dtype=np.float32)).clamp_(min=0)


def adding_noise(channels: Sequence[int], seed: int, sigma: float = 1.0) -> Change:
    """Return the change that adds ReLU(N(0, sigma^2)) to channels: for each sigma the same noise, scaled."""
    return _adding(lambda image: channels, partial(noise, seed), sigma)


def _adding(
    channels_of: Callable[[int], Sequence[int]],
    draw: Callable[[int, int, Sequence[int]], Tensor],
    sigma: float = 1.0,
) -> Change:
    """Return the change that adds ``sigma * draw(image, channel, size)`` to some channels of each image."""

    def change(responses: Tensor, numbers: Sequence[int]) -> Tensor:
        for i, number in enumerate(numbers):
            for channel in channels_of(number):
                responses[i, channel] += sigma * draw(number, channel, responses.shape[2:]).to(responses)
        return responses

    return change


@dataclass(frozen=True)
class Effect:
    """Change that noise makes, one value per noise seed, float64 `(S,)` each.

    Parameters
    ----------
    channels : tuple of int
        Channels that may get noise (in ``random_active``: those of the first seed).
    loss : Tensor
        Mean evaluation cross-entropy with noise minus without, nats; without labels, mean divergence of the output.
    top1 : Tensor
        Top-1 accuracy with noise minus without, as a share in [-1, 1]; without labels, minus the share of images to
        which the network gives another class than without noise.
    loss_interval, top1_interval : Interval
        Their means over noise seeds, with intervals over images (over the groups that belong together).
    """

    channels: tuple[int, ...]
    loss: Tensor
    top1: Tensor
    loss_interval: Interval = NOTHING
    top1_interval: Interval = NOTHING


@dataclass(frozen=True)
class NoiseEffect:
    """Outcome of the noise experiment.

    Parameters
    ----------
    inactive : tuple of int
        The inactive channels; their number is the first column of Table 1.
    channels : int
        Channels of the layer.
    images : int
        Evaluation images.
    clean_loss, clean_top1 : float
        Mean evaluation cross-entropy in nats and top-1 accuracy without noise; without labels 0 and 1.
    effects : dict
        One `Effect` per row of `ROWS`; the first two are missing where no channel is inactive.
    labelled : bool
        Whether the images have labels.
    """

    inactive: tuple[int, ...]
    channels: int
    images: int
    clean_loss: float
    clean_top1: float
    effects: dict[str, Effect] = field(default_factory=dict)
    labelled: bool = True


def noise_effect(
    net: nn.Module,
    images: Tensor | Indexed,
    responses: LayerResponses,
    *,
    layer: str = "maxpool",
    seeds: Sequence[int] = range(5),
    n_random: int = 1,
    groups: Sequence[int] | None = None,
    preprocess: Whitening = NONE,
    batch_size: int = 64,
    progress: bool = False,
) -> NoiseEffect:
    """Measure what noise in inactive channels, and in control channels, does to the classification.

    Parameters
    ----------
    net : nn.Module
        A classifier that `torch.fx` can trace, in which every path runs through `layer`.
    images : Tensor (N, 3, H, W) or data set
        The evaluation images, RGB in [0, 1], floating point. Labels are read from an attribute `labels`; without them,
        the divergence of the output takes the place of the loss (`rfviz.kernels.intervene.Outcome`).
    responses : LayerResponses
        What `rfviz.kernels.responses.collect` found for `layer` on the same images.
    layer : str
        Where the noise is added.
    seeds : sequence of int
        Noise seeds; each gives one value per row.
    n_random : int
        Inactive channels that get noise in the row ``random_inactive``, drawn anew for every `PAPER_BATCH` consecutive
        images (our reading of the paper, which draws per mini-batch, is 1).
    groups : sequence of int, optional
        Which images belong together, for intervals; each is one for itself by default.
    preprocess : Whitening or callable
        Applied to the images just before the network.
    batch_size : int
        Changes the speed, never the result beyond rounding.
    progress : bool
        Show a progress bar.

    Raises
    ------
    RfvizError
        If the responses are of other images, an option is impossible, or a loss is not finite.
    """
    if len(seeds) < 1 or n_random < 1 or batch_size < 1:
        raise RfvizError(
            f"the number of seeds ({len(seeds)}), n_random ({n_random}) and batch_size ({batch_size}) must be at "
            "least 1."
        )
    responses.check_images(images)
    inactive = inactive_channels(responses)
    count = control_count(responses.channels)
    active = tuple(sorted(set(range(responses.channels)) - set(inactive)))
    least = least_active_channels(responses, count)

    candidates = {"inactive": inactive, "random_inactive": inactive, "least_active": least, "random_active": active}
    rows = [row for row in ROWS if candidates[row]]

    def chosen(row: str, seed: int, image: int) -> tuple[int, ...]:
        """Return the channels that get noise in an image."""
        if row == "random_inactive":
            return _draw(inactive, n_random, _INACTIVE, seed, image // PAPER_BATCH)
        if row == "random_active":
            return _draw(active, count, _ACTIVE, seed)
        return candidates[row]

    def choice(row: str, seed: int, numbers: Sequence[int]) -> tuple:
        """Return what decides the outcome: the seed, and the channels that get noise in each image."""
        return seed, tuple(chosen(row, seed, number) for number in numbers)

    def changes(numbers: Sequence[int]) -> Iterator[tuple[tuple, Change]]:
        for seed in seeds:
            draw = cache(partial(noise, seed))  # rows share the noise of an image and channel
            # and the outcome, where they choose the same channels
            yield from {choice(row, seed, numbers): _adding(partial(chosen, row, seed), draw) for row in rows}.items()

    clean = torch.zeros(2, len(images), dtype=torch.float64)
    noisy = {row: torch.zeros(len(seeds), 2, len(images), dtype=torch.float64) for row in rows}
    for numbers, unchanged, changed in outcomes(
        net, images, layer, changes, preprocess=preprocess, batch_size=batch_size, progress=progress
    ):
        clean[:, numbers] = _both(unchanged)
        for row, each in noisy.items():
            for s, seed in enumerate(seeds):
                each[s][:, numbers] = _both(changed[choice(row, seed, numbers)])
    together = torch.arange(len(images)) if groups is None else torch.as_tensor(groups)

    def effect(row: str) -> Effect:
        change = noisy[row] - clean
        loss, top1 = change.mean(2).unbind(1)
        channels = chosen(row, seeds[0], 0) if row == "random_active" else candidates[row]
        return Effect(channels, loss, top1, *(over_groups(each, together) for each in change.mean(0)))

    loss, top1 = clean.mean(1).tolist()
    return NoiseEffect(
        inactive, responses.channels, len(images), loss, top1, {row: effect(row) for row in rows},
        labels_of(images) is not None,
    )  # fmt: skip


def over_groups(values: Tensor, groups: Tensor) -> Interval:
    """Return the mean over N images with its interval over groups of them, such as the crops of a photograph."""
    apart = len(groups.unique()) == len(groups)
    return stats.mean(values, "images" if apart else "photographs", groups)


def _draw(candidates: Sequence[int], count: int, *key: int) -> tuple[int, ...]:
    count = min(count, len(candidates))
    return tuple(sorted(np.random.default_rng(key).choice(candidates, count, replace=False).tolist()))


def _both(outcome: Outcome) -> Tensor:
    """Return the loss of each image and whether it is classified correctly, `(2, n)`."""
    return torch.stack([outcome.loss.cpu(), outcome.correct.double().cpu()])


@dataclass(frozen=True)
class NoiseDose:
    """How the loss of N evaluation images changes with noise in channels of the first pooling layer.

    Parameters
    ----------
    tested : tuple of int
        The inactive channels, or the least active ones where no channel is inactive.
    inactive : bool
        Whether they are inactive.
    matched : tuple of int
        As many active channels, see `matched_active`.
    doses : tuple of float
    loss : dict of Tensor of float64, shape (D, N)
        For ``"tested"`` and ``"matched"``, noise in all of them at once: cross-entropy with noise minus without, nats,
        mean over noise seeds.
    single : Tensor of float64, shape (C, N)
        The same with noise (sigma 1, the first seed) in a single channel, for each channel of the layer.
    groups : Tensor of int64, shape (N,)
        Images of one group belong together, such as the crops of one photograph: intervals are over groups.
    labelled : bool
        Whether the images have labels; if not, losses are divergences (`rfviz.kernels.intervene.Outcome`).
    """

    tested: tuple[int, ...]
    inactive: bool
    matched: tuple[int, ...]
    doses: tuple[float, ...]
    loss: dict[str, Tensor]
    single: Tensor
    groups: Tensor
    labelled: bool = True

    def mean(self, losses: Tensor) -> Interval:
        """Return the mean of N losses with its interval over groups."""
        return over_groups(losses, self.groups)


OFFSET = 1 / sqrt(2 * pi)
"""Mean of ReLU(N(0, 1))."""

VARIANTS = {
    "noise": "noise, as in Table 1",
    "offset": f"constant offset of its mean, {OFFSET:.2f}",
    "scaled": "noise times the deviation of the layer",
    "skip": "noise in the skip of the first block alone",
    "convolutions": "noise in the convolutions of the first block alone",
    "cut": "nothing written to them by the blocks",
}
"""What may be done to channels that a network is not used to: the paper's noise, and what tells why it harms."""


@dataclass(frozen=True)
class Disturbances:
    """How the loss of N evaluation images changes when channels of the first pooling layer are disturbed in some ways.

    Parameters
    ----------
    tested, matched : dict of Tensor of float64, shape (N,)
        By name of `VARIANTS`, cross-entropy with the change minus without, nats, mean over noise seeds, for the
        channels of the same names in `NoiseDose`. The last three are there where the skips hand on these channels.
    deviation : float
        Standard deviation of the responses of all active channels of the layer.
    """

    tested: dict[str, Tensor]
    matched: dict[str, Tensor]
    deviation: float


def disturbances(
    net: nn.Module,
    images: Tensor | Indexed,
    layers: Sequence[str],
    dose: NoiseDose,
    *,
    skips: bool,
    seeds: Sequence[int] = range(SEEDS),
    at_most: int | None = None,
    preprocess: Whitening = NONE,
    batch_size: int = 128,
    progress: bool = False,
) -> Disturbances:
    """Disturb the tested and the matched channels of the noise experiment in the ways of `VARIANTS`.

    Parameters
    ----------
    net, images, seeds, at_most, preprocess, batch_size, progress
        As for `noise_dose`.
    layers : sequence of str
        The first pooling layer and the blocks behind it that have the same channels.
    dose : NoiseDose
        Of the same network and images.
    skips : bool
        Whether the skips of these blocks hand on the channels.
    """
    chosen = spread(len(images), len(images) if at_most is None else at_most)
    silent = set(dose.tested if dose.inactive else ())
    active = [channel for channel in range(len(dose.single)) if channel not in silent]
    own = deviation(net, images, layers[0], active, indices=chosen, preprocess=preprocess, batch_size=batch_size)
    changes: dict[tuple[str, str, int], Change] = {}
    for group, channels in (("tested", dose.tested), ("matched", dose.matched)):
        changes[group, "offset", 0] = adding(channels, OFFSET)
        for i, seed in enumerate(seeds):
            noisy = changes[group, "noise", i] = adding_noise(channels, seed)
            changes[group, "scaled", i] = adding_noise(channels, seed, own)
            if skips:
                changes[group, "skip", i] = into_skip(net, layers[0], layers[1], noisy)
                changes[group, "convolutions", i] = into_convolutions(net, layers[0], layers[1], noisy)
        if skips:
            changes[group, "cut", 0] = cutting(net, layers, channels)
    found = loss_changes(
        net, images, layers[0], changes, indices=chosen, preprocess=preprocess, batch_size=batch_size, progress=progress
    )
    losses: dict[str, dict[str, list[Tensor]]] = {"tested": {}, "matched": {}}
    for (group, variant, _), each in found.items():
        losses[group].setdefault(variant, []).append(each)
    means = {
        group: {variant: torch.stack(every[variant]).mean(0) for variant in VARIANTS if variant in every}
        for group, every in losses.items()
    }
    return Disturbances(means["tested"], means["matched"], own)


def noise_dose(
    net: nn.Module,
    images: Tensor | Indexed,
    responses: LayerResponses,
    strength: Tensor,
    *,
    layer: str = "maxpool",
    doses: Sequence[float] = DOSES,
    seeds: Sequence[int] = range(SEEDS),
    groups: Sequence[int] | None = None,
    at_most: int | None = None,
    preprocess: Whitening = NONE,
    batch_size: int = 128,
    progress: bool = False,
) -> NoiseDose:
    """Measure the noise experiment by dose, beside matched active channels, and channel by channel.

    Parameters
    ----------
    net, images, responses, layer, preprocess, batch_size, progress
        As for `noise_effect`.
    strength : Tensor, shape (C,)
        See `rfviz.kernels.silent.matched_active`.
    doses : sequence of float
        Standard deviations of the noise before it is rectified.
    seeds : sequence of int
        Noise seeds.
    groups : sequence of int, optional
        Which images belong together, for intervals; each is one for itself by default.
    at_most : int, optional
        Images to measure on, all by default; see `rfviz.kernels.intervene.spread`.

    Raises
    ------
    RfvizError
        If the responses are of other images, there is no dose or seed, or a dose is negative.
    """
    responses.check_images(images)
    if not doses or not len(seeds) or min(doses) < 0:
        raise RfvizError(f"doses {tuple(doses)} and seeds {tuple(seeds)}: give at least one of each, doses from 0 up.")
    inactive = inactive_channels(responses)
    tested = tested_channels(responses)
    matched = matched_active(tested, inactive, strength)
    sets = {"tested": tested, "matched": matched}
    changes = {
        (group, dose, seed): adding_noise(channels, seed, dose)
        for group, channels in sets.items()
        for dose in doses
        for seed in seeds
    }
    single = {channel: adding_noise([channel], seeds[0]) for channel in range(responses.channels)}
    chosen = spread(len(images), len(images) if at_most is None else at_most)
    found = loss_changes(
        net, images, layer, {**changes, **single}, indices=chosen, preprocess=preprocess,
        batch_size=batch_size, progress=progress,
    )  # fmt: skip
    loss = {
        group: torch.stack([torch.stack([found[group, dose, seed] for seed in seeds]).mean(0) for dose in doses])
        for group in sets
    }
    return NoiseDose(
        tuple(tested), bool(inactive), matched, tuple(doses), loss, torch.stack([found[channel] for channel in single]),
        torch.tensor(chosen if groups is None else [groups[i] for i in chosen]), labels_of(images) is not None,
    )  # fmt: skip
