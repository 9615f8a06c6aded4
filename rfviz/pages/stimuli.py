"""The page on preferred stimuli: what drives a channel most, and on average."""

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import pandas as pd
import torch
from IPython.display import Markdown
from matplotlib.figure import Figure, SubFigure
from torch import Tensor

from rfviz import stats
from rfviz.images.data import Indexed
from rfviz.kernels.responses import LayerResponses
from rfviz.kernels.responses import preferred_stimuli as cut_stimuli
from rfviz.lab import results
from rfviz.lab.run import Run
from rfviz.nets.network import NETWORKS, Network
from rfviz.pages.style import (
    DPI,
    WIDTH,
    BookFigure,
    Place,
    channel_link,
    listed,
    min_max,
    missing,
    no_contrast,
    place,
    show,
    stretch,
)
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
    at_borders : dict from layer to LayerResponses
        Of the subject, if neurons at the borders compete, too.
    """

    run: Run
    responses: Mapping[str, Mapping[str, LayerResponses]]
    filters: Mapping[str, Tensor]
    at_borders: Mapping[str, LayerResponses]


def gather(runs: Sequence[Run]) -> Shown:
    """Return what the page shows of the first run."""
    run = runs[0]
    found = {each.name: results.stimuli(run, each.name) for each in run.networks}
    return Shown(
        run,
        {each.name: {layer: found[each.name][layer] for layer in each.figure_layers} for each in run.networks},
        {each.name: run.net(each.name).conv1.weight.detach().cpu() for each in run.networks},
        results.border_stimuli(run, run.subject.name),
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
    number, responses = channel[network.name], shown.responses[network.name]
    widths = _widths([COLUMNS * _step(found) + 1 for found in responses.values()], round(0.98 * WIDTH * DPI))
    figure = BookFigure(max(widths) / DPI + 0.65)
    panels = figure.subfigures(1, len(responses), width_ratios=widths, squeeze=False)[0]
    for letter, panel, (layer, found) in zip("abc", panels, responses.items(), strict=True):
        _stimulus_panel(panel, shown.run.stimuli, found, number, place(network, layer, number))
        values = [value for value in found.top_values[number].tolist() if value > 0]
        silent = "fires at borders only" if found.positive_count[number] else "never fires"
        spread = f"responses {values[0]:.2f} to {values[-1]:.2f}" if values else silent
        size = found.receptive_field.size
        panel.suptitle(f"({letter}) {network.layer_title(layer)}\n{size} × {size} px\n{spread}")
    return figure


def _widths(sides: Sequence[int], room: int) -> list[int]:
    """Return how wide to draw squares of some sides: whole multiples that fit the room and differ least."""
    widths = list(sides)
    while sum(widths) + sides[least := widths.index(min(widths))] <= room:
        widths[least] += sides[least]
    return widths


def _step(found: LayerResponses) -> int:
    """Return from where to where stimuli side by side begin, px: a hair's breadth lies between them."""
    size = found.receptive_field.size
    return size + 1 + size // 30


def _stimulus_panel(
    panel: SubFigure, images: Tensor | Indexed, found: LayerResponses, channel: int, of: Place | None
) -> None:
    patches, inside = cut_stimuli(images, found, channel)
    firing = len(patches)
    rows, step = -(-found.top_values.shape[1] // COLUMNS), _step(found)
    axes = panel.subplots()
    for i in range(firing):
        # One image beside the other in the same axes, however many there are.
        y, x = divmod(i, COLUMNS)
        show(axes, patches[i], inside[i], corner=(x * step, y * step), of=of)
    show(axes, None, of=None if firing else of)
    axes.set(xlim=(-1, COLUMNS * step), ylim=(rows * step, -1), aspect="equal")


def sticking_out(found: LayerResponses, images: Indexed) -> tuple[float, float]:
    """Return which share of the preferred stimuli sticks out of its image, and which share of all neurons looks out."""
    height, width = images[0][0].shape[1:]
    there = found.top_values > 0
    y, x = found.top_positions[there].unbind(1)
    out = ~found.receptive_field.inside(y, x, height, width)
    per_image = found.neuron_count // found.image_count
    rows = round(math.sqrt(per_image * height / width))
    grid_y, grid_x = torch.meshgrid(torch.arange(rows), torch.arange(per_image // rows), indexing="ij")
    every = ~found.receptive_field.inside(grid_y, grid_x, height, width)
    return out.double().mean().item(), every.double().mean().item()


def border_stimuli(shown: Shown, channel: Mapping[str, int]) -> Figure:
    """Draw Fig. S8: how many preferred stimuli stick out of their image if neurons at the borders compete, too."""
    network, images = shown.run.subject, shown.run.stimuli
    figure = BookFigure(5.1)
    grid = figure.add_gridspec(2, 2, height_ratios=(1, 2))
    axes = figure.add_subfigure(grid[0, :]).subplots()
    for bar, found in enumerate(shown.at_borders.values()):
        of_stimuli, of_neurons = sticking_out(found, images)
        axes.bar(bar, 100 * of_stimuli, 0.6, color=network.colour)
        axes.plot([bar - 0.4, bar + 0.4], [100 * of_neurons] * 2, color="black", linewidth=1.5)
    axes.plot([], [], color="black", linewidth=1.5, label="of all neurons")
    axes.legend(frameon=False)
    axes.set_xticks(range(len(shown.at_borders)), [network.layer_title(layer) for layer in shown.at_borders])
    axes.set_ylabel("stick out (%)")
    axes.set_ylim(0, 100)
    axes.spines[["top", "right"]].set_visible(False)
    layer, number = network.figure_layers[-1], channel[network.name]
    competing = {"all neurons compete": shown.at_borders, "whole fields only": shown.responses[network.name]}
    for column, (title, responses) in enumerate(competing.items()):
        panel = figure.add_subfigure(grid[1, column])
        _stimulus_panel(panel, images, responses[layer], number, place(network, layer, number))
        panel.suptitle(title)
    return figure


def borders_answer(shown: Shown) -> Markdown:
    """Say how many preferred stimuli would stick out of their image."""
    network = shown.run.subject
    said = []
    for layer, found in shown.at_borders.items():
        of_stimuli, of_neurons = sticking_out(found, shown.run.stimuli)
        said.append(f"{of_stimuli:.0%} in {network.layer_title(layer)} (of all neurons, {of_neurons:.0%} look out)")
    return Markdown(
        f"Of the strongest stimuli of all channels of {network.title}, these would stick out: {listed(said)}."
    )


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
    show(grid[0, 0], min_max(filters[number]), of=place(network, "conv1", number))
    grid[0, 0].set_title(f"(a) {network.layer_title('conv1').removesuffix(' filter')}\nfilter, {side} × {side} px")
    strongest = shown.run.given.strongest
    rows = ("mean,\nas it is", "mean,\nstretched", f"mean of up to\n{strongest} strongest,\nstretched")
    for ax, name in zip(grid[:, 1], rows, strict=True):
        ax.set_ylabel(name, rotation=0, ha="right", va="center")
    for ax in grid[1:, 1]:
        ax.yaxis.set_in_layout(False)  # there is room: below the filter is nothing
    for column, letter, (layer, found) in zip(grid.T[1:], "bcd", responses.items(), strict=True):
        size = found.receptive_field.size
        column[0].set_title(f"({letter}) {network.layer_title(layer)}\n{size} × {size} px")
        of = place(network, layer, number)
        if not found.positive_count[number]:
            column[0].set_xlabel("never fires")
            show(column[0], None, of=of)
            continue
        assert found.mean_stimulus is not None and found.mean_count is not None and found.strongest_count is not None
        inside = found.mean_count[number] > 0, found.strongest_count[number] > 0
        show(column[0], found.mean_stimulus[number], inside[0], of=of)
        column[0].set_xlabel(f"N = {int(found.positive_count[number]):,}")
        deviations = found.mean_deviation[number], found.strongest_deviation[number]
        for ax, deviation, there in zip(column[1:], deviations, inside, strict=True):
            stretched, gain = stretch(deviation)
            show(ax, stretched, there, of=of)
            ax.set_xlabel(f"gain {gain:.1f}" if gain else "the mean patch")
    return figure


def contrasts(deviations: Tensor) -> Tensor:
    """Return the largest deviation of a pixel of pictures `(C, 3, R, R)` from the mean patch, RGB units, `(C,)`."""
    return deviations.abs().amax((1, 2, 3))


def mean_stimulus_table(shown: Shown, channel: Mapping[str, int]) -> pd.DataFrame:
    """Return, per network and layer, how many neurons of a channel fire and what contrast their mean stimulus has.

    The numbers of channels are HTML; see `rfviz.pages.style.with_links`.
    """
    rows = [
        {
            "network": NETWORKS[name].title,
            "layer": NETWORKS[name].layer_title(layer),
            "channel": channel_link(NETWORKS[name], layer, channel[name]),
            "strongest response": f"{found.maximum[channel[name]].item():.2f}",
            "neurons that fire": f"{found.firing_rate[channel[name]].item():.1%}",
            "contrast of the mean": f"{contrasts(found.mean_deviation)[channel[name]].item():.3f}",
            "of the strongest": f"{contrasts(found.strongest_deviation)[channel[name]].item():.3f}",
        }
        for name, layers in shown.responses.items()
        for layer, found in layers.items()
    ]
    return pd.DataFrame(rows).set_index(["network", "layer"])


def flattening(layers: Mapping[str, LayerResponses]) -> Interval:
    """Return how the mean over channels of the contrast of the mean stimulus changes from the first layer to the last.

    In RGB units, over the channels of both layers that fire.
    """
    first, *_, last = (contrasts(found.mean_deviation)[found.positive_count > 0] for found in layers.values())
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
