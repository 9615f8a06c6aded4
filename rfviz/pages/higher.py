"""The page on higher layers: what in a stimulus a neuron depends on, and which pictures work as stimuli."""

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd
from IPython.display import Markdown
from matplotlib.figure import Figure
from torch import Tensor

from rfviz import stats
from rfviz.kernels.effective import EffectiveFields
from rfviz.kernels.identify import CHANCE, KINDS
from rfviz.lab import results
from rfviz.lab.run import Run
from rfviz.nets import receptive_field
from rfviz.nets.network import BLUE, GREEN, ORANGE, Network
from rfviz.pages import figures
from rfviz.pages.style import GREY, BookFigure, answer, listed, place, points, where
from rfviz.stats import Interval

KIND_STYLES = dict(zip(KINDS, ((ORANGE, "o"), (GREEN, "s"), (BLUE, "^")), strict=True))
"""Colour and marker of each kind of picture."""

Scores = Mapping[str, Tensor]
"""What `rfviz.kernels.identify.identify` returns of a layer."""


class Shown(NamedTuple):
    """What the page shows of the networks of a run.

    Parameters
    ----------
    run : Run
    fields, controls : dict from network and layer to EffectiveFields
        Of the network, and with random weights; of the same neurons on the same images.
    scores : dict from network and layer to Scores
    readable : dict from network and layer to Tensor, shape (C,)
        See `rfviz.kernels.pictures.readability`.
    """

    run: Run
    fields: Mapping[str, Mapping[str, EffectiveFields]]
    controls: Mapping[str, Mapping[str, EffectiveFields]]
    scores: Mapping[str, Mapping[str, Scores]]
    readable: Mapping[str, Mapping[str, Tensor]]


def gather(runs: Sequence[Run]) -> Shown:
    """Return what the page shows: of the first run, as it shows one network of each kind."""
    run = runs[0]
    fields, controls = (
        {
            each.name: {layer: results.effective_fields(run, each.name, layer, kind) for layer in each.high_layers}
            for each in run.networks
        }
        for kind in (None, "random weights")
    )
    scores = {
        each.name: {layer: results.identification(run, each.name, layer) for layer in each.picture_layers}
        for each in run.networks
    }
    readable = {
        each.name: {layer: results.readability(run, each.name, layer) for layer in judged(each)}
        for each in run.networks
    }
    return Shown(run, fields, controls, scores, readable)


def judged(network: Network) -> tuple[str, ...]:
    """Return the layers that the statement on high layers is judged in: the paper's highest, and one further up."""
    return network.picture_layers[-2:]


# -- what matters in a stimulus ----------------------------------------------------------------------------------------


def what_matters(shown: Shown) -> Figure:
    """Draw Fig. S19: per layer of the subject, the strongest stimulus of one channel, and what in it matters."""
    network = shown.run.subject
    layers = shown.fields[network.name]
    layer_of = {
        f"({letter}) {network.layer_title(layer).replace('layer ', '')}": layer
        for letter, layer in zip("abcdefgh", layers, strict=False)
    }
    found, controls = (
        {called: fields[network.name][layer] for called, layer in layer_of.items()}
        for fields in (shown.fields, shown.controls)
    )
    return figures.effective_fields(
        shown.run.stimuli, found, controls, places=lambda called, channel: place(network, layer_of[called], channel)
    )


def effective_diameters(shown: Shown) -> Figure:
    """Draw Fig. S20: effective diameters by layer, beside those with random weights; medians with 95 % intervals."""
    figure = BookFigure(3.0)
    ax = figure.subplots()
    networks = shown.run.networks
    for number, network in enumerate(networks):
        for random, measured in enumerate((shown.fields[network.name], shown.controls[network.name])):
            found = [stats.median(each.diameter, groups=each.channels) for each in measured.values()]
            places = np.arange(len(found)) + 0.7 * (number + 0.4 * random) / len(networks) - 0.25
            ax.vlines(places, [each.low for each in found], [each.high for each in found], color=network.colour)
            ax.plot(
                places, [each.value for each in found], "os^Dv"[number % 5], color=network.colour,
                markerfacecolor="white" if random else network.colour,
                label=f"{network.title}{', random weights' if random else ''}",
            )  # fmt: skip
    layers = shown.fields[networks[0].name]
    names = [networks[0].layer_title(each).replace("layer ", "") for each in layers]
    sizes = [f"field of {found.receptive_field.size} px" for found in layers.values()]
    ax.set_xticks(range(len(names)), [f"{name}\n{size}" for name, size in zip(names, sizes, strict=True)])
    ax.set_ylabel("effective diameter (px)")
    ax.set_ylim(bottom=0)
    figure.legend(loc="outside lower center", ncols=2, frameon=False)
    return figure


def _ratio(found: EffectiveFields, control: EffectiveFields) -> Interval:
    """Return the median over stimuli of the diameter over that with random weights, at the same place and image."""
    return stats.median(found.diameter / control.diameter, groups=found.channels)


def effective_answer(shown: Shown) -> Markdown:
    """Say how large effective fields are, and where they differ from those with random weights."""
    sentences = []
    for network in shown.run.networks:
        there = {layer: found for layer, found in shown.fields[network.name].items() if found.diameter.isfinite().any()}
        if not there:
            sentences.append(f"In {network.title}, no channel depends on the image in these layers.")
            continue
        sizes = [
            f"{stats.median(found.diameter).value:.0f} px in {network.layer_title(layer)}"
            for layer, found in there.items()
        ]
        signs = {
            network.layer_title(layer): _ratio(found, shown.controls[network.name][layer]).minus(1).sign
            for layer, found in there.items()
        }
        words = {-1: "less than", 1: "more than", 0: "not distinguishable from that"}
        verdicts = where(signs, {sign: f"{said} with random weights" for sign, said in words.items()})
        sentences.append(
            f"In {network.title}, the median effective diameter is {listed(sizes)}; this is {listed(verdicts)}."
        )
    return answer(sentences)


# -- do the pictures work as stimuli? ----------------------------------------------------------------------------------


def score(runs: Sequence[Run], network: str, layer: str, kind: str) -> Interval:
    """Return the score of a kind of picture (one of `KINDS`): the mean over channels, or over seeds if several."""
    return stats.over_seeds([stats.mean(results.identification(run, network, layer)[kind]) for run in runs])


def lead(runs: Sequence[Run], network: str, layer: str) -> Interval:
    """Return the score of maximization minus that of the mean over all firing neurons, paired by channel.

    The interval is over channels, or over seeds where there are several.
    """
    return stats.over_seeds([_lead(results.identification(run, network, layer), KINDS[0]) for run in runs])


def _lead(scores: Scores, kind: str) -> Interval:
    return stats.mean(scores[KINDS[-1]] - scores[kind])


def identification_by_layer(shown: Shown) -> Figure:
    """Draw Fig. S16: how often a channel's own picture beats those of others, per layer, for three kinds of pictures.

    Points are means over channels, bars their 95 % intervals; the dashed line is chance.
    """
    figure = BookFigure(3.0)
    panels = figure.subplots(1, len(shown.scores), sharey=True, squeeze=False)[0]
    for letter, ax, network in zip("abcdefgh", panels, shown.run.networks, strict=False):
        layers = shown.scores[network.name]
        for shift, kind in zip((-0.15, 0, 0.15), KINDS, strict=True):
            colour, marker = KIND_STYLES[kind]
            found = [stats.mean(scores[kind]) for scores in layers.values()]
            places = np.arange(len(layers)) + shift
            ax.vlines(places, [each.low for each in found], [each.high for each in found], color=colour, linewidth=1.5)
            ax.plot(places, [each.value for each in found], marker, color=colour, markersize=5, label=kind)
        ax.axhline(CHANCE, color=GREY, linewidth=1, linestyle="--", label="chance")
        ax.set_title(f"({letter}) {network.title}")
        titles = [network.layer_title(layer) for layer in layers]
        names = [title.replace("first pooling layer", "pooling").replace("layer ", "") for title in titles]
        ax.set_xticks(range(len(layers)), names)
        ax.set_xlim(-0.5, len(layers) - 0.5)
    panels[0].set_ylim(0, 1.04)
    panels[0].set_ylabel("share of other channels' pictures\nthat drive the channel less")
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=2, frameon=False)
    return figure


def fits(run: Run, network: str, layer: str) -> bool:
    """Tell whether the receptive field of a layer is no larger than the images; else a mean shows their edges."""
    return receptive_field.of(run.net(network), layer).size <= run.stimuli[0][0].shape[-1]


HARD = 0.1
"""Contrast of a mean, over that of the strongest stimuli, below which it is hard to see anything in it."""


def readability_table(shown: Shown) -> pd.DataFrame:
    """Return how much contrast and how much information means keep, in the layers that are judged, as text."""
    rows = [
        {
            "network": network.title,
            "layer": network.layer_title(layer),
            "contrast of the mean": stats.median(shown.readable[network.name][layer]).brief(".1%"),
            **{kind: stats.mean(shown.scores[network.name][layer][kind]).brief(".2f") for kind in KINDS},
            "channels": _known(shown.scores[network.name][layer]),
        }
        for network in shown.run.networks
        for layer in judged(network)
    ]
    return pd.DataFrame(rows).set_index(["network", "layer"])


def _known(scores: Scores) -> int:
    return int(scores[KINDS[-1]].isfinite().sum())


def identification_answer(shown: Shown) -> Markdown:
    """Say whether the pictures work in the highest layer, and whether maximization leads."""
    sentences = []
    for network in shown.run.networks:
        known = [(layer, each) for layer, each in shown.scores[network.name].items() if _known(each) > 1]
        if not known:
            sentences.append(f"In {network.title}, too few channels fire to tell.")
            continue
        layer, scores = known[-1]
        said = []
        for kind in KINDS:
            found = stats.mean(scores[kind])
            said.append(f"{_the(kind)} scores {found:.2f}, {_verdict(found.minus(CHANCE), 'chance')}")
        leads = []
        for kind in KINDS[:-1]:
            found = _lead(scores, kind)
            leads.append(f"{_verdict(found, _the(kind))}, with a difference of {found:+.3f}")
        sentences.append(
            f"In the highest layer tested of {network.title}, {network.layer_title(layer)}, {'; '.join(said)}. "
            f"On the same channels, maximization is {', and '.join(leads)}."
        )
    return points(sentences, f"**Answer.** Scores are 1 at best and {CHANCE:g} by chance. ")


def _the(kind: str) -> str:
    return kind if kind == KINDS[-1] else f"the {kind}"


def _verdict(found: Interval, null: str) -> str:
    if math.isnan(found.low):
        return f"not to be told from {null} without an interval"
    return {1: "better than", -1: "worse than", 0: "not distinguishable from"}[found.sign] + f" {null}"
