"""The first pages: channels that keep their feature, from evidence that is kept, and some channels of a run."""

import itertools
from collections.abc import Sequence
from typing import NamedTuple

import torch

from rfviz.images.data import Evaluation
from rfviz.images.whitening import Whitening
from rfviz.kernels.maximization import Maximization
from rfviz.kernels.pictures import central, centred, correlations
from rfviz.kernels.responses import LayerResponses, preferred_stimuli
from rfviz.lab import results
from rfviz.lab.run import Run
from rfviz.nets.network import Network, network
from rfviz.pages.evidence.reference import Reference
from rfviz.pages.style import BookFigure, place, show, stretch


class Shown(NamedTuple):
    """What the page shows of the last layer in the paper's figures, of the subject.

    Parameters
    ----------
    network : Network
    layer : str
    images : Evaluation
        In which stimuli were looked for.
    responses : LayerResponses
    maxima : Maximization
    whitening : Whitening
    """

    network: Network
    layer: str
    images: Evaluation
    responses: LayerResponses
    maxima: Maximization
    whitening: Whitening


def gather(runs: Sequence[Run]) -> Shown:
    """Return what the page shows of the first run."""
    run, network = runs[0], runs[0].subject
    layer = network.figure_layers[-1]
    return Shown(
        network, layer, run.stimuli, results.stimuli(run, network.name)[layer],
        results.clear_maxima(run, network.name, layer), run.whitening(network.name),
    )  # fmt: skip


def poster(shown: Shown, channels: int = 5) -> BookFigure:
    """Draw Fig. S6: some channels of a layer, each with its strongest stimulus, its mean and its maximization image.

    Shown are channels whose clear picture drives them as the best photograph does, or more; of these the `channels`
    whose mean over the strongest neurons differs most from its own mean colour, in their order: a mean that is only
    brighter than others has no shape to show. Where there are too few, others follow.
    """
    found = shown.responses
    means, counts = found.strongest_deviation, found.strongest_count
    assert counts is not None
    driven = found.competes & (shown.maxima.activations[-1] >= found.top_values[:, 0])
    merit = centred(means).abs().amax((1, 2, 3)) + 10 * driven  # a deviation is less than 10
    chosen = merit.topk(min(channels, found.channels)).indices.sort().values.tolist()
    figure = BookFigure(3.78)
    grid = figure.subplots(3, len(chosen), squeeze=False)
    rows = ("what drives\nit most", "mean of\nits stimuli", "maximization\nimage")
    for ax, name in zip(grid[:, 0], rows, strict=True):
        ax.set_ylabel(name, rotation=0, ha="right", va="center")
    for column, channel in zip(grid.T, chosen, strict=True):
        column[0].set_title(f"channel {channel}")
        fires = bool(found.competes[channel])
        patches, inside = preferred_stimuli(shown.images, found, channel)
        of = place(shown.network, shown.layer, channel)
        show(column[0], patches[0] if fires else None, inside[0] if fires else None, of=of)
        show(column[1], stretch(means[channel])[0] if fires else None, counts[channel] > 0, of=of)
        show(column[2], shown.whitening.to_rgb(shown.maxima.images[channel]), of=of)
    return figure


def chosen(found: Reference, channels: int = 5, silent: int = 3) -> list[int]:
    """Choose channels that keep their feature, and behind them some that begin silent, each in their order.

    Of all channels that fire in the first pooling layer, the `channels` whose means are most alike from layer to layer:
    the correlation of the pictures, the larger cut to the smaller around the centre, averaged over the two steps. Of
    those that never fire there, the `silent` whose last mean differs most from its own mean colour.
    """
    (name,) = found.facts["networks"]
    layers = network(name).figure_layers
    means = {layer: found.sheet(name, f"{layer}-strongest") for layer in layers}
    alike = torch.stack(
        [
            correlations(means[low], central(means[high], means[low].shape[-1])).diagonal()
            for low, high in itertools.pairwise(layers)
        ]
    ).mean(0)
    never = torch.zeros(len(alike), dtype=torch.bool)
    never[list(found.effects[name][0].inactive)] = True
    for layer in layers:
        alike[found.facts["left out"][name][layer]] = -torch.inf
    contrast = centred(means[layers[-1]]).abs().amax((1, 2, 3)).where(never, -torch.inf)
    groups = (alike.where(~never, -torch.inf).topk(channels), contrast.topk(min(silent, int(never.sum()))))
    return [channel for best in groups for channel in best.indices.sort().values.tolist()]


def hero(found: Reference, channels: int = 5, silent: int = 3) -> BookFigure:
    """Draw Fig. S21: the channels that `chosen` finds, layer by layer, and below the clear pictures of the last."""
    (name,) = found.facts["networks"]
    described, shown = network(name), chosen(found, channels, silent)
    layers = described.figure_layers
    means = {layer: found.sheet(name, f"{layer}-strongest") for layer in layers}
    drawn = found.sheet(name, f"{layers[-1]}-maximization")
    gaps = found.facts["left out"][name]
    figure = BookFigure(3.78)  # the proportions of a preview in social media
    grid = figure.subplots(len(layers) + 1, len(shown), squeeze=False)
    for row, layer in zip(grid[:-1], layers, strict=True):
        title = described.layer_title(layer).replace("first ", "first\n")
        row[0].set_ylabel(title, rotation=0, ha="right", va="center")
        for ax, channel in zip(row, shown, strict=True):
            of = place(described, layer, channel, found.explored)
            show(ax, None if channel in gaps[layer] else means[layer][channel], of=of)
            if channel in gaps[layer]:
                ax.text(0.5, 0.5, "never\nfires" if layer == layers[0] else "–", ha="center", va="center",
                        transform=ax.transAxes)  # fmt: skip
    grid[-1, 0].set_ylabel("maximization\nimage", rotation=0, ha="right", va="center")
    for first, last, channel in zip(grid[0], grid[-1], shown, strict=True):
        first.set_title(f"ch. {channel}")
        show(last, drawn[channel], of=place(described, layers[-1], channel, found.explored))
    return figure
