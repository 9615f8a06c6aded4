"""The figures of the paper and our own, one function each; they draw results and compute none.

Colours are those of Okabe and Ito, which people with any colour vision can tell apart. Images are RGB in [0, 1].
"""

import io
from collections.abc import Mapping, Sequence

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure, SubFigure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.patches import Rectangle
from matplotlib.ticker import MaxNLocator
from torch import Tensor, nn

from rfviz.images import photographs
from rfviz.images.data import Indexed, Labelled
from rfviz.images.whitening import Whitening
from rfviz.kernels.maximization import Maximization
from rfviz.kernels.responses import LayerResponses
from rfviz.kernels.responses import preferred_stimuli as cut_stimuli
from rfviz.kernels.similarity import Pairing, centred
from rfviz.nets import models, receptive_field
from rfviz.nets.models import PAPER_ARCHITECTURES, PAPER_NAMES

BLUE, ORANGE, GREEN, RED, GREY = "#0072B2", "#E69F00", "#009E73", "#D55E00", "#767676"
MODEL_COLOURS = {"resnet34": BLUE, "plainnet34": RED}
FRAME = "#AAAAAA"
"""Colour of the thin frame around an image, which may be as white as the paper."""

NO_IMAGE = 0.85
"""Grey level that stands for pixels outside the image."""

FLAT = 1e-6
"""Contrast below which an image counts as flat: rounding, far less than a step of an 8-bit screen."""

WIDTH = 7.2
"""Width of every figure, inches."""


class BookFigure(Figure):
    """A matplotlib figure that notebooks show as it is, without pyplot and its global state."""

    def __init__(self, height: float):
        layout = ConstrainedLayoutEngine(w_pad=0.02, h_pad=0.02, wspace=0.01, hspace=0.01)
        super().__init__(figsize=(WIDTH, height), layout=layout)
        FigureCanvasAgg(self)

    def _repr_png_(self) -> bytes:
        buffer = io.BytesIO()
        self.savefig(buffer, format="png", dpi=160, facecolor="white")
        return buffer.getvalue()


def layer_title(layer: str) -> str:
    """Return the paper's name of a layer, or the name itself where the paper has none."""
    return PAPER_NAMES.get(layer, layer)


def stretch(image: Tensor) -> tuple[Tensor, float]:
    """Make a nearly flat mean visible: minus its mean colour, times one gain for all colours, plus middle grey.

    Returns
    -------
    stretched : Tensor, shape (3, H, W)
        RGB in [0, 1].
    gain : float
        1 means unchanged contrast; 0 where the image is flat.
    """
    centred = image - image.mean(dim=(1, 2), keepdim=True)
    largest = centred.abs().max().item()
    gain = 0.5 / largest if largest > FLAT else 0.0
    return (0.5 + gain * centred).clamp(0, 1), gain


def min_max(image: Tensor) -> Tensor:
    """Scale an image `(3, H, W)` to [0, 1], all colours together."""
    low, high = image.min(), image.max()
    return (image - low) / (high - low) if high > low else torch.full_like(image, 0.5)


def _show(
    axes: Axes,
    image: Tensor | None,
    inside: Tensor | None = None,
    extent: tuple[float, float, float, float] | None = None,
) -> None:
    axes.set_xticks([])
    axes.set_yticks([])
    for spine in axes.spines.values():
        spine.set_visible(False)
    if image is None:
        return
    if inside is not None:
        image = torch.where(inside, image, torch.tensor(NO_IMAGE))
    if extent is None:
        axes.spines[:].set(visible=True, color=FRAME, linewidth=0.5)
    else:
        left, right, bottom, top = extent
        axes.add_patch(Rectangle((left, top), right - left, bottom - top, fill=False, edgecolor=FRAME, linewidth=0.5))
    axes.imshow(image.permute(1, 2, 0).clamp(0, 1).numpy(), interpolation="nearest", extent=extent)


def receptive_field_overview() -> Figure:
    """Draw Fig. 1: which pixels and neurons feed a neuron of the first and of the second of two convolutions."""
    net = nn.Sequential()
    net.add_module("map1", nn.Conv2d(3, 3, 3))
    net.add_module("map2", nn.Conv2d(3, 3, 3))
    first, second = receptive_field.of(net, "map1"), receptive_field.of(net, "map2")
    between = receptive_field.of(net[1:], "map2")  # the field of map 2 in map 1
    blue, red = (0, 4), (2, 0)
    side = 8
    figure = BookFigure(2.6)
    axes = figure.subplots(1, 3)
    grids = {
        "Input": (side, [(first.box(*blue), BLUE, "-"), (second.box(*red), RED, "--")], {}),
        "Feature map 1": (side - 2, [(between.box(*red), RED, "--")], {blue: BLUE}),
        "Feature map 2": (side - 4, [], {red: RED}),
    }
    for ax, (name, (cells, frames, filled)) in zip(axes, grids.items(), strict=True):
        for y in range(cells):
            for x in range(cells):
                colour = filled.get((y, x), "white")
                ax.add_patch(Rectangle((x, y), 1, 1, facecolor=colour, edgecolor="black", linewidth=0.7))
        for (top, left, bottom, right), colour, style in frames:
            ax.add_patch(
                Rectangle((left, top), right - left, bottom - top, fill=False, ec=colour, lw=3, ls=style, zorder=3)
            )
        margin = (side - cells) / 2 + 0.2  # the same scale in all three
        ax.set(xlim=(-margin, cells + margin), ylim=(cells + margin, -margin), aspect="equal")
        ax.set_title(f"{name}\n{cells} × {cells}", fontsize=9)
        ax.axis("off")
    return figure


def receptive_fields_to_scale(side: int = 224) -> Figure:
    """Draw Fig. S1: the fields of the centre neurons of ResNet34's layers, to scale on a photograph."""
    net = models.resnet34(width=1, num_classes=2)
    photograph = photographs.photograph("chelsea")[:, 30 : 30 + side, 40 : 40 + side] / 255
    table = {row.name: row.receptive_field for row in models.layers(net)}
    figure = BookFigure(4.4)
    panels = (
        ("inside the image", ["conv1", "maxpool", "layer1.0", "layer1.2", "layer2.3"]),
        ("larger than the image", ["layer2.3", "layer3.0", "layer3.5", "layer4.2"]),
    )
    colours = {
        "conv1": BLUE, "maxpool": ORANGE, "layer1.0": GREEN, "layer1.2": RED, "layer2.3": "#CC79A7",
        "layer3.0": "#56B4E9", "layer3.5": "#F0E442", "layer4.2": "black",
    }  # fmt: skip
    for panel, (name, layers) in zip(figure.subfigures(1, 2, squeeze=False)[0], panels, strict=True):
        ax = panel.subplots()
        ax.imshow(photograph.permute(1, 2, 0).numpy(), extent=(0, side, side, 0))
        for layer in layers:
            field, colour = table[layer], colours[layer]
            centre = (side // field.stride) // 2
            top, left, _, _ = field.box(centre, centre)
            ax.add_patch(
                Rectangle(
                    (left, top), field.size, field.size, fill=False, edgecolor=colour, linewidth=2,
                    label=f"{layer}: {field.size} px",
                )
            )  # fmt: skip
        ax.set(xlabel="column (px)", ylabel="row (px)")
        panel.suptitle(name, fontsize=9)
        ax.autoscale_view()
        ax.set_aspect("equal")
        panel.legend(loc="outside lower center", fontsize=7, ncols=2, frameon=False)
    return figure


def example_images(images: Labelled, classes: Sequence[str], columns: int = 7) -> Figure:
    """Draw one example image of each class."""
    first_of: dict[int, int] = {}
    for index, label in enumerate(images.labels):
        first_of.setdefault(label, index)
    shown = [first_of[label] for label in sorted(first_of)][: 4 * columns]
    rows = -(-len(shown) // columns)
    figure = BookFigure(1.25 * rows)
    for ax in (grid := figure.subplots(rows, columns, squeeze=False)).flat:
        _show(ax, None)
    for ax, index in zip(grid.flat, shown, strict=False):
        image, label = images[index]
        _show(ax, image)
        ax.set_title(classes[label].replace("_", " "), fontsize=6.5, parse_math=False)
    return figure


def training_curves(histories: Mapping[str, Sequence[Sequence[Mapping]]], chance: float) -> Figure:
    """Draw Fig. S3: loss and top-1 accuracy of training and held-out images, epoch by epoch.

    Several histories of an architecture, one per seed, are drawn as their mean and the range from least to largest.
    """
    figure = BookFigure(2.9)
    panels = figure.subplots(1, 2)
    for ax, (what, unit, scale) in zip(panels, (("loss", "nats", 1), ("top1", "%", 100)), strict=True):
        for architecture, replicas in histories.items():
            epochs = [entry["epoch"] for entry in replicas[0]]
            for part, style in ((what if what == "loss" else "train_top1", "--"), (f"evaluation_{what}", "-")):
                values = scale * np.array([[entry[part] for entry in history] for history in replicas])
                ax.plot(
                    epochs, values.mean(0), style, color=MODEL_COLOURS[architecture],
                    label=f"{PAPER_ARCHITECTURES[architecture]}, {'training' if style == '--' else 'held-out'}",
                )  # fmt: skip
                if len(replicas) > 1:
                    ax.fill_between(
                        epochs, values.min(0), values.max(0), color=MODEL_COLOURS[architecture], alpha=0.2, linewidth=0
                    )
        ax.set(xlabel="epoch", ylabel=f"{'cross-entropy' if what == 'loss' else 'top-1 accuracy'} ({unit})")
        ax.xaxis.set_major_locator(MaxNLocator(integer=True))
        ax.spines[["top", "right"]].set_visible(False)
    panels[0].set_yscale("log")
    panels[1].axhline(100 * chance, color=GREY, linewidth=1, linestyle=":", label="chance")
    panels[1].set_ylim(0, 100)
    figure.legend(
        *panels[1].get_legend_handles_labels(), loc="outside lower center", ncols=3, fontsize=8, frameon=False
    )
    return figure


def preferred_stimuli(
    images: Tensor | Indexed, responses: Mapping[str, LayerResponses], channel: int, columns: int = 4
) -> Figure:
    """Draw Figs. 2 and 4: for each layer, the receptive fields of the strongest neurons of a channel.

    Pixels outside the image are grey. Only neurons with response > 0 are shown.
    """
    figure = BookFigure(2.95)
    for letter, panel, (layer, result) in zip(
        "abcdefgh", figure.subfigures(1, len(responses), squeeze=False)[0], responses.items(), strict=False
    ):
        _stimulus_panel(panel, images, result, channel, columns)
        values = [value for value in result.top_values[channel].tolist() if value > 0]
        spread = f"responses {values[0]:.2f} to {values[-1]:.2f}" if values else "never fires"
        size = result.receptive_field.size
        panel.suptitle(f"({letter}) {layer_title(layer)}\n{size} × {size} px, {spread}", fontsize=8)
    return figure


def _stimulus_panel(
    panel: Figure | SubFigure, images: Tensor | Indexed, result: LayerResponses, channel: int, columns: int
) -> None:
    patches, inside = cut_stimuli(images, result, channel)
    firing = int((result.top_values[channel] > 0).sum())
    rows = -(-result.top_values.shape[1] // columns)
    axes = panel.subplots()
    for i in range(firing):
        # One image beside the other in the same axes: a hair's breadth apart, however many there are.
        y, x = divmod(i, columns)
        _show(axes, patches[i], inside[i], extent=(x + 0.03, x + 0.97, y + 0.97, y + 0.03))
    _show(axes, None)
    axes.set(xlim=(-0.1, columns + 0.1), ylim=(rows, 0), aspect="equal")


def mean_stimuli(filters: Tensor, responses: Mapping[str, LayerResponses], channel: int, strongest: int) -> Figure:
    """Draw Figs. 3 and 5: the first convolution filter of a channel and its mean preferred stimuli.

    Parameters
    ----------
    filters : Tensor, shape (C, 3, 7, 7)
        Weights of the first convolution.
    responses : dict from layer to LayerResponses
    channel : int
    strongest : int
        Number of neurons that were asked for in the mean over the strongest.
    """
    columns = 1 + len(responses)
    figure = BookFigure(5.4)
    grid = figure.subplots(3, columns)
    for ax in grid.flat:
        _show(ax, None)
    side = filters.shape[-1]
    _show(grid[0, 0], min_max(filters[channel].detach().cpu()))
    grid[0, 0].set_title(f"(a) {layer_title('conv1')}\n{side} × {side} px", fontsize=8)
    rows = ("mean,\nas it is", "mean,\nstretched", f"mean of up to\n{strongest} strongest,\nstretched")
    for ax, name in zip(grid[:, 0], rows, strict=True):
        ax.set_ylabel(name, fontsize=8, rotation=0, ha="right", va="center")
    for column, (letter, (layer, result)) in enumerate(zip("bcdefgh", responses.items(), strict=False), start=1):
        size = result.receptive_field.size
        grid[0, column].set_title(f"({letter}) {layer_title(layer)}\n{size} × {size} px", fontsize=8)
        if not result.positive_count[channel]:
            grid[0, column].set_xlabel("never fires", fontsize=7)
            continue
        assert result.mean_stimulus is not None and result.strongest_stimulus is not None
        mean, strong = result.mean_stimulus[channel], result.strongest_stimulus[channel]
        _show(grid[0, column], mean)
        grid[0, column].set_xlabel(f"N = {int(result.positive_count[channel]):,}", fontsize=7)
        for row, image in ((1, mean), (2, strong)):
            stretched, gain = stretch(image)
            _show(grid[row, column], stretched)
            grid[row, column].set_xlabel(f"gain {gain:.1f}", fontsize=7)
    return figure


def maximization(results: Mapping[str, Maximization], channel: int, whitening: Whitening, colour: str = BLUE) -> Figure:
    """Draw Fig. 6: for each layer, the image that activation maximization finds, and how the activation rises."""
    figure = BookFigure(4.1)
    grid = figure.subplots(2, len(results), height_ratios=[1.5, 1], squeeze=False)
    for letter, column, (layer, result) in zip("abcdefgh", grid.T, results.items(), strict=False):
        image, curve = whitening.to_rgb(result.images[channel]), result.activations[:, channel]
        _show(column[0], image)
        column[0].set_title(f"({letter}) {layer_title(layer)}\n{image.shape[-1]} × {image.shape[-1]} px", fontsize=8)
        column[1].plot(curve.numpy(), color=colour)
        column[1].axhline(0, color=GREY, linewidth=0.8, linestyle=":")
        column[1].set_xlabel("step")
        column[1].spines[["top", "right"]].set_visible(False)
    grid[1, 0].set_ylabel("activation\nbefore the ReLU")
    return figure


def firing_rates(responses: Mapping[str, Sequence[LayerResponses]]) -> Figure:
    """Draw Fig. S5: the share of neurons of each channel that fire, sorted; channels that never fire are crosses.

    Several networks of an architecture, one per seed, are drawn one over the other; only the first has markers.
    """
    figure = BookFigure(2.9)
    ax = figure.subplots()
    for architecture, replicas in responses.items():
        colour, name = MODEL_COLOURS[architecture], PAPER_ARCHITECTURES[architecture]
        crossed = False
        for i, result in enumerate(replicas):
            rate = 100 * result.firing_rate.sort(descending=True).values
            marker = ("o" if architecture == "resnet34" else "s") if i == 0 else None
            ax.plot(
                np.arange(len(rate)), rate.numpy(), marker=marker, markersize=4, color=colour,
                linewidth=1.5 if i == 0 else 0.8, alpha=1 if i == 0 else 0.6, label=name if i == 0 else None,
            )  # fmt: skip
            silent = (rate == 0).nonzero().flatten().numpy()
            if len(silent):
                label = None if crossed else f"{name}: never fires"
                ax.plot(silent, np.zeros(len(silent)), "x", color=colour, label=label)
                crossed = True
    ax.set(xlabel="channel, sorted", ylabel="neurons that fire (%)", ylim=(-3, 103))
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    ax.spines[["top", "right"]].set_visible(False)
    ax.legend(frameon=False, fontsize=8)
    return figure


def poster(
    images: Tensor | Indexed, result: LayerResponses, maxima: Maximization, whitening: Whitening, channels: int = 6
) -> BookFigure:
    """Draw Fig. S6: some channels of a layer, each with its strongest stimulus, its mean and its maximization image.

    Shown are the `channels` channels whose mean over the strongest neurons has the highest contrast, in their order.
    """
    assert result.strongest_stimulus is not None
    contrast = centred(result.strongest_stimulus).abs().amax((1, 2, 3))
    chosen = contrast.topk(min(channels, result.channels)).indices.sort().values.tolist()
    figure = BookFigure(3.78)  # the proportions of a preview in social media
    grid = figure.subplots(3, len(chosen), squeeze=False)
    rows = ("what drives\nit most", "mean of\nits stimuli", "what it would\ndraw")
    for ax, name in zip(grid[:, 0], rows, strict=True):
        ax.set_ylabel(name, fontsize=9, rotation=0, ha="right", va="center")
    for column, channel in zip(grid.T, chosen, strict=True):
        column[0].set_title(f"channel {channel}", fontsize=8)
        fires = bool(result.positive_count[channel])
        patch, inside = (part[0] for part in cut_stimuli(images, result, channel))
        _show(column[0], patch if fires else None, inside)
        _show(column[1], stretch(result.strongest_stimulus[channel])[0] if fires else None)
        _show(column[2], whitening.to_rgb(maxima.images[channel]))
    return figure


def channel_pairings(pairings: Mapping[str, Mapping[tuple[str, str], Pairing]]) -> Figure:
    """Draw Fig. S10: how alike channels of the same number are in two layers, beside random pairings.

    Parameters
    ----------
    pairings : dict from architecture and pair of layers to Pairing
        With the same pairs for every architecture.
    """
    figure = BookFigure(3.2)
    ax = figure.subplots()
    pairs = list(next(iter(pairings.values())))
    for i, (model, found) in enumerate(pairings.items()):
        colour, shift = MODEL_COLOURS[model], 0.36 * i - 0.18
        for x, pair in enumerate(pairs):
            each = found[pair]
            if not len(each.same):
                continue
            low, high = np.percentile(each.by_chance.numpy(), [2.5, 97.5])
            ax.plot([x + shift, x + shift], [low, high], color=GREY, linewidth=7, solid_capstyle="butt", alpha=0.5)
            ax.plot(
                x + shift, each.same.mean().item(), "os"[i % 2], color=colour,
                label=PAPER_ARCHITECTURES[model] if x == 0 else None,
            )  # fmt: skip
    ax.plot([], [], color=GREY, linewidth=7, alpha=0.5, label="95 % of random pairings")
    ax.axhline(0, color=GREY, linewidth=0.8, linestyle=":")
    names = {
        "conv1": "filter",
        "maxpool": "pooling",
        "layer1.0": "conv. 3",
        "layer1.1": "conv. 5",
        "layer1.2": "conv. 7",
    }
    ax.set_xticks(range(len(pairs)), [f"{names[a]}\n{names[b]}" for a, b in pairs], fontsize=8)
    ax.set_ylabel("mean correlation of channels\nof the same number", fontsize=8)
    ax.spines[["top", "right"]].set_visible(False)
    ax.legend(frameon=False, fontsize=8)
    return figure


def sparsity_profile(shares: Mapping[str, Mapping[str, float]]) -> Figure:
    """Draw Fig. S11: the share of zeros after every ReLU; open marks are those inside a block.

    Parameters
    ----------
    shares : dict from architecture and ReLU to share in [0, 1]
        See `rfviz.lab.runs.Run.sparsity`.
    """
    figure = BookFigure(3.0)
    ax = figure.subplots()
    for i, (model, profile) in enumerate(shares.items()):
        values, colour = 100 * np.array(list(profile.values())), MODEL_COLOURS[model]
        inner = np.array([name.endswith("relu1") for name in profile])
        places = np.arange(len(values))
        ax.plot(places, values, color=colour, linewidth=1, label=PAPER_ARCHITECTURES[model])
        ax.plot(places[~inner], values[~inner], "os"[i % 2], color=colour, markersize=4)
        ax.plot(places[inner], values[inner], "os"[i % 2], color=colour, markersize=4, markerfacecolor="white")
    ax.set(xlabel="ReLU, from the stem to the last block", ylabel="responses that are 0 (%)", ylim=(0, 100))
    ax.spines[["top", "right"]].set_visible(False)
    ax.legend(frameon=False, fontsize=8)
    return figure
