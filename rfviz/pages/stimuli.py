"""The page on preferred stimuli: what drives a channel most, and on average."""

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import pandas as pd
import torch
from IPython.display import Markdown
from matplotlib.figure import Figure
from torch import Tensor

from rfviz import stats
from rfviz.images.data import Indexed
from rfviz.kernels.responses import LayerResponses
from rfviz.lab import results
from rfviz.lab.run import Run
from rfviz.nets.network import NETWORKS, Network
from rfviz.pages import figures
from rfviz.pages.style import BookFigure, channel_link, listed, missing, no_contrast, place
from rfviz.stats import Interval


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

    Parameters
    ----------
    shown : Shown
    network : Network or None
        None, of a run without a contrast, gives the reason in place of the figure.
    channel : dict from network to int
    """
    if network is None:
        return missing(no_contrast(shown.run))
    titles, places = _titled(network, "abc")
    found = shown.responses[network.name]
    return figures.preferred_stimuli(
        shown.run.stimuli, {titles[layer]: found[layer] for layer in found}, channel[network.name], places
    )


def _titled(network: Network, letters: str) -> tuple[dict[str, str], figures.Places]:
    """Return what the layers of the figures are called in one, and where their channels are shown."""
    layers = network.figure_layers
    titles = {layer: f"({letter}) {network.layer_title(layer)}" for letter, layer in zip(letters, layers, strict=True)}
    layer_of = {title: layer for layer, title in titles.items()}
    return titles, lambda called, channel: place(network, layer_of.get(called, "conv1"), channel)


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
    layer, number = network.figure_layers[-1], channel[network.name]
    competing = {"all neurons compete": shown.at_borders, "whole fields only": shown.responses[network.name]}
    for column, (title, responses) in enumerate(competing.items()):
        panel = figure.add_subfigure(grid[1, column])
        figures.stimulus_panel(panel, images, responses[layer], number, place(network, layer, number))
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
    titles, places = _titled(network, "bcd")
    found = shown.responses[network.name]
    first = f"(a) {network.layer_title('conv1').removesuffix(' filter')}", shown.filters[network.name]
    return figures.mean_stimuli(
        {titles[layer]: found[layer] for layer in found},
        channel[network.name],
        first,
        shown.run.given.strongest,
        places,
    )


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
            "strongest response": _strongest(found, channel[name]),
            "neurons that fire": f"{found.firing_rate[channel[name]].item():.1%}",
            "contrast of the mean": f"{contrasts(found.mean_deviation)[channel[name]].item():.3f}",
            "of the strongest": f"{contrasts(found.strongest_deviation)[channel[name]].item():.3f}",
        }
        for name, layers in shown.responses.items()
        for layer, found in layers.items()
    ]
    return pd.DataFrame(rows).set_index(["network", "layer"])


def _strongest(found: LayerResponses, channel: int) -> str:
    best = found.top_values[channel, 0].item()
    return f"{best:{'.2f' if best >= 0.01 else '.2g'}}" if math.isfinite(best) else "–"


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
            f"In {network.title}, the mean of {last} has {words[change.sign]} contrast than that of the {first}: "
            f"{change:+.3f}."
        )
        always = int((layers[[*layers][-1]].firing_rate == 1).sum())
        if always:
            found[-1] += (
                f" ({always} of its channels fire everywhere there: their mean is the mean patch, which has none.)"
            )
    return Markdown(
        "**Answer.** Above are the features as they came out of this run. Do the mean stimuli grow flatter, averaged "
        f"over all channels that fire (difference of the contrasts, 95 % interval)? {' '.join(found)} "
        "The paper reads from such pictures that stimuli grow more diverse in higher layers, that even so the mean of "
        "conv. layer 7 keeps a feature at its centre, and that in ResNet34 a channel keeps its feature from layer to "
        "layer. One channel per network cannot decide that: try others below, or with the parameter `channels`."
    )
