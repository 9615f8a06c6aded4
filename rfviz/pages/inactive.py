"""The page on inactive neurons: which channels never fire, why, since when, and what noise in them does (Table 1)."""

from collections.abc import Callable, Mapping, Sequence
from statistics import fmean
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import torch
from IPython.display import Markdown
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from torch import Tensor

from rfviz import stats
from rfviz.kernels.noise import PAPER_DOSE, VARIANTS, Disturbances, NoiseDose, NoiseEffect
from rfviz.kernels.responses import LayerResponses
from rfviz.kernels.silent import RARE, Silence, control_count, inactive_channels
from rfviz.kernels.stream import read_strength
from rfviz.lab import results
from rfviz.lab.run import Run
from rfviz.nets.network import NETWORKS, Network
from rfviz.pages import figures
from rfviz.pages.style import (
    DIVERGENCE,
    GREY,
    BookFigure,
    answer,
    channel_link,
    link_points,
    listed,
    measure,
    place,
    points,
    roles,
)
from rfviz.stats import AGREES, CANNOT_TELL, DISAGREES, NOTHING, TRAININGS, Interval, compare, few_trainings

Effects = Mapping[str, Sequence[NoiseEffect]]
"""By network, the noise experiment of each trained network of that name: one per seed, which are replicas."""

History = Sequence[Mapping[str, Any]]
"""See `rfviz.training.trainer.train`."""

PAPER_TABLE = {
    "resnet34": ("13 of 64", {"inactive": 1.26962, "random_inactive": 2.40560e-2}),
    "plainnet34": ("2 of 64", {"inactive": -1.66893e-6, "random_inactive": -8.34465e-7}),
}
"""Table 1 of the paper: the inactive channels, and by row of ours the two loss differences in nats."""

MORE = 0.05
"""Least difference of two networks in the share of inactive channels."""


class Shown(NamedTuple):
    """What the page shows; each field but the first by network.

    Parameters
    ----------
    seeds : sequence of int
        Of the replicas.
    pooled, effects, silences : dict of list
        Activity of the first pooling layer, noise experiment, and what keeps channels from firing, one per seed.
    driven : dict of list of bool Tensor, shape (C,)
        Whether activation maximization made the channel fire, one per seed.
    histories : dict of list
        History of training of the first seed.
    doses : dict of NoiseDose
        Of the first seed.
    why : dict of Why
        Over seeds where there are several.
    explored : str or None
        See `rfviz.pages.style.place`; the explorer has the first seed.
    """

    seeds: Sequence[int]
    pooled: Mapping[str, Sequence[LayerResponses]]
    effects: Effects
    silences: Mapping[str, Sequence[Silence]]
    driven: Mapping[str, Sequence[Tensor]]
    histories: Mapping[str, History]
    doses: Mapping[str, NoiseDose]
    why: Mapping[str, "Why"]
    explored: str | None = ""


class Why(NamedTuple):
    """How disturbances of a network's silent channels change its loss, nats.

    Parameters
    ----------
    inactive : bool
        Whether the channels are inactive; else they are the least active ones.
    changes : dict from variant to dict from str to Interval
        By name of `rfviz.kernels.noise.VARIANTS`: for the ``"tested"`` channels, as many ``"matched"`` active ones, and
        the ``"difference"``.
    paths : Interval
        Noise in the skip of the first block alone minus noise in its convolutions alone; `NOTHING` without skips.
    noise_minus_offset : Interval
        Noise minus the constant offset of its mean.
    labelled : bool
        Whether the images have labels; if not, the changes are divergences of the output.
    """

    inactive: bool
    changes: Mapping[str, Mapping[str, Interval]]
    paths: Interval
    noise_minus_offset: Interval
    labelled: bool = True


def gather(runs: Sequence[Run]) -> Shown:
    """Return what the page shows of some runs that differ in their seed."""
    networks = {each.name: each for each in runs[0].networks}
    return Shown(
        seeds=[run.seed for run in runs],
        pooled={name: [results.pooling(run, name) for run in runs] for name in networks},
        effects={name: [results.noise_effect(run, name) for run in runs] for name in networks},
        silences={name: [results.silence(run, name) for run in runs] for name in networks},
        driven={
            name: [results.maxima(run, name, network.stream[0]).activations.amax(0) > 0 for run in runs]
            for name, network in networks.items()
        },
        histories={name: results.history(runs[0], name) for name in networks},
        doses={name: results.noise_dose(runs[0], name) for name in networks},
        why={name: why(runs, name) for name in networks},
    )


# -- measures that other pages share -----------------------------------------------------------------------------------


def more_inactive(
    found: Mapping[str, Sequence[LayerResponses | NoiseEffect]], one: Network | None, other: Network | None
) -> Interval:
    """Return the share of inactive channels of one network minus that of another; `NOTHING` where one is missing.

    Within one pair of networks the interval is over channels; of several pairs, it is over seeds.

    Parameters
    ----------
    found : dict from network to sequence of LayerResponses or NoiseEffect
        What tells which channels of the first pooling layer are inactive, one per seed.
    one, other : Network or None
    """
    if one is None or other is None:
        return NOTHING
    counts = ([(len(_inactive(each)), each.channels) for each in found[network.name]] for network in (one, other))
    return stats.over_seeds([stats.share_difference(*pair) for pair in zip(*counts, strict=True)])


def _inactive(found: LayerResponses | NoiseEffect) -> tuple[int, ...]:
    return found.inactive if isinstance(found, NoiseEffect) else inactive_channels(found)


def noise_change(replicas: Sequence[NoiseEffect], row: str, of: str = "loss") -> Interval:
    """Return how a row of Table 1 changes the ``"loss"`` of a network, nats, or its ``"top1"`` accuracy.

    The interval is over images of one network, or over networks where there are several; those without an inactive
    channel to disturb do not count. `row` is one of `rfviz.kernels.noise.ROWS`.
    """
    return stats.over_seeds(
        [getattr(found.effects[row], f"{of}_interval") if row in found.effects else NOTHING for found in replicas]
    )


def why(runs: Sequence[Run], network: str) -> Why:
    """Measure what disturbances of silent channels do to a network.

    Of several networks, those without an inactive channel do not count where another has one.
    """
    every = [(results.noise_dose(run, network), results.disturbances(run, network)) for run in runs]
    having = [pair for pair in every if pair[0].inactive]
    found = having or every

    def over(measure: Callable[[Disturbances], Tensor]) -> Interval:
        return stats.over_seeds([dose.mean(measure(each)) for dose, each in found])

    def changes(variant: str) -> dict[str, Interval]:
        measured = {"tested": over(lambda each: each.tested[variant]), "matched": NOTHING, "difference": NOTHING}
        if all(dose.matched for dose, _ in found):
            measured["matched"] = over(lambda each: each.matched[variant])
            measured["difference"] = over(lambda each: each.tested[variant] - each.matched[variant])
        return measured

    variants = found[0][1].tested
    return Why(
        bool(having),
        {variant: changes(variant) for variant in variants},
        over(lambda each: each.tested["skip"] - each.tested["convolutions"]) if "skip" in variants else NOTHING,
        over(lambda each: each.tested["noise"] - each.tested["offset"]),
        found[0][0].labelled,
    )


# -- how often channels fire, and why not ------------------------------------------------------------------------------


def _names(network: str, seeds: Sequence[int]) -> list[str]:
    """Return what each replica of a network is called."""
    title = NETWORKS[network].title
    return [f"{title}, seed {seed}" for seed in seeds] if len(seeds) > 1 else [title]


def _channels(count: int, kind: str) -> str:
    number = {0: "no", 1: "one"}.get(count, count)
    return f"{number} {kind} channel{'s' * (count > 1)}"


def counted(shown: Shown) -> Markdown:
    """Say which channels never fire."""
    if not any(found.inactive for replicas in shown.effects.values() for found in replicas):
        return Markdown(
            "No network of this run has an inactive channel: the table shows networks that have some. Where this page "
            "asks for silent channels, it takes the least active ones of this run."
        )
    sentences = []
    for network, replicas in shown.effects.items():
        explored = [shown.explored, *[None] * len(replicas)]
        for name, found, key in zip(_names(network, shown.seeds), replicas, explored, strict=False):
            numbers = [channel_link(NETWORKS[network], "maxpool", channel, key) for channel in found.inactive]
            which = f": {', '.join(numbers)}" if numbers else ""
            sentences.append(
                f"{name} has {_channels(len(found.inactive), 'inactive')} of {found.channels} on {found.images:,} "
                f"evaluation images{which}."
            )
    return points(sentences)


def elsewhere(found: Mapping[str, Effects]) -> pd.DataFrame:
    """Return the inactive channels of several runs, and what noise in them does, beside the paper's, as text.

    Parameters
    ----------
    found : dict from str to Effects
        By what a reader calls each run.
    """
    columns = {
        "inactive": "ΔL (nats)",
        "random_inactive": "ΔL_rnd (nats)",
        "random_active": "random active (control, nats)",
    }
    rows = [
        {"run": "the paper", "network": NETWORKS[name].title, "inactive": inactive}
        | {columns[row]: stats.number(change, ".3g") for row, change in changes.items()}
        for name, (inactive, changes) in PAPER_TABLE.items()
    ]
    for run, effects in found.items():
        called = run if _labelled(effects) else f"{run} ({DIVERGENCE.symbol} in place of ΔL)"
        for name, replicas in effects.items():
            mean = f" (mean of {len(replicas)} networks)" if len(replicas) > 1 else ""
            inactive = f"{fmean(len(each.inactive) for each in replicas):.3g} of {replicas[0].channels}{mean}"
            rows.append(
                {"run": called, "network": NETWORKS[name].title, "inactive": inactive}
                | {text: noise_change(replicas, row).brief("+.3g") for row, text in columns.items()}
            )
    return pd.DataFrame(rows).fillna("–").set_index(["run", "network"])


def firing_rates(shown: Shown) -> Figure:
    """Draw Fig. S5: the share of neurons of each channel that fire, sorted; channels that never fire are crosses.

    Several networks of a kind, one per seed, are drawn one over the other; only the first has markers.
    """
    of_titles = {NETWORKS[name].title: NETWORKS[name] for name in shown.pooled}
    return figures.firing_rates(
        {title: shown.pooled[network.name] for title, network in of_titles.items()},
        {title: network.colour for title, network in of_titles.items()},
        lambda title, channel: place(of_titles[title], "maxpool", channel, shown.explored),
    )


def kinds_table(shown: Shown) -> pd.DataFrame:
    """Return how many channels are of each kind of `rfviz.kernels.silent.KINDS`, one row per trained network.

    ``silent: any picture`` and ``silent: maximization`` count those of the silent channels that a picture in [0, 1], or
    maximization (which may leave that range), can make fire.
    """
    rows = []
    for network, replicas in shown.silences.items():
        for name, found, driven in zip(_names(network, shown.seeds), replicas, shown.driven[network], strict=True):
            kinds, silent = found.kinds, found.firing_rate == 0
            rows.append(
                {
                    "network": name,
                    "channels": len(kinds),
                    "active": kinds.count("active"),
                    f"rarely active (< {100 * RARE:g} %)": kinds.count("rarely active"),
                    "silent by the shift": kinds.count("shift"),
                    "silent by the filter": kinds.count("filter"),
                    "silent: any picture": int((silent & found.reachable).sum()),
                    "silent: maximization": int((silent & driven).sum()),
                    "least active: fires in": f"{100 * float(found.firing_rate.min()):.2f} %",
                }
            )
    return pd.DataFrame(rows).set_index("network")


def kinds_answer(shown: Shown) -> Markdown:
    """Say why channels do not fire."""
    sentences = []
    for network, row in kinds_table(shown).iterrows():
        shift, filters = row["silent by the shift"], row["silent by the filter"]
        reached, driven = row["silent: any picture"], row["silent: maximization"]
        if shift + filters:
            sentences.append(
                f"{network} has {_channels(shift + filters, 'silent')}: {shift or 'none'} by the shift, "
                f"{filters or 'none'} by the filter. A picture with pixels from 0 to 1 makes {reached or 'none'} of "
                f"them fire; activation maximization, which may leave that range, {driven or 'none'}."
            )
        else:
            sentences.append(
                f"{network} has no silent channel to explain: its least active one fires at "
                f"{row['least active: fires in']} of the positions."
            )
    return answer(sentences)


SMALL = 0.001
"""Fig. S12 is logarithmic for values beyond this: those of silent channels are small."""


def room_to_fire(shown: Shown) -> Figure:
    """Draw Fig. S12: for every channel how high it goes before the ReLU, and how high any picture could drive it.

    Crosses are channels that never fire.
    """
    figure = BookFigure(3.0)
    axes = figure.subplots(1, len(shown.silences), squeeze=False, sharey=True)[0]
    for ax, (network, (found, *_)) in zip(axes, shown.silences.items(), strict=True):
        order = found.highest.argsort(descending=True)
        places = np.arange(len(order))
        ax.plot(places, found.reach[order].numpy(), "^", color=GREY, markersize=4, label="any picture at most")
        silent = found.firing_rate[order] == 0
        for those, marker, label in ((~silent, "o", "evaluation images at most"), (silent, "x", None)):
            ax.plot(
                places[those], found.highest[order][those].numpy(), marker, color=NETWORKS[network].colour,
                markersize=6 if marker == "x" else 4, label=label,
            )  # fmt: skip
        link_points(ax, places, found.highest[order], NETWORKS[network], "maxpool", order.tolist(), shown.explored)
        ax.plot(places, found.shift[order].numpy(), "_", color="black", label="mean: shift of batch norm")
        ax.axhline(0, color="black", linewidth=0.8, linestyle=":")
        ax.set_yscale("symlog", linthresh=SMALL, linscale=0.8)
        ax.set_yticks([-1, -SMALL, 0, SMALL, 1], ["-1", f"-{SMALL}", "0", f"{SMALL}", "1"])
        ax.minorticks_off()
        ax.set_title(NETWORKS[network].title)
        ax.set_xlabel("channel, sorted")
        ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes[0].set_ylabel("value before the ReLU")
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=3, frameon=False)
    return figure


# -- since when --------------------------------------------------------------------------------------------------------


def _known(history: History) -> list[Mapping[str, Any]]:
    return [entry for entry in history if "firing_rate" in entry]


def falling_silent(history: History) -> dict[int, int]:
    """Return for each channel that is silent at the end the epoch from which on it never fired.

    Entries of the history without firing rates give nothing.
    """
    known = _known(history)
    found = {}
    for channel, last in enumerate(known[-1]["firing_rate"] if known else []):
        if last == 0:
            awake = [i for i, entry in enumerate(known) if entry["firing_rate"][channel] > 0]
            found[channel] = known[awake[-1] + 1 if awake else 0]["epoch"]
    return found


def falling_answer(shown: Shown) -> Markdown:
    """Say when channels fell silent."""
    sentences = []
    for network, history in shown.histories.items():
        title, known, found = NETWORKS[network].title, _known(history), falling_silent(history)
        if not known:
            sentences.append(f"Of the training of {title}, it is not known how often channels fired.")
            continue
        rates = np.array([entry["firing_rate"] for entry in known])
        again = int((rates == 0).any(0).sum()) - len(found)
        if found:
            first, last = min(found.values()), max(found.values())
            when = f"epoch {first}" if first == last else f"epochs {first} to {last}"
            sentences.append(
                f"In {title}, {len(found)} channel{'s' * (len(found) > 1)} fell silent for good, in {when} of "
                f"{len(history)}; {again or 'no'} other{'s' * (again > 1)} {'were' if again > 1 else 'was'} silent at "
                "the end of an epoch and fired again later."
            )
        else:
            sentences.append(
                f"In {title}, no channel is silent at the end of training, and {again or 'none'} "
                f"{'were' if again > 1 else 'was'} at the end of an epoch before."
            )
    return answer(sentences)


def firing_history(shown: Shown) -> Figure:
    """Draw Fig. S13: how often each channel fires, epoch by epoch; those that end silent are black and dashed."""
    figure = BookFigure(2.9)
    axes = figure.subplots(1, len(shown.histories), squeeze=False, sharey=True)[0]
    for ax, (network, history) in zip(axes, shown.histories.items(), strict=True):
        known = _known(history)
        epochs = [entry["epoch"] for entry in known]
        for rates in zip(*(entry["firing_rate"] for entry in known), strict=True):
            silent = rates[-1] == 0
            ax.plot(
                epochs, 100 * np.array(rates), "--" if silent else "-",
                color="black" if silent else NETWORKS[network].colour, linewidth=1.6 if silent else 0.8,
                alpha=1 if silent else 0.6,
            )  # fmt: skip
        if known:
            rates = known[-1]["firing_rate"]
            ends = epochs[-1:] * len(rates), 100 * np.array(rates)
            link_points(ax, *ends, NETWORKS[network], "maxpool", range(len(rates)), shown.explored)
        else:
            ax.text(0.5, 0.5, "not recorded", transform=ax.transAxes, ha="center", color=GREY)
        ax.set(xlabel="epoch", ylim=(-3, 103))
        ax.set_title(NETWORKS[network].title)
        ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes[0].set_ylabel("neurons that fire (%)")
    return figure


# -- what noise does: Table 1 ------------------------------------------------------------------------------------------


def _labelled(effects: Effects) -> bool:
    return next(iter(effects.values()))[0].labelled


def table1(effects: Effects) -> pd.DataFrame:
    """Return Table 1 with two more rows, one of them the control, as text for people, beside the paper's numbers."""
    by = measure(_labelled(effects))
    rows = []
    for network, replicas in effects.items():
        counts, channels = [len(found.inactive) for found in replicas], replicas[0].channels
        several = f" ({min(counts)} to {max(counts)}, {len(counts)} networks)" if len(counts) > 1 else ""
        count, changes = PAPER_TABLE.get(network, (None, {}))
        in_paper = "" if count is None else f" (paper: {count})"
        control = control_count(channels)
        random = fmean(min(control, channels - count) for count in counts)
        names = {
            "inactive": f"all inactive: {by.symbol}",
            "random_inactive": f"one inactive, drawn per 256 images: {by.of_one}",
            "least_active": f"the {control} least active",
            "random_active": f"{random:.3g} random active (control)",
        }
        for row, noisy in names.items():
            having = sum(row in found.effects for found in replicas)
            some = f" [{having} of {len(replicas)} networks]" if 0 < having < len(replicas) else ""
            rows.append(
                {
                    "network": NETWORKS[network].title,
                    "inactive": f"{fmean(counts):.3g}{several} of {channels}{in_paper}",
                    "noise in": f"{noisy}{some}",
                    f"{by.symbol} (nats)": noise_change(replicas, row).brief("+.3g"),
                    "ΔL in the paper": stats.number(changes[row], ".6g") if row in changes else "–",
                    by.top1: noise_change(replicas, row, "top1").times(100).brief("+.2g"),
                }
            )
    return pd.DataFrame(rows).set_index(["network", "inactive", "noise in"])


def measured(effects: Effects) -> str:
    """Say what `table1` measures."""
    if _labelled(effects):
        return "the change of the evaluation loss and of top-1 accuracy"
    return (
        "the Kullback-Leibler divergence of the output from that without noise, and minus the share of images whose "
        "top-1 choice is another one"
    )


def spread_note(effects: Effects) -> str:
    """Say what the intervals of `table1` are over."""
    replicas = next(iter(effects.values()))
    control = replicas[0].effects["least_active"]
    seeds = f"{len(control.loss)} noise seed{'s' * (len(control.loss) != 1)}"
    if len(replicas) > 1:
        return f"Means over {seeds}, with 95 % intervals over {len(replicas)} trained networks"
    over = control.loss_interval
    return f"Means over {seeds}, with 95 % intervals over {over.n:,} {over.of}"


def noise_answer(effects: Effects) -> Markdown:
    """Say what the noise experiment shows, by the intervals of `more_inactive` and `noise_change`."""
    if any(found.inactive for replicas in effects.values() for found in replicas):
        said = [_verdict(network, replicas) for network, replicas in effects.items()]
    else:
        said = [
            "No network of this run has an inactive channel, so there is nothing for the paper's two experiments to "
            "disturb; only the two other rows can be measured. The paper finds 13 of 64 channels in ResNet34 and 2 in "
            "PlainNet34."
        ]
    return answer([_comparison(effects), *said])


def _comparison(effects: Effects) -> str:
    """Say whether a network with skips has more inactive channels than one without, as in the paper."""
    subject, contrast, controlled = roles([NETWORKS[name] for name in effects])[1:]
    if contrast is None:
        return f"There is no network with{'out' * subject.skips} skips to compare with."
    pair = (subject, contrast) if subject.skips else (contrast, subject)
    trainings, more = len(effects[subject.name]), more_inactive(effects, *pair)
    verdict = compare(more, trainings, MORE)
    ours, other = (each.title for each in pair)
    has = {
        AGREES: f"As in the paper, {ours} has more inactive channels than {other}",
        DISAGREES: f"Unlike in the paper, {ours} does not have more inactive channels than {other}",
        CANNOT_TELL: f"It cannot be told whether {ours} has more inactive channels than {other}",
    }[verdict]
    said = f"{has}, by {100 * MORE:g} points at least: the difference of their shares is {more:+.0%}."
    if controlled and subject.skips:
        equal = more_inactive(effects, controlled, contrast)
        same = {AGREES: "so it is", DISAGREES: "neither does it", CANNOT_TELL: "neither can it be told"}
        so = "it cannot be told whether it is so"
        if compare(equal, trainings, MORE) == verdict:
            so = same[verdict]
        said += f" At equal accuracy {so}: {controlled.title} minus {other} is {equal:+.0%}."
    return said if trainings >= TRAININGS else f"{said} ({few_trainings(trainings).capitalize()}.)"


def _verdict(network: str, replicas: Sequence[NoiseEffect]) -> str:
    title = NETWORKS[network].title
    having = [found for found in replicas if found.inactive]
    if not having:
        which = "has no inactive channel in this run" if len(replicas) == 1 else "never has an inactive channel"
        return f"{title} {which}, so the paper's two experiments have nothing to disturb."
    change = noise_change(replicas, "inactive")
    which, how_many = _channels(len(having[0].inactive), "inactive"), ""
    if len(replicas) > 1:
        which, how_many = "inactive channels", f"; networks that have any: {len(having)} of {len(replicas)}"
    words = {
        1: f"noise in the {which} raises the loss",
        0: f"it cannot be told whether noise in the {which} raises the loss",
        -1: f"noise in the {which} lowers the loss",
    }[change.sign]
    if not having[0].labelled:
        others = noise_change(replicas, "random_active")
        return (
            f"In {title}, noise in the {which} moves the output by a divergence of {change:.3g} nats{how_many}; noise "
            f"in randomly drawn active ones by {others:.3g}."
        )
    return f"In {title}, {words}: ΔL, in nats, is {change:+.3g}{how_many}."


# -- by dose, and one by one -------------------------------------------------------------------------------------------


def noise_doses(shown: Shown) -> Figure:
    """Draw Fig. S14: the change of the loss by dose with matched controls (top), and channel by channel (bottom)."""
    figure = BookFigure(5.0)
    grid = figure.subplots(2, len(shown.doses), squeeze=False)
    for top in grid[0, 1:]:
        top.sharey(grid[0, 0])
    for (top, bottom), (network, found) in zip(grid.T, shown.doses.items(), strict=True):
        colour = NETWORKS[network].colour
        which = "inactive" if found.inactive else "least active"
        for channels, group, style, shade, label in (
            (found.matched, "matched", "s--", GREY, f"{len(found.matched)} matched active"),
            (found.tested, "tested", "o-", colour, f"{len(found.tested)} {which}"),
        ):
            if not channels:
                continue
            means = [found.mean(each) for each in found.loss[group]]
            top.plot(found.doses, [each.value for each in means], style, color=shade, markersize=4, label=label)
            top.fill_between(
                found.doses, [each.low for each in means], [each.high for each in means], color=shade, alpha=0.2,
                linewidth=0,
            )  # fmt: skip
        top.axhline(0, color="black", linewidth=0.8, linestyle=":")
        top.set_xscale("log", base=2)
        top.set_xticks(found.doses, [f"{dose:g}" for dose in found.doses])
        top.minorticks_off()
        top.set_title(NETWORKS[network].title)
        top.set_xlabel("σ before rectification")
        top.legend(frameon=False)
        rates = 100 * shown.pooled[network][0].firing_rate.numpy()
        alone = [found.mean(each) for each in found.single]
        middle = np.array([each.value for each in alone])
        reach = [[each.value - each.low for each in alone], [each.high - each.value for each in alone]]
        bottom.errorbar(rates, middle, np.nan_to_num(reach), fmt="none", ecolor=colour, elinewidth=0.7, alpha=0.6)
        link_points(bottom, rates, middle, NETWORKS[network], "maxpool", range(len(rates)), shown.explored)
        silent = rates == 0
        bottom.plot(rates[~silent], middle[~silent], "o", color=colour, markersize=4)
        bottom.plot(rates[silent], middle[silent], "x", color=colour)
        bottom.axhline(0, color="black", linewidth=0.8, linestyle=":")
        bottom.set_xlabel("neurons that fire (%)")
    by = measure(next(iter(shown.doses.values())).labelled)
    grid[0, 0].set_ylabel(f"{by.name} (nats)")
    grid[1, 0].set_ylabel(f"{by.name} (nats),\nnoise in one channel")
    return figure


NEAR = 2.0
"""Channels match that the first block reads equally strongly up to this factor."""


def read(run: Run) -> dict[str, dict[str, Tensor]]:
    """Return how strongly convolutions of each network read the channels of the stem; see `read_strength`."""
    return {each.name: read_strength(run.net(each.name), each.readers) for each in run.networks}


def match_answer(doses: Mapping[str, NoiseDose], strengths: Mapping[str, Mapping[str, Tensor]]) -> Markdown:
    """Say how nearly the first block reads matched channels like tested ones, from what `read` returns."""
    sentences = []
    for network, found in doses.items():
        strength = strengths[network][NETWORKS[network].readers[0]]
        tested, matched = strength[list(found.tested)], strength[list(found.matched)]
        if len(matched) < len(tested):
            continue
        near = float(torch.maximum(matched / tested, tested / matched).max()) <= NEAR
        told = [
            " to ".join(dict.fromkeys(stats.number(float(end), ".2g") for end in (each.min(), each.max())))
            for each in (tested, matched)
        ]
        sentences.append(
            f"In {NETWORKS[network].title}, the next convolution reads the tested channels with {told[0]} of the mean "
            f"weight, the matched ones with {told[1]}: {'' if near else 'not '}within a factor of {NEAR:g}, one by one."
        )
        if not near:
            sentences[-1] += " So noise that goes through this convolution may differ for that reason alone."
    return points(sentences)


def dose_answer(shown: Shown) -> Markdown:
    """Say whether noise of the paper's strength matters more in silent channels than in matched ones."""
    sentences = []
    for network, found in shown.doses.items():
        title, by = NETWORKS[network].title, measure(found.labelled)
        if len(found.matched) < len(found.tested):
            sentences.append(f"In {title}, too few active channels are left to compare with.")
            continue
        loss = {group: each[found.doses.index(PAPER_DOSE)] for group, each in found.loss.items()}
        tested, gap = (found.mean(each) for each in (loss["tested"], loss["tested"] - loss["matched"]))
        words = {
            1: "more than noise in the matched active ones",
            0: "and it cannot be told whether noise in the matched active ones does more or less",
            -1: "less than noise in the matched active ones",
        }[gap.sign]
        which = _channels(len(found.tested), "inactive" if found.inactive else "least active")
        sentences.append(
            f"In {title}, noise of the paper's strength in the {which} {by.changes} by "
            f"{tested:{by.form}} nats, {words} (difference {gap:{by.form}})."
        )
        reverse = {
            dose: other
            for dose, tested, matched in zip(found.doses, found.loss["tested"], found.loss["matched"], strict=True)
            if (other := found.mean(tested - matched)).sign * gap.sign < 0
        }
        if reverse:
            at = listed([f"{dose:g} (difference {other:{by.form}})" for dose, other in reverse.items()])
            sentences[-1] += f" It is the other way round at σ = {at}."
        if not found.inactive:
            sentences[-1] += (
                " No channel of it is inactive; those that fire seldom are another matter, as their noise adds to a "
                "signal."
            )
    return answer(sentences)


def single_answer(shown: Shown) -> Markdown:
    """Say whether channels that fire less matter more or less when they are disturbed alone."""
    sentences = []
    for network, found in shown.doses.items():
        each = found.single.mean(1)
        order = stats.rank_correlation(shown.pooled[network][0].firing_rate, each)
        words = {
            1: "channels that fire more are the more sensitive ones",
            0: "it cannot be told whether channels that fire more or less are the more sensitive ones",
            -1: "channels that fire less are the more sensitive ones",
        }[order.sign]
        sentence = (
            f"In {NETWORKS[network].title}, {words}: rank correlation of firing rate and "
            f"{measure(found.labelled).name} {order}."
        )
        if found.inactive:
            mask = torch.zeros(len(each), dtype=torch.bool)
            mask[list(found.tested)] = True
            gap = stats.difference(each[mask], each[~mask])
            sentence += f" Inactive minus active channels, one by one, in nats: {gap:{measure(found.labelled).form}}."
        sentences.append(sentence)
    return answer(sentences)


# -- why noise in silence matters --------------------------------------------------------------------------------------


def why_table(found: Mapping[str, Why]) -> pd.DataFrame:
    """Return what each disturbance changes in silent and in matched active channels, nats, as text."""
    rows = [
        {
            "network": NETWORKS[network].title,
            "disturbance": VARIANTS[variant],
            "silent channels" if each.inactive else "least active channels": change["tested"].brief(
                measure(each.labelled).form
            ),
            "matched active channels": change["matched"].brief(measure(each.labelled).form),
            "difference": change["difference"].brief(measure(each.labelled).form),
        }
        for network, each in found.items()
        for variant, change in each.changes.items()
    ]
    return pd.DataFrame(rows).fillna("–").set_index(["network", "disturbance"])


def why_answer(found: Mapping[str, Why]) -> Markdown:
    """Say by which path noise in silent channels harms, and whether its mean alone would do."""
    sentences = []
    for network, each in found.items():
        title = NETWORKS[network].title
        if not each.inactive:
            sentences.append(f"{title} has no silent channel to disturb; the table shows its least active ones.")
            continue
        change, by = {variant: both["tested"] for variant, both in each.changes.items()}, measure(each.labelled)
        than = {
            1: "a constant offset of its mean does less,",
            0: "whether a constant offset of its mean does less is undecided:",
            -1: "a constant offset of its mean does more,",
        }[each.noise_minus_offset.sign]
        sentences.append(
            f"In the silent channels of {title}, noise {by.changes} by {change['noise']:{by.form}} nats; {than} "
            f"{change['offset']:{by.form}}. Noise minus offset is {each.noise_minus_offset:{by.form}}."
        )
        if "skip" in change:
            words = {
                1: "It does more by the skip of the first block than by its convolutions",
                0: "By which path of the first block it does more is undecided",
                -1: "It does more by the convolutions of the first block than by its skip",
            }[each.paths.sign]
            cut = each.changes["cut"]
            missed = {
                1: "the network misses it",
                0: "it cannot be told whether the network misses it",
                -1: "the network does better without it",
            }[cut["tested"].sign]
            sentences[-1] += f" {words}: {change['skip']:{by.form}} against {change['convolutions']:{by.form}}."
            sentences.append(
                f"To write nothing to the silent channels of {title} in the blocks of layer1 {by.changes} by "
                f"{cut['tested']:{by.form}}{f': {missed}' if each.labelled else ''}; the same cut in matched "
                f"active channels does so by {cut['matched']:{by.form}}."
            )
    return answer(sentences)
