"""The noise experiment with a dose, with matched controls, and channel by channel.

Table 1 compares groups of channels at one strength of noise. Here the noise is ReLU(N(0, sigma^2)) for several sigma,
every group has active channels beside it that the network reads as strongly, and each channel is also disturbed alone.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from rfviz import intervals
from rfviz.errors import RfvizError
from rfviz.images.data import Labelled
from rfviz.images.whitening import NONE, Whitening
from rfviz.intervals import Interval
from rfviz.kernels.inactivity import adding_noise, control_count, inactive_channels, least_active_channels
from rfviz.kernels.interventions import loss_changes, spread
from rfviz.kernels.responses import LayerResponses

DOSES = (0.25, 0.5, 1.0, 2.0, 4.0)
"""Standard deviations of the noise before it is rectified."""

PAPER_DOSE = 1.0
"""The paper's."""

SEEDS = 2
"""Noise seeds of each dose."""


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
        The same with noise (sigma 1, the first seed) in one channel alone, for each channel of the layer.
    groups : Tensor of int64, shape (N,)
        Images of one group belong together, such as the crops of one photograph: intervals are over groups.
    """

    tested: tuple[int, ...]
    inactive: bool
    matched: tuple[int, ...]
    doses: tuple[float, ...]
    loss: dict[str, Tensor]
    single: Tensor
    groups: Tensor

    def mean(self, losses: Tensor) -> Interval:
        """Return the mean of N losses with its interval over groups."""
        apart = len(self.groups.unique()) == len(self.groups)
        return intervals.mean(losses, "images" if apart else "photographs", self.groups)


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


def noise_dose(
    net: nn.Module,
    images: Labelled,
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
        As for `rfviz.kernels.inactivity.noise_effect`.
    strength : Tensor, shape (C,)
        See `matched_active`.
    doses : sequence of float
        Standard deviations of the noise before it is rectified.
    seeds : sequence of int
        Noise seeds.
    groups : sequence of int, optional
        Which images belong together, for intervals; each is one for itself by default.
    at_most : int, optional
        Images to measure on, all by default; see `rfviz.kernels.interventions.spread`.

    Raises
    ------
    RfvizError
        If the responses are of other images, there is no dose or seed, or a dose is negative.
    """
    if len(images) != responses.image_count:
        raise RfvizError(
            f"the responses are of {responses.image_count} images, but {len(images)} were given: collect them anew."
        )
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
    alone = {("alone", channel, seeds[0]): adding_noise([channel], seeds[0]) for channel in range(responses.channels)}
    chosen = spread(len(images), len(images) if at_most is None else at_most)
    found = loss_changes(
        net, images, layer, {**changes, **alone}, indices=chosen, preprocess=preprocess,
        batch_size=batch_size, progress=progress,
    )  # fmt: skip
    loss = {
        group: torch.stack([torch.stack([found[group, dose, seed] for seed in seeds]).mean(0) for dose in doses])
        for group in sets
    }
    return NoiseDose(
        tuple(tested), bool(inactive), matched, tuple(doses), loss, torch.stack([found[key] for key in alone]),
        torch.tensor(chosen if groups is None else [groups[i] for i in chosen]),
    )  # fmt: skip
