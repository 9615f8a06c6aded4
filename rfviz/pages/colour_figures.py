"""Figures of colour: tuning for hue, and how the colours of a picture change from its centre to its edge."""

from collections.abc import Mapping

import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from rfviz.kernels.tuning.centre_surround import Opponency
from rfviz.kernels.tuning.hue import HueTuning
from rfviz.kernels.tuning.opponent import AXES
from rfviz.nets.models import PAPER_ARCHITECTURES
from rfviz.pages.figures import GREY, BookFigure, layer_title
from rfviz.pages.tuning_figures import AXIS_COLOURS, AXIS_NAMES, AXIS_STYLES, curves_and_control


def hue_curves(
    measured: Mapping[str, Mapping[str, HueTuning]],
    controls: Mapping[str, Mapping[str, HueTuning]],
    channels: Mapping[str, int],
) -> Figure:
    """Draw Fig. S15: the tuning for hue of one channel of each network, with that of a control in grey."""

    def said(found: HueTuning, channel: int) -> str:
        axis, hue = found.preferred_axis[channel], found.preferred_hue[channel]
        return (f"axis {axis:.0f}°" if axis.isfinite() else "no response") + (
            f", hue {hue:.0f}°" if hue.isfinite() else ""
        )

    panels = curves_and_control(measured, controls, channels, lambda found: (found.angles, found.axis_curve), said)
    for ax in panels.grid.flat:
        ax.set_xticks([0, 45, 90, 135, 180], ["0\nL-M", "45", "90\nS", "135", "180\nL-M"], fontsize=8)
    return panels.finished("axis of colour (°)", "response / largest")


def radial_profiles(
    structure: Mapping[str, Mapping[str, Mapping[str, Opponency]]], channels: Mapping[str, int]
) -> Figure:
    """Draw Fig. S16: how pictures of one channel of each network differ from the background, from centre to edge.

    Parameters
    ----------
    structure : dict from architecture, layer and kind of picture to Opponency
        With the same layers and kinds for every architecture.
    channels : dict from architecture to int
    """
    layers = list(next(iter(structure.values())))
    kinds = list(next(iter(structure.values()))[layers[0]])
    rows = [(model, kind) for model in structure for kind in kinds]
    figure = BookFigure(1.5 * len(rows) + 0.6)
    grid = figure.subplots(len(rows), len(layers), squeeze=False, sharex="col", sharey=True)
    for axes, (model, kind) in zip(grid, rows, strict=True):
        axes[0].set_ylabel(f"{PAPER_ARCHITECTURES[model]}, channel {channels[model]}\n{kind}", fontsize=8)
        for ax, layer in zip(axes, layers, strict=True):
            _profile(ax, structure[model][layer][kind], channels[model])
    for top, bottom, layer in zip(grid[0], grid[-1], layers, strict=True):
        top.set_title(f"{layer_title(layer)}\n{top.get_title()}", fontsize=8)
        bottom.set_xlabel("distance from the centre (px)", fontsize=8)
    figure.legend(
        *grid[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=len(AXES), fontsize=8, frameon=False
    )
    return figure


def _profile(ax: Axes, found: Opponency, channel: int) -> None:
    """Draw one picture: luminance over its largest value, the two colours over the larger of theirs."""
    profile = found.profiles[channel]
    scale = torch.stack([profile[part].abs().max() for part in (slice(0, 1), slice(1, 3), slice(1, 3))])
    there = bool(profile.isfinite().all())
    for axis, values, largest in zip(AXES, profile, scale, strict=True):
        ax.plot(
            found.distances.numpy(), (values / largest if largest > 0 else values).numpy(), AXIS_STYLES[axis],
            color=AXIS_COLOURS[axis], label=AXIS_NAMES[axis],
        )  # fmt: skip
    ax.axhline(0, color=GREY, linewidth=0.8)
    ax.set_title(
        f"index {found.index[channel]:.2f}, p = {found.p[channel]:.2g}" if there else "never fires", fontsize=8
    )
    ax.set(ylim=(-1.1, 1.1))
    ax.spines[["top", "right"]].set_visible(False)
