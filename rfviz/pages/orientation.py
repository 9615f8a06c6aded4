"""How selective channels are for orientation, and whether more of them are than chance would give."""

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import torch
from IPython.display import Markdown
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from rfviz import stats
from rfviz.kernels.controls import CONTROLS, DRAWS
from rfviz.kernels.tuning import Tuning
from rfviz.kernels.tuning.gabor import Gabor
from rfviz.lab import results
from rfviz.lab.run import Run
from rfviz.nets.network import Network
from rfviz.pages.style import GREY, BookFigure
from rfviz.stats import AGREES, CANNOT_TELL, DISAGREES, Interval, judge

NULL = 95
"""Percentile of a control's channels that counts as the edge of chance."""

CONTROL_STYLES = {"random weights": "--", "shuffled filters": ":"}


class Shown(NamedTuple):
    """What the page shows of orientation.

    Parameters
    ----------
    networks : list of Network
    tuning : dict from network and layer to Tuning
    controls : dict from network, layer and kind of control to list of Tuning
        Of `DRAWS` networks of each kind.
    gabors : dict from network and weights to list of Gabor
        None where a filter has no pattern to fit.
    """

    networks: list[Network]
    tuning: dict[str, dict[str, Tuning]]
    controls: dict[str, dict[str, dict[str, list[Tuning]]]]
    gabors: dict[str, dict[str, list[Gabor | None]]]


def gather(runs: Sequence[Run]) -> Shown:
    """Return what the page shows: of the first run, as it shows one network of each kind."""
    run = runs[0]
    shown = Shown(run.networks, {}, {}, {})
    for each in run.networks:
        name, layers = each.name, each.figure_layers
        shown.tuning[name] = {layer: results.orientation(run, name, layer) for layer in layers}
        shown.controls[name] = {layer: {kind: [] for kind in CONTROLS} for layer in layers}
        for kind, draw, layer in itertools.product(CONTROLS, range(DRAWS), layers):
            shown.controls[name][layer][kind].append(results.orientation(run, name, layer, kind, draw))
        kinds: dict[str, str | None] = {"trained": None, **{kind: kind for kind in CONTROLS}}
        shown.gabors[name] = {weights: results.gabors(run, name, kind) for weights, kind in kinds.items()}
    return shown


def selective_share(run: Run, network: str) -> Interval:
    """Return how many more channels are selective than with random weights, as a difference of shares.

    Selective are channels whose selectivity exceeds the `NULL`-th percentile of one draw of random weights; the share
    is the mean over the three layers of the figures, in which a channel counts where it responds. From it is subtracted
    the share of another draw.
    """
    ours: list[Tensor] = []
    others: list[Tensor] = []
    for layer in run.network(network).figure_layers:
        first, second = (
            results.orientation(run, network, layer, "random weights", draw).selectivity for draw in range(2)
        )
        edge = np.percentile(stats.finite(first), NULL)
        found = results.orientation(run, network, layer).selectivity
        for values, selective in ((found, ours), (second, others)):
            selective.append(torch.where(values.isfinite(), (values > edge).double(), torch.nan))
    return stats.difference(mean_over_layers(ours), mean_over_layers(others))


def mean_over_layers(values: Sequence[Tensor]) -> Tensor:
    """Return the mean of each channel over the layers that have it, of one `(C,)` per layer; NaN does not count."""
    return pad_sequence(list(values), batch_first=True, padding_value=torch.nan).nanmean(0)


# -- figures -----------------------------------------------------------------------------------------------------------


class Panels:
    """A figure with a row for each network and a panel for each layer; it gives each, and what was measured there.

    Parameters
    ----------
    networks : sequence of Network
    measured : dict from network and layer to anything
    height : float
        Of a row, inches.
    sharex, sharey : bool
        Whether all panels have the same axis.
    """

    def __init__(
        self,
        networks: Sequence[Network],
        measured: Mapping[str, Mapping[str, Any]],
        height: float,
        sharex: bool = False,
        sharey: bool = False,
    ):
        self.networks, self.measured, self.figure = networks, measured, BookFigure(height * len(networks) + 0.6)
        columns = max(map(len, measured.values()))
        self.grid = self.figure.subplots(len(networks), columns, squeeze=False, sharex=sharex, sharey=sharey)

    def __iter__(self) -> Iterator[tuple[Axes, Network, str, Any]]:
        for row, network in zip(self.grid, self.networks, strict=True):
            for ax, (layer, found) in zip(row, self.measured[network.name].items(), strict=True):
                ax.set_title(f"{network.title}, {network.layer_title(layer)}", fontsize=8)
                ax.spines[["top", "right"]].set_visible(False)
                yield ax, network, layer, found

    def finished(self, abscissa: str, ordinate: str) -> Figure:
        """Name the axes at the edges, put one legend below, and return the figure."""
        for ax in self.grid[:, 0]:
            ax.set_ylabel(ordinate, fontsize=8)
        for ax in self.grid[-1]:
            ax.set_xlabel(abscissa, fontsize=8)
        handles, names = self.grid[0, 0].get_legend_handles_labels()
        self.figure.legend(handles, names, loc="outside lower center", ncols=len(names), fontsize=8, frameon=False)
        return self.figure


def curves_and_control(
    networks: Sequence[Network],
    measured: Mapping[str, Mapping[str, Any]],
    random: Mapping[str, Mapping[str, Any]],
    channels: Mapping[str, int],
    curve: Callable[[Any], tuple[Sequence[float], Tensor]],
    said: Callable[[Any, int], str],
) -> Panels:
    """Draw a curve over 180 degrees of one channel of each network, over its largest value, a control's in grey.

    Parameters
    ----------
    networks : sequence of Network
    measured, random : dict from network and layer to what `curve` takes
        As trained, and with random weights.
    channels : dict from network to int
    curve : callable
        Returns the angles in degrees `(A,)` and the responses `(C, A)`.
    said : callable
        Says in a few words what was measured of a channel.
    """
    panels = Panels(networks, measured, 2.0, sharex=True)
    for ax, network, layer, found in panels:
        channel = channels[network.name]
        for shown, colour, style, name in (
            (random[network.name][layer], GREY, "--", "random weights"),
            (found, network.colour, "-", "trained"),
        ):
            angles, responses = curve(shown)
            values = responses[channel]
            values = values / values.max() if values.max() > 0 else values
            ax.plot(
                [*angles, 180], [*values.tolist(), values[0].item()], style, color=colour, marker="o", markersize=3,
                label=name,
            )  # fmt: skip
        ax.set_title(f"{ax.get_title()}\nchannel {channel}: {said(found, channel)}", fontsize=8)
        ax.set(ylim=(-0.05, 1.1), xticks=[0, 45, 90, 135, 180])
    return panels


def orientation_curves(shown: Shown, channels: Mapping[str, int]) -> Figure:
    """Draw Fig. S7: the orientation tuning of one channel of each network, with that of a control in grey."""

    def said(found: Tuning, channel: int) -> str:
        index = found.selectivity[channel]
        return f"OSI {index:.2f}" if index.isfinite() else "no response"

    random = {
        name: {layer: kinds["random weights"][0] for layer, kinds in layers.items()}
        for name, layers in shown.controls.items()
    }
    panels = curves_and_control(
        shown.networks, shown.tuning, random, channels,
        lambda found: (found.gratings.orientations, found.orientation_curve), said,
    )  # fmt: skip
    return panels.finished("orientation of the bars (°)", "response / largest")


def selectivity_distributions(shown: Shown) -> Figure:
    """Draw Fig. S8: the share of channels up to each selectivity, trained and in the controls."""
    panels = Panels(shown.networks, shown.tuning, 1.9, sharex=True, sharey=True)
    for ax, network, layer, tuning in panels:
        groups = [("trained", [tuning], "-", network.colour)]
        groups += [
            (kind, nets, CONTROL_STYLES[kind], GREY) for kind, nets in shown.controls[network.name][layer].items()
        ]
        for name, nets, style, colour in groups:
            values = torch.cat([each.selectivity for each in nets])
            values = values[values.isfinite()].sort().values
            if len(values):
                share = torch.arange(1, len(values) + 1) / len(values) * 100
                ax.step(values.numpy(), share.numpy(), style, where="post", color=colour, label=name)
        ax.set(xlim=(0, 1), ylim=(0, 102))
    return panels.finished("orientation selectivity index", "channels up to it (%)")


# -- tables and words --------------------------------------------------------------------------------------------------


class BeyondChance(NamedTuple):
    """How many channels exceed the `NULL`-th percentile of a control.

    Parameters
    ----------
    edge : float
        The percentile; NaN where the control has no number.
    above : int
        Channels above it.
    excess : Interval
        Their share, minus the share that chance gives.
    """

    edge: float
    above: int
    excess: Interval


def beyond_chance(measured: Tensor, control: Sequence[Tensor]) -> BeyondChance:
    """Count the channels above a control's `NULL`-th percentile.

    Parameters
    ----------
    measured : Tensor, shape (C,)
        An index of every channel; NaN where it is not defined.
    control : sequence of Tensor
        The same of control networks, taken together.
    """
    chance = np.concatenate([stats.finite(each) for each in control])
    numbers = stats.finite(measured)
    edge = float(np.percentile(chance, NULL)) if len(chance) else np.nan
    above = int((numbers > edge).sum())
    share = stats.share(above, len(numbers) if len(chance) else 0)
    return BeyondChance(edge, above, share.minus((100 - NULL) / 100))


def _beyond(shown: Shown, network: str, layer: str, kind: str) -> BeyondChance:
    control = [each.selectivity for each in shown.controls[network][layer][kind]]
    return beyond_chance(shown.tuning[network][layer].selectivity, control)


def selectivity_table(shown: Shown) -> pd.DataFrame:
    """Return how selective channels are, and how many are above chance, per network and layer, as text."""
    rows = []
    for network in shown.networks:
        for layer, tuning in shown.tuning[network.name].items():
            row = {
                "network": network.title,
                "layer": network.layer_title(layer),
                "respond": f"{int(tuning.responds.sum())} of {len(tuning.blank)}",
                "median OSI (95 % interval)": stats.median(tuning.selectivity).brief(".2f"),
                "simple": int((tuning.modulation > 1).sum()),
            }
            for kind in shown.controls[network.name][layer]:
                edge, above, excess = _beyond(shown, network.name, layer, kind)
                row[f"above {kind}"] = f"{above} of {excess.n} (> {edge:.2f})" if excess.n else "–"
            rows.append(row)
    return pd.DataFrame(rows).set_index(["network", "layer"])


def verdicts(found: Mapping[str, Interval], more: str, fewer: str, form: str = "+.0%") -> str:
    """Return intervals by the title of a layer, each with what `rfviz.stats.judge` says of it."""
    words = {AGREES: more, DISAGREES: fewer, CANNOT_TELL: "undecided"}
    return "; ".join(f"{title} {interval:{form}}, {words[judge(interval)]}" for title, interval in found.items())


def selectivity_answer(shown: Shown) -> Markdown:
    """Say in which layers more channels are selective than chance would give."""
    lines = [
        f"**Answer.** The share of channels above the {NULL}th percentile of the control, minus the {100 - NULL} % "
        "expected by chance:\n"
    ]
    for network in shown.networks:
        for kind in CONTROLS:
            found = {
                network.layer_title(layer): _beyond(shown, network.name, layer, kind).excess
                for layer in shown.tuning[network.name]
            }
            lines.append(f"- {network.title}, {kind}: {verdicts(found, 'more than chance', 'fewer than chance')}.")
    return Markdown("\n".join(lines))


def gabor_table(shown: Shown) -> pd.DataFrame:
    """Return how well Gabors fit the first filters, per network and kind of weights, as text."""
    rows = []
    for network in shown.networks:
        for weights, found in shown.gabors[network.name].items():
            there = [each for each in found if each is not None]
            goodness = [each.goodness for each in there]
            rows.append(
                {
                    "network": network.title,
                    "weights": weights,
                    "filters": len(found),
                    "R² of the fit: median": f"{stats.median(goodness):.2f}",
                    "with R² > 0.8": f"{sum(each > 0.8 for each in goodness)}",
                    "energy in one colour axis: median": f"{stats.median([each.profile for each in there]):.0%}",
                }
            )
    return pd.DataFrame(rows).set_index(["network", "weights"])
