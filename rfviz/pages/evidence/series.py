"""The page on when channels fall silent: a series of trainings by cumulative decay, with and without skips.

Its numbers are kept in ``book/evidence`` (`rfviz.lab.series`). A training is one value: differences between networks
are taken seed by seed, as means over the strong decays, and their intervals are over seeds.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from IPython.display import Markdown
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from rfviz import stats
from rfviz.lab import presets, series
from rfviz.nets.network import NETWORKS
from rfviz.pages.inactive import MORE
from rfviz.pages.style import GREY, BookFigure, HowMade, answer, listed
from rfviz.pages.training import hardly_learnt
from rfviz.stats import AGREES, CANNOT_TELL, DISAGREES, NOTHING, Interval, judge
from rfviz.storage import places

STRONG = 3.0
"""Cumulative decays from here on count where networks are compared: those with which channels are expected to die."""

PAPER_DECAY = 1.7
"""Cumulative decay of the paper's training, which had 450,000 steps."""

POINTS = 2.0
"""Least change of top-1 accuracy that counts as one, points."""


class Shown(NamedTuple):
    """What the page shows.

    Parameters
    ----------
    trainings : list of dict
        See `rfviz.lab.series.measure`.
    made_by : dict
        Command and commit.
    """

    trainings: Sequence[Mapping[str, Any]]
    made_by: Mapping[str, str]

    def of(self, network: str, decay: float, *, alive: bool = False) -> list[Mapping[str, Any]]:
        """Return the trainings of a network with one decay, in the order of their seeds."""
        found = [
            each
            for each in self.trainings
            if (each["network"], each["decay"], each["alive"] > 0) == (network, decay, alive)
        ]
        return sorted(found, key=lambda each: each["seed"])

    @property
    def networks(self) -> list[str]:
        """Names of the networks, in the order of the series."""
        return list(dict.fromkeys(each["network"] for each in self.trainings))

    def decays(self, *, alive: bool = False) -> list[float]:
        """Return the cumulative decays of an arm, from small to large."""
        return sorted({each["decay"] for each in self.trainings if (each["alive"] > 0) == alive})


def kept() -> Shown:
    """Read the series that is kept in the repository, in ``book/evidence``."""
    return load(places.repository() / "book" / "evidence")


def load(folder: Any) -> Shown:
    """Read what `rfviz.lab.series.export` wrote."""
    found = series.load(folder)
    return Shown(found["trainings"], found["made by"])


# -- measures ----------------------------------------------------------------------------------------------------------


def more_silent(shown: Shown, network: str, other: str) -> Interval:
    """Return how many channels more are inactive in one network than in another, in per cent of those of the stem.

    The mean over `compared` decays; the interval is over seeds.
    """
    return _difference(shown, "inactive_share", (network, False), (other, False), compared(shown, network, other))


def compared(shown: Shown, *networks: str) -> list[float]:
    """Return the decays of `STRONG` and more under which all of some networks have learnt."""
    chance = 1 / presets.get(series.PRESET).classes
    return [
        decay
        for decay in shown.decays()
        if decay >= STRONG
        and not hardly_learnt({name: [each["top1"] for each in shown.of(name, decay)] for name in networks}, chance)
    ]


def costs(shown: Shown, network: str) -> Interval:
    """Return how the penalty that keeps channels firing changes the top-1 accuracy, points, over seeds."""
    return _difference(shown, "points", (network, True), (network, False), shown.decays(alive=True))


def _difference(
    shown: Shown, what: str, first: tuple[str, bool], second: tuple[str, bool], decays: Sequence[float]
) -> Interval:
    def values(network: str, alive: bool) -> np.ndarray:
        return np.array([_each(shown.of(network, decay, alive=alive), what) for decay in decays])

    return stats.mean(list((values(*first) - values(*second)).mean(0)), "seeds") if decays else NOTHING


def _each(trainings: Sequence[Mapping[str, Any]], what: str) -> list[float]:
    if what == "points":
        return [100 * each["top1"] for each in trainings]
    return [100 * each["inactive"] / len(each["firing_rate"]) for each in trainings]


def first_silent(shown: Shown, network: str) -> float | None:
    """Return the smallest decay from which on every training of a network has an inactive channel."""
    found = None
    for decay in reversed(shown.decays()):
        if not all(each["inactive"] for each in shown.of(network, decay)):
            break
        found = decay
    return found


# -- figures and tables ------------------------------------------------------------------------------------------------


def silent_by_decay(shown: Shown) -> Figure:
    """Draw Fig. S15: inactive channels (left) and top-1 accuracy (right) by cumulative decay, a mark per training."""
    figure = BookFigure(3.3)
    left, right = figure.subplots(1, 2)
    _draw(left, shown, "inactive", "inactive channels (%)")
    _draw(right, shown, "points", "top-1 accuracy (%)")
    for ax in (left, right):
        ax.axvline(PAPER_DECAY, color=GREY, linewidth=0.8, linestyle=":", label="the paper's D")
    figure.legend(*left.get_legend_handles_labels(), loc="outside lower center", ncols=2, frameon=False)
    return figure


def _draw(ax: Axes, shown: Shown, what: str, label: str) -> None:
    for place, (network, marker) in enumerate(zip(shown.networks, "osD^v", strict=False)):
        colour, shift = NETWORKS[network].colour, 1 + 0.06 * (place - 1)
        for alive, fill in ((False, colour), (True, "white")):
            style: dict[str, Any] = {"marker": marker, "color": colour, "markerfacecolor": fill, "markersize": 4}
            means = []
            for decay in shown.decays(alive=alive):
                each = _each(shown.of(network, decay, alive=alive), what)
                ax.plot([decay * shift] * len(each), each, linestyle="none", alpha=0.8, **style)
                means.append((decay * shift, np.mean(each)))
            if alive:
                ax.plot([], [], linestyle="none", label="kept alive", **style)
            else:
                ax.plot(*zip(*means, strict=True), linewidth=1.2, label=NETWORKS[network].title, **style)
    ax.set_xscale("log")
    ax.set_xticks(shown.decays(), [f"{decay:g}" for decay in shown.decays()])
    ax.minorticks_off()
    ax.set(xlabel="cumulative decay D", ylabel=label, ylim=(-3, None))


def table(shown: Shown) -> pd.DataFrame:
    """Return inactive channels and top-1 accuracy of every training, seed by seed, as text."""
    rows = []
    for alive in (False, True):
        for decay in shown.decays(alive=alive):
            row = {"D": f"{decay:g}" + " (kept alive)" * alive}
            for network in shown.networks:
                found = shown.of(network, decay, alive=alive)
                title = NETWORKS[network].title
                row[f"{title}: inactive"] = ", ".join(f"{each['inactive']}" for each in found)
                row[f"{title}: top-1 (%)"] = ", ".join(f"{100 * each['top1']:.0f}" for each in found)
            rows.append(row)
    return pd.DataFrame(rows).set_index("D")


# -- sentences ---------------------------------------------------------------------------------------------------------


def conditions(shown: Shown) -> Markdown:
    """Say what the series consists of."""
    first = shown.trainings[0]
    seeds = len({each["seed"] for each in shown.trainings})
    titles = listed([NETWORKS[name].title for name in shown.networks])
    return Markdown(
        f"{len(shown.trainings)} trainings: {titles}, {len(first['firing_rate'])} channels in the stem, "
        f"{len(shown.decays())} cumulative decays from {min(shown.decays()):g} to {max(shown.decays()):g}, {seeds} "
        f"seeds each; and with the penalty, D = {listed([f'{decay:g}' for decay in shown.decays(alive=True)])}."
    )


def when_answer(shown: Shown) -> Markdown:
    """Say from which decay on channels are silent."""
    sentences = []
    for network in shown.networks:
        title, start = NETWORKS[network].title, first_silent(shown, network)
        most = max(each["inactive"] for decay in shown.decays() for each in shown.of(network, decay))
        if start is None:
            sentences.append(f"{title} has no decay from which on every training loses a channel; the most is {most}.")
        else:
            sentences.append(
                f"{title} loses channels in every training from D = {start:g} on; the most is {most} of "
                f"{len(shown.trainings[0]['firing_rate'])}."
            )
    near = min(shown.decays(), key=lambda decay: abs(decay - PAPER_DECAY))
    lost = shown.of(shown.networks[0], near)
    count, channels = sum(each["inactive"] for each in lost), sum(len(each["firing_rate"]) for each in lost)
    sentences.append(
        f"At D = {near:g}, the nearest here to the {PAPER_DECAY} of the paper, {NETWORKS[shown.networks[0]].title} has "
        f"{count} of {channels} channels silent, in {len(lost)} trainings; the paper's has 13 of 64. In "
        "networks so small, this decay alone does not give such a share."
    )
    return answer(sentences)


def skips_answer(shown: Shown) -> Markdown:
    """Say whether the skips make channels fall silent."""
    subject, *others = shown.networks
    sentences = []
    for other in others:
        gap = more_silent(shown, subject, other)
        words = {
            AGREES: "channels fall silent more often",
            DISAGREES: "channels do not fall silent more often",
            CANNOT_TELL: "it cannot be told whether channels fall silent more often",
        }[judge(gap, least=100 * MORE)]
        decays = compared(shown, subject, other)
        accuracy = _difference(shown, "points", (subject, False), (other, False), decays)
        sentences.append(
            f"In {NETWORKS[subject].title}, {words} than in {NETWORKS[other].title}, by {100 * MORE:g} points "
            f"at least: the difference of the shares of silent channels, in points, is {gap:+.1f}, at D = "
            f"{listed([f'{decay:g}' for decay in decays])} (that of their top-1 accuracies is {accuracy:+.1f})."
        )
    return answer(sentences)


def penalty_answer(shown: Shown) -> Markdown:
    """Say whether networks classify worse when all channels are kept firing."""
    sentences = []
    for network in shown.networks:
        change = costs(shown, network)
        left = sum(
            each["inactive"] for decay in shown.decays(alive=True) for each in shown.of(network, decay, alive=True)
        )
        words = "cannot be told to change"
        if change.low > -POINTS and change.high < POINTS:
            words = f"changes by less than {POINTS:g} points"
        elif change.sign:
            words = "rises" if change.sign > 0 else "falls"
        sentences.append(
            f"With the penalty, {left or 'no'} channel{'s' * (left > 1)} of {NETWORKS[network].title} "
            f"{'are' if left > 1 else 'is'} silent, and its accuracy {words}: {change:+.1f} points."
        )
    return answer(sentences)


def how_made(shown: Shown) -> HowMade:
    """Return the folded table "How this page was made": its numbers were computed before, by this command."""
    seeds = sorted({each["seed"] for each in shown.trainings})
    one = shown.trainings[0]
    return HowMade(
        {**shown.made_by, "seeds": ", ".join(map(str, seeds)), "one training, such as the first": one["command"]}
    )
