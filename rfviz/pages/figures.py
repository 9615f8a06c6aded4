"""Figures of the channels of any network, from what the kernels found of it; those of the book are drawn with these.

`found` is a mapping from what stands above a picture, such as the name of a layer, to what was measured there. Any
channels will do, and as many layers as one likes: four stand in a row, titles are broken where they would touch.
"""

import re
from collections.abc import Callable, Mapping, Sequence

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import SubFigure
from matplotlib.ticker import MaxNLocator
from scipy import ndimage
from torch import Tensor

from rfviz.errors import RfvizError, check_channel
from rfviz.images.batches import image_of
from rfviz.images.data import Indexed
from rfviz.kernels.effective import EffectiveFields, core
from rfviz.kernels.responses import LayerResponses
from rfviz.kernels.responses import preferred_stimuli as cut_stimuli
from rfviz.nets.network import BLUE, GREEN, ORANGE, RED
from rfviz.pages.style import DPI, NO_IMAGE, TYPE, WIDTH, BookFigure, Place, covered, link_to, min_max, show, stretch

COLUMNS = 4
"""Stimuli side by side."""

ROW = 4
"""Layers side by side, at most."""

SHEET = 16
"""Channels side by side on a contact sheet, at most."""

LETTER = 0.55
"""Mean width of a letter over the size of the type."""

MUCH = 100
"""Gain above which a mean hardly differs from the mean patch: what is seen may be of one image."""

SMOOTHING = 1 / 48
"""Standard deviation of the Gaussian that smooths weights of effective fields, over the shorter side of the picture."""

FULL = 99
"""Percentile of the smoothed weights from which on a picture is not dimmed."""

DIMMED = 0.5
"""Grey level that what does not matter is dimmed to."""

Places = Callable[[str, int], Place | None]
"""Where the explorer shows a channel of what `found` calls so; see `rfviz.pages.style.place`."""


def nowhere(_called: str, _channel: int) -> None:
    """Say that no explorer shows a channel."""


def _check(found: Mapping[str, object]) -> None:
    if not isinstance(found, Mapping) or not found:
        raise RfvizError("give what is to be drawn by name, at least one layer: {name: what was found}.")


def _in_rows(found: Mapping[str, LayerResponses], most: int) -> list[dict[str, LayerResponses]]:
    names = list(found)
    return [{name: found[name] for name in names[i : i + most]} for i in range(0, len(names), most)]


def wrapped(text: str, inches: float) -> str:
    """Break the lines of a title so that they fit into a width; a name without blanks breaks behind dots."""
    letters, lines = int(inches * 72 / (LETTER * TYPE)), []
    for given in text.split("\n"):
        lines.append("")
        for part in re.split(r"(?<=\.)(?=[^\W\d])|(?<= )", given):
            if lines[-1] and len(lines[-1]) + len(part.rstrip()) > letters:
                lines.append("")
            lines[-1] += part
    return "\n".join(line.rstrip() for line in lines)


# -- preferred stimuli -------------------------------------------------------------------------------------------------


def preferred_stimuli(
    images: Tensor | Indexed, found: Mapping[str, LayerResponses], channel: int, places: Places = nowhere
) -> BookFigure:
    """Draw the receptive fields of the strongest neurons of a channel, layer by layer, as in Figs. 2 and 4.

    Pixels outside the image are grey. Only neurons with response > 0 are shown.

    Parameters
    ----------
    images : Tensor (N, 3, H, W) or data set
        Those that the responses were collected from.
    found : dict from str to LayerResponses
    channel : int
    places : callable, optional
        Where a click leads.

    Raises
    ------
    RfvizError
        If there are no layers, or one has no such channel.
    """
    _check(found)
    for each in found.values():
        check_channel(channel, each.channels)
    rows = _in_rows(found, ROW)
    room = round(0.98 * WIDTH * DPI)
    widths = [
        _widths([COLUMNS * _step(_side(images, each)) + 1 for each in row.values()], room * len(row) // len(rows[0]))
        for row in rows
    ]
    lines = [[_heading(name, each, channel, width / DPI) for (name, each), width in zip(row.items(), of, strict=True)]
             for row, of in zip(rows, widths, strict=True)]  # fmt: skip
    most = [max(heading.count("\n") + 1 for heading in each) for each in lines]
    high = max(-(-each.top_values.shape[1] // COLUMNS) for each in found.values()) / COLUMNS
    heights = [high * max(of) / DPI + 0.17 * count + 0.14 for of, count in zip(widths, most, strict=True)]
    figure = BookFigure(sum(heights))
    bands = figure.subfigures(len(rows), 1, squeeze=False, height_ratios=heights)[:, 0]
    for band, row, of, headings in zip(bands, rows, widths, lines, strict=True):
        panels = band.subfigures(1, len(row), width_ratios=of, squeeze=False)[0]
        for panel, (name, each), heading in zip(panels, row.items(), headings, strict=True):
            stimulus_panel(panel, images, each, channel, places(name, channel))
            panel.suptitle(heading)
    return figure


def _heading(name: str, found: LayerResponses, channel: int, inches: float) -> str:
    values = [value for value in found.top_values[channel].tolist() if value > 0]
    silent = "fires at borders only" if found.positive_count[channel] else "never fires"
    form = ".2f" if values and values[-1] >= 0.01 else ".2g"
    spread = f"responses {values[0]:{form}} to {values[-1]:{form}}" if values else silent
    size = found.receptive_field.size
    field = "whole image" if found.receptive_field.is_whole_image else f"{size} × {size} px"
    return wrapped(f"{name}\n{field}\n{spread}", inches)


LEAST = 0.16
"""Share of the width of a figure that a column takes at least."""


def _widths(sides: Sequence[int], room: int) -> list[int]:
    """Return how wide to draw squares of some sides: whole multiples that fit the room and differ least.

    All alike, where these would leave one of them too little.
    """
    widths = _multiples(sides, room)
    if sum(widths) <= room and min(widths) >= min(LEAST * WIDTH * DPI, room / len(sides) / 2):
        return widths
    return [room // len(sides)] * len(sides)


def _multiples(sides: Sequence[int], room: int) -> list[int]:
    widths = list(sides)
    while sum(widths) + sides[least := widths.index(min(widths))] <= room:
        widths[least] += sides[least]
    return widths


def _side(images: Tensor | Indexed, found: LayerResponses) -> int:
    """Return the side of the stimuli of a layer, px: of a whole image, the longer one."""
    field = found.receptive_field
    return max(image_of(images[0]).shape[1:]) if field.is_whole_image else field.size


def _step(side: int) -> int:
    """Return from where to where stimuli side by side begin, px: a hair's breadth lies between them."""
    return side + 1 + side // 30


def stimulus_panel(
    panel: SubFigure, images: Tensor | Indexed, found: LayerResponses, channel: int, of: Place | None
) -> None:
    """Draw the strongest stimuli of a channel in a panel."""
    patches, inside = cut_stimuli(images, found, channel)
    firing = len(patches)
    rows, step = -(-found.top_values.shape[1] // COLUMNS), _step(_side(images, found))
    axes = panel.subplots()
    for i in range(firing):
        # One image beside the other in the same axes, however many there are.
        y, x = divmod(i, COLUMNS)
        show(axes, patches[i], inside[i], corner=(x * step, y * step), of=of)
    show(axes, None, of=None if firing else of)
    axes.set(xlim=(-1, COLUMNS * step), ylim=(rows * step, -1), aspect="equal")


# -- means -------------------------------------------------------------------------------------------------------------


def mean_stimuli(
    found: Mapping[str, LayerResponses],
    channel: int,
    first: tuple[str, Tensor] | None = None,
    strongest: int | None = None,
    places: Places = nowhere,
) -> BookFigure:
    """Draw the mean preferred stimuli of a channel, layer by layer, as in Figs. 3 and 5.

    From top to bottom: the mean over all neurons that fire as it is, the same stretched (`rfviz.pages.style.stretch`),
    and the mean over the strongest neurons, stretched.

    Parameters
    ----------
    found : dict from str to LayerResponses
        With mean stimuli; the last row takes those over the strongest neurons, where they were collected.
    channel : int
    first : (str, Tensor of shape (C, 3, F, F)), optional
        Filters of the first convolution and what to call them: that of the same channel stands first.
    strongest : int, optional
        How many neurons the last row averages at most, for its title.
    places : callable, optional
        Where a click leads.

    Raises
    ------
    RfvizError
        If there are no layers, one has no such channel, or no mean was collected.
    """
    _check(found)
    for name, each in found.items():
        check_channel(channel, each.channels)
        if each.mean_stimulus is None:
            whole = "it sees the whole image, so there are no patches to average: choose an earlier layer."
            remedy = whole if each.receptive_field.is_whole_image else "collect with mean_stimulus=True."
            raise RfvizError(f"of {name} there is no mean: {remedy}")
    with_strongest = all(each.strongest_stimulus is not None for each in found.values())
    names = ["mean,\nas it is", "mean,\nstretched"]
    if with_strongest:
        names.append(f"mean of up to\n{strongest} strongest,\nstretched" if strongest else "mean of the\nstrongest")
    rows = _in_rows(found, ROW - 1 if first else ROW)
    figure = BookFigure(1.8 * len(names) * len(rows))
    bands = figure.subfigures(len(rows), 1, squeeze=False)[:, 0]
    for number, (band, row) in enumerate(zip(bands, rows, strict=True)):
        ahead = first is not None
        grid = band.subplots(len(names), ahead + len(rows[0]), squeeze=False)
        for ax in grid.flat:
            show(ax, None)
        if first is not None and number == 0:
            check_channel(channel, len(first[1]))
            show(grid[0, 0], min_max(first[1][channel].detach()), of=places(first[0], channel))
            side, inches = first[1].shape[-1], WIDTH / grid.shape[1] - 0.25
            grid[0, 0].set_title(wrapped(f"{first[0]}\nfilter, {side} × {side} px", inches))
        for ax, name in zip(grid[:, int(ahead)], names, strict=True):
            ax.set_ylabel(name, rotation=0, ha="right", va="center")
        for ax in grid[1:, int(ahead)] if ahead else ():
            ax.yaxis.set_in_layout(False)  # there is room: below the filter is nothing
        for column, (name, each) in zip(grid.T[int(ahead) :], row.items(), strict=False):
            size = each.receptive_field.size
            column[0].set_title(wrapped(f"{name}\n{size} × {size} px", WIDTH / grid.shape[1] - 0.25))
            _mean_column(column, each, channel, places(name, channel))
    return figure


def _mean_column(column: np.ndarray, found: LayerResponses, channel: int, of: Place | None) -> None:
    if not found.positive_count[channel]:
        column[0].set_xlabel("never fires")
        show(column[0], None, of=of)
        return
    assert found.mean_stimulus is not None and found.mean_count is not None
    inside = [found.mean_count[channel] > 0]
    show(column[0], found.mean_stimulus[channel], inside[0], of=of)
    column[0].set_xlabel(f"N = {int(found.positive_count[channel]):,}")
    deviations = [found.mean_deviation[channel]]
    if len(column) > 2:
        assert found.strongest_count is not None
        deviations.append(found.strongest_deviation[channel])
        inside.append(found.strongest_count[channel] > 0)
    same = "all fire:\nno difference" if found.positive_count[channel] == found.neuron_count else "no difference"
    for ax, deviation, there in zip(column[1:], deviations, inside, strict=True):
        stretched, gain = stretch(deviation)
        show(ax, stretched, there, of=of)
        flat = ",\nhardly anything" if gain > MUCH else ""
        ax.set_xlabel(f"gain {gain:.1f}{flat}" if gain else same)


# -- all channels of a layer -------------------------------------------------------------------------------------------


def sheet(
    pictures: Tensor, channels: Sequence[int] | None = None, counts: Tensor | None = None, *, stretched: bool = False,
    called: str = "", places: Places = nowhere,
) -> BookFigure:  # fmt: skip
    """Draw a contact sheet: a picture for each channel of a layer, under its number.

    Parameters
    ----------
    pictures : Tensor, shape (C, 3, R, R)
        RGB in [0, 1], such as maximization images; or with `stretched` deviations from a mean patch, such as
        `rfviz.kernels.responses.LayerResponses.mean_deviation`, or filters.
    channels : sequence of int, optional
        Which ones, and in which order; all by default.
    counts : Tensor, shape (C, R, R) or (C,), optional
        Where there is a picture: pixels, or whole channels, with 0 stay grey.
    stretched : bool
        Stretch each to the full contrast; see `rfviz.pages.style.stretch`.
    called : str
        What `places` gets as the name of the layer.
    places : callable, optional
        Where a click leads.

    Raises
    ------
    RfvizError
        If the pictures are not RGB, or there is no such channel or none at all.
    """
    if pictures.dim() != 4 or pictures.shape[1] != 3 or not len(pictures):
        raise RfvizError(
            f"pictures of a sheet have the shape {tuple(pictures.shape)}: give (channels, 3, height, width)."
        )
    chosen = [check_channel(each, len(pictures)) for each in (range(len(pictures)) if channels is None else channels)]
    if not chosen:
        raise RfvizError("no channels were asked for: name at least one, or leave them out to take all.")
    pictures = pictures.detach().cpu()
    high, side = pictures.shape[2:]
    columns = max(1, min(SHEET, len(chosen), round(0.98 * WIDTH * DPI) // (side + 4)))
    rows = -(-len(chosen) // columns)
    scale = max(1, int(0.94 * WIDTH * DPI / columns) // side)
    figure = BookFigure(rows * (scale * high / DPI + 0.24))
    grid = figure.subplots(rows, columns, squeeze=False)
    for ax in grid.flat:
        show(ax, None)
    for ax, channel in zip(grid.flat, chosen, strict=False):
        count = torch.ones(high, side) if counts is None else counts[channel].cpu().expand(high, side)
        picture = stretch(pictures[channel])[0] if stretched else pictures[channel]
        show(ax, covered(picture, count), of=places(called, channel))
        ax.set_title(str(channel), pad=1)
    return figure


# -- how often channels fire -------------------------------------------------------------------------------------------


def firing_rates(
    found: Mapping[str, LayerResponses | Sequence[LayerResponses]],
    colours: Mapping[str, str] | None = None,
    where: Places = nowhere,
) -> BookFigure:
    """Draw the share of neurons of each channel that fire, sorted; channels that never fire are crosses.

    Parameters
    ----------
    found : dict from str to LayerResponses or sequence of LayerResponses
        Of layers or networks; where there are several of one, such as of several trainings, one is drawn over the
        other, and only the first has markers.
    colours : dict from str to str, optional
        Of their lines.
    where : callable, optional
        Where a click leads.
    """
    _check(found)
    figure = BookFigure(2.9)
    ax = figure.subplots()
    palette = (BLUE, ORANGE, GREEN, RED)
    replicas = {name: [given] if isinstance(given, LayerResponses) else given for name, given in found.items()}
    alike = len({each.channels for given in replicas.values() for each in given}) == 1
    for number, (name, given) in enumerate(replicas.items()):
        colour = colours[name] if colours else palette[number % len(palette)]
        crossed = False
        for i, each in enumerate(given):
            order = each.firing_rate.argsort(descending=True)
            rate = 100 * each.firing_rate[order]
            places = np.arange(len(rate)) if alike else np.linspace(0, 100, len(rate))
            ax.plot(
                places, rate.numpy(), marker=None if i else "os^Dv"[number % 5], markersize=4,
                color=colour, linewidth=0.8 if i else 1.5, alpha=0.6 if i else 1, label=None if i else name,
            )  # fmt: skip
            if not i:
                link_to(ax, places, rate, [where(name, channel) for channel in order.tolist()])
            silent = (rate == 0).nonzero().flatten().numpy()
            if len(silent):
                label = None if crossed else f"{name}: never fires"
                ax.plot(places[silent], np.zeros(len(silent)), "x", color=colour, label=label, zorder=3)
                crossed = True
    ax.set(xlabel=f"channel{'' if alike else 's'}, sorted{'' if alike else ' (%)'}", ylabel="neurons that fire (%)")
    ax.set_ylim(-3, 103)
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    ax.legend(frameon=False)
    return figure


# -- what matters in a stimulus ----------------------------------------------------------------------------------------


def effective_fields(
    images: Tensor | Indexed,
    found: Mapping[str, EffectiveFields],
    controls: Mapping[str, EffectiveFields] | None = None,
    index: int | None = None,
    places: Places = nowhere,
) -> BookFigure:
    """Draw, layer by layer, a stimulus of one channel, and what in it matters.

    In a row: the image, the same with what does not matter dimmed towards grey, the weights alone, and those of a
    control. The contour is around the `core` of the smoothed weights, the cross at the centre of the theoretical field.

    Parameters
    ----------
    images : Tensor (N, 3, H, W) or data set
    found : dict from str to EffectiveFields
    controls : dict from str to EffectiveFields, optional
        Of the same neurons on the same images, such as with random weights.
    index : int, optional
        Which of the neurons that were measured; by default the first of the channel in the middle of each layer.
    places : callable, optional
        Where a click leads.
    """
    _check(found)
    titles = ("stimulus", "what matters", "gradient", *(("random weights",) if controls else ()))
    figure = BookFigure(1.9 * len(found))
    grid = figure.subplots(len(found), len(titles), squeeze=False)
    for row, (name, each) in zip(grid, found.items(), strict=True):
        number = index or 0
        if index is None and len(each.channels):
            number = int((each.channels == each.channels[len(each.channels) // 2]).nonzero()[0])
        check_channel(number, len(each.channels))
        channel, image = int(each.channels[number]), image_of(images[int(each.images[number])])
        of = places(name, channel)
        weights = _window(each, number, each.maps[number])
        picture, inside = _window(each, number, image), _window(each, number, torch.ones_like(image[:1]))[0] > 0
        dimmed = DIMMED + opacity(weights) * (picture - DIMMED)
        show(row[0], picture, inside, of=of)
        show(row[1], torch.where(inside, dimmed, torch.tensor(NO_IMAGE)), of=of)
        drawn = [(row[2], weights, of)]
        if controls:  # the explorer has no control up there
            drawn.append((row[3], _window(controls[name], number, controls[name].maps[number]), None))
        for ax, seen, to in drawn:
            show(ax, opacity(seen).expand(3, -1, -1), of=to)
            _outline(ax, seen)
        _outline(row[1], weights)
        y, x = _centre(each, number)
        for ax in row[1:]:
            ax.plot(x, y, "+", color=BLUE, markersize=6, markeredgewidth=1)
        row[0].set_ylabel(wrapped(f"{name}\nchannel {channel}", 1.7))
    for ax, title in zip(grid[0], titles, strict=True):
        ax.set_title(title)
    return figure


def smoothed(weights: Tensor) -> Tensor:
    """Return weights `(H, W)` smoothed for display, in float64."""
    sigma = SMOOTHING * min(weights.shape)
    return torch.from_numpy(ndimage.gaussian_filter(weights.double().numpy(), sigma, mode="constant"))


def opacity(weights: Tensor) -> Tensor:
    """Return how much of each pixel to show: smoothed weights over their 99th percentile, `(H, W)` in [0, 1]."""
    soft = smoothed(weights)
    full = np.percentile(soft.numpy(), FULL)
    return (soft / full).clamp(0, 1) if full > 0 else torch.zeros_like(soft)


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
