"""The page on preferred stimuli: what drives a channel most, and on average."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import pandas as pd
from IPython.display import Markdown
from matplotlib.figure import Figure, SubFigure
from torch import Tensor

from rfviz import stats
from rfviz.images.data import Indexed
from rfviz.kernels.pictures import centred
from rfviz.kernels.responses import LayerResponses
from rfviz.kernels.responses import preferred_stimuli as cut_stimuli
from rfviz.lab import results
from rfviz.lab.run import Run
from rfviz.nets.network import NETWORKS, Network
from rfviz.pages.style import BookFigure, min_max, missing, no_contrast, show, stretch
from rfviz.stats import Interval

COLUMNS = 4
"""Stimuli side by side."""


class Shown(NamedTuple):
    """What the page shows.

    Parameters
    ----------
    run : Run
    responses : dict from network and layer to LayerResponses
        Of the layers in the paper's figures.
    filters : dict from network to Tensor, shape (C, 3, 7, 7)
        Weights of the first convolution.
    """

    run: Run
    responses: Mapping[str, Mapping[str, LayerResponses]]
    filters: Mapping[str, Tensor]


def gather(runs: Sequence[Run]) -> Shown:
    """Return what the page shows of the first run."""
    run = runs[0]
    found = {each.name: results.stimuli(run, each.name) for each in run.networks}
    return Shown(
        run,
        {each.name: {layer: found[each.name][layer] for layer in each.figure_layers} for each in run.networks},
        {each.name: run.net(each.name).conv1.weight.detach().cpu() for each in run.networks},
    )


def preferred_stimuli(shown: Shown, network: Network | None, channel: Mapping[str, int]) -> Figure:
    """Draw Figs. 2 and 4: for each layer, the receptive fields of the strongest neurons of a channel.

    Pixels outside the image are grey. Only neurons with response > 0 are shown.

    Parameters
    ----------
    shown : Shown
    network : Network or None
        None, of a run without a contrast, gives the reason in place of the figure.
    channel : dict from network to int
    """
    if network is None:
        return missing(no_contrast(shown.run))
    number, figure = channel[network.name], BookFigure(2.95)
    responses = shown.responses[network.name]
    panels = figure.subfigures(1, len(responses), squeeze=False)[0]
    for letter, panel, (layer, found) in zip("abc", panels, responses.items(), strict=True):
        _stimulus_panel(panel, shown.run.stimuli, found, number)
        values = [value for value in found.top_values[number].tolist() if value > 0]
        spread = f"responses {values[0]:.2f} to {values[-1]:.2f}" if values else "never fires"
        size = found.receptive_field.size
        panel.suptitle(f"({letter}) {network.layer_title(layer)}\n{size} × {size} px, {spread}", fontsize=8)
    return figure


def _stimulus_panel(panel: SubFigure, images: Tensor | Indexed, found: LayerResponses, channel: int) -> None:
    patches, inside = cut_stimuli(images, found, channel)
    firing = int((found.top_values[channel] > 0).sum())
    rows = -(-found.top_values.shape[1] // COLUMNS)
    axes = panel.subplots()
    for i in range(firing):
        # One image beside the other in the same axes: a hair's breadth apart, however many there are.
        y, x = divmod(i, COLUMNS)
        show(axes, patches[i], inside[i], extent=(x + 0.03, x + 0.97, y + 0.97, y + 0.03))
    show(axes, None)
    axes.set(xlim=(-0.1, COLUMNS + 0.1), ylim=(rows, 0), aspect="equal")


def mean_stimuli(shown: Shown, network: Network | None, channel: Mapping[str, int]) -> Figure:
    """Draw Figs. 3 and 5: the first convolution filter of a channel and its mean preferred stimuli.

    The parameters are those of `preferred_stimuli`.
    """
    if network is None:
        return missing(no_contrast(shown.run))
    number, figure = channel[network.name], BookFigure(5.4)
    responses, filters = shown.responses[network.name], shown.filters[network.name]
    grid = figure.subplots(3, 1 + len(responses))
    for ax in grid.flat:
        show(ax, None)
    side = filters.shape[-1]
    show(grid[0, 0], min_max(filters[number]))
    grid[0, 0].set_title(f"(a) {network.layer_title('conv1')}\n{side} × {side} px", fontsize=8)
    strongest = shown.run.given.strongest
    rows = ("mean,\nas it is", "mean,\nstretched", f"mean of up to\n{strongest} strongest,\nstretched")
    for ax, name in zip(grid[:, 0], rows, strict=True):
        ax.set_ylabel(name, fontsize=8, rotation=0, ha="right", va="center")
    for column, letter, (layer, found) in zip(grid.T[1:], "bcd", responses.items(), strict=True):
        size = found.receptive_field.size
        column[0].set_title(f"({letter}) {network.layer_title(layer)}\n{size} × {size} px", fontsize=8)
        if not found.positive_count[number]:
            column[0].set_xlabel("never fires", fontsize=7)
            continue
        assert found.mean_stimulus is not None and found.strongest_stimulus is not None
        mean, strong = found.mean_stimulus[number], found.strongest_stimulus[number]
        show(column[0], mean)
        column[0].set_xlabel(f"N = {int(found.positive_count[number]):,}", fontsize=7)
        for ax, image in zip(column[1:], (mean, strong), strict=True):
            stretched, gain = stretch(image)
            show(ax, stretched)
            ax.set_xlabel(f"gain {gain:.1f}", fontsize=7)
    return figure


def contrasts(images: Tensor | None) -> Tensor:
    """Return the largest deviation of a pixel of pictures `(C, 3, R, R)` from their mean colour, RGB units, `(C,)`."""
    assert images is not None
    return centred(images).abs().amax((1, 2, 3))


def mean_stimulus_table(shown: Shown, channel: Mapping[str, int]) -> pd.DataFrame:
    """Return, per network and layer, how many neurons of a channel fire and what contrast their mean stimulus has."""
    rows = [
        {
            "network": NETWORKS[name].title,
            "layer": NETWORKS[name].layer_title(layer),
            "channel": channel[name],
            "strongest response": f"{found.maximum[channel[name]].item():.2f}",
            "neurons that fire": f"{found.firing_rate[channel[name]].item():.1%}",
            "contrast of the mean": f"{contrasts(found.mean_stimulus)[channel[name]].item():.3f}",
            "of the strongest": f"{contrasts(found.strongest_stimulus)[channel[name]].item():.3f}",
        }
        for name, layers in shown.responses.items()
        for layer, found in layers.items()
    ]
    return pd.DataFrame(rows).set_index(["network", "layer"])


def flattening(layers: Mapping[str, LayerResponses]) -> Interval:
    """Return how the mean over channels of the contrast of the mean stimulus changes from the first layer to the last.

    In RGB units, over the channels of both layers that fire.
    """
    first, *_, last = (contrasts(found.mean_stimulus)[found.positive_count > 0] for found in layers.values())
    return stats.difference(last, first)


def stimuli_answer(shown: Shown) -> Markdown:
    """Say whether the means grow flatter from the first layer to the last, and what the paper reads from them."""
    words = {-1: "less", 1: "more", 0: "neither measurably less nor more"}
    found = []
    for name, layers in shown.responses.items():
        network, change = NETWORKS[name], flattening(layers)
        first, *_, last = (network.layer_title(layer) for layer in layers)
        found.append(
            f"In {network.title}, that of {last} has {words[change.sign]} contrast than that of the {first}: "
            f"{change:+.3f}."
        )
    return Markdown(
        "**Answer.** Above are the features as they came out of this run. Do the mean stimuli grow flatter, averaged "
        f"over all channels that fire (difference of the contrasts, 95 % interval)? {' '.join(found)} "
        "The paper reads from such pictures that stimuli grow more diverse in higher layers, that even so the mean of "
        "conv. layer 7 keeps a feature at its centre, and that in ResNet34 a channel keeps its feature from layer to "
        "layer. One channel per network cannot decide that: try others below, or with the parameter `channels`."
    )
