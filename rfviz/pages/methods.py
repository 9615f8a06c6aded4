"""The page of methods: receptive fields, which follow from the geometry of a network and need no run."""

import pandas as pd
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from torch import nn

from rfviz.images import photographs
from rfviz.nets import receptive_field
from rfviz.nets.models import ResidualNet
from rfviz.nets.network import BLUE, GREEN, ORANGE, PURPLE, RED, SKY
from rfviz.pages.style import BookFigure


def layers_table(net: ResidualNet) -> pd.DataFrame:
    """Return the layers in the paper's figures, with the geometry of their receptive fields in px, as text."""
    fields = receptive_field.of_layers(net, ["conv1", *net.network.figure_layers])
    rows = [
        {
            "module": name,
            "in the paper": net.network.titles[name],
            "receptive field": f"{field.size} px",
            "stride": f"{field.stride} px",
            "start": f"−{-field.start} px",
        }
        for name, field in fields.items()
    ]
    return pd.DataFrame(rows).set_index("module")


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
        ax.set_title(f"{name}\n{cells} × {cells}")
        ax.axis("off")
    return figure


_FRAMES = (BLUE, ORANGE, GREEN, RED, PURPLE, SKY, "#F0E442", "black")


def receptive_fields_to_scale(net: ResidualNet, side: int = 224) -> Figure:
    """Draw Fig. S1: the fields of the centre neurons of a network's layers, to scale on a photograph.

    Shown are the layers in the paper's figures, the last of each stage, and the first whose field outgrows the
    photograph.
    """
    photograph = photographs.photograph("chelsea")[:, 30 : 30 + side, 40 : 40 + side] / 255
    fields = {
        net.network.titles[name]: field
        for name, field in receptive_field.of_layers(net, list(net.network.titles)).items()
    }
    first_larger = next(title for title, field in fields.items() if field.size > side)
    layers = ("conv1", *net.network.figure_layers, *net.network.high_layers)
    titles = {first_larger, *(net.network.layer_title(layer) for layer in layers)}
    shown = [title for title in fields if title in titles]
    colours = dict(zip(shown, _FRAMES, strict=False))
    outgrown = shown.index(first_larger)
    panels = {"inside the image": shown[:outgrown], "larger than the image": shown[outgrown - 1 :]}
    figure = BookFigure(5.4)
    for panel, (name, within) in zip(figure.subfigures(1, 2, squeeze=False)[0], panels.items(), strict=True):
        ax = panel.subplots()
        ax.imshow(photograph.permute(1, 2, 0).numpy(), extent=(0, side, side, 0))
        for title in within:
            field = fields[title]
            centre = (side // field.stride) // 2
            top, left, _, _ = field.box(centre, centre)
            ax.add_patch(
                Rectangle(
                    (left, top), field.size, field.size, fill=False, edgecolor=colours[title], linewidth=2,
                    label=f"{title}: {field.size} px",
                )
            )  # fmt: skip
        ax.set(xlabel="column (px)", ylabel="row (px)")
        panel.suptitle(name)
        ax.autoscale_view()
        ax.set_aspect("equal")
        panel.legend(loc="outside lower center", frameon=False)
    return figure
