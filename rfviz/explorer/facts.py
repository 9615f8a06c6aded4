"""What the explorer says in numbers of every channel of a layer."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor

from rfviz.images.data import Indexed
from rfviz.images.whitening import Whitening
from rfviz.kernels.maximization import Maximization
from rfviz.kernels.pictures import correlations
from rfviz.kernels.responses import LayerResponses
from rfviz.kernels.responses.activity import HISTOGRAM_EDGES
from rfviz.kernels.responses.top_stimuli import EMPTY
from rfviz.kernels.tuning import Tuning
from rfviz.kernels.tuning.spots import ColourTuning
from rfviz.nets.receptive_field import EXACT

NEAREST = 6
"""Channels that are listed as the nearest ones."""

RANGES = {"half of the largest response": 0.5, "a tenth of it": 0.1}
"""Beside the strongest stimuli, those whose response is nearest to this share of the largest one."""


class Ranges(NamedTuple):
    """Stimuli from the middle and the weak part of the responses of C channels, k for each of `RANGES`.

    Parameters
    ----------
    values : Tensor, shape (C, L, k)
    images : Tensor of int64, shape (C, L, k)
        -1 where there is none.
    positions : Tensor of int64, shape (C, L, k, 2)
    """

    values: Tensor
    images: Tensor
    positions: Tensor


class LayerFacts(NamedTuple):
    """Everything that is known of a layer, as the explorer takes it.

    Parameters
    ----------
    images : Tensor (N, 3, H, W) or data set
        Those that `found` was collected over, RGB in [0, 1].
    found : LayerResponses
    maxima : Maximization, or None
        Of every channel.
    whitening : Whitening
        The way back from the network's input units.
    filters : Tensor, shape (C, 3, F, F), or None
        The first convolution's filter of the same channel, where there is one.
    inactive : tuple of int, or None
        Channels that are inactive as Table 1 counts them; None where that is not defined.
    objective : str
        What `maxima` maximised; see `rfviz.kernels.maximization.objectives`.
    orientation : Tuning, or None
    colour : ColourTuning, or None
        How the channels are tuned, where that was measured.
    clear : Maximization, or None
        Clear pictures of every channel; see `rfviz.kernels.maximization.SETTINGS`.
    ranges : Ranges, or None
    maps : mapping from (image, channel) to Tensor, shape (h, w)
        Where over the images that stimuli come from the channels fire.
    wrote : Tensor, shape (C,), or None
        Share of the variance of each channel that the block wrote; see `rfviz.kernels.stream.written`.
    removal : Tensor, shape (C,), or None
        Change of the mean loss if a channel is set to 0 here, nats; without labels, divergence of the output.
    how : str
        How the receptive field is known; see `rfviz.nets.receptive_field`.
    """

    images: Tensor | Indexed
    found: LayerResponses
    maxima: Maximization | None
    whitening: Whitening
    filters: Tensor | None = None
    inactive: tuple[int, ...] | None = None
    objective: str = "before_relu"
    orientation: Tuning | None = None
    colour: ColourTuning | None = None
    clear: Maximization | None = None
    ranges: Ranges | None = None
    maps: Mapping[tuple[int, int], Tensor] = {}
    wrote: Tensor | None = None
    removal: Tensor | None = None
    how: str = EXACT


class Statistic(NamedTuple):
    """A number per channel, to sort and filter by.

    `of` returns it as `(C,)`, NaN where it is not defined; None where nothing is known of it.
    """

    key: str
    name: str
    unit: str
    explanation: str
    of: Callable[[LayerFacts], Tensor | None]


def _peak(layer: LayerFacts) -> Tensor:
    return torch.where(layer.found.mean > 0, layer.found.maximum / layer.found.mean, torch.nan)


def _fires(layer: LayerFacts) -> Tensor:
    return layer.found.positive_count > 0


def _contrast(layer: LayerFacts) -> Tensor | None:
    if layer.found.strongest_stimulus is None:
        return None
    return torch.where(_fires(layer), layer.found.strongest_deviation.double().abs().amax((1, 2, 3)), torch.nan)


def _agreement(layer: LayerFacts) -> Tensor | None:
    if layer.found.mean_stimulus is None or layer.maxima is None:
        return None
    driven = layer.whitening.to_rgb(layer.maxima.images.cpu().double(), clip=False)
    return torch.where(_fires(layer), correlations(layer.found.mean_deviation, driven).diagonal(), torch.nan)


STATISTICS = (
    Statistic(
        "maximum", "largest response", "", "the strongest response of any neuron, at borders too, to any image",
        lambda layer: layer.found.maximum,
    ),
    Statistic(
        "mean", "mean response", "", "over all neurons of the channel and all images", lambda layer: layer.found.mean
    ),
    Statistic(
        "firing_rate", "neurons that fire", "%", "share of neurons with a response above 0, over all images",
        lambda layer: 100 * layer.found.firing_rate,
    ),
    Statistic(
        "peak", "selectivity (largest over mean)", "×",
        "the largest response over the mean one: large where few stimuli drive the channel", _peak,
    ),
    Statistic(
        "contrast", "contrast of the mean stimulus", "",
        "largest deviation of a pixel from the mean patch, RGB from 0 to 1, in the mean over the strongest neurons",
        _contrast,
    ),
    Statistic(
        "agreement", "mean against maximization", "",
        "correlation of the mean preferred stimulus with the maximization image, from -1 to 1", _agreement,
    ),
    Statistic(
        "orientation", "orientation selectivity", "",
        "1 minus the circular variance of the responses to drifting gratings, from 0 to 1",
        lambda layer: None if layer.orientation is None else layer.orientation.selectivity,
    ),
    Statistic(
        "colour", "colour over luminance", "×",
        "strongest drive by colours of equal luminance over that by greys: spots, rings and gratings",
        lambda layer: None if layer.colour is None else layer.colour.sensitivity,
    ),
    Statistic(
        "wrote", "written by this block", "%",
        "share of the variance of the channel that the block added to what the skip brought",
        lambda layer: None if layer.wrote is None else 100 * layer.wrote,
    ),
    Statistic(
        "removal", "cost of removing it", "nats",
        "change of the mean loss (without labels, divergence of the output) if the channel is set to 0 here",
        lambda layer: layer.removal,
    ),
)  # fmt: skip


def describe(layer: LayerFacts) -> dict[str, Any]:
    """Return what is said of a layer, as JSON values; `channels` has one entry per channel.

    A stimulus is ``[response, number of the image, top, left, bottom, right, place, y, x]``: its receptive field in px
    of the image, half open, which may stick out, its place among the pictures of stimuli, and its neuron.
    """
    found, maxima = layer.found, layer.maxima
    fires = _fires(layer).tolist()
    known = {statistic.key: statistic.of(layer) for statistic in STATISTICS}
    nothing = [None] * found.channels
    statistics = {key: nothing if values is None else _plain(values) for key, values in known.items()}
    alike: list[list] = [[]] * found.channels
    if found.strongest_stimulus is not None:
        alike = nearest(found.strongest_deviation, _fires(layer))
    tuned = _tuned(layer)
    curves = nothing if maxima is None else _plain(maxima.activations.T)
    histograms = found.histogram.tolist()
    channels = [
        {
            "statistics": {key: values[channel] for key, values in statistics.items()},
            "fires": fires[channel],
            "inactive": None if layer.inactive is None else channel in layer.inactive,
            "positive": int(found.positive_count[channel]),
            "histogram": histograms[channel],
            "curve": curves[channel],
            "stimuli": _stimuli(layer, channel),
            "nearest": alike[channel],
            **tuned[channel],
        }
        for channel in range(found.channels)
    ]
    field = found.receptive_field
    return {
        "field": {"size": field.size, "stride": field.stride, "start": field.start, "how": layer.how},
        "objective": layer.objective,
        "images": found.image_count,
        "neurons": found.neuron_count,
        "edges": HISTOGRAM_EDGES.tolist(),
        "ranges": _places(layer),
        "channels": channels,
    }


def _places(layer: LayerFacts) -> list[dict[str, Any]]:
    """Return the ranges of the response that stimuli come from, and the first place of each."""
    ranges = [("the strongest", 0)]
    if layer.ranges is not None:
        first, each = layer.found.top_values.shape[1], layer.ranges.values.shape[2]
        ranges += [(name, first + number * each) for number, name in enumerate(RANGES)]
    return [{"name": name, "first": first} for name, first in ranges]


def _stimuli(layer: LayerFacts, channel: int) -> list[list[float]]:
    found = layer.found
    groups = [(found.top_values[channel], found.top_images[channel], found.top_positions[channel])]
    if layer.ranges is not None:
        groups += list(zip(*(each[channel] for each in layer.ranges), strict=True))
    listed, place = [], 0
    for values, images, positions in groups:
        for value, index, (y, x) in zip(_plain(values), images.tolist(), positions.tolist(), strict=True):
            if index != EMPTY and value and value > 0:  # what does not drive a channel is no stimulus of it
                listed.append([value, index, *found.receptive_field.box(y, x), place, y, x])
            place += 1
    return listed


def _tuned(layer: LayerFacts) -> list[dict[str, Any]]:
    """Return the tuning of every channel: orientation curve and preference, colour class; empty where not measured."""
    told: list[dict[str, Any]] = [{} for _ in range(layer.found.channels)]
    if layer.orientation is not None:
        tuning = layer.orientation
        preferred = _plain(tuning.preferred_orientation), _plain(tuning.preferred_frequency)
        for channel, curve in enumerate(_plain(tuning.orientation_curve)):
            told[channel]["orientation"] = {
                "degrees": list(tuning.gratings.orientations), "curve": curve,
                "preferred": preferred[0][channel], "frequency": preferred[1][channel],
            }  # fmt: skip
    if layer.colour is not None:
        for channel, name in enumerate(layer.colour.classes):
            told[channel]["colour"] = name
    return told


def nearest(pictures: Tensor, fires: Tensor) -> list[list[list[float]]]:
    """Return for every channel the others whose picture `(C, 3, R, R)` is most like its own: [channel, r]."""
    alike = correlations(pictures, pictures)
    alike[:, ~fires] = -torch.inf
    alike.fill_diagonal_(-torch.inf)
    values, order = alike.sort(dim=1, descending=True, stable=True)
    lists = zip(values[:, :NEAREST].tolist(), order[:, :NEAREST].tolist(), fires.tolist(), strict=True)
    return [
        [[other, round(r, 3)] for r, other in zip(rs, others, strict=True) if there and r > -torch.inf]
        for rs, others, there in lists
    ]


def _plain(values: Tensor) -> Any:
    """Return numbers to six significant digits, None in place of what is not finite: JSON has no NaN."""

    def each(value: Any) -> Any:
        if isinstance(value, list):
            return [each(item) for item in value]
        return float(f"{value:.6g}") if torch.isfinite(torch.tensor(value)) else None

    return each(values.cpu().double().tolist())
