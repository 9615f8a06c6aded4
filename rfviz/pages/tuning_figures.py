"""Figures of tuning for orientation and colour: a row per network, a column per layer."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from rfviz.kernels.tuning import ColourTuning, Tuning
from rfviz.nets.models import PAPER_ARCHITECTURES
from rfviz.pages.figures import BLUE, GREY, MODEL_COLOURS, RED, BookFigure, layer_title

AXIS_COLOURS = {"luminance": "black", "L-M": RED, "S": BLUE}
AXIS_STYLES = {"luminance": "-", "L-M": "--", "S": ":"}
AXIS_NAMES = {"luminance": "light and dark", "L-M": "L-M (reddish and greenish)", "S": "S (bluish and yellowish)"}
CONTROL_STYLES = {"random weights": "--", "shuffled filters": ":"}


class Panels:
    """A figure with a panel for every network and layer; it gives each, with network, layer and what was measured."""

    def __init__(
        self, measured: Mapping[str, Mapping[str, Any]], height: float, sharex: bool = False, sharey: bool = False
    ):
        self.measured, self.figure = measured, BookFigure(height)
        columns = max(len(layers) for layers in measured.values())
        self.grid = self.figure.subplots(len(measured), columns, squeeze=False, sharex=sharex, sharey=sharey)

    def __iter__(self) -> Iterator[tuple[Axes, str, str, Any]]:
        for row, (model, layers) in zip(self.grid, self.measured.items(), strict=True):
            for ax, (layer, found) in zip(row, layers.items(), strict=True):
                ax.set_title(f"{PAPER_ARCHITECTURES[model]}, {layer_title(layer)}", fontsize=8)
                ax.spines[["top", "right"]].set_visible(False)
                yield ax, model, layer, found

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
    measured: Mapping[str, Mapping[str, Any]],
    controls: Mapping[str, Mapping[str, Any]],
    channels: Mapping[str, int],
    curve: Callable[[Any], tuple[Sequence[float], Tensor]],
    said: Callable[[Any, int], str],
) -> Panels:
    """Draw a curve over 180 degrees of one channel of each network, over its largest value, a control's in grey.

    Parameters
    ----------
    measured, controls : dict from architecture and layer to what `curve` takes
    channels : dict from architecture to int
    curve : callable
        Returns the angles in degrees `(A,)` and the responses `(C, A)`.
    said : callable
        Says in a few words what was measured of a channel.
    """
    panels = Panels(measured, 4.6, sharex=True)
    for ax, model, layer, found in panels:
        channel = channels[model]
        for shown, colour, style, name in (
            (controls[model][layer], GREY, "--", "random weights"),
            (found, MODEL_COLOURS[model], "-", "trained"),
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


def orientation_curves(
    measured: Mapping[str, Mapping[str, Tuning]],
    controls: Mapping[str, Mapping[str, Tuning]],
    channels: Mapping[str, int],
) -> Figure:
    """Draw Fig. S7: the orientation tuning of one channel of each network, with that of a control in grey."""

    def said(found: Tuning, channel: int) -> str:
        index = found.selectivity[channel]
        return f"OSI {index:.2f}" if index.isfinite() else "no response"

    panels = curves_and_control(
        measured, controls, channels, lambda found: (found.gratings.orientations, found.orientation_curve), said
    )
    return panels.finished("orientation of the bars (°)", "response / largest")


def selectivity_distributions(
    measured: Mapping[str, Mapping[str, Tuning]], controls: Mapping[str, Mapping[str, Mapping[str, Sequence[Tuning]]]]
) -> Figure:
    """Draw Fig. S8: the share of channels up to each selectivity, trained and in the controls."""
    panels = Panels(measured, 4.4, sharex=True, sharey=True)
    for ax, model, layer, tuning in panels:
        groups = [("trained", [tuning], "-", MODEL_COLOURS[model])]
        groups += [(kind, list(nets), CONTROL_STYLES[kind], GREY) for kind, nets in controls[model][layer].items()]
        for name, nets, style, colour in groups:
            values = torch.cat([each.selectivity for each in nets])
            values = values[values.isfinite()].sort().values
            if len(values):
                share = torch.arange(1, len(values) + 1) / len(values) * 100
                ax.step(values.numpy(), share.numpy(), style, where="post", color=colour, label=name)
        ax.set(xlim=(0, 1), ylim=(0, 102))
    return panels.finished("orientation selectivity index", "channels up to it (%)")


def colour_curves(measured: Mapping[str, Mapping[str, ColourTuning]], channels: Mapping[str, int]) -> Figure:
    """Draw Fig. S9: responses of one channel of each network to grey and to equiluminant gratings, by frequency."""
    panels = Panels(measured, 4.6)
    for ax, model, _, tuning in panels:
        channel = channels[model]
        for axis, each in tuning.along.items():
            curve = each.frequency_curve[channel].tolist()
            ax.plot(
                range(len(curve)), curve, AXIS_STYLES[axis], color=AXIS_COLOURS[axis], marker="o", markersize=3,
                label=AXIS_NAMES[axis],
            )  # fmt: skip
        gratings = tuning.along["luminance"].gratings
        cycles = [f"{frequency * gratings.size:.2g}" for frequency in gratings.frequencies]
        ax.set_xticks(range(len(cycles)), cycles, fontsize=7)
        ax.set_title(f"{ax.get_title()}\nchannel {channel}: {tuning.classes[channel]}", fontsize=8)
        ax.set_ylim(bottom=0)
    return panels.finished("cycles per receptive field", "response (F0 or F1)")
