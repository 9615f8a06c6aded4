"""Which colours channels respond to, whether they are double-opponent, and whether their pictures are."""

import itertools
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
from rfviz.kernels.controls import CONTROLS, DRAWS
from rfviz.kernels.tuning import CHROMATIC, ColourTuning, centre_surround
from rfviz.kernels.tuning.centre_surround import Opponency
from rfviz.kernels.tuning.hue import HueTuning
from rfviz.kernels.tuning.opponent import AXES
from rfviz.lab import results
from rfviz.lab.run import Run
from rfviz.nets.network import BLUE, RED, Network
from rfviz.pages.orientation import Panels, curves_and_control, mean_over_layers, verdicts
from rfviz.pages.style import GREY, BookFigure
from rfviz.stats import Interval

AXIS_COLOURS = {"luminance": "black", "L-M": RED, "S": BLUE}
AXIS_STYLES = {"luminance": "-", "L-M": "--", "S": ":"}
AXIS_NAMES = {"luminance": "light and dark", "L-M": "L-M (reddish and greenish)", "S": "S (bluish and yellowish)"}

CLASSES = ("achromatic", "single-opponent", "double-opponent", "silent")

PICTURES = {"mean of the strongest": "means over the strongest stimuli", "maximization": "maximization images"}
"""The kinds of pictures that are shown, and what a sentence calls several of them."""

NEAR = 30.0
"""Degrees within which an axis is near L-M or near S: a third of all axes each, and a third are in between."""

HUES = ("reddish", "bluish", "greenish", "yellowish")
"""At 0, 90, 180 and 270 degrees; each stands for the quarter around it."""


class Shown(NamedTuple):
    """What the page shows of colour.

    Parameters
    ----------
    networks : list of Network
    tuning : dict from network and layer to ColourTuning
    controls : dict from network, layer and kind of control to list of ColourTuning
        Of `DRAWS` networks of each kind.
    hues : dict from network and layer to HueTuning
    random_hues : dict from network and layer to list of HueTuning
        Of `DRAWS` networks with random weights: the same as in `controls`.
    pictures : dict from network, layer and kind of picture to Opponency
        See `opponency`.
    """

    networks: list[Network]
    tuning: dict[str, dict[str, ColourTuning]]
    controls: dict[str, dict[str, dict[str, list[ColourTuning]]]]
    hues: dict[str, dict[str, HueTuning]]
    random_hues: dict[str, dict[str, list[HueTuning]]]
    pictures: dict[str, dict[str, dict[str, Opponency]]]


def gather(runs: Sequence[Run]) -> Shown:
    """Return what the page shows: of the first run, as it shows one network of each kind."""
    run = runs[0]
    shown = Shown(run.networks, {}, {}, {}, {}, {})
    for each in run.networks:
        name, layers = each.name, each.figure_layers
        shown.tuning[name] = {layer: results.colour(run, name, layer) for layer in layers}
        shown.controls[name] = {layer: {kind: [] for kind in CONTROLS} for layer in layers}
        shown.hues[name] = {layer: results.hues(run, name, layer) for layer in layers}
        shown.random_hues[name] = {layer: [] for layer in layers}
        for kind, draw, layer in itertools.product(CONTROLS, range(DRAWS), layers):
            shown.controls[name][layer][kind].append(results.colour(run, name, layer, kind, draw))
            if kind == "random weights":
                shown.random_hues[name][layer].append(results.hues(run, name, layer, kind, draw))
        shown.pictures[name] = {layer: opponency(run, name, layer) for layer in layers}
    return shown


def double_opponent_shares(run: Run, network: str, control: str | None = None) -> Tensor:
    """Return in how many of the three layers of the figures each channel is double-opponent, as a share, `(C,)`.

    Counted are the layers in which it responds; NaN where there is none. Of a control, all draws follow each other.
    """
    found = []
    for draw in range(DRAWS if control else 1):
        names = [
            results.colour(run, network, layer, control, draw).classes for layer in run.network(network).figure_layers
        ]
        values = [
            torch.tensor([math.nan if name == "silent" else name == "double-opponent" for name in layer]).double()
            for layer in names
        ]
        found.append(mean_over_layers(values))
    return torch.cat(found)


def opponency(run: Run, network: str, layer: str) -> dict[str, Opponency]:
    """Measure centre and surround of three pictures of every channel of a layer of the figures.

    They are ``"mean"``, the mean over all neurons that fire, and those of `PICTURES`. Channels that never fire count in
    none of them: they have no mean stimulus. The background is the mean colour of the training images.
    """
    found, white = results.stimuli(run, network)[layer], run.whitening(network)
    background = white.to_rgb(torch.zeros(3, 1, 1)).flatten()
    assert found.mean_stimulus is not None and found.mean_count is not None
    assert found.strongest_stimulus is not None and found.strongest_count is not None
    means = {
        "mean": (found.mean_stimulus, found.mean_count),
        "mean of the strongest": (found.strongest_stimulus, found.strongest_count),
    }
    pictures = {
        **{
            kind: torch.where(count[:, None] > 0, mean, background[:, None, None])
            for kind, (mean, count) in means.items()
        },
        "maximization": white.to_rgb(results.maxima(run, network, layer).images),
    }
    there = found.positive_count > 0
    return {kind: centre_surround.measure(images, background, there) for kind, images in pictures.items()}


def opponent_share(found: Opponency) -> Interval:
    """Return the share of the pictures that are centre-surround opponent in colour."""
    return stats.share(int(found.colour_opponent.sum()), _number(found))


def _number(found: Opponency) -> int:
    """Return how many pictures there are."""
    return int(found.index.isfinite().sum())


# -- figures -----------------------------------------------------------------------------------------------------------


def colour_curves(shown: Shown, channels: Mapping[str, int]) -> Figure:
    """Draw Fig. S9: responses of one channel of each network to grey and to equiluminant gratings, by frequency."""
    panels = Panels(shown.networks, shown.tuning, 2.0)
    for ax, network, _, tuning in panels:
        channel = channels[network.name]
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


def hue_curves(shown: Shown, channels: Mapping[str, int]) -> Figure:
    """Draw Fig. S15: the tuning for hue of one channel of each network, with that of a control in grey."""

    def said(found: HueTuning, channel: int) -> str:
        axis, hue = found.preferred_axis[channel], found.preferred_hue[channel]
        return (f"axis {axis:.0f}°" if axis.isfinite() else "no response") + (
            f", hue {hue:.0f}°" if hue.isfinite() else ""
        )

    random = {name: {layer: draws[0] for layer, draws in layers.items()} for name, layers in shown.random_hues.items()}
    panels = curves_and_control(
        shown.networks, shown.hues, random, channels, lambda found: (found.angles, found.axis_curve), said
    )
    for ax in panels.grid.flat:
        ax.set_xticks([0, 45, 90, 135, 180], ["0\nL-M", "45", "90\nS", "135", "180\nL-M"], fontsize=8)
    return panels.finished("axis of colour (°)", "response / largest")


def radial_profiles(shown: Shown, channels: Mapping[str, int]) -> Figure:
    """Draw Fig. S16: how pictures of one channel of each network differ from the background, from centre to edge."""
    rows = [(network, kind) for network in shown.networks for kind in PICTURES]
    columns = max(map(len, shown.pictures.values()))
    figure = BookFigure(1.5 * len(rows) + 0.6)
    grid = figure.subplots(len(rows), columns, squeeze=False, sharex="col", sharey=True)
    for axes, (network, kind) in zip(grid, rows, strict=True):
        channel = channels[network.name]
        axes[0].set_ylabel(f"{network.title}, channel {channel}\n{kind}", fontsize=8)
        for ax, (layer, kinds) in zip(axes, shown.pictures[network.name].items(), strict=True):
            _profile(ax, kinds[kind], channel)
            if kind == next(iter(PICTURES)):
                ax.set_title(f"{network.layer_title(layer)}\n{ax.get_title()}", fontsize=8)
    for ax in grid[-1]:
        ax.set_xlabel("distance from the centre (px)", fontsize=8)
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


# -- tables and words --------------------------------------------------------------------------------------------------


def class_table(shown: Shown) -> pd.DataFrame:
    """Return the share of each colour class, trained and in the controls, per network and layer, as text."""
    rows = []
    for network in shown.networks:
        for layer, tuning in shown.tuning[network.name].items():
            for weights, nets in {"trained": [tuning], **shown.controls[network.name][layer]}.items():
                found = [name for each in nets for name in each.classes]
                rows.append(
                    {
                        "network": network.title,
                        "layer": network.layer_title(layer),
                        "weights": weights,
                        **{name: stats.share(found.count(name), len(found)).brief(".0%") for name in CLASSES},
                        "n": str(len(found)),
                    }
                )
    return pd.DataFrame(rows).set_index(["network", "layer", "weights"])


def _double_opponent(networks: Sequence[ColourTuning]) -> tuple[int, int]:
    """Return how many channels are double-opponent, and of how many."""
    names = [name for each in networks for name in each.classes]
    return names.count("double-opponent"), len(names)


def class_answer(shown: Shown) -> Markdown:
    """Say where double-opponent channels are more frequent than in random weights."""
    lines = ["**Answer.** The share of double-opponent channels, minus that with random weights:\n"]
    for network in shown.networks:
        counts = {layer: _double_opponent([tuning]) for layer, tuning in shown.tuning[network.name].items()}
        found = {
            network.layer_title(layer): stats.share_difference(
                count, _double_opponent(shown.controls[network.name][layer]["random weights"])
            )
            for layer, count in counts.items()
        }
        total, words = sum(count for count, _ in counts.values()), verdicts(found, "more", "fewer")
        lines.append(f"- {network.title}, {total} double-opponent channels in {len(counts)} layers: {words}.")
    return Markdown("\n".join(lines))


class Chromatic(NamedTuple):
    """Hues of the chromatic channels that respond, n of several networks together.

    Parameters
    ----------
    selectivity, axis, hue : Tensor, shape (n,)
        See `HueTuning.axis_selectivity`, `HueTuning.preferred_axis` and `HueTuning.preferred_hue`.
    of : int
        Channels that the networks have, chromatic or not.
    """

    selectivity: Tensor
    axis: Tensor
    hue: Tensor
    of: int


def _chromatic(hues: Sequence[HueTuning], classes: Sequence[ColourTuning]) -> Chromatic:
    """Leave out achromatic channels: they prefer the hue that differs most in what they take for luminance."""
    kept = [
        (each.axis_selectivity[chosen], each.preferred_axis[chosen], each.preferred_hue[chosen])
        for each, colour in zip(hues, classes, strict=True)
        for chosen in [(colour.sensitivity >= CHROMATIC) & each.responds]
    ]
    selectivity, axis, hue = (torch.cat(each) for each in zip(*kept, strict=True))
    return Chromatic(selectivity, axis, hue, sum(len(each.blank) for each in hues))


def _trained_and_random(shown: Shown, network: str, layer: str) -> dict[str, Chromatic]:
    return {
        "trained": _chromatic([shown.hues[network][layer]], [shown.tuning[network][layer]]),
        "random weights": _chromatic(
            shown.random_hues[network][layer], shown.controls[network][layer]["random weights"]
        ),
    }


def _near(axis: Tensor) -> dict[str, int]:
    """Count the axes, degrees `(n,)`, near L-M, near S and in between."""
    from_l_m = 90 - (axis - 90).abs()  # 0 for L-M, which is at 0 and 180, and 90 for S
    first, second = int((from_l_m <= NEAR).sum()), int((from_l_m >= 90 - NEAR).sum())
    return {"near L-M": first, "near S": second, "in between": len(axis) - first - second}


def _quarters(hue: Tensor) -> list[int]:
    """Count the hues, degrees `(n,)`, in the quarter around each of `HUES`."""
    known = hue[hue.isfinite()]
    quarter = ((known + 45) // 90).long() % len(HUES)
    return torch.bincount(quarter, minlength=len(HUES)).tolist()


def hue_table(shown: Shown) -> pd.DataFrame:
    """Return which hues the chromatic channels prefer and how sharply, per network, layer and weights, as text."""
    rows = []
    for network in shown.networks:
        for layer in shown.hues[network.name]:
            for weights, found in _trained_and_random(shown, network.name, layer).items():
                rows.append(
                    {
                        "network": network.title,
                        "layer": network.layer_title(layer),
                        "weights": weights,
                        "chromatic": f"{len(found.axis)} of {found.of}",
                        "axis selectivity: median (95 % interval)": f"{stats.median(found.selectivity):.2f}",
                        **{name: str(count) for name, count in _near(found.axis).items()},
                        f"uniform fields: {' / '.join(HUES)}": " / ".join(map(str, _quarters(found.hue))),
                    }
                )
    return pd.DataFrame(rows).set_index(["network", "layer", "weights"])


def hue_answer(shown: Shown) -> Markdown:
    """Say which axes chromatic channels prefer, and where they are more selective than random weights."""
    lines = [
        "**Answer.** The axes that chromatic channels prefer, and their mean axis selectivity minus that with random "
        "weights:\n"
    ]
    for network in shown.networks:
        groups = {layer: _trained_and_random(shown, network.name, layer) for layer in shown.hues[network.name]}
        axes = torch.cat([each["trained"].axis for each in groups.values()])
        if not len(axes):
            lines.append(f"- {network.title} has no chromatic channel in these layers.")
            continue
        found = {
            network.layer_title(layer): stats.difference(
                each["trained"].selectivity, each["random weights"].selectivity
            )
            for layer, each in groups.items()
        }
        counts = ", ".join(f"{count} {name}" for name, count in _near(axes).items())
        lines.append(
            f"- {network.title}, {len(axes)} channels in {len(groups)} layers: {counts}; "
            f"{verdicts(found, 'more selective', 'less selective', '+.2f')}."
        )
    return Markdown("\n".join(lines))


def opponency_table(shown: Shown) -> pd.DataFrame:
    """Return how many pictures are centre-surround opponent, per network, layer and kind of picture, as text."""
    rows = []
    for network in shown.networks:
        for layer, kinds in shown.pictures[network.name].items():
            for kind in PICTURES:
                each = kinds[kind]
                rows.append(
                    {
                        "network": network.title,
                        "layer": network.layer_title(layer),
                        "picture": kind,
                        "in colour (95 % interval)": _counted(each.colour_opponent, _number(each)),
                        "in luminance (95 % interval)": _counted(each.luminance_opponent, _number(each)),
                        "by chance": f"≤ {centre_surround.LEVEL:.0%}",
                        "chromatic": int(each.chromatic.sum()),
                        f"index ≥ {centre_surround.LEAST:g}": int((each.index >= centre_surround.LEAST).sum()),
                        "n": _number(each),
                    }
                )
    return pd.DataFrame(rows).set_index(["network", "layer", "picture"])


def _counted(opponent: Tensor, of: int) -> str:
    count = int(opponent.sum())
    return f"{count}: {stats.share(count, of).brief('.0%')}" if of else "–"


def opponency_answer(shown: Shown) -> Markdown:
    """Say how many pictures are centre-surround opponent in colour, and where that is beyond chance."""
    lines = [
        "**Answer.** The share of pictures that are centre-surround opponent in colour, minus the "
        f"{100 * centre_surround.LEVEL:.0f} % that chance gives at most:\n"
    ]
    for network in shown.networks:
        for kind, several in PICTURES.items():
            found = {network.layer_title(layer): each[kind] for layer, each in shown.pictures[network.name].items()}
            count = sum(int(each.colour_opponent.sum()) for each in found.values())
            of = sum(map(_number, found.values()))
            excess = {title: opponent_share(each).minus(centre_surround.LEVEL) for title, each in found.items()}
            words = verdicts(excess, "more than chance", "fewer than chance")
            lines.append(f"- {network.title}, {count} of {of} {several}: {words}.")
    return Markdown("\n".join(lines))
