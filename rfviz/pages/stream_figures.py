"""Figures of the residual stream: which blocks write to a channel, and what the network loses without it."""

from collections.abc import Mapping

import numpy as np
from matplotlib.figure import Figure

from rfviz import intervals
from rfviz.kernels.stream import ABLATED, Written
from rfviz.lab.evidence import Evidence
from rfviz.nets.models import PAPER_ARCHITECTURES
from rfviz.pages.figures import GREY, MODEL_COLOURS, BookFigure, layer_title


def written_shares(written: Mapping[str, Written], by_chance: Mapping[str, Written]) -> Figure:
    """Draw Fig. S17: for each block the share of a channel's variance that it has written, by firing rate.

    Parameters
    ----------
    written, by_chance : dict from layer to Written
        Of the trained network, and of one with random weights, which has firing rates of its own.
    """
    figure = BookFigure(2.9)
    panels = figure.subplots(1, len(written), squeeze=False, sharey=True)[0]
    for ax, (layer, found) in zip(panels, written.items(), strict=True):
        for each, mark, colour, label in (
            (by_chance[layer], "^", GREY, "random weights"),
            (found, "o", MODEL_COLOURS["resnet34"], "trained"),
        ):
            rates, shares = 100 * each.given.numpy(), 100 * each.share.numpy()
            ax.plot(rates, shares, mark, color=colour, markersize=4, label=label)
        middle = intervals.median(found.share)
        ax.set_title(f"{layer_title(layer)}\nmedian {middle.value:.0%}", fontsize=8)
        ax.set_xlabel("firing rate in the\nfirst pooling layer (%)", fontsize=8)
        ax.spines[["top", "right"]].set_visible(False)
    panels[0].set_ylabel("variance written by the block (%)", fontsize=8)
    figure.legend(
        *panels[0].get_legend_handles_labels(), loc="outside lower center", ncols=2, fontsize=8, frameon=False
    )
    return figure


def ablations(found: Mapping[str, Evidence]) -> Figure:
    """Draw Fig. S18: the change of the loss when one channel is set to 0, early and late; tested channels are ringed.

    Parameters
    ----------
    found : dict from architecture to Evidence
    """
    figure = BookFigure(4.8)
    grid = figure.subplots(len(ABLATED), len(found), squeeze=False, sharey="row", sharex="col")
    for column, (model, evidence) in zip(grid.T, found.items(), strict=True):
        rates, ringed = 100 * evidence.firing_rate.numpy(), evidence.tested.numpy()
        for ax, layer in zip(column, ABLATED, strict=True):
            each = [evidence.dose.mean(channel) for channel in evidence.ablated[layer]]
            middle = np.array([interval.value for interval in each])
            reach = [[i.value - i.low for i in each], [i.high - i.value for i in each]]
            ax.errorbar(
                rates, middle, np.nan_to_num(reach), fmt="none", ecolor=MODEL_COLOURS[model], elinewidth=0.7, alpha=0.6
            )
            ax.plot(rates, middle, "o", color=MODEL_COLOURS[model], markersize=4)
            ax.plot(rates[ringed], middle[ringed], "o", markersize=8, markerfacecolor="none", color="black")
            ax.axhline(0, color="black", linewidth=0.8, linestyle=":")
            ax.set_title(f"{PAPER_ARCHITECTURES[model]}, {layer_title(layer)}", fontsize=8)
            ax.spines[["top", "right"]].set_visible(False)
        column[-1].set_xlabel("firing rate in the first pooling layer (%)", fontsize=8)
    for ax in grid[:, 0]:
        ax.set_ylabel("change of the loss (nats)", fontsize=8)
    return figure
