"""Figures of silent channels: what keeps them from firing, noise by dose and one by one, when they fell silent."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from rfviz.kernels.noise_dose import NoiseDose
from rfviz.kernels.responses import LayerResponses
from rfviz.kernels.silence import Silence
from rfviz.nets.models import PAPER_ARCHITECTURES
from rfviz.pages.figures import GREY, MODEL_COLOURS, BookFigure


def room_to_fire(found: Mapping[str, Silence]) -> Figure:
    """Draw Fig. S12: for every channel how high it goes before the ReLU, and how high any picture could drive it."""
    figure = BookFigure(3.0)
    for ax, (model, each) in zip(
        figure.subplots(1, len(found), squeeze=False, sharey=True)[0], found.items(), strict=True
    ):
        order = each.highest.argsort(descending=True)
        places = np.arange(len(order))
        ax.plot(places, each.reach[order].numpy(), "^", color=GREY, markersize=4, label="any picture at most")
        ax.plot(
            places, each.highest[order].numpy(), "o", color=MODEL_COLOURS[model], markersize=4,
            label="evaluation images at most",
        )  # fmt: skip
        ax.plot(places, each.shift[order].numpy(), "_", color="black", label="mean: shift of batch norm")
        ax.axhline(0, color="black", linewidth=0.8, linestyle=":")
        ax.set_title(PAPER_ARCHITECTURES[model], fontsize=9)
        ax.set_xlabel("channel, sorted")
        ax.xaxis.set_major_locator(MaxNLocator(integer=True))
        ax.spines[["top", "right"]].set_visible(False)
    figure.axes[0].set_ylabel("value before the ReLU")
    figure.legend(
        *figure.axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=3, fontsize=8, frameon=False
    )
    return figure


def noise_doses(doses: Mapping[str, NoiseDose], pooled: Mapping[str, LayerResponses]) -> Figure:
    """Draw Fig. S14: the change of the loss by dose with matched controls (top), and channel by channel (bottom)."""
    figure = BookFigure(5.0)
    grid = figure.subplots(2, len(doses), squeeze=False, sharey="row")
    for (top, bottom), (model, found) in zip(grid.T, doses.items(), strict=True):
        colour = MODEL_COLOURS[model]
        which = "inactive" if found.inactive else "least active"
        for group, style, shade, label in (
            ("matched", "s--", GREY, f"{len(found.matched)} matched active"),
            ("tested", "o-", colour, f"{len(found.tested)} {which}"),
        ):
            if not (found.tested if group == "tested" else found.matched):
                continue
            means = [found.mean(each) for each in found.loss[group]]
            values = [each.value for each in means]
            low, high = ([getattr(each, edge) for each in means] for edge in ("low", "high"))
            top.plot(found.doses, values, style, color=shade, markersize=4, label=label)
            top.fill_between(found.doses, low, high, color=shade, alpha=0.2, linewidth=0)
        top.axhline(0, color="black", linewidth=0.8, linestyle=":")
        top.set_xscale("log", base=2)
        top.set_xticks(found.doses, [f"{dose:g}" for dose in found.doses])
        top.minorticks_off()
        top.set_title(PAPER_ARCHITECTURES[model], fontsize=9)
        top.set_xlabel("σ of the noise")
        top.legend(frameon=False, fontsize=8)
        rates = 100 * pooled[model].firing_rate.numpy()
        alone = [found.mean(each) for each in found.single]
        middle = np.array([each.value for each in alone])
        reach = [
            [each.value - each.low for each in alone],
            [each.high - each.value for each in alone],
        ]
        bottom.errorbar(rates, middle, np.nan_to_num(reach), fmt="none", ecolor=colour, elinewidth=0.7, alpha=0.6)
        silent = rates == 0
        bottom.plot(rates[~silent], middle[~silent], "o", color=colour, markersize=4)
        bottom.plot(rates[silent], middle[silent], "x", color=colour)
        bottom.axhline(0, color="black", linewidth=0.8, linestyle=":")
        bottom.set_xlabel("neurons of the channel that fire (%)")
    grid[0, 0].set_ylabel("change of the loss (nats)")
    grid[1, 0].set_ylabel("change of the loss (nats),\nnoise in one channel")
    for ax in grid.flat:
        ax.spines[["top", "right"]].set_visible(False)
    return figure


def firing_history(histories: Mapping[str, Sequence[Mapping[str, Any]]]) -> Figure:
    """Draw Fig. S13: how often each channel fires, epoch by epoch; those that end silent are dark and dashed."""
    figure = BookFigure(2.9)
    for ax, (model, history) in zip(
        figure.subplots(1, len(histories), squeeze=False, sharey=True)[0], histories.items(), strict=True
    ):
        known = [entry for entry in history if "firing_rate" in entry]
        epochs = [entry["epoch"] for entry in known]
        for rates in zip(*(entry["firing_rate"] for entry in known), strict=True):
            silent = rates[-1] == 0
            ax.plot(
                epochs, 100 * np.array(rates), "--" if silent else "-",
                color="black" if silent else MODEL_COLOURS[model], linewidth=1.6 if silent else 0.8,
                alpha=1 if silent else 0.6,
            )  # fmt: skip
        if not known:
            ax.text(0.5, 0.5, "not recorded", transform=ax.transAxes, ha="center", color=GREY)
        ax.set(title=PAPER_ARCHITECTURES[model], xlabel="epoch", ylim=(-3, 103))
        ax.title.set_fontsize(9)
        ax.xaxis.set_major_locator(MaxNLocator(integer=True))
        ax.spines[["top", "right"]].set_visible(False)
    figure.axes[0].set_ylabel("neurons that fire (%)")
    return figure
