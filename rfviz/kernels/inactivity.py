"""Inactive channels of the first pooling layer, and what noise in them does to the classification (Table 1).

A channel is inactive if its response is exactly 0 for every evaluation image and position. The experiment adds
ReLU(N(0, 1)) to channels of the layer's output and measures how the mean cross-entropy of the evaluation images
changes. Noise depends on nothing but (seed, image, channel), so batch size and order change nothing.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from math import nan, sqrt

import numpy as np
import torch
from torch import Tensor, nn
from tqdm.auto import tqdm

from rfviz.errors import RfvizError
from rfviz.images.batches import batches
from rfviz.images.data import Labelled
from rfviz.images.whitening import NONE, Whitening
from rfviz.kernels.interventions import Change, cross_entropies
from rfviz.kernels.responses import LayerResponses
from rfviz.nets.graph import ForwardPass

# The first entry of every random key: numpy takes (1, 2) and (1, 2, 0) for the same key, so each purpose has its own.
_NOISE, _INACTIVE, _ACTIVE = 1, 2, 3

PAPER_BATCH = 256
"""Images that share a randomly drawn channel, whatever the compute batch: the paper's mini-batch."""

ROWS = ("inactive", "random_inactive", "least_active", "random_active")
"""The rows of the experiment; the last two are controls that the paper does not have."""


@dataclass(frozen=True)
class Effect:
    """Change that noise makes, one value per noise seed, float64 `(S,)` each.

    Parameters
    ----------
    channels : tuple of int
        Channels that may get noise (in ``random_active``: those of the first seed).
    loss : Tensor
        Mean evaluation cross-entropy with noise minus without, nats.
    top1 : Tensor
        Top-1 accuracy with noise minus without, as a share in [-1, 1].
    """

    channels: tuple[int, ...]
    loss: Tensor
    top1: Tensor


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
        Mean evaluation cross-entropy in nats and top-1 accuracy without noise.
    effects : dict
        One `Effect` per row of `ROWS`; the first two are missing where no channel is inactive.
    """

    inactive: tuple[int, ...]
    channels: int
    images: int
    clean_loss: float
    clean_top1: float
    effects: dict[str, Effect] = field(default_factory=dict)


def mean_and_error(values: Tensor) -> tuple[float, float]:
    """Return the mean over seeds and its standard error (NaN for one seed, which has none)."""
    error = values.std().item() / sqrt(len(values)) if len(values) > 1 else nan
    return values.mean().item(), error


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
    """Return how many channels the control rows take: the paper's 13 of 64, in proportion, at least 1."""
    return max(1, round(13 * channels / 64))


def noise(seed: int, image: int, channel: int, size: Sequence[int]) -> Tensor:
    """Return ReLU(N(0, 1)) for one image and channel, float32 of the given size `(h, w)`."""
    generator = np.random.default_rng((_NOISE, seed, image, channel))
    return torch.from_numpy(generator.standard_normal(tuple(size), dtype=np.float32)).clamp_(min=0)


def adding_noise(channels: Sequence[int], seed: int, sigma: float = 1.0) -> Change:
    """Return the change that adds ReLU(N(0, sigma^2)) to channels: for each sigma the same noise, scaled."""

    def change(responses: Tensor, numbers: Sequence[int]) -> Tensor:
        for i, number in enumerate(numbers):
            for channel in channels:
                responses[i, channel] += sigma * noise(seed, number, channel, responses.shape[2:]).to(responses)
        return responses

    return change


def noise_effect(
    net: nn.Module,
    images: Labelled,
    responses: LayerResponses,
    *,
    layer: str = "maxpool",
    seeds: Sequence[int] = range(5),
    n_random: int = 1,
    preprocess: Whitening = NONE,
    batch_size: int = 64,
    progress: bool = False,
) -> NoiseEffect:
    """Measure what noise in inactive channels, and in control channels, does to the classification.

    Parameters
    ----------
    net : nn.Module
        A classifier that `torch.fx` can trace, in which every path runs through `layer`.
    images : Labelled
        The evaluation images, RGB in [0, 1], floating point.
    responses : LayerResponses
        What `rfviz.kernels.responses.collect` found for `layer` on the same images.
    layer : str
        Where the noise is added.
    seeds : sequence of int
        Noise seeds; each gives one value per row.
    n_random : int
        Inactive channels that get noise in the row ``random_inactive``, drawn anew for every `PAPER_BATCH` consecutive
        images (our reading of the paper, which draws per mini-batch, is 1).
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
    if len(images) != responses.image_count:
        raise RfvizError(
            f"the responses are of {responses.image_count} images, but {len(images)} were given: collect them anew."
        )
    inactive = inactive_channels(responses)
    active = sorted(set(range(responses.channels)) - set(inactive))
    count = control_count(responses.channels)
    least = least_active_channels(responses, count)

    def randomly_inactive(seed: int, image: int) -> Sequence[int]:
        return _draw(inactive, n_random, _INACTIVE, seed, image // PAPER_BATCH)

    def randomly_active(seed: int, image: int) -> Sequence[int]:
        return _draw(active, count, _ACTIVE, seed)

    choices: dict[str, Callable[[int, int], Sequence[int]]] = {}
    if inactive:
        choices = {"inactive": lambda seed, image: inactive, "random_inactive": randomly_inactive}
    choices["least_active"] = lambda seed, image: least
    if active:
        choices["random_active"] = randomly_active
    named = {"inactive": inactive, "random_inactive": inactive, "least_active": least}

    stem, whole = ForwardPass(net, [layer]), ForwardPass(net, [layer], to_output=True)
    device = next(net.parameters()).device
    labels = torch.tensor([int(label) for label in images.labels])
    clean = torch.zeros(2, dtype=torch.float64)
    noisy = {row: torch.zeros(len(seeds), 2, dtype=torch.float64) for row in choices}
    with torch.inference_mode(), tqdm(total=len(images), desc="noise", unit="image", disable=not progress) as bar:
        for batch in batches(images, batch_size):
            numbers = batch.index.tolist()
            whitened, target = preprocess(batch.images.to(device)), labels[batch.index].to(device)
            pooled = stem(whitened)  # once: every pass below goes on from here

            clean += _loss_and_hits(whole(whitened, given={layer: pooled.clone()}), target, numbers)
            for s, seed in enumerate(seeds):
                drawn: dict[tuple[int, int], Tensor] = {}  # rows share the noise of an (image, channel)
                outcomes: dict[tuple, Tensor] = {}  # and the outcome, where they choose the same channels
                for row, choose in choices.items():
                    chosen = tuple(tuple(choose(seed, number)) for number in numbers)
                    if chosen not in outcomes:
                        disturbed = pooled.clone()
                        for i, channels in enumerate(chosen):
                            for channel in channels:
                                if (i, channel) not in drawn:
                                    drawn[i, channel] = noise(seed, numbers[i], channel, pooled.shape[2:]).to(pooled)
                                disturbed[i, channel] += drawn[i, channel]
                        logits = whole(whitened, given={layer: disturbed})
                        outcomes[chosen] = _loss_and_hits(logits, target, numbers)
                    noisy[row][s] += outcomes[chosen]
            bar.update(len(numbers))

    def effect(row: str) -> Effect:
        change = (noisy[row] - clean) / len(images)
        return Effect(named.get(row) or tuple(randomly_active(seeds[0], 0)), change[:, 0], change[:, 1])

    loss, top1 = (clean / len(images)).tolist()
    return NoiseEffect(
        inactive, responses.channels, len(images), loss, top1, {row: effect(row) for row in ROWS if row in choices}
    )


def _draw(candidates: Sequence[int], count: int, *key: int) -> list[int]:
    count = min(count, len(candidates))
    return sorted(np.random.default_rng(key).choice(candidates, count, replace=False).tolist())


def _loss_and_hits(logits: Tensor, target: Tensor, numbers: Sequence[int]) -> Tensor:
    hits = (logits.argmax(1) == target).sum().double().cpu()
    return torch.stack([cross_entropies(logits, target, numbers).sum(), hits])
