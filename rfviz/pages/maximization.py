"""The page on activation maximization, and how like the mean preferred stimulus its images are."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import pandas as pd
import torch
from IPython.display import Markdown
from matplotlib.figure import Figure
from torch import Tensor

from rfviz import stats
from rfviz.images.whitening import Whitening
from rfviz.kernels.maximization import Maximization
from rfviz.kernels.pictures import own_rank
from rfviz.kernels.responses import LayerResponses
from rfviz.lab import results
from rfviz.lab.run import Run
from rfviz.nets.network import NETWORKS, Network
from rfviz.pages.style import GREY, BookFigure, listed, missing, no_contrast, place, show, where
from rfviz.stats import AGREES, CANNOT_TELL, DISAGREES, Interval, all_of, judge


class Pictures(NamedTuple):
    """The pictures of one network, by layer.

    Parameters
    ----------
    responses : dict from layer to LayerResponses
    maxima, clear : dict from layer to Maximization
        With the paper's setting, and as clear pictures (`rfviz.kernels.maximization.SETTINGS`).
    random_responses, random : dict from layer to LayerResponses and to Maximization
        With random weights, and the paper's setting.
    whitening : Whitening
    """

    responses: Mapping[str, LayerResponses]
    maxima: Mapping[str, Maximization]
    clear: Mapping[str, Maximization]
    random_responses: Mapping[str, LayerResponses]
    random: Mapping[str, Maximization]
    whitening: Whitening


class Shown(NamedTuple):
    """What the page shows.

    Parameters
    ----------
    run : Run
        The first.
    pictures : dict from network to Pictures
        In the layers of the paper's figures, of the first run.
    resemblance : dict from network to dict
        See `resemblance`.
    """

    run: Run
    pictures: Mapping[str, Pictures]
    resemblance: Mapping[str, dict[str, dict[str, Interval]]]


def _pictures(run: Run, network: str) -> Pictures:
    layers, found = NETWORKS[network].figure_layers, results.stimuli(run, network)
    return Pictures(
        {layer: found[layer] for layer in layers},
        {layer: results.maxima(run, network, layer) for layer in layers},
        {layer: results.clear_maxima(run, network, layer) for layer in layers},
        {layer: results.stimuli(run, network, "random weights")[layer] for layer in layers},
        {layer: results.maxima(run, network, layer, "random weights") for layer in layers},
        run.whitening(network),
    )


def gather(runs: Sequence[Run]) -> Shown:
    """Return what the page shows of some runs that differ in their seed."""
    names = [each.name for each in runs[0].networks]
    return Shown(
        runs[0], {name: _pictures(runs[0], name) for name in names},
        {name: resemblance(runs, name) for name in names},
    )  # fmt: skip


LEAST = 0.7
"""Rank (see `rfviz.kernels.pictures.own_rank`) from which on two pictures of a channel count as alike."""

LITTLE = 0.1
"""Range of a curve, in units of the strongest response to any photograph, below which it counts as constant."""

KINDS = {"maxima": "the paper's setting", "clear": "clear picture", "random": "the paper's setting, random weights"}


def rank(found: Pictures, kind: str, layer: str) -> Tensor:
    """Return how often a mean stimulus is more like its own picture than like another channel's, `(C,)`.

    NaN of channels that never fire.

    Parameters
    ----------
    found : Pictures
    kind : str
        One of `KINDS`; with random weights, mean stimuli and pictures both are those of the control.
    layer : str
    """
    responses = (found.random_responses if kind == "random" else found.responses)[layer]
    there = responses.positive_count > 0
    driven = found.whitening.to_rgb(getattr(found, kind)[layer].images[there].double(), clip=kind == "clear")
    ranks = torch.full((responses.channels,), torch.nan, dtype=torch.float64)
    ranks[there] = own_rank(responses.mean_deviation[there], driven)
    return ranks


def resemblance(runs: Sequence[Run], network: str) -> dict[str, dict[str, Interval]]:
    """Return the mean of `rank` over channels, or over seeds where there are several, by kind of picture and layer."""
    every = [_pictures(run, network) for run in runs]
    return {
        kind: {
            layer: stats.over_seeds([stats.mean(rank(found, kind, layer)) for found in every])
            for layer in every[0].responses
        }
        for kind in KINDS
    }


def maximization(shown: Shown, network: Network | None, channel: Mapping[str, int]) -> Figure:
    """Draw Figs. 6 and S4: for each layer, what maximization finds in two ways, and how the activation rises.

    Parameters
    ----------
    shown : Shown
    network : Network or None
        None, of a run without a contrast, gives the reason in place of the figure.
    channel : dict from network to int
    """
    if network is None:
        return missing(no_contrast(shown.run))
    number, first = channel[network.name], shown.pictures[network.name]
    figure = BookFigure(6.2)
    grid = figure.subplots(3, len(first.maxima), height_ratios=[1.5, 1.5, 1], squeeze=False)
    for letter, column, layer in zip("abc", grid.T, first.maxima, strict=True):
        side = first.responses[layer].receptive_field.size
        column[0].set_title(f"({letter}) {network.layer_title(layer)}\n{side} × {side} px")
        best = first.responses[layer].top_values[number, 0].item()
        for ax, found, style in zip(column, (first.maxima[layer], first.clear[layer]), ("--", "-"), strict=False):
            show(ax, first.whitening.to_rgb(found.images[number]), of=place(network, layer, number))
            curve = found.activations[:, number] / (best if best > 0 else 1.0)
            column[2].plot(curve.numpy(), style, color=network.colour)
        column[2].axhline(1 if best > 0 else 0, color=GREY, linewidth=0.8, linestyle=":")
        low, high = column[2].get_ylim()
        if best > 0 and high - low < LITTLE:  # else what is rounding would fill the panel
            column[2].set_ylim(low - LITTLE / 2, high + LITTLE / 2)
        column[2].set_xlabel("step" if best > 0 else "step (never fires: activation itself)")
    for ax, name in zip(grid[:, 0], ("the paper's\nsetting", "clear\npicture"), strict=False):
        ax.set_ylabel(name, rotation=0, ha="right", va="center")
    grid[2, 0].set_ylabel("activation over the\nbest photograph's")
    return figure


def drive_table(shown: Shown) -> pd.DataFrame:
    """Return how strongly the pictures drive their channels, the paper's before they are clipped to RGB, as text.

    In units of the strongest response to any photograph, over the channels that fire: median over channels (least to
    most), and how many are driven more than by any photograph. Of the first run.
    """
    rows = []
    for name, first in shown.pictures.items():
        for layer, found in first.responses.items():
            best = found.top_values[:, 0]
            row = {"network": NETWORKS[name].title, "layer": NETWORKS[name].layer_title(layer)}
            for kind, driven in (("the paper's setting", first.maxima[layer]), ("clear picture", first.clear[layer])):
                relative = (driven.activations[-1] / best)[best > 0]
                if not len(relative):
                    row[kind] = "–"
                    continue
                more = f"; {int((relative > 1).sum())} of {len(relative)} above 1"
                row[kind] = f"{relative.median():.2f} ({relative.min():.2f} to {relative.max():.2f})" + more
            rows.append(row)
    return pd.DataFrame(rows).set_index(["network", "layer"])


def similarity_table(shown: Shown) -> pd.DataFrame:
    """Return how often a mean stimulus is more like its own channel's picture than like another's, as text."""
    rows = [
        {"network": NETWORKS[name].title, "layer": NETWORKS[name].layer_title(layer)}
        | {title: f"{found[kind][layer]:.2f}" if found[kind][layer].n else "–" for kind, title in KINDS.items()}
        for name, found in shown.resemblance.items()
        for layer in found["maxima"]
    ]
    return pd.DataFrame(rows).set_index(["network", "layer"])


def maximization_answer(shown: Shown) -> Markdown:
    """Say where mean stimuli are like the maximization images of their channels."""
    found = []
    for name, kinds in shown.resemblance.items():
        verdicts = {
            NETWORKS[name].layer_title(layer).replace("first", "the first"): verdict(kinds, layer)
            for layer in kinds["maxima"]
        }
        said = where(verdicts, {AGREES: "alike", DISAGREES: "not alike", CANNOT_TELL: "undecided"})
        chance = [f"{each.value:.2f}" if each.n else "–" for each in kinds["random"].values()]
        found.append(
            f"In {NETWORKS[name].title} they are {'; '.join(said)} (with random weights, in the paper's setting: "
            f"{listed(chance)})."
        )
    return Markdown(
        "**Answer.** Are the mean preferred stimuli like the maximization images of their channels? "
        + " ".join(found)
        + f" Alike: in both settings, the interval lies above {LEAST:g}; not alike: in one of them it lies below."
    )


def verdict(kinds: Mapping[str, Mapping[str, Interval]], layer: str) -> str:
    """Judge whether the two pictures of channels of a layer are alike, in both settings."""
    return all_of([judge(kinds[kind][layer], least=LEAST) for kind in ("maxima", "clear")])
