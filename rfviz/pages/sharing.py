"""The page on channel sharing: does a channel keep its feature, who writes to it, and five predictions.

The paper guesses that channels of the first pooling layer fall silent because the skips make the layers share channels:
later blocks need a channel for a feature that no filter of the first layer has, so the first layer leaves it empty. If
that is so, then:

1. A network with skips has more inactive channels than one without, whose layers share nothing.
2. The blocks fill the empty channels: they write more to channels that fire less in the first pooling layer.
3. The inactive channels are in use behind the blocks: without them, the classification loses.
4. What they hold there is unlike any mixture of the filters, more so than in other channels.
5. Noise in the inactive channels travels along the skip: it hurts a network with skips more than one without.

All but the sparsity is about channels that layer1 has in common with the stem: networks of bottleneck blocks, which
have more of them there, are left out.
"""

from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch
from IPython.display import HTML, Markdown
from matplotlib.figure import Figure
from torch import Tensor

from rfviz import stats
from rfviz.kernels.noise import PAPER_DOSE
from rfviz.kernels.pictures import Pairing, central, correlations, pairing
from rfviz.kernels.responses import LayerResponses
from rfviz.kernels.stream import Written
from rfviz.lab import results
from rfviz.lab.results import Evidence
from rfviz.lab.run import Run
from rfviz.nets.network import NETWORKS, Network
from rfviz.pages import inactive
from rfviz.pages.style import (
    GREY,
    BookFigure,
    Roles,
    answer,
    in_sentences,
    link_points,
    listed,
    measure,
    missing,
    no_contrast,
    roles,
)
from rfviz.stats import (
    AGREES,
    CANNOT_TELL,
    DISAGREES,
    NOTHING,
    TRAININGS,
    Interval,
    because,
    compare,
    few_trainings,
    judge,
)

Pair = tuple[str, str]


class Step(NamedTuple):
    """How alike the channels of two neighbouring layers are.

    Parameters
    ----------
    pairing : Pairing
        Of the channels that fire in both.
    gain : Tensor of float64, shape (C,)
        See `own_minus_all`.
    """

    pairing: Pairing
    gain: Tensor


class Shown(NamedTuple):
    """What the page shows; by name of a network, those of bottleneck blocks only in `sparsity`.

    Parameters
    ----------
    roles : Roles
    steps : dict from network and pair of layers to Step
        Of the first run.
    keeps : Interval
        See `keeps`.
    parts : dict from network to Parts
    sparsity : dict from network and ReLU to float
        Share of responses that are 0, of the first run.
    read : dict from network and convolution to Tensor, shape (C,)
        See `rfviz.kernels.stream.read_strength`; of the first run.
    evidence : dict from network to list of Evidence
        One per seed.
    more_inactive, more_at_equal_accuracy : Interval
        See `rfviz.pages.inactive.more_inactive`; the second of the accuracy control.
    explored : str or None
        See `rfviz.pages.style.place`; the explorer has the first seed.
    """

    roles: Roles
    steps: Mapping[str, Mapping[Pair, Step]]
    keeps: Interval
    parts: Mapping[str, "Parts"]
    sparsity: Mapping[str, Mapping[str, float]]
    read: Mapping[str, Mapping[str, Tensor]]
    evidence: Mapping[str, Sequence[Evidence]]
    more_inactive: Interval
    more_at_equal_accuracy: Interval = NOTHING
    explored: str | None = ""

    @property
    def networks(self) -> list[Network]:
        """The networks whose layer1 has the channels of the stem."""
        return _comparable(self.roles)

    @property
    def labelled(self) -> bool:
        """Whether the images have labels that the networks know."""
        return all(each.dose.labelled for replicas in self.evidence.values() for each in replicas)

    @property
    def left_out(self) -> str:
        """One line about the networks that are left out; empty where there is none."""
        titles = [each.title for each in self.roles.networks if each not in self.networks]
        return f"Left out, as its layer1 has more channels than its stem: {listed(titles)}." if titles else ""


def gather(runs: Sequence[Run]) -> Shown:
    """Return what the page shows of some runs that differ in their seed."""
    run = runs[0]
    names = [each.name for each in _comparable(run)]
    pooled = {each.name: [results.pooling(one, each.name) for one in runs] for each in run.networks}
    return Shown(
        roles=roles(run.networks),
        steps={name: steps(run.net(name).conv1.weight, results.stimuli(run, name), NETWORKS[name]) for name in names},
        keeps=keeps(runs),
        parts={name: parts(runs, name) for name in names},
        sparsity={each.name: results.sparsity(run, each.name) for each in run.networks},
        read=inactive.read(run),
        evidence={name: [results.evidence(each, name) for each in runs] for name in names},
        more_inactive=inactive.more_inactive(pooled, run.subject, run.contrast),
        more_at_equal_accuracy=inactive.more_inactive(pooled, run.accuracy_control, run.contrast),
    )


def _comparable(run: Run | Roles) -> list[Network]:
    return [each for each in run.networks if not each.bottleneck]


# -- does a channel keep its feature? ----------------------------------------------------------------------------------


class Pictures(NamedTuple):
    """The pictures of C channels in a layer, `(C, 3, R, R)`, and which of the channels fire there, bool `(C,)`."""

    images: Tensor
    fires: Tensor


def strongest(found: LayerResponses) -> Pictures:
    """Return the means over the strongest neurons of a layer."""
    return Pictures(found.strongest_deviation, found.competes)


def own_minus_all(first: Pictures, second: Pictures) -> Tensor:
    """Return how much more like itself than like any channel a channel is in another layer, `(C,)`.

    The correlation of its two pictures minus the mean over all pairs of channels; the larger pictures are cut to the
    size of the smaller. NaN where a channel does not fire in both layers.
    """
    fires = first.fires & second.fires
    side = min(first.images.shape[-1], second.images.shape[-1])
    alike = correlations(central(first.images, side), central(second.images, side))
    return torch.where(fires, alike.diagonal() - alike[fires][:, fires].mean(), torch.nan)


def kept(found: Mapping[str, LayerResponses], network: Network) -> Tensor:
    """Return `own_minus_all` from each layer of `Network.stream` to the next, the mean over these steps, `(C,)`.

    NaN where a channel does not fire in two neighbouring layers.
    """
    layers = [strongest(found[layer]) for layer in network.stream]
    return torch.stack([own_minus_all(*pair) for pair in pairwise(layers)]).nanmean(0)


def _kept(run: Run, network: str, control: str | None = None) -> Tensor:
    return kept(results.stimuli(run, network, control), NETWORKS[network])


class Parts(NamedTuple):
    """How far channels keep their feature from layer to layer, trained and with random weights, by two measures.

    Parameters
    ----------
    pictures, random_pictures : Interval
        Mean over channels of `kept`.
    responses, random_responses, cut : Interval
        Mean over channels of the correlation of a channel's responses with those of the same number in front of the
        block, above that of all pairs, averaged over blocks; the last with the skip of the block taken away, trained.
    learnt : Interval
        How much of what the pictures say is not there with random weights.
    """

    pictures: Interval
    random_pictures: Interval
    responses: Interval
    random_responses: Interval
    cut: Interval
    learnt: Interval


def parts(runs: Sequence[Run], network: str) -> Parts:
    """Measure `Parts` of a network, over channels, or over seeds where there are several runs."""

    def over(measure: Callable[[Run], Tensor]) -> Interval:
        return stats.over_seeds([stats.mean(measure(run)) for run in runs])

    return Parts(
        over(lambda run: _kept(run, network)),
        over(lambda run: _kept(run, network, "random weights")),
        over(lambda run: _own_response(run, network)),
        over(lambda run: _own_response(run, network, "random weights")),
        over(lambda run: _own_response(run, network, which="cut")),
        stats.over_seeds(
            [stats.difference(_kept(run, network), _kept(run, network, "random weights")) for run in runs]
        ),
    )


def _own_response(run: Run, network: str, control: str | None = None, which: str = "whole") -> Tensor:
    each = [getattr(block, which) for block in results.handed_on(run, network, control).values()]
    return torch.stack([alike.diagonal() - alike.nanmean() for alike in each]).nanmean(0)


def keeps(runs: Sequence[Run], subject: Network | None = None) -> Interval:
    """Return the mean of `kept` in the subject minus that in the contrast; `NOTHING` where one is not to be had.

    The subject is that of the runs, unless another is given.
    """
    return _subject_minus_contrast(_kept, runs, subject)


def keeps_responses(runs: Sequence[Run], subject: Network | None = None) -> Interval:
    """Return the same as `keeps` by the correlation of responses, see `Parts`."""
    return _subject_minus_contrast(_own_response, runs, subject)


def _subject_minus_contrast(
    measure: Callable[[Run, str], Tensor], runs: Sequence[Run], subject: Network | None
) -> Interval:
    subject, contrast = subject or runs[0].subject, runs[0].contrast
    if contrast is None or subject.bottleneck or contrast.bottleneck:
        return NOTHING
    return stats.over_seeds([stats.difference(measure(run, subject.name), measure(run, contrast.name)) for run in runs])


def steps(filters: Tensor, found: Mapping[str, LayerResponses], network: Network) -> dict[Pair, Step]:
    """Compare the channels of neighbouring layers, number by number.

    Parameters
    ----------
    filters : Tensor, shape (C, 3, F, F)
        Of the first convolution.
    found : dict from layer to LayerResponses
        With the mean over the strongest neurons, which is what is compared. Only channels that fire in both layers
        count.
    network : Network
    """
    layers = {
        "conv1": Pictures(filters.detach().cpu(), torch.ones(len(filters), dtype=torch.bool)),
        **{layer: strongest(found[layer]) for layer in network.stream},
    }
    compared = {}
    for pair in pairwise(layers):
        first, second = (layers[layer] for layer in pair)
        both = first.fires & second.fires
        compared[pair] = Step(pairing(first.images[both], second.images[both]), own_minus_all(first, second))
    return compared


def channel_pairings(shown: Shown) -> Figure:
    """Draw Fig. S10: how alike channels of the same number are in two layers, beside random pairings."""
    networks = shown.networks
    if not networks:
        return missing(shown.left_out)
    figure = BookFigure(3.2)
    ax = figure.subplots()
    longest = max(networks, key=lambda each: len(each.stream))
    places = {pair: x for x, pair in enumerate(shown.steps[longest.name])}
    for i, network in enumerate(networks):
        shift, marker = 0.72 / len(networks) * (i - (len(networks) - 1) / 2), "osD^v"[i % 5]
        ax.plot([], [], marker, color=network.colour, label=network.title)
        for pair, (each, _) in shown.steps[network.name].items():
            if not len(each.same):
                continue
            x = places[pair] + shift
            low, high = np.percentile(each.by_chance.numpy(), [2.5, 97.5])
            ax.plot([x, x], [low, high], color=GREY, linewidth=7, solid_capstyle="butt", alpha=0.5)
            ax.plot(x, each.same.mean().item(), marker, color=network.colour)
    ax.plot([], [], color=GREY, linewidth=7, alpha=0.5, label="95 % of random pairings")
    ax.axhline(0, color=GREY, linewidth=0.8, linestyle=":")
    ax.set_xticks(range(len(places)), ["\n".join(_short(longest, layer) for layer in pair) for pair in places])
    ax.set_ylabel("mean correlation of channels\nof the same number")
    ax.legend(frameon=False)
    return figure


def _short(network: Network, layer: str) -> str:
    return {"conv1": "filter", "maxpool": "pooling"}.get(layer, network.layer_title(layer).replace("layer ", ""))


def pairing_table(shown: Shown) -> pd.DataFrame:
    """Return the correlations of channels of the same number, of random pairings, and their difference, as text."""
    rows = [
        {
            "network": network.title,
            "layers": ", ".join(network.layer_title(layer) for layer in pair),
            "same number: mean": _number(each.same),
            "median (95 % interval)": stats.median(each.same).brief(),
            "random pairings: mean": _number(each.by_chance),
            "same number minus all pairs (95 % interval)": stats.mean(gain).brief(),
            "channels": len(each.same),
        }
        for network in shown.networks
        for pair, (each, gain) in shown.steps[network.name].items()
    ]
    return pd.DataFrame(rows).set_index(["network", "layers"]) if rows else pd.DataFrame()


def _number(values: Tensor) -> str:
    return f"{values.mean():+.2f}" if len(values) else "–"


def parts_table(shown: Shown) -> pd.DataFrame:
    """Return what of keeping a feature is architecture and what is learnt, per network, as text; see `Parts`."""
    rows = [
        {
            "network": network.title,
            "pictures": found.pictures.brief(),
            "pictures, random weights": found.random_pictures.brief(),
            "responses": found.responses.brief(),
            "responses, random weights": found.random_responses.brief(),
            "responses, skip cut": found.cut.brief() if network.shares_channels else "–",
        }
        for network, found in ((each, shown.parts[each.name]) for each in shown.networks)
    ]
    return pd.DataFrame(rows).set_index("network") if rows else pd.DataFrame()


def pairing_answer(shown: Shown) -> Markdown:
    """Say whether channels keep their feature, and in which network more."""
    sentences = []
    for network in shown.networks:
        signs = [stats.mean(step.gain).sign for step in shown.steps[network.name].values()]
        less = f", and less alike in {signs.count(-1)}" if -1 in signs else ""
        sentences.append(
            f"In {network.title}, channels of the same number are more alike than all pairs on average in "
            f"{signs.count(1)} of {len(signs)} steps from a layer to the next{less}."
        )
    if shown.networks:
        each = listed([f"{shown.parts[network.name].pictures:+.2f} in {network.title}" for network in shown.networks])
        sentences.append(f"Between layers (the filter aside), the correlation above that of all pairs averages {each}.")
        sentences += [
            f"With random weights, it is {found.random_pictures.value:+.2f} in {network.title}, which is architecture; "
            f"{_learnt(found.learnt)}."
            for network, found in ((each, shown.parts[each.name]) for each in shown.networks)
        ]
        sentences.append(_which_keeps(shown))
    return answer([*sentences, shown.left_out])


def _learnt(more: Interval) -> str:
    words = {1: "what is learnt adds", 0: "whether what is learnt adds to it is undecided:", -1: "what is learnt takes"}
    return f"{words[more.sign]} {more:+.2f}"


def _which_keeps(shown: Shown) -> str:
    subject, contrast = shown.roles.subject, shown.roles.contrast
    if contrast is None:
        return no_contrast(shown.roles)
    if {subject, contrast} - {*shown.networks}:
        return ""
    order = {
        AGREES: f"a channel keeps its feature more in {subject.title}",
        DISAGREES: f"a channel keeps its feature less in {subject.title}",
        CANNOT_TELL: "in which of the two a channel keeps its feature more is undecided",
    }[compare(shown.keeps, count := len(shown.evidence[subject.name]))]
    few = f" ({few_trainings(count)})" if count < TRAININGS else ""
    return f"What {subject.title} has of it minus what {contrast.title} has is {shown.keeps:+.2f}: {order}{few}."


# -- how sparse are the layers? ----------------------------------------------------------------------------------------


def sparsity_profile(shown: Shown) -> Figure:
    """Draw Fig. S11: the share of zeros after every ReLU; open marks are those inside a block."""
    figure = BookFigure(3.0)
    ax = figure.subplots()
    for i, network in enumerate(shown.roles.networks):
        profile, colour, marker = shown.sparsity[network.name], network.colour, "osD^v"[i % 5]
        values = 100 * np.array(list(profile.values()))
        inner = np.array([".relu" in name for name in profile])
        places = np.arange(len(values))
        ax.plot(places, values, color=colour, linewidth=1, label=network.title)
        ax.plot(places[~inner], values[~inner], marker, color=colour, markersize=4)
        ax.plot(places[inner], values[inner], marker, color=colour, markersize=4, markerfacecolor="white")
    ax.set(xlabel="ReLU, from the stem to the last block", ylabel="responses that are 0 (%)", ylim=(0, 100))
    ax.legend(frameon=False)
    return figure


def zigzag(profile: Mapping[str, float]) -> tuple[int, int]:
    """Return in how many blocks more responses are 0 after the last inner ReLU than at the output, and the blocks."""
    ends = [(first, second) for first, second in pairwise(profile) if ".relu" in first and ".relu" not in second]
    return sum(profile[inner] > profile[block] for inner, block in ends), len(ends)


def sparsity_answer(shown: Shown) -> Markdown:
    """Say whether the profile goes up and down."""
    sentences = []
    for network in shown.roles.networks:
        profile = shown.sparsity[network.name]
        higher, blocks = zigzag(profile)
        values = list(profile.values())
        turns = sum((b - a) * (c - b) < 0 for a, b, c in zip(values, values[1:], values[2:], strict=False))
        sentences.append(
            f"In {network.title}, more responses are 0 after the inner ReLU than at the output in {higher} of {blocks} "
            f"blocks, and the profile changes its direction at {turns} of {len(values) - 2} places."
        )
    return answer(sentences)


# -- whose channels are they? ------------------------------------------------------------------------------------------


def written_shares(shown: Shown) -> Figure:
    """Draw Fig. S17: for each block the share of a channel's variance that it has written, by firing rate.

    A row for each network with skips, beside one with random weights, which has firing rates of its own.
    """
    networks = [each for each in shown.networks if each.shares_channels]
    if not networks:
        return missing("This needs a network whose skips hand on the channels of the stem; this run has none.")
    figure = BookFigure(0.3 + 2.6 * len(networks))
    columns = max(len(each.stream) - 1 for each in networks)
    grid = figure.subplots(len(networks), columns, squeeze=False, sharey=True)
    for panels, network in zip(grid, networks, strict=True):
        first = shown.evidence[network.name][0]
        for ax in panels[len(first.written) :]:
            ax.axis("off")
        for ax, layer in zip(panels, network.stream[1:], strict=False):
            for each, mark, colour, label in (
                (first.by_chance[layer], "^", GREY, "random weights"),
                (first.written[layer], "o", network.colour, network.title),
            ):
                rates, shares = 100 * each.given.numpy(), 100 * each.share.numpy()
                ax.plot(rates, shares, mark, color=colour, markersize=4, label=label)
            link_points(ax, rates, shares, network, layer, range(len(rates)), shown.explored)
            middle = stats.median(first.written[layer].share)
            ax.set_title(f"{network.layer_title(layer)}\nmedian {middle.value:.0%}")
            ax.set_xlabel("firing rate in the\nfirst pooling layer (%)")
        panels[0].set_ylabel("variance written by the block (%)")
    keys = {label: handle for ax in grid[:, 0] for handle, label in zip(*ax.get_legend_handles_labels(), strict=True)}
    figure.legend(keys.values(), keys.keys(), loc="outside lower center", ncols=len(keys), frameon=False)
    return figure


def ablations(shown: Shown) -> Figure:
    """Draw Fig. S18: the change of the loss without one channel, early and late; tested channels are ringed."""
    if not shown.networks:
        return missing(shown.left_out)
    figure = BookFigure(5.2)
    grid = figure.subplots(2, len(shown.networks), squeeze=False, sharey="row", sharex="col")
    for column, network in zip(grid.T, shown.networks, strict=True):
        evidence = shown.evidence[network.name][0]
        rates, ringed = 100 * evidence.firing_rate.numpy(), evidence.tested.numpy()
        for ax, layer in zip(column, (network.stream[0], network.stream[-1]), strict=True):
            each = [evidence.dose.mean(channel) for channel in evidence.ablated[layer]]
            middle = np.array([interval.value for interval in each])
            reach = [[i.value - i.low for i in each], [i.high - i.value for i in each]]
            ax.errorbar(
                rates, middle, np.nan_to_num(reach), fmt="none", ecolor=network.colour, elinewidth=0.7, alpha=0.6
            )
            ax.plot(rates, middle, "o", color=network.colour, markersize=4)
            link_points(ax, rates, middle, network, layer, range(len(rates)), shown.explored)
            ax.plot(rates[ringed], middle[ringed], "o", markersize=8, markerfacecolor="none", color="black")
            ax.axhline(0, color="black", linewidth=0.8, linestyle=":")
            ax.set_title(f"{network.title}\n{network.layer_title(layer)}")
        column[-1].set_xlabel("firing rate in the\nfirst pooling layer (%)")
    for ax in grid[:, 0]:
        ax.set_ylabel(f"{measure(shown.labelled).name} (nats)")
    return figure


def filled_table(shown: Shown) -> pd.DataFrame:
    """Return how often the tested channels fire in the first pooling layer and behind each block, as text."""
    rows = []
    for network in shown.networks:
        found = shown.evidence[network.name][0]
        for layer, rates in found.fires.items():
            tested, others = (100 * rates[each] for each in (found.tested, ~found.tested))
            rows.append(
                {
                    "network": network.title,
                    "layer": network.layer_title(layer),
                    "inactive" if found.inactive else "least active": _range(tested),
                    "the others": _range(others),
                }
            )
    return pd.DataFrame(rows).fillna("–").set_index(["network", "layer"]) if rows else pd.DataFrame()


def _range(rates: Tensor) -> str:
    if not len(rates):
        return "–"
    return f"{rates.mean():.0f} % ({rates.min():.0f} to {rates.max():.0f} %)"


def readers_table(shown: Shown) -> pd.DataFrame:
    """Return how much more strongly the tested channels are read than others, per network and convolution, as text."""
    rows = []
    for network in shown.networks:
        found = shown.evidence[network.name][0]
        for reader, strength in shown.read[network.name].items():
            tested = strength[found.tested]
            rows.append(
                {
                    "network": network.title,
                    "read by": _reader(network, reader),
                    "inactive" if found.inactive else "least active": f"{tested.mean():.2f}",
                    "minus the others": f"{stats.difference(tested, strength[~found.tested]):+.2f}",
                }
            )
    return pd.DataFrame(rows).fillna("–").set_index(["network", "read by"]) if rows else pd.DataFrame()


def _reader(network: Network, convolution: str) -> str:
    """Return what a convolution in `Network.readers` is called."""
    block, _, name = convolution.partition(".downsample")
    if name:
        return f"projection around the block of {network.layer_title(block)}"
    return f"block of {network.layer_title(convolution.removesuffix('.conv1'))}"


def ownership_answer(shown: Shown) -> Markdown:
    """Say who writes the tested channels and whether the network needs them early or late."""
    sentences = []
    for network in shown.networks:
        found, title, wrote = shown.evidence[network.name][0], network.title, ""
        if found.written:
            share = found.written[network.stream[1]].share
            own, others = stats.mean(share[found.tested]), stats.mean(share[~found.tested])
            by_first = "all" if own.value == 1 else f"{own:.0%}"
            wrote = (
                f"Of the variance of the {'inactive' if found.inactive else 'least active'} channels of {title}, the "
                f"first block has written {by_first}; of that of the others {others:.0%}. "
            )
        early, late = (found.ablated[layer][found.tested].mean(0) for layer in (network.stream[0], network.stream[-1]))
        gap = found.dose.mean(late - early)
        them = "these channels" if found.written else "channels of the same numbers, which are others there,"
        behind = f"behind {network.layer_title(network.stream[-1])} than in the first pooling layer"
        sentence = {
            AGREES: f"{title} depends on {them} more {behind}",
            DISAGREES: f"{title} depends on {them} less {behind}",
            CANNOT_TELL: f"Whether {title} depends on {them} more {behind} is undecided",
        }[judge(gap)]
        sentences.append(
            f"{wrote}{sentence} (in nats, difference of the {measure(found.dose.labelled).names}: {gap:+.3f})."
        )
    return answer([*sentences, shown.left_out])


# -- five predictions --------------------------------------------------------------------------------------------------


STRANGE = 0.05
"""Share of the contrast energy (sum of squares) of a mean stimulus outside the filters that counts, and least
difference of groups in it."""

ALL_MADE = (
    f"in no channel do {STRANGE:.0%} of the contrast energy of the mean stimulus lie outside the span of the filters, "
    "so that none could be stranger than others"
)


def all_made(evidence: Evidence) -> bool:
    """Tell whether filters make the mean stimuli of all channels behind layer1, to less than `STRANGE` of them."""
    measured = evidence.strange[evidence.strange.isfinite()]
    return len(measured) > 0 and bool((measured < STRANGE).all())


def unlike(evidence: Evidence) -> Interval:
    """Return how strange to the filters tested channels are behind layer1 (see `Evidence`), minus the others.

    `NOTHING` where `all_made`: none could be stranger.
    """
    if all_made(evidence):
        return NOTHING
    return stats.difference(evidence.strange[evidence.tested], evidence.strange[~evidence.tested])


def none_inactive(network: Network) -> str:
    """Say why no verdict on inactive channels is possible where a network has none."""
    return f"{network.title} has no inactive channel in this run; its least active ones stand in for them"


NO_LABELS = "the images have no labels that the networks know, and a divergence does not tell harm from help"
"""Why a statement on the loss is undecided."""


class Prediction(NamedTuple):
    """A prediction of the hypothesis and what a run says of it."""

    says: str
    test: str
    measured: str
    control: str
    verdict: str
    why: str


def predictions(shown: Shown) -> list[Prediction]:
    """Test the five predictions on subject and contrast, over seeds where there are several.

    Where the subject has inactive channels, only such networks count in 3 to 5; where none has, the least active
    channels are measured, but decide nothing. None are tested where the subject has no skips to share channels by, and
    what needs a contrast is undecided without one.
    """
    subject, contrast = shown.roles.subject, shown.roles.contrast
    if not subject.shares_channels:
        return []
    ours = shown.evidence[subject.name]
    plain = shown.evidence[contrast.name] if contrast else []
    any_inactive = any(each.inactive for each in ours)
    having = [i for i, each in enumerate(ours) if each.inactive or not any_inactive]
    tested = "inactive" if any_inactive else "least active"
    other = contrast.title if contrast else "a network without skips"
    first, last = (subject.layer_title(layer) for layer in (subject.stream[1], subject.stream[-1]))

    def over(measure: Callable[[Evidence], Interval], networks: Sequence[Evidence]) -> Interval:
        return stats.over_seeds([measure(networks[i]) for i in having]) if networks else NOTHING

    def verdict(
        measured: Interval, expected: int = 1, compares: bool = False, controlled: Interval | None = None,
        of_loss: bool = False,
    ) -> tuple[str, str]:  # fmt: skip
        if compares and contrast is None:
            return CANNOT_TELL, no_contrast(shown.roles)
        if not any_inactive:
            return CANNOT_TELL, none_inactive(subject)
        if of_loss and not shown.labelled:
            return CANNOT_TELL, NO_LABELS
        if compares and len(ours) < TRAININGS:
            return CANNOT_TELL, few_trainings(len(ours))
        found = judge(measured, expected)
        if controlled is not None and found != CANNOT_TELL and judge(controlled, expected) != found:
            return CANNOT_TELL, "at equal accuracy it cannot be told"
        return found, because(measured)

    def noise(each: Evidence, other: Evidence, group: str) -> Interval:
        # A contrast without inactive channels has none to disturb: nothing changes.
        none = any_inactive and not other.inactive and group == "tested"
        return each.dose.mean(_noise(each, group) - (0 if none else _noise(other, group)))

    def filled_by(name: str) -> Interval:
        return stats.over_seeds([_filled(getattr(each, name)[subject.stream[1]]) for each in ours])

    def without(layer: str) -> Interval:
        return over(lambda each: each.dose.mean(each.ablated[layer][each.tested].mean(0)), ours)

    def hurts_more(group: str) -> Interval:
        return stats.over_seeds([noise(ours[i], plain[i], group) for i in having]) if plain else NOTHING

    more, strange = shown.more_inactive, over(unlike, ours)
    filled, by_chance = filled_by("written"), filled_by("by_chance")
    early, late = without(subject.stream[0]), without(subject.stream[-1])
    hurts, matched = hurts_more("tested"), hurts_more("matched")
    controlled, same = shown.roles.accuracy_control, None
    if controlled and plain:
        weaker = shown.evidence[controlled.name]
        same = stats.over_seeds([noise(weaker[i], plain[i], "tested") for i in having if weaker[i].inactive])
    at_equal_accuracy = f"; {controlled.title}: {same:+.3f}" if controlled and same else ""
    return [
        Prediction(
            f"{subject.title} has more inactive channels than {other}.",
            "difference of the shares of channels",
            f"{more:+.1%}",
            f"{controlled.title}: {shown.more_at_equal_accuracy:+.1%}" if controlled else "–",
            *verdict(more, compares=True, controlled=shown.more_at_equal_accuracy if controlled else None),
        ),
        Prediction(
            "The first block writes more to channels that fire less in the first pooling layer.",
            f"rank correlation of firing rate and variance of what {first} adds, expected below 0 (of the variance "
            "itself: its share, in Fig. S17, is all where nothing comes in)",
            f"{filled:+.2f}", f"random weights: {by_chance:+.2f}", judge(filled, -1), because(filled),
        ),
        Prediction(
            f"The {tested} channels are in use behind {last}.",
            f"{measure(shown.labelled).name} (nats) when one of them is set to 0 there",
            f"{late:+.3f}", f"in the first pooling layer: {early:+.3f}", *verdict(late, of_loss=True),
        ),
        Prediction(
            f"The {tested} channels hold something at {last} that no mixture of the filters makes.",
            "share of the contrast energy of the mean stimulus outside the span of all filters, minus the others'",
            f"{strange:+.2f}", f"{other}: {over(unlike, plain):+.2f}",
            *((CANNOT_TELL, ALL_MADE) if any_inactive and any(map(all_made, ours)) else verdict(strange)),
        ),
        Prediction(
            f"Noise in the {tested} channels hurts {subject.title} more than {other}.",
            f"difference of the {measure(shown.labelled).names} (nats), σ = 1",
            f"{hurts:+.3f}", f"in matched active channels: {matched:+.3f}{at_equal_accuracy}",
            *verdict(hurts, compares=True, controlled=same, of_loss=True),
        ),
    ]  # fmt: skip


def _filled(first: Written) -> Interval:
    return stats.rank_correlation(first.given, first.variance)


def _noise(each: Evidence, group: str) -> Tensor:
    return each.dose.loss[group][each.dose.doses.index(PAPER_DOSE)]


def predictions_table(shown: Shown) -> HTML:
    """Return the predictions for people."""
    found = predictions(shown)
    return in_sentences(
        pd.DataFrame(
            {
                "prediction": [each.says for each in found],
                "measured": [f"{each.test[0].upper()}{each.test[1:]}: {each.measured}." for each in found],
                "for comparison": [each.control for each in found],
                "verdict": [f"{each.verdict}: {each.why}" for each in found],
            }
        )
    )


def predictions_answer(shown: Shown) -> Markdown:
    """Say how the hypothesis fares."""
    found, subject = predictions(shown), shown.roles.subject
    if not found:
        return Markdown(
            "**Answer.** The predictions are about a network whose skips hand on the channels of the stem; "
            f"{subject.title}, the first of this run, is none."
        )
    agrees, disagrees = (sum(each.verdict == verdict for each in found) for verdict in (AGREES, DISAGREES))
    sentence = (
        f"**Answer.** Of the {len(found)} predictions, this run agrees with {agrees} and disagrees with {disagrees}; "
        f"it cannot tell about {len(found) - agrees - disagrees}."
    )
    if len(shown.evidence[subject.name]) == 1:
        sentence += " Each network was trained once: the intervals are over channels and images, not over trainings."
    return Markdown(sentence)
