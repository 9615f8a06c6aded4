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
    maxima, clear : dict from layer to Maximization
        With the paper's setting, and as clear pictures (`rfviz.kernels.maximization.clear`).
    whitening : Whitening
    """

    responses: Mapping[str, LayerResponses]
    maxima: Mapping[str, Maximization]
    clear: Mapping[str, Maximization]
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
        {layer: results.clear_maxima(run, network, layer) for layer in layers},
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
    layers = NETWORKS[network].figure_layers

    def own(run: Run) -> Interval:
        found, maxima = results.stimuli(run, network), {layer: results.maxima(run, network, layer) for layer in layers}
        return stats.mean(own_maximization({each: found[each] for each in layers}, maxima, run.whitening(network)))

    return stats.over_seeds([own(run) for run in runs])


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
    number, (first, *_) = channel[network.name], shown.pictures[network.name]
    figure = BookFigure(6.2)
    grid = figure.subplots(3, len(first.maxima), height_ratios=[1.5, 1.5, 1], squeeze=False)
    for letter, column, layer in zip("abc", grid.T, first.maxima, strict=True):
        side = first.responses[layer].receptive_field.size
        column[0].set_title(f"({letter}) {network.layer_title(layer)}\n{side} × {side} px", fontsize=8)
        best = first.responses[layer].top_values[number, 0].item()
        for ax, found, style in zip(column, (first.maxima[layer], first.clear[layer]), ("--", "-"), strict=False):
            show(ax, first.whitening.to_rgb(found.images[number]))
            curve = found.activations[:, number] / (best if best > 0 else 1.0)
            column[2].plot(curve.numpy(), style, color=network.colour)
        column[2].axhline(1 if best > 0 else 0, color=GREY, linewidth=0.8, linestyle=":")
        column[2].set_xlabel("step" if best > 0 else "step (never fires: activation itself)")
        column[2].spines[["top", "right"]].set_visible(False)
    for ax, name in zip(grid[:, 0], ("the paper's\nsetting", "clear\npicture"), strict=False):
        ax.set_ylabel(name, fontsize=8, rotation=0, ha="right", va="center")
    grid[2, 0].set_ylabel("activation over the\nbest photograph's", fontsize=8)
    return figure


def drive_table(shown: Shown) -> pd.DataFrame:
    """Return how strongly the pictures drive their channels, the paper's before they are clipped to RGB, as text.

    In units of the strongest response to any photograph, over the channels that fire: median over channels (least to
    most), and how many are driven more than by any photograph. Of the first seed.
    """
    rows = []
    for name, (first, *_) in shown.pictures.items():
        for layer, found in first.responses.items():
            best = found.top_values[:, 0]
            row = {"network": NETWORKS[name].title, "layer": NETWORKS[name].layer_title(layer)}
            for kind, driven in (("the paper's setting", first.maxima[layer]), ("clear picture", first.clear[layer])):
                relative = (driven.activations[-1] / best)[best > 0]
                more = f"; {int((relative > 1).sum())} of {len(relative)} above 1"
                spread = f"{relative.median():.2f} ({relative.min():.2f} to {relative.max():.2f})" + more
                row[kind] = spread if len(relative) else "–"
            rows.append(row)
    return pd.DataFrame(rows).set_index(["network", "layer"])


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
        responses, maxima, _, whitening = replicas[seed]
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
