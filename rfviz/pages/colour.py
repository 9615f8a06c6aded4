"""Which channels are double-opponent, beside random weights, and whether pictures have another hue around a centre."""

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import pandas as pd
import torch
from IPython.display import Markdown
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from rfviz import stats
from rfviz.kernels.controls import DRAWS
from rfviz.kernels.responses import LayerResponses
from rfviz.kernels.tuning.centre_surround import Opponency
from rfviz.kernels.tuning.spots import CLASSES, ColourTuning
from rfviz.lab import results
from rfviz.lab.run import Run
from rfviz.nets.network import Network
from rfviz.pages.orientation import excess_over_layers, verdicts
from rfviz.pages.style import GREY, bands, covered, listed, min_max, place, show, stretch
from rfviz.stats import Interval

PICTURES = {"mean": "mean stimulus", "maximization": "maximization", "clear": "clear picture"}


class Shown(NamedTuple):
    """What the page shows of colour.

    Parameters
    ----------
    networks : list of Network
    tuning : dict from network and layer to ColourTuning
        Of the filters of the first convolution and of the blocks that the figures show.
    controls : dict from network and layer to list of ColourTuning
        Of `DRAWS` networks with random weights.
    filters : dict from network to Tensor, shape (C, 3, F, F)
    stimuli : dict from network and layer to LayerResponses
    pictures : dict from network, layer and kind of picture to Opponency
        See `rfviz.lab.results.opponency`.
    """

    networks: list[Network]
    tuning: dict[str, dict[str, ColourTuning]]
    controls: dict[str, dict[str, list[ColourTuning]]]
    filters: dict[str, Tensor]
    stimuli: dict[str, Mapping[str, LayerResponses]]
    pictures: dict[str, dict[str, dict[str, Opponency]]]


def layers(network: Network) -> tuple[str, ...]:
    """Return what is measured: the filters of the first convolution, and the blocks that the figures show."""
    return ("conv1", *network.figure_layers[1:])


def gather(runs: Sequence[Run]) -> Shown:
    """Return what the page shows: of the first run, as it shows one network of each kind."""
    run = runs[0]
    shown = Shown(run.networks, {}, {}, {}, {}, {})
    for each in run.networks:
        name = each.name
        shown.tuning[name] = {layer: results.colour(run, name, layer) for layer in layers(each)}
        shown.controls[name] = {layer: random(run, name, layer) for layer in layers(each)}
        shown.filters[name] = run.net(name).conv1.weight.detach().cpu()
        shown.stimuli[name] = results.stimuli(run, name)
        shown.pictures[name] = {layer: results.opponency(run, name, layer) for layer in each.figure_layers}
    return shown


def random(run: Run, network: str, layer: str) -> list[ColourTuning]:
    """Return the colour tuning of a layer with random weights, of `DRAWS` such networks."""
    return [results.colour(run, network, layer, "random weights", draw) for draw in range(DRAWS)]


def double_opponent(found: Sequence[ColourTuning]) -> tuple[int, int]:
    """Return how many channels are double-opponent, and of how many that respond."""
    names = [name for each in found for name in each.classes]
    return names.count("double-opponent"), len(names) - names.count("silent")


def double_opponent_excess(run: Run, network: str) -> Interval:
    """Return in how large a share of `layers` a channel is double-opponent, minus that with random weights."""
    there = layers(run.network(network))
    draws = zip(*(random(run, network, layer) for layer in there), strict=True)
    return excess_over_layers(
        [_double(results.colour(run, network, layer)) for layer in there],
        [[_double(each) for each in draw] for draw in draws],
    )


def _double(found: ColourTuning) -> Tensor:
    """Tell which channels are double-opponent, as 0 or 1 `(C,)`; NaN where nothing drives one."""
    values = {"silent": math.nan, "double-opponent": 1.0}
    return torch.tensor([values.get(name, 0.0) for name in found.classes], dtype=torch.float64)


# -- figures, tables and words -----------------------------------------------------------------------------------------


def double_opponent_channels(shown: Shown) -> Figure:
    """Draw Fig. S9: the most double-opponent filter and channel behind layer1 of each network, and what drives them."""
    best = {network.title: _best(shown, network) for network in shown.networks}
    figure, drawn = bands(2.5, {title: bool(found) for title, found in best.items()}, "none is double-opponent")
    for network in (each for each in shown.networks if each.title in drawn):
        grid = drawn[network.title].subplots(1, 4, width_ratios=[1, 1.3, 1, 1.3])
        for ax in grid[2 * len(best[network.title]) :]:
            ax.axis("off")
        for pair, (layer, channel) in zip((grid[:2], grid[2:]), best[network.title].items(), strict=False):
            tuning = shown.tuning[network.name][layer]
            title = "first filter" if layer == "conv1" else network.layer_title(layer).replace("layer ", "")
            show(pair[0], _picture(shown, network, layer, channel), of=place(network, layer, channel))
            pair[0].set_title(f"{title}, ch. {channel}")
            _drives(pair[1], tuning, channel, ("one place", "another") if layer == "conv1" else ("centre", "ring"))
    return figure


def _best(shown: Shown, network: Network) -> dict[str, int]:
    """Return the most double-opponent channel of the first and of the last layer, where there is one."""
    found = {}
    for layer in layers(network)[::2]:
        tuning = shown.tuning[network.name][layer]
        double = torch.tensor([name == "double-opponent" for name in tuning.classes])
        if double.any():
            found[layer] = int(torch.where(double, tuning.index, -1).argmax())
    return found


def _picture(shown: Shown, network: Network, layer: str, channel: int) -> Tensor | None:
    if layer == "conv1":
        return min_max(shown.filters[network.name][channel])
    found = shown.stimuli[network.name][layer]
    assert found.strongest_count is not None
    if not found.competes[channel]:
        return None
    return covered(stretch(found.strongest_deviation[channel])[0], found.strongest_count[channel])


def _drives(ax: Axes, tuning: ColourTuning, channel: int, names: tuple[str, str]) -> None:
    """Draw how strongly +L-M and +S drive a channel in the two places, over the largest of the four."""
    drive = tuning.drives[channel, tuning.best[channel]].mean(1)[:, 1:]
    drive = drive / drive.abs().max()
    for side, (name, shift) in enumerate(zip(names, (-0.2, 0.2), strict=True)):
        ax.bar([shift, 1 + shift], drive[side].tolist(), 0.38, color=("black", GREY)[side], label=name)
    ax.axhline(0, color=GREY, linewidth=0.8)
    ax.set(xticks=[0, 1], ylim=(-1.1, 1.1), yticks=[-1, 0, 1], ylabel="drive / largest")
    ax.set_xticklabels(["+L-M", "+S"])
    ax.set_title(f"index {tuning.index[channel]:.2f}")
    ax.legend(frameon=False, loc="best", handlelength=1)


def class_table(shown: Shown) -> pd.DataFrame:
    """Return how many channels are of each colour class, beside random weights, per network and layer, as text."""
    rows = []
    for network in shown.networks:
        for layer, tuning in shown.tuning[network.name].items():
            names = tuning.classes
            chance, of = double_opponent(shown.controls[network.name][layer])
            rows.append(
                {
                    "network": network.title,
                    "layer": "first filters" if layer == "conv1" else network.layer_title(layer),
                    **{name: str(names.count(name)) for name in reversed(CLASSES)},
                    "double-opponent, random weights": f"{chance} of {of}",
                }
            )
    return pd.DataFrame(rows).set_index(["network", "layer"])


def class_answer(shown: Shown) -> Markdown:
    """Say where double-opponent channels are more frequent than in random weights."""
    lines = ["**Answer.** The share of double-opponent channels, minus that with random weights:\n"]
    for network in shown.networks:
        found = {
            "first filters" if layer == "conv1" else network.layer_title(layer): stats.share_difference(
                double_opponent([tuning]), double_opponent(shown.controls[network.name][layer])
            )
            for layer, tuning in shown.tuning[network.name].items()
        }
        counts = [f"{double_opponent([each])[0]}" for each in shown.tuning[network.name].values()]
        lines.append(f"- {network.title} has {listed(counts)}: {verdicts(found, 'more', 'fewer')}.")
    return Markdown("\n".join(lines))


def opponency_table(shown: Shown) -> pd.DataFrame:
    """Return in how many pictures centre and surround differ in hue or are opponent, per network and layer, as text."""
    rows = []
    for network in shown.networks:
        for layer, kinds in shown.pictures[network.name].items():
            row = {"network": network.title, "layer": network.layer_title(layer)}
            for kind, name in (*PICTURES.items(), ("random weights", "maximization, random weights")):
                row[name] = f"{int(kinds[kind].hue_differs.sum())} ({int(kinds[kind].colour_opponent.sum())})"
            rows.append(row | {"pictures": str(int(kinds["mean"].p.isfinite().sum()))})
    return pd.DataFrame(rows).set_index(["network", "layer"])


def opponency_answer(shown: Shown) -> Markdown:
    """Say whether maximization shows another hue around the centre where the mean stimulus does not."""
    lines = [
        "**Answer.** The share of channels whose maximization image has another hue around its centre, minus that of "
        "their mean stimuli:\n"
    ]
    for network in shown.networks:
        found = {network.layer_title(layer): hue_lead(each) for layer, each in shown.pictures[network.name].items()}
        lines.append(f"- {network.title}: {verdicts(found, 'maximization more often', 'the mean more often')}.")
    return Markdown("\n".join(lines))


def hue_lead(found: Mapping[str, Opponency], kind: str = "maximization", other: str = "mean") -> Interval:
    """Return the share of channels of which one picture passes `Opponency.hue_differs`, minus that of another.

    Paired by channel. Where no pair differs, the interval is what so many channels leave open (`stats.share` of none).
    """
    pair = (found[kind], found[other])  # NaN where there is no picture
    one, another = (torch.where(each.p.isfinite(), each.hue_differs.double(), torch.nan) for each in pair)
    lead = stats.mean(one - another)
    if lead.low == lead.high == 0:
        reach = stats.share(0, lead.n).high
        return lead._replace(low=-reach, high=reach)
    return lead
