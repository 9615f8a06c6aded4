"""Figures of higher layers: what matters in a stimulus, and which pictures work as stimuli."""

from collections.abc import Mapping

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from scipy import ndimage
from torch import Tensor

from rfviz.images.data import Indexed
from rfviz.kernels.effective_field import EffectiveFields, core
from rfviz.kernels.identification import CHANCE, KINDS
from rfviz.nets.models import PAPER_ARCHITECTURES
from rfviz.pages.figures import BLUE, GREEN, GREY, NO_IMAGE, ORANGE, RED, BookFigure, layer_title
from rfviz.pages.figures import _show as show_image
from rfviz.pages.higher_layer_tables import Scores, mean_and_interval

SMOOTHING = 1 / 48
"""Standard deviation of the Gaussian that smooths the weights for display, over the shorter side of the picture."""

FULL = 99
"""Percentile of the smoothed weights from which on a picture is not dimmed."""

DIMMED = 0.5
"""Grey level that what does not matter is dimmed to."""

KIND_STYLES = dict(zip(KINDS, ((ORANGE, "o"), (GREEN, "s"), (BLUE, "^")), strict=True))
"""Colour and marker of each kind of picture."""


def smoothed(weights: Tensor) -> Tensor:
    """Return weights `(H, W)` smoothed for display, in float64."""
    sigma = SMOOTHING * min(weights.shape)
    return torch.from_numpy(ndimage.gaussian_filter(weights.double().numpy(), sigma, mode="constant"))


def opacity(weights: Tensor) -> Tensor:
    """Return how much of each pixel to show: smoothed weights over their 99th percentile, `(H, W)` in [0, 1]."""
    soft = smoothed(weights)
    full = np.percentile(soft.numpy(), FULL)
    return (soft / full).clamp(0, 1) if full > 0 else torch.zeros_like(soft)


def what_matters(
    images: Tensor | Indexed,
    fields: Mapping[str, EffectiveFields],
    controls: Mapping[str, EffectiveFields],
    columns: int = 4,
) -> Figure:
    """Draw Figs. S19 and S20: the strongest stimulus of some channels, and what in it the neuron depends on.

    A row of groups per layer, a group per channel. In a group: the image, the same with what does not matter dimmed
    towards grey, the weights alone, and those of the control. The contour is around the `core` of the smoothed weights,
    the cross at the centre of the theoretical field.

    Parameters
    ----------
    images : Tensor (N, 3, H, W) or data set
        The stimuli.
    fields, controls : dict from layer to EffectiveFields
        Of a network and of its control, of the same neurons on the same images.
    columns : int
        Channels that are shown of each layer, evenly spread.
    """
    figure = BookFigure(1.95 * len(fields))
    for number, (band, (layer, found)) in enumerate(
        zip(figure.subfigures(len(fields), 1, squeeze=False)[:, 0], fields.items(), strict=True)
    ):
        size = found.receptive_field.size
        band.suptitle(f"({'abcdefgh'[number]}) {layer_title(layer)}, field of {size} × {size} px", fontsize=8)
        channels = found.channels.tolist()
        first = [channels.index(channel) for channel in dict.fromkeys(channels)]
        shown = min(columns, len(first))
        first = [first[i * len(first) // shown] for i in range(shown)]
        for group, index in zip(
            band.subfigures(1, columns, squeeze=False)[0], [*first, *[None] * columns], strict=False
        ):
            grid = group.subplots(2, 2)
            if index is None:
                for ax in grid.flat:
                    ax.axis("off")
                continue
            _group(grid, images, found, controls[layer], index)
            group.supylabel(f"channel {channels[index]}", fontsize=7)
    return figure


def _group(
    grid: np.ndarray, images: Tensor | Indexed, found: EffectiveFields, control: EffectiveFields, index: int
) -> None:
    item = images[int(found.images[index])]
    image = item[0] if isinstance(item, (tuple, list)) else item
    weights, random = (_window(each, index, each.maps[index]) for each in (found, control))
    picture, inside = _window(found, index, image), _window(found, index, torch.ones_like(image[:1]))[0] > 0
    alpha = opacity(weights)
    show_image(grid[0, 0], picture, inside)
    show_image(grid[0, 1], torch.where(inside, DIMMED + alpha * (picture - DIMMED), torch.tensor(NO_IMAGE)))
    for ax, each in ((grid[1, 0], weights), (grid[1, 1], random)):
        show_image(ax, opacity(each).expand(3, -1, -1))
        _outline(ax, each)
    _outline(grid[0, 1], weights)
    y, x = _centre(found, index)
    for ax in grid.flat[1:]:
        ax.plot(x, y, "+", color=BLUE, markersize=5, markeredgewidth=1)
    for ax, name in zip(grid.flat, ("stimulus", "what matters", "gradient", "random weights"), strict=True):
        ax.set_xlabel(name, fontsize=6, labelpad=1.5)


def _window(found: EffectiveFields, index: int, picture: Tensor) -> Tensor:
    """Cut the field of a neuron out of a picture `(..., H, W)`; where it exceeds the picture, take that whole."""
    height, width = found.sizes[index].tolist()
    picture = picture[..., :height, :width]
    if found.receptive_field.size > min(height, width):
        return picture
    return found.receptive_field.crop(picture, *found.positions[index].tolist())[0]


def _centre(found: EffectiveFields, index: int) -> tuple[float, float]:
    """Return row and column of a neuron's centre in its `_window`."""
    if found.receptive_field.size > found.sizes[index].min():
        y, x = found.centres[index].tolist()
        return y, x
    middle = (found.receptive_field.size - 1) / 2
    return middle, middle


def _outline(ax: Axes, weights: Tensor) -> None:
    soft = smoothed(weights)
    held = core(soft[None])[0]
    if held.any():
        ax.contour(soft.numpy(), [soft[held].min().item()], colors=[RED], linewidths=0.8)


def identification_by_layer(scores: Scores) -> Figure:
    """Draw Fig. S21: how often a channel's own picture beats those of others, per layer, for three kinds of pictures.

    Points are means over channels, bars their 95 % intervals; the dashed line is chance.
    """
    figure = BookFigure(3.0)
    panels = figure.subplots(1, len(scores), sharey=True, squeeze=False)[0]
    for letter, ax, (model, layers) in zip("abcdefgh", panels, scores.items(), strict=False):
        for shift, kind in zip((-0.15, 0, 0.15), KINDS, strict=True):
            colour, marker = KIND_STYLES[kind]
            middle, low, high = np.array([mean_and_interval(kinds[kind]) for kinds in layers.values()]).T
            places = np.arange(len(layers)) + shift
            ax.vlines(places, low, high, color=colour, linewidth=1.5)
            ax.plot(places, middle, marker, color=colour, markersize=5, label=kind)
        ax.axhline(CHANCE, color=GREY, linewidth=1, linestyle="--", label="chance")
        ax.set_title(f"({letter}) {PAPER_ARCHITECTURES[model]}", fontsize=8)
        names = [layer_title(layer).replace("first pooling layer", "pooling").replace("layer ", "") for layer in layers]
        ax.set_xticks(range(len(layers)), names, fontsize=8)
        ax.set_xlim(-0.5, len(layers) - 0.5)
        ax.spines[["top", "right"]].set_visible(False)
    panels[0].set_ylim(0, 1.04)
    panels[0].set_ylabel("share of other channels' pictures\nthat drive the channel less", fontsize=8)
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=len(labels), fontsize=8, frameon=False)
    return figure
