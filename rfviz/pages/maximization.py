"""The page on activation maximization, and how like the mean preferred stimulus its images are."""

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import pandas as pd
from IPython.display import Markdown
from matplotlib.figure import Figure

from rfviz import stats
from rfviz.images.whitening import Whitening
from rfviz.kernels.maximization import Maximization
from rfviz.kernels.pictures import correlations, own_maximization
from rfviz.kernels.responses import LayerResponses
from rfviz.lab import results
from rfviz.lab.run import Run
from rfviz.nets.network import NETWORKS, Network
from rfviz.pages.style import GREY, BookFigure, missing, no_contrast, show
from rfviz.stats import AGREES, CANNOT_TELL, DISAGREES, NOTHING, Interval, judge


class Pictures(NamedTuple):
    """The pictures of one network, by layer.

    Parameters
    ----------
    responses : dict from layer to LayerResponses
    maxima : dict from layer to Maximization
    whitening : Whitening
    """

    responses: Mapping[str, LayerResponses]
    maxima: Mapping[str, Maximization]
    whitening: Whitening


class Shown(NamedTuple):
    """What the page shows.

    Parameters
    ----------
    run : Run
        The first.
    pictures : dict from network to list of Pictures
        In the layers of the paper's figures, one per seed.
    resemblance : dict from network to Interval
    """

    run: Run
    pictures: Mapping[str, Sequence[Pictures]]
    resemblance: Mapping[str, Interval]


def _pictures(run: Run, network: str) -> Pictures:
    layers, found = NETWORKS[network].figure_layers, results.stimuli(run, network)
    return Pictures(
        {layer: found[layer] for layer in layers},
        {layer: results.maxima(run, network, layer) for layer in layers},
        run.whitening(network),
    )


def gather(runs: Sequence[Run]) -> Shown:
    """Return what the page shows of some runs that differ in their seed."""
    names = [each.name for each in runs[0].networks]
    return Shown(
        runs[0], {name: [_pictures(run, name) for run in runs] for name in names},
        {name: resemblance(runs, name) for name in names},
    )  # fmt: skip


def resemblance(runs: Sequence[Run], network: str) -> Interval:
    """Return how much more like its own maximization image than like others a mean stimulus is (`own_maximization`).

    `NOTHING` in a network of bottleneck blocks, whose layers do not have the same channels.
    """
    if NETWORKS[network].bottleneck:
        return NOTHING
    return stats.over_seeds([stats.mean(own_maximization(*_pictures(run, network))) for run in runs])


def maximization(shown: Shown, network: Network | None, channel: Mapping[str, int]) -> Figure:
    """Draw Figs. 6 and S4: for each layer, the image that maximization finds, and how the activation rises.

    Parameters
    ----------
    shown : Shown
    network : Network or None
        None, of a run without a contrast, gives the reason in place of the figure.
    channel : dict from network to int
    """
    if network is None:
        return missing(no_contrast(shown.run))
    number, (first, *_) = channel[network.name], shown.pictures[network.name]
    figure = BookFigure(4.1)
    grid = figure.subplots(2, len(first.maxima), height_ratios=[1.5, 1], squeeze=False)
    for letter, column, (layer, found) in zip("abc", grid.T, first.maxima.items(), strict=True):
        image, curve = first.whitening.to_rgb(found.images[number]), found.activations[:, number]
        show(column[0], image)
        side = image.shape[-1]
        column[0].set_title(f"({letter}) {network.layer_title(layer)}\n{side} × {side} px", fontsize=8)
        column[1].plot(curve.numpy(), color=network.colour)
        column[1].axhline(0, color=GREY, linewidth=0.8, linestyle=":")
        column[1].set_xlabel("step")
        column[1].spines[["top", "right"]].set_visible(False)
    grid[1, 0].set_ylabel("activation\nbefore the ReLU")
    return figure


def similarity_table(shown: Shown) -> pd.DataFrame:
    """Return how alike mean preferred stimuli and maximization images are, as Pearson correlations.

    Both are taken in RGB (not clipped), the mean stimulus minus the mean patch, and both minus their mean colour.
    ``same channel`` is the mean over channels, ``different channels`` the mean over all pairs of different channels.
    Channels without a mean stimulus do not count; NaN where too few are left. Of several seeds, text: the mean and,
    after ±, the standard deviation.
    """
    frames = [_similarities(seed, shown) for seed in range(len(next(iter(shown.pictures.values()))))]
    if len(frames) == 1:
        return frames[0]
    rows = pd.concat(frames).groupby(level=[0, 1], sort=False)
    spread = rows.std().map(lambda value: "" if pd.isna(value) else f" ± {value:.2g}")
    return rows.mean().map(lambda value: f"{value:.3g}") + spread


def _similarities(seed: int, shown: Shown) -> pd.DataFrame:
    rows = []
    for name, replicas in shown.pictures.items():
        responses, maxima, whitening = replicas[seed]
        for layer, found in responses.items():
            there = found.positive_count > 0
            driven = whitening.to_rgb(maxima[layer].images[there].double(), clip=False)
            correlation = correlations(found.mean_deviation[there], driven)
            count = len(correlation)
            same = correlation.diagonal().sum().item()
            rows.append(
                {
                    "network": NETWORKS[name].title,
                    "layer": NETWORKS[name].layer_title(layer),
                    "same channel": same / count if count else math.nan,
                    "different channels": (
                        (correlation.sum().item() - same) / (count * (count - 1)) if count > 1 else math.nan
                    ),
                    "channels": count,
                }
            )
    return pd.DataFrame(rows).set_index(["network", "layer"]).round(3)


def maximization_answer(shown: Shown) -> Markdown:
    """Say whether mean stimuli are more like the maximization image of their own channel than like those of others."""
    words = {AGREES: "more than", DISAGREES: "less than", CANNOT_TELL: "not measurably more than"}
    found = []
    for name, gap in shown.resemblance.items():
        title = NETWORKS[name].title
        if NETWORKS[name].bottleneck:
            found.append(f"In {title}, whose layers do not have the same channels, only the table compares them.")
        else:
            found.append(f"In {title} they resemble them {words[judge(gap)]} those of other channels: {gap:+.2f}.")
    return Markdown(
        "**Answer.** How like the maximization images of their own channels are the mean preferred stimuli? "
        + " ".join(found)
        + " These are the correlations with the own image minus those with the others, averaged over layers, with the "
        "95 % interval; 0 is no likeness beyond that of different channels. The paper judges by eye, on one channel."
    )
