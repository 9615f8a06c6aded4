"""How selective channels are for orientation, and whether more of them are than chance would give."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import pandas as pd
import torch
from IPython.display import Markdown
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from rfviz import stats
from rfviz.kernels.controls import DRAWS
from rfviz.kernels.responses import LayerResponses
from rfviz.kernels.tuning import Tuning
from rfviz.kernels.tuning.gabor import Gabor
from rfviz.lab import results
from rfviz.lab.run import Run
from rfviz.nets.network import Network
from rfviz.pages.style import GREY, bands, covered, place, show, stretch
from rfviz.stats import AGREES, CANNOT_TELL, DISAGREES, Interval, judge

NULL = 95
"""Percentile of a control's channels, at the same frequency, beyond which a channel is selective."""

LEAST = 0.2
"""Least selectivity of a channel that counts as selective."""

RELIABLE = 15.0
"""Degrees that the orientations which two halves of the drift prefer may be apart."""

EXAMPLES = 5

GOOD = 0.8
"""R squared from which on a Gabor describes a filter well."""


class Shown(NamedTuple):
    """What the page shows of orientation.

    Parameters
    ----------
    networks : list of Network
    tuning : dict from network and layer to Tuning
    controls : dict from network and layer to list of Tuning
        Of `DRAWS` networks with random weights.
    stimuli : dict from network and layer to LayerResponses
        For the pictures of the channels.
    gabors : dict from network and weights to list of Gabor
        None where a filter has no pattern to fit.
    """

    networks: list[Network]
    tuning: dict[str, dict[str, Tuning]]
    controls: dict[str, dict[str, list[Tuning]]]
    stimuli: dict[str, Mapping[str, LayerResponses]]
    gabors: dict[str, dict[str, list[Gabor | None]]]


def gather(runs: Sequence[Run]) -> Shown:
    """Return what the page shows: of the first run, as it shows one network of each kind."""
    run = runs[0]
    shown = Shown(run.networks, {}, {}, {}, {})
    for each in run.networks:
        name, layers = each.name, each.figure_layers
        shown.tuning[name] = {layer: results.orientation(run, name, layer) for layer in layers}
        shown.controls[name] = {layer: random(run, name, layer) for layer in layers}
        shown.stimuli[name] = results.stimuli(run, name)
        shown.gabors[name] = {kind or "trained": results.gabors(run, name, kind) for kind in (None, "random weights")}
    return shown


def random(run: Run, network: str, layer: str) -> list[Tuning]:
    """Return the tuning of a layer's channels with random weights, of `DRAWS` such networks."""
    return [results.orientation(run, network, layer, "random weights", draw) for draw in range(DRAWS)]


def selective(measured: Tuning, control: Sequence[Tuning]) -> Tensor:
    """Tell which channels are selective for orientation, as 0 or 1 `(C,)`; NaN where nothing responds.

    Selective is a channel that is more so than `NULL` % of a control's channels are at the frequency that it prefers,
    and than `LEAST`, and whose preferred orientation comes out the same, within `RELIABLE` degrees, in both halves of
    the drift. (Filters prefer high frequencies by chance, at which any filter is more selective than at low ones.)

    Parameters
    ----------
    measured : Tuning
    control : sequence of Tuning
        Of networks with random weights, taken together, with the same gratings.
    """
    by_chance = torch.cat([each.selectivities[each.responds] for each in control])
    if not len(by_chance):
        return torch.full((len(measured.blank),), torch.nan, dtype=torch.float64)
    edge = torch.nanquantile(by_chance, NULL / 100, dim=0)[measured.best[1]]  # NaN, and none passes, without a control
    found = measured.selectivity
    passes = (found > edge.clamp(min=LEAST)) & (measured.reliability <= RELIABLE)
    return torch.where(found.isfinite(), passes.double(), torch.nan)


def chance(control: Sequence[Tuning]) -> list[Tensor]:
    """Return what `selective` says of each of some networks with random weights, judged by the others."""
    return [selective(each, [*control[:i], *control[i + 1 :]]) for i, each in enumerate(control)]


def excess(measured: Tuning, control: Sequence[Tuning]) -> Interval:
    """Return the share of selective channels of a layer, minus that with random weights."""
    ours, random = stats.finite(selective(measured, control)), stats.finite(torch.cat(chance(control)))
    return stats.share_difference((int(ours.sum()), len(ours)), (int(random.sum()), len(random)))


def selective_excess(run: Run, network: str) -> Interval:
    """Return in how large a share of the figures' layers a channel is selective, minus that with random weights."""
    layers = run.network(network).figure_layers
    controls = [random(run, network, layer) for layer in layers]
    return excess_over_layers(
        [
            selective(results.orientation(run, network, layer), control)
            for layer, control in zip(layers, controls, strict=True)
        ],
        [*zip(*map(chance, controls), strict=True)],
    )


def excess_over_layers(ours: Sequence[Tensor], draws: Sequence[Sequence[Tensor]]) -> Interval:
    """Return the mean over channels of the share of layers that have something, minus that with random weights.

    A channel counts once, whatever the number of layers: skips make it much the same in all. n is that of the network.

    Parameters
    ----------
    ours : sequence of Tensor, shape (C,)
        0 or 1 per layer, NaN where a channel does not count; layers may differ in C.
    draws : sequence of sequences of Tensor
        The same of some networks with random weights.
    """
    measured, *random = (
        pad_sequence([*layers], batch_first=True, padding_value=torch.nan).nanmean(0) for layers in (ours, *draws)
    )
    return stats.difference(measured, torch.cat(random))._replace(n=len(stats.finite(measured)))


# -- figures, tables and words -----------------------------------------------------------------------------------------


def best_channels(shown: Shown, network: str) -> list[tuple[str, int]]:
    """Return layer and number of the channels that are most selective of those that count as selective."""
    found = [
        (-float(tuning.selectivity[channel]), layer, int(channel))
        for layer, tuning in shown.tuning[network].items()
        for channel in (selective(tuning, shown.controls[network][layer]) == 1).nonzero().flatten()
    ]
    return [(layer, channel) for _, layer, channel in sorted(found)[:EXAMPLES]]


def selective_channels(shown: Shown) -> Figure:
    """Draw Fig. S7: picture and tuning curve of the channels of each network that are most selective.

    Grey: at the same frequency, the mean curve of the channels of a control, each turned to where it is largest.
    """
    best = {network.title: best_channels(shown, network.name) for network in shown.networks}
    figure, drawn = bands(3.0, {title: bool(found) for title, found in best.items()}, "none is selective")
    for network in (each for each in shown.networks if each.title in drawn):
        grid = drawn[network.title].subplots(2, EXAMPLES, height_ratios=[1.2, 1])
        for ax in grid.flat:
            ax.axis("off")
        for column, (layer, channel) in zip(grid.T, best[network.title], strict=False):
            found, tuning = shown.stimuli[network.name][layer], shown.tuning[network.name][layer]
            for ax in column:
                ax.axis("on")
            assert found.strongest_count is not None
            picture = covered(stretch(found.strongest_deviation[channel])[0], found.strongest_count[channel])
            show(column[0], picture if found.competes[channel] else None, of=place(network, layer, channel))
            title = network.layer_title(layer).replace("first pooling layer", "pooling").replace("layer ", "")
            column[0].set_title(f"{title}\nch. {channel}: {tuning.selectivity[channel]:.2f}")
            _curve(column[1], tuning, shown.controls[network.name][layer], channel, network)
        grid[1, 0].set_ylabel("response /\nlargest")
    return figure


def _curve(ax: Axes, tuning: Tuning, control: Sequence[Tuning], channel: int, network: Network) -> None:
    angles, frequency = torch.tensor(tuning.gratings.orientations), int(tuning.best[1][channel])
    curve = tuning.orientation_curve[channel]
    others = torch.cat([each.strength[each.responds][:, :, frequency] for each in control])
    others = others[others.amax(1) > 0]
    shown = []
    if len(others):
        shift = [int(curve.argmax()) - int(each.argmax()) for each in others]
        turned = [each.roll(by) / each.max() for each, by in zip(others, shift, strict=True)]
        shown.append((torch.stack(turned).mean(0), "--", GREY))
    for values, style, colour in (*shown, (curve / curve.max(), "-", network.colour)):
        ax.plot([*angles.tolist(), 180], [*values.tolist(), float(values[0])], style, color=colour)
    ax.set(ylim=(-0.05, 1.1), xlim=(0, 180), xticks=[0, 90, 180], yticks=[0, 1])
    ax.set_xlabel("bars (°)")


def selectivity_table(shown: Shown) -> pd.DataFrame:
    """Return how many channels are selective, beside random weights, per network and layer, as text."""
    rows = []
    for network in shown.networks:
        for layer, tuning in shown.tuning[network.name].items():
            control = shown.controls[network.name][layer]
            found = stats.finite(selective(tuning, control))
            by_chance = stats.finite(torch.cat(chance(control)))
            rows.append(
                {
                    "network": network.title,
                    "layer": network.layer_title(layer),
                    "selective": f"{found.sum():.0f} of {len(found)}",
                    "random weights": f"{by_chance.sum():.0f} of {len(by_chance)}",
                    "median selectivity": stats.median(tuning.selectivity).brief(".2f"),
                    "random weights: median": stats.median(torch.cat([each.selectivity for each in control])).brief(
                        ".2f"
                    ),
                }
            )
    return pd.DataFrame(rows).set_index(["network", "layer"])


def verdicts(found: Mapping[str, Interval], more: str, fewer: str) -> str:
    """Return intervals by the title of a layer, each with what `rfviz.stats.judge` says of it."""
    words = {AGREES: more, DISAGREES: fewer, CANNOT_TELL: "undecided"}
    return "; ".join(f"{title} {interval:+.0%}, {words[judge(interval)]}" for title, interval in found.items())


def selectivity_answer(shown: Shown) -> Markdown:
    """Say whether more channels are selective than chance would give, and how well Gabors describe the filters."""
    lines = ["**Answer.** The share of selective channels, minus that with random weights:\n"]
    for network in shown.networks:
        found = {
            network.layer_title(layer): excess(tuning, shown.controls[network.name][layer])
            for layer, tuning in shown.tuning[network.name].items()
        }
        lines.append(
            f"- {network.title}: {verdicts(found, 'more than chance', 'fewer than chance')}. A Gabor explains "
            f"{GOOD:.0%} or more of the strongest profile of {_good(shown.gabors[network.name]['trained'])} first "
            f"filters (random weights: {_good(shown.gabors[network.name]['random weights'])})."
        )
    return Markdown("\n".join(lines))


def _good(found: Sequence[Gabor | None]) -> str:
    return f"{sum(each is not None and each.goodness >= GOOD for each in found)} of {len(found)}"
